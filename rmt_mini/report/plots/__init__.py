"""Figures: data in, figure and alt text out. The only wing with matplotlib.

Colours are petroff10's, chosen to differ for colour-blind eyes too; markers, line styles and hatches say the same
without colour. pyplot's global state is never touched, so a figure needs no display. What a figure shows in words is in
templates/alt.j2.
"""

from rmt_mini.report.plots.canvas import *  # noqa: F403
from rmt_mini.report.plots.of_results import *  # noqa: F403
from rmt_mini.report.plots.of_text import *  # noqa: F403
