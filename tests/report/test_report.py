from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.records import StepMetrics
from rmt_mini.report import report
from rmt_mini.report.findings import intervals_apart
from rmt_mini.report.markdown import escape
from rmt_mini.report.report import evaluation_table, write_exam_report, write_report

NASTY = "<script>alert(1)</script> | `rm` ![x](y) **b** [a](b)\n\n# head\r\n<!-- http://e.x www.e.x $z$"


def step(number: int, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "step": number, "budget": 20 - 4 * number, "tier_probabilities": (0.5, 0.3, 0.2), "tier_counts": (4, 3, 1),
        "match_reward": 0.25, "length_reward": 0.5, "reward": 0.3, "thought_length": 20.0 - 4 * number,
        "closed_share": 0.9, "signal_groups": 0.4, "rl_loss": -0.01, "ntp_loss": 2.0, "grad_norm": 1.5,
        "rl_tokens": 300, "ntp_tokens": 100, "forward_tokens": 900, "backward_tokens": 800, "skipped": 0,
        "rl_tokens_by_tier": (200, 80, 20), "trunk_tokens": 120, "trunk_seconds": 0.5,
        "rollout_seconds": 2.0, "update_seconds": 3.0, "peak_memory_mb": 912.0,
    }  # fmt: skip
    return dataclasses.asdict(StepMetrics(**values | changes))


def row(average: float | None, half: float = 0.02, budget: int = 20, **more: Any) -> dict[str, Any]:
    def cell(value: float | None, n: int) -> dict[str, Any]:
        low, high = (None, None) if value is None else (value - half, value + half)
        return {"accuracy": value, "low": low, "high": high, "n": 0 if value is None else n}

    cells: dict[str, Any] = {tier: cell(average, 100) for tier in ("easy", "medium", "hard")}
    length = {"thought_length": 18.5 if budget else 0.0, "closed_share": 0.875 if budget else 0.0, "budget": budget}
    return cells | {"average": cell(average, 300)} | length | more


def measured(think: float | None, plain: float | None = 0.40, budget: int = 20) -> dict[str, Any]:
    return {"ntp": row(plain, budget=0), "think": row(think, budget=budget)}


def gain(difference: float | None, half: float = 0.01) -> dict[str, Any]:
    if difference is None:
        return {"difference": None, "low": None, "high": None}
    return {"difference": difference, "low": difference - half, "high": difference + half}


def evaluation(before: float = 0.10, cold: float = 0.30, after: float = 0.36, **changes: Any) -> dict[str, Any]:
    whole = {
        "before": measured(before),
        "cold_start": measured(cold),
        "after": measured(after, budget=4),
        "gain": {
            "think_after_minus_before": gain(after - before),
            "think_after_minus_cold_start": gain(after - cold),
            "think_minus_ntp_after": gain(after - 0.40),
        },
    }
    return {name: part for name, part in (whole | changes).items() if part is not None}


def line(place: int, **changes: Any) -> dict[str, Any]:
    return {
        "step": 3, "document": "P_1", "index": place, "tier": 2, "entropy": 3.21, "context": "so that x = ",
        "budget": 20, "thought": " add them", "closed": True, "answer": "7", "truth": "7", "match": 1.0,
    } | changes  # fmt: skip


