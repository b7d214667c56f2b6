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
from rmt_mini.worlds.corpus import Corpus, absolute, load_corpus

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


def test_two_blank_lines_separate_documents_and_one_does_not(tmp_path: Path) -> None:
    one, two = LONG.format(1) + "\n\nsecond paragraph", LONG.format(2)
    (tmp_path / "a.txt").write_text(f"\n{one}\n\n \t\n{two}\n\n\n\n\nshort\n", "utf-8")
    corpus = load_corpus(str(tmp_path / "a.txt"))
    assert texts_of(corpus) == [one, two, "short"]
    assert ids_of(corpus) == ["a.txt#1", "a.txt#2", "a.txt#3"]


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


def test_folder_is_one_document_a_file_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    for name in ("b.txt", "a.TXT", "sub/c.txt", "note.md", "._a.txt", ".git/d.txt"):
        (tmp_path / name).write_text(LONG.format(name) + "\n\n\n" + LONG.format("same document"), "utf-8")
    (tmp_path / "empty.txt").touch()
    corpus = load_corpus(str(tmp_path))
    assert ids_of(corpus) == ["a.TXT", "b.txt", "sub/c.txt"]
    assert texts_of(corpus)[0].endswith("same document")


def test_linked_folders_are_read_once_and_circles_end(tmp_path: Path) -> None:
    texts, elsewhere = tmp_path / "texts", tmp_path / "elsewhere"
    for name in (texts / "a.txt", elsewhere / "b.txt", elsewhere / "deep" / "c.txt"):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.write_text(name.name, "utf-8")
    (texts / "link").symlink_to(elsewhere)
    (texts / "twice").symlink_to(elsewhere)
    (texts / ".hidden").symlink_to(elsewhere)
    (elsewhere / "deep" / "back").symlink_to(texts)
    assert ids_of(load_corpus(str(texts))) == ["a.txt", "link/b.txt", "link/deep/c.txt"]


def test_json_lines_take_column_and_optional_id(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"body": LONG.format(1), "id": 7}, {"body": LONG.format(2) + "\r\nline\u2028same line"}]
    path.write_text(json.dumps(rows[0]) + "\n\n" + json.dumps(rows[1], ensure_ascii=False), "utf-8")
    corpus = load_corpus(str(path), column="body")
    assert ids_of(corpus) == ["7", "a.jsonl:3"]
    assert texts_of(corpus) == [LONG.format(1), LONG.format(2) + "\nline\u2028same line"]
    joined = write(path, {"p": LONG, "s": "so it is"}, {"p": "", "s": "", "p+s": LONG})
    assert texts_of(load_corpus(joined, column="p+s")) == [LONG + "\nso it is", LONG]


def test_limit_takes_the_first_and_reads_no_further(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, {"text": " "}, {"text": "short"}, {"text": LONG.format(2)})
    path.write_text(path.read_text("utf-8") + "not JSON", "utf-8")
    assert texts_of(load_corpus(str(path), limit=1)) == ["short"]
    assert len(load_corpus(str(path), limit=2).documents) == 2


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("saved")
    parts = {name: [LONG.format(f"{name} {n}") for n in range(3)] for name in ("train", "test")}
    tables = {name: datasets.Dataset.from_dict({"text": t, "n": [0, 1, 2]}) for name, t in parts.items()}
    tables["train"].save_to_disk(folder / "one")
    datasets.DatasetDict(tables).save_to_disk(folder / "two")
    datasets.Dataset.from_dict({"text": parts["test"]}, split="test").save_to_disk(folder / "three")
    return folder


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("one", ["train 0", "train 1", "train 2"]),
        ("one@train[:2]", ["train 0", "train 1"]),  # saved without the name of its split
        ("one@train[67%:]", ["train 2"]),
        ("two@test", ["test 0", "test 1", "test 2"]),
        ("two@test[1:]", ["test 1", "test 2"]),
        ("two@train[:1]+test[2:]", ["train 0", "test 2"]),
        ("three", ["test 0", "test 1", "test 2"]),  # its only split
        ("three@test[:1]", ["test 0"]),
    ],
)
def test_the_split_of_a_saved_dataset_is_used(saved: Path, address: str, wanted: list[str]) -> None:
    assert texts_of(load_corpus(f"hf:{saved}/{address}")) == [LONG.format(name) for name in wanted]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("one@test", "Unknown split \"test\". Should be one of ['train']; give hf:NAME"),
        ("three@train", "Unknown split \"train\". Should be one of ['test']; give hf:NAME"),
        ("two@dev", "Unknown split \"dev\". Should be one of ['train', 'test']; give hf:NAME"),
        ("one@train[:", "give hf:NAME"),
        ("one@", "is incomplete; give hf:NAME"),
        ("one@train:x@y", "does not load"),
        ("one:main", "a saved dataset has no configurations"),
        ("one:@train", "is incomplete"),
    ],
)
def test_no_part_of_an_address_is_ignored(saved: Path, address: str, words: str) -> None:
    assert words in complaint(lambda: load_corpus(f"hf:{saved}/{address}"))


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
    failed = ConnectionError("no network\nat all")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(failed))
    assert "does not load: no network at all" in complaint(lambda: load_corpus(source))


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


