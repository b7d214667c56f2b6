"""Where do documents come from, and which of them are held out?

    micro, abacus             1,600 generated documents of a micro-world; micro-dev, abacus-dev: as many to choose
                              settings by, none with a calculation that the others hold out; micro-pretraining, ...
    champ                     270 competition problems with solutions, from the PyPI package champ-dataset
    story.txt                 documents are separated by two or more blank lines
    folder/                   every .txt file below it is one document; links are followed, hidden files left out
    texts.jsonl               one JSON object a line; ``column`` names the field, "id" is optional
    hf:NAME[:CONFIG][@SPLIT]  a Hugging Face dataset, by hub id or by the folder ``save_to_disk`` wrote; SPLIT may be a
                              slice such as train[:5], and is train unless given

Text is UTF-8. Line ends become line feeds, white space around a document is dropped, NUL is refused. Documents are
whole here, however long: ``engine.text`` cuts them by tokens.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rmt_mini.config import KNOBS, WITH_KNOBS, RMTConfig
from rmt_mini.errors import UserError, logger, refusing, require_package
from rmt_mini.records import Document
from rmt_mini.worlds import micro
from rmt_mini.worlds.micro import share_of
from rmt_mini.worlds.overlap import grouped, repeats

ACCEPTED = "'champ', 'micro', 'abacus', a .txt or .jsonl file, a folder of .txt files, or hf:NAME[:CONFIG][@SPLIT]"
NAMED = ("champ", *micro.TEXTS)  # names that are no paths
PARTS = re.compile(r"(?::([^:@]+))?(?:@(.+))?")  # of NAME[:CONFIG][@SPLIT], after NAME
LONG = 4000  # characters; a document must be longer to be cut in two by ``split``


@dataclass(frozen=True)
class Corpus:
    """Documents with unique ids, and the source they came from, as the user wrote it."""

    source: str
    documents: tuple[Document, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON list of [id, text] in order, hexadecimal; the source's name does not enter."""
        return hashlib.sha256(json.dumps([[d.id, d.text] for d in self.documents]).encode()).hexdigest()

    def split(self, evaluation_fraction: float) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
        """Return training and held-out documents: held out are those with share_of(key) < evaluation_fraction.

        Near-duplicates have one key and go together; new documents move no old ones, unless they connect some. No two
        held-out documents are equal. But a side that would be empty gets the text with the nearest share; and of one
        long document that is more than half of the corpus, such as a book, the last ``evaluation_fraction`` of its
        characters is held out, and its near-duplicates are left out.

        Example:
            >>> train, held_out = Corpus("mine", tuple(Document(str(n), f"Page {n}.") for n in range(8))).split(0.25)
            >>> len(train), [document.id for document in held_out]
            (6, ['0', '1'])
        """
        if not 0 < evaluation_fraction < 1:
            raise UserError(f"evaluation_fraction is {evaluation_fraction}; give a number between 0 and 1")
        book = max(self.documents, key=lambda one: len(one.text))
        if len(book.text) > LONG and 2 * len(book.text) > sum(map(len, {one.text for one in self.documents})):
            start, end = _in_two(book.text, 1 - evaluation_fraction)
            rest = [one for one in self.documents if one is not book]
            near = repeats([book], rest)  # these may have words of either part, so they are left out
            others = tuple(one for place, one in enumerate(rest) if place not in near)
            train, held_out = Corpus(self.source, others)._by_share(evaluation_fraction)
            return (Document(book.id, start), *train), (Document(book.id, end), *held_out)
        distinct = sorted({share for one in self.documents for share in _shares(one)})
        if len(distinct) < 2:
            found = f"corpus {self.source!r} has fewer than 2 different documents to split"
            raise UserError(f"{found}, and none of over {LONG} characters; add text")
        return self._by_share(min(max(evaluation_fraction, distinct[1]), distinct[-1]))  # so neither side is empty

    def _by_share(self, bound: float) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
        train: list[Document] = []
        held_out: dict[str, Document] = {}
        mixed = 0
        for one in self.documents:
            shares = _shares(one)
            if min(shares) >= bound:
                train.append(one)
            elif max(shares) < bound:
                held_out.setdefault(one.text, one)
            else:
                mixed += 1
        if mixed:
            line = "corpus %r: %d documents are left out; their calculations are in part held out"
            logger.warning(line, self.source, mixed)
        return tuple(train), tuple(held_out.values())


