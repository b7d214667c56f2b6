"""Reinforcement mid-training: the paper's algorithm as a short loop.

One step t of T:

    1. read N documents; the entropies of their tokens give the tiers          (section 2 of the paper's method, CAS)
    2. draw the positions C by the curriculum p_t
    3. at each, sample G thoughts and answers under the budget B_t             (DTB)
    4. reward (1 - w) * match + w * length; advantages within each group
    5. L = L_RL on C + lambda * L_NTP on every other position                  (dual objective)

Departures from the paper: L_NTP and, by default, L_RL are means over their own tokens where the paper writes sums, so
that lambda means the same for every document length (``loss_per='rollout'`` gives the paper's L_RL). The positions
are drawn from all documents of a step together. A group without spread has advantage zero and is left out of the
backward pass; the gradient is the same. The reference of the optional KL is the policy RMT began with.
"""

from __future__ import annotations

import copy
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig
from rmt_mini.engine.logits import target_logprobs
from rmt_mini.engine.memory import peak_memory_mb
from rmt_mini.engine.model import Policy, make_policy
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.rollout import Asking, chunks, lay_out, roll_out, rollout_logprobs
from rmt_mini.engine.text import Text, endless, generator_for, outside
from rmt_mini.engine.tree import Trunks, backward_through_trunk
from rmt_mini.errors import NonFiniteError
from rmt_mini.method.budget import length_reward, thought_cap
from rmt_mini.method.curriculum import tier_probabilities
from rmt_mini.method.entropy import tiers_by_score
from rmt_mini.method.grpo import group_advantages, groups_with_signal, rl_loss
from rmt_mini.method.objective import ntp_loss, rmt_loss
from rmt_mini.method.rewards import total_reward
from rmt_mini.method.schedule import budget_of, budgets_for, sampler_for
from rmt_mini.records import Judged, Position, Rollout, StepMetrics
from rmt_mini.stages.difficulty import PROBES, score_positions
from rmt_mini.stages.material import Difficulty, format_for, on_device
from rmt_mini.stages.optimizer import MasterAdamW, require_finite
from rmt_mini.stages.state import State

logger = logging.getLogger(__name__)

SKIPPED_IN_A_ROW = 5  # updates that may be skipped before a run gives up


def asking_for(config: RMTConfig, budgets: Sequence[int], answer_temperature: float | None = None) -> Asking:
    """Return how thoughts are asked for under a budget for each position: stated unless off, closed at twice it."""
    return Asking(
        [budget if config.use_budget else None for budget in budgets],
        [thought_cap(budget) if config.use_thinking else 0 for budget in budgets],
        config.temperature,
        answer_temperature=answer_temperature,
    )


