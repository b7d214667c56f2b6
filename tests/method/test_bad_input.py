"""Bad input is refused with a message that names the argument and its value."""

import math

import pytest
import torch

from rmt_mini.method.budget import budget_at_step, budgets_by_entropy, length_reward, thought_cap
from rmt_mini.method.curriculum import TierSampler, tier_probabilities
from rmt_mini.method.entropy import assign_tiers, quantile_thresholds, tiers_by_score, token_entropy
from rmt_mini.method.grpo import group_advantages, groups_with_signal, kl_estimate, rl_loss
from rmt_mini.method.objective import ntp_loss, ntp_mask, rmt_loss
from rmt_mini.method.rewards import information_gain, match_reward, prefix_match_reward, total_reward

EARLY, LATE = (0.6, 0.3, 0.1), (0.2, 0.3, 0.5)
LP, ADV, MASK = torch.zeros(2, 3), torch.zeros(2), torch.ones(2, 3, dtype=torch.bool)
ZERO = torch.tensor(0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        # budget
        (lambda: budget_at_step(5, 4, 8, 1, 0.5), "step=5 lies outside 0..total_steps=4"),
        (lambda: budget_at_step(-1, 4, 8, 1, 0.5), "step=-1"),
        (lambda: budget_at_step(0, 0, 8, 1, 0.5), "total_steps=0 must be at least 1"),
        (lambda: budget_at_step(0, 4, 8, 0, 0.5), "minimum=0 must be at least 1 token"),
        (lambda: budget_at_step(0, 4, 8, 9, 0.5), "start=8 lies below minimum=9; raise start"),
        (lambda: budget_at_step(0, 4, 8, 1, 1.5), r"decay=1.5 lies outside \(0, 1\]"),
        (lambda: budget_at_step(0, 4, 8, 1, 0), "decay=0 "),
        (lambda: budget_at_step(0, 4, 8, 1, math.nan), "decay=nan"),
        (lambda: length_reward(-1, 4), "length=-1 must not be negative"),
        (lambda: length_reward(torch.tensor([3, -1]), 4), "length=tensor"),
        (lambda: length_reward(1, 0), "budget=0 must be above 0"),
        (lambda: length_reward(1, torch.tensor([4, 0])), "budget=tensor"),
        (lambda: length_reward(1, 4, peak=0), "peak=0 must be above 0"),
        (lambda: length_reward(1, 4, peak=math.inf), "peak=inf"),
        (lambda: thought_cap(0), "budget=0 must be at least 1"),
        (lambda: budgets_by_entropy([1.0], 4, 5), "minimum=5 must lie in 1..budget=4"),
        (lambda: budgets_by_entropy([1.0], 4, 0), "minimum=0 must lie in 1..budget=4"),
        # curriculum
        (lambda: tier_probabilities(11, 10, EARLY, LATE), "step=11 lies outside 0..total_steps=10"),
        (lambda: tier_probabilities(0, 10, (0.5, 0.5), LATE), r"early=\(0.5, 0.5\)"),
        (lambda: tier_probabilities(0, 10, EARLY, (0.5, 0.5, 0.5)), r"late=\(0.5, 0.5, 0.5\) .*sum 1"),
        (lambda: tier_probabilities(0, 10, (-0.5, 1.0, 0.5), LATE), "early="),
        (lambda: tier_probabilities(0, 10, (math.nan, 0.5, 0.5), LATE), "early="),
        (lambda: tier_probabilities(0, 10, EARLY, LATE, start=0.5, end=0.5), "start=0.5 and end=0.5"),
        (lambda: TierSampler(10, EARLY, LATE, end=1.5), "end=1.5"),
        (lambda: TierSampler(10, EARLY, LATE).sample(torch.tensor([0, 3]), 1, 0), "of 0, 1, 2"),
        (lambda: TierSampler(10, EARLY, LATE).sample(torch.zeros(2, 2), 1, 0), r"shape \(2, 2\)"),
        (lambda: TierSampler(10, EARLY, LATE).sample(torch.tensor([0]), -1, 0), "n=-1 must not be negative"),
        (lambda: TierSampler(10, EARLY, LATE, enabled=False).sample(torch.tensor([0]), 1, 11), "step=11"),
        (lambda: TierSampler(10, EARLY, LATE).load_state_dict({"counts": [0, 0, 0]}), "has no .'generator'"),
        # entropy
        (lambda: token_entropy(torch.tensor(1.0)), r"logits has shape \(\)"),
        (lambda: token_entropy(torch.zeros(2, 4), top_k=5), r"top_k=5 lies outside 1..V=4"),
        (lambda: token_entropy(torch.zeros(2, 4), top_k=0), r"top_k=0 .*None takes all"),
        (lambda: assign_tiers(torch.zeros(1), (1.5, 0.5)), r"thresholds=\(1.5, 0.5\) .*ascending"),
        (lambda: assign_tiers(torch.zeros(1), (0.5, math.inf)), r"thresholds=\(0.5, inf\) .*finite"),
        (lambda: assign_tiers(torch.zeros(1), (math.nan, 1.0)), r"thresholds=\(nan, 1.0\)"),
        (lambda: assign_tiers(torch.zeros(1), (0.5, 1.0, 1.5)), r"must be two"),
        (lambda: assign_tiers(torch.tensor([math.nan]), (0.5, 1.5)), r"entropy holds nan"),
        (lambda: quantile_thresholds(torch.zeros(0)), r"entropy of shape \(0,\) is empty"),
        (lambda: quantile_thresholds(torch.tensor([math.nan])), r"not finite"),
        (lambda: quantile_thresholds(torch.zeros(3), (0.7, 0.3)), r"fractions=\(0.7, 0.3\)"),
        (lambda: quantile_thresholds(torch.zeros(3), (0.5, 1.5)), r"fractions=\(0.5, 1.5\)"),
        (lambda: quantile_thresholds(torch.zeros(3), (0.5,)), r"fractions=\(0.5,\)"),
        (lambda: tiers_by_score(torch.zeros(3), torch.zeros(2).long(), torch.zeros(3)), "must be alike"),
        (lambda: tiers_by_score(torch.tensor([math.nan]), torch.zeros(1).long(), torch.zeros(1)), "score holds nan"),
        # grpo
        (lambda: group_advantages(torch.zeros(7), 4), r"shape \(7,\) do not fill groups of group_size=4"),
        (lambda: group_advantages(torch.zeros(2, 3), 4), r"give \(R,\), or \(K, G\) with G = group_size=4"),
        (lambda: group_advantages(torch.zeros(4), 0), "group_size=0 must be at least 1"),
        (lambda: group_advantages(torch.zeros(4), 4, eps=-1.0), "eps=-1.0"),
        (lambda: groups_with_signal(torch.zeros(7), 4), "do not fill"),
        (lambda: kl_estimate(torch.zeros(3), torch.zeros(3, 1)), r"reference_logprobs has shape \(3, 1\)"),
        (lambda: rl_loss(LP, torch.zeros(3), MASK), r"advantages \(3,\); give \(R, L\) and \(R,\)"),
        (lambda: rl_loss(torch.zeros(2), ADV, MASK), r"logprobs has shape \(2,\)"),
        (lambda: rl_loss(LP, ADV, MASK.float()), "mask has dtype torch.float32; give a boolean"),
        (lambda: rl_loss(LP, ADV, MASK[:, :2]), r"mask has shape \(2, 2\), not \(2, 3\)"),
        (lambda: rl_loss(LP, ADV, MASK, old_logprobs=torch.zeros(2, 1)), r"old_logprobs has shape \(2, 1\)"),
        (
            lambda: rl_loss(LP, ADV, MASK, reference_logprobs=torch.zeros(2, 1), kl_weight=0.1),
            r"reference_logprobs has shape \(2, 1\)",
        ),
        (lambda: rl_loss(LP, ADV, MASK, clip_epsilon=0.0), "clip_epsilon=0.0 must be above 0"),
        (lambda: rl_loss(LP, ADV, MASK, kl_weight=-0.1), "kl_weight=-0.1"),
        (lambda: rl_loss(LP, ADV, MASK, kl_weight=0.1), "kl_weight=0.1 needs reference_logprobs"),
        (lambda: rl_loss(LP, ADV, MASK, normalise="tokens"), "normalise='tokens' is unknown"),
        (lambda: rl_loss(LP[:1, :1], ADV[:1], MASK[:1, :1], count=0), "count=0 does not fit 1 items"),
        (lambda: rl_loss(LP, ADV, MASK, count=-1), "count=-1"),
        (lambda: rl_loss(LP, ADV, MASK, count=math.inf), "count=inf"),
        (lambda: rl_loss(LP, ADV, MASK, count=math.nan), "count=nan"),
        # objective
        (lambda: ntp_mask(-1, []), "length=-1"),
        (lambda: ntp_mask(5, [], first=0), "first=0 must be at least 1"),
        (lambda: ntp_mask(5, [5]), "chosen holds 5, outside first=1..4"),
        (lambda: ntp_mask(5, [-1]), "chosen holds -1"),
        (lambda: ntp_mask(5, [2], first=3), "chosen holds 2, outside first=3"),
        (lambda: ntp_loss(torch.zeros(2), torch.ones(2)), "mask has dtype torch.float32"),
        (lambda: rmt_loss(torch.zeros(2), ZERO, 0.1), r"rl has shape \(2,\); give a scalar"),
        (lambda: rmt_loss(ZERO, torch.zeros(1), 0.1), r"ntp has shape \(1,\)"),
        (lambda: rmt_loss(ZERO, ZERO, -0.1), "ntp_weight=-0.1"),
        (lambda: rmt_loss(ZERO, ZERO, math.inf), "ntp_weight=inf"),
        (lambda: rmt_loss(ZERO, ZERO, math.nan), "ntp_weight=nan"),
        # rewards
        (lambda: match_reward("7", 7), "answer='7' is text"),
        (lambda: match_reward(7, "7"), "truth='7' is text; give token ids"),
        (lambda: match_reward((), ()), r"truth=\(\) is empty"),
        (lambda: prefix_match_reward("a", "ab", (1, 3)), "boundaries holds 3, outside 0..2"),
        (lambda: prefix_match_reward("a", "ab", (-1,)), "boundaries holds -1"),
        (lambda: total_reward(1.0, 1.0, 1.5), "length_weight=1.5 lies outside 0..1"),
        (lambda: total_reward(1.0, 1.0, math.nan), "length_weight=nan"),
        (lambda: total_reward(torch.zeros(3), torch.zeros(3, 1), 0.1), r"match has shape \(3,\), length has shape"),
        (lambda: total_reward(LP[0], LP[0], 0.1, gain=LP[:1]), r"gain has shape \(1, 3\); give one value a rollout"),
        (lambda: information_gain(torch.zeros(3), torch.zeros(3, 1)), r"thinking has shape \(3,\), plain has shape"),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
