"""Reinforcement mid-training: the paper's algorithm as a short loop.

One step t of T, as ``RMTTrainer.step`` takes it:

    1. read N documents; the entropies of their tokens give the tiers          (section 2 of the paper's method, CAS)
    2. draw the positions C by the curriculum p_t
    3. at each, sample G thoughts and answers under the budget B_t             (DTB)
    4. reward (1 - w) * match + w * length; advantages within each group
       (by ``reward_rule`` "information-gain" a gain takes the place of match, and the answer has no loss)
    5. L = L_RL on C + lambda * L_NTP on every other position                  (dual objective)
    6. update the weights

Differences from the paper: L_NTP and, by default, L_RL are means over their own tokens where the paper writes sums
(``loss_per='rollout'`` gives the paper's L_RL). The positions are drawn from all documents of a step together. The
reference of the optional KL is the policy RMT began with.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor

from rmt_mini import method
from rmt_mini.config import RMTConfig
from rmt_mini.engine.logits import target_logprobs
from rmt_mini.engine.memory import chunk_tokens
from rmt_mini.engine.model import Policy, make_policy
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.rollout import Asking, chunks, roll_out, rollout_logprobs
from rmt_mini.engine.text import endless, format_for, generator_for
from rmt_mini.engine.tree import Trunks, backward_through_trunk
from rmt_mini.errors import logger
from rmt_mini.records import Judged, Position, Rollout, State, StepMetrics, Text
from rmt_mini.stages.difficulty import Difficulty, Pool, Scoring, rescored
from rmt_mini.stages.metrics import Clock, Update, Work, step_metrics
from rmt_mini.stages.optimizer import Guard, MasterAdamW, require_finite


def asking_for(config: RMTConfig, budgets: Sequence[int], answer_temperature: float | None = None) -> Asking:
    """Return how thoughts are asked for under a budget for each position: stated unless off, closed at twice it."""
    return Asking(
        [budget if config.use_budget else None for budget in budgets],
        [method.thought_cap(budget) if config.use_thinking else 0 for budget in budgets],
        config.temperature,
        answer_temperature=answer_temperature,
    )


@torch.no_grad()
def gains_of(policy: Policy, trunks: Trunks, rollouts: Sequence[Rollout]) -> list[float]:
    """Return how much likelier each thought makes the text's token than plain prediction, nats."""
    positions = [one.position for one in rollouts]
    truths = torch.tensor([trunks.documents[one.trunk][one.index] for one in positions], device=policy.device)
    plain = target_logprobs(policy.head, trunks.before(positions), truths).double().cpu()
    return method.information_gain(torch.tensor([one.truth for one in rollouts], dtype=torch.float64), plain).tolist()


def thought_alone(judged: Judged) -> Judged:
    """Return a rollout without its answer: RLP samples none, so no loss is taken on it."""
    rollout = judged.rollout
    thought = rollout.logprobs[: len(rollout.logprobs) - len(rollout.answer)]
    return replace(judged, rollout=replace(rollout, answer=(), logprobs=thought))


def judge(
    rollouts: Sequence[Rollout],
    form: AnswerFormat,
    trunks: Trunks,
    config: RMTConfig,
    gains: Sequence[float] | None = None,
) -> list[Judged]:
    """Reward rollouts and compare each with its group; see point 4 of the loop.

    Two controls differ: ``rl_rule`` "shuffled" permutes the rewards of the whole step before groups are compared; with
    "correct" the advantage is the match itself, which is supervised learning on the model's own right answers.
    """
    rewarded = []
    earned: Sequence[float | None] = gains or [None] * len(rollouts)
    for rollout, gain in zip(rollouts, earned, strict=True):
        match = form.judge(rollout.answer, trunks.documents[rollout.position.trunk], rollout.position.index)
        length = 0.0 if rollout.budget is None else float(method.length_reward(rollout.length, rollout.budget))
        weight = 0.0 if rollout.budget is None else config.length_weight
        rewarded.append((match, length, method.total_reward(match, length, weight, config.length_if_correct, gain)))
    rewards = [reward for _, _, reward in rewarded]
    if config.rl_rule == "shuffled":
        # the rollouts themselves seed the permutation, so that a step is the same in a resumed run
        random.Random(f"{config.seed}/{[rollout.logprobs for rollout in rollouts]}").shuffle(rewards)
    if config.rl_rule == "correct":
        advantages = [match for match, _, _ in rewarded]
    else:
        compared = torch.tensor(rewards, dtype=torch.float64)
        advantages = method.group_advantages(compared, config.group_size, scale=config.scale_advantages).tolist()
    found = zip(rollouts, rewarded, rewards, advantages, strict=True)
    return [Judged(one, match, length, reward, by) for one, (match, length, _), reward, by in found]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a caller sees of a step; the positions of its rollouts count its texts."""

    metrics: StepMetrics
    texts: Sequence[Text]
    judged: list[Judged]


def text_loss(policy: Policy, trunks: Trunks, masks: Sequence[Tensor]) -> tuple[Tensor, int]:
    """L_NTP on the tokens that each document's mask marks, and how many those are."""
    places = [mask.nonzero()[:, 0].to(policy.device) for mask in masks]
    hidden = torch.cat([states[at - 1] for states, at in zip(trunks.hidden, places, strict=True)])
    targets = torch.cat([ids[at] for ids, at in zip(trunks.ids, places, strict=True)])
    logprobs = target_logprobs(policy.head, hidden, targets)
    return method.ntp_loss(logprobs, torch.ones_like(targets, dtype=torch.bool)), len(targets)


