"""Explorers: every control changes what is drawn, by its formula; impossible settings are one line."""

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rmt_mini import method
from rmt_mini.config import preset
from rmt_mini.engine.attention import tree_mask
from rmt_mini.errors import UserError
from rmt_mini.files import Comparison, PostTraining
from rmt_mini.method.entropy import assign_tiers
from rmt_mini.report import plots
from rmt_mini.report.claims import PAPER, SHOWN, trained_as
from rmt_mini.report.comparison import expected_half_width, expected_positions
from rmt_mini.report.plots import Figured
from rmt_mini.runs.run import prepare
from rmt_mini.stages.difficulty import trunk_entropy
from rmt_mini.stages.posttrain import pass_at_k
from rmt_mini.teaching.begin import recorded
from rmt_mini.teaching.lessons import FOLDER
from rmt_mini.teaching.widgets import controls
from rmt_mini.teaching.widgets.controls import Explorer, control, controls_of
from rmt_mini.teaching.widgets.explorers_model import GROUP, ask_model, micro_world, words
from tests.teaching.lesson_cells import defined_by

ENTRIES = yaml.safe_load(Path(controls.__file__).with_name("explorers.yaml").read_text(encoding="utf-8"))
EXPLORERS = {  # what draws: a function of the package, or the last of a lesson, whose cells are run in this order
    "question": ask_model,
    "answer": ("01_next_token_reasoning", "micro_world()", "encode_text(", "judge_answer"),
    "entropy": ("02_entropy", "micro_world()", "show_tiers"),
    "budget": ("03_budget", "budget_curve"),
    "reward": ("03_budget", "reward_by_length"),
    "curriculum": ("04_curriculum", "mixes"),
    "draws": ("04_curriculum", "draws"),
    "advantage": ("05_grpo", "advantage_bars", "one_group"),
    "signal": ("05_grpo", "signal_curve"),
    "clip": ("05_grpo", "clip_curve"),
    "closing": ("06_dual_objective", "length_chances", "closing_slopes"),
    "kl": ("05_grpo", "moved_policy"),
    "mask": ("06_dual_objective", "Difficulty(", "marked_document"),
    "tree": ("07_document_tree", "small_tree"),
    "saving": ("07_document_tree", "count_step", "tree_or_rows"),
    "text": ("11_your_own", "measure_text", "text_fit"),
    "interval": ("09_replication", "interval_width"),
    "ablations": ("09_replication", "ablations"),
    "map": ("09_replication", "where_it_pays"),
    "exams": ("10_post_training", "exams"),
    "pass": ("10_post_training", "pass_estimates"),
}


@cache
def drawn_by(name: str) -> Any:
    """Return the function that an explorer draws with."""
    if callable(EXPLORERS[name]):
        return EXPLORERS[name]
    lesson, *parts = EXPLORERS[name]
    micro, folder = preset("micro"), FOLDER.parent / "data/abacus/comparison"
    old, new = (PostTraining.read(one).exams for one in (FOLDER.parent / "data/micro/comparison", folder))
    found = {"all read-outs": new["abacus-all"], "one word": new["abacus-text"], "new kinds": old["micro"]}
    given = {**vars(method), **vars(plots)} | {
        "EARLY": micro.tier_probs_early, "LATE": micro.tier_probs_late, "SHOWN": SHOWN, "trained_as": trained_as,
        "FOUND": Comparison.read(folder) if lesson.startswith("09") else found, "pass_at_k": pass_at_k, "torch": torch,
        "expected_half_width": expected_half_width, "expected_positions": expected_positions,
        "OLDER": Comparison.read(FOLDER.parent / "data/micro/comparison"), "preset": preset, "prepare": prepare,
        "recorded": recorded,
    }  # fmt: skip
    return defined_by(lesson, *parts, **given)[parts[-1]]


def explorer_of(name: str) -> Explorer:
    return Explorer(drawn_by(name), controls_of(name))


