"""The run folder: a contract with the report, the notebooks and other tools. Files appear whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rmt_mini.engine.model import Policy
from rmt_mini.errors import UserError


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all: to a temporary file beside it, then renamed."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def free_name(base: Path) -> Path:
    """Return ``base``, or ``base-2``, ``base-3``, ... where it exists already."""
    names = (base if number == 1 else base.with_name(f"{base.name}-{number}") for number in range(1, 10_000))
    return next(name for name in names if not name.exists())


def folder_for(out: str, name: str) -> Path:
    """Return ``out``, or where it is empty a free folder under runs/."""
    return Path(out) if out else free_name(Path("runs") / name)


def require_free(path: Path) -> None:
    """Refuse a folder that holds anything: a run is never overwritten."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"output folder {str(path)!r} is in use; choose another with --out, or delete it")


class RunFolder:
    """One run's folder.

    Args:
        path: the folder.
        needed_bytes: free space the run wants before it starts.

    Raises:
        UserError: if the folder is in use, cannot be written, or its disk is nearly full.
    """

    def __init__(self, path: Path, needed_bytes: int = 0) -> None:
        self.path = path
        require_free(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_whole(path / "metrics.jsonl", "")
        except OSError as error:
            raise UserError(
                f"output folder {str(path)!r} cannot be written ({error.strerror}); choose another --out"
            ) from error
        free = shutil.disk_usage(path).free
        if free < needed_bytes:
            raise UserError(
                f"output folder {str(path)!r} has {free / 1e6:.0f} MB free, and the run needs about "
                f"{needed_bytes / 1e6:.0f} MB; free some, or choose another --out"
            )

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file whole."""
        write_whole(self.path / name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    def append(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines to a .jsonl file."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)

    def save_checkpoint(self, policy: Policy) -> None:
        """Save model and tokenizer as transformers does, whole or not at all; an older one stays until then."""
        final = self.path / "checkpoint"
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".checkpoint.") as scratch:
            made = Path(scratch) / "new"
            policy.model.config.use_cache = True  # an ordinary model again for whoever opens it
            policy.model.save_pretrained(made)
            policy.model.config.use_cache = False
            policy.tokenizer.save_pretrained(made)
            if final.exists():
                final.rename(Path(scratch) / "old")
            made.rename(final)


def as_dict(record: Any) -> dict[str, Any]:
    """Return a frozen record as plain values for JSON."""
    return dataclasses.asdict(record)
