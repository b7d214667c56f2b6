"""Figures: their alt text has the numbers that went in, and marks differ without colour."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.style
import pytest
import torch
import yaml
from PIL import Image

from rmt_mini.files import Evaluation, ExamStep, Preflight
from rmt_mini.method.budget import length_reward
from rmt_mini.report import plots
from rmt_mini.report.plots import Figured, Marked, canvas, of_method, of_results
from tests.report.made import cell, change, evaluation, measured, step

STEP_FIGURES = [plots.budget_and_length, plots.tiers_drawn, plots.rewards, plots.signal, plots.losses]
THRESHOLDS = (0.5, 1.9)
TOKENS, ENTROPIES = ["A", " lift", " waits", " 3"], [0.9, 0.0, 2.3]
EVIL = '<script>alert("x")</script>'
PARTLY = {"positions": 16, "accuracy": 0.5, "pass_at_g": 0.75, "signal_groups": 0.25}
NONE = {"positions": 0, "accuracy": None, "pass_at_g": None, "signal_groups": None}
PREFLIGHT = {
    "tiers": {"easy": NONE, "medium": PARTLY, "hard": PARTLY | {"signal_groups": 0.0}},
    "signal_groups": 0.1, "closed_share": 0.9, "thought_length": 9.0, "length_spread": 1.0, "budget": 8, "advice": [],
}  # fmt: skip
EXPECTED: dict[str, str] = yaml.safe_load(Path(__file__).with_name("expected.yaml").read_text(encoding="utf-8"))
TWO_STEPS = [step(0), step(1, tier_counts=(0, 4, 4), tier_probabilities=(0.2, 0.4, 0.4), rl_loss=-0.0001, ntp_loss=1.5)]


def exam(*values: float) -> list[ExamStep]:
    return [ExamStep(step=40 * n, pass_at={1: cell(x, 0.05)}, thought_length=3.0) for n, x in enumerate(values)]


def row(when: str, match: float, thought: str, closed: bool = True, **more: str) -> dict[str, Any]:
    asked = {"context": "stops at", "truth": " 9", "answer": " 9" if match else " 8"}
    return {"when": when, "match": match, "thought": thought, "closed": closed} | asked | more


# name -> how the figure is drawn; expected.yaml has the words, by hand from formulas and small sums
DRAWN: dict[str, Callable[[], Any]] = {
    "budget_and_length": lambda: plots.budget_and_length([step(0), step(1)]),
    "budget_and_length-2": lambda: plots.budget_and_length([step(0), step(0)], stated=False),
    "tiers_drawn": lambda: plots.tiers_drawn(TWO_STEPS),
    "tiers_drawn-2": lambda: plots.tiers_drawn([step(0)], curriculum=False),
    "rewards": lambda: plots.rewards([step(n, match_reward=0.3 * n) for n in range(4)]),
    "signal": lambda: plots.signal(TWO_STEPS),
    "losses": lambda: plots.losses(TWO_STEPS),
    "side_by_side": lambda: plots.side_by_side({"a": TWO_STEPS, "b": []}),
    "accuracy": lambda: plots.accuracy(evaluation(before=0.2)),
    "forest": lambda: plots.forest(
        {"a": change(0.05, 0.04), "b": change(-0.02, 0.03), "c": change(-0.2, 0.1)}, "accuracy, points"
    ),
    "forest-2": lambda: plots.forest({"a": change(5, 0)}, "tokens", by=1),
    "forest-3": lambda: plots.forest({"a": change(0, 0)}, "tokens"),
    "interval_width": lambda: plots.interval_width({"1 seed": [(50, 15.0), (1600, 2.6)]}, 200, 3.0, 3.65, 841),
    "interval_width-2": lambda: plots.interval_width({"1 seed": [(50, 15.0), (1600, 2.6)]}, 200, 7.5, 3.65, 841),
    "cost": lambda: plots.cost(
        {
            "group_size": {
                "points": [
                    {"value": v, "seconds": [v, v + 2], "rollout_operations": 1, "update_operations": 1} for v in (1, 4)
                ]
            }
        },
        2.0,
    ),
    "exam_curves": lambda: plots.exam_curves({"RMT": exam(0.2, 0.9)}),
    "exams_at": lambda: plots.exams_at(
        {"base": exam(0.3, 0.8), "RMT": exam(0.2, 0.9)}, {"base": change(0.1, 0.08)}, 1, 40
    ),
    "pass_curves": lambda: plots.pass_curves(
        {"before": {1: cell(0.25), 8: cell(0.75)}, "after": {1: cell(0.25), 8: cell(0.25)}}
    ),
    "pass_estimates": lambda: plots.pass_estimates({"one": [0.25, 0.5], "other": [0.25, 0.4375]}, 2),
    "preflight_bars": lambda: plots.preflight_bars(Preflight.model_validate(PREFLIGHT)),
    "text_fit": lambda: plots.text_fit([0.0, 0.4, 0.5, 1.9, 2.5], (0.5, 2.0), [2, 4, 8, 12], 4),
    "entropy_histogram": lambda: plots.entropy_histogram([0.0, 0.5, 0.51, 1.9, 2.6], THRESHOLDS),
    "entropy_of_sorts": lambda: plots.entropy_of_sorts([0.0, 1.0, 2.0, 3.0, 4.0, 7.0], ["grammar"] * 5 + ["noise"]),
    "entropy_drift": lambda: plots.entropy_drift([0.1, 1.0, 2.0, 2.5], [0.6, 0.2, 2.1, 0.3], THRESHOLDS),
    "entropy_and_loss": lambda: plots.entropy_and_loss([0, 4], {"saying": [1.5, 0.5]}, {"saying": [8.0, 0.25]}),
    "budget_curve": lambda: plots.budget_curve(4, start=800, minimum=1, decay=0.2, step=2),
    "reward_by_length": lambda: plots.reward_by_length(0.3, 8, 12),
    "reward_by_length-2": lambda: plots.reward_by_length(0.5, 8, 12, right=False),
    "reward_by_length-3": lambda: plots.reward_by_length(0.6, 8, 4),
    "reward_by_length-4": lambda: plots.reward_by_length(0.6, 8, 12, right=False, only_if_correct=True),
    "curriculum_curve": lambda: plots.curriculum_curve(10, (0.6, 0.3, 0.1), (0.2, 0.4, 0.4)),
    "curriculum_curve-2": lambda: plots.curriculum_curve(10, (1, 0, 0), (0, 0, 1), 0.2, 0.4, step=3),
    "advantage_bars": lambda: plots.advantage_bars([[1, 0, 0, 0], [1, 1, 1]]),
    "signal_curve": lambda: plots.signal_curve(0.5, 1),
    "clip_curve": lambda: plots.clip_curve(1.5, 0.2),
    "clip_curve-2": lambda: plots.clip_curve(0.5, 0.2),
    "kl_estimates": lambda: plots.kl_estimates([0.5, 0.5], [0.25, 0.75], samples=4),
    "kl_estimates-2": lambda: plots.kl_estimates([0.5, 0.5], [0.25, 0.75], samples=4),
    "gradient_shares": lambda: plots.gradient_shares(rl=3.0, ntp=40.0, cosine=0.0, weight=0.1),
    "closing_slopes": lambda: plots.closing_slopes(1, 0.5),
    "shared_against_copied": lambda: plots.shared_against_copied(
        (5, 7), (13, 16), [3], {"tokens": [1.4], "attention pairs": [1.2]}, 3
    ),
    "document_tree": lambda: plots.document_tree(["A", "lift", "waits"], [(2, ["<think>", "x"]), (1, ["<think>"])]),
    "loss_and_reward": lambda: plots.loss_and_reward({"loss": [0.0, -0.001], "reward": [0.25, 1.0, 0.5]}),
    "symptom_curves": lambda: plots.symptom_curves({"a": [1.0, 0.25, 1.0]}, "step", "norm", wanted=1),
    "heat_map": lambda: plots.heat_map(TOKENS, ENTROPIES),
    "heat_map-2": lambda: plots.heat_map(TOKENS, ENTROPIES, THRESHOLDS),
    "question": lambda: plots.question(TOKENS, 2),
    "who_learns": lambda: plots.who_learns(TOKENS, chosen=[3, 1]),
    "who_learns-2": lambda: plots.who_learns(TOKENS, chosen=[1], leak=True),
    "rollout_table": lambda: plots.rollout_table(
        [row("before", 0, "one two three", closed=False), row("after", 1, "one")]
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_alt_text_has_the_numbers(name: str) -> None:
    shown = DRAWN[name]()
    assert EXPECTED[name] in shown.alt
    assert shown.alt.endswith(".")
    if isinstance(shown, Figured):
        assert shown.png()[:4] == b"\x89PNG"


@pytest.mark.parametrize("draw", STEP_FIGURES)
@pytest.mark.parametrize("count", [0, 1])
def test_few_steps_can_be_drawn(draw: Callable[..., Figured], count: int) -> None:
    assert ("nothing to draw" in draw([step(number) for number in range(count)]).alt) == (count == 0)


def test_what_was_not_measured_is_left_out() -> None:
    assert "cold start" not in plots.accuracy(evaluation(cold_start=None)).alt
    for nothing in (Evaluation(), Evaluation(after=measured(None, None))):
        assert "nothing to draw" in plots.accuracy(nothing).alt
    assert "nothing to draw" in plots.forest({}, "tokens").alt


@pytest.mark.parametrize(("rate", "size"), [(0.5, 2), (0.5, 8), (0.1, 8), (0.0, 8), (1.0, 3)])
def test_signal_follows_its_formula_and_the_simulation(rate: float, size: int) -> None:
    alt = plots.signal_curve(rate, size, groups=1000).alt
    formula, simulated = 1 - rate**size - (1 - rate) ** size, float(re.findall(r"groups ([\d.]+) % did", alt)[0]) / 100
    assert f"G = {size}, {100 * formula:.1f} % of groups carry a signal" in alt
    assert abs(simulated - formula) <= 3.5 * math.sqrt(formula * (1 - formula) / 1000) + 0.0005


def test_draws_are_compared_with_what_was_asked() -> None:
    # the easy share is 1, 1, 1/2, 0: of 100 draws each 250 are asked for, and one step is random: sqrt(100 / 4) = 5
    alt = plots.tier_draws(4, (1, 0, 0), (0, 0, 1), (500, 500, 500), 100, 0.25, 0.75).alt
    found = re.findall(r"(\d+) (\w+) where p_t asks for (\d+) give or take (\d+)", alt)
    assert [row[1:] for row in found] == [("easy", "250", "5"), ("medium", "0", "0"), ("hard", "150", "5")]
    assert abs(int(found[0][0]) - 250) <= 20
    assert "40 easy where p_t asks for 20" in plots.tier_draws(4, (0.5, 0, 0.5), (0.5, 0, 0.5), (500, 0, 0), 10).alt


@pytest.mark.parametrize(("budget", "chance"), [(1, 0.02), (4, 0.3), (8, 0.9)])
def test_the_right_rule_alone_is_the_slope_of_the_mean_reward(budget: int, chance: float) -> None:
    def mean_reward(logit: float) -> float:
        chances = plots.length_chances(1 / (1 + math.exp(-logit)), budget)
        assert sum(chances) == pytest.approx(1)
        return sum(p * length_reward(length, budget) for length, p in enumerate(chances))

    logit, tiny = math.log(chance / (1 - chance)), 1e-5
    slope = (mean_reward(logit + tiny) - mean_reward(logit - tiny)) / (2 * tiny)
    right, every, none = (plots.closing_slope(chance, budget, **rule) for rule in of_method.RULES.values())
    assert right == pytest.approx(slope, abs=1e-7)
    assert every == pytest.approx(none)  # a closing that every thought has does not tell one from another


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.signal_curve(1.2, 8), "pass_rate=1.2 lies outside"),
        (lambda: plots.signal_curve(0.2, 0), "group_size=0"),
        (lambda: plots.clip_curve(0.0, 0.2), "ratio=0.0"),
        (lambda: plots.clip_curve(1.0, 0.0), "clip_epsilon=0.0"),
        (lambda: plots.kl_estimates([0.5, 0.5], [1.0, 0.0], 4), "all above 0"),
        (lambda: plots.kl_estimates([0.5, 0.5], [0.3, 0.3, 0.4], 4), "same tokens"),
        (lambda: plots.kl_estimates([0.5, 0.5], [0.5, 0.5], 0), "samples=0"),
        (lambda: plots.tier_draws(5, (1, 0, 0), (0, 0, 1), (0, 0, 0), 3), "nothing to draw"),
        (lambda: plots.reward_by_length(1.5, 8, 3), "length_weight=1.5"),
        (lambda: plots.closing_slopes(8, 0.0), "between 0 and 1"),
        (lambda: plots.heat_map(TOKENS, [1.0]), "4 tokens need 3 entropies"),
        (lambda: plots.heat_map(TOKENS, ENTROPIES, (2.0, 1.0)), "ascending"),
        (lambda: plots.byte_match("a", "a", (2,)), "outside"),
        (lambda: plots.question(TOKENS, 4), "1 to 3 can"),
        (lambda: plots.rollout_table([]), "no rollout"),
    ],
)
def test_what_cannot_be_drawn_is_an_error(draw: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw()


@pytest.mark.parametrize(
    ("answer", "paid", "why"),
    [
        ("é", 1, "the 2 bytes agree, and they end with a token"),
        ("étude", 1, "the 6 bytes agree, and they end with a token"),
        ("ét", 0, "the 3 bytes agree, but they end inside a token"),
        ("e", 0, "byte 1 differs"),
        ("ê", 0, "byte 2 differs"),  # é is C3 A9, ê is C3 AA
        ("études", 0, "goes on where the text known here ends, after 6 bytes"),
        ("", 0, "the answer is empty"),
    ],
)
def test_byte_match_says_what_an_answer_earns_and_why(answer: str, paid: int, why: str) -> None:
    shown = plots.byte_match(answer, "étude", (2, 6))
    assert shown.alt.startswith(f"Prefix match {paid}: ")
    assert why in shown.alt
    assert shown.alt.endswith("tokens end after bytes 2, 6.")


def test_byte_match_draws_bytes_their_differences_and_the_ends_of_tokens() -> None:
    lines = plots.byte_match("é u", "étude", (2, 6)).body.split("</tr>")[:2]
    text, answer = (re.findall(r"<td[^>]*>([^<]*)</td>", line) for line in lines)
    assert text == ["C3", "A9", "t", "u", "d", "e"]
    assert answer == ["C3", "A9", "· ≠", "u", "", ""]
    assert [n for n, one in enumerate(re.findall(r"<td[^>]*>", lines[0])) if "4px" in one] == [1, 5]


EVERY = [
    plots.heat_map([EVIL, EVIL], [1.0]),
    plots.heat_map([EVIL, EVIL], [1.0], THRESHOLDS),
    plots.byte_match(EVIL, EVIL, (len(EVIL),)),
    plots.question([EVIL, EVIL], 1),
    plots.rollout_table([row(EVIL, 1, EVIL, context=EVIL, truth=EVIL, answer=EVIL)]),
    plots.by_loss([EVIL, "\n"], [plots.RL, plots.NONE], "Two."),
]


@pytest.mark.parametrize("shown", EVERY)
def test_marked_text_is_no_markup_and_reads_on_a_dark_page(shown: Marked) -> None:
    html = shown._repr_html_()
    assert "<script" not in html
    assert "script" in re.sub(r"<[^>]*>", "", html).replace(" ", "") or ">s<" in html  # it is there to be read
    coloured = [style for style in re.findall(r'style="([^"]*)"', html) if "background" in style]
    assert coloured
    for style in coloured:
        assert re.search(r"(^|; )color: #", style), style
        assert re.search(r"(^|; )background: #", style), style


def test_marks_differ_without_colour(tmp_path: Path) -> None:
    assert len({hatch for _, hatch in of_results.BARS.values()}) == 5
    assert len({(line, marker) for _, line, marker in canvas.FOUR_LOOKS}) == 4
    cycle = matplotlib.style.library["petroff10"]["axes.prop_cycle"].by_key()["color"]
    assert {canvas.BLUE, canvas.ORANGE, canvas.RED, canvas.GREY, canvas.PURPLE} <= set(cycle)
    drawn = plots.forest({"a": change(0.05), "b": change(-0.02, 0.03), "c": change(-0.2)}, "points").figure.axes[0]
    marks = [line for line in drawn.lines if line.get_marker() in "osD"]
    assert [(mark.get_marker(), mark.get_markerfacecolor() == "white") for mark in marks] == [
        ("s", False), ("o", True), ("D", False),
    ]  # fmt: skip
    body = plots.heat_map(TOKENS, ENTROPIES, THRESHOLDS).body
    assert re.findall("decoration: ([a-z ]+);", body)[:3] == ["underline dotted", "none", "underline double"]
    assert re.findall(r"<sup[^>]*>([^<]*)</sup>", plots.heat_map(TOKENS, ENTROPIES).body) == ["0.9", "2.3"]


def test_a_figure_is_saved_whole_with_its_alt_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figured, path = plots.length_triangle(24), tmp_path / "figures" / "one.png"
    plots.save(figured, path)
    with Image.open(path) as image:
        assert (image.info["Description"], image.width) == (figured.alt, 880)  # 8 inches of 110 dots

    def full(*_: object) -> None:
        raise OSError(28, "no space left")

    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        plots.save(figured, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["one.png"]
    quoted = plots.stacked(Marked("one", "First."), Figured(figured.figure, 'a "b" <c>'))._repr_html_()
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in quoted
    assert quoted.index("First.") < quoted.index("data:image/png;base64,")


def test_drawing_leaves_global_state_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    plots.signal_curve(0.3, 4)
    plots.kl_estimates([0.5, 0.5], [0.25, 0.75], samples=4)
    plots.tier_draws(4, (1, 0, 0), (0, 0, 1), (5, 5, 5), 3)
    assert torch.rand(1).equal(expected)
    code = "import sys; from rmt_mini.report import plots; plots.length_triangle(3).png(); "
    code += "print('matplotlib.pyplot' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
