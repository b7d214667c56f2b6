"""Figures of the method, from its formulas: budget, curriculum, groups, clip and KL, the dual objective, the tree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, MultipleLocator
from torch import Tensor

from rmt_mini.engine.attention import tree_mask
from rmt_mini.method.budget import budget_at_step, length_reward, thought_cap
from rmt_mini.method.curriculum import TierSampler, tier_probabilities
from rmt_mini.method.entropy import TIERS
from rmt_mini.method.grpo import group_advantages, groups_with_signal, kl_estimate, rl_loss
from rmt_mini.method.rewards import total_reward
from rmt_mini.report.markdown import words
from rmt_mini.report.plots import canvas
from rmt_mini.report.plots.canvas import BLUE, GREY, LOOKS, ORANGE, RED, Figured, Numbers

__all__ = [
    "advantage_bars", "budget_curve", "clip_curve", "closing_slope", "closing_slopes", "curriculum_curve",
    "document_tree", "gradient_shares", "kl_estimates", "length_chances", "length_triangle", "loss_and_reward",
    "ntp_share", "reward_by_length", "shared_against_copied", "signal_curve", "symptom_curves", "tier_draws",
]  # fmt: skip
WEIGHTS = tuple(10 ** (exponent / 20) for exponent in range(-60, 21))  # lambda from 0.001 to 10
CHANCES = tuple(place / 100 for place in range(1, 100))
RULES = {  # which closings take a loss
    "own closings (right)": {"own": True, "environment": False},
    "every closing": {"own": True, "environment": True},
    "no closing": {"own": False, "environment": False},
}

# Budget and curriculum


def budget_curve(total_steps: int, start: int, minimum: int, decay: float, step: int = 0) -> Figured:
    """Draw B_t over a run with one step marked, and beside it the length reward at that step."""
    budget = budget_at_step(step, total_steps, start, minimum, decay)
    budgets = [budget_at_step(t, total_steps, start, minimum, decay) for t in range(total_steps + 1)]
    figure, (left, right) = canvas.panels(2, 3.4)
    left.step(range(total_steps + 1), budgets, where="post", color=BLUE, linewidth=2, label="budget B_t")
    canvas.rule(left, y=minimum, name=f"B_min = {minimum}")
    canvas.mark(left, step, budget, (RED, "s"), f"B_t at step {step}: {budget}")
    _triangle(right, budget, 2.1 * start)  # one range for all steps: a slider shows it narrow
    canvas.label(left, "step t", "tokens", ylim=(0, 1.4 * start))
    return canvas.done(figure, words("budget_curve", budgets, step, budget), inside=(left, right))


def length_triangle(budget: int) -> Figured:
    """Draw the length reward over thought length, from the formula.

    Example:
        >>> length_triangle(4).alt
        'The length reward rises from 0 at no tokens to 1 at the budget of 4, and is 0 again from 8 on.'
    """
    figure, (ax,) = canvas.panels(1, 3.4)
    _triangle(ax, budget, 2.5 * budget)
    return canvas.done(figure, words("length_triangle", budget), 3)


def _triangle(ax: Axes, budget: int, end: float) -> None:
    lengths = [0, budget, thought_cap(budget), end]
    ax.plot(lengths, [length_reward(x, budget) for x in lengths], color=BLUE, linewidth=2, label="length reward")
    canvas.rule(ax, x=budget, name=f"B_t = {budget}", line="--")
    canvas.rule(ax, x=thought_cap(budget), name=f"cap = {thought_cap(budget)}")
    canvas.label(ax, "thought length (tokens)", "length reward", xlim=(0, end), ylim=(0, 1.4))


def reward_by_length(
    length_weight: float, budget: int, length: int, right: bool = True, only_if_correct: bool = False
) -> Figured:
    """Draw the total reward over thought length, of a right answer and of a wrong one, with one rollout marked."""

    def worth(match: bool, tokens: float) -> float:
        return total_reward(float(match), length_reward(tokens, budget), length_weight, only_if_correct)

    marked, ends = worth(right, length), [[worth(match, x) for x in (0, budget)] for match in (True, False)]
    figure, (ax,) = canvas.panels(1, 3.4)
    corners = [0, budget, thought_cap(budget), max(2.5 * budget, 1.05 * length)]
    for (colour, line, _), match, name in zip(LOOKS, (True, False), ("right", "wrong"), strict=False):
        ax.plot(corners, [worth(match, x) for x in corners], line, color=colour, linewidth=2, label=f"{name} answer")
    canvas.mark(ax, length, marked, ("black", "o" if right else "s"), f"the rollout: {marked:.2f}")
    canvas.rule(ax, x=budget, name=f"B_t = {budget}")
    canvas.label(ax, "thought length (tokens)", "total reward", xlim=(0, corners[-1]), ylim=(-0.03, 1.05))
    order = 0 if math.isclose(ends[0][0], ends[1][1]) else 1 if ends[0][0] > ends[1][1] else -1
    return canvas.done(figure, words("reward_by_length", length_weight, budget, length, right, ends, marked, order), 4)


def curriculum_curve(
    total_steps: int, early: Numbers, late: Numbers, start: float = 0.3, end: float = 0.7, step: int | None = None
) -> Figured:
    """Draw the curriculum's probabilities p_t over a whole run, with t1 and t2 marked, and one step if it is named."""
    marked = None if step is None else tier_probabilities(step, total_steps, early, late, start, end)
    chances = [tier_probabilities(t, total_steps, early, late, start, end) for t in range(total_steps + 1)]
    curves = {tier: [p[n] for p in chances] for n, tier in enumerate(TIERS)}
    figure, (ax,) = canvas.panels(1, 3.4)
    canvas.lines(ax, range(total_steps + 1), curves)
    borders = [start * total_steps, end * total_steps]
    for x, name in zip(borders, ("t1", "t2"), strict=True):
        canvas.rule(ax, x=x)
        ax.annotate(name, (x, 1), (3, 3), xycoords=("data", "axes fraction"), textcoords="offset points")
    if step is not None and marked is not None:
        canvas.rule(ax, x=step, line="-")
        for chance, (colour, _, marker) in zip(marked, LOOKS, strict=True):
            canvas.mark(ax, step, chance, (colour, marker))
    mean = [math.fsum(curve[:-1]) / total_steps for curve in curves.values()]
    canvas.label(ax, "step t", "probability of the tier", ylim=(0, 1.05 * max(max(p) for p in chances)))
    return canvas.done(figure, words("curriculum_curve", borders, chances, step, marked, mean), 3)


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

    The band is p_t give or take two standard deviations of a share of ``per_step`` independent draws; ``sizes`` are the
    easy, medium and hard positions that a step's documents offer.
    """
    tiers = torch.arange(len(TIERS)).repeat_interleave(torch.tensor(sizes))
    if not len(tiers) or per_step < 1:
        raise ValueError(f"sizes={tuple(sizes)}, per_step={per_step}: nothing to draw; at least one of each is needed")
    sampler, steps = TierSampler(total_steps, early, late, start, end, seed), range(total_steps)
    chances = torch.tensor([tier_probabilities(t, total_steps, early, late, start, end) for t in steps]).double()
    drawn = torch.stack([tiers[sampler.sample(tiers, per_step, t)].bincount(minlength=len(TIERS)) for t in steps])
    noise = (chances * (1 - chances) / per_step).sqrt()
    figure, axes = canvas.panels(len(TIERS), 3.2)
    for tier, (ax, (colour, line, marker)) in enumerate(zip(axes, LOOKS, strict=True)):
        p, band = chances[:, tier], 2 * noise[:, tier]
        ax.fill_between(steps, p - band, p + band, color=colour, alpha=0.15, linewidth=0)
        ax.plot(steps, drawn[:, tier] / drawn.sum(1), marker, color=colour, alpha=0.5, markersize=4, markeredgewidth=0)
        ax.plot(steps, p, line, color="black", linewidth=1.5)
        unit = "" if tier else "share of a step's draws"
        canvas.label(ax, "step (line: p_t)", unit, ylim=(-0.03, 1.03), title=TIERS[tier])
    asked, spread = per_step * chances.sum(0), per_step * noise.square().sum(0).sqrt()
    rows = zip(sampler.counts, TIERS, asked.tolist(), spread.tolist(), strict=True)
    return canvas.done(figure, words("tier_draws", total_steps, list(rows)))


# Groups, clip and KL


def advantage_bars(groups: Sequence[Numbers]) -> Figured:
    """Draw the rewards of some groups, and beside them the advantages with and without division by the deviation."""
    figure, (left, right) = canvas.panels(2, 3.4)
    names = [f"group {n + 1}" if len(groups) > 1 else f"{len(group)} rollouts" for n, group in enumerate(groups)]
    ticks, rows, first = [], [], 0
    for number, rewards in enumerate(groups):
        group, places = torch.tensor(rewards, dtype=torch.float64), [first + n for n in range(len(rewards))]
        scaled, plain = (group_advantages(group, len(group), scale=scale).tolist() for scale in (True, False))
        mean, hidden = float(group.mean()), "_" if number else ""  # the legend names the first group's marks
        left.plot(places, rewards, "o", color=BLUE, label=f"{hidden}rewards")
        left.hlines(mean, places[0] - 0.4, places[-1] + 0.4, RED, "--", linewidth=2, label=f"{hidden}their mean")
        right.bar([x - 0.2 for x in places], scaled, 0.4, color=BLUE, label=f"{hidden}scaled: divided by std")
        look: dict[str, Any] = {"color": ORANGE, "hatch": "//", "edgecolor": "white"}
        right.bar([x + 0.2 for x in places], plain, 0.4, label=f"{hidden}not scaled", **look)
        ticks.append((places[0] + places[-1]) / 2)
        first += len(rewards) + 1
        rows.append((names[number], rewards, mean, scaled, plain))
    canvas.rule(right, y=0, line="-")
    for ax, unit in ((left, "reward"), (right, "advantage")):
        canvas.label(ax, "", unit, xticks=ticks, xticklabels=names, xlim=(-0.8, first - 1.2))
    return canvas.done(figure, words("advantage_bars", rows).capitalize(), 4)


def signal_curve(pass_rate: float, group_size: int, groups: int = 400, seed: int = 0) -> Figured:
    """Draw the share of groups with a signal over the pass rate, from its formula and from simulated groups.

    A group whose rollouts are each right with probability p has a signal unless all are right or all wrong:
    1 - p^G - (1 - p)^G.
    """
    if not 0 <= pass_rate <= 1:
        raise ValueError(f"pass_rate={pass_rate} lies outside 0..1; it is the share of right rollouts")
    if group_size < 1 or groups < 1:
        raise ValueError(f"group_size={group_size} and groups={groups} must be at least 1")
    generator = torch.Generator().manual_seed(seed)

    def exact(rate: float, size: int) -> float:
        return float(1 - rate**size - (1 - rate) ** size)

    def simulated(rate: float) -> float:
        rewards = (torch.rand(groups, group_size, generator=generator) < rate).float()
        return float(groups_with_signal(rewards, group_size).float().mean())

    seen, rates = simulated(pass_rate), [place / 60 for place in range(61)]
    sizes = [size for size in (group_size, group_size // 2, 2 * group_size) if size]
    figure, (ax,) = canvas.panels(1, 3.6)
    canvas.lines(ax, rates, {f"G = {size}": [exact(rate, size) for rate in rates] for size in sizes})
    few, marked = rates[::4], {size: exact(pass_rate, size) for size in sizes}
    ax.plot(few, [simulated(rate) for rate in few], "x", color="black", markersize=6, label=f"{groups} groups each")
    canvas.mark(ax, pass_rate, marked[group_size], (ORANGE, "s"), "the pass rate")
    axis = "pass rate p: share of rollouts that are right"
    canvas.label(ax, axis, "groups with a signal", percent=True, ylim=(-0.03, 1.05))
    return canvas.done(figure, words("signal_curve", pass_rate, group_size, marked, groups, seen), 5)


def clip_curve(ratio: float, epsilon: float, size: float = 1.0) -> Figured:
    """Draw what GRPO maximises over the ratio pi / pi_old, for an advantage +-``size``, with one ratio marked."""
    if not ratio > 0 or not size > 0:
        raise ValueError(f"ratio={ratio} and size={size} must be above 0; a ratio of probabilities cannot be 0 here")
    top, corners = max(2.0, 1.1 * ratio), torch.tensor([max(0.02, 1 - epsilon), 1 + epsilon], dtype=torch.float64)
    ratios = torch.cat([torch.linspace(0.02, top, 50, dtype=torch.float64), corners]).sort().values
    figure, axes = canvas.panels(2, 3.4)
    rows = []
    for ax, advantage, hidden in zip(axes, (size, -size), ("", "_"), strict=True):
        gain, slope = _gain(ratios, advantage, epsilon)
        ax.plot(ratios, ratios * advantage, ":", color=GREY, linewidth=2, label=f"{hidden}ratio * A")
        ax.plot(ratios.where(slope != 0, torch.nan), gain, color=BLUE, linewidth=2, label=f"{hidden}with the clip")
        still: dict[str, Any] = {"color": RED, "linewidth": 3, "label": f"{hidden}clipped: no gradient"}
        ax.plot(ratios.where(slope == 0, torch.nan), gain, "--", **still)
        (here,), (push,) = (
            one.tolist() for one in _gain(torch.tensor([ratio], dtype=torch.float64), advantage, epsilon)
        )
        canvas.mark(ax, ratio, here, (ORANGE, "s"), f"{hidden}the ratio")
        for border in (1 - epsilon, 1 + epsilon):
            canvas.rule(ax, x=border)
        canvas.label(ax, "ratio pi / pi_old", "" if hidden else "objective", title=f"A = {advantage:+g}", xlim=(0, top))
        rows.append((advantage, here, push))
    return canvas.done(figure, words("clip_curve", ratio, epsilon, rows), 4)


def _gain(ratios: Tensor, advantage: float, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return minus the loss of one token at each ratio, and its slope in the token's log-probability."""
    logprobs = ratios.log()[:, None].requires_grad_()
    one, mask = torch.tensor([advantage], dtype=ratios.dtype), torch.ones(1, 1, dtype=torch.bool)
    old = torch.zeros(1, 1, dtype=ratios.dtype)
    gain = -torch.stack([rl_loss(row[None], one, mask, old_logprobs=old, clip_epsilon=epsilon) for row in logprobs])
    (slope,) = torch.autograd.grad(gain.sum(), logprobs)
    return gain.detach(), slope[:, 0]


