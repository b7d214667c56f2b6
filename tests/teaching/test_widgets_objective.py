from __future__ import annotations

import math
import re

import pytest
import torch

from rmt_mini.engine.rollout import lay_out
from rmt_mini.records import Position, Rollout
from rmt_mini.report.plots import closing_slopes
from rmt_mini.teaching.widgets import objective
from rmt_mini.teaching.widgets.objective import (
    DOCUMENTS,
    Gradients,
    chosen_of,
    closing_explorer,
    marked_branch,
    marked_document,
    mask_explorer,
    micro_world,
    real_step,
    small_step,
    told_by_text,
    weighed_gradients,
    weight_explorer,
)
from tests.fakes import BareFormat, byte_tokenizer


def norms(alt: str) -> list[float]:
    """Return the norms of RL, lambda times NTP, and the step."""
    return [float(value) for value in re.findall(r"(?:RL|prediction|step) (\d[\d.e-]*)[,.]", alt)]


def test_marks_of_a_document_are_the_masks() -> None:
    text = micro_world().texts[2]
    alt = marked_document(document=2, positions=3, step=0, leak=False).alt
    assert f"A document of {len(text.ids)} tokens" in alt
    assert alt.endswith(f"RL 3, NTP {len(text.ids) - 4}, none 1.")
    assert marked_document(2, 0, 0, False).alt.endswith(f"NTP {len(text.ids) - 1}, none 1.")
    assert marked_document(2, 3, 0, True).alt.endswith(f"NTP {len(text.ids) - 4}, RL and NTP 3, none 1.")


def test_late_in_the_curriculum_harder_positions_are_drawn() -> None:
    world = micro_world()

    def mean_tier(step: int) -> float:
        drawn = [
            int(place)
            for document in range(DOCUMENTS)
            for place in re.findall(r"(\d+) “", marked_document(document, 3, step, False).alt)
        ]
        tiers = [int(world.tiers[n // 3][place]) for n, place in enumerate(drawn)]
        return sum(tiers) / len(tiers)

    assert mean_tier(world.config.steps) > mean_tier(0)


def test_every_control_of_the_masks_moves_them() -> None:
    explorer = mask_explorer()
    for name, value in (("document", 3), ("positions", 8), ("step", 110), ("leak", True)):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == marked_document(**explorer.settings).alt != before, name


@pytest.mark.parametrize("closed", [True, False])
def test_a_closing_is_marked_where_the_model_chose_it(closed: bool) -> None:
    class Spelled(BareFormat):
        tokenizer = byte_tokenizer()

    trunk = [65, 66, 67, 68]
    rollout = Rollout(Position(0, 3, 0, 0.0), 7, (70, 71), closed, (72,), ())
    alt = marked_branch(Spelled(), trunk, rollout).alt
    # opening 2, thought 2, closing 2, cue 3, answer 1; of the closing tag's two tokens one is a decision
    assert alt.endswith(f"RL {3 + closed}, none {7 - closed}.")
    assert "closed itself" in alt or not closed
    assert len(lay_out(Spelled(), trunk, rollout).tokens) + 1 == 10


def test_products_of_weighted_gradients_by_hand() -> None:
    found = Gradients([[4.0, 1.0, 0.0], [1.0, 9.0, 0.0], [0.0, 0.0, 16.0]], 10, 2, 3, 1)
    assert found.product([1, 0, 0], [0, 1, 0]) == 1
    assert found.product([1, 2, 0], [1, 2, 0]) == 4 + 2 * 2 * 1 + 4 * 9
    assert found.product([0, 0.75, 0.25], [0, 0.75, 0.25]) == 0.5625 * 9 + 0.0625 * 16


def test_weighing_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Gradients([[9.0, 0.0, 0.0], [0.0, 16.0, 0.0], [0.0, 0.0, 64.0]], 20, 2, 3, 1)
    monkeypatch.setattr(objective, "small_step", lambda: found)
    assert norms(weighed_gradients(1.0, True, True, False, False).alt) == [3, 4, 5]
    assert norms(weighed_gradients(1.0, True, False, False, False).alt) == [3, 0, 3]
    assert norms(weighed_gradients(1.0, False, True, False, False).alt) == [0, 4, 4]
    # the mean over all four tokens: 3/4 of 4 and 1/4 of 8, at a right angle
    assert norms(weighed_gradients(1.0, False, True, True, False).alt)[1] == pytest.approx(math.hypot(3, 2), abs=0.01)
    # sums: 20 tokens over 2 rollouts, and 3 tokens
    assert norms(weighed_gradients(1.0, True, True, False, True).alt)[:2] == [30, 12]
    with pytest.raises(ValueError, match="lambda=-1"):
        weighed_gradients(-1, True, True, False, False)


def test_the_small_step_is_a_real_one() -> None:
    found, texts, judged = small_step(), real_step().texts, real_step().judged
    chosen = chosen_of(texts, judged)
    assert found.rollouts == len(judged) == micro_world().config.group_size * found.chosen
    assert found.chosen == sum(map(len, chosen))
    assert found.others == sum(len(text.ids) - 1 for text in texts) - found.chosen
    assert found.rl_tokens == sum(len(one.rollout.logprobs) for one in judged)
    products = torch.tensor(found.products)
    torch.testing.assert_close(products, products.t())
    assert bool((products.diagonal() > 0).all())


def test_every_control_of_the_weights_moves_them() -> None:
    explorer = weight_explorer()
    for name, value in (("weight", 1.0), ("leak", True), ("sums", True), ("use_rl", False), ("use_ntp", False)):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == weighed_gradients(**explorer.settings).alt != before, name


def test_counting_c_in_next_token_prediction_tells_more() -> None:
    outside, everywhere = told_by_text(leak=False, repeats=1), told_by_text(leak=True, repeats=1)
    assert outside[0][0] == everywhere[0][0]
    assert len(outside[0]) == len(outside[1]) == 2
    assert everywhere[0][-1] > outside[0][-1]


def test_every_control_of_the_closing_moves_it() -> None:
    explorer = closing_explorer()
    for name, value in (("budget", 4), ("chance", 0.3)):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt == closing_slopes(**explorer.settings).alt != before, name
    explorer.controls["chance"].value = 0.0
    assert "must lie between 0 and 1" in explorer.alt
