"""Several runs read together: seeds as one result, arms against RMT, post-training, variants of a setting.

All arms answer the same held-out positions, seed by seed, so differences are taken position by position. Intervals draw
seeds and documents (or questions) anew; with few seeds their part is known roughly and tends to be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from rmt_mini import files
from rmt_mini.arms import BASE, METHOD
from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.files import Cell, Change, Comparison, Evaluation, Notes
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import Answer, Position
from rmt_mini.stages.posttrain import pass_at_k
from rmt_mini.stages.statistics import as_one_tier, interval, of_sort, resample, sorts_in, summarize, summarize_all

# Standard deviation of a difference at one position: that of RMT and its closest ablations, 0.43 to 0.59 in the
# recorded comparison of the micro-world (an interval is 2 x 1.96 x SPREAD / positions^0.5).
SPREAD = 0.54
SIGN = "="  # a variant is an arm named FIELD=VALUE
UNTRAINED = "base"  # the model that mid-training began with, as an exam names it
Answered = tuple[Sequence[Answer], str]  # answers, and whether those without a thought ("ntp") or with one count


def expected_half_width(positions: int, seeds: int, spread: float = SPREAD) -> float:
    """Return half the 95 % interval that a difference of two arms will have; training's own variation adds to it.

    Args:
        positions: held-out positions of a run.
        seeds: runs of each arm; they count as so many more positions.
        spread: standard deviation of the difference at one position.

    Example:
        >>> [round(expected_half_width(n, 5), 3) for n in (60, 240, 900)]
        [0.061, 0.031, 0.016]
    """
    return float(1.96 * spread / (positions * seeds) ** 0.5)


def expected_positions(half_width: float, seeds: int, spread: float = SPREAD) -> int:
    """Return how many held-out positions make ``expected_half_width`` no wider than asked for.

    Example:
        >>> expected_positions(0.03, 5), round(expected_half_width(249, 5), 3)
        (249, 0.03)
    """
    return math.ceil((1.96 * spread / half_width) ** 2 / seeds)


# Seeds


def across_seeds(folders: Sequence[Path]) -> Evaluation:
    """Read the answers of runs that differ in their seed alone as those of one.

    Raises:
        UserError: if a folder holds no finished run or a damaged one, or the runs differ in more than their seed.
    """
    notes = [_finished(folder) for folder in folders]
    seeds = [note.seed for note in notes]
    if not seeds or len(set(seeds)) < len(seeds):
        raise UserError(f"the runs have seeds {seeds}; give runs of different seeds")
    settings = [note.settings.to_dict() for note in notes]
    for folder, note, config in zip(folders, notes, settings, strict=True):
        differ = sorted(
            name for name in config if config[name] != settings[0].get(name) and name not in ("seed", "out")
        )
        differ += [name for name in files.DIGESTS if getattr(note, name) != getattr(notes[0], name)]
        if differ:
            raise UserError(
                f"the run in {str(folder)!r} differs from the first in {', '.join(differ)}, not in seed alone"
            )
    document: dict[str, int] = {}
    measured: dict[str, tuple[int, list[Answer]]] = {}
    for run, folder in enumerate(folders):
        for when, (budget, answers) in read_answers(folder, run, document).items():
            measured.setdefault(when, (budget, []))[1].extend(answers)
    return Evaluation.model_validate({"seeds": seeds, **summarize_all(measured)})


def _finished(folder: Path) -> Notes:
    notes = Notes.read(folder)
    if notes.status != "done" or not (folder / "answers.jsonl").exists():
        raise UserError(f"the run in {str(folder)!r} is {notes.status} or has no answers.jsonl; rerun it")
    return notes


def read_answers(folder: Path, run: int, document: dict[str, int]) -> dict[str, tuple[int, list[Answer]]]:
    """Read what a run's policy answered, and under which budget, for each time it was measured.

    Args:
        folder: of a finished run.
        run: its number among those read together.
        document: number of each document met so far; new ones are added.

    Raises:
        UserError: if answers are missing or damaged: they are paired, so that one less would shift all others.
    """
    path, evaluation = folder / "answers.jsonl", Evaluation.read(folder)
    lines, skipped = files.read_lines(path, files.AnswerLine)
    measured: dict[str, tuple[int, list[Answer]]] = {}
    places: list[list[tuple[str, int, int, str]]] = []
    for when, row in (
        ("before", evaluation.before),
        ("cold_start", evaluation.cold_start),
        ("after", evaluation.after),
    ):
        if row is None:
            continue
        part = [line for line in lines if line.when == when]
        places.append([(line.document, line.position, line.tier, line.sort) for line in part])
        answers = []
        for line in part:
            position = Position(document.setdefault(line.document, len(document)), line.position, line.tier, 0.0)
            answers.append(line.answer(position, run))
        measured[when] = (row.think.budget, answers)
        if skipped or not part or places[-1] != places[0] or row.think.average.n != len(part):
            raise UserError(
                f"{str(path)!r} does not hold one answer to every position for each time that evaluation.json has; "
                f"restore it from a copy"
            )
    return measured


# Arms


def compare_runs(found: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Read the finished runs of all arms as one comparison: arms, paired, relative and lengths of ``Comparison``.

    Args:
        found: arm -> run folders, one a seed, in the same order of seeds for each arm; "rmt" among them.

    Raises:
        UserError: if arms were not measured at the same positions.
    """
    document: dict[str, int] = {}
    answered: dict[str, list[Answer]] = {}
    untrained: list[Answer] = []
    for arm, folders in found.items():
        for run, folder in enumerate(folders):
            measured = read_answers(folder, run, document)
            answered.setdefault(arm, []).extend(measured["after"][1])
            if arm == METHOD:
                untrained += measured["before"][1]
    places = [(one.run, one.position) for one in answered[METHOD]]
    for arm, answers in answered.items():
        if [(one.run, one.position) for one in answers] != places:
            raise UserError(f"arm {arm!r} was not measured at the positions of {METHOD!r}; compare into a new folder")
    rows: dict[str, Answered] = {name: (untrained, how) for name, how in BASE.items()}
    for arm, answers in answered.items():  # an arm without RL never thinks: what it predicts plainly is its result
        rows[arm] = (answers, "think" if Notes.read(found[arm][0]).settings.use_rl else "ntp")
    method, others = rows[METHOD], {name: row for name, row in rows.items() if name != METHOD}
    asked = as_one_tier(method[0])
    return {
        "arms": {name: _arm(row, compute(found[name]) if name in found else None) for name, row in rows.items()},
        "paired": [pair for name, row in others.items() for pair in _paired(method, row, name)],
        "relative": {name: _relative(method, row) for name, row in others.items()},
        "lengths": {name: _change(asked, _lengths(method) - _lengths(row)) for name, row in others.items()},
    }


