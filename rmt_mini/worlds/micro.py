"""Micro-worlds: generated texts in which thinking truly helps, and a model of a million parameters can do it.

Documents are a few short statements. Their tokens are of five sorts, which only the generator knows:

    grammar      the statement's fixed words, and what repeats an earlier word: easy once learned
    noise        nothing determines it: a name, a colour, a digit drawn at random
    calculable   a short calculation over earlier words determines it: where the dial is after three turns
    step         one step of such a calculation does, where a text reads out every step
    saying       a fixed sentence goes on with it: known to whoever has read the sentence, and to no one else

A noise digit and a calculable one have the same entropy for a model that cannot calculate in one pass.

The *pre-training* text has, now and then, an aside before a token: a worked thought that ends in it, in one of three
styles. The *mid-training* text is unlabelled and shifted: other statements, more steps, larger operands, other words
preferred, and sayings. A trace of its statements occurs in pre-training, and of the *exam* of post-training.

Two worlds, each a file of data: ``micro`` has one calculation a document among much else, and is quick; ``abacus`` is
dense: a document reads out where its moves lead from two or three starts, step by step, the last step first.

Held out are calculations, by start and first two moves: those of a document are all on one side, so that none of two
or more steps that a held-out document or question needs occurs in a text that mid-training or post-training reads.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from rmt_mini import config
from rmt_mini.records import Document, Span

GRAMMAR, NOISE, CALCULABLE = SORTS = ("grammar", "noise", "calculable")  # that an aside may lead to
STEP, SAYING = "step", "saying"
ORDER = ("first", "second", "third", "fourth")
COUNT = ("one", "two", "three", "four")  # of the moves before a read-out; other words, so that a move is found at once

DOCUMENTS = 1600  # in the text that a run reads
HELD_OUT = 0.25  # share of the documents of several calculations that are written to be held out
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
        return "".join([self.start, *(move for move, _ in self.steps[:2])])


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a statement; only grammar may be more than one word."""

    text: str
    sort: str = GRAMMAR
    working: Working | None = None


@dataclass(frozen=True, slots=True)
class Habits:
    """What distinguishes one text of a world from another; weights are those of 1, 2, ..."""

    name: str
    world: str
    calculations: Sequence[str]  # kinds of statements with a result
    steps: Sequence[int]  # weights
    operands: Sequence[int]  # weights
    favourite: float  # chance that a noise word is the text's favourite; the others share the rest
    turn: int  # which of the words is the favourite
    fillers: Sequence[str] = ()  # kinds of statements without, beside a calculation
    instead: Sequence[str] = ()  # in its place
    sayings: float = 0.0  # a document, on average
    calculation_share: float = 1.0  # of the documents
    calculation_steps: int = 0  # of every calculation; 0 draws them by their weights
    salt: str = ""  # before the calculations, where others of them are held out


@dataclass(frozen=True)
class World:
    """A world's words and texts, as its YAML file has them."""

    name: str
    pretrain: Habits
    midtrain: Habits
    exam: Habits
    statements: Mapping[str, tuple[str, str]]  # kind -> way of calculating and text
    words: Mapping[str, Sequence[str]]
    thoughts: Mapping[str, Mapping[str, str]]  # by style
    sayings: Sequence[str]
    places: Sequence[str]
    pairs: Mapping[str, tuple[str, str]]
    trace: float  # share of pre-training documents that are of the kinds of the two other texts
    asides: Sequence[int]  # numbers of them in a document, alike likely
    skips: float = 0.0  # share of the asides before a calculable word that do not calculate it
    slips: float = 0.0  # chance of each step of such an aside to be wrong


def _world(name: str) -> World:
    data = config.data(f"worlds/{name}.yaml")
    own = "" if name == "micro" else f"{name}-"
    texts = {text: Habits(own + text, name, **habits) for text, habits in data.pop("texts").items()}
    kinds = {kind: (way, text) for way, found in data.pop("statements").items() for kind, text in found.items()}
    return World(name, texts["pretrain"], texts["midtrain"], texts["exam"], kinds, **data)


WORLDS = {name: _world(name) for name in config.WORLDS}
MICRO, ABACUS = WORLDS["micro"], WORLDS["abacus"]
TEXTS: dict[str, Habits] = {}
for _name, _one in WORLDS.items():
    # a development text never has what the mid-training text holds out
    _develop = replace(_one.midtrain, name=f"{_name}-dev", salt="dev")
    TEXTS |= {_name: _one.midtrain, f"{_name}-dev": _develop, f"{_name}-pretraining": _one.pretrain}


