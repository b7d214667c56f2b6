"""Whatever file a class brings along, it gives its documents or one clear line; and sorts stay with their words."""

import json
import re
from pathlib import Path

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
    *("\n", "\n\n\n", "\r\n", "\r\n\r\n\r\n", "\r", "word", "a", ". ", "{", '"'),
)
TEXT = st.lists(st.sampled_from(SCRIPTS), max_size=30).map("".join)
VALUE = st.none() | st.integers(min_value=-(10**30)) | st.floats() | TEXT | st.lists(st.text(max_size=4), max_size=2)
ROW = st.dictionaries(st.sampled_from(["text", "id", "body", "", "text+body"]), VALUE, max_size=4)
LINE = (ROW | VALUE).map(json.dumps) | ROW.map(lambda row: json.dumps(row, ensure_ascii=False))
RAW = st.sampled_from(
    [
        b" \t", b"{", b'{"text": NaN}', b'{"text": "a"} x', b'{"text": "\\ud83d"}', b'{"text": "\\u0000"}',
        b'{"text": "\xff"}', b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"text": ' + b"9" * 5000 + b"}",
        b'{"text": "a", "text": "b"}', b"{'text': 'a'}", b'{"text": "a"}\r',
    ]
)  # fmt: skip
LINES = st.lists(LINE.map(lambda line: line.encode("utf-8", "surrogatepass")) | RAW, max_size=4).map(b"\n".join)


@given(data=LINES | TEXT.map(str.encode) | st.binary(max_size=60), name=st.sampled_from(["a.jsonl", "A.TXT"]))
@settings(max_examples=400)
def test_any_bytes_are_documents_or_one_line(data: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    corpus, message = either(lambda: load_corpus(str(tmp_path / name)))
    if corpus is None:
        assert name in str(message)
        return
    texts, content = [document.text for document in corpus.documents], data.decode().removeprefix("\ufeff")
    assert all(text and text == text.strip() and not re.search("[\0\r\ud800-\udfff]", text) for text in texts)
    assert len({document.id for document in corpus.documents}) == len(texts)
    if name == "A.TXT":
        assert "".join("".join(texts).split()) == "".join(content.split())
    else:
        rows = [json.loads(line)["text"] for line in re.split("\r\n|\r|\n", content) if line.strip()]
        assert texts == list(filter(None, (re.sub("\r\n|\r", "\n", text).strip() for text in rows)))


@given(parts=st.lists(st.tuples(TEXT, st.sampled_from(["noise", "calculable", ""])), min_size=1, max_size=6))
def test_sorts_fall_on_the_tokens_of_their_words_in_any_script(parts: list[tuple[str, str]]) -> None:
    """A span of characters covers just the tokens, bytes here, that spell its word."""
    tokenizer = byte_tokenizer(["word", "漢字", "👩"])
    spans, text, by_byte = [], "", []
    for part, sort in parts:
        if sort and part:
            spans.append(Span(len(text), len(text) + len(part), sort))
        text += part
        blank = len(part) - len(part.lstrip())  # before the word: of no sort
        by_byte += [""] * len(part[:blank].encode()) + [sort] * len(part[blank:].encode())
    config = small(document_tokens=5000, min_document_tokens=1)
    found, message = either(
        lambda: to_texts([Document("0", text, tuple(spans))], Continuation(tokenizer), config, "all")
    )
    if found is None:
        assert "min_document_tokens" in str(message)
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
    assert "min_document_tokens (2)" in str(message)
