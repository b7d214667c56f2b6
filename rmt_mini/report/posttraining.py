"""Post-training of several models over several seeds, read as one: who answers more questions in the end?

Every model of a seed is asked the same held-out questions, before, on the way, and after. Intervals draw seeds and
questions anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rmt_mini.arms import METHOD
from rmt_mini.records import Answer, Position
from rmt_mini.stages.posttrain import pass_at_k
from rmt_mini.stages.statistics import interval

Json = dict[str, Any]
UNTRAINED = "base"  # the model that mid-training began with


def read_exams(found: Mapping[str, Sequence[Path]]) -> Json:
    """Read the post-training runs of several models as one comparison.

    Args:
        found: "base" or the name of an arm -> run folders, one a seed, in the same order of seeds; "rmt" among them.

    Returns:
        {"arms": {name: [{"step", "pass_at": {k: {"accuracy", "low", "high", "n"}}, "thought_length"}, ...]}, "paired":
        [{"a", "b", "step", "k", "difference", "low", "high"}], "along": [the same without a step], "samples"}. The
        first step is 0, before post-training, and k is 1 and the number of samples. A difference is a minus b; along
        the way it is the mean over all steps measured but the first: who needs fewer steps is ahead there, though both
        end alike.
    """
    lines = {name: [_lines(folder) for folder in folders] for name, folders in found.items()}
    steps = sorted({line["step"] for line in lines[METHOD][0]})
    samples = lines[METHOD][0][0]["samples"]
    question: dict[str, int] = {}
    arms: Json = {}
    paired: list[Json] = []
    gaps: dict[tuple[str, int], list[np.ndarray]] = {}  # by model and k, at every step measured
    for step in steps:
        answered = {name: list(_answers(runs, step, question)) for name, runs in lines.items()}
        values = {k: {name: _values(answered[name], samples, k) for name in lines} for k in dict.fromkeys((1, samples))}
        for name, answers in answered.items():
            row = {"step": step, "pass_at": {str(k): _cell(answers, one[name]) for k, one in values.items()}}
            row["thought_length"] = float(np.mean([answer.length for answer in answers]))
            arms.setdefault(name, []).append(row)
        for name in [name for name in lines if name != METHOD]:
            for k, one in values.items():
                gaps.setdefault((name, k), []).append(one[METHOD] - one[name])
                paired.append(_pair(name, k, answered[METHOD], gaps[name, k][-1], step=step))
    along = [_pair(name, k, answered[METHOD], np.mean(one[1:], axis=0)) for (name, k), one in gaps.items()]
    return {"arms": arms, "paired": paired, "along": along, "samples": samples}


def _pair(name: str, k: int, answers: Sequence[Answer], gap: np.ndarray, **more: Any) -> Json:
    cell = interval(answers, gap, [0])
    found = {"difference": cell["mean"], "low": cell["low"], "high": cell["high"]}
    return {"a": METHOD, "b": name, **more, "k": k, **found}


def _lines(folder: Path) -> list[Json]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def _answers(runs: Sequence[Sequence[Json]], step: int, question: dict[str, int]) -> Iterator[Answer]:
    """Yield a question's answers as one: how many were right, and how long its thoughts were on average."""
    for run, lines in enumerate(runs):
        for line in lines:
            if line["step"] == step:
                place = Position(question.setdefault(line["question"], len(question)), 1, 0, 0.0)
                yield Answer(place, 0.0, line["right"], line["thought_length"], True, run=run)


def _values(answers: Sequence[Answer], samples: int, k: int) -> np.ndarray:
    return np.array([pass_at_k(int(answer.match), samples, k) for answer in answers])


def _cell(answers: Sequence[Answer], values: np.ndarray) -> Json:
    found = interval(answers, values, [0])
    return {"accuracy": found["mean"], **{key: found[key] for key in ("low", "high", "n")}}
