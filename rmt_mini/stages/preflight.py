"""Before RL: will GRPO have any signal here?

A group whose rollouts all earn the same match reward teaches nothing about the answer. With RPT's first prompt pass@8
was 8.5 %, so more than nine groups in ten had no signal at the start. Measured on training text, by tier.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import fisher_exact

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.rollout import roll_out
from rmt_mini.engine.text import format_for
from rmt_mini.files import Predicted, Preflight, SeenTier
from rmt_mini.method import TIERS, budget_of, budgets_for
from rmt_mini.records import Judged, Rollout, Text
from rmt_mini.stages.evaluate import in_batches, matches, plan_positions
from rmt_mini.stages.midtrain import asking_for


@torch.no_grad()
def preflight(policy: Policy, texts: Sequence[Text], config: RMTConfig, positions: int | None = None) -> Preflight:
    """Sample groups at positions of every tier, and measure their signal; shares are of 1."""
    form, size, budget = format_for(policy, config), config.group_size, budget_of(config, 0)
    chosen = plan_positions(policy, texts[:24], config, positions or config.preflight_positions, texts)
    rollouts: list[Rollout] = []
    for trunks, batch, generator in in_batches(policy, texts, chosen, config, "preflight", size):
        asking = asking_for(config, budgets_for(config, budget, batch))
        rollouts += roll_out(policy, form, trunks, batch, size, asking, generator)
    found = (matches(form, texts, rollouts), [one.length for one in rollouts], [one.closed for one in rollouts])
    right, lengths, closed = (torch.tensor(values).float().view(-1, size) for values in found)  # (positions, G)
    spread = (right.amax(1) > right.amin(1)).float()
    tiers = torch.tensor([position.tier for position in chosen])
    shares = {"accuracy": right.mean(1), "pass_at_g": right.amax(1), "signal_groups": spread}
    predicted = {}
    for tier, name in enumerate(TIERS):
        own = tiers == tier
        known = {share: float(values[own].mean()) if own.any() else None for share, values in shares.items()}
        predicted[name] = Predicted(positions=int(own.sum()), **known)
    report = Preflight(
        tiers=predicted,
        signal_groups=float(spread.mean()),
        closed_share=float(closed.mean()),
        thought_length=float(lengths.mean()),
        length_spread=float(lengths.std(1, unbiased=False).mean()),
        budget=budget,
        advice=[],
    )
    return report.model_copy(update={"advice": _advice(report, config)})


def groups_seen(judged: Sequence[Judged], group_size: int) -> list[tuple[int, bool]]:
    """Return each group's tier, and whether it carried a match signal."""
    groups = [judged[start : start + group_size] for start in range(0, len(judged), group_size)]
    return [(group[0].rollout.position.tier, len({one.match for one in group}) > 1) for group in groups]


def signal_by_tier(groups: Sequence[tuple[int, bool]]) -> dict[str, SeenTier]:
    """Count, by tier, the groups of training steps and the share with a match signal, None where there is no group."""
    spreads = [[signal for of_tier, signal in groups if of_tier == tier] for tier in range(len(TIERS))]
    return {
        name: SeenTier(groups=len(spread), signal_groups=sum(spread) / len(spread) if spread else None)
        for name, spread in zip(TIERS, spreads, strict=True)
    }


def agreement(predicted: Predicted, seen: SeenTier) -> bool | None:
    """Test by Fisher's exact test at 5 % whether a tier has a signal as often as predicted; None: no group."""
    if predicted.signal_groups is None or seen.signal_groups is None:
        return None
    pairs = ((predicted.signal_groups, predicted.positions), (seen.signal_groups, seen.groups))
    counts = np.array([[round(share * total), round((1 - share) * total)] for share, total in pairs])
    return bool(fisher_exact(counts).pvalue >= 0.05)


def _advice(report: Preflight, config: RMTConfig) -> list[str]:
    """List what to change where a signal is missing."""
    found, steps = [], f"raise warmup_steps ({config.warmup_steps})"
    signal, closed = f"only {report.signal_groups:.0%} of", f"only {report.closed_share:.0%} of"
    if report.signal_groups < 0.1:
        more = f"{steps}, group_size ({config.group_size}) or temperature ({config.temperature})"
        found.append(f"{signal} groups carry a match signal: {more}, or begin with easier tiers")
    if report.closed_share < 0.2 and config.use_thinking:
        why = "thoughts that all run into the cap leave the length reward without a spread"
        found.append(f"{closed} thoughts close themselves: {steps}" + (f"; {why}" if config.use_budget else ""))
    if report.thought_length < 1 and config.use_thinking:
        found.append(f"thoughts have collapsed to nothing: lower warmup_learning_rate ({config.warmup_learning_rate})")
    empty = [name for name, tier in report.tiers.items() if tier.positions == 0]
    remedy = f"move tier_thresholds {config.tier_thresholds}, or use tier_rule quantile"
    return found + [f"no position is {name}: {remedy}" for name in empty]
