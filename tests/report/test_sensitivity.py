"""One setting at a time: which variants there are, and what is said of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmt_mini.config import RMTConfig, preset
from rmt_mini.errors import UserError
from rmt_mini.report import plots
from rmt_mini.report.comparison import compare_runs
from rmt_mini.report.comparison_report import write_comparison_report
from rmt_mini.report.sensitivity import SYMBOLS, sensitivities, sensitivity_lines, sensitivity_table, variants
from tests.report.test_comparison import a_run

BASE = RMTConfig(budget_start=16, budget_decay=0.2)


@pytest.mark.parametrize("name", ["micro", "laptop"])
def test_each_variant_changes_one_setting(name: str) -> None:
    base = preset(name)
    method, *others = variants(base)
    assert method.config(base) == base
    assert {arm.name.split("=")[0] for arm in others} == set(SYMBOLS)
    assert len({arm.name for arm in others}) == len(others)
    for arm in others:
        field, value = arm.name.split("=")
        config = arm.config(base)  # is allowed
        changed = {key for key, old in base.to_dict().items() if config.to_dict()[key] != old}
        assert changed == {field} | ({"evaluation_thresholds"} if field == "tier_thresholds" else set())
        if field == "tier_thresholds":
            assert config.evaluation_thresholds == base.tier_thresholds
        assert "/" not in value


@pytest.mark.parametrize(
    ("changes", "field", "values"),
    [
        ({"budget_decay": 0.4}, "budget_decay", [0.2, 0.8]),
        ({"budget_decay": 0.7}, "budget_decay", [0.35, 1.0]),
        ({"budget_decay": 1.0}, "budget_decay", [0.5]),
        ({"budget_start": 6, "budget_min": 4}, "budget_start", [4, 12]),
        ({}, "curriculum_start", [0.1, 0.5]),
        ({"curriculum_start": 0.6}, "curriculum_start", [0.4]),
        ({}, "curriculum_end", [0.5, 0.9]),
        ({"group_size": 2}, "group_size", [4]),
        ({}, "tier_thresholds", [(0.5, 1.5), (2.0, 6.0)]),
        ({"tier_rule": "quantile", "tier_thresholds": (0.4, 0.7)}, "tier_thresholds", [(0.2, 0.35)]),
        ({"difficulty": "loss"}, "difficulty", ["entropy", "pass-rate", "learning-progress", "random"]),
        ({}, "budget_rule", ["entropy"]),
    ],
)
def test_values_around_the_default(changes: dict[str, Any], field: str, values: list[Any]) -> None:
    base = RMTConfig(**changes)
    assert [arm.changes[field] for arm in variants(base, [field])[1:]] == values


def test_an_unknown_setting_is_one_line() -> None:
    with pytest.raises(UserError, match="setting 'steps' is not varied here; those that are: budget_decay, "):
        variants(BASE, ["group_size", "steps"])


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    rights = {"rmt": (0.5, 10), "budget_decay=0.1": (0.8, 5), "budget_decay=0.4": (0.5, 14), "group_size=4": (0.5, 10)}
    return compare_runs(
        {arm: [a_run(tmp_path, arm, seed, right, length) for seed in (0, 1)] for arm, (right, length) in rights.items()}
    )


def test_what_each_variant_changed(found: dict[str, Any], tmp_path: Path) -> None:
    rows = sensitivities(found, BASE)
    assert [(row["setting"], row["value"], row["default"]) for row in rows] == [
        ("budget_decay", "0.1", "0.2"),
        ("budget_decay", "0.4", "0.2"),
        ("group_size", "4", "8"),
    ]
    first, second, last = rows
    assert first["accuracy"]["difference"] == pytest.approx(0.3)
    assert 0 < first["accuracy"]["low"] < 0.3 < first["accuracy"]["high"]
    assert first["thought_length"] == {"difference": -5, "low": -5, "high": -5}
    assert second["thought_length"]["difference"] == 4
    assert last["accuracy"] == {"difference": 0, "low": 0, "high": 0}
    assert last["operations"] == 1.0
    moved, still = sensitivity_lines(rows)
    assert moved == "**Accuracy depends on gamma (0.1 +30.0)**: points against the preset's value."
    assert still == "**Whether it depends on G cannot be told** from changes of this size."
    assert "| gamma (budget&#95;decay) | 0.2 | 0.1 | +30.0 [" in sensitivity_table(rows)
    json.dumps(rows, allow_nan=False)


def test_the_report_says_so_and_draws_it(found: dict[str, Any], tmp_path: Path) -> None:
    rows = sensitivities(found, BASE)
    told = write_comparison_report(tmp_path, found | {"config": BASE.to_dict(), "seeds": [0, 1]}, variants=rows)
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# RMT, one setting changed at a time: preset custom, text champ, 2 seeds")
    assert "**Accuracy depends on gamma" in text
    assert told == sensitivity_table(rows)
    figured = plots.tornado(rows)
    assert "budget_decay 0.1 +30.0 (" in figured.alt
    assert "group_size 4 +0.0 (+0.0 to +0.0)" in figured.alt
    assert (tmp_path / "figures" / "sensitivity.png").exists()
