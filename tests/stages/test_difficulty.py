"""Other measures of difficulty: each by hand, in the trainer, and with a budget that follows the position."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from rmt_mini.engine.rollout import Asking
from rmt_mini.engine.text import generator_for
from rmt_mini.method.budget import budgets_by_entropy
from rmt_mini.method.rewards import total_reward
from rmt_mini.method.schedule import budgets_for
from rmt_mini.records import Position
from rmt_mini.stages.difficulty import CANDIDATES, PROBES, score_positions
from rmt_mini.stages.evaluate import answer_positions, plan_positions, yardstick
from rmt_mini.stages.midtrain import RMTTrainer, asking_for, judge
from tests.fakes import BareFormat, make_tiny_policy, scripted_policy
from tests.stages.tiny import closing, small, texts_for

TRUNK = [7, 3, 9, 3, 8]
KINDS = ("loss", "pass-rate", "learning-progress", "random")


def positions(entropies: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)) -> list[Position]:
    return [Position(0, index + 1, 2, entropy) for index, entropy in enumerate(entropies)]


def scored(kind: str, policy: Any, start: Any = None, form: Any = None, wanted: int = 1, seed: int = 0) -> Any:
    trunks = policy.tree.read([torch.tensor(TRUNK)])
    return score_positions(
        kind, policy, start, form or BareFormat(), trunks, positions(), wanted,
        lambda asked: Asking([None] * len(asked), [0] * len(asked)), generator_for(seed, "test"),
    )  # fmt: skip


def plain_losses(policy: Any) -> torch.Tensor:
    logits = policy.model(input_ids=torch.tensor([TRUNK])).logits[0]
    return F.cross_entropy(logits[:-1], torch.tensor(TRUNK[1:]), reduction="none")


def test_the_loss_is_that_of_the_true_token() -> None:
    policy = make_tiny_policy(vocabulary=12)
    found = scored("loss", policy)
    torch.testing.assert_close(found.score, plain_losses(policy).detach(), rtol=1e-5, atol=1e-5)
    assert (list(found.kept), found.trunk_reads, list(found.rollouts)) == ([0, 1, 2, 3], 0, [])


def test_learning_progress_is_how_far_the_loss_fell() -> None:
    policy, start = make_tiny_policy(vocabulary=12), make_tiny_policy(vocabulary=12, seed=1)
    found = scored("learning-progress", policy, start)
    fell = plain_losses(start) - plain_losses(policy)
    torch.testing.assert_close(found.score, fell.detach(), rtol=1e-5, atol=1e-5)
    assert found.trunk_reads == 1
    assert scored("learning-progress", policy, policy).score.tolist() == [0.0] * 4
    with pytest.raises(ValueError, match="lacks the weights"):
        scored("learning-progress", policy)


def test_the_pass_rate_is_that_of_a_few_rollouts() -> None:
    # answers 3 wherever it is asked: right at positions 1 and 3 of the trunk
    policy = scripted_policy(lambda ids: 3, range(12))
    found = scored("pass-rate", policy, wanted=2)  # six candidates, and there are four
    assert list(found.kept) == [0, 1, 2, 3]
    assert found.score.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert len(found.rollouts) == 4 * PROBES
    few = scored("pass-rate", policy, wanted=1)
    assert len(few.kept) == CANDIDATES
    assert few.score.tolist() == [float(place % 2) for place in few.kept]


def test_random_scores_depend_on_the_seed_alone() -> None:
    policy = make_tiny_policy(vocabulary=12)
    one, same, other = (scored("random", policy, seed=seed).score.tolist() for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize("kind", KINDS)
def test_the_trainer_takes_the_scores_and_counts_their_cost(kind: str) -> None:
    policy = closing()
    plain, config = small(), small(difficulty=kind)
    texts = texts_for(policy, config)
    usual, found = (RMTTrainer(one, closing(), texts).step(0, texts[:2]).metrics for one in (plain, config))
    assert sum(found.tier_counts) == config.positions_per_document * 2
    trunk = sum(len(text.ids) for text in texts[:2])
    # what drawing positions took; the rollouts at them differ too, so the step with no RL tells
    trainer = RMTTrainer(config, policy, texts)
    trunks = policy.tree.read([torch.tensor(text.ids) for text in texts[:2]])
    chosen, extra = trainer._choose(texts[:2], trunks, 0)
    assert {"loss": extra == 0, "random": extra == 0, "learning-progress": extra == trunk, "pass-rate": extra > 0}[kind]
    assert all(one.index >= texts[one.trunk].first for one in chosen)
    assert found.trunk_tokens == usual.trunk_tokens == trunk


@pytest.mark.parametrize("kind", KINDS)
def test_tiers_keep_the_sizes_that_entropy_gives_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, config = closing(), small(difficulty=kind, positions_per_document=12)
    texts = texts_for(policy, config)[:2]
    trainer = RMTTrainer(config, policy, texts)
    trainer.step(0, texts)  # before it nothing has been learned
    trunks = policy.tree.read([torch.tensor(text.ids) for text in texts])
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(trainer.sampler, "sample", lambda tiers, n, step: seen.append(tiers) or torch.arange(n))
    trainer._choose(texts, trunks, 1)
    tiers = trainer.difficulty.tiers(trainer.difficulty.entropy(trunks))
    by_entropy = torch.stack([tiers[n][index] for n, text in enumerate(texts) for index in text.places])
    if len(seen[0]) == len(by_entropy):  # a pass rate may leave candidates out
        assert seen[0].bincount(minlength=3).tolist() == by_entropy.bincount(minlength=3).tolist()
        assert seen[0].tolist() != by_entropy.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_draws_what_the_unbroken_one_drew(kind: str) -> None:
    config = small(difficulty=kind, steps=4, learning_rate=1e-2)

    def run(broken: bool) -> list[Any]:
        policy = closing()
        texts = texts_for(policy, config)
        trainer, metrics = RMTTrainer(config, policy, texts), []
        for step in range(4):
            if broken and step == 2:
                state = trainer.state()
                later = RMTTrainer(config, closing(), texts)
                later.load_state(state)
                trainer = later
            metrics.append(trainer.step(step, texts[:2]).metrics)
            trainer.next_step = step + 1
        return [dataclasses.replace(one, rollout_seconds=0, update_seconds=0, trunk_seconds=0) for one in metrics]

    whole, taken_up = run(False), run(True)
    for one, other in zip(whole, taken_up, strict=True):
        assert dataclasses.replace(one, peak_memory_mb=0) == dataclasses.replace(other, peak_memory_mb=0)


# A budget for each position


def test_a_position_is_asked_under_its_own_budget() -> None:
    config = small(budget_rule="entropy", budget_start=8, budget_min=3)
    asked = positions((0.0, 1.0, 2.0, 5.0))
    assert budgets_for(config, 8, asked) == [3, 4, 8, 16]
    asking = asking_for(config, budgets_for(config, 8, asked))
    assert (asking.budgets, asking.caps) == ([3, 4, 8, 16], [6, 8, 16, 32])
    assert budgets_for(small(budget_start=8), 8, asked) == [8] * 4
    unstated = small(budget_rule="entropy", budget_start=8, use_budget=False)
    assert asking_for(unstated, budgets_for(unstated, 8, asked)).caps == [16] * 4


def test_the_length_reward_is_of_the_budget_that_was_stated() -> None:
    config = small(budget_rule="entropy", budget_start=6, budget_min=2, length_weight=0.5)
    policy = closing()
    texts = texts_for(policy, config)
    result = RMTTrainer(config, policy, texts, judge).step(0, texts[:2])
    budgets = {one.rollout.position: one.rollout.budget for one in result.judged}
    chosen = list(budgets)
    assert list(budgets.values()) == budgets_by_entropy([one.entropy for one in chosen], 6, 2)
    assert len(set(budgets.values())) > 1
    for one in result.judged:
        stated, length = one.rollout.budget, one.rollout.length
        assert length <= 2 * stated
        by_hand = max(0.0, 1 - abs(length - stated) / stated)
        assert one.length_reward == pytest.approx(by_hand)
        assert one.reward == pytest.approx(total_reward(one.match, by_hand, 0.5))


def test_evaluation_follows_the_rule_over_all_its_positions() -> None:
    config = small(budget_rule="entropy", evaluation_positions=60)
    policy = closing()
    texts = texts_for(policy, config)
    asked = plan_positions(policy, texts, config)
    answers = answer_positions(policy, texts, asked, config, 6)
    stated = [answer.rollout.budget for answer in answers if answer.rollout is not None]
    assert stated == budgets_by_entropy([one.entropy for one in asked], 6, config.budget_min)


def test_held_out_positions_keep_their_tiers_where_training_has_others() -> None:
    policy = make_tiny_policy()
    base = small(tier_rule="fixed", tier_thresholds=(2.0, 4.0), evaluation_positions=30)
    other = base.replace(tier_thresholds=(3.0, 5.0), evaluation_thresholds=(2.0, 4.0), difficulty="loss")
    texts = texts_for(policy, base)
    assert plan_positions(policy, texts, yardstick(other)) == plan_positions(policy, texts, yardstick(base))
    assert plan_positions(policy, texts, other) != plan_positions(policy, texts, base)
