"""Figures of what GRPO does with a group: advantages, signal, the clip, the leash of the KL, and the loss's value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rmt_mini.method.grpo import group_advantages, groups_with_signal, kl_estimate, rl_loss
from rmt_mini.report.plots.canvas import (
    BLUE,
    GREY,
    LOOKS,
    ORANGE,
    RED,
    Figured,
    Numbers,
    draw_line,
    finish,
    panels_of,
    span,
)


def advantage_bars(groups: Sequence[Numbers]) -> Figured:
    """Draw the rewards of some groups, and beside them the advantages with and without division by the deviation.

    Args:
        groups: the rewards of each group, at least one.
    """
    figure, (left, right) = panels_of(2, 3.4)
    ticks, names, told, first = [], [], [], 0.0
    for number, rewards in enumerate(groups):
        group = torch.tensor(rewards, dtype=torch.float64)
        scaled, plain = (group_advantages(group, len(group), scale=scale).tolist() for scale in (True, False))
        mean, places = float(group.mean()), [first + place for place in range(len(rewards))]
        hidden = "_" if number else ""  # from the legend, which names the first group's marks
        left.plot(places, rewards, "o", color=BLUE, label=f"{hidden}rewards")
        ends = [places[0] - 0.4, places[-1] + 0.4]
        left.plot(ends, [mean] * 2, "--", color=RED, linewidth=2, label=f"{hidden}their mean")
        for values, shift, colour, hatch, name in (
            (scaled, -0.2, BLUE, "", "scaled: divided by std"),
            (plain, 0.2, ORANGE, "//", "not scaled"),
        ):
            at = [place + shift for place in places]
            right.bar(at, values, 0.4, color=colour, hatch=hatch, edgecolor="white", label=f"{hidden}{name}")
        ticks.append((places[0] + places[-1]) / 2)
        names.append(f"group {number + 1}" if len(groups) > 1 else f"{len(rewards)} rollouts")
        first += len(rewards) + 1
        told.append(f"{names[-1]}, rewards {_listed(rewards)}, mean {mean:.2f}: {_told(scaled, plain)}")
    right.axhline(0, color="black", linewidth=1)
    for ax, unit in ((left, "reward"), (right, "advantage")):
        ax.set(xticks=ticks, xticklabels=names, xlim=(-0.8, first - 1.2))
        finish(figure, ax, "", unit, columns=0)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    return Figured(figure, f"{'; '.join(told)}.".capitalize())


def _told(scaled: Sequence[float], plain: Sequence[float]) -> str:
    if not any(plain):
        return "all advantages are 0"
    return f"advantages scaled {_listed(scaled)}, not scaled {_listed(plain)}"


def _listed(values: Numbers) -> str:
    return ", ".join(f"{value:z.2f}" for value in values)


def signal_curve(pass_rate: float, group_size: int, groups: int = 400, seed: int = 0) -> Figured:
    """Draw the share of groups with a signal over the pass rate, from its formula and from simulated groups.

    A group whose rollouts are each right with probability p has a signal unless all are right or all wrong:
    1 - p^G - (1 - p)^G.

    Args:
        pass_rate: p, 0 to 1, the one that is marked.
        group_size: G.
        groups: simulated at each point.
        seed: of the simulation.

    Raises:
        ValueError: if a value lies outside its range.
    """
    if not 0 <= pass_rate <= 1:
        raise ValueError(f"pass_rate={pass_rate} lies outside 0..1; it is the share of right rollouts")
    if group_size < 1 or groups < 1:
        raise ValueError(f"group_size={group_size} and groups={groups} must be at least 1")
    generator = torch.Generator().manual_seed(seed)

    def simulated(rate: float) -> float:
        rewards = (torch.rand(groups, group_size, generator=generator) < rate).float()
        return float(groups_with_signal(rewards, group_size).float().mean())

    marked, seen = _signal(pass_rate, group_size), simulated(pass_rate)
    rates = [place / 60 for place in range(61)]
    others = [size for size in (group_size // 2, 2 * group_size) if size]
    figure, (ax,) = panels_of(1, 3.6)
    for size, look in zip((group_size, *others), LOOKS, strict=False):
        draw_line(ax, rates, [_signal(rate, size) for rate in rates], look, f"G = {size}")
    few = rates[::4]
    ax.plot(few, [simulated(rate) for rate in few], "x", color="black", markersize=6, label=f"{groups} groups each")
    ax.plot([pass_rate], [marked], "s", color=ORANGE, markeredgecolor="black", markersize=10, label="the pass rate")
    ax.set_ylim(-0.03, 1.05)
    finish(figure, ax, "pass rate p: share of rollouts that are right", "groups with a signal", percent=True)
    told = ", ".join(f"{100 * _signal(pass_rate, size):.1f} % with G = {size}" for size in others)
    return Figured(
        figure,
        f"At a pass rate of {100 * pass_rate:.0f} % and G = {group_size}, {100 * marked:.1f} % of groups carry a "
        f"signal ({told}); of {groups} simulated groups {100 * seen:.1f} % did.",
    )


def _signal(rate: float, size: int) -> float:
    return float(1 - rate**size - (1 - rate) ** size)


def clip_curve(ratio: float, epsilon: float, size: float = 1.0) -> Figured:
    """Draw what GRPO maximises over the ratio pi / pi_old, for an advantage of either sign, with one ratio marked.

    Args:
        ratio: the one that is marked, above 0.
        epsilon: of the clip, above 0.
        size: of the advantage, above 0.

    Raises:
        ValueError: if a value lies outside its range.
    """
    if not ratio > 0 or not size > 0:
        raise ValueError(f"ratio={ratio} and size={size} must be above 0; a ratio of probabilities cannot be 0 here")
    top = max(2.0, 1.1 * ratio)
    corners = torch.tensor([max(0.02, 1 - epsilon), 1 + epsilon], dtype=torch.float64)
    ratios = torch.cat([torch.linspace(0.02, top, 50, dtype=torch.float64), corners]).sort().values
    figure, panels = panels_of(2, 3.4)
    told = []
    for ax, advantage in zip(panels, (size, -size), strict=True):
        gain, slope = _gain(ratios, advantage, epsilon)
        still = slope == 0
        ax.plot(ratios, ratios * advantage, ":", color=GREY, linewidth=2, label="ratio * A")
        ax.plot(ratios.where(~still, torch.nan), gain, "-", color=BLUE, linewidth=2, label="with the clip")
        ax.plot(ratios.where(still, torch.nan), gain, "--", color=RED, linewidth=3, label="clipped: no gradient")
        (here,), (push,) = _gain(torch.tensor([ratio], dtype=torch.float64), advantage, epsilon)
        ax.plot([ratio], [here], "s", color=ORANGE, markeredgecolor="black", markersize=9, label="the ratio")
        for border in (1 - epsilon, 1 + epsilon):
            ax.axvline(border, color="black", linestyle=":", linewidth=1)
        ax.set(title=f"A = {advantage:+g}", xlim=(0, top))
        finish(figure, ax, "ratio pi / pi_old", "objective" if advantage > 0 else "", columns=0)
        if advantage > 0:
            figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
        way = "up" if push > 0 else "down"
        told.append(
            f"With advantage {advantage:+g} the objective is {here:z.2f}, "
            + ("clipped, without a gradient" if push == 0 else f"and its gradient pushes the token {way}")
        )
    return Figured(figure, f"At a ratio of {ratio:g} and epsilon {epsilon:g}. {'. '.join(told)}.")


def _gain(ratios: Tensor, advantage: float, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return minus the loss of one token at each ratio, and its slope in the token's log-probability."""
    logprobs = ratios.log()[:, None].requires_grad_()
    one, mask = torch.tensor([advantage], dtype=ratios.dtype), torch.ones(1, 1, dtype=torch.bool)
    losses = [
        rl_loss(row[None], one, mask, old_logprobs=torch.zeros_like(row[None]), clip_epsilon=epsilon)
        for row in logprobs
    ]
    gain = -torch.stack(losses)
    (slope,) = torch.autograd.grad(gain.sum(), logprobs)
    return gain.detach(), slope[:, 0]


