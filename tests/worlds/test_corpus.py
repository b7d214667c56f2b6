import hashlib
import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rmt_mini.records import Document
from rmt_mini.worlds.corpus import Corpus, absolute, load_corpus
from rmt_mini.worlds.overlap import grouped
from tests.outcomes import either


def by_hand(*texts: str) -> Corpus:
    return Corpus("by hand", tuple(Document(str(n), text) for n, text in enumerate(texts)))


def loaded(source: object, column: str = "text") -> dict[str, str]:
    """The texts of a corpus by id."""
    return {document.id: document.text for document in load_corpus(str(source), column=column).documents}


def complaint(load: Callable[[], object]) -> str:
    found, message = either(load)
    assert found is None
    return str(message)


def test_champ_is_270_distinct_problems_with_solution_and_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "champ_dataset", raising=False)
    corpus = load_corpus("champ")
    texts = [document.text for document in corpus.documents]
    assert len(texts) == len(set(texts)) == 270
    assert corpus.documents[0].id == "P_Combinatorics_1"
    assert texts[0].startswith("Let a string consist of digit 1, 2, 3.")
    assert "\nLet x_n, y_n, z_n be the number of length-n strings" in texts[0]
    assert texts[0].endswith("\nAnswer: 239")
    assert not any("@@" in text for text in texts)
    assert [len(side) for side in corpus.split(0.25)] == [195, 75]  # changes only with the texts or the hash
    assert "champ_dataset" not in sys.modules


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_two_blank_lines_separate_documents_whatever_system_wrote_them(ends: str, mark: str, tmp_path: Path) -> None:
    text = f"{mark}\none é\n\nsecond paragraph\n\n \t\ntwo ∑\n\n\n\n\nshort\n"
    (tmp_path / "a.txt").write_bytes(text.replace("\n", ends).encode())
    wanted = {"a.txt#1": "one é\n\nsecond paragraph", "a.txt#2": "two ∑", "a.txt#3": "short"}
    assert loaded(tmp_path / "a.txt") == wanted


def test_folder_is_one_document_a_file_read_once_whatever_links_lead_to_it(tmp_path: Path) -> None:
    texts, elsewhere = tmp_path / "texts", tmp_path / "elsewhere"
    names = ("b.txt", "a.TXT", "sub/c.txt", "note.md", "._a.txt", ".git/d.txt")
    for path in (*(texts / name for name in names), elsewhere / "b.txt", elsewhere / "deep" / "c.txt"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path.name}\n\n\nsame document", "utf-8")
    (texts / "empty.txt").touch()
    for link, to in ((texts / "link", elsewhere), (texts / "twice", elsewhere), (texts / ".hidden", elsewhere)):
        link.symlink_to(to)
    (elsewhere / "deep" / "back").symlink_to(texts)  # a circle
    found = loaded(texts)
    assert [*found] == ["a.TXT", "b.txt", "link/b.txt", "link/deep/c.txt", "sub/c.txt"]
    assert found["a.TXT"] == "a.TXT\n\n\nsame document"


def test_json_lines_take_column_and_optional_id(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"body": "x", "id": 7}\n\n{"body": "y\\r\\nline\u2028same line", "s": "z", "y+z": "w"}', "utf-8")
    assert loaded(path, "body") == {"7": "x", "a.jsonl:3": "y\nline\u2028same line"}
    path.write_text('{"p": "y", "s": "so it is"}\n{"p": "", "s": "", "p+s": "z"}\n{"p": " ", "s": ""}', "utf-8")
    assert [*loaded(path, "p+s").values()] == ["y\nso it is", "z"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    folder = tmp_path_factory.mktemp("saved")
    parts = {name: {"text": [f"{name} {n}" for n in range(3)], "n": [0, 1, 2]} for name in ("train", "test")}
    datasets.Dataset.from_dict(parts["train"]).save_to_disk(folder / "one")  # without the name of its split
    datasets.DatasetDict({name: datasets.Dataset.from_dict(part) for name, part in parts.items()}).save_to_disk(
        folder / "two"
    )
    datasets.Dataset.from_dict(parts["test"], split="test").save_to_disk(folder / "three")
    return folder


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("one", ["train 0", "train 1", "train 2"]),
        ("one@train[67%:]", ["train 2"]),
        ("two@test", ["test 0", "test 1", "test 2"]),
        ("two@train[:1]+test[2:]", ["train 0", "test 2"]),
        ("three", ["test 0", "test 1", "test 2"]),  # its only split
        ("three@test[:1]", ["test 0"]),
    ],
)
def test_the_split_of_a_saved_dataset_is_used(saved: Path, address: str, wanted: list[str]) -> None:
    found = loaded(f"hf:{saved}/{address}")
    assert [*found.values()] == wanted
    assert [*found] == [f"{address.partition('@')[0]}:{n}" for n in range(len(wanted))]


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("three@train", "Unknown split \"train\". Should be one of ['test']"),
        ("two@dev", "Unknown split \"dev\". Should be one of ['train', 'test']"),
        ("one@train[:", "give hf:NAME"),
        ("one@", "is incomplete; give hf:NAME"),
        ("one@train:x@y", "does not load"),
        ("one:main", "a saved dataset has no configurations"),
    ],
)
def test_no_part_of_an_address_is_ignored(saved: Path, address: str, words: str) -> None:
    assert words in complaint(lambda: load_corpus(f"hf:{saved}/{address}"))
    assert "has no column 'body'; choose --column among ['text', 'n']" in complaint(
        lambda: load_corpus(f"hf:{saved}/one", column="body")
    )


