"""RMTConfig as TRL's GRPOConfig, and how the work is distributed. What TRL does not support is refused in one line."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from rmt_mini.config import Count, Natural, Part, RMTConfig, Settings, Switch, group
from rmt_mini.errors import UserError

Address = Annotated[str, Field(title="host:port, such as 10.0.0.2:8000", pattern=r"^.+:\d+$")]
CONFIGS = Path(__file__).parent / "accelerate"
TABLE = yaml.safe_load((CONFIGS / "grpo.yaml").read_text(encoding="utf-8"))
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
    remedies = dict.fromkeys(("trl", "accelerate", "peft", "datasets"), "pip install 'rmt-mini[scale]'")
    remedies |= {name: f"this setup needs it: pip install {name}" for name in packages}
    if engine != "transformers":
        remedies["vllm"] = f"engine {engine!r} needs it: pip install 'trl[vllm]', or use --engine transformers"
    for name, remedy in remedies.items():
        if importlib.util.find_spec(name) is None:
            raise UserError(f"package {name!r} is not installed; {remedy}")


def require_supported(config: RMTConfig) -> None:
    """Raise a UserError for a setting that this trainer would not follow."""
    for name, only in TABLE["only"].items():
        if (value := getattr(config, name)) != only:
            raise UserError(f"{name} is {value!r}; on TRL it can only be {only!r}: use rmt-mini run for others")
    if config.warmup_steps:
        where = "the cold start runs on one machine: give its checkpoint with --model, and --warmup-steps 0"
        raise UserError(f"warmup_steps is {config.warmup_steps}; {where}")


def micro_steps(config: RMTConfig, micro_batch: int, processes: int) -> int:
    """Return how many passes a process makes on a step's rollouts, or raise a UserError if the division is uneven.

    Example:
        >>> micro_steps(RMTConfig(documents_per_step=4, positions_per_document=2, group_size=8), 4, processes=2)
        8
    """
    rollouts = config.documents_per_step * config.positions_per_document * config.group_size
    steps, left = divmod(rollouts, micro_batch * processes)
    if left or not steps:
        raise UserError(
            f"micro_batch is {micro_batch}; the {rollouts} rollouts of a step cannot be divided evenly over "
            f"{processes} processes times it: choose another, or other documents_per_step"
        )
    return steps


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
        "bf16": not settings.cpu and config.dtype in ("auto", "bfloat16"),
        "save_strategy": "steps" if config.save_every else "no",
        "save_steps": max(1, config.save_every) * config.updates_per_step,
    }
    if settings.engine != "transformers":
        host, _, port = settings.server.rpartition(":")
        arguments |= {theirs: getattr(settings, ours) for theirs, ours in TABLE["vllm"].items()}
        arguments |= {"use_vllm": True, "vllm_mode": settings.engine.removeprefix("vllm-")}
        arguments |= {"vllm_server_host": host, "vllm_server_port": int(port), "vllm_max_model_length": longest}
    return arguments
