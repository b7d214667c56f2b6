"""The paper, and nothing else: pure functions on tensors and numbers, without a model, in the order of a step.

    entropy      logits -> entropies -> tiers              how hard is a position?
    curriculum   tiers, step -> positions C                which ones are thought about now?
    budget       step -> B_t; thought length -> reward     how long may a thought be?
    rewards      answer -> match; match, length -> r       was it right, and what is it worth?
    grpo         r -> advantages -> L_RL                   which rollouts become likelier?
    objective    L_RL + lambda * L_NTP                     both losses, on disjoint positions
    schedule     settings, step -> B_t, p_t                the formulas with a run's settings put in

An argument outside its range or of a wrong shape raises a ValueError that names it and the remedy.
"""

from rmt_mini.method.budget import budget_at_step, length_reward, thought_cap
from rmt_mini.method.curriculum import TierSampler, tier_probabilities
from rmt_mini.method.entropy import TIERS, assign_tiers, quantile_thresholds, token_entropy
from rmt_mini.method.grpo import group_advantages, groups_with_signal, is_clipped, kl_estimate, rl_loss
from rmt_mini.method.objective import ntp_loss, ntp_mask, rmt_loss
from rmt_mini.method.rewards import information_gain, match_reward, prefix_match_reward, total_reward
from rmt_mini.method.schedule import budget_of, budgets_for, draw, outside, probabilities_of, sampler_for
