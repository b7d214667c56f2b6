"""The control panel of lesson 8: settings, a run that they start, and what it does while it does it.

The panel holds no logic of its own: ``LiveRun`` runs, ``side_by_side`` draws, ``RMTConfig`` says what is impossible.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets

from rmt_mini.arms import arms_named
from rmt_mini.config import RMTConfig, preset
from rmt_mini.errors import UserError
from rmt_mini.method.entropy import TIERS
from rmt_mini.report.plots import accuracy, side_by_side
from rmt_mini.report.plots.of_text import Marked, rollout_table
from rmt_mini.teaching.live import DONE, FAILED, PAUSED, RUNNING, LiveRun
from rmt_mini.teaching.widgets.controls import alert, choice, line, number, said, whole

REDRAWN = 1.0  # seconds between two drawings, at least: a figure takes a tenth of one from the run
ARMS = ("rmt", "rpt", "rmt-no-budget", "rmt-no-curriculum", "rmt-no-ntp", "rl-no-think", "ntp")
MIXES = {
    "the preset's: 10 % easy, 50 % hard": None,
    "as many easy as hard": (0.4, 0.2, 0.4),
    "easy only": (1.0, 0.0, 0.0),
}
LITTLE: dict[str, Any] = {"evaluation_positions": 150, "evaluation_documents": 100, "preflight_positions": 18}
NOTHING = "Nothing runs. Set what you like, predict what it will do, and press Start."


def panel_config(
    arm: str,
    steps: int,
    budget_start: int,
    budget_decay: float,
    curriculum_start: float,
    curriculum_end: float,
    late_mix: str,
    ntp_weight: float,
    length_weight: float,
    seed: int,
) -> RMTConfig:
    """Return the settings of a run of the micro-world as the panel's controls stand.

    Raises:
        UserError: if they are impossible together.

    Example:
        >>> panel_config("ntp", 10, 20, 0.4, 0.3, 0.7, "easy only", 0.5, 0.3, 0).use_rl
        False
    """
    late = MIXES[late_mix]
    base = preset(
        "micro",
        steps=steps,
        budget_start=budget_start,
        budget_decay=budget_decay,
        curriculum_start=curriculum_start,
        curriculum_end=curriculum_end,
        ntp_weight=ntp_weight,
        length_weight=length_weight,
        seed=seed,
        state_seconds=10.0,
        **({} if late is None else {"tier_probs_late": late}),
        **LITTLE,
    )
    (made,) = [one for one in arms_named(base, [arm]) if one.name == arm]
    return made.config(base)


class Panel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no annotations
    """Controls, buttons and a live view; ``run_panel`` makes it.

    Attributes:
        controls: name -> control, as ``panel_config`` takes them.
        buttons: name -> button: start, pause, resume, stop.
        run: the run under way, or the last one; None before the first.
        earlier: name -> run that another may be held against.
    """

    def __init__(self, make_config: Callable[..., RMTConfig], controls: Mapping[str, ipywidgets.Widget]) -> None:
        self.make_config, self.controls = make_config, dict(controls)
        self.run: LiveRun | None = None
        self.earlier: dict[str, LiveRun] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drawn = 0.0
        self.buttons = {
            name: ipywidgets.Button(description=name.capitalize(), tooltip=tip, icon=icon)
            for name, tip, icon in (
                ("start", "begin a run with these settings", "play"),
                ("pause", "end behind this step and save; resume goes on", "pause"),
                ("resume", "go on where the run, or the folder below, stood", "forward"),
                ("stop", "end behind this step for good; its curve stays", "stop"),
            )
        }
        for name, button in self.buttons.items():
            button.on_click(getattr(self, f"_{name}"))
        self.folder = line("run folder to resume", "")
        self.against = choice("hold against", [("no other run", "")])
        self.against.observe(lambda _: self._draw(), names="value")
        self._status, self._seen = ipywidgets.HTML(), ipywidgets.HTML()
        row = ipywidgets.HBox(list(self.buttons.values()), layout={"flex_flow": "row wrap"})
        super().__init__([*self.controls.values(), row, self.folder, self.against, self._status, self._seen])
        self.add_class("rmt-panel")
        self._say(NOTHING)
        self._allow()

    @property
    def status(self) -> str:
        """What the panel says now, as HTML."""
        return str(self._status.value)

    @property
    def view(self) -> str:
        """What it shows now, as HTML."""
        return str(self._seen.value)

    def _start(self, _: Any) -> None:
        self._begin(lambda: LiveRun.started(self._settings(), self._changed))

    def _resume(self, _: Any) -> None:
        def taken_up() -> LiveRun:
            typed = self.folder.value.strip()
            if self.run is None and not typed:
                raise UserError("there is no run to go on with; start one, or name the folder of one")
            return LiveRun.resumed(Path(typed) if typed else self._last().folder, self._changed)

        self._begin(taken_up)

    def _pause(self, _: Any) -> None:
        self._last().pause()
        self._say("Pausing: the step under way is finished and saved first.")

    def _stop(self, _: Any) -> None:
        run = self._last()
        run.pause()
        self._keep(run)
        self._say("Stopping behind the step under way. Its curve stays to be compared.")

    def _last(self) -> LiveRun:
        assert self.run is not None  # the buttons that need it are off before
        return self.run

    def _settings(self) -> RMTConfig:
        return self.make_config(**{name: control.value for name, control in self.controls.items()})

    def _begin(self, make: Callable[[], LiveRun]) -> None:
        """Begin or take up a run; what is wrong with it is said in place."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:  # no kernel
            self._loop = None
        before = self.run
        try:
            self.run = make()
        except UserError as error:
            self._status.value = alert(str(error))
            return
        if before is not None and before.folder != self.run.folder and before.metrics:
            self._keep(before)
        self._say(f"Running in {self.run.folder}. The model is measured before the first step.")
        self._allow()

    def _keep(self, run: LiveRun) -> None:
        """Offer a run to hold others against."""
        self.earlier[run.folder.name] = run
        self.against.options = [("no other run", ""), *((name, name) for name in self.earlier)]

    def _changed(self) -> None:
        """Draw anew, in the kernel's own thread; called in the run's."""
        rest = self.run is not None and self.run.state == RUNNING and time.monotonic() - self._drawn < REDRAWN
        if not rest:
            self._drawn = time.monotonic()
            if self._loop is None:
                self._draw()
            else:
                self._loop.call_soon_threadsafe(self._draw)

    def _draw(self) -> None:
        run = self.run
        if run is None:
            return
        steps = len(run.metrics)
        self._say(
            {
                RUNNING: f"Step {steps} of {run.config.steps}, in {run.folder}.",
                PAUSED: f"Paused behind step {steps} of {run.config.steps}; Resume goes on, also after a restart, from "
                f"{run.folder}.",
                DONE: f"Done: {steps} steps, in {run.folder}.",
            }.get(run.state, "")
        )
        if run.state == FAILED:
            self._status.value = alert(run.told)
        self._allow()
        other = self.earlier.get(self.against.value)
        drawn = {run.folder.name: run.metrics[:]}
        if other is not None and other is not run:
            drawn[other.folder.name] = other.metrics[:]
        shown = side_by_side(drawn, run.config.steps)
        parts = [shown._repr_html_(), said(shown.alt)]
        rollouts, measured = run.rollouts(), run.evaluation()
        if rollouts:
            parts.append(last_rollouts(rollouts)._repr_html_())
        if measured is not None:
            parts.append(accuracy(measured)._repr_html_())
        self._seen.value = "".join(parts)

    def _say(self, text: str) -> None:
        self._status.value = said(text)

    def _allow(self) -> None:
        """Switch off the buttons that have nothing to do."""
        running = self.run is not None and self.run.state == RUNNING
        for name, button in self.buttons.items():
            button.disabled = (name in ("pause", "stop")) != running


