"""Exercises on lesson 1, next-token reasoning and its reward."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence

from rmt_mini.engine.prompt import last_boxed
from rmt_mini.method.budget import length_reward
from rmt_mini.method.rewards import match_reward, prefix_match_reward, total_reward
from rmt_mini.teaching.checks.cases import Case, Exercise, Raises, chance, edge, hand, shape
from rmt_mini.teaching.mutants import of_answers as wrong


def _match_reward(source: random.Random) -> Iterator[Case]:
    yield shape([7], [7])
    yield hand([7], [7], gives=1.0, hint="the text's token itself earns 1")
    yield hand([8], [7], gives=0.0, hint="another token earns 0, however near its number is")
    yield hand([7, 2], [7, 3], gives=0.0, hint="all tokens must agree, in their order")
    for _ in range(100):
        truth = [source.randint(1, 4) for _ in range(source.randint(1, 3))]
        other = [source.randint(1, 4) for _ in range(source.randint(0, 4))]
        yield chance(source.choice([truth, truth + other, truth[::-1], truth[:-1], other]), truth)
    yield edge([], [7], gives=0.0, hint="an answer without a token is wrong")
    yield edge([7, 8], [7], gives=0.0, hint="an answer is one guess: more tokens than asked for are wrong")
    yield edge([], [], gives=Raises(ValueError), hint="without a truth there is no question: raise ValueError")


PIECES = ("a", "b", "é", " ", "ï", "\N{GRINNING FACE}", " a", "ab")


def _prefix_match_reward(source: random.Random) -> Iterator[Case]:
    yield shape("a", "ab", [1, 2])
    ends = "in UTF-8 é is two bytes, so the tokens é and tude end at 2 and 6"
    yield hand("é", "étude", [2, 6], gives=1.0, hint=ends)
    yield hand("étude", "étude", [2, 6], gives=1.0, hint="an answer may be several tokens long")
    yield hand("étu", "étude", [2, 6], gives=0.0, hint="an answer must not end inside a token")
    yield hand(" é", "étude", [2, 6], gives=0.0, hint="a space is a byte like any other")
    for _ in range(150):
        tokens = [source.choice(PIECES) + source.choice(["", *PIECES]) for _ in range(source.randint(1, 4))]
        true = "".join(tokens)
        boundaries = [len("".join(tokens[: count + 1]).encode()) for count in range(len(tokens))]
        answer = "".join(tokens[: source.randint(0, len(tokens))]) + source.choice(["", "", "", *PIECES])
        yield chance(answer[source.choice([0, 0, 0, 1]) :], true, boundaries)
    yield edge("", "étude", [0, 2, 6], gives=0.0, hint="the empty answer begins every text; it must not earn anything")
    yield edge("études", "étude", [2, 6], gives=0.0, hint="an answer longer than the text cannot be its beginning")
    yield edge("étal", "étude", [2, 6], gives=0.0, hint="a right beginning does not make up for a wrong end")


def boxed_answer(response: str) -> str | None:
    """Find the answer in a response: see notebooks/solutions/01_next_token_reasoning.ipynb."""
    _, closed, answer = response.rpartition("</think>")
    return last_boxed(answer) if closed else None


def _boxed_answer(source: random.Random) -> Iterator[Case]:
    yield shape(r"sum</think>\boxed{9}")
    yield hand(r"2 + 7</think>So it is \boxed{9}.", gives="9", hint="the answer stands in the box behind </think>")
    braces = "count braces: the box ends where the brace that opened it is closed"
    yield hand(r"hm</think>\boxed{x_{1}}", gives="x_{1}", hint=braces)
    yield hand(r"hm</think>\boxed{7} or rather \boxed{8}", gives="8", hint="of several boxes the last one counts")
    yield hand(r"\boxed{9}</think>I do not know", gives=None, hint="a box inside the thought is no answer")
    pieces = (r"\boxed{", r"\boxed{", "}", "}", "}", "{", "x", "7", " ", "</think>")
    for _ in range(200):
        thought, answer = ("".join(source.choices(pieces, k=source.randint(0, most))) for most in (5, 9))
        yield chance(f"{thought}</think>{answer}")
    spelled = "a thought may spell the tag: the answer stands behind the last one"
    yield edge(r"easy</think>\boxed{9} no</think>none", gives=None, hint=spelled)
    yield edge(r"I think of \boxed{9}", gives=None, hint="a thought that was never closed is followed by no answer")
    unclosed = "a box that is never closed does not count; look for a complete one before it"
    yield edge(r"hm</think>\boxed{8} and \boxed{9", gives="8", hint=unclosed)
    yield edge(r"hm</think>\boxed{9", gives=None, hint=unclosed)
    yield edge("", gives=None, hint="nothing holds no answer")


def rollout_reward(
    tokens: Sequence[int], sampled: Sequence[bool], close: int, truth: int, budget: int, length_weight: float
) -> float:
    """Reward a rollout for what the model wrote: see notebooks/solutions/01_next_token_reasoning.ipynb."""
    begins = len(tokens)
    while begins and sampled[begins - 1]:
        begins -= 1
    own = [token for token, itself in zip(tokens[:begins], sampled, strict=False) if itself]
    length = length_reward(len(own) - own.count(close), budget)
    return total_reward(match_reward(tokens[begins:], truth), length, length_weight)


def _rollout_reward(source: random.Random) -> Iterator[Case]:
    def rollout(
        text: list[int], thought: list[int], closed: bool, cue: list[int], answer: list[int]
    ) -> tuple[list[int], list[bool]]:
        """Return tokens and who wrote them; the closing tag is token 1."""
        parts = [(text, False), (thought, True), ([1], closed), (cue, False), (answer, True)]
        return [token for part, _ in parts for token in part], [own for part, own in parts for _ in part]

    yield shape([5, 6, 1, 5, 9], [False, True, True, False, True], 1, 9, 2, 0.2)
    right = "match is 1 and the thought has 2 of 2 tokens: 0.8 * 1 + 0.2 * 1"
    yield hand(*rollout([5], [6, 7], True, [5], [9]), 1, 9, 2, 0.2, gives=1.0, hint=right)
    half = "match is 1, and a thought of 1 token at a budget of 2 has a length reward of one half: 0.8 + 0.2 * 0.5"
    yield hand(*rollout([5], [6], True, [5], [9]), 1, 9, 2, 0.2, gives=0.9, hint=half)
    failed = "match is 0, and the length reward is one half: 0.2 * 0.5"
    yield hand(*rollout([5], [6], False, [5], [8]), 1, 9, 2, 0.2, gives=0.1, hint=failed)
    for _ in range(150):
        text = [source.choice([1, 5, 6, 7, 8, 9]) for _ in range(source.randint(1, 5))]
        thought = [source.choice([5, 6, 7, 8, 9]) for _ in range(source.randint(1, 5))]
        answer = source.choice([[9], [9], [8], [7], [8, 9], [9, 8]])
        made = rollout(text, thought, source.random() < 0.6, text[-source.randint(1, 3) :], answer)
        yield chance(*made, 1, 9, source.randint(1, 6), source.choice([0.1, 0.25, 0.5, 0.75]))
    faked = "the text holds the closing tag and the truth behind it; the model did not write them"
    yield edge(*rollout([1, 9], [6], True, [1, 9], [8]), 1, 9, 1, 0.2, gives=0.2, hint=faked)
    yield edge(*rollout([5], [9], True, [5], [8]), 1, 9, 1, 0.2, gives=0.2, hint="the thought is no answer")
    yield edge(*rollout([5], [6], True, [9], [8]), 1, 9, 1, 0.2, gives=0.2, hint="the cue is no answer")
    yield edge(*rollout([5], [6], True, [5], [8, 9]), 1, 9, 1, 0.2, gives=0.2, hint="an answer is one guess")
    empty = "an empty thought has no length reward; its closing token is not part of it"
    yield edge(*rollout([5], [], True, [5], [9]), 1, 9, 4, 0.2, gives=0.8, hint=empty)


def against_luck(answers: Sequence[int], truths: Sequence[int], training: Sequence[int]) -> dict[str, float]:
    """Measure accuracy beside what luck gives: see notebooks/solutions/01_next_token_reasoning.ipynb."""
    count = len(truths)
    constant = max(Counter(training).items(), key=lambda item: item[1])[0]
    said, true = Counter(answers), Counter(truths)
    return {
        "accuracy": sum(answer == truth for answer, truth in zip(answers, truths, strict=True)) / count,
        "constant": true[constant] / count,
        "shuffled": sum(said[token] * true[token] for token in said) / count**2,
    }


def _against_luck(source: random.Random) -> Iterator[Case]:
    yield shape([1], [1], [1])
    worked = {"accuracy": 0.75, "constant": 0.25, "shuffled": 0.3125}
    sums = "3 of 4 are right; token 5 is the commonest in training and 1 of 4 truths; (1 * 1 + 2 * 2) / 16 by shuffling"
    yield hand([5, 6, 6, 8], [5, 6, 6, 7], [5, 5, 6], gives=worked, hint=sums)
    blind = {"accuracy": 0.5, "constant": 0.5, "shuffled": 0.5}
    always = "a model that always says the same is as right as the constant answer, shuffled or not"
    yield hand([5, 5, 5, 5], [5, 6, 5, 6], [5, 5, 6], gives=blind, hint=always)
    for _ in range(80):
        count = source.randint(1, 12)
        truths = [source.randint(1, 5) for _ in range(count)]
        answers = [truth if source.random() < 0.5 else source.randint(1, 5) for truth in truths]
        training = [source.randint(1, 5) for _ in range(source.randint(3, 12))]
        training += [source.randint(1, 5)] * (len(training) + 1)  # thus the commonest, without a tie
        yield chance(answers, truths, training)
    unseen = {"accuracy": 1.0, "constant": 0.0, "shuffled": 1.0}
    wrong_all = {"accuracy": 0.0, "constant": 1.0, "shuffled": 0.0}
    yield edge([6, 6], [5, 5], [5], gives=wrong_all, hint="a model may do worse than the constant answer")
    yield edge([7], [7], [5], gives=unseen, hint="the commonest training token need not occur among the truths")


EXERCISES = (
    Exercise(1, 1, match_reward, _match_reward, wrong.MATCH_REWARD),
    Exercise(1, 2, prefix_match_reward, _prefix_match_reward, wrong.PREFIX_MATCH_REWARD),
    Exercise(1, 3, boxed_answer, _boxed_answer, wrong.BOXED_ANSWER),
    Exercise(1, 3, rollout_reward, _rollout_reward, wrong.ROLLOUT_REWARD),
    Exercise(1, 2, against_luck, _against_luck, wrong.AGAINST_LUCK),
)
