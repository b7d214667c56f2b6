"""A token as a question: ask the micro-world's model, and type an answer of your own to see what it earns."""

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
from rmt_mini.report.plots import Marked, Stack, byte_match, question, rollout_table, stacked
from rmt_mini.teaching.widgets.controls import Explorer, explore, line, whole
from rmt_mini.worlds.micro import corpus

GROUP = 4  # thoughts at a position
DOCUMENTS = 40
CONTEXT = 60  # characters of a text that a table shows


@lru_cache(maxsize=1)
def micro_base() -> Policy:
    """Load the micro-world's model as it is before mid-training, once; whoever trains it takes a copy."""
    return load_policy("micro", "cpu", "float32")


@lru_cache(maxsize=1)
def micro_world() -> tuple[Policy, Continuation, list[str]]:
    """Return the micro-world's model as it is before mid-training, its answer format, and some of its texts."""
    policy = micro_base()
    return policy, Continuation(policy.tokenizer), [document.text for document in corpus("micro")[:DOCUMENTS]]


def words(form: AnswerFormat, ids: Sequence[int]) -> list[str]:
    """Return each token as text; part of a character reads as a replacement sign."""
    return [form.tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in ids]


@torch.no_grad()
def rollout_rows(
    policy: Policy, text: str, index: int, budget: int, seed: int = 0, when: str = "thinking", count: int = GROUP
) -> list[dict[str, Any]]:
    """Sample a group at one token of a text, for ``rollout_table``; answers are the likeliest, as in evaluation.

    Args:
        policy: the model, one of the continuation format.
        text: any.
        index: of the token that is asked for, from 1 on.
        budget: stated, tokens; a thought is cut off at twice it.
        seed: of sampling.
        when: what the rows are called.
        count: rollouts.

    Raises:
        ValueError: if the budget is below 1.
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
def plain_row(policy: Policy, text: str, index: int) -> dict[str, Any]:
    """Answer one token of a text without a thought, as a row for ``rollout_table``."""
    form, decode = Continuation(policy.tokenizer), policy.tokenizer.decode
    ids, _ = form.trunk(text)
    trunks = policy.tree.read([ids])
    guess = int(policy.head(trunks.hidden[0][index - 1]).argmax())
    shared = {"when": "no thought", "context": decode(ids[:index])[-CONTEXT:], "truth": decode([ids[index]])}
    return shared | {"thought": "", "closed": True, "answer": decode([guess]), "match": form.judge([guess], ids, index)}


def ask_model(document: int, index: int, budget: int, seed: int = 0) -> Stack:
    """Ask the micro-world's model for one token of one text: plainly, and after each of a few thoughts.

    Args:
        document: which text of the micro-world.
        index: of the token that is asked for, from 1 on.
        budget: stated, tokens; a thought is cut off at twice it.
        seed: of sampling.

    Raises:
        ValueError: if the text has no such token, or the budget is below 1.
    """
    policy, form, texts = micro_world()
    text = texts[document]
    asked = question(words(form, form.trunk(text)[0]), index)  # complains of an impossible index
    rows = [plain_row(policy, text, index), *rollout_rows(policy, text, index, budget, seed)]
    return stacked(asked, rollout_table(rows))


def question_explorer() -> Explorer:
    """Move a question over a text, and the budget of the thoughts about it."""
    return explore(
        ask_model,
        document=whole("text", 2, 0, DOCUMENTS - 1),
        index=whole("token asked for", 20, 1, 70),
        budget=whole("budget, tokens", 20, 1, 40),
        seed=whole("seed", 0, 0, 9),
    )


def judge_answer(sentence: str, index: int, answer: str) -> Stack:
    """Hold a typed answer against a sentence: as a token by its id, and as bytes.

    Args:
        sentence: any text; the micro-world's tokenizer takes unknown words apart into bytes.
        index: of the token that is asked for, from 1 on.
        answer: as a model would write it; spaces count.

    Raises:
        UserError: if the text is too short to ask for anything.
        ValueError: if the text has no such token.
    """
    _, form, _ = micro_world()
    ids, _ = form.trunk(sentence)
    if len(ids) < 2:
        raise UserError("the text has fewer than two tokens, so that nothing stands before one; type more")
    asked, said = question(words(form, ids), index), encode_text(form.tokenizer, answer)
    match = match_reward(said, ids[index])
    tokens = f"{len(said)} token{'' if len(said) == 1 else 's'}"
    if len(said) != 1:
        why = f"the answer is {tokens}, and one is asked for"
    else:
        why = f"token {said[0]} is said, and token {ids[index]} stands there"
    verdict = f"Match {match:.0f}: {why}."
    return stacked(
        asked,
        Marked(f"<b>{verdict}</b>", verdict, role="group"),
        byte_match(answer, *continuation_of(form.tokenizer, ids, index)),
    )


def answer_explorer() -> Explorer:
    """Type a text and an answer; see both rewards, byte by byte."""
    return explore(
        judge_answer,
        sentence=line("text", "A lift waits on floor 3 and rises first 5"),
        index=whole("token asked for", 5, 1, 40),
        answer=line("answer", " 3"),
    )
