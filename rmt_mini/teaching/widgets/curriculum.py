"""The curriculum: where p_t lies for any mixes and transition points, and what the sampler draws from it."""

from __future__ import annotations

from rmt_mini.config import preset
from rmt_mini.report.plots import Figured, curriculum_curve, tier_draws
from rmt_mini.teaching.widgets.controls import Explorer, explore, number, whole

MICRO = preset("micro")
EARLY, LATE = MICRO.tier_probs_early, MICRO.tier_probs_late
STEPS = 100


def mixes(
    curriculum_start: float,
    curriculum_end: float,
    early_easy: float,
    early_medium: float,
    late_easy: float,
    late_medium: float,
    step: int,
) -> Figured:
    """Draw p_t over 100 steps; the hard tier gets what easy and medium leave.

    Raises:
        ValueError: if they leave less than nothing, or as ``curriculum_curve``.
    """
    early, late = _mix("early", early_easy, early_medium), _mix("late", late_easy, late_medium)
    return curriculum_curve(STEPS, early, late, curriculum_start, curriculum_end, step)


def _mix(name: str, easy: float, medium: float) -> tuple[float, float, float]:
    """Complete a mix.

    Example:
        >>> _mix("late", 0.1, 0.4)
        (0.1, 0.4, 0.5)
    """
    hard = round(1 - easy - medium, 6)
    if hard < 0:
        raise ValueError(
            f"the {name} mix: {easy:g} easy and {medium:g} medium leave {hard:g} for hard; together at most 1, please"
        )
    return easy, medium, hard


def mix_explorer() -> Explorer:
    """Move t1, t2, both mixes and the step over the curriculum's probabilities."""
    return explore(
        mixes,
        curriculum_start=number("t1, share of T", MICRO.curriculum_start, 0.0, 1.0),
        curriculum_end=number("t2, share of T", MICRO.curriculum_end, 0.0, 1.0),
        early_easy=number("early: easy", EARLY[0], 0.0, 1.0),
        early_medium=number("early: medium", EARLY[1], 0.0, 1.0),
        late_easy=number("late: easy", LATE[0], 0.0, 1.0),
        late_medium=number("late: medium", LATE[1], 0.0, 1.0),
        step=whole(f"t, step of {STEPS}", 50, 0, STEPS),
    )


def draws(easy: int, medium: int, hard: int, per_step: int, seed: int) -> Figured:
    """Draw what the sampler takes from documents with these numbers of positions, over 60 steps of the preset's mixes.

    Raises:
        ValueError: as ``tier_draws``.
    """
    return tier_draws(60, EARLY, LATE, (easy, medium, hard), per_step, seed=seed)


def draws_explorer() -> Explorer:
    """Move what a step's documents offer, and how much is drawn, over the draws of a run."""
    return explore(
        draws,
        easy=whole("easy positions offered", 120, 0, 200),
        medium=whole("medium positions offered", 60, 0, 200),
        hard=whole("hard positions offered", 60, 0, 200),
        per_step=whole("positions drawn a step", 20, 1, 60),
        seed=whole("seed", 0, 0, 50),
    )
