"""How a position becomes a question, by hand; and answers are right just where a slow reading of the bytes says so."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from rmt_mini.engine.prompt import (
    ANSWER_TOKENS,
    BUDGET_INSTRUCTION,
    INSTRUCTION,
    LOOKAHEAD_TOKENS,
    Chat,
    Continuation,
    answer_format,
    continuation_of,
    encode_text,
    last_boxed,
    right_answer,
)
from tests.fakes import SPECIALS, byte_signs, byte_tokenizer

END, USER, ASSISTANT = 256, 257, 258  # the byte tokenizer's specials; every other id is a byte


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def raw(text: str) -> list[int]:
    return list(text.encode())


# --- continuation ------------------------------------------------------------------------------------------------


def with_start() -> PreTrainedTokenizerFast:
    """A tokenizer that begins every text with <|user|> and ends it with <|end|>, as Llama's does with <s> and </s>."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|user|> $A <|end|>", special_tokens=[("<|user|>", USER), ("<|end|>", END)]
    )
    return tokenizer


@pytest.mark.parametrize(("make", "start"), [(byte_tokenizer, []), (with_start, [USER])])
def test_continuation_by_hand(make, start: list[int]) -> None:
    form, begun = Continuation(make()), len(start)
    assert form.trunk("né") == ([*start, 110, 0xC3, 0xA9], begun + 1)
    assert form.trunk("") == (start, begun + 1)
    assert (form.opening(24), form.opening(None)) == (raw("\n<think 24>"), raw("\n<think>"))
    assert form.close == raw("</think>")
    for index, tail in ((12, "456789ab"), (8, "01234567"), (3, "012"), (1, "0")):
        assert form.cue(form.trunk("0123456789ab")[0], begun + index) == raw(f"\n...{tail}")
    assert form.answer_limit == 1
    assert [form.finished(answer) for answer in ([], [5], [5, 6])] == [False, True, True]


# --- chat --------------------------------------------------------------------------------------------------------


def test_chat_by_hand(tokenizer) -> None:
    form = Chat(tokenizer)
    assert form.trunk("né") == ([USER, 110, 0xC3, 0xA9], 2)  # the header is not asked for, nor the first token
    end = [END, ASSISTANT, *raw("<think>\n")]
    assert form.opening(None) == [*raw(INSTRUCTION.format(budget="")), *end]
    assert form.opening(37) == [*raw(INSTRUCTION.format(budget=BUDGET_INSTRUCTION.format(budget=37))), *end]
    assert form.close == raw("</think>")
    assert form.cue([1, 2, 3], 2) == raw("\n\n")


ASKS = "<|user|>{{ messages[0].content }}<|end|><|assistant|>"


@pytest.mark.parametrize(
    ("template", "after"),
    [
        (ASKS, "<think>\n"),
        # Qwen3 thinks unless asked not to; some like it do not think unless asked to
        (ASKS + "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}", "<think>\n"),
        (ASKS + "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}", "<think>\n"),
        (ASKS + "{% if enable_thinking %}<think>\n{{ '' }}{% endif %}", "<think>\n"),
        (ASKS + "{% if thinking %}<think>{% else %}</think>{% endif %}", "<think>"),  # DeepSeek-V3.1
        (ASKS + "<think>\n{{ '' }}", "<think>\n"),  # DeepSeek-R1
        (ASKS + "<think>\n\n</think>\n\n{{ '' }}", "<think>\n"),  # never thinks, whatever is asked
        (ASKS + "</think>", "<think>\n"),
        ("{% if '/no_think' in messages[0].content %}{% set off = true %}{% endif %}" + ASKS
         + "{% if off %}<think>\n\n</think>\n{{ '' }}{% endif %}", "<think>\n"),  # SmolLM3
    ],
)  # fmt: skip
def test_chat_opens_one_thought_whatever_the_template_does(template: str, after: str) -> None:
    form = Chat(byte_tokenizer(template=template))
    assert form.opening(None)[-2 - len(after) :] == [END, ASSISTANT, *raw(after)]
    assert bytes(token for token in form.opening(None) if token < 256).count(b"think>") == 1