def kl_estimates(policy: Numbers, reference: Numbers, samples: int, seed: int = 0) -> Figured:
    """Draw two distributions over a small vocabulary, and what estimators of their KL give against the exact value.

    Each estimator sees the probabilities of sampled tokens alone. Its mean over all tokens, each weighed by its
    probability under the policy, is exact; the whisker is the standard error of an average over ``samples`` tokens,
    and the cross one such average.

    Args:
        policy: probabilities, all above 0.
        reference: probabilities, all above 0.
        samples: tokens in an average.
        seed: of the tokens.

    Raises:
        ValueError: if the two are no such distributions, or samples is below 1.
    """
    p, q = (torch.tensor(values, dtype=torch.float64) for values in (policy, reference))
    for one in (p, q):
        if one.shape != p.shape or not bool((one > 0).all()) or abs(float(one.sum()) - 1) > 1e-6:
            raise ValueError("policy and reference must be probabilities of the same tokens, all above 0, with sum 1")
    if samples < 1:
        raise ValueError(f"samples={samples} must be at least 1")
    difference = p.log() - q.log()
    exact = float((p * difference).sum())
    estimates = {
        "log p - log q": difference,
        "kl_estimate (k3)": kl_estimate(p.log(), q.log()),
        "k3, sign turned": kl_estimate(q.log(), p.log()),
    }
    tokens = torch.multinomial(p, samples, replacement=True, generator=torch.Generator().manual_seed(seed))
    figure, (left, right) = panels_of(2, 3.4)
    places = torch.arange(len(p))
    left.bar(places - 0.2, p, 0.4, color=BLUE, edgecolor="white", label="policy p")
    left.bar(places + 0.2, q, 0.4, color=ORANGE, hatch="//", edgecolor="white", label="reference q")
    right.axhline(exact, color="black", linestyle="--", linewidth=1, label=f"exact KL(p || q) = {exact:z.3f}")
    told = []
    for place, ((name, values), (colour, _, marker)) in enumerate(zip(estimates.items(), LOOKS, strict=True)):
        mean = float((p * values).sum())
        error = float(((p * (values - mean) ** 2).sum() / samples).sqrt())
        right.errorbar(place, mean, yerr=error, fmt=marker, color=colour, capsize=4, markersize=8)
        seen = float(values[tokens].mean())
        right.plot([place], [seen], "x", color="black", markersize=8)
        told.append(f"{name} {mean:z.3f}, standard error {error:.3f}, sampled {seen:z.3f}")
    left.legend(fontsize=9, frameon=False)
    right.legend(fontsize=9, frameon=False)
    right.set(xticks=range(len(estimates)), xticklabels=[name.replace(" (", "\n(") for name in estimates])
    right.set(xlim=(-0.6, len(estimates) - 0.4))
    right.margins(y=0.25)
    left.set_xticks(places)
    finish(figure, left, "token", "probability", columns=0)
    finish(figure, right, "", f"nats, over {samples} tokens", columns=0)
    return Figured(figure, f"Exact KL(p || q) is {exact:z.3f} nats. On average: {'; '.join(told)}.")


def loss_and_reward(series: Mapping[str, Numbers]) -> Figured:
    """Draw loss, gradient norm, reward or whatever else a small training leaves, a panel each.

    Args:
        series: name -> a value a step.
    """
    figure, panels = panels_of(len(series), 2.8)
    told = []
    for place, (ax, (name, values)) in enumerate(zip(panels, series.items(), strict=True)):
        colour, line, _ = LOOKS[place % len(LOOKS)]
        ax.plot(range(len(values)), values, line, color=colour, linewidth=1.5)
        ax.set_title(name, fontsize=10)
        low, high = min(values), max(values)
        ax.set_ylim(min(low, 0.0) - 0.05, max(high, 1.0) + 0.05)  # one scale: what is near 0 shall look near 0
        finish(figure, ax, "step", "", columns=0)
        told.append(f"{name} {span(values, 'z.2f')}, at least {low:z.2f} and at most {high:z.2f}")
    return Figured(figure, f"Over {max(map(len, series.values()))} steps: {'; '.join(told)}.")
