"""The accelerate command of a preset, for one GPU, one node, or several.

    setup      processes                        what samples                    accelerate/
    cpu        2 on this machine, gloo          transformers' generate          cpu.yaml
    one-gpu    1                                transformers' generate          one_gpu.yaml
    one-node   as many as GPUs, ZeRO-3          vLLM on the same GPUs           one_node.yaml
    nodes      machines x GPUs, ZeRO-3          a vLLM server on its own node   nodes.yaml

Nothing here imports TRL: printing a command needs no extra.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmt_mini.config import PRESETS, RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.scale.settings import ScaleSettings, micro_steps, require_carried, require_installed

CONFIGS = Path(__file__).parent / "accelerate"


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a run takes place.

    Attributes:
        config: file of accelerate's.
        engine: what samples; see ScaleSettings.
        gpus: processes on a machine.
        machines: that train.
    """

    config: str
    engine: str
    gpus: int
    machines: int = 1


SETUPS = {
    "cpu": Setup("cpu.yaml", "transformers", 2),
    "one-gpu": Setup("one_gpu.yaml", "transformers", 1),
    "one-node": Setup("one_node.yaml", "vllm-colocate", 8),
    "nodes": Setup("nodes.yaml", "vllm-server", 8, 2),
}
SHARDED = ("one_node.yaml", "nodes.yaml")  # by DeepSpeed
DEFAULTS = {"gpu": "one-gpu", "paper": "nodes"}
# Fields of a run that only the document tree's trainer, or a measurement, reads.
UNUSED = (
    "branch_tokens", "device", "evaluation_documents", "evaluation_positions", "evaluation_thresholds",
    "preflight_positions", "rollouts_logged", "state_seconds", "warmup_learning_rate", "warmup_positions",
)  # fmt: skip
UNKNOWN_MAIN, UNKNOWN_SERVER = "MAIN_ADDRESS", "VLLM_ADDRESS"  # to be filled in where a command is printed
SPREADS: dict[tuple[str, str], dict[str, Any]] = {  # else ScaleSettings' own; by the plan of docs/scale.md
    ("paper", "one_node.yaml"): {"micro_batch": 4, "tensor_parallel": 2, "gpu_memory": 0.4},
}


@dataclass(frozen=True, slots=True)
class Commands:
    """What is to be typed.

    Attributes:
        server: command of the vLLM server, on its own node; None without one.
        train: command of each training machine, in the order of their ranks.
        packages: that training needs beside the extra.
    """

    server: tuple[str, ...] | None
    train: tuple[tuple[str, ...], ...]
    packages: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the commands as one would type them, each under a comment that says where."""
        said = [] if self.server is None else ["# on the node that samples:", shlex.join(self.server)]
        for rank, command in enumerate(self.train):
            where = f"# on training node {rank}:" if len(self.train) > 1 else "# here:"
            said += [where, shlex.join(command)]
        return said


def setup_for(preset: str, name: str = "", gpus: int = 0, machines: int = 0) -> Setup:
    """Return a preset's setup, or the one that is named, with numbers of GPUs and machines of one's own.

    Args:
        preset: of PRESETS.
        name: of SETUPS; empty takes the preset's.
        gpus: on a machine; 0 takes the setup's.
        machines: 0 takes the setup's.

    Raises:
        UserError: for an unknown setup, or numbers that it does not have.

    Example:
        >>> setup_for("gpu"), setup_for("paper", gpus=4).machines
        (Setup(config='one_gpu.yaml', engine='transformers', gpus=1, machines=1), 2)
    """
    chosen = name or DEFAULTS.get(preset, "one-gpu")
    if chosen not in SETUPS:
        raise UserError(f"setup {chosen!r} is unknown; use one of {', '.join(SETUPS)}")
    base = SETUPS[chosen]
    setup = Setup(base.config, base.engine, gpus or base.gpus, machines or base.machines)
    if setup.machines > 1 and base.machines == 1:
        raise UserError(f"machines is {setup.machines}, and setup {chosen!r} is for one; use --setup nodes")
    if chosen == "one-gpu" and setup.gpus > 1:
        raise UserError(f"gpus is {setup.gpus}, and setup 'one-gpu' is for one; use --setup one-node")
    return setup


def scale_settings(preset: str, setup: Setup, given: dict[str, Any]) -> ScaleSettings:
    """Return how a preset's work is spread in a setup, with what was given instead of the defaults."""
    fields: dict[str, Any] = {"engine": setup.engine}
    fields |= SPREADS.get((preset, setup.config), {})
    if setup.config == "cpu.yaml":
        fields |= {"cpu": True, "checkpointing": False}
    if setup.engine == "vllm-server":
        fields["server"] = f"{UNKNOWN_SERVER}:8000"
    return ScaleSettings.from_dict(fields | given)


