"""The runs on either side of mid-training: pre-training from scratch, and post-training on questions.

pre-training    nothing -> micro-world's text -> checkpoint
post-training   checkpoint -> exam before -> GRPO on questions -> exam after -> checkpoint, report
exams           post-training of all that a comparison trained: does mid-training help the stage that follows?

    DIR/exams/SOURCE/exams.json      which models are post-trained, and how; SOURCE is that of the questions
    DIR/exams/SOURCE/NAME-seedN/     a post-training run each, as ``rmt-mini posttrain`` leaves it; NAME-baseB-seedN too
    DIR/posttraining.json            SOURCE -> the outcome; DIR/report.md gets its tables and curves

Post-training runs are short, so one that was interrupted starts again; finished ones are kept.
"""

import itertools
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rmt_mini import files
from rmt_mini.arms import METHOD
from rmt_mini.config import IGNORED, NOT_IN_POSTTRAINING, PretrainConfig, preset
from rmt_mini.engine.model import Policy, load_policy, load_tokenizer
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import ComparisonPlan, ExamPlan, PostTraining, require_free
from rmt_mini.report.comparison import UNTRAINED, read_exams
from rmt_mini.report.report import exam_table, write_exam_report
from rmt_mini.runs import tracking
from rmt_mini.runs.capacity import explained
from rmt_mini.runs.compare import finish, in_name, is_done, model_of, report, run_folder, usual_workers
from rmt_mini.runs.folder import RunFolder, folder_for
from rmt_mini.runs.journal import first_notes, model_digest, now, token_digest
from rmt_mini.runs.run import SPARE_BYTES, anywhere, step_bar
from rmt_mini.stages import posttrain
from rmt_mini.stages.midtrain import StepResult
from rmt_mini.stages.pretrain import new_policy, pretrain
from rmt_mini.worlds.micro import WORLDS, make_tokenizer
from rmt_mini.worlds.overlap import overlap
from rmt_mini.worlds.questions import OF_MICRO, as_document, as_file_name, load_questions, split_questions


@contextmanager
def _recorded(path: Path, notes: files.Notes, policy: Policy, copies: int) -> Iterator[RunFolder]:
    """Record a run that cannot be resumed, in a new folder with room for ``copies`` of its model."""
    needed = copies * policy.parameters * policy.dtype.itemsize + SPARE_BYTES
    explaining = explained(notes.config, policy, path, resumable=False)
    with RunFolder(path, notes, needed) as journal, explaining, journal.recorded():
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
            journal.append("metrics.jsonl", [line])
            bar.set_postfix_str(f"loss {line['loss']:.2f}")
            bar.update()

        with journal.timed("pretrain"):
            pretrain(config, policy, after_step)
        journal.save_checkpoint(policy)
        journal.note(status="done", end=now(), model_digest=model_digest(policy), parameters=policy.parameters)
    return path


