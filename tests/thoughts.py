"""What goes wrong in a world's thoughts: ``python -m tests.thoughts runs/abacus-2 OUT.json``, after a comparison.

A thought about a calculable token is right if it calculates at all, finds where the calculation starts and its moves in
the text, and follows each move. At the calculable ones of a run's held-out positions thoughts are sampled again, of the
base under the first budget and of what RMT made of it under the last, and each of these parts is counted.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch

from rmt_mini.engine.model import load_policy
from rmt_mini.engine.rollout import roll_out
from rmt_mini.engine.text import format_for
from rmt_mini.files import ComparisonPlan, Notes
from rmt_mini.method.schedule import budget_of
from rmt_mini.records import Position
from rmt_mini.runs.compare import run_folder
from rmt_mini.runs.run import prepare, read_positions
from rmt_mini.stages.evaluate import read_for
from rmt_mini.stages.midtrain import asking_for
from rmt_mini.worlds.micro import CALCULABLE, ORDER, TEXTS, WORLDS, Working, World, _steps, page

COUNT = 4  # thoughts at a position


class Thought(NamedTuple):
    """A calculation as a thought says it: where it starts, and each move with what it leads to."""

    start: str
    steps: list[tuple[str, str]]


def read_thought(thought: str, world: World) -> Thought | None:
    """Read a thought of any of the world's styles; None if it does not calculate."""
    for phrases in world.thoughts.values():
        start, step = (
            re.sub(r"\\\{(\w+)\\\}", r"(?P<\1> \\w+)", re.escape(phrases[part])) for part in ("start", "step")
        )
        step = step.replace("(?P<order> \\w+)", f"(?:{'|'.join(ORDER)})")
        opened, said = re.match(start, thought), list(re.finditer(step, thought))
        if opened and said:
            first = opened.groupdict().get("start") or said[0]["old"]
            return Thought(first, [(one["operand"], one["new"]) for one in said])
    return None


def parts_right(thought: str, truth: Working, world: World) -> dict[str, float]:
    """Return which parts of a thought are right, each 0 or 1, and the share of its steps that follow their move."""
    read = read_thought(thought, world)
    if read is None:
        return {"calculates": 0.0}
    moves, ends = [move for move, _ in read.steps], [end for _, end in read.steps]
    froms = [read.start, *ends[:-1]]
    follows = [_follows(at, move, end, world) for at, move, end in zip(froms, moves, ends, strict=True)]
    right = {"start": read.start == truth.start, "moves": moves == [move for move, _ in truth.steps]}
    whole = all(right.values()) and all(follows)
    return {"calculates": 1.0, "steps": sum(follows) / len(follows), "whole": whole} | right


def _follows(at: str, move: str, end: str, world: World) -> bool:
    try:
        return next(_steps(at.strip(), [move.strip()], world)) == (move, end)
    except ValueError:  # not both are digits
        return False


@torch.no_grad()
def measure(run: Path, model: str, budget: int) -> dict[str, float | None]:
    """Return the share of right parts over thoughts of ``model`` at the calculable held-out positions of ``run``.

    "start", "moves", "steps" and "whole" are shares of the thoughts that calculate.
    """
    config = Notes.read(run).settings
    policy = load_policy(model, config.device, config.dtype)
    texts = prepare(config, policy).held_out
    form, habits = format_for(policy, config), TEXTS[config.corpus]
    asked, truths = list[Position](), list[Working]()
    for position in read_positions(run, texts):
        text = texts[position.trunk]
        if text.sorts and text.sorts[position.index] == CALCULABLE:
            before = policy.tokenizer.decode(text.ids[: position.index])
            at, number = 0, int(text.id.rpartition("-")[2])
            for piece in page(habits, 0, number).pieces:
                if at == len(before) and piece.working:
                    asked.append(position)
                    truths.append(piece.working)
                at += len(piece.text)
    trunks = read_for(policy, texts, asked)
    asking = asking_for(config, [budget] * len(asked), answer_temperature=0.0)
    generator = torch.Generator().manual_seed(config.seed)
    rollouts = roll_out(policy, form, trunks, asked, COUNT, asking, generator)
    found = list[dict[str, float]]()
    for place, one in enumerate(rollouts):
        thought, text = policy.tokenizer.decode(one.thought), texts[one.position.trunk]
        parts = parts_right(thought, truths[place // COUNT], WORLDS[habits.world])
        found.append(parts | {"right": form.judge(one.answer, text.ids, one.position.index)})
    names = ("calculates", "start", "moves", "steps", "whole", "right")
    return {"thoughts": len(found)} | {name: _mean(found, name) for name in names}


def _mean(found: Sequence[dict[str, float]], name: str) -> float | None:
    values = [parts[name] for parts in found if name in parts]
    return round(fmean(values), 4) if values else None  # none, where no thought calculates


def main(folder: Path, out: Path) -> None:
    """Measure each base of a comparison before and after RMT."""
    plan, made = ComparisonPlan.read(folder), dict[str, list[Any]](before=[], after=[])
    for base in range(plan.bases):
        run = run_folder(folder, "rmt", plan.config.seed, base)
        config = Notes.read(run).settings
        made["before"].append(measure(run, config.model, config.budget_start))
        made["after"].append(measure(run, str(run / "checkpoint"), budget_of(config, config.steps)))
    out.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
