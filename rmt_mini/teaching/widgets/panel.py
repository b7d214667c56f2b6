"""The control panel of lesson 8: settings, a run that they start in the background, and what the run does.

The run is started, paused, resumed and watched; it continues exactly, also after a killed kernel.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import ipywidgets

from rmt_mini.arms import arms_named
from rmt_mini.config import RMTConfig, data, preset
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import CurvePoint, Evaluation, Notes, RolloutLine, read_lines, read_metrics
from rmt_mini.method.entropy import TIERS
from rmt_mini.records import StepMetrics
from rmt_mini.report.claims import SYMBOLS
from rmt_mini.report.plots import Marked, accuracy, rollout_table, side_by_side
from rmt_mini.runs.folder import folder_for
from rmt_mini.runs.run import RunResult, resume, run
from rmt_mini.stages.midtrain import StepResult
from rmt_mini.teaching.widgets.controls import alert, control, controls_of, status
from rmt_mini.teaching.widgets.explorers_model import tokens_of_step

SHOWN = 4  # rollouts
REDRAWN = 1.0  # seconds between two drawings, at least: a figure takes a tenth of one from the run
_DATA = data("teaching/widgets/panel.yaml")
LATE, LITTLE = _DATA["late"], _DATA["little"]
RUNNING, PAUSED, STOPPED, DONE, FAILED = "running", "paused", "stopped", "done", "failed"
Work = Callable[[Callable[[StepResult], None], threading.Event], RunResult]


class LiveRun:
    """One run in a thread of its own; it calls ``changed`` in that thread whenever there is something new.

    Attributes:
        state: RUNNING, PAUSED, STOPPED, DONE or FAILED.
        last: the step that was taken last.
        message: the error of a failed run.
    """

    def __init__(self, work: Work, folder: Path, config: RMTConfig, changed: Callable[[], None]) -> None:
        self.folder, self.config, self.changed = folder, config, changed
        self.state, self.message, self._for_good = RUNNING, "", False
        self.last: StepResult | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    @classmethod
    def started(cls, config: RMTConfig, changed: Callable[[], None] = lambda: None) -> Self:
        """Start a run; UserError if its folder cannot be used; later errors are in ``message``."""
        folder = folder_for(config.out, f"{config.preset}-seed{config.seed}")
        here = config.replace(out=str(folder))
        return cls(lambda seen, stop: run(here, None, seen, False, stop), folder, here, changed)

    @classmethod
    def resumed(cls, folder: Path, changed: Callable[[], None] = lambda: None) -> Self:
        """Continue a run that was paused, stopped or killed, or read one that is done; UserError if it is none."""
        config = Notes.read(folder).settings
        return cls(lambda seen, stop: resume(folder, None, seen, False, stop), folder, config, changed)

    @property
    def metrics(self) -> list[StepMetrics]:
        """The steps so far, as the run's folder has them."""
        return read_metrics(self.folder)

    @property
    def points(self) -> list[CurvePoint]:
        """The held-out accuracies so far."""
        return read_lines(self.folder / "curve.jsonl", CurvePoint).good

    @property
    def label(self) -> str:
        """What distinguishes the run from the preset, as "rpt, seed 1" or "B_0 40"; "preset" if nothing does."""
        usual = panel_config("rmt", "", out=self.config.out)
        differ = {name: value for name, value in self.config if value != getattr(usual, name) and name != "steps"}
        arms = {arm.name: dict(arm.config(usual)) for arm in arms_named(usual)}
        changes = {
            name: {key for key, value in arm.items() if value != getattr(usual, key)} for name, arm in arms.items()
        }
        fits = [name for name, keys in changes.items() if all(differ.get(key) == arms[name][key] for key in keys)]
        arm = max(fits, key=lambda name: len(changes[name]))  # "rmt", which changes nothing, fits always
        words = [f"{SYMBOLS.get(name, name)} {value}" for name, value in differ.items() if name not in changes[arm]]
        return ", ".join([*([arm] if changes[arm] else []), *words]) or "preset"

    def pause(self, for_good: bool = False) -> None:
        """End the run after the step under way, and say then that it is stopped if ``for_good``; returns at once."""
        self._for_good = for_good
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the run has ended; returns whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _seen(self, result: StepResult) -> None:
        self.last = result
        self.changed()

    def _run(self, work: Work) -> None:
        try:
            work(self._seen, self._stop)
            self.state = DONE
        except Stopped:
            self.state = STOPPED if self._for_good else PAUSED
        except BaseException as error:  # nobody else sees an error in a thread
            own = isinstance(error, UserError)
            self.state, self.message = FAILED, str(error) if own else f"{type(error).__name__}: {error}"
            if not own:
                raise
        finally:
            self.changed()


def panel_config(arm: str, late_mix: str, **settings: Any) -> RMTConfig:
    """Return the settings of a run of the micro-world as the panel's controls are; UserError if they are impossible."""
    late = {"tier_probs_late": LATE[late_mix]} if late_mix in LATE else {}
    base = preset("micro", state_seconds=10.0, **settings, **late, **LITTLE)
    return next(one for one in arms_named(base, [arm]) if one.name == arm).config(base)


