"""The run folder, locked by one process at a time: run.json, lines as they come, checkpoints and training states.

    state/step-000012/tensors.safetensors    weights, moments, streams of random numbers
    state/step-000012/state.json             plain values, the step among them

Files and folders appear whole or not at all. Lines of metrics.jsonl and rollouts.jsonl are the exception: they are
added as they come, and a resumed run cuts them back to the step of its state. Nothing is pickled.
"""

import contextlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rmt_mini.engine.model import Policy
from rmt_mini.errors import Stopped, UserError, logger
from rmt_mini.files import LOCK, UNFINISHED, Notes, as_lines, require_free, write_whole
from rmt_mini.records import State
from rmt_mini.runs import tracking
from rmt_mini.runs.journal import now, rollout_line
from rmt_mini.stages.evaluate import evenly
from rmt_mini.stages.midtrain import StepResult
from rmt_mini.stages.optimizer import require_sound

CROWDED = 1.5  # a step on the CPU this many times as long as its processor time has waited for others


def free_name(base: Path) -> Path:
    """Return ``base``, or ``base-2``, ``base-3``, ... where it exists already."""
    names = (base if number == 1 else base.with_name(f"{base.name}-{number}") for number in range(1, 10_000))
    return next(name for name in names if not name.exists())


def folder_for(out: str, name: str) -> Path:
    """Return ``out``, or where it is empty a free folder under runs/."""
    return Path(out) if out else free_name(Path("runs") / name)


