"""Which values a sensitivity study runs: one setting is changed at a time, around the preset's value.

A variant is an arm like any other, named FIELD=VALUE, so ``compare`` runs it. Held-out positions keep the tiers that
the preset gives them, also where the thresholds change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, get_args

from rmt_mini.arms import Arm, arms_named
from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.report.claims import SYMBOLS
from rmt_mini.report.comparison import SIGN, value_name

SHIFT = 0.2  # of a transition point, as a share of T


def variants(base: RMTConfig, fields: Iterable[str] = SYMBOLS) -> list[Arm]:
    """Return the method and its variants: half and twice each of ``fields``, as far as that is allowed.

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


def _values(base: RMTConfig, field: str) -> Iterator[Any]:
    """Yield what a setting is changed to: what is allowed, without the value it has."""
    value, kind = getattr(base, field), RMTConfig.model_fields[field].annotation
    if isinstance(value, str):
        found = list(get_args(kind))
    elif isinstance(value, tuple):
        found = [tuple(_round(one * by) for one in value) for by in (0.5, 2.0)]
    elif field.startswith("curriculum"):
        found = [_round(max(0.0, min(1.0, value + shift))) for shift in (-SHIFT, SHIFT)]
    else:
        found = [_round(value / 2) if isinstance(value, float) else value // 2, _round(2 * value)]
    for one in found:
        with suppress(UserError):
            base.replace(**{field: one})
            if one != value:
                yield one


def _round(value: float) -> float:
    return round(value, 6)  # no float dust in names
