"""Figures of the method, from its formulas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MultipleLocator

from rmt_mini.engine.attention import tree_mask
from rmt_mini.method.budget import budget_at_step, length_reward, thought_cap
from rmt_mini.method.curriculum import TierSampler, tier_probabilities
from rmt_mini.method.entropy import TIERS
from rmt_mini.method.rewards import total_reward
from rmt_mini.report.plots.canvas import (
    BLUE,
    GREY,
    LOOKS,
    RED,
    WIDTH,
    Figured,
    Numbers,
    draw_line,
    finish,
    panels_of,
    shares,
)


def budget_curve(total_steps: int, start: int, minimum: int, decay: float, step: int = 0) -> Figured:
    """Draw B_t over a run with one step marked, and beside it the length reward at that step.

    Raises:
        ValueError: as ``budget_at_step``.
    """
    budget = budget_at_step(step, total_steps, start, minimum, decay)  # complains before anything is drawn
    figure, (left, right) = panels_of(2, 3.4)
    budgets = [budget_at_step(t, total_steps, start, minimum, decay) for t in range(total_steps + 1)]
    left.step(range(total_steps + 1), budgets, where="post", color=BLUE, linewidth=2, label="budget B_t")
    left.axhline(minimum, color="black", linestyle=":", linewidth=1, label=f"B_min = {minimum}")
    left.plot([step], [budget], "s", color=RED, markersize=9, label=f"B_t at step {step}: {budget}")
    alt = _draw_triangle(right, budget, 2.1 * start)  # one range for all steps: a slider shows it narrow
    finish(figure, left, "step t", "tokens", columns=0)
    finish(figure, right, "thought length (tokens)", "length reward", columns=0)
    for ax, top in ((left, start), (right, 1)):
        ax.set_ylim(0, 1.4 * top)
        ax.legend(fontsize=9, loc="upper right", framealpha=1, edgecolor="white")
    told = f"The budget falls from {budgets[0]} to {budgets[-1]} tokens over {total_steps} steps; at step {step} it is"
    return Figured(figure, f"{told} {budget}. {alt}")


def length_triangle(budget: int) -> Figured:
    """Draw the length reward over thought length, from the formula.

    Example:
        >>> length_triangle(4).alt
        'The length reward rises from 0 at no tokens to 1 at the budget of 4, and is 0 again from 8 on.'
    """
    figure, (ax,) = panels_of(1, 3.4)
    alt = _draw_triangle(ax, budget, 2.5 * budget)
    finish(figure, ax, "thought length (tokens)", "length reward")
    return Figured(figure, alt)


def reward_by_length(
    length_weight: float, budget: int, length: int, right: bool = True, only_if_correct: bool = False
) -> Figured:
    """Draw the total reward over thought length, of a right answer and of a wrong one, with one rollout marked.

    Args:
        length_weight: w.
        budget: B_t, tokens.
        length: of the marked rollout's thought, tokens.
        right: whether its answer is.
        only_if_correct: our departure, length_if_correct.

    Raises:
        ValueError: as ``total_reward`` and ``length_reward``.
    """

    def worth(match: bool, tokens: float) -> float:
        return total_reward(float(match), length_reward(tokens, budget), length_weight, only_if_correct)

    marked = worth(right, length)  # complains before anything is drawn
    figure, (ax,) = panels_of(1, 3.4)
    corners = [0, budget, thought_cap(budget), max(2.5 * budget, 1.05 * length)]
    for (colour, line, _), match, name in zip(LOOKS, (True, False), ("right", "wrong"), strict=False):
        ax.plot(corners, [worth(match, x) for x in corners], line, color=colour, linewidth=2, label=f"{name} answer")
    ax.plot([length], [marked], "o" if right else "s", color="black", markersize=9, label=f"the rollout: {marked:.2f}")
    ax.axvline(budget, color="black", linestyle=":", linewidth=1, label=f"B_t = {budget}")
    ax.set(xlim=(0, corners[-1]), ylim=(-0.03, 1.05))
    finish(figure, ax, "thought length (tokens)", "total reward")
    least, most = worth(True, 0), worth(False, budget)
    verdict = (
        "the worst right one earns more than the best wrong one"
        if least > most
        else "the best wrong one earns as much as the worst right one"
        if math.isclose(least, most)
        else "a wrong one of the right length earns more than a right one of the wrong length"
    )
    return Figured(
        figure,
        f"With w = {length_weight:g} a right answer earns {least:.2f} to {worth(True, budget):.2f}, a wrong one 0.00 "
        f"to {most:.2f}: {verdict}. A {'right' if right else 'wrong'} answer after {length} tokens, under a budget of "
        f"{budget}, earns {marked:.2f}.",
    )


def curriculum_curve(
    total_steps: int, early: Numbers, late: Numbers, start: float = 0.3, end: float = 0.7, step: int | None = None
) -> Figured:
    """Draw the curriculum's probabilities p_t over a whole run, with t1 and t2 marked, and one step if it is named.

    Raises:
        ValueError: as ``tier_probabilities``.
    """
    marked = None if step is None else tier_probabilities(step, total_steps, early, late, start, end)
    chances = [tier_probabilities(t, total_steps, early, late, start, end) for t in range(total_steps + 1)]
    figure, (ax,) = panels_of(1, 3.4)
    for tier, look in enumerate(LOOKS):
        draw_line(ax, range(total_steps + 1), [p[tier] for p in chances], look, TIERS[tier])
    for x, name in ((start * total_steps, "t1"), (end * total_steps, "t2")):
        ax.axvline(x, color="black", linestyle=":", linewidth=1)
        ax.annotate(name, (x, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points")
    ax.set_ylim(0, 1.05 * max(max(p) for p in chances))
    told = f"Up to step {start * total_steps:g} the curriculum draws {shares(chances[0])}"
    told = f"{told}; from step {end * total_steps:g} on {shares(chances[-1])}."
    if step is not None and marked is not None:
        ax.axvline(step, color="black", linewidth=1)
        for chance, (colour, _, marker) in zip(marked, LOOKS, strict=True):
            ax.plot([step], [chance], marker, color=colour, markersize=10, markeredgecolor="black")
        mean = [math.fsum(p[tier] for p in chances[:-1]) / total_steps for tier in range(len(TIERS))]
        told += f" At step {step} it draws {shares(marked)}; over the whole run {shares(mean)}."
    finish(figure, ax, "step t", "probability of the tier")
    return Figured(figure, told)


def tier_draws(
    total_steps: int,
    early: Numbers,
    late: Numbers,
    sizes: Sequence[int],
    per_step: int,
    start: float = 0.3,
    end: float = 0.7,
    seed: int = 0,
) -> Figured:
    """Let ``TierSampler`` draw a run's positions, and draw each step's shares beside p_t, a panel a tier.

    The band is p_t give or take two standard deviations of a share of ``per_step`` independent draws.

    Args:
        total_steps: T.
        early: p_early.
        late: p_late.
        sizes: easy, medium and hard positions that a step's documents offer.
        per_step: positions drawn a step.
        start: t1 / T.
        end: t2 / T.
        seed: of the sampler.

    Raises:
        ValueError: as ``TierSampler``, or where there is nothing to draw.
    """
    tiers = torch.tensor([tier for tier, size in enumerate(sizes) for _ in range(size)], dtype=torch.long)
    if not len(tiers) or per_step < 1:
        raise ValueError(f"sizes={tuple(sizes)}, per_step={per_step}: nothing to draw; at least one of each is needed")
    sampler = TierSampler(total_steps, early, late, start, end, seed)
    asked = [tier_probabilities(step, total_steps, early, late, start, end) for step in range(total_steps)]
    drawn = [tiers[sampler.sample(tiers, per_step, step)].bincount(minlength=len(TIERS)) for step in range(total_steps)]
    figure, panels = panels_of(len(TIERS), 3.2)
    told, steps = [], range(total_steps)
    for tier, (ax, (colour, line, marker)) in enumerate(zip(panels, LOOKS, strict=True)):
        chance = [p[tier] for p in asked]
        noise = [math.sqrt(p * (1 - p) / per_step) for p in chance]
        low, high = ([p + sign * 2 * by for p, by in zip(chance, noise, strict=True)] for sign in (-1, 1))
        ax.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        share = [int(count[tier]) / int(count.sum()) for count in drawn]
        ax.plot(steps, share, marker, color=colour, alpha=0.5, markersize=4, markeredgewidth=0)
        ax.plot(steps, chance, line, color="black", linewidth=1.5)
        ax.set_title(TIERS[tier], fontsize=10)
        ax.set_ylim(-0.03, 1.03)
        finish(figure, ax, "step (line: p_t)", "" if tier else "share of a step's draws", columns=0)
        expected = per_step * math.fsum(chance)
        spread = per_step * math.sqrt(math.fsum(by * by for by in noise))
        told.append(f"{sampler.counts[tier]} {TIERS[tier]} where p_t asks for {expected:.0f} give or take {spread:.0f}")
    return Figured(figure, f"Drawn over {total_steps} steps: {'; '.join(told)}.")


def document_tree(trunk: Sequence[str], branches: Sequence[tuple[int, Sequence[str]]]) -> Figured:
    """Draw a document tree over position ids, and below it who sees whom.

    Args:
        trunk: the document's tokens as text.
        branches: the index at which each leaves the trunk, and its tokens as text.
    """
    rows = [(0, trunk), *branches]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.42 * len(rows) + 3.4), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=[0.6 + 0.42 * len(rows), 3.4])
    for row, (start, tokens) in enumerate(rows):
        colour = BLUE if row else GREY
        for place, token in enumerate(tokens):
            look: dict[str, Any] = {"facecolor": colour, "alpha": 0.35, "edgecolor": colour}
            upper.add_patch(Rectangle((start + place - 0.45, -row - 0.3), 0.9, 0.6, **look))
            upper.text(start + place, -row, token, ha="center", va="center", size=6.5)
        if row:
            upper.plot([start - 0.5] * 2, [-row - 0.3, -0.35], ":", color=colour, linewidth=1.5)
    upper.set(xlim=(-0.8, max(start + len(tokens) for start, tokens in rows) - 0.2), ylim=(0.6 - len(rows), 0.6))
    upper.set(yticks=range(0, -len(rows), -1), yticklabels=["trunk", *(f"branch at {start}" for start, _ in branches)])
    upper.xaxis.set_major_locator(MultipleLocator(1))
    mask = tree_mask(len(trunk), [(start, len(tokens)) for start, tokens in branches])
    lower.imshow(mask, cmap="Blues", vmin=0, vmax=1.6, interpolation="nearest")
    border = -0.5
    for _, tokens in rows:
        border += len(tokens)
        for line in (lower.axhline, lower.axvline):
            line(border, color="white", linewidth=2)
    finish(figure, upper, "position id", "", columns=0)
    finish(figure, lower, "keys: trunk, then branches", "queries", columns=0)
    for ax in (upper, lower):
        ax.grid(False)
    return Figured(
        figure,
        f"A trunk of {len(trunk)} tokens with {len(branches)} branches, at {', '.join(str(at) for at, _ in branches)}; "
        f"position ids go on from there. Of {mask.numel()} pairs of query and key {int(mask.sum())} are seen: each "
        f"branch sees the trunk up to its position and itself so far, and no other branch.",
    )


def _draw_triangle(ax: Axes, budget: int, end: float) -> str:
    cap = thought_cap(budget)
    lengths = [0, budget, cap, end]
    ax.set_xlim(0, end)
    ax.plot(lengths, [length_reward(x, budget) for x in lengths], color=BLUE, linewidth=2, label="length reward")
    ax.axvline(budget, color="black", linestyle="--", linewidth=1, label=f"B_t = {budget}")
    ax.axvline(cap, color="black", linestyle=":", linewidth=1, label=f"cap = {cap}")
    return f"The length reward rises from 0 at no tokens to 1 at the budget of {budget}, and is 0 again from {cap} on."
