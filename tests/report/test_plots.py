"""Figures: their alt text has the numbers that went in, and marks differ without colour."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib.style
import pytest
import yaml
from matplotlib.colors import to_rgba
from PIL import Image

from rmt_mini import method
from rmt_mini.files import Evaluation, ExamStep
from rmt_mini.report import plots
from rmt_mini.report.plots import Figured, Marked, canvas
from rmt_mini.worlds import micro
from tests.report.made import cell, change, evaluation, measured, step
from tests.teaching.lesson_cells import defined_by

STEP_FIGURES = [plots.budget_and_length, plots.tiers_drawn, plots.rewards, plots.signal, plots.losses]
THRESHOLDS = (0.5, 1.9)
TOKENS, ENTROPIES = ["A", " lift", " waits", " 3"], [0.9, 0.0, 2.3]
EVIL = '<script>alert("x")</script>'
SIZES = [{"value": v, "seconds": [v, v + 2], "rollout_operations": 1, "update_operations": 1} for v in (1, 4)]
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
    "budget_and_length-2": lambda: plots.budget_and_length([step(0), step(1, budget=20)], stated=False),
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
    "cost": lambda: plots.cost({"group_size": {"points": SIZES}}, 2.0),
    "cost-2": lambda: plots.cost({"prefix": {"points": SIZES, "trl": [{"value": 4, "seconds": [30]}]}}, 2.0),
    "exam_curves": lambda: plots.exam_curves({"RMT": exam(0.2, 0.9)}),
    "exam_curves-2": lambda: plots.exam_curves({"base": exam(0.3, 0.8), "RMT": exam(0.2, 0.9)}, step=40),
    "levels": lambda: plots.levels({"before": {1: cell(0.25), 8: cell(0.75)}}, "k", "pass@k"),
    "text_fit": lambda: defined_by(  # in a lesson
        "11_your_own", "text_fit", measure_text=lambda _: ([0.0, 0.4, 0.5, 1.9, 2.5], [2, 4, 8, 12])
    )["text_fit"]("micro", 0.5, 2.0, 4),
    "entropy_histogram": lambda: plots.entropy_histogram([0.0, 0.5, 0.51, 1.9, 2.6], THRESHOLDS),
    "tree_or_rows": lambda: defined_by(  # in a lesson
        "07_document_tree", "count_step", "tree_or_rows"
    )["tree_or_rows"](document=4, positions=1, group_size=2, thought=1),
    "document_tree": lambda: plots.document_tree(["A", "lift", "waits"], [(2, ["<think>", "x"]), (1, ["<think>"])]),
    "curves": lambda: plots.curves({"norm": {"a": [1.0, 0.25, 1.0], "b": {2: 0.5}}}, "step", wanted=1),
    "curves-2": lambda: plots.curves({"one": {"a": [0, 1]}, "two": {"a": [1, 0]}}, ["x", "y"], marked={"two": [1]}),
    "bar_chart": lambda: plots.bar_chart({"nats": {"a": {"p": 1, "q": None}, "b": {"p": (2, 1, 3), "q": 0}}}, "Two."),
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


def test_the_picture_of_the_method_highlights_parts_by_name() -> None:
    plain, marked = plots.pipeline(), plots.pipeline("budget", "tree")
    assert "Highlighted" not in plain.alt
    assert marked.alt.endswith("Highlighted here: State the budget, Document tree.")
    assert [one.svg.count('stroke-width="2.5"') for one in (plain, marked)] == [0, 2]
    ElementTree.fromstring(marked.svg)  # whole XML, or a browser shows nothing
    docs = Path(__file__).resolve().parents[2] / "docs" / "pipeline.svg"
    assert docs.read_text(encoding="utf-8") == plain.svg
    assert f"![{plain.alt}](docs/pipeline.svg)" in (docs.parents[1] / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no part 'bugdet'; its parts are pretraining, midtraining, "):
        plots.pipeline("bugdet")


@pytest.mark.parametrize("draw", STEP_FIGURES)
@pytest.mark.parametrize("count", [0, 1])
def test_few_steps_can_be_drawn(draw: Callable[..., Figured], count: int) -> None:
    assert ("nothing to draw" in draw([step(number) for number in range(count)]).alt) == (count == 0)


def test_what_was_not_measured_is_left_out() -> None:
    assert "cold start" not in plots.accuracy(evaluation(cold_start=None)).alt
    for nothing in (Evaluation(), Evaluation(after=measured(None, None))):
        assert "nothing to draw" in plots.accuracy(nothing).alt
    assert "nothing to draw" in plots.forest({}, "tokens").alt


@pytest.mark.parametrize(
    ("draw", "message"),
    [
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
    assert len({hatch for _, hatch in canvas.BAR_LOOKS}) == 5
    for looks in zip(*canvas.LOOKS, strict=True):
        assert len(set(looks)) in (4, 8)
    assert len({marker for _, _, marker in canvas.LOOKS}) == 8
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


def test_a_tier_has_one_look_in_every_figure() -> None:
    drawn = plots.curves({"share": {"other": [0.5, 1], "hard": [0, 1], "easy": [1, 0]}}, "step").figure.axes[0]
    assert [line.get_color() for line in drawn.lines] == [canvas.BLUE, canvas.RED, canvas.BLUE]
    tiers = plots.bar_chart({"share": {"median": {"hard": 0.5, "easy": 0.2}}}, "").figure.axes[0]
    assert [bar.get_facecolor() for bar in tiers.patches] == [to_rgba(canvas.RED), to_rgba(canvas.BLUE)]
    assert {*method.TIERS, *micro.SORTS, micro.STEP, micro.SAYING} == {*canvas.OWN_LOOKS}


def test_a_figure_is_saved_with_its_alt_text(tmp_path: Path) -> None:
    figured, path = plots.exam_curves({"a": exam(0.5)}), tmp_path / "figures" / "one.png"
    plots.save(figured, path)
    with Image.open(path) as image:
        assert (image.info["Description"], image.width) == (figured.alt, 880)  # 8 inches of 110 dots
    quoted = plots.stacked(Marked("one", "First."), Figured(figured.figure, 'a "b" <c>'))._repr_html_()
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in quoted
    assert quoted.index("First.") < quoted.index("data:image/png;base64,")


def test_drawing_needs_no_pyplot() -> None:
    for path in Path(canvas.__file__).parent.glob("*.py"):
        assert not re.search(r"import.*pyplot", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(("reward", "inside"), [(0.5, (0, 1)), (-2.5, (-2.5, 0.5)), (3.0, (0.5, 3))])
def test_rewards_outside_of_0_to_1_are_in_the_figure(reward: float, inside: tuple[float, float]) -> None:
    for ax in plots.rewards([step(n, reward=reward) for n in range(3)]).figure.axes:
        low, high = ax.get_ylim()
        assert low <= inside[0] < inside[1] <= high