def kl_estimates(policy: Numbers, reference: Numbers, samples: int, seed: int = 0) -> Figured:
    """Draw two distributions over a small vocabulary, and what estimators of their KL give against the exact value.

    Each estimator's mean over all tokens is exact; the whisker is the standard error of an average over ``samples``
    tokens, and the cross one such average.
    """
    p, q = (torch.tensor(values, dtype=torch.float64) for values in (policy, reference))
    for one in (p, q):
        if one.shape != p.shape or not bool((one > 0).all()) or abs(float(one.sum()) - 1) > 1e-6:
            raise ValueError("policy and reference must be probabilities of the same tokens, all above 0, with sum 1")
    if samples < 1:
        raise ValueError(f"samples={samples} must be at least 1")
    estimates = {
        "log p - log q": p.log() - q.log(),
        "kl_estimate (k3)": kl_estimate(p.log(), q.log()),
        "k3, sign turned": kl_estimate(q.log(), p.log()),
    }
    exact = float((p * estimates["log p - log q"]).sum())
    tokens = torch.multinomial(p, samples, replacement=True, generator=torch.Generator().manual_seed(seed))
    figure, (left, right) = canvas.panels(2, 3.4)
    series = {"policy p": (BLUE, "", p.tolist()), "reference q": (ORANGE, "//", q.tolist())}
    canvas.bars(left, [str(n) for n in range(len(p))], series, "")
    canvas.rule(right, y=exact, name=f"exact KL(p || q) = {exact:z.3f}", line="--")
    rows = []
    for place, ((name, values), (colour, _, marker)) in enumerate(zip(estimates.items(), LOOKS, strict=True)):
        mean, seen = float((p * values).sum()), float(values[tokens].mean())
        error = float(((p * (values - mean) ** 2).sum() / samples).sqrt())
        right.errorbar(place, mean, yerr=error, fmt=marker, color=colour, capsize=4, markersize=8)
        right.plot([place], [seen], "x", color="black", markersize=8)
        rows.append((name, mean, error, seen))
    right.margins(y=0.25)
    names = [name.replace(" (", "\n(") for name in estimates]
    canvas.label(left, "token", "probability")
    canvas.label(right, "", f"nats, over {samples} tokens", xticks=range(3), xticklabels=names, xlim=(-0.6, 2.6))
    return canvas.done(figure, words("kl_estimates", exact, rows), inside=(left, right))


