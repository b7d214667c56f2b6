"""Seconds and memory of a notebook: ``data/lessons.json`` is the result."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil
from nbclient import NotebookClient

EVERY = 0.1  # seconds between two looks; a peak between two of them is not seen


class Cost(NamedTuple):
    """What one run of a notebook took."""

    seconds: float
    peak_memory_mb: float


@dataclass
class Peak:
    """The most resident memory so far, in megabytes, of a kernel and the processes that it started."""

    megabytes: float = 0.0


@contextmanager
def watched(client: NotebookClient) -> Iterator[Peak]:
    """Watch the memory of a notebook's kernel, which starts within the block."""
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while not over.wait(EVERY):
            provisioner = getattr(getattr(client, "km", None), "provisioner", None)  # None before the start
            pid = getattr(provisioner, "pid", None)
            try:
                kernel = [psutil.Process(pid)] if pid else []
                processes = [one for root in kernel for one in (root, *root.children(recursive=True))]
                peak.megabytes = max(peak.megabytes, sum(one.memory_info().rss for one in processes) / 1e6)
            except psutil.Error:  # a process ended meanwhile
                pass

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def costs_written(costs: Mapping[str, Cost], machine: str) -> str:
    """Return the text of ``data/lessons.json``; ``machine`` describes it, and what else ran on it."""
    versions = {name: version(name) for name in ("torch", "transformers", "ipykernel")}
    rows = {
        name: {"seconds": round(one.seconds, 1), "peak_memory_mb": round(one.peak_memory_mb)}
        for name, one in costs.items()
    }
    written = {"date": f"{date.today():%Y-%m-%d}", "machine": machine, "versions": versions, "lessons": rows}
    return json.dumps(written, indent=2) + "\n"


def costs_read(path: Path) -> dict[str, Cost]:
    """Read what ``costs_written`` wrote."""
    return {name: Cost(**row) for name, row in json.loads(path.read_text(encoding="utf-8"))["lessons"].items()}
