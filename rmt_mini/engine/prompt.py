r"""How a position becomes a question: what is in the trunk, what in the branch, and how an answer is judged.

The model samples thought, closing decision (the first token of ``</think>``) and answer; the environment writes the
opening, ``</think>`` and a cue. Two formats of one protocol:

- ``continuation`` (models below about 1B, which seldom follow instructions): opening ``\n<think 24>`` states B_t, the
  cue repeats the last tokens of the text (``\n...`` and the tail), and the answer is one token compared by its id.
- ``chat`` (instruct and reasoning models): the document is in the user's turn; the branch ends that turn with the
  paper's instruction and B_t, opens ``<think>``, and the answer is the last ``\boxed{}`` after ``</think>``, judged by
  RPT's byte prefix rule; leading white space need not be repeated inside the box.

Difference from the paper: the instruction comes after the text, since what differs between branches must come after
the trunk. Only sampled answer tokens are parsed, so neither text nor thought can fake a reward. Delimiters are
recognised by token ID, not by spelling.
"""

import re
from collections.abc import Sequence
from datetime import date
from typing import Any, Protocol

from rmt_mini.errors import UserError, refusing
from rmt_mini.method.rewards import match_reward, prefix_match_reward

TAIL_TOKENS = 8
ANSWER_TOKENS = 16
LOOKAHEAD_TOKENS = 8
TODAY = date(2026, 1, 1)  # for templates that state it: a run that goes on another day reads the same tokens
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
        """Whether an answer is complete before the limit."""

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        """Match reward, 0 or 1."""


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text from outside: a special token that is spelled out in it is plain text."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    steering = {*tokenizer.all_special_ids} - {tokenizer.unk_token_id}
    if steering.isdisjoint(ids):
        return ids
    # sentencepiece's unigrams have </s> among their words as well: take its letters
    spelled = ([token] if token not in steering else list(tokenizer.convert_ids_to_tokens(token)) for token in ids)
    return [one if isinstance(one, int) else tokenizer.convert_tokens_to_ids(one) for part in spelled for one in part]


class Codec:
    """Encode what the environment writes, and decode what the model says, in the middle of a text.

    Some tokenizers (sentencepiece's) put a blank before every text and drop one when they decode; as the first token of
    the closing tag it would end a thought at any blank. So they work after a letter, which is removed.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._letter = self.encode("a")
        self._before = self._decode(self._letter)
        self._adds_blank = self.read(self.encode("<")).startswith(" ")

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text's beginning; special tokens in it are meant."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False)["input_ids"]
        return ids

    def write(self, text: str) -> list[int]:
        """Return the tokens of a piece; special tokens in it are meant."""
        return self.encode("a" + text)[len(self._letter) :] if self._adds_blank else self.encode(text)

    def read(self, ids: Sequence[int]) -> str:
        """Return the text of tokens; special tokens are no text."""
        return self._decode([*self._letter, *ids]).removeprefix(self._before)

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def start(self) -> list[int]:
        """Return the tokens that a tokenizer puts before every text: ``<s>`` with Llama's, none with most."""
        whole, bare = self.tokenizer("a")["input_ids"], self._letter
        return next((whole[:n] for n in range(len(whole)) if whole[n : n + len(bare)] == bare), [])

    def close(self, *others: str) -> list[int]:
        """Return the tokens of the closing tag, once the tokenizer has shown that it can write it and ``others``."""
        remedy, close = "choose a model with a byte-level tokenizer", self.write("</think>")
        for written in (*others, "</think>"):
            said = self.tokenizer.decode(self.write(written), clean_up_tokenization_spaces=False)
            if "".join(said.split()) != "".join(written.split()):
                raise UserError(f"the tokenizer cannot write {written!r} (it comes back as {said!r:.60}); {remedy}")
        if not self.tokenizer.decode(close[:1]).strip():
            found = "the tokenizer puts a blank of its own before '</think>', so that any blank would end a thought"
            raise UserError(f"{found}; {remedy}")
        return close


def continuation_of(tokenizer: Any, trunk: Sequence[int], index: int) -> tuple[str, list[int]]:
    """Return the text that follows ``index`` and the byte offsets at which its tokens end.

    A token that ends inside a character gives no boundary; a position inside one has no text, as any stray byte would
    decode alike. The text ends before an unknown or special token.
    """
    read = Codec(tokenizer).read
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
        self.tokenizer, self._codec, self._prefix_match = tokenizer, Codec(tokenizer), prefix_match
        self.close = self._codec.close("\n<think 0123456789>", "\n...")
        self._start, self._dots = self._codec.start(), self._codec.write("\n...")

    def trunk(self, text: str) -> tuple[list[int], int]:
        return [*self._start, *encode_text(self.tokenizer, text)], len(self._start) + 1

    def opening(self, budget: int | None) -> list[int]:
        return self._codec.write("\n<think>" if budget is None else f"\n<think {budget}>")

    def cue(self, trunk: Sequence[int], index: int) -> list[int]:
        return [*self._dots, *trunk[max(len(self._start), index - TAIL_TOKENS) : index]]

    def finished(self, answer: Sequence[int]) -> bool:
        return len(answer) >= self.answer_limit

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        if self._prefix_match:
            return prefix_match_reward(self._codec.read(answer), *continuation_of(self.tokenizer, trunk, index))
        return match_reward(answer[0], trunk[index])