def commands(config: RMTConfig, setup: Setup, scale: ScaleSettings, main_address: str = "") -> Commands:
    """Write the commands of a run.

    Args:
        config: of the method; what differs from its preset goes along.
        setup: where it runs.
        scale: how the work is spread.
        main_address: of training node 0, where there are several; empty leaves it to be filled in.

    Returns:
        The commands.

    Raises:
        UserError: for settings that TRL does not carry, or rollouts that do not share out evenly.

    Example:
        >>> from rmt_mini.config import preset
        >>> made = commands(preset("gpu", steps=3), SETUPS["one-gpu"], ScaleSettings())
        >>> print(shlex.join(made.train[0][4:]))
        --num_processes 1 -m rmt_mini.scale.train gpu --changes '{"steps": 3}'
    """
    require_carried(config)
    micro_steps(config, scale.micro_batch, setup.gpus * setup.machines)
    usual, plain = RMTConfig(preset=config.preset, **PRESETS[config.preset]).to_dict(), ScaleSettings().to_dict()
    changes = {name: value for name, value in config.to_dict().items() if value != usual[name]}
    idle = [name for name in changes if name in UNUSED]
    if idle:
        raise UserError(f"{idle[0]} has no effect on TRL, which only trains; leave it out")
    if main_address and setup.machines == 1:
        raise UserError("main_address is of use with several machines only; leave it out, or give --machines")
    spread = {name: value for name, value in scale.to_dict().items() if value != plain[name]}
    for engine, names in {"vllm-server": ("server",), "vllm-colocate": ("gpu_memory", "tensor_parallel")}.items():
        for name in names:
            if name in spread and scale.engine != engine:
                raise UserError(f"{name} is of use with engine {engine!r} only, and this is {scale.engine!r}")
    own = [config.preset]
    for flag, values in (("--changes", changes), ("--scale", spread)):
        own += [flag, json.dumps(values)] if values else []
    train = []
    for rank in range(setup.machines):
        words = ["accelerate", "launch", "--config_file", str(CONFIGS / setup.config)]
        words += ["--num_processes", str(setup.gpus * setup.machines)]
        if setup.machines > 1:
            words += ["--num_machines", str(setup.machines), "--machine_rank", str(rank)]
            words += ["--main_process_ip", main_address or UNKNOWN_MAIN]
        train.append((*words, "-m", "rmt_mini.scale.train", *own))
    server: tuple[str, ...] | None = None
    if scale.engine == "vllm-server":
        # as TRL wants it served: weights pushed over NCCL, log-probabilities after the temperature
        server = ("env", "VLLM_SERVER_DEV_MODE=1", "vllm", "serve", config.model)
        server += ("--host", "0.0.0.0", "--port", scale.server.rpartition(":")[2])
        server += ("--tensor-parallel-size", str(setup.gpus), "--weight-transfer-config", '{"backend": "nccl"}')
        server += ("--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1")
    return Commands(server, tuple(train), ("deepspeed",) if setup.config in SHARDED else ())


def start(made: Commands, scale: ScaleSettings, rank: int = 0) -> int:
    """Run one training machine's command here and wait for it.

    Args:
        made: from ``commands``.
        scale: how the work is spread.
        rank: of this machine.

    Returns:
        Its exit code.

    Raises:
        UserError: where a package is missing, or there is no such machine.
    """
    if not 0 <= rank < len(made.train):
        raise UserError(f"machine_rank is {rank}; give 0 to {len(made.train) - 1}")
    require_installed(scale.engine, made.packages)
    for word, flag in ((UNKNOWN_MAIN, "--main-address"), (UNKNOWN_SERVER, "--server")):
        if any(word in part for part in made.train[rank]):
            raise UserError(f"{word} is not known; give {flag}")
    return subprocess.run(here(made.train[rank]), check=False).returncode


def here(command: Sequence[str]) -> list[str]:
    """Return a command that this very Python runs, whatever else is on the path.

    Example:
        >>> here(["accelerate", "launch", "x.py"])[1:]
        ['-m', 'accelerate.commands.launch', 'x.py']
    """
    program, subcommand, *rest = command
    assert (program, subcommand) == ("accelerate", "launch")
    return [sys.executable, "-m", "accelerate.commands.launch", *rest]
