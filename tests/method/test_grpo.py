import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rmt_mini.method.grpo import group_advantages, groups_with_signal, is_clipped, kl_estimate, rl_loss

NORMALISERS = ["token", "rollout"]
GROUPS = st.integers(1, 8).flatmap(
    lambda size: st.lists(st.lists(st.floats(0, 1, width=32), min_size=size, max_size=size), min_size=1, max_size=5)
)


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def batch(rows: int = 4, length: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities that are leaves, advantages, and a mask whose rows differ in size."""
    generator = torch.Generator().manual_seed(seed)
    logprobs = -3 * torch.rand(rows, length, generator=generator, dtype=torch.float64)
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    mask = torch.arange(length) < (torch.arange(rows) % length + 1)[:, None]
    return logprobs.requires_grad_(), advantages, mask


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    return result


# --- advantages


def test_advantages_by_hand() -> None:
    # mean 1/4, squared deviations 9/16 and three times 1/16: variance 3/16
    rewards = tensor(1.0, 0.0, 0.0, 0.0)
    std = math.sqrt(3 / 16)
    expected = tensor(0.75, -0.25, -0.25, -0.25)
    torch.testing.assert_close(group_advantages(rewards, 4, eps=0), expected / std)
    torch.testing.assert_close(group_advantages(rewards, 4, eps=0.5), expected / (std + 0.5))
    torch.testing.assert_close(group_advantages(rewards, 4, scale=False), expected)


def test_groups_are_neighbours_and_do_not_touch() -> None:
    rewards = tensor(1.0, 0.0, 10.0, 30.0, math.nan, 1.0)
    expected = tensor(0.5, -0.5, -10.0, 10.0, math.nan, math.nan)  # a nan stays visible
    torch.testing.assert_close(group_advantages(rewards, 2, scale=False), expected, equal_nan=True)
    torch.testing.assert_close(group_advantages(rewards[:4].view(2, 2), 2), group_advantages(rewards[:4], 2).view(2, 2))


@given(GROUPS, st.booleans())
def test_each_group_sums_to_zero_and_keeps_the_order_of_rewards(groups, scale: bool) -> None:
    rewards = torch.tensor(groups, dtype=torch.float64)
    advantages = group_advantages(rewards, rewards.shape[1], scale=scale)
    assert advantages.shape == rewards.shape
    assert advantages.sum(1).abs().max().item() < 1e-6
    by_reward = advantages.gather(1, rewards.argsort(1))
    assert bool((by_reward.diff(dim=1) >= 0).all())
    assert bool((advantages.square().mean(1) <= 1 + 1e-9).all())  # the deviation of a scaled group is at most 1


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1 / 3])
def test_a_group_without_spread_is_exactly_zero_beside_any_other(size: int, value: float) -> None:
    # the mean of equal floats may miss them by a rounding error, which a division by eps would blow up
    for other in (value, 2.0, -2.0):
        rewards = torch.tensor([[value] * size, [other] * size])
        assert group_advantages(rewards, size, eps=0).tolist() == [[0.0] * size] * 2
        assert group_advantages(rewards, size, scale=False).tolist() == [[0.0] * size] * 2


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.bfloat16])
def test_whole_numbers_and_half_precision_are_raised(dtype: torch.dtype) -> None:
    advantages = group_advantages(torch.tensor([1, 0], dtype=dtype), 2)
    torch.testing.assert_close(advantages, torch.tensor([1.0, -1.0]), atol=3e-4, rtol=0)


@given(GROUPS)
def test_signal_is_where_rewards_differ(groups) -> None:
    rewards = torch.tensor(groups)
    for given_as in (rewards, rewards.flatten()):
        assert groups_with_signal(given_as, rewards.shape[1]).tolist() == [len(set(group)) > 1 for group in groups]


# --- KL


@pytest.mark.parametrize("seed", range(5))
def test_kl_estimate_is_right_on_average_and_its_mirror_is_not(seed: int) -> None:
    logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    policy, reference = logits.log_softmax(-1)
    exact = (policy.exp() * (policy - reference)).sum()
    torch.testing.assert_close((policy.exp() * kl_estimate(policy, reference)).sum(), exact)
    wrong_sign = kl_estimate(reference, policy)  # exp(d) - d - 1 with d = policy - reference
    assert ((policy.exp() * wrong_sign).sum() - exact).abs() > 0.01


def test_kl_estimate_is_never_negative_even_by_rounding() -> None:
    wide = torch.linspace(-20, 20, 20001)
    near = torch.cat([wide, wide * 1e-3, wide * 1e-5, wide * 1e-8])
    estimate = kl_estimate(torch.zeros_like(near), near)
    assert estimate.min() >= 0
    assert kl_estimate(near, near).abs().max() == 0
    assert kl_estimate(torch.tensor(0.0), torch.tensor(1e-3)).item() == pytest.approx(5e-7, rel=1e-3)  # d * d / 2


# --- the policy loss


def test_gradient_of_a_scripted_categorical_by_hand() -> None:
    # uniform over three tokens; token 0 sampled with advantage 2, token 1 with advantage -1
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    logprobs = logits.log_softmax(-1)[torch.tensor([[0], [1]])]
    loss = rl_loss(logprobs, tensor(2.0, -1.0), torch.ones(2, 1, dtype=torch.bool))
    # -A (onehot - p), mean of two: -2 (2/3, -1/3, -1/3) + (-1/3, 2/3, -1/3) = (-5/3, 4/3, 1/3), halved
    torch.testing.assert_close(gradient(loss, logits), tensor(-5 / 6, 4 / 6, 1 / 6))
    assert loss.item() == pytest.approx(-0.5)


@pytest.mark.parametrize(("normalise", "divisor"), [("token", 6), ("rollout", 3)])
def test_the_two_means(normalise, divisor: int) -> None:
    logprobs, advantages, mask = batch(rows=3, length=3)  # 1, 2 and 3 tokens
    loss = rl_loss(logprobs, advantages, mask, normalise=normalise)
    paper = -(torch.where(mask, logprobs, 0.0).sum(1) * advantages).sum() / divisor
    torch.testing.assert_close(gradient(loss, logprobs), gradient(paper, logprobs))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    # clip 0.2; slope: d loss / d logprob = -ratio * A where the clip does not hold, else 0
    [
        (1.0, 1.0, -1.0, -1.0),
        (1.5, 1.0, -1.2, 0.0),  # already much likelier: no further
        (0.5, 1.0, -0.5, -0.5),
        (1.5, -1.0, 1.5, 1.5),  # likelier though it should not be: back, without limit
        (0.5, -1.0, 0.8, 0.0),
        (1.5, 2.0, -2.4, 0.0),
        (0.5, -3.0, 2.4, 0.0),
    ],
)
def test_clip_table(ratio: float, advantage: float, loss: float, slope: float) -> None:
    old = tensor([-2.0])
    logprobs = (old + math.log(ratio)).requires_grad_()
    mask = torch.ones(1, 1, dtype=torch.bool)
    clipped = rl_loss(logprobs, tensor(advantage), mask, old_logprobs=old, clip_epsilon=0.2)
    assert clipped.item() == pytest.approx(loss)
    assert gradient(clipped, logprobs).item() == pytest.approx(slope)
    free = rl_loss(logprobs, tensor(advantage), mask, old_logprobs=old)
    assert free.item() == pytest.approx(-ratio * advantage)
    assert gradient(free, logprobs).item() == pytest.approx(-ratio * advantage)


def test_kl_is_added_with_its_weight_and_over_the_same_tokens() -> None:
    logprobs, advantages, mask = batch()
    reference = (logprobs.detach() + 0.3).requires_grad_()
    loss = rl_loss(logprobs, advantages, mask, reference_logprobs=reference, kl_weight=0.5)
    plain = rl_loss(logprobs, advantages, mask)
    torch.testing.assert_close(loss - plain, tensor(0.5 * (math.exp(0.3) - 0.3 - 1))[0])
    loss.backward()
    assert reference.grad is None  # the reference stays where it is
    unused = rl_loss(logprobs, advantages, mask, reference_logprobs=torch.full_like(logprobs, math.nan))
    assert unused.equal(plain)


@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("filler", [0.0, -100.0, -math.inf, math.inf, math.nan])
def test_padding_has_no_effect(normalise, filler: float) -> None:
    logprobs, advantages, mask = batch()
    options = {"clip_epsilon": 0.2, "kl_weight": 0.1, "normalise": normalise}
    constants = {"old_logprobs": logprobs.detach() - 0.1, "reference_logprobs": logprobs.detach() + 0.2}
    loss = rl_loss(logprobs, advantages, mask, **constants, **options)
    expected = gradient(loss, logprobs)

    def pad(values: Tensor) -> Tensor:
        spoilt = torch.where(mask, values.detach(), filler)
        return torch.cat([spoilt, torch.full((len(values), 3), filler, dtype=values.dtype)], dim=1)

    longer = pad(logprobs).requires_grad_()
    wider = torch.cat([mask, torch.zeros(len(mask), 3, dtype=torch.bool)], dim=1)
    padded = rl_loss(longer, advantages, wider, **{k: pad(v) for k, v in constants.items()}, **options)
    torch.testing.assert_close(padded, loss)
    with torch.autograd.set_detect_anomaly(True):  # no nan on the way either, for those who hunt one with this
        torch.testing.assert_close(gradient(padded, longer)[:, : mask.shape[1]], expected)


@pytest.mark.parametrize("spoilt", [0, 1, 2])
def test_nan_where_the_mask_is_true_is_not_hidden(spoilt: int) -> None:
    logprobs, advantages, mask = batch()
    parts = [logprobs.detach(), advantages, logprobs.detach().clone()]
    parts[spoilt][0] = math.nan
    assert rl_loss(*parts[:2], mask, reference_logprobs=parts[2], kl_weight=0.1).isnan()


@pytest.mark.parametrize("normalise", NORMALISERS)
@pytest.mark.parametrize("sizes", [[1] * 8, [3, 4, 1], [8]])
def test_micro_batches_with_a_count_equal_one_batch(normalise, sizes: list[int]) -> None:
    logprobs, advantages, mask = batch(rows=8)
    reference, options = logprobs.detach() + 0.2, {"kl_weight": 0.1, "normalise": normalise}
    whole = rl_loss(logprobs, advantages, mask, reference_logprobs=reference, **options)
    expected = gradient(whole, logprobs)
    count = int(mask.sum()) if normalise == "token" else len(mask)

    def in_parts(count: int | None) -> Tensor:
        parts = zip(*(one.split(sizes) for one in (logprobs, advantages, mask, reference)), strict=True)
        return sum(rl_loss(*part, reference_logprobs=own, **options, count=count) for *part, own in parts)

    total = in_parts(count)
    torch.testing.assert_close(total, whole)
    torch.testing.assert_close(gradient(total, logprobs), expected)
    if len(set(sizes)) > 1:  # the trap the count is there for
        assert not torch.allclose(in_parts(None) / len(sizes), whole)


@pytest.mark.parametrize(
    ("normalise", "rows", "count"),
    [("token", rows, count) for rows in (0, 3) for count in (None, 0, 7)]
    + [("rollout", 0, None), ("rollout", 0, 0), ("rollout", 3, None), ("rollout", 3, 7)],
)
def test_an_empty_mask_is_a_zero_with_a_graph(normalise, rows: int, count: int | None) -> None:
    logprobs = torch.full((rows, 4), math.nan, requires_grad=True)
    mask = torch.zeros(rows, 4, dtype=torch.bool)
    loss = rl_loss(logprobs, torch.ones(rows), mask, normalise=normalise, count=count)
    assert loss.item() == 0
    assert gradient(loss, logprobs).tolist() == torch.zeros(rows, 4).tolist()


# --- what a step reports of its tokens


@given(st.integers(0, 50), st.sampled_from([0.05, 0.2, 0.5]))
def test_a_token_is_clipped_exactly_where_its_gradient_is_gone(seed: int, epsilon: float) -> None:
    logprobs, advantages, mask = batch(seed=seed)
    advantages[0] = 0.0
    old = logprobs.detach() + torch.randn(logprobs.shape, generator=torch.Generator().manual_seed(seed)) / 2
    clipped = is_clipped(logprobs.detach(), old, advantages, epsilon)
    gone = gradient(rl_loss(logprobs, advantages, mask, old_logprobs=old, clip_epsilon=epsilon), logprobs) == 0
    trained = mask & (advantages != 0)[:, None]
    assert torch.equal(clipped & trained, gone & trained)
    assert not clipped[0].any()
