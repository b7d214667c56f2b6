from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.style
import pytest
from PIL import Image

from rmt_mini.records import StepMetrics
from rmt_mini.report import plots
from rmt_mini.report.plots import Figured, canvas, of_runs

STEP_FIGURES = [plots.budget_and_length, plots.tiers_drawn, plots.rewards, plots.signal, plots.losses]


def step(number: int, **changes: Any) -> StepMetrics:
    values: dict[str, Any] = {
        "step": number, "budget": 24 - 4 * number, "tier_probabilities": (0.5, 0.3, 0.2), "tier_counts": (4, 3, 1),
        "match_reward": 0.25, "length_reward": 0.5, "reward": 0.3, "thought_length": 20.0 - number,
        "closed_share": 0.9, "signal_groups": 0.4, "rl_loss": -0.01, "ntp_loss": 2.0, "grad_norm": 1.5,
        "rl_tokens": 300, "ntp_tokens": 100, "forward_tokens": 900, "backward_tokens": 800, "skipped": 0,
        "rl_tokens_by_tier": (200, 80, 20), "trunk_tokens": 120, "trunk_seconds": 0.5,
        "rollout_seconds": 2.0, "update_seconds": 3.0, "peak_memory_mb": 900.0,
    }  # fmt: skip
    return StepMetrics(**values | changes)


def cell(accuracy: float | None, n: int = 100) -> dict[str, Any]:
    if accuracy is None:
        return {"accuracy": None, "low": None, "high": None, "n": 0}
    return {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05, "n": n}


def measured(average: float, hard: float | None = 0.1) -> dict[str, Any]:
    row = {"easy": cell(0.6), "medium": cell(0.3), "hard": cell(hard), "average": cell(average)}
    return {"ntp": row, "think": row}


def texts(figured: Figured) -> str:
    """Return every word on a figure."""
    found = [text.get_text() for text in figured.figure.findobj(matplotlib.text.Text)]
    return " | ".join(found)


@pytest.mark.parametrize("draw", STEP_FIGURES)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_any_number_of_steps_can_be_drawn(draw: Callable[..., Figured], count: int) -> None:
    figured = draw([step(number) for number in range(count)])
    assert figured.png()[:4] == b"\x89PNG"
    assert figured.alt.endswith(".")
    assert ("nothing to draw" in figured.alt) == (count == 0)


def test_budget_and_length_tells_both_ends() -> None:
    alt = plots.budget_and_length([step(0), step(1), step(2)]).alt
    assert alt == (
        "The stated budget, in tokens, is 24 at first and 16 at last. "
        "The mean thought length is 20.0 at first and 18.0 at last."
    )
    assert "24." in plots.budget_and_length([step(0)]).alt
    unstated = plots.budget_and_length([step(0, budget=24), step(1, budget=24)], stated=False)
    assert "No budget was stated; half the cap, in tokens, is 24 throughout" in unstated.alt
    assert "budget B_t" not in texts(unstated)


def test_tiers_drawn_tells_shares_and_what_was_asked() -> None:
    metrics = [step(0), step(1, tier_counts=(0, 4, 4), tier_probabilities=(0.2, 0.4, 0.4))]
    assert plots.tiers_drawn(metrics).alt == (
        "Draws in step 0 were 50 % easy, 38 % medium, 12 % hard; the curriculum asked for 50 % easy, 30 % medium, "
        "20 % hard. Draws in step 1 were 0 % easy, 50 % medium, 50 % hard; the curriculum asked for 20 % easy, "
        "40 % medium, 40 % hard."
    )
    without = plots.tiers_drawn(metrics, curriculum=False)
    assert "asked" not in without.alt
    assert "p_t" not in texts(without)
    assert "nothing to draw" in plots.tiers_drawn([step(0, tier_counts=(0, 0, 0))]).alt


def test_rewards_and_signal_are_averaged_over_neighbours() -> None:
    metrics = [step(number, match_reward=value) for number, value in enumerate([0.0, 0.3, 0.6, 0.9])]
    # first: mean of 0, .3, .6; last: mean of .3, .6, .9
    assert "match reward 0.30 at first and 0.60 at last" in plots.rewards(metrics).alt
    assert "length reward 0.50 throughout" in plots.rewards(metrics).alt
    assert "groups with a signal 40 % throughout; thoughts that closed themselves 90 %" in plots.signal(metrics).alt


