"""The accelerate command of a preset, for one GPU, one node, or several.

    setup      processes                    what samples                    accelerate/
    cpu        2 on this machine, gloo      transformers' generate          cpu.yaml
    one-gpu    1                            transformers' generate          one_gpu.yaml
    one-node   as many as GPUs, ZeRO-3      vLLM on the same GPUs           one_node.yaml
    nodes      machines x GPUs, ZeRO-3      a vLLM server on its own node   nodes.yaml

Nothing here imports TRL: printing a command needs no extra.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from rmt_mini.config import RMTConfig
from rmt_mini.config import preset as preset_config
from rmt_mini.errors import UserError
from rmt_mini.scale.settings import CONFIGS, UNUSED, ScaleSettings, micro_steps, require_installed, require_supported


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a run takes place."""

    config: str  # file of accelerate's
    engine: str  # what samples
    gpus: int  # processes on a machine
    machines: int = 1


SETUPS = {
    "cpu": Setup("cpu.yaml", "transformers", 2),
    "one-gpu": Setup("one_gpu.yaml", "transformers", 1),
    "one-node": Setup("one_node.yaml", "vllm-colocate", 8),
    "nodes": Setup("nodes.yaml", "vllm-server", 8, 2),
}
DEFAULTS = {"gpu": "one-gpu", "paper": "nodes"}
UNKNOWN_MAIN, UNKNOWN_SERVER = "MAIN_ADDRESS", "VLLM_ADDRESS"  # to be filled in where a command is printed
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {  # where they differ from the defaults of ScaleSettings
    ("paper", "one_node.yaml"): {"micro_batch": 4, "tensor_parallel": 2, "gpu_memory": 0.4},
}
OF_ENGINE = {"server": "vllm-server", "gpu_memory": "vllm-colocate", "tensor_parallel": "vllm-colocate"}


@dataclass(frozen=True, slots=True)
class Commands:
    """What to type."""

    server: tuple[str, ...] | None  # command of the vLLM server, on its own node
    train: tuple[tuple[str, ...], ...]  # command of each training machine, by rank
    packages: tuple[str, ...] = ()  # that training needs beside the extra

    def lines(self) -> list[str]:
        """Return the commands as one would type them, each under a comment that says where."""
        lines = [] if self.server is None else ["# on the node that samples:", shlex.join(self.server)]
        for rank, command in enumerate(self.train):
            where = f"# on training node {rank}:" if len(self.train) > 1 else "# here:"
            lines += [where, shlex.join(command)]
        return lines


def setup_for(preset: str, name: str = "", gpus: int = 0, machines: int = 0) -> Setup:
    """Return the named setup, else the preset's, with other numbers of GPUs and machines where they are not 0.

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
    setup = dataclasses.replace(base, gpus=gpus or base.gpus, machines=machines or base.machines)
    if setup.machines > 1 and base.machines == 1:
        raise UserError(f"machines is {setup.machines}, and setup {chosen!r} is for one; use --setup nodes")
    if chosen == "one-gpu" and setup.gpus > 1:
        raise UserError(f"gpus is {setup.gpus}, and setup 'one-gpu' is for one; use --setup one-node")
    return setup


def scale_settings(preset: str, setup: Setup, given: dict[str, Any]) -> ScaleSettings:
    """Return how a preset's work is distributed in a setup, with what was given instead of the defaults."""
    fields = {"engine": setup.engine} | SETTINGS.get((preset, setup.config), {})
    if setup.config == "cpu.yaml":
        fields |= {"cpu": True, "checkpointing": False}
    if setup.engine == "vllm-server":
        fields["server"] = f"{UNKNOWN_SERVER}:8000"
    return ScaleSettings.from_dict(fields | given)


def commands(config: RMTConfig, setup: Setup, scale: ScaleSettings, main_address: str = "") -> Commands:
    """Write the commands of a run; what differs from the preset's settings and the default scale is passed as JSON.

    Raises:
        UserError: for settings that TRL does not support, or rollouts that cannot be divided evenly.

    Example:
        >>> made = commands(preset_config("gpu", steps=3), SETUPS["one-gpu"], ScaleSettings())
        >>> print(shlex.join(made.train[0][4:]))
        --num_processes 1 -m rmt_mini.scale.train gpu --changes '{"steps": 3}'
    """
    require_supported(config)
    processes = setup.gpus * setup.machines
    micro_steps(config, scale.micro_batch, processes)
    usual, plain = preset_config(config.preset).to_dict(), ScaleSettings().to_dict()
    changes = {name: value for name, value in config.to_dict().items() if value != usual[name]}
    if unused := [name for name in changes if name in UNUSED]:
        raise UserError(f"{unused[0]} has no effect on TRL, which only trains; leave it out")
    if main_address and setup.machines == 1:
        raise UserError("main_address is of use with several machines only; leave it out, or give --machines")
    spread = {name: value for name, value in scale.to_dict().items() if value != plain[name]}
    for name, engine in OF_ENGINE.items():
        if name in spread and scale.engine != engine:
            raise UserError(f"{name} is of use with engine {engine!r} only, and this is {scale.engine!r}")
    own = ["-m", "rmt_mini.scale.train", config.preset]
    for flag, values in (("--changes", changes), ("--scale", spread)):
        own += [flag, json.dumps(values)] if values else []
    train = []
    for rank in range(setup.machines):
        words = ["accelerate", "launch", "--config_file", str(CONFIGS / setup.config), "--num_processes"]
        words += [str(processes)]
        if setup.machines > 1:
            words += ["--num_machines", str(setup.machines), "--machine_rank", str(rank)]
            words += ["--main_process_ip", main_address or UNKNOWN_MAIN]
        train.append((*words, *own))
    server: tuple[str, ...] | None = None
    if scale.engine == "vllm-server":
        # as TRL wants it served: weights pushed over NCCL, log-probabilities after the temperature
        server = ("env", "VLLM_SERVER_DEV_MODE=1", "vllm", "serve", config.model)
        server += ("--host", "0.0.0.0", "--port", scale.server.rpartition(":")[2])
        server += ("--tensor-parallel-size", str(setup.gpus), "--weight-transfer-config", '{"backend": "nccl"}')
        server += ("--logprobs-mode", "processed_logprobs", "--max-logprobs", "-1")
    sharded = setup.config in ("one_node.yaml", "nodes.yaml")
    return Commands(server, tuple(train), ("deepspeed",) if sharded else ())


def start(made: Commands, scale: ScaleSettings, rank: int = 0) -> int:
    """Run the command of training machine ``rank`` here, wait for it, and return its exit code.

    Raises:
        UserError: where a package is missing, or there is no such machine.
    """
    if not 0 <= rank < len(made.train):
        raise UserError(f"machine_rank is {rank}; give 0 to {len(made.train) - 1}")
    require_installed(scale.engine, made.packages)
    for word, flag in ((UNKNOWN_MAIN, "--main-address"), (UNKNOWN_SERVER, "--server")):
        if any(word in part for part in made.train[rank]):
            raise UserError(f"{word} is not known; give {flag}")
    # by this very Python, whatever else is on the path
    command = [sys.executable, "-m", "accelerate.commands.launch", *made.train[rank][2:]]
    return subprocess.run(command, check=False).returncode
