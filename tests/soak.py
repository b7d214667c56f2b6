"""Check that a long run leaks no memory and repeats no warning: ``python -m tests.soak --steps 2000``.

The memory that the process holds is read after every step of RMT on the micro-world, once what is freed is handed back.
A line is fitted to the last three quarters of the steps; the first quarter fills caches.
"""

import argparse
import ctypes
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy.stats import linregress, t

from rmt_mini.config import preset
from rmt_mini.engine.memory import NO_GLIBC, resident_memory
from rmt_mini.errors import UserError
from rmt_mini.files import write_whole
from rmt_mini.runs.run import run

ALLOWED_KB = 5.0  # a step: a run keeps its metrics, about 1 KB each
SMALL = {"evaluation_positions": 90, "evaluation_documents": 60, "preflight_positions": 18}


@dataclass(frozen=True)
class Soak:
    """What a long run did to memory and log."""

    warnings: dict[str, int]  # how often each came
    resident_mb: list[float]  # held after each step

    @property
    def leaks(self) -> bool:
        """Whether memory surely grows by more than a run keeps on purpose."""
        return growth(self.resident_mb)[1] > ALLOWED_KB

    def line(self) -> str:
        """Return the result as a line, and each warning in another."""
        slope, low, high = growth(self.resident_mb)
        first = (
            f"{len(self.resident_mb)} steps: memory {'it leaks' if self.leaks else 'flat'}, {slope:+.1f} KB a step "
            f"[{low:+.1f}, {high:+.1f}], {self.resident_mb[0]:.0f} MB at the start and {self.resident_mb[-1]:.0f} at "
            f"the end; {len(self.warnings)} different warnings"
        )
        return "\n".join([first, *(f"{count} x {text}" for text, count in self.warnings.items())])


def growth(resident_mb: Sequence[float]) -> tuple[float, float, float]:
    """Fit a line to the last three quarters of the readings; returns its slope and 95 % interval, KB a step."""
    kept = [1e3 * reading for reading in resident_mb[len(resident_mb) // 4 :]]
    if len(kept) < 3:
        raise UserError(f"{len(resident_mb)} steps are too few to see memory grow; give at least 3")
    fitted = linregress(range(len(kept)), kept)
    half = float(t.ppf(0.975, len(kept) - 2)) * float(fitted.stderr)
    return float(fitted.slope), float(fitted.slope) - half, float(fitted.slope) + half


def soak(work: Callable[[Callable[[object], None]], object]) -> Soak:
    """Watch ``work``, which runs and calls what it is given after every step."""
    readings, warnings = list[float](), Counter[str]()

    def count(record: logging.LogRecord) -> None:
        text = re.sub(r"\d+(\.\d+)?", "N", " ".join(record.getMessage().split()))
        warnings[f"{record.name}: {text[:200]}"] += 1

    def read(_: object) -> None:
        with suppress(*NO_GLIBC):
            ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept goes back to the system
        readings.append(resident_memory() / 1e6)

    handler = logging.Handler(logging.WARNING)
    handler.emit = count  # type: ignore[method-assign]
    for name in ("transformers", "huggingface_hub"):
        logging.getLogger(name).propagate = True
    logging.captureWarnings(True)
    logging.getLogger().addHandler(handler)
    try:
        work(read)
    finally:
        logging.getLogger().removeHandler(handler)
        logging.captureWarnings(False)
    return Soak(dict(warnings), readings)


def main() -> None:
    """Run the micro-world for many steps; write soak.json beside the run."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--out", default="runs/soak", help="a new folder")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        config = preset("micro", steps=given.steps, out=given.out, **SMALL)
        found = soak(lambda on_step: run(config, on_step=on_step))
    except UserError as error:
        parser.error(str(error))
    write_whole(Path(given.out) / "soak.json", json.dumps(asdict(found), indent=1) + "\n")
    logging.getLogger(__name__).info("%s\nReadings     %s", found.line(), Path(given.out) / "soak.json")


if __name__ == "__main__":
    main()
