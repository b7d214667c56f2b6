"""Whatever file a class brings along, it gives its documents or one clear line; and the same ones every time."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from rmt_mini.engine.prompt import Continuation
from rmt_mini.engine.text import to_texts
from rmt_mini.records import Document, Span
from rmt_mini.worlds.corpus import load_corpus
from tests.fakes import byte_tokenizer
from tests.outcomes import either
from tests.stages.tiny import small

# Right to left, combining marks, a joined emoji, a flag, half-width forms, odd spaces, a mark in the middle of a file.
SCRIPTS = (
    *("שלום", "السلام عليكم", "e\u0301\u0327", "👩\u200d👩\u200d👧", "🇨🇭", "ｱｲｳ", "漢字仮名", "ß"),
    *("\u00a0", "\u2028", "\u202e", "\ufeff", " ", "\t", "\x0b", "\x85", "\x1c"),
)
ENDS = ("\n", "\n\n\n", "\r\n", "\r\n\r\n\r\n", "\r")
PIECES = st.sampled_from([*SCRIPTS, *ENDS, "word", "a", ". ", "{", '"'])
TEXT = st.lists(PIECES, max_size=30).map("".join)


def file(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def loaded(source: str, **options: Any) -> tuple[list[str], str | None]:
    """The texts of a corpus, or the line in which it is refused."""
    corpus, message = either(lambda: load_corpus(source, **options))
    if corpus is None:
        return [], message
    ids = [document.id for document in corpus.documents]
    assert len(set(ids)) == len(ids)
    for document in corpus.documents:
        assert document.text == document.text.strip()
        assert document.text
        assert not re.search("[\0\r\ud800-\udfff]", document.text)
    return [document.text for document in corpus.documents], None


def without_space(texts: Sequence[str]) -> str:
    return "".join("".join(texts).split())


@given(data=st.binary(max_size=60) | TEXT.map(str.encode), name=st.sampled_from(["a.txt", "a.jsonl", "A.TXT"]))
@settings(max_examples=150)
def test_any_bytes_are_text_or_one_line(data: bytes, name: str, tmp_path: Path) -> None:
    texts, message = loaded(file(tmp_path, name, data))
    assert (message is None) == bool(texts)
    if message is not None:
        assert name in message
    elif name != "a.jsonl":
        assert without_space(texts) == without_space([data.decode().removeprefix("\ufeff")])


# --- JSON lines --------------------------------------------------------------------------------------------------

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(min_value=-(10**30)) | st.floats() | st.text(max_size=4) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
ROW = st.dictionaries(st.sampled_from(["text", "id", "body", "", "text+body"]), VALUE, max_size=4)
LINE = ROW.map(json.dumps) | ROW.map(lambda row: json.dumps(row, ensure_ascii=False)) | VALUE.map(json.dumps)
RAW = st.sampled_from(
    [
        b"", b" \t", b"{", b"[", b"NaN", b'{"text": NaN}', b'{"text": "a"', b'{"text": "a"} x', b'{"text": "\\ud83d"}',
        b'{"text": "\\u0000"}', b'{"text": "\x00"}', b'{"text": "\xff"}', b"\xef\xbb\xbf{}", b"[" * 100_000,
        b'{"text": ' + b"9" * 5000 + b"}", b'{"text": "a", "text": "b"}', b"{'text': 'a'}", b'{"text": "a"}\r',
    ]
)  # fmt: skip


@given(lines=st.lists(LINE.map(lambda line: line.encode("utf-8", "surrogatepass")) | RAW, max_size=4))
@settings(max_examples=300)
def test_any_json_lines(lines: list[bytes], tmp_path: Path) -> None:
    texts, message = loaded(file(tmp_path, "a.jsonl", b"\n".join(lines)))
    assert (message is None) == bool(texts)
    if message is None:
        rows = [
            json.loads(line) for line in b"\n".join(lines).decode().removeprefix("\ufeff").split("\n") if line.strip()
        ]
        wanted = [row["text"].replace("\r\n", "\n").replace("\r", "\n").strip() for row in rows]
        assert texts == [text for text in wanted if text]


@given(parts=st.lists(st.tuples(TEXT, st.sampled_from(["noise", "calculable", ""])), min_size=1, max_size=6))
def test_sorts_fall_on_the_tokens_of_their_words_in_any_script(parts: list[tuple[str, str]]) -> None:
    """A span of characters covers just the tokens, bytes here, that spell it."""
    tokenizer = byte_tokenizer(["word", "漢字", "👩"])
    spans, text, by_byte = [], "", []
    for part, sort in parts:
        if sort and part:
            spans.append(Span(len(text), len(text) + len(part), sort))
        text += part
        by_byte += [sort] * len(part.encode())
    config = small(document_tokens=5000, min_document_tokens=1, answer_format="continuation")
    found, message = either(
        lambda: to_texts([Document("0", text, tuple(spans))], Continuation(tokenizer), config, "all")
    )
    if found is None:
        assert "min_document_tokens" in message
        return
    (made,) = found
    assert tokenizer.decode(list(made.ids)) == text
    if made.sorts:
        ends, end = [], 0
        for token in made.ids:
            end += len(tokenizer.backend_tokenizer.id_to_token(token))  # one character a byte, in GPT-2's table
            ends.append(end)
        assert end == len(by_byte)
        assert list(made.sorts) == [by_byte[end - 1] for end in ends]


def test_documents_without_a_position_are_left_out() -> None:
    """One token has none before it, so nothing can be asked; two are enough."""
    tokenizer, config = byte_tokenizer(["word"]), small(min_document_tokens=1)
    documents = [Document(text, text) for text in ("word", "", "a", "word!")]
    texts = to_texts(documents, Continuation(tokenizer), config, "training")
    assert [(text.id, list(text.places)) for text in texts] == [("word!", [1])]
    _, message = either(lambda: to_texts(documents[:3], Continuation(tokenizer), config, "training"))
    assert message is not None
    assert "min_document_tokens (2)" in message
