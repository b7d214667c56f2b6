"""Show a run's metrics in TensorBoard, Weights & Biases or Trackio as well, under the names of metrics.jsonl.

Off unless ``report_to`` names one; nothing that a run computes depends on it. Points of the learning curve are
``held_out/plain`` and ``held_out/think`` (accuracies), at the number of steps done. A value for each tier has the
tier's name after a slash; a value that is not known is left out. Where it goes, and what a resumed run does:

    tensorboard   DIR/tensorboard; what the run takes back is marked there, so that no reader shows it
    trackio       a database on this machine (TRACKIO_DIR); its steps are sent anew
    wandb         its server, under the ``tracking_id`` in run.json; steps that it has are not sent again.
                  With WANDB_MODE=offline DIR/wandb, where the newest folder has all steps: sync that one

A run that begins to report when it is resumed sends its earlier steps first.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rmt_mini.errors import logger, refusing, require_package
from rmt_mini.files import CurvePoint, Notes
from rmt_mini.method import TIERS
from rmt_mini.records import StepMetrics

PROJECT = "rmt_mini"


@dataclass
class Tracker:
    """An open tracker, which needs steps from ``first`` on."""

    first: int
    send: Callable[[dict[str, float], int], object]
    close: Callable[[], object]

    def log(self, records: Iterable[object]) -> None:
        """Send lines of metrics.jsonl and curve.jsonl; if that fails, the run goes on without."""
        for record in records:
            if isinstance(record, StepMetrics | CurvePoint) and record.step >= self.first:
                try:
                    self.send(scalars(record), record.step)
                except Exception as error:  # another program's, or a network's
                    logger.warning("Reporting ends at step %d (%s); the run goes on", record.step, error)
                    self.first = sys.maxsize


def scalars(record: StepMetrics | CurvePoint) -> dict[str, float]:
    """Return the numbers of a line under their names.

    Example:
        >>> scalars(CurvePoint(step=10, plain=0.5, think=0.75, thought_length=4.0, sorts={"noise": (0.1, 0.2)}))
        {'held_out/plain': 0.5, 'held_out/think': 0.75, 'held_out/thought_length': 4.0,
         'held_out/plain/noise': 0.1, 'held_out/think/noise': 0.2}
    """
    found: dict[str, Any] = {}
    if isinstance(record, CurvePoint):
        found = {name: getattr(record, name) for name in ("plain", "think", "thought_length")}
        for sort, (plain, think) in record.sorts.items():
            found |= {f"plain/{sort}": plain, f"think/{sort}": think}
        return {f"held_out/{name}": value for name, value in found.items()}
    for name, value in asdict(record).items():
        split = isinstance(value, tuple)
        found |= {f"{name}/{tier}": one for tier, one in zip(TIERS, value, strict=True)} if split else {name: value}
    return {name: value for name, value in found.items() if name != "step" and value is not None}


def require(report_to: str) -> None:
    """Raise a UserError if the tracker that ``report_to`` names is not installed."""
    if report_to != "none":
        require_package(report_to, f"report_to {report_to!r}", f"pip install {report_to}")


def start(folder: Path, notes: Notes, step: int) -> Tracker | None:
    """Open the tracker that the settings name, for a run that goes on at ``step``; a UserError if it does not open."""
    name = notes.settings.report_to
    if name == "none":
        return None
    with refusing(f"{name} does not start", "set it up, or go on with report_to none"):
        return OPEN[name](folder, notes, step)


def _tensorboard(folder: Path, notes: Notes, step: int) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    known = (folder / "tensorboard").exists()
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step if known else None)

    def send(values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()  # a process that is killed later loses none

    return Tracker(step if known else 0, send, writer.close)


def _wandb(folder: Path, notes: Notes, step: int) -> Tracker:
    import wandb

    # neither this program's output nor its code, machine or repository
    quiet = wandb.Settings(silent=True, console="off", save_code=False, disable_git=True, x_disable_stats=True)
    run = wandb.init(
        project=PROJECT, name=folder.name, id=notes.tracking_id, resume="allow", dir=folder, settings=quiet,
        config=notes.settings.to_dict(),
    )  # fmt: skip
    if run.url:
        logger.info("wandb: %s", run.url)
    return Tracker(run.step, run.log, run.finish)


def _trackio(folder: Path, notes: Notes, step: int) -> Tracker:
    import trackio

    def quietly(call: Callable[..., Any], *given: Any, **more: Any) -> Any:
        with contextlib.redirect_stdout(sys.stderr):  # results go to stdout, and only they
            return call(*given, **more)

    name = f"{folder.name}-{notes.tracking_id}"
    with contextlib.suppress(ValueError):  # there is no such project yet
        for old in [*trackio.Api().runs(PROJECT)]:
            if old.name == name:
                old.delete()
    more = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    run = quietly(trackio.init, PROJECT, name, config=notes.settings.to_dict(), **more)
    return Tracker(0, run.log, lambda: quietly(trackio.finish))


OPEN = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
