"""The accelerate command of a preset, for one GPU, one node, or several: those of accelerate/setups.yaml."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from rmt_mini.config import RMTConfig
from rmt_mini.config import preset as preset_config
from rmt_mini.errors import UserError
from rmt_mini.scale.settings import CONFIGS, UNUSED, ScaleSettings, micro_steps, require_installed, require_supported

DATA = yaml.safe_load((CONFIGS / "setups.yaml").read_text(encoding="utf-8"))
UNKNOWN = {"MAIN_ADDRESS": "--main-address", "VLLM_ADDRESS": "--server"}  # filled in where a command is printed
OF_ENGINE = {"server": "vllm-server", "gpu_memory": "vllm-colocate", "tensor_parallel": "vllm-colocate"}


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a run takes place."""

    config: str  # file of accelerate's
    gpus: int  # processes on a machine
    machines: int = 1
    scale: Mapping[str, Any] = field(default_factory=dict)  # where ScaleSettings differ from their defaults
    packages: Sequence[str] = ()


SETUPS = {name: Setup(**found) for name, found in DATA["setups"].items()}


@dataclass(frozen=True, slots=True)
class Commands:
    """What to type."""

    server: tuple[str, ...] | None  # command of the vLLM server, on its own node
    train: tuple[tuple[str, ...], ...]  # command of each training machine, by rank
    packages: Sequence[str] = ()  # that training needs beside the extra

    def lines(self) -> list[str]:
        """Return the commands as one would type them, each under a comment that says where."""
        lines = [] if self.server is None else ["# on the node that samples:", shlex.join(self.server)]
        for rank, command in enumerate(self.train):
            where = f"# on training node {rank}:" if len(self.train) > 1 else "# here:"
            lines += [where, shlex.join(command)]
        return lines


def setup_for(preset: str, name: str = "", gpus: int = 0, machines: int = 0) -> Setup:
    """Return the named setup, else the preset's, with other numbers of GPUs and machines where they are not 0.

    Example:
        >>> setup_for("gpu").gpus, setup_for("paper", gpus=4).machines
        (1, 2)
    """
    chosen = name or DATA["defaults"].get(preset, "one-gpu")
    if chosen not in SETUPS:
        raise UserError(f"setup {chosen!r} is unknown; use one of {', '.join(SETUPS)}")
    base = SETUPS[chosen]
    setup = dataclasses.replace(base, gpus=gpus or base.gpus, machines=machines or base.machines)
    if setup.machines > 1 and base.machines == 1:
        raise UserError(f"machines is {setup.machines}, and setup {chosen!r} is for one; use --setup nodes")
    if chosen == "one-gpu" and setup.gpus > 1:
        raise UserError(f"gpus is {setup.gpus}, and setup 'one-gpu' is for one; use --setup one-node")
    return setup


def scale_settings(preset: str, setup: Setup, given: Mapping[str, Any]) -> ScaleSettings:
    """Return how a preset's work is distributed in a setup, with what was given instead of the defaults."""
    own = DATA["presets"].get(preset, {}).get(setup.config, {})
    return ScaleSettings(**{**setup.scale, **own, **given})


def _words(command: str, **values: object) -> list[str]:
    return [word.format(**values) for word in shlex.split(DATA[command])]


def commands(config: RMTConfig, setup: Setup, scale: ScaleSettings, main_address: str = "") -> Commands:
    """Write the commands of a run; what differs from the preset's settings and the default scale is passed as JSON.

    Example:
        >>> made = commands(preset_config("gpu", steps=3), SETUPS["one-gpu"], ScaleSettings())
        >>> print(shlex.join(made.train[0][4:]))
        --num_processes 1 -m rmt_mini.scale.train gpu --changes '{"steps": 3}'
    """
    require_supported(config)
    processes = setup.gpus * setup.machines
    micro_steps(config, scale.micro_batch, processes)
    if main_address and setup.machines == 1:
        raise UserError("main_address is of use with several machines only; leave it out, or give --machines")
    own = _words("trainer", preset=config.preset)
    usual = {"--changes": (config, preset_config(config.preset)), "--scale": (scale, ScaleSettings())}
    for flag, (given, plain) in usual.items():
        differs = {name: value for name, value in given.to_dict().items() if value != getattr(plain, name)}
        for name in differs:
            if name in UNUSED:
                raise UserError(f"{name} has no effect on TRL, which only trains; leave it out")
            if OF_ENGINE.get(name, scale.engine) != scale.engine:
                raise UserError(f"{name} is of use with engine {OF_ENGINE[name]!r} only, and this is {scale.engine!r}")
        own += [flag, json.dumps(differs)] if differs else []
    train, address = [], main_address or "MAIN_ADDRESS"
    for rank in range(setup.machines):
        words = _words("train", config=CONFIGS / setup.config, processes=processes)
        if setup.machines > 1:
            words += _words("machine", machines=setup.machines, rank=rank, address=address)
        train.append((*words, *own))
    port = scale.server.rpartition(":")[2]
    server = _words("server", model=config.model, port=port, gpus=setup.gpus)
    return Commands(tuple(server) if scale.engine == "vllm-server" else None, tuple(train), setup.packages)


def start(made: Commands, scale: ScaleSettings, rank: int = 0) -> int:
    """Run the command of training machine ``rank`` here, wait for it, and return its exit code."""
    if not 0 <= rank < len(made.train):
        raise UserError(f"machine_rank is {rank}; give 0 to {len(made.train) - 1}")
    require_installed(scale.engine, made.packages)
    for word, flag in UNKNOWN.items():
        if any(word in part for part in made.train[rank]):
            raise UserError(f"{word} is not known; give {flag}")
    # by this very Python, whatever else is on the path
    command = [sys.executable, "-m", "accelerate.commands.launch", *made.train[rank][2:]]
    return subprocess.run(command, check=False).returncode
