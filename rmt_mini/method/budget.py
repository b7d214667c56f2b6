"""How long may a thought be? A budget that shrinks over training, and a reward for keeping to it.

Source: Tian et al., arXiv 2509.24375, dynamic token budget.

    B_t = max(B_min, floor(B_0 * gamma ** (t / T))),   r_len(l) = r_max * max(0, 1 - |l - B_t| / B_t), a triangle

Added here: a budget that depends on the position (``budgets_by_entropy``), and a cap, since sampling has to stop.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def budget_at_step(step: int, total_steps: int, start: int, minimum: int, decay: float) -> int:
    """Compute B_t, the thought budget of a step in tokens; it never rises with the step.

    B_t = max(minimum, floor(start * decay ** (step / total_steps))); 0 <= step <= total_steps, 1 <= minimum <= start,
    0 < decay <= 1: gamma is the fraction of B_0 that remains at step T.

    Example:
        >>> [budget_at_step(step, 4, start=800, minimum=1, decay=0.2) for step in range(5)]  # the paper's settings
        [800, 534, 357, 239, 160]
    """
    check_step(step, total_steps)
    if minimum < 1:
        raise ValueError(f"minimum={minimum} must be at least 1 token; the length reward divides by it")
    if start < minimum:
        raise ValueError(f"start={start} lies below minimum={minimum}; raise start or lower minimum")
    if not 0 < decay <= 1:
        raise ValueError(f"decay={decay} lies outside (0, 1]; the paper takes 0.2, and 1 means no decay")
    exact = start * math.pow(decay, step / total_steps)
    # a power that is whole on paper may come out slightly lower: 1000 * 0.729 ** (2 / 3) must give 810, not 809
    return max(minimum, math.floor(exact + 1e-9))


def check_step(step: int, total_steps: int) -> None:
    """Refuse a step outside the run."""
    if total_steps < 1:
        raise ValueError(f"total_steps={total_steps} must be at least 1; pass the number of steps of the run")
    if not 0 <= step <= total_steps:
        raise ValueError(f"step={step} lies outside 0..total_steps={total_steps}; count this run's steps from 0")


def length_reward(length: float | Tensor, budget: float | Tensor, peak: float = 1.0) -> float | Tensor:
    """Reward a thought for being as long as the budget says: ``peak * max(0, 1 - |length - budget| / budget)``.

    Length (0 or more) and budget (above 0) are tokens: numbers, or tensors that broadcast with each other.

    Example:
        >>> [length_reward(length, budget=4) for length in (0, 2, 4, 6, 8, 9)]
        [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    if not bool(torch.as_tensor(length >= 0).all()):
        raise ValueError(f"length={length} must not be negative; count the tokens inside the thought's tags")
    if not bool(torch.as_tensor(budget > 0).all()):
        raise ValueError(f"budget={budget} must be above 0 tokens; take it from budget_at_step")
    if not 0 < peak < math.inf:
        raise ValueError(f"peak={peak} must be above 0 and finite; to weigh it down use length_weight")
    if isinstance(length, Tensor) or isinstance(budget, Tensor):
        distance = torch.as_tensor(length - budget).abs()
        return peak * (1 - distance / budget).clamp(min=0)
    return peak * max(0.0, 1 - abs(length - budget) / budget)


def budgets_by_entropy(entropies: Sequence[float], budget: int, minimum: int) -> list[int]:
    """Give each position its own budget: more thought where the next token is less certain (ours).

    B = min(2 * B_t, max(minimum, floor(B_t * H / mean(H)))), H in nats; B_t where all entropies are 0.

    Example:
        >>> budgets_by_entropy([0.0, 1.0, 2.0, 5.0], budget=8, minimum=3)
        [3, 4, 8, 16]
    """
    if not 1 <= minimum <= budget:
        raise ValueError(f"minimum={minimum} must lie in 1..budget={budget}; take both from the settings")
    mean = sum(entropies) / max(1, len(entropies))
    if mean == 0:
        return [budget] * len(entropies)
    return [min(2 * budget, max(minimum, math.floor(budget * one / mean + 1e-9))) for one in entropies]


def thought_cap(budget: int) -> int:
    """Return the length at which the environment closes a thought: 2 * budget, where the length reward ends (ours).

    Example:
        >>> thought_cap(24), length_reward(thought_cap(24), budget=24)
        (48, 0.0)
    """
    if budget < 1:
        raise ValueError(f"budget={budget} must be at least 1 token; take it from budget_at_step")
    return 2 * budget