# The dual objective and the tree


def ntp_share(rl: float, ntp: float, weight: float) -> float:
    """Return lambda |g_NTP| / (|g_RL| + lambda |g_NTP|), or 0 if both are zero.

    Example:
        >>> ntp_share(rl=1.0, ntp=5.0, weight=0.2), ntp_share(0.0, 0.0, 1.0)
        (0.5, 0.0)
    """
    part = weight * ntp
    return part / (rl + part) if rl + part > 0 else 0.0


def gradient_shares(rl: float, ntp: float, cosine: float, weight: float) -> Figured:
    """Draw the two parts of the dual objective's gradient, and the share of the next-token part over lambda.

    ``rl`` and ``ntp`` are the norms of the gradients of L_RL and L_NTP (before lambda), ``cosine`` that between them.
    """
    part, share = weight * ntp, ntp_share(rl, ntp, weight)
    both = math.sqrt(max(0.0, rl**2 + part**2 + 2 * cosine * rl * part))
    figure, (left, right) = canvas.panels(2, 3.2)
    series = {"RL": (BLUE, "", [rl]), "lambda x NTP": (ORANGE, "//", [part]), "the step": (GREY, "..", [both])}
    canvas.bars(left, [""], series, "{:.3g}")
    right.plot(WEIGHTS, [ntp_share(rl, ntp, one) for one in WEIGHTS], color=ORANGE, linewidth=2)
    canvas.rule(right, y=0.5)
    canvas.mark(right, max(weight, WEIGHTS[0]), share, (RED, "s"))
    canvas.label(left, "", "norm of the gradient", ylim=(0, 1.15 * max(rl, part, both) or 1))
    unit = "share of the next-token part"
    canvas.label(right, "lambda (left end: 0 too)", unit, True, xscale="log", ylim=(-0.03, 1.03))
    return canvas.done(figure, words("gradient_shares", rl, ntp, part, both, share, cosine, weight), 3)


