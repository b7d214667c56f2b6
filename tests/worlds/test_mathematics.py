r"""Answers of CHAMP as mathematics: judged.yaml has right and wrong ones, worked out from the problems' texts."""

from pathlib import Path

import pytest
import yaml

from rmt_mini.worlds import referee
from rmt_mini.worlds.mathematics import score

pytest.importorskip("math_verify")

DATA = yaml.safe_load(Path(__file__).with_name("judged.yaml").read_text("utf-8"))


def misjudged(judge, case):
    """The right answers that are taken for wrong ones, and the other way round."""
    return [
        answer for kind, points in (("right", 1.0), ("wrong", 0.0)) for answer in case[kind] if judge(answer) != points
    ]


@pytest.mark.parametrize("case", DATA["read"], ids=lambda case: case["gold"])
def test_spellings_and_look_alikes(case):
    assert misjudged(lambda answer: score(answer, case["gold"], ""), case) == []


def test_words_of_the_question_are_units_if_they_can_be_counted():
    question = "How many strings of length 6 have digits that differ by less than or equal to 1, and not the same?"
    for unit in ("strings", "digits", "ways"):
        assert score(f"239 {unit}", "239", question) == 1.0
    for words in ("less than", "less", "the same", "not", "equal to", "banana", "strings less"):
        assert score(f"239 {words}", "239", question) == 0.0


def test_a_left_side_that_the_question_asks_for_is_no_part_of_the_answer():
    """Other left sides are read: each part of a chain has to equal the right answer."""
    question = "For x, y we have x+y=a and x^3+y^3=b. Find x^2+y^2, as an expression of a and b."
    for answer, points in (
        ("x^2+y^2 = (a^3+2b)/(3a)", 1.0),
        (r"x^{2} + y^{2} = \frac{a^3+2b}{3a}", 1.0),
        ("x^2+y^2 = (a^3+b)/(3a)", 0.0),
        ("x+y = (a^3+2b)/(3a)", 0.0),
        ("x^2 = (a^3+2b)/(3a)", 0.0),  # only a part of what is asked
        ("(a^3+2b)/(3a) = x^2+y^2", 0.0),
    ):
        assert score(answer, "(a^3+2b)/(3a)", question) == points, answer
    assert score("P(n+1) = n/2", "n/2", "P(k)=k/(k+1) for k=0, ..., n. Find P(n+1).") == 1.0
    assert score("P(n+2) = n/2", "n/2", "P(k)=k/(k+1) for k=0, ..., n. Find P(n+1).") == 0.0
    assert score("a+b = 5", "5", "Find (a+b)^2.") == 0.0


@pytest.mark.parametrize("problem", DATA["problems"])
def test_answers_worked_out_from_the_problem(champ, problem):
    assert misjudged(champ[problem].score, DATA["problems"][problem]) == []


def test_answers_that_are_no_mathematics_are_left_out(champ):
    assert len(champ) == 185
    assert not champ.keys() & {*DATA["left_out"]}


@pytest.mark.parametrize(
    "dressing", ["**{}**.", "${}$.", r"\({}\)", r"\[{}\]", " {} \n", "`{}`", r"\boxed{{{}}}", "$${}$$"]
)
def test_what_models_put_around_an_answer_changes_nothing(champ, dressing):
    for question in [*champ.values()][::4]:
        assert question.score(dressing.format(question.answer.strip())) == 1.0, question.answer
        assert question.score(dressing.format("12345")) == 0.0


def test_no_answer_hangs_and_several_guesses_are_at_best_one(champ, monkeypatch):
    """Attack: name two answers. However they are joined, one at most is taken: hedging pays no more than guessing."""
    monkeypatch.setattr(referee, "SECONDS", 3.0)
    score = champ["Combinatorics_1"].score
    assert [*map(score, ["239", "9^{9^{9^{9^9}}}", "240-1"])] == [1.0, 0.0, 1.0]
    for between in (", ", " or ", "$ $", "|", ";", "=", " ", "\\text{ or }", "<", "} \\boxed{", "/1="):
        assert score(f"239{between}238") + score(f"238{between}239") <= 1.0
        assert score(between.join(map(str, range(236, 243)))) == 0.0  # the right one in the middle