def _render(tokenizer: Any) -> tuple[str, str]:
    """Return what a template writes before and after a user's text, with one thought open, whether it thinks or not."""
    marker = "\x02document\x03"
    thinks = {"enable_thinking": True, "thinking": True}  # of Qwen3, SmolLM3 and GLM; of DeepSeek and Granite
    asks = r"strftime_now\((['\"])(.*?)\1\)"
    template = re.sub(asks, lambda found: repr(TODAY.strftime(found[2])), tokenizer.get_chat_template())
    turn = [{"role": "user", "content": marker}]
    rendered = tokenizer.apply_chat_template(
        turn, chat_template=template, tokenize=False, add_generation_prompt=True, **thinks
    )
    before, after = rendered.split(marker)
    after = re.sub(r"(<think>\s*)?</think>\s*$", "", after)
    return before, after if after.rstrip().endswith("<think>") else after + "<think>\n"


class Chat:
    """The instruct model's format; see the module's docstring."""

    name = "chat"
    answer_limit = ANSWER_TOKENS

    def __init__(self, tokenizer: Any, instruction: str = INSTRUCTION) -> None:
        needs, other = "answer_format 'chat' needs a", "use answer_format 'continuation'"
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(f"{needs} tokenizer with a chat template; {other}")
        self.tokenizer, self._instruction, self._codec = tokenizer, instruction, Codec(tokenizer)
        self.close = self._codec.close("<think>\n", "\\boxed{0123456789}")
        found = f"{needs} chat template that takes a user's turn as it is, and this tokenizer's does not"
        with refusing(found, other):
            before, self._after = _render(tokenizer)
        self._header, self._cue = self._codec.encode(before), self._codec.write("\n\n")
        if last_boxed(self._codec.read(self._codec.write("\\boxed{a}"))) != "a":
            raise UserError(f"{needs} tokenizer that gives \\boxed{{a}} back as it was; {other}")

    def trunk(self, text: str) -> tuple[list[int], int]:
        return [*self._header, *encode_text(self.tokenizer, text)], len(self._header) + 1

    def opening(self, budget: int | None) -> list[int]:
        stated = "" if budget is None else BUDGET_INSTRUCTION.format(budget=budget)
        return self._codec.write(self._instruction.format(budget=stated) + self._after)

    def cue(self, trunk: Sequence[int], index: int) -> list[int]:
        return list(self._cue)

    def finished(self, answer: Sequence[int]) -> bool:
        if len(answer) >= self.answer_limit or answer[-1] == self.tokenizer.eos_token_id:
            return True
        return last_boxed(self._codec.read(answer)) is not None

    def judge(self, answer: Sequence[int], trunk: Sequence[int], index: int) -> float:
        boxed = last_boxed(self._codec.read(answer))
        if boxed is None:
            return 0.0
        text, boundaries = continuation_of(self.tokenizer, trunk, index)
        bare = text.lstrip()
        shift = len(text.encode()) - len(bare.encode())
        ends = [end - shift for end in boundaries if end > shift]
        read = {boxed, re.sub(r"\\([{}\\])", r"\1", boxed)}  # a lone brace of the text cannot be boxed but escaped
        return max(prefix_match_reward(one, *of_text) for one in read for of_text in ((text, boundaries), (bare, ends)))


def right_answer(form: AnswerFormat, trunk: Sequence[int], index: int) -> list[int]:
    """Return the tokens of an answer that ``judge`` calls right: the text's next token, in a chat in its box."""
    if not isinstance(form, Chat):
        return [trunk[index]]
    text, ends = continuation_of(form.tokenizer, trunk, index)
    token = text.encode()[: ends[0]].decode() if ends else ""
    token, codec = token.strip() or token, Codec(form.tokenizer)
    plain, escaped = (codec.write(f"\\boxed{{{one}}}") for one in (token, re.sub(r"([{}\\])", r"\\\1", token)))
    return plain if form.judge(plain, trunk, index) else escaped


def last_boxed(text: str) -> str | None:
    r"""Return the content of the last complete ``\boxed{...}`` with balanced braces, or None.

    Of several the last to begin counts. As in TeX, a brace after a backslash opens and closes nothing.

    Example:
        >>> last_boxed(r"so \boxed{7} or rather \boxed{x_{1}}"), last_boxed(r"\boxed{never closed")
        ('x_{1}', None)
    """
    opened: list[tuple[bool, int]] = []  # braces not closed yet: whether of a box, and where they end
    boxes: list[tuple[int, int]] = []
    for found in re.finditer(r"(?<!\\)\\+(?:boxed\{|[{}])|[{}]", text):
        is_box = found[0].endswith("boxed{")
        if not is_box and (len(found[0]) - 1) % 2:  # an odd number of backslashes: an escaped brace
            continue
        if found[0].endswith("{"):
            opened.append((is_box, found.end()))
        elif opened and (closed := opened.pop())[0]:
            boxes.append((closed[1], found.end() - 1))
    return text[slice(*max(boxes))] if boxes else None


def answer_format(name: str, tokenizer: Any, parameters: int, prefix_match: bool = False) -> AnswerFormat:
    """Choose a format by name; "auto" is chat for models from 1B on with a template."""
    if name == "auto":
        chat = parameters >= 1_000_000_000 and getattr(tokenizer, "chat_template", None)
        name = "chat" if chat else "continuation"
    if name == "chat":
        return Chat(tokenizer)
    return Continuation(tokenizer, prefix_match)
