"""The micro-world: its texts are right, its sorts are true, and what shipped bases were made with stays as it is."""

import hashlib
import itertools
import random
import re

import pytest

from rmt_mini.worlds import micro
from rmt_mini.worlds.corpus import load_corpus
from rmt_mini.worlds.micro import (
    CALCULABLE,
    EXAM,
    GRAMMAR,
    MIDTRAINING,
    PRETRAINING,
    RECKONING,
    SAYING,
    STYLES,
    Working,
    page,
    think,
)

TEXTS = (PRETRAINING, MIDTRAINING, EXAM)
SWAPS = {"near": {"left", "middle"}, "far": {"middle", "right"}, "outer": {"left", "right"}}
# of 500 documents with the sorts of their words, their thoughts and asides: recorded bases and results are of these
DIGESTS = {
    "pretrain": "f9eb2b63fcf8c4f1",
    "midtrain": "fff7ba3dc547c500",
    "exam": "9b49709fe6560863",
    "reckoning": "023f5a5233fae886",
}


def solve(start: str, operands: list[str]) -> str:
    """Work a calculation out from the words of the text alone, without the generator's tables."""
    for operand in operands:
        if operand.isdigit():
            start = str((int(start) + int(operand)) % 10)
        elif start in SWAPS[operand]:
            (start,) = SWAPS[operand] - {start}
    return start


def some(habits: micro.Habits, count: int = 300) -> list[micro.Page]:
    return list(itertools.islice(micro.stream(habits, seed=7), count))


def digest(habits: micro.Habits) -> str:
    found = hashlib.sha256()
    for one in some(habits, 500):
        thoughts = [think(style, p.text, p.working) for p in one.pieces if p.sort != GRAMMAR for style in STYLES]
        asides = micro.asides([p for p in one.pieces if p.sort != GRAMMAR], random.Random(one.id))
        found.update(repr((one.document, thoughts, asides, micro.stated_budget(random.Random(one.id)))).encode())
    return found.hexdigest()[:16]


@pytest.mark.parametrize("habits", [*TEXTS, RECKONING], ids=lambda habits: habits.name)
def test_the_texts_are_those_that_were_recorded_with(habits):
    assert digest(habits) == DIGESTS[habits.name]


@pytest.mark.parametrize("habits", TEXTS, ids=lambda habits: habits.name)
def test_every_calculation_is_right_and_spans_mark_single_words(habits):
    for one in some(habits):
        text, spans = one.document.text, one.document.spans
        assert all(re.fullmatch(r" \w+", text[span.start : span.stop]) for span in spans)
        (span,) = [span for span in spans if span.sort == CALCULABLE]
        listed = re.findall(r"(?:first|second|third|fourth) (\w+)", text[: span.start])
        # the start is the last digit or place before the word "first"
        start = re.findall(r"\b(\d|left|middle|right)\b", text[: text.index(" first ")])[-1]
        assert solve(start, listed) == text[span.start : span.stop].strip(), text


def test_sayings_are_of_the_mid_training_text_alone_and_of_known_words():
    pages = {habits.name: some(habits, 1000) for habits in TEXTS}
    for name, count in (("pretrain", 0), ("midtrain", 2), ("exam", 0)):
        for one in pages[name]:
            assert sum(saying in one.document.text for saying in micro.SAYINGS) == count
    said = [piece.text for made in pages.values() for one in made for piece in one.pieces if piece.sort != SAYING]
    said += [think(style, " red", way) for style in STYLES for way in (None, Working(" 3", ((" 4", " 7"),)))]
    words = {word for text in said for word in re.findall(r" \w+", " " + text)}
    assert {word for saying in micro.SAYINGS for word in re.findall(r" \w+", " " + saying)} <= words


def test_the_tokenizer_has_one_token_a_word_and_reads_any_text():
    tokenizer = micro.make_tokenizer()
    for habits in TEXTS:
        for one in some(habits, 100):
            for text in (one.document.text, *(think(s, p.text, p.working) for p in one.pieces[1:3] for s in STYLES)):
                tokens = tokenizer.tokenize(text)
                assert len(tokens) == len(re.findall(r"\w+|\.|,|:", text)), tokens
    for text in ("Zürich 東京 🙂\ttab", "", "<think></think>", "a\n\nb", "x<think 128>\u202e"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text
    assert tokenizer.eos_token_id != tokenizer.pad_token_id  # padding that ends texts would never let them end


def test_it_is_a_corpus_like_any_other():
    corpus = load_corpus("micro")
    assert len({document.id for document in corpus.documents}) == len(corpus.documents) == micro.DOCUMENTS
    assert corpus.documents[40].text == page(MIDTRAINING, 0, 40).document.text
    assert "think" not in "".join(document.text for document in corpus.documents)
