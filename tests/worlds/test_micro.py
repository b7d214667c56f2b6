"""The micro-world: its texts are right, its sorts are true, its asides are what the engine would lay out."""

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
    NOISE,
    PRETRAINING,
    SAYING,
    STYLES,
    Working,
    page,
    think,
)

TEXTS = (PRETRAINING, MIDTRAINING, EXAM)
SWAPS = {"near": {"left", "middle"}, "far": {"middle", "right"}, "outer": {"left", "right"}}


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


@pytest.fixture(scope="module")
def tokenizer():
    return micro.make_tokenizer()


@pytest.mark.parametrize("habits", TEXTS, ids=lambda habits: habits.name)
def test_every_calculation_in_the_text_is_right(habits):
    for one in some(habits):
        text = one.document.text
        spans = [span for span in one.document.spans if span.sort == CALCULABLE]
        assert len(spans) == 1
        (span,) = spans
        listed = re.findall(r"(?:first|second|third|fourth) (\w+)", text[: span.start])
        # the start is the last digit or place before the word "first"
        before = text[: text.index(" first ")]
        start = re.findall(r"\b(\d|left|middle|right)\b", before)[-1]
        assert solve(start, listed) == text[span.start : span.stop].strip(), text


@pytest.mark.parametrize("habits", TEXTS, ids=lambda habits: habits.name)
def test_spans_mark_single_words_and_leave_the_rest_to_grammar(habits):
    for one in some(habits, 100):
        document = one.document
        assert "".join(piece.text for piece in one.pieces) == document.text
        marked = [document.text[span.start : span.stop] for span in document.spans]
        assert all(re.fullmatch(r" \w+", word) for word in marked)
        assert [(piece.text, piece.sort) for piece in one.pieces if piece.sort != GRAMMAR] == [
            (word, span.sort) for word, span in zip(marked, document.spans, strict=True)
        ]


def test_noise_is_not_determined_by_what_stands_before():
    followers: dict[str, set[str]] = {}
    for one in some(MIDTRAINING, 2000):
        for before, piece in itertools.pairwise(one.pieces):
            if piece.sort == NOISE:
                followers.setdefault(before.text, set()).add(piece.text)
    assert min(len(seen) for seen in followers.values()) >= 3


def test_the_mid_training_text_is_shifted():
    pre, mid = some(PRETRAINING, 2000), some(MIDTRAINING, 2000)

    def steps(pages):
        return [len(piece.working.steps) for one in pages for piece in one.pieces if piece.working]

    def operands(pages):
        workings = [piece.working for one in pages for piece in one.pieces if piece.working]
        return [int(step[0]) for working in workings for step in working.steps if step[0].strip().isdigit()]

    assert sum(steps(mid)) / len(steps(mid)) > sum(steps(pre)) / len(steps(pre)) + 0.5
    assert sum(operands(mid)) / len(operands(mid)) > sum(operands(pre)) / len(operands(pre)) + 0.5
    strange = sum(" lift " in one.document.text or " ring " in one.document.text for one in pre)
    assert 0 < strange / len(pre) < 2 * micro.TRACE  # known, but rare


def test_sayings_are_of_the_mid_training_text_alone_and_of_known_words():
    for habits, count in ((PRETRAINING, 0), (MIDTRAINING, 2), (EXAM, 0)):
        for one in some(habits, 1000):
            assert sum(saying in one.document.text for saying in micro.SAYINGS) == count
    pages = [one for habits in (PRETRAINING, MIDTRAINING, EXAM) for one in some(habits, 1000)]
    said = [piece.text for one in pages for piece in one.pieces if piece.sort != SAYING]
    said += [think(style, " red", way) for style in STYLES for way in (None, Working(" 3", ((" 4", " 7"),)))]
    words = {word for text in said for word in re.findall(r" \w+", " " + text)}
    assert {word for saying in micro.SAYINGS for word in re.findall(r" \w+", " " + saying)} <= words
    assert len({saying.split()[0] for saying in micro.SAYINGS}) > 12


def test_the_reckoning_text_is_calculations_of_the_mid_training_text_and_nothing_else():
    documents = micro.corpus("micro-reckoning")
    assert len(documents) == micro.DOCUMENTS
    for document in documents[:200]:
        assert document.text.startswith(("A lift waits", "A ring lies"))
        assert document.text.count(". ") == 1
        assert not any(saying in document.text for saying in micro.SAYINGS)
        assert [span.sort for span in document.spans].count("calculable") == 1
    assert not {document.id for document in documents} & {document.id for document in micro.corpus("micro")}


