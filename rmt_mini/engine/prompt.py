r"""How a position becomes a question: what stands in the trunk, what in the branch, and how an answer is judged.

A branch is opening, thought, closing, cue, answer. The model samples thought, closing decision and answer; the rest
is written by the environment. Two formats of one protocol:

- ``continuation`` (models below about 1B): opening ``\n<think 24>`` states B_t, the cue repeats the last tokens of the
  text (``\n...`` and the tail), and the answer is one token compared by its id. Small models seldom follow
  instructions, but they do continue a text that they are shown again.
- ``chat`` (instruct and reasoning models): the document stands in the user's turn; the branch ends that turn with the
  paper's instruction and B_t, opens ``<think>``, and the answer is the last ``\boxed{}`` after ``</think>``,
  judged by RPT's byte prefix rule.

Departures from the paper. (1) The model closes its thought with the first token of ``</think>``; the environment writes
the others, so that closing is one decision. (2) The instruction stands after the text, not before it: everything
that differs between steps must come after the trunk. (3) In ``chat``, leading white space of the continuation need not
be repeated inside the box.

Nothing is ever searched for in the text or the thought: only sampled answer tokens are parsed, so a document or a
thought that contains ``</think>`` or a box cannot fake a reward.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from rmt_mini.errors import UserError
from rmt_mini.method.rewards import match_reward, prefix_match_reward

TAIL_TOKENS = 8
ANSWER_TOKENS = 16
LOOKAHEAD_TOKENS = 8
INSTRUCTION = (
    "\n\nThe text above breaks off. Reason about what its next token is{budget}, then give the next token alone in "
    "\\boxed{{}}."
)
BUDGET_INSTRUCTION = "; use exactly {budget} tokens within <think></think>"


QUESTION = "\n\nReason about it{budget}, then give the final answer alone in \\boxed{{}}."  # post-training's


class AnswerFormat(Protocol):
    """What the engine needs to know of a way of asking."""

    name: str
    tokenizer: Any
    close: list[int]  # the closing tag; its first token is the decision to stop thinking
    answer_limit: int

    def trunk(self, text: str) -> tuple[list[int], int]:
        """Tokens of a document, and the first index that may be asked for."""

    def opening(self, budget: int | None) -> list[int]:
        """Branch tokens before the thought; states the budget unless it is None."""

    def cue(self, trunk: Sequence[int], index: int) -> list[int]:
        """Branch tokens between closing tag and answer."""

    def finished(self, answer: Sequence[int]) -> bool:
        """Tell whether an answer is complete before the limit."""

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        """Match reward, 0 or 1."""


def _encode(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def continuation_of(tokenizer: Any, trunk: Sequence[int], index: int) -> tuple[str, list[int]]:
    """Return the text that follows ``index`` and the byte offsets at which its tokens end.

    A token that ends inside a character ends no text and gives no boundary; where the position itself lies inside
    one there is no text, since any stray byte would decode alike.
    """
    boundaries: list[int] = []
    text = ""
    for end in range(index + 1, min(len(trunk), index + LOOKAHEAD_TOKENS) + 1):
        decoded = tokenizer.decode(trunk[index:end], clean_up_tokenization_spaces=False)
        if "\N{REPLACEMENT CHARACTER}" in (decoded[:1], decoded[-1:]):
            continue
        text = decoded
        boundaries.append(len(text.encode()))
    return text, boundaries


class Continuation:
    """The small model's format; see the module's docstring."""

    name = "continuation"
    answer_limit = 1

    def __init__(self, tokenizer: Any, prefix_match: bool = False) -> None:
        self.tokenizer = tokenizer
        self.close = _encode(tokenizer, "</think>")
        self._after = _encode(tokenizer, "\n...")
        self._prefix_match = prefix_match

    def trunk(self, text: str) -> tuple[list[int], int]:
        return _encode(self.tokenizer, text), 1

    def opening(self, budget: int | None) -> list[int]:
        return _encode(self.tokenizer, "\n<think>" if budget is None else f"\n<think {budget}>")

    def cue(self, trunk: Sequence[int], index: int) -> list[int]:
        return [*self._after, *trunk[max(0, index - TAIL_TOKENS) : index]]

    def finished(self, answer: Sequence[int]) -> bool:
        return len(answer) >= self.answer_limit

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        if self._prefix_match:
            text = self.tokenizer.decode(list(answer), clean_up_tokenization_spaces=False)
            return prefix_match_reward(text, *continuation_of(self.tokenizer, trunk, index))
        return match_reward(answer[0], trunk[index])


class Chat:
    """The instruct model's format; see the module's docstring."""

    name = "chat"
    answer_limit = ANSWER_TOKENS

    def __init__(self, tokenizer: Any, instruction: str = INSTRUCTION) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "answer_format 'chat' needs a tokenizer with a chat template; use answer_format 'continuation'"
            )
        self.tokenizer, self._instruction = tokenizer, instruction
        marker = "\x02document\x03"
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": marker}], tokenize=False, add_generation_prompt=True
        )
        before, after = rendered.split(marker)
        self._header = _encode(tokenizer, before)
        self._turn = after if "<think>" in after.rsplit("\n\n", 1)[-1] else after + "<think>\n"
        self.close = _encode(tokenizer, "</think>")
        self._cue = _encode(tokenizer, "\n\n")
        self._end = tokenizer.eos_token_id

    def trunk(self, text: str) -> tuple[list[int], int]:
        return [*self._header, *_encode(self.tokenizer, text)], len(self._header) + 1

    def opening(self, budget: int | None) -> list[int]:
        stated = "" if budget is None else BUDGET_INSTRUCTION.format(budget=budget)
        return _encode(self.tokenizer, self._instruction.format(budget=stated) + self._turn)

    def cue(self, trunk: Sequence[int], index: int) -> list[int]:
        return list(self._cue)

    def finished(self, answer: Sequence[int]) -> bool:
        if len(answer) >= self.answer_limit or answer[-1] == self._end:
            return True
        return last_boxed(self.tokenizer.decode(list(answer))) is not None

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        boxed = last_boxed(self.tokenizer.decode(list(answer), clean_up_tokenization_spaces=False))
        if boxed is None:
            return 0.0
        text, boundaries = continuation_of(self.tokenizer, trunk, index)
        bare = text.lstrip()
        shift = len(text.encode()) - len(bare.encode())
        return max(
            prefix_match_reward(boxed, text, boundaries),
            prefix_match_reward(boxed, bare, [end - shift for end in boundaries if end > shift]),
        )


def last_boxed(text: str) -> str | None:
    r"""Return what stands in the last complete ``\boxed{...}`` with balanced braces, or None.

    Example:
        >>> last_boxed(r"so \boxed{7} or rather \boxed{x_{1}}")
        'x_{1}'
        >>> last_boxed(r"\boxed{never closed") is None
        True
    """
    for found in reversed(list(re.finditer(r"\\boxed\{", text))):
        depth = 1
        for place in range(found.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                return text[found.end() : place]
    return None


def answer_format(name: str, tokenizer: Any, parameters: int, prefix_match: bool = False) -> AnswerFormat:
    """Choose a format: by name, or for ``auto`` by the model's size (chat from 1B on, if it has a template)."""
    if name == "auto":
        chat = parameters >= 1_000_000_000 and getattr(tokenizer, "chat_template", None)
        name = "chat" if chat else "continuation"
    if name == "chat":
        return Chat(tokenizer)
    if name == "continuation":
        return Continuation(tokenizer, prefix_match)
    raise UserError(f"answer_format {name!r} is unknown; use 'auto', 'continuation' or 'chat'")
