import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.rollout import rollout_logprobs
from rmt_mini.method.grpo import group_advantages, kl_estimate
from rmt_mini.records import Judged, Position, Rollout
from rmt_mini.stages import midtrain
from rmt_mini.stages.difficulty import Pool
from rmt_mini.stages.metrics import Clock
from rmt_mini.stages.midtrain import RMTTrainer, StepResult
from rmt_mini.stages.optimizer import NonFiniteError
from tests.engine.plain_twin import Work, next_logits, twin_step
from tests.stages.tiny import ARROWS, SENTENCES, by_answer, closing, small, texts_for, weights

ROLLOUTS = [Rollout(Position(1, 5, 0, 0.0), 6, (9,) * n, True, (n,), (-1.0,) * (n + 2)) for n in range(8)]


def trainer_for(
    config: RMTConfig,
    policy: Policy | None = None,
    judge: Callable[..., Any] = by_answer,
    sentences: Sequence[str] = SENTENCES,
) -> RMTTrainer:
    policy = closing(torch.float64) if policy is None else policy
    return RMTTrainer(config, policy, texts_for(policy, config, sentences), judge)


def gradients_of(trainer: RMTTrainer, update: bool = False) -> tuple[StepResult, list[dict[str, Tensor]]]:
    """Run step 0 on two texts; returns the gradients that reached the optimizer, once per update."""
    taken: list[dict[str, Tensor]] = []
    apply = trainer.optimizer.step

    def step() -> float:
        named = trainer.policy.model.named_parameters()
        taken.append({n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named})
        if update:
            return apply()
        trainer.policy.model.zero_grad()
        return 0.0

    trainer.optimizer.step = step  # type: ignore[method-assign]
    return trainer.step(0, trainer.texts[:2]), taken


def plain_gradients(trainer: RMTTrainer, judged: list[Judged], rl: float, ntp: float) -> dict[str, Tensor]:
    """Gradients of rl * L_RL + ntp * L_NTP, written from the paper, every rollout read with its whole prefix."""
    config, texts, rollouts = trainer.config, trainer.texts[:2], [one.rollout for one in judged]
    drift = [[0.0] * (len(one.thought) + one.closed + len(one.answer)) for one in rollouts]
    advantages, first = [rl * one.advantage for one in judged], texts[0].first
    work = Work([[*text.ids] for text in texts], rollouts, advantages, drift, first, config.temperature, ntp)
    count = len(judged) if config.loss_per == "rollout" else None
    return twin_step(trainer.policy.model, trainer.form, work, count).gradients


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], rtol: float = 1e-5, atol: float = 1e-9) -> None:
    for name in one:
        torch.testing.assert_close(
            one[name], other[name], rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}"
        )


def size_of(gradients: dict[str, Tensor]) -> float:
    return float(torch.cat([gradient.flatten() for gradient in gradients.values()]).norm())


@pytest.mark.parametrize(
    ("changes", "rl", "ntp"),
    [
        ({}, 1.0, 0.1),
        ({"ntp_weight": 0.7}, 1.0, 0.7),
        ({"loss_per": "rollout"}, 1.0, 0.1),
        ({"scale_advantages": False, "temperature": 0.8}, 1.0, 0.1),
        ({"use_ntp": False}, 1.0, 0.0),
        ({"ntp_weight": 0.0}, 1.0, 0.0),
        ({"clip_epsilon": 0.2}, 1.0, 0.1),  # the ratio is 1 before the first update
        ({"use_budget": False}, 1.0, 0.1),
        ({"branch_tokens": 40}, 1.0, 0.1),
    ],
    ids=lambda value: "-".join(map(str, value.items())) if isinstance(value, dict) else "",
)
def test_the_gradient_is_that_of_the_dual_objective_taken_plainly(changes: Any, rl: float, ntp: float) -> None:
    config = small(**changes)
    trainer = trainer_for(config)
    result, (ours,) = gradients_of(trainer)
    silent = [one for one in result.judged if one.advantage == 0]
    assert 0 < len(silent) < len(result.judged)  # left out of our backward, computed with all below
    assert {one.rollout.closed for one in result.judged} == {True, False}
    theirs = plain_gradients(trainer, result.judged, rl, ntp)
    assert size_of(ours) > 1e-3
    if config.clip_epsilon:  # log-probabilities are kept in float32 when sampled
        assert_same(ours, theirs, rtol=1e-3, atol=1e-6)
    else:
        assert_same(ours, theirs)


