"""Post-train what a comparison trained: does mid-training help the stage that follows?

    DIR/exams/SOURCE/exams.json      which models sit the exam, and how; SOURCE is that of its questions
    DIR/exams/SOURCE/NAME-seedN/     a post-training run each, as ``rmt-mini posttrain`` leaves it
    DIR/posttraining.json            SOURCE -> the outcome; DIR/report.md gains its tables and curves

A comparison may sit several exams. Post-training runs are short, so one that was interrupted begins anew; those that
are done stay.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rmt_mini.arms import METHOD
from rmt_mini.engine.model import locate_model
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import write_whole
from rmt_mini.report.comparison_report import exam_table
from rmt_mini.report.posttraining import UNTRAINED, read_exams
from rmt_mini.runs.compare import SIDE_BY_SIDE, is_done, read_comparison, report, run_folder, turn_before
from rmt_mini.runs.pre_and_post import of_micro_world, posttrain_run, usual_source
from rmt_mini.runs.workers import carry_out
from rmt_mini.worlds.questions import as_file_name

USUAL = ("ntp", "rpt")  # beside base and RMT


@dataclass(frozen=True, slots=True)
class Sitting:
    """One post-training run: as ``posttrain_run`` takes it."""

    checkpoint: str
    source: str
    count: int
    samples: int
    every: int
    changes: Mapping[str, Any]


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
    """Post-train the untrained model and the arms of a finished comparison, every seed, and report.

    Args:
        folder: of the comparison.
        arms: whose checkpoints; RMT is always among them; empty takes NTP only and RPT, where they are there.
        source: of the questions, count, samples: as for ``posttrain_run``.
        count: questions, those held out included.
        samples: answers sampled to each held-out question.
        every: steps between measurements on the way.
        changes: config fields that replace the defaults of post-training; "steps" among them.
        workers: as for ``compare``.
        progress: show a progress bar.
        stop: as for ``compare``.

    Returns:
        The table of what was answered.

    Raises:
        UserError: if an arm is not there or not done, or the folder holds exams of another kind.
        Stopped: as ``compare``.
    """
    config, known, _ = read_comparison(folder)
    source = source or usual_source(of_micro_world(_tokenizer(config.model)))
    names = [arm.name for arm in known]
    for name in arms:
        if name not in names:
            raise UserError(f"arm {name!r} is not in the comparison {str(folder)!r}; it has {', '.join(names)}")
    wanted = {*(arms or USUAL), METHOD}
    notes = {
        "arms": [UNTRAINED, *(name for name in names if name in wanted)],
        "source": source,
        "count": count,
        "samples": samples,
        "every": every,
        "changes": dict(changes or {}),
    }
    plain = json.loads(json.dumps(notes))
    path = folder / "exams" / as_file_name(source) / "exams.json"
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        differ = [name for name in plain if plain[name] != before[name] and name != "arms"]
        if differ:
            raise UserError(
                f"{str(path.parent)!r} holds exams with other settings ({', '.join(differ)}); delete it, or give those"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(plain, indent=1) + "\n")
    return go_on(path.parent, workers, progress, stop)


def go_on(path: Path, workers: int = 0, progress: bool = True, stop: threading.Event | None = None) -> str:
    """Sit what DIR/exams/SOURCE still lacks of its exam, and report; returns the table.

    Raises:
        UserError: if a checkpoint is not there, or for anything else that a user can set right.
        Stopped: as ``compare``.
    """
    notes = json.loads((path / "exams.json").read_text(encoding="utf-8"))
    folder = path.parents[1]
    config, _, seeds = read_comparison(folder)
    stop = stop or threading.Event()
    sittings = {name: [_sitting(path, name, seed, notes, config.model) for seed in seeds] for name in notes["arms"]}
    wanted = [one for row in zip(*sittings.values(), strict=True) for one in row]
    todo = [one for one in wanted if not is_done(Path(one.changes["out"]))]
    workers = workers or (os.cpu_count() or 1 if config.model in SIDE_BY_SIDE else 1)
    done = len(wanted) - len(todo)
    with tqdm(total=len(wanted), initial=done, desc="Exams", disable=not progress, unit="run") as bar:
        try:
            for name in carry_out(_sit, todo, workers, stop):
                bar.set_postfix_str(name)
                bar.update()
        except (Stopped, KeyboardInterrupt) as error:
            raise Stopped(str(path)) from error
    found = read_exams({name: [Path(one.changes["out"]) for one in row] for name, row in sittings.items()})
    found |= {"seeds": seeds, "settings": notes}
    outcome = folder / "posttraining.json"
    others = json.loads(outcome.read_text(encoding="utf-8")) if outcome.exists() else {}
    write_whole(outcome, json.dumps(others | {notes["source"]: found}, indent=1) + "\n")
    report(folder)
    return exam_table(found)


def _tokenizer(model: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(locate_model(model), trust_remote_code=False)


def _sitting(path: Path, name: str, seed: int, notes: Mapping[str, Any], model: str) -> Sitting:
    folder = path.parents[1]
    checkpoint = run_folder(folder, name, seed) / "checkpoint"
    if name != UNTRAINED and not is_done(checkpoint.parent):
        raise UserError(f"the run {str(checkpoint.parent)!r} is not done; finish it with rmt-mini resume {folder}")
    changes = notes["changes"] | {"seed": seed, "out": str(path / f"{name}-seed{seed}")}
    return Sitting(
        model if name == UNTRAINED else str(checkpoint),
        notes["source"],
        notes["count"],
        notes["samples"],
        notes["every"],
        {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()},
    )


def _sit(one: Sitting, stop: threading.Event) -> str:
    path = Path(one.changes["out"])
    if (path / "run.json").exists():  # half done, and only this room writes here
        shutil.rmtree(path)
    turn = turn_before(path.parent)
    posttrain_run(one.checkpoint, one.source, one.count, one.samples, one.changes, False, one.every, stop, turn)
    return path.name
