"""Many runs read as one comparison: its numbers against a hand count, its verdicts, and its warnings in advance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.study.arms import ARMS, arm_config
from rmt_mini.study.claims import SHOWN, accuracy_tables, claims, compute_table, difference_table
from rmt_mini.study.comparison import BASE, compare_runs, expected_half_width

DOCUMENTS = 40


def a_run(folder: Path, arm: str, seed: int, right: float, length: float, plain: float = 0.4) -> Path:
    """A run folder as far as a comparison reads it: ``right`` of the documents are right in every tier."""
    path = folder / f"{arm}-seed{seed}"
    path.mkdir()
    lines = [
        {
            "when": when, "document": f"d{number}", "position": tier + 1, "tier": tier,
            "sort": "noise" if tier == 2 else "", "plain": float(number < plain * DOCUMENTS),
            "match": float(number < (right if when == "after" else 0.1) * DOCUMENTS),
            "length": length if when == "after" else 30, "closed": True,
        }
        for when in ("before", "after")
        for number in range(DOCUMENTS)
        for tier in range(3)
    ]  # fmt: skip
    step = {
        "rl_tokens": 10, "ntp_tokens": 20, "forward_tokens": 100, "backward_tokens": 50, "rollout_seconds": 1.0,
        "update_seconds": 2.0,
    }  # fmt: skip
    (path / "run.json").write_text(json.dumps({"status": "done", "seed": seed, "parameters": 1000}))
    (path / "evaluation.json").write_text(json.dumps({w: {"think": {"budget": 8}} for w in ("before", "after")}))
    (path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "metrics.jsonl").write_text("".join(json.dumps(step) + "\n" for _ in range(3)))
    return path


def all_arms(folder: Path, **rights: float) -> dict[str, Any]:
    folder.mkdir()
    told = {"rmt": 0.8, "rpt": 0.5, "rmt-no-budget": 0.8, "ntp": 0.9} | rights
    lengths = {"rmt": 5, "rpt": 25}
    found = {
        arm: [
            a_run(folder, arm, seed, right, lengths.get(arm, 20), plain=right if arm == "ntp" else 0.4)
            for seed in (0, 1)
        ]
        for arm, right in told.items()
    }
    return compare_runs(found)


def test_the_numbers_are_those_of_the_answers(tmp_path: Path) -> None:
    found = all_arms(tmp_path / "a")
    arms = found["arms"]
    assert set(arms) == {"base-ntp", "base-ntr", "rmt", "rpt", "rmt-no-budget", "ntp"}
    for name, right in {"base-ntp": 0.4, "base-ntr": 0.1, "rmt": 0.8, "rpt": 0.5, "ntp": 0.9}.items():
        assert arms[name]["average"]["accuracy"] == pytest.approx(right)
        assert arms[name]["hard"]["n"] == 2 * DOCUMENTS
        assert arms[name]["average"]["low"] < right < arms[name]["average"]["high"]
    assert arms["rmt"]["plain"]["average"]["accuracy"] == pytest.approx(0.4)
    assert (arms["rmt"]["thought_length"], arms["rpt"]["thought_length"], arms["ntp"]["thought_length"]) == (5, 25, 0)
    # 3 steps of 100 forward and 50 backward tokens: 2 x 1000 x (300 + 2 x 150)
    assert arms["rmt"]["compute"] == {
        "steps": 3, "rl_tokens": 30, "ntp_tokens": 60, "operations": 1.2e6, "seconds": 9.0
    }  # fmt: skip
    pair = next(one for one in found["paired"] if one["b"] == "rpt" and one["tier"] == "average")
    assert pair["a"] == "rmt"
    assert pair["difference"] == pytest.approx(0.3)
    assert 0.1 < pair["low"] < 0.3 < pair["high"] < 0.5
    noise = next(one for one in found["paired"] if one["b"] == "ntp" and one["tier"] == "noise")
    assert noise["difference"] == pytest.approx(-0.1)
    relative = found["relative"]["rpt"]
    assert relative["accuracy"]["ratio"] == pytest.approx(0.6)
    assert relative["accuracy"]["low"] < 0.6 < relative["accuracy"]["high"]
    assert relative["thought_length"]["ratio"] == pytest.approx(0.2)
    assert found["relative"]["ntp"]["thought_length"] is None


def test_a_ratio_has_a_paired_interval(tmp_path: Path) -> None:
    # both arms are right on the same documents, so their ratio moves less than either accuracy
    found = all_arms(tmp_path / "a", rmt=0.8, rpt=0.79)
    relative = found["relative"]["rpt"]["accuracy"]
    arm = found["arms"]["rmt"]["average"]
    assert relative["high"] - relative["low"] < (arm["high"] - arm["low"]) / 0.8


def test_each_claim_is_judged_by_its_interval(tmp_path: Path) -> None:
    found = claims(all_arms(tmp_path / "a"))
    verdicts = {claim.text: claim.sign for claim in found}
    assert verdicts["RMT is more accurate than RPT"] == 1
    assert verdicts["RMT's thoughts are shorter than RPT's"] == 1
    assert verdicts["RMT thinks better than the untrained model predicts plainly"] == 1
    assert verdicts["The budget adds to accuracy"] == 0
    assert verdicts["RMT is more than training on the text (NTP only, equal steps)"] == -1
    assert "The NTP loss adds to accuracy" not in verdicts  # that arm was not run
    assert found[0].sign == -1  # what does not hold stands first
    said = {claim.text: claim.line() for claim in found}
    assert said["RMT is more accurate than RPT"].startswith("**RMT is more accurate than RPT: holds.** By +60.0 % of")
    assert "does not hold.** RMT minus NTP only, plain: -10.0 points [" in " ".join(said.values())


def test_a_worse_method_is_said_to_be_worse(tmp_path: Path) -> None:
    verdicts = {claim.text: claim.sign for claim in claims(all_arms(tmp_path / "a", rmt=0.3))}
    assert verdicts["RMT is more accurate than RPT"] == -1
    assert verdicts["RMT thinks better than the untrained model predicts plainly"] in (-1, 0)


def test_tables_have_a_row_for_each_arm(tmp_path: Path) -> None:
    found = all_arms(tmp_path / "a")
    _, ours, _, by_sort, _, paper = accuracy_tables(found)
    assert ours.count("\n") == 1 + len(found["arms"])
    assert "| RMT | 80.0 [" in ours
    assert "| noise |" in by_sort
    assert "| RMT | 62.50 | 43.96 | 34.14 | 46.87 | 188 |" in paper
    assert "| RPT | +30.0 [" in difference_table(found)
    assert "RMT |" not in difference_table(found).split("points")[1].replace("RMT without budget |", "")
    assert "untrained" not in compute_table(found)


def test_arms_measured_elsewhere_are_refused(tmp_path: Path) -> None:
    ours = [a_run(tmp_path, "rmt", seed, 0.5, 5) for seed in (0, 1)]
    theirs = [a_run(tmp_path, "rpt", seed, 0.5, 5) for seed in (0, 1)]
    lines = (theirs[1] / "answers.jsonl").read_text().splitlines()
    (theirs[1] / "answers.jsonl").write_text("\n".join([*lines[:-1], lines[-1].replace('"d39"', '"d38"')]) + "\n")
    with pytest.raises(UserError, match="'rpt' was not measured at the positions of 'rmt'"):
        compare_runs({"rmt": ours, "rpt": theirs})


@pytest.mark.parametrize(("positions", "seeds"), [(300, 1), (200, 4)])
def test_the_planner_foretells_the_interval(positions: int, seeds: int) -> None:
    source = np.random.default_rng(0)
    spread = 0.5
    means = source.normal(0.1, spread, (4000, positions * seeds)).mean(1)
    seen = (np.percentile(means, 97.5) - np.percentile(means, 2.5)) / 2
    assert expected_half_width(positions, seeds, spread) == pytest.approx(seen, rel=0.05)


def test_arms_change_what_they_are_named_for() -> None:
    base = RMTConfig(seed=3)
    for arm in ARMS:
        config, plain = arm_config(base, arm).to_dict(), base.to_dict()
        changed = {name for name in plain if config[name] != plain[name]}
        assert bool(changed) == (arm != "rmt")
        assert not changed & {"seed", "steps", "model", "corpus", "group_size", "learning_rate", "documents_per_step"}
    assert set(ARMS) | set(BASE) == set(SHOWN)
    with pytest.raises(UserError, match="arm 'rlhf' is unknown; the arms are ntp, sft,"):
        arm_config(base, "rlhf")
