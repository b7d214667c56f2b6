"""GRPO by hand: one group's advantages, when a group has a signal, the clip, and the KL against its estimates."""

from __future__ import annotations

import math

from rmt_mini.method.rewards import total_reward
from rmt_mini.report.plots import Figured, advantage_bars, clip_curve, kl_estimates, signal_curve
from rmt_mini.teaching.widgets.controls import Explorer, explore, number, switch, whole


def one_group(group_size: int, right: int, length_weight: float, last: float, only_if_correct: bool) -> Figured:
    """Draw a group whose first rollouts are right, and whose thoughts all keep to the budget but for the last one's.

    Args:
        group_size: G.
        right: how many rollouts are.
        length_weight: w.
        last: the length reward of the last rollout; all others earn 1.
        only_if_correct: our departure, length_if_correct.

    Raises:
        ValueError: if more are right than there are.
    """
    if right > group_size:
        raise ValueError(f"right={right}, but the group has only group_size={group_size} rollouts")
    lengths = [1.0] * (group_size - 1) + [last]
    matches = [float(place < right) for place in range(group_size)]
    return advantage_bars(
        [[total_reward(m, length, length_weight, only_if_correct) for m, length in zip(matches, lengths, strict=True)]]
    )


def advantage_explorer() -> Explorer:
    """Move who is right, and how far one thought strays, over a group's advantages."""
    return explore(
        one_group,
        group_size=whole("G, rollouts", 8, 1, 16),
        right=whole("of them right", 2, 0, 16),
        length_weight=number("w, length weight", 0.3, 0.0, 1.0),
        last=number("length reward of the last", 0.9, 0.0, 1.0),
        only_if_correct=switch("length reward for right answers only (ours)"),
    )


def signal_explorer() -> Explorer:
    """Move the pass rate and G over the share of groups with a signal."""
    return explore(
        signal_curve,
        pass_rate=number("p, pass rate", 0.1, 0.0, 1.0, 0.01),
        group_size=whole("G, rollouts a group", 8, 1, 32),
        groups=whole("simulated groups a point", 400, 10, 1000, 10),
        seed=whole("seed", 0, 0, 50),
    )


def clip_explorer() -> Explorer:
    """Move the ratio and epsilon over the clipped objective of a token, for an advantage of either sign."""
    return explore(
        clip_curve,
        ratio=number("ratio pi / pi_old", 1.5, 0.05, 3.0),
        epsilon=number("epsilon", 0.2, 0.05, 0.95),
        size=number("size of the advantage", 1.0, 0.25, 3.0, 0.25),
    )


def moved_policy(move: float, vocabulary: int, samples: int, seed: int) -> Figured:
    """Draw the KL of a policy whose logits have moved away from a reference, and its estimates.

    The reference gives its tokens probabilities as 1, 1/2, 1/3, ...; the policy's logits are higher by up to ``move``
    for its rare tokens, and lower for its frequent ones.

    Raises:
        ValueError: as ``kl_estimates``, or if vocabulary is below 2.
    """
    if vocabulary < 2:
        raise ValueError(f"vocabulary={vocabulary} must be at least 2; with one token there is nothing to choose")
    reference = [1 / (place + 1) for place in range(vocabulary)]
    policy = [p * math.exp(move * (2 * place / (vocabulary - 1) - 1)) for place, p in enumerate(reference)]
    return kl_estimates([p / sum(policy) for p in policy], [q / sum(reference) for q in reference], samples, seed)


def kl_explorer() -> Explorer:
    """Move the policy away from its reference, and the number of sampled tokens, over the KL's estimates."""
    return explore(
        moved_policy,
        move=number("how far the logits moved", 1.0, -2.0, 2.0),
        vocabulary=whole("tokens in the vocabulary", 6, 2, 12),
        samples=whole("sampled tokens", 64, 1, 1024),
        seed=whole("seed", 0, 0, 50),
    )
