"""The micro-worlds: their texts are right, their sorts are true, and what bases were made with stays as it is."""

import hashlib
import itertools
import random
import re
from collections import Counter
from dataclasses import replace

import pytest

from rmt_mini.config import KNOBS, RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.worlds import micro
from rmt_mini.worlds.corpus import corpus_for, load_corpus
from rmt_mini.worlds.micro import (
    ABACUS,
    CALCULABLE,
    GRAMMAR,
    MICRO,
    NOISE,
    SAYING,
    STEP,
    TEXTS,
    WORLDS,
    Habits,
    Page,
    Working,
    World,
    page,
    think,
)
from tests.worlds.reading import COUNT, LISTED, PLACE, SWAPS, read, solve

EVERY = [*TEXTS.values(), MICRO.exam, ABACUS.exam]
# of 500 documents with the sorts of their words, their thoughts and asides: recorded bases and results are of these
DIGESTS = {
    "pretrain": "f9eb2b63fcf8c4f1",
    "midtrain": "fff7ba3dc547c500",
    "exam": "9b49709fe6560863",
    "micro-dev": "7779fc794719307e",
    "abacus-pretrain": "f133f676febefe0d",
    "abacus-midtrain": "c8ba36679cb832b6",
    "abacus-exam": "870eb0eded39631f",
    "abacus-dev": "fcf674928fe65905",
}


MADE: dict[str, list[Page]] = {}


def some(habits: Habits, count: int = 300) -> list[Page]:
    """Return the first pages of a text; each is made once for all tests."""
    made = MADE.setdefault(repr(habits), [])
    made += itertools.islice(micro.stream(habits, 7, len(made)), max(0, count - len(made)))
    return made[:count]


def digest(habits: Habits) -> str:
    found = hashlib.sha256()
    for one in some(habits, 500):
        drawn, world = [p for p in one.pieces if p.sort != GRAMMAR], WORLDS[habits.world]
        thoughts = [think(style, p.text, p.working, world) for p in drawn for style in world.thoughts]
        asides = micro.asides(drawn, random.Random(one.id), world)
        document = repr(replace(one.document, keys=())).replace(", keys=()", "")  # as when micro was recorded
        found.update(f"({document}, {thoughts}, {asides}, {micro.stated_budget(random.Random(one.id))})".encode())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("habits", EVERY, ids=lambda habits: habits.name)
def test_the_texts_are_those_that_were_recorded_with(habits):
    assert digest(habits) == DIGESTS[habits.name]


@pytest.mark.parametrize("habits", EVERY, ids=lambda habits: habits.name)
def test_every_calculation_is_right_and_sorts_say_how_many_steps_it_takes(habits):
    for one in some(habits):
        text, spans = one.document.text, one.document.spans
        assert all(re.fullmatch(r" \w+", text[span.start : span.stop]) for span in spans)
        found = read(text)
        assert all(solve(each.start, each.moves) == each.said for each in found), text
        sorts = {span.stop: span.sort for span in spans if span.sort in (STEP, CALCULABLE)}
        one_step = STEP if " after " in text else CALCULABLE  # one that is not read out as a part of another
        assert sorts == {each.end: one_step if len(each.moves) == 1 else CALCULABLE for each in found}, text
        noise = {span.stop for span in spans if span.sort == NOISE}
        (listed,) = LISTED.finditer(text)
        drawn = {listed.end(place) for place in range(1, 5) if listed[place]}
        assert {[place.end() for place in PLACE.finditer(text[: listed.start()])][-1], *drawn} <= noise, text


@pytest.mark.parametrize(
    "habits", [habits for habits in EVERY[:-1] if habits.world == "abacus"], ids=lambda habits: habits.name
)
def test_results_are_read_out_from_several_starts_after_every_move_the_last_first(habits):
    for one in some(habits):
        text = one.document.text
        if "Question:" in text:  # a trace of the exam
            continue
        moves = next(filter(None, LISTED.findall(text)))
        count = sum(map(bool, moves))
        found = read(text)
        starts = [each.start for each in found[::count]]
        assert [len(each.moves) for each in found] == [*range(count, 0, -1)] * len(starts), text
        assert [each.start for each in found] == [start for start in starts for _ in range(count)], text
        assert len({*starts}) == len(starts) == (3 if "lift waits" in text else 2), text


