"""What steps and measurements draw by, in what order a run goes, and what its state carries."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rmt_mini.config import RMTConfig
from rmt_mini.engine.rollout import chunks
from rmt_mini.engine.text import endless, generator_for
from rmt_mini.errors import NonFiniteError
from rmt_mini.records import Judged, Position, Rollout
from rmt_mini.stages import evaluate as evaluate_room
from rmt_mini.stages import midtrain
from rmt_mini.stages.metrics import Clock
from rmt_mini.stages.midtrain import RMTTrainer, StepResult, judge
from tests.stages.tiny import by_answer, closing, small, texts_for, weights


def trainer_for(config: RMTConfig) -> RMTTrainer:
    policy = closing()
    return RMTTrainer(config, policy, texts_for(policy, config), by_answer)


def noted(monkeypatch: pytest.MonkeyPatch, room: Any) -> list[tuple[object, ...]]:
    """What the generators of a room are seeded by from now on."""
    drawn: list[tuple[object, ...]] = []

    def note(*key: Any) -> torch.Generator:
        drawn.append(key)
        return generator_for(*key)

    monkeypatch.setattr(room, "generator_for", note)
    return drawn


def test_each_draw_of_a_step_has_a_seed_a_purpose_and_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = noted(monkeypatch, midtrain)
    trainer_for(small(seed=7, difficulty="random", steps=2)).fit()
    assert drawn == [(7, "difficulty", 0), (7, "rollout", 0), (7, "difficulty", 1), (7, "rollout", 1)]


def test_each_draw_of_a_measurement_has_a_seed_and_a_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, config, policy = noted(monkeypatch, evaluate_room), small(seed=7, evaluation_positions=30), closing()
    texts = texts_for(policy, config)
    positions = evaluate_room.plan_positions(policy, texts, config)
    assert drawn == [(7, "evaluation", tier) for tier in range(3)]
    drawn.clear()
    monkeypatch.setattr(evaluate_room, "ROWS", 1)  # a batch for every text
    evaluate_room.answer_positions(policy, texts, positions, config, 4)
    assert drawn == [(7, "evaluate", number) for number in range(len({one.trunk for one in positions}))]


def test_a_run_goes_on_from_its_next_step() -> None:
    config, texts, results = small(seed=7, documents_per_step=2), [], list[StepResult]()
    whole = trainer_for(config)
    history = whole.fit(results.append)
    assert history == [one.metrics for one in results]
    assert [one.step for one in history] == [0, 1, 2]
    assert whole.next_step == 3
    texts = list(islice(endless(whole.texts, 7), 6))
    assert [text for one in results for text in one.texts] == texts
    late, later = trainer_for(config), list[StepResult]()
    late.next_step = 1
    late.fit(later.append)
    assert [one.metrics.step for one in later] == [1, 2]
    assert [text for one in later for text in one.texts] == texts[2:]


@pytest.mark.parametrize("changes", [{}, {"kl_weight": 0.1, "difficulty": "learning-progress"}])
def test_a_trainer_with_anothers_state_goes_on_as_it_would(changes: dict[str, Any]) -> None:
    def interrupt(result: StepResult) -> None:
        if result.metrics.step == 1:
            raise KeyboardInterrupt

    config = small(documents_per_step=2, on_nan="skip", **changes)
    whole, first, second = (trainer_for(config) for _ in range(3))
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        first.fit(interrupt)
    first.guard.in_a_row = 3
    first.difficulty.thresholds = (0.25, 0.75)
    state = first.state()
    second.load_state(state)
    assert (second.next_step, second.guard.in_a_row, second.difficulty.thresholds) == (2, 3, (0.25, 0.75))
    again = second.state()
    assert again.plain == state.plain
    assert again.tensors.keys() == state.tensors.keys()
    assert all(again.tensors[name].equal(value) for name, value in state.tensors.items())
    second.difficulty.thresholds = whole.difficulty.thresholds
    second.fit()
    assert all(value.equal(weights(second.policy)[name]) for name, value in weights(whole.policy).items())


def test_seconds_are_those_of_two_halves_and_of_what_trunks_took(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = list[str]()

    class Noting(Clock):
        @contextmanager
        def __call__(self, part: Any) -> Iterator[None]:
            parts.append(part)
            yield

    monkeypatch.setattr(midtrain, "Clock", Noting)
    trainer = trainer_for(small(updates_per_step=2, clip_epsilon=0.2))
    trainer.step(0, trainer.texts[:2])
    update = ["trunk", "trunk"]  # the loss that goes through it, and the optimizer
    assert parts == ["rollout", "trunk", "update", *update, "trunk", *update]


def test_the_end_of_a_run_says_nothing_of_a_single_skipped_update(caplog: pytest.LogCaptureFixture) -> None:
    """It was named when it was skipped; of several only the first was."""
    trainer = trainer_for(small(on_nan="skip"))
    trainer.next_step, trainer.guard.skipped = trainer.config.steps, 1
    with caplog.at_level(logging.WARNING, "rmt_mini"):
        trainer.fit()
    assert not caplog.records


def test_a_policy_whose_weights_ran_away_is_not_measured() -> None:
    trainer = trainer_for(small())
    with torch.no_grad():
        next(trainer.policy.model.parameters()).fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="hidden state of a document is not finite"):
        evaluate_room.read_for(trainer.policy, trainer.texts, [Position(0, 5, 0, 0.0)])


def test_the_reference_is_the_policy_as_it_was_and_never_trains() -> None:
    trainer = trainer_for(small(kl_weight=0.1))
    assert trainer.reference is not None
    before = weights(trainer.policy)
    trainer.fit()
    reference = dict(trainer.reference.model.named_parameters())
    assert not any(one.requires_grad for one in reference.values())
    assert all(one.equal(before[name]) for name, one in reference.items())
    assert all(trainer_for(small(**off)).reference is None for off in ({}, {"kl_weight": 0.1, "use_rl": False}))


def judged(gains: list[float] | None = None, **changes: Any) -> list[Judged]:
    """Judge a right answer after 6 tokens, a wrong one after 6 and one after 3, all under a budget of 6."""
    shapes = ((1, 6), (0, 6), (0, 3))
    rollouts = [Rollout(Position(0, 1, 0, 0.0), 6, (9,) * n, True, (said,), (-1.0,) * (n + 2)) for said, n in shapes]
    form: Any = SimpleNamespace(judge=lambda answer, trunk, index: float(answer[0]))
    trunks: Any = SimpleNamespace(documents={0: (1, 1)})
    return judge(rollouts, form, trunks, small(group_size=3, length_weight=0.4, **changes), gains)


@pytest.mark.parametrize("if_correct", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_rewards_and_advantages_follow_the_settings(if_correct: bool, scale: bool) -> None:
    found = judged(length_if_correct=if_correct, scale_advantages=scale)
    rewards = torch.tensor([1.0, 0.0, 0.0] if if_correct else [1.0, 0.4, 0.2], dtype=torch.float64)
    assert [one.reward for one in found] == pytest.approx(rewards.tolist())
    spread = rewards.std(correction=0) if scale else 1.0
    expected = ((rewards - rewards.mean()) / spread).tolist()
    assert [one.advantage for one in found] == pytest.approx(expected, rel=1e-3)


def test_gains_are_what_is_earned_and_match_stays_whether_the_answer_is_right() -> None:
    gains, settings = [1.0, -2.0, 0.5], {"length_if_correct": True, "scale_advantages": False}
    found = judged(gains, **settings)
    assert [one.match for one in found] == [1.0, 0.0, 0.0]
    assert [one.reward for one in found] == pytest.approx([0.6 + 0.4, -1.2, 0.3])
    assert [one.advantage for one in found] == pytest.approx([1.0 - 0.1 / 3, -1.2 - 0.1 / 3, 0.3 - 0.1 / 3])
    correct = judged(gains, rl_rule="correct", **settings)
    assert [one.advantage for one in correct] == [1.0, 0.0, 0.0]
    assert [one.reward for one in correct] == [one.reward for one in found]
    shuffled = [one.reward for one in judged(gains, rl_rule="shuffled", **settings)]
    assert sorted(shuffled) == sorted(one.reward for one in found)


# Where a measurement asks


def test_one_position_is_at_least_asked_of_each_tier_and_thresholds_come_from_training_text() -> None:
    policy, config = closing(), small(evaluation_positions=30)
    texts = texts_for(policy, config)
    assert [one.tier for one in evaluate_room.plan_positions(policy, texts, config, count=1)].count(1) == 1
    alone = evaluate_room.plan_positions(policy, texts[:2], config, train=texts[2:])
    assert alone != evaluate_room.plan_positions(policy, texts[:2], config)


def test_batches_divide_no_text() -> None:
    positions = [Position(trunk, 1, 0, 0.0) for trunk in (0, 1, 1, 1, 2)]
    assert [len(batch) for batch in evaluate_room._batches(positions, 1)] == [1, 3, 1]
    assert [len(batch) for batch in evaluate_room._batches(positions, 2)] == [4, 1]


def test_an_answer_has_the_sort_of_its_token() -> None:
    policy, config = closing(), small(evaluation_positions=6)
    bare, *_ = texts_for(policy, config)
    text = bare.__class__(bare.id, bare.ids, bare.first, tuple(f"sort {n}" for n in range(len(bare.ids))))
    positions = [Position(0, 5, 0, 0.0), Position(0, 9, 1, 0.0)]
    for one, sorts in ((text, ["sort 5", "sort 9"]), (bare, ["", ""])):
        answers = evaluate_room.answer_positions(policy, [one], positions, config, 4)
        assert [answer.sort for answer in answers] == sorts


def test_chunks_are_of_like_length_and_about_as_large_as_asked() -> None:
    form: Any = SimpleNamespace(opening=lambda budget: [0] * 3, close=[0])  # a frame of 3 + 1 + 8 tokens
    sizes = (5, 1, 2, 9, 1)
    rollouts = [
        Rollout(Position(n, 1, 0, 0.0), None, (0,) * size, True, (0,) * 2, (0.0,)) for n, size in enumerate(sizes)
    ]
    # by length the rollouts 1, 4, 2, 0, 3 take 15, 15, 16, 19 and 23 tokens
    for tokens, expected in ((46, [[1, 2, 4], [0, 3]]), (45, [[1, 4], [0, 2], [3]]), (1, [[1], [4], [2], [0], [3]])):
        found = chunks(rollouts, lambda one: one, form, tokens)
        assert [[one.position.trunk for one in piece] for piece in found] == expected