def last_rollouts(lines: Sequence[Mapping[str, Any]]) -> Marked:
    """Lay out rollouts of training, as ``rollout_line`` makes them, each with its tier and advantage."""
    return rollout_table(
        [dict(one) | {"when": f"{TIERS[one['tier']]}, advantage {one['advantage']:+.2f}"} for one in lines]
    )


class Panel(ipywidgets.HBox):  # type: ignore[misc]  # ipywidgets has no annotations
    """Left controls, buttons and status of a run of the micro-world, right a view of it beside an earlier one."""

    def __init__(self) -> None:
        self.controls = controls_of("panel")
        self.run: LiveRun | None = None
        self.earlier: dict[str, LiveRun] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drawn = 0.0
        self.buttons = {
            name: ipywidgets.Button(description=name.capitalize(), tooltip=tip, icon=icon)
            for name, (tip, icon) in _DATA["buttons"].items()
        }
        for name, button in self.buttons.items():
            button.on_click(getattr(self, f"_{name}"))
        self.folder = control("resume folder", "")
        self.against = control("compare with", options=[("no other run", "")])
        self.against.observe(lambda _: self._draw(), names="value")
        self.status, self.view = ipywidgets.HTML(), ipywidgets.HTML()
        row = ipywidgets.HBox(list(self.buttons.values()), layout={"flex_flow": "row wrap"})
        left = ipywidgets.VBox([*self.controls.values(), row, self.folder, self.against, self.status])
        for one in (*self.controls.values(), self.folder, self.against):
            one.layout.width, one.style.description_width = "100%", "10.5em"
        left.layout = {"flex": "1 1 24em", "max_width": "28em", "overflow": "hidden"}
        self.view.layout = {"flex": "3 1 34em"}
        super().__init__([left, self.view], layout={"flex_flow": "row wrap"})
        self.add_class("rmt-panel")
        self._say("Nothing runs. Choose settings, predict what they will do, and press Start.")

    def _start(self, _: object) -> None:
        settings = {name: one.value for name, one in self.controls.items()}
        self._begin(lambda: LiveRun.started(panel_config(**settings), self._changed))

    def _resume(self, _: object) -> None:
        folder = self.folder.value.strip() or (self.run.folder if self.run else "")
        if folder:
            self._begin(lambda: LiveRun.resumed(Path(folder), self._changed))
        else:
            self.status.value = alert("there is no run to continue; start one, or name the folder of one")

    def _pause(self, _: object) -> None:
        if self.run:
            self.run.pause()
            self._say("Pausing: the step under way is finished and saved first.")

    def _stop(self, _: object) -> None:
        if self.run:
            self.run.pause(for_good=True)
            self._keep(self.run)
            self._say("Stopping after the step under way. Its curve stays for comparison.")

    def _begin(self, make: Callable[[], LiveRun]) -> None:
        with suppress(RuntimeError):  # no kernel
            self._loop = asyncio.get_running_loop()
        before = self.run
        try:
            self.run = make()
        except UserError as error:
            self.status.value = alert(str(error))
            return
        if before is not None and before.folder != self.run.folder and before.metrics:
            self._keep(before)
        self._say(f"Running in {self.run.folder}. The model is measured before the first step.")

    def _keep(self, run: LiveRun) -> None:
        self.earlier[run.folder.name], chosen = run, self.against.value
        self.against.options = [("no other run", ""), *((one.label, name) for name, one in self.earlier.items())]
        self.against.value = chosen  # new options choose the first

    def _changed(self) -> None:
        """Draw in the kernel's own thread; called in the run's."""
        if self.run and self.run.state == RUNNING and time.monotonic() - self._drawn < REDRAWN:
            return
        self._drawn = time.monotonic()
        if self._loop is None:
            self._draw()
        else:
            self._loop.call_soon_threadsafe(self._draw)

    def _draw(self) -> None:
        run = self.run
        if run is None:
            return
        shown, other = {"this run": run}, self.earlier.get(self.against.value)
        if other and other is not run:
            shown[other.label] = other
        metrics, points = ({name: getattr(one, what) for name, one in shown.items()} for what in ("metrics", "points"))
        done, steps = len(metrics["this run"]), run.config.steps
        self._say(_DATA["messages"][run.state].format(done=done, steps=steps, folder=run.folder))
        if run.state == FAILED:
            self.status.value = alert(run.message)
        drawn = side_by_side(metrics, steps, points)
        parts = [drawn._repr_html_(), status(drawn.alt)]
        if run.last:
            parts.append(tokens_of_step(run.last)._repr_html_())
        if rollouts := read_lines(run.folder / "rollouts.jsonl", RolloutLine).good[-SHOWN:]:
            parts.append(last_rollouts([line.model_dump() for line in rollouts])._repr_html_())
        if run.state == DONE and (measured := Evaluation.find(run.folder)):
            parts.append(accuracy(measured)._repr_html_())
        self.view.value = "".join(parts)

    def _say(self, text: str) -> None:
        """Show a message, and disable the buttons that have nothing to do."""
        self.status.value = status(text)
        running = self.run is not None and self.run.state == RUNNING
        for name, button in self.buttons.items():
            button.disabled = (name in ("pause", "stop")) != running
