"""Several runs read as one: the numbers are theirs, and runs that do not belong together are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rmt_mini.cli import main
from rmt_mini.config import preset
from rmt_mini.errors import UserError
from rmt_mini.report.seeds import across_seeds, write_seeds_report


def a_run(folder: Path, seed: int, right: float = 0.5, notes: dict[str, Any] | None = None) -> Path:
    """A folder as ``rmt-mini run`` leaves it, as far as it is read here; 20 documents with a token of each tier."""
    path = folder / f"seed{seed}"
    path.mkdir()
    lines = [
        {
            "when": when, "document": f"d{number}", "position": tier + 1, "tier": tier,
            "sort": "calculable" if tier == 2 else "", "plain": float(number < 4), "length": length,
            "match": float(when == "after" and number < 20 * right), "closed": when == "after",
        }
        for when, length in (("before", 20 + seed), ("after", 6))
        for number in range(20)
        for tier in range(3)
    ]  # fmt: skip
    budgets = {when: {"think": {"budget": budget}} for when, budget in (("before", 20), ("after", 8))}
    config = preset("micro", seed=seed, out=str(path)).to_dict()
    run = {"config": config, "seed": seed, "status": "done", "corpus_digest": "c", "model_digest": "m"} | (notes or {})
    (path / "run.json").write_text(json.dumps(run))
    (path / "evaluation.json").write_text(json.dumps(budgets))
    (path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_the_numbers_are_those_of_all_runs(tmp_path: Path) -> None:
    found = across_seeds([a_run(tmp_path, seed, right) for seed, right in ((0, 0.5), (1, 0.7), (5, 0.9))])
    assert found["seeds"] == [0, 1, 5]
    assert found["after"]["think"]["average"]["accuracy"] == pytest.approx(0.7)
    assert found["after"]["think"]["average"]["n"] == 180
    assert found["after"]["ntp"]["sorts"]["calculable"]["accuracy"] == pytest.approx(0.2)
    assert found["gain"]["calculable_think_after_minus_ntp_before"]["difference"] == pytest.approx(0.5)
    assert found["length_change"]["all"]["difference"] == pytest.approx(6 - 22)
    assert (found["before"]["think"]["budget"], found["after"]["think"]["budget"]) == (20, 8)
    alone = across_seeds([tmp_path / "seed0"])["after"]["think"]["average"]
    together = found["after"]["think"]["average"]
    assert together["low"] < 0.6 < 0.8 < together["high"]
    assert alone["low"] < 0.5 < alone["high"]


def test_it_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(a_run(tmp_path, seed)) for seed in (0, 1)]
    main(["seeds", *runs, "--out", str(tmp_path / "all")])
    assert capsys.readouterr().out.startswith("next tokens right, %")
    report = (tmp_path / "all" / "report.md").read_text()
    assert "# 2 runs of RMT: preset micro, seeds 0, 1" in report
    assert "Where a short calculation settles the token, thinking after training passes plain prediction" in report
    assert "a change of -14.5 [-15.0, -14.0]" in report
    assert "No thoughts were sampled" not in report
    assert json.loads((tmp_path / "all" / "evaluation.json").read_text())["seeds"] == [0, 1]
    assert (tmp_path / "all" / "accuracy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("notes", "words"),
    [
        ({"status": "interrupted"}, "is interrupted or has no answers"),
        ({"model_digest": "other"}, "differs from the first in model_digest, not in seed alone"),
        ({"config": preset("micro", seed=1, steps=9).to_dict()}, "differs from the first in steps,"),
        ({"seed": 0}, r"have seeds \[0, 0\]; give runs of different seeds"),
    ],
)
def test_runs_that_do_not_belong_together(tmp_path: Path, notes: dict[str, Any], words: str) -> None:
    folders = [a_run(tmp_path, 0), a_run(tmp_path, 1, notes=notes)]
    with pytest.raises(UserError, match=words):
        across_seeds(folders)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a run folder"):
        across_seeds([tmp_path])
    with pytest.raises(UserError, match="give runs of different seeds"):
        across_seeds([])
    with pytest.raises(UserError, match="is in use"):
        write_seeds_report([a_run(tmp_path, 0)], tmp_path)
