import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy

from rmt_mini.method.grpo import rl_loss
from rmt_mini.method.objective import ntp_loss, ntp_mask, rmt_loss

TOKENS = torch.tensor([3, 1, 4, 1, 5, 2])


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    (result,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    return result


def scripted(seed: int = 0) -> tuple[Tensor, Tensor]:
    """One logit row a token of TOKENS, and log p(token i | tokens before it); 0 at token 0."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(TOKENS), 7, generator=generator, dtype=torch.float64).requires_grad_()
    scores = logits.log_softmax(-1)[:-1].gather(-1, TOKENS[1:, None])[:, 0]
    return logits, torch.cat([scores.new_zeros(1), scores])


@pytest.mark.parametrize(
    ("length", "chosen", "first", "mask"),
    [
        (5, [], 1, [0, 1, 1, 1, 1]),
        (5, [2, 4], 1, [0, 1, 0, 1, 0]),
        (5, [3], 2, [0, 0, 1, 0, 1]),
        (5, [1, 2, 3, 4], 1, [0, 0, 0, 0, 0]),
        (5, [2, 2], 1, [0, 1, 0, 1, 1]),
        (1, [], 1, [0]),
        (0, [], 1, []),
        (3, [], 9, [0, 0, 0]),
    ],
)
def test_mask_by_hand(length: int, chosen: list[int], first: int, mask: list[int]) -> None:
    result = ntp_mask(length, chosen, first)
    assert result.dtype == torch.bool
    assert result.int().tolist() == mask
    assert ntp_mask(length, torch.tensor(chosen, dtype=torch.long), first).equal(result)


def test_without_positions_it_is_plain_cross_entropy() -> None:
    logits, logprobs = scripted()
    ntp = ntp_loss(logprobs, ntp_mask(len(TOKENS), []))
    plain = cross_entropy(logits[:-1], TOKENS[1:])
    torch.testing.assert_close(ntp, plain)
    nothing = rl_loss(logprobs[:0, None], logprobs[:0].detach(), torch.zeros(0, 1, dtype=torch.bool))
    loss = rmt_loss(nothing, ntp, ntp_weight=1.0)
    torch.testing.assert_close(gradient(loss, logits), gradient(plain, logits))


def test_the_papers_sum_is_count_one() -> None:
    logits, logprobs = scripted()
    mask = ntp_mask(len(TOKENS), [3])
    loss = ntp_loss(logprobs, mask, count=1)
    expected = cross_entropy(logits[[0, 1, 3, 4]], TOKENS[[1, 2, 4, 5]], reduction="sum")
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("filler", [-math.inf, math.nan, 5.0])
def test_what_is_masked_has_no_effect(filler: float) -> None:
    logprobs = torch.tensor([[-1.0, filler], [-2.0, filler]], requires_grad=True)
    loss = ntp_loss(logprobs, torch.tensor([[True, False], [True, False]]))
    assert loss.item() == 1.5
    assert gradient(loss, logprobs).tolist() == [[-0.5, 0.0], [-0.5, 0.0]]


def test_micro_batches_with_a_count_equal_one_batch() -> None:
    logprobs = -torch.rand(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mask = torch.tensor([1, 1, 1, 0, 1, 0, 0, 1, 1, 0], dtype=torch.bool)
    whole = ntp_loss(logprobs, mask)
    pieces = [slice(0, 3), slice(3, 7), slice(7, 10)]
    torch.testing.assert_close(sum(ntp_loss(logprobs[p], mask[p], count=6) for p in pieces), whole)
    assert not torch.allclose(sum(ntp_loss(logprobs[p], mask[p]) for p in pieces) / 3, whole)


@pytest.mark.parametrize(("count", "length"), [(None, 0), (0, 0), (0, 3), (5, 3), (None, 3)])
def test_an_empty_mask_is_a_zero_with_a_graph(count: int | None, length: int) -> None:
    logprobs = torch.full((length,), -math.inf, requires_grad=True)
    loss = ntp_loss(logprobs, torch.zeros(length, dtype=torch.bool), count=count)
    assert (loss.item(), gradient(loss, logprobs).tolist()) == (0, [0.0] * length)


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(0, 3))
def test_the_sum_of_both(rl: float, ntp: float, weight: float) -> None:
    parts = torch.tensor([rl, ntp], dtype=torch.float64, requires_grad=True)
    loss = rmt_loss(parts[0], parts[1], weight)
    assert loss.item() == pytest.approx(rl + weight * ntp)
    assert gradient(loss, parts).tolist() == [1.0, weight]


@pytest.mark.parametrize("weight", [0.0, 0.1])
def test_only_weight_zero_hides_a_nan(weight: float) -> None:
    parts = torch.tensor([2.0, 1.0], requires_grad=True)
    loss = rmt_loss(parts[0], parts[1] * math.nan, weight)
    assert loss.isnan().item() == gradient(loss, parts)[1].isnan().item() == (weight > 0)
    assert gradient(loss, parts)[0].item() == 1.0
