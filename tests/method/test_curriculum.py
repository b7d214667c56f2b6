import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from rmt_mini.method.curriculum import TierSampler, tier_probabilities

EARLY, LATE = (0.6, 0.3, 0.1), (0.2, 0.3, 0.5)
RARE = 0.001  # share of seeds in which a fair sampler looks less fair than this


def distributions() -> st.SearchStrategy[tuple[float, ...]]:
    parts = st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any)
    return parts.map(lambda weights: tuple(weight / sum(weights) for weight in weights))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, EARLY),
        (30, EARLY),  # t1
        (40, (0.5, 0.3, 0.2)),
        (31, (0.59, 0.3, 0.11)),
        (69, (0.21, 0.3, 0.49)),
        (70, LATE),  # t2
        (100, LATE),  # T
    ],
)
def test_hand_table(step: int, expected: tuple[float, ...]) -> None:
    assert tier_probabilities(step, 100, EARLY, LATE) == pytest.approx(expected, abs=1e-12)


def test_the_ends_of_what_is_allowed() -> None:
    assert [tier_probabilities(step, 1, (1, 0, 0), (0, 0, 1), 0, 1) for step in (0, 1)] == [(1, 0, 0), (0, 0, 1)]
    thirds = (0.3333333, 0.3333333, 0.3333333)  # rounded by hand
    assert tier_probabilities(0, 1, thirds, LATE) == thirds


def test_the_draws_of_a_seed_stay() -> None:
    """Recorded runs hang on them."""
    tiers = torch.arange(30) % 3
    sampler = TierSampler(10, EARLY, LATE)
    assert [sampler.sample(tiers, 6, step).tolist() for step in (0, 10)] == [
        [22, 10, 18, 27, 9, 0],
        [7, 2, 1, 6, 14, 8],
    ]
    sampler = TierSampler(10, (1, 0, 0), (0, 0, 1), start=0, end=0.1)
    assert {place % 3 for place in sampler.sample(tiers, 9, 1).tolist()} == {2}


@given(distributions(), distributions(), st.integers(0, 50), st.floats(0, 0.4), st.floats(0.5, 1))
def test_probabilities_sum_to_one_and_lie_between(early, late, step, start, end) -> None:
    mixed = tier_probabilities(step, 50, early, late, start, end)
    assert sum(mixed) == pytest.approx(1)
    for value, one, other in zip(mixed, early, late, strict=True):
        assert min(one, other) - 1e-12 <= value <= max(one, other) + 1e-12


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(0, 35), distributions(), st.booleans())
def test_a_draw_is_a_set_of_the_size_asked_for(tiers, n, early, enabled) -> None:
    sampler = TierSampler(10, early, LATE, seed=3, enabled=enabled)
    drawn = sampler.sample(torch.tensor(tiers, dtype=torch.long), n, step=0)
    assert drawn.dtype == torch.int64
    assert len(drawn) == len(set(drawn.tolist())) == min(n, len(tiers))
    assert set(drawn.tolist()) <= set(range(len(tiers)))
    assert sampler.counts == tuple(sum(tiers[place] == tier for place in drawn.tolist()) for tier in range(3))


HALF = (0.4, 0.3, 0.3)


@pytest.mark.parametrize(
    ("early", "late", "step", "sizes", "expected"),
    [
        (EARLY, LATE, 0, (2, 20, 7), EARLY),  # sizes do not matter
        (EARLY, LATE, 50, (2, 20, 7), HALF),
        (EARLY, LATE, 100, (2, 20, 7), LATE),
        ((0.2, 0.3, 0.5), LATE, 0, (5, 0, 5), (2 / 7, 0, 5 / 7)),  # an empty tier gives its probability away
        ((0.0, 0.0, 1.0), LATE, 0, (1, 9, 0), (1 / 2, 1 / 2, 0)),  # no proportion to go by: uniformly over the tiers
        ((0.0, 1.0, 0.0), LATE, 0, (3, 0, 0), (1, 0, 0)),
    ],
)
def test_tiers_come_as_often_as_the_curriculum_says(early, late, step: int, sizes, expected) -> None:
    sampler = TierSampler(100, early, late, seed=11)
    tiers = torch.tensor([tier for tier, size in enumerate(sizes) for _ in range(size)])
    for _ in range(3000):
        sampler.sample(tiers, 1, step)
    assert sum(sampler.counts) == 3000
    possible = [(seen, 3000 * p) for seen, p in zip(sampler.counts, expected, strict=True) if p or seen]
    assert len(possible) == 1 or chisquare(*zip(*possible, strict=True)).pvalue > RARE


@pytest.mark.parametrize("enabled", [True, False])
def test_positions_come_equally_often(enabled: bool) -> None:
    """Within a tier, or without the curriculum whatever their tier."""
    sampler = TierSampler(10, (0, 0, 1), (0, 0, 1), seed=5, enabled=enabled)
    tiers = torch.tensor([0, 2] * 10 if enabled else [0] * 6 + [1] * 3 + [2])
    drawn = torch.cat([sampler.sample(tiers, 3, step=0) for _ in range(1000)])
    if enabled:
        assert bool((drawn % 2 == 1).all())
        drawn = drawn // 2
    # draws of one call exclude each other, so that counts are more equal than independent ones
    assert all(chisquare(some.bincount(minlength=10)).pvalue > RARE for some in (drawn, drawn[::3]))


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
