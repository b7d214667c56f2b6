"""Many runs read as one comparison: its numbers against a hand count, its verdicts, and its warnings in advance."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmt_mini.arms import ARMS, BASE, METHOD, arms_named
from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.report.claims import SHOWN, claims
from rmt_mini.report.comparison import (
    SPREAD,
    compare_runs,
    expected_half_width,
    expected_positions,
    steps_for_compute_of,
)
from rmt_mini.report.comparison_report import (
    accuracy_tables,
    compute_table,
    difference_table,
    ledger_table,
    write_comparison_report,
)

ROOT = Path(__file__).resolve().parents[2]
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
        "rl_tokens": 10, "rl_tokens_by_tier": [2, 3, 5], "ntp_tokens": 30, "forward_tokens": 100, "backward_tokens": 50,
        "trunk_tokens": 40, "rollout_seconds": 1.0, "update_seconds": 2.0, "trunk_seconds": 0.75,
    }  # fmt: skip
    config = RMTConfig(seed=seed, use_rl=arm != "ntp").to_dict()
    notes = {"status": "done", "seed": seed, "parameters": 1000, "config": config, "seconds": {"cold_start": 7.0}}
    (path / "run.json").write_text(json.dumps(notes))
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
    # 3 steps of 100 forward and 50 backward tokens: 2 x 1000 x (300 + 2 x 150); of both 120 of documents: 3 x 120
    assert arms["rmt"]["compute"] == {
        "steps": 3, "rl_tokens": 30, "rl_tokens_by_tier": [6, 9, 15], "ntp_tokens": 90, "operations": 1.2e6,
        "rl_operations": 0.48e6, "seconds": 9.0, "rl_seconds": 6.75, "cold_start_seconds": 7.0,
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
    assert found["lengths"]["rpt"]["difference"] == -20
    assert found["lengths"]["ntp"]["difference"] == 5


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
    assert "| RMT | 3 | 30 | 90 | 0.00 | 9 | 7 | 40.0 [" in compute_table(found)
    assert "| RMT | 25 % | 40 % | 75 % | 20 % | 30 % | 50 % |" in ledger_table(found)


def test_next_token_prediction_for_as_many_operations(tmp_path: Path) -> None:
    # of 3 steps each took 100 + 2 x 50 token passes; a step on the documents alone takes 3 x 40
    assert steps_for_compute_of(a_run(tmp_path, "rmt", 0, 0.5, 5)) == round(3 * 200 / 120)


def test_the_planner_reckons_with_what_ablations_showed() -> None:
    recorded = json.loads((ROOT / "data/micro/comparison/comparison.json").read_text())
    close = ("rmt-no-budget", "rmt-no-curriculum", "rmt-random-tokens")
    count = recorded["arms"]["rmt"]["average"]["n"]
    spreads = [
        (pair["high"] - pair["low"]) / 2 / 1.96 * count**0.5
        for pair in recorded["paired"]
        if pair["tier"] == "average" and pair["b"] in close
    ]
    assert min(spreads) < SPREAD < max(spreads)


@pytest.mark.parametrize("name", ["micro/comparison", "micro/reckoning", "laptop/comparison"])
def test_readme_shows_what_was_recorded(name: str) -> None:
    found = json.loads((ROOT / f"data/{name}/comparison.json").read_text())
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").replace("*", "").split())
    for arm in found["arms"].values():
        tiers = (f"{100 * arm[tier]['accuracy']:.1f}" for tier in ("easy", "medium", "hard"))
        average = "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * arm["average"][key] for key in ("accuracy", "low", "high")))
        assert f"| {' | '.join(tiers)} | {average} |" in readme
    for pair in found["paired"]:
        if pair["tier"] == "average" and pair["b"] in ("ntp", "rmt-no-curriculum", "rmt-random-tokens"):
            change, *ends = (100 * pair[key] for key in ("difference", "low", "high"))
            told = re.compile(rf"{abs(change):.1f} (points )?\[[-+]?{abs(ends[0]):.1f}, [-+]?{abs(ends[1]):.1f}\]")
            turned = re.compile(rf"{abs(change):.1f} (points )?\[[-+]?{abs(ends[1]):.1f}, [-+]?{abs(ends[0]):.1f}\]")
            assert told.search(readme) or turned.search(readme), pair


def test_what_does_not_hold_stands_in_the_first_lines(tmp_path: Path) -> None:
    found = all_arms(tmp_path / "a") | {"config": RMTConfig().to_dict(), "seeds": [0, 1]}
    write_comparison_report(tmp_path, found)
    first, blank, *told = (tmp_path / "report.md").read_text().splitlines()
    assert first == "# RMT, its baseline, ablations and controls: preset custom, text champ, 2 seeds"
    assert blank == ""
    assert told[0].startswith("- **RMT is more than training on the text (NTP only, equal steps): does not hold.**")
    signs = [next(word for word in ("not hold", "be told", "holds") if word in line) for line in told[:5]]
    assert signs == sorted(signs, key=("not hold", "be told", "holds").index)


def test_a_baseline_that_is_never_right_has_no_ratio(tmp_path: Path) -> None:
    found = all_arms(tmp_path / "a", rpt=0.0)
    assert found["relative"]["rpt"]["accuracy"] is None
    assert "RMT is more accurate than RPT" not in {claim.text for claim in claims(found)}


def test_arms_measured_elsewhere_are_refused(tmp_path: Path) -> None:
    ours = [a_run(tmp_path, "rmt", seed, 0.5, 5) for seed in (0, 1)]
    theirs = [a_run(tmp_path, "rpt", seed, 0.5, 5) for seed in (0, 1)]
    answers = theirs[1] / "answers.jsonl"
    answers.write_text(answers.read_text().replace('"d39"', '"another"'))
    with pytest.raises(UserError, match="'rpt' was not measured at the positions of 'rmt'"):
        compare_runs({"rmt": ours, "rpt": theirs})


@pytest.mark.parametrize(("positions", "seeds"), [(300, 1), (200, 4)])
def test_the_planner_foretells_the_interval(positions: int, seeds: int) -> None:
    source = np.random.default_rng(0)
    spread = 0.5
    means = source.normal(0.1, spread, (4000, positions * seeds)).mean(1)
    seen = (np.percentile(means, 97.5) - np.percentile(means, 2.5)) / 2
    told = expected_half_width(positions, seeds, spread)
    assert told == pytest.approx(seen, rel=0.05)
    assert expected_positions(told, seeds, spread) in (positions, positions + 1)


def test_arms_change_what_they_are_named_for() -> None:
    base = RMTConfig(seed=3)
    for arm in arms_named(base):
        config, plain = arm.config(base).to_dict(), base.to_dict()
        changed = {name for name in plain if config[name] != plain[name]}
        assert bool(changed) == (arm.name != METHOD)
        assert not changed & {"seed", "steps", "model", "corpus", "group_size", "learning_rate", "documents_per_step"}
    assert {*ARMS, *BASE, "base"} == set(SHOWN)
    assert [arm.name for arm in arms_named(base, ["rpt", "base-ntp", "ntp"])] == ["ntp", "rpt", "rmt"]
    with pytest.raises(UserError, match="arm 'rlhf' is unknown; the arms are ntp, ntp-equal-compute, sft,"):
        arms_named(base, ["rpt", "rlhf"])
