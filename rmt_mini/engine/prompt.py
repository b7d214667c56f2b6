r"""How a position becomes a question: what stands in the trunk, what in the branch, and how an answer is judged.

A branch is opening, thought, closing, cue, answer. The model samples thought, closing decision and answer; the rest
is written by the environment. Two formats of one protocol:

- ``continuation`` (models below about 1B): opening ``\n<think 24>`` states B_t, the cue repeats the last tokens of the
  text (``\n...`` and the tail), and the answer is one token compared by its id. Small models seldom follow
  instructions, but they do continue a text that they are shown again. A text begins as the tokenizer begins it
  (with ``<s>``, say).
- ``chat`` (instruct and reasoning models): the document stands in the user's turn; the branch ends that turn with the
  paper's instruction and B_t, opens ``<think>``, and the answer is the last ``\boxed{}`` after ``</think>``,
  judged by RPT's byte prefix rule.

Departures from the paper. (1) The model closes its thought with the first token of ``</think>``; the environment writes
the others, so that closing is one decision. (2) The instruction stands after the text, not before it: everything
that differs between steps must come after the trunk. (3) In ``chat``, leading white space of the continuation need not
be repeated inside the box.

Nothing is ever searched for in the text or the thought: only sampled answer tokens are parsed, so a document or a
thought that contains ``</think>`` or a box cannot fake a reward. Special tokens (``<|im_end|>``) are the frame's alone:
spelled out in a document they are plain text, and sampled in an answer they are no text.
tests/engine/test_reward_attacks.py tries to break this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from rmt_mini.errors import UserError
from rmt_mini.files import Turn
from rmt_mini.method.rewards import match_reward, prefix_match_reward

TAIL_TOKENS = 8
ANSWER_TOKENS = 16
LOOKAHEAD_TOKENS = 8
HALF = "\N{REPLACEMENT CHARACTER}"  # what a token that ends inside a character decodes to
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


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text from outside: a special token that is spelled out in it is plain text.

    Added tokens that are not special (``<think>`` of some models) stay one token: they are words to the model.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    steering = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    if steering.isdisjoint(ids):
        return ids
    # sentencepiece's unigrams have </s> among their words as well: take its letters
    spelled = ([token] if token not in steering else list(tokenizer.convert_ids_to_tokens(token)) for token in ids)
    return [one if isinstance(one, int) else tokenizer.convert_tokens_to_ids(one) for part in spelled for one in part]


def _encode(tokenizer: Any, frame: str) -> list[int]:
    """Return the tokens of what the environment writes; special tokens in it are meant."""
    ids: list[int] = tokenizer(frame, add_special_tokens=False, split_special_tokens=False)["input_ids"]
    return ids


def _writer(tokenizer: Any) -> Callable[[str], list[int]]:
    """Return ``_encode`` for the middle of a text.

    Some tokenizers, sentencepiece's among them, put a blank before every text. In the middle of a text it would be
    wrong, and as the first token of the closing tag it would end a thought at any blank. So they encode after a letter.
    """
    letter = _encode(tokenizer, "a")
    if _reader(tokenizer)(_encode(tokenizer, "<")).startswith(" "):
        return lambda frame: _encode(tokenizer, "a" + frame)[len(letter) :]
    return partial(_encode, tokenizer)


def _start(tokenizer: Any) -> list[int]:
    """Return the tokens that a tokenizer puts before every text: ``<s>`` with Llama's, none with most."""
    whole, bare = tokenizer("a")["input_ids"], _encode(tokenizer, "a")
    return next((whole[:n] for n in range(len(whole)) if whole[n : n + len(bare)] == bare), [])


