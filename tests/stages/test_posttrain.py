"""Post-training: questions are texts with one position, and only rewards speak of their answers."""

import itertools
import json

import pytest
import torch

from rmt_mini.config import NOT_IN_POSTTRAINING, RMTConfig, preset
from rmt_mini.engine.model import load_policy
from rmt_mini.errors import UserError
from rmt_mini.files import Notes
from rmt_mini.runs.journal import first_notes
from rmt_mini.runs.pre_and_post import posttrain_run
from rmt_mini.runs.run import resume
from rmt_mini.stages.posttrain import (
    POSTTRAINING,
    Exam,
    answer_questions,
    answerable,
    exam_gain,
    pass_at_k,
    posttrain,
    summarize_exam,
)
from rmt_mini.worlds.micro import make_tokenizer
from rmt_mini.worlds.questions import Question, load_questions
from tests.engine.test_tokenizers import sentencepiece
from tests.fakes import make_tiny_policy

SMALL = {"documents_per_step": 3, "group_size": 4, "steps": 2, "budget_start": 4, "dtype": "float32"}


def config(**changes):
    return preset("micro", **{**POSTTRAINING, **SMALL, **changes})


@pytest.fixture
def policy():
    return make_tiny_policy()


def saved(policy, folder):
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return str(folder)


def question(text, answer="7", score=None):
    return Question(text, text, f" {answer}", score or (lambda given: float(given.strip() == answer)))


def test_pass_at_k_counts_the_draws_that_hold_a_right_one():
    samples = [1, 0, 0, 1, 0, 0]
    for k in range(1, 7):
        draws = list(itertools.combinations(samples, k))
        assert pass_at_k(2, 6, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(("right", "samples", "k"), [(5, 4, 1), (-1, 4, 1), (1, 4, 5), (1, 4, 0)])
def test_pass_at_k_refuses_what_does_not_fit(right, samples, k):
    with pytest.raises(ValueError, match="samples"):
        pass_at_k(right, samples, k)


def test_a_question_is_a_text_with_one_position_where_its_answer_begins(policy):
    exam = Exam(policy, [question("2 + 5 ="), question("a longer one:", "77")], config())
    for text, asked in zip(exam.texts, exam.questions.values(), strict=True):
        (index,) = text.asked
        assert policy.tokenizer.decode(list(text.ids[:index])) == asked.text
        assert policy.tokenizer.decode(list(text.ids[index:])) == asked.answer
        assert list(text.places) == [index]


def test_the_answer_cannot_be_seen(policy):
    """Two questions that differ in their answers alone get the same thoughts and answers."""
    settings = config(temperature=1.0)
    rolled = []
    for answer in ("7", "3"):
        exam = Exam(policy, [question("What is it? Answer:", answer)], settings)
        rolled.append([(r.thought, r.answer) for r in answer_questions(policy, exam, settings, 6)[1]])
    assert rolled[0] == rolled[1]


@pytest.mark.parametrize("source", ["micro", "micro-text"])
def test_every_question_of_the_micro_world_is_answerable(source):
    questions, policy = load_questions(source, 100, seed=0), make_tiny_policy(tokenizer=make_tokenizer())
    assert answerable(policy, source, questions, config(answer_format="continuation")) == questions


def test_every_question_of_champ_is_answerable(policy):
    questions = load_questions("champ", 1000, seed=0)  # one process scores for both formats
    for name, asked in (("continuation", questions), ("chat", questions[:60])):
        assert answerable(policy, "champ", asked, config(answer_format=name)) == asked


NEVER = question("never?", "None", lambda given: 0.0)
ALWAYS = question("always?", "True", lambda given: 1.0)  # as gym:game_of_life_halting
NOT_EMPTY = question("not empty?", "5", lambda given: float(given != ""))
LINES = question("lines?", "1 2\n3 4", lambda given: float(given == "1 2\n3 4"))
EMPTY = question("empty?", "", lambda given: float(given == ""))


@pytest.mark.parametrize(
    ("name", "bad"),
    [("continuation", [NEVER, ALWAYS, NOT_EMPTY, LINES, EMPTY]), ("chat", [NEVER, ALWAYS, NOT_EMPTY, EMPTY])],
)
def test_a_question_that_cannot_be_judged_in_this_format_is_left_out(policy, name, bad):
    good = [question(f"{number}?", str(number)) for number in range(6)] + ([LINES] if LINES not in bad else [])
    settings = config(answer_format=name)
    assert answerable(policy, "gym:x", [*good, *bad], settings) == tuple(good)


def test_a_source_most_of_whose_questions_cannot_be_judged_is_refused_with_numbers(policy):
    good = [question("a?")]
    assert answerable(policy, "gym:x", [*good, LINES], config()) == tuple(good)  # half may be
    with pytest.raises(UserError, match=r"'gym:x'.*'continuation'.* 4 .* own answer of 2 is .* and 1 accept nonsense"):
        answerable(policy, "gym:x", [*good, LINES, NEVER, ALWAYS], config())


def test_a_scorer_that_takes_any_well_formed_answer_is_refused(policy):
    digits = [question(f"{n}?", str(n), lambda given: float(given.isdigit())) for n in range(4)]
    with pytest.raises(UserError, match=r"0 is judged wrong, and 0 accept nonsense, 4 the answer of another"):
        answerable(policy, "gym:x", digits, config())
    alike = [question(f"{n}?", "7", lambda given: float(given.isdigit())) for n in range(4)]
    assert len(answerable(policy, "gym:x", alike, config())) == 4  # nothing shows that they take others


def test_a_task_of_reasoning_gym_that_cannot_be_judged_is_refused(tmp_path):
    """An answer of sudoku has several lines."""
    model = saved(make_tiny_policy(max_position_embeddings=9000), tmp_path / "model")
    with pytest.raises(UserError, match=r"gym:sudoku.*of 8 questions"):
        posttrain_run(model, "gym:sudoku", count=8, changes={**SMALL, "out": str(tmp_path / "run")})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("pays", [False, True])
def test_rewards_train_and_the_answers_as_text_never_do(policy, pays):
    """Without a group that differs in its rewards there is no gradient at all, whatever the answers say."""
    asked = [question(f"{n}:", score=lambda given: float(pays and len(given) % 2)) for n in range(3)]
    before = [parameter.clone() for parameter in policy.model.parameters()]
    settings = config(weight_decay=0.0)
    posttrain(settings, policy, Exam(policy, asked, settings))
    same = [torch.equal(old, new) for old, new in zip(before, policy.model.parameters(), strict=True)]
    assert all(same) is not pays


def test_summary_and_gain_by_hand(policy):
    right, rollouts = answer_questions(policy, Exam(policy, [question("a?"), question("b?")], config()), config(), 4)
    assert (right.shape, len(rollouts)) == ((2, 4), 8)
    before = torch.tensor([[0.0, 0, 0, 0], [1, 0, 0, 0]])
    after = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]])
    found = summarize_exam(after, rollouts)
    assert found.pass_at[1].accuracy == pytest.approx((1 / 4 + 1) / 2)
    assert found.pass_at[4].accuracy == 1.0
    gain = exam_gain(before, after)
    assert gain[1].difference == pytest.approx((1 / 4 + 3 / 4) / 2)
    assert gain[4].difference == pytest.approx(0.5)
    assert gain[1].low <= gain[1].difference <= gain[1].high
    assert list(gain) == [1, 2, 4]


