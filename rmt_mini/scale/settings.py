"""RMTConfig as TRL's GRPOConfig, and how the work is spread.

One configuration drives both trainers. What TRL cannot carry is refused in one line rather than left out in silence.

    RMTConfig                        GRPOConfig
    steps, updates_per_step          max_steps = steps * updates_per_step, num_iterations
    group_size                       num_generations
    learning_rate, weight_decay      the same, constant, AdamW with betas 0.9 and 0.95 as in stages/optimizer.py
    loss_per "token"                 loss_type "dapo": a mean over the sampled tokens of the whole step
    loss_per "rollout"               loss_type "luspo", of importance level "token": the paper's sum over a rollout
    clip_epsilon, kl_weight          epsilon, beta
    length_weight                    reward_weights
    save_every                       save_steps
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from rmt_mini.config import RMTConfig
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.text import longest_branch
from rmt_mini.errors import UserError

ENGINES = ("transformers", "vllm-colocate", "vllm-server")
EXTRAS = ("trl", "accelerate", "peft", "datasets")
CHECKPOINTS_KEPT = 2  # so that one stays whole while the next is written


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSettings:
    """How the work of a step is spread; the result does not depend on it.

    Attributes:
        micro_batch: rollouts in one forward-backward pass of a process.
        engine: what samples: transformers' generate, vLLM on the training GPUs, or a vLLM server.
        server: host:port of the vLLM server.
        gpu_memory: share of a GPU that a colocated vLLM takes.
        tensor_parallel: GPUs that share one colocated vLLM.
        lora_rank: rank of LoRA adapters, which are trained alone; 0 trains all weights.
        checkpointing: make activations again in the backward pass; saves memory, costs a third more time.
        cpu: leave GPUs alone.

    Raises:
        UserError: for an impossible value.

    Example:
        >>> ScaleSettings(engine="sglang")
        Traceback (most recent call last):
        ...
        rmt_mini.errors.UserError: engine is 'sglang'; use one of transformers, vllm-colocate, vllm-server
    """

    micro_batch: int = 8
    engine: str = "transformers"
    server: str = "127.0.0.1:8000"
    gpu_memory: float = 0.3
    tensor_parallel: int = 1
    lora_rank: int = 0
    checkpointing: bool = True
    cpu: bool = False

    def __post_init__(self) -> None:
        for name, least in (("micro_batch", 1), ("tensor_parallel", 1), ("lora_rank", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UserError(f"{name} is {value!r}; give a whole number of at least {least}")
        if self.engine not in ENGINES:
            raise UserError(f"engine is {self.engine!r}; use one of {', '.join(ENGINES)}")
        if not isinstance(self.gpu_memory, float) or not 0 < self.gpu_memory < 1:
            raise UserError(f"gpu_memory is {self.gpu_memory!r}; give a share between 0 and 1, both excluded")
        host, _, port = self.server.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"server is {self.server!r}; give host:port, such as 10.0.0.2:8000")

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ScaleSettings:
        """Make settings from JSON values.

        Raises:
            UserError: for an unknown field or an impossible value.
        """
        known = [field.name for field in fields(ScaleSettings)]
        for name in values:
            if name not in known:
                raise UserError(f"field {name!r} is unknown; the fields are {', '.join(known)}")
        return ScaleSettings(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def require_installed(engine: str, packages: Sequence[str] = ()) -> None:
    """Refuse to begin where a package is missing.

    Args:
        engine: of ScaleSettings.
        packages: further ones that a setup needs.

    Raises:
        UserError: naming the package and how to install it.
    """
    for name in EXTRAS:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"package {name!r} is not installed; install the extra: pip install 'rmt-mini[scale]'")
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"package {name!r} is not installed, and this setup needs it: pip install {name}")
    if engine.startswith("vllm") and importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"engine {engine!r} needs vLLM, which is not installed; pip install 'trl[vllm]' on a machine with a GPU, "
            f"or use --engine transformers"
        )


def require_carried(config: RMTConfig) -> None:
    """Refuse settings that this trainer would not follow.

    Raises:
        UserError: naming the field, and what to do instead.

    Example:
        >>> require_carried(RMTConfig(warmup_steps=0, rl_rule="shuffled"))
        Traceback (most recent call last):
        ...
        rmt_mini.errors.UserError: rl_rule is 'shuffled'; on TRL it can only be 'grpo': use rmt-mini run for others
    """
    only: dict[str, Any] = {
        "rl_rule": "grpo",
        "use_rl": True,
        "difficulty": "entropy",
        "entropy_model": "self",
        "on_nan": "stop",
    }
    for name, value in only.items():
        if getattr(config, name) != value:
            raise UserError(
                f"{name} is {getattr(config, name)!r}; on TRL it can only be {value!r}: use rmt-mini run for others"
            )
    if config.warmup_steps:
        raise UserError(
            f"warmup_steps is {config.warmup_steps}; the cold start runs on one machine: give its checkpoint with "
            f"--model, and --warmup-steps 0"
        )


def micro_steps(config: RMTConfig, micro_batch: int, processes: int) -> int:
    """Return how many forward-backward passes a process makes on a step's rollouts.

    Raises:
        UserError: if they do not share out evenly.

    Example:
        >>> config = RMTConfig(documents_per_step=4, positions_per_document=2, group_size=8)
        >>> micro_steps(config, micro_batch=4, processes=2)
        8
    """
    rollouts = config.documents_per_step * config.positions_per_document * config.group_size
    steps, left = divmod(rollouts, micro_batch * processes)
    if left or not steps:
        raise UserError(
            f"micro_batch is {micro_batch}; the {rollouts} rollouts of a step do not share out evenly over {processes} "
            f"processes times it: choose another, or other documents_per_step"
        )
    return steps


def grpo_settings(config: RMTConfig, settings: ScaleSettings, form: AnswerFormat, out: str) -> dict[str, Any]:
    """Return the arguments of TRL's GRPOConfig, without the reward weights.

    Args:
        config: of the method.
        settings: of the work.
        form: the answer format.
        out: run folder.

    Raises:
        UserError: for settings that are not carried, or do not fit each other.
    """
    require_carried(config)
    require_installed(settings.engine)
    processes = int(os.environ.get("WORLD_SIZE", "1"))  # as accelerate sets it
    steps = micro_steps(config, settings.micro_batch, processes)
    longest = longest_branch(form, config)
    host, _, port = settings.server.rpartition(":")
    vllm = {
        "use_vllm": True,
        "vllm_mode": settings.engine.removeprefix("vllm-"),
        "vllm_server_host": host,
        "vllm_server_port": int(port),
        "vllm_gpu_memory_utilization": settings.gpu_memory,
        "vllm_tensor_parallel_size": settings.tensor_parallel,
        "vllm_max_model_length": longest,
    }
    return {
        "output_dir": out,
        "seed": config.seed,
        "max_steps": config.steps * config.updates_per_step,
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": steps,
        "steps_per_generation": steps,
        "num_iterations": config.updates_per_step,
        "num_generations": config.group_size,
        "max_completion_length": longest - config.document_tokens,
        "temperature": config.temperature,
        "scale_rewards": "none",  # centred by TRL, divided as ``method`` divides
        "loss_type": "dapo" if config.loss_per == "token" else "luspo",
        "epsilon": config.clip_epsilon or 0.2,  # off means one update, where the ratio is 1 and nothing is clipped
        "beta": config.kl_weight,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": config.weight_decay,
        "adam_beta2": 0.95,
        "max_grad_norm": config.max_grad_norm,
        "disable_dropout": True,  # what is trained is what was sampled
        "gradient_checkpointing": settings.checkpointing,
        "bf16": not settings.cpu and config.dtype in ("auto", "bfloat16"),
        "use_cpu": settings.cpu,
        "shuffle_dataset": False,  # places stand in their order; the seed's order of documents is ``positions``'s
        "ignore_data_skip": True,  # every step's places are the same, so a resumed run has none to skip
        "save_strategy": "steps" if config.save_every else "no",
        "save_steps": max(1, config.save_every) * config.updates_per_step,
        "save_total_limit": CHECKPOINTS_KEPT,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "ddp_find_unused_parameters": False,  # every parameter has a part in every loss
    } | (vllm if settings.engine != "transformers" else {})