def _reader(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """Return a function from tokens to the text they stand for in the middle of a text; special tokens are no text.

    The tokens are decoded behind a letter, since sentencepiece's tokenizers drop a blank at the very beginning.
    """
    letter = _encode(tokenizer, "a")

    def decode(ids: Sequence[int]) -> str:
        text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    before = decode(letter)
    return lambda ids: decode([*letter, *ids]).removeprefix(before)


def _require_spelled(tokenizer: Any, write: Callable[[str], list[int]], *frames: str) -> None:
    """Refuse a tokenizer that lacks what the environment writes: its closing tag would be any unknown word."""
    for frame in frames:
        said = tokenizer.decode(write(frame), clean_up_tokenization_spaces=False)
        if "".join(said.split()) != "".join(frame.split()):
            raise UserError(
                f"the tokenizer cannot write {frame!r} (it comes back as {said!r:.60}); choose a model whose tokenizer "
                f"covers all characters, as byte-level ones do"
            )


def _closing(tokenizer: Any, write: Callable[[str], list[int]]) -> list[int]:
    """Return the tokens of the closing tag, the first of which must be more than a blank.

    Raises:
        UserError: if it is a blank, so that every blank in a thought would close it.
    """
    close = write("</think>")
    if not tokenizer.decode(close[:1]).strip():
        raise UserError(
            "the tokenizer puts a blank of its own before '</think>', so that any blank would end a thought; choose a "
            "model whose tokenizer adds none, as byte-level ones do"
        )
    return close


def _render(tokenizer: Any) -> Turn:
    """Return the turn of a tokenizer's template, asked to think.

    A template of its own accord may think (and ends with ``<think>``), think when asked, or not think at all, which it
    shows by an empty thought or a lone ``</think>``. Whatever it does, one thought is open at the end.
    """
    marker = "\x02document\x03"
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": marker}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=True,  # of Qwen3, SmolLM3 and GLM
        thinking=True,  # of DeepSeek and Granite
    )
    before, after = rendered.split(marker)
    after = re.sub(r"(<think>\s*)?</think>\s*$", "", after)
    return Turn(before, after if after.rstrip().endswith("<think>") else after + "<think>\n")


def continuation_of(tokenizer: Any, trunk: Sequence[int], index: int) -> tuple[str, list[int]]:
    """Return the text that follows ``index`` and the byte offsets at which its tokens end.

    A token that ends inside a character ends no text and gives no boundary; where the position itself lies inside
    one there is no text, since any stray byte would decode alike. The text ends before an unknown or special token.
    """
    read = _reader(tokenizer)
    texts: list[str] = []
    before = ""
    for end in range(index + 1, min(len(trunk), index + LOOKAHEAD_TOKENS) + 1):
        text = read(trunk[index:end])
        if HALF not in text:
            if text == before:
                break
            texts.append(text)
        before = text
    whole = texts[-1] if texts else ""
    return whole, [len(text.encode()) for text in texts if whole.startswith(text)]


class Continuation:
    """The small model's format; see the module's docstring."""

    name = "continuation"
    answer_limit = 1

    def __init__(self, tokenizer: Any, prefix_match: bool = False) -> None:
        self._write = _writer(tokenizer)
        _require_spelled(tokenizer, self._write, "\n<think 0123456789>", "</think>", "\n...")
        self.tokenizer, self._start = tokenizer, _start(tokenizer)
        self.close = _closing(tokenizer, self._write)
        self._after = self._write("\n...")
        self._prefix_match = prefix_match

    def trunk(self, text: str) -> tuple[list[int], int]:
        return [*self._start, *encode_text(self.tokenizer, text)], len(self._start) + 1

    def opening(self, budget: int | None) -> list[int]:
        return self._write("\n<think>" if budget is None else f"\n<think {budget}>")

    def cue(self, trunk: Sequence[int], index: int) -> list[int]:
        return [*self._after, *trunk[max(len(self._start), index - TAIL_TOKENS) : index]]

    def finished(self, answer: Sequence[int]) -> bool:
        return len(answer) >= self.answer_limit

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        if self._prefix_match:
            text = _reader(self.tokenizer)(answer)
            return prefix_match_reward(text, *continuation_of(self.tokenizer, trunk, index))
        return match_reward(answer[0], trunk[index])


