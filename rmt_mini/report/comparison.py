"""Several runs read together: seeds as one result, arms against RMT, post-training, variants of a setting.

All arms answer the same held-out positions, seed by seed, so differences are taken position by position. Intervals are
those of ``stages/statistics.py``, over documents (or questions), seeds and bases.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from rmt_mini import files
from rmt_mini.arms import BASE, METHOD
from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.files import Cell, Change, Comparison, Evaluation, Measured, Notes
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import Answer, Position
from rmt_mini.stages import statistics
from rmt_mini.stages.posttrain import pass_at_k

SPREAD = 0.54  # standard deviation of a difference at one position; 0.43 to 0.59 for RMT's ablations in data/micro
SIGN = "="  # a variant is an arm named FIELD=VALUE
UNTRAINED = "base"  # the model that mid-training began with, as an exam names it


def expected_half_width(positions: int, seeds: int, spread: float = SPREAD) -> float:
    """Return half the 95 % interval of a difference of two arms; variation between trainings adds to it.

    ``seeds`` multiply the positions of a run; ``spread`` is the standard deviation of the difference at one position.
    """
    return float(1.96 * spread / (positions * seeds) ** 0.5)


def expected_positions(half_width: float, seeds: int, spread: float = SPREAD) -> int:
    """Return how many held-out positions make ``expected_half_width`` no wider than asked for.

    Example:
        >>> expected_positions(0.03, 5), round(expected_half_width(249, 5), 3)
        (249, 0.03)
    """
    return math.ceil((1.96 * spread / half_width) ** 2 / seeds)


def across_seeds(folders: Sequence[Path]) -> Evaluation:
    """Read the answers of finished runs that differ in their seed alone as those of one; a UserError if they do not."""
    notes = [Notes.read(folder) for folder in folders]
    seeds = [note.seed for note in notes]
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise UserError(f"the runs have seeds {seeds}; give two or more runs of different seeds")
    for folder, note in zip(folders, notes, strict=True):
        if note.kind != "mid-training":
            raise UserError(f"{str(folder)!r} is a {note.kind} run; give those of mid-training")
        if note.status != "done" or not (folder / "answers.jsonl").exists():
            raise UserError(f"the run in {str(folder)!r} is {note.status} or has no answers.jsonl; rerun it")
        differ = sorted({*note.settings.differences(notes[0].settings)} - {"seed"})
        differ += [name for name in files.DIGESTS if getattr(note, name) != getattr(notes[0], name)]
        if differ:
            names = ", ".join(differ)
            raise UserError(f"the run in {str(folder)!r} differs from the first in {names}, not in seed alone")
    document: dict[str, int] = {}
    measured: dict[str, tuple[int, list[Answer]]] = {}
    for run, folder in enumerate(folders):
        for when, (budget, answers) in read_answers(folder, run, document).items():
            measured.setdefault(when, (budget, []))[1].extend(answers)
    return Evaluation.model_validate({"seeds": seeds, **statistics.summarize_all(measured)})


def read_answers(
    folder: Path, run: int, document: dict[str, int], base: int = 0
) -> dict[str, tuple[int, list[Answer]]]:
    """Read what the policy of a finished run answered, and under which budget, for each time it was measured.

    ``run`` is its number among those read together, ``base`` that of the model it began with, ``document`` that of each
    document so far; new ones are added. A UserError says that answers are missing or damaged: they are paired, so that
    one less would shift all others.
    """
    path, evaluation = folder / "answers.jsonl", Evaluation.read(folder)
    lines, skipped = files.read_lines(path, files.AnswerLine)
    measured: dict[str, tuple[int, list[Answer]]] = {}
    first: list[tuple[str, int, int, str]] = []
    for when in files.TIMES:
        row: Measured | None = getattr(evaluation, when)
        if row is None:
            continue
        part = [line for line in lines if line.when == when]
        places = [(line.document, line.position, line.tier, line.sort) for line in part]
        first = first or places
        if skipped or not part or places != first or row.think.average.n != len(part):
            raise UserError(
                f"{str(path)!r} does not hold one answer to every position for each time that evaluation.json has; "
                f"restore it from a copy"
            )
        trunks = [document.setdefault(line.document, len(document)) for line in part]
        answers = [
            line.answer(Position(trunk, line.position, line.tier, 0.0), run, base)
            for trunk, line in zip(trunks, part, strict=True)
        ]
        measured[when] = (row.think.budget, answers)
    return measured


def compare_runs(found: Mapping[str, Sequence[Path | None]], bases: int = 1) -> dict[str, Any]:
    """Read the finished runs of all arms as one comparison: the fields of ``Comparison`` down to overlap.

    ``found`` has the run folders of each arm in the same order, as many for each base and those of one base together;
    "rmt" is among them, and has all. None stands for a run that an arm lacks, which is compared on those it has. A
    UserError names an arm that was not measured at the positions of the others.
    """
    document: dict[str, int] = {}
    # an arm without RL never thinks: what it predicts plainly is its result
    there = {arm: [path for path in folders if path] for arm, folders in found.items()}
    ways = BASE | {arm: "think" if Notes.read(runs[0]).settings.use_rl else "ntp" for arm, runs in there.items()}
    rows: dict[str, list[Answer]] = {name: [] for name in ways}
    for arm, folders in found.items():
        for run, folder in enumerate(folders):
            if folder is None:
                continue
            measured = read_answers(folder, run, document, run * bases // len(folders))
            given = {arm: measured["after"][1]} | (dict.fromkeys(BASE, measured["before"][1]) if arm == METHOD else {})
            for name, answers in given.items():
                plain = [replace(one, match=one.plain, length=0, closed=False) for one in answers]
                rows[name] += answers if ways[name] == "think" else plain
    method: dict[str, list[Answer]] = {}  # its answers in the runs that another has
    for name, row in rows.items():
        runs = {one.run for one in row}
        method[name] = [one for one in rows[METHOD] if one.run in runs]
        if [(one.run, one.position) for one in row] != [(one.run, one.position) for one in method[name]]:
            raise UserError(f"arm {name!r} was not measured at the positions of {METHOD!r}; compare into a new folder")
    others = {name: row for name, row in rows.items() if name != METHOD}
    return {
        "arms": {name: _arm(row, ways[name], there.get(name, [])) for name, row in rows.items()},
        "paired": [pair for name, row in others.items() for pair in _paired(method[name], row, name)],
        "relative": {name: _relative(method[name], row) for name, row in others.items()},
        "lengths": {
            name: statistics.change(
                statistics.as_one_tier(method[name]), _gap(method[name], row, "length"), limits=None
            )
            for name, row in others.items()
        },
        "overlap": Notes.read(there[METHOD][0]).overlap,
    }


def compute(folders: Sequence[Path]) -> files.Compute:
    """Return what a run of an arm took, on average over its seeds.

    Operations are 2 per parameter and token read and 4 more per token trained on. What went to the documents themselves
    served both next-token prediction and, as every branch's prefix, RL; "rl" counts what went to branches. The
    optimizer's seconds count as the documents'.
    """
    took: list[dict[str, Any]] = []
    for folder in folders:
        notes, lines = Notes.read(folder), files.read_metrics(folder)
        forward, backward, trunk, rl, ntp = (
            sum(getattr(line, f"{what}_tokens") for line in lines)
            for what in ("forward", "backward", "trunk", "rl", "ntp")
        )
        seconds = sum(line.rollout_seconds + line.update_seconds for line in lines)
        took.append(
            {
                "steps": len(lines),
                "rl_tokens": rl,
                "rl_tokens_by_tier": np.sum([line.rl_tokens_by_tier for line in lines], axis=0),
                "ntp_tokens": ntp if notes.settings.use_ntp else 0,
                "operations": 2.0 * (notes.parameters or 0) * (forward + 2 * backward),
                "rl_operations": 2.0 * (notes.parameters or 0) * (forward + 2 * backward - 3 * trunk),
                "seconds": seconds,
                "rl_seconds": seconds - sum(line.trunk_seconds for line in lines),
                "cold_start_seconds": notes.seconds["cold_start"] if notes.settings.warmup_steps else 0.0,
            }
        )
    return files.Compute(**{name: np.mean([one[name] for one in took], axis=0).tolist() for name in took[0]})


def steps_for_compute_of(folder: Path) -> int:
    """Return how many steps of next-token prediction alone take as many operations as a run took.

    Such a step reads the documents once and trains on them once, whatever is asked about them.
    """
    lines = files.read_metrics(folder)
    took = sum(line.forward_tokens + 2 * line.backward_tokens for line in lines)
    return max(1, round(len(lines) * took / (3 * sum(line.trunk_tokens for line in lines))))


def _gap(ours: Sequence[Answer], theirs: Sequence[Answer], measure: str) -> np.ndarray:
    return np.array([getattr(a, measure) - getattr(b, measure) for a, b in zip(ours, theirs, strict=True)])


def _arm(answers: Sequence[Answer], way: str, folders: Sequence[Path]) -> files.ArmRow:
    both = Measured.model_validate(statistics.summarize(answers, 0))
    length = statistics.interval(statistics.as_one_tier(answers), np.array([one.length for one in answers]))
    return files.ArmRow(
        **both.think.model_dump(exclude={"budget"}, exclude_unset=True),
        row="think" if way == "think" else "ntp",
        thought_length_interval=None if length["low"] is None else (length["low"], length["high"]),
        plain=both.ntp,
        seeds=len({one.run for one in answers}) // len({one.base for one in answers}),
        compute=compute(folders) if folders else None,
        more=both.more,
        curves=_curves(folders, way),
        by_base=statistics.by_base(answers),
    )


def _curves(folders: Sequence[Path], way: str) -> dict[str, dict[int, Cell]]:
    """Average the learning curves of an arm's runs, with intervals over runs: average or sort -> step -> accuracy.

    Steps that some run did not reach are left out: an arm of equal compute takes more steps from one base than another.
    """
    read = (files.read_lines(folder / "curve.jsonl", files.CurvePoint).good for folder in folders)
    found: dict[str, dict[int, list[float]]] = {}
    for point in (point for points in read for point in points):
        for part, (plain, think) in ({"average": (point.plain, point.think)} | point.sorts).items():
            found.setdefault(part, {}).setdefault(point.step, []).append(think if way == "think" else plain)
    reached = {
        part: {step: runs for step, runs in steps.items() if len(runs) == len(folders)} for part, steps in found.items()
    }
    return {
        part: {
            step: Cell(accuracy=over_runs.pop("mean"), **over_runs)
            for step, runs in steps.items()
            for over_runs in [statistics.interval_of_mean(np.array(runs), statistics.SHARE)]
        }
        for part, steps in reached.items()
        if steps
    }


def _paired(method: Sequence[Answer], other: Sequence[Answer], name: str) -> list[files.Pair]:
    gap = _gap(method, other, "match")
    parts = {column: statistics.change(method, gap, [tier], tested=True) for tier, column in enumerate(TIERS)}
    parts["average"] = statistics.change(method, gap, tested=True)
    if all(one.gated is not None for one in (*method, *other)):
        parts["gated"] = statistics.change(method, _gap(method, other, "gated"), tested=True)
    for sort in statistics.sorts_in(method):
        parts[sort] = statistics.change(
            statistics.of_sort(method, sort), gap[[one.sort == sort for one in method]], tested=True
        )
    return [files.Pair(a=METHOD, b=name, tier=tier, **found) for tier, found in parts.items()]


def _relative(ours: Sequence[Answer], theirs: Sequence[Answer]) -> dict[str, files.Ratio | None]:
    """Return ours over theirs, of accuracy minus 1; None where theirs is zero, as the length of an arm without RL."""
    found: dict[str, files.Ratio | None] = {}
    parts = (("accuracy", "match", ours, 1.0), ("thought_length", "length", statistics.as_one_tier(ours), 0.0))
    for name, measure, places, less in parts:
        values = (np.array([getattr(one, measure) for one in answers], dtype=float) for answers in (ours, theirs))
        (mine, added), (other, others) = (statistics.influence(places, value, (0, 1, 2)) for value in values)
        spread = mine and other and statistics.spread_of(places, added / mine - others / other, (0, 1, 2))
        if spread:  # of the ratio's logarithm
            ratio, by = mine / other, math.exp(spread.half_width())
            ends = {"low": ratio / by - less, "high": ratio * by - less}
            found[name] = files.Ratio(ratio=ratio - less, **ends, p=spread.p_value(math.log(ratio)))
        else:
            found[name] = None
    return found


def value_name(value: object) -> str:
    """Write a setting's value as the name of its variant has it."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def sensitivities(found: Comparison, base: RMTConfig) -> list[files.Variant]:
    """Read what each variant of the method changed, those of the setting that matters most first."""
    average = {pair.b: pair for pair in found.paired if pair.tier == "average"}
    method, rows, widest = found.arms[METHOD].compute, [], dict[str, float]()
    for name, arm in found.arms.items():
        field, sign, value = name.partition(SIGN)
        if sign and arm.compute and method:
            row = files.Variant(
                setting=field,
                value=value,
                default=value_name(getattr(base, field)),
                accuracy=_turned(average[name]),
                p=average[name].p,
                thought_length=_turned(found.lengths[name]),
                operations=arm.compute.operations / method.operations,
            )
            rows.append(row)
            widest[field] = max(widest.get(field, 0.0), abs(row.accuracy.difference or 0.0))
    return sorted(rows, key=lambda row: (-widest[row.setting], row.setting))


