from __future__ import annotations

import math
import re

import pytest

from rmt_mini.method.budget import length_reward
from rmt_mini.report.plots import closing_slopes, gradient_shares, shared_against_copied, symptom_curves, who_learns
from rmt_mini.report.plots.of_objective import NONE, RL, RULES, by_loss, closing_slope, length_chances, ntp_share


def marks(html: str) -> list[str]:
    """Return the words that carry a double underline, and so the RL loss."""
    return re.findall(r"text-decoration: underline double[^>]*>([^<]*)</span>", html)


def test_the_tokens_of_c_alone_are_marked_for_rl() -> None:
    shown = who_learns(["A", " lift", " waits", " on"], chosen=[3, 1])
    assert shown.alt == (
        "A document of 4 tokens; chosen: 1 “lift”, 3 “on”. Tokens by the loss that trains them: RL 2, NTP 1, none 1."
    )
    body = shown._repr_html_()
    assert marks(body) == [" lift", " on", "RL loss"]  # the last one is the legend
    assert 'role="img"' in body


def test_counting_c_twice_shows() -> None:
    shown = who_learns(["A", " lift", " waits"], chosen=[1], leak=True)
    assert shown.alt.endswith("NTP 1, RL and NTP 1, none 1.")
    assert "RL+NTP" in shown._repr_html_()


def test_no_chosen_position_is_said() -> None:
    assert "chosen: none. " in who_learns(["A", " b"], chosen=[]).alt


def test_marked_words_set_ink_and_ground_and_are_escaped() -> None:
    body = by_loss(["<b>", "\n"], [RL, NONE], "Two.")._repr_html_()
    assert "<b>" not in body
    assert "↵" in body
    spans = re.findall(r'<(?:span|sup) style="([^"]*)"', body)
    assert spans
    assert all("background: #" in look and "; color: #" in look for look in spans)


def test_two_gradients_at_a_right_angle() -> None:
    alt = gradient_shares(rl=3.0, ntp=40.0, cosine=0.0, weight=0.1).alt  # 3 and 4 make 5
    assert alt == (
        "Gradient norms at lambda 0.1: RL 3, lambda times next-token prediction 4, the step 5. The next-token part is "
        "57 % of the two; both are equal at lambda 0.075; the cosine between them is +0.00."
    )
    assert "the step 1." in gradient_shares(rl=3.0, ntp=40.0, cosine=-1.0, weight=0.1).alt
    assert "equal" not in gradient_shares(rl=0.0, ntp=1.0, cosine=0.0, weight=1.0).alt
    assert gradient_shares(0.0, 0.0, 0.0, 0.0).png()[:4] == b"\x89PNG"


def test_share_of_the_next_token_part() -> None:
    assert ntp_share(3.0, 40.0, 0.1) == pytest.approx(4 / 7)
    assert ntp_share(1.0, 2.0, 0.0) == 0


@pytest.mark.parametrize("budget", [1, 4, 8])
@pytest.mark.parametrize("chance", [0.02, 0.3, 0.9])
def test_the_right_rule_alone_is_the_slope_of_the_mean_reward(budget: int, chance: float) -> None:
    def mean_reward(logit: float) -> float:
        chances = length_chances(1 / (1 + math.exp(-logit)), budget)
        assert sum(chances) == pytest.approx(1)
        return sum(p * length_reward(length, budget) for length, p in enumerate(chances))

    logit, step = math.log(chance / (1 - chance)), 1e-5
    slope = (mean_reward(logit + step) - mean_reward(logit - step)) / (2 * step)
    right, every, none = (closing_slope(chance, budget, **rule) for rule in RULES.values())
    assert right == pytest.approx(slope, abs=1e-7)
    assert every == pytest.approx(none)  # a closing that every thought has tells none from another
    capped = length_chances(chance, budget)[-1]
    # what the wrong rules miss: that running into the cap, where the reward is 0, is bad
    assert right - none == pytest.approx((1 - chance) * capped * mean_reward(logit))


def test_closing_slopes_by_hand() -> None:
    # B = 1, p = 1/2: lengths 0, 1, 2 with 1/2, 1/4, 1/4 earn 0, 1, 0; mean 1/4
    alt = closing_slopes(1, 0.5).alt
    assert "0.8 tokens long on average, the budget is 1, and 25 % run into the cap" in alt
    # no closing: -p * sum P A l = -1/2 * (1/4 * 3/4 * 1 - 1/4 * 1/4 * 2) = -1/32
    assert alt.endswith("own closings (right) +0.0000; every closing -0.0312; no closing -0.0312.")
    for chance in (0.0, 1.0):
        with pytest.raises(ValueError, match="between 0 and 1"):
            closing_slopes(8, chance)


def test_shared_and_copied_are_told_with_their_ratio() -> None:
    alt = shared_against_copied((5, 7), (13, 16), [3], {"tokens": [1.4], "attention pairs": [1.2]}, 3).alt
    assert alt == (
        "With a document of 3 tokens the tree reads 5 tokens where padded rows read 7, 1.4 times as many; attention "
        "pairs are 13 against 16, 1.2 times as many."
    )


def test_symptoms_tell_the_dip_between_their_ends() -> None:
    figured = symptom_curves({"a": [1.0, 0.25, 1.0], "b": [0.0, 0.0, 2.0]}, "step", "norm", wanted=1)
    assert figured.alt == (
        "norm over step: a 1.00 at first and 1.00 at last, between 0.25 and 1.00; b 0.00 at first and 2.00 at last, "
        "between 0.00 and 2.00; wanted is 1."
    )
    assert figured.png()[:4] == b"\x89PNG"