def test_address_names_configuration_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *given, split: datasets.Dataset.from_dict({"text": [f"{given} {split}"]})
    )
    for source, expected in {
        "hf:owner/name": "('owner/name', None) train",
        "hf:owner/name@test": "('owner/name', None) test",
        "hf:name:main@train[:9]": "('name', 'main') train[:9]",
    }.items():
        assert [*loaded(source).values()] == [expected]
    failed = ConnectionError("no network\nat all")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: (_ for _ in ()).throw(failed))
    assert "does not load (no network at all)" in complaint(lambda: load_corpus("hf:name"))


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.txt", b"\xef\xbb\xbfx\xff", "a.txt': byte 4 is not UTF-8; save it as UTF-8"),
        ("a.txt", "x".encode("utf-16-le"), "'\\x00' at character 1; give UTF-8"),
        ("a.txt", b"\xef\xbb\xbf \n\r\n\n", "a.txt' holds no text"),
        ("a.csv", b"x", "a.csv' is neither .txt nor .jsonl; give 'champ'"),
        ("a.jsonl", b'\n{"text": "x"}\n{"text": \n', "line 3 is not JSON (Expecting value: column "),
        ("a.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("a.jsonl", b"[1]", "line 1 is a JSON list"),
        ("a.jsonl", b'{"body": "x", "id": 1}', "line 1 has no column 'text'; choose --column among ['body', 'id']"),
        ("a.jsonl", b'{"text": null}', "line 1: column 'text' is None, not text; change --column"),
        ("a.jsonl", b'{"text": "a\\u0000"}', "document 'a.jsonl:1' holds '\\x00' at character 1"),
        ("a.jsonl", b'{"id": "\\ud800", "text": "a"}', "an id holds '\\ud800'"),
        ("a.jsonl", b'{"id": 1, "text": "x"}\n' * 2, "two documents have the id '1'"),
    ],
)
def test_bad_files_get_one_line(name: str, data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert words in complaint(lambda: load_corpus(str(tmp_path / name)))


@pytest.mark.parametrize("source", ["", "hf:", "owner/name", "no.txt", "x\0", "a\nb", "champ@train", "micro:x"])
def test_the_error_for_an_unknown_source_says_what_is_accepted(source: str) -> None:
    message = complaint(lambda: load_corpus(source))
    assert "does not exist" in message
    assert all(part in message for part in ("'champ'", ".txt", ".jsonl", "hf:NAME"))


def test_folder_without_text_and_folder_named_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "odd.txt").mkdir()
    assert "holds no .txt file" in complaint(lambda: load_corpus(str(tmp_path)))
    (tmp_path / "gone.txt").symlink_to("nowhere.txt")
    assert "gone.txt' cannot be read" in complaint(lambda: load_corpus(str(tmp_path)))


def test_digest_sees_ids_texts_order_and_where_one_ends() -> None:
    one, two = Document("1", "x"), Document("2", "y")
    variants = [(one, two), (two, one), (one, Document("3", "y")), (Document("1", "x2"), Document("", "y"))]
    assert len({Corpus("s", documents).digest for documents in variants}) == len(variants)
    # printf '[["0", "x"]]' | sha256sum
    assert by_hand("x").digest == "96078df2c50c7d66fb1e62eae7f73c25baddac766744aa6e1f6be9fb4a0f28d8"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: by_hand("a", "b").split(0.0), "evaluation_fraction is 0.0"),
        (lambda: by_hand("a", "a").split(0.5), "fewer than 2 different documents"),
        (lambda: load_corpus("micro", column="body"), "'micro' has no columns, so column 'body' has no effect"),
    ],
)
def test_what_cannot_be_split_or_taken_is_refused(call: Callable[[], object], words: str) -> None:
    assert words in complaint(call)


def sha_share(text: str) -> float:
    """Say the rule a second time, another way: the first 8 bytes as the digits of a fraction to base 256."""
    first = hashlib.sha256(text.encode()).digest()[:8]
    return math.fsum(byte / 256 ** (place + 1) for place, byte in enumerate(first))