def test_an_update_reports_the_dual_objective() -> None:
    trainer = trainer_for(small(ntp_weight=0.7))
    texts = trainer.texts[:2]
    trunks = trainer.policy.tree.read([text.ids for text in texts])
    judged = by_answer(ROLLOUTS, trainer.form, trunks, trainer.config)
    update = trainer._backward(
        texts, trunks, Pool([one.position for one in ROLLOUTS]), judged, Clock(trainer.policy.device)
    )
    assert update.rl != 0
    assert update.loss == pytest.approx(update.rl + 0.7 * update.ntp)
    assert update.ntp_tokens == sum(len(text.ids) - text.first for text in texts) - 1


def test_entropy_kl_and_clip_share_are_those_of_the_sampled_tokens() -> None:
    config = small(kl_weight=0.1, clip_epsilon=0.01, updates_per_step=2, learning_rate=0.02)
    trainer = trainer_for(config)
    before = [trainer.step(step, trainer.texts[:2]) for step in range(2)][-1]
    sampled = [logprob for one in before.judged for logprob in one.rollout.logprobs]
    assert before.metrics.policy_entropy == pytest.approx(-sum(sampled) / len(sampled))
    trainer = trainer_for(config)
    trainer.step(0, trainer.texts[:2])
    assert trainer.reference is not None
    found, total = 0.0, 0
    ids = [text.ids for text in trainer.texts[:2]]
    mine, theirs = trainer.policy.tree.read(ids), trainer.reference.tree.read(ids)
    for one in before.judged:  # one by one, read by the policy that sampled it
        asked = (trainer.form, [one.rollout], config.temperature)
        own, _ = rollout_logprobs(trainer.policy, asked[0], mine, *asked[1:])
        other, _ = rollout_logprobs(trainer.reference, asked[0], theirs, *asked[1:])
        found, total = found + float(kl_estimate(own, other).sum().detach()), total + own.numel()
    assert total == len(sampled)
    assert before.metrics.kl == pytest.approx(found / total, rel=1e-4)
    assert before.metrics.kl > 0
    assert before.metrics.clip_share is not None
    assert 0 < before.metrics.clip_share <= 0.5  # none at the first of two updates


def test_what_is_not_known_is_none() -> None:
    assert (metrics := trainer_for(small()).fit()[0]).policy_entropy is not None
    assert (metrics.kl, metrics.clip_share) == (None, None)
    metrics = trainer_for(small(use_rl=False)).fit()[0]
    assert (metrics.policy_entropy, metrics.kl, metrics.clip_share) == (None, None, None)


def test_without_rl_only_next_token_prediction_trains_and_nothing_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("sampled")

    monkeypatch.setattr(midtrain, "roll_out", never)
    trainer = trainer_for(small(use_rl=False, ntp_weight=0.5), judge=never)
    result, (ours,) = gradients_of(trainer)
    assert_same(ours, plain_gradients(trainer, [], 0.0, 0.5))
    assert result.judged == []
    metrics = result.metrics
    assert (metrics.rl_tokens, metrics.rl_loss, metrics.tier_counts) == (0, 0.0, (0, 0, 0))
    assert metrics.ntp_tokens == sum(len(text.ids) - text.first for text in trainer.texts[:2])


def test_tokens_are_counted_and_no_position_is_in_both_losses() -> None:
    trainer = trainer_for(small(positions_per_document=5))
    result, _ = gradients_of(trainer)
    chosen = {(one.rollout.position.trunk, one.rollout.position.index) for one in result.judged}
    assert len(chosen) == 10
    assert sum(result.metrics.tier_counts) == 10
    askable = sum(len(text.ids) - text.first for text in result.texts)
    assert result.metrics.ntp_tokens == askable - len(chosen)
    sampled = [len(o.rollout.thought) + o.rollout.closed + len(o.rollout.answer) for o in result.judged]
    assert result.metrics.rl_tokens == sum(sampled) == sum(len(one.rollout.logprobs) for one in result.judged)


def test_more_positions_than_tokens_leave_an_empty_next_token_loss() -> None:
    trainer = trainer_for(small(positions_per_document=100, group_size=2, budget_start=2))
    result, (gradients,) = gradients_of(trainer)
    assert (result.metrics.ntp_tokens, result.metrics.ntp_loss) == (0, 0.0)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients.values())


