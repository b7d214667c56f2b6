"""Numbers of a comparison: every arm by tier, and every other arm against RMT, with intervals over seeds and documents.

All arms answer the same held-out positions, seed by seed, so differences are taken position by position. A difference
that several seeds share is no luck of one seed; with few of them that part of the interval is known roughly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from rmt_mini.arms import BASE, METHOD
from rmt_mini.errors import UserError
from rmt_mini.files import read_metrics
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import Answer
from rmt_mini.report.seeds import read_answers
from rmt_mini.stages.statistics import as_one_tier, interval, of_sort, resample, sorts_in, summarize

Json = dict[str, Any]
# Standard deviation of a difference at one position: that of RMT and its closest ablations, 0.43 to 0.59 in the
# recorded comparison of the micro-world (an interval is 2 x 1.96 x SPREAD / positions^0.5). Arms that differ by more
# differ by more from seed to seed as well.
SPREAD = 0.54


def expected_half_width(positions: int, seeds: int, spread: float = SPREAD) -> float:
    """Return half the 95 % interval that a difference of two arms will have, before anything is run.

    Seeds count as so many more positions. What training itself does differently from seed to seed comes on top.

    Args:
        positions: held-out positions of a run.
        seeds: runs of each arm.
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


def compare_runs(found: Mapping[str, Sequence[Path]]) -> Json:
    """Read the finished runs of all arms as one comparison.

    Args:
        found: arm -> run folders, one a seed, in the same order of seeds for each arm; "rmt" among them.

    Returns:
        {"arms": {name: {tier or "average": {"accuracy", "low", "high", "n"}, "sorts", "thought_length", "plain",
        "compute"}}, "paired": [{"a", "b", "tier", "difference", "low", "high"}], "relative": {arm: {"accuracy",
        "thought_length"}}, "lengths": {arm: {"difference", "low", "high"}}}. A difference is a minus b, in "lengths"
        RMT minus the arm, tokens. "plain" holds what the arm predicts without a thought; "relative" RMT over the arm:
        accuracy minus 1, and the ratio of thought lengths, each with its interval.

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
    rows = {name: (untrained, how) for name, how in BASE.items()}
    # an arm without RL never thinks: what it predicts plainly is its result
    thinks = {arm: _notes(folders[0])["config"]["use_rl"] for arm, folders in found.items()}
    rows |= {arm: (answers, "think" if thinks[arm] else "ntp") for arm, answers in answered.items()}
    arms = {name: _arm(answers, how) for name, (answers, how) in rows.items()}
    for arm, folders in found.items():
        arms[arm]["compute"] = compute(folders)
    others = [name for name in rows if name != METHOD]
    return {
        "arms": arms,
        "paired": [pair for name in others for pair in _paired(rows[METHOD], rows[name], name)],
        "relative": {name: _relative(rows[METHOD], rows[name]) for name in others},
        "lengths": {name: _longer(rows[METHOD], rows[name]) for name in others},
    }


def compute(folders: Sequence[Path]) -> Json:
    """Return what a run of an arm took, on average over its seeds.

    Operations are 2 per parameter and token read and 4 more per token trained on. What went to the documents themselves
    served both next-token prediction and, as every branch's prefix, RL; "rl" counts what went to branches. The
    optimizer's seconds count as the documents'.

    Returns:
        {"steps", "rl_tokens", "ntp_tokens": trained on; "rl_tokens_by_tier"; "operations", "rl_operations"; "seconds",
        "rl_seconds": of the steps; "cold_start_seconds"}.
    """
    totals = [_took(folder) for folder in folders]
    found: Json = {key: fmean(one[key] for one in totals) for key in totals[0] if key != "rl_tokens_by_tier"}
    by_tier = zip(*(one["rl_tokens_by_tier"] for one in totals), strict=True)
    return found | {"rl_tokens_by_tier": [fmean(tokens) for tokens in by_tier]}


def _took(folder: Path) -> Json:
    notes = _notes(folder)
    lines = read_metrics(folder)
    forward, backward, trunk = (
        sum(getattr(line, f"{what}_tokens") for line in lines) for what in ("forward", "backward", "trunk")
    )
    seconds = sum(line.rollout_seconds + line.update_seconds for line in lines)
    return {
        "steps": len(lines),
        "rl_tokens": sum(line.rl_tokens for line in lines),
        "ntp_tokens": sum(line.ntp_tokens for line in lines) if notes["config"]["use_ntp"] else 0,
        "rl_tokens_by_tier": [sum(line.rl_tokens_by_tier[tier] for line in lines) for tier in range(len(TIERS))],
        "operations": 2.0 * notes["parameters"] * (forward + 2 * backward),
        "rl_operations": 2.0 * notes["parameters"] * (forward + 2 * backward - 3 * trunk),
        "seconds": seconds,
        "rl_seconds": seconds - sum(line.trunk_seconds for line in lines),
        "cold_start_seconds": notes["seconds"]["cold_start"] if notes["config"]["warmup_steps"] else 0.0,
    }


def steps_for_compute_of(folder: Path) -> int:
    """Return how many steps of next-token prediction alone take as many operations as a run took.

    Such a step reads the documents once and trains on them once, whatever is asked about them.
    """
    lines = read_metrics(folder)
    took = sum(line.forward_tokens + 2 * line.backward_tokens for line in lines)
    return max(1, round(len(lines) * took / (3 * sum(line.trunk_tokens for line in lines))))


def _notes(folder: Path) -> Json:
    notes: Json = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return notes


def _values(row: tuple[Sequence[Answer], str]) -> np.ndarray:
    answers, how = row
    return np.array([one.plain if how == "ntp" else one.match for one in answers])


def _lengths(row: tuple[Sequence[Answer], str]) -> np.ndarray:
    answers, how = row
    return np.array([0.0 if how == "ntp" else one.length for one in answers])


def _arm(answers: Sequence[Answer], how: str) -> Json:
    both = summarize(answers, 0)
    length = interval(as_one_tier(answers), _lengths((answers, how)))
    row: Json = both[how] | {
        "row": how,
        "thought_length_interval": [length["low"], length["high"]] if how == "think" else [0.0, 0.0],
        "plain": {column: both["ntp"][column] for column in (*TIERS, "average")},
        "seeds": len({one.run for one in answers}),
    }
    del row["budget"]
    return row


def _paired(method: tuple[Sequence[Answer], str], other: tuple[Sequence[Answer], str], name: str) -> list[Json]:
    answers, difference = method[0], _values(method) - _values(other)
    parts = [(column, interval(answers, difference, [tier])) for tier, column in enumerate(TIERS)]
    parts.append(("average", interval(answers, difference)))
    for sort in sorts_in(answers):
        chosen = np.array([one.sort == sort for one in answers])
        parts.append((sort, interval(of_sort(answers, sort), difference[chosen], [0])))
    return [
        {"a": METHOD, "b": name, "tier": tier, "difference": cell["mean"], "low": cell["low"], "high": cell["high"]}
        for tier, cell in parts
    ]


def _longer(method: tuple[Sequence[Answer], str], other: tuple[Sequence[Answer], str]) -> Json:
    found = interval(as_one_tier(method[0]), _lengths(method) - _lengths(other))
    return {"difference": found["mean"], "low": found["low"], "high": found["high"]}


def _relative(method: tuple[Sequence[Answer], str], other: tuple[Sequence[Answer], str]) -> Json:
    found: Json = {}
    for key, values, tiers, less in (("accuracy", _values, (0, 1, 2), 1.0), ("thought_length", _lengths, (0,), 0.0)):
        answers = method[0] if key == "accuracy" else as_one_tier(method[0])
        (ours, theirs), drawn = resample(answers, np.stack([values(method), values(other)]), tiers)
        if theirs == 0:  # an arm that never thinks has no length to be a part of
            found[key] = None
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            low, high = np.nanpercentile(drawn[0] / drawn[1], [2.5, 97.5])
        found[key] = {"ratio": float(ours / theirs - less), "low": float(low - less), "high": float(high - less)}
    return found
