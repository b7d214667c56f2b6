"""Where do documents come from, and which of them are held out?

    micro                     1,600 generated documents of the micro-world; its other texts are micro-reckoning
                              and micro-pretraining
    champ                     270 competition problems with solutions, from the PyPI package champ-dataset
    story.txt                 documents are separated by two or more blank lines
    folder/                   every .txt file below it is one document; hidden files are passed over
    texts.jsonl               one JSON object a line; ``column`` names the field, "id" is optional
    hf:NAME[:CONFIG][@SPLIT]  a Hugging Face dataset, by hub id or by the folder ``save_to_disk`` wrote

Text is UTF-8, with or without a byte order mark. Line ends become line feeds, white space around a document
is dropped, NUL is refused. A .txt document longer than ``max_chars`` is cut into several, at paragraphs, or
failing that at lines, sentences or words, since a trunk would keep no more than the first page of a book.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import re
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmt_mini.errors import UserError
from rmt_mini.records import Document
from rmt_mini.worlds import micro

logger = logging.getLogger(__name__)
ACCEPTED = "'champ', 'micro', a .txt or .jsonl file, a folder of .txt files, or hf:NAME[:CONFIG][@SPLIT]"
_Texts = Iterator[tuple[str, str]]  # ids and texts


@dataclass(frozen=True)
class Corpus:
    """Documents with unique ids, and the source they came from, as the user wrote it.

    Example:
        >>> corpus = Corpus("by hand", tuple(Document(str(n), f"Page {n}.") for n in range(8)))
        >>> train, evaluation = corpus.split(0.25)
        >>> len(train), [document.id for document in evaluation]
        (6, ['0', '1'])
    """

    source: str
    documents: tuple[Document, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON list of [id, text] in order, hexadecimal; the source's name does not enter."""
        return hashlib.sha256(json.dumps([[d.id, d.text] for d in self.documents]).encode()).hexdigest()

    def split(self, evaluation_fraction: float) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
        """Hold documents out by a hash of their text.

            evaluation: share(text) < evaluation_fraction,  share = first 8 bytes of SHA-256(text) / 2^64

        Equal texts go together: no copy of a held-out one is trained on. Seed, ids and order play no part.
        New documents move no old ones. But a side that would be empty gets the text with the nearest share.

        Args:
            evaluation_fraction: expected share of held-out documents, between 0 and 1; small corpora vary.

        Returns:
            Training and evaluation documents, each in the corpus's order and neither empty.

        Raises:
            UserError: if the fraction is out of range, or there are fewer than two different texts.
        """
        if not 0 < evaluation_fraction < 1:
            raise UserError(f"evaluation_fraction is {evaluation_fraction}; give a number between 0 and 1")
        shares = [share_of(d.text) for d in self.documents]
        distinct = sorted(set(shares))
        if len(distinct) < 2:
            raise UserError(f"corpus {self.source!r} has fewer than 2 different documents to split; add text")
        bound = min(max(evaluation_fraction, distinct[1]), distinct[-1])  # so neither side is empty
        pairs = list(zip(self.documents, shares, strict=True))
        return tuple(d for d, at in pairs if at >= bound), tuple(d for d, at in pairs if at < bound)


def share_of(text: str) -> float:
    """Place a text between 0 and 1: the first 8 bytes of its SHA-256 / 2^64. Held out is what lies below a bound.

    Example:
        >>> round(share_of("a"), 3)
        0.791
    """
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64


def load_corpus(
    source: str,
    *,
    column: str = "text",
    split: str = "train",
    min_chars: int = 32,
    max_chars: int = 4000,
    limit: int | None = None,
) -> Corpus:
    """Load documents by name or path; the module says which there are.

    Args:
        source: 'champ', 'micro', a path, or hf:NAME[:CONFIG][@SPLIT].
        column: field of a JSON line or Hugging Face dataset; "problem+solution" joins two by a line feed.
        split: of a Hugging Face dataset, where the source names none.
        min_chars: shorter documents are left out.
        max_chars: longest document taken out of a .txt file; other sources are left as they are.
        limit: at most so many documents, the first ones; None takes all.

    Raises:
        UserError: if there is nothing to read, or it is not what it should be.
    """
    if max_chars < max(2, min_chars) or (limit is not None and limit < 1):
        raise UserError(f"{max_chars=}, {limit=}; give at least 2 and {min_chars=}, and at least 1 or None")
    if source in micro.TEXTS:  # made as wanted: nothing to clean, and none too short
        return Corpus(source, tuple(micro.corpus(source)[:limit]))
    kept: dict[str, Document] = {}
    seen = 0
    for key, text in _texts(source, column, split, max_chars):
        document = Document(_clean(key, source, "an id"), _clean(text, source, f"document {key!r:.80}"))
        seen += bool(document.text)
        if len(document.text) < max(1, min_chars):
            continue
        if document.id in kept:
            raise UserError(f"corpus {source!r}: two documents have the id {key!r:.80}; make ids unique")
        kept[document.id] = document
        if len(kept) == limit:
            break
    if not kept:
        found = f"all {seen} documents have under {min_chars} characters" if seen else "it holds no text"
        raise UserError(f"corpus {source!r}: {found}; give longer text")
    if len(kept) < seen:
        logger.info("corpus %s: %d of %d documents are too short, left out", source, seen - len(kept), seen)
    return Corpus(source, tuple(kept.values()))


def _texts(source: str, column: str, split: str, max_chars: int) -> _Texts:
    path = os.path.expanduser(source.removeprefix("hf:"))
    if source == "champ":
        return _champ()
    if source.startswith("hf:") and path:
        return _hugging_face(path, column, split)
    if os.path.isdir(path):
        return _folder(path, max_chars)
    if not os.path.isfile(path):
        raise UserError(f"corpus {source!r} does not exist; give {ACCEPTED}")
    if path.lower().endswith(".txt"):
        return _text_file(path, max_chars)
    if path.lower().endswith(".jsonl"):
        return _json_lines(path, column)
    raise UserError(f"corpus {source!r} is neither .txt nor .jsonl; give {ACCEPTED}")


