"""Post-training read over models and seeds: the numbers against a hand count, the table, the verdicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmt_mini.report.claims import exam_claims
from rmt_mini.report.comparison_report import exam_parts, exam_table
from rmt_mini.report.posttraining import read_exams

QUESTIONS, SAMPLES = 30, 4
KINDS = "kinds of questions that no text has"


def an_exam(folder: Path, name: str, seed: int, right: dict[int, int]) -> Path:
    """A post-training run as far as it is read: ``right`` of 4 answers to every second question, by step."""
    path = folder / f"{name}-seed{seed}"
    path.mkdir()
    lines = [
        {
            "step": step, "question": f"q{n}", "right": (n % 2) * count, "samples": SAMPLES,
            "thought_length": 5.0 + n % 2,
        }
        for step, count in right.items()
        for n in range(QUESTIONS)
    ]  # fmt: skip
    (path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def found(tmp_path: Path) -> dict[str, Any]:
    told = {"base": {0: 1, 20: 2, 40: 2}, "rpt": {0: 0, 20: 0, 40: 4}, "rmt": {0: 1, 20: 4, 40: 4}}
    return read_exams({name: [an_exam(tmp_path, name, seed, right) for seed in (0, 1)] for name, right in told.items()})


def test_pass_at_k_over_seeds_and_questions(found: dict[str, Any]) -> None:
    rmt = found["arms"]["rmt"]
    assert [one["step"] for one in rmt] == [0, 20, 40]
    assert [one["pass_at"]["1"]["accuracy"] for one in rmt] == pytest.approx([1 / 8, 1 / 2, 1 / 2])
    assert rmt[0]["pass_at"]["4"]["accuracy"] == pytest.approx(1 / 2)  # one right answer of four is enough
    assert rmt[0]["pass_at"]["1"]["n"] == 2 * QUESTIONS
    assert rmt[0]["thought_length"] == 5.5
    for one in rmt:
        cell = one["pass_at"]["1"]
        assert 0 <= cell["low"] < cell["accuracy"] < cell["high"] <= 1


def test_differences_are_taken_question_by_question(found: dict[str, Any]) -> None:
    pairs = {(one["b"], one["step"], one["k"]): one for one in found["paired"]}
    assert pairs["base", 40, 1]["difference"] == pytest.approx(1 / 4)
    assert pairs["base", 40, 1]["low"] > 0
    assert pairs["base", 40, 4]["difference"] == 0
    assert (pairs["rpt", 40, 1]["low"], pairs["rpt", 40, 1]["high"]) == (0, 0)  # equal answers, for certain
    assert pairs["rpt", 20, 1]["difference"] == pytest.approx(1 / 2)
    assert ("rmt", 40, 1) not in pairs
    along = {(one["b"], one["k"]): one for one in found["along"]}
    assert along["base", 1]["difference"] == pytest.approx((1 / 4 + 1 / 4) / 2)  # of steps 20 and 40
    assert along["rpt", 1]["difference"] == pytest.approx((1 / 2 + 0) / 2)
    assert along["rpt", 1]["low"] > 0


def test_the_end_of_post_training_is_judged(found: dict[str, Any]) -> None:
    signs = {claim.text: claim.sign for claim in exam_claims(found, "micro")}
    assert signs == {
        f"Along the way of post-training on {KINDS}, RMT's model answers better than that of the untrained model": 1,
        f"Along the way of post-training on {KINDS}, RMT's model answers better than that of RPT": 1,
        f"After 40 steps of post-training on {KINDS}, RMT's model answers better than that of the untrained model": 1,
        f"After 40 steps of post-training on {KINDS}, RMT's model answers better than that of RPT": 0,
    }


def test_readme_shows_what_was_recorded() -> None:
    world = Path(__file__).resolve().parents[2] / "data/micro"
    of_text, of_reckoning = (
        json.loads((world / name / "posttraining.json").read_text()) for name in ("comparison", "reckoning")
    )
    readme = (world.parents[1] / "README.md").read_text(encoding="utf-8").replace("*", "")
    for name, words in (("base", "untrained"), ("ntp", "NTP only"), ("rpt", "RPT"), ("rmt", "RMT")):
        cells = [
            f"{100 * one['pass_at']['1']['accuracy']:.0f}"
            for exam in (of_text["micro"], of_text["micro-text"], of_reckoning["micro-text"])
            for one in exam["arms"][name]
            if one["step"] in (0, 20, 60)
        ]
        assert f"| {words} | {' | '.join(cells)} |" in readme


def test_tables_and_curves(found: dict[str, Any]) -> None:
    head, _, *rows = exam_table(found).splitlines()
    assert "pass@1, %, before | pass@1, %, after | pass@4, %, before" in head
    assert [row.split(" | ")[0] for row in rows] == ["| untrained", "| RPT", "| RMT"]
    parts, figured = exam_parts(found, "gym:chain_sum")
    assert parts[0] == "## Post-training: questions of gym:chain_sum"
    assert "(figures/posttraining-gym-chain_sum.png)" in parts[3]
    assert "| RMT | 24.08 -> 54.67 | 25.17 -> 64.33 |" in parts[-1]
    assert "| 20 | +25.0 [" in parts[-3]
    assert "| mean behind 0 | +25.0 [" in parts[-3]
    assert "RMT 12.5 at first and 50.0 at last (" in figured.alt
    assert figured.png()