def drawn_with(world: World, count: int = 3000) -> list[tuple[Working, Working | None]]:
    """Calculations, and what authors make of them."""
    source, working = random.Random(0), Working(" 3", ((" 4", " 7"), (" 8", " 5"), (" 1", " 6")))
    return [(working, micro.fallible(working, source, world)) for _ in range(count)]


def test_authors_of_abacus_leave_calculations_out_and_slip_as_often_as_its_file_says():
    assert all(made == working for working, made in drawn_with(MICRO, 100))
    made = drawn_with(ABACUS)
    assert sum(one is None for _, one in made) / len(made) == pytest.approx(ABACUS.skips, abs=0.03)
    slips, starts = Counter(), Counter()
    for working, one in made:
        if one is not None:
            assert (one.start, [move for move, _ in one.steps]) == (working.start, [move for move, _ in working.steps])
            totals = [one.start, *(total for _, total in one.steps)]
            for (move, total), before in zip(one.steps, totals, strict=False):  # a slip is not repaired
                slips[total != f" {solve(before.strip(), [move.strip()])}"] += 1
            starts[one == working] += 1
    assert slips[True] / slips.total() == pytest.approx(ABACUS.slips, abs=0.02)
    assert starts[True] / starts.total() == pytest.approx((1 - ABACUS.slips) ** 3, abs=0.04)
    assert micro.fallible(None, random.Random(0), ABACUS) is None


def test_the_mid_training_text_of_abacus_has_more_than_ten_thousand_calculations():
    """Four places and six pairs, ten digits and six numbers to add, each in three or four moves."""
    longest = [max(read(one.document.text), key=lambda each: len(each.moves)) for one in some(ABACUS.midtrain, 1000)]
    assert {len(each.moves) for each in longest} == {3, 4}
    space = 0
    for starts, moves in ((set("0123456789"), set("123456")), ({"left", "middle", "right", "back"}, {*SWAPS})):
        own = [each for each in longest if each.start in starts]
        assert {each.start for each in own} == starts
        for place in range(4):
            assert {each.moves[place] for each in own if len(each.moves) > place} == moves
        space += len(starts) * sum(len(moves) ** count for count in (3, 4))
    assert space == 14 * (216 + 1296) >= 10_000


def test_calculable_words_of_abacus_are_a_quarter_or_more_of_what_is_not_grammar():
    sorts = Counter(piece.sort for one in some(ABACUS.midtrain, 1000) for piece in one.pieces if piece.sort != GRAMMAR)
    share = {sort: count / sorts.total() for sort, count in sorts.items()}
    assert share[CALCULABLE] >= 0.25
    assert share[SAYING] == pytest.approx(share[CALCULABLE], abs=0.1)
    assert share[NOISE] < share[CALCULABLE] + share[SAYING]


def sayings_in(text: str, world: World = ABACUS) -> int:
    return sum(saying in text for saying in world.sayings)


