from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from rmt_mini.engine.logits import sample
from rmt_mini.engine.rollout import lay_out
from rmt_mini.errors import UserError
from rmt_mini.records import Position, Rollout
from rmt_mini.stages import evaluate as room
from rmt_mini.stages.evaluate import Answer, answer_positions, difference, evaluate, interval, plan_positions, summarize
from rmt_mini.stages.material import format_for
from tests.stages.tiny import ARROWS, SENTENCES, closing, small, texts_for


def answer(document: int, tier: int, match: float, plain: float = 0.0, length: int = 0, closed: bool = True) -> Answer:
    position = Position(document, 1, tier, 0.0)
    return Answer(position, plain, match, Rollout(position, 4, (7,) * length, closed, (1,), ()))


def matches(answers: list[Answer]) -> np.ndarray:
    return np.array([one.match for one in answers])


# easy 2 of 4, medium 1 of 1, hard 0 of 3: the mean of tiers is 1/2, that of positions 3/8
HAND = [
    answer(0, 0, 1.0), answer(0, 0, 0.0), answer(0, 2, 0.0), answer(0, 1, 1.0),
    answer(1, 0, 1.0), answer(1, 0, 0.0), answer(1, 2, 0.0), answer(1, 2, 0.0),
]  # fmt: skip


def test_the_average_is_that_of_tiers_not_of_positions() -> None:
    found = interval(HAND, matches(HAND))
    assert found["mean"] == pytest.approx((2 / 4 + 1 / 1 + 0 / 3) / 3)
    assert found["n"] == 8
    assert [interval(HAND, matches(HAND), [tier])["mean"] for tier in range(3)] == [0.5, 1.0, 0.0]
    assert [interval(HAND, matches(HAND), [tier])["n"] for tier in range(3)] == [4, 1, 3]


def test_the_interval_holds_the_mean_and_narrows_with_more_documents() -> None:
    def made(documents: int) -> list[Answer]:
        rng = np.random.default_rng(0)
        return [answer(d, tier, float(rng.random() < 0.4)) for d in range(documents) for tier in (0, 1, 2)]

    few, many = (interval(answers, matches(answers)) for answers in (made(12), made(300)))
    for found in (few, many):
        assert 0 <= found["low"] < found["mean"] < found["high"] <= 1
    assert many["high"] - many["low"] < 0.5 * (few["high"] - few["low"])
    assert interval(made(12), matches(made(12))) == few  # resampled the same way each time


def test_documents_are_resampled_not_positions() -> None:
    """Two documents of a hundred equal answers each say as little as two answers."""
    answers = [answer(d, 0, float(d)) for d in range(2) for _ in range(100)]
    found = interval(answers, matches(answers), [0])
    assert (found["mean"], found["low"], found["high"]) == (0.5, 0.0, 1.0)


def test_a_paired_interval_is_narrower_than_two_apart() -> None:
    first = [float(d % 2) for d in range(40)]
    second = [min(1.0, value + (d % 8 == 0)) for d, value in enumerate(first)]
    answers = [answer(d, d % 3, 0.0) for d in range(40)]
    found = difference(answers, first, second)
    gain = np.mean([np.mean([second[d] - first[d] for d in range(tier, 40, 3)]) for tier in range(3)])
    assert found["difference"] == pytest.approx(gain)
    assert 0 <= found["low"] < found["difference"] < found["high"]
    alone = interval(answers, np.array(second))
    assert found["high"] - found["low"] < alone["high"] - alone["low"]
    turned = difference(answers, second, first)
    assert turned["difference"] == pytest.approx(-gain)
    assert turned["high"] <= 0


@pytest.mark.parametrize("documents", [1, 2, 9])
def test_equal_answers_differ_by_nothing_for_certain(documents: int) -> None:
    answers = [answer(d, d % 3, float(d % 2)) for d in range(documents)]
    values = [one.match for one in answers]
    found = difference(answers, values, values)
    assert found["difference"] == 0
    if documents > 1:
        assert (found["low"], found["high"]) == (0, 0)
    else:
        assert found["low"] <= 0 <= found["high"]


def test_one_document_tells_nothing() -> None:
    answers = [answer(3, tier, 1.0) for tier in (0, 1, 2)]
    assert interval(answers, matches(answers)) == {"mean": 1.0, "low": 0.0, "high": 1.0, "n": 3}


def test_no_answer_and_a_missing_tier() -> None:
    assert interval([], np.array([])) == {"mean": None, "low": None, "high": None, "n": 0}
    answers = [answer(d, 2 * (d % 2), float(d % 2)) for d in range(10)]
    assert interval(answers, matches(answers), [1]) == {"mean": None, "low": None, "high": None, "n": 0}
    assert interval(answers, matches(answers))["mean"] == 0.5  # of the two tiers there are


@pytest.mark.filterwarnings("error")
def test_a_tier_of_a_few_documents_has_an_interval_that_json_can_hold() -> None:
    answers = [answer(d, 0, float(d % 2)) for d in range(10)] + [answer(0, 2, 1.0), answer(1, 2, 0.0)]
    found = interval(answers, matches(answers), [2])
    assert (found["mean"], found["low"], found["high"]) == (0.5, 0.0, 1.0)
    once = [one for one in answers if one.position != Position(1, 1, 2, 0.0)]
    assert interval(once, matches(once), [2]) == {"mean": 1.0, "low": 0.0, "high": 1.0, "n": 1}
    json.dumps(summarize(answers, 4), allow_nan=False)


