from __future__ import annotations

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from rmt_mini.engine.prompt import (
    ANSWER_TOKENS,
    TAIL_TOKENS,
    Chat,
    Continuation,
    Turn,
    answer_format,
    continuation_of,
)
from tests.fakes import byte_tokenizer

END, USER, ASSISTANT = 256, 257, 258  # the byte tokenizer's specials; every other id is a byte


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def raw(text: str) -> list[int]:
    return list(text.encode())


# --- continuation ------------------------------------------------------------------------------------------------


def test_continuation_by_hand(tokenizer) -> None:
    form = Continuation(tokenizer)
    assert form.trunk("né") == ([110, 0xC3, 0xA9], 1)
    assert form.opening(24) == raw("\n<think 24>")
    assert form.opening(None) == raw("\n<think>")
    assert form.close == raw("</think>")
    trunk = raw("0123456789ab")
    assert TAIL_TOKENS == 8
    assert form.cue(trunk, 12) == raw("\n...456789ab")
    assert form.cue(trunk, 8) == raw("\n...01234567")
    assert form.cue(trunk, 3) == raw("\n...012")
    assert form.cue(trunk, 1) == raw("\n...0")
    assert form.answer_limit == 1
    assert [form.finished(answer) for answer in ([], [5], [5, 6])] == [False, True, True]


def test_a_token_that_is_spelt_alike_is_another_token() -> None:
    tokenizer = byte_tokenizer(words=["the"])
    form, prefix = Continuation(tokenizer), Continuation(tokenizer, prefix_match=True)
    trunk = tokenizer("in the end")["input_ids"]
    the = trunk[3]
    assert the > 258 or tokenizer.decode([the]) == "the"
    assert form.judge([the], trunk, 3) == prefix.judge([the], trunk, 3) == 1.0
    assert form.judge([ord("t")], trunk, 3) == prefix.judge([ord("t")], trunk, 3) == 0.0
    # with prefix_match one token may say what the text says in several
    spelt = [*raw("in "), *raw("the"), *raw(" end")]
    assert form.judge([the], spelt, 3) == 0.0
    assert prefix.judge([the], spelt, 3) == 1.0


def with_start() -> PreTrainedTokenizerFast:
    """A tokenizer that begins every text with <|user|> and ends it with <|end|>, as Llama's does with <s> and </s>."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|user|> $A <|end|>", special_tokens=[("<|user|>", USER), ("<|end|>", END)]
    )
    return tokenizer


def test_a_text_begins_as_the_tokenizer_begins_it() -> None:
    form = Continuation(with_start())
    assert form.tokenizer("né")["input_ids"] == [USER, 110, 0xC3, 0xA9, END]
    assert form.trunk("né") == ([USER, 110, 0xC3, 0xA9], 2)
    assert form.trunk("") == ([USER], 2)
    trunk = form.trunk("0123456789ab")[0]
    assert [form.cue(trunk, index) for index in (13, 9, 4, 2)] == [
        raw("\n...456789ab"), raw("\n...01234567"), raw("\n...012"), raw("\n...0")
    ]  # fmt: skip
    assert (form.opening(24), form.close) == (raw("\n<think 24>"), raw("</think>"))


# --- chat --------------------------------------------------------------------------------------------------------


def test_chat_by_hand(tokenizer) -> None:
    form = Chat(tokenizer)
    assert form.trunk("né") == ([USER, 110, 0xC3, 0xA9], 2)  # the header is not asked for, nor the first token
    assert form.opening(None) == [
        *raw(
            "\n\nThe text above breaks off. Reason about what its next token is, then give the next token alone in "
            "\\boxed{}."
        ),
        END,
        ASSISTANT,
        *raw("<think>\n"),
    ]
    stated = form.opening(37)
    assert b"token is; use exactly 37 tokens within <think></think>, then give" in bytes(
        token for token in stated if token < 256
    )
    assert stated[-10:] == form.opening(None)[-10:]
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


def test_a_turn_that_was_settled_before_is_used_again() -> None:
    tokenizer = byte_tokenizer(template="Today: {{ strftime_now('%s') }}" + ASKS)
    first = Chat(tokenizer, turn=Turn("Today: 2 May<|user|>", "<|end|><|assistant|><think>\n"))
    assert first.trunk("a")[0] == [*raw("Today: 2 May"), USER, 97]
    assert first.opening(None)[-10:] == [END, ASSISTANT, *raw("<think>\n")]
    assert Chat(tokenizer).trunk("a")[0] != first.trunk("a")[0]
    assert answer_format("chat", tokenizer, 1, turn=first.turn).trunk("a") == first.trunk("a")


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


WORDS = ["étu", "de", " fa"]  # besides the bytes


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        ("étu", 1.0),
        ("étude", 1.0),
        ("étude fa", 1.0),
        ("étude faç", 1.0),
        ("étude façon", 1.0),
        ("é", 0.0),  # inside a token
        ("ét", 0.0),
        ("étud", 0.0),
        ("étude f", 0.0),
        ("etude", 0.0),
        (" étu", 0.0),  # the text has no space there
        ("de", 0.0),
        ("", 0.0),
    ],
)
def test_chat_judges_whole_tokens_of_the_continuation(said: str, reward: float) -> None:
    tokenizer = byte_tokenizer(WORDS)
    form = Chat(tokenizer)
    trunk, first = form.trunk("L'étude façon")
    index = first + 1
    assert tokenizer.decode(trunk[index:]) == "étude façon"
    answer = tokenizer(f"so \\boxed{{{said}}}")["input_ids"]
    assert form.judge(answer, trunk, index) == reward


def test_leading_space_may_be_left_out_of_the_box() -> None:
    form = Chat(byte_tokenizer([" the", " end"]))
    trunk, first = form.trunk("in the end")
    for said, reward in ((" the", 1.0), ("the", 1.0), ("the end", 1.0), ("th", 0.0), ("  the", 0.0), (" ", 0.0)):
        assert form.judge(raw(f"\\boxed{{{said}}}"), trunk, first + 1) == reward, said


def test_continuation_of_skips_ends_inside_a_character(tokenizer) -> None:
    trunk = raw("aé😀b")
    assert continuation_of(tokenizer, trunk, 0) == ("aé😀b", [1, 3, 7, 8])
    assert continuation_of(tokenizer, trunk, 3) == ("😀b", [4, 5])
    assert continuation_of(tokenizer, trunk, 7) == ("b", [1])
    assert continuation_of(tokenizer, raw("aé😀")[:5], 0) == ("aé", [1, 3])  # the text breaks off in a character
    assert continuation_of(tokenizer, raw("0123456789"), 1) == ("12345678", [1, 2, 3, 4, 5, 6, 7, 8])


# --- faking ------------------------------------------------------------------------------------------------------


# --- choosing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "template", "chosen"),
    [
        ("auto", 135_000_000, True, "continuation"),
        ("auto", 999_999_999, True, "continuation"),
        ("auto", 1_000_000_000, True, "chat"),
        ("auto", 7_000_000_000, False, "continuation"),
        ("chat", 1000, True, "chat"),
        ("continuation", 7_000_000_000, True, "continuation"),
    ],
)
def test_choice_of_format(name: str, parameters: int, template: bool, chosen: str) -> None:
    tokenizer = byte_tokenizer() if template else byte_tokenizer(template=None)
    assert answer_format(name, tokenizer, parameters).name == chosen
