"""How much does a result depend on each setting? One is changed at a time, around the preset's value.

A variant is an arm like any other, named FIELD=VALUE, so that the same runner and the same reading serve it. Held-out
positions keep the tiers that the preset gives them, also where the thresholds change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rmt_mini.arms import METHOD, Arm, arms_named
from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.report.markdown import escape, table

Json = dict[str, Any]
SIGN = "="
SHIFT = 0.2  # of a transition point, as a share of T
CHOICES = {
    "difficulty": ("entropy", "loss", "pass-rate", "learning-progress", "random"),
    "budget_rule": ("step", "entropy"),
}
SYMBOLS = {
    "budget_decay": "gamma", "budget_start": "B_0", "length_weight": "w", "ntp_weight": "lambda",
    "curriculum_start": "t1", "curriculum_end": "t2", "group_size": "G", "tier_thresholds": "thresholds",
    "difficulty": "difficulty", "budget_rule": "budget rule",
}  # fmt: skip


def variants(base: RMTConfig, fields: Iterable[str] = SYMBOLS) -> list[Arm]:
    """Return the method and its variants: half and twice each setting, or the nearest that is allowed.

    Args:
        base: settings of the method.
        fields: of SYMBOLS.

    Raises:
        UserError: if a field is not among those that can be varied.

    Example:
        >>> [arm.name for arm in variants(RMTConfig(), ["budget_decay", "curriculum_end"])]
        ['rmt', 'budget_decay=0.1', 'budget_decay=0.4', 'curriculum_end=0.5', 'curriculum_end=0.9']
    """
    made = arms_named(base, [])
    for field in fields:
        if field not in SYMBOLS:
            raise UserError(f"setting {field!r} is not varied here; those that are: {', '.join(SYMBOLS)}")
        for value in _values(base, field):
            changes: Json = {field: value}
            if field == "tier_thresholds" and not any(base.evaluation_thresholds):
                changes["evaluation_thresholds"] = base.tier_thresholds
            made.append(Arm(f"{field}{SIGN}{_shown(value)}", changes))
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


def _shown(value: Any) -> str:
    return ",".join(map(_shown, value)) if isinstance(value, tuple) else f"{value}"


def sensitivities(found: Mapping[str, Any], base: RMTConfig) -> list[Json]:
    """Read what each variant changed, those of the setting that matters most first.

    Args:
        found: as ``compare_runs`` returns it.
        base: settings of the method.

    Returns:
        [{"setting", "value", "default", "accuracy": {"difference", "low", "high"}, "thought_length": {the same},
        "operations"}, ...]: variant minus method, of the average accuracy and of tokens; operations over the method's.
    """
    average = {pair["b"]: pair for pair in found["paired"] if pair["tier"] == "average"}
    rows = []
    for name, arm in found["arms"].items():
        field, sign, value = name.partition(SIGN)
        if sign:
            changed: Json = {"accuracy": _turned(average[name]), "thought_length": _turned(found["lengths"][name])}
            took, whole = (one["compute"]["operations"] for one in (arm, found["arms"][METHOD]))
            changed["operations"] = took / whole
            rows.append({"setting": field, "value": value, "default": _shown(getattr(base, field)), **changed})
    widest: dict[str, float] = {}
    for row in rows:
        widest[row["setting"]] = max(widest.get(row["setting"], 0.0), abs(row["accuracy"]["difference"]))
    return sorted(rows, key=lambda row: (-widest[row["setting"]], row["setting"]))


def _turned(pair: Mapping[str, Any]) -> Json:
    return {"difference": -pair["difference"], "low": -pair["high"], "high": -pair["low"]}


def sensitivity_lines(rows: Iterable[Json]) -> Iterator[str]:
    """Say of which settings a change of the result can be told, and of which it cannot."""
    told: dict[str, list[str]] = {}
    for row in rows:
        change = row["accuracy"]
        known = change["low"] > 0 or change["high"] < 0
        words = f"{row['value']} {100 * change['difference']:+.1f}"
        told.setdefault(row["setting"], []).extend([words] * known)
    moved = [f"{SYMBOLS[field]} ({'; '.join(words)})" for field, words in told.items() if words]
    still = [SYMBOLS[field] for field, words in told.items() if not words]
    if moved:
        yield f"**Accuracy depends on {', '.join(moved)}**: points against the preset's value."
    if still:
        yield f"**Whether it depends on {', '.join(still)} cannot be told** from changes of this size."


def sensitivity_table(rows: Iterable[Json]) -> str:
    """Lay out every variant against the method."""
    cells = []
    for row in rows:
        told = [(row["accuracy"], 100), (row["thought_length"], 1)]
        changes = [[by * one[key] for key in ("difference", "low", "high")] for one, by in told]
        cells.append(
            [
                f"{SYMBOLS[row['setting']]} ({escape(row['setting'])})",
                row["default"],
                row["value"],
                *("{:+z.1f} [{:+z.1f}, {:+z.1f}]".format(*one) for one in changes),
                f"x {row['operations']:.2f}",
            ]
        )
    head = ["setting", "preset", "variant", "average accuracy, points", "thought length, tokens", "operations"]
    return table(head, cells)
