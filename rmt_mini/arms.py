"""The arms of a comparison: the method, its baseline, its ablations, and the controls a careful reader asks for.

An arm is a name for changes of settings; everything else is the preset's, the seed included, so that arms differ in
what they are named for alone. All arms take as many steps on the same documents, but for one.

    ntp                   next-token prediction on every position, no RL: the row that the paper lacks
    ntp-equal-compute     the same for as many operations as RMT took, thus many more steps
    sft                   the model's own right rollouts, learned by heart, plus NTP: no comparison within a group
    rpt                   RPT (arXiv 2506.08007): GRPO above the easy tier; no budget, no curriculum, no NTP
    rmt                   the method
    rmt-no-budget         neither stated nor rewarded; a cap that leaves long thoughts their room
    rmt-no-curriculum     the same tiers on the whole, in no order: p_t is the mean of p_early and p_late throughout
    rmt-no-ntp            the chosen positions alone
    rmt-random-tokens     positions drawn without regard to difficulty
    rl-no-think           the same RL on answers given at once: is it thinking that helps, or reward?
    rmt-shuffled-reward   rewards dealt out at random: what remains is no learning from rewards

The first rows of any table are no arms: the untrained model, predicting plainly (NTP) and after a thought (NTR).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError

METHOD, BASELINE = "rmt", "rpt"
BASE = {"base-ntp": "ntp", "base-ntr": "think"}  # the untrained model's two rows, and how each answers
ROOM = (
    2  # a cap of ROOM x 2 B_0 where no budget is used: 2 B_0 itself would cut the thoughts that no one asks to be short
)

ARMS = (
    "ntp", "ntp-equal-compute", "sft", "rpt", "rmt", "rmt-no-budget", "rmt-no-curriculum", "rmt-no-ntp",
    "rmt-random-tokens", "rl-no-think", "rmt-shuffled-reward",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arm:
    """A name for changes of settings.

    Attributes:
        name: of its row and its folders.
        changes: config fields that differ from the method's.
        compute_of: the arm whose operations it takes, where it does not take as many steps as all others.
    """

    name: str
    changes: Mapping[str, Any]
    compute_of: str = ""

    def config(self, base: RMTConfig) -> RMTConfig:
        """Return the arm's settings, from those of the method as a preset and the user give them."""
        return RMTConfig.from_dict({**base.to_dict(), **self.changes})  # changes may have been through JSON


def arms_named(base: RMTConfig, names: Iterable[str] = ARMS) -> list[Arm]:
    """Return arms in the order of the tables.

    Args:
        base: settings of the method.
        names: of ARMS; "rmt" is always among them, since the others are held against it. The names of the untrained
            model's rows are passed over: these come of themselves.

    Raises:
        UserError: if there is no such arm.

    Example:
        >>> base = RMTConfig(budget_start=16)
        >>> {arm.name: dict(arm.changes) for arm in arms_named(base, ["rmt-no-budget"])}
        {'rmt': {}, 'rmt-no-budget': {'use_budget': False, 'budget_start': 32}}
    """
    wanted = {*names, METHOD} - BASE.keys()
    for name in sorted(wanted - set(ARMS)):
        raise UserError(f"arm {name!r} is unknown; the arms are {', '.join(ARMS)}")
    changes = _changes(base)
    return [Arm(name, changes[name], METHOD if name == "ntp-equal-compute" else "") for name in ARMS if name in wanted]


def _changes(base: RMTConfig) -> dict[str, dict[str, Any]]:
    no_rl = {"use_rl": False, "warmup_steps": 0}
    no_budget = {"use_budget": False, "budget_start": ROOM * base.budget_start}
    # no float dust in what run.json will show
    mean = tuple(round((a + b) / 2, 6) for a, b in zip(base.tier_probs_early, base.tier_probs_late, strict=True))
    above_easy = (0.0, 0.5, 0.5)
    return {
        "ntp": no_rl,
        "ntp-equal-compute": no_rl,
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
