"""How hard is a position? Entropy of the next-token distribution, cut into three tiers.

Source: Tian et al., arXiv 2509.24375, curriculum-based adaptive sampling, the measure of difficulty.

    H = - sum_v p(v) log p(v),   p = softmax(logits)
    tier = easy if H <= threshold_1,  medium if threshold_1 < H <= threshold_2,  hard if H > threshold_2

The paper does not state thresholds (RPT, its baseline, evaluates above 0.5, 1.0 and 1.5 nats). Ours: thresholds at
quantiles, and tiers by another score (``stages/difficulty.py``).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

TIERS = ("easy", "medium", "hard")


def token_entropy(logits: Tensor, top_k: int | None = None) -> Tensor:
    """Measure how undecided next-token distributions are: H = - sum_v p(v) log p(v) with p = softmax(logits), in nats.

    Logits are (..., V), -inf for a token that cannot come; returns (...), nan for a row that is no distribution. With
    ``top_k`` only the k largest logits count, renormalised (RPT's filter, arXiv 2506.08007, with k = 16).

    Example:
        >>> round(token_entropy(torch.tensor([0.0, 0.0, -math.inf])).item(), 4)  # a fair coin: log 2
        0.6931
    """
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits has shape {tuple(logits.shape)}; give (..., V) with V >= 1")
    if top_k is not None and not 1 <= top_k <= logits.shape[-1]:
        raise ValueError(f"top_k={top_k} lies outside 1..V={logits.shape[-1]}; None takes all of V")
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if top_k is not None:
        precise = precise.topk(top_k, dim=-1).values
    log_p = precise.log_softmax(-1)
    # 0 log 0 is 0 in the definition but 0 * -inf is nan in arithmetic, forwards and backwards
    return -(log_p.exp() * log_p.masked_fill(log_p == -math.inf, 0.0)).sum(-1)


def assign_tiers(entropy: Tensor, thresholds: Sequence[float]) -> Tensor:
    """Sort positions into 0 easy, 1 medium and 2 hard: tier = [H > thresholds[0]] + [H > thresholds[1]].

    ``entropy`` has any shape and is in nats, as are the two thresholds, finite and ascending.

    Example:
        >>> assign_tiers(torch.tensor([0.2, 0.5, 0.7, 1.5, 1.6]), (0.5, 1.5)).tolist()
        [0, 0, 1, 1, 2]
    """
    cuts = tuple(thresholds)
    if len(cuts) != 2 or not all(map(math.isfinite, cuts)) or cuts[0] > cuts[1]:
        raise ValueError(f"thresholds={cuts} must be two finite ascending numbers; try (0.5, 1.5)")
    if not bool(entropy.isfinite().all()):  # nan would pass as easy, since it exceeds nothing
        raise ValueError("entropy holds nan or inf; check the logits it was taken from")
    # both in one precision: a threshold read off an fp32 entropy, or meant as it (0.1), must stay equal to it
    precise = entropy.to(torch.promote_types(entropy.dtype, torch.float32))
    return (precise[..., None] > precise.new_tensor(cuts)).sum(-1)


def quantile_thresholds(entropy: Tensor, fractions: Sequence[float] = (1 / 3, 2 / 3)) -> tuple[float, float]:
    """Choose thresholds at quantiles of the entropies (interpolated linearly), so that the tiers have given shares.

    ``fractions`` are the shares of positions up to each threshold, 0 <= first <= second <= 1.

    Example:
        >>> quantile_thresholds(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]), (0.25, 0.75))
        (1.0, 3.0)
    """
    shares = tuple(fractions)
    if len(shares) != 2 or not 0 <= shares[0] <= shares[1] <= 1:
        raise ValueError(f"fractions={shares} must be two ascending numbers in 0..1; try (1/3, 2/3)")
    if entropy.numel() == 0 or not bool(entropy.isfinite().all()):
        raise ValueError(f"entropy of shape {tuple(entropy.shape)} is empty or not finite; measure positions first")
    # by numpy, since torch.quantile refuses more than 2**24 values
    low, high = np.quantile(entropy.double().numpy(force=True), shares)
    return float(low), float(high)


def tiers_by_score(score: Tensor, tiers: Tensor, entropy: Tensor) -> Tensor:
    """Assign as many easy, medium and hard positions as ``tiers`` has, by another score; the lowest scores are easy.

    All three are (S,); a higher score is harder, and entropy orders equal scores. So two measures of difficulty differ
    in what they call hard, and not in how much of it there is.

    Example:
        >>> score, entropy = torch.tensor([0.5, 0.0, 1.0, 0.0]), torch.tensor([0.1, 0.9, 0.2, 0.3])
        >>> tiers_by_score(score, torch.tensor([0, 2, 0, 1]), entropy).tolist()  # easy: the second and the fourth
        [1, 0, 2, 0]
    """
    if not score.shape == tiers.shape == entropy.shape or score.ndim != 1:
        raise ValueError(f"score {tuple(score.shape)}, tiers {tuple(tiers.shape)} and entropy must be alike (S,)")
    if not bool(score.isfinite().all()):
        raise ValueError("score holds nan or inf; check what it was taken from")
    order = entropy.argsort(stable=True)
    order = order[score[order].argsort(stable=True)]
    assigned = torch.empty_like(tiers)
    assigned[order] = tiers.sort().values
    return assigned