def _turned(found: Change) -> Change:
    """Return a variant minus the method, from the method minus the variant."""
    middle, low, high = (None if end is None else -end for end in (found.difference, found.high, found.low))
    return Change(difference=middle, low=low, high=high)


def read_exams(found: Mapping[str, Sequence[Path]], bases: int = 1) -> dict[str, Any]:
    """Read the post-training runs of several models: arms, paired, along and samples of ``ExamOutcome``.

    Arguments are as for ``compare_runs``; ``found`` may have "base". A question counts where all models of a run were
    asked it: a busy machine may have left one out. "along" is the mean over all steps measured except the first, which
    is before post-training: whoever needs fewer steps is ahead there, though both end alike.
    """
    lines = {
        name: [files.read_lines(one / "answers.jsonl", files.ExamLine).good for one in runs]
        for name, runs in found.items()
    }
    for together in zip(*lines.values(), strict=True):  # of one base and seed
        shared = set.intersection(*({line.question for line in part} for part in together))
        for part in together:
            part[:] = [line for line in part if line.question in shared]
    samples, question = lines[METHOD][0][0].samples, dict[str, int]()
    steps, ks = sorted({line.step for line in lines[METHOD][0]}), sorted({1, samples})
    arms: dict[str, list[files.ExamStep]] = {name: [] for name in found}
    answered: dict[tuple[int, str, int], list[Answer]] = {}  # by step, model and k, where a match is pass@k
    for step, (name, runs) in product(steps, lines.items()):
        mine = [(run, line) for run, part in enumerate(runs) for line in part if line.step == step]
        places = [Position(question.setdefault(line.question, len(question)), 1, 0, 0.0) for _, line in mine]
        cells = {}
        for k in ks:
            answered[step, name, k] = answers = [
                Answer(place, 0, pass_at_k(line.right, samples, k), 0, True, "", run, run * bases // len(lines[name]))
                for place, (run, line) in zip(places, mine, strict=True)
            ]
            one = statistics.interval(answers, np.array([one.match for one in answers]), limits=statistics.SHARE)
            cells[k] = Cell(accuracy=one.pop("mean"), **one)
        length = float(np.mean([line.thought_length for _, line in mine]))
        parts = statistics.by_base(answered[step, name, 1])
        arms[name].append(files.ExamStep(step=step, pass_at=cells, thought_length=length, by_base=parts))
    gaps = {
        (name, k): [_gap(answered[step, METHOD, k], answered[step, name, k], "match") for step in steps]
        for name, k in product([name for name in found if name != METHOD], ks)
    }

    def pair(name: str, k: int, gap: np.ndarray, step: int | None) -> files.Pair:
        found = statistics.change(answered[steps[0], METHOD, k], gap, tested=True)
        return files.Pair(a=METHOD, b=name, step=step, k=k, **found)

    paired = [pair(*key, gap[n], step) for n, step in enumerate(steps) for key, gap in gaps.items()]
    along = [pair(*key, np.mean(gap[1:], axis=0), None) for key, gap in gaps.items()]
    return {"arms": arms, "paired": paired, "along": along, "samples": samples}
