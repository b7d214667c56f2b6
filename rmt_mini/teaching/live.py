"""A run in the background: started, paused, resumed and watched; it continues exactly, also after a killed kernel."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

from rmt_mini.config import RMTConfig
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import Notes, read_metrics
from rmt_mini.records import StepMetrics
from rmt_mini.runs.folder import folder_for
from rmt_mini.runs.run import RunResult, resume, run
from rmt_mini.stages.midtrain import StepResult

RUNNING, PAUSED, DONE, FAILED = "running", "paused", "done", "failed"
Work = Callable[[Callable[[StepResult], None], threading.Event], RunResult]


class LiveRun:
    """One run in a thread of its own; it calls ``changed`` in that thread whenever there is something new.

    Attributes:
        state: RUNNING, PAUSED, DONE or FAILED.
        message: the error of a failed run.
    """

    def __init__(self, work: Work, folder: Path, config: RMTConfig, changed: Callable[[], None]) -> None:
        self.folder, self.config, self.changed = folder, config, changed
        self.state, self.message = RUNNING, ""
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

    def pause(self) -> None:
        """End the run after the step under way; returns at once."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the run has ended; returns whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self, work: Work) -> None:
        try:
            work(lambda _: self.changed(), self._stop)
            self.state = DONE
        except Stopped:
            self.state = PAUSED
        except BaseException as error:  # nobody else sees an error in a thread
            own = isinstance(error, UserError)
            self.state, self.message = FAILED, str(error) if own else f"{type(error).__name__}: {error}"
            if not own:
                raise
        finally:
            self.changed()
