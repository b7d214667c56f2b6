"""What explorers draw with the micro-world's model: questions, typed answers, tiers, masks, and a reader's own text."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from rmt_mini.config import RMTConfig, preset
from rmt_mini.engine.model import Policy, load_policy, make_policy
from rmt_mini.engine.prompt import AnswerFormat, Continuation, continuation_of, encode_text
from rmt_mini.engine.rollout import Asking, roll_out
from rmt_mini.engine.text import format_for, generator_for, to_texts
from rmt_mini.errors import UserError
from rmt_mini.method.budget import thought_cap
from rmt_mini.method.curriculum import TierSampler
from rmt_mini.method.rewards import match_reward
from rmt_mini.records import Position, Text
from rmt_mini.report import plots
from rmt_mini.report.plots import (
    Figured,
    Marked,
    Stack,
    byte_match,
    entropy_histogram,
    heat_map,
    question,
    rollout_table,
    stacked,
    who_learns,
)
from rmt_mini.runs.run import prepare
from rmt_mini.stages.difficulty import Difficulty, trunk_entropy
from rmt_mini.stages.evaluate import plan_positions, read_for
from rmt_mini.stages.midtrain import RMTTrainer, StepResult
from rmt_mini.worlds.corpus import load_corpus
from rmt_mini.worlds.micro import corpus

GROUP = 4  # thoughts at a position
CONTEXT = 60  # characters of a text that a table shows
TEXTS, ASKED, EACH, LONGEST = 32, 48, 2, 64  # of a new text: texts, positions, thoughts at each, their cap in tokens


@lru_cache(maxsize=1)
def micro_world() -> tuple[Policy, Continuation, list[str]]:
    """Load the micro-world's model before mid-training, its answer format, and 40 of its texts, once."""
    policy = load_policy("micro", "cpu", "float32")
    return policy, Continuation(policy.tokenizer), [document.text for document in corpus("micro")[:40]]


def words(form: AnswerFormat, ids: Sequence[int]) -> list[str]:
    """Return each token as text; part of a character reads as a replacement sign."""
    return [form.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids]


@torch.no_grad()
def rollout_rows(
    policy: Policy, text: str, index: int, budget: int, seed: int = 0, when: str = "thinking", count: int = GROUP
) -> list[dict[str, Any]]:
    """Sample a group at one token of a text, as rows of ``rollout_table``; answers are the likeliest tokens.

    Args:
        policy: a model with the continuation format.
        text: any.
        index: of the token that is asked for, from 1 on.
        budget: stated, tokens; a thought is cut off at twice it.
        seed: of sampling.
        when: the name of the rows.
        count: rollouts.
    """
    form, decode = Continuation(policy.tokenizer), policy.tokenizer.decode
    ids, _ = form.trunk(text)
    trunks = policy.tree.read([ids])
    asking = Asking([budget], [thought_cap(budget)], answer_temperature=0.0)
    generator = torch.Generator().manual_seed(seed)
    rollouts = roll_out(policy, form, trunks, [Position(0, index, 0, 0.0)], count, asking, generator)
    shared = {"when": when, "context": decode(ids[:index])[-CONTEXT:], "truth": decode([ids[index]])}
    return [
        {**shared, "thought": decode(one.thought), "closed": one.closed, "answer": decode(one.answer)}
        | {"match": form.judge(one.answer, ids, index)}
        for one in rollouts
    ]


@torch.no_grad()
def ask_model(document: int, index: int, budget: int, seed: int = 0) -> Stack:
    """Draw the model's answers to one token of one text: without a thought, and after each of a few thoughts."""
    policy, form, texts = micro_world()
    ids, decode = form.trunk(texts[document])[0], policy.tokenizer.decode
    asked = question(words(form, ids), index)  # raises where there is no such token
    trunks = policy.tree.read([ids])
    guess = int(policy.head(trunks.hidden[0][index - 1]).argmax())
    rows = rollout_rows(policy, texts[document], index, budget, seed)
    plain = {"when": "no thought", "thought": "", "closed": True, "answer": decode([guess])}
    return stacked(asked, rollout_table([rows[0] | plain | {"match": form.judge([guess], ids, index)}, *rows]))


def judge_answer(sentence: str, index: int, answer: str) -> Stack:
    """Compare a typed answer with the token at an index of a sentence: by token ID, and as bytes."""
    _, form, _ = micro_world()
    ids, _ = form.trunk(sentence)
    if len(ids) < 2:
        raise UserError("the text has fewer than two tokens, so nothing comes before one; type more")
    asked, given = question(words(form, ids), index), encode_text(form.tokenizer, answer)
    why = f"the answer is {len(given)} tokens, and one is asked for"
    if len(given) == 1:
        why = f"the answer is token {given[0]}, and the text has token {ids[index]}"
    verdict = f"Match {match_reward(given, ids[index]):.0f}: {why}."
    marked = Marked(f"<b>{verdict}</b>", verdict, role="group")
    return stacked(asked, marked, byte_match(answer, *continuation_of(form.tokenizer, ids, index)))


