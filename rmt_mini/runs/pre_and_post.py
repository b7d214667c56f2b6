"""The runs on either side of mid-training: pre-training from scratch, and post-training on questions.

pre-training    nothing -> micro-world's text -> checkpoint
post-training   checkpoint -> exam before -> GRPO on questions -> exam after -> checkpoint, report
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rmt_mini.config import NOT_IN_POSTTRAINING, PretrainConfig, preset
from rmt_mini.engine.model import Policy, load_policy
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import ExamEvaluation, Notes, PassRow, Turn, require_free
from rmt_mini.report.report import write_exam_report
from rmt_mini.runs.capacity import explained
from rmt_mini.runs.folder import RunFolder, folder_for
from rmt_mini.runs.journal import Journal, first_notes, model_digest, now, token_digest
from rmt_mini.runs.run import SPARE_BYTES, anywhere, step_bar
from rmt_mini.stages.midtrain import StepResult
from rmt_mini.stages.posttrain import (
    POSTTRAINING,
    Exam,
    answer_questions,
    answerable,
    exam_gain,
    exam_lines,
    posttrain,
    summarize_exam,
)
from rmt_mini.stages.pretrain import new_policy, pretrain
from rmt_mini.worlds.micro import WORLDS, make_tokenizer
from rmt_mini.worlds.overlap import overlap
from rmt_mini.worlds.questions import OF_MICRO, as_document, load_questions, split_questions


@dataclass(frozen=True)
class ExamResult:
    """What a post-training run leaves: its folder, what it measured, the final table as text."""

    folder: Path
    evaluation: ExamEvaluation
    table: str


@contextmanager
def _recorded(path: Path, notes: Notes, policy: Policy, copies: int) -> Iterator[Journal]:
    """Record a run that cannot be resumed, in a new folder with room for ``copies`` of its model."""
    needed = copies * policy.parameters * policy.dtype.itemsize + SPARE_BYTES
    with RunFolder(path, needed) as folder, explained(notes.config, policy, path, resumable=False):
        journal = Journal(folder, notes)
        with journal.recorded():
            yield journal


def pretrain_run(config: PretrainConfig, progress: bool = True) -> Path:
    """Pre-train the micro-world's model from scratch; returns the folder of run.json, metrics.jsonl, checkpoint/."""
    path = folder_for(config.out, f"pretrain-{config.world}-seed{config.seed}")
    require_free(path)  # before anything slow
    policy = new_policy(config)
    with (
        _recorded(path, first_notes("pre-training", config), policy, copies=1) as journal,
        step_bar("Pre-training", config.steps, progress) as bar,
    ):

        def after_step(line: dict[str, float]) -> None:
            journal.folder.append("metrics.jsonl", [line])
            bar.set_postfix_str(f"loss {line['loss']:.2f}")
            bar.update()

        with journal.timed("pretrain"):
            pretrain(config, policy, after_step)
        journal.folder.save_checkpoint(policy)
        journal.note(status="done", end=now(), model_digest=model_digest(policy), parameters=policy.parameters)
    return path


def usual_source(tokenizer: Any) -> str:
    """Return the source of the questions that a model is asked if none is named, by its tokenizer."""
    known = tokenizer.get_vocab()
    return next((name for name, one in WORLDS.items() if make_tokenizer(one).get_vocab() == known), "gym:chain_sum")


def posttrain_run(
    checkpoint: str,
    source: str | None = None,
    count: int = 400,
    samples: int = 8,
    changes: Mapping[str, Any] | None = None,
    progress: bool = True,
    every: int = 0,
    stop: threading.Event | None = None,
    turn: Turn | None = None,
) -> ExamResult:
    """Post-train a checkpoint by GRPO on questions; measure it before and after on questions held out.

    Args:
        checkpoint: a run folder, a checkpoint, or any name of a model.
        source: of the questions; by the model if None: the micro-world's for its model, else gym:chain_sum.
        count: questions, those held out included.
        samples: answers sampled to each held-out question: the largest k of pass@k.
        changes: config fields that replace the defaults of post-training; those of ``NOT_IN_POSTTRAINING`` are refused.
        progress: show progress bars.
        every: steps between measurements on the way, in answers.jsonl beside the first and the last; 0: none.
        stop: once set, the run ends after the current step; it cannot be resumed.
        turn: what a chat template wrote around a text in a run that this one is compared with.

    Raises:
        UserError: for anything that a user can set right.
        Stopped: if ``stop`` was set.
    """
    nested = Path(checkpoint) / "checkpoint"
    given = dict(changes or {})
    for name in given:
        if name in NOT_IN_POSTTRAINING:
            raise UserError(f"{name} has no effect in post-training; leave it out")
    policy = load_policy(
        str(nested if nested.is_dir() else checkpoint), given.get("device", "auto"), given.get("dtype", "auto")
    )
    policy.turn = turn
    usual = usual_source(policy.tokenizer)
    small = usual in WORLDS
    base = {"steps": 40, "documents_per_step": 20} if small else {"steps": 12, "documents_per_step": 8}
    source = source or usual
    settings = {**POSTTRAINING, **base, "model": checkpoint, "corpus": source, **given}
    config = anywhere(preset(usual if small else "laptop", **settings))
    asked = load_questions(source, count, config.seed)
    questions = answerable(policy, source, asked, config)
    train, held_out = split_questions(questions, config.evaluation_fraction)
    path = folder_for(config.out, f"posttrain-seed{config.seed}")
    # refuses here, before there is a folder, what the model cannot read
    training, exam = Exam(policy, train, config), Exam(policy, held_out, config)
    notes = first_notes(
        "post-training",
        config,
        questions=source,
        questions_left_out=len(asked) - len(questions),
        training_questions=len(train),
        overlap=overlap([*map(as_document, train)], [*map(as_document, held_out)], calculations=source in OF_MICRO),
        model_digest=model_digest(policy),
        token_digest=token_digest(exam, [*training.texts, *exam.texts], config.budget_start),
        chat_turn=policy.turn,
    )
    with _recorded(path, notes, policy, copies=2) as journal:

        def examine(step: int) -> tuple[torch.Tensor, PassRow]:
            right, rollouts = answer_questions(policy, exam, config, samples)
            journal.folder.append("answers.jsonl", exam_lines(step, exam, right, rollouts))
            return right, summarize_exam(right, rollouts)

        with journal.timed("evaluation"):
            before, first = examine(0)
        with journal.timed("posttrain"), step_bar("GRPO", config.steps, progress) as bar:

            def after_step(result: StepResult) -> None:
                journal.step(policy, result, config.rollouts_logged)
                bar.set_postfix_str(f"right {result.metrics.match_reward:.2f}")
                bar.update()
                done = result.metrics.step + 1
                if config.save_every and done % config.save_every == 0:
                    journal.folder.save_checkpoint(policy)
                if every and done % every == 0 and done < config.steps:
                    examine(done)
                if stop is not None and stop.is_set():
                    raise Stopped(str(path))

            posttrain(config, policy, training, after_step)
        journal.folder.save_checkpoint(policy)
        with journal.timed("evaluation"):
            after, last = examine(config.steps)
        evaluation = ExamEvaluation(before=first, after=last, gain=exam_gain(before, after))
        evaluation.write(path)
        journal.note(status="done", end=now())  # before the report, which shows it
        table = write_exam_report(path)
    return ExamResult(path, evaluation, table)