def test_a_template_that_states_the_date_states_the_same_one_on_every_day() -> None:
    form = Chat(byte_tokenizer(template="Today: {{ strftime_now('%d %b %Y') }}" + ASKS))
    assert form.trunk("a")[0] == [*raw("Today: 01 Jan 2026"), USER, 97]
    assert form.opening(None)[-10:] == [END, ASSISTANT, *raw("<think>\n")]


@pytest.mark.parametrize(
    ("answer", "finished"),
    [
        (raw("7"), False),
        (raw("\\boxed{7"), False),
        (raw("\\boxed{7}"), True),
        (raw("\\boxed{{7}"), False),
        ([*raw("7"), END], True),
        (raw("x" * (ANSWER_TOKENS - 1)), False),
        (raw("x" * ANSWER_TOKENS), True),
    ],
)
def test_a_chat_answer_ends_with_its_box_or_the_turn_or_the_limit(tokenizer, answer, finished) -> None:
    form = Chat(tokenizer)
    assert form.answer_limit == ANSWER_TOKENS == 16
    assert form.finished(answer) == finished


# --- choosing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "template", "chosen"),
    [
        ("auto", 999_999_999, True, "continuation"),
        ("auto", 1_000_000_000, True, "chat"),
        ("auto", 7_000_000_000, False, "continuation"),
        ("chat", 1000, True, "chat"),
    ],
)
def test_choice_of_format(name: str, parameters: int, template: bool, chosen: str) -> None:
    tokenizer = byte_tokenizer() if template else byte_tokenizer(template=None)
    assert answer_format(name, tokenizer, parameters).name == chosen


WORDS = ["étu", "de", " fa", "\\boxed{", "é", "漢字", "</think>", "\n", "}}"]
SIGNS = ["\\boxed", "\\{", "\\}", "<think>", "\n...", "e\u0301", *"{}\\ a7é漢👩"]
PARTS = st.sampled_from([*WORDS, *SPECIALS, *SIGNS])
TEXT = st.lists(PARTS, max_size=12).map("".join)


@pytest.fixture(scope="module")
def wordy():
    return byte_tokenizer(WORDS)


# --- last_boxed ------------------------------------------------------------------------------------------------


def obviously_last_boxed(text: str) -> str | None:
    """Try every beginning from the last to the first; count braces that no backslash stands before."""
    for start in range(len(text), -1, -1):
        if not text.startswith("\\boxed{", start):
            continue
        begin, depth = start + len("\\boxed{"), 1
        for place in range(begin, len(text)):
            backslashes = len(text[:place]) - len(text[:place].rstrip("\\"))
            if text[place] in "{}" and backslashes % 2 == 0:
                depth += 1 if text[place] == "{" else -1
            if depth == 0:
                return text[begin:place]
    return None


@given(
    st.lists(st.sampled_from(["\\boxed{", "\\boxed", "boxed{", "{", "}", "\\", "a", "\n"]), max_size=14).map("".join)
)
@settings(max_examples=500)
def test_the_last_box(text: str) -> None:
    assert last_boxed(text) == obviously_last_boxed(text)


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("\\boxed{" * 20_000, None),
        ("\\boxed{" * 20_000 + "}" * 20_000, ""),
        ("\\boxed{a}" * 20_000, "a"),
        ("\\" * 200_000, None),
        ("{" * 100_000 + "\\boxed{7}" + "}" * 200_000, "7"),
    ],
)
def test_a_long_answer_is_read_once(text: str, inside: str | None) -> None:
    """In a time that grows with its length; with its square, this would take an hour."""
    assert last_boxed(text) == inside


# --- prefix match ----------------------------------------------------------------------------------------------


