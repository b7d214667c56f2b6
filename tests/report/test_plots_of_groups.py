"""Figures of groups tell numbers that can be had by hand; so do the newer figures of budget and curriculum."""

from __future__ import annotations

import math
import re

import pytest
import torch

from rmt_mini.report import plots


def test_advantages_of_three_groups_by_hand() -> None:
    # mean 1/4, std sqrt(3/16) = .433: (1 - .25) / .433 = 1.73; the second group's std is .1
    figured = plots.advantage_bars([[1, 0, 0, 0], [0.5, 0.3], [1, 1, 1]])
    first, second, third = figured.alt.split("; ")
    assert first == (
        "Group 1, rewards 1.00, 0.00, 0.00, 0.00, mean 0.25: advantages scaled 1.73, -0.58, -0.58, -0.58, "
        "not scaled 0.75, -0.25, -0.25, -0.25"
    )
    assert second.endswith("mean 0.40: advantages scaled 1.00, -1.00, not scaled 0.10, -0.10")
    assert third == "group 3, rewards 1.00, 1.00, 1.00, mean 1.00: all advantages are 0."
    assert figured.png()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("rate", "size", "told"),
    # 1 - p^G - (1 - p)^G
    [
        (0.5, 2, "50.0 %"),
        (0.5, 8, "99.2 %"),
        (0.1, 8, "57.0 %"),
        (0.0, 8, "0.0 %"),
        (1.0, 3, "0.0 %"),
        (0.4, 1, "0.0 %"),
    ],
)
def test_signal_follows_its_formula_and_the_simulation(rate: float, size: int, told: str) -> None:
    alt = plots.signal_curve(rate, size, groups=1000).alt
    assert f"G = {size}, {told} of groups carry a signal" in alt
    formula, simulated = float(told[:-2]), float(re.findall(r"simulated groups ([\d.]+) %", alt)[0])
    deviation = 100 * math.sqrt(formula / 100 * (1 - formula / 100) / 1000)
    assert abs(simulated - formula) <= 3.5 * deviation + 0.05  # the last for the rounding of what is told


def test_signal_names_groups_half_and_twice_as_large() -> None:
    assert "(50.7 % with G = 4, 94.1 % with G = 16)" in plots.signal_curve(0.1625, 8).alt
    assert "(50.0 % with G = 2)" in plots.signal_curve(0.5, 1).alt  # half a rollout is none


@pytest.mark.parametrize(
    ("ratio", "positive", "negative"),
    [
        (1.5, "1.20, clipped, without a gradient", "-1.50, and its gradient pushes the token down"),
        (0.5, "0.50, and its gradient pushes the token up", "-0.80, clipped, without a gradient"),
        (1.1, "1.10, and its gradient pushes the token up", "-1.10, and its gradient pushes the token down"),
    ],
)
def test_each_sign_is_clipped_on_its_own_side(ratio: float, positive: str, negative: str) -> None:
    alt = plots.clip_curve(ratio, 0.2).alt
    assert f"With advantage +1 the objective is {positive}." in alt
    assert f"With advantage -1 the objective is {negative}." in alt


def test_a_larger_advantage_lifts_the_objective() -> None:
    assert "With advantage +2 the objective is 2.60, clipped" in plots.clip_curve(1.5, 0.3, size=2).alt


def test_kl_and_its_estimates_by_hand() -> None:
    # p = (1/2, 1/2), q = (1/4, 3/4): KL = (log 2 + log 2/3) / 2 = log(4/3) / 2 = .1438
    # the sign turned: mean of p/q - 1 - log p/q = (2 + 2/3) / 2 - 1 - .14384 = .18949
    # std of log p/q: half the distance of log 2 and log 2/3 = log(3) / 2 = .5493, over sqrt(4) = .2747
    alt = plots.kl_estimates([0.5, 0.5], [0.25, 0.75], samples=4).alt
    assert "Exact KL(p || q) is 0.144 nats" in alt
    assert "log p - log q 0.144, standard error 0.275" in alt
    assert "kl_estimate (k3) 0.144" in alt
    assert "k3, sign turned 0.189" in alt
    assert "is 0.000 nats. On average: log p - log q 0.000" in plots.kl_estimates([0.5, 0.5], [0.5, 0.5], 4).alt


