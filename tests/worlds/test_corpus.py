from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rmt_mini.errors import UserError
from rmt_mini.records import Document
from rmt_mini.worlds import corpus as room
from rmt_mini.worlds.corpus import Corpus, load_corpus

LONG = "Forty characters of text, give or take: {}"
LINES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


def by_hand(*texts: str) -> Corpus:
    return Corpus("by hand", tuple(Document(str(n), text) for n, text in enumerate(texts)))


def texts_of(corpus: Corpus) -> list[str]:
    return [document.text for document in corpus.documents]


def ids_of(corpus: Corpus) -> list[str]:
    return [document.id for document in corpus.documents]


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def complaint(load: Callable[[], object]) -> str:
    with pytest.raises(UserError) as raised:
        load()
    message = str(raised.value)
    assert "\n" not in message
    return message


# ---------------------------------------------------------------- CHAMP


def test_champ_is_270_distinct_problems_with_solution_and_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "champ_dataset", raising=False)
    corpus = load_corpus("champ")
    assert len(corpus.documents) == len(set(texts_of(corpus))) == 270
    assert corpus.documents[0].id == "P_Combinatorics_1"
    first = corpus.documents[0].text.split("\n")
    assert first[0].startswith("Let a string consist of digit 1, 2, 3.")
    assert first[1].startswith("Let x_n, y_n, z_n be the number of length-n strings")
    assert first[-1] == "Answer: 239"
    assert not any("@@" in text for text in texts_of(corpus))
    train, evaluation = corpus.split(0.25)
    assert (len(train), len(evaluation)) == (199, 71)  # changes only with the texts or the hash
    assert "champ_dataset" not in sys.modules


def test_champ_absent_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: None)
    assert "pip install champ-dataset" in complaint(lambda: load_corpus("champ"))


# ---------------------------------------------------------------- text files


def test_two_blank_lines_separate_documents_and_one_does_not(tmp_path: Path) -> None:
    one, two = LONG.format(1) + "\n\nsecond paragraph", LONG.format(2)
    (tmp_path / "a.txt").write_text(f"\n{one}\n\n \t\n{two}\n\n\n\n\nshort\n", "utf-8")
    corpus = load_corpus(str(tmp_path / "a.txt"))
    assert texts_of(corpus) == [one, two]
    assert ids_of(corpus) == ["a.txt#1", "a.txt#2"]


def test_byte_order_mark_and_line_ends_of_other_systems_make_no_difference(tmp_path: Path) -> None:
    text = LONG.format("é\nü") + "\n\n\n" + LONG.format("∑")
    wanted = None
    for ends in ("\n", "\r\n", "\r"):
        for mark in ("", "\ufeff"):
            (tmp_path / "a.txt").write_bytes((mark + text.replace("\n", ends)).encode())
            corpus = load_corpus(str(tmp_path / "a.txt"))
            assert len(corpus.documents) == 2
            wanted = wanted or corpus
            assert corpus == wanted
            assert corpus.digest == wanted.digest


def test_one_long_text_becomes_many_documents_cut_at_paragraphs(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {n}. " + "word " * 30 + "end." for n in range(50)]
    (tmp_path / "book.txt").write_text("\n\n".join(paragraphs), "utf-8")
    corpus = load_corpus(str(tmp_path / "book.txt"), max_chars=1000)
    assert len(corpus.documents) > 5
    assert "\n\n".join(texts_of(corpus)) == "\n\n".join(paragraphs)
    assert all(len(text) <= 1000 and text.startswith("Paragraph") for text in texts_of(corpus))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aaa bbbb", ["aaa bbbb"]),
        ("aaaaaaa\nb\n\ncccc", ["aaaaaaa\nb", "cccc"]),  # paragraph before line
        ("aaaaaaa\nb cc dd", ["aaaaaaa", "b cc dd"]),  # line before word
        ("aaaaa. bb cc dd", ["aaaaa.", "bb cc dd"]),  # sentence before word
        ("aaaaa bb cc dd", ["aaaaa bb", "cc dd"]),  # word
        ("a\n\nbbbbbbbbbbbbbb", ["a\n\nbbbbbbb", "bbbbbbb"]),  # a title alone is no piece
        ("a" * 25, ["a" * 10, "a" * 10, "a" * 5]),
    ],
)
def test_where_long_text_is_cut(text: str, expected: list[str]) -> None:
    assert list(room._pieces(text, 10)) == expected


