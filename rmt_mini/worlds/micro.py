"""The micro-world: a generated text in which thinking truly helps, and a model of a million parameters can do it.

Documents are a few short statements (micro.yaml). Their tokens are of five sorts, which only the generator knows:

    grammar      the statement's fixed words, and what repeats an earlier word: easy once learned
    noise        nothing determines it: a name, a colour, a digit drawn at random
    step         one step of a calculation over earlier words determines it: where the dial is after its first turn
    calculable   two to four steps do
    saying       a fixed sentence goes on with it: known to whoever has read the sentence, and to no one else

A noise digit and a calculable one have the same entropy for a model that cannot calculate in one pass.

The *pre-training* text has, now and then, an aside before a token: a worked thought that ends in it, in one of three
styles. The *mid-training* text is unlabelled and shifted: other statements, more steps, larger operands, and sayings.
A trace of its statements occurs in pre-training, and of the *exam* of post-training.

Calculations are held out by their start and first two moves: all those of a document are on one side, and none of two
or more steps that a held-out document or question needs occurs in any text that mid-training or post-training reads.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import count
from typing import Any

import yaml

from rmt_mini.records import Document, Span

GRAMMAR, NOISE, CALCULABLE = SORTS = ("grammar", "noise", "calculable")  # that an aside may lead to
STEP, SAYING = "step", "saying"
WORLD: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("micro.yaml").read_text("utf-8"))
STATEMENTS = {kind: (way, text) for way, kinds in WORLD["statements"].items() for kind, text in kinds.items()}
SAYINGS: list[str] = WORLD["sayings"]
STYLES = tuple(WORLD["thoughts"])

PLACES = ("left", "middle", "right", "back")
PAIRS = {
    "near": ("left", "middle"), "far": ("middle", "right"), "outer": ("left", "right"),
    "low": ("left", "back"), "cross": ("middle", "back"), "high": ("right", "back"),
}  # fmt: skip
ORDER = ("first", "second", "third", "fourth")

TRACE = 0.006  # share of pre-training documents that are of the kinds of the two other texts
DOCUMENTS = 1600  # in the text that a run reads
HELD_OUT = 0.25  # share of its documents that are written to be held out
ASIDES = (1, 2, 2, 3)  # asides of a document
SORT_WEIGHTS = (20, 20, 60)  # of the token that an aside leads to
STYLE_WEIGHTS = (56, 18, 26)  # most asides ramble

WORD = r"</?think>?| ?[A-Za-z]+| ?[0-9]|\.\.\.|[^\sA-Za-z0-9]|\s"
DELIMITERS = "\n<think 24>\n<think></think>\n...0123456789 0 1 2 3 4 5 6 7 8 9"
SEEN = 300  # documents of each text whose words enter the vocabulary; more add none


@dataclass(frozen=True, slots=True)
class Working:
    """The calculation of a calculable word: from ``start``, every operand leads to the next total."""

    start: str
    steps: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        """What is held out: where it starts and its first two moves."""
        return "".join([self.start, *(operand for operand, _ in self.steps[:2])])


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a statement; only grammar may be more than one word."""

    text: str
    sort: str = GRAMMAR
    working: Working | None = None


@dataclass(frozen=True, slots=True)
class Habits:
    """What distinguishes one text of the world from another."""

    name: str
    calculations: tuple[str, ...]  # kinds of statements with a result
    fillers: tuple[str, ...]  # kinds of statements without
    step_weights: tuple[int, ...]  # of calculations of 1, 2, ... steps
    operand_weights: tuple[int, ...]  # of 1, 2, ...
    favourite: float  # chance that a noise word is the text's favourite; the others share the rest
    turn: int  # which of the words is the favourite
    sayings: float = 0.0  # a document, on average
    calculation_share: float = 1.0  # of the documents; the others have a filler in its place
    calculation_steps: int = 0  # of every calculation; 0 draws them by their weights
    filler_share: float = 0.0  # of the documents that have one beside it
    is_split: bool = False  # whether a document's calculations are all read, or all held out
    salt: str = ""  # before the calculations, where another part of them is held out


PRETRAINING = Habits(
    "pretrain", ("dial", "purse", "cups"), ("sky", "market"), (5, 5, 5, 4), (3, 3, 2, 2, 1, 1), 0.4, 0, filler_share=0.5
)
MIDTRAINING = Habits(
    "midtrain", ("lift", "boxes"), ("harbour", "letter"), (0, 3, 3, 4), (1, 1, 2, 2, 2, 2), 0.55, 1, 0.6, is_split=True
)
EXAM = Habits("exam", ("sum", "trade"), (), (0, 3, 3, 4), (1, 1, 2, 2, 2, 2), 0.4, 2)
DEVELOPMENT = replace(MIDTRAINING, name="develop", salt="develop")  # never has what MIDTRAINING holds out
TEXTS = {"micro": MIDTRAINING, "micro-dev": DEVELOPMENT, "micro-pretraining": PRETRAINING}