def _clean(text: str, source: str, what: str) -> str:
    if bad := re.search("[\0\ud800-\udfff]", text):  # UTF-8 cannot hold a lone surrogate, JSON escapes can
        raise UserError(f"corpus {source!r}: {what} holds {bad[0]!r} at character {bad.start()}; give UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def _read(path: str) -> str:
    try:
        text = Path(path).read_bytes().decode().removeprefix("\ufeff")
    except OSError as error:
        raise UserError(f"corpus file {path!r} cannot be read: {error.strerror}; mend that") from None
    except UnicodeDecodeError as error:
        raise UserError(f"corpus file {path!r}: byte {error.start} is not UTF-8; save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def champ_problems() -> list[dict[str, Any]]:
    """Return CHAMP's problems as its package holds them.

    Raises:
        UserError: if the package is not installed.
    """
    # Found, not imported: only its data are wanted, and the module asks for a package of its own (natsort).
    spec = importlib.util.find_spec("champ_dataset")
    path = Path((spec and spec.origin) or "absent").parent / "dataset_files" / "v0.json"
    if not path.is_file():
        raise UserError("corpus 'champ' needs a package; install it: pip install champ-dataset")
    return list(json.loads(path.read_text("utf-8"))["problems"].values())


def _champ() -> _Texts:
    for problem in champ_problems():
        steps = [step["_text"] for step in problem["solution"]["steps"]]
        # The last line stays: half of the solutions stop before they say the answer.
        yield problem["identifier"], "\n".join([problem["_text"], *steps, f"Answer: {problem['_answer']}"])


def _pieces(text: str, max_chars: int) -> Iterator[str]:
    start = 0
    while len(text) - start > max_chars:
        low, high = start + max_chars // 2, start + max_chars  # not below half: a title alone is no piece
        found = (text.rfind(mark, low, high) for mark in ("\n\n", "\n", ". ", " "))
        end = next((place + 1 for place in found if place >= 0), high)
        yield text[start:end].strip()
        start = end
    yield text[start:].strip()


def _text_file(path: str, max_chars: int) -> _Texts:
    parts = re.split(r"\n(?:[^\S\n]*\n){2,}", _read(path))
    pieces = (piece for part in parts for piece in _pieces(part, max_chars) if piece)
    return ((f"{Path(path).name}#{number}", piece) for number, piece in enumerate(pieces, 1))


def _folder(folder: str, max_chars: int) -> _Texts:
    found = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.suffix.lower() == ".txt"]
    names = [path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts)]
    if not names:
        raise UserError(f"corpus folder {folder!r} holds no .txt file; give {ACCEPTED}")
    for name in sorted(names):
        for number, piece in enumerate(_pieces(_read(os.path.join(folder, name)), max_chars), 1):
            yield f"{name}#{number}", piece


def _json_lines(path: str, column: str) -> _Texts:
    for number, line in enumerate(_read(path).split("\n"), 1):
        where = f"corpus file {path!r} line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problem = str(error).replace("line 1 ", "")  # of one line
            raise UserError(f"{where} is not JSON ({problem}); give one JSON object a line") from None
        if not isinstance(row, dict):
            raise UserError(f"{where} is a JSON {type(row).__name__}; give one JSON object a line")
        text, key = _text_of(row, _columns(column, row, where), where), row.get("id")
        if isinstance(key, list | dict):
            raise UserError(f"{where}: its id is a JSON {type(key).__name__}; give text or a number")
        yield f"{Path(path).name}:{number}" if key in (None, "") else str(key), text


def _columns(column: str, available: Collection[str], where: str) -> list[str]:
    names = [column] if column in available else column.split("+")
    if missing := [name for name in names if name not in available]:
        raise UserError(f"{where} has no column {missing[0]!r:.80}; choose --column among {list(available)!r:.300}")
    return names


def _text_of(row: Mapping[str, Any], names: list[str], where: str) -> str:
    if wrong := [name for name in names if not isinstance(row[name], str)]:
        found = reprlib.repr(row[wrong[0]])  # which goes not too deep
        raise UserError(f"{where}: column {wrong[0]!r:.80} is {found:.40}, not text; change --column")
    return "\n".join(row[name] for name in names)


def _hugging_face(address: str, column: str, split: str) -> _Texts:
    where = f"Hugging Face dataset {address!r}"
    rest, _, chosen = (address, "", "") if os.path.isdir(address) else address.partition("@")
    name, _, config = (rest, "", "") if os.path.isdir(rest) else rest.partition(":")
    dataset = _open_dataset(name, config or None, chosen or split, where)
    names = _columns(column, dataset.column_names, where)
    for number, row in enumerate(dataset.select_columns(names)):
        yield f"{Path(name).name}:{number}", _text_of(row, names, f"{where} row {number}")


def _open_dataset(name: str, config: str | None, split: str, where: str) -> Any:
    if importlib.util.find_spec("datasets") is None:
        raise UserError(f"{where} needs the extra 'data'; install it: pip install -e '.[data]'")
    folder = Path(name, split) if Path(name, "dataset_dict.json").is_file() else Path(name)
    try:
        datasets = importlib.import_module("datasets")
        if folder != Path(name) or Path(folder, "dataset_info.json").is_file():
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(name, config, split=split)
    except Exception as error:  # of many kinds: from the network, the hub, the files
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where} does not load: {reason}; give hf:NAME[:CONFIG][@SPLIT]") from error