def judge(
    rollouts: Sequence[Rollout], form: AnswerFormat, trunks: Trunks, config: RMTConfig, budget: int
) -> list[Judged]:
    """Reward rollouts and compare each with its group; see section 4 of the loop.

    Two controls part from it. ``rl_rule`` "shuffled" deals all rewards of the step out at random before groups are
    compared. With "correct" the advantage is the match itself: right rollouts are learned by heart, no matter how the
    others of their group did, which is supervised learning on the model's own right answers.
    """
    texts = [ids.tolist() for ids in trunks.ids]
    rewarded = []
    for rollout in rollouts:
        match = form.judge(rollout.answer, texts[rollout.position.trunk], rollout.position.index)
        length = length_reward(rollout.length, rollout.budget or budget) if config.use_budget else 0.0
        weight = config.length_weight if config.use_budget else 0.0
        rewarded.append((match, length, total_reward(match, length, weight, config.length_if_correct)))
    if config.rl_rule == "shuffled":
        # the rollouts themselves seed the deal, so that a step means the same wherever a run was taken up again
        random.Random(f"{config.seed}/{[rollout.logprobs for rollout in rollouts]}").shuffle(rewarded)
    if config.rl_rule == "correct":
        advantages = [match for match, _, _ in rewarded]
    else:
        rewards = torch.tensor([reward for _, _, reward in rewarded], dtype=torch.float64)
        advantages = group_advantages(rewards, config.group_size, scale=config.scale_advantages).tolist()
    return [Judged(one, *parts, by) for one, parts, by in zip(rollouts, rewarded, advantages, strict=True)]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step leaves behind: its metrics, its texts, and its rollouts, whose positions count the texts."""

    metrics: StepMetrics
    texts: Sequence[Text]
    judged: list[Judged]


class RMTTrainer:
    """Mid-train a policy by RMT.

    Args:
        config: all settings.
        policy: the model, trained in place.
        texts: training texts.
        judge: rewards rollouts; a control may pass another (shuffled rewards, say).
        form: the answer format, where it is not the one that the configuration names (post-training asks questions).
    """

    def __init__(
        self,
        config: RMTConfig,
        policy: Policy,
        texts: Sequence[Text],
        judge: Callable[[Sequence[Rollout], AnswerFormat, Trunks, RMTConfig, int], list[Judged]] = judge,
        form: AnswerFormat | None = None,
    ) -> None:
        self.config, self.policy, self.texts, self.judge = config, policy, texts, judge
        self.form = form or format_for(policy, config)
        self.difficulty = Difficulty(policy, config, texts)
        self.sampler = sampler_for(config)
        self.optimizer = MasterAdamW(policy.model, config.learning_rate, config.weight_decay, config.max_grad_norm)
        self.next_step = self.skipped_in_a_row = self.skipped = 0
        self.reference = None  # the policy as it is now, for the KL and for learning progress
        if config.use_rl and (config.kl_weight or config.difficulty == "learning-progress"):
            self.reference = make_policy(
                "reference", copy.deepcopy(policy.model).requires_grad_(False), policy.tokenizer
            )

    def fit(self, on_step: Callable[[StepResult], None] | None = None) -> list[StepMetrics]:
        """Run all steps that are left; ``on_step`` sees each as it ends."""
        history = []
        config, size = self.config, self.config.documents_per_step
        documents = endless(self.texts, config.seed, self.next_step * size)
        for step in range(self.next_step, config.steps):
            result = self.step(step, [next(documents) for _ in range(size)])
            self.next_step = step + 1
            history.append(result.metrics)
            if on_step is not None:
                on_step(result)
        if self.skipped > 1:
            logger.warning("%d updates were skipped; metrics.jsonl says which", self.skipped)
        return history

    def state(self) -> State:
        """Return everything that the steps to come depend on, beside settings, texts and seed."""
        tensors = self.optimizer.state_dict()
        if self.reference is not None:
            tensors |= {f"reference/{name}": p.detach() for name, p in self.reference.model.named_parameters()}
        sampler = self.sampler.state_dict()
        tensors["sampler"] = sampler.pop("generator")
        thresholds = list(self.difficulty.thresholds)
        return State(
            tensors,
            {"step": self.next_step, "sampler": sampler, "thresholds": thresholds, "skipped": self.skipped_in_a_row},
        )

    def load_state(self, state: State) -> None:
        """Go on where another trainer, of the same settings, texts and seed, stood; the weights are its as well."""
        of_reference = {name.removeprefix("reference/"): t for name, t in state.tensors.items() if "reference/" in name}
        self.optimizer.load_state_dict(
            {name: t for name, t in state.tensors.items() if "reference/" not in name and name != "sampler"}
        )
        if self.reference is not None:
            with torch.no_grad():
                for name, parameter in self.reference.model.named_parameters():
                    parameter.copy_(of_reference[name])
        self.sampler.load_state_dict(state.plain["sampler"] | {"generator": state.tensors["sampler"]})
        low, high = state.plain["thresholds"]
        self.difficulty.thresholds = (low, high)
        self.next_step, self.skipped_in_a_row = state.plain["step"], state.plain["skipped"]

    def step(self, step: int, texts: Sequence[Text]) -> StepResult:
        """Run step ``step`` on some texts.

        Raises:
            NonFiniteError: if a loss or a gradient is not finite; the weights are as before then.
        """
        config, began = self.config, time.perf_counter()
        generator = generator_for(config.seed, "rollout", step)
        budget = budget_of(config, step)
        trunks = self.policy.tree.read(on_device(texts, self.policy))
        require_finite(
            f"step {step}: the hidden state of a document",
            torch.cat(list(trunks.hidden)),
            f"the weights have run away; lower learning_rate ({config.learning_rate}) and begin again",
        )
        read = time.perf_counter() - began
        judged: list[Judged] = []
        positions, extra = self._choose(texts, trunks, step)
        if config.use_rl:
            asking = self.ask(budget, positions)
            rollouts = roll_out(self.policy, self.form, trunks, positions, config.group_size, asking, generator)
            judged = self.judge(rollouts, self.form, trunks, config, budget)
        sampled = time.perf_counter()
        losses = self._update(step, texts, trunks, positions, judged)
        losses["trunk_seconds"] += read
        losses["forward_tokens"] += extra
        return StepResult(
            self._metrics(step, budget, judged, losses, sampled - began, time.perf_counter() - sampled), texts, judged
        )

    def _update(
        self,
        step: int,
        texts: Sequence[Text],
        trunks: Trunks,
        positions: Sequence[Position],
        judged: Sequence[Judged],
    ) -> dict[str, Any]:
        """Take the step's updates; returns losses, gradient norm and token counts.

        Where something is not finite nothing of it reaches the weights; ``on_nan`` says whether the run goes on.
        """
        trunk = sum(len(text.ids) for text in texts)
        found: dict[str, Any] = {"rl_loss": 0.0, "ntp_loss": 0.0, "grad_norm": 0.0, "ntp_tokens": 0, "skipped": 0}
        found |= {"trunk_tokens": trunk, "trunk_seconds": 0.0}
        found |= {
            "rl_tokens": sum(len(j.rollout.logprobs) for j in judged),
            "forward_tokens": trunk
            + tokens_read(self.form, texts, [j.rollout for j in judged], self.config.group_size),
            "backward_tokens": 0,
        }
        several = self.config.updates_per_step > 1
        start = {name: value.clone() for name, value in self.optimizer.state_dict().items()} if several else None
        nothing = dict(found)
        try:
            for update in range(self.config.updates_per_step):
                if update > 0:
                    trunks = self.policy.tree.read(trunks.ids)
                    found["forward_tokens"] += trunk
                    found["trunk_tokens"] += trunk
                losses, branches, reference, seconds = self._accumulate(texts, trunks, positions, judged)
                began = time.perf_counter()
                found |= losses | {"grad_norm": self.optimizer.step()}
                found["trunk_seconds"] += seconds + time.perf_counter() - began
                found["forward_tokens"] += branches + reference
                found["backward_tokens"] += branches + trunk
        except NonFiniteError as error:
            self.optimizer.drop_gradients()
            if start is not None:
                self.optimizer.load_state_dict(start)  # takes back the step's earlier updates
            self._go_on_after(error, step)
            return nothing | {"skipped": 1}
        self.skipped_in_a_row = 0
        return found

    def _go_on_after(self, error: NonFiniteError, step: int) -> None:
        """Stop the run, or count a step that was skipped."""
        self.skipped_in_a_row += 1
        self.skipped += 1
        rate = f"lower learning_rate ({self.config.learning_rate})"
        if self.config.on_nan == "stop":
            raise NonFiniteError(
                f"step {step}: {error}; the weights are those of the step before; {rate}, or skip such steps (on_nan)",
                can_skip=True,
            ) from error
        if self.skipped_in_a_row >= SKIPPED_IN_A_ROW:
            raise NonFiniteError(
                f"step {step}: {error}, as in the {SKIPPED_IN_A_ROW - 1} steps before; {rate}"
            ) from error
        if self.skipped == 1:  # once: a run of thousands of steps may skip many
            logger.warning("Step %d: %s; its update is skipped, and so are others like it", step, error)

    def ask(self, budget: int, positions: Sequence[Position]) -> Asking:
        """Return how thoughts are asked for in a step; a measurement may ask for another length."""
        return asking_for(self.config, budgets_for(self.config, budget, positions))

    def _choose(self, texts: Sequence[Text], trunks: Trunks, step: int) -> tuple[list[Position], int]:
        """Draw the set C of this step, sorted by trunk and index; empty where no RL takes place.

        Returns:
            C, and the tokens that were read to find out how hard positions are, beside the documents.
        """
        config = self.config
        if not config.use_rl:
            return [], 0
        measured = self.difficulty.entropy(trunks)
        entropies, tiers = ([one.tolist() for one in all_] for all_ in (measured, self.difficulty.tiers(measured)))
        pool = [
            Position(n, index, tiers[n][index], entropies[n][index])
            for n, text in enumerate(texts)
            for index in text.places
        ]
        wanted, extra = config.positions_per_document * len(texts), 0
        if config.difficulty != "entropy":
            pool, extra = self._by_difficulty(pool, texts, trunks, wanted, step)
        drawn = self.sampler.sample(torch.tensor([position.tier for position in pool]), wanted, step)
        return [pool[place] for place in sorted(drawn.tolist())], extra

    def _by_difficulty(
        self, pool: Sequence[Position], texts: Sequence[Text], trunks: Trunks, wanted: int, step: int
    ) -> tuple[list[Position], int]:
        """Deal the tiers out anew by another measure than entropy; returns the positions, and the tokens it read."""
        config = self.config
        budget, generator = budget_of(config, step), generator_for(config.seed, "difficulty", step)
        scored = score_positions(
            config.difficulty, self.policy, self.reference, self.form, trunks, pool, wanted,
            lambda positions: self.ask(budget, positions), generator,
        )  # fmt: skip
        kept = [pool[place] for place in scored.kept]
        tiers = tiers_by_score(
            scored.score, torch.tensor([one.tier for one in kept]), torch.tensor([one.entropy for one in kept])
        )
        read = scored.trunk_reads * sum(len(text.ids) for text in texts)
        read += tokens_read(self.form, texts, scored.rollouts, PROBES)
        return [replace(one, tier=tier) for one, tier in zip(kept, tiers.tolist(), strict=True)], read

    def _accumulate(
        self, texts: Sequence[Text], trunks: Trunks, positions: Sequence[Position], judged: Sequence[Judged]
    ) -> tuple[dict[str, Any], int, int, float]:
        """Leave the gradients of the dual objective on the model.

        Returns:
            The losses, the branch tokens that were read for them, the tokens that the reference of the KL read, and the
            seconds that went to the trunks.
        """
        config = self.config
        leaves = trunks.detached()
        reference = None
        if self.reference is not None and config.kl_weight:
            with torch.no_grad():
                reference = self.reference.tree.read(trunks.ids)
        rl_tokens = sum(len(j.rollout.logprobs) for j in judged)
        rl_total, read = 0.0, 0
        silent_too = reference is not None  # a group without signal still feels the KL
        heard = {id(j.rollout): j for j in judged if silent_too or j.advantage != 0.0}
        for part in chunks([j.rollout for j in heard.values()], self.form, config.branch_tokens):
            chunk = [heard[id(rollout)] for rollout in part]
            loss = self._rl_loss(leaves, reference, chunk, rl_tokens if config.loss_per == "token" else len(judged))
            require_finite("the RL loss", loss)
            loss.backward()
            rl_total += float(loss.detach())
            read += tokens_read(self.form, texts, part)
        began = time.perf_counter()
        ntp, ntp_tokens = self._ntp_loss(texts, trunks, positions)
        require_finite("the next-token loss", ntp)
        zero = ntp.new_zeros(())
        weight = config.ntp_weight if config.use_ntp else 0.0
        backward_through_trunk(trunks, leaves, rmt_loss(zero, ntp, weight) if weight else None)
        losses = {"rl_loss": rl_total, "ntp_loss": float(ntp.detach()), "ntp_tokens": ntp_tokens}
        by_reference = 0 if reference is None else sum(map(len, trunks.ids)) + read
        return losses, read, by_reference, time.perf_counter() - began

    def _rl_loss(self, trunks: Trunks, reference: Trunks | None, judged: Sequence[Judged], count: int) -> Tensor:
        config = self.config
        rollouts = [j.rollout for j in judged]
        logprobs, mask = rollout_logprobs(self.policy, self.form, trunks, rollouts, config.temperature)
        old = other = None
        if config.clip_epsilon:
            flat = torch.tensor(
                [lp for r in rollouts for lp in r.logprobs], dtype=logprobs.dtype, device=logprobs.device
            )
            old = torch.zeros_like(logprobs).masked_scatter(mask, flat)
        if self.reference is not None and reference is not None:
            with torch.no_grad():
                other, _ = rollout_logprobs(self.reference, self.form, reference, rollouts, config.temperature)
        return rl_loss(
            logprobs,
            torch.tensor([j.advantage for j in judged], dtype=logprobs.dtype, device=logprobs.device),
            mask,
            old_logprobs=old,
            clip_epsilon=config.clip_epsilon or None,
            reference_logprobs=other,
            kl_weight=config.kl_weight,
            normalise=config.loss_per,
            count=count,
        )

    def _ntp_loss(self, texts: Sequence[Text], trunks: Trunks, positions: Sequence[Position]) -> tuple[Tensor, int]:
        """Next-token loss on every known token outside C, and how many those are."""
        hidden, targets = [], []
        for n, mask in enumerate(outside(texts, positions)):
            places = mask.nonzero()[:, 0].to(self.policy.device)
            hidden.append(trunks.hidden[n][places - 1])
            targets.append(trunks.ids[n][places])
        wanted = torch.cat(targets)
        with torch.set_grad_enabled(self.config.use_ntp):
            logprobs = target_logprobs(self.policy.head, torch.cat(hidden), wanted)
        return ntp_loss(logprobs, torch.ones_like(wanted, dtype=torch.bool)), len(wanted)

    def _metrics(
        self,
        step: int,
        budget: int,
        judged: Sequence[Judged],
        losses: dict[str, Any],
        rollout_seconds: float,
        update_seconds: float,
    ) -> StepMetrics:
        config = self.config
        tiers = [j.rollout.position.tier for j in judged[:: config.group_size]]
        by_tier = [0, 0, 0]
        for one in judged:
            by_tier[one.rollout.position.tier] += len(one.rollout.logprobs)

        def mean(values: Sequence[float]) -> float:
            return sum(values) / max(1, len(values))

        matches = torch.tensor([j.match for j in judged])
        signal = groups_with_signal(matches, config.group_size).tolist() if judged else []
        return StepMetrics(
            step=step,
            budget=budget,
            tier_probabilities=tier_probabilities(
                step,
                config.steps,
                config.tier_probs_early,
                config.tier_probs_late,
                config.curriculum_start,
                config.curriculum_end,
            ),
            tier_counts=(tiers.count(0), tiers.count(1), tiers.count(2)),
            rl_tokens_by_tier=(by_tier[0], by_tier[1], by_tier[2]),
            match_reward=mean([j.match for j in judged]),
            length_reward=mean([j.length_reward for j in judged]),
            reward=mean([j.reward for j in judged]),
            thought_length=mean([j.rollout.length for j in judged]),
            closed_share=mean([float(j.rollout.closed) for j in judged]),
            signal_groups=mean([float(s) for s in signal]),
            rollout_seconds=rollout_seconds,
            update_seconds=update_seconds,
            peak_memory_mb=peak_memory_mb(self.policy.device),
            **losses,
        )


def tokens_read(form: AnswerFormat, texts: Sequence[Text], rollouts: Sequence[Rollout], sharing: int = 1) -> int:
    """Count the tokens of some rollouts' branches; ``sharing`` of them, side by side, read their opening once."""
    sizes = [len(lay_out(form, texts[one.position.trunk].ids, one).tokens) for one in rollouts]
    openings = [len(form.opening(one.budget or None)) for one in rollouts]
    return sum(sizes) - sum(openings) + sum(openings[::sharing])