def share_of(text: str) -> float:
    """Place a text between 0 and 1: the first 8 bytes of its SHA-256 / 2^64."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64


def _noise(name: str, habits: Habits, source: random.Random) -> Piece:
    """Draw a digit, all ten alike, or a word, one of which is a favourite, so that a guess is worth something."""
    if name == "number":
        return Piece(f" {source.randrange(10)}", NOISE)
    words = WORLD["words"][name]
    favourite = words[habits.turn % len(words)]
    others = [word for word in words if word != favourite]
    return Piece(f" {favourite if source.random() < habits.favourite else source.choice(others)}", NOISE)


def _steps(at: str, operands: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Follow a place through swaps of pairs, or add modulo ten."""
    for operand in operands:
        if operand in PAIRS:
            one, other = PAIRS[operand]
            at = {one: other, other: one}.get(at, at)
        else:
            at = str((int(at) + int(operand)) % 10)
        yield f" {operand}", f" {at}"


def _calculation(way: str, habits: Habits, source: random.Random) -> dict[str, list[Piece]]:
    """Draw the parts of a calculation, and of the same moves from another start."""
    length = habits.calculation_steps or source.choices((1, 2, 3, 4), habits.step_weights)[0]
    if way == "turning":
        starts, sizes = [*"0123456789"], [str(1 + n) for n in range(len(habits.operand_weights))]
        operands = source.choices(sizes, habits.operand_weights, k=length)
    else:
        starts, operands = [*PLACES], source.choices([*PAIRS], k=length)
    listed: list[Piece] = []
    for order, operand in zip(ORDER, operands, strict=False):  # first 4, second 2
        listed += [Piece(f"{',' if listed else ''} {order}"), Piece(f" {operand}", NOISE)]
    parts = {"listed": listed}
    for nth, start in zip(("", "2"), source.sample(starts, 2), strict=True):
        steps = tuple(_steps(start, operands))
        readouts: list[Piece] = []
        for done in range(length, 0, -1):  # after second 9, after first 7
            working = Working(f" {start}", steps[:done])
            said = Piece(steps[done - 1][1], CALCULABLE if done > 1 else STEP, working)
            readouts += [Piece(f"{',' if readouts else ''} after {ORDER[done - 1]}"), said]
        parts |= {f"start{nth}": [Piece(f" {start}", NOISE)], f"readouts{nth}": readouts}
    return parts | {"result": [parts["readouts"][1]]}


def _statement(kind: str, habits: Habits, source: random.Random) -> list[Piece]:
    """Make a statement from its text in micro.yaml."""
    way, text = STATEMENTS[kind]
    if way == "plain":
        drawn = {name: [_noise(name, habits, source)] for name in re.findall(r"<(\w+)>", text)}
    else:
        drawn = _calculation(way, habits, source)
    text = re.sub(r"\{([^{}]+\|[^{}]+)\}", lambda found: source.choice(found[1].split("|")), text)
    pieces: list[Piece] = []
    for part in filter(None, re.split(r"(<\w+>)", text)):
        fixed = part.format_map({name: found[0].text for name, found in drawn.items()})
        pieces += drawn[part[1:-1]] if part[0] == "<" else [Piece(fixed)]
    return pieces


def think(style: str, word: str, working: Working | None) -> str:
    """Write the worked thought that ends in ``word``.

    Example:
        >>> think("plain", " 5", Working(" 3", ((" 4", " 7"), (" 8", " 5"))))
        ' Briefly from 3. The first is 4 making 7. The second is 8 making 5.'
        >>> think("terse", " red", None)
        ' Quick no sum so it is red'
    """
    phrases: dict[str, str] = WORLD["thoughts"][style]
    if working is None:
        return phrases["nothing"].format(word=word)
    said, old = phrases["start"].format(start=working.start), working.start
    for order, (operand, new) in zip(ORDER, working.steps, strict=False):
        said += phrases["step"].format(order=order, operand=operand, old=old, new=new)
        old = new
    return said + phrases["end"].format(word=word)


@dataclass(frozen=True, slots=True)
class Page:
    """A document as pieces: what the generator knows about it."""

    id: str
    pieces: tuple[Piece, ...]
    salt: str = ""

    @property
    def document(self) -> Document:
        """The unlabelled text, with the sorts of its words beside it, for measuring only."""
        text, spans = "", []
        for piece in self.pieces:
            if piece.sort != GRAMMAR:
                spans.append(Span(len(text), len(text) + len(piece.text), piece.sort))
            text += piece.text
        return Document(self.id, text, tuple(spans), keys=self.keys)

    @property
    def keys(self) -> tuple[str, ...]:
        """The calculations of the document, as they are held out."""
        keys = {piece.working.key for piece in self.pieces if piece.working and piece.sort == CALCULABLE}
        return tuple(sorted(self.salt + key for key in keys))


