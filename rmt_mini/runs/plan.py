"""What a run will take, before it runs: tokens, operations, memory, time.

Operations: 2 per parameter and token forward, 6 forward and backward (the usual count for transformers, attention's
own products left out). Rates are measured here and now by two matrix products; decoding reaches a smaller share of
them than training. An estimate within a factor of about 1.5, good enough to choose settings; the measured figures
stand in metrics.jsonl.

How fine a difference of two arms will be told is foretold too. Seeds count as so many more positions; what training
does differently from seed to seed comes on top.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.method.budget import thought_cap
from rmt_mini.method.schedule import budget_of
from rmt_mini.report.comparison import expected_half_width, expected_positions
from rmt_mini.stages.material import format_for

SEEDS = (1, 3, 5)  # that an interval is foretold for
FRAME_TOKENS = 20  # opening, closing tag, cue and answer of the continuation format
TRAINING_SHARE = 0.6  # of the matrix-product rate, reached by an update
DECODING_SHARE = 0.5  # the same, by decoding with the rows of a step side by side
PROBE_SECONDS = 6.0  # that measuring a rate may take
ACTIVATION_NUMBERS = 34  # kept for backward per token, layer and hidden unit
RUNTIME_BYTES = 700e6  # Python, PyTorch, transformers, the tokenizer and the text


@dataclass(frozen=True, slots=True)
class Plan:
    """An estimate of one run.

    Attributes:
        rollouts: sampled in RMT, all steps.
        rl_tokens: branch tokens trained, all steps.
        ntp_tokens: trunk tokens trained, all steps.
        cold_start_seconds, midtrain_seconds, evaluation_seconds: time.
        memory_mb: at the peak, model, optimizer and one chunk of branches.
        rate: measured matrix-product rate, operations a second.
    """

    rollouts: int
    rl_tokens: int
    ntp_tokens: int
    cold_start_seconds: float
    midtrain_seconds: float
    evaluation_seconds: float
    memory_mb: float
    rate: float

    @property
    def seconds(self) -> float:
        """Time of the whole run."""
        return self.cold_start_seconds + self.midtrain_seconds + self.evaluation_seconds

    def lines(self) -> list[str]:
        """Return the plan as sentences."""
        share = self.rl_tokens / max(1, self.rl_tokens + self.ntp_tokens)
        return [
            f"rollouts     {self.rollouts:,} in RMT",
            f"tokens       {self.rl_tokens:,} to RL ({share:.0%}) and {self.ntp_tokens:,} to next-token prediction",
            f"time         about {self.seconds / 60:.1f} min: cold start {self.cold_start_seconds / 60:.1f}, "
            f"RMT {self.midtrain_seconds / 60:.1f}, evaluation {self.evaluation_seconds / 60:.1f}",
            f"memory       about {self.memory_mb / 1000:.1f} GB at the peak",
            f"measured     {self.rate / 1e9:.0f} GFLOP/s of matrix products here",
        ]


def interval_lines(positions: int, wished: float | None = None) -> list[str]:
    r"""Return, as sentences, how fine a difference of two arms will be told, and what a finer one would take.

    Args:
        positions: held-out positions of a run.
        wished: half an interval, as a share of 1.

    Example:
        >>> print("\n".join(interval_lines(900, 0.03)))
        interval     a difference of two arms within 3.5 points (1 seed), 2.0 (3 seeds), 1.6 (5 seeds)
        wished       3.0 points either way take 1,245 positions (1 seed), 415 (3 seeds), 249 (5 seeds)
    """
    found = [f"{100 * expected_half_width(positions, seeds):.1f}" for seeds in SEEDS]
    lines = [f"interval     a difference of two arms within {_over_seeds(found, ' points')}"]
    if wished is not None:
        needed = [f"{expected_positions(wished, seeds):,}" for seeds in SEEDS]
        lines.append(f"wished       {100 * wished:.1f} points either way take {_over_seeds(needed, ' positions')}")
    return lines


def _over_seeds(values: Sequence[str], unit: str) -> str:
    told = [f"({seeds} seed{'s' * (seeds > 1)})" for seeds in SEEDS]
    return ", ".join(f"{value}{unit * (place == 0)} {told[place]}" for place, value in enumerate(values))


def product_rate(device: torch.device, dtype: torch.dtype, rows: int, size: int = 1024) -> float:
    """Measure the rate of (rows, size) @ (size, size) products, operations a second: the best of several.

    Where a processor does not multiply the dtype, and so takes a hundred times as long, the first few products will do.
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


def plan_run(config: RMTConfig, policy: Policy) -> Plan:
    """Estimate a run of ``config`` with ``policy`` on this machine.

    Raises:
        UserError: if the tokenizer does not serve the answer format, or the model cannot read as far as a run would.
    """
    format_for(policy, config)
    parameters = policy.parameters
    decoding_rate = DECODING_SHARE * product_rate(policy.device, policy.dtype, 64)
    rate = product_rate(policy.device, policy.dtype, 1024)
    training_rate = TRAINING_SHARE * rate

    positions = config.positions_per_document * config.documents_per_step
    rollouts = positions * config.group_size
    trunk_tokens = config.documents_per_step * config.document_tokens
    # without a budget thoughts may run to the cap; with one they are taken to follow it
    lengths = [
        budget_of(config, step) if config.use_budget else thought_cap(config.budget_start)
        for step in range(config.steps)
    ]
    branch_tokens = [rollouts * (length + FRAME_TOKENS) for length in lengths] if config.use_rl else [0] * config.steps
    trained = sum(branch_tokens) + config.steps * trunk_tokens
    decode = 2 * parameters * sum(branch_tokens) / decoding_rate
    update = config.updates_per_step * 6 * parameters * trained / training_rate

    warmup_length = (config.budget_start + config.budget_min) // 2
    warmup_tokens = config.warmup_steps * (config.warmup_positions * (warmup_length + FRAME_TOKENS) + trunk_tokens)
    cold_start = 2 * parameters * warmup_tokens / decoding_rate + 6 * parameters * warmup_tokens / training_rate

    asked = config.evaluation_positions * (config.budget_start + FRAME_TOKENS)
    rounds = 3 if config.warmup_steps else 2
    evaluation = rounds * 2 * parameters * asked / decoding_rate

    return Plan(
        rollouts * config.steps if config.use_rl else 0,
        sum(branch_tokens),
        config.steps * trunk_tokens,
        cold_start,
        decode + update,
        evaluation,
        memory_needed(config, policy) / 1e6,
        rate,
    )


def memory_needed(config: RMTConfig, policy: Policy) -> float:
    """Estimate the memory of a run at its peak, bytes: model, optimizer and one chunk of branches."""
    shape, wide = policy.model.config.get_text_config(), policy.dtype.itemsize
    master = 0 if wide >= 4 else 4
    # model, gradients, masters, their gradients, two moments
    weights = policy.parameters * (wide + wide + master + 4 + 8)
    chunk = config.branch_tokens + config.documents_per_step * config.document_tokens
    activations = chunk * shape.num_hidden_layers * shape.hidden_size * ACTIVATION_NUMBERS * wide
    return float(weights + activations + RUNTIME_BYTES)
