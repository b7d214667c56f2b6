"""Wrong answers to the exercises on lesson 3, the dynamic token budget."""

from __future__ import annotations

import math
from collections.abc import Sequence


def no_floor_at_zero(length: int, budget: int) -> float:
    """Nothing keeps the reward from falling below 0 beyond twice the budget: the paper takes the larger of it and 0."""
    return 1 - abs(length - budget) / budget


def short_is_free(length: int, budget: int) -> float:
    """Thoughts shorter than the budget lose nothing with you; the triangle also rises on its left side."""
    return max(0.0, 1 - max(0, length - budget) / budget)


def off_by_one_at_the_budget(length: int, budget: int) -> float:
    """The peak lies one token beside the budget: count the tokens inside the tags, no more and no fewer."""
    return max(0.0, 1 - abs(length + 1 - budget) / budget)


def by_length(length: int, budget: int) -> float:
    """You divide the distance by the thought's length; it is the budget that says how far is far."""
    return max(0.0, 1 - abs(length - budget) / max(1, length))


def all_or_nothing(length: int, budget: int) -> float:
    """You reward only the exact length; a reward without a slope tells a thought of one token too many nothing."""
    return float(length == budget)


LENGTH_REWARD = (no_floor_at_zero, short_is_free, off_by_one_at_the_budget, by_length, all_or_nothing)


def _checked(step: int, total_steps: int) -> None:
    if not 0 <= step <= total_steps:
        raise ValueError("step lies outside 0..total_steps")


def _floor(budget: float) -> int:
    return math.floor(budget + 1e-9)


