"""RMTConfig as TRL's GRPOConfig, how the work is distributed, and the accelerate command that starts it.

What TRL does not support is refused in one line. The command is for one GPU, one node, or several: those of
accelerate/setups.yaml.
"""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from rmt_mini.config import Count, Natural, Part, RMTConfig, Settings, Switch, data, group
from rmt_mini.config import preset as preset_config
from rmt_mini.errors import UserError, require_package

Address = Annotated[str, Field(title="host:port, such as 10.0.0.2:8000", pattern=r"^.+:\d+$")]
CONFIGS = Path(__file__).parent / "accelerate"
TABLE = data("scale/accelerate/grpo.yaml")
UNUSED: list[str] = TABLE["unused"]
_work, _sampling = group("How the work is distributed"), group("What samples")


class ScaleSettings(Settings):
    """How the work of a step is distributed; the result does not depend on it."""

    micro_batch: Count = _work(8, "rollouts in one pass of a process")
    lora_rank: Natural = _work(0, "train only adapters of this rank; 0: all weights")
    checkpointing: Switch = _work(True, "recompute activations: less memory, a third more time")
    cpu: Switch = _work(False, "use no GPU")
    engine: Literal["transformers", "vllm-colocate", "vllm-server"] = _sampling("transformers", "or by the setup")
    server: Address = _sampling("127.0.0.1:8000", "host:port of the vLLM server")
    gpu_memory: Part = _sampling(0.3, "share of a GPU that a colocated vLLM takes")
    tensor_parallel: Count = _sampling(1, "GPUs that share one colocated vLLM")


def require_installed(engine: str, packages: Sequence[str] = ()) -> None:
    """Raise a UserError that says how to install what a run needs and is missing."""
    for name in ("trl", "accelerate", "peft", "datasets"):
        require_package(name, "training on TRL", "pip install -e '.[scale]'")
    for name in packages:
        require_package(name, "this setup", f"pip install {name}")
    if engine != "transformers":
        require_package("vllm", f"engine {engine!r}", "pip install 'trl[vllm]', or use --engine transformers")


def require_supported(config: RMTConfig, cpu: bool = False) -> None:
    """Raise a UserError for a setting that this trainer would not follow, on a CPU or not."""
    for name, only in TABLE["only"].items():
        if (value := getattr(config, name)) != only:
            raise UserError(f"{name} is {value!r}; on TRL it can only be {only!r}: use rmt-mini run for others")
    if config.dtype == "float64" or (cpu and config.dtype == "bfloat16"):
        raise UserError(f"dtype is {config.dtype!r}, and TRL computes in float32{'' if cpu else ' or bfloat16'} here")
    if config.warmup_steps:
        where = "the cold start runs on one machine: give its checkpoint with --model, and --warmup-steps 0"
        raise UserError(f"warmup_steps is {config.warmup_steps}; {where}")


def micro_steps(config: RMTConfig, micro_batch: int, processes: int) -> int:
    """Return how many passes a process makes on a step's rollouts, or raise a UserError if the division is uneven."""
    rollouts = config.documents_per_step * config.positions_per_document * config.group_size
    steps, left = divmod(rollouts, micro_batch * processes)
    if left or not steps:
        raise UserError(
            f"micro_batch is {micro_batch}; the {rollouts} rollouts of a step cannot be divided evenly over "
            f"{processes} processes times it: choose another, or other documents_per_step"
        )
    return steps


def in_bfloat16(config: RMTConfig, settings: ScaleSettings) -> bool:
    """Whether products are computed in bfloat16, beside weights in float32."""
    return not settings.cpu and config.dtype in ("auto", "bfloat16")


def grpo_settings(config: RMTConfig, settings: ScaleSettings, longest: int, out: str) -> dict[str, Any]:
    """Return the arguments of TRL's GRPOConfig for a run in folder ``out``; ``longest`` row in tokens."""
    passes = micro_steps(config, settings.micro_batch, int(os.environ.get("WORLD_SIZE", "1")))  # set by accelerate
    arguments: dict[str, Any] = {
        **TABLE["fixed"],
        **{theirs: getattr(config, ours) for theirs, ours in TABLE["config"].items()},
        **{theirs: getattr(settings, ours) for theirs, ours in TABLE["scale"].items()},
        "output_dir": out,
        "max_steps": config.steps * config.updates_per_step,
        "gradient_accumulation_steps": passes,
        "steps_per_generation": passes,
        "max_completion_length": longest - config.document_tokens,
        # a mean over the sampled tokens of the whole step, or the paper's sum over a rollout
        "loss_type": "dapo" if config.loss_per == "token" else "luspo",
        "epsilon": config.clip_epsilon or 0.2,  # off means one update, where the ratio is 1 and nothing is clipped
        "bf16": in_bfloat16(config, settings),
        "save_strategy": "steps" if config.save_every else "no",
        "save_steps": max(1, config.save_every) * config.updates_per_step,
    }
    if settings.engine != "transformers":
        host, _, port = settings.server.rpartition(":")
        arguments |= {theirs: getattr(settings, ours) for theirs, ours in TABLE["vllm"].items()}
        arguments |= {"use_vllm": True, "vllm_mode": settings.engine.removeprefix("vllm-")}
        arguments |= {"vllm_server_host": host, "vllm_server_port": int(port), "vllm_max_model_length": longest}
    return arguments


