"""Figures of runs, of the method and of studies: data in, figure and alt text out. The only room with matplotlib.

Colours are petroff10's, chosen to differ for colour-blind eyes too; markers, line styles and hatches tell the same
without colour. pyplot's global state is never touched, so a figure is as pure as a number and needs no display.
"""

from rmt_mini.report.plots.canvas import Figured, save, smoothed
from rmt_mini.report.plots.of_entropy import entropy_and_loss, entropy_drift, entropy_histogram, entropy_of_sorts
from rmt_mini.report.plots.of_groups import advantage_bars, clip_curve, kl_estimates, loss_and_reward, signal_curve
from rmt_mini.report.plots.of_method import (
    budget_curve,
    curriculum_curve,
    document_tree,
    length_triangle,
    reward_by_length,
    tier_draws,
)
from rmt_mini.report.plots.of_objective import (
    closing_slopes,
    gradient_shares,
    shared_against_copied,
    symptom_curves,
    who_learns,
)
from rmt_mini.report.plots.of_runs import (
    accuracy,
    budget_and_length,
    losses,
    rewards,
    side_by_side,
    signal,
    tiers_drawn,
)
from rmt_mini.report.plots.of_study import (
    arms,
    cost,
    exam_curves,
    exams_at,
    forest,
    interval_width,
    pass_curves,
    pass_estimates,
    preflight_bars,
    text_fit,
    tornado,
)
from rmt_mini.report.plots.of_text import Marked, Stack, byte_match, heat_map, question, rollout_table, stacked

__all__ = [
    "Figured",
    "Marked",
    "Stack",
    "accuracy",
    "advantage_bars",
    "arms",
    "budget_and_length",
    "budget_curve",
    "byte_match",
    "clip_curve",
    "closing_slopes",
    "cost",
    "curriculum_curve",
    "document_tree",
    "entropy_and_loss",
    "entropy_drift",
    "entropy_histogram",
    "entropy_of_sorts",
    "exam_curves",
    "exams_at",
    "forest",
    "gradient_shares",
    "heat_map",
    "interval_width",
    "kl_estimates",
    "length_triangle",
    "loss_and_reward",
    "losses",
    "pass_curves",
    "pass_estimates",
    "preflight_bars",
    "question",
    "reward_by_length",
    "rewards",
    "rollout_table",
    "save",
    "shared_against_copied",
    "side_by_side",
    "signal",
    "signal_curve",
    "smoothed",
    "stacked",
    "symptom_curves",
    "text_fit",
    "tier_draws",
    "tiers_drawn",
    "tornado",
    "who_learns",
]