def moved(explorer: Explorer, **values: Any) -> str:
    for name, value in values.items():
        explorer.controls[name].value = value
    return explorer.alt


def other(widget: Any) -> Any:
    """Return another value that the control can have."""
    if hasattr(widget, "options"):
        options = [one[1] if isinstance(one, tuple) else one for one in widget.options]
        return next(one for one in options if one != widget.value)
    if isinstance(widget.value, bool):
        return not widget.value
    if isinstance(widget.value, str):
        return f"{widget.value}2"
    return widget.min if widget.value > widget.min else widget.max


@pytest.mark.parametrize("name", EXPLORERS)
def test_every_control_draws_what_the_function_draws_of_the_settings(name: str) -> None:
    shown = explorer_of(name)
    assert set(shown.controls) <= set(inspect.signature(shown.draw).parameters)
    assert {*EXPLORERS, "weight", "panel"} == set(ENTRIES)
    for argument, widget in shown.controls.items():
        assert widget.description == ENTRIES[name][argument]["label"]
        start, page = widget.value, shown.page.value.partition(">")[2]  # after the settings, which change anyway
        widget.value = other(widget)
        try:
            wanted = shown.draw(**shown.settings).alt
        except (UserError, ValueError) as error:
            wanted = str(error)
        assert shown.alt == wanted
        assert shown.page.value.partition(">")[2] != page, argument
        widget.value = start


def test_defaults_are_those_of_the_preset() -> None:
    micro = preset("micro").to_dict()
    values = {one: given["value"] for one, given in ENTRIES["panel"].items() if "value" in given}
    assert {one: micro[one] for one in values} == values | {"steps": micro["steps"]}
    budget, mix = ({one: given["value"] for one, given in ENTRIES[of].items()} for of in ("budget", "curriculum"))
    assert [budget[one] for one in ("total_steps", "start", "minimum", "decay")] == [
        micro[one] for one in ("steps", "budget_start", "budget_min", "budget_decay")
    ]
    assert [mix["early_easy"], mix["early_medium"], mix["late_easy"], mix["late_medium"]] == [
        *micro["tier_probs_early"][:2], *micro["tier_probs_late"][:2],
    ]  # fmt: skip
    gap = PAPER["rmt"][3] - PAPER["rmt-no-curriculum"][3]
    assert ENTRIES["interval"]["gap"]["value"] == pytest.approx(gap)
    assert ENTRIES["mask"]["step"]["high"] == micro["steps"]


def test_errors_are_escaped_and_defects_are_raised() -> None:
    def draw(text: str) -> Any:
        raise (UserError if text.startswith("<") else KeyError)(text)

    shown = Explorer(draw, {"text": control("text", '<script>"x"</script>')})
    assert "<script>" not in shown.page.value
    with pytest.raises(KeyError):
        moved(shown, text="x")


def test_a_control_is_chosen_by_its_value_and_has_a_label() -> None:
    made = [control("a", 1, 0, 2), control("b", 0.5), control("c", 2, options=[("one", 1), ("two", 2)])]
    made += [control("d", True), control("e", "x")]
    assert [type(one).__name__ for one in made] == ["IntSlider", "FloatSlider", "ToggleButtons", "Checkbox", "Text"]
    assert ["".join(one.description for one in made), made[2].value] == ["abcde", 2]
    assert not any(one.continuous_update for one in (made[0], made[1], made[4]))  # a dragged slider draws once