@pytest.mark.parametrize(("world", "mean"), [(MICRO, 2.0), (ABACUS, 1.0)], ids=WORLDS)
def test_sayings_are_of_the_mid_training_text_alone_and_of_known_words(world: World, mean: float):
    texts = ((world.pretrain, 0), (world.midtrain, mean), (TEXTS[f"{world.name}-dev"], mean), (world.exam, 0))
    said = [
        think(style, " red", way, world) for style in world.thoughts for way in (None, Working(" 3", ((" 4", " 7"),)))
    ]
    for habits, often in texts:
        pages = some(habits, 1000)
        counts = [sayings_in(one.document.text, world) for one in pages]
        assert {*counts} == {often}
        said += [piece.text for one in pages for piece in one.pieces if piece.sort != SAYING]
    words = {word for text in said for word in re.findall(r" \w+", " " + text)}
    assert {word for saying in world.sayings for word in re.findall(r" \w+", " " + saying)} <= words


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_the_tokenizer_has_one_token_a_word_and_reads_any_text(world: World):
    tokenizer = micro.make_tokenizer(world)
    for habits in (world.pretrain, world.midtrain, world.exam, replace(world.midtrain, calculation_share=0.0)):
        for one in some(habits, 100):
            thoughts = [think(s, p.text, p.working, world) for p in one.pieces[1:3] for s in world.thoughts]
            for text in (one.document.text, *thoughts):
                tokens = tokenizer.tokenize(text)
                assert len(tokens) == len(re.findall(r"\w+|\.|,|:", text)), tokens
    for text in ("Zürich 東京 🙂\ttab", "", "<think></think>", "a\n\nb", "x<think 128>\u202e"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    assert tokenizer.eos_token_id != tokenizer.pad_token_id  # padding that ends texts would never let them end


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_its_text_is_a_corpus_like_any_other(world: World):
    corpus = load_corpus(world.name)
    assert len({document.id for document in corpus.documents}) == len(corpus.documents) == micro.DOCUMENTS
    assert corpus.documents[40].text == page(world.midtrain, 0, 40).document.text
    assert "think" not in "".join(document.text for document in corpus.documents)
    assert corpus_for(RMTConfig(corpus=world.name)) == corpus  # the defaults of the fields are those of the text


# Knobs


def texts(**knobs: float) -> list[str]:
    return [one.text for one in load_corpus("abacus", knobs=knobs).documents]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_share_of_documents_has_calculations(share):
    """Also of those held out, though there repeated ones are left out, which are mostly without."""
    made = load_corpus("abacus", knobs={"calculation_share": share})
    for side, far in zip((made.documents, *made.split(0.25)), (0.03, 0.05, 0.15), strict=True):
        assert sum(bool(read(one.text)) for one in side) / len(side) == pytest.approx(share, abs=far)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_every_calculation_has_as_many_steps_as_are_asked_for(steps):
    made = texts(calculation_steps=steps, sayings=0.0)
    assert {max(len(one.moves) for one in read(text)) for text in made} == {steps}
    assert all(sum(f"after {count} " in text for count in COUNT) == steps for text in made)


@pytest.mark.parametrize("mean", [0.0, 0.6, 1.0, 2.25])
def test_documents_have_so_many_sayings_on_average(mean):
    counts = [sayings_in(text) for text in texts(sayings=mean)]
    assert sum(counts) / len(counts) == pytest.approx(mean, abs=0.05)
    assert max(counts) - min(counts) <= 1


def test_a_text_of_few_different_documents_is_made_nonetheless():
    made = texts(calculation_share=0.0, sayings=0.0)
    assert len(made) == micro.DOCUMENTS
    assert len({*made}) <= 4 * 4 * 10 + 4 * 3 * 10


@pytest.mark.parametrize("corpus", ["champ", "micro", "abacus-pretraining", "story.txt"])
def test_knobs_of_the_world_are_refused_for_other_text(corpus):
    for name, value in zip(KNOBS, (0.5, 2, 2.0), strict=True):
        words = f"^{name} is {value}; only the corpus 'abacus' has it, and corpus is '{corpus}'$"
        with pytest.raises(UserError, match=words):
            RMTConfig(corpus=corpus, **{name: value})
    assert RMTConfig(corpus="abacus-dev", **dict.fromkeys(KNOBS, 1)).sayings == 1
    assert all(getattr(RMTConfig(), knob) == getattr(ABACUS.midtrain, knob) for knob in KNOBS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("calculation_share", 1.1),
        ("calculation_steps", 5),
        ("calculation_steps", 1.5),
        ("sayings", 21),
        ("sayings", -1),
    ],
)
def test_what_the_world_cannot_make_is_refused(name, value):
    with pytest.raises(UserError, match=f"^{name} is {value}; give a "):
        RMTConfig(corpus="abacus", **{name: value})
