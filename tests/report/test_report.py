"""The report of a run: what is said follows from the numbers, and nothing that a model wrote takes effect."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rmt_mini.config import RMTConfig
from rmt_mini.files import Cell, Change, Evaluation, ExamEvaluation, PassRow, Preflight, Samples, as_lines
from rmt_mini.report import report
from rmt_mini.report.claims import findings
from rmt_mini.report.markdown import escape
from rmt_mini.report.plots import Figured
from rmt_mini.report.report import evaluation_table, write_exam_report, write_report
from tests.report.made import cell, change, evaluation, measured, notes, rollout, step

NASTY = "<script>alert(1)</script> | `rm` ![x](y) **b** [a](b)\n\n# head\r\n<!-- http://e.x www.e.x $z$"
CONFIG = RMTConfig(steps=4)
STEPS = [step(number) for number in range(4)]
ROLLOUTS = [rollout(5, step=n, reward=0.9, length_reward=0.5, advantage=-1.0) for n in range(4)]
SAMPLES = Samples(before=[rollout(5)], after=[rollout(5, thought=" sum", answer="8")])
Reported = Callable[..., str]


@pytest.fixture
def reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reported:
    """Write a run folder by hand, and return its report; figures are drawn on request, since that takes a second."""
    drawn = report._run_figures

    def page(
        found: Evaluation | None = None,
        metrics: Any = STEPS,
        rollouts: Any = ROLLOUTS,
        samples: Samples = SAMPLES,
        draws: bool = False,
        after: str = "",
        **noted: Any,
    ) -> str:
        notes(CONFIG, **({"seconds": {"cold_start": 60.0, "midtrain": 30.5}} | noted)).write(tmp_path)
        for file in (found, samples):
            if file is not None:
                file.write(tmp_path)
        (tmp_path / "metrics.jsonl").write_text(as_lines(metrics) + after)
        (tmp_path / "rollouts.jsonl").write_text(as_lines(rollouts))
        monkeypatch.setattr(report, "_run_figures", drawn if draws else lambda *_: {})
        (tmp_path / "table.txt").write_text(write_report(tmp_path))
        return (tmp_path / "report.md").read_text()

    return page


# What was found


def test_what_was_found_comes_first(reported: Reported) -> None:
    found = reported(evaluation()).split("## Accuracy")[0]
    for part in (
        "**Thinking improved.** After a thought 10.0 % [8.0, 12.0]",
        "36.0 % [34.0, 38.0] after it; these intervals do not overlap. The change is +26.0 points [+25.0,",
        "The cold start changed it by +20.0 points, to 30.0 % [28.0, 32.0] (intervals before and after",
        "Then RMT and another budget (20 tokens before, 4 after) changed it by +6.0 points [+5.0, +7.0] position by "
        "position, an interval that excludes zero",
        "1,200 tokens (75 %) were sampled for RL, and 400 (25 %) went to next-token prediction.",
        "On average 40 % of the groups carried a match signal",
    ):
        assert part in found


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"before": 0.10, "after": 0.36}, "**Thinking improved.**"),
        ({"before": 0.30, "after": 0.32}, "overlap. The change is +2.0"),  # the paired interval is narrower
        ({"before": 0.30, "after": 0.34}, "34.0 % [32.0, 36.0] after it; these intervals overlap."),  # they touch
        ({"before": 0.30, "after": 0.305}, "**Whether thinking improved is inconclusive.**"),
        ({"before": 0.30, "after": 0.20}, "**Thinking got worse.**"),
        ({"before": 0.30, "after": 0.20}, "these intervals do not overlap."),
        ({"gain": {"think_after_minus_before": Change(difference=0.01, low=0.0, high=0.02)}}, "is inconclusive.**"),
        ({"gain": {"think_after_minus_before": Change(difference=0.01, low=0.0, high=0.02)}}, "that includes zero"),
        ({"cold": 0.30}, "that raised accuracy."),
        ({"cold": 0.36}, "whether that raised accuracy is inconclusive"),
        ({"cold": 0.42}, "that lowered accuracy"),
        ({"after": 0.45}, "Thinking passes plain"),
        ({"after": 0.405}, "Whether thinking passes plain next-token prediction is inconclusive"),
        ({"after": 0.35}, "Thinking stays below plain"),
        ({"cold_start": None}, "Nothing was measured after the cold start"),
    ],
)
def test_each_comparison_has_its_verdict(changes: dict[str, Any], verdict: str) -> None:
    found = evaluation(**{name: one for name, one in changes.items() if name != "gain"})
    found = found.model_copy(update={"gain": found.gain | changes.get("gain", {})})
    assert verdict in findings(CONFIG, found, None)


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
        ({"use_ntp": False}, "All 1,200 tokens were sampled for RL; the next-token loss was measured, not trained."),
        ({"use_rl": False, "warmup_steps": 0}, "No thoughts were sampled in training"),
        (
            {"warmup_steps": 0},
            "There was no cold start, so all of the change is that of RMT and another budget (20 tokens before, 4 "
            "after).",
        ),
        ({"use_rl": False, "warmup_steps": 0}, "is that of mid-training by next-token prediction alone and another"),
        ({"use_thinking": False}, "**Answering at once improved.** At once 10.0 % [8.0, 12.0]"),
        ({"use_thinking": False}, "Answering at once stays below plain next-token prediction:"),
    ],
)
def test_settings_that_change_what_is_said(changes: dict[str, Any], sentence: str) -> None:
    assert sentence in findings(CONFIG.replace(**changes), evaluation(cold_start=None), STEPS)


@pytest.mark.parametrize(
    ("change_", "verdict"),
    [
        (0.4, "passes plain prediction before it"),
        (0.01, "against plain prediction before it is inconclusive"),
        (-0.1, "stays below plain prediction before it"),
    ],
)
def test_thinking_where_a_calculation_determines_the_token(
    reported: Reported, tmp_path: Path, change_: float, verdict: str
) -> None:
    def sorts(calculable: float, length: float) -> dict[str, Cell]:
        values = {"calculable": calculable, "noise": 0.25}
        return {name: cell(value).model_copy(update={"thought_length": length}) for name, value in values.items()}

    whole = evaluation().model_dump()
    for when, think, length in (("before", 0.30, 24.0), ("cold_start", 0.3, 24.0), ("after", 0.20 + change_, 9.5)):
        whole[when]["ntp"]["sorts"], whole[when]["think"]["sorts"] = sorts(0.20, 0.0), sorts(think, length)
    whole["gain"]["calculable_think_after_minus_ntp_before"] = change(change_, 0.05)
    whole["length_change"] = {"calculable": Change(difference=-14.5, low=-15.0, high=-14.0)}
    text = reported(Evaluation(**whole))
    assert f"thinking after training {verdict}:** {20 + 100 * change_:.1f} % [" in text
    assert f"{100 * change_:+.1f} points [{100 * change_ - 5:+.1f}, {100 * change_ + 5:+.1f}]" in text
    assert "Untrained thinking had 30.0 % [28.0, 32.0] there." in text
    assert "24.0 tokens before training and 9.5 after it, a change of -14.5 [-15.0, -14.0]." in text
    assert "| thinking, before | 30.0 [28.0, 32.0], 24.0 | 25.0 [23.0, 27.0], 24.0 |" in text
    assert "| positions | 100 | 100 |" in text
    shown = [re.split(r" {2,}", line) for line in (tmp_path / "table.txt").read_text().splitlines()]
    (after,) = (line[1] for line in shown if line[0] == "thinking, after" and "calculable" in line[-1])
    assert after.startswith(f"{20 + 100 * change_:.1f} [")


# The page


def test_the_preflights_prediction_is_compared_with_what_came(reported: Reported, tmp_path: Path) -> None:
    predicted = {"positions": 6, "accuracy": 0.5, "pass_at_g": 0.9, "signal_groups": 0.25}
    seen: dict[str, Any] = {"groups": 20, "signal_groups": 0.3}
    tiers = {"easy": seen, "medium": seen, "hard": {"groups": 0, "signal_groups": None}}
    whole = {
        "signal_groups": 0.3, "closed_share": 0.9, "thought_length": 9.0, "length_spread": 1.0, "budget": 20,
        "advice": [], "tiers": dict.fromkeys(tiers, predicted),
    }  # fmt: skip
    Preflight.model_validate(whole | {"seen": {"steps": 10, "tiers": tiers}}).write(tmp_path)
    text = reported()
    for part in (
        "seen in the first 10 steps",
        "| easy | 25 % of 6 | 30 % of 20 | yes |",
        "| hard | 25 % of 6 | - | - |",
    ):
        assert part in text
    Preflight.model_validate(whole).write(tmp_path)  # of a run that ended before its first step
    assert "## Pre-flight" not in reported()


def test_an_interrupted_run_says_so(reported: Reported, tmp_path: Path) -> None:
    noted = {"status": "interrupted", "end": None, "seconds": {}, "samples": Samples(before=[rollout(5)])}
    text = reported(metrics=STEPS[:2], draws=True, after='{"step": 4, "bud', **noted)
    assert "**The run is interrupted, with 2 of 4 steps recorded.**" in text
    assert "**Not readable, and skipped: 1 line of metrics.jsonl.**" in text
    assert "**Nothing can be said about accuracy:**" in text
    table = (tmp_path / "table.txt").read_text()
    assert table == "No evaluation. The run is interrupted, with 2 of 4 steps recorded."
    assert not (tmp_path / "figures" / "accuracy.png").exists()
    shown = re.findall(r"!\[(.+)\]\((figures/\w+\.png)\)", text)
    assert len(shown) == 5
    for alt, name in shown:
        with Image.open(tmp_path / name) as image:
            assert image.info["Description"] == alt
    (line,) = (part for part in text.splitlines() if part.startswith("| hard, 3.2 nats"))
    assert line.endswith("<br>answer <code>7</code>: right | - |")


def test_no_positions_steps_or_rollouts(reported: Reported, tmp_path: Path) -> None:
    nothing = Evaluation(before=measured(None, None), after=measured(None, None))
    text = reported(nothing, [], [], Samples())
    assert "**Nothing can be said about accuracy:**" in text
    assert "No thoughts were sampled in training" in text
    assert "None were recorded." in text
    assert "By sort" not in text
    assert "thinking, after              -         -         -         -" in (tmp_path / "table.txt").read_text()


def test_settings_time_origin_and_limits(reported: Reported) -> None:
    text = reported(evaluation())
    for name in CONFIG.to_dict():
        assert f"| `{name}` |" in text
    assert f"| `steps` | **4** ({RMTConfig().steps}) |" in text
    assert "| `tier_thresholds` | **" not in text  # a list in JSON, a tuple in RMTConfig
    for part in (
        "| total | 90.5 |", "A step took 2.00 s to roll out and 3.00 s to update; peak memory was 912 MB.",
        "<code>rmt-mini run laptop</code>", "| versions | <code>torch 9.9.9</code> |", "c0ffee", "decade",
        "one seed (0)", "300 held-out positions", "average ±2.0", "a budget of 20 tokens before and 4 after",
    ):  # fmt: skip
        assert part in text
    same = evaluation(after=0.36).model_copy(update={"after": measured(0.36, budget=20)})
    assert "mixes what the model learned" not in reported(same)


def test_samples_are_side_by_side(reported: Reported) -> None:
    before = [rollout(5), rollout(9, closed=False)]
    after = [rollout(9, answer="x", match=0.0, thought=""), rollout(5, thought=" sum")]
    page = reported(evaluation(), samples=Samples(before=before, after=after))
    first, second = (part for part in page.splitlines() if part.startswith("| hard, 3.2 nats"))
    assert first.index("add them") < first.index("␣sum")
    assert "cut off at the cap, budget 20" in second
    assert "(nothing) (closed, budget 20)<br>answer <code>x</code>: wrong |" in second


def test_notes_that_were_typed_into_a_report_are_kept(reported: Reported, tmp_path: Path) -> None:
    page = reported()
    (tmp_path / "report.md").write_text(page + "My notes.")
    assert reported() == page
    assert (tmp_path / "report.old-1.md").read_text() == page + "My notes."


def test_the_models_text_takes_no_effect(reported: Reported) -> None:
    nasty = rollout(5, reward=0.1, **dict.fromkeys(("context", "thought", "answer", "truth"), NASTY))
    page = reported(samples=Samples(before=[nasty], after=[nasty]), rollouts=[nasty])
    lines = [part for part in page.splitlines() if "hard, 3.2 nats" in part]
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


def test_the_terminals_table_is_aligned_and_fits() -> None:
    lines = evaluation_table(evaluation(after=0.979)).splitlines()
    assert lines[0] == "next tokens right, %      easy    medium      hard   average  length  closed"
    assert lines[9] == "thinking, after           97.9      97.9      97.9      97.9    18.5    88 %"
    assert lines[10] == "                      [96-100]  [96-100]  [96-100]  [96-100]"
    assert lines[11] == "positions                  100       100       100       300"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [(0.2, "It answers better"), (0.0, "Whether it answers better is inconclusive"), (-0.2, "It answers worse")],
)
def test_an_exam_is_reported_before_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, difference: float, verdict: str
) -> None:
    monkeypatch.setattr(Figured, "png", lambda _: b"")  # other tests draw

    def exam(accuracy: float) -> PassRow:
        cells = {k: cell(accuracy, 0.1, 40) for k in (1, 2)}
        return PassRow(pass_at=cells, questions=40, samples=2, thought_length=9.5, closed_share=1.0)

    notes(RMTConfig(model="a|b"), kind="post-training", questions="gym:<b>").write(tmp_path)
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
