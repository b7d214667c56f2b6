"""Settings, texts and plain recomputations that the tests of the stages share."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.text import format_for, to_texts
from rmt_mini.method.grpo import group_advantages
from rmt_mini.records import Document, Judged, Rollout, Text
from tests.fakes import make_tiny_policy, widen

SENTENCES = (
    "Sum: 12 + 30 = 42, and 42 - 12 = 30.",
    "The cat sat on the mat; the dog ran after it.",
    "Für n = 1 gilt es; n = 2 folgt daraus.",
    "A square has four sides and four corners.",
    "Two and two make four; four and four make eight.",
)

ARROWS = ("<<<< a <<<< b <<<<", "1 <<< 2 <<<< 3 <<<<< 4")  # now and then ``closing`` answers '<', and is right


def small(**changes: Any) -> RMTConfig:
    """Settings of a run that takes a moment."""
    fields: dict[str, Any] = {
        "steps": 3,
        "document_tokens": 48,
        "min_document_tokens": 8,
        "budget_start": 6,
        "budget_min": 2,
        "group_size": 4,
        "positions_per_document": 3,
        "tier_rule": "quantile",
        "tier_thresholds": (0.3, 0.7),
        "learning_rate": 1e-3,
        "answer_format": "continuation",
        "dtype": "float32",
        "device": "cpu",
    }
    return RMTConfig(**fields | changes)


def closing(dtype: torch.dtype = torch.float32, seed: int = 0) -> Policy:
    """A random policy that closes a thought now and then: the logit of '<', the tag's first byte, swings widely."""
    return widen(make_tiny_policy("llama", dtype, seed=seed), ord("<"), 3.0)


def texts_for(policy: Policy, config: RMTConfig, sentences: Sequence[str] = SENTENCES) -> list[Text]:
    documents = [Document(str(number), sentence) for number, sentence in enumerate(sentences)]
    return to_texts(documents, format_for(policy, config), config, "test")


def weights(policy: Policy) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.model.named_parameters()}


def by_answer(rollouts: Sequence[Rollout], form: Any, trunks: Any, config: RMTConfig, *_: Any) -> list[Judged]:
    """Reward odd answers, but none in every third group: the tiny model's signal does not hang on luck."""
    groups = [number // config.group_size for number in range(len(rollouts))]
    rewards = [float(r.answer[0] % 2 and g % 3 != 0) for r, g in zip(rollouts, groups, strict=True)]
    advantages = group_advantages(
        torch.tensor(rewards, dtype=torch.float64), config.group_size, scale=config.scale_advantages
    )
    return [Judged(r, w, 0.0, w, a) for r, w, a in zip(rollouts, rewards, advantages.tolist(), strict=True)]
