"""Which values a sensitivity study runs: one setting is changed at a time, around the preset's value.

A variant is an arm like any other, named FIELD=VALUE, so ``compare`` runs it. Held-out positions keep the tiers that
the preset gives them, also where the thresholds change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from rmt_mini.arms import Arm, arms_named
from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.report.claims import SYMBOLS
from rmt_mini.report.comparison import SIGN, value_name

SHIFT = 0.2  # of a transition point, as a share of T
CHOICES = {
    "difficulty": ("entropy", "loss", "pass-rate", "learning-progress", "random"),
    "budget_rule": ("step", "entropy"),
}


def variants(base: RMTConfig, fields: Iterable[str] = SYMBOLS) -> list[Arm]:
    """Return the method and its variants: half and twice each of ``fields``, or the nearest that is allowed.

    Raises:
        UserError: if a field is not among SYMBOLS.

    Example:
        >>> [arm.name for arm in variants(RMTConfig(), ["budget_decay", "curriculum_end"])]
        ['rmt', 'budget_decay=0.1', 'budget_decay=0.4', 'curriculum_end=0.5', 'curriculum_end=0.9']
    """
    made = arms_named(base, [])
    for field in fields:
        if field not in SYMBOLS:
            raise UserError(f"setting {field!r} is not varied here; those that are: {', '.join(SYMBOLS)}")
        for value in _values(base, field):
            changes: dict[str, Any] = {field: value}
            if field == "tier_thresholds" and not any(base.evaluation_thresholds):
                changes["evaluation_thresholds"] = base.tier_thresholds
            made.append(Arm(f"{field}{SIGN}{value_name(value)}", changes))
    return made


def _values(base: RMTConfig, field: str) -> list[Any]:
    """Return what a setting is changed to, without the value it has."""
    value = getattr(base, field)
    if field in CHOICES:
        return [one for one in CHOICES[field] if one != value]
    if field == "tier_thresholds":
        most = 1.0 if base.tier_rule == "quantile" else math.inf
        return [tuple(_round(one * by) for one in value) for by in (0.5, 2.0) if value[1] * by <= most]
    if field == "curriculum_start":
        found = [max(0.0, value - SHIFT), *[value + SHIFT] * (value + SHIFT < base.curriculum_end)]
    elif field == "curriculum_end":
        found = [*[value - SHIFT] * (value - SHIFT > base.curriculum_start), min(1.0, value + SHIFT)]
    elif field in ("budget_start", "group_size"):
        found = [max(base.budget_min if field == "budget_start" else 2, value // 2), 2 * value]
    else:
        found = [value / 2, 2 * value if field == "ntp_weight" else min(1.0, 2 * value)]
    return [one for one in map(_round, found) if one != value]


def _round(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value  # no float dust in names
