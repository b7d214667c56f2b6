from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rmt_mini.method.curriculum import TierSampler, tier_probabilities
from rmt_mini.method.entropy import TIERS

EARLY, LATE = (0.6, 0.3, 0.1), (0.2, 0.3, 0.5)
# chi-square values that a fair sampler exceeds once in a thousand seeds, by degrees of freedom
CRITICAL = {2: 13.82, 9: 27.88}


def chi_square(observed: list[int], expected: list[float]) -> float:
    return sum((seen - wanted) ** 2 / wanted for seen, wanted in zip(observed, expected, strict=True))


def distributions() -> st.SearchStrategy[tuple[float, ...]]:
    parts = st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any)
    return parts.map(lambda weights: tuple(weight / sum(weights) for weight in weights))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, EARLY),
        (29, EARLY),
        (30, EARLY),  # t1
        (40, (0.5, 0.3, 0.2)),
        (31, (0.59, 0.3, 0.11)),
        (50, (0.4, 0.3, 0.3)),  # middle
        (69, (0.21, 0.3, 0.49)),
        (70, LATE),  # t2
        (71, LATE),
        (100, LATE),  # T
    ],
)
def test_hand_table(step: int, expected: tuple[float, ...]) -> None:
    assert tier_probabilities(step, 100, EARLY, LATE) == pytest.approx(expected, abs=1e-12)


@given(distributions(), distributions(), st.integers(0, 50), st.floats(0, 0.4), st.floats(0.5, 1))
@settings(deadline=None)
def test_probabilities_sum_to_one_and_lie_between(early, late, step, start, end) -> None:
    mixed = tier_probabilities(step, 50, early, late, start, end)
    assert sum(mixed) == pytest.approx(1)
    for value, one, other in zip(mixed, early, late, strict=True):
        assert min(one, other) - 1e-12 <= value <= max(one, other) + 1e-12


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(0, 35), distributions(), st.booleans())
@settings(deadline=None)
def test_a_draw_is_a_set_of_the_size_asked_for(tiers, n, early, enabled) -> None:
    sampler = TierSampler(10, early, LATE, seed=3, enabled=enabled)
    drawn = sampler.sample(torch.tensor(tiers, dtype=torch.long), n, step=0)
    assert drawn.dtype == torch.int64
    assert len(drawn) == len(set(drawn.tolist())) == min(n, len(tiers))
    assert set(drawn.tolist()) <= set(range(len(tiers)))
    by_tier = [sum(tiers[place] == tier for place in drawn.tolist()) for tier in range(len(TIERS))]
    assert sampler.counts == tuple(by_tier)


@pytest.mark.parametrize(("step", "expected"), [(0, EARLY), (50, (0.4, 0.3, 0.3)), (100, LATE)])
def test_tiers_come_as_often_as_the_curriculum_says(step: int, expected: tuple[float, ...]) -> None:
    sampler = TierSampler(100, EARLY, LATE, seed=11)
    tiers = torch.tensor([0] * 2 + [1] * 20 + [2] * 7)  # sizes must not matter
    draws = 3000
    for _ in range(draws):
        sampler.sample(tiers, 1, step)
    assert sum(sampler.counts) == draws
    assert chi_square(list(sampler.counts), [draws * p for p in expected]) < CRITICAL[2]


def test_within_a_tier_every_position_comes_equally_often() -> None:
    sampler = TierSampler(10, (0, 0, 1), (0, 0, 1), seed=5)
    tiers = torch.tensor([0, 2] * 10)
    drawn = torch.cat([sampler.sample(tiers, 3, step=0) for _ in range(1000)])
    seen = drawn.bincount(minlength=20)
    assert int(seen[::2].sum()) == 0
    # draws of one call exclude each other, so that counts are more equal than independent ones
    assert chi_square(seen[1::2].tolist(), [300.0] * 10) < CRITICAL[9]
    assert chi_square(drawn[::3].bincount(minlength=20)[1::2].tolist(), [100.0] * 10) < CRITICAL[9]


