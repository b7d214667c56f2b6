"""Questions: where they come from, how their answers are judged, and that none is on both sides."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmt_mini.errors import UserError
from rmt_mini.worlds import micro, referee
from rmt_mini.worlds.questions import load_questions, split_questions
from tests.worlds.reading import SWAPS, read, solve

SIGNS = st.sampled_from(
    [*"0123456789+-*/^!=<>()[]{}\\$.,;:%x ", "\\frac", "\\sqrt", "\\boxed{", "**", "\n", "é", "\0", "∞"]
)
ANSWER = st.lists(SIGNS, max_size=12).map("".join) | st.text(max_size=12)


def test_micro_questions_end_where_the_answer_begins_and_are_of_kinds_that_no_text_has():
    questions = load_questions("micro", 200, seed=0)
    assert len({question.text for question in questions}) == len(questions) == 200
    for question in questions:
        assert question.text.endswith("Answer:")
        assert question.score(question.answer) == question.score(question.answer.strip() + " ") == 1.0
        for wrong in ("", " banana", question.answer + question.answer, question.text + question.answer):
            assert question.score(wrong) == 0.0
    for world in micro.WORLDS.values():
        assert not {*world.exam.calculations} & {*world.pretrain.calculations, *world.midtrain.calculations}


@pytest.mark.parametrize(
    ("world", "cue", "places"),
    [
        ("micro", r" (In the end it stops at|At last the ring lies)$", ("near", "far")),
        ("abacus", r" (stops|lies) after (two|three|four)$", SWAPS),
    ],
)
def test_questions_of_the_text_are_its_calculations_on_pages_that_no_run_reads(world, cue, places):
    questions = load_questions(f"{world}-text", 100, seed=0)
    assert len({question.text for question in questions}) == 100
    assert not {document.id for document in micro.corpus(world)} & {question.id for question in questions}
    for question in questions:
        assert re.search(cue, question.text)
        assert question.score(question.answer) == 1.0
    results = {question.answer.strip() for question in questions}
    assert results == {*"0123456789"}.union(*(SWAPS[pair] for pair in places))


@pytest.mark.parametrize("source", ["micro", "micro-text", "abacus", "abacus-text"])
def test_answers_are_those_of_the_last_move_that_is_asked_for(source):
    for question in load_questions(source, 200, seed=3):
        (found,) = read(question.text + question.answer)
        assert solve(found.start, found.moves) == found.said == question.answer.strip()
        assert len(found.moves) == len(re.findall(r"(?:first|second|third|fourth) \w", question.text)) > 1


def test_an_answer_of_all_read_outs_is_right_as_a_whole():
    one, all_of_it = (load_questions(source, 200, seed=3) for source in ("abacus-text", "abacus-all"))
    assert [question.text for question in one] == [question.text for question in all_of_it]
    assert [question.key for question in one] == [question.key for question in all_of_it]
    for last, question in zip(one, all_of_it, strict=True):
        found = read(f"{question.text}{question.answer}.")
        moves = len(found[0].moves)
        assert [len(one.moves) for one in found] == [*range(moves, 0, -1)]
        assert all(solve(one.start, one.moves) == one.said for one in found)
        assert question.end == "."
        assert question.score(question.answer) == 1.0
        words = question.answer.split()
        for place in range(0, len(words), 3):
            other = [*words[:place], "nothing", *words[place + 1 :]]
            assert question.score(" ".join(other)) == 0.0
        assert question.score(last.answer) == question.score(question.answer + ", after") == 0.0


@pytest.mark.parametrize("world", micro.WORLDS)
def test_questions_of_one_calculation_are_on_one_side(world):
    """Start and first two moves: what follows them does not matter, nor whether a wheel turns or a lift rises."""
    sides = [set(), set()]
    for source in (world, f"{world}-text"):
        for side, questions in zip(sides, split_questions(load_questions(source, 800, 0), 0.25), strict=True):
            side |= {read(question.text + question.answer)[0].calculation[:3] for question in questions}
    assert not sides[0] & sides[1]
    assert len(sides[1]) > 30


def test_the_split_parts_by_calculation_alone():
    questions = load_questions("micro", 300, seed=0)
    assert questions != load_questions("micro", 300, seed=1)
    train, held_out = split_questions(questions, 0.25)
    assert sorted([*train, *held_out], key=lambda q: q.id) == sorted(questions, key=lambda q: q.id)
    assert 45 <= len(held_out) <= 105
    assert max(Counter(question.key for question in held_out).values()) > 1
    again, _ = split_questions([*reversed(questions)], 0.25)
    assert {q.text for q in again} == {q.text for q in train}
    more, _ = split_questions(load_questions("micro", 400, seed=0), 0.25)
    assert {q.text for q in train} <= {q.text for q in more}  # new questions move no old ones


@pytest.mark.parametrize("task", ["gcd", "chain_sum", "prime_factorization", "sentence_reordering"])
def test_what_models_put_around_an_answer_does_not_make_it_wrong(task):
    """The scorer of prime_factorization raises at "2 × 3."; a right sentence may end with a full stop of its own."""
    pytest.importorskip("reasoning_gym")
    first, second = load_questions(f"gym:{task}", 2, seed=0)
    assert first.text.endswith("\nAnswer:")
    for dressing in ("{}", "{}.", "**{}**", "**{}**.", "**{}.**", "${}$", "$${}$$", "`{}`.", "**${}$**", " **{}** \n"):
        assert first.score(dressing.format(first.answer.strip())) == 1.0, dressing
        assert first.score(dressing.format(second.answer.strip())) == 0.0, dressing
    for wrong in ("**{0}", "{0}**", "**{0}** or **{1}**", "${0}$, ${1}$", "`{0}` {1}", "the **{0}**", ""):
        assert first.score(wrong.format(first.answer.strip(), second.answer.strip())) == 0.0, wrong


def test_a_full_stop_that_belongs_to_a_sentence_counts():
    pytest.importorskip("reasoning_gym")
    questions = load_questions("gym:sentence_reordering", 6, seed=0)
    right = next(question for question in questions if question.answer.endswith("."))
    sentence = right.answer.strip()
    assert [right.score(each) for each in (f"**{sentence}**", sentence.removesuffix("."))] == [1.0, 0.0]


@pytest.fixture(scope="module")
def asked(champ):
    pytest.importorskip("reasoning_gym")
    # the scorers of the last two of these stop with an error at answers that are none
    sources = ("gym:countdown", "micro", "gym:mini_sudoku", "gym:game_of_life", "gym:boxnet")
    found = [load_questions(source, 1, 0)[0] for source in sources]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(referee, "SECONDS", 3.0)
        assert found[0].score("9**9**9**9") == 0.0  # it works the answer out, which never ends
        assert found[0].score(found[0].answer) == 1.0
        yield [*found, champ["Combinatorics_1"]]


@given(answer=ANSWER)
@settings(max_examples=50)
def test_any_answer_is_right_or_wrong(answer, asked):
    for question in asked:
        assert question.score(answer) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("source", "count", "words"),
    [
        ("riddles", 4, "'gym:TASK'"),
        ("gym:no_such_task", 4, "no_such_task"),
        ("gym:composite", 3, "'gym:composite' cannot be made"),
        ("micro", 0, "at least 1"),
        ("micro", 1, "too few"),
    ],
)
def test_a_wrong_source_ends_in_one_clear_sentence(source, count, words):
    pytest.importorskip("reasoning_gym")
    with pytest.raises(UserError, match=words):
        split_questions(load_questions(source, count, 0), 0.25)
