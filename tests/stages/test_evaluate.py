import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from rmt_mini.engine.prompt import Continuation
from rmt_mini.engine.rollout import lay_out
from rmt_mini.engine.text import format_for
from rmt_mini.errors import UserError
from rmt_mini.records import Answer, Position, Rollout
from rmt_mini.stages import evaluate as room
from rmt_mini.stages.evaluate import (
    answer_positions,
    best_threshold,
    curve_point,
    evaluate,
    evenly,
    gated,
    measure_all,
    plan_positions,
    probed,
    some_of,
)
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
    policy, texts, _, answers = asked(small(evaluation_positions=45, evaluation_thoughts=1), sentences=ARROWS)
    assert {one.match for one in answers} == {one.plain for one in answers} == {0.0, 1.0}
    form = format_for(policy, small())
    for one in answers:
        text, index = texts[one.position.trunk].ids, one.position.index
        logits = policy.model(input_ids=torch.tensor([text[:index]])).logits[0, -1]
        assert one.plain == float(int(logits.argmax()) == text[index])
        logprobs = logits.double().log_softmax(-1)
        assert one.confidence == pytest.approx(logprobs.max().exp().item(), rel=1e-4)
        assert one.bits == pytest.approx(-logprobs[text[index]].item() / math.log(2), rel=1e-4)
        branch = lay_out(form, text, one.rollout)
        after = policy.model(input_ids=torch.tensor([[*text[:index], *branch.tokens]])).logits[0, -1]
        assert one.rollout.answer == (int(after.argmax()),)  # the likeliest, though thoughts are sampled
        assert one.match == float(one.rollout.answer[0] == text[index])
        assert one.bits_after == pytest.approx(
            -float(after.double().log_softmax(-1)[text[index]]) / math.log(2), rel=1e-4
        )
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


def test_evaluate_asks_at_the_positions_and_under_the_budget_that_are_given() -> None:
    policy, config = closing(), small(evaluation_positions=6)
    texts = texts_for(policy, config)
    positions = plan_positions(policy, texts, config)
    given = evaluate(policy, texts, config, [at for at in positions if at.tier < 2], budget=3)["think"]
    assert given["budget"] == 3
    assert [given[tier]["n"] for tier in ("easy", "medium", "hard", "average")] == [2, 2, 0, 4]
    assert evaluate(policy, texts, config.replace(evaluation_budget=2))["think"]["budget"] == 2
    found = evaluate(policy, texts, config)
    assert found["think"]["budget"] == 6
    assert found == summarize(answer_positions(policy, texts, positions, config, 6), 6)
    with pytest.raises(UserError, match="no held-out text"):
        evaluate(policy, [], config)


def test_an_answer_is_the_mean_over_its_thoughts(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Rollout] = []
    real = room.roll_out
    monkeypatch.setattr(room, "roll_out", lambda *given: [drawn.append(one) or one for one in real(*given)])
    config = small(evaluation_positions=15, evaluation_thoughts=3)
    _, texts, positions, answers = asked(config, sentences=ARROWS)
    assert len(drawn) == 3 * len(positions)
    for number, (at, one) in enumerate(zip(positions, answers, strict=True)):
        own, truth = drawn[3 * number : 3 * number + 3], texts[at.trunk].ids[at.index]
        assert one.rollout is own[0]
        assert one.match == pytest.approx(sum(thought.answer == (truth,) for thought in own) / 3)
        assert one.length == pytest.approx(sum(len(thought.thought) for thought in own) / 3)
        assert one.closed == pytest.approx(sum(thought.closed for thought in own) / 3)
    assert len({one.match for one in answers} - {0.0, 1.0}) > 0
    drawn.clear()
    asked(config.replace(use_thinking=False))  # an answer without a thought is always the same
    assert len(drawn) == 15


def test_plain_predictions_and_probes_are_judged_as_thoughts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(evaluation_positions=12, evaluation_thoughts=1, prefix_match=True)
    judged = []
    monkeypatch.setattr(Continuation, "judge", lambda *given: float(not judged.append(given[1:])))
    policy, texts, positions, answers = asked(config, sentences=ARROWS)
    assert [(one.plain, one.match) for one in answers] == [(1, 1)] * len(positions)
    assert all(set(one.probe.values()) == {1} for one in probed(policy, texts, answers, config, 4))
    assert len(judged) == 6 * len(positions)