def length_chances(chance: float, budget: int) -> list[float]:
    """Return the probability of each thought length, 0 to the cap, where every token closes with one chance.

    Example:
        >>> length_chances(0.5, budget=1)  # lengths 0 and 1 close themselves; 2 is the cap
        [0.5, 0.25, 0.25]
    """
    cap = thought_cap(budget)
    return [chance * (1 - chance) ** length for length in range(cap)] + [(1 - chance) ** cap]


def closing_slope(chance: float, budget: int, own: bool = True, environment: bool = False) -> float:
    """Return the exact mean of GRPO's gradient in the logit of the closing chance, under the length reward alone.

    d/dtheta of sum_l P(l) A_l log pi(l), with chance = sigmoid(theta), A_l = r_l - mean and A_l constant: a thought
    token, which did not close, gives -chance, a closing that takes a loss 1 - chance. ``own`` trains the closings that
    the model chose, ``environment`` those that were written at the cap, which is wrong.
    """
    chances = length_chances(chance, budget)
    rewards = [length_reward(length, budget) for length in range(len(chances))]
    mean = sum(p * reward for p, reward in zip(chances, rewards, strict=True))
    slope = 0.0
    for length, (p, reward) in enumerate(zip(chances, rewards, strict=True)):
        trained = environment if length == len(chances) - 1 else own
        slope += p * (reward - mean) * ((1 - chance) * trained - chance * length)
    return slope


