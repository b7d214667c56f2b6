"""What is held out is nowhere in what is trained on: checked on the shipped texts, from their words alone."""

import itertools
import logging
import re
from functools import cache
from pathlib import Path

import pytest

from rmt_mini.records import Document, Overlap, Span
from rmt_mini.worlds.corpus import load_corpus
from rmt_mini.worlds.overlap import overlap
from rmt_mini.worlds.questions import Question, load_questions, split_questions
from tests.worlds.reading import calculations

WORLDS = ("micro", "abacus")
NOTICE = "all of this may be copied by anyone who leaves this notice where it is"  # 15 words


@cache
def split(source: str) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    return load_corpus(source).split(0.25)


def asked(questions: list[Question]) -> set[tuple[str, ...]]:
    found = calculations(question.text + question.answer for question in questions)
    assert all(calculations([question.text + question.answer]) for question in questions)
    return found


@pytest.fixture(scope="module", params=WORLDS)
def sides(request: pytest.FixtureRequest) -> dict[str, tuple[set[tuple[str, ...]], set[tuple[str, ...]]]]:
    """The calculations that each text and exam of a world trains on, and those that it holds out."""
    found = {}
    for text in ("", "-dev"):
        train, held_out = ([one.text for one in side] for side in split(request.param + text))
        assert len(set(held_out)) == len(held_out) > 200
        found[f"text{text}"] = calculations(train), calculations(held_out)
    for exam, seed in (("", 0), ("", 1), ("-text", 0), ("-text", 1)):
        train, held_out = split_questions(load_questions(request.param + exam, 400, seed), 0.25)
        assert len(held_out) > 60
        found[f"exam{exam} {seed}"] = asked(train), asked(held_out)
    return found


def test_no_calculation_of_a_held_out_document_or_question_occurs_in_training(sides) -> None:
    own = {name: both for name, both in sides.items() if name != "text-dev"}
    read = set().union(*(train for train, _ in own.values()))
    held_out = set().union(*(held for _, held in own.values()))
    assert len(read) > 1000
    assert len(held_out) > 300
    assert not read & held_out


def test_pages_to_develop_on_have_none_of_what_is_held_out(sides) -> None:
    train, held_out = sides["text-dev"]
    assert len(held_out) > 100
    assert not train & held_out
    others = [held for name, (_, held) in sides.items() if name != "text-dev"]
    assert not (train | held_out) & set().union(*others)


@pytest.mark.parametrize(
    "knobs",
    [{"calculation_share": 0.3}, {"calculation_steps": 2, "sayings": 0.0}, {"calculation_steps": 4, "sayings": 3.0}],
    ids=str,
)
def test_texts_of_other_settings_hold_out_the_same(knobs: dict[str, float]) -> None:
    sides = [split("abacus"), load_corpus("abacus", knobs=knobs).split(0.25)]
    train, held_out = (calculations(one.text for both in sides for one in both[side]) for side in (0, 1))
    assert len({one.text for one in sides[1][1]}) == len(sides[1][1])
    assert len(held_out) > 300
    assert not train & held_out


@pytest.mark.parametrize("name", ["micro", "micro-dev", "abacus", "abacus-dev", "champ"])
def test_the_line_of_a_report_says_so(name: str) -> None:
    train, held_out = split(name)
    what = "a run of 12 words" if name == "champ" else "a calculation"
    assert overlap(train, held_out, calculations=name != "champ") == Overlap(0, len(held_out), what)


def test_an_overlap_of_calculations_is_counted() -> None:
    train, held_out = split("abacus")
    assert overlap((*train, held_out[5], held_out[7]), held_out, calculations=True).shared >= 2
    other = Document("x", "It is so.", (Span(0, 2, "noise"),), keys=held_out[5].keys[:1])
    assert overlap([other], [*held_out[5:6], *train], calculations=True).shared == 1


# Other text


def runs(text: str) -> set[tuple[str, ...]]:
    words = [word for word in re.split(r"\W+", text.lower()) if word]
    return {tuple(words[place : place + 12]) for place in range(len(words) - 11)}