def compute(folders: Sequence[Path]) -> files.Compute:
    """Return what a run of an arm took, on average over its seeds.

    Operations are 2 per parameter and token read and 4 more per token trained on. What went to the documents themselves
    served both next-token prediction and, as every branch's prefix, RL; "rl" counts what went to branches. The
    optimizer's seconds count as the documents'.
    """
    totals = [_took(folder) for folder in folders]
    means = {name: fmean(one[name] for one in totals) for name in totals[0]}
    by_tier = [means.pop(tier) for tier in TIERS]
    return files.Compute(rl_tokens_by_tier=by_tier, **means)


def _took(folder: Path) -> dict[str, float]:
    notes, lines = Notes.read(folder), files.read_metrics(folder)
    forward, backward, trunk = (
        sum(getattr(line, f"{what}_tokens") for line in lines) for what in ("forward", "backward", "trunk")
    )
    seconds = sum(line.rollout_seconds + line.update_seconds for line in lines)
    return {
        "steps": len(lines),
        "rl_tokens": sum(line.rl_tokens for line in lines),
        "ntp_tokens": sum(line.ntp_tokens for line in lines) if notes.settings.use_ntp else 0,
        "operations": 2.0 * (notes.parameters or 0) * (forward + 2 * backward),
        "rl_operations": 2.0 * (notes.parameters or 0) * (forward + 2 * backward - 3 * trunk),
        "seconds": seconds,
        "rl_seconds": seconds - sum(line.trunk_seconds for line in lines),
        "cold_start_seconds": notes.seconds["cold_start"] if notes.settings.warmup_steps else 0.0,
        **{tier: sum(line.rl_tokens_by_tier[n] for line in lines) for n, tier in enumerate(TIERS)},
    }