def _shares(document: Document) -> list[float]:
    return [share_of(key) for key in document.keys or (document.text,)]


def _in_two(text: str, share: float) -> tuple[str, str]:
    """Cut a long text at about a share of its characters: at a paragraph, line or word, where one is near."""
    at = min(max(1, round(share * len(text))), len(text) - 1)
    found = (text.rfind(mark, max(1, at - LONG // 4), at) for mark in ("\n\n", "\n", " "))
    cut = next((place for place in found if place >= 0), at)
    return text[:cut].rstrip(), text[cut:].lstrip()


def load_corpus(source: str, *, column: str = "text", knobs: Mapping[str, Any] | None = None) -> Corpus:
    """Load documents by name or path (the module says which there are), or say in one line why there are none.

    ``column`` is the field of a JSON line or dataset; "problem+solution" joins two by a line feed. ``knobs`` are fields
    of a micro-world's text and their values.
    """
    kept: dict[str, Document] = {}
    for found in _documents(source, column, knobs or {}):
        key, text = _clean(found.id, source, "an id"), _clean(found.text, source, f"document {found.id!r:.80}")
        if not text:
            continue
        if key in kept:
            raise UserError(f"corpus {source!r}: two documents have the id {key!r:.80}; make ids unique")
        kept[key] = replace(found, id=key, text=text)
    if not kept:
        raise UserError(f"corpus {source!r} holds no text; give one that does")
    documents = list(kept.values())
    return Corpus(source, tuple(documents if source in micro.TEXTS else grouped(documents)))


def corpus_for(config: RMTConfig) -> Corpus:
    """Load the text of a run's settings."""
    knobs = {name: getattr(config, name) for name in KNOBS} if config.corpus in WITH_KNOBS else None
    return load_corpus(config.corpus, column=config.column, knobs=knobs)


def absolute(source: str) -> str:
    """Return a source under a name that means the same in every folder; names that are no paths stay."""
    prefix = "hf:" if source.startswith("hf:") else ""
    path = os.path.expanduser(source.removeprefix(prefix))
    name = dataset_name(path) if prefix else path
    found = source not in NAMED and os.path.exists(name)
    return f"{prefix}{os.path.abspath(name)}{path[len(name) :]}" if found else source


def _documents(source: str, column: str, knobs: Mapping[str, Any]) -> Iterable[Document]:
    path = os.path.expanduser(source.removeprefix("hf:"))
    if source.startswith("hf:") and path:
        return _hugging_face(path, column)
    if source not in NAMED and not os.path.exists(path):
        where = "" if os.path.isabs(path) else " in the current folder"
        raise UserError(f"corpus {source!r} does not exist{where}; give {ACCEPTED}")
    kind = source if source in NAMED else "folder" if os.path.isdir(path) else Path(path).suffix.lower()
    if kind == ".jsonl":
        return _json_lines(path, column)
    if column != "text":
        raise UserError(f"corpus {source!r} has no columns, so column {column!r:.80} has no effect; give --column text")
    if kind in micro.TEXTS:
        return micro.corpus(kind, knobs)
    readers = {"champ": _champ, "folder": _folder, ".txt": _text_file}
    if kind not in readers:
        raise UserError(f"corpus {source!r} is neither .txt nor .jsonl; give {ACCEPTED}")
    return readers[kind](path)


def _clean(text: str, source: str, what: str) -> str:
    if bad := re.search("[\0\ud800-\udfff]", text):  # UTF-8 cannot hold a lone surrogate, JSON escapes can
        raise UserError(f"corpus {source!r}: {what} holds {bad[0]!r} at character {bad.start()}; give UTF-8")
    return _lines(text).strip()


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read(path: str) -> str:
    try:
        return _lines(Path(path).read_bytes().decode().removeprefix("\ufeff"))
    except OSError as error:
        raise UserError(f"corpus file {path!r} cannot be read: {error.strerror}; make it readable") from None
    except UnicodeDecodeError as error:
        raise UserError(f"corpus file {path!r}: byte {error.start} is not UTF-8; save it as UTF-8") from None


def champ_problems() -> list[dict[str, Any]]:
    """Return CHAMP's problems as its package holds them."""
    # Found, not imported: only its data are wanted, and the module asks for a package of its own (natsort).
    spec = importlib.util.find_spec("champ_dataset")
    path = Path((spec and spec.origin) or "absent").parent / "dataset_files" / "v0.json"
    if not path.is_file():
        raise UserError("corpus 'champ' needs a package; install it: pip install champ-dataset")
    return list(json.loads(path.read_text("utf-8"))["problems"].values())


def _champ(_: str) -> Iterator[Document]:
    for problem in champ_problems():
        steps = [step["_text"] for step in problem["solution"]["steps"]]
        # The last line stays: half of the solutions stop before they say the answer.
        text = "\n".join([problem["_text"], *steps, f"Answer: {problem['_answer']}"])
        yield Document(problem["identifier"], text, cut=True)  # recorded results are of the first tokens


def _text_file(path: str) -> Iterator[Document]:
    parts = re.split(r"\n(?:[^\S\n]*\n){2,}", _read(path))
    filled = (part for part in parts if part.strip())
    return (Document(f"{Path(path).name}#{number}", part) for number, part in enumerate(filled, 1))


def _folder(folder: str) -> Iterator[Document]:
    def refuse(error: OSError) -> None:
        raise UserError(f"corpus folder {error.filename!r} cannot be read: {error.strerror}; make it readable")

    paths: list[Path] = []
    seen: set[str] = set()
    for at, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if os.path.realpath(at) in seen:  # a link to a folder that is read already, perhaps to one above it
            folders.clear()
            continue
        seen.add(os.path.realpath(at))
        paths += [Path(at, name) for name in files if not name.startswith(".")]
    texts = [path for path in paths if path.suffix.lower() == ".txt"]
    if not texts:
        raise UserError(f"corpus folder {folder!r} holds no .txt file; give {ACCEPTED}")
    logger.info("corpus folder %s: %d files are read, %d are not .txt", folder, len(texts), len(paths) - len(texts))
    for name in sorted(path.relative_to(folder).as_posix() for path in texts):
        yield Document(name, _read(os.path.join(folder, name)))


def _json_lines(path: str, column: str) -> Iterator[Document]:
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
        key = row.get("id")
        yield Document(f"{Path(path).name}:{number}" if key in (None, "") else str(key), _text_of(row, column, where))


def _text_of(row: Mapping[str, Any], column: str, where: str) -> str:
    names = [column] if column in row else column.split("+")
    for name in names:
        if name not in row:
            raise UserError(f"{where} has no column {name!r:.80}; choose --column among {list(row)!r:.300}")
        if not isinstance(row[name], str):
            raise UserError(f"{where}: column {name!r:.80} is {row[name]!r:.40}, not text; change --column")
    return "\n".join(row[name] for name in names)


def _hugging_face(address: str, column: str) -> Iterator[Document]:
    where, name = f"Hugging Face dataset {address!r}", dataset_name(address)
    parts = PARTS.fullmatch(address, len(name)) if name else None
    if parts is None:
        raise UserError(f"{where} is incomplete; give hf:NAME[:CONFIG][@SPLIT]")
    require_package("datasets", where, "pip install -e '.[data]'")
    config, split = parts.groups()
    with refusing(f"{where} does not load", "give hf:NAME[:CONFIG][@SPLIT]"):
        dataset = _open_dataset(name, config, split)
    _text_of(dict.fromkeys(dataset.column_names, ""), column, where)
    wanted = [each for each in dataset.column_names if each in (column, *column.split("+"))]
    for number, row in enumerate(dataset.select_columns(wanted)):
        yield Document(f"{Path(name).name}:{number}", _text_of(row, column, f"{where} row {number}"))


def dataset_name(address: str) -> str:
    """Return NAME of NAME[:CONFIG][@SPLIT]; the name of a folder may have such signs, as C: has."""
    ends = [found.start() for found in re.finditer("[:@]|$", address)]
    return next((address[:end] for end in reversed(ends) if os.path.exists(address[:end])), address[: ends[0]])


def _open_dataset(name: str, config: str | None, split: str | None) -> Any:
    import datasets

    if not any(Path(name, mark).is_file() for mark in ("dataset_dict.json", "state.json")):
        return datasets.load_dataset(name, config, split=split or "train")
    if config:
        raise ValueError("a saved dataset has no configurations")
    saved = datasets.load_from_disk(name)
    tables = saved if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
    split = split or ("train" if len(tables) > 1 else next(iter(tables)))
    rows = {part: len(table) for part, table in tables.items()}
    parts = datasets.ReadInstruction.from_spec(split).to_absolute(rows)  # slices, as load_dataset does
    return datasets.concatenate_datasets([tables[one.splitname].select(range(one.from_, one.to)) for one in parts])