class RunFolder(contextlib.AbstractContextManager["RunFolder"]):
    """One run's folder, locked until ``release``; a free one with ``needed_bytes`` of space, or one to ``resume``.

    ``notes`` are ``first_notes`` of a run that starts, or those of one resumed; the folder keeps run.json up to date.
    """

    def __init__(self, path: Path, notes: Notes, needed_bytes: int = 0, resume: bool = False) -> None:
        self.path, self.notes = path, notes
        self._running: dict[str, float] = {}  # stage -> since when its seconds are not yet noted
        self._clocks: tuple[float, float] | None = None  # seconds by the wall and of the processor, at the last step
        self._warned = False
        self._tracker: tracking.Tracker | None = None
        if not resume:
            require_free(path)
        self._lock = FileLock(path / LOCK)
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            if resume:
                self._sweep()
            else:
                require_free(path)  # again, now that no one else can start here
        except Timeout as error:
            line = f"run folder {str(path)!r} is in use by another process; wait for it, or choose another --out"
            raise UserError(line) from error
        except OSError as error:
            line = f"output folder {str(path)!r} cannot be written ({error.strerror}); choose another --out"
            raise UserError(line) from error
        free = shutil.disk_usage(path).free
        if free < needed_bytes:
            self.release()
            raise UserError(
                f"output folder {str(path)!r} has {free / 1e6:.0f} MB free, and the run needs about "
                f"{needed_bytes / 1e6:.0f} MB; free some, or choose another --out"
            )

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let other processes have the folder."""
        if self._tracker is not None:
            with contextlib.suppress(Exception):  # another program's
                self._tracker.close()
        with contextlib.suppress(OSError):  # Windows unlinks nothing that is open
            (self.path / LOCK).unlink(missing_ok=True)  # before the release: filelock sees that its file is gone
        self._lock.release()

    def _sweep(self) -> None:
        """Remove what a killed process left unfinished."""
        old = self.path / ".checkpoint.old"
        if old.exists() and not (self.path / "checkpoint").exists():  # killed between two renames
            old.rename(self.path / "checkpoint")
        for scratch in (*self.path.glob(".checkpoint.*"), *self.path.glob("state/.*")):
            shutil.rmtree(scratch, ignore_errors=True)
        for scratch in self.path.rglob(f".*.{UNFINISHED}"):
            scratch.unlink()

    def write_lines(self, name: str, records: Iterable[object]) -> None:
        """Write a .jsonl file whole."""
        write_whole(self.path / name, as_lines(records))

    def track(self, step: int = 0, past: Iterable[object] = ()) -> None:
        """Report to where the settings say, from ``step`` on; the lines of the ``past`` too, where they are missing."""
        if self.notes.settings.report_to != "none":
            self.note(tracking_id=self.notes.tracking_id or uuid.uuid4().hex[:12])
        self._tracker = tracking.start(self.path, self.notes, step)
        if self._tracker is not None:
            self._tracker.log(past)

    def append(self, name: str, records: Sequence[object]) -> None:
        """Append lines to a .jsonl file, and report them; they reach the disk before any state that counts on them."""
        with (self.path / name).open("a", encoding="utf-8", newline="\n") as file:
            file.write(as_lines(records))
            file.flush()
            os.fsync(file.fileno())
        if self._tracker is not None:
            self._tracker.log(records)

    def save_checkpoint(self, policy: Policy) -> None:
        """Save model and tokenizer as transformers does; if a weight is not finite, an older checkpoint stays."""
        require_sound(policy)
        try:
            policy.model.config.use_cache = True  # an ordinary model again for whoever opens it
            with whole(self.path / "checkpoint") as made:
                policy.model.save_pretrained(made)
                policy.tokenizer.save_pretrained(made)
        finally:
            policy.model.config.use_cache = False

    def note(self, **more: Any) -> None:
        """Add to run.json and write it; the stages under way have their seconds so far in it."""
        self._count_seconds()
        for name, value in more.items():
            setattr(self.notes, name, value)
        self.notes.write(self.path)

    def step(self, policy: Policy, result: StepResult, count: int) -> None:
        """Write a step's metrics, and ``count`` of its rollouts."""
        step, logged = result.metrics.step, evenly(result.judged, count)
        self.append("metrics.jsonl", [result.metrics])
        self.append("rollouts.jsonl", [rollout_line(policy, step, result.texts, one) for one in logged])
        if policy.device.type == "cpu" and not self._warned:
            self._warned = self._waited(step)

    def _waited(self, step: int) -> bool:
        """Whether the time since the step before was spent waiting for a processor; says so."""
        before, self._clocks = self._clocks, (time.perf_counter(), time.process_time())
        if before is None:
            return False
        wall, processor = (new - old for new, old in zip(self._clocks, before, strict=True))
        if wall < max(1.0, CROWDED * processor):
            return False
        took = f"Step {step} took {wall:.0f} s, but only {processor:.0f} s of processor time"
        logger.warning("%s: other programs are computing. Close them, or lower OMP_NUM_THREADS", took)
        return True

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add what the block takes to ``seconds``, under the stage's name, however it ends."""
        self._running[stage] = time.perf_counter()
        try:
            yield
        finally:
            self._count_seconds()
            del self._running[stage]
        self.note()  # a process that is killed later loses none of it

    def _count_seconds(self) -> None:
        moment, seconds = time.perf_counter(), self.notes.seconds
        for stage, since in self._running.items():
            seconds[stage] = round(seconds.get(stage, 0.0) + moment - since, 3)
            self._running[stage] = moment

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Note that the block runs, and if it does not reach its end, whether it was interrupted or failed."""
        self.note(status="running")
        try:
            yield
        except (KeyboardInterrupt, Stopped):
            self.note(status="interrupted", end=now())
            raise
        except BaseException as error:
            with contextlib.suppress(OSError):  # what ended the block may keep this from being written, too
                self.note(status="failed", end=now(), error=f"{type(error).__name__}: {error}")
            raise


@contextlib.contextmanager
def whole(final: Path) -> Iterator[Path]:
    """Give a new folder to write into, which takes the place of ``final`` once all of it is on disk."""
    if final.resolve() == Path.cwd():  # a folder that is renamed would take the user along
        raise UserError("the current folder cannot be replaced; choose another --out")
    final = final.resolve()
    made, old = (final.with_name(f".{final.name}.{end}") for end in ("new", "old"))
    shutil.rmtree(made, ignore_errors=True)
    try:
        made.mkdir(parents=True)
        yield made
        _sync(made)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    if final.exists():
        final.rename(old)
    made.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _sync(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir() and os.name == "nt":  # Windows opens no folders
            continue
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows syncs only what it may write
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_state(folder: Path, state: State) -> None:
    """Write a state into a run folder, then remove older ones; if the disk refuses it, those stay."""
    with whole(folder / "state" / f"step-{state.plain['step']:06d}") as made:
        tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
        save_file(tensors, made / "tensors.safetensors")
        (made / "state.json").write_text(json.dumps(state.plain), encoding="utf-8")
    for old in _saved(folder)[:-1]:
        shutil.rmtree(old)


def load_state(folder: Path) -> State | None:
    """Read the newest state of a run folder; None where there is none, a UserError if it is damaged."""
    for newest in _saved(folder)[-1:]:
        try:
            plain = json.loads((newest / "state.json").read_text(encoding="utf-8"))
            return State(load_file(newest / "tensors.safetensors"), plain)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(f"the saved state {str(newest)!r} is damaged ({error}); start the run again") from error
    return None


def drop_states(folder: Path) -> None:
    """Remove all states: a finished run needs none."""
    shutil.rmtree(folder / "state", ignore_errors=True)


def _saved(folder: Path) -> list[Path]:
    return sorted((folder / "state").glob("step-*"))