def test_a_saying_goes_on_as_it_began():
    followers: dict[tuple[str, ...], set[str]] = {}
    for one in some(MIDTRAINING, 500):
        words = [piece for piece in one.pieces if piece.sort == SAYING]
        assert len(words) >= 10
        assert all(re.fullmatch(r" \w+", word.text) for word in words)
        for place, piece in enumerate(one.pieces):
            if piece.sort == SAYING:
                followers.setdefault(tuple(p.text for p in one.pieces[place - 3 : place]), set()).add(piece.text)
    assert sum(len(seen) == 1 for seen in followers.values()) / len(followers) > 0.85


def test_a_page_depends_on_seed_and_number_alone():
    ahead = list(itertools.islice(micro.stream(MIDTRAINING, seed=3, start=40), 5))
    assert ahead == list(itertools.islice(micro.stream(MIDTRAINING, seed=3), 45))[40:]
    assert page(MIDTRAINING, 3, 40) == ahead[0]
    assert page(MIDTRAINING, 4, 40).document.text != ahead[0].document.text


@pytest.mark.parametrize("style", STYLES)
def test_a_thought_works_its_word_out_and_ends_in_it(style):
    for one in some(MIDTRAINING, 200):
        for piece in one.pieces:
            if piece.working:
                thought = think(style, piece.text, piece.working)
                said = re.findall(r"\b(?:\d|left|middle|right)\b", thought)
                assert said[-1] == piece.text.strip()
                rest = iter(said)
                assert all(total.strip() in rest for _, total in piece.working.steps)  # all totals, in order


def test_styles_run_from_long_winded_to_terse(tokenizer):
    working = Working(" 3", ((" 4", " 7"), (" 8", " 5"), (" 1", " 6")))
    both = []
    for word, way in ((" 6", working), (" red", None)):
        both.append([tokenizer(think(style, word, way))["input_ids"] for style in STYLES])
        lengths = [len(thought) for thought in both[-1]]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[0] > 3.5 * lengths[-1]
    for calculated, guessed in zip(*both, strict=True):  # a style opens alike, and is about as long
        assert calculated[0] == guessed[0]
        assert 0.6 < len(calculated) / len(guessed) < 1.8


def test_asides_stand_before_tokens_of_every_sort_and_most_ramble():
    seen: dict[str, int] = dict.fromkeys((*micro.SORTS, *STYLES), 0)
    for one in some(PRETRAINING, 1500):
        for index, style in micro.asides(one.pieces, random.Random(one.id)).items():
            assert index > 0
            seen[one.pieces[index].sort] += 1
            seen[style] += 1
    assert all(seen.values())
    assert seen["rambling"] > seen["plain"] + seen["terse"]
    assert seen[CALCULABLE] > seen[NOISE]


def test_a_stated_budget_says_nothing_about_the_thought():
    drawn = [micro.stated_budget(random.Random(number)) for number in range(400)]
    stated = [budget for budget in drawn if budget is not None]
    assert 0.3 < len(stated) / len(drawn) < 0.7
    assert min(stated) <= 3
    assert 50 <= max(stated) <= 64


def test_the_tokenizer_has_one_token_a_word(tokenizer):
    for habits in TEXTS:
        for one in some(habits, 200):
            for text in (one.document.text, *(think(s, p.text, p.working) for p in one.pieces[1:3] for s in STYLES)):
                tokens = tokenizer.tokenize(text)
                assert len(tokens) == len(re.findall(r"\w+|\.|,|:", text)), tokens


@pytest.mark.parametrize("text", ["Zürich 東京 🙂\ttab", "", "<think></think>", "a\n\nb", "x<think 128>\u202e"])
def test_the_tokenizer_reads_any_text_and_gives_it_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"], clean_up_tokenization_spaces=False) == text


def test_the_tokenizer_survives_saving(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = page(MIDTRAINING, 0, 0).document.text + "\n<think 24> 3 first</think>\n..."
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.decode(again(text)["input_ids"]) == text
    assert again.eos_token_id != again.pad_token_id  # padding that ends texts would never let them end


def test_it_is_a_corpus_like_any_other():
    corpus = load_corpus("micro")
    assert len(corpus.documents) == micro.DOCUMENTS
    assert len({document.id for document in corpus.documents}) == micro.DOCUMENTS
    assert "think" not in "".join(document.text for document in corpus.documents)
    train, held_out = corpus.split(0.25)
    assert not {document.text for document in train} & {document.text for document in held_out}
    assert load_corpus("micro", limit=5).documents == corpus.documents[:5]
