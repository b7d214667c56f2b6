r"""Answers of CHAMP as mathematics: right and wrong ones, worked out from the problems' texts."""

import threading

import pytest

from rmt_mini.worlds.questions import Question, load_questions

pytest.importorskip("math_verify")

# problem: answers that are right, answers that are wrong
JUDGED = {
    "Combinatorics_2": (
        ["252", "C(10,5)", r"\binom{10}{5}", "252 strings", r"\frac{10!}{5!5!}", "C(10,5) = 252"],
        ["C(5,10)", "10", "5", "504", "C(10,4) = 252", "252%", "252 million", "10, 5"],
    ),
    "Combinatorics_9": (["n", "N", "$n$."], ["1", "n+1", "2^n", "m"]),
    "Combinatorics_14": (["5/14", r"\frac{5}{14}", "10/28", r"P=\dfrac5{14}"], ["35.7", "14/5", "5", "14", "0.36"]),
    "Combinatorics_16": (["C(n+1, 2m+1)", r"\binom{n+1}{2m+1}"], ["C(2m+1, n+1)", "C(n+1, 2m)", "n+1", "n"]),
    "Combinatorics_30": (["2001000", "2,001,000", r"2{,}001{,}000", "2001000 terms"], ["2,001", "2, 1, 0"]),
    "Combinatorics_33": (["(n(n+1)/2)^2", "n^2(n+1)^2/4", r"\frac{n^2(n+1)^2}{4}"], ["1", "n^3", "n(n+1)/2", "i^3"]),
    "Combinatorics_35": ([r"\frac{(2n)!}{2^n n!}", "(2n)!/(2^n*n!)"], ["2n!/(2^n*n!)", "(2n)!/2^n", "1"]),
    "Combinatorics_37": (["n(n+1)(2n+1)/6"], ["1", "n^2", "n(n+1)/6"]),
    "Inequality_1": (["[-1, 1]", r"$-1\le x\le 1$", "-1≤x≤1"], ["(-1, 1)", "[-1, 1)", "-1, 1", "[0, 1]", "1"]),
    "Inequality_14": (["100", "100 values"], ["1", "10", "99"]),
    "Inequality_17": (["1-2^{-1/n}", "1-1/2^(1/n)"], ["1-1/2^n", "1/2", "2^(1/n)"]),
    "Inequality_18": ([r"\frac{1}{\sqrt{3}}", "1/sqrt(3)", r"\frac{\sqrt3}{3}"], ["3", "sqrt(3)", "1/3", "0.58"]),
    "Inequality_33": (["98", "98 values", r"98\text{ values}"], ["100", "99", "9 8", "2"]),
    "Inequality_36": (["-1", "−1", "(-1)"], ["1", "0", "- 1 1"]),
    "Number-Theory_3": (["625, 376", "376 and 625", r"\{376,625\}"], ["376", "376, 626", "376, 625, 1", "625 376"]),
    "Number-Theory_4": (
        ["x=6, y=5", "(6,5)", "(x, y) = (6, 5)", "y=5, x=6", "x=6 and y=5", "6, 5"],
        ["5, 6", "(5, 6)", "x=5, y=6", "6", "x=6", "x=6, y=5, x=5, y=6", "x=6, x=5", "x=6, z=5"],
    ),
    "Number-Theory_24": (["0"], ["2^32+1 mod 641", r"2^{32}+1 \bmod 641", "641", "1"]),
    "Number-Theory_25": (["3", "**3**"], ["2", "5", "3, 5", "0"]),
    "Number-Theory_39": (
        ["x=0, y=2 and x=9, y=11", "(9, 11), (0, 2)", "(x,y)=(0,2),(9,11)", "(x=0, y=2), (x=9, y=11)"],
        ["x=0, y=11 and x=9, y=2", "x=0, y=2", "(2,0),(11,9)", "0, 2, 9", "(0,2)", "(0,2), (0,2)"],
    ),
    "Number-Theory_51": (["1176470588235294", "(20*10^15-2)/17"], ["117647058823529", "(20*10^14-2)/17"]),
    "Number-Theory_53": (["9, 4, 1", "1, 4 and 9", "{1, 4, 9}"], ["1, 4", "1", "149", "1, 4, 9, 16"]),
    "Polynomial_2": (
        ["a(1+sqrt(2)), a(1-sqrt(2)), a(1+sqrt(5))/2, a(1-sqrt(5))/2", r"x=a(1\pm\sqrt{2}), \frac{a(1\pm\sqrt{5})}{2}"],
        ["a(1+sqrt(2)), a(1+sqrt(5))/2", "a(1±sqrt(2))", "a(1±sqrt(2)), a(1±sqrt(3))/2"],
    ),
    "Polynomial_5": (["(8,2), (2,8)", "x=2, y=8 and x=8, y=2"], ["(8,2)", "(8,2), (8,2)", "(8,8), (2,2)"]),
    "Polynomial_7": (["2-2x", "-2x+2", "-2(x-1)"], ["2x-2", "-2", "2"]),
    "Polynomial_13": (["a=3, b=-4", "(3,-4)", "b=-4, a=3"], ["a=-4, b=3", "(-4,3)", "3", "-4, 3"]),
    "Polynomial_15": (["0 or 1", "f(x)=1 or f(x)=0"], ["0", "f(x)=x", "0, 1, 2"]),
    "Polynomial_21": (["(3,-7,4)", "a=3, c=4, b=-7"], ["a=3, b=4, c=-7", "(4,-7,3)", "3"]),
    "Polynomial_22": (["1, -1", "x=1 or x=-1", r"\pm 1", "x = ±1"], ["1", "x=1", "-1", "±2"]),
    "Polynomial_28": ([r"\frac{(-1)^{n+1}+n+1}{n+2}"], ["1", "n/(n+2)", r"\frac{(-1)^n+n+1}{n+2}"]),
    "Polynomial_38": (["±1, ±2, ±1/2", "-2, -1, -1/2, 1/2, 1, 2"], ["1, 2, 1/2", "±1, ±2", "±1"]),
    "Sequence_34": (["2^997", "2^{997}", "2*2^996"], ["2^996", "997", "2"]),
}  # fmt: skip
LEFT_OUT = [  # words, a sum, a chain of equations, dots, and products that are to be found
    *("Combinatorics_17", "Inequality_9", "Inequality_12", "Inequality_44", "Number-Theory_28", "Number-Theory_44"),
    *("Polynomial_3", "Polynomial_14", "Polynomial_19", "Polynomial_46", "Sequence_2", "Sequence_43", "Sequence_48"),
]


