"""What explorers draw from recorded results, from statistics, and from a reader's own text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from rmt_mini.arms import BASE
from rmt_mini.config import preset
from rmt_mini.engine.rollout import Asking, roll_out
from rmt_mini.engine.text import generator_for
from rmt_mini.errors import UserError
from rmt_mini.files import Change, Comparison, ExamOutcome, PostTraining
from rmt_mini.report import plots
from rmt_mini.report.claims import SHOWN, trained_as
from rmt_mini.report.comparison import expected_half_width, expected_positions
from rmt_mini.report.plots import Figured
from rmt_mini.runs.run import prepare
from rmt_mini.stages.evaluate import plan_positions, read_for
from rmt_mini.stages.material import format_for, trunk_entropy
from rmt_mini.stages.posttrain import pass_at_k
from rmt_mini.teaching.begin import recorded
from rmt_mini.teaching.widgets.explorers_model import micro_world

EXAMS = {  # name -> the recorded comparison, and the source of the questions
    "new kinds": ("micro/comparison", "micro"),
    "the text's own": ("micro/comparison", "micro-text"),
    "own, calculations alone": ("micro/reckoning", "micro-text"),
}
ABLATIONS = ("rmt-no-budget", "rmt-no-curriculum", "rmt-no-ntp", "rmt-random-tokens")
GRID = (50, 100, 200, 400, 800, 1600, 3200, 6400)  # positions that curves are drawn over
TEXTS, ASKED, EACH, LONGEST = 32, 48, 2, 64  # of a new text: texts, positions, thoughts at each, their cap in tokens


def exam(questions: str) -> ExamOutcome:
    """Return one of the recorded EXAMS, as ``read_exams`` does.

    Raises:
        UserError: if it is not recorded here.
    """
    name, source = EXAMS[questions]
    return PostTraining.read(recorded(name)).exams[source]


def ablations(measure: str = "average", rows: str = "all") -> Figured:
    """Draw RMT minus other arms of the recorded comparison: accuracy on a tier or kind of token, or thought length."""
    found, length = Comparison.read(recorded("micro/comparison")), measure == "thought length"
    cells: dict[str, Change] = {pair.b: pair for pair in found.paired if pair.tier == measure}
    if length:
        cells = {name: change for name, change in found.lengths.items() if found.arms[name].thought_length}
    kinds = dict.fromkeys(ABLATIONS, "ablations") | dict.fromkeys(BASE, "untrained")
    known = {
        SHOWN[name]: cells[name]
        for name in SHOWN
        if name in cells
        and cells[name].difference is not None
        and rows in ("all", kinds.get(name, "baseline and controls"))
    }
    if not known:
        raise UserError(f"the recorded comparison has no {measure} of {rows}; choose another")
    axis = f"{measure}, RMT minus ..., tokens" if length else f"{measure}: RMT minus ..., points"
    return plots.forest(known, axis, 1 if length else 100)


def interval_width(positions: int, seeds: int, gap: float = 3.65) -> Figured:
    """Draw how precisely a difference of two arms is known, and whether a gap in points is larger."""
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
    curves = {trained_as(name): steps for name, steps in found.arms.items()}
    pairs = {trained_as(one.b): one for one in found.paired if (one.k, one.step) == (k, step)}
    return plots.exams_at(curves, pairs, k, step)


def pass_estimates(right: int, samples: int, k: int) -> Figured:
    """Draw two estimates of pass@k from ``right`` of ``samples`` answers: the unbiased one, and a share to a power."""
    pass_at_k(right, samples, k)  # raises
    ks = range(1, samples + 1)
    unbiased = [pass_at_k(right, samples, one) for one in ks]
    powers = [1 - (1 - right / samples) ** one for one in ks]
    return plots.pass_estimates({"unbiased": unbiased, "share to a power": powers}, k)


@dataclass(frozen=True)
class Measured:
    """Entropies of a text's tokens in nats, and lengths of thoughts without a stated budget, in tokens."""

    entropies: tuple[float, ...]
    lengths: tuple[int, ...]


@lru_cache
@torch.no_grad()
def measure_text(corpus: str) -> Measured:
    """Measure a text with the micro model before training.

    Raises:
        UserError: if there is no such text.
    """
    policy, config = micro_world()[0], preset("micro", corpus=corpus)
    texts = prepare(config, policy).train[:TEXTS]
    read = [trunk_entropy(policy, policy.tree.read([text.ids]), 0)[0] for text in texts]
    entropies = [number for text, one in zip(texts, read, strict=True) for number in one[text.first :].tolist()]
    form, positions = format_for(policy, config), plan_positions(policy, texts, config, ASKED)
    trunks = read_for(policy, texts, positions)
    asking = Asking([None] * len(positions), [LONGEST] * len(positions))
    rollouts = roll_out(policy, form, trunks, positions, EACH, asking, generator_for(0, "lengths"))
    return Measured(tuple(entropies), tuple(rollout.length for rollout in rollouts))


def text_fit(corpus: str, easy: float, hard: float, budget: int) -> Figured:
    """Draw the tiers that two thresholds in nats make of a text, and how the micro model's thoughts fit a budget."""
    if not 0 <= easy <= hard:
        raise UserError(f"thresholds are {easy:g} and {hard:g}; give two numbers of at least 0, the smaller first")
    found = measure_text(corpus)
    return plots.text_fit(found.entropies, (easy, hard), found.lengths, budget)
