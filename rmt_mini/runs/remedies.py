"""What to do where a machine gives out in the middle of a run: one line, with the numbers at hand.

Memory that runs out, a disk that fills up and numbers that are not finite all end in a UserError, for the command line
and notebooks alike. What was done before is on disk then, and the line says how to go on.
"""

from __future__ import annotations

import logging
import shutil
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmt_mini.config import PretrainConfig, RMTConfig
from rmt_mini.engine.memory import free_memory, resident_memory
from rmt_mini.engine.model import Policy
from rmt_mini.errors import NonFiniteError, UserError, disk_full, out_of_memory, resume_command
from rmt_mini.runs.capacity import memory_needed

logger = logging.getLogger(__name__)

LESS_MEMORY = ("branch_tokens", "document_tokens", "documents_per_step", "group_size", "hidden_size", "layers")


@contextmanager
def explained(
    config: RMTConfig | PretrainConfig, policy: Policy | None = None, folder: Path | None = None, resumable: bool = True
) -> Iterator[None]:
    """Turn what a machine does to the block into a UserError with a remedy; all else passes.

    Args:
        config: settings of the run.
        policy: its model, where it is loaded by now.
        folder: its folder, where there is one by now.
        resumable: whether a run in that folder can be taken up again.
    """
    again = resume_command(str(folder)) if folder is not None and resumable else None
    try:
        yield
    except NonFiniteError as error:
        if again is None or not error.can_skip or not isinstance(config, RMTConfig):
            raise
        raise NonFiniteError(f"{error}: {again} --on-nan skip") from error
    except Exception as error:
        if out_of_memory(error):
            line = memory_advice(config, policy)
            if again is not None:
                smaller = policy is not None and isinstance(config, RMTConfig) and config.branch_tokens // 2
                line += f"; to go on: {again}" + f" --branch-tokens {smaller}" * bool(smaller)
        elif disk_full(error):
            line = disk_advice(folder) + (f", then: {again}" if again else " and begin again")
        else:
            raise
        traceback.clear_frames(error.__traceback__)  # they hold on to the tensors that did not fit
        raise UserError(line) from error


def memory_advice(config: RMTConfig | PretrainConfig, policy: Policy | None = None) -> str:
    """Say how much memory a run needs and how much there is, and which settings take less."""
    parts = ["out of memory"]
    if policy is not None and isinstance(config, RMTConfig):
        parts.append(f"the run needs about {_gigabytes(memory_needed(config, policy))} (rmt-mini plan)")
    found = free_memory(gpu=policy is not None and policy.device.type == "cuda")
    if found is not None:
        parts.append(f"{_gigabytes(found[0])} of {_gigabytes(found[1])} are free now")
    if policy is not None:
        settings = [(name, getattr(config, name)) for name in LESS_MEMORY if hasattr(config, name)]
        parts.append("lower " + ", ".join(f"--{name.replace('_', '-')} ({value})" for name, value in settings))
    elif isinstance(config, RMTConfig):
        parts.append(f"model {config.model!r} did not load: take a smaller one")
    return "; ".join(parts) + ", or close other programs"


def warn_of_little_memory(config: RMTConfig, policy: Policy) -> None:
    """Say beforehand that memory will hardly do: a machine's kernel kills a process that takes too much, wordlessly."""
    found, needed = free_memory(), memory_needed(config, policy)
    if policy.device.type == "cpu" and found is not None and needed > found[0] + (resident_memory() or 0):
        logger.warning(
            "This run needs about %s, and %s are free; if it is killed: rmt-mini resume with --branch-tokens below %d",
            _gigabytes(needed), _gigabytes(found[0]), config.branch_tokens,
        )  # fmt: skip


def disk_advice(folder: Path | None) -> str:
    """Say that a disk is full, and how much room it has."""
    if folder is None:
        return "no space left on the disk; free some"
    return (
        f"no space left on the disk of {str(folder)!r} ({shutil.disk_usage(folder).free / 1e6:.0f} MB free); free some"
    )


def _gigabytes(count: float) -> str:
    """Write a count of bytes in GB, to a tenth."""
    return f"{count / 1e9:.1f} GB"