@lru_cache(maxsize=64)
@torch.no_grad()
def _entropies(top_k: int) -> list[list[float]]:
    policy, form, texts = micro_world()
    read = policy.tree.read([form.trunk(text)[0] for text in texts])
    return [one[1:].tolist() for one in trunk_entropy(policy, read, top_k)]


def show_tiers(document: int, low: float, high: float, top_k: int = 0) -> Stack:
    """Draw one text's tokens by tier, cut at two entropies in nats, and the entropies of all texts."""
    _, form, texts = micro_world()
    entropies = _entropies(top_k)
    shaded = heat_map(words(form, form.trunk(texts[document])[0]), entropies[document], (low, high))
    return stacked(shaded, entropy_histogram([entropy for one in entropies for entropy in one], (low, high)))


@dataclass(frozen=True)
class World:
    """The micro-world's base model, some of its mid-training documents, and their tiers."""

    config: RMTConfig
    policy: Policy
    form: AnswerFormat
    texts: list[Text]
    tiers: list[Tensor]

    def copied(self) -> Policy:
        """Copy the base model, for training."""
        return make_policy("micro", copy.deepcopy(self.policy.model), self.policy.tokenizer)


@lru_cache(maxsize=1)
def training_world() -> World:
    """Load the micro-world's base and eight of its documents, once."""
    config, policy = preset("micro", documents_per_step=4), micro_world()[0]
    form = format_for(policy, config)
    texts = to_texts(load_corpus("micro", limit=8).documents, form, config, "first")
    difficulty = Difficulty(policy, config, texts)
    with torch.no_grad():
        tiers = difficulty.tiers(difficulty.entropy(policy.tree.read([text.ids for text in texts])))
    return World(config, policy, form, texts, tiers)


@lru_cache(maxsize=1)
def real_step() -> StepResult:
    """Take a step of RMT, half way through the curriculum, on a copy of the base."""
    world = training_world()
    texts = world.texts[: world.config.documents_per_step]
    return RMTTrainer(world.config, world.copied(), texts).step(world.config.steps // 2, texts)


def marked_document(document: int, positions: int, step: int, leak: bool) -> Marked:
    """Draw C on a document as the curriculum does at a step, and mark which loss each token takes.

    With ``leak`` the tokens of C take the next-token loss too, which is wrong.
    """
    world = training_world()
    config, text = world.config, world.texts[document]
    sampler = TierSampler(
        config.steps, config.tier_probs_early, config.tier_probs_late, config.curriculum_start, config.curriculum_end
    )
    drawn = sampler.sample(world.tiers[document][text.first :], positions, step) + text.first
    return who_learns(words(world.form, text.ids), sorted(drawn.tolist()), leak)


@dataclass(frozen=True)
class Measured:
    """Entropies of a text's tokens in nats, and lengths of thoughts without a stated budget, in tokens."""

    entropies: tuple[float, ...]
    lengths: tuple[int, ...]


@lru_cache
@torch.no_grad()
def measure_text(corpus: str) -> Measured:
    """Measure a text with the micro model before training.

    Raises:
        UserError: if there is no such text.
    """
    policy, config = micro_world()[0], preset("micro", corpus=corpus)
    texts = prepare(config, policy).train[:TEXTS]
    read = [trunk_entropy(policy, policy.tree.read([text.ids]), 0)[0] for text in texts]
    entropies = [number for text, one in zip(texts, read, strict=True) for number in one[text.first :].tolist()]
    form, positions = format_for(policy, config), plan_positions(policy, texts, config, ASKED)
    trunks = read_for(policy, texts, positions)
    asking = Asking([None] * len(positions), [LONGEST] * len(positions))
    rollouts = roll_out(policy, form, trunks, positions, EACH, asking, generator_for(0, "lengths"))
    return Measured(tuple(entropies), tuple(rollout.length for rollout in rollouts))


def text_fit(corpus: str, easy: float, hard: float, budget: int) -> Figured:
    """Draw the tiers that two thresholds in nats make of a text, and how the micro model's thoughts fit a budget."""
    if not 0 <= easy <= hard:
        raise UserError(f"thresholds are {easy:g} and {hard:g}; give two numbers of at least 0, the smaller first")
    found = measure_text(corpus)
    return plots.text_fit(found.entropies, (easy, hard), found.lengths, budget)