texts = st.lists(st.text(max_size=5), min_size=2, max_size=12).filter(lambda drawn: len(set(drawn)) > 1)
fractions = st.floats(0.001, 0.999)


@given(texts, fractions)
def test_split_has_two_sides_in_order_with_equal_texts_together_and_held_out_once(drawn, fraction) -> None:
    corpus = by_hand(*drawn)
    train, evaluation = corpus.split(fraction)
    assert train
    assert evaluation
    held_out = {document.text for document in evaluation}
    assert list(train) == [document for document in corpus.documents if document.text not in held_out]
    first = [document for n, document in enumerate(corpus.documents) if document.text not in drawn[:n]]
    assert list(evaluation) == [document for document in first if document.text in held_out]


def test_documents_are_split_by_all_their_keys(caplog: pytest.LogCaptureFixture) -> None:
    out, also_out, read = sorted(("key 1", "key 2", "key 3"), key=sha_share)
    fraction = (sha_share(also_out) + sha_share(read)) / 2
    keys = {"a": (out, also_out), "b": (read,), "c": (out, read), "d": (also_out,)}
    corpus = Corpus("by hand", tuple(Document(name, f"Page {name}.", keys=own) for name, own in keys.items()))
    train, held_out = corpus.split(fraction)
    assert [[document.id for document in side] for side in (train, held_out)] == [["b"], ["a", "d"]]
    assert "corpus 'by hand': 1 documents are left out; their calculations are in part held out" in caplog.text


@given(texts, texts, fractions)
def test_added_documents_move_no_old_one(old, new, fraction) -> None:
    natural = [sha_share(text) < fraction for text in old]
    assume(any(natural) and not all(natural))  # otherwise a side had to be filled
    held_out = {document.text for document in by_hand(*old, *new).split(fraction)[1]}
    assert [text in held_out for text in old] == natural
    assert {document.text for document in by_hand(*old).split(fraction)[1]} == held_out & set(old)


@pytest.mark.parametrize(("fraction", "held_out"), [(1e-9, 1), (1 - 1e-9, 4)])
def test_an_empty_side_gets_the_text_with_the_nearest_share(fraction: float, held_out: int) -> None:
    drawn = sorted((f"text {n}" for n in range(5)), key=sha_share)
    train, evaluation = by_hand(*drawn).split(fraction)
    assert [document.text for document in (*evaluation, *train)] == drawn
    assert len(evaluation) == held_out


@pytest.mark.parametrize("between", ["\n\n", "\n", " ", ""])
def test_a_book_is_cut_in_two_where_a_piece_ends(between: str) -> None:
    """100 pieces of 60 characters: at a fraction of 0.245 the cut is before character 4,530, which is in piece 75."""
    pieces = [(f"{n:02}" + "x" * 58)[: 60 - len(between)] for n in range(100)]
    (start,), (end,) = by_hand(between.join(pieces)).split(0.245)
    if between:
        assert (start.text, end.text) == (between.join(pieces[:75]), between.join(pieces[75:]))
    else:
        assert (len(start.text), start.text + end.text) == (4530, "".join(pieces))
    assert (start.id, end.id) == ("0", "0")


@pytest.mark.parametrize("chapters", [1, 9])  # 9 of 11: so many that they are not grouped
def test_what_nearly_repeats_a_book_is_on_neither_side(chapters: int) -> None:
    book = " ".join(f"word{n}" for n in range(900))
    near = [" ".join(f"word{n}" for n in range(start, start + 40)) for start in range(860, 860 - 40 * chapters, -40)]
    names, texts = ["book", *"123456789"[:chapters], "other"], [book, *near, " ".join(f"other{n}" for n in range(20))]
    documents = [Document(name, text) for name, text in zip(names, texts, strict=True)]
    sides = Corpus("mine", tuple(grouped(documents))).split(0.25)
    assert [one.id for side in sides for one in side if one.id != "book"] == ["other"]
    assert [side[0].id for side in sides] == ["book", "book"]


def test_names_of_files_are_made_absolute_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.txt", "saved", "micro", "me@work:1"):  # the world's name comes first
        Path(name).mkdir()
    for source, expected in {
        "a.txt": f"{tmp_path}/a.txt",
        "~/a.txt": f"{tmp_path}/a.txt",
        "hf:me@work:1:main@train": f"hf:{tmp_path}/me@work:1:main@train",
        "hf:saved@train[:5]": f"hf:{tmp_path}/saved@train[:5]",
        **{name: name for name in ("champ", "micro", "absent.txt", "hf:owner/name:config@test", "hf:")},
    }.items():
        assert absolute(source) == expected
