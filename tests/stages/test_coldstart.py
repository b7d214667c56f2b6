import copy
from typing import Any

import pytest
import torch

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.rollout import Asking, roll_out
from rmt_mini.engine.text import format_for
from rmt_mini.records import Position, Rollout, Text
from rmt_mini.stages import coldstart as warmup
from rmt_mini.stages.coldstart import cold_start
from tests.fakes import make_tiny_policy
from tests.stages.tiny import closing, small, texts_for

LOW, HIGH = 2, 12
CAP = 2 * HIGH  # for both budgets, so that only what is stated differs


def fresh(seed: int = 0) -> Policy:
    """A random policy whose next token is still wide open."""
    policy = make_tiny_policy("llama", seed=seed, hidden_size=64, intermediate_size=128)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.ndim == 2:
                parameter *= 0.25
    return policy


def thoughts(policy: Policy, texts: list[Text], budget: int, cap: int = CAP) -> list[Rollout]:
    positions = [Position(n, i, 0, 0.0) for n, text in enumerate(texts) for i in range(4, len(text.ids), 3)]
    with torch.no_grad():
        trunks = policy.tree.read([text.ids for text in texts])
    asking = Asking([budget] * len(positions), [cap] * len(positions))
    form = format_for(policy, small())
    return roll_out(policy, form, trunks, positions, 8, asking, torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_free_thoughts_follow_the_budget_that_is_stated() -> None:
    config = small(
        warmup_steps=80, warmup_learning_rate=5e-3, warmup_positions=16, budget_start=HIGH, budget_min=LOW,
        use_ntp=False, document_tokens=24,
    )  # fmt: skip
    policy = fresh()
    texts = texts_for(policy, config, ["ab" * 12, "ba" * 12])

    def lengths() -> list[float]:
        groups = [[one.length for one in thoughts(policy, texts, budget)] for budget in (LOW, HIGH)]
        return [sum(group) / len(group) for group in groups]

    unread, unread_long = lengths()
    assert abs(unread_long - unread) < 1  # at first it makes no difference
    cold_start(policy, format_for(policy, config), texts, config)
    short, long = lengths()
    assert 1 <= short <= 4  # measured 2.1, in seeds 1 and 2 2.1 and 2.3
    assert 4.5 <= long <= 18  # measured 9.9; 4.9, 10.0
    assert long > short + 2


def first_step(
    monkeypatch: pytest.MonkeyPatch, config: RMTConfig
) -> tuple[Policy, Any, list[Text], list[Rollout], dict[str, float]]:
    """Run one step; returns the policy as it was, the form, the step's texts, its rollouts and its losses."""
    policy, seen, losses = closing(torch.float64), [], []
    before = copy.deepcopy(policy)
    texts = texts_for(policy, config)[: config.documents_per_step]

    def noted(*args: Any, **kwargs: Any) -> list[Rollout]:
        seen.extend(roll_out(*args, **kwargs))
        return seen

    monkeypatch.setattr(warmup, "roll_out", noted)
    monkeypatch.setattr(warmup, "endless", lambda texts, seed: iter(texts))
    form = format_for(policy, config)
    cold_start(policy, form, texts, config, lambda _, found: losses.append(found))
    return before, form, texts, seen, losses[0]


@pytest.mark.parametrize("branch_tokens", [40, 4096])
def test_closing_is_trained_at_every_place_and_the_answer_after_the_cue(
    monkeypatch: pytest.MonkeyPatch, branch_tokens: int
) -> None:
    config = small(warmup_steps=1, warmup_positions=8, branch_tokens=branch_tokens)
    policy, form, texts, rollouts, losses = first_step(monkeypatch, config)
    answers = closings = 0.0
    for one in rollouts:
        text, index = texts[one.position.trunk].ids, one.position.index
        opened = [*text[:index], *form.opening(one.budget)]
        whole = [*opened, *one.thought, *form.close, *form.cue(text, index)]
        with torch.no_grad():
            logprobs = policy.model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        closes = logprobs[len(opened) - 1 : len(opened) + one.length, form.close[0]]
        terms = [float(closes[-1])] + [float(torch.log1p(-lp.exp())) for lp in closes[:-1]]
        assert len(terms) == one.length + 1
        closings -= sum(terms) / len(terms)
        answers -= float(logprobs[-1, text[index]])
    assert losses["close_loss"] == pytest.approx(closings / len(rollouts), rel=1e-5)
    assert losses["answer_loss"] == pytest.approx(answers / len(rollouts), rel=1e-5)


def test_thoughts_are_as_long_as_drawn_around_budgets_of_the_whole_range(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(warmup_steps=1, warmup_positions=60, budget_start=20, budget_min=2)
    _, _, _, rollouts, _ = first_step(monkeypatch, config)
    assert not any(one.closed for one in rollouts)  # forced
    assert all(2 <= one.budget <= 20 and 1 <= one.length <= 2 * one.budget for one in rollouts)
    assert min(one.budget for one in rollouts) <= 3
    assert max(one.budget for one in rollouts) >= 15
    ratios = [one.length / one.budget for one in rollouts]
    assert 0.85 < sum(ratios) / len(ratios) < 1.15
    assert min(ratios) < 0.8 < 1.2 < max(ratios)


def test_a_run_that_never_thinks_learns_to_answer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(warmup_steps=1, warmup_positions=8, use_thinking=False, use_budget=False)
    _, _, _, rollouts, losses = first_step(monkeypatch, config)
    assert {one.length for one in rollouts} == {0}
    assert losses["answer_loss"] > 0
    assert losses["close_loss"] == 0  # it decides nothing
