"""What this machine can do, what memory a run needs, and how fine a difference its evaluation resolves."""

from __future__ import annotations

import time

import torch

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.report.comparison import expected_half_width, expected_positions

PROBE_SECONDS = 6.0  # that measuring a rate may take
ACTIVATION_NUMBERS = 34  # kept for backward per token, layer and hidden unit
RUNTIME_BYTES = 700e6  # Python, PyTorch, transformers, the tokenizer and the text
SEEDS = (1, 3, 5)  # for which an interval is predicted


def product_rate(device: torch.device, dtype: torch.dtype, rows: int, size: int = 1024) -> float:
    """Measure the rate of (rows, size) @ (size, size) products, operations a second: the best of several.

    Where a processor does not multiply the dtype, and so takes a hundred times as long, the first few products suffice.
    """
    left, right = (torch.ones(n, size, device=device, dtype=dtype) for n in (rows, size))
    left[:1] @ right  # wakes the library
    few = left[: max(1, rows // 64)]
    rates, end = [], time.perf_counter() + PROBE_SECONDS
    for used in (few, *[left] * 8):
        began = time.perf_counter()
        for _ in range(4):
            used @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        ended = time.perf_counter()
        rates.append(4 * 2 * len(used) * size * size / (ended - began))
        if ended + 4 * 2 * rows * size * size / rates[-1] > end:
            break
    return max(rates)


def activation_bytes(tokens: float, layers: int, hidden: int, width: int) -> float:
    """Return the memory that a backward pass over ``tokens`` keeps, at ``width`` bytes a number."""
    return tokens * layers * hidden * ACTIVATION_NUMBERS * width


def memory_needed(config: RMTConfig, policy: Policy) -> float:
    """Estimate the memory of a run at its peak, bytes: model, optimizer and one chunk of branches."""
    shape, wide = policy.model.config.get_text_config(), policy.dtype.itemsize
    master = 0 if wide >= 4 else 4
    # model, gradients, masters, their gradients, two moments
    weights = policy.parameters * (wide + wide + master + 4 + 8)
    chunk = config.branch_tokens + config.documents_per_step * config.document_tokens
    return weights + activation_bytes(chunk, shape.num_hidden_layers, shape.hidden_size, wide) + RUNTIME_BYTES


def interval_lines(positions: int, wished: float | None = None) -> list[str]:
    r"""Return how fine a difference of two arms the evaluation resolves, and what half an interval ``wished`` takes.

    Example:
        >>> print("\n".join(interval_lines(900, 0.03)))
        interval     a difference of two arms within 3.5 points (1 seed), 2.0 (3 seeds), 1.6 (5 seeds)
        wished       3.0 points either way take 1,245 positions (1 seed), 415 (3 seeds), 249 (5 seeds)
    """

    def over_seeds(first: str, values: list[str]) -> str:
        counts = [f"({seeds} seed{'s' * (seeds > 1)})" for seeds in SEEDS]
        return first + ", ".join(f"{value} {count}" for value, count in zip(values, counts, strict=True))

    found = [f"{100 * expected_half_width(positions, seeds):.1f}" for seeds in SEEDS]
    found[0] += " points"
    lines = [over_seeds("interval     a difference of two arms within ", found)]
    if wished is not None:
        needed = [f"{expected_positions(wished, seeds):,}" for seeds in SEEDS]
        needed[0] += " positions"
        lines.append(over_seeds(f"wished       {100 * wished:.1f} points either way take ", needed))
    return lines
