"""Post-train what a comparison trained: does mid-training help the stage that follows?

    DIR/exams/SOURCE/exams.json      which models are post-trained, and how; SOURCE is that of the questions
    DIR/exams/SOURCE/NAME-seedN/     a post-training run each, as ``rmt-mini posttrain`` leaves it; NAME-baseB-seedN too
    DIR/posttraining.json            SOURCE -> the outcome; DIR/report.md gets its tables and curves

Post-training runs are short, so one that was interrupted starts again; finished ones are kept.
"""

import itertools
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from rmt_mini.arms import METHOD
from rmt_mini.engine.model import locate_model
from rmt_mini.errors import UserError
from rmt_mini.files import ComparisonPlan, ExamOutcome, ExamPlan, PostTraining
from rmt_mini.report.comparison import UNTRAINED, read_exams
from rmt_mini.report.report import exam_table
from rmt_mini.runs.compare import finish, in_name, is_done, model_of, report, run_folder, turn_before, usual_workers
from rmt_mini.runs.pre_and_post import posttrain_run, usual_source
from rmt_mini.worlds.questions import as_file_name

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
        model = locate_model(comparison.config.model)
        source = usual_source(AutoTokenizer.from_pretrained(model, trust_remote_code=False))
    names = [arm.name for arm in comparison.arms]
    for name in arms:
        if name not in names:
            raise UserError(f"arm {name!r} is not in the comparison {str(folder)!r}; it has {', '.join(names)}")
    chosen = [UNTRAINED, *(name for name in names if name in {*(arms or USUAL), METHOD})]
    plan = ExamPlan(arms=chosen, source=source, count=count, samples=samples, every=every, changes=dict(changes or {}))
    path = folder / "exams" / as_file_name(source)
    before, now = ExamPlan.find(path) or plan, plan.model_dump(mode="json")
    differ = [name for name, value in before.model_dump(mode="json", exclude={"arms"}).items() if value != now[name]]
    if differ:
        raise UserError(f"{str(path)!r} holds exams with other settings ({', '.join(differ)}); delete it")
    path.mkdir(parents=True, exist_ok=True)
    plan.write(path)
    return go_on(path, workers, progress, stop)


def go_on(path: Path, workers: int = 0, progress: bool = True, stop: threading.Event | None = None) -> str:
    """Do the runs of DIR/exams/SOURCE that are not done, and report; returns the table."""
    plan, folder = ExamPlan.read(path), path.parents[1]
    comparison = ComparisonPlan.read(folder)
    for name, run in itertools.product(plan.arms, comparison.all_runs):
        trained = run_folder(folder, name, *run)
        if name != UNTRAINED and not is_done(trained):
            raise UserError(f"the run {str(trained)!r} is not done; finish it with rmt-mini resume {folder}")
    folders = {name: [path / run_folder(path, name, *run).name for run in comparison.all_runs] for name in plan.arms}
    wanted = list(itertools.chain(*zip(*folders.values(), strict=True)))
    finish("Exams", _sit, [wanted], workers or usual_workers(comparison.config), progress, stop, path)
    seeds, bases = comparison.all_seeds, comparison.bases
    outcome = ExamOutcome(**read_exams(folders, bases), seeds=seeds, bases=bases, settings=plan)
    before = PostTraining.find(folder) or PostTraining()
    PostTraining.model_validate(before.exams | {plan.source: outcome}).write(folder)
    report(folder)
    return exam_table(outcome)


def _sit(path: Path, stop: threading.Event | None) -> Path:
    if (path / "run.json").exists():  # unfinished, and only this module writes here
        shutil.rmtree(path)
    plan, folder, (name, seed, base) = ExamPlan.read(path.parent), path.parents[2], in_name(path)
    untrained = model_of(ComparisonPlan.read(folder).config, base)
    checkpoint = untrained if name == UNTRAINED else str(run_folder(folder, name, seed, base) / "checkpoint")
    changes, turn = plan.changes | {"seed": seed, "out": str(path)}, turn_before(path.parent)
    posttrain_run(checkpoint, plan.source, plan.count, plan.samples, changes, False, plan.every, stop, turn)
    return path