def usual_source(model: str) -> str:
    """Return the source of the questions that a model is asked if none is named, by its tokenizer."""
    known = load_tokenizer(model).get_vocab()
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
) -> tuple[Path, str]:
    """Post-train a checkpoint by GRPO on questions; measure it before and after on questions held out.

    Returns the run's folder and its table.

    Args:
        checkpoint: a run folder, a checkpoint, or any name of a model.
        source: of the questions; by the model if None: the micro-world's for its model, else gym:chain_sum.
        count: questions, those held out included.
        samples: answers sampled to each held-out question: the largest k of pass@k.
        changes: config fields that replace the defaults of post-training; those of ``NOT_IN_POSTTRAINING`` are refused.
        progress: show progress bars.
        every: steps between measurements on the way, in answers.jsonl beside the first and the last; 0: none.
        stop: once set, the run ends after the current step and raises Stopped; it cannot be resumed.
    """
    nested = Path(checkpoint) / "checkpoint"
    given = dict(changes or {})
    for name in given:
        if name in NOT_IN_POSTTRAINING:
            raise UserError(f"{name} has no effect in post-training; leave it out")
    model = str(nested if nested.is_dir() else checkpoint)
    usual, held_out_before = usual_source(model), _mid_trained(model)
    small = usual in WORLDS
    base = {"steps": 40, "documents_per_step": 20} if small else {"steps": 12, "documents_per_step": 8}
    source = source or usual
    settings = {**posttrain.POSTTRAINING, **base, "model": model, "corpus": source, **held_out_before, **given}
    config = anywhere(preset(usual if small else "laptop", **settings))
    if not source.startswith("gym:") and config.evaluation_fraction > held_out_before.get("evaluation_fraction", 1.0):
        read = f"{checkpoint!r} held out no more than {held_out_before['evaluation_fraction']} and has read the rest"
        raise UserError(f"evaluation_fraction is {config.evaluation_fraction}; {read}")
    policy = load_policy(model, config.device, config.dtype)
    asked = load_questions(source, count, config.seed)
    questions = posttrain.answerable(policy, source, asked, config)
    train, held_out = split_questions(questions, config.evaluation_fraction)
    tracking.require(config.report_to)
    path = folder_for(config.out, f"posttrain-seed{config.seed}")
    # refuses here, before there is a folder, what the model cannot read
    training, exam = posttrain.Exam(policy, train, config), posttrain.Exam(policy, held_out, config)
    notes = first_notes(
        "post-training",
        config,
        questions=source,
        questions_left_out=len(asked) - len(questions),
        training_questions=len(train),
        overlap=overlap([*map(as_document, train)], [*map(as_document, held_out)], calculations=source in OF_MICRO),
        model_digest=model_digest(policy),
        token_digest=token_digest(exam, [*training.texts, *exam.texts], config.budget_start),
    )
    with _recorded(path, notes, policy, copies=2) as journal:
        journal.track()

        def examine(step: int) -> tuple[torch.Tensor, files.PassRow]:
            right, rollouts = posttrain.answer_questions(policy, exam, config, samples)
            journal.append("answers.jsonl", posttrain.exam_lines(step, exam, right, rollouts))
            return right, posttrain.summarize_exam(right, rollouts)

        with journal.timed("evaluation"):
            before, first = examine(0)
        with journal.timed("posttrain"), step_bar("GRPO", config.steps, progress) as bar:

            def after_step(result: StepResult) -> None:
                journal.step(policy, result, config.rollouts_logged)
                bar.set_postfix_str(f"right {result.metrics.match_reward:.2f}")
                bar.update()
                done = result.metrics.step + 1
                if config.save_every and done % config.save_every == 0:
                    journal.save_checkpoint(policy)
                if every and done % every == 0 and done < config.steps:
                    examine(done)
                if stop is not None and stop.is_set():
                    raise Stopped(str(path))

            posttrain.posttrain(config, policy, training, after_step)
        journal.save_checkpoint(policy)
        with journal.timed("evaluation"):
            after, last = examine(config.steps)
        files.ExamEvaluation(before=first, after=last, gain=posttrain.exam_gain(before, after)).write(path)
        journal.note(status="done", end=now())  # before the report, which shows it
        return path, write_exam_report(path)


def _mid_trained(model: str) -> dict[str, Any]:
    """Return what the run of a checkpoint held out and how it answered, as settings; nothing where it is of no run."""
    notes = files.Notes.find(Path(model).parent) if Path(model).name == "checkpoint" else None
    if notes is None or notes.kind == "pre-training":
        return {}
    return {name: getattr(notes.settings, name) for name in KEPT}


KEPT = ("evaluation_fraction", "answer_format")  # settings of mid-training that post-training goes on with
USUAL = ("ntp", "rpt")  # beside base and RMT