def test_a_small_training_is_told_by_its_ends_and_extremes() -> None:
    alt = plots.loss_and_reward({"loss": [0.0, -0.001], "reward": [0.25, 1.0, 0.5]}).alt
    assert alt == (
        "Over 3 steps: loss 0.00 throughout, at least 0.00 and at most 0.00; "
        "reward 0.25 at first and 0.50 at last, at least 0.25 and at most 1.00."
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plots.signal_curve(1.2, 8), "pass_rate=1.2 lies outside"),
        (lambda: plots.signal_curve(0.2, 0), "group_size=0"),
        (lambda: plots.clip_curve(0.0, 0.2), "ratio=0.0"),
        (lambda: plots.clip_curve(1.0, 0.0), "clip_epsilon=0.0"),
        (lambda: plots.kl_estimates([0.5, 0.5], [1.0, 0.0], 4), "all above 0"),
        (lambda: plots.kl_estimates([0.5, 0.5], [0.5, 0.4], 4), "with sum 1"),
        (lambda: plots.kl_estimates([0.5, 0.5], [0.3, 0.3, 0.4], 4), "same tokens"),
        (lambda: plots.kl_estimates([0.5, 0.5], [0.5, 0.5], 0), "samples=0"),
        (lambda: plots.tier_draws(5, (1, 0, 0), (0, 0, 1), (0, 0, 0), 3), "nothing to draw"),
        (lambda: plots.reward_by_length(1.5, 8, 3), "length_weight=1.5"),
    ],
)
def test_what_cannot_be_drawn_is_said(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# Budget and curriculum


@pytest.mark.parametrize(
    ("weight", "verdict"),
    [
        (0.3, "earns 0.70 to 1.00, a wrong one 0.00 to 0.30: the worst right one earns more than the best wrong one."),
        (0.5, "0.00 to 0.50: the best wrong one earns as much as the worst right one."),
        (0.6, "0.00 to 0.60: a wrong one of the right length earns more than a right one of the wrong length."),
    ],
)
def test_the_length_weight_decides_what_outranks_what(weight: float, verdict: str) -> None:
    assert verdict in plots.reward_by_length(weight, budget=8, length=4).alt


def test_a_marked_rollout_earns_match_and_length() -> None:
    # length reward of 12 tokens under 8: 1/2; .7 + .3 / 2, and .3 / 2 without the match
    assert "right answer after 12 tokens, under a budget of 8, earns 0.85." in plots.reward_by_length(0.3, 8, 12).alt
    assert "earns 0.15." in plots.reward_by_length(0.3, 8, 12, right=False).alt
    gated = plots.reward_by_length(0.6, 8, 12, right=False, only_if_correct=True).alt
    assert "a wrong one 0.00 to 0.00: the worst right one earns more" in gated
    assert gated.endswith("earns 0.00.")


def test_a_marked_step_of_the_curriculum_is_told() -> None:
    # from 2 to 4 of 10 the easy share falls from 1 to 0; of steps 0..9 three are all easy and one is half
    alt = plots.curriculum_curve(10, (1, 0, 0), (0, 0, 1), 0.2, 0.4, step=3).alt
    assert "At step 3 it draws 50 % easy, 0 % medium, 50 % hard; over the whole run 35 % easy, 0 % medium, 65 %" in alt
    assert "At step" not in plots.curriculum_curve(10, (1, 0, 0), (0, 0, 1)).alt


def test_draws_are_told_beside_what_was_asked() -> None:
    # steps 0..3 of 4, t1 = 1, t2 = 3: the easy share is 1, 1, 1/2, 0; of 100 draws each 250 are asked for, and only the
    # third step is left to chance: sqrt(100 / 4) = 5
    alt = plots.tier_draws(4, (1, 0, 0), (0, 0, 1), (500, 500, 500), 100, 0.25, 0.75).alt
    found = re.findall(r"(\d+) (\w+) where p_t asks for (\d+) give or take (\d+)", alt)
    assert [(tier, asked, spread) for _, tier, asked, spread in found] == [
        ("easy", "250", "5"), ("medium", "0", "0"), ("hard", "150", "5"),
    ]  # fmt: skip
    assert abs(int(found[0][0]) - 250) <= 20
    assert sum(int(count) for count, *_ in found) == 400


def test_an_empty_tier_shows_as_draws_that_part_from_what_was_asked() -> None:
    alt = plots.tier_draws(4, (0.5, 0, 0.5), (0.5, 0, 0.5), (500, 0, 0), 10).alt
    assert "40 easy where p_t asks for 20" in alt
    assert "0 hard where p_t asks for 20" in alt


def test_drawing_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    plots.signal_curve(0.3, 4)
    plots.kl_estimates([0.5, 0.5], [0.25, 0.75], samples=4)
    plots.tier_draws(4, (1, 0, 0), (0, 0, 1), (5, 5, 5), 3)
    assert torch.rand(1).equal(expected)