def floor_too_early(step: int, total_steps: int, start: int, minimum: int, decay: float) -> int:
    """The share of steps is rounded down to a whole number (// or int) before the power: it stays 0 until the end."""
    _checked(step, total_steps)
    return max(minimum, _floor(start * decay ** (step // total_steps)))


def rounded(step: int, total_steps: int, start: int, minimum: int, decay: float) -> int:
    """You round to the nearest whole number; the paper's brackets are a floor, which always goes down."""
    _checked(step, total_steps)
    return max(minimum, round(float(start * decay ** (step / total_steps))))


def no_minimum(step: int, total_steps: int, start: int, minimum: int, decay: float) -> int:
    """The minimum is missing: late in a run the budget falls below what a thought needs."""
    _checked(step, total_steps)
    return _floor(start * decay ** (step / total_steps))


def each_step(step: int, total_steps: int, start: int, minimum: int, decay: float) -> int:
    """The budget decays by gamma at every step; gamma is what is left of it at the end of the whole run."""
    _checked(step, total_steps)
    return max(minimum, _floor(start * decay**step))


def in_a_line(step: int, total_steps: int, start: int, minimum: int, decay: float) -> int:
    """The budget falls in a straight line; the paper's falls by the same share in every stretch of steps, a power."""
    _checked(step, total_steps)
    return max(minimum, _floor(start * (1 - (1 - decay) * step / total_steps)))


def any_step(step: int, total_steps: int, start: int, minimum: int, decay: float) -> int:
    """A step behind the last one passes without a word; raise ValueError, or a wrong count is never noticed."""
    return max(minimum, _floor(start * decay ** (step / total_steps)))


BUDGET_AT_STEP = (floor_too_early, rounded, no_minimum, each_step, in_a_line, any_step)


def _cut(thought: Sequence[int], stop: int, cap: int) -> tuple[list[int], bool]:
    own = list(thought[:cap])
    return (own[: own.index(stop)], True) if stop in own else (own, False)


def trained_to_be_cut_off(thought: Sequence[int], closing: Sequence[int], cap: int) -> tuple[list[int], list[bool]]:
    """Closing tokens that the environment wrote take the RL loss: the model is paid for being cut off."""
    own, _ = _cut(thought, closing[0], cap)
    return own + list(closing), [True] * (len(own) + 1) + [False] * (len(closing) - 1)


def never_taught_to_stop(thought: Sequence[int], closing: Sequence[int], cap: int) -> tuple[list[int], list[bool]]:
    """The closing token that the model chose itself takes no loss: it can never learn when to stop."""
    own, _ = _cut(thought, closing[0], cap)
    return own + list(closing), [True] * len(own) + [False] * len(closing)


def whole_tag_trained(thought: Sequence[int], closing: Sequence[int], cap: int) -> tuple[list[int], list[bool]]:
    """All closing tokens take the loss where the thought closed itself; the model chose only the first of them."""
    own, itself = _cut(thought, closing[0], cap)
    return own + list(closing), [True] * len(own) + [itself] * len(closing)


def cap_counts_the_tag(thought: Sequence[int], closing: Sequence[int], cap: int) -> tuple[list[int], list[bool]]:
    """Off by one at the cap: a thought may have as many tokens as the cap says, the closing tag not counted."""
    own, itself = _cut(thought, closing[0], cap - 1)
    return own + list(closing), [True] * len(own) + [itself] + [False] * (len(closing) - 1)


def past_the_cap(thought: Sequence[int], closing: Sequence[int], cap: int) -> tuple[list[int], list[bool]]:
    """You look for the closing token in the whole thought; what lies behind the cap was never sampled."""
    stop = closing[0]
    if stop in thought:
        own = list(thought[: list(thought).index(stop)])
        return own + list(closing), [True] * (len(own) + 1) + [False] * (len(closing) - 1)
    own = list(thought[:cap])
    return own + list(closing), [True] * len(own) + [False] * len(closing)


CLOSE_AT_CAP = (trained_to_be_cut_off, never_taught_to_stop, whole_tag_trained, cap_counts_the_tag, past_the_cap)


def _adherence(lengths: Sequence[int], own: Sequence[int], closed: int, over: int, budget: int) -> dict[str, float]:
    distance = sum(abs(length - budget) for length in own) / len(own) if own else float("nan")
    count = len(lengths)
    return {"closed_share": closed / count, "mean_distance": distance, "over_share": over / count}


def _own(lengths: Sequence[int], closed: Sequence[bool]) -> list[int]:
    return [length for length, itself in zip(lengths, closed, strict=True) if itself]


def cut_off_ones_too(lengths: Sequence[int], closed: Sequence[bool], budget: int) -> dict[str, float]:
    """The distance counts thoughts that were cut off: their length is the cap's doing, not the model's."""
    return _adherence(lengths, lengths, sum(closed), sum(length > budget for length in lengths), budget)


def budget_itself_is_over(lengths: Sequence[int], closed: Sequence[bool], budget: int) -> dict[str, float]:
    """Off by one: a thought exactly as long as the budget counts as over it with you."""
    return _adherence(lengths, _own(lengths, closed), sum(closed), sum(one >= budget for one in lengths), budget)


def signed(lengths: Sequence[int], closed: Sequence[bool], budget: int) -> dict[str, float]:
    """Distances keep their sign, so that one too short and one too long look like perfect adherence."""
    own, found = _own(lengths, closed), cut_off_ones_too(lengths, closed, budget)
    return found | {"mean_distance": sum(own) / len(own) - budget if own else float("nan")}


def over_among_closed(lengths: Sequence[int], closed: Sequence[bool], budget: int) -> dict[str, float]:
    """The share over the budget leaves out thoughts that were cut off, the very ones that went furthest over it."""
    own = _own(lengths, closed)
    return _adherence(lengths, own, sum(closed), sum(length > budget for length in own), budget)


def zero_for_none(lengths: Sequence[int], closed: Sequence[bool], budget: int) -> dict[str, float]:
    """Where no thought closed itself you report a distance of 0, which reads as perfect; there is none: nan."""
    own = _own(lengths, closed) or [budget]
    return _adherence(lengths, own, sum(closed), sum(length > budget for length in lengths), budget)


BUDGET_ADHERENCE = (cut_off_ones_too, budget_itself_is_over, signed, over_among_closed, zero_for_none)