def bytes_of(tokenizer, ids: Sequence[int]) -> list[bytes]:
    """The bytes of each token, past transformers: GPT-2's table backwards."""
    table = {sign: byte for byte, sign in byte_signs().items()}
    return [bytes(table[sign] for sign in tokenizer.backend_tokenizer.id_to_token(token)) for token in ids]


def runs(tokenizer, trunk: Sequence[int], index: int) -> list[str]:
    """The texts of the next 1, 2, ... tokens, as far as they are whole characters."""
    found = []
    pieces = bytes_of(tokenizer, trunk[index : index + LOOKAHEAD_TOKENS])
    for count in range(1, len(pieces) + 1):
        try:
            found.append(b"".join(pieces[:count]).decode())
        except UnicodeDecodeError:
            continue
    return found


@given(text=TEXT.filter(bool), data=st.data())
@settings(max_examples=200)
def test_a_continuation_is_the_bytes_that_follow(wordy, text: str, data: st.DataObject) -> None:
    trunk = encode_text(wordy, text)
    assert b"".join(bytes_of(wordy, trunk)).decode() == text
    index = data.draw(st.integers(0, len(trunk) - 1))
    wanted = runs(wordy, trunk, index)
    whole, boundaries = continuation_of(wordy, trunk, index)
    assert [whole.encode()[:end].decode() for end in boundaries] == wanted
    assert whole == (wanted[-1] if wanted else "")


@given(text=TEXT.filter(bool), other=TEXT, data=st.data())
@settings(max_examples=200)
def test_the_formats_agree_with_the_bytes(wordy, text: str, other: str, data: st.DataObject) -> None:
    """Said are: what follows, what follows elsewhere, half of it, more of it, or anything else."""
    chat, continuation = Chat(wordy), Continuation(wordy, prefix_match=True)
    (trunk, first), (bare, _) = chat.trunk(text), continuation.trunk(text)
    index = data.draw(st.integers(0, len(bare) - 1))
    following = runs(wordy, bare, index)
    after = b"".join(bytes_of(wordy, bare[index:])).decode(errors="ignore")
    said = data.draw(st.sampled_from([*following, after, after[:1], after.lstrip(), after.strip(), other, f"{after}a"]))
    boxed = encode_text(wordy, f"\\boxed{{{said}}}")
    inside = obviously_last_boxed(f"\\boxed{{{said}}}")
    read = {inside, re.sub(r"\\([{}\\])", r"\1", inside)} - {""} if inside else set()
    right = not read.isdisjoint([*following, *(one.lstrip() for one in following)])
    assert chat.judge(boxed, trunk, index + first - 1) == float(right)
    token = encode_text(wordy, said)[:1]
    if token:
        (spelt,) = bytes_of(wordy, token)
        assert continuation.judge(token, bare, index) == float(spelt in [one.encode() for one in following])
        assert Continuation(wordy).judge(token, bare, index) == float(token[0] == bare[index])


def test_what_a_box_cannot_hold_as_it_is_can_be_boxed_escaped(wordy) -> None:
    chat = Chat(wordy)
    trunk, first = chat.trunk(r"so {x} and \alpha \\ or }{ end")
    for index in range(first, len(trunk)):
        answer = right_answer(chat, trunk, index)
        if continuation_of(wordy, trunk, index)[1]:  # a token that is a part of a letter cannot be asked for
            assert chat.judge(answer, trunk, index) == 1, wordy.decode(answer)


# --- encoding --------------------------------------------------------------------------------------------------


def test_a_special_token_in_a_text_is_encoded_as_any_other_letters() -> None:
    """In the words that the tokenizer has, as the same letters elsewhere."""
    words = byte_tokenizer(["<|", "nd"])
    assert [words.decode([token]) for token in encode_text(words, "a<|end|>")] == ["a", "<|", "e", "nd", "|", ">"]
