"""The micro-world: a generated text in which thinking truly helps, and a model of a million parameters can do it.

Documents are a few short statements (micro.yaml). Their tokens are of four sorts, which only the generator knows:

    grammar      the statement's fixed words, and what repeats an earlier word: easy once learned
    noise        nothing determines it: a name, a colour, a digit drawn at random
    calculable   a short calculation over earlier words determines it: where the dial is after three turns
    saying       a fixed sentence goes on with it: known to whoever has read the sentence, and to no one else

A noise digit and a calculable one have the same entropy for a model that cannot calculate in one pass.

The *pre-training* text has, now and then, an aside before a token: a worked thought that ends in it, in one of three
styles. The *mid-training* text is unlabelled and shifted: other statements, more steps, larger operands, other words
preferred, two sayings a document. A trace of its statements occurs in pre-training, and of the *exam* of post-training.
The *reckoning* text has the calculations of the mid-training text and nothing else.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import count
from typing import Any

import yaml

from rmt_mini.records import Document, Span

GRAMMAR, NOISE, CALCULABLE = SORTS = ("grammar", "noise", "calculable")  # those that pre-training has
SAYING = "saying"
WORLD: dict[str, Any] = yaml.safe_load(files(__package__).joinpath("micro.yaml").read_text("utf-8"))
STATEMENTS = {kind: (way, text) for way, kinds in WORLD["statements"].items() for kind, text in kinds.items()}
SAYINGS: list[str] = WORLD["sayings"]
STYLES = tuple(WORLD["thoughts"])

PLACES = ("left", "middle", "right")
PAIRS = {"near": ("left", "middle"), "far": ("middle", "right"), "outer": ("left", "right")}
ORDER = ("first", "second", "third", "fourth")

TRACE = 0.006  # share of pre-training documents that are of the kinds of the two other texts
DOCUMENTS = 1600  # in the text that a run reads
ASIDES = (1, 1, 2, 2)  # asides of a document
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


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a statement; only grammar may be more than one word."""

    text: str
    sort: str = GRAMMAR
    working: Working | None = None


@dataclass(frozen=True, slots=True)
class Habits:
    """What distinguishes one text of the world from another; weights are those of 1, 2, ..."""

    name: str
    calculations: tuple[str, ...]  # kinds of statements with a result; every document has one
    fillers: tuple[str, ...]  # kinds of statements without
    steps: tuple[int, ...]  # weights
    operands: tuple[int, ...]  # weights
    favourite: float  # chance that a noise word is the text's favourite; the others share the rest
    turn: int  # which of the words is the favourite
    sayings: int = 0  # in every document


PRETRAINING = Habits("pretrain", ("dial", "dial", "cups"), ("sky", "market"), (6, 6, 5, 2), (3, 3, 2, 2, 1), 0.4, 0)
MIDTRAINING = Habits("midtrain", ("lift", "boxes"), ("harbour", "letter"), (0, 3, 4, 3), (1, 1, 2, 2, 2), 0.55, 1, 2)
EXAM = Habits("exam", ("sum", "trade"), (), (0, 3, 4, 3), (1, 1, 2, 2, 2), 0.4, 2)
RECKONING = replace(MIDTRAINING, name="reckoning", fillers=(), sayings=0)
TEXTS = {"micro": MIDTRAINING, "micro-reckoning": RECKONING, "micro-pretraining": PRETRAINING}


def _noise(name: str, habits: Habits, source: random.Random) -> Piece:
    """Draw a digit, all ten alike, or a word, one of which is a favourite, so that a guess is worth something."""
    if name == "number":
        return Piece(f" {source.randrange(10)}", NOISE)
    words = WORLD["words"][name]
    favourite = words[habits.turn % len(words)]
    others = [word for word in words if word != favourite]
    return Piece(f" {favourite if source.random() < habits.favourite else source.choice(others)}", NOISE)