def test_a_summary_has_the_rows_of_the_contract() -> None:
    answers = [answer(d, d % 3, float(d % 2), plain=1.0, length=d, closed=d < 3) for d in range(6)]
    found = summarize(answers, 5)
    assert set(found) == {"ntp", "think"}
    for row in found.values():
        assert set(row) >= {"easy", "medium", "hard", "average", "thought_length"}
        for tier in ("easy", "medium", "hard", "average"):
            assert set(row[tier]) == {"accuracy", "low", "high", "n"}
    assert [found["ntp"][tier]["accuracy"] for tier in ("easy", "average")] == [1.0, 1.0]
    assert found["think"]["average"]["accuracy"] == pytest.approx(0.5)
    assert found["think"]["thought_length"] == 2.5
    assert found["think"]["closed_share"] == 0.5
    assert (found["think"]["budget"], found["ntp"]["thought_length"]) == (5, 0.0)


@torch.no_grad()
def test_positions_are_even_over_tiers_and_the_same_each_time() -> None:
    config = small(evaluation_positions=30)
    policy = closing()
    texts = texts_for(policy, config)
    positions = plan_positions(policy, texts, config)
    assert [sum(p.tier == tier for p in positions) for tier in range(3)] == [10, 10, 10]
    assert plan_positions(policy, texts, config) == positions
    assert plan_positions(policy, texts, config.replace(seed=1)) != positions
    assert positions == sorted(positions, key=lambda p: (p.trunk, p.index))
    assert len({(p.trunk, p.index) for p in positions}) == 30
    easy, hard = ([p.entropy for p in positions if p.tier == tier] for tier in (0, 2))
    assert max(easy) < min(hard)
    for p in positions:
        assert texts[p.trunk].first <= p.index < len(texts[p.trunk].ids)
        logits = policy.model(input_ids=torch.tensor([texts[p.trunk].ids[: p.index]])).logits[0, -1]
        assert p.entropy == pytest.approx(float(torch.distributions.Categorical(logits=logits).entropy()), abs=1e-4)
    assert len(plan_positions(policy, texts, config, count=6)) == 6


def test_a_small_tier_gives_what_it_has() -> None:
    config = small(tier_rule="fixed", tier_thresholds=(50.0, 60.0), evaluation_positions=30)
    policy = closing()
    positions = plan_positions(policy, texts_for(policy, config), config)
    assert [p.tier for p in positions] == [0] * 10


def asked(
    config: Any, budget: int = 4, sentences: Sequence[str] = SENTENCES
) -> tuple[Any, Any, list[Position], list[Answer]]:
    policy = closing()
    texts = texts_for(policy, config, sentences)
    positions = plan_positions(policy, texts, config)
    return policy, texts, positions, answer_positions(policy, texts, positions, config, budget)


def test_answers_are_those_of_direct_calls_of_the_model() -> None:
    policy, texts, _, answers = asked(small(evaluation_positions=45), sentences=ARROWS)
    assert {one.match for one in answers} == {one.plain for one in answers} == {0.0, 1.0}
    form = format_for(policy, small())
    for one in answers:
        text, index = texts[one.position.trunk].ids, one.position.index
        logits = policy.model(input_ids=torch.tensor([text[:index]])).logits[0, -1]
        assert one.plain == float(int(logits.argmax()) == text[index])
        branch = lay_out(form, text, one.rollout)
        after = policy.model(input_ids=torch.tensor([[*text[:index], *branch.tokens]])).logits[0, -1]
        assert one.rollout.answer == (int(after.argmax()),)  # the likeliest, though thoughts are sampled
        assert one.match == float(one.rollout.answer[0] == text[index])
        assert (one.rollout.budget, one.rollout.length <= 8) == (4, True)
    assert len({one.rollout.thought for one in answers}) > 10


def test_answers_come_in_order_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(evaluation_positions=45)
    *_, positions, answers = asked(config)
    assert [one.position for one in answers] == positions
    assert len({p.trunk for p in positions}) == 5
    monkeypatch.setattr(room, "ROWS", 4)
    *_, again, others = asked(config)
    assert [one.position for one in others] == again == positions
    assert [one.plain for one in others] == [one.plain for one in answers]
    assert len(room.batches(positions, 4)) == 5  # a text is never parted
    assert [p for batch in room.batches(positions, 4) for p in batch] == positions


def test_thoughts_are_sampled_at_the_temperature_and_answers_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from rmt_mini.engine import rollout

    seen: list[float] = []

    def noted(logits: Any, temperature: float, generator: Any) -> Any:
        seen.append(temperature)
        return sample(logits, temperature, generator)

    monkeypatch.setattr(rollout, "sample", noted)
    asked(small(evaluation_positions=3, temperature=0.7))
    assert set(seen) == {0.7, 0.0}


def test_evaluate_states_the_budget_asked_for() -> None:
    policy, config = closing(), small(evaluation_positions=6)
    texts = texts_for(policy, config)
    positions = plan_positions(policy, texts, config)
    assert evaluate(policy, texts, config, positions, budget=3)["think"]["budget"] == 3
    assert evaluate(policy, texts, config.replace(evaluation_budget=2))["think"]["budget"] == 2
    found = evaluate(policy, texts, config)
    assert found["think"]["budget"] == 6
    assert found == summarize(answer_positions(policy, texts, positions, config, 6), 6)
    with pytest.raises(UserError, match="no held-out text"):
        evaluate(policy, [], config)


def test_evaluation_leaves_the_policy_alone() -> None:
    policy, config = closing(), small(evaluation_positions=6)
    before = {name: value.clone() for name, value in policy.model.state_dict().items()}
    evaluate(policy, texts_for(policy, config), config)
    assert all(torch.equal(before[name], value) for name, value in policy.model.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.model.parameters())
