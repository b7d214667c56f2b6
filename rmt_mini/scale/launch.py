"""The accelerate command of a preset, for one GPU, one node, or several: those of accelerate/setups.yaml."""

import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from rmt_mini.config import RMTConfig
from rmt_mini.config import preset as preset_config
from rmt_mini.errors import UserError
from rmt_mini.scale.settings import CONFIGS, UNUSED, ScaleSettings, micro_steps, require_installed, require_supported

DATA = yaml.safe_load((CONFIGS / "setups.yaml").read_text(encoding="utf-8"))
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
    """Return the named setup, else the preset's, with ``given`` ScaleSettings and with numbers that are not 0.

    Example:
        >>> setup_for("gpu").gpus, setup_for("paper", gpus=4).machines
        (1, 2)
    """
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

    Example:
        >>> made = commands(preset_config("gpu", steps=3), setup_for("gpu"))
        >>> print(shlex.join(made["here"][4:]))
        --num_processes 1 -m rmt_mini.scale.train gpu --changes '{"steps": 3}'
    """
    require_supported(config)
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