def share_of(text: str) -> float:
    """Place a text between 0 and 1: the first 8 bytes of its SHA-256 / 2^64."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64


def _noise(name: str, habits: Habits, source: random.Random) -> Piece:
    """Draw a digit, all ten alike, or a word, one of which is a favourite, so that a guess is worth something."""
    if name == "number":
        return Piece(f" {source.randrange(10)}", NOISE)
    words = WORLDS[habits.world].words[name]
    favourite = words[habits.turn % len(words)]
    others = [word for word in words if word != favourite]
    return Piece(f" {favourite if source.random() < habits.favourite else source.choice(others)}", NOISE)


def _parts(
    way: str, habits: Habits, count: int, fits: Callable[[Sequence[str]], bool], source: random.Random
) -> dict[str, list[Piece]]:
    """Draw the parts of a calculation that ``fits``, and of the same moves from other starts, ``count`` in all."""
    turning, world = way == "turning", WORLDS[habits.world]
    starts = [*"0123456789"] if turning else list(world.places)
    sizes = [str(1 + n) for n in range(len(habits.operands))]

    def draw() -> tuple[list[str], list[str]]:
        chosen, length = [source.choice(starts)], source.choices((1, 2, 3, 4), habits.steps)[0]
        operands = [
            source.choices(sizes, habits.operands)[0] if turning else source.choice([*world.pairs])
            for _ in range(habits.calculation_steps or length)
        ]
        for _ in range(1, count):
            chosen.append(source.choice([start for start in starts if start not in chosen]))
        return chosen, operands

    def keys() -> list[str]:
        return [Working(f" {start}", tuple(_steps(start, operands[:2], world))).key for start in chosen]

    chosen, operands = draw()
    while len(operands) > 1 and not fits(keys()):
        chosen, operands = draw()
    listed: list[Piece] = []
    for order, operand in zip(ORDER, operands, strict=False):  # first 4, second 2
        listed += [Piece(f"{',' if listed else ''} {order}"), Piece(f" {operand}", NOISE)]
    parts = {"listed": listed}
    for nth, start in zip(("", "2", "3"), chosen, strict=False):
        steps, readouts = tuple(_steps(start, operands, world)), list[Piece]()
        for done in range(len(steps), 0, -1):  # after two 9, after one 7
            working = Working(f" {start}", steps[:done])
            said = Piece(steps[done - 1][1], CALCULABLE if done > 1 else STEP, working)
            readouts += [Piece(f"{',' if readouts else ''} after {COUNT[done - 1]}"), said]
        parts |= {f"start{nth}": [Piece(f" {start}", NOISE)], f"readouts{nth}": readouts}
        parts.setdefault("result", [replace(readouts[1], sort=CALCULABLE)])
    return parts


def _steps(at: str, operands: Sequence[str], world: World) -> Iterator[tuple[str, str]]:
    """Follow a place through swaps of pairs, or add modulo ten."""
    for operand in operands:
        if operand in world.pairs:
            one, other = world.pairs[operand]
            at = {one: other, other: one}.get(at, at)
        else:
            at = str((int(at) + int(operand)) % 10)
        yield f" {operand}", f" {at}"


def _statement(kind: str, habits: Habits, fits: Callable[[Sequence[str]], bool], source: random.Random) -> list[Piece]:
    """Make a statement from its text."""
    way, text = WORLDS[habits.world].statements[kind]
    if way == "plain":
        drawn = {name: [_noise(name, habits, source)] for name in re.findall(r"<(\w+)>", text)}
    else:
        drawn = _parts(way, habits, text.count("<start"), fits, source)
    text = re.sub(r"\{([^{}]+\|[^{}]+)\}", lambda found: source.choice(found[1].split("|")), text)
    pieces: list[Piece] = []
    for part in filter(None, re.split(r"(<\w+>)", text)):
        fixed = part.format_map({name: found[0].text for name, found in drawn.items()})
        pieces += drawn[part[1:-1]] if part[0] == "<" else [Piece(fixed)]
    return pieces


def think(style: str, word: str, working: Working | None, world: World = MICRO) -> str:
    """Write the worked thought that leads to ``word``.

    Example:
        >>> think("plain", " 5", Working(" 3", ((" 4", " 7"), (" 8", " 5"))))
        ' Briefly from 3. The first is 4 making 7. The second is 8 making 5.'
        >>> think("terse", " red", None)
        ' Quick no sum so it is red'
    """
    phrases = world.thoughts[style]
    if working is None:
        return phrases["nothing"].format(word=word)
    said, old = phrases["start"].format(start=working.start), working.start
    for order, (operand, new) in zip(ORDER, working.steps, strict=False):
        said += phrases["step"].format(order=order, operand=operand, old=old, new=new)
        old = new
    return said + phrases["end"].format(word=word)


def fallible(working: Working | None, source: random.Random, world: World) -> Working | None:
    """Return what an author makes of a calculation: nothing, or one that may slip at a step and go on from there."""
    if working is None or (world.skips and source.random() < world.skips):
        return None
    at, steps = working.start.strip(), list[tuple[str, str]]()
    for operand, _ in working.steps:
        _, new = next(_steps(at, [operand.strip()], world))
        if world.slips and source.random() < world.slips:
            values = [*"0123456789"] if at.isdigit() else [*world.places]
            new = " " + source.choice([value for value in values if value != new.strip()])
        steps, at = [*steps, (operand, new)], new.strip()
    return Working(working.start, tuple(steps))


@dataclass(frozen=True, slots=True)
class Page:
    """A document as pieces: what the generator knows about it."""

    id: str
    pieces: tuple[Piece, ...] = field(repr=False)
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
    source, own = random.Random(f"{habits.name}/{seed}/{number}"), habits
    world, name = WORLDS[habits.world], f"{habits.name}-{seed}-{number}"
    if habits is world.pretrain and source.random() < world.trace:
        own = source.choice((replace(world.midtrain, sayings=0), world.exam))  # a trace of the kinds, not the sayings
    held_out = share_of(name) < HELD_OUT

    def fits(keys: Sequence[str]) -> bool:
        """Whether several calculations are all on one side, and those to develop with are not held out elsewhere."""
        if habits is world.pretrain:
            return True
        if habits.salt and any(share_of(key) < HELD_OUT for key in keys):
            return False
        return len(keys) < 2 or all((share_of(habits.salt + key) < HELD_OUT) == held_out for key in keys)

    return Page(name, tuple(_pieces(own, fits, source)), own.salt)


def _pieces(habits: Habits, fits: Callable[[Sequence[str]], bool], source: random.Random) -> list[Piece]:
    kinds = [source.choice(habits.calculations)]
    kinds += source.sample(habits.fillers, min(len(habits.fillers), source.choice((0, 1, 1))))
    if habits.calculation_share < 1 and source.random() >= habits.calculation_share:
        kinds[0] = source.choice(habits.instead or habits.fillers)
    source.shuffle(kinds)
    pieces: list[Piece] = []
    for kind in kinds:
        first, *rest = _statement(kind, habits, fits, source)
        pieces += [replace(first, text=" " + first.text) if pieces else first, *rest]
    whole, part = divmod(habits.sayings, 1)
    wanted = int(whole) + (part > 0 and source.random() < part)
    for saying in source.sample(WORLDS[habits.world].sayings, wanted):
        first_word, *words = re.findall(r" \w+|[.,]", " " + saying)  # nothing predicts which saying it will be
        pieces += [Piece(first_word), *(Piece(word, SAYING if word[0] == " " else GRAMMAR) for word in words)]
    return pieces


def stream(habits: Habits, seed: int, start: int = 0) -> Iterator[Page]:
    """Yield documents without end, from the ``start``-th on."""
    yield from (page(habits, seed, number) for number in count(start))


def asides(tokens: Sequence[Piece], source: random.Random, world: World = MICRO) -> dict[int, str]:
    """Choose before which tokens (the piece of each is given) an author thinks aloud: token index, not 0 -> style."""
    chosen = {}
    for _ in range(source.choice(world.asides)):
        sort = source.choices(SORTS, SORT_WEIGHTS)[0]
        places = [n for n, piece in enumerate(tokens) if n and (CALCULABLE if piece.working else piece.sort) == sort]
        if places:
            chosen[source.choice(places)] = source.choices([*world.thoughts], STYLE_WEIGHTS)[0]
    return chosen


def stated_budget(source: random.Random) -> int | None:
    """Draw what an aside's opening states: nothing, or a number that has nothing to do with the thought's length."""
    return None if source.random() < 0.5 else round(2 ** source.uniform(1, 6))


def corpus(name: str, knobs: Mapping[str, Any] | None = None) -> list[Document]:
    """Return the documents of one of TEXTS; those of a pre-training text without their asides.

    ``knobs`` are fields of Habits that the text should have otherwise.
    """
    habits = replace(TEXTS[name], **(knobs or {}))
    return [page(habits, 0, number).document for number in range(DOCUMENTS)]


def make_tokenizer(world: World = MICRO) -> Any:
    r"""Make a world's tokenizer: a transformers fast tokenizer with one token per word, and bytes for all else.

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
    for habits in (world.pretrain, world.midtrain, world.exam):
        for number in range(SEEN):
            made = page(habits, 0, number)
            thought = [*made.pieces[:4], *(piece for piece in made.pieces if piece.working)]
            texts += [
                made.document.text,
                *(think(style, p.text, p.working, world) for p in thought for style in world.thoughts),
            ]
    words = {word for text in texts for word, _ in pieces.pre_tokenize_str(text)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = ["<|end|>", "<|pad|>", *alphabet, *sorted(words - set(alphabet))]
    model = models.BPE(vocab={word: n for n, word in enumerate(vocabulary)}, merges=[], ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pieces, decoders.ByteLevel()
    options = {"eos_token": "<|end|>", "pad_token": "<|pad|>", "clean_up_tokenization_spaces": False}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **options)  # type: ignore[no-untyped-call]
