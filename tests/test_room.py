"""What a model is to read fits into the positions that it knows, or is refused before anything is read or written."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from rmt_mini.bench.parts import material
from rmt_mini.bench.sizes import Setting
from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy, make_policy
from rmt_mini.engine.text import format_for, longest_branch
from rmt_mini.report.plots import Figured
from rmt_mini.runs import pre_and_post
from rmt_mini.runs.pre_and_post import posttrain_run
from rmt_mini.runs.run import evaluate_checkpoint, run
from rmt_mini.scale.launch import ScaleSettings, grpo_settings
from rmt_mini.scale.planner import plan_run
from rmt_mini.stages.evaluate import evaluate
from rmt_mini.stages.midtrain import RMTTrainer
from rmt_mini.stages.posttrain import POSTTRAINING, Exam, answer_questions, posttrain
from rmt_mini.worlds.questions import Question
from tests.fakes import byte_tokenizer, make_tiny_policy
from tests.outcomes import either
from tests.runs.test_run import settings
from tests.stages.tiny import small, texts_for

# The longest branch of the continuation format with one token a byte, counted by hand:
# 48 of text, 10 of "\n<think 6>", 12 of a thought of twice the budget, 8 of "</think>", 4 + 8 of the cue, 1 of answer
NEEDED = 48 + 10 + 12 + 8 + 4 + 8 + 1


def learned(positions: int, template: str | None = None) -> Policy:
    """A model that has learned as many positions, and no rule for more: it fails at the next."""
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "initializer_range": 1.0}
    shape = GPT2Config(vocab_size=259, n_positions=positions, bos_token_id=None, eos_token_id=None, **sizes)
    return make_policy("learned", GPT2LMHeadModel(shape), byte_tokenizer(template=template))


@pytest.mark.parametrize(
    ("changes", "budget", "more"),
    [
        ({}, 0, 0),
        ({"evaluation_budget": 9}, 0, 2 * 3),
        ({}, 12, 2 * 6 + 1),  # "12" is a byte longer than "6"
        ({"evaluation_budget": 9}, 7, 2 * 3),
        ({"budget_rule": "entropy"}, 0, 2 * 6 + 1),  # a position may get twice the budget, and thoughts twice that
        ({"budget_rule": "entropy"}, 9, 2 * 12 + 1),
        ({"budget_rule": "entropy", "use_budget": False}, 0, -2),  # no rule, and nothing is stated
        ({"use_budget": False}, 0, -2),
        ({"document_tokens": 50}, 0, 2),
    ],
)
def test_the_room_that_is_needed_by_hand(changes: dict[str, Any], budget: int, more: int) -> None:
    config = small(**changes)
    form = format_for(learned(1024), config)
    assert longest_branch(form, config, budget) == NEEDED + more
    assert either(lambda: format_for(learned(NEEDED + more), config, budget))[1] is None
    _, message = either(lambda: format_for(learned(NEEDED + more - 1), config, budget))
    assert message is not None
    assert f"that makes {NEEDED + more}, and model 'learned' reads at most {NEEDED + more - 1}: " in message


@pytest.mark.parametrize("rule", ["step", "entropy"])
def test_what_is_let_through_fits(rule: str) -> None:
    """Thoughts of random weights run to their caps, so that a token more would fail."""
    config = small(steps=1, budget_rule=rule, evaluation_positions=60)
    policy = learned(longest_branch(format_for(learned(1024), config), config))
    texts = texts_for(policy, config)
    assert evaluate(policy, texts, config)["think"]["average"]["n"] > 30
    assert len(RMTTrainer(config, policy, texts).fit()) == 1


def test_evaluate_asks_for_the_room_of_its_own_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figured, "png", lambda _: b"")  # other tests draw
    config = settings(tmp_path, steps=1, warmup_steps=0, preflight_positions=3, evaluation_positions=6)
    run(config, make_tiny_policy(max_position_embeddings=NEEDED), progress=False)
    assert evaluate_checkpoint(tmp_path / "run", 6).think.budget == 6
    _, message = either(lambda: evaluate_checkpoint(tmp_path / "run", 7))
    assert message is not None
    assert f"thoughts of up to 14 tokens that makes {NEEDED + 2}" in message
    assert message.endswith(f"reads at most {NEEDED}: lower the budget")


@pytest.mark.parametrize("what", ["run", "plan", "bench"])
def test_what_reads_documents_asks_for_room(what: str, tmp_path: Path) -> None:
    config, policy = settings(tmp_path), make_tiny_policy(max_position_embeddings=NEEDED - 1)
    bench = Setting(model="tiny", corpus=config.corpus, documents=1, positions=1, prefix=16, thought_tokens=200)
    doing = {
        "run": lambda: run(config, policy, progress=False),
        "plan": lambda: plan_run(config, policy),
        "bench": lambda: material(bench, policy),
    }
    _, message = either(doing[what])
    assert message is not None
    assert f"reads at most {NEEDED - 1}: " in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("rule", "more"), [("step", 0), ("entropy", 13)])
def test_trl_is_given_the_room_of_the_longest_branch(rule: str, more: int) -> None:
    config = small(budget_rule=rule, warmup_steps=0)
    longest = longest_branch(format_for(learned(1024), config), config)
    arguments = grpo_settings(config, ScaleSettings(micro_batch=1), longest, "out")
    assert arguments["max_completion_length"] == NEEDED + more - 48


def asking(**changes: Any) -> RMTConfig:
    return small(**{**POSTTRAINING, "documents_per_step": 1, "group_size": 2, "steps": 1, **changes})


def question(length: int) -> Question:
    return Question(str(length), "1" * length, "7", lambda given: float(given == "7"))


def test_the_longest_question_fits() -> None:
    """Documents do not count here: no text is read. A question and its answer take the place of one."""
    config = asking(document_tokens=1000)
    room = 40 + 1 - 48 + NEEDED - 2  # no budget is stated, " 6"
    policy = learned(room)
    right, _ = answer_questions(policy, Exam(policy, [question(9), question(40)], config), config, 2)
    assert right.shape == (2, 2)
    posttrain(config, policy, Exam(policy, [question(40)], config))
    _, message = either(lambda: Exam(policy, [question(41), question(9)], config))
    assert message is not None
    assert message.startswith(
        f"the longest question has 42 tokens; with thoughts of up to 12 tokens that makes {room + 1}"
    )
    assert message.endswith("give shorter questions or lower --budget-start")


@pytest.mark.parametrize("long", ["first", "last"])
def test_post_training_refuses_before_there_is_a_folder(
    long: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever part of the questions the long one is in, training or held out."""
    policy = make_tiny_policy(max_position_embeddings=200)
    policy.model.save_pretrained(tmp_path / "model")
    policy.tokenizer.save_pretrained(tmp_path / "model")
    questions = [question(300 if n == {"first": 0, "last": 7}[long] else 10 + n) for n in range(8)]
    monkeypatch.setattr(pre_and_post, "usual_source", lambda _: "gym:chain_sum")  # which makes every world's tokenizer
    monkeypatch.setattr(pre_and_post, "load_questions", lambda *_: questions)
    monkeypatch.setattr(pre_and_post, "split_questions", lambda asked, _: (asked[:4], asked[4:]))
    changes = {"steps": 1, "out": str(tmp_path / "out"), "dtype": "float32", "device": "cpu"}
    _, message = either(lambda: posttrain_run(str(tmp_path / "model"), "gym:chain_sum", 8, 2, changes, progress=False))
    assert message is not None
    assert message.startswith("the longest question has 301 tokens; ")
    assert not (tmp_path / "out").exists()
