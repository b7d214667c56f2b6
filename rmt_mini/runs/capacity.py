"""What memory a run needs, what this machine can do, and what to do where memory, disk or numbers give out.

Each such failure ends in a UserError, for the command line and notebooks alike. What was done before is on disk then,
and the line says how to go on.
"""

import shutil
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from rmt_mini.config import PretrainConfig, RMTConfig
from rmt_mini.engine.layers import multiply
from rmt_mini.engine.memory import activation_bytes, free_memory, measure, resident_memory
from rmt_mini.engine.model import Policy
from rmt_mini.errors import NonFiniteError, UserError, disk_full, logger, out_of_memory, resume_command
from rmt_mini.files import Notes
from rmt_mini.report.comparison import expected_half_width, expected_positions
from rmt_mini.report.markdown import macro

PROBE_SECONDS = 6.0  # that measuring a rate may take
RUNTIME_BYTES = 700e6  # Python, PyTorch, transformers, the tokenizer and the text
SEEDS = (1, 3, 5)  # for which an interval is predicted
LESS_MEMORY = ("branch_tokens", "document_tokens", "documents_per_step", "group_size", "hidden_size", "layers")


def product_rate(device: torch.device, dtype: torch.dtype, rows: int, size: int = 1024) -> float:
    """Measure the rate of (rows, size) x (size, size) products, operations a second: the best of several.

    Where a processor does not multiply the dtype, and so takes a hundred times as long, the first few products suffice.
    """
    left, right = (torch.ones(n, size, device=device, dtype=dtype) for n in (rows, size))
    multiply(left[:1], right)  # wakes the library
    few = left[: max(1, rows // 64)]
    rates, end = [], time.perf_counter() + PROBE_SECONDS
    for used in (few, *[left] * 8):
        began = time.perf_counter()
        for _ in range(4):
            multiply(used, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ended = time.perf_counter()
        rates.append(4 * 2 * len(used) * size * size / (ended - began))
        if ended + 4 * 2 * rows * size * size / rates[-1] > end:
            break
    return max(rates)


def memory_needed(config: RMTConfig, policy: Policy) -> float:
    """Estimate the memory of a run at its peak, bytes: model, optimizer and one chunk of branches."""
    size, wide = measure(policy.model), policy.dtype.itemsize
    master = 0 if wide >= 4 else 4
    weights = size.parameters * (wide + wide + master + 4 + 8)  # with gradients, masters, theirs, two moments
    chunk = config.branch_tokens + config.documents_per_step * config.document_tokens
    return weights + activation_bytes(chunk, size, wide) + RUNTIME_BYTES


def interval_lines(positions: int, wished: float | None = None) -> list[str]:
    """Return how fine a difference of two arms the evaluation resolves, and what half an interval ``wished`` takes."""
    widths = {seeds: 100 * expected_half_width(positions, seeds) for seeds in SEEDS}
    needed = {seeds: expected_positions(wished, seeds) for seeds in SEEDS} if wished else {}
    return macro("tables.md.j2", "resolution", widths, needed, wished).split("\n")


@contextmanager
def explained(
    config: RMTConfig | PretrainConfig, policy: Policy, folder: Path, resumable: bool = True
) -> Iterator[None]:
    """Convert failures of the machine inside the block into a UserError with a remedy; all else passes.

    ``resumable`` says whether this kind of run can go on, once its run.json is there.
    """
    try:
        yield
    except Exception as error:
        again = resume_command(str(folder)) if resumable and (folder / Notes.NAME).exists() else None
        if isinstance(error, NonFiniteError) and error.can_skip and again:
            raise NonFiniteError(f"{error}: {again} --on-nan skip") from error
        if out_of_memory(error):
            line = memory_advice(config, policy)
            if again and isinstance(config, RMTConfig):
                line += f"; to go on: {again} --branch-tokens {max(1, config.branch_tokens // 2)}"
        elif disk_full(error):
            line = f"no space left on the disk of {str(folder)!r} ({shutil.disk_usage(folder).free / 1e6:.0f} MB free)"
            line += f"; free some, then: {again}" if again else "; free some and begin again"
        else:
            raise
        traceback.clear_frames(error.__traceback__)  # they hold on to the tensors that did not fit
        raise UserError(line) from error


def memory_advice(config: RMTConfig | PretrainConfig, policy: Policy) -> str:
    """Say how much memory a run needs and how much there is, and which settings take less."""
    needs = ""
    if isinstance(config, RMTConfig):
        needs = f"the run needs about {_gigabytes(memory_needed(config, policy))} (rmt-mini plan); "
    free, whole = map(_gigabytes, free_memory(policy.device))
    less = [f"--{name.replace('_', '-')} ({getattr(config, name)})" for name in LESS_MEMORY if hasattr(config, name)]
    return f"out of memory; {needs}{free} of {whole} are free now; lower {', '.join(less)}, or close other programs"


def warn_of_little_memory(config: RMTConfig, policy: Policy) -> None:
    """Warn before a run that memory will hardly do: the system kills a process that takes too much, without a word."""
    free, needed = free_memory(policy.device)[0], memory_needed(config, policy)
    if policy.device.type == "cpu" and needed > free + resident_memory():
        logger.warning(
            "This run needs about %s, and %s are free; if it is killed: rmt-mini resume with --branch-tokens below %d",
            _gigabytes(needed), _gigabytes(free), config.branch_tokens,
        )  # fmt: skip


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
