"""What every lesson begins with: a seed, the versions, and where recorded results are."""

import random
import sys
from importlib.metadata import version
from pathlib import Path

from rmt_mini.errors import UserError


def begin(seed: int = 0) -> str:
    """Seed every generator that a lesson may draw from, hide progress bars, and return the versions as a line."""
    import torch
    from transformers.utils import logging

    random.seed(seed)
    torch.manual_seed(seed)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    shown = ("rmt-mini", "torch", "transformers", "ipywidgets")
    versions = ", ".join(f"{name} {version(name)}" for name in shown)
    return f"Seed {seed}; Python {sys.version.split()[0]}, {versions}"


def recorded(name: str) -> Path:
    """Return where a recorded result is, such as "micro/seed0"; a UserError if this installation has none."""
    path = Path(__file__).resolve().parents[2] / "data" / name
    if not path.exists():
        raise UserError(f"data/{name} is not here; recorded results come with a clone of the repository, not a wheel")
    return path
