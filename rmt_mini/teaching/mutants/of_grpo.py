"""Wrong answers to the exercises on lesson 5, GRPO."""

from __future__ import annotations

import torch
from torch import Tensor


def sign_turned(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The sign of d is turned: d is log reference minus log policy. Never negative all the same, but not the KL."""
    d = logprobs - reference_logprobs
    return d.exp() - d - 1


def log_ratio(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """You give the plain log-ratio, log policy minus log reference: it can be negative, which no KL ever is."""
    return logprobs - reference_logprobs


def half_the_square(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """You give half the square of d, the estimator k2; k3 is exp(d) - d - 1, which only near 0 is about the same."""
    return (reference_logprobs - logprobs).square() / 2


def one_too_many(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The minus 1 is missing: where policy and reference agree the estimate is 1, and it must be 0 there."""
    d = reference_logprobs - logprobs
    return d.exp() - d


def averaged(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """You average over the tokens; the loss takes one value a token, and leaves out by its mask those that are pads."""
    d = reference_logprobs - logprobs
    return (d.exp() - d - 1).mean()


def graph_cut(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """The value is right and has no graph (detach, item or no_grad): as part of a loss it would hold nothing back."""
    d = reference_logprobs - logprobs.detach()
    return d.exp() - d - 1


KL_ESTIMATE = (sign_turned, log_ratio, half_the_square, one_too_many, averaged, graph_cut)


def _advantages(grouped: Tensor, std: Tensor, eps: float) -> Tensor:
    """Return right advantages (K, G) but for the deviation, which is given."""
    spread = grouped.amax(1, keepdim=True) != grouped.amin(1, keepdim=True)
    return torch.where(spread, (grouped - grouped.mean(1, keepdim=True)) / (std + eps), 0.0)


def _std(grouped: Tensor) -> Tensor:
    return grouped.std(1, correction=0, keepdim=True)


def leaks_across_groups(rewards: Tensor, group_size: int, eps: float) -> Tensor:
    """Mean and deviation are those of all rewards: a rollout is held against other positions, not its own group."""
    grouped = rewards.reshape(-1, group_size)
    spread = grouped.amax(1, keepdim=True) != grouped.amin(1, keepdim=True)
    scaled = (grouped - rewards.mean()) / (rewards.std(correction=0) + eps)
    return torch.where(spread, scaled, 0.0).reshape(-1)


def every_gth(rewards: Tensor, group_size: int, eps: float) -> Tensor:
    """Your groups take rewards that stand apart, such as the first and the third of four.

    A group's rollouts stand next to each other.
    """
    grouped = rewards.reshape(group_size, -1).T
    return _advantages(grouped, _std(grouped), eps).T.reshape(-1)


def sample_deviation(rewards: Tensor, group_size: int, eps: float) -> Tensor:
    """The deviation divides by G - 1, as torch.std does unless told otherwise.

    Pass correction=0, which divides by G.
    """
    grouped = rewards.reshape(-1, group_size)
    return _advantages(grouped, _std(grouped) * (group_size / max(1, group_size - 1)) ** 0.5, eps).reshape(-1)


def not_scaled(rewards: Tensor, group_size: int, eps: float) -> Tensor:
    """You subtract the mean and do not divide by the deviation; that is Dr. GRPO's variant, and not the paper's."""
    grouped = rewards.reshape(-1, group_size)
    return _advantages(grouped, torch.ones(len(grouped), 1), 0.0).reshape(-1)


def eps_in_the_root(rewards: Tensor, group_size: int, eps: float) -> Tensor:
    """You add eps to the variance, under the root; the paper adds it to the deviation, behind the root."""
    grouped = rewards.reshape(-1, group_size)
    return _advantages(grouped, (_std(grouped).square() + eps).sqrt(), 0.0).reshape(-1)


def silent_group_blown_up(rewards: Tensor, group_size: int, eps: float) -> Tensor:
    """A silent group gets small numbers, not exactly 0.

    A mean misses equal rewards by a rounding error, and you divide that error by the deviation. Ask first whether
    the largest and the smallest reward differ.
    """
    grouped = rewards.reshape(-1, group_size)
    return ((grouped - grouped.mean(1, keepdim=True)) / (_std(grouped) + eps)).reshape(-1)


GROUP_ADVANTAGES = (
    leaks_across_groups, every_gth, sample_deviation, not_scaled, eps_in_the_root, silent_group_blown_up,
)  # fmt: skip


def _ratio(logprobs: Tensor, mask: Tensor, old: Tensor) -> Tensor:
    return (torch.where(mask, logprobs, 0.0) - torch.where(mask, old, 0.0)).exp()


def _gain(ratio: Tensor, advantages: Tensor, clip_epsilon: float) -> Tensor:
    by = advantages[:, None]
    return torch.minimum(ratio * by, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * by)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum() / max(1, int(mask.sum()))


def larger_of_the_two(logprobs: Tensor, advantages: Tensor, mask: Tensor, old: Tensor, clip_epsilon: float) -> Tensor:
    """You take the larger of the two gains; it is the smaller one, so that the clip never rewards going too far."""
    ratio, by = _ratio(logprobs, mask, old), advantages[:, None]
    return -_mean(torch.maximum(ratio * by, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * by), mask)


def smaller_ratio(logprobs: Tensor, advantages: Tensor, mask: Tensor, old: Tensor, clip_epsilon: float) -> Tensor:
    """You take the smaller of the two ratios, and then multiply: for a negative advantage that is the larger gain.

    Multiply first, take the minimum behind it.
    """
    ratio = _ratio(logprobs, mask, old)
    return -_mean(torch.minimum(ratio, ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon)) * advantages[:, None], mask)


def clipped_on_both_sides(
    logprobs: Tensor, advantages: Tensor, mask: Tensor, old: Tensor, clip_epsilon: float
) -> Tensor:
    """You take the clipped gain alone, without the minimum: a token that moved the wrong way is never pushed back."""
    ratio = _ratio(logprobs, mask, old)
    return -_mean(ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * advantages[:, None], mask)


def sign_of_the_loss(logprobs: Tensor, advantages: Tensor, mask: Tensor, old: Tensor, clip_epsilon: float) -> Tensor:
    """The minus is missing: a loss is made small, so yours makes good rollouts less likely."""
    return _mean(_gain(_ratio(logprobs, mask, old), advantages, clip_epsilon), mask)


def ratio_turned(logprobs: Tensor, advantages: Tensor, mask: Tensor, old: Tensor, clip_epsilon: float) -> Tensor:
    """Your ratio is old over new; it is new over old, exp(logprob - old logprob)."""
    return -_mean(_gain(1 / _ratio(logprobs, mask, old), advantages, clip_epsilon), mask)


def pads_in_the_count(logprobs: Tensor, advantages: Tensor, mask: Tensor, old: Tensor, clip_epsilon: float) -> Tensor:
    """You divide by all places of the rectangle; the mean runs over the sampled tokens alone, those in the mask."""
    gain = _gain(_ratio(logprobs, mask, old), advantages, clip_epsilon)
    return -torch.where(mask, gain, 0.0).mean()


def rollouts_weigh_alike(
    logprobs: Tensor, advantages: Tensor, mask: Tensor, old: Tensor, clip_epsilon: float
) -> Tensor:
    """You average within each rollout first; the mean runs over all tokens at once, so that each weighs the same."""
    gain = torch.where(mask, _gain(_ratio(logprobs, mask, old), advantages, clip_epsilon), 0.0)
    return -(gain.sum(1) / mask.sum(1).clamp(min=1)).mean()


def hidden_too_late(logprobs: Tensor, advantages: Tensor, mask: Tensor, old: Tensor, clip_epsilon: float) -> Tensor:
    """Pads may hold anything, nan too.

    You hide them behind exp, and the gradient is nan all the same: put 0 in their place first, with torch.where.
    """
    return -_mean(_gain((logprobs - old).exp(), advantages, clip_epsilon), mask)


def nothing_is_nan(logprobs: Tensor, advantages: Tensor, mask: Tensor, old: Tensor, clip_epsilon: float) -> Tensor:
    """Without a single masked token you divide 0 by 0; give a zero that still has a graph: the sum, divided by 1."""
    gain = torch.where(mask, _gain(_ratio(logprobs, mask, old), advantages, clip_epsilon), 0.0)
    return -gain.sum() / mask.sum()


RL_LOSS = (
    larger_of_the_two, smaller_ratio, clipped_on_both_sides, sign_of_the_loss, ratio_turned, pads_in_the_count,
    rollouts_weigh_alike, hidden_too_late, nothing_is_nan,
)  # fmt: skip


def _foretold(rate: float, group_size: int) -> float:
    return float(1 - rate**group_size - (1 - rate) ** group_size)


def _report(matches: Tensor, group_size: int, counted: Tensor) -> dict[str, float]:
    return {"counted": counted.float().mean().item(), "foretold": _foretold(matches.mean().item(), group_size)}


def _differ(grouped: Tensor) -> Tensor:
    return grouped.amax(1) != grouped.amin(1)


def any_right(matches: Tensor, group_size: int) -> dict[str, float]:
    """You count a group as soon as one rollout is right; where all are right there is nothing to compare either."""
    return _report(matches, group_size, matches.reshape(-1, group_size).amax(1) > 0)


def any_wrong(matches: Tensor, group_size: int) -> dict[str, float]:
    """You count a group as soon as one rollout is wrong; where all are wrong there is nothing to compare either."""
    return _report(matches, group_size, matches.reshape(-1, group_size).amin(1) < 1)


def number_of_groups(matches: Tensor, group_size: int) -> dict[str, float]:
    """You give the number of groups with a signal; a share is that number over the number of all groups."""
    grouped = matches.reshape(-1, group_size)
    return _report(matches, group_size, _differ(grouped)) | {"counted": float(_differ(grouped).sum())}


def each_groups_own_rate(matches: Tensor, group_size: int) -> dict[str, float]:
    """You put each group's own pass rate into the formula and average.

    What is asked for is the formula at the average rate, which promises more. The gap is what the average hides.
    """
    grouped = matches.reshape(-1, group_size)
    foretold = [_foretold(rate, group_size) for rate in grouped.mean(1).tolist()]
    return _report(matches, group_size, _differ(grouped)) | {"foretold": sum(foretold) / len(foretold)}


def all_right_forgotten(matches: Tensor, group_size: int) -> dict[str, float]:
    """Your formula is the chance of at least one right rollout.

    Take the chance that all are right, p^G, off as well.
    """
    found = _report(matches, group_size, _differ(matches.reshape(-1, group_size)))
    return found | {"foretold": 1 - (1 - matches.mean().item()) ** group_size}


def exponent_is_groups(matches: Tensor, group_size: int) -> dict[str, float]:
    """Your exponent is the number of groups; it is G, the number of rollouts that must all agree in one group."""
    grouped = matches.reshape(-1, group_size)
    return _report(matches, group_size, _differ(grouped)) | {"foretold": _foretold(matches.mean().item(), len(grouped))}


SIGNAL_SHARE = (
    any_right, any_wrong, number_of_groups, each_groups_own_rate, all_right_forgotten, exponent_is_groups,
)  # fmt: skip