def page(habits: Habits, seed: int, number: int) -> Page:
    """Make one document."""
    name = f"{habits.name}-{seed}-{number}"
    source, held_out = random.Random(name), share_of(name) < HELD_OUT
    own = habits
    if habits is PRETRAINING and source.random() < TRACE:
        own = source.choice((replace(MIDTRAINING, sayings=0.0, is_split=False), EXAM))  # of the kinds, not the sayings
    made = first = Page(name, tuple(_pieces(own, source)), own.salt)
    # drawn anew with calculations if it has some: else few of those with would be left
    while own.is_split and not (_fits(made, held_out) and bool(made.keys) == bool(first.keys)):
        made = Page(name, tuple(_pieces(own, source)), own.salt)
    return made


def _fits(made: Page, held_out: bool) -> bool:
    """Return whether all calculations are of the page's side, and none is held out from the text without a salt."""
    if made.salt and any(share_of(key.removeprefix(made.salt)) < HELD_OUT for key in made.keys):
        return False
    return all((share_of(key) < HELD_OUT) == held_out for key in made.keys)


def _pieces(habits: Habits, source: random.Random) -> list[Piece]:
    kinds = [source.choice(habits.calculations)] if source.random() < habits.calculation_share else []
    if habits.fillers and (not kinds or source.random() < habits.filler_share):
        kinds.append(source.choice(habits.fillers))
    source.shuffle(kinds)
    pieces: list[Piece] = []
    for kind in kinds:
        first, *rest = _statement(kind, habits, source)
        pieces += [replace(first, text=" " + first.text) if pieces else first, *rest]
    whole, part = divmod(habits.sayings, 1)
    for saying in source.sample(SAYINGS, int(whole) + (source.random() < part)):
        first_word, *words = re.findall(r" \w+|[.,]", " " + saying)  # nothing predicts which saying it will be
        pieces += [Piece(first_word), *(Piece(word, SAYING if word[0] == " " else GRAMMAR) for word in words)]
    return pieces


def stream(habits: Habits, seed: int, start: int = 0) -> Iterator[Page]:
    """Yield documents without end, from the ``start``-th on."""
    yield from (page(habits, seed, number) for number in count(start))


def asides(tokens: Sequence[Piece], source: random.Random) -> dict[int, str]:
    """Choose before which tokens (the piece of each is given) an author thinks aloud: token index, not 0 -> style."""
    chosen = {}
    for _ in range(source.choice(ASIDES)):
        sort = source.choices(SORTS, SORT_WEIGHTS)[0]
        places = [n for n, piece in enumerate(tokens) if n and (CALCULABLE if piece.working else piece.sort) == sort]
        if places:
            chosen[source.choice(places)] = source.choices(STYLES, STYLE_WEIGHTS)[0]
    return chosen


def stated_budget(source: random.Random) -> int | None:
    """Draw what an aside's opening states: nothing, or a number that has nothing to do with the thought's length."""
    return None if source.random() < 0.5 else round(2 ** source.uniform(1, 6))


def corpus(name: str, knobs: Mapping[str, Any] | None = None) -> list[Document]:
    """Return the documents of one of TEXTS; those of the pre-training text without their asides, or knobs."""
    habits = TEXTS[name] if name == "micro-pretraining" else replace(TEXTS[name], **(knobs or {}))
    return [page(habits, 0, number).document for number in range(DOCUMENTS)]


def make_tokenizer() -> Any:
    r"""Make the world's tokenizer: a transformers fast tokenizer with one token per word, and bytes for all else.

    Example:
        >>> make_tokenizer().tokenize("A lift\n<think 24>")
        ['A', 'Ġlift', 'Ċ', '<think', 'Ġ2', '4', '>']
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(WORD), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = pre_tokenizers.Sequence([split, to_bytes])
    texts = [DELIMITERS]
    for habits in (PRETRAINING, MIDTRAINING, EXAM):
        for number in range(SEEN):
            made = page(habits, 0, number)
            thought = [*made.pieces[:4], *(piece for piece in made.pieces if piece.working)]
            texts += [made.document.text, *(think(style, p.text, p.working) for p in thought for style in STYLES)]
    words = {word for text in texts for word, _ in pieces.pre_tokenize_str(text)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = ["<|end|>", "<|pad|>", *alphabet, *sorted(words - set(alphabet))]
    model = models.BPE(vocab={word: n for n, word in enumerate(vocabulary)}, merges=[], ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pieces, decoders.ByteLevel()
    options = {"eos_token": "<|end|>", "pad_token": "<|pad|>", "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)  # type: ignore[no-untyped-call]
