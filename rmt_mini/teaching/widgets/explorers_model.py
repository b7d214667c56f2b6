"""What lessons draw with the micro-world's model: its answers to a token of a text."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

from rmt_mini.engine.model import Policy, load_policy
from rmt_mini.engine.prompt import AnswerFormat, Continuation
from rmt_mini.engine.rollout import Asking, lay_out, roll_out
from rmt_mini.method.budget import thought_cap
from rmt_mini.records import Judged, Position, Text
from rmt_mini.report.plots import DOWN, NONE, UP, Marked, Stack, by_loss, question, rollout_table, stacked, who_learns
from rmt_mini.runs.journal import rollout_line
from rmt_mini.stages.midtrain import StepResult
from rmt_mini.worlds.micro import corpus

GROUP = 4  # thoughts at a position


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
    form = Continuation(policy.tokenizer)
    ids, first = form.trunk(text)
    trunks, whole = policy.tree.read([ids]), [Text("", tuple(ids), first)]
    asking = Asking([budget], [thought_cap(budget)], answer_temperature=0.0)
    generator = torch.Generator().manual_seed(seed)
    rollouts = roll_out(policy, form, trunks, [Position(0, index, 0, 0.0)], count, asking, generator)
    judged = [Judged(one, form.judge(one.answer, ids, index), 0.0, 0.0, 0.0) for one in rollouts]
    return [rollout_line(policy, 0, whole, one).model_dump() | {"when": when} for one in judged]


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


def _pushed(form: AnswerFormat, trunk: Sequence[int], judged: Judged) -> Marked:
    """Mark the tokens of a branch by their gradient: sampled ones are pushed, those of the environment are not."""
    mark, branch = (
        UP if judged.advantage > 0 else DOWN if judged.advantage < 0 else NONE,
        lay_out(form, trunk, judged.rollout),
    )
    tokens, before = [*branch.tokens, *branch.answer[-1:]], branch.decisions[0]
    marks = [mark if place - 1 in before else NONE for place in range(len(tokens))]
    return by_loss(words(form, tokens), marks, f"A rollout with advantage {judged.advantage:+.2f}.")


def tokens_of_step(result: StepResult) -> Stack:
    """Show a step token by token: its first text by the loss of each token, and two of its rollouts by their gradient.

    Shown are the rollouts of the first text that are pushed hardest, up and down.
    """
    form, text = micro_world()[1], result.texts[0]
    own = sorted((one for one in result.judged if one.rollout.position.trunk == 0), key=lambda one: one.advantage)
    chosen = sorted({one.rollout.position.index for one in own})
    ends = [own[-1], own[0]] if own else []
    return stacked(who_learns(words(form, text.ids), chosen), *(_pushed(form, text.ids, one) for one in ends))
