"""Which positions are trained on, and when? Easy ones first, hard ones later.

Source: Tian et al., arXiv 2509.24375, curriculum-based adaptive sampling.

    p(t) = p_early before t1, p_late after t2, and p_early + (t - t1) / (t2 - t1) * (p_late - p_early) between them
    draw a tier from p(t), then a position uniformly from that tier; the drawn positions are the set C

The paper does not state p_early and p_late. Ours: positions of one draw are distinct (C is a set), and an empty or
used-up tier gives its probability to the others.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rmt_mini.method.budget import check_step
from rmt_mini.method.entropy import TIERS


def tier_probabilities(
    step: int, total_steps: int, early: Sequence[float], late: Sequence[float], start: float = 0.3, end: float = 0.7
) -> tuple[float, float, float]:
    """Compute p(t), the curriculum's distribution over (easy, medium, hard) at a step.

    p = (1 - a) * early + a * late,  a = (t / T - start) / (end - start), clamped to 0..1; start and end are t1 / T and
    t2 / T, 0 <= start < end <= 1.

    Example:
        >>> [tier_probabilities(step, 4, (1, 0, 0), (0, 0, 1), start=0.25, end=0.75) for step in (1, 2, 3)]
        [(1.0, 0.0, 0.0), (0.5, 0.0, 0.5), (0.0, 0.0, 1.0)]
    """
    check_step(step, total_steps)
    if not 0 <= start < end <= 1:
        raise ValueError(f"start={start} and end={end} must satisfy 0 <= start < end <= 1; try 0.3 and 0.7")
    for name, value in (("early", early), ("late", late)):
        fine = len(value) == len(TIERS) and all(p >= 0 for p in value) and math.isclose(sum(value), 1, abs_tol=1e-6)
        if not fine:
            raise ValueError(f"{name}={tuple(value)} must be probabilities of easy, medium, hard with sum 1")
    share = min(1.0, max(0.0, (step / total_steps - start) / (end - start)))
    easy, medium, hard = ((1 - share) * before + share * after for before, after in zip(early, late, strict=True))
    return easy, medium, hard


class TierSampler:
    """Draw the set C of positions for reinforcement, tier by tier.

    Arguments as of ``tier_probabilities``; ``seed`` is of the sampler's own CPU generator, and ``enabled=False`` draws
    uniformly over all positions (the ablation without curriculum). ``counts`` holds the positions drawn per tier.

    Example:
        >>> sampler, tiers = TierSampler(10, early=(1, 0, 0), late=(0, 0, 1)), torch.tensor([2, 0, 2, 1, 0])
        >>> [sorted(sampler.sample(tiers, 2, step).tolist()) for step in (0, 10)], sampler.counts  # easy, then hard
        ([[1, 4], [0, 2]], (2, 0, 2))
    """

    def __init__(
        self,
        total_steps: int,
        early: Sequence[float],
        late: Sequence[float],
        start: float = 0.3,
        end: float = 0.7,
        seed: int = 0,
        enabled: bool = True,
    ) -> None:
        tier_probabilities(0, total_steps, early, late, start, end)  # refuse bad settings now, not at the first draw
        self.total_steps, self.early, self.late = total_steps, tuple(early), tuple(late)
        self.start, self.end, self.enabled = start, end, enabled
        self.counts = (0, 0, 0)
        self._generator = torch.Generator().manual_seed(seed)

    def sample(self, tiers: Tensor, n: int, step: int) -> Tensor:
        """Draw n distinct positions, or all where there are fewer.

        ``tiers`` is (S,) of 0 easy, 1 medium, 2 hard; returns int64 (min(n, S),), indices into it in the order drawn.
        """
        listed: list[int] = tiers.tolist() if tiers.ndim == 1 else [-1]
        if not set(listed) <= {0, 1, 2}:
            raise ValueError(f"tiers of shape {tuple(tiers.shape)} must be (S,) of 0, 1, 2; use assign_tiers")
        if n < 0:
            raise ValueError(f"n={n} must not be negative; pass the number of positions to draw")
        probabilities = tier_probabilities(step, self.total_steps, self.early, self.late, self.start, self.end)
        if self.enabled:
            drawn = self._draw_by_tier(listed, min(n, len(listed)), probabilities)
        else:
            drawn = torch.randperm(len(listed), generator=self._generator)[:n].tolist()
        found = [listed[place] for place in drawn]
        easy, medium, hard = self.counts
        self.counts = (easy + found.count(0), medium + found.count(1), hard + found.count(2))
        return torch.tensor(drawn, dtype=torch.long, device=tiers.device)

    def _draw_by_tier(self, tiers: list[int], n: int, probabilities: Sequence[float]) -> list[int]:
        pools = [[place for place, tier in enumerate(tiers) if tier == wanted] for wanted in range(len(TIERS))]
        drawn: list[int] = []
        while len(drawn) < n:
            weights = [p if pool else 0.0 for p, pool in zip(probabilities, pools, strict=True)]
            if sum(weights) == 0:
                weights = [1.0 if pool else 0.0 for pool in pools]
            tier = int(torch.multinomial(torch.tensor(weights, dtype=torch.float64), 1, generator=self._generator))
            place = int(torch.randint(len(pools[tier]), (1,), generator=self._generator))
            drawn.append(pools[tier].pop(place))
        return drawn

    def state_dict(self) -> dict[str, Any]:
        """Return what the next draws depend on ("generator", a uint8 tensor) and the "counts"."""
        return {"generator": self._generator.get_state(), "counts": list(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state of a sampler with the same settings: the next draws equal its next draws."""
        missing = {"generator", "counts"} - set(state)
        if missing:
            raise ValueError(f"state has no {sorted(missing)}; pass what TierSampler.state_dict returned")
        easy, medium, hard = state["counts"]
        self._generator.set_state(state["generator"])
        self.counts = (int(easy), int(medium), int(hard))