class RMTTrainer:
    """Mid-train a policy by RMT, in place.

    ``judge`` rewards rollouts; a control may pass another. ``form`` is the answer format, where it is not the one that
    the configuration names (post-training asks questions).
    """

    def __init__(
        self,
        config: RMTConfig,
        policy: Policy,
        texts: Sequence[Text],
        judge: Callable[..., list[Judged]] = judge,
        form: AnswerFormat | None = None,
    ) -> None:
        self.config, self.policy, self.texts, self.judge = config, policy, texts, judge
        self.form = form or format_for(policy, config)
        self.difficulty = Difficulty(policy, config, texts)
        self.sampler = method.sampler_for(config)
        self.optimizer = MasterAdamW(policy.model, config.learning_rate, config.weight_decay, config.max_grad_norm)
        self.guard = Guard(self.optimizer, config)
        self.next_step = 0
        self.reference = None  # the policy as it is now, for the KL and for learning progress
        if config.use_rl and (config.kl_weight or config.difficulty == "learning-progress"):
            frozen = copy.deepcopy(policy.model).requires_grad_(False)
            self.reference = make_policy("reference", frozen, policy.tokenizer)

    def fit(self, on_step: Callable[[StepResult], None] | None = None) -> list[StepMetrics]:
        """Run all steps that are left; ``on_step`` is called after each."""
        history = []
        config, size = self.config, self.config.documents_per_step
        documents = endless(self.texts, config.seed, self.next_step * size)
        for step in range(self.next_step, config.steps):
            result = self.step(step, [next(documents) for _ in range(size)])
            self.next_step = step + 1
            history.append(result.metrics)
            if on_step is not None:
                on_step(result)
        if self.guard.skipped > 1:
            logger.warning("%d updates were skipped; metrics.jsonl says which", self.guard.skipped)
        return history

    def step(self, step: int, texts: Sequence[Text]) -> StepResult:
        """Run step ``step`` on some texts; after a NonFiniteError the weights are as before."""
        config, clock = self.config, Clock(self.policy.device)
        judged: list[Judged] = []
        gains = None
        with clock("rollout"):
            trunks = self._read(step, texts, clock)
            chosen = self.choose(step, texts, trunks)
            if config.use_rl:
                asking = self.ask(method.budget_of(config, step), chosen.positions)
                asked = (self.policy, self.form, trunks, chosen.positions, config.group_size, asking)
                rollouts = roll_out(*asked, generator_for(config.seed, "rollout", step))
                if config.reward_rule == "information-gain":
                    gains = gains_of(self.policy, trunks, rollouts)
                judged = self.judge(rollouts, self.form, trunks, config, gains)
        learned = judged if gains is None else [thought_alone(one) for one in judged]
        with clock("update"), self.guard.step(step) as updates:
            for number in range(config.updates_per_step):
                if number > 0:
                    trunks = self._read(step, texts, clock)
                losses = self._backward(texts, trunks, chosen, learned, clock)
                with clock("trunk"):
                    updates.append(replace(losses, grad_norm=self.optimizer.step()))
        done = Work(step, texts, chosen, learned, updates, clock.seconds)
        return StepResult(step_metrics(done, self.policy, self.form, config), texts, judged)

    def _read(self, step: int, texts: Sequence[Text], clock: Clock) -> Trunks:
        with clock("trunk"):
            trunks = self.policy.tree.read([text.ids for text in texts])
            remedy = f"the weights have run away; lower learning_rate ({self.config.learning_rate}) and begin again"
            require_finite(f"step {step}: the hidden state of a document", torch.cat(list(trunks.hidden)), remedy)
        return trunks

    def choose(self, step: int, texts: Sequence[Text], trunks: Trunks) -> Pool:
        """Draw the set C of this step, sorted by trunk and index; empty where no RL takes place."""
        config = self.config
        if not config.use_rl:
            return Pool([])
        pool = self.difficulty.pool(texts, trunks)
        wanted = config.positions_per_document * len(texts)
        if config.difficulty != "entropy":
            budget, generator = method.budget_of(config, step), generator_for(config.seed, "difficulty", step)
            ask = partial(self.ask, budget)
            asked = Scoring(self.policy, self.reference, self.form, trunks, pool.positions, wanted, ask, generator)
            pool = rescored(config.difficulty, asked)
        return replace(pool, positions=method.draw(self.sampler, pool.positions, wanted, step))

    def ask(self, budget: int, positions: Sequence[Position]) -> Asking:
        """Return how thoughts are asked for in a step; a measurement may ask for another length."""
        return asking_for(self.config, method.budgets_for(self.config, budget, positions))

    def _backward(
        self, texts: Sequence[Text], trunks: Trunks, chosen: Pool, judged: Sequence[Judged], clock: Clock
    ) -> Update:
        """Leave the gradient of L = L_RL + lambda * L_NTP on the model.

        The gradient of a sum is the sum of the gradients. So L_RL goes backward a chunk of branches at a time, down to
        the trunks' keys and values; from there it goes back through the trunks together with lambda * L_NTP.
        """
        config, leaves = self.config, trunks.detached()
        reference = None
        if self.reference is not None and config.kl_weight:
            with torch.no_grad():
                reference = self.reference.tree.read([text.ids for text in texts])
        # a group without spread has advantage 0: no policy gradient, though it has a KL
        trained = [one for one in judged if one.advantage != 0.0 or reference is not None]
        tokens = sum(len(one.rollout.logprobs) for one in judged)
        rl = torch.zeros((), dtype=torch.float64, device=self.policy.device)
        seen = torch.zeros(3, dtype=torch.float64, device=self.policy.device)  # read once a step: no wait for a GPU
        size = chunk_tokens(self.policy.model, config.branch_tokens)
        for chunk in chunks(trained, attrgetter("rollout"), self.form, size):
            count = tokens if config.loss_per == "token" else len(judged)
            part, sums = self._rl_loss(leaves, reference, chunk, count)
            part.backward()
            rl, seen = rl + part.detach(), seen + sums
        with clock("trunk"):
            with torch.set_grad_enabled(config.use_ntp):
                ntp, ntp_tokens = text_loss(self.policy, trunks, method.outside(texts, chosen.positions))
            require_finite("the RL loss", rl)
            require_finite("the next-token loss", ntp)
            ntp_weight = config.ntp_weight if config.use_ntp else 0.0
            backward_through_trunk(trunks, leaves, ntp_weight * ntp if ntp_weight else None)
        ntp = ntp.detach()
        branches = [one.rollout for one in trained]
        loss = method.rmt_loss(rl, ntp, ntp_weight)
        known = seen.tolist()
        return Update(float(rl), float(ntp), float(loss), ntp_tokens, branches, reference is not None, *known)

    def _rl_loss(
        self, trunks: Trunks, reference: Trunks | None, judged: Sequence[Judged], count: int
    ) -> tuple[Tensor, Tensor]:
        """L_RL of a chunk of branches, as its part of a mean over ``count`` tokens or rollouts.

        Beside it (3,): sums over the chunk's tokens of 1, of the KL to the reference and of whether they are clipped.
        """
        config, rollouts = self.config, [one.rollout for one in judged]
        logprobs, mask = rollout_logprobs(self.policy, self.form, trunks, rollouts, config.temperature)
        old = other = None
        if config.clip_epsilon:
            old = logprobs.new_tensor([logprob for one in rollouts for logprob in one.logprobs])
            old = torch.zeros_like(logprobs).masked_scatter(mask, old)
        if self.reference is not None and reference is not None:
            with torch.no_grad():
                other, _ = rollout_logprobs(self.reference, self.form, reference, rollouts, config.temperature)
        advantages, own = logprobs.new_tensor([one.advantage for one in judged]), logprobs.detach()
        kl = torch.zeros_like(own) if other is None else method.kl_estimate(own, other)
        clipped = (
            torch.zeros_like(mask) if old is None else method.is_clipped(own, old, advantages, config.clip_epsilon)
        )
        sums = torch.stack([one[mask].sum().double() for one in (torch.ones_like(own), kl, clipped)])
        loss = method.rl_loss(
            logprobs,
            advantages,
            mask,
            old_logprobs=old,
            clip_epsilon=config.clip_epsilon or None,
            reference_logprobs=other,
            kl_weight=config.kl_weight,
            normalise=config.loss_per,
            count=count,
        )
        return loss, sums

    def state(self) -> State:
        """Return everything that the steps to come depend on, beside settings, texts and seed."""
        tensors = self.optimizer.state_dict()
        if self.reference is not None:
            tensors |= {f"reference/{name}": p.detach() for name, p in self.reference.model.named_parameters()}
        sampler = self.sampler.state_dict()
        tensors["sampler"] = sampler.pop("generator")
        thresholds, skipped = list(self.difficulty.thresholds), self.guard.in_a_row
        plain = {"step": self.next_step, "sampler": sampler, "thresholds": thresholds, "skipped": skipped}
        return State(tensors, plain)

    def load_state(self, state: State) -> None:
        """Continue where another trainer of the same settings, texts and seed was; its weights are loaded as well."""
        tensors = dict(state.tensors)
        self.sampler.load_state_dict(state.plain["sampler"] | {"generator": tensors.pop("sampler")})
        if self.reference is not None:
            with torch.no_grad():
                for name, parameter in self.reference.model.named_parameters():
                    parameter.copy_(tensors.pop(f"reference/{name}"))
        self.optimizer.load_state_dict(tensors)
        low, high = state.plain["thresholds"]
        self.difficulty.thresholds = (low, high)
        self.next_step, self.guard.in_a_row = state.plain["step"], state.plain["skipped"]