def _working(way: str, habits: Habits, source: random.Random) -> Working:
    """Draw a calculation: additions modulo ten, or one of three places followed through swaps of pairs."""
    turning = way == "turning"
    start = at = str(source.randrange(10)) if turning else source.choice(PLACES)
    steps = []
    for _ in range(source.choices((1, 2, 3, 4), habits.steps)[0]):
        if turning:
            operand = str(source.choices((1, 2, 3, 4, 5), habits.operands)[0])
            at = str((int(at) + int(operand)) % 10)
        else:
            operand = source.choice(tuple(PAIRS))
            one, other = PAIRS[operand]
            at = {one: other, other: one}.get(at, at)
        steps.append((f" {operand}", f" {at}"))
    return Working(f" {start}", tuple(steps))


def _statement(kind: str, habits: Habits, source: random.Random) -> list[Piece]:
    """Make a statement from its text in micro.yaml."""
    way, text = STATEMENTS[kind]
    if way == "plain":
        drawn = {name: [_noise(name, habits, source)] for name in re.findall(r"<(\w+)>", text)}
    else:
        working = _working(way, habits, source)
        start, result = Piece(working.start, NOISE), Piece(working.steps[-1][1], CALCULABLE, working)
        listed: list[Piece] = []  # first 4, second 2
        for order, (operand, _) in zip(ORDER, working.steps, strict=False):
            listed += [Piece(f"{',' if listed else ''} {order}"), Piece(operand, NOISE)]
        drawn = {"start": [start], "listed": listed, "result": [result]}
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

    @property
    def document(self) -> Document:
        """The unlabelled text, with the sorts of its words beside it, for measuring only."""
        text, spans = "", []
        for piece in self.pieces:
            if piece.sort != GRAMMAR:
                spans.append(Span(len(text), len(text) + len(piece.text), piece.sort))
            text += piece.text
        return Document(self.id, text, tuple(spans))


def page(habits: Habits, seed: int, number: int) -> Page:
    """Make one document."""
    source = random.Random(f"{habits.name}/{seed}/{number}")
    own = habits
    if habits is PRETRAINING and source.random() < TRACE:
        own = source.choice((replace(MIDTRAINING, sayings=0), EXAM))  # a trace of the kinds, not of the sayings
    calculation, fillers = source.choice(own.calculations), min(len(own.fillers), source.choice((0, 1, 1)))
    kinds = [calculation, *source.sample(own.fillers, fillers)]
    source.shuffle(kinds)
    pieces: list[Piece] = []
    for kind in kinds:
        first, *rest = _statement(kind, own, source)
        pieces += [Piece(" " + first.text) if pieces else first, *rest]
    for saying in source.sample(SAYINGS, own.sayings):
        first_word, *words = re.findall(r" \w+|[.,]", " " + saying)  # nothing predicts which saying it will be
        pieces += [Piece(first_word), *(Piece(word, SAYING if word[0] == " " else GRAMMAR) for word in words)]
    return Page(f"{habits.name}-{seed}-{number}", tuple(pieces))


def stream(habits: Habits, seed: int, start: int = 0) -> Iterator[Page]:
    """Yield documents without end, from the ``start``-th on."""
    yield from (page(habits, seed, number) for number in count(start))


def asides(tokens: Sequence[Piece], source: random.Random) -> dict[int, str]:
    """Choose before which tokens (the piece of each is given) an author thinks aloud: token index, not 0 -> style."""
    chosen = {}
    for _ in range(source.choice(ASIDES)):
        sort = source.choices(SORTS, SORT_WEIGHTS)[0]
        places = [index for index, piece in enumerate(tokens) if index and piece.sort == sort]
        if places:
            chosen[source.choice(places)] = source.choices(STYLES, STYLE_WEIGHTS)[0]
    return chosen


def stated_budget(source: random.Random) -> int | None:
    """Draw what an aside's opening states: nothing, or a number that has nothing to do with the thought's length."""
    return None if source.random() < 0.5 else round(2 ** source.uniform(1, 6))


def corpus(name: str) -> list[Document]:
    """Return the documents of one of TEXTS; those of the pre-training text without their asides."""
    return [page(TEXTS[name], 0, number).document for number in range(DOCUMENTS)]


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
