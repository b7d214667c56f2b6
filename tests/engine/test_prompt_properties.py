"""Answers are judged right just where a slow and obvious reading of the bytes says so, whatever a model writes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmt_mini.engine.prompt import (
    LOOKAHEAD_TOKENS,
    Chat,
    Continuation,
    continuation_of,
    encode_text,
    last_boxed,
)
from tests.fakes import SPECIALS, byte_tokenizer

WORDS = ["étu", "de", " fa", "\\boxed{", "é", "漢字", "</think>", "\n", "}}"]
PARTS = st.sampled_from(
    [
        *WORDS,
        *SPECIALS,
        "\\boxed",
        "{",
        "}",
        "\\",
        "\\{",
        "\\}",
        "<think>",
        "\n...",
        " ",
        "a",
        "7",
        "é",
        "漢",
        "👩",
        "e\u0301",
    ]
)
TEXT = st.lists(PARTS, max_size=12).map("".join)


@pytest.fixture(scope="module")
def tokenizer():
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
        ("{" * 100_000 + "\\boxed{7}" + "}" * 99_999, "7"),
        ("\\boxed{7}" + "}" * 200_000, "7"),
        ("\\boxed{" + "\\}" * 100_000, None),
    ],
)
def test_a_long_answer_is_read_once(text: str, inside: str | None) -> None:
    """In a time that grows with its length; with its square, this would take an hour."""
    assert last_boxed(text) == inside


# --- prefix match ----------------------------------------------------------------------------------------------


def bytes_of(tokenizer, ids: Sequence[int]) -> list[bytes]:
    """What each token stands for, past transformers: GPT-2's table backwards."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    table = {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}
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
def test_a_continuation_is_the_bytes_that_follow(tokenizer, text: str, data: st.DataObject) -> None:
    trunk = encode_text(tokenizer, text)
    assert b"".join(bytes_of(tokenizer, trunk)).decode() == text
    index = data.draw(st.integers(0, len(trunk) - 1))
    wanted = runs(tokenizer, trunk, index)
    whole, boundaries = continuation_of(tokenizer, trunk, index)
    assert [whole.encode()[:end].decode() for end in boundaries] == wanted
    assert whole == (wanted[-1] if wanted else "")


@given(text=TEXT.filter(bool), other=TEXT, data=st.data())
@settings(max_examples=200)
def test_the_formats_agree_with_the_bytes(tokenizer, text: str, other: str, data: st.DataObject) -> None:
    """Said are: what follows, what follows elsewhere, half of it, more of it, or anything else."""
    chat, continuation = Chat(tokenizer), Continuation(tokenizer, prefix_match=True)
    (trunk, first), (bare, _) = chat.trunk(text), continuation.trunk(text)
    index = data.draw(st.integers(0, len(bare) - 1))
    following = runs(tokenizer, bare, index)
    after = b"".join(bytes_of(tokenizer, bare[index:])).decode(errors="ignore")
    said = data.draw(st.sampled_from([*following, after, after[:1], after.lstrip(), after.strip(), other, f"{after}a"]))
    boxed = encode_text(tokenizer, f"\\boxed{{{said}}}")
    inside = obviously_last_boxed(f"\\boxed{{{said}}}")
    right = bool(inside) and (inside in following or inside in {one.lstrip() for one in following})
    assert chat.judge(boxed, trunk, index + first - 1) == float(right)
    token = encode_text(tokenizer, said)[:1]
    if token:
        (spelt,) = bytes_of(tokenizer, token)
        assert continuation.judge(token, bare, index) == float(spelt in [one.encode() for one in following])
        assert Continuation(tokenizer).judge(token, bare, index) == float(token[0] == bare[index])


@given(answer=st.lists(st.integers(0, 270), min_size=1, max_size=20), text=TEXT.filter(bool), data=st.data())
@settings(max_examples=200)
def test_any_tokens_can_be_judged(tokenizer, answer: list[int], text: str, data: st.DataObject) -> None:
    """Half characters, special tokens, nothing but space: an answer is right or wrong, and never an error."""
    answer = [token % len(tokenizer) for token in answer]
    for form in (Chat(tokenizer), Continuation(tokenizer), Continuation(tokenizer, prefix_match=True)):
        trunk, first = form.trunk(text)
        index = data.draw(st.integers(first, max(first, len(trunk) - 1)))
        if index < len(trunk):
            assert form.judge(answer, trunk, index) in (0.0, 1.0)
            assert form.finished(answer) in (True, False)


# --- encoding --------------------------------------------------------------------------------------------------


@given(text=TEXT)
def test_text_without_special_tokens_is_encoded_as_ever(tokenizer, text: str) -> None:
    """So results that were recorded before special tokens became plain text stay what they are."""
    for special in SPECIALS:
        text = text.replace(special, "")
    assert encode_text(tokenizer, text) == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_a_special_token_in_a_text_is_encoded_as_any_other_letters() -> None:
    """In the words that the tokenizer has, as the same letters elsewhere."""
    words = byte_tokenizer(["<|", "nd"])
    assert [words.decode([token]) for token in encode_text(words, "a<|end|>")] == ["a", "<|", "e", "nd", "|", ">"]
