"""What a step did, counted: the line that it writes into metrics.jsonl."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch

from rmt_mini.config import RMTConfig
from rmt_mini.engine.memory import peak_memory_mb
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.rollout import lay_out
from rmt_mini.method import budget_of, groups_with_signal, probabilities_of
from rmt_mini.records import Judged, Rollout, StepMetrics, Text
from rmt_mini.stages.difficulty import PROBES, Pool

Part = Literal["rollout", "update", "trunk"]  # a step's two halves, and what of both the trunks took


class Clock:
    """Seconds of a step's parts; a part may come several times, or lie inside another."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, defaultdict[Part, float](float)

    @contextmanager
    def __call__(self, part: Part) -> Iterator[None]:
        """Add what the block takes."""
        began = self._now()
        yield
        self.seconds[part] += self._now() - began

    def _now(self) -> float:
        """Return the time at which a GPU has done all that it was given: else a part waits for the one before."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


@dataclass(frozen=True, slots=True)
class Update:
    """One update of the weights."""

    rl: float
    ntp: float
    loss: float  # L = L_RL + lambda * L_NTP
    ntp_tokens: int
    branches: Sequence[Rollout]  # that were read and trained on
    by_reference: bool  # whether the reference of the KL read trunks and branches too
    tokens: float = 0.0  # of those branches that were sampled; below, sums over them
    kl: float = 0.0  # to the reference, nats, estimated
    clipped: float = 0.0  # tokens
    grad_norm: float = 0.0  # before clipping


@dataclass(frozen=True, slots=True)
class Work:
    """All that one step did."""

    step: int
    texts: Sequence[Text]
    chosen: Pool
    judged: Sequence[Judged]
    updates: Sequence[Update]  # none where one was not finite
    seconds: Mapping[Part, float]


def step_metrics(work: Work, policy: Policy, form: AnswerFormat, config: RMTConfig) -> StepMetrics:
    """Count a step.

    ``forward_tokens`` and ``backward_tokens`` count what was read and what was trained on, trunks and branches, each as
    often as it was; ``trunk_tokens`` are those that the policy read to train on. ``skipped`` is 1 where the update was
    not finite.

    Three are means over sampled tokens (thoughts, decisions to close, answers), None where they are not known:

    - ``policy_entropy``, nats, at the temperature of sampling: minus the log-probability of a sampled token, which is
      an unbiased estimate of the entropy of what it was drawn from;
    - ``kl``, nats, of the policy that sampled to the policy RMT began with (k3), if ``kl_weight`` is above 0;
    - ``clip_share``, over all updates: the tokens trained on whose gradient the clip removed, if ``clip_epsilon`` is
      above 0.
    """
    judged, updates, size = work.judged, work.updates, config.group_size
    tiers = [one.rollout.position.tier for one in judged[::size]]
    by_tier = [sum(len(one.rollout.logprobs) for one in judged if one.rollout.position.tier == n) for n in range(3)]
    signal = groups_with_signal(torch.tensor([one.match for one in judged]), size).tolist() if judged else []
    trunk = sum(len(text.ids) for text in work.texts)
    trunk_tokens = trunk * max(1, len(updates))
    trained = [branch_tokens(form, work.texts, update.branches) for update in updates]
    referred = [trunk + own for own, update in zip(trained, updates, strict=True) if update.by_reference]
    sampled = branch_tokens(form, work.texts, [one.rollout for one in judged], size)
    probed = branch_tokens(form, work.texts, work.chosen.probes, PROBES) + work.chosen.trunk_reads * trunk
    last = updates[-1] if updates else Update(0.0, 0.0, 0.0, 0, (), False)
    logprobs = [logprob for one in judged for logprob in one.rollout.logprobs]
    first, read = updates[0] if updates else last, sum(update.tokens for update in updates)
    return StepMetrics(
        step=work.step,
        budget=budget_of(config, work.step),
        tier_probabilities=probabilities_of(config, work.step),
        tier_counts=(tiers.count(0), tiers.count(1), tiers.count(2)),
        match_reward=_mean([one.match for one in judged]),
        length_reward=_mean([one.length_reward for one in judged]),
        reward=_mean([one.reward for one in judged]),
        thought_length=_mean([one.rollout.length for one in judged]),
        closed_share=_mean([one.rollout.closed for one in judged]),
        signal_groups=_mean(signal),
        rl_loss=last.rl,
        ntp_loss=last.ntp,
        grad_norm=last.grad_norm,
        rl_tokens=sum(by_tier),
        rl_tokens_by_tier=(by_tier[0], by_tier[1], by_tier[2]),
        ntp_tokens=last.ntp_tokens,
        forward_tokens=trunk_tokens + sampled + probed + sum(trained) + sum(referred),
        backward_tokens=sum(trained) + trunk * len(updates),
        trunk_tokens=trunk_tokens,
        skipped=int(not updates),
        rollout_seconds=work.seconds["rollout"],
        update_seconds=work.seconds["update"],
        trunk_seconds=work.seconds["trunk"],
        peak_memory_mb=peak_memory_mb(policy.device),
        policy_entropy=-_mean(logprobs) if logprobs else None,
        kl=first.kl / first.tokens if first.by_reference and first.tokens else None,
        clip_share=sum(update.clipped for update in updates) / read if config.clip_epsilon and read else None,
    )


def branch_tokens(form: AnswerFormat, texts: Sequence[Text], rollouts: Sequence[Rollout], sharing: int = 1) -> int:
    """Count the tokens of some rollouts' branches; ``sharing`` of them, side by side, read their opening once."""
    branches = [lay_out(form, texts[one.position.trunk].ids, one) for one in rollouts]
    openings = [len(branch.opening) for branch in branches]
    return sum(len(branch.tokens) for branch in branches) - sum(openings) + sum(openings[::sharing])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
