"""Figures of runs, of the method and of studies: data in, figure and alt text out. The only room with matplotlib.

Colours are petroff10's, chosen to differ for colour-blind eyes too; markers, line styles and hatches tell the same
without colour. pyplot's global state is never touched, so a figure is as pure as a number and needs no display.
"""

from rmt_mini.study.plots.canvas import Figured, save, smoothed
from rmt_mini.study.plots.of_method import budget_curve, curriculum_curve, document_tree, length_triangle
from rmt_mini.study.plots.of_runs import accuracy, budget_and_length, losses, rewards, signal, tiers_drawn
from rmt_mini.study.plots.of_study import arms, cost, exam_curves, tornado

__all__ = [
    "Figured",
    "accuracy",
    "arms",
    "budget_and_length",
    "budget_curve",
    "cost",
    "curriculum_curve",
    "document_tree",
    "exam_curves",
    "length_triangle",
    "losses",
    "rewards",
    "save",
    "signal",
    "smoothed",
    "tiers_drawn",
    "tornado",
]