def test_rewards_are_kept_beside_advantages() -> None:
    config = small(length_weight=0.4, positions_per_document=6)
    result, _ = gradients_of(trainer_for(config, judge=midtrain.judge, sentences=ARROWS))
    assert 0 < result.metrics.match_reward < 1
    assert result.metrics.length_reward > 0
    for one in result.judged:
        truth = result.texts[one.rollout.position.trunk].ids[one.rollout.position.index]
        assert one.match == float(one.rollout.answer[0] == truth)
        assert one.length_reward == pytest.approx(max(0, 1 - abs(one.rollout.length - 6) / 6))
        assert one.reward == pytest.approx(0.6 * one.match + 0.4 * one.length_reward)
    groups = [result.judged[i : i + 4] for i in range(0, len(result.judged), 4)]
    for group in groups:
        assert len({one.rollout.position for one in group}) == 1
        assert sum(one.advantage for one in group) == pytest.approx(0, abs=1e-9)
        best = max(group, key=lambda one: one.reward)
        assert best.advantage == max(one.advantage for one in group)
    assert result.metrics.reward == pytest.approx(sum(one.reward for one in result.judged) / len(result.judged))


def test_signal_counts_groups_with_right_and_wrong_answers() -> None:
    trainer = trainer_for(small(length_weight=0.4, positions_per_document=6), judge=midtrain.judge)
    trainer.form.judge = lambda answer, trunk, index: float(answer[0] % 2)  # type: ignore[method-assign]
    result, _ = gradients_of(trainer)
    groups = [result.judged[i : i + 4] for i in range(0, len(result.judged), 4)]
    mixed = sum(len({one.match for one in group}) > 1 for group in groups)
    spread = sum(len({one.reward for one in group}) > 1 for group in groups)
    assert 0 < mixed < spread  # lengths alone make no match signal
    assert result.metrics.signal_groups == pytest.approx(mixed / len(groups))


def test_without_a_budget_none_is_stated_and_length_earns_nothing() -> None:
    config = small(use_budget=False, length_weight=0.9)
    result, _ = gradients_of(trainer_for(config, judge=midtrain.judge, sentences=ARROWS))
    assert result.metrics.match_reward > 0
    assert {one.rollout.budget for one in result.judged} == {None}
    assert {one.length_reward for one in result.judged} == {0.0}
    assert all(one.reward == one.match for one in result.judged)
    assert max(one.rollout.length for one in result.judged) == 12  # the cap stays 2 B_0


def control(rule: str, **changes: Any) -> list[list[Judged]]:
    """The judged rollouts of two steps under a control, with rewards that differ: the package's own judge."""
    trainer = trainer_for(small(rl_rule=rule, **changes), judge=midtrain.judge, sentences=ARROWS)
    return [trainer.step(step, trainer.texts[:2]).judged for step in (0, 1)]


def test_shuffled_rewards_are_the_same_rewards_elsewhere() -> None:
    (plain, _), (shuffled, _) = control("grpo"), control("shuffled")
    assert [one.rollout for one in plain] == [one.rollout for one in shuffled]  # sampled before any update
    right, as_right = ([(one.match, one.length_reward) for one in judged] for judged in (plain, shuffled))
    assert right == as_right  # what an answer was stays with it
    rewards, elsewhere = ([one.reward for one in judged] for judged in (plain, shuffled))
    assert rewards != elsewhere
    assert sorted(rewards) == sorted(elsewhere)
    groups = torch.tensor([one.reward for one in shuffled], dtype=torch.float64)
    expected = group_advantages(groups, 4).tolist()
    assert [one.advantage for one in shuffled] == pytest.approx(expected)
    assert control("shuffled")[0] == shuffled  # a seed gives the same again


GAIN: dict[str, Any] = {"reward_rule": "information-gain", "use_budget": False, "scale_advantages": False}


def test_information_gain_is_the_difference_of_two_plain_reads() -> None:
    trainer = trainer_for(small(**GAIN, positions_per_document=6), judge=midtrain.judge, sentences=ARROWS)
    model, form = trainer.policy.model, trainer.form
    result, _ = gradients_of(trainer)

    def logprob(tokens: Sequence[int], truth: int) -> float:
        with torch.no_grad():
            return float(torch.log_softmax(next_logits(model, tokens)[-1], -1)[truth])

    for one in result.judged:
        rollout, trunk, index = one.rollout, result.texts[one.rollout.position.trunk].ids, one.rollout.position.index
        thought = [*form.opening(None), *rollout.thought, *form.close, *form.cue(trunk, index)]
        gain = logprob([*trunk[:index], *thought], trunk[index]) - logprob(trunk[:index], trunk[index])
        assert one.reward == pytest.approx(gain, abs=1e-6)
        assert one.match == float(rollout.answer == (trunk[index],))
    rewards = torch.tensor([one.reward for one in result.judged], dtype=torch.float64).view(-1, 4)
    assert rewards.min() < 0 < rewards.max()
    expected = (rewards - rewards.mean(1, keepdim=True)).flatten().tolist()
    assert [one.advantage for one in result.judged] == pytest.approx(expected, abs=1e-9)
    assert 0 < result.metrics.match_reward < 1
    assert result.metrics.reward == pytest.approx(float(rewards.mean()))


