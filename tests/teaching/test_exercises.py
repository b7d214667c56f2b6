"""Every exercise's check accepts the right answer, and finds in each mutant the slip that it has."""

import math
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from inspect import signature
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rmt_mini.engine.attention import tree_mask
from rmt_mini.engine.prompt import last_boxed
from rmt_mini.errors import UserError
from rmt_mini.method import budget, curriculum, entropy, grpo, objective, rewards
from rmt_mini.teaching.checks import (
    BROADCAST,
    CONSTANT,
    EXERCISES,
    IN_PLACE,
    NOTHING,
    SLOW,
    SWAPPED,
    UNWRITTEN,
    Wrong,
    check,
    judge,
)
from rmt_mini.teaching.checks.calls import difference
from rmt_mini.teaching.checks.exercise import HAND, KINDS, Exercise, Mutant, solved_cells
from rmt_mini.teaching.lessons import FOLDER, read_notebook

ROOT = Path(__file__).resolve().parents[2]
ALL = list(EXERCISES.values())
MUTANTS = [(exercise, mutant) for exercise in ALL for mutant in exercise.mutants]
SECONDS = 60.0  # that the cases of an exercise may take, however busy the machine is


@pytest.fixture(scope="module", autouse=True)
def drawn_once() -> Iterator[None]:
    """Cases of an exercise are the same for a seed, and take a while to work out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Exercise, "all_cases", cache(Exercise.all_cases))
        yield


class TierSampler(curriculum.TierSampler):
    def __init__(self, probabilities: Any, seed: int) -> None:
        super().__init__(1, probabilities, probabilities, seed=seed)

    def sample(self, tiers: Any, n: int, step: int = 0) -> Any:
        return super().sample(torch.tensor(tiers, dtype=torch.long), n, step).tolist()


def signal_share(matches: torch.Tensor, group_size: int) -> dict[str, float]:
    rate = matches.double().mean().item()
    counted = grpo.groups_with_signal(matches, group_size).double().mean().item()
    return {"counted": counted, "predicted": 1 - rate**group_size - (1 - rate) ** group_size}


def judge_step(rollouts: list[dict[str, Any]], size: int, stated: int, weight: float) -> list[dict[str, Any]]:
    judged = []
    for one in rollouts:
        match = rewards.match_reward(one["answer"], one["truth"])
        length = budget.length_reward(one["length"], stated)
        judged.append(
            one | {"match": match, "length_reward": length, "reward": rewards.total_reward(match, length, weight)}
        )
    earned = grpo.group_advantages(torch.tensor([one["reward"] for one in judged]).double(), size).tolist()
    return [one | {"advantage": advantage} for one, advantage in zip(judged, earned, strict=True)]


PACKAGE: dict[str, Callable[..., Any]] = {
    "match_reward": rewards.match_reward,
    "prefix_match_reward": rewards.prefix_match_reward,
    "boxed_answer": lambda said: last_boxed(said.rpartition("</think>")[2]) if "</think>" in said else None,
    "token_entropy": entropy.token_entropy,
    "top_k_entropy": entropy.token_entropy,
    "assign_tiers": entropy.assign_tiers,
    "length_reward": budget.length_reward,
    "budget_at_step": budget.budget_at_step,
    "tier_probabilities": curriculum.tier_probabilities,
    "kl_estimate": grpo.kl_estimate,
    "group_advantages": grpo.group_advantages,
    "rl_loss": lambda now, by, own, old, eps: grpo.rl_loss(now, by, own, old_logprobs=old, clip_epsilon=eps),
    "ntp_mask": objective.ntp_mask,
    "tree_mask": tree_mask,
    "TierSampler": TierSampler,
    "rmt_loss": objective.rmt_loss,
    "next_token_loss": lambda logits, ids, mask: objective.ntp_loss(
        logits[:-1].log_softmax(-1).gather(-1, ids[1:, None])[:, 0], mask[1:]
    ),
    "signal_share": signal_share,
    "judge_step": judge_step,
}


def named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if getattr(function, "__name__", "") == name:
        return function

    def answer(*args: Any) -> Any:
        return function(*args)

    answer.__name__ = name
    return answer


@pytest.mark.parametrize("exercise", ALL, ids=lambda one: one.name)
def test_right_answers_pass_whatever_is_drawn_and_cases_go_from_shape_to_edge(exercise: Exercise) -> None:
    for function in (exercise.build(), *filter(None, [PACKAGE.get(exercise.name)])):
        for seed in ("", "a", "b", "c"):
            verdict = judge(named(exercise.name, function), SECONDS, seed)
            assert verdict.passed, verdict.message
            assert verdict.message.startswith(f"{exercise.name} is right: ")
    kinds = [case.kind for case in exercise.all_cases()]
    assert list(dict.fromkeys(kinds)) == list(KINDS)
    assert kinds == sorted(kinds, key=KINDS.index)
    assert len(exercise.mutants) >= 4


def test_a_budget_that_is_whole_on_paper_is_whole_in_lesson_exercise_and_package() -> None:
    solved = EXERCISES["budget_at_step"].build()
    assert solved(5, 5, 100, 1, 0.29) == budget.budget_at_step(5, 5, 100, 1, 0.29) == 29
    assert 100 * 0.29 < 29
    fold = re.compile(r"```python\n(.*?)```", re.DOTALL)
    found = [fold.search(cell.source) for cell in read_notebook(FOLDER / "03_budget.ipynb").cells]
    (line,) = (one[1] for one in found if one and "log((minimum" in one[1])
    names: dict[str, Any] = {"floor": math.floor, "log": math.log}
    exec(f"def first_step(total_steps, start, minimum, decay):\n{line}", names)
    source = random.Random(0)
    for _ in range(300):
        total, minimum, decay = (
            source.randint(1, 200),
            source.randint(1, 9),
            source.choice([0.01, 0.1, 0.25, 0.29, 0.5]),
        )
        start = source.choice([minimum + 2, minimum + 40, 100 * minimum, 2 * (minimum + 1)])
        reached = [t for t in range(total + 1) if budget.budget_at_step(t, total, start, minimum, decay) == minimum]
        said = names["first_step"](total, start, minimum, decay)
        assert said == reached[0] if reached else said > total, (total, start, minimum, decay)


@pytest.mark.parametrize("exercise", ALL, ids=lambda one: one.name)
def test_swapped_arguments_are_named(exercise: Exercise) -> None:
    right = exercise.build()
    for (i, one), (j, other) in combinations(enumerate(signature(right).parameters), 2):

        def swapped(*args: Any, i: int = i, j: int = j) -> Any:
            return right(*(args[{i: j, j: i}.get(place, place)] for place in range(len(args))))

        verdict = judge(named(exercise.name, swapped), SECONDS)
        assert not verdict.passed, (one, other)
        if verdict.slip == SWAPPED:
            assert verdict.message.endswith(f"Likely slip: you use {one} for {other}, and {other} for {one}.")
        else:
            assert verdict.slip in {mutant.name for mutant in exercise.mutants}, verdict.message


@pytest.mark.parametrize(
    ("name", "replace", "by"),
    [
        ("prefix_match_reward", "answer.encode(), cont", "answer.casefold().encode(), cont"),
        ("prefix_match_reward", "answer.encode()", "answer.encode('ascii', 'ignore')"),
        ("prefix_match_reward", "answer.encode()", "' '.join(answer.split()).encode()"),
        ("rollout_reward", "answer == [truth]", "truth in answer and len({*answer}) == 1"),
        ("budget_at_step", "if not 0 <=", "step = abs(step)\n    if not 0 <="),
        ("budget_at_step", "1e-9", "1e-2"),
        ("group_advantages", "speaks = grouped.amax(dim=1, keepdim=True) !=", "speaks = std > 1e-6  #"),
        ("group_advantages", "torch.where(speaks, scaled, 0.0)", "torch.where(speaks, scaled, 0.0).clamp(min=-5)"),
        ("group_advantages", "torch.where(speaks, scaled, 0.0)", "torch.where(speaks, scaled, 0.0).clamp(max=15)"),
        ("rl_loss", "return -torch", "return logprobs.sum() * 0 - torch"),
        ("signal_share", "grouped.amax(dim=1) !=", "grouped.std(dim=1, correction=0) > 0.05  #"),
        (
            "TierSampler",
            "redistribute(self.probabilities, [len(pool) for pool in pools])",
            "[float(len(pool) > 0) for pool in pools] if [] in pools else self.probabilities",
        ),
    ],
)
def test_relatives_of_known_wrong_answers_fail_whatever_is_drawn(name: str, replace: str, by: str) -> None:
    assert solved_cells(EXERCISES[name].stem)[name].count(replace) == 1
    wrong = EXERCISES[name].build(Mutant("relative", replace, by, ""))
    assert [judge(wrong, SECONDS, seed).passed for seed in ("", "a", "b")] == [False] * 3


def test_a_forgotten_dimension_is_named_as_broadcasting() -> None:
    def group_advantages(earned: torch.Tensor, size: int, eps: float) -> torch.Tensor:
        grouped = earned.reshape(-1, size)
        return ((grouped - grouped.mean(1)) / (grouped.var(1, correction=0).sqrt() + eps)).flatten()

    verdict = judge(group_advantages)
    assert verdict.slip == BROADCAST
    assert "keepdim=True" in verdict.message


@pytest.mark.parametrize(("exercise", "mutant"), MUTANTS, ids=lambda one: one.name)
def test_a_mutant_is_one_substitution_and_fails_with_its_own_slip(exercise: Exercise, mutant: Mutant) -> None:
    assert solved_cells(exercise.stem)[exercise.name].count(mutant.replace) == 1
    verdict = judge(exercise.build(mutant), SECONDS)
    assert not verdict.passed
    assert verdict.slip == mutant.name, verdict.message
    assert mutant.slip.rstrip(".") in verdict.message
    assert 30 <= len(mutant.slip) <= 250


@pytest.mark.parametrize("exercise", [one for one in ALL if one.name != "TierSampler"], ids=lambda one: one.name)
def test_general_slips_are_named(exercise: Exercise) -> None:
    first = next(case for case in exercise.all_cases() if case.kind == HAND)

    def unwritten(*_: Any) -> Any:
        raise NotImplementedError

    assert judge(named(exercise.name, unwritten)).slip == UNWRITTEN
    assert judge(named(exercise.name, lambda *_: None)).slip == NOTHING
    verdict = judge(named(exercise.name, lambda *_: first.gives), SECONDS)
    assert not verdict.passed
    assert verdict.slip in (CONSTANT, ""), verdict.message


def close_at_cap(thought: list[int], closing: list[int], cap: int) -> Any:
    found = EXERCISES["close_at_cap"].build()(thought, closing, cap)
    del thought[cap:]
    thought += closing
    return found


def rl_loss(logprobs: torch.Tensor, *rest: torch.Tensor) -> Any:
    logprobs[~rest[1]] = 0
    return EXERCISES["rl_loss"].build()(logprobs, *rest)


def paired_interval(ours: object, theirs: object, resamples: int, seed: int) -> dict[str, float]:
    source, table = np.random.default_rng(seed + 7), np.array(ours) - np.array(theirs)
    runs, documents = (source.multinomial(n, np.full(n, 1 / n), resamples) / n for n in table.shape)
    low, high = np.quantile(np.einsum("br,bd,rd->b", runs, documents, table), [0.025, 0.975])
    return {"difference": float(table.mean()), "low": float(low), "high": float(high)}


def shuffled_control(earned: list[float], group_size: int, seed: int) -> dict[str, list[float]]:
    order = torch.randperm(len(earned), generator=torch.Generator().manual_seed(seed))
    dealt = torch.tensor(earned, dtype=torch.float64)[order]
    return {"rewards": dealt.tolist(), "advantages": grpo.group_advantages(dealt, group_size).tolist()}


@pytest.mark.parametrize(
    ("answer", "slip"), [(close_at_cap, IN_PLACE), (rl_loss, IN_PLACE), (paired_interval, ""), (shuffled_control, "")]
)
def test_an_answer_may_draw_otherwise_but_not_change_its_input(answer: Callable[..., Any], slip: str) -> None:
    verdict = judge(answer)
    assert (verdict.slip, verdict.passed) == (slip, not slip), verdict.message


@pytest.mark.parametrize("thread", [False, True])
def test_an_endless_answer_is_ended_in_every_thread(thread: bool) -> None:
    def length_reward(length: int, budget: int) -> float:
        while True:
            with suppress(Exception):
                length += 1

    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(judge, length_reward, 0.2).result(timeout=60) if thread else judge(length_reward, 0.2)
        assert verdict.slip == SLOW
        assert "0.2 seconds" in verdict.message
        assert pool.submit(judge, EXERCISES["length_reward"].build(), 60).result(timeout=60).passed


@pytest.mark.parametrize(
    ("got", "expected", "words"),
    [
        (torch.zeros(2), torch.zeros(2, 1), "has shape (2,) and should have (2, 1)"),
        (torch.tensor([1, 0]), torch.tensor([True, False]), "is tensor([1, 0]), a tensor of whole numbers, and"),
        (torch.tensor([0.0, math.nan]), torch.tensor([0.0, 1.0]), "is tensor([0.0, nan]) and should be"),
        (torch.tensor(0.5 + 1e-8), 0.5, ""),
        ([1, [2, 3]], [1, [2, 4]], "at [1][1] is 3 and should be 4"),
        ({"a": 1}, {"a": 1, "b": 2}, "has the keys ['a'] and should have ['a', 'b']"),
        (None, 0.0, "is None"),
    ],
)
def test_a_difference_is_said_in_words(got: Any, expected: Any, words: str) -> None:
    assert difference(got, expected).startswith(words)
    assert bool(difference(got, expected)) == bool(words)
    assert difference(expected, expected) == ""


def test_an_exception_shows_the_learners_line() -> None:
    def length_reward(length: int, budget: int) -> float:
        share = length / (budget - budget)
        return share

    with pytest.raises(Wrong) as raised:
        check(length_reward)
    assert "ZeroDivisionError: division by zero" in str(raised.value)
    line = length_reward.__code__.co_firstlineno + 1
    assert f"in your line {line}: share = length / (budget - budget)" in str(raised.value)
    assert raised.value._render_traceback_() == [str(raised.value)]


def test_a_name_without_an_exercise_is_refused_and_the_readme_quotes_a_verdict_as_it_is() -> None:
    with pytest.raises(UserError, match="another_name"):
        check(named("another_name", print))
    quoted = judge(EXERCISES["length_reward"].build(EXERCISES["length_reward"].mutants[0])).message
    assert quoted in (ROOT / "README.md").read_text(encoding="utf-8")
