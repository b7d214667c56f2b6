r"""Answers of CHAMP as mathematics: right and wrong ones, worked out from the problems' texts."""

import threading

import pytest

from rmt_mini.worlds.mathematics import score
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


PAIR, TWO_PAIRS, NUMBERS = "x=6, y=5", "x=0, y=2 and x=9, y=11", "376 and 625"
# right answer, then answers that are right, answers that are wrong
READ = [
    ("2*C(10, 5)", [r"2\binom{10}{5}", r"2 \dbinom{10}{5}", "2C(10,5)", r"2{10 \choose 5}"], [r"252\binom{10}{5}"]),
    ("1", [r"2\left(\frac12\right)", "2(1/2)", "2[1/2]", r"2\cdot\frac12"], [r"2\frac{1}{2}", "2½", "2 1/2"]),
    ("5/2", ["2.5"], [r"2\left(\frac12\right)", "2(1/2)", r"2\frac12", r"2\,\frac{1}{2}", r"2{\frac12}", "2½"]),
    ("6", ["2(3)", "(2)(3)", r"3\sqrt{4}", r"\frac{12}{4}(2)"], ["2{3}", "(3)(3)", r"2\sqrt{16}"]),
    ("5", [r"\frac{5}{2}(2)"], ["2(3)", "(2)(3)", r"3\sqrt{4}", "2{3}"]),
    ("40", ["2^3(5)", "2^{3}(5)"], ["2^3(32)"]),
    (
        PAIR,
        [r"\left(6,5\right)", r"(x,y)=\left(6,5\right)", r"x=6,\quad y=5", "**x=6**, **y=5**"],
        [r"\left(5,6\right)"],
    ),
    (PAIR, ["x=6 and y=5", "x=6; y=5"], ["x=6 or y=5", r"x=6\text{ or }y=5", "6 or 5", "(6 or 5)"]),
    (
        TWO_PAIRS,
        [r"(x,y) \in \{(0,2),(9,11)\}", "(0,2) or (9,11)", "x=0, y=2, or x=9, y=11"],
        ["x=0 or y=2 or x=9 or y=11"],
    ),
    (TWO_PAIRS, ["x=0, y=2; x=9, y=11"], ["0,2,9,11", "x=0, 2, x=9, 11", r"(x,y) \in \{(2,0),(9,11)\}"]),
    (NUMBERS, ["**376** and **625**", r"\boxed{376} and \boxed{625}", "`376`, `625`"], ["**376** and **626**"]),
    (NUMBERS, [r"n \in \{376, 625\}", "n ∈ {625, 376}"], [r"n \in \{376\}", r"376 \in \{376, 625\}"]),
    ("3/2", [r"\boxed{\frac{3}{2}}"], [r"\boxed{\frac{1}{2}}, \boxed{\frac{3}{2}}"]),
    ("x=±1", [r"x \in \{-1, 1\}", r"\left\{\pm1\right\}"], [r"x \in \{-1, 2\}", r"x \in (-1, 1)"]),
    ("239", ["a_{6}=239", "a_{10} = 239", "f(6)=239"], ["a_{239}=6", "f(239)=6", "238 = 239"]),
    ("239", ["Answer: 239", "The answer is 239.", "**Answer:** $239$", "Final answer: 239"], ["The answer is not 239"]),
    ("239", [r"239\text{ ways}"], ["239 less", "239 more", "239d", "239 h", "Answer: 238 or 239"]),
    (
        "sqrt(3)/3",
        ["√3/3", "1/√(3)", r"\boxed{\frac{\sqrt{3}}{3}}"],
        ["√33", "√(3/3)", "0.577350", "0.57735026918962576451"],
    ),
    ("sqrt(33)", ["√33"], ["√3*3", r"\sqrt33"]),
    ("2^(n-1)", ["2**(n-1)", "2**n/2", "**2**(n-1)**"], ["2**n", "2*(n-1)"]),
    ("C(n, 4)", [r"\binom n4", r"\binom{n}4", r"{n\choose 4}"], [r"\binom 4n", r"\binom n5"]),
    ("1/2", ["½", "0.5", ".50", "50/100.0"], ["0.49999999", "0.4999999999999999999999", "1½"]),
    ("5/14", ["2.5/7"], ["0.357143", "0.3571428571428571428"]),
    ("n(n-3)/2", ["0.5n(n-3)"], ["0.50000001n(n-3)"]),
    ("[-1, 1]", [r"x \in [-1, 1]", "[-1.0, 1]"], [r"x \in (-1, 1)", "[-1.0000001, 1]"]),
    ("sqrt(2)", ["2^{0.5}"], ["1.41421356237309504880"]),
]


@pytest.mark.parametrize(("gold", "right", "wrong"), READ)
def test_spellings_and_look_alikes(gold, right, wrong):
    assert [answer for answer in right if score(answer, gold, "") != 1.0] == []
    assert [answer for answer in wrong if score(answer, gold, "") != 0.0] == []


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