def last_rollouts(lines: Sequence[Mapping[str, Any]]) -> Marked:
    """Lay out rollouts of training, each with its tier and advantage.

    Args:
        lines: as ``rollout_line`` makes them.

    Raises:
        ValueError: if there are none.
    """
    return rollout_table(
        [dict(line) | {"when": f"{TIERS[line['tier']]}, advantage {line['advantage']:+.2f}"} for line in lines]
    )


def run_panel() -> Panel:
    """Make the panel over the micro-world."""
    base = preset("micro")
    return Panel(
        panel_config,
        {
            "arm": choice("arm", ARMS),
            "steps": whole("T, steps", 40, 1, 200),
            "budget_start": whole("B_0, first budget", base.budget_start, 1, 40),
            "budget_decay": number("gamma, B_T / B_0", base.budget_decay, 0.05, 1.0),
            "curriculum_start": number("t1, share of T", base.curriculum_start, 0.0, 1.0),
            "curriculum_end": number("t2, share of T", base.curriculum_end, 0.0, 1.0),
            "late_mix": choice("tiers drawn late", list(MIXES)),
            "ntp_weight": number("lambda, weight of NTP", base.ntp_weight, 0.0, 2.0),
            "length_weight": number("w, share of length reward", base.length_weight, 0.0, 1.0),
            "seed": whole("seed", 0, 0, 99),
        },
    )