def test_near_duplicates_of_champ_are_on_one_side() -> None:
    held_out = {one.id for one in split("champ")[1]}
    own = [(one.id, runs(one.text)) for one in load_corpus("champ").documents]
    near = [(one, other) for (one, mine), (other, theirs) in itertools.combinations(own, 2) if mine & theirs]
    assert len(near) > 20
    assert {one in held_out for pair in near for one in pair} == {True, False}
    assert all((one in held_out) == (other in held_out) for one, other in near)


def pages(tmp_path: Path, *texts: str) -> Path:
    path = tmp_path / "own.txt"
    path.write_text("\n\n\n".join(texts), "utf-8")
    return path


def halves(path: Path) -> list[bool]:
    """Which documents of a file are held out, if half of them shall be."""
    corpus = load_corpus(str(path))
    held_out = {one.id for one in corpus.split(0.5)[1]}
    return [one.id in held_out for one in corpus.documents]


def pairs(words: int) -> list[str]:
    """20 pairs of pages with a paragraph of so many words in common, in other case and with other marks."""
    found = []
    for n in range(20):
        shared = [f"w{n}x{place}" for place in range(words)]
        found += [f"Page {n} a.\n{' '.join(shared)}.", f"{', '.join(shared).upper()}! And page {n} b."]
    return found


def test_pages_with_a_paragraph_in_common_go_together(tmp_path: Path) -> None:
    held_out = halves(pages(tmp_path, *pairs(12)))
    assert held_out[::2] == held_out[1::2]
    assert set(held_out) == {True, False}
    apart = halves(pages(tmp_path, *pairs(11)))
    assert apart[::2] != apart[1::2]
    longer = halves(pages(tmp_path, *pairs(12), *(f"Page {n}, and nothing of the others." for n in range(30))))
    assert longer[:40] == held_out  # new pages move no old ones


def test_pages_that_others_connect_go_together(tmp_path: Path) -> None:
    """Twenty chains of three: the ends share nothing."""
    chains = [[" ".join(f"{end}{n}x{place}" for place in range(12)) for end in "ab"] for n in range(20)]
    held_out = halves(pages(tmp_path, *(text for a, b in chains for text in (a, f"{a} so {b}", b))))
    assert held_out[::3] == held_out[1::3] == held_out[2::3]
    assert set(held_out) == {True, False}


@pytest.mark.parametrize(("with_notice", "warns"), [(9, True), (8, False)])
def test_a_notice_in_most_pages_does_not_tie_them_together(
    with_notice: int, warns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 16 pages 9 are more than half, and 8 are not."""
    texts = [f"Page {n} is short. {NOTICE if n < with_notice else ''}" for n in range(16)]
    with caplog.at_level(logging.WARNING):
        held_out = halves(pages(tmp_path, *texts))
    assert (f"{with_notice} of 16 documents are connected by shared runs of 12 words" in caplog.text) == warns
    assert len(set(held_out[:with_notice])) == 1 + warns


def test_an_overlap_of_words_is_counted() -> None:
    words = [f"word{n}" for n in range(13)]
    train = [Document("a", " ".join(words)), Document("b", "Short.")]
    held_out = [
        Document("c", f"Now: {', '.join(words[1:]).title()}!"),  # 12 of them
        Document("d", " ".join(words[:11])),
        Document("e", "Short."),
        Document("f", f"{' '.join(words[:6])} and {' '.join(words[6:])}"),
    ]
    found = overlap(train, held_out)
    assert found == Overlap(1, 4, "a run of 12 words")
    assert found.sentence == "Of 4 held-out texts 1 shares a run of 12 words with training text."
    assert Overlap(0, 9, "a calculation").sentence == "Of 9 held-out texts 0 share a calculation with training text."


def test_problems_of_champ_are_held_out_from_text_and_exam_alike(champ: dict[str, Question]) -> None:
    read, _ = split("champ")
    _, asked = split_questions([*champ.values()], 0.25)
    assert len(asked) > 30
    assert not {question.id for question in asked} & {document.id for document in read}