DATA = data("scale/accelerate/setups.yaml")
SETUPS = DATA["setups"]
UNKNOWN = {"MAIN_ADDRESS": "--main-address", "VLLM_ADDRESS": "--server"}  # filled in where a command is printed
OF_ENGINE = {"server": "vllm-server", "gpu_memory": "vllm-colocate", "tensor_parallel": "vllm-colocate"}


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a run takes place."""

    config: str  # file of accelerate's
    gpus: int  # processes on a machine
    machines: int
    scale: ScaleSettings
    packages: Sequence[str]  # that training needs beside the extra


def setup_for(preset: str, name: str = "", gpus: int = 0, machines: int = 0, **given: Any) -> Setup:
    """Return the named setup, else the preset's, with ``given`` ScaleSettings and with numbers that are not 0."""
    chosen = name or DATA["defaults"].get(preset, "one-gpu")
    if chosen not in SETUPS:
        raise UserError(f"setup {chosen!r} is unknown; use one of {', '.join(SETUPS)}")
    base = {"machines": 1, "scale": {}, "packages": (), **SETUPS[chosen]}
    if machines > 1 and base["machines"] == 1:
        raise UserError(f"machines is {machines}, and setup {chosen!r} is for one; use --setup nodes")
    if chosen == "one-gpu" and gpus > 1:
        raise UserError(f"gpus is {gpus}, and setup 'one-gpu' is for one; use --setup one-node")
    own = DATA["presets"].get(preset, {}).get(base["config"], {})
    scale = ScaleSettings(**{**base["scale"], **own, **given})
    return Setup(**base | {"scale": scale, "gpus": gpus or base["gpus"], "machines": machines or base["machines"]})


def commands(config: RMTConfig, setup: Setup, main_address: str = "") -> dict[str, list[str]]:
    """Return the commands of a run by where to type them: the vLLM server's, if any, then training machines by rank.

    What differs from the preset's settings and the default scale is passed as JSON.
    """
    require_supported(config, setup.scale.cpu)
    scale, processes = setup.scale, setup.gpus * setup.machines
    micro_steps(config, scale.micro_batch, processes)
    if main_address and setup.machines == 1:
        raise UserError("main_address is of use with several machines only; leave it out, or give --machines")
    own = []
    usual = {"--changes": (config, preset_config(config.preset)), "--scale": (scale, ScaleSettings())}
    for flag, (given, plain) in usual.items():
        differs = {name: value for name, value in given if value != getattr(plain, name)}
        for name in differs:
            if name in UNUSED:
                raise UserError(f"{name} has no effect on TRL, which only trains; leave it out")
            if OF_ENGINE.get(name, scale.engine) != scale.engine:
                raise UserError(f"{name} is of use with engine {OF_ENGINE[name]!r} only, and this is {scale.engine!r}")
        own += [flag, json.dumps(differs)] if differs else []

    values = {"config": CONFIGS / setup.config, "processes": processes, "preset": config.preset, "model": config.model}
    values |= {"machines": setup.machines, "address": main_address or "MAIN_ADDRESS", "gpus": setup.gpus}
    values["port"] = scale.server.rpartition(":")[2]
    parts = ("train", "machine", "trainer") if setup.machines > 1 else ("train", "trainer")

    def words(*names: str, rank: int = 0) -> list[str]:
        return [word.format(rank=rank, **values) for name in names for word in shlex.split(DATA[name])]

    made = {"on the node that samples": words("server")} if scale.engine == "vllm-server" else {}
    for rank in range(setup.machines):
        place = f"on training node {rank}" if setup.machines > 1 else "here"
        made[place] = [*words(*parts, rank=rank), *own]
    return made


def start(made: Mapping[str, Sequence[str]], setup: Setup, rank: int = 0) -> int:
    """Run the command of training machine ``rank`` here, wait for it, and return its exit code."""
    if not 0 <= rank < setup.machines:
        raise UserError(f"machine_rank is {rank}; give 0 to {setup.machines - 1}")
    require_installed(setup.scale.engine, setup.packages)
    command = [*made.values()][rank - setup.machines]
    for word, flag in UNKNOWN.items():
        if any(word in part for part in command):
            raise UserError(f"{word} is not known; give {flag}")
    # by this very Python, whatever else is on the path
    return subprocess.run([sys.executable, "-m", "accelerate.commands.launch", *command[2:]], check=False).returncode
