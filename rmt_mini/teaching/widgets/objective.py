"""The dual objective: who learns from which token, how two gradients weigh, and why a closing is trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig, preset
from rmt_mini.engine.logits import target_logprobs
from rmt_mini.engine.model import Policy, make_policy
from rmt_mini.engine.prompt import AnswerFormat
from rmt_mini.engine.rollout import rollout_logprobs
from rmt_mini.engine.text import to_texts
from rmt_mini.engine.tree import Trunks
from rmt_mini.method.curriculum import TierSampler
from rmt_mini.method.grpo import rl_loss
from rmt_mini.method.objective import ntp_loss, ntp_mask
from rmt_mini.records import Judged, Rollout, Text
from rmt_mini.report.plots import Figured, closing_slopes, gradient_shares, who_learns
from rmt_mini.report.plots.of_objective import NONE, RL, by_loss
from rmt_mini.report.plots.of_text import Marked
from rmt_mini.stages.difficulty import Difficulty
from rmt_mini.stages.material import format_for
from rmt_mini.stages.midtrain import RMTTrainer, StepResult
from rmt_mini.stages.optimizer import MasterAdamW
from rmt_mini.teaching.widgets.answers import micro_base, words
from rmt_mini.teaching.widgets.controls import Explorer, explore, number, switch, whole
from rmt_mini.worlds.corpus import load_corpus

DOCUMENTS = 8  # that can be looked at


@dataclass(frozen=True)
class World:
    """The micro-world's base model, some of its mid-training documents, and their tiers."""

    config: RMTConfig
    policy: Policy
    form: AnswerFormat
    texts: list[Text]
    tiers: list[Tensor]

    def copied(self) -> Policy:
        """Return the base model anew, to be trained."""
        return make_policy("micro", copy.deepcopy(self.policy.model), self.policy.tokenizer)

    def words(self, document: int) -> list[str]:
        """Return the tokens of a document as text."""
        return words(self.form, self.texts[document].ids)


@lru_cache(maxsize=1)
def micro_world() -> World:
    """Load the micro-world's base and its first documents, once."""
    config = preset("micro", documents_per_step=4)
    policy = micro_base()
    form = format_for(policy, config)
    texts = to_texts(load_corpus("micro", limit=DOCUMENTS).documents, form, config, "first")
    difficulty = Difficulty(policy, config, texts)
    with torch.no_grad():
        tiers = difficulty.tiers(difficulty.entropy(policy.tree.read([text.ids for text in texts])))
    return World(config, policy, form, texts, tiers)


# Who learns from which token


def marked_document(document: int, positions: int, step: int, leak: bool) -> Marked:
    """Draw C on a document of the micro-world as the curriculum would at a step, and mark who learns from what."""
    world = micro_world()
    config, text = world.config, world.texts[document]
    sampler = TierSampler(
        config.steps, config.tier_probs_early, config.tier_probs_late, config.curriculum_start, config.curriculum_end
    )
    drawn = sampler.sample(world.tiers[document][text.first :], positions, step) + text.first
    return who_learns(world.words(document), sorted(drawn.tolist()), leak)


def mask_explorer() -> Explorer:
    """Move the document, the number of positions and the step over the masks."""
    return explore(
        marked_document,
        document=whole("document", 0, 0, DOCUMENTS - 1),
        positions=whole("K, positions", 3, 0, 12),
        step=whole("t, step of 110", 0, 0, 110),
        leak=switch("count chosen positions in NTP too (wrong)"),
    )


def marked_branch(form: AnswerFormat, trunk: Sequence[int], rollout: Rollout) -> Marked:
    """Mark the tokens of a branch: what the model sampled takes the RL loss, what the environment wrote takes none."""
    own = 1 if rollout.closed else 0
    parts = (
        (form.opening(rollout.budget), 0),
        (rollout.thought, rollout.length),
        (form.close, own),
        (form.cue(trunk, rollout.position.index), 0),
        (rollout.answer, len(rollout.answer)),
    )
    words, marks = [], []
    for tokens, sampled in parts:
        words += [form.tokenizer.decode([token]) for token in tokens]
        marks += [RL] * sampled + [NONE] * (len(tokens) - sampled)
    closed = "closed itself" if rollout.closed else "was closed by the environment"
    told = f"A branch whose thought of {rollout.length} tokens, asked for {rollout.budget}, {closed}."
    return by_loss(words, marks, told)


# How two gradients weigh


@dataclass(frozen=True)
class Gradients:
    """The gradients of one step's parts, as their products: all that a weighted sum's norm depends on.

    Attributes:
        products: (3, 3), the dot products of the mean gradients of L_RL, of next-token prediction outside C, and of
            next-token prediction on C, which no sound step takes.
        rl_tokens, rollouts: that L_RL is a mean over.
        others, chosen: positions outside C and in it.
    """

    products: list[list[float]]
    rl_tokens: int
    rollouts: int
    others: int
    chosen: int

    def product(self, one: Sequence[float], other: Sequence[float]) -> float:
        """Return the dot product of two weighted sums of the three gradients."""
        return sum(a * b * self.products[i][j] for i, a in enumerate(one) for j, b in enumerate(other))