def closing_slopes(budget: int, chance: float) -> Figured:
    """Draw how long thoughts are that close with one chance at every token, and where training pushes the chance."""
    if not 0 < chance < 1:
        raise ValueError(f"chance={chance} must lie between 0 and 1, ends excluded; try 0.02")
    lengths = length_chances(chance, budget)
    figure, (left, right) = canvas.panels(2, 3.4)
    left.bar(range(len(lengths) - 1), lengths[:-1], 0.8, color=BLUE, label="closed itself")
    look: dict[str, Any] = {"color": ORANGE, "hatch": "//", "edgecolor": "white"}
    left.bar(len(lengths) - 1, lengths[-1], 0.8, label="closed at the cap", **look)
    canvas.rule(left, x=budget, name=f"B = {budget}", line="--")
    curves = {name: [closing_slope(one, budget, **given) for one in CHANCES] for name, given in RULES.items()}
    canvas.lines(right, CHANCES, curves)
    slopes = {name: closing_slope(chance, budget, **given) for name, given in RULES.items()}
    for (colour, _, marker), slope in zip(LOOKS, slopes.values(), strict=True):
        canvas.mark(right, chance, slope, (colour, marker))
    canvas.rule(right, y=0, line="-")
    canvas.rule(right, x=chance)
    canvas.label(left, "thought length (tokens)", "probability")
    canvas.label(right, "chance of closing, p", "slope of the mean length reward")
    mean = sum(length * p for length, p in enumerate(lengths))
    alt = words("closing_slopes", chance, budget, mean, lengths[-1], slopes)
    return canvas.done(figure, alt, inside=(left, right))