def test_it_writes_a_run_folder(tmp_path, policy):
    model, changes = (
        saved(policy, tmp_path / "model"),
        {**SMALL, "out": str(tmp_path / "run"), "evaluation_fraction": 0.5},
    )
    folder = posttrain_run(model, "micro", count=12, samples=6, changes=changes, progress=False, every=1)[0]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    assert set(evaluation) == {"before", "after", "gain"}
    assert set(evaluation["after"]["pass_at"]) == set(evaluation["gain"]) == {"1", "2", "4", "6"}
    notes = json.loads((folder / "run.json").read_text())
    assert (notes["status"], notes["kind"], notes["questions_left_out"]) == ("done", "post-training", 0)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == SMALL["steps"]
    assert "pass@6" in (folder / "report.md").read_text()
    assert (folder / "checkpoint" / "config.json").is_file()
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    questions = evaluation["after"]["questions"]
    assert [line["step"] for line in lines] == [0] * questions + [1] * questions + [2] * questions
    right = [line["right"] / line["samples"] for line in lines[-questions:]]
    assert sum(right) / questions == pytest.approx(evaluation["after"]["pass_at"]["1"]["accuracy"])
    with pytest.raises(UserError, match="is a post-training run, which cannot be taken up again"):
        resume(folder)


def test_a_model_whose_tokenizer_cannot_be_read_is_refused_in_one_line(tmp_path, policy):
    model = saved(policy, tmp_path / "model")
    (tmp_path / "model/tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"^model '.*model' cannot be opened \("):
        posttrain_run(model, "micro", 12, 2, SMALL, progress=False)


def test_what_a_run_held_out_its_exam_holds_out(tmp_path, monkeypatch):
    """A text held out by mid-training's share alone is no text that mid-training has read."""
    run = tmp_path / "run"
    saved(make_tiny_policy(tokenizer=make_tokenizer()), run / "checkpoint")
    notes = first_notes("mid-training", preset("micro", evaluation_fraction=0.1, answer_format="continuation"))
    notes.write(run)
    loaded = []

    def load(*given):
        loaded.append(given)
        return load_policy(*given)

    monkeypatch.setattr("rmt_mini.runs.pre_and_post.load_policy", load)
    given = {**SMALL, "steps": 1, "out": str(tmp_path / "exam")}
    del given["dtype"]
    folder = posttrain_run(str(run), "micro", 40, 2, given, progress=False)[0]
    settings = Notes.read(folder).settings
    assert (settings.evaluation_fraction, settings.answer_format) == (0.1, "continuation")
    assert settings.model == str(run / "checkpoint")  # which every command can open
    assert loaded == [(str(run / "checkpoint"), "auto", "float32")]  # the preset's dtype, as run.json says
    with pytest.raises(UserError, match=r"evaluation_fraction is 0\.5; .* held out no more than 0\.1"):
        posttrain_run(str(run), "micro", 40, 2, {**given, "evaluation_fraction": 0.5}, progress=False)


@pytest.mark.parametrize("name", NOT_IN_POSTTRAINING)
def test_a_setting_without_effect_is_refused(name):
    with pytest.raises(UserError, match=f"^{name} has no effect in post-training"):
        posttrain_run("micro", changes={name: getattr(RMTConfig(), name)})


def test_questions_in_a_script_that_the_tokenizer_does_not_know_are_refused(policy):
    asked, reader = [question("漢字" * 9 + f" {n}:") for n in range(4)], make_tiny_policy(tokenizer=sentencepiece())
    with pytest.raises(UserError, match=r"questions 'mine': \d\d% of the tokens are unknown to .* of 'tiny-llama'"):
        answerable(reader, "mine", asked, config())
    assert len(answerable(policy, "mine", asked, config())) == 4  # bytes know them all
