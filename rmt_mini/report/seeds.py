"""Runs that differ in their seed alone, read as one result: what one run found may be luck, what several find less so.

Intervals draw seeds and documents anew. With three seeds the part of the seeds is known roughly, and such an interval
tends to be too narrow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmt_mini.errors import UserError
from rmt_mini.files import DIGESTS, TIMES, AnswerLine, Evaluation, Notes, read_lines, require_free, write_whole
from rmt_mini.records import Answer, Position
from rmt_mini.report import plots
from rmt_mini.report.findings import findings
from rmt_mini.report.markdown import escape
from rmt_mini.report.report import accuracies, evaluation_table
from rmt_mini.stages.statistics import summarize_all

MAY_DIFFER = {"seed", "out"}


def write_seeds_report(folders: Sequence[Path], out: Path) -> str:
    """Write evaluation.json, report.md and accuracy.png of several runs read as one.

    Args:
        folders: of runs that differ in their seed alone.
        out: a new folder.

    Returns:
        The table for the terminal.

    Raises:
        UserError: as ``across_seeds``, or if ``out`` is in use.
    """
    require_free(out)
    found = across_seeds(folders)
    config = Notes.read(folders[0]).model_dump(mode="json")["config"]
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "evaluation.json", json.dumps(found, indent=1) + "\n")
    figured = plots.accuracy(found)
    plots.save(figured, out / "accuracy.png")
    seeds = ", ".join(map(str, found["seeds"]))
    parts = [
        f"# {len(folders)} runs of RMT: preset {escape(config['preset'])}, seeds {seeds}",
        *findings(config, found, None),
        *accuracies(found),
        f"![{figured.alt}](accuracy.png)",
        f"Intervals draw {len(folders)} seeds and the held-out documents anew. With so few seeds their part is known "
        "roughly. All runs start from one and the same model.",
    ]
    write_whole(out / "report.md", "\n\n".join(parts) + "\n")
    return evaluation_table(found)


def across_seeds(folders: Sequence[Path]) -> dict[str, Any]:
    """Read the answers of several runs as one.

    Args:
        folders: of runs that differ in their seed alone.

    Returns:
        What evaluation.json holds for one run, with intervals over seeds and documents, and "seeds".

    Raises:
        UserError: if a folder holds no finished run or a damaged one, or the runs differ in more than their seed.
    """
    notes = [_finished(folder) for folder in folders]
    _require_alike(folders, notes)
    document: dict[str, int] = {}
    measured: dict[str, tuple[int, list[Answer]]] = {}
    for run, folder in enumerate(folders):
        for when, (budget, answers) in read_answers(folder, run, document).items():
            measured.setdefault(when, (budget, []))[1].extend(answers)
    return {"seeds": [note["seed"] for note in notes], **summarize_all(measured)}


def read_answers(folder: Path, run: int, document: dict[str, int]) -> dict[str, tuple[int, list[Answer]]]:
    """Read what a run's policy answered, and under which budget, for each time it was measured.

    Args:
        folder: of a finished run.
        run: its number among those read together.
        document: number of each document met so far; new ones are added.

    Raises:
        UserError: if answers are missing or damaged: they are paired, so that one less would shift all others.
    """
    path = folder / "answers.jsonl"
    evaluation = Evaluation.read(folder).model_dump(mode="json", exclude_unset=True)
    read, passed_over = read_lines(path, AnswerLine)
    lines = [one.model_dump() for one in read]
    if passed_over:
        raise UserError(f"{str(path)!r}: {passed_over} of its lines cannot be read; restore it from a copy")
    told = {when: [one for one in lines if one["when"] == when] for when in TIMES if when in evaluation}
    places = [
        [[one[key] for key in ("document", "position", "tier", "sort")] for one in part] for part in told.values()
    ]
    counts = [evaluation[when]["think"].get("average", {"n": len(places[0])})["n"] for when in told]
    if (
        not places[0]
        or any(one != places[0] for one in places)
        or {*counts, len(lines) / len(told)} != {len(places[0])}
    ):
        raise UserError(
            f"{str(path)!r} does not hold one answer to every position for each time that evaluation.json speaks of; "
            f"restore it from a copy"
        )
    measured: dict[str, tuple[int, list[Answer]]] = {}
    for when, part in told.items():
        answers = measured.setdefault(when, (evaluation[when]["think"]["budget"], []))[1]
        for line in part:
            trunk = document.setdefault(line["document"], len(document))
            answers.append(AnswerLine(**line).answer(Position(trunk, line["position"], line["tier"], 0.0), run))
    return measured


def _finished(folder: Path) -> dict[str, Any]:
    notes = Notes.read(folder).model_dump(mode="json")
    if notes["status"] != "done" or not (folder / "answers.jsonl").exists():
        raise UserError(f"the run in {str(folder)!r} is {notes['status']} or has no answers.jsonl; run it again")
    return notes


def _require_alike(folders: Sequence[Path], notes: Sequence[dict[str, Any]]) -> None:
    """Refuse runs whose numbers do not belong together."""
    seeds = [note["seed"] for note in notes]
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"the runs have seeds {seeds}; give runs of different seeds")
    first = notes[0]
    for folder, note in zip(folders, notes, strict=True):
        settings = [one["config"] for one in (first, note)]
        differ = sorted(name for name in settings[0] if settings[0][name] != settings[1].get(name))
        differ = [name for name in differ if name not in MAY_DIFFER]
        differ += [name for name in DIGESTS if first.get(name) != note.get(name)]
        if differ:
            raise UserError(
                f"the run in {str(folder)!r} differs from the first in {', '.join(differ)}, not in seed alone"
            )
