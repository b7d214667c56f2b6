"""What a notebook takes: seconds, and the most memory that its kernel and the kernel's children held at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

EVERY = 0.1  # seconds between two looks; a peak between two of them is not seen
MEGABYTE = 1_000_000


class Cost(NamedTuple):
    """What one run of a notebook took; the memory is resident, in megabytes."""

    seconds: float
    peak_memory_mb: float


@dataclass
class Peak:
    """The most that was seen so far."""

    megabytes: float = 0.0


@contextmanager
def watched(client: Any) -> Iterator[Peak]:
    """Watch the memory of a notebook's kernel while the block runs.

    Args:
        client: an nbclient.NotebookClient, which starts its kernel within the block.

    Yields:
        The peak; what its kernel held at once with all processes that it started.
    """
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while not over.wait(EVERY):
            peak.megabytes = max(peak.megabytes, _held(_kernel(client)) / MEGABYTE)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _kernel(client: Any) -> int | None:
    provisioner = getattr(getattr(client, "km", None), "provisioner", None)  # neither is there before the start
    return getattr(provisioner, "pid", None)


def _held(process: int | None) -> int:
    if process is None:
        return 0
    held = 0
    try:
        root = psutil.Process(process)
        for one in (root, *root.children(recursive=True)):
            held += one.memory_info().rss
    except psutil.Error:  # it ended while we looked; what was counted was held
        pass
    return held


def costs_written(costs: Mapping[str, Cost], machine: str) -> str:
    """Return the text of ``data/lessons.json``.

    Args:
        costs: notebook's name -> what it took.
        machine: in words, and what else ran on it.
    """
    versions = {name: version(name) for name in ("torch", "transformers", "ipykernel")}
    rows = {
        name: {"seconds": round(one.seconds, 1), "peak_memory_mb": round(one.peak_memory_mb)}
        for name, one in costs.items()
    }
    written = {"date": f"{date.today():%Y-%m-%d}", "machine": machine, "versions": versions, "lessons": rows}
    return json.dumps(written, indent=2) + "\n"


def costs_read(path: Path) -> dict[str, Cost]:
    """Read back what ``costs_written`` wrote."""
    rows = json.loads(path.read_text(encoding="utf-8"))["lessons"]
    return {name: Cost(row["seconds"], row["peak_memory_mb"]) for name, row in rows.items()}