@given(st.text(st.sampled_from("ab. \n"), max_size=200), st.integers(2, 30))
@settings(deadline=None)
def test_cutting_loses_nothing_but_white_space(text: str, most: int) -> None:
    pieces = list(room._pieces(text, most))
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(len(piece) <= most for piece in pieces)


def test_folder_is_one_document_a_file_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("b.txt", "a.TXT", "sub/c.txt", "note.md", "._a.txt", ".git/d.txt"):
        (tmp_path / name).write_text(LONG.format(name) + "\n\n\n" + LONG.format("same document"), "utf-8")
    (tmp_path / "empty.txt").touch()
    corpus = load_corpus(str(tmp_path))
    assert ids_of(corpus) == ["a.TXT#1", "b.txt#1", "sub/c.txt#1"]
    assert texts_of(corpus)[0].endswith("same document")


def test_a_moved_folder_keeps_its_digest(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.txt").write_text(LONG, "utf-8")
    before = load_corpus(str(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "new")
    after = load_corpus(str(tmp_path / "new"))
    assert before.source != after.source
    assert before.digest == after.digest


# ---------------------------------------------------------------- JSON lines


def test_json_lines_take_column_and_optional_id(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"body": LONG.format(1), "id": 7}, {"body": LONG.format(2) + "\r\nline\u2028same line"}]
    path.write_text(json.dumps(rows[0]) + "\n\n" + json.dumps(rows[1], ensure_ascii=False), "utf-8")
    corpus = load_corpus(str(path), column="body")
    assert ids_of(corpus) == ["7", "a.jsonl:3"]
    assert texts_of(corpus) == [LONG.format(1), LONG.format(2) + "\nline\u2028same line"]


def test_two_columns_are_joined_unless_one_has_that_very_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"p": LONG, "s": "so it is"}, {"p": "", "s": "", "p+s": LONG})
    assert texts_of(load_corpus(path, column="p+s")) == [LONG + "\nso it is", LONG]


@given(texts=st.lists(LINES.filter(lambda text: text.strip()), min_size=1, max_size=6))
@settings(deadline=None)
def test_json_lines_give_back_what_was_written(texts, tmp_path_factory) -> None:
    path = write(tmp_path_factory.mktemp("lines") / "a.jsonl", *({"text": text} for text in texts))
    wanted = [text.replace("\r\n", "\n").replace("\r", "\n").strip() for text in texts]
    assert texts_of(load_corpus(path, min_chars=1)) == wanted


def test_limit_takes_the_first_and_reads_no_further(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, {"text": "short"}, {"text": LONG.format(1)}, {"text": LONG.format(2)})
    path.write_text(path.read_text("utf-8") + "not JSON", "utf-8")
    assert texts_of(load_corpus(str(path), limit=1)) == [LONG.format(1)]
    assert len(load_corpus(str(path), limit=2).documents) == 2


def test_blank_documents_are_none_however_short_they_may_be(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"text": " \n"}, {"text": "x"}, {"text": ""})
    assert texts_of(load_corpus(path, min_chars=0)) == ["x"]


# ---------------------------------------------------------------- Hugging Face


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("saved")
    parts = {name: [LONG.format(f"{name} {n}") for n in range(3)] for name in ("train", "test")}
    tables = {name: datasets.Dataset.from_dict({"text": t, "n": [0, 1, 2]}) for name, t in parts.items()}
    tables["train"].save_to_disk(folder / "one")
    datasets.DatasetDict(tables).save_to_disk(folder / "two@v1:x")
    return folder


def test_saved_datasets_load_without_a_network(saved: Path) -> None:
    assert ids_of(load_corpus(f"hf:{saved}/one", limit=2)) == ["one:0", "one:1"]
    assert texts_of(load_corpus(f"hf:{saved}/two@v1:x"))[2] == LONG.format("train 2")
    assert texts_of(load_corpus(f"hf:{saved}/two@v1:x", split="test"))[2] == LONG.format("test 2")