def test_losses_tell_all_three_without_a_negative_zero() -> None:
    alt = plots.losses([step(0), step(1, rl_loss=-0.0001, ntp_loss=1.5)]).alt
    assert alt == "RL loss -0.010 at first and 0.000 at last; next-token loss 2.000 at first and 1.500 at last; " + (
        "gradient norm 1.500 throughout."
    )


def test_smoothing_keeps_constants_and_lengths() -> None:
    assert plots.smoothed([0.5] * 7) == pytest.approx([0.5] * 7)
    assert plots.smoothed([1, 2, 3, 4, 5], reach=1) == [1.5, 2, 3, 4, 4.5]
    assert plots.smoothed([]) == []


def test_accuracy_draws_the_rows_that_are_there() -> None:
    whole = plots.accuracy({"before": measured(0.2), "cold_start": measured(0.25), "after": measured(0.4)})
    assert "thinking, before 20.0 % (15.0 to 25.0); thinking, cold start 25.0 %" in whole.alt
    assert "thinking, after 40.0 % (35.0 to 45.0)" in whole.alt
    assert "cold start" not in plots.accuracy({"before": measured(0.2), "after": measured(0.4)}).alt
    assert "thinking, after" in texts(whole)


def test_accuracy_without_a_tier_or_without_anything() -> None:
    assert "hard" not in texts(plots.accuracy({"after": measured(0.4, hard=None)}))
    nothing = {column: cell(None) for column in ("easy", "medium", "hard", "average")}
    assert "nothing to draw" in plots.accuracy({"after": {"ntp": nothing, "think": nothing}}).alt
    assert "nothing to draw" in plots.accuracy({}).alt


def test_bars_differ_without_colour() -> None:
    bars = [(hatch, colour) for *_, colour, hatch in of_runs.BARS]
    assert len({hatch for hatch, _ in bars}) == len(bars)
    assert len({(line, marker) for _, line, marker in canvas.LOOKS}) == len(canvas.LOOKS)


def test_colours_are_petroff10() -> None:
    cycle = matplotlib.style.library["petroff10"]["axes.prop_cycle"].by_key()["color"]
    assert {canvas.BLUE, canvas.ORANGE, canvas.RED, canvas.GREY, canvas.PURPLE} <= set(cycle)


def test_the_formulas_figures_tell_their_numbers() -> None:
    curve = plots.budget_curve(4, start=800, minimum=1, decay=0.2, step=2)
    assert "falls from 800 to 160 tokens over 4 steps; at step 2 it is 357" in curve.alt
    assert "1 at the budget of 357, and is 0 again from 714 on" in curve.alt
    curriculum = plots.curriculum_curve(10, (0.6, 0.3, 0.1), (0.2, 0.4, 0.4))
    assert curriculum.alt == (
        "Up to step 3 the curriculum draws 60 % easy, 30 % medium, 10 % hard; "
        "from step 7 on 20 % easy, 40 % medium, 40 % hard."
    )
    for figured in (curve, curriculum, plots.length_triangle(1)):
        assert figured.png()


def test_save_writes_a_page_wide_png_with_its_alt_text(tmp_path: Path) -> None:
    figured = plots.length_triangle(24)
    path = tmp_path / "figures" / "triangle.png"
    plots.save(figured, path)
    with Image.open(path) as image:
        assert image.info["Description"] == figured.alt
        assert image.width == 880  # 8 inches of 110 dots
    assert [entry.name for entry in path.parent.iterdir()] == ["triangle.png"]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        plots.save(plots.length_triangle(2), path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["one.png"]


def test_a_notebook_gets_the_alt_text_quoted() -> None:
    shown = Figured(plots.length_triangle(2).figure, 'a "b" <c>')._repr_html_()
    assert 'alt="a &quot;b&quot; &lt;c&gt;"' in shown
    assert "data:image/png;base64," in shown


def test_pyplot_stays_unused() -> None:
    code = (
        "import sys; from rmt_mini.report import plots; plots.length_triangle(3).png(); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "False"


def test_a_document_tree_tells_what_is_seen() -> None:
    figured = plots.document_tree(["A", "lift", "waits"], [(2, ["<think>", "x"]), (1, ["<think>"])])
    assert figured.alt.startswith("A trunk of 3 tokens with 2 branches, at 2, 1;")
    assert "Of 36 pairs of query and key 15 are seen" in figured.alt  # 6 in the trunk, 2 x 2 + 3, 1 + 1
    words = {text.get_text() for text in figured.figure.axes[0].texts}
    assert words == {"A", "lift", "waits", "<think>", "x"}