@lru_cache(maxsize=1)
def real_step() -> StepResult:
    """Take a step of RMT, half way through the curriculum, on a copy of the base; return what it leaves behind."""
    world = micro_world()
    texts = world.texts[: world.config.documents_per_step]
    return RMTTrainer(world.config, world.copied(), texts).step(world.config.steps // 2, texts)


def chosen_of(texts: Sequence[Text], judged: Sequence[Judged]) -> list[list[int]]:
    """Return C of each text."""
    places = {(one.rollout.position.trunk, one.rollout.position.index) for one in judged}
    return [sorted(index for trunk, index in places if trunk == n) for n in range(len(texts))]


def text_logprobs(
    policy: Policy, trunks: Trunks, texts: Sequence[Text], judged: Sequence[Judged]
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the texts' own tokens from the second on, and which of them lie outside C."""
    hidden = torch.cat([states[:-1] for states in trunks.hidden])  # what stands at i - 1 predicts token i
    targets = torch.cat([ids[1:] for ids in trunks.ids])
    masks = [ntp_mask(len(text.ids), chosen)[1:] for text, chosen in zip(texts, chosen_of(texts, judged), strict=True)]
    return target_logprobs(policy.head, hidden, targets), torch.cat(masks)


@lru_cache(maxsize=1)
def small_step() -> Gradients:
    """Compute the gradients of that step's parts, once."""
    world, texts, judged = micro_world(), real_step().texts, real_step().judged
    policy = world.copied()
    trunks = policy.tree.read([text.ids for text in texts])
    logprobs, sampled = rollout_logprobs(
        policy, world.form, trunks, [one.rollout for one in judged], world.config.temperature
    )
    own, outside = text_logprobs(policy, trunks, texts, judged)
    losses = (
        rl_loss(logprobs, torch.tensor([one.advantage for one in judged]), sampled),
        ntp_loss(own, outside),
        ntp_loss(own, ~outside),
    )
    parameters = list(policy.model.parameters())
    flat = torch.stack(
        [
            torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters, retain_graph=True)])
            for loss in losses
        ]
    ).double()
    counts = int(sampled.sum()), len(judged), int(outside.sum()), int((~outside).sum())
    return Gradients((flat @ flat.t()).tolist(), *counts)


def weighed_gradients(weight: float, use_rl: bool, use_ntp: bool, leak: bool, sums: bool) -> Figured:
    """Weigh the two parts of the small step's gradient.

    Args:
        weight: lambda.
        use_rl: train by reinforcement.
        use_ntp: train by next-token prediction.
        leak: count the positions of C in the next-token loss as well, which is wrong.
        sums: the paper's sums over tokens in place of means.

    Raises:
        ValueError: if lambda is negative.
    """
    if weight < 0:
        raise ValueError(f"lambda={weight} must not be negative; the paper takes 0.1")
    found = small_step()
    counted = found.others + (found.chosen if leak else 0)
    parts = found.others / counted, (found.chosen if leak else 0) / counted
    rl = [(found.rl_tokens / found.rollouts if sums else 1.0) * use_rl, 0.0, 0.0]
    by = (counted if sums else 1.0) * use_ntp
    ntp = [0.0, by * parts[0], by * parts[1]]
    norms = [math.sqrt(max(0.0, found.product(one, one))) for one in (rl, ntp)]
    cosine = found.product(rl, ntp) / (norms[0] * norms[1]) if all(norms) else 0.0
    return gradient_shares(norms[0], norms[1], cosine, weight)


def weight_explorer() -> Explorer:
    """Move lambda over the two parts of a real step's gradient; the gradients are computed once."""
    return explore(
        weighed_gradients,
        weight=number("lambda, NTP weight", 0.1, 0.0, 2.0, 0.01),
        use_rl=switch("train by reinforcement", True),
        use_ntp=switch("train by next-token prediction", True),
        leak=switch("count chosen positions in NTP too (wrong)"),
        sums=switch("sums over tokens, as the paper writes them"),
    )


@lru_cache(maxsize=2)
def told_by_text(leak: bool, repeats: int = 5) -> tuple[list[float], list[float]]:
    """Train a copy of the base by next-token prediction alone, on the small step's documents, again and again.

    Returns:
        The mean probability of the right token at C, before training and after each repeat: predicted plainly, and as
        the answer after the thoughts of the small step.
    """
    world, texts, judged = micro_world(), real_step().texts, real_step().judged
    policy = world.copied()
    optimizer = MasterAdamW(policy.model, world.config.learning_rate, 0.0, world.config.max_grad_norm)
    right = [
        replace(one.rollout, answer=(texts[one.rollout.position.trunk].ids[one.rollout.position.index],))
        for one in judged
    ]
    plain, thinking = [], []
    for _ in range(repeats + 1):
        trunks = policy.tree.read([text.ids for text in texts])
        own, outside = text_logprobs(policy, trunks, texts, judged)
        with torch.no_grad():
            logprobs, sampled = rollout_logprobs(policy, world.form, trunks, right, 1.0)
        answers = logprobs.gather(1, sampled.sum(1, keepdim=True) - 1)
        plain.append(own[~outside].exp().mean().item())
        thinking.append(answers.exp().mean().item())
        ntp_loss(own, torch.ones_like(outside) if leak else outside).backward()
        optimizer.step()
    return plain, thinking


def closing_explorer() -> Explorer:
    """Move the budget and the closing chance over thought lengths and the slopes of three rules."""
    return explore(
        closing_slopes, budget=whole("B, budget", 8, 1, 32), chance=number("p, chance of closing", 0.02, 0, 1, 0.01)
    )