def steps_for_compute_of(folder: Path) -> int:
    """Return how many steps of next-token prediction alone take as many operations as a run took.

    Such a step reads the documents once and trains on them once, whatever is asked about them.
    """
    lines = files.read_metrics(folder)
    took = sum(line.forward_tokens + 2 * line.backward_tokens for line in lines)
    return max(1, round(len(lines) * took / (3 * sum(line.trunk_tokens for line in lines))))


def _values(row: Answered) -> np.ndarray:
    return np.array([one.plain if row[1] == "ntp" else one.match for one in row[0]])


def _lengths(row: Answered) -> np.ndarray:
    return np.array([0.0 if row[1] == "ntp" else one.length for one in row[0]])


def _cell(answers: Sequence[Answer], values: np.ndarray) -> Cell:
    found = interval(answers, values, [0])
    return Cell(accuracy=found["mean"], low=found["low"], high=found["high"], n=found["n"])


def _change(answers: Sequence[Answer], values: np.ndarray, tiers: Sequence[int] = (0, 1, 2)) -> Change:
    found = interval(answers, values, tiers)
    return Change(difference=found["mean"], low=found["low"], high=found["high"])


def _arm(row: Answered, took: files.Compute | None) -> files.ArmRow:
    answers, how = row
    both = files.Measured.model_validate(summarize(answers, 0))
    length = _change(as_one_tier(answers), _lengths(row))
    mine = both.think if how == "think" else both.ntp
    return files.ArmRow(
        **mine.model_dump(exclude={"budget"}),
        row="think" if how == "think" else "ntp",
        thought_length_interval=(length.low or 0.0, length.high or 0.0) if how == "think" else (0.0, 0.0),
        plain=files.Tiers(**dict(zip((*TIERS, "average"), both.ntp.columns(), strict=True))),
        seeds=len({one.run for one in answers}),
        compute=took,
    )


def _paired(method: Answered, other: Answered, name: str) -> list[files.Pair]:
    answers, gap = method[0], _values(method) - _values(other)
    parts = {column: _change(answers, gap, [tier]) for tier, column in enumerate(TIERS)}
    parts["average"] = _change(answers, gap)
    for sort in sorts_in(answers):
        chosen = np.array([one.sort == sort for one in answers])
        parts[sort] = _change(of_sort(answers, sort), gap[chosen], [0])
    return [
        files.Pair(a=METHOD, b=name, tier=tier, **change.model_dump(exclude={"n"})) for tier, change in parts.items()
    ]


def _relative(method: Answered, other: Answered) -> files.Relative:
    ratios: list[files.Ratio | None] = []
    for values, tiers, less in ((_values, (0, 1, 2), 1.0), (_lengths, (0,), 0.0)):
        answers = method[0] if values is _values else as_one_tier(method[0])
        (ours, theirs), drawn = resample(answers, np.stack([values(method), values(other)]), tiers)
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.nanpercentile(drawn[0] / drawn[1], [2.5, 97.5]) if theirs else (np.nan, np.nan)
        if not theirs or not np.isfinite([low, high]).all():  # an arm that never thinks has no length to be a part of
            ratios.append(None)
            continue
        ratios.append(files.Ratio(ratio=float(ours / theirs - less), low=float(low - less), high=float(high - less)))
    return files.Relative(accuracy=ratios[0], thought_length=ratios[1])


