import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmt_mini.method.budget import budget_at_step, budgets_by_entropy, length_reward, thought_cap


@pytest.mark.parametrize(
    ("total", "start", "minimum", "decay", "budgets"),
    [
        (2, 100, 30, 0.04, [100, 30, 30]),
        (2, 100, 1, 0.04, [100, 20, 4]),
        (3, 1000, 1, 0.729, [1000, 900, 810, 729]),  # 1000 * 0.729 ** (2 / 3) is slightly below 810 in floats
        (2, 7, 1, 1.0, [7, 7, 7]),
        (1, 8, 8, 0.5, [8, 8]),
    ],
)
def test_schedules_by_hand(total: int, start: int, minimum: int, decay: float, budgets: list[int]) -> None:
    assert [budget_at_step(step, total, start, minimum, decay) for step in range(total + 1)] == budgets


@given(st.integers(1, 300), st.integers(1, 2000), st.integers(0, 2000), st.floats(0.001, 1))
def test_the_budget_never_rises_and_ends_at_its_share(total: int, low: int, more: int, decay: float) -> None:
    budgets = [budget_at_step(step, total, low + more, low, decay) for step in range(total + 1)]
    assert budgets == sorted(budgets, reverse=True)
    assert budgets[0] == low + more
    assert budgets[-1] == max(low, math.floor((low + more) * decay + 1e-9))


@pytest.mark.parametrize("budget", [1, 2, 24, 800])
def test_the_triangle_at_its_corners(budget: int) -> None:
    corners = [0, budget, 2 * budget, 2 * budget + 1, 10 * budget + 1]
    assert [length_reward(length, budget) for length in corners] == [0, 1, 0, 0, 0]
    assert length_reward(torch.tensor(corners), budget).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize(("length", "peak", "reward"), [(3, 1.0, 0.3), (14, 1.0, 0.6), (14, 0.5, 0.3)])
def test_both_slopes_by_hand(length: int, peak: float, reward: float) -> None:
    assert length_reward(length, 10, peak) == pytest.approx(reward)


@given(st.integers(0, 500), st.integers(1, 200), st.floats(0.1, 5))
def test_numbers_and_tensors_agree(length: int, budget: int, peak: float) -> None:
    number = length_reward(length, budget, peak)
    assert isinstance(number, float)
    assert 0 <= number <= peak
    if length <= 2 * budget:
        assert number == pytest.approx(length_reward(2 * budget - length, budget, peak))  # symmetric
    for tensor in (
        length_reward(torch.tensor([length]), budget, peak),
        length_reward(length, torch.tensor([budget]), peak),
        length_reward(torch.tensor([length]), torch.tensor([budget]), peak),
    ):
        assert tensor.shape == (1,)
        assert tensor.item() == pytest.approx(number, abs=1e-5)


@pytest.mark.parametrize(
    ("entropies", "budget", "minimum", "expected"),
    [
        ([0.0, 0.0], 8, 3, [8, 8]),
        ([0.1, 0.2, 0.3], 10, 1, [5, 10, 15]),  # on paper; with binary fractions 15 may come out a hair below
        ([2.5], 4, 4, [4]),
        ([], 8, 3, []),
    ],
)
def test_budgets_follow_the_entropy(entropies: list[float], budget: int, minimum: int, expected: list[int]) -> None:
    assert budgets_by_entropy(entropies, budget, minimum) == expected


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20), st.integers(1, 200), st.integers(1, 200))
def test_more_entropy_is_no_less_budget(entropies: list[float], one: int, other: int) -> None:
    minimum, budget = sorted((one, other))
    found = budgets_by_entropy(sorted(entropies), budget, minimum)
    assert found == sorted(found)
    assert all(minimum <= own <= 2 * budget for own in found)


@given(st.integers(1, 5000))
def test_the_cap_is_the_first_length_past_the_peak_without_reward(budget: int) -> None:
    assert length_reward(thought_cap(budget), budget) == 0 < length_reward(thought_cap(budget) - 1, budget)
