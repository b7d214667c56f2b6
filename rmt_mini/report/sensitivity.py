"""How much does a result depend on each setting? One is changed at a time, around the preset's value.

A variant is an arm like any other, named FIELD=VALUE, so that the same runner and the same reading serve it. Held-out
positions keep the tiers that the preset gives them, also where the thresholds change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rmt_mini.arms import METHOD
from rmt_mini.config import RMTConfig
from rmt_mini.files import File
from rmt_mini.report.markdown import escape, table

Json = dict[str, Any]
SIGN = "="
SYMBOLS = {
    "budget_decay": "gamma", "budget_start": "B_0", "length_weight": "w", "ntp_weight": "lambda",
    "curriculum_start": "t1", "curriculum_end": "t2", "group_size": "G", "tier_thresholds": "thresholds",
    "difficulty": "difficulty", "budget_rule": "budget rule",
}  # fmt: skip


def _shown(value: Any) -> str:
    return ",".join(map(_shown, value)) if isinstance(value, tuple) else f"{value}"


def sensitivities(found: Any, base: RMTConfig) -> list[Json]:
    """Read what each variant changed, those of the setting that matters most first.

    Args:
        found: as ``compare_runs`` returns it.
        base: settings of the method.

    Returns:
        [{"setting", "value", "default", "accuracy": {"difference", "low", "high"}, "thought_length": {the same},
        "operations"}, ...]: variant minus method, of the average accuracy and of tokens; operations over the method's.
    """
    found = found.model_dump(mode="json") if isinstance(found, File) else found
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