# Variants of a setting


def sensitivities(found: Comparison, base: RMTConfig) -> list[files.Variant]:
    """Read what each variant of the method changed, those of the setting that matters most first."""
    average = {pair.b: pair for pair in found.paired if pair.tier == "average"}
    rows = []
    for name, arm in found.arms.items():
        field, sign, value = name.partition(SIGN)
        method = found.arms[METHOD].compute
        if sign and arm.compute and method:
            default = getattr(base, field)
            shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
            changes = {"accuracy": _turned(average[name]), "thought_length": _turned(found.lengths[name])}
            took = arm.compute.operations / method.operations
            rows.append(files.Variant(setting=field, value=value, default=shown, operations=took, **changes))
    widest: dict[str, float] = {}
    for row in rows:
        widest[row.setting] = max(widest.get(row.setting, 0.0), abs(row.accuracy.difference or 0.0))
    return sorted(rows, key=lambda row: (-widest[row.setting], row.setting))


def _turned(change: Change) -> Change:
    """Return the change with its sign turned, for a variant minus the method."""
    middle, low, high = (None if end is None else -end for end in (change.difference, change.high, change.low))
    return Change(difference=middle, low=low, high=high)


# Post-training


def read_exams(found: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Read the post-training runs of several models: arms, paired, along and samples of ``ExamOutcome``.

    The first step is 0, before post-training. "along" is the mean over all steps measured but the first: whoever needs
    fewer steps is ahead there, though both end alike.

    Args:
        found: "base" or the name of an arm -> run folders, one a seed, in the same order of seeds; "rmt" among them.
    """
    lines = {
        name: [files.read_lines(one / "answers.jsonl", files.ExamLine).good for one in runs]
        for name, runs in found.items()
    }
    samples, question = lines[METHOD][0][0].samples, dict[str, int]()
    ks = list(dict.fromkeys((1, samples)))
    arms: dict[str, list[files.ExamStep]] = {name: [] for name in found}
    paired: list[files.ExamPair] = []
    gaps: dict[tuple[str, int], list[np.ndarray]] = {}  # by model and k, at every step measured
    for step in sorted({line.step for line in lines[METHOD][0]}):
        values: dict[tuple[str, int], np.ndarray] = {}
        answered: dict[str, list[Answer]] = {}
        for name, runs in lines.items():
            mine = [(run, line) for run, part in enumerate(runs) for line in part if line.step == step]
            places = [Position(question.setdefault(line.question, len(question)), 1, 0, 0.0) for _, line in mine]
            answered[name] = [Answer(at, 0, 0, 0, True, run=run) for at, (run, _) in zip(places, mine, strict=True)]
            values |= {(name, k): np.array([pass_at_k(line.right, samples, k) for _, line in mine]) for k in ks}
            cells = {k: _cell(answered[name], values[name, k]) for k in ks}
            length = float(np.mean([line.thought_length for _, line in mine]))
            arms[name].append(files.ExamStep(step=step, pass_at=cells, thought_length=length))
        for name in [name for name in found if name != METHOD]:
            for k in ks:
                gaps.setdefault((name, k), []).append(values[METHOD, k] - values[name, k])
                paired.append(_exam_pair(name, k, answered[METHOD], gaps[name, k][-1], step))
    along = [_exam_pair(name, k, answered[METHOD], np.mean(gap[1:], axis=0)) for (name, k), gap in gaps.items()]
    return {"arms": arms, "paired": paired, "along": along, "samples": samples}


def _exam_pair(
    name: str, k: int, answers: Sequence[Answer], gap: np.ndarray, step: int | None = None
) -> files.ExamPair:
    change = _change(answers, gap, [0])
    return files.ExamPair(a=METHOD, b=name, step=step, k=k, **change.model_dump(exclude={"n"}))