def shared_against_copied(
    tokens: tuple[int, int], pairs: tuple[int, int], lengths: Sequence[int], savings: Mapping[str, Numbers], length: int
) -> Figured:
    """Draw what a step reads as a tree and as padded rows, and how many times less over the document's length.

    ``tokens`` and ``pairs`` (of query and key) are those of the tree and of rows, ``savings`` rows over tree at each of
    the document ``lengths``, and ``length`` is the document's.
    """
    figure, (left, middle, right) = canvas.panels(3, 3.2)
    for ax, (tree, rows), unit in ((left, tokens, "tokens"), (middle, pairs, "attention pairs")):
        canvas.bars(ax, [""], {"tree": (BLUE, "", [tree]), "padded rows": (ORANGE, "//", [rows])}, "{:,}")
        canvas.label(ax, "", unit, ylim=(0, 1.15 * max(tree, rows)))
        ax.yaxis.set_major_formatter(EngFormatter())
    canvas.lines(right, lengths, savings)
    canvas.rule(right, x=length)
    canvas.label(right, "document (tokens)", "rows / tree", xscale="log")
    right.set_ylim(bottom=0)
    return canvas.done(figure, words("shared_against_copied", length, tokens, pairs), inside=(left, right))


def document_tree(trunk: Sequence[str], branches: Sequence[tuple[int, Sequence[str]]]) -> Figured:
    """Draw a document tree over position ids, and below it who attends to whom; tokens are given as text."""
    rows = [(0, trunk), *branches]
    figure = Figure(figsize=(canvas.WIDTH, 4.4 + 0.42 * len(rows)), layout="constrained")
    upper, lower = figure.subplots(2, height_ratios=[0.6 + 0.42 * len(rows), 3.4])
    for row, (start, tokens) in enumerate(rows):
        colour = BLUE if row else GREY
        for x, token in enumerate(tokens, start):
            upper.add_patch(Rectangle((x - 0.45, -row - 0.3), 0.9, 0.6, fc=colour, alpha=0.35, ec=colour))
            upper.text(x, -row, token, ha="center", va="center", size=6.5)
        if row:
            upper.plot([start - 0.5] * 2, [-row - 0.3, -0.35], ":", color=colour, linewidth=1.5)
    ends = (-0.8, max(start + len(tokens) for start, tokens in rows) - 0.2)
    canvas.label(upper, "position id", xlim=ends, ylim=(0.6 - len(rows), 0.6), yticks=range(0, -len(rows), -1))
    upper.set_yticklabels(["trunk", *(f"branch at {start}" for start, _ in branches)])
    upper.xaxis.set_major_locator(MultipleLocator(1))
    mask = tree_mask(len(trunk), [(start, len(tokens)) for start, tokens in branches])
    lower.imshow(mask, cmap="Blues", vmin=0, vmax=1.6, interpolation="nearest")
    for row in range(len(rows)):
        border = sum(len(tokens) for _, tokens in rows[: row + 1]) - 0.5
        for line in (lower.axhline, lower.axvline):
            line(border, color="white", linewidth=2)
    canvas.label(lower, "keys: trunk, then branches", "queries")
    for ax in (upper, lower):
        ax.grid(False)
    return canvas.done(figure, words("document_tree", trunk, branches, mask.numel(), int(mask.sum())))


