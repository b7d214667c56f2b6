"""Results: recorded ones, how fine an interval tells them apart, pass@k, and what a new text asks of the settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from rmt_mini.arms import BASE, METHOD
from rmt_mini.config import preset
from rmt_mini.engine.model import Policy
from rmt_mini.engine.rollout import Asking, roll_out
from rmt_mini.engine.text import generator_for
from rmt_mini.errors import UserError
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import Text
from rmt_mini.report import plots
from rmt_mini.report.claims import PAPER, SHOWN, trained_as
from rmt_mini.report.comparison import expected_half_width, expected_positions
from rmt_mini.report.plots import Figured
from rmt_mini.runs.run import prepare
from rmt_mini.stages.evaluate import plan_positions, read_for
from rmt_mini.stages.material import format_for, trunk_entropy
from rmt_mini.stages.posttrain import pass_at_k
from rmt_mini.teaching.begin import recorded
from rmt_mini.teaching.widgets.answers import micro_base
from rmt_mini.teaching.widgets.controls import Explorer, choice, explore, line, number, whole
from rmt_mini.worlds.micro import CALCULABLE, NOISE, SAYING

Json = dict[str, Any]
COMPARISON, RECKONING = "micro/comparison", "micro/reckoning"
EXAMS = {  # name -> what was mid-trained on which text, and the source of the questions
    "new kinds": (COMPARISON, "micro"),
    "the text's own": (COMPARISON, "micro-text"),
    "own, calculations alone": (RECKONING, "micro-text"),
}
LENGTH = "thought length"
MEASURES = ("average", *TIERS, CALCULABLE, SAYING, NOISE, LENGTH)
ABLATIONS = ("rmt-no-budget", "rmt-no-curriculum", "rmt-no-ntp", "rmt-random-tokens")
ROWS = ("all", "ablations", "baseline and controls", "untrained")
PAPER_GAP = round(PAPER[METHOD][3] - PAPER["rmt-no-curriculum"][3], 2)  # points, to the paper's closest ablation
PAPER_SAMPLES = 200
GRID = (50, 100, 200, 400, 800, 1600, 3200, 6400)  # positions that curves are drawn over
TEXTS, ASKED, EACH, LONGEST = 32, 48, 2, 64  # of a new text: texts, positions, thoughts at each, their cap in tokens


@lru_cache
def comparison(part: str = "comparison", name: str = COMPARISON) -> Json:
    """Read a part of a recorded comparison: "comparison" or "posttraining".

    Raises:
        UserError: if it is not recorded here.
    """
    path = recorded(name) / f"{part}.json"
    if not path.exists():
        raise UserError(f"data/{name}/{part}.json is not here; rmt-mini compare and rmt-mini exams make it")
    found: Json = json.loads(path.read_text(encoding="utf-8"))
    return found


def exam(questions: str) -> Json:
    """Return one of the recorded EXAMS, as ``read_exams`` does.

    Raises:
        UserError: if it is not recorded here.
    """
    name, source = EXAMS[questions]
    found: Json = comparison("posttraining", name)[source]
    return found


def ablations(measure: str = "average", rows: str = "all") -> Figured:
    """Draw RMT minus other rows of the recorded comparison, position by position.

    Args:
        measure: of MEASURES: accuracy on average, in a tier or on a sort of token, or thought length.
        rows: of ROWS.
    """
    found = comparison()
    if measure == LENGTH:
        thinking = {name for name, arm in found["arms"].items() if arm["thought_length"]}  # others have no length
        cells = {name: cell for name, cell in found["lengths"].items() if name in thinking}
    else:
        cells = {pair["b"]: pair for pair in found["paired"] if pair["tier"] == measure}
    known = [name for name in SHOWN if cells.get(name, {}).get("difference") is not None and _among(name, rows)]
    if not known:
        raise UserError(f"the recorded comparison has no {measure} of {rows}; choose another")
    what = "thought length, RMT minus ..., tokens" if measure == LENGTH else f"{measure}: RMT minus ..., points"
    return plots.forest({SHOWN[name]: cells[name] for name in known}, what, 1 if measure == LENGTH else 100)


def _among(name: str, rows: str) -> bool:
    kind = ROWS[1] if name in ABLATIONS else ROWS[3] if name in BASE else ROWS[2]
    return rows in (ROWS[0], kind)


def interval_width(positions: int, seeds: int, gap: float = PAPER_GAP) -> Figured:
    """Draw how fine a difference of two arms is told, before anything is run.

    Args:
        positions: held-out positions of a run.
        seeds: runs of each arm.
        gap: points that are to be told from nothing.
    """
    if gap <= 0:
        raise UserError(f"gap is {gap}; give a number of points above 0")
    curves = {
        f"{count} seed{'s' * (count > 1)}": [(n, 100 * expected_half_width(n, count)) for n in GRID]
        for count in sorted({1, 5, seeds})
    }
    half = 100 * expected_half_width(positions, seeds)
    return plots.interval_width(curves, positions, half, gap, expected_positions(gap / 100, seeds))


def exams(questions: str, k: int, step: int) -> Figured:
    """Draw a recorded post-training: pass@k over all steps, and RMT minus the others at one of them."""
    found = exam(questions)
    curves = {
        trained_as(name): [{"step": one["step"], **one["pass_at"][str(k)]} for one in curve]
        for name, curve in found["arms"].items()
    }
    pairs = {trained_as(one["b"]): one for one in found["paired"] if (one["k"], one["step"]) == (k, step)}
    return plots.exams_at(curves, pairs, k, step)


def pass_estimates(right: int, samples: int, k: int) -> Figured:
    """Draw what ``right`` answers of ``samples`` say of pass@k: without bias, and by the share put to a power.

    Raises:
        ValueError: as ``pass_at_k``.
    """
    pass_at_k(right, samples, k)  # complains
    ks = range(1, samples + 1)
    unbiased = [pass_at_k(right, samples, one) for one in ks]
    plugged = [1 - (1 - right / samples) ** one for one in ks]
    return plots.pass_estimates({"unbiased": unbiased, "share to a power": plugged}, k)


@dataclass(frozen=True)
class Measured:
    """What the micro model makes of a text before any training.

    Attributes:
        entropies: of the tokens that may be asked for, nats.
        lengths: of thoughts under no stated budget, tokens; LONGEST where one was cut off.
    """

    entropies: tuple[float, ...]
    lengths: tuple[int, ...]


@lru_cache
def measure_text(corpus: str) -> Measured:
    """Measure a text with the micro model.

    Raises:
        UserError: if the text cannot be had.
    """
    policy = micro_base()
    config = preset("micro", corpus=corpus)
    texts = prepare(config, policy).train[:TEXTS]
    entropies = [x for text in texts for x in _entropies(policy, text)]
    form, positions = format_for(policy, config), plan_positions(policy, texts, config, ASKED)
    trunks = read_for(policy, texts, positions)
    asking = Asking([None] * len(positions), [LONGEST] * len(positions))
    rollouts = roll_out(policy, form, trunks, positions, EACH, asking, generator_for(0, "lengths"))
    return Measured(tuple(entropies), tuple(rollout.length for rollout in rollouts))


@torch.no_grad()
def _entropies(policy: Policy, text: Text) -> list[float]:
    (found,) = trunk_entropy(policy, policy.tree.read([text.ids]), 0)
    numbers: list[float] = found[text.first :].tolist()
    return numbers


def text_fit(corpus: str, easy: float, hard: float, budget: int) -> Figured:
    """Draw what tiers two thresholds make of a text, and how the micro model's thoughts fit a budget.

    Args:
        corpus: as for ``load_corpus``.
        easy: the first threshold, nats.
        hard: the second.
        budget: B_t, tokens.
    """
    if not 0 <= easy <= hard:
        raise UserError(f"thresholds are {easy:g} and {hard:g}; give two numbers of at least 0, the smaller first")
    found = measure_text(corpus)
    return plots.text_fit(found.entropies, (easy, hard), found.lengths, budget)


def ablation_explorer() -> Explorer:
    """Choose what of the recorded arms is held against RMT, and which of them."""
    return explore(ablations, measure=choice("measure", MEASURES), rows=choice("rows", ROWS))


def interval_explorer() -> Explorer:
    """Move positions, seeds and the gap that is to be told."""
    return explore(
        interval_width,
        positions=whole("held-out positions", PAPER_SAMPLES, 20, 6400, 20),
        seeds=whole("seeds", 1, 1, 10),
        gap=number("gap, points", PAPER_GAP, 0.5, 12, 0.05),
    )


def exam_explorer() -> Explorer:
    """Choose what is asked, k, and the step of post-training."""
    curve = exam(next(iter(EXAMS)))["arms"][METHOD]  # the same steps in all
    steps = [one["step"] for one in curve]
    ks = [int(k) for k in curve[0]["pass_at"]]
    return explore(
        exams, questions=choice("questions", list(EXAMS)), k=choice("k", ks), step=choice("step", steps, steps[-1])
    )


def pass_explorer() -> Explorer:
    """Move right answers, samples and k."""
    return explore(
        pass_estimates,
        right=whole("right answers", 2, 0, 16),
        samples=whole("samples, n", 8, 1, 16),
        k=whole("k", 4, 1, 16),
    )


def text_explorer() -> Explorer:
    """Choose thresholds and budget for a text: a corpus by name, or a file of your own."""
    return explore(
        text_fit,
        corpus=line("text", "micro"),
        easy=number("easy up to, nats", 0.5, 0, 5, 0.1),
        hard=number("hard above, nats", 1.9, 0, 5, 0.1),
        budget=whole("budget, tokens", 20, 1, 64),
    )
