import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmt_mini.method.entropy import assign_tiers, quantile_thresholds, tiers_by_score, token_entropy

NATS = st.floats(0, 12, width=32)
LOGITS = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=12)


def by_enumeration(logits: list[float]) -> float:
    weights = [math.exp(logit - max(logits)) for logit in logits]
    shares = [weight / sum(weights) for weight in weights]
    return -sum(share * math.log(share) for share in shares if share > 0)


@given(LOGITS, st.data())
def test_entropy_equals_the_sum_written_out(logits: list[float], data: st.DataObject) -> None:
    assert token_entropy(torch.tensor(logits)).item() == pytest.approx(by_enumeration(logits), abs=2e-5)
    k = data.draw(st.integers(1, len(logits)))
    expected = by_enumeration(sorted(logits)[-k:])  # renormalised over the largest
    assert token_entropy(torch.tensor(logits), top_k=k).item() == pytest.approx(expected, abs=2e-5)


def test_hand_table() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [9e4, 0.0, 0.0, 0.0], [0.0, 0.0, -math.inf, -math.inf]])
    torch.testing.assert_close(token_entropy(logits), torch.tensor([math.log(4), 0.0, math.log(2)]))
    torch.testing.assert_close(token_entropy(logits, top_k=3)[0].item(), math.log(3), rtol=0, atol=1e-6)
    rows = torch.tensor([[-math.inf, -math.inf], [math.nan, 0.0], [0.0, 0.0]])  # the first two are no distributions
    assert token_entropy(rows).isnan().tolist() == [True, True, False]


def test_impossible_tokens_leave_value_and_gradient_finite() -> None:
    logits = torch.tensor([1.0, 2.0, -math.inf], requires_grad=True)
    token_entropy(logits).backward()
    finite = torch.tensor([1.0, 2.0], requires_grad=True)
    token_entropy(finite).backward()
    assert logits.grad is not None
    assert finite.grad is not None
    torch.testing.assert_close(logits.grad, torch.cat([finite.grad, torch.zeros(1)]))


@pytest.mark.parametrize(
    ("given_dtype", "computed"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_low_precision_is_raised_before_the_sum(given_dtype: torch.dtype, computed: torch.dtype) -> None:
    logits = torch.linspace(-3, 3, 4096).to(given_dtype)
    entropy = token_entropy(logits)
    assert entropy.dtype == computed
    torch.testing.assert_close(entropy.double(), token_entropy(logits.double()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("entropy", "dtype", "thresholds", "tiers"),
    [
        (
            [0.0, 0.5, math.nextafter(0.5, 1), 1.5, math.nextafter(1.5, 2), 9],
            torch.float64,
            (0.5, 1.5),
            [0, 0, 1, 1, 2, 2],
        ),
        ([0.1], torch.float32, (0.1, 0.2), [0]),  # 0.1 in fp32 exceeds 0.1 in fp64
        ([0.50390625], torch.bfloat16, (0.503, 1.0), [1]),  # 0.503 in bfloat16 is 0.50390625
        ([0, 1, 2], torch.int64, (0.5, 1.5), [0, 1, 2]),
        ([0.9, 1.0, 1.1], torch.float32, (1.0, 1.0), [0, 0, 2]),
    ],
)
def test_equality_falls_on_the_easier_side_in_every_precision(entropy, dtype, thresholds, tiers: list[int]) -> None:
    found = assign_tiers(torch.tensor(entropy, dtype=dtype), thresholds)
    assert found.tolist() == tiers
    assert found.dtype == torch.int64


@given(st.lists(NATS, min_size=1, max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_equal_torch_and_are_always_usable(entropies: list[float], a: float, b: float) -> None:
    fractions = (min(a, b), max(a, b))
    entropy = torch.tensor(entropies, dtype=torch.float64)
    thresholds = quantile_thresholds(entropy, fractions)
    expected = torch.quantile(entropy, torch.tensor(fractions, dtype=torch.float64))
    torch.testing.assert_close(torch.tensor(thresholds, dtype=torch.float64), expected)
    assign_tiers(entropy, thresholds)


@pytest.mark.parametrize(
    ("score", "tiers", "entropy", "assigned"),
    [
        ([3, 1, 2], [0, 1, 2], [0, 0, 0], [2, 0, 1]),
        ([3, 1, 2], [0, 0, 2], [0, 0, 0], [2, 0, 0]),
        ([1, 1, 1], [0, 1, 2], [5, 9, 7], [0, 2, 1]),  # equal scores: by entropy
        ([0, 1, 0, 1], [2, 2, 0, 0], [4, 3, 2, 1], [0, 2, 0, 2]),
        ([-2, 5], [1, 1], [0, 0], [1, 1]),
        ([], [], [], []),
    ],
)
def test_tiers_by_another_score(score, tiers, entropy, assigned: list[int]) -> None:
    found = tiers_by_score(torch.tensor(score).float(), torch.tensor(tiers).long(), torch.tensor(entropy).float())
    assert found.tolist() == assigned


@given(st.lists(st.tuples(NATS, st.integers(0, 2), NATS), min_size=1, max_size=30))
def test_tiers_by_score_keep_sizes_and_follow_the_score(rows: list[tuple[float, int, float]]) -> None:
    score, tiers, entropy = (torch.tensor(column) for column in zip(*rows, strict=True))
    found = tiers_by_score(score, tiers, entropy)
    assert found.bincount(minlength=3).tolist() == tiers.bincount(minlength=3).tolist()
    for one, other in itertools.permutations(range(len(rows)), 2):
        assert score[one] <= score[other] or found[one] >= found[other]
