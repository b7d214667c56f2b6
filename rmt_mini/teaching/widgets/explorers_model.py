"""What explorers draw with the micro-world's model: questions, typed answers, and tiers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from rmt_mini.engine.model import Policy, load_policy
from rmt_mini.engine.prompt import AnswerFormat, Continuation, continuation_of, encode_text
from rmt_mini.engine.rollout import Asking, roll_out
from rmt_mini.errors import UserError
from rmt_mini.method.budget import thought_cap
from rmt_mini.method.rewards import match_reward
from rmt_mini.records import Position
from rmt_mini.report.plots import (
    Marked,
    Stack,
    byte_match,
    entropy_histogram,
    heat_map,
    question,
    rollout_table,
    stacked,
)
from rmt_mini.stages.material import trunk_entropy
from rmt_mini.worlds.micro import corpus

GROUP = 4  # thoughts at a position
CONTEXT = 60  # characters of a text that a table shows


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
    """Sample ``count`` rollouts at a token of a text, as rows of ``rollout_table`` that are called ``when``.

    Thoughts are cut off at twice the budget; answers are the likeliest tokens.
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