@pytest.fixture(scope="module")
def champ() -> dict[str, Question]:
    return {question.id.removeprefix("P_"): question for question in load_questions("champ", 1000, seed=0)}


@pytest.mark.parametrize("problem", JUDGED)
def test_answers_worked_out_from_the_problem(champ, problem):
    right, wrong = JUDGED[problem]
    assert [champ[problem].score(answer) for answer in right] == [1.0] * len(right), right
    assert [champ[problem].score(answer) for answer in wrong] == [0.0] * len(wrong), wrong


def test_answers_that_are_no_mathematics_are_left_out(champ):
    assert len(champ) == 185
    assert not champ.keys() & {*LEFT_OUT}


@pytest.mark.parametrize(
    "dressing",
    ["{}.", "**{}**", "**{}**.", "${}$", "${}$.", r"\({}\)", r"\[{}\]", " {} \n", "`{}`", r"\boxed{{{}}}", "$${}$$"],
)  # fmt: skip
def test_what_models_put_around_an_answer_changes_nothing(champ, dressing):
    for question in [*champ.values()][::4]:
        assert question.score(dressing.format(question.answer.strip())) == 1.0, question.answer
        assert question.score(dressing.format("12345")) == 0.0


@pytest.mark.parametrize(
    "answer", [r"\textbf{239}", r"\mathbf{239}", r"\$239", "239 ways", r"239\text{ strings}", "239.0", "N = 239"]
)  # fmt: skip
def test_a_number_in_other_dress(champ, answer):
    assert champ["Combinatorics_1"].score(answer) == 1.0
    assert champ["Combinatorics_1"].score(answer.replace("239", "238")) == 0.0


@pytest.mark.parametrize("in_thread", [False, True])
def test_no_answer_hangs_and_a_thread_judges_as_the_main_one_does(champ, in_thread):
    answers = ["239", "9^{9^{9^{9^9}}}", "240-1", "9**9**9**9"]
    seen = []

    def judge():
        seen.extend(champ["Combinatorics_1"].score(answer) for answer in answers)

    if in_thread:
        worker = threading.Thread(target=judge, daemon=True)
        worker.start()
        worker.join(timeout=60)
    else:
        judge()
    assert seen == [1.0, 0.0, 1.0, 0.0]