@pytest.mark.parametrize(
    ("probabilities", "sizes", "expected"),
    [
        ((0.2, 0.3, 0.5), (5, 0, 5), (2 / 7, 0, 5 / 7)),  # in proportion
        ((0.0, 0.0, 1.0), (1, 9, 0), (1 / 2, 1 / 2, 0)),  # no proportion to go by: uniformly over the tiers
        ((0.0, 1.0, 0.0), (3, 0, 0), (1, 0, 0)),
    ],
)
def test_an_empty_tier_gives_its_probability_away(probabilities, sizes, expected) -> None:
    sampler = TierSampler(10, probabilities, probabilities, seed=7)
    tiers = torch.tensor([tier for tier, size in enumerate(sizes) for _ in range(size)])
    for _ in range(4000):
        sampler.sample(tiers, 1, step=0)
    assert [count / 4000 for count in sampler.counts] == pytest.approx(expected, abs=0.03)


def test_without_the_curriculum_positions_are_uniform_whatever_their_tier() -> None:
    sampler = TierSampler(10, (0, 0, 1), (0, 0, 1), seed=2, enabled=False)
    tiers = torch.tensor([0] * 6 + [1] * 3 + [2])
    drawn = torch.cat([sampler.sample(tiers, 2, step=0) for _ in range(1000)])
    assert chi_square(drawn.bincount(minlength=10).tolist(), [200.0] * 10) < CRITICAL[9]
    assert sampler.counts[0] / 2000 == pytest.approx(0.6, abs=0.04)


@pytest.mark.parametrize("enabled", [True, False])
def test_resume_continues_the_draws(enabled: bool) -> None:
    tiers = torch.arange(90) % 3
    straight = TierSampler(20, EARLY, LATE, seed=4, enabled=enabled)
    for step in range(8):
        straight.sample(tiers, 5, step)
    state = straight.state_dict()
    later = [straight.sample(tiers, 5, step).tolist() for step in range(8, 20)]

    resumed = TierSampler(20, EARLY, LATE, seed=999, enabled=enabled)
    resumed.load_state_dict(state)
    assert [resumed.sample(tiers, 5, step).tolist() for step in range(8, 20)] == later
    assert resumed.counts == straight.counts

    fresh = TierSampler(20, EARLY, LATE, seed=4, enabled=enabled)  # the state, not the seed, made them equal
    assert [fresh.sample(tiers, 5, step).tolist() for step in range(8, 20)] != later


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tier_probabilities(11, 10, EARLY, LATE), "step=11 lies outside 0..total_steps=10"),
        (lambda: tier_probabilities(0, 0, EARLY, LATE), "total_steps=0"),
        (lambda: tier_probabilities(0, 10, (0.5, 0.5), LATE), r"early=\(0.5, 0.5\)"),
        (lambda: tier_probabilities(0, 10, EARLY, (0.5, 0.5, 0.5)), r"late=\(0.5, 0.5, 0.5\) .*sum 1"),
        (lambda: tier_probabilities(0, 10, (-0.5, 1.0, 0.5), LATE), "early="),
        (lambda: tier_probabilities(0, 10, (math.nan, 0.5, 0.5), LATE), "early="),
        (lambda: tier_probabilities(0, 10, EARLY, LATE, start=0.7, end=0.3), "start=0.7 and end=0.3"),
        (lambda: TierSampler(10, EARLY, LATE, end=1.5), "end=1.5"),
        (lambda: TierSampler(10, EARLY, LATE).sample(torch.tensor([0, 3]), 1, 0), "of 0, 1, 2"),
        (lambda: TierSampler(10, EARLY, LATE).sample(torch.zeros(2, 2), 1, 0), r"shape \(2, 2\)"),
        (lambda: TierSampler(10, EARLY, LATE).sample(torch.tensor([0]), -1, 0), "n=-1 must not be negative"),
        (lambda: TierSampler(10, EARLY, LATE, enabled=False).sample(torch.tensor([0]), 1, 11), "step=11"),
        (lambda: TierSampler(10, EARLY, LATE).load_state_dict({"counts": [0, 0, 0]}), "has no .'generator'"),
    ],
)
def test_bad_input_is_named(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