def test_a_probe_answers_after_other_thoughts(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(evaluation_positions=12, evaluation_thoughts=1)
    policy, texts, positions, answers = asked(config, sentences=ARROWS)
    monkeypatch.setattr(room, "GENERIC", "ab")
    form, thoughts = format_for(policy, config), [one.rollout.thought for one in answers]

    def right(number: int, thought: tuple[int, ...]) -> float:
        at = positions[number]
        ids = texts[at.trunk].ids
        branch = lay_out(form, ids, replace(answers[number].rollout, thought=thought))
        logits = policy.model(input_ids=torch.tensor([[*ids[: at.index], *branch.tokens]])).logits[0, -1]
        return float(int(logits.argmax()) == ids[at.index])

    found = probed(policy, texts, answers, config, 4)
    for number, (before, one) in enumerate(zip(answers, found, strict=True)):
        length = before.rollout.length
        assert replace(one, probe={}) == before
        assert one.probe == {
            "own": before.match,
            "other": right(number, thoughts[(number + 6) % 12]),
            "generic": right(number, tuple((ord("a"), ord("b"))[place % 2] for place in range(length))),
            "blank": right(number, (ord(" "),) * length),
        }
    assert len({tuple(one.probe.values()) for one in found}) > 2
    assert probed(policy, texts, answers, config.replace(use_thinking=False), 4) == answers


def at(confidence: float, plain: float, match: float) -> Answer:
    return Answer(Position(0, 1, 0, 0.0), plain, match, 5, 1.0, confidence=confidence)


def test_the_gate_answers_at_once_where_its_confidence_reaches_the_threshold() -> None:
    answers = [at(0.2, 0, 1), at(0.4, 0, 0.75), at(0.6, 1, 0.5), at(0.9, 1, 0)]
    assert best_threshold(answers) == 0.6
    assert [one.gated for one in gated(answers, 0.6)] == [1, 0.75, 1, 1]
    assert best_threshold([at(0.3, 1, 0), at(0.5, 1, 0.5)]) == 0.0  # never think
    assert best_threshold([at(0.3, 0, 1), at(1.0, 0, 0.5)]) > 1  # always


def test_everything_is_measured_at_once_and_the_gate_by_training_text_alone() -> None:
    config = small(evaluation_positions=24, evaluation_thoughts=2, checked_positions=6)
    policy = closing()
    texts, other = texts_for(policy, config), texts_for(policy, config, ARROWS)
    positions = plan_positions(policy, texts, config)
    answers = answer_positions(policy, texts, positions, config, 4)
    found = measure_all(policy, other, texts, positions, config, 4)
    assert [replace(one, probe={}, gated=None) for one in found] == answers
    few = some_of(positions, 6)
    assert {at.trunk for at in few} == {0, 2}  # of 5 texts
    assert [one.position for one in found if one.probe] == few == [at for at in positions if at.trunk in (0, 2)]
    chosen = plan_positions(policy, evenly(other, 2), config, len(few), other)
    once = config.replace(evaluation_thoughts=1)
    threshold = best_threshold(answer_positions(policy, other, chosen, once, 4))
    assert found == [replace(new, probe=old.probe) for new, old in zip(gated(answers, threshold), found, strict=True)]
    assert measure_all(policy, other, texts, positions, config.replace(checked_positions=0), 4) == answers


def test_a_point_of_the_curve_averages_tiers_and_sorts() -> None:
    def one(tier: int, sort: str, plain: float, match: float) -> Answer:
        return Answer(Position(0, 1, tier, 0.0), plain, match, 10 * tier, 1.0, sort)

    answers = [one(0, "a", 1, 1), one(0, "a", 0, 1), one(0, "b", 0, 0), one(2, "b", 0, 0.5)]
    found = curve_point(7, answers)
    assert (found.step, found.thought_length) == (7, 5)
    assert (found.plain, found.think) == pytest.approx(((1 / 3 + 0) / 2, (2 / 3 + 0.5) / 2))
    assert found.sorts == {"a": (0.5, 1.0), "b": (0.0, 0.25)}
