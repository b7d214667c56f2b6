"""The report of a run: what is said follows from the numbers, and nothing that a model wrote takes effect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rmt_mini.config import RMTConfig
from rmt_mini.files import Cell, Change, Evaluation, ExamEvaluation, PassRow, Preflight, Samples, as_lines
from rmt_mini.report import report
from rmt_mini.report.claims import Versus, findings
from rmt_mini.report.markdown import escape
from rmt_mini.report.report import evaluation_table, write_exam_report, write_report
from tests.report.made import cell, change, evaluation, measured, notes, rollout, step

NASTY = "<script>alert(1)</script> | `rm` ![x](y) **b** [a](b)\n\n# head\r\n<!-- http://e.x www.e.x $z$"
CONFIG = RMTConfig(steps=4)
STEPS = [step(number) for number in range(4)]


class Folder:
    """A run folder made by hand."""

    def __init__(self, path: Path) -> None:
        self.path, self.table = path, ""
        self.notes: dict[str, Any] = {"seconds": {"cold_start": 60.0, "midtrain": 30.5}}
        self.metrics = STEPS
        self.rollouts = [rollout(5, step=n, reward=0.9, length_reward=0.5, advantage=-1.0) for n in range(4)]
        self.samples: Samples | None = Samples(before=[rollout(5)], after=[rollout(5, thought=" sum", answer="8")])
        self.evaluation: Evaluation | None = evaluation()
        self.draws = False  # drawing takes a second

    def report(self) -> str:
        notes(CONFIG, **self.notes).write(self.path)
        for file in (self.evaluation, self.samples):
            if file is not None:
                file.write(self.path)
        (self.path / "metrics.jsonl").write_text(as_lines(self.metrics))
        (self.path / "rollouts.jsonl").write_text(as_lines(self.rollouts))
        with pytest.MonkeyPatch.context() as patch:
            if not self.draws:
                patch.setattr(report, "_run_figures", lambda *_: {})
            self.table = write_report(self.path)
        return (self.path / "report.md").read_text()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# What was found


def test_what_was_found_comes_first(folder: Folder) -> None:
    found = folder.report().split("## Accuracy")[0]
    for part in (
        "**Thinking improved.** After a thought 10.0 % [8.0, 12.0]",
        "36.0 % [34.0, 38.0] after it; these intervals do not overlap. The change is +26.0 points [+25.0,",
        "The cold start changed it by +20.0 points, to 30.0 % [28.0, 32.0] (intervals before and after",
        "RMT changed it by +6.0 points [+5.0, +7.0] position by position, an interval that excludes zero",
        "1,200 tokens (75 %) went to RL and 400 (25 %) to next-token prediction.",
        "On average 40 % of the groups carried a match signal",
    ):
        assert part in found


@pytest.mark.parametrize(
    ("before", "after", "verdict", "apart"),
    [
        (0.10, 0.36, "**Thinking improved.**", "do not overlap"),
        (0.30, 0.32, "**Thinking improved.**", "overlap"),  # the paired interval is narrower
        (0.30, 0.305, "**Whether thinking improved is inconclusive.**", "overlap"),
        (0.30, 0.20, "**Thinking got worse.**", "do not overlap"),
    ],
)
def test_the_verdict_follows_the_paired_interval(before: float, after: float, verdict: str, apart: str) -> None:
    text = findings(CONFIG, evaluation(before=before, after=after), None)
    assert verdict in text
    assert f"after it; these intervals {apart}." in text


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"cold": 0.30}, "that raised accuracy."),
        ({"cold": 0.36}, "whether that raised accuracy is inconclusive"),
        ({"cold": 0.42}, "that lowered accuracy"),
        ({"after": 0.45}, "Thinking passes plain"),
        ({"after": 0.405}, "Whether thinking passes plain next-token prediction is inconclusive"),
        ({"after": 0.35}, "Thinking stays below plain"),
        ({"before": None, "after": None}, "**Nothing can be said about accuracy:**"),
    ],
)
def test_each_comparison_has_its_verdict(changes: dict[str, Any], verdict: str) -> None:
    given = {name: value for name, value in changes.items() if value is not None}
    missing = {name: None for name, value in changes.items() if value is None}
    found = evaluation(**given) if given else evaluation().model_copy(update=missing)
    assert verdict in findings(CONFIG, found, None)


def test_an_interval_that_ends_at_zero_is_inconclusive() -> None:
    gains = evaluation().gain | {"think_after_minus_before": Change(difference=0.01, low=0.0, high=0.02)}
    text = findings(CONFIG, evaluation(gain=gains), None)
    assert "**Whether thinking improved is inconclusive.**" in text
    assert "an interval that includes zero" in text


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ((0.1, 0.2), (0.3, 0.4), True),
        ((0.3, 0.4), (0.1, 0.2), True),
        ((0.1, 0.2), (0.2, 0.3), False),  # touching
        ((0.1, 0.4), (0.2, 0.3), False),  # inside
    ],
)
def test_intervals_apart(one: tuple[float, float], other: tuple[float, float], apart: bool) -> None:
    cells = (cell(0.5).model_copy(update={"low": low, "high": high}) for low, high in (one, other))
    assert Versus(*cells, None).apart is apart


@pytest.mark.parametrize(
    ("after", "verdict"), [(0.36, "Thinking improved"), (0.12, "is inconclusive"), (0.02, "Thinking got worse")]
)
def test_without_paired_differences_the_intervals_decide(after: float, verdict: str) -> None:
    text = findings(CONFIG, evaluation(after=after, gain={}), None)
    assert verdict in text.split("\n\n")[0]
    assert "position by position" not in text
    unknown = evaluation(after=after, gain={"think_after_minus_before": change(None)})
    assert findings(CONFIG, unknown, None) == text


def test_no_cold_start() -> None:
    found = evaluation(cold_start=None)
    assert "Nothing was measured after the cold start" in findings(CONFIG, found, None)
    without = CONFIG.replace(warmup_steps=0)
    assert "There was no cold start, so all of the change is that of RMT." in findings(without, found, None)
    plain = findings(without.replace(use_rl=False), found, None)
    assert "is that of mid-training by next-token prediction alone." in plain


@pytest.mark.parametrize(
    ("lengths", "verdict"),
    [
        ((20, 8), "Thought length followed the budget: on average 20.0 tokens under a budget of 20.0 in the first"),
        ((25, 10), "Thought length followed the budget:"),  # 25 % off is the last that counts
        ((20, 16), "followed the budget at the start, but not at the end"),
        ((40, 8), "did not follow the budget at the start, but did at the end"),
        ((5, 16), "Thought length did not follow the budget:"),
    ],
)
def test_length_against_budget(lengths: tuple[float, float], verdict: str) -> None:
    metrics = [step(0, thought_length=lengths[0]), step(1), step(2), step(3, thought_length=lengths[1])]
    assert verdict in findings(CONFIG, Evaluation(), metrics)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"use_budget": False},
            "No budget was stated. Thoughts had 20.0 tokens in the first step and 8.0 in the last.",
        ),
        ({"use_ntp": False}, "All 1,200 trained tokens went to RL; the next-token loss was measured, not trained."),
        ({"use_rl": False, "warmup_steps": 0}, "No thoughts were sampled in training"),
    ],
)
def test_settings_that_change_what_is_said(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in findings(CONFIG.replace(**changes), Evaluation(), STEPS)


def by_sort(change_: float) -> Evaluation:
    """An evaluation of a generated text: plain 20 % and thinking 30 % before, 20 % and ``change_`` after."""

    def sorts(calculable: float, length: float) -> dict[str, Cell]:
        values = {"calculable": calculable, "noise": 0.25}
        return {name: cell(value).model_copy(update={"thought_length": length}) for name, value in values.items()}

    whole = evaluation().model_dump()
    for when, think, length in (("before", 0.30, 24.0), ("cold_start", 0.3, 24.0), ("after", 0.20 + change_, 9.5)):
        whole[when]["ntp"]["sorts"], whole[when]["think"]["sorts"] = sorts(0.20, 0.0), sorts(think, length)
    whole["gain"]["calculable_think_after_minus_ntp_before"] = change(change_, 0.05)
    whole["length_change"] = {"calculable": Change(difference=-14.5, low=-15.0, high=-14.0)}
    return Evaluation(**whole)


@pytest.mark.parametrize(
    ("change_", "verdict"),
    [
        (0.4, "passes plain prediction before it"),
        (0.01, "against plain prediction before it is inconclusive"),
        (-0.1, "stays below plain prediction before it"),
    ],
)
def test_thinking_where_a_calculation_determines_the_token(folder: Folder, change_: float, verdict: str) -> None:
    folder.evaluation = by_sort(change_)
    text = folder.report()
    assert f"thinking after training {verdict}:** {20 + 100 * change_:.1f} % [" in text
    assert f"{100 * change_:+.1f} points [{100 * change_ - 5:+.1f}, {100 * change_ + 5:+.1f}]" in text
    assert "Untrained thinking had 30.0 % [28.0, 32.0] there." in text
    assert "24.0 tokens before training and 9.5 after it, a change of -14.5 [-15.0, -14.0]." in text
    assert "| thinking, before | 30.0 [28.0, 32.0], 24.0 | 25.0 [23.0, 27.0], 24.0 |" in text
    assert "| positions | 100 | 100 |" in text
    shown = [re.split(r" {2,}", line) for line in folder.table.splitlines()]
    (after,) = (line[1] for line in shown if line[0] == "thinking, after" and "calculable" in line[-1])
    assert after.startswith(f"{20 + 100 * change_:.1f} [")


# The page


def test_the_preflights_prediction_is_compared_with_what_came(folder: Folder) -> None:
    predicted = {"positions": 6, "accuracy": 0.5, "pass_at_g": 0.9, "signal_groups": 0.25}
    seen: dict[str, Any] = {"groups": 20, "signal_groups": 0.3}
    tiers = {"easy": seen, "medium": seen, "hard": {"groups": 0, "signal_groups": None}}
    whole = {
        "signal_groups": 0.3, "closed_share": 0.9, "thought_length": 9.0, "length_spread": 1.0, "budget": 20,
        "advice": [], "tiers": dict.fromkeys(tiers, predicted),
    }  # fmt: skip
    Preflight.model_validate(whole | {"seen": {"steps": 10, "tiers": tiers}}).write(folder.path)
    text = folder.report()
    assert "seen in the first 10 steps" in text
    assert "| easy | 25 % of 6 | 30 % of 20 | yes |" in text
    assert "| hard | 25 % of 6 | - | - |" in text
    Preflight.model_validate(whole).write(folder.path)  # of a run that ended before its first step
    assert "## Pre-flight" not in folder.report()


def test_an_interrupted_run_says_so(folder: Folder) -> None:
    folder.evaluation, folder.samples = None, Samples(before=[rollout(5)])
    folder.notes = {"status": "interrupted", "end": None, "seconds": {}}
    folder.metrics, folder.draws = folder.metrics[:2], True
    text = folder.report()
    assert "**The run is interrupted, with 2 of 4 steps recorded.**" in text
    assert "**Nothing can be said about accuracy:**" in text
    assert folder.table == "No evaluation. The run is interrupted, with 2 of 4 steps recorded."
    assert not (folder.path / "figures" / "accuracy.png").exists()
    assert (folder.path / "figures" / "budget_and_length.png").exists()
    (line,) = (part for part in text.splitlines() if part.startswith("| hard, 3.2 nats"))
    assert line.endswith("<br>answer <code>7</code>: right | - |")


def test_no_positions_steps_or_rollouts(folder: Folder) -> None:
    folder.metrics, folder.rollouts, folder.samples = [], [], None
    folder.evaluation = Evaluation(before=measured(None, None), after=measured(None, None))
    text = folder.report()
    assert "**Nothing can be said about accuracy:**" in text
    assert "No thoughts were sampled in training" in text
    assert "None were recorded." in text
    assert "By sort" not in text
    assert "thinking, after              -         -         -         -" in folder.table


def test_lines_that_cannot_be_read_are_counted(folder: Folder) -> None:
    folder.report()
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "bud')
    write_report(folder.path)
    assert "**Not readable, and skipped: 1 line of metrics.jsonl.**" in (folder.path / "report.md").read_text()


def test_figures_are_there_with_their_alt_text(folder: Folder) -> None:
    folder.draws = True
    text = folder.report()
    shown = re.findall(r"!\[(.+)\]\((figures/\w+\.png)\)", text)
    assert len(shown) == 6
    for alt, name in shown:
        with Image.open(folder.path / name) as image:
            assert image.info["Description"] == alt
    assert [entry.name for entry in folder.path.iterdir() if entry.name.startswith(".")] == []


def test_settings_time_origin_and_limits(folder: Folder) -> None:
    text = folder.report()
    for name in CONFIG.to_dict():
        assert f"| `{name}` |" in text
    assert f"| `steps` | **4** ({RMTConfig().steps}) |" in text
    assert "| `tier_thresholds` | **" not in text  # a list in JSON, a tuple in RMTConfig
    for part in ("| total | 90.5 |", "912 MB", "<code>rmt-mini run laptop</code>", "torch 9.9.9", "c0ffee", "decade"):
        assert part in text
    for part in ("one seed (0)", "300 held-out positions", "average ±2.0", "a budget of 20 tokens before and 4 after"):
        assert part in text
    folder.evaluation = evaluation(after=0.36).model_copy(update={"after": measured(0.36, budget=20)})
    assert "mixes what the model learned" not in folder.report()


def test_samples_are_side_by_side(folder: Folder) -> None:
    folder.samples = Samples(
        before=[rollout(5), rollout(9, closed=False)],
        after=[rollout(9, answer="x", match=0.0, thought=""), rollout(5, thought=" sum")],
    )
    first, second = (part for part in folder.report().splitlines() if part.startswith("| hard, 3.2 nats"))
    assert first.index("add them") < first.index("␣sum")
    assert "cut off at the cap, budget 20" in second
    assert "(nothing) (closed, budget 20)<br>answer <code>x</code>: wrong |" in second


def test_notes_that_were_typed_into_a_report_are_kept(folder: Folder) -> None:
    page = folder.report()
    (folder.path / "report.md").write_text(page + "My notes.")
    assert folder.report() == page
    assert (folder.path / "report.old-1.md").read_text() == page + "My notes."
    folder.report()
    assert not (folder.path / "report.old-2.md").exists()


def test_the_models_text_takes_no_effect(folder: Folder) -> None:
    fields = dict.fromkeys(("context", "thought", "answer", "truth"), NASTY)
    folder.samples = Samples(before=[rollout(5, **fields)], after=[rollout(5, **fields)])
    folder.rollouts = [rollout(5, reward=0.1, **fields)]
    lines = [part for part in folder.report().splitlines() if "hard, 3.2 nats" in part]
    assert [line.count("|") for line in lines] == [4, 5]
    for line in lines:
        for active in ("<script", "<!--", "`", "![", "](", "**", "http://", "www.", "$"):
            assert active not in line
        assert "&lt;script&gt;alert(1)&lt;/script&gt; &#124; &#96;rm&#96; !&#91;x&#93;(y)" in line
        assert "↵↵# head↵&lt;!--" in line


def test_escape_shows_blanks_and_hides_what_steers() -> None:
    assert escape("  a b ") == "␣␣a b␣"
    assert escape("a\tb\u202ec\x1b[0m\ud800") == "a⇥b\ufffdc\ufffd&#91;0m\ufffd"
    assert escape("x" * 10, limit=4) == "xxxx …"


# The terminal's table


def test_the_terminals_table_is_aligned_and_fits() -> None:
    lines = evaluation_table(evaluation(after=0.979)).splitlines()
    assert lines[0] == "next tokens right, %      easy    medium      hard   average  length  closed"
    assert lines[9] == "thinking, after           97.9      97.9      97.9      97.9    18.5    88 %"
    assert lines[10] == "                      [96-100]  [96-100]  [96-100]  [96-100]"
    assert lines[11] == "positions                  100       100       100       300"
    assert max(map(len, lines)) <= 80


# Post-training


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [(0.2, "It answers better"), (0.0, "Whether it answers better is inconclusive"), (-0.2, "It answers worse")],
)
def test_an_exam_is_reported_before_and_after(tmp_path: Path, difference: float, verdict: str) -> None:
    def exam(accuracy: float) -> PassRow:
        cells = {k: cell(accuracy, 0.1, 40) for k in (1, 2)}
        return PassRow(pass_at=cells, questions=40, samples=2, thought_length=9.5, closed_share=1.0)

    config = RMTConfig(model="a|b")
    notes(config, kind="post-training", questions="gym:<b>").write(tmp_path)
    gain = {k: change(difference, 0.05) for k in (1, 2)}
    ExamEvaluation(before=exam(0.4), after=exam(0.4 + difference), gain=gain).write(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(as_lines(STEPS))
    table = write_exam_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Post-training a&#124;b on gym:&lt;b&gt;, seed 0")
    assert f"**{verdict}:** pass@1 changed by {100 * difference:+.1f} points" in text
    assert table in text
    assert "| before | 40.0 [30.0, 50.0] | 40.0 [30.0, 50.0] | 9.5 |" in table
    assert len(re.findall(r"\(figures/\w+\.png\)", text)) == len(list((tmp_path / "figures").iterdir())) == 2