@pytest.mark.parametrize("changes", [{}, {"loss_per": "rollout"}, {"clip_epsilon": 0.2}])
def test_under_information_gain_the_thought_is_trained_and_not_the_answer(changes: dict[str, Any]) -> None:
    trainer = trainer_for(small(**GAIN, **changes), judge=midtrain.judge, sentences=ARROWS)
    result, (ours,) = gradients_of(trainer)
    thoughts = [len(one.rollout.thought) + one.rollout.closed for one in result.judged]
    assert all(len(one.rollout.answer) == 1 for one in result.judged)  # they are logged as they were
    assert result.metrics.rl_tokens == sum(thoughts)
    bare = [dataclasses.replace(one, rollout=dataclasses.replace(one.rollout, answer=())) for one in result.judged]
    theirs = plain_gradients(trainer, bare, 1.0, 0.1)
    assert size_of(ours) > 1e-3
    assert_same(ours, theirs, rtol=1e-3, atol=1e-6)
    whole = plain_gradients(trainer, result.judged, 1.0, 0.1)
    assert size_of({name: whole[name] - ours[name] for name in ours}) > 1e-2 * size_of(ours)


def test_a_gain_is_read_while_sampling_and_costs_no_second_pass() -> None:
    match, gain = (
        gradients_of(trainer_for(small(**GAIN | {"reward_rule": rule}), judge=midtrain.judge))[0]
        for rule in ("match", "information-gain")
    )
    assert [one.rollout for one in match.judged] == [one.rollout for one in gain.judged]
    sampled = [one.metrics.forward_tokens - one.metrics.backward_tokens for one in (match, gain)]
    assert sampled[1] == sampled[0]


def test_without_thinking_answers_come_at_once() -> None:
    for judged in control("grpo", use_thinking=False, use_budget=False):
        assert {(one.rollout.length, one.rollout.closed) for one in judged} == {(0, False)}
        assert all(len(one.rollout.logprobs) == len(one.rollout.answer) for one in judged)


def test_kl_is_nothing_at_first_and_then_holds_on_to_the_beginning() -> None:
    without, (free,) = gradients_of(trainer_for(small(use_ntp=False)))
    trainer = trainer_for(small(use_ntp=False, kl_weight=5.0))
    with_kl, (held,) = gradients_of(trainer)
    assert with_kl.metrics.rl_loss == pytest.approx(without.metrics.rl_loss, abs=1e-9)
    assert_same(held, free)

    # moved away, a step whose groups are all silent still goes back towards the reference
    with torch.no_grad():
        for parameter in trainer.policy.model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    trainer.judge = lambda rollouts, *_: [Judged(rollout, 0.0, 0.0, 0.0, 0.0) for rollout in rollouts]
    taken = gradients_of(trainer)
    assert taken[0].metrics.rl_loss > 1e-4
    assert size_of(taken[1][0]) > 1e-3


def test_several_updates_use_one_steps_rollouts_under_the_clip() -> None:
    _, (single,) = gradients_of(trainer_for(small()))
    config = small(updates_per_step=2, clip_epsilon=0.2, learning_rate=1e-2)
    _, (first, second) = gradients_of(trainer_for(config), update=True)
    assert_same(first, single, rtol=1e-3, atol=1e-6)
    assert size_of({name: second[name] - first[name] for name in first}) > 1e-2 * size_of(first)


def test_a_ratio_beyond_the_clip_has_no_gradient() -> None:
    def older(rollouts: Any, *_: Any) -> list[Judged]:
        """Every sampled token is e times as likely now as then, and earns."""
        moved = [dataclasses.replace(r, logprobs=tuple(lp - 1 for lp in r.logprobs)) for r in rollouts]
        return [Judged(rollout, 1.0, 0.0, 1.0, 1.0) for rollout in moved]

    _, (clipped,) = gradients_of(trainer_for(small(clip_epsilon=0.2, use_ntp=False), judge=older))
    _, (free,) = gradients_of(trainer_for(small(clip_epsilon=9.0, use_ntp=False), judge=older))
    assert size_of(clipped) == 0
    assert size_of(free) > 0.1


