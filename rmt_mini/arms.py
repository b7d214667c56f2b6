"""The arms of a comparison: the method, its baseline, its ablations and its controls, all in arms.yaml.

An arm is a name for changes of settings; everything else is the preset's, the seed included, so that arms differ only
in what they are named for. All arms take as many steps on the same documents, except ``ntp-equal-compute``.
The first rows of any table are not arms: the untrained model, answering at once (NTP) and after a thought (NTR).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import floor
from typing import Any

from rmt_mini.config import RMTConfig, data
from rmt_mini.errors import UserError

METHOD, BASELINE = "rmt", "rpt"
MAIN = {"ntp", BASELINE, METHOD, "rmt-no-budget", "rmt-no-curriculum", "rmt-no-ntp"}  # all others are controls
BASE = {"base-ntp": "ntp", "base-ntr": "think"}  # the untrained model's two rows, and how each answers

# name -> "set" and "as_long_as", each where the arm has it
ARMS: dict[str, dict[str, Any]] = data("arms.yaml")


def _mean_tiers(base: RMTConfig) -> dict[str, Any]:
    # p_early until t1 and p_late from t2 on; rounded, so that run.json shows no 0.30000000000000004
    if not base.use_curriculum:
        return {}
    early, ends = (base.curriculum_start + base.curriculum_end) / 2, (base.tier_probs_early, base.tier_probs_late)
    mean = tuple(round(early * a + (1 - early) * b, 9) for a, b in zip(*ends, strict=True))
    return {"tier_probs_early": mean, "tier_probs_late": mean}


def _doubled(base: RMTConfig) -> dict[str, Any]:
    return {"budget_start": 2 * base.budget_start} if base.use_budget else {}


def _last_budget(base: RMTConfig) -> dict[str, Any]:
    # B_T; its formula is in ``method.budget``, which this room may not import
    last = max(base.budget_min, floor(base.budget_start * base.budget_decay + 1e-9))
    return {"budget_decay": 1.0, "budget_start": last} if base.use_budget else {}


# what an arm has instead that follows from the preset's settings
COMPUTED: dict[str, Callable[[RMTConfig], dict[str, Any]]] = {
    # without a budget thoughts stop at 2 budget_start, which would cut the thoughts that nobody asked to be short
    **dict.fromkeys(("rlp", "rmt-no-budget"), _doubled),
    "rpt": lambda base: _doubled(base) | ({} if base.use_curriculum else {"use_curriculum": True}),  # it needs tiers
    "rmt-short-budget": _last_budget,
    "rmt-no-curriculum": _mean_tiers,
    "rmt-reversed-curriculum": lambda base: (
        {"tier_probs_early": base.tier_probs_late, "tier_probs_late": base.tier_probs_early}
        if base.use_curriculum
        else {}
    ),
}


@dataclass(frozen=True, slots=True)
class Arm:
    """A name for changes of settings, and the arm whose operations it takes where it does not take the usual steps."""

    name: str
    changes: Mapping[str, Any]
    compute_of: str = ""

    def config(self, base: RMTConfig) -> RMTConfig:
        """Return the arm's settings, from those of the method as a preset and the user give them."""
        return base.replace(**self.changes)


def arms_named(base: RMTConfig, names: Iterable[str] = ()) -> list[Arm]:
    """Return arms of these names in the order of ARMS, always with "rmt"; rows of the untrained model are skipped.

    Without names: all, but not "rlp" in a chat, since its reward needs answers of one token, nor those that are the
    method itself under these settings. One of these by name, or an unknown one, is a UserError.

    Example:
        >>> {arm.name: dict(arm.changes) for arm in arms_named(RMTConfig(budget_start=16), ["rmt-no-budget"])}
        {'rmt': {}, 'rmt-no-budget': {'use_budget': False, 'budget_start': 32}}
    """
    usual = ARMS.keys() - ({"rlp"} if base.answer_format == "chat" else set())
    wanted = {*(tuple(names) or usual), METHOD} - BASE.keys()
    for name in sorted(wanted - ARMS.keys()):
        raise UserError(f"arm {name!r} is unknown; the arms are {', '.join(ARMS)}")
    found = []
    for name, parts in ARMS.items():
        changes = parts.get("set", {}) | (COMPUTED[name](base) if name in COMPUTED else {})
        arm = Arm(name, changes, parts.get("as_long_as", ""))
        differs = name == METHOD or arm.compute_of or any(getattr(base, key) != new for key, new in changes.items())
        if name in wanted and names and not differs:
            raise UserError(f"under these settings arm {name!r} is the method itself; leave it out of --arms")
        if name in wanted and differs:
            found.append(arm)
    return found