class Folder:
    """A run folder made by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config: dict[str, Any] = RMTConfig(steps=4).to_dict()
        self.run: dict[str, Any] = {
            "config": self.config, "status": "done", "seed": 0, "command": "rmt-mini run laptop",
            "start": "2026-01-01T10:00:00+00:00", "end": "2026-01-01T10:09:00+00:00", "versions": {"torch": "9.9.9"},
            "machine": {"cores": 2}, "corpus_digest": "c0ffee", "model_digest": "decade",
            "seconds": {"cold_start": 60.0, "midtrain": 30.5},
        }  # fmt: skip
        self.metrics: list[dict[str, Any]] = [step(number) for number in range(4)]
        self.rollouts = [line(5, step=n, reward=0.9, length_reward=0.5, advantage=-1.0) for n in range(4)]
        self.samples: dict[str, Any] | None = {"before": [line(5)], "after": [line(5, thought=" sum", answer="8")]}
        self.evaluation: dict[str, Any] | None = evaluation()
        self.table = ""
        self.draws = False  # drawing takes a second

    def report(self) -> str:
        parts = {"run": self.run, "evaluation": self.evaluation, "samples": self.samples}
        for name, part in parts.items():
            if part is not None:
                (self.path / f"{name}.json").write_text(json.dumps(part))
        for name, lines in (("metrics", self.metrics), ("rollouts", self.rollouts)):
            (self.path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        with pytest.MonkeyPatch.context() as patch:
            if not self.draws:
                patch.setattr(report, "_figures", lambda *_: ())
            self.table = write_report(self.path)
        return (self.path / "report.md").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_notes_that_were_typed_into_a_report_are_kept(folder: Folder) -> None:
    page = folder.report()
    (folder.path / "report.md").write_text(page + "My notes.")
    assert folder.report() == page
    assert (folder.path / "report.old-1.md").read_text() == page + "My notes."
    folder.report()
    assert not (folder.path / "report.old-2.md").exists()


# What was found


def test_what_was_found_comes_first(folder: Folder) -> None:
    found = folder.report().split("## Accuracy")[0]
    assert "**Thinking improved.** After a thought 10.0 % [8.0, 12.0]" in found
    assert "36.0 % [34.0, 38.0] after it; these intervals lie apart. The change is +26.0 points [+25.0, +27.0]" in found
    assert "The cold start changed it by +20.0 points, to 30.0 % [28.0, 32.0] (intervals before and after" in found
    assert "RMT changed it by +6.0 points [+5.0, +7.0] position by position, an interval that excludes zero" in found
    assert "that raised accuracy." in found
    assert "Thinking stays below plain next-token prediction: after training 36.0 %" in found
    assert "1,200 tokens (75 %) went to RL and 400 (25 %) to next-token prediction." in found
    assert "On average 40 % of the groups carried a match signal" in found


@pytest.mark.parametrize(
    ("before", "after", "verdict", "apart"),
    [
        (0.10, 0.36, "**Thinking improved.**", "lie apart"),
        (0.30, 0.32, "**Thinking improved.**", "overlap"),  # the paired interval is the sharper one
        (0.30, 0.305, "**Whether thinking improved cannot be told.**", "overlap"),
        (0.30, 0.20, "**Thinking got worse.**", "lie apart"),
    ],
)
def test_the_verdict_follows_the_paired_interval(
    folder: Folder, before: float, after: float, verdict: str, apart: str
) -> None:
    folder.evaluation = evaluation(before=before, after=after)
    text = folder.report()
    assert verdict in text
    assert f"after it; these intervals {apart}." in text


@pytest.mark.parametrize(
    ("cold", "verdict"),
    [(0.30, "that raised"), (0.36, "whether that raised accuracy cannot be told"), (0.42, "that lowered")],
)
def test_what_rmt_added_to_the_cold_start(folder: Folder, cold: float, verdict: str) -> None:
    folder.evaluation = evaluation(cold=cold)
    assert verdict in folder.report()


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        (0.45, "Thinking passes plain"),
        (0.405, "Whether thinking passes plain next-token prediction cannot be told"),
        (0.35, "Thinking stays below plain"),
    ],
)
def test_thinking_against_plain_prediction(folder: Folder, after: float, verdict: str) -> None:
    folder.evaluation = evaluation(after=after)
    assert verdict in folder.report()


def test_an_interval_that_ends_at_zero_tells_nothing(folder: Folder) -> None:
    gains = evaluation()["gain"] | {"think_after_minus_before": {"difference": 0.01, "low": 0.0, "high": 0.02}}
    folder.evaluation = evaluation(gain=gains)
    text = folder.report()
    assert "**Whether thinking improved cannot be told.**" in text
    assert "an interval that includes zero" in text


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ((0.1, 0.2), (0.3, 0.4), True),
        ((0.3, 0.4), (0.1, 0.2), True),
        ((0.1, 0.2), (0.2, 0.3), False),  # touching
        ((0.2, 0.3), (0.1, 0.2), False),
        ((0.1, 0.4), (0.2, 0.3), False),  # inside
        ((0.2, 0.2), (0.2, 0.2), False),
        ((0.0, 0.0), (0.001, 0.2), True),
    ],
)
def test_intervals_apart(one: tuple[float, float], other: tuple[float, float], apart: bool) -> None:
    assert intervals_apart(*({"low": low, "high": high} for low, high in (one, other))) is apart


@pytest.mark.parametrize(
    ("after", "verdict"), [(0.36, "Thinking improved"), (0.12, "cannot be told"), (0.02, "Thinking got worse")]
)
def test_without_paired_differences_the_intervals_decide(folder: Folder, after: float, verdict: str) -> None:
    folder.evaluation = evaluation(after=after, gain=None)
    text = folder.report()
    assert verdict in text.split("\n\n")[1]
    assert "position by position" not in text.split("## Accuracy")[0]
    folder.evaluation = evaluation(after=after, gain={"think_after_minus_before": gain(None)})
    assert folder.report() == text


def test_no_cold_start(folder: Folder) -> None:
    folder.evaluation = evaluation(cold_start=None)
    assert "Nothing was measured after the cold start" in folder.report()
    folder.config["warmup_steps"] = 0
    assert "There was no cold start, so all of the change is that of RMT." in folder.report()
    folder.config["use_rl"] = False
    assert "is that of mid-training by next-token prediction alone." in folder.report()


@pytest.mark.parametrize(
    ("lengths", "verdict"),
    [
        (
            (20, 8),
            "Thought length followed the budget: on average 20.0 tokens under a budget of 20.0 in the first step",
        ),
        ((25, 10), "Thought length followed the budget:"),  # 25 % off is the last that counts
        ((20, 16), "followed the budget at the start, but not at the end"),
        ((40, 8), "did not follow the budget at the start, but did at the end"),
        ((5, 16), "Thought length did not follow the budget:"),
    ],
)
def test_length_against_budget(folder: Folder, lengths: tuple[float, float], verdict: str) -> None:
    folder.metrics = [step(0, thought_length=lengths[0]), step(1), step(2), step(3, thought_length=lengths[1])]
    assert verdict in folder.report()


def test_length_without_a_budget(folder: Folder) -> None:
    folder.config["use_budget"] = False
    assert "No budget was stated. Thoughts had 20.0 tokens in the first step and 8.0 in the last." in folder.report()


def test_tokens_that_were_only_measured(folder: Folder) -> None:
    folder.config["use_ntp"] = False
    assert "All 1,200 trained tokens went to RL; the next-token loss was measured, not trained." in folder.report()


def sorts(calculable: float, noise: float, length: float) -> dict[str, Any]:
    cells = {"calculable": row(calculable)["easy"], "noise": row(noise)["easy"]}
    return {name: cell | {"thought_length": length} for name, cell in cells.items()}


def by_sort(change: float) -> dict[str, Any]:
    """An evaluation of a generated text: plain 20 % and thinking 30 % before, 20 % and ``change`` after."""
    found = evaluation()
    for when, think, length in (("before", 0.30, 24.0), ("cold_start", 0.3, 24.0), ("after", 0.20 + change, 9.5)):
        found[when]["ntp"]["sorts"] = sorts(0.20, 0.25, 0.0)
        found[when]["think"]["sorts"] = sorts(think, 0.25, length)
    found["gain"]["calculable_think_after_minus_ntp_before"] = gain(change, 0.05)
    found["length_change"] = {"calculable": {"difference": -14.5, "low": -15.0, "high": -14.0}}
    return found


@pytest.mark.parametrize(("change", "verdict"), [(0.4, "passes"), (0.01, "cannot be told from"), (-0.1, "stays below")])
def test_thinking_where_a_calculation_settles_the_token(folder: Folder, change: float, verdict: str) -> None:
    folder.evaluation = by_sort(change)
    text = folder.report()
    assert f"thinking after training {verdict} plain prediction before it:** {20 + 100 * change:.1f} % [" in text
    assert f"{100 * change:+.1f} points [{100 * change - 5:+.1f}, {100 * change + 5:+.1f}]" in text
    assert "Untrained thinking had 30.0 % [28.0, 32.0] there." in text
    assert "24.0 tokens before training and 9.5 after it, a change of -14.5 [-15.0, -14.0]." in text
    assert "| thinking, before | 30.0 [28.0, 32.0], 24.0 | 25.0 [23.0, 27.0], 24.0 |" in text
    assert "| positions | 100 | 100 |" in text
    shown = [re.split(r" {2,}", line) for line in folder.table.splitlines()]
    (after,) = (line[1] for line in shown if line[0] == "thinking, after" and "calculable" in line[-1])
    assert after.startswith(f"{20 + 100 * change:.1f} [")


def test_other_text_has_no_sorts(folder: Folder) -> None:
    text = folder.report()
    assert "calculation" not in text
    assert "By sort" not in text
    assert "tokens, length" not in folder.table


def test_the_preflights_prediction_stands_beside_what_came(folder: Folder) -> None:
    told = {"positions": 6, "accuracy": 0.5, "pass_at_g": 0.9, "signal_groups": 0.25}
    seen = {"groups": 20, "signal_groups": 0.3}
    nothing = {"groups": 0, "signal_groups": None}
    tiers = {"easy": seen, "medium": seen, "hard": nothing}
    found = {"tiers": dict.fromkeys(tiers, told), "seen": {"steps": 10, "tiers": tiers}}
    (folder.path / "preflight.json").write_text(json.dumps(found))
    text = folder.report()
    assert "seen in the first 10 steps" in text
    assert "| easy | 25 % of 6 | 30 % of 20 | yes |" in text
    assert "| hard | 25 % of 6 | - | - |" in text
    (folder.path / "preflight.json").write_text(json.dumps({"tiers": {}}))  # of a run that ended before its first step
    assert "## Pre-flight" not in folder.report()


# Post-training


@pytest.mark.parametrize(
    ("change", "verdict"),
    [(0.2, "It answers better"), (0.0, "Whether it answers better cannot be told"), (-0.2, "It answers worse")],
)
def test_an_exam_is_reported_before_and_after(folder: Folder, change: float, verdict: str) -> None:
    def exam(accuracy: float) -> dict[str, Any]:
        ks = {k: {"accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1, "n": 40} for k in ("1", "2")}
        return {"pass_at": ks, "questions": 40, "samples": 2, "thought_length": 9.5, "closed_share": 1.0}

    folder.run |= {"questions": "gym:<b>", "config": folder.config | {"model": "a|b"}}
    folder.evaluation = {
        "before": exam(0.4), "after": exam(0.4 + change), "gain": {k: gain(change, 0.05) for k in ("1", "2")}
    }  # fmt: skip
    folder.samples = None
    (folder.path / "run.json").write_text(json.dumps(folder.run))
    (folder.path / "evaluation.json").write_text(json.dumps(folder.evaluation))
    (folder.path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in folder.metrics))
    table = write_exam_report(folder.path)
    text = (folder.path / "report.md").read_text()
    assert text.startswith("# Post-training a&#124;b on gym:&lt;b&gt;, seed 0")
    assert f"**{verdict}:** pass@1 changed by {100 * change:+.1f} points" in text
    assert table in text
    assert "| before | 40.0 [30.0, 50.0] | 40.0 [30.0, 50.0] | 9.5 |" in table
    assert len(re.findall(r"\(figures/\w+\.png\)", text)) == len(list((folder.path / "figures").iterdir())) == 2


# What is missing


def test_an_interrupted_run_says_so(folder: Folder) -> None:
    folder.evaluation = folder.samples = None
    folder.run["status"] = "interrupted"
    del folder.run["end"], folder.run["seconds"]
    folder.metrics = folder.metrics[:2]
    folder.draws = True
    text = folder.report()
    assert "**The run is interrupted, with 2 of 4 steps recorded.**" in text
    assert "**Nothing can be said about accuracy:**" in text
    assert folder.table == "No evaluation. The run is interrupted, with 2 of 4 steps recorded."
    assert not (folder.path / "figures" / "accuracy.png").exists()
    assert (folder.path / "figures" / "budget_and_length.png").exists()


def test_an_interrupted_run_may_have_samples_of_before_only(folder: Folder) -> None:
    folder.evaluation, folder.samples = None, {"before": [line(5)]}
    folder.run["status"] = "interrupted"
    (row,) = (part for part in folder.report().splitlines() if part.startswith("| hard, 3.2 nats"))
    assert row.endswith("<br>answer <code>7</code>: right | - |")


def test_no_steps_and_no_rollouts(folder: Folder) -> None:
    folder.metrics, folder.rollouts, folder.samples = [], [], None
    text = folder.report()
    assert "No thoughts were sampled in training" in text
    assert "None were recorded." in text


def test_no_positions_at_all(folder: Folder) -> None:
    folder.evaluation = {"before": measured(None, None), "after": measured(None, None)}
    assert "**Nothing can be said about accuracy:**" in folder.report()
    assert "thinking, after              -         -         -         -" in folder.table


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no run\.json; give the folder of a run"):
        write_report(tmp_path)


# The terminal's table


def test_table_is_aligned_and_fits() -> None:
    lines = evaluation_table(evaluation(after=0.979)).splitlines()
    assert lines[0] == "next tokens right, %      easy    medium      hard   average  length  closed"
    assert lines[9] == "thinking, after           97.9      97.9      97.9      97.9    18.5    88 %"
    assert lines[10] == "                      [96-100]  [96-100]  [96-100]  [96-100]"
    assert lines[11] == "positions                  100       100       100       300"
    assert [line[:20].strip() for line in lines[1:11:2]] == [
        "plain, before",
        "thinking, before",
        "thinking, cold start",
        "plain, after",
        "thinking, after",
    ]
    assert max(map(len, lines)) <= 80


def test_table_of_one_measurement() -> None:
    lines = evaluation_table({"after": measured(0.5)}).splitlines()
    assert [line.split("  ")[0] for line in lines[1:4:2]] == ["plain, after", "thinking, after"]


# The page


def test_figures_are_there_with_their_alt_text(folder: Folder) -> None:
    folder.draws = True
    text = folder.report()
    shown = re.findall(r"!\[(.+)\]\((figures/\w+\.png)\)", text)
    assert len(shown) == 6
    for alt, name in shown:
        with Image.open(folder.path / name) as image:
            assert image.info["Description"] == alt
    assert sorted(entry.name for entry in folder.path.iterdir() if entry.name.startswith(".")) == []


def test_settings_time_and_origin(folder: Folder) -> None:
    text = folder.report()
    for name in RMTConfig.model_fields:
        assert f"| `{name}` |" in text
    assert f"| `steps` | **4** ({RMTConfig().steps}) |" in text
    assert "| `tier_thresholds` | **" not in text  # a list in JSON, a tuple in RMTConfig
    for part in ("| total | 90.5 |", "912 MB", "<code>rmt-mini run laptop</code>", "torch 9.9.9", "c0ffee", "decade"):
        assert part in text


def test_limits(folder: Folder) -> None:
    said = folder.report().split("## What this run cannot tell")[1]
    assert "one seed (0)" in said
    assert "300 held-out positions with one thought each" in said
    assert "average ±2.0" in said
    assert "a budget of 20 tokens before and 4 after" in said
    folder.evaluation = evaluation(after=0.36) | {"after": measured(0.36, budget=20)}
    assert "mixes what the model learned" not in folder.report()


def test_samples_stand_side_by_side(folder: Folder) -> None:
    folder.samples = {
        "before": [line(5), line(9, closed=False)],
        "after": [line(9, answer="x", match=0.0, thought=""), line(5, thought=" sum")],
    }
    text = folder.report()
    first, second = (part for part in text.splitlines() if part.startswith("| hard, 3.2 nats"))
    assert first.index("add them") < first.index("␣sum")
    assert "cut off at the cap, budget 20" in second
    assert "(nothing) (closed, budget 20)<br>answer <code>x</code>: wrong |" in second


def test_samples_may_name_their_place_position(folder: Folder) -> None:
    renamed = [{("position" if key == "index" else key): value for key, value in line(5).items()}]
    folder.samples = {"before": renamed, "after": renamed}
    assert len([part for part in folder.report().splitlines() if part.startswith("| hard, 3.2 nats")]) == 1


def test_the_models_text_takes_no_effect(folder: Folder) -> None:
    fields = {name: NASTY for name in ("context", "thought", "answer", "truth")}
    folder.samples = {"before": [line(5, **fields)], "after": [line(5, **fields)]}
    folder.rollouts = [line(5, reward=0.1, **fields)]
    text = folder.report()
    (row,) = (part for part in text.splitlines() if part.startswith("| hard, 3.2 nats"))
    assert row.count("|") == 4
    for active in ("<script", "<!--", "`", "![", "](", "**", "http://", "www.", "$"):
        assert active not in row
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &#124; &#96;rm&#96; !&#91;x&#93;(y)" in row
    assert "↵↵# head↵&lt;!--" in row


def test_escape_shows_blanks_and_hides_what_steers() -> None:
    assert escape("  a b ") == "␣␣a b␣"
    assert escape("   ") == "␣␣␣"
    assert escape("a\tb\u202ec\x1b[0m\ud800") == "a⇥b\ufffdc\ufffd&#91;0m\ufffd"
    assert escape("&amp; 'q'") == "&amp;amp; &#x27;q&#x27;"
    assert escape("x" * 10, limit=4) == "xxxx …"
    assert escape(None) == "None"