BY_HAND: list[tuple[str, dict[str, Any], str]] = [
    ("reward", {}, "earns 0.85."),  # .7 + .3 * (1 - 4 / 8)
    ("reward", {"length": 3, "right": False}, "earns 0.11."),  # .3 * 3 / 8
    ("reward", {"right": False, "only_if_correct": True}, "earns 0.00."),
    ("curriculum", {}, "draws 25 % easy, 35 % medium, 40 % hard"),  # half way between t1 and t2: the mean of both
    ("curriculum", {"curriculum_start": 0.4}, "draws 30 % easy, 33 % medium, 37 % hard"),  # a third of the way
    # 8 positions are offered and 40 asked for: all are drawn, in each of 60 steps
    ("draws", {"easy": 0, "medium": 3, "hard": 5, "per_step": 40}, "180 medium where p_t asks for 838"),
    # rewards .3, .3, .3, .27: deviations .0075 and -.0225, std .01299, and 1e-4 is added to it
    ("advantage", {"group_size": 4, "right": 0}, "scaled 0.57, 0.57, 0.57, -1.72, not scaled 0.01, 0.01, 0.01, -0.02"),
    ("advantage", {"group_size": 4, "right": 0, "only_if_correct": True}, "all advantages are 0"),
    ("signal", {"pass_rate": 0.2, "group_size": 3}, "48.0 % of groups carry a signal"),  # 1 - .008 - .512
    ("clip", {"ratio": 1.3}, "+1 the objective is 1.20, clipped"),
    (
        "clip",
        {"ratio": 1.3, "epsilon": 0.4, "size": 2.0},
        "-2 the objective is -2.60, and its gradient pushes the token",
    ),
    # reference (2/3, 1/3); the logits move by -.5 and .5: the odds 2 become 2 / e, p = (.424, .576)
    ("kl", {"move": 0.5, "vocabulary": 2}, "Exact KL(p || q) is 0.123 nats"),
    ("interval", {}, "within 7.5 points either way: a gap of 3.65 points is not detected; 841 positions would do"),
    ("pass", {}, "unbiased 78.6, share to a power 68.4"),  # 1 - C(6,4) / C(8,4) = 1 - 15/70; 1 - (3/4)^4
    # two positions by two thoughts of 4 tokens, with tags and answer
    ("tree", {}, "A trunk of 14 tokens with 4 branches, at 5, 5, 9, 9"),
    ("mask", {"document": 2, "leak": True}, "NTP 61, RL and NTP 3, none 1."),
]
IMPOSSIBLE: list[tuple[str, dict[str, Any], str]] = [
    ("budget", {"step": 300}, "step=300 lies outside"),
    ("curriculum", {"early_easy": 0.8}, "early: 0.8 easy and 0.3 medium leave -0.1 for hard"),
    ("curriculum", {"curriculum_start": 0.7}, "start=0.7 and end=0.7 must satisfy"),
    ("draws", {"easy": 0, "medium": 0, "hard": 0}, "nothing to draw"),
    ("advantage", {"right": 9}, "right=9, but the group has only group_size=8 rollouts"),
    ("closing", {"chance": 0.0}, "must lie between 0 and 1"),
    ("saving", {"document": 16, "positions": 16}, "do not fit a document of 16"),
    ("entropy", {"low": 3.0}, "must be two finite ascending numbers"),
    ("question", {"document": 0, "index": 70}, "position 70 cannot be asked for"),
    ("answer", {"sentence": ""}, "type more"),
    ("pass", {"k": 9}, "k=9"),
]


@pytest.mark.parametrize(("name", "values", "said"), [*BY_HAND, *IMPOSSIBLE])
def test_what_is_drawn_is_right_by_hand_and_what_is_impossible_is_one_line(
    name: str, values: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Figured, "png", lambda _: b"")
    shown = explorer_of(name)
    assert said in moved(shown, **values)
    assert ('role="alert"' in shown.page.value) == ((name, values, said) in IMPOSSIBLE)
    if 'role="alert"' in shown.page.value:  # what was drawn before stays, pale, and a screen reader skips it
        assert "<img" not in shown.page.value.partition('aria-hidden="true"')[0]