@pytest.mark.parametrize("source", ["", "hf:", "owner/name", "no.txt", "x\0", "a\nb", "champ@train", "micro:x"])
def test_the_error_for_an_unknown_source_says_what_is_accepted(source: str) -> None:
    message = complaint(lambda: load_corpus(source))
    assert "does not exist" in message
    assert all(part in message for part in ("'champ'", ".txt", ".jsonl", "hf:NAME"))


def test_folder_without_text_and_folder_named_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "holds no .txt file" in complaint(lambda: load_corpus(str(tmp_path / "data")))
    (tmp_path / "data" / "odd.txt").mkdir()
    assert "holds no .txt file" in complaint(lambda: load_corpus(str(tmp_path / "data")))
    (tmp_path / "data" / "gone.txt").symlink_to("nowhere.txt")
    assert "gone.txt' cannot be read" in complaint(lambda: load_corpus(str(tmp_path / "data")))


def test_digest_sees_ids_texts_order_and_where_one_ends() -> None:
    one, two = Document("1", "x"), Document("2", "y")
    variants = [(one, two), (two, one), (one, Document("3", "y")), (Document("1", "x2"), Document("", "y"))]
    assert len({Corpus("s", documents).digest for documents in variants}) == len(variants)
    assert Corpus("other", (one, two)).digest == Corpus("s", (one, two)).digest
    # printf '[["0", "x"]]' | sha256sum
    assert by_hand("x").digest == "96078df2c50c7d66fb1e62eae7f73c25baddac766744aa6e1f6be9fb4a0f28d8"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: by_hand("a", "b").split(0.0), "evaluation_fraction is 0.0"),
        (lambda: by_hand("a", "b").split(float("nan")), "evaluation_fraction is nan"),
        (lambda: by_hand("a", "a").split(0.5), "fewer than 2 different documents"),
        (lambda: load_corpus("champ", limit=0), "limit is 0; give at least 1"),
        (lambda: load_corpus("micro", column="body"), "'micro' has no columns, so column 'body' has no effect"),
    ],
)
def test_what_cannot_be_split_or_taken_is_refused(call: Callable[[], object], words: str) -> None:
    assert words in complaint(call)


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


@pytest.mark.parametrize("between", ["\n\n", "\n", " ", ""])
def test_a_book_is_cut_in_two_where_a_piece_ends(between: str) -> None:
    """100 pieces of 60 characters: at a fraction of 0.245 the cut is before character 4,530, which is in piece 75."""
    pieces = [(f"{n:02}" + "x" * 58)[: 60 - len(between)] for n in range(100)]
    (start,), (end,) = by_hand(between.join(pieces)).split(0.245)
    if between:
        assert start.text == between.join(pieces[:75])
        assert end.text == between.join(pieces[75:])
    else:
        assert (len(start.text), start.text + end.text) == (4530, "".join(pieces))
    assert (start.id, end.id) == ("0", "0")


def sha_share(text: str) -> float:
    """Say the rule a second time, another way: the first 8 bytes as the digits of a fraction to base 256."""
    first = hashlib.sha256(text.encode()).digest()[:8]
    return math.fsum(byte / 256 ** (place + 1) for place, byte in enumerate(first))


def test_names_of_files_are_made_absolute_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("a.txt").write_text("a")
    Path("saved").mkdir()
    Path("micro").mkdir()  # the world's name comes first
    for source, expected in {
        "a.txt": f"{tmp_path}/a.txt",
        "~/a.txt": f"{tmp_path}/a.txt",
        "hf:saved": f"hf:{tmp_path}/saved",
        "hf:saved@train[:5]": f"hf:{tmp_path}/saved@train[:5]",
        **{name: name for name in ("champ", "micro", "absent.txt", "hf:owner/name:config@test", "hf:")},
    }.items():
        assert absolute(source) == expected
