"""The arms of a comparison: the method, its baseline, its ablations, and the controls a careful reader asks for.

An arm is a name for changes of settings; everything else is the preset's, the seed included, so that arms differ in
what they are named for alone. All arms take as many steps on the same documents.

    ntp                   next-token prediction on every position, no RL: the row that the paper lacks
    sft                   the model's own right rollouts, learned by heart, plus NTP: no comparison within a group
    rpt                   RPT (arXiv 2506.08007): GRPO above the easy tier; no budget, no curriculum, no NTP
    rmt                   the method
    rmt-no-budget         neither stated nor rewarded; a cap that leaves long thoughts their room
    rmt-no-curriculum     the same tiers on the whole, in no order: p_t is the mean of p_early and p_late throughout
    rmt-no-ntp            the chosen positions alone
    rmt-random-tokens     positions drawn without regard to difficulty
    rl-no-think           the same RL on answers given at once: is it thinking that helps, or reward?
    rmt-shuffled-reward   rewards dealt out at random: what remains is no learning from rewards

The first row of any table is no arm: the untrained model, predicting plainly (NTP) and after a thought (NTR).
"""

from __future__ import annotations

from typing import Any

from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError

ROOM = (
    2  # a cap of ROOM x 2 B_0 where no budget is used: 2 B_0 itself would cut the thoughts that no one asks to be short
)

ARMS = (
    "ntp", "sft", "rpt", "rmt", "rmt-no-budget", "rmt-no-curriculum", "rmt-no-ntp", "rmt-random-tokens",
    "rl-no-think", "rmt-shuffled-reward",
)  # fmt: skip
PLAIN = ("ntp",)  # arms that do not think: what they predict plainly is their result


def arm_config(base: RMTConfig, arm: str) -> RMTConfig:
    """Return the settings of an arm.

    Args:
        base: settings of the method, as a preset and the user give them.
        arm: one of ARMS.

    Raises:
        UserError: if there is no such arm.

    Example:
        >>> arm_config(RMTConfig(budget_start=16), "rmt-no-budget").budget_start
        32
        >>> arm_config(RMTConfig(), "rmt-no-curriculum").tier_probs_late
        (0.4, 0.35, 0.25)
    """
    if arm not in ARMS:
        raise UserError(f"arm {arm!r} is unknown; the arms are {', '.join(ARMS)}")
    return base.replace(**_changes(base, arm))


def _changes(base: RMTConfig, arm: str) -> dict[str, Any]:
    no_budget = {"use_budget": False, "budget_start": ROOM * base.budget_start}
    # no float dust in what run.json will show
    mean = tuple(round((a + b) / 2, 6) for a, b in zip(base.tier_probs_early, base.tier_probs_late, strict=True))
    above_easy = (0.0, 0.5, 0.5)
    changes: dict[str, dict[str, Any]] = {
        "ntp": {"use_rl": False, "warmup_steps": 0},
        "sft": {"rl_rule": "correct"},
        "rpt": {**no_budget, "use_ntp": False, "tier_probs_early": above_easy, "tier_probs_late": above_easy},
        "rmt": {},
        "rmt-no-budget": no_budget,
        "rmt-no-curriculum": {"tier_probs_early": mean, "tier_probs_late": mean},
        "rmt-no-ntp": {"use_ntp": False},
        "rmt-random-tokens": {"use_curriculum": False},
        "rl-no-think": {"use_thinking": False, "use_budget": False},
        "rmt-shuffled-reward": {"rl_rule": "shuffled"},
    }
    return changes[arm]