# Curves of small trainings


def loss_and_reward(series: Mapping[str, Numbers]) -> Figured:
    """Draw loss, gradient norm, reward or whatever else a small training leaves, a panel each."""
    figure, axes = canvas.panels(len(series), 2.8)
    for place, (ax, (name, values)) in enumerate(zip(axes, series.items(), strict=True)):
        ax.plot(values, LOOKS[place % 3][1], color=LOOKS[place % 3][0], linewidth=1.5)
        limits = (min(*values, 0.0) - 0.05, max(*values, 1.0) + 0.05)  # one scale: what is near 0 shall look near 0
        canvas.label(ax, "step", ylim=limits, title=name)
    return canvas.done(figure, words("loss_and_reward", series))


def symptom_curves(curves: Mapping[str, Numbers], x: str, y: str, wanted: float | None = None) -> Figured:
    """Draw what is seen of a bug over time: one line, or several to compare; ``wanted`` is where it should be.

    Example:
        >>> symptom_curves({"loss": [2.0, 1.0]}, "step", "nats").alt
        'nats over step: loss 2.00 at first and 1.00 at last, between 1.00 and 2.00.'
    """
    figure, (ax,) = canvas.panels(1, 2.8)
    for look, (name, values) in zip(canvas.FOUR_LOOKS * 2, curves.items(), strict=False):
        canvas.lines(ax, range(len(values)), {name: values}, looks=[look])
    if wanted is not None:
        canvas.rule(ax, y=wanted, name=f"wanted: {wanted:g}")
    canvas.label(ax, x, y)
    if min(min(values) for values in curves.values()) >= 0:
        ax.set_ylim(bottom=0)
    return canvas.done(figure, words("symptom_curves", curves, x, y, wanted), 5)