def test_counts_of_a_step_by_hand_and_by_the_mask() -> None:
    lesson = defined_by("07_document_tree", "count_step")
    count_step, spread = lesson["count_step"], lesson["spread"]
    # trunk of 4 (10 pairs); four branches of 2: at 1 see 1 + 1 and 1 + 2, at 3 see 3 + 1 and 3 + 2
    # rows: four of 3 + 2 tokens (15 pairs each), and the document
    found = count_step(document=4, positions=[1, 3], group_size=2, branch=2)
    assert found == (12, 24, 10 + 2 * 5 + 2 * 9, 4 * 15 + 10, 2.0, 70 / 38)
    assert spread(16, 3) == [4, 8, 12]
    for positions in ([1], [3, 7], [2, 2, 9]):
        mask = tree_mask(10, [(index, 4) for index in positions for _ in range(3)])
        found = count_step(10, positions, group_size=3, branch=4)
        assert (found.tree_pairs, found.tree_tokens) == (int(mask.sum()), len(mask))


def test_the_model_answers_without_a_thought_and_in_a_group() -> None:
    asked, table = ask_model(2, 20, 20, 0).parts
    _, form, texts = micro_world()
    ids, _ = form.trunk(texts[2])
    assert "".join(words(form, ids)) == texts[2]
    assert asked.alt.endswith(f"It is “{form.tokenizer.decode([ids[20]])}”.")
    assert f"thinking: {table._repr_html_().count('✓') - ('no thought: 1' in table.alt)} of {GROUP} right" in table.alt
    assert f"{GROUP} cut off" in ask_model(2, 20, 1, 0).alt  # two tokens hold no thought


@pytest.mark.parametrize(
    ("answer", "match", "prefix"),
    [
        (" 3", 1, 1),
        (" 3 and", 0, 1),  # two tokens: no match, but whole ones
        (" 3 an", 0, 0),
        ("", 0, 0),
    ],
)
def test_a_typed_answer_is_judged_by_both_rules(answer: str, match: int, prefix: int) -> None:
    asked, verdict, table = drawn_by("answer")("A lift waits on floor 3 and rises first 5", 5, answer).parts
    assert asked.alt == "Token 5 of “A lift waits on floor”, and then? It is “ 3”."
    assert verdict.alt.startswith(f"Match {match}: ")
    assert table.alt.startswith(f"Prefix match {prefix}: ")


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.9), (0.0, 0.0)])
def test_a_text_is_cut_as_the_method_cuts_it(low: float, high: float) -> None:
    policy, form, texts = micro_world()
    entropies = trunk_entropy(policy, policy.tree.read([torch.tensor(form.trunk(texts[2])[0])]), 0)[0][1:]
    easy, medium, hard = (assign_tiers(entropies, (low, high)).tolist().count(tier) for tier in range(3))
    alt = drawn_by("entropy")(2, low, high, 0).parts[0].alt
    assert re.match(rf"Of {len(entropies)} tokens {easy} (is|are) easy .*, {medium} medium and {hard} hard ", alt)


def test_recorded_ablations_and_exams() -> None:
    ablations, exams, data = drawn_by("ablations"), drawn_by("exams"), FOLDER.parent / "data"
    paired = Comparison.read(data / "micro/comparison").paired
    cell = next(one for one in paired if (one.b, one.tier) == ("rmt-no-budget", "medium"))
    assert f"RMT without budget {100 * cell.difference:+.1f}" in ablations("micro", "medium", "ablations").alt
    explorer = explorer_of("exams")
    old, new = (PostTraining.read(data / name / "comparison").exams for name in ("micro", "abacus"))
    curves = [old["micro"].arms["rmt"], new["abacus-all"].arms["rmt"]]
    assert list(explorer.controls["step"].options) == sorted({one.step for curve in curves for one in curve})
    assert list(explorer.controls["k"].options) == list(curves[0][0].pass_at)
    assert f"RMT {100 * (curves[0][-1].pass_at[8].accuracy or 0):.1f}" in exams("new kinds", 8, 60).alt
    with pytest.raises(ValueError, match="'new kinds' has no step 120; choose another"):
        exams("new kinds", 1, 120)
