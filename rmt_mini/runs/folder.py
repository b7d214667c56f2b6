"""The run folder, locked by one process at a time: run.json, lines as they come, checkpoints and training states.

    state/step-000012/tensors.safetensors    weights, moments, streams of random numbers
    state/step-000012/state.json             plain values, the step among them

Files and folders appear whole or not at all. Lines of metrics.jsonl and rollouts.jsonl are the exception: they are
added as they come, and a resumed run cuts them back to the step of its state. Nothing is pickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rmt_mini.config import PretrainConfig, RMTConfig
from rmt_mini.engine.model import Policy
from rmt_mini.engine.prompt import TAIL_TOKENS, AnswerFormat
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import (
    LOCK,
    AnswerLine,
    Kind,
    Notes,
    RolloutLine,
    Time,
    as_lines,
    require_free,
    write_whole,
)
from rmt_mini.records import Answer, Judged, State, Text
from rmt_mini.stages.midtrain import StepResult
from rmt_mini.stages.optimizer import require_sound

CONTEXT_CHARACTERS = 60
PACKAGES = ("rmt-mini", "torch", "transformers", "tokenizers", "numpy", "scipy", "champ-dataset")
SUFFIXES = {".json", ".jsonl", ".md"}  # of the files that write_whole makes in a run folder
Item = TypeVar("Item")


def free_name(base: Path) -> Path:
    """Return ``base``, or ``base-2``, ``base-3``, ... where it exists already."""
    names = (base if number == 1 else base.with_name(f"{base.name}-{number}") for number in range(1, 10_000))
    return next(name for name in names if not name.exists())


def folder_for(out: str, name: str) -> Path:
    """Return ``out``, or where it is empty a free folder under runs/."""
    return Path(out) if out else free_name(Path("runs") / name)


class RunFolder:
    """One run's folder, locked until ``release``; a free one with ``needed_bytes`` of space, or one to ``resume`` in.

    Raises:
        UserError: if the folder is in use, cannot be written, or its disk is nearly full.
    """

    def __init__(self, path: Path, needed_bytes: int = 0, resume: bool = False) -> None:
        self.path = path
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
            raise UserError(
                f"run folder {str(path)!r} is in use by another process; wait for it, or choose another --out"
            ) from error
        except OSError as error:
            raise UserError(
                f"output folder {str(path)!r} cannot be written ({error.strerror}); choose another --out"
            ) from error
        free = shutil.disk_usage(path).free
        if free < needed_bytes:
            self.release()
            raise UserError(
                f"output folder {str(path)!r} has {free / 1e6:.0f} MB free, and the run needs about "
                f"{needed_bytes / 1e6:.0f} MB; free some, or choose another --out"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let other processes have the folder."""
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
        for scratch in self.path.glob(".*.[0-9]*"):
            name, _, process = scratch.name.rpartition(".")
            if Path(name).suffix in SUFFIXES and process.isdigit():
                scratch.unlink()

    def write_lines(self, name: str, records: Iterable[object]) -> None:
        """Write a .jsonl file whole."""
        write_whole(self.path / name, as_lines(records))

    def append(self, name: str, records: Iterable[object]) -> None:
        """Append lines to a .jsonl file; they reach the disk before any state that counts on them."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(as_lines(records))
            file.flush()
            os.fsync(file.fileno())

    def save_checkpoint(self, policy: Policy) -> None:
        """Save model and tokenizer as transformers does; an older checkpoint stays until then.

        Raises:
            NonFiniteError: if weights are not finite; the older checkpoint stays.
        """
        require_sound(policy)
        try:
            policy.model.config.use_cache = True  # an ordinary model again for whoever opens it
            with _whole(self.path / "checkpoint") as made:
                policy.model.save_pretrained(made)
                policy.tokenizer.save_pretrained(made)
        finally:
            policy.model.config.use_cache = False


@contextlib.contextmanager
def _whole(final: Path) -> Iterator[Path]:
    """Give a new folder to write into, which takes the place of ``final`` once all of it is on disk."""
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
    for path in [*(path for path in folder.rglob("*") if path.is_file()), folder]:
        if path.is_dir() and os.name == "nt":  # Windows opens no folders
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def save_state(folder: Path, state: State) -> None:
    """Write a state into a run folder, then remove older ones; if the disk refuses it, those stay."""
    with _whole(folder / "state" / f"step-{state.plain['step']:06d}") as made:
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


class Journal:
    """Keeps run.json up to date; its notes are ``first_notes`` of a run that starts, or those of one resumed."""

    def __init__(self, folder: RunFolder, notes: Notes) -> None:
        self.folder, self.notes = folder, notes
        self._running: dict[str, float] = {}  # stage -> since when its seconds are not yet noted

    def note(self, **more: Any) -> None:
        """Add to the notes and write them; the stages under way have their seconds so far in them."""
        self._count_seconds()
        for name, value in more.items():
            setattr(self.notes, name, value)
        self.notes.write(self.folder.path)

    def done(self, **more: Any) -> None:
        """Note that the run is done; a report written before its block ends shows it already."""
        self.note(status="done", end=now(), **more)

    def step(self, policy: Policy, result: StepResult, count: int) -> None:
        """Write a step's metrics, and ``count`` of its rollouts."""
        step, logged = result.metrics.step, evenly(result.judged, count)
        self.folder.append("metrics.jsonl", [result.metrics])
        self.folder.append("rollouts.jsonl", [rollout_line(policy, step, result.texts, one) for one in logged])

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
        now, seconds = time.perf_counter(), self.notes.seconds
        for stage, since in self._running.items():
            seconds[stage] = round(seconds.get(stage, 0.0) + now - since, 3)
            self._running[stage] = now

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """Note how the block ends: done, interrupted or failed."""
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


