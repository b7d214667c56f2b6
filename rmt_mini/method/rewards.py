"""Was the answer right, and what is the rollout worth?

Source: Tian et al., arXiv 2509.24375, dual training, the reward of selective reinforcement.

    match = 1[y = tau_pos],   r = (1 - w) * match + w * length_reward

w is ``length_weight``; the paper does not state it. For models that answer in text there is RPT's rule as well,
``prefix_match_reward``. Named deviations, off by default: ``only_if_correct`` in ``total_reward``, and RLP's reward in
place of match, ``information_gain``.
"""

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

Number = TypeVar("Number", float, Tensor)


def match_reward(answer: int | Sequence[int], truth: int | Sequence[int]) -> float:
    """Reward an answer that is exactly the text's next token: match = 1[answer = truth], both one or several token ids.

    Example:
        >>> match_reward(7, 7), match_reward((7,), 7), match_reward((7, 2), (7, 3))
        (1.0, 1.0, 0.0)
    """
    wanted = _ids("truth", truth)
    if not wanted:
        raise ValueError(f"truth={truth!r} is empty; give at least one token id")
    return float(_ids("answer", answer) == wanted)


def _ids(name: str, value: int | str | Sequence[int]) -> tuple[int, ...]:
    if isinstance(value, str):
        raise ValueError(f"{name}={value!r} is text; give token ids, or compare text with prefix_match_reward")
    return (value,) if isinstance(value, int) else tuple(value)


def prefix_match_reward(answer: str, continuation: str, boundaries: Sequence[int]) -> float:
    """Reward an answer that begins the continuation and ends where one of its tokens ends (RPT, arXiv 2506.08007).

    match = 1 iff bytes(answer) is a non-empty prefix of bytes(continuation) and its length is one of ``boundaries``,
    byte offsets (UTF-8, not characters). So an answer may be several tokens long, but not half a token; spaces count.

    Example:
        >>> boundaries = (2, 6)  # tokens "é" (two bytes) and "tude"
        >>> [prefix_match_reward(answer, "étude", boundaries) for answer in ("é", "étude", "étu", "e", "")]
        [1.0, 1.0, 0.0, 0.0, 0.0]
    """
    # surrogatepass: a model may emit half a surrogate pair, which is a wrong answer and not an error
    said, true = (text.encode("utf-8", errors="surrogatepass") for text in (answer, continuation))
    outside = [offset for offset in boundaries if not 0 <= offset <= len(true)]
    if outside:
        raise ValueError(
            f"boundaries holds {outside[0]}, outside 0..{len(true)}; give byte offsets in the continuation"
        )
    return float(bool(said) and true.startswith(said) and len(said) in boundaries)


def information_gain(thinking: Number, plain: Number) -> Number:
    """Reward a thought for what it adds: log p(x | prefix, thought) - log p(x | prefix), nats, of the text's token x.

    RLP (arXiv 2510.01265), whose ``plain`` comes from a moving average of the policy; here from the policy itself.
    Rollouts of a group share it, so that it cancels in their advantages unless rewards are clipped, or shuffled between
    groups. It lets the reward be read: above 0 the thought helps, below it misleads.

    Example:
        >>> [information_gain(thinking, plain=-2.0) for thinking in (-0.5, -2.0, -3.0)]
        [1.5, 0.0, -1.0]
    """
    _same_shape(thinking=thinking, plain=plain)
    return thinking - plain


def total_reward(
    match: Number, length: Number, length_weight: float, only_if_correct: bool = False, gain: Number | None = None
) -> Number:
    """Weigh being right against keeping to the budget: r = (1 - w) * match + w * length, numbers or tensors (R,).

    With only_if_correct (ours): r = (1 - w) * match + w * length * 1[match = 1]. The paper's form lets a wrong short
    answer outrank a right long one where w > 1/2, and ranks a group of wrong answers by length alone. A ``gain``, in
    nats and of either sign, takes the place of match as what is earned; match still says which answers are right.

    Example:
        >>> [total_reward(match=0.0, length=0.5, length_weight=0.5, only_if_correct=only) for only in (False, True)]
        [0.25, 0.0]
    """
    if not 0 <= length_weight <= 1:
        raise ValueError(f"length_weight={length_weight} lies outside 0..1; try 0.1")
    _same_shape(match=match, length=length, gain=gain)
    counted = length * (match == 1) if only_if_correct else length
    return (1 - length_weight) * (match if gain is None else gain) + length_weight * counted


def _same_shape(**values: float | Tensor | None) -> None:
    # (R,) and (R, 1) would broadcast to every match with every length
    shapes = {name: tuple(value.shape) for name, value in values.items() if isinstance(value, Tensor)}
    if len({*shapes.values()}) > 1:
        found = ", ".join(f"{name} has shape {shape}" for name, shape in shapes.items())
        raise ValueError(f"{found}; give one value a rollout")
