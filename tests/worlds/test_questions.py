"""Questions: where they come from, how their answers are judged, and that none stands on both sides."""

import logging

import pytest

from rmt_mini.errors import UserError
from rmt_mini.worlds import micro
from rmt_mini.worlds.questions import load_questions, split_questions


def test_micro_questions_end_where_the_answer_begins():
    questions = load_questions("micro", 200, seed=0)
    assert len({question.text for question in questions}) == len(questions) == 200
    for question in questions:
        assert question.text.endswith("Answer:")
        assert question.score(question.answer) == 1.0
        assert question.score(question.answer.strip() + " ") == 1.0
        for wrong in ("", " banana", question.answer + question.answer, question.text + question.answer):
            assert question.score(wrong) == 0.0


def test_micro_questions_are_of_kinds_that_no_text_is_made_of():
    kinds = set(micro.EXAM.calculations)
    assert not kinds & {*micro.PRETRAINING.calculations, *micro.MIDTRAINING.calculations}
    assert not any("Question" in document.text for document in micro.corpus("micro"))


def test_questions_of_the_text_are_its_calculations_on_pages_that_no_run_reads():
    questions = load_questions("micro-text", 100, seed=0)
    assert len({question.text for question in questions}) == 100
    read = {document.id for document in micro.corpus("micro")}
    assert not read & {question.id for question in questions}
    for question in questions:
        assert question.text.endswith(("In the end it stops at", "At last the ring lies"))
        assert question.score(question.answer) == 1.0
    results = {question.answer for question in questions}
    assert results == {f" {digit}" for digit in range(10)} | {f" {place}" for place in micro.PLACES}


def test_the_seed_decides_what_is_asked():
    first = [question.text for question in load_questions("micro", 20, seed=1)]
    assert first == [question.text for question in load_questions("micro", 20, seed=1)]
    assert first != [question.text for question in load_questions("micro", 20, seed=2)]


def test_the_split_parts_by_text_alone():
    questions = load_questions("micro", 300, seed=0)
    train, held_out = split_questions(questions, 0.25)
    assert sorted([*train, *held_out], key=lambda q: q.id) == sorted(questions, key=lambda q: q.id)
    assert 45 <= len(held_out) <= 105
    again, _ = split_questions([*reversed(questions)], 0.25)
    assert {q.text for q in again} == {q.text for q in train}
    more, _ = split_questions(load_questions("micro", 400, seed=0), 0.25)
    assert {q.text for q in train} <= {q.text for q in more}  # new questions move no old ones


def test_reasoning_gym_scores_its_own():
    pytest.importorskip("reasoning_gym")
    for question in load_questions("gym:chain_sum", 10, seed=3):
        assert question.text.endswith("\nAnswer:")
        assert question.score(question.answer) == 1.0
        assert question.score(f"it is {question.answer}, I guess") == 0.0  # its scorer gives a third for this
        assert question.score("") == 0.0


@pytest.mark.parametrize("task", ["gcd", "chain_sum", "prime_factorization", "sentence_reordering"])
def test_what_models_put_around_an_answer_does_not_make_it_wrong(task):
    """The scorer of prime_factorization raises at "2 × 3."; a right sentence may end with a full stop of its own."""
    pytest.importorskip("reasoning_gym")
    first, second = load_questions(f"gym:{task}", 2, seed=0)
    for dressing in ("{}", "{}.", "**{}**", "**{}**.", "**{}.**", "${}$", "$${}$$", "`{}`.", "**${}$**", " **{}** \n"):
        assert first.score(dressing.format(first.answer.strip())) == 1.0, dressing
        assert first.score(dressing.format(second.answer.strip())) == 0.0, dressing
    for wrong in ("**{0}", "{0}**", "**{0}** or **{1}**", "${0}$, ${1}$", "`{0}` {1}", "the **{0}**"):
        assert first.score(wrong.format(first.answer.strip(), second.answer.strip())) == 0.0, wrong


def test_a_full_stop_that_belongs_to_a_sentence_counts():
    pytest.importorskip("reasoning_gym")
    for question in load_questions("gym:sentence_reordering", 6, seed=0):
        sentence = question.answer.strip()
        if sentence.endswith("."):
            assert question.score(sentence) == question.score(f"**{sentence}**") == 1.0
            assert question.score(sentence.removesuffix(".")) == 0.0
            return
    pytest.fail("no sentence ends with a full stop")


@pytest.fixture(scope="module")
def champ():
    pytest.importorskip("math_verify")
    return {question.answer.strip(): question for question in load_questions("champ", 1000, seed=0)}


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [("239", ["239", " 239 ", "$239$", r"\frac{478}{2}", "239.0"], ["238", "2390", "", "no", "239 or 240"])],
)
def test_champ_answers_are_compared_as_mathematics(champ, gold, right, wrong):
    for answer in right:
        assert champ[gold].score(answer) == 1.0, answer
    for answer in wrong:
        assert champ[gold].score(answer) == 0.0, answer


def test_champ_answers_in_symbols(champ):
    question = champ["2^(n-1)"]
    assert question.score("2^{n}/2") == 1.0
    assert question.score("2^n") == 0.0


def test_champ_leaves_out_what_is_no_mathematics(champ, caplog):
    assert "No" not in champ
    assert all(question.score(question.answer) == 1.0 for question in list(champ.values())[:40])
    with caplog.at_level(logging.INFO):
        load_questions("champ", 5, seed=0)
    assert "left out" in caplog.text


def test_a_scorer_of_reasoning_gym_cannot_hang():
    """This one works the answer out: for a tower of powers that never ends."""
    pytest.importorskip("reasoning_gym")
    (question,) = load_questions("gym:countdown", 1, seed=0)
    assert question.score("9**9**9**9") == 0.0
    assert question.score(question.answer) == 1.0


@pytest.mark.parametrize(
    ("source", "count", "words"),
    [
        ("riddles", 4, "'gym:TASK'"),
        ("gym:no_such_task", 4, "no_such_task"),
        ("micro", 0, "at least 1"),
    ],
)
def test_a_wrong_source_ends_in_one_clear_sentence(source, count, words):
    with pytest.raises(UserError, match=words):
        load_questions(source, count, 0)


def test_too_few_questions_cannot_be_split():
    with pytest.raises(UserError, match="too few"):
        split_questions(load_questions("micro", 1, 0), 0.25)