def first_notes(kind: Kind, config: RMTConfig | PretrainConfig, **more: Any) -> Notes:
    """Return the notes that a run starts with; what is None is left out."""
    return Notes(
        kind=kind,
        config=config,
        seed=config.seed,
        command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        versions=versions(),
        machine=machine(),
        start=now(),
        seconds={},
        **{name: value for name, value in more.items() if value is not None},
    )


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """Return ``count`` items spread evenly, so that the log shows many positions rather than one group."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def rollout_line(policy: Policy, step: int, texts: Sequence[Text], judged: Judged | Answer) -> RolloutLine:
    """Lay out a rollout for rollouts.jsonl or samples.json, as text that a person can read."""
    decode = policy.tokenizer.decode
    rollout = judged.rollout
    assert rollout is not None  # only answers read back from a file have lost it
    position = judged.position if isinstance(judged, Answer) else rollout.position
    text = texts[position.trunk]
    rewards = ("length_reward", "reward", "advantage") if isinstance(judged, Judged) else ()
    return RolloutLine(
        step=step,
        document=text.id,
        position=position.index,
        tier=position.tier,
        entropy=position.entropy,
        context=decode(list(text.ids[: position.index]))[-CONTEXT_CHARACTERS:],
        budget=rollout.budget,
        thought=decode(list(rollout.thought)),
        closed=rollout.closed,
        answer=decode(list(rollout.answer)),
        truth=decode([text.ids[position.index]]),
        match=judged.match,
        **{name: getattr(judged, name) for name in rewards},
    )


def answer_line(when: Time, texts: Sequence[Text], answer: Answer) -> AnswerLine:
    """Lay out an answer for answers.jsonl: what an interval over several runs needs."""
    position = answer.position
    same = {name: getattr(answer, name) for name in ("sort", "plain", "match", "length", "closed")}
    document = texts[position.trunk].id
    return AnswerLine(when=when, document=document, position=position.index, tier=position.tier, **same)


def now() -> str:
    """Return the time, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine() -> dict[str, str | int | None]:
    """Return what a timing depends on."""
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def model_digest(policy: Policy) -> str:
    """Return a sha256 over the weights, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def token_digest(form: AnswerFormat, texts: Sequence[Text], budget: int) -> str:
    """Return a sha256 over what a model reads: texts as tokens, and delimiters of a branch under ``budget``."""
    frame = [form.opening(budget), form.close, form.cue([0] * 2 * TAIL_TOKENS, 2 * TAIL_TOKENS)]
    return hashlib.sha256(json.dumps([frame, [(text.first, text.ids) for text in texts]]).encode()).hexdigest()
