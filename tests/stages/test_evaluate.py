from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rmt_mini.engine.rollout import lay_out
from rmt_mini.engine.text import format_for
from rmt_mini.errors import UserError
from rmt_mini.records import Answer, Position
from rmt_mini.stages import evaluate as room
from rmt_mini.stages.evaluate import answer_positions, evaluate, plan_positions
from rmt_mini.stages.statistics import summarize
from tests.stages.tiny import ARROWS, SENTENCES, closing, small, texts_for


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