@pytest.mark.parametrize("use_rl", [True, False])
def test_nan_in_the_weights_stops_the_step_and_changes_nothing(use_rl: bool) -> None:
    trainer = trainer_for(small(use_rl=use_rl), closing())
    trainer.fit()
    with torch.no_grad():
        dict(trainer.policy.model.named_parameters())["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    before, state = weights(trainer.policy), trainer.optimizer.inner.state_dict()["state"]
    moments = {key: value["exp_avg"].clone() for key, value in state.items()}
    with pytest.raises(NonFiniteError, match="hidden state of a document is not finite"):
        trainer.step(0, trainer.texts[:2])
    for name, value in weights(trainer.policy).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)
    after = trainer.optimizer.inner.state_dict()["state"]
    assert all(torch.equal(after[key]["exp_avg"], moments[key]) for key in moments)
    assert moments


@pytest.mark.parametrize("other_id", ["0", "1"], ids=["the same text", "a document of the same words"])
def test_a_position_of_c_is_in_no_copy_of_its_text_in_the_next_token_loss(other_id: str) -> None:
    trainer = trainer_for(small(documents_per_step=2), sentences=SENTENCES[:1])
    text = trainer.texts[0]
    trainer.texts = [text, dataclasses.replace(text, id=other_id)]
    result, (gradients,) = gradients_of(trainer)
    chosen = {one.rollout.position.index for one in result.judged}
    assert len(result.texts) == 2
    assert result.metrics.ntp_tokens == 2 * (len(text.ids) - text.first - len(chosen)) > 0
    twice = [  # each copy's loss leaves out what was chosen in either
        dataclasses.replace(one, rollout=dataclasses.replace(one.rollout, position=Position(trunk, index, 0, 0.0)))
        for one in result.judged[:1]
        for trunk in (0, 1)
        for index in chosen
    ]
    ntp = plain_gradients(trainer, twice, 0.0, trainer.config.ntp_weight)
    rl = plain_gradients(trainer, result.judged, 1.0, 0.0)
    assert_same(gradients, {name: ntp[name] + rl[name] for name in ntp})


@pytest.mark.parametrize("fails", [1, 2])
def test_a_step_whose_later_update_is_not_finite_moves_nothing(fails: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small(updates_per_step=2, clip_epsilon=0.2, on_nan="skip")
    trainer = trainer_for(config, closing(torch.bfloat16))
    loss, calls = midtrain.text_loss, [0]

    def spoilt(*arguments: Any) -> Any:
        calls[0] += 1
        ntp, count = loss(*arguments)
        return ntp * (float("nan") if calls[0] == fails else 1.0), count

    monkeypatch.setattr(midtrain, "text_loss", spoilt)
    for step in (0, 1):  # without moments, and with those of a good step between
        before = weights(trainer.policy)
        optimizer = {name: value.clone() for name, value in trainer.optimizer.state_dict().items()}
        calls[0] = 0
        metrics = trainer.step(step, trainer.texts[:2]).metrics
        assert (metrics.skipped, metrics.grad_norm, metrics.rl_loss, metrics.backward_tokens) == (1, 0.0, 0.0, 0)
        assert all(torch.equal(before[name], value) for name, value in weights(trainer.policy).items())
        after = trainer.optimizer.state_dict()
        assert set(after) == set(optimizer)
        assert all(torch.equal(optimizer[name], value) for name, value in after.items())
        calls[0] = 9
        assert trainer.step(step, trainer.texts[:2]).metrics.skipped == 0
    trainer.guard.config, calls[0] = config.replace(on_nan="stop"), 0
    before = weights(trainer.policy)
    with pytest.raises(NonFiniteError, match="the weights are those of the step before"):
        trainer.step(2, trainer.texts[:2])
    assert all(torch.equal(before[name], value) for name, value in weights(trainer.policy).items())


def test_the_reads_of_the_kl_reference_are_counted() -> None:
    free = gradients_of(trainer_for(small()))[0].metrics
    held = gradients_of(trainer_for(small(kl_weight=0.1)))[0].metrics
    trunk = free.trunk_tokens
    branches = held.backward_tokens - trunk  # with a KL every rollout is trained on
    sampled = free.forward_tokens - free.backward_tokens - 0 * trunk
    assert branches >= free.backward_tokens - trunk > 0
    # both read trunk and branches to sample and to train; the KL reads trunk and trained branches once more
    assert held.forward_tokens == sampled + (trunk + branches) + (trunk + branches)