def test_complaints_about_saved_datasets(saved: Path) -> None:
    message = complaint(lambda: load_corpus(f"hf:{saved}/one", column="body"))
    assert "no column 'body'" in message
    assert "['text', 'n']" in message
    assert "row 0: column 'n' is 0, not text" in complaint(lambda: load_corpus(f"hf:{saved}/one", column="n"))
    message = complaint(lambda: load_corpus(f"hf:{saved}/two@v1:x", split="dev"))
    assert "dev" in message
    assert "@SPLIT" in message


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hf:owner/name", ("owner/name", None, "train")),
        ("hf:owner/name@test", ("owner/name", None, "test")),
        ("hf:owner/name:main", ("owner/name", "main", "train")),
        ("hf:name:main@train[:9]", ("name", "main", "train[:9]")),
    ],
)
def test_address_names_configuration_and_split(
    source: str, expected: tuple[str, str | None, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    asked = []

    def load_dataset(name: str, config: str | None, split: str) -> object:
        asked.append((name, config, split))
        return datasets.Dataset.from_dict({"text": [LONG]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert texts_of(load_corpus(source)) == [LONG]
    assert asked == [expected]


def test_whatever_the_hub_answers_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def load_dataset(*_: object, **__: object) -> object:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert "'owner/name' does not load: no network at all" in complaint(lambda: load_corpus("hf:owner/name"))


def test_datasets_absent_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert ".[data]" in complaint(lambda: load_corpus("hf:owner/name"))


# ---------------------------------------------------------------- what a user can get wrong

TEXT = LONG.encode()


@pytest.mark.parametrize(
    ("name", "data", "parts"),
    [
        ("a.txt", TEXT + b"\xff", (f"byte {len(TEXT)} is not UTF-8", "a.txt", "save it as UTF-8")),
        ("a.txt", b"\xef\xbb\xbf" + TEXT + b"\xff", (f"byte {len(TEXT) + 3} is not UTF-8",)),
        ("a.txt", LONG.encode("utf-16"), ("byte 0 is not UTF-8",)),
        ("a.txt", LONG.encode("utf-16-le"), ("'\\x00' at character 1", "give UTF-8")),
        ("a.txt", b"", ("a.txt", "holds no text")),
        ("a.txt", b"\xef\xbb\xbf \n\r\n\n", ("holds no text",)),
        ("a.txt", b"short\n\n\n\nalso", ("all 2 documents have under 32 characters",)),
        ("a.csv", TEXT, ("a.csv", "neither .txt nor .jsonl", "'champ'")),
        ("a.jsonl", b"", ("holds no text",)),
        ("a.jsonl", b'\n{"text": "x"}\n{"text": \n', ("line 3 is not JSON (Expecting value: column ",)),
        ("a.jsonl", b"[" * 100_000, ("line 1 is not JSON",)),
        ("a.jsonl", b"9" * 5000, ("line 1 is not JSON",)),
        ("a.jsonl", b"[1]", ("line 1 is a JSON list",)),
        ("a.jsonl", b'{"body": "x", "id": 1}', ("line 1 has no column 'text'", "['body', 'id']")),
        ("a.jsonl", b'{"text": null}', ("line 1: column 'text' is None, not text", "--column")),
        ("a.jsonl", b'{"text": "a\\u0000"}', ("a.jsonl:1", "'\\x00' at character 1")),
        ("a.jsonl", b'{"text": "a\\ud800"}', ("'\\ud800' at character 1",)),
        ("a.jsonl", b'{"id": "\\ud800", "text": "a"}', ("an id holds '\\ud800'",)),
        ("a.jsonl", (b'{"id": 1, "text": "%s"}\n' % TEXT) * 2, ("two documents have the id '1'",)),
    ],
)
def test_bad_files_get_one_line(name: str, data: bytes, parts: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    message = complaint(lambda: load_corpus(str(tmp_path / name)))
    for part in parts:
        assert part in message


@pytest.mark.parametrize("source", ["", "hf:", "shakespeare", "owner/name", "no.txt", "x\0", "CHAMP", "a\nb"])
def test_unknown_sources_are_told_what_is_accepted(source: str) -> None:
    message = complaint(lambda: load_corpus(source))
    assert "does not exist" in message
    assert all(part in message for part in ("'champ'", ".txt", ".jsonl", "hf:NAME"))


def test_folder_without_text_and_folder_named_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "holds no .txt file" in complaint(lambda: load_corpus(str(tmp_path / "data")))
    (tmp_path / "data" / "odd.txt").mkdir()
    assert "odd.txt' cannot be read" in complaint(lambda: load_corpus(str(tmp_path / "data")))


@pytest.mark.parametrize("setting", [{"limit": 0}, {"max_chars": 1, "min_chars": 0}, {"max_chars": 9}])
def test_settings_out_of_range(setting: dict[str, int]) -> None:
    assert "give at least" in complaint(lambda: load_corpus("champ", **setting))


# ---------------------------------------------------------------- digest and split


def test_digest_sees_ids_texts_order_and_where_one_ends() -> None:
    one, two = Document("1", "x"), Document("2", "y")
    variants = [(one, two), (two, one), (one, Document("3", "y")), (Document("1", "x2"), Document("", "y"))]
    assert len({Corpus("s", documents).digest for documents in variants}) == len(variants)
    assert Corpus("other", (one, two)).digest == Corpus("s", (one, two)).digest
    # printf '[["0", "x"]]' | sha256sum
    assert by_hand("x").digest == "96078df2c50c7d66fb1e62eae7f73c25baddac766744aa6e1f6be9fb4a0f28d8"


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_fraction_out_of_range(fraction: float) -> None:
    assert "evaluation_fraction" in complaint(lambda: by_hand("a", "b").split(fraction))


@pytest.mark.parametrize("texts", [(), ("a",), ("a", "a", "a")])
def test_too_few_different_documents_cannot_be_split(texts: tuple[str, ...]) -> None:
    assert "fewer than 2 different documents" in complaint(lambda: by_hand(*texts).split(0.5))


def test_split_is_as_large_as_asked_for() -> None:
    corpus = by_hand(*(f"text {n}" for n in range(4000)))
    for fraction in (0.1, 0.25, 0.5):
        deviation = (fraction * (1 - fraction) / 4000) ** 0.5
        assert len(corpus.split(fraction)[1]) / 4000 == pytest.approx(fraction, abs=3.3 * deviation)


texts = st.lists(st.text(max_size=5), min_size=2, max_size=12).filter(lambda drawn: len(set(drawn)) > 1)
fractions = st.floats(0.001, 0.999)


@given(texts, fractions)
@settings(deadline=None)
def test_split_is_a_partition_with_two_sides_in_order_and_equal_texts_together(drawn, fraction) -> None:
    corpus = by_hand(*drawn)
    train, evaluation = corpus.split(fraction)
    assert train
    assert evaluation
    assert sorted(train + evaluation, key=lambda document: int(document.id)) == list(corpus.documents)
    for side in (train, evaluation):
        assert list(side) == [document for document in corpus.documents if document in side]
    assert not {document.text for document in train} & {document.text for document in evaluation}


@given(texts, fractions, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_split_depends_neither_on_order_nor_on_ids(drawn, fraction, random) -> None:
    shuffled = random.sample(drawn, len(drawn))
    for one, other in zip(by_hand(*drawn).split(fraction), by_hand(*shuffled).split(fraction), strict=True):
        assert sorted(document.text for document in one) == sorted(document.text for document in other)


@given(texts, texts, fractions)
@settings(deadline=None)
def test_added_documents_move_no_old_one(old, new, fraction) -> None:
    natural = [sha_share(text) < fraction for text in old]
    assume(any(natural) and not all(natural))  # otherwise a side had to be filled
    held_out = {document.text for document in by_hand(*old, *new).split(fraction)[1]}
    assert [text in held_out for text in old] == natural
    assert {document.text for document in by_hand(*old).split(fraction)[1]} == held_out & set(old)


def test_an_empty_side_gets_the_text_with_the_nearest_share() -> None:
    drawn = sorted((f"text {n}" for n in range(5)), key=sha_share)
    train, evaluation = by_hand(*drawn).split(1e-9)
    assert [document.text for document in evaluation] == drawn[:1]
    assert [document.text for document in train] == drawn[1:]
    train, evaluation = by_hand(*drawn).split(1 - 1e-9)
    assert [document.text for document in train] == drawn[-1:]
    assert [document.text for document in evaluation] == drawn[:-1]


def sha_share(text: str) -> float:
    """Say the rule a second time, another way: the first 8 bytes as the digits of a fraction to base 256."""
    first = hashlib.sha256(text.encode()).digest()[:8]
    return math.fsum(byte / 256 ** (place + 1) for place, byte in enumerate(first))
