"""Training state on disk: what an exact resume needs, whole or not at all.

    state/step-000012/tensors.safetensors    weights, moments, streams of random numbers
    state/step-000012/state.json             plain values, the step among them

A state is written under another name, synced to the disk, and then renamed; only then the older one is removed. So a
process may die at any moment, and the newest state under its proper name is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmt_mini.errors import UserError


@dataclass(frozen=True)
class State:
    """One saved state: tensors by name, and everything else as JSON keeps it; "step" counts the steps done."""

    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]


def save_state(folder: Path, state: State) -> None:
    """Write a state into a run folder, and remove older ones; after an OSError the older state is untouched."""
    states = folder / "state"
    scratch, final = states / ".new", states / f"step-{state.plain['step']:06d}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        scratch.mkdir(parents=True)
        tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
        save_file(tensors, scratch / "tensors.safetensors")
        (scratch / "state.json").write_text(json.dumps(state.plain), encoding="utf-8")
        sync(scratch)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(final, ignore_errors=True)  # where the same step was saved before
    scratch.rename(final)
    for old in _saved(folder)[:-1]:
        shutil.rmtree(old)


def load_state(folder: Path) -> State | None:
    """Read the newest state of a run folder, None where there is none; UserError where it is damaged."""
    saved = _saved(folder)
    if not saved:
        return None
    try:
        plain = json.loads((saved[-1] / "state.json").read_text(encoding="utf-8"))
        return State(load_file(saved[-1] / "tensors.safetensors"), plain)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"the saved state {str(saved[-1])!r} is damaged ({error}); begin the run again") from error


def drop_states(folder: Path) -> None:
    """Remove all states: a finished run needs none."""
    shutil.rmtree(folder / "state", ignore_errors=True)


def sync(folder: Path) -> None:
    """Flush a folder's files to the disk before it is renamed."""
    for path in [*(path for path in folder.rglob("*") if path.is_file()), folder]:
        if path.is_dir() and os.name == "nt":  # Windows opens no folders
            continue
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _saved(folder: Path) -> list[Path]:
    return sorted((folder / "state").glob("step-*"))
