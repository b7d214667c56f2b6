"""Figures of entropy: how it is spread over positions, over sorts of tokens, and how it drifts as a model learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean
from typing import Any

import numpy as np
import torch

from rmt_mini.method.entropy import TIERS, assign_tiers
from rmt_mini.report.plots.canvas import (
    FOUR_LOOKS,
    GREY,
    LOOKS,
    TIER_LOOKS,
    Figured,
    Numbers,
    draw_line,
    finish,
    panels_of,
    span,
)

BIN = 0.05  # nats, width of a histogram's bar


def entropy_histogram(entropies: Numbers, thresholds: Sequence[float]) -> Figured:
    """Draw how entropies are spread, cut into tiers at two thresholds.

    Args:
        entropies: nats, at least one.
        thresholds: two, nats.

    Raises:
        ValueError: as ``assign_tiers``.
    """
    tiers = np.array(tiers_of(entropies, thresholds))
    values, top = np.array(entropies), max(3.0, *entropies)
    edges = np.unique(np.round([*np.arange(0, top + BIN, BIN), *(t for t in thresholds if t < top)], 6))
    figure, (ax,) = panels_of(1, 3.2)
    for tier, (colour, hatch) in enumerate(TIER_LOOKS):
        counts, _ = np.histogram(values[tiers == tier], edges)
        look: dict[str, Any] = {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.5}
        ax.stairs(counts, edges, baseline=0.5, fill=True, label=f"{TIERS[tier]}: {counts.sum()}", **look)
    for place, (cut, line) in enumerate(zip(thresholds, ("--", ":"), strict=True)):
        ax.axvline(cut, color="black", linestyle=line, linewidth=1.5, label=f"threshold {place + 1}: {cut:.2f}")
    ax.set(yscale="log", xlim=(0, top + BIN), ylim=(0.7, 2 * len(values)))
    finish(figure, ax, "entropy (nats)", "positions (log scale)", columns=5)
    return Figured(figure, f"{tally(tiers.tolist(), thresholds, 'positions')} The largest is {max(entropies):.2f}.")


def entropy_of_sorts(entropies: Numbers, sorts: Sequence[str]) -> Figured:
    """Draw the entropy of every token, a row for each sort, with its median and middle half.

    Args:
        entropies: nats.
        sorts: the sort of each; a generated text knows them.
    """
    names = sorted(set(sorts), key=lambda name: -list(sorts).count(name))
    figure, (ax,) = panels_of(1, 0.9 + 0.8 * len(names))
    told = []
    for row, (name, (colour, _, marker)) in enumerate(zip(names, cycle(FOUR_LOOKS), strict=False)):
        mine = np.array([entropy for entropy, sort in zip(entropies, sorts, strict=True) if sort == name])
        low, middle, high = np.quantile(mine, (0.25, 0.5, 0.75))
        spread = (np.arange(len(mine)) * 0.618) % 1 - 0.5  # even and the same every time, as no random scatter is
        ax.plot(mine, row + 0.5 * spread, marker, color=colour, markersize=3, alpha=0.4, markeredgewidth=0)
        ax.plot([low, high], [row, row], color="black", linewidth=5, solid_capstyle="butt")
        ax.plot([middle], [row], "o", color="white", markeredgecolor="black", markersize=8)
        told.append(f"{name}: {len(mine)} tokens, median {middle:.2f}, middle half {low:.2f} to {high:.2f}")
    ax.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5))
    finish(figure, ax, "entropy (nats); black: the middle half, white: the median", "", columns=0)
    return Figured(figure, f"Entropy in nats. {'; '.join(told)}.")


def entropy_drift(before: Numbers, after: Numbers, thresholds: Sequence[float]) -> Figured:
    """Draw the entropy of the same positions before and after learning, with the borders of the tiers.

    Args:
        before: nats.
        after: nats, of the same positions.
        thresholds: two, nats.

    Raises:
        ValueError: as ``assign_tiers``.
    """
    old, new = (np.array(tiers_of(one, thresholds)) for one in (before, after))
    figure, (ax,) = panels_of(1, 4.4)
    for tier, (colour, _, marker) in enumerate(LOOKS):
        mine = old == tier
        x, y = np.array(before)[mine], np.array(after)[mine]
        label = f"{TIERS[tier]} before: {int(mine.sum())}"
        ax.plot(x, y, marker, color=colour, markersize=4, alpha=0.55, markeredgewidth=0, label=label)
    top = 1.03 * max(*before, *after, *thresholds)
    ax.plot([0, top], [0, top], color=GREY, linewidth=1, label="no change")
    for cut in thresholds:
        ax.axvline(cut, color="black", linestyle=":", linewidth=1)
        ax.axhline(cut, color="black", linestyle=":", linewidth=1)
    ax.set(xlim=(-0.03, top), ylim=(-0.03, top))
    finish(figure, ax, "entropy before (nats)", "entropy after (nats)", columns=4)
    return Figured(
        figure,
        f"Entropy of {len(old)} positions: mean {fmean(before):.2f} nats before and {fmean(after):.2f} after. "
        f"{int((new < old).sum())} moved to an easier tier and {int((new > old).sum())} to a harder one.",
    )


def entropy_and_loss(steps: Numbers, entropy: Mapping[str, Numbers], loss: Mapping[str, Numbers]) -> Figured:
    """Draw how undecided a model is, and how wrong, on each sort of token while it learns.

    Args:
        steps: at which it was measured.
        entropy: sort -> mean entropy at each, nats.
        loss: sort -> mean of -log p(true token) at each, nats.
    """
    figure, panels = panels_of(2, 3.6)
    told = []
    for ax, name, lines in zip(panels, ("entropy", "loss"), (entropy, loss), strict=True):
        for look, (sort, values) in zip(cycle(FOUR_LOOKS), lines.items(), strict=False):
            draw_line(ax, steps, values, look, sort if ax is panels[0] else "_" + sort)
            told.append(f"{name} on {sort} {span(values, '.2f')}")
        ax.set_ylim(0, 1.05 * max(max(values) for values in lines.values()))
        finish(figure, ax, "step of next-token prediction", f"mean {name} (nats)", columns=0)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return Figured(figure, f"Means in nats over {steps[-1]} steps: {'; '.join(told)}.")


def tiers_of(entropies: Numbers, thresholds: Sequence[float]) -> list[int]:
    """Return the tier of each entropy; raises as ``assign_tiers``."""
    tiers: list[int] = assign_tiers(torch.tensor(entropies), thresholds).tolist()
    return tiers


def tally(tiers: Sequence[int], thresholds: Sequence[float], what: str) -> str:
    """Say how many of some tokens or positions fall into each tier."""
    easy, medium, hard = (list(tiers).count(tier) for tier in range(3))
    low, high = thresholds
    verb = "is" if easy == 1 else "are"
    return (
        f"Of {len(tiers)} {what} {easy} {verb} easy (up to {low:.2f} nats), {medium} medium and {hard} hard (above "
        f"{high:.2f} nats)."
    )
