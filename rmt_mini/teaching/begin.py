"""What every lesson begins with: a seed, the versions, and where recorded results are."""

import html
import random
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rmt_mini.errors import UserError, logger


def begin(*parts: str, seed: int = 0) -> Any:
    """Seed every generator that a lesson may draw from, hide progress bars and warnings, and show the versions.

    With ``parts`` of the method, they are highlighted in its picture, which is shown too.
    """
    import torch
    from transformers.utils import logging

    from rmt_mini.report.plots import Marked, pipeline, stacked

    logger.setLevel("ERROR")  # a busy machine, say, warns in the middle of a lesson
    random.seed(seed)
    torch.manual_seed(seed)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    versions = ", ".join(f"{name} {version(name)}" for name in ("rmt-mini", "torch", "transformers", "ipywidgets"))
    line = f"Seed {seed}; Python {sys.version.split()[0]}, {versions}"
    return stacked(Marked(html.escape(line), line, role="group"), *([pipeline(*parts)] if parts else []))


def recorded(name: str) -> Path:
    """Return where a recorded result is, such as "micro/seed0"; a UserError if this installation has none."""
    clone = Path(__file__).resolve().parents[2] / "data" / name
    path = clone if clone.exists() else Path(sysconfig.get_path("data"), "share/rmt_mini/data", name)
    if not path.exists():
        raise UserError(f"data/{name} is not here; recorded results of this name come with a clone of the repository")
    return path