class Chat:
    """The instruct model's format; see the module's docstring."""

    name = "chat"
    answer_limit = ANSWER_TOKENS

    def __init__(self, tokenizer: Any, instruction: str = INSTRUCTION, turn: Turn | None = None) -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                "answer_format 'chat' needs a tokenizer with a chat template; use answer_format 'continuation'"
            )
        self._write = _writer(tokenizer)
        _require_spelled(tokenizer, self._write, "<think>\n", "</think>", "\\boxed{0123456789}")
        self.tokenizer, self._instruction = tokenizer, instruction
        try:
            self.turn = turn or _render(tokenizer)
        except Exception as error:  # a template is a program, and raises what it likes
            reason = " ".join(str(error).split())[:100]
            raise UserError(
                f"answer_format 'chat' needs a chat template that takes a user's turn as it is, and this tokenizer's "
                f"does not ({reason}); use answer_format 'continuation'"
            ) from error
        self._header = _encode(tokenizer, self.turn.before)
        self.close = _closing(tokenizer, self._write)
        self._cue = self._write("\n\n")
        self._end = tokenizer.eos_token_id
        self._read = _reader(tokenizer)
        if last_boxed(self._read(self._write("\\boxed{a}"))) != "a":
            raise UserError(
                "answer_format 'chat' needs a tokenizer that gives \\boxed{a} back as it was; use answer_format "
                "'continuation'"
            )

    def trunk(self, text: str) -> tuple[list[int], int]:
        return [*self._header, *encode_text(self.tokenizer, text)], len(self._header) + 1

    def opening(self, budget: int | None) -> list[int]:
        stated = "" if budget is None else BUDGET_INSTRUCTION.format(budget=budget)
        return self._write(self._instruction.format(budget=stated) + self.turn.after)

    def cue(self, trunk: Sequence[int], index: int) -> list[int]:
        return list(self._cue)

    def finished(self, answer: Sequence[int]) -> bool:
        if len(answer) >= self.answer_limit or answer[-1] == self._end:
            return True
        return last_boxed(self._read(answer)) is not None

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        boxed = last_boxed(self._read(answer))
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

    Of several the last to begin counts. As in TeX, a brace behind a backslash opens and closes nothing.

    Example:
        >>> last_boxed(r"so \boxed{7} or rather \boxed{x_{1}}")
        'x_{1}'
        >>> last_boxed(r"\boxed{never closed") is None
        True
    """
    opened: list[tuple[bool, int]] = []  # braces not closed yet: whether of a box, and where they end
    last: tuple[int, int] | None = None
    for found in re.finditer(r"(?<!\\)\\+(?:boxed\{|[{}])|[{}]", text):
        sign = found[0]
        if sign.endswith("boxed{"):
            opened.append((True, found.end()))
        elif (len(sign) - 1) % 2:  # an odd number of backslashes: an escaped brace
            continue
        elif sign.endswith("{"):
            opened.append((False, found.end()))
        elif opened:
            is_box, start = opened.pop()
            if is_box and (last is None or start > last[0]):
                last = start, found.end() - 1
    return None if last is None else text[slice(*last)]


def answer_format(
    name: str, tokenizer: Any, parameters: int, prefix_match: bool = False, turn: Turn | None = None
) -> AnswerFormat:
    """Choose a format: by name, or for ``auto`` by the model's size (chat from 1B on, if it has a template).

    Args:
        name: "auto", "continuation" or "chat".
        tokenizer: the model's.
        parameters: number of the model's parameters.
        prefix_match: of the continuation format.
        turn: of the chat format, where the template was rendered before: it may state today's date.

    Raises:
        UserError: for another name, or a tokenizer that does not serve the format.
    """
    if name == "auto":
        chat = parameters >= 1_000_000_000 and getattr(tokenizer, "chat_template", None)
        name = "chat" if chat else "continuation"
    if name == "chat":
        return Chat(tokenizer, turn=turn)
    if name == "continuation":
        return Continuation(tokenizer, prefix_match)
    raise UserError(f"answer_format {name!r} is unknown; use 'auto', 'continuation' or 'chat'")
