"""The run folder: a contract with the report, the notebooks and other tools. Files appear whole or not at all.

Lines of metrics.jsonl and rollouts.jsonl are the exception: they are added as they come, and a resumed run cuts them
back to the step that its state knows.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from rmt_mini.engine.model import Policy
from rmt_mini.errors import UserError
from rmt_mini.files import ESCAPED, LOCK, require_free, write_whole
from rmt_mini.stages.optimizer import require_sound
from rmt_mini.stages.state import sync

WHOLE = (  # files of a run that write_whole makes
    "answers.jsonl", "evaluation.json", "metrics.jsonl", "positions.json", "preflight.json", "report.md",
    "rollouts.jsonl", "run.json", "samples.json",
)  # fmt: skip


def free_name(base: Path) -> Path:
    """Return ``base``, or ``base-2``, ``base-3``, ... where it exists already."""
    names = (base if number == 1 else base.with_name(f"{base.name}-{number}") for number in range(1, 10_000))
    return next(name for name in names if not name.exists())


def folder_for(out: str, name: str) -> Path:
    """Return ``out``, or where it is empty a free folder under runs/."""
    return Path(out) if out else free_name(Path("runs") / name)


class RunFolder:
    """One run's folder, held by one process at a time.

    Args:
        path: the folder.
        needed_bytes: free space the run wants before it starts.
        resume: go on in a folder that a run left, instead of beginning in a free one.

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
                require_free(path)  # again, now that no one else can begin here
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

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let other processes have the folder."""
        with contextlib.suppress(OSError):  # Windows unlinks nothing that is open
            (self.path / LOCK).unlink(missing_ok=True)  # before the release: filelock sees that its file is gone
        self._lock.release()

    def _sweep(self) -> None:
        """Put away what a killed process left half done."""
        old = self.path / ".checkpoint.old"
        if old.exists() and not (self.path / "checkpoint").exists():  # killed between two renames
            old.rename(self.path / "checkpoint")
        for name in (".checkpoint.new", ".checkpoint.old", "state/.new"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        for scratch in self.path.glob(".*.[0-9]*"):  # of write_whole; others are a user's
            name, _, process = scratch.name[1:].rpartition(".")
            if name in WHOLE and process.isdigit() and scratch.is_file():
                scratch.unlink()

    def write_lines(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write a .jsonl file whole."""
        write_whole(self.path / name, "".join(_line(line) for line in lines))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file whole."""
        write_whole(self.path / name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def append(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines to a .jsonl file; they have reached the disk before any state that counts on them."""
        with (self.path / name).open("a", encoding="utf-8", errors=ESCAPED) as file:
            file.writelines(_line(line) for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def save_checkpoint(self, policy: Policy) -> None:
        """Save model and tokenizer as transformers does, whole or not at all; an older one stays until then.

        Raises:
            NonFiniteError: if the policy has run away; the older one stays.
        """
        require_sound(policy)
        final, made, old = (self.path / name for name in ("checkpoint", ".checkpoint.new", ".checkpoint.old"))
        try:
            policy.model.config.use_cache = True  # an ordinary model again for whoever opens it
            policy.model.save_pretrained(made)
            policy.tokenizer.save_pretrained(made)
            sync(made)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
        finally:
            policy.model.config.use_cache = False
        if final.exists():
            final.rename(old)
        made.rename(final)
        shutil.rmtree(old, ignore_errors=True)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def as_dict(record: Any) -> dict[str, Any]:
    """Return a frozen record as plain values for JSON."""
    return dataclasses.asdict(record)
