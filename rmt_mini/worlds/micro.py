"""The micro-world: a generated text in which thinking truly helps, and a model of a million parameters can do it.

Documents are a few short statements. Their tokens are of four sorts, which the generator knows and a model does not:

    grammar      the statement's fixed words, and what repeats an earlier word: easy once learned (but not whether a
                 list goes on)
    noise        nothing determines it: a name, a colour, a digit drawn at random
    calculable   a short calculation over earlier words determines it: where the dial stands after three turns
    saying       a fixed sentence goes on with it: known to whoever has read the sentence, and to no one else

A noise digit and a calculable one look alike to a model that cannot calculate in one pass: ten choices, two nats.
Entropy cannot tell them apart; only thinking can.

Two texts are made of it, and a variant of the second. The *pre-training* text has familiar statements (dial, cups, sky,
market) and, now and then, an aside before a token: a worked thought that ends in that token, in one of three styles
from rambling to terse. The *mid-training* text is unlabelled and shifted: other statements for the same calculations
(lift, boxes) and others without (harbour, letter), more steps, larger operands, other habits of chance. It carries no
asides. A trace of it occurs in pre-training with them, one document in 330: enough that a base thinks about such text
at all, too little that it does so well. As rare is the *exam*, which post-training asks: such calculations as questions
(wheel, stone). And each document of the mid-training text ends in two sayings, of which pre-training has none: no
thought finds out how they go on, they must be read. The *reckoning* text is the mid-training text with nothing in it
but calculations: what is to be learned there must be thought out. It shows how much of a result is the text's.

Every document depends on (seed, text, number) alone, so that any stretch of an endless text can be made by itself.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rmt_mini.records import Document, Span

GRAMMAR, NOISE, CALCULABLE = SORTS = ("grammar", "noise", "calculable")  # those that pre-training has
SAYING = "saying"
STYLES = ("rambling", "plain", "terse")


@dataclass(frozen=True, slots=True)
class Working:
    """How a calculable word comes about: from ``start``, every operand leads to the next total."""

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
    """What distinguishes one text of the world from another.

    Attributes:
        name: of the text.
        calculations: kinds of statements with a result; every document has one.
        fillers: kinds of statements without.
        steps: weights of 1, 2, ... steps in a calculation.
        operands: weights of the operands 1, 2, ...
        favourite: chance that a noise word is the text's favourite; the others share the rest.
        turn: which of the words is the favourite.
        sayings: fixed sentences in every document, drawn from SAYINGS.
    """

    name: str
    calculations: tuple[str, ...]
    fillers: tuple[str, ...]
    steps: tuple[int, ...]
    operands: tuple[int, ...]
    favourite: float
    turn: int
    sayings: int = 0


PRETRAINING = Habits("pretrain", ("dial", "dial", "cups"), ("sky", "market"), (6, 6, 5, 2), (3, 3, 2, 2, 1), 0.4, 0)
MIDTRAINING = Habits("midtrain", ("lift", "boxes"), ("harbour", "letter"), (0, 3, 4, 3), (1, 1, 2, 2, 2), 0.55, 1, 2)
EXAM = Habits("exam", ("sum", "trade"), (), (0, 3, 4, 3), (1, 1, 2, 2, 2), 0.4, 2)
RECKONING = replace(MIDTRAINING, name="reckoning", fillers=(), sayings=0)
TEXTS = {"micro": MIDTRAINING, "micro-reckoning": RECKONING, "micro-pretraining": PRETRAINING}
TRACE = 0.006  # share of pre-training documents that are of the kinds of the two other texts

DOCUMENTS = 1600  # in the text that a run reads

ASIDES = (1, 1, 2, 2)  # asides of a document
SORT_WEIGHTS = (20, 20, 60)  # of the token that an aside leads to
STYLE_WEIGHTS = (56, 18, 26)  # most asides ramble

WORD = r"</?think>?| ?[A-Za-z]+| ?[0-9]|\.\.\.|[^\sA-Za-z0-9]|\s"
FRAME = "\n<think 24>\n<think></think>\n...0123456789 0 1 2 3 4 5 6 7 8 9"
SEEN = 300  # documents of each text whose words enter the vocabulary; more add none

NAMES = ("Ann", "Bo", "Cy", "Dot")
COLOURS = ("red", "blue", "green", "grey")
WINDS = ("north", "south", "east", "west")
DAYS = ("Monday", "Friday", "Sunday")
PLACES = ("left", "middle", "right")
PAIRS = {"near": ("left", "middle"), "far": ("middle", "right"), "outer": ("left", "right")}
ORDER = ("first", "second", "third", "fourth")


class Chance:
    """Draws for one document, by its habits."""

    def __init__(self, habits: Habits, source: random.Random) -> None:
        self.habits, self.source = habits, source

    def word(self, words: Sequence[str]) -> Piece:
        """Draw a noise word; one of them is a favourite, so a guess is worth something."""
        favourite = words[self.habits.turn % len(words)]
        others = [word for word in words if word != favourite]
        chosen = favourite if self.source.random() < self.habits.favourite else self.source.choice(others)
        return Piece(" " + chosen, NOISE)

    def digit(self) -> Piece:
        """Draw a noise digit, all ten alike."""
        return Piece(f" {self.source.randrange(10)}", NOISE)

    def weighted(self, weights: Sequence[int]) -> int:
        """Draw 1, 2, ... by weight."""
        return self.source.choices(range(1, len(weights) + 1), weights)[0]


def _turning(chance: Chance) -> tuple[Piece, list[Piece], Piece]:
    """Add modulo ten: start, the list of operands as the text gives it, result."""
    start = chance.digit()
    total, steps = int(start.text), []
    for _ in range(chance.weighted(chance.habits.steps)):
        operand = chance.weighted(chance.habits.operands)
        total = (total + operand) % 10
        steps.append((f" {operand}", f" {total}"))
    return start, _listed(steps), Piece(f" {total}", CALCULABLE, Working(start.text, tuple(steps)))


def _swapping(chance: Chance) -> tuple[Piece, list[Piece], Piece]:
    """Follow one of three places through swaps of pairs: start, the list of pairs, result."""
    start = Piece(" " + chance.source.choice(PLACES), NOISE)
    place, steps = start.text.strip(), []
    for _ in range(chance.weighted(chance.habits.steps)):
        pair = chance.source.choice(tuple(PAIRS))
        one, other = PAIRS[pair]
        place = {one: other, other: one}.get(place, place)
        steps.append((f" {pair}", f" {place}"))
    return start, _listed(steps), Piece(f" {place}", CALCULABLE, Working(start.text, tuple(steps)))


def _listed(steps: Sequence[tuple[str, str]]) -> list[Piece]:
    """Name the operands in order: first 4, second 2."""
    listed: list[Piece] = []
    for order, (operand, _) in zip(ORDER, steps, strict=False):
        listed += [Piece(f"{',' if listed else ''} {order}"), Piece(operand, NOISE)]
    return listed


def _dial(chance: Chance) -> list[Piece]:
    choice = chance.source.choice
    start, listed, result = _turning(chance)
    thing, verb = choice(("dial", "hand", "needle", "pointer")), choice(("stands", "begins", "rests"))
    moves, after = (
        choice(("turns", "moves", "jumps", "steps")),
        choice(("Now it shows", "Then it reads", "Now it is at")),
    )
    end = [Piece(f". {after}"), result, Piece(f". The clerk writes down{result.text}.")]
    return [Piece(f"The {thing} {verb} at"), start, Piece(f". It {moves}"), *listed, *end]


def _lift(chance: Chance) -> list[Piece]:
    start, listed, result = _turning(chance)
    end = [Piece(". In the end it stops at"), result, Piece(f", so the bell rings at{result.text}.")]
    return [Piece("A lift waits on floor"), start, Piece(" and rises"), *listed, *end]


def _cups(chance: Chance) -> list[Piece]:
    choice = chance.source.choice
    start, listed, result = _swapping(chance)
    thing, cover = choice(("pea", "coin", "key", "bean")), choice(("cup", "hat", "bowl"))
    swap, after = choice(("Swap", "Exchange", "Change")), choice(("Now it is", "Then it is", "It is now"))
    end = [Piece(f" pair. {after}"), result, Piece(f". Look, it is{result.text}.")]
    return [Piece(f"The {thing} is under the"), start, Piece(f" {cover}. {swap}"), *listed, *end]


def _boxes(chance: Chance) -> list[Piece]:
    start, listed, result = _swapping(chance)
    end = [Piece(". At last the ring lies"), result, Piece(f", yes, it lies{result.text}.")]
    return [Piece("A ring lies"), start, Piece(" and boxes trade places:"), *listed, *end]


def _sky(chance: Chance) -> list[Piece]:
    day, colour, wind = chance.word(DAYS), chance.word(COLOURS), chance.word(WINDS)
    between = [Piece(" the sky is"), colour, Piece(" and the wind blows from the"), wind]
    return [Piece("On"), day, *between, Piece(f". A{colour.text} sky on{day.text}.")]


def _market(chance: Chance) -> list[Piece]:
    name, number, colour = chance.word(NAMES), chance.digit(), chance.word(COLOURS)
    sold = [Piece("At the market"), name, Piece(" sells"), number, colour, Piece(" apples")]
    return [*sold, Piece(f". All{number.text} are gone.")]


def _harbour(chance: Chance) -> list[Piece]:
    colour, wind, number = chance.word(COLOURS), chance.word(WINDS), chance.digit()
    ship = [Piece("A"), colour, Piece(" ship comes from the"), wind, Piece(" with"), number, Piece(" men")]
    return [*ship, Piece(f". The{colour.text} ship leaves.")]


def _letter(chance: Chance) -> list[Piece]:
    name, day, number = chance.word(NAMES), chance.word(DAYS), chance.digit()
    sent = [Piece("A letter for"), name, Piece(" arrives on"), day, Piece(" at"), number]
    return [*sent, Piece(f".{name.text} reads it.")]


def _sum(chance: Chance) -> list[Piece]:
    start, listed, result = _turning(chance)
    return [
        Piece("Question: a wheel shows"),
        start,
        Piece(" and turns"),
        *listed,
        Piece(". Answer:"),
        result,
        Piece("."),
    ]


def _trade(chance: Chance) -> list[Piece]:
    start, listed, result = _swapping(chance)
    return [Piece("Question: a stone lies"), start, Piece(". Trade"), *listed, Piece(". Answer:"), result, Piece(".")]


# Known words in new order: what a model must have read to know. Pre-training has none of these.
SAYINGS = (
    "The clerk reads the letter and the bell rings.",
    "A key under the hat turns no wheel.",
    "The north wind blows and the men go to the market.",
    "On Sunday no ship leaves the east.",
    "The wheel stops, so the stone rests on the floor.",
    "All apples under the bowl are green and red.",
    "A ring on the left hand is no coin.",
    "The dial shows nothing, and the needle waits.",
    "The lift comes down, so follow the bell.",
    "On Friday the clerk sells a hat and a cup.",
    "There is a bean on the middle floor.",
    "Ann reads by the sky and Bo by the wind.",
    "The grey ship waits for men with apples.",
    "It is well that the bell stops at first.",
    "A blue pea rests under the third cup.",
    "Look at the stone, and the wind turns west.",
    "Then what I say becomes a letter to Dot.",
    "Cy sells the key for a pair and a coin.",
    "The far market begins here, the near stops there.",
    "Now the pointer jumps, and I see nothing.",
    "Let the coin go, and the hand may follow.",
    "At the end there stands a red wheel.",
    "The sum is nothing that I follow on Monday.",
    "A step to the right, and the floor rises.",
)

KINDS: dict[str, Callable[[Chance], list[Piece]]] = {
    "dial": _dial, "cups": _cups, "sky": _sky, "market": _market,
    "lift": _lift, "boxes": _boxes, "harbour": _harbour, "letter": _letter,
    "sum": _sum, "trade": _trade,
}  # fmt: skip


def think(style: str, word: str, working: Working | None) -> str:
    """Write the worked thought that ends in ``word``.

    A style opens alike and is about as long whether or not there is something to calculate. So a budget moves a model
    from style to style everywhere at once; otherwise what suits the many tokens that need no calculation takes over.

    Example:
        >>> working = Working(" 3", ((" 4", " 7"), (" 8", " 5")))
        >>> for style in STYLES:
        ...     print(think(style, " 5", working))
         Let me see, step by step. The first is 4, so 3 becomes 7. The second is 8, so 7 becomes 5. So the answer is 5.
         Briefly from 3. The first is 4 making 7. The second is 8 making 5.
         Quick 3 first 4 7 second 8 5
        >>> think("terse", " red", None)
        ' Quick no sum so it is red'
    """
    if working is None:
        return {
            "rambling": " Let me see, step by step. There is nothing to add up here and nothing to follow, so I go by "
            f"what usually comes, and that may well be{word}. So the answer is{word}.",
            "plain": " Briefly there is nothing to add up here and nothing to follow, so I go by what usually comes, "
            f"and say{word}.",
            "terse": f" Quick no sum so it is{word}",
        }[style]
    totals = [working.start, *(total for _, total in working.steps)]
    steps = [
        (order, old, operand, new) for order, old, (operand, new) in zip(ORDER, totals, working.steps, strict=False)
    ]
    if style == "rambling":
        said = "".join(f" The {order} is{operand}, so{old} becomes{new}." for order, old, operand, new in steps)
        return f" Let me see, step by step.{said} So the answer is{word}."
    if style == "plain":
        said = "".join(f" The {order} is{operand} making{new}." for order, _, operand, new in steps)
        return f" Briefly from{working.start}.{said}"
    return f" Quick{working.start}" + "".join(f" {order}{operand}{new}" for order, _, operand, new in steps)


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


def _said(saying: str) -> list[Piece]:
    """Cut a saying into words; which one it will be, nothing tells before its first."""
    first, *rest = re.findall(r" \w+|[.,]", " " + saying)
    return [Piece(first), *(Piece(word, SAYING if word[0] == " " else GRAMMAR) for word in rest)]


def page(habits: Habits, seed: int, number: int) -> Page:
    """Make one document.

    Example:
        >>> print(page(MIDTRAINING, seed=0, number=3).document.text[:60])
        A lift waits on floor 3 and rises first 5, second 1, third 2
    """
    source = random.Random(f"{habits.name}/{seed}/{number}")
    own = habits
    if habits is PRETRAINING and source.random() < TRACE:
        own = source.choice((replace(MIDTRAINING, sayings=0), EXAM))  # a trace of the kinds, not of the sayings
    kinds = [
        source.choice(own.calculations),
        *source.sample(own.fillers, min(len(own.fillers), source.choice((0, 1, 1)))),
    ]
    source.shuffle(kinds)
    chance = Chance(own, source)
    pieces: list[Piece] = []
    for kind in kinds:
        first, *rest = KINDS[kind](chance)
        pieces += [Piece(" " + first.text) if pieces else first, *rest]
    for saying in source.sample(SAYINGS, own.sayings):
        pieces += _said(saying)
    return Page(f"{habits.name}-{seed}-{number}", tuple(pieces))


def stream(habits: Habits, seed: int, start: int = 0) -> Iterator[Page]:
    """Yield documents without end, from the ``start``-th on."""
    number = start
    while True:
        yield page(habits, seed, number)
        number += 1


def asides(tokens: Sequence[Piece], source: random.Random) -> dict[int, str]:
    """Choose before which tokens of a document its author thinks aloud, and in which styles.

    Args:
        tokens: the piece that each token belongs to.
        source: of chance.

    Returns:
        Token index -> style; index 0 has no aside, since nothing stands before it.
    """
    chosen = {}
    for _ in range(source.choice(ASIDES)):
        sort = source.choices(SORTS, SORT_WEIGHTS)[0]
        places = [index for index, piece in enumerate(tokens) if index and piece.sort == sort]
        if places:
            chosen[source.choice(places)] = source.choices(STYLES, STYLE_WEIGHTS)[0]
    return chosen


def stated_budget(source: random.Random) -> int | None:
    """Draw what an aside's opening states: nothing, or a number that has nothing to do with the thought's length.

    So the number is familiar, but that thoughts should keep to it is left for RMT to teach.
    """
    return None if source.random() < 0.5 else round(2 ** source.uniform(1, 6))


def corpus(name: str) -> list[Document]:
    """Return the documents of one of TEXTS; those of the pre-training text without their asides."""
    return [page(TEXTS[name], 0, number).document for number in range(DOCUMENTS)]


def make_tokenizer() -> Any:
    r"""Make the world's tokenizer: a transformers fast tokenizer with one token per word, and bytes for all else.

    Example:
        >>> tokenizer = make_tokenizer()
        >>> tokenizer.tokenize("A lift\n<think 24>")
        ['A', 'Ġlift', 'Ċ', '<think', 'Ġ2', '4', '>']
        >>> tokenizer.decode(tokenizer("Zürich?")["input_ids"])
        'Zürich?'
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Split(Regex(WORD), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = pre_tokenizers.Sequence([split, to_bytes])
    texts = [FRAME]
    for habits in (PRETRAINING, MIDTRAINING, EXAM):
        for number in range(SEEN):
            made = page(habits, 0, number)
            texts.append(made.document.text)
            texts += [think(style, p.text, p.working) for p in made.pieces[:4] for style in STYLES]
            texts += [think(style, p.text, p.working) for p in made.pieces if p.working for style in STYLES]
    words = {word for text in texts for word, _ in pieces.pre_tokenize_str(text)}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = ["<|end|>", "<|pad|>", *alphabet, *sorted(words - set(alphabet))]
    model = models.BPE(vocab={word: n for n, word in enumerate(vocabulary)}, merges=[], ignore_merges=True)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer, tokenizer.decoder = pieces, decoders.ByteLevel()
    made_fast: Callable[..., Any] = PreTrainedTokenizerFast
    return made_fast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>", clean_up_tokenization_spaces=False
    )