def exams(
    folder: Path,
    arms: Sequence[str] = (),
    source: str | None = None,
    count: int = 400,
    samples: int = 8,
    every: int = 20,
    changes: Mapping[str, Any] | None = None,
    workers: int = 0,
    progress: bool = True,
    stop: threading.Event | None = None,
) -> str:
    """Post-train the untrained models and the arms of a finished comparison, every run, and report; returns the table.

    RMT is always among the arms; if none is given, NTP only and RPT too, where they are there. Source, count, samples,
    every and changes are those of ``posttrain_run``; workers, progress and stop those of ``compare``, which also says
    what ``Stopped`` means. A UserError: an arm is not there or not done, or the folder holds exams of another kind.
    """
    comparison = ComparisonPlan.read(folder)
    if source is None:
        source = usual_source(model_of(comparison.config, 0))
    names = [arm.name for arm in comparison.arms]
    for name in arms:
        if name not in names:
            raise UserError(f"arm {name!r} is not in the comparison {str(folder)!r}; it has {', '.join(names)}")
    chosen = [UNTRAINED, *(name for name in names if name in {*(arms or USUAL), METHOD})]
    plan = ExamPlan(arms=chosen, source=source, count=count, samples=samples, every=every, changes=dict(changes or {}))
    if plan.changes.get("evaluation_fraction", 0.0) > (read := comparison.config.evaluation_fraction):
        raise UserError(f"evaluation_fraction is {plan.changes['evaluation_fraction']}; mid-training held out {read}")
    path = folder / "exams" / as_file_name(source)
    other: dict[str, Any] = {"arms": True, "changes": IGNORED}  # what may differ
    found = ExamPlan.find(path) or plan
    before, now = (one.model_dump(mode="json", exclude=other) for one in (found, plan))
    differ = [name for name, value in before.items() if value != now[name]]
    if differ:
        raise UserError(f"{str(path)!r} holds exams with other settings ({', '.join(differ)}); delete it")
    path.mkdir(parents=True, exist_ok=True)
    both = [name for name in (UNTRAINED, *names) if name in {*found.arms, *chosen}]
    plan.model_copy(update={"arms": both}).write(path)
    return go_on(path, workers, progress, stop)


def go_on(path: Path, workers: int = 0, progress: bool = True, stop: threading.Event | None = None) -> str:
    """Do the runs of DIR/exams/SOURCE that are not done, and report; returns the table."""
    plan, folder = ExamPlan.read(path), path.parents[1]
    comparison = ComparisonPlan.read(folder)
    for name, run in itertools.product(plan.arms, comparison.all_runs):
        trained = run_folder(folder, name, *run)
        if name != UNTRAINED and not comparison.has(name, run[0]):
            raise UserError(f"arm {name!r} ran with fewer seeds than rmt, and an exam needs them all; leave it out")
        if name != UNTRAINED and not is_done(trained):
            raise UserError(f"the run {str(trained)!r} is not done; finish it with rmt-mini resume {folder}")
    folders = {name: [path / run_folder(path, name, *run).name for run in comparison.all_runs] for name in plan.arms}
    wanted = list(itertools.chain(*zip(*folders.values(), strict=True)))
    finish("Exams", _sit, [wanted], workers or usual_workers(comparison.config), progress, stop, path)
    seeds, bases = comparison.all_seeds, comparison.bases
    outcome = files.ExamOutcome(**read_exams(folders, bases), seeds=seeds, bases=bases, settings=plan)
    before = PostTraining.find(folder) or PostTraining()
    PostTraining.model_validate(before.exams | {plan.source: outcome}).write(folder)
    report(folder)
    return exam_table(outcome)


def _sit(path: Path, stop: threading.Event | None) -> Path:
    if (path / "run.json").exists():  # unfinished, and only this module writes here
        shutil.rmtree(path)
    plan, folder, (name, seed, base) = ExamPlan.read(path.parent), path.parents[2], in_name(path)
    config = ComparisonPlan.read(folder).config
    untrained, kept = model_of(config, base), {name: getattr(config, name) for name in (*KEPT, "device", "dtype")}
    checkpoint = untrained if name == UNTRAINED else str(run_folder(folder, name, seed, base) / "checkpoint")
    changes = kept | plan.changes | {"seed": seed, "out": str(path)}
    posttrain_run(checkpoint, plan.source, plan.count, plan.samples, changes, False, plan.every, stop)
    return path
