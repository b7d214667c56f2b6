"""Other measures of difficulty: each by hand, in the trainer, and with a budget that follows the position."""

import dataclasses
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from rmt_mini.engine.rollout import Asking
from rmt_mini.engine.text import generator_for
from rmt_mini.method.budget import budgets_by_entropy
from rmt_mini.method.schedule import budgets_for
from rmt_mini.records import Position
from rmt_mini.stages.difficulty import CANDIDATES, MEASURES, PROBES, Pool, Scoring, rescored
from rmt_mini.stages.evaluate import answer_positions, plan_positions, yardstick
from rmt_mini.stages.midtrain import RMTTrainer, asking_for
from tests.fakes import BareFormat, make_tiny_policy, scripted_policy
from tests.stages.tiny import closing, small, texts_for

TRUNK = [7, 3, 9, 3, 8]


def positions(entropies: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)) -> list[Position]:
    return [Position(0, index + 1, 2, entropy) for index, entropy in enumerate(entropies)]


def scoring(policy: Any, start: Any = None, wanted: int = 1) -> Scoring:
    def ask(asked: Any) -> Asking:
        return Asking([None] * len(asked), [0] * len(asked))

    with torch.no_grad():
        trunks = policy.tree.read([TRUNK])
    return Scoring(policy, start, BareFormat(), trunks, positions(), wanted, ask, generator_for(0, "test"))


@torch.no_grad()
def scored(kind: str, *given: Any, **options: Any) -> tuple[Pool, torch.Tensor]:
    return MEASURES[kind](scoring(*given, **options))


def plain_losses(policy: Any) -> torch.Tensor:
    logits = policy.model(input_ids=torch.tensor([TRUNK])).logits[0]
    return F.cross_entropy(logits[:-1], torch.tensor(TRUNK[1:]), reduction="none")


def test_the_loss_is_that_of_the_true_token() -> None:
    policy = make_tiny_policy(vocabulary=12)
    pool, score = scored("loss", policy)
    torch.testing.assert_close(score, plain_losses(policy).detach(), rtol=1e-5, atol=1e-5)
    assert pool == Pool(positions())


def test_learning_progress_is_how_far_the_loss_fell() -> None:
    policy, start = make_tiny_policy(vocabulary=12), make_tiny_policy(vocabulary=12, seed=1)
    pool, score = scored("learning-progress", policy, start)
    fell = plain_losses(start) - plain_losses(policy)
    torch.testing.assert_close(score, fell.detach(), rtol=1e-5, atol=1e-5)
    assert pool.trunk_reads == 1
    with pytest.raises(ValueError, match="needs the weights"):
        scored("learning-progress", policy)


def test_the_pass_rate_is_that_of_a_few_rollouts() -> None:
    # answers 3 wherever it is asked: right at positions 1 and 3 of the trunk
    policy = scripted_policy(lambda ids: 3, range(12))
    pool, score = scored("pass-rate", policy, wanted=2)  # six candidates, and there are four
    assert pool.positions == positions()
    assert score.tolist() == [0.0, 1.0, 0.0, 1.0]
    assert len(pool.probes) == 4 * PROBES
    pool, score = scored("pass-rate", policy, wanted=1)
    assert len(pool.positions) == CANDIDATES
    assert score.tolist() == [float(one.index % 2 == 0) for one in pool.positions]


def test_scores_assign_the_tiers_of_entropy_anew() -> None:
    policy = make_tiny_policy(vocabulary=12)
    tiered = [dataclasses.replace(p, tier=n // 2) for n, p in enumerate(positions())]
    asked = dataclasses.replace(scoring(policy), positions=tiered)
    found = {kind: [one.tier for one in rescored(kind, asked).positions] for kind in ("loss", "random")}
    order = plain_losses(policy).argsort().tolist()
    assert found["loss"] == [int(place in order[2:]) for place in range(4)]
    assert sorted(found["random"]) == [0, 0, 1, 1]


@pytest.mark.parametrize("kind", MEASURES)
def test_the_trainer_takes_the_scores_and_counts_their_cost(kind: str) -> None:
    policy = closing()
    config = small(difficulty=kind)
    texts = texts_for(policy, config)
    found = RMTTrainer(config, closing(), texts).step(0, texts[:2]).metrics
    assert sum(found.tier_counts) == config.positions_per_document * 2
    trunk = sum(len(text.ids) for text in texts[:2])
    # what drawing positions took; the rollouts at them differ too, so the step with no RL tells
    trainer = RMTTrainer(config, policy, texts)
    chosen = trainer.choose(0, texts[:2], policy.tree.read([text.ids for text in texts[:2]]))
    assert (chosen.trunk_reads, bool(chosen.probes)) == (int(kind == "learning-progress"), kind == "pass-rate")
    assert all(one.index >= texts[one.trunk].first for one in chosen.positions)
    assert found.trunk_tokens == trunk


# A budget for each position


def test_a_position_is_asked_under_its_own_budget() -> None:
    config = small(budget_rule="entropy", budget_start=8, budget_min=3)
    asked = positions((0.0, 1.0, 2.0, 5.0))
    asking = asking_for(config, budgets_for(config, 8, asked))
    assert (asking.budgets, asking.caps) == ([3, 4, 8, 16], [6, 8, 16, 32])
    unstated = small(budget_rule="entropy", budget_start=8, use_budget=False)
    assert asking_for(unstated, budgets_for(unstated, 8, asked)).caps == [16] * 4


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
