"""The rewards of ``method`` as TRL's reward functions.

TRL adds them up with weights, r = (1 - w) * match + w * length, and logs each by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rmt_mini.config import RMTConfig
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.method.budget import length_reward
from rmt_mini.scale.positions import Question

Reward = Callable[..., list[float]]


def reward_functions(form: AnswerFormat, config: RMTConfig) -> tuple[list[Reward], list[float]]:
    """Return the rewards of a run, and their weights.

    match = 1[y = tau_pos], by the answer format; length = the triangle over B_t, which counts for right answers only
    where ``length_if_correct`` says so. Without a budget there is no length reward.

    Args:
        form: judges answers.
        config: use_budget, length_weight, length_if_correct.

    Returns:
        Functions for ``GRPOTrainer(reward_funcs=...)``, and ``GRPOConfig(reward_weights=...)``.

    Source:
        Tian et al., arXiv 2509.24375; w is not stated there.

    Example:
        >>> from types import SimpleNamespace
        >>> form = SimpleNamespace(judge=lambda answer, trunk, index: float(answer[0] == trunk[index]))
        >>> (match, length), weights = reward_functions(form, RMTConfig(length_weight=0.2))
        >>> question = SimpleNamespace(
        ...     text=SimpleNamespace(ids=(3, 4)), position=SimpleNamespace(index=1), budget=8
        ... )
        >>> match(question=[question], answer=[[4]]), length(question=[question], thought_length=[6], answer=[[4]])
        ([1.0], [0.75])
        >>> weights
        [0.8, 0.2]
    """

    def match(question: Sequence[Question], answer: Sequence[Sequence[int]], **_: Any) -> list[float]:
        return [form.judge(said, q.text.ids, q.position.index) for said, q in zip(answer, question, strict=True)]

    def length(
        question: Sequence[Question],
        thought_length: Sequence[int],
        answer: Sequence[Sequence[int]],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        found = [length_reward(size, q.budget) for size, q in zip(thought_length, question, strict=True)]
        if log_metric is not None:  # as it is, before any of it is held back
            log_metric("length_reward", sum(found) / len(found))
        if config.length_if_correct:
            return [one * right for one, right in zip(found, match(question, answer), strict=True)]
        return found

    if not config.use_budget:
        return [match], [1.0]
    return [match, length], [1 - config.length_weight, config.length_weight]
