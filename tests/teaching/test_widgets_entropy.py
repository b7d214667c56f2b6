"""Thresholds and top-k over the micro-world's texts: cut as the method cuts, measured as the engine measures."""

from __future__ import annotations

import math

import pytest
import torch

from rmt_mini.method.entropy import assign_tiers
from rmt_mini.stages.material import trunk_entropy
from rmt_mini.teaching.widgets.answers import micro_world
from rmt_mini.teaching.widgets.entropy import entropy_explorer, show_tiers


def entropies_of(document: int, top_k: int = 0) -> torch.Tensor:
    policy, form, texts = micro_world()
    return trunk_entropy(policy, policy.tree.read([torch.tensor(form.trunk(texts[document])[0])]), top_k)[0][1:]


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.9), (0.0, 0.0), (1.0, 4.0)])
def test_a_text_is_cut_as_the_method_cuts_it(low: float, high: float) -> None:
    tiers = assign_tiers(entropies_of(2), (low, high)).tolist()
    text, histogram = show_tiers(2, low, high).parts
    easy, medium, hard = (tiers.count(tier) for tier in range(3))
    told = f"Of {len(tiers)} tokens {easy} {'is' if easy == 1 else 'are'} easy (up to {low:.2f} nats), {medium} medium "
    assert text.alt.startswith(f"{told}and {hard} hard (above {high:.2f} nats).")
    everywhere = torch.cat([entropies_of(document) for document in range(40)])
    assert histogram.alt.startswith(f"Of {len(everywhere)} positions ")
    assert f"and {int((everywhere > high).sum())} hard" in histogram.alt


def test_top_k_bounds_the_entropy() -> None:
    for k in (1, 2, 16):
        largest = float(show_tiers(2, 0.5, 1.9, k).parts[1].alt.removesuffix(".").rsplit(" ", 1)[1])
        assert largest <= math.log(k) + 0.005
    assert "0 medium and 0 hard" in show_tiers(2, 0.5, 1.9, 1).alt


def test_every_control_moves_what_is_shown() -> None:
    explorer = entropy_explorer()
    for name, value in (("document", 5), ("low", 1.0), ("high", 2.5), ("top_k", 4)):
        before = explorer.alt
        explorer.controls[name].value = value
        assert explorer.alt != before, name
    assert explorer.alt == show_tiers(document=5, low=1.0, high=2.5, top_k=4).alt
    explorer.controls["low"].value = 3.0
    assert "must be two finite ascending numbers" in explorer.alt
