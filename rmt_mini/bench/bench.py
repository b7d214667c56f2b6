"""How fast is a step, compared with what one would use instead and with the machine's own limits?

Every contender runs in a process of its own, on the same positions, rollout counts and thought lengths. TRL is tried in
each dtype that the machine multiplies, with ever larger micro-batches while they are faster; the best is then timed
like the tree. The padded update's micro-batch is found likewise.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rmt_mini.bench.sizes import FIXED, Setting
from rmt_mini.errors import UserError
from rmt_mini.files import require_free, write_whole
from rmt_mini.report import plots
from rmt_mini.report.markdown import render
from rmt_mini.runs.folder import free_name
from rmt_mini.runs.journal import machine, versions

logger = logging.getLogger(__name__)
Json = dict[str, Any]

DTYPES = ("bfloat16", "float32")
SLOW = 1 / 8  # of the fastest dtype's rate: a processor without bfloat16 products takes a hundred times as long
LEAST = 8  # rollouts in a micro-batch
SHARES = (8, 4, 2, 1)  # a micro-batch is the rollouts divided by one of these
SWEEPS: dict[str, list[int]] = FIXED["sweeps"]


def bench(
    setting: Setting, out: Path | None = None, trl: bool = True, sweeps: Mapping[str, Sequence[int]] = SWEEPS
) -> tuple[Path, str]:
    """Measure all contenders; write bench.json, report.md and a figure; return the folder and the tables.

    ``out`` is a new folder, or None for a free one under runs/. TRL takes most of the time.
    """
    folder = out or free_name(Path("runs") / "bench")
    require_free(folder)
    quick = setting.replace(steps=1)
    needed = {}
    for name in ("tree", "limits"):
        needed[name] = run_part(name, setting)
        if "error" in needed[name]:
            raise UserError(f"the {name} cannot be measured: {needed[name]['error']}")
    tree, limits = needed.values()
    contenders = {"tree": tree, "generate": run_part("generate", setting), "padded": best(climb(quick, "padded"))}
    rates = limits["products"]
    dtypes = [dtype for dtype in DTYPES if trl and rates[dtype] > SLOW * max(rates.values())]
    tried = [one for dtype in dtypes for one in climb(quick, "trl", dtype=dtype)]
    contenders["trl"] = found = best(tried)
    if "seconds" in found:
        contenders["trl"] = run_part("trl", setting, dtype=found["dtype"], micro_batch=found["micro_batch"])
    swept = {}
    for name, values in sweeps.items():
        sizes = {value: setting.replace(**{name: value}) for value in values}
        measured = {v: tree if one == setting else run_part("tree", one.replace(steps=1)) for v, one in sizes.items()}
        swept[name] = {"points": [{"value": v, **one} for v, one in measured.items() if "error" not in one]}
    results = {
        **ratios(limits, contenders),
        "setting": setting.to_dict(),
        "limits": limits,
        "contenders": contenders | {"trl_trials": tried},
        "sweeps": swept,
        "machine": machine(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "bench.json", json.dumps(results, indent=1) + "\n")
    alt = ""
    if any(one["points"] for one in swept.values()):
        figured = plots.cost(swept, limits["products"][tree["dtype"]])
        plots.save(figured, folder / "cost.png")
        alt = figured.alt
    write_whole(folder / "report.md", lay_out_results(results, alt) + "\n")
    return folder, lay_out_results(results)


def run_part(name: str, setting: Setting, **more: Any) -> Json:
    """Run one part in a process of its own; {"error": its last line} where it fails."""
    logger.info("Measuring %s", " ".join([name, *(f"{key} {value}" for key, value in more.items())]))
    done = subprocess.run(
        [sys.executable, "-m", "rmt_mini.bench.parts", name, json.dumps(setting.to_dict()), json.dumps(more)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        logger.info("%s cannot be measured: %s", name, lines[-1])
        return {"error": lines[-1][:300], **more}
    found: Json = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def climb(setting: Setting, name: str, **more: Any) -> list[Json]:
    """Measure ever larger micro-batches for as long as they are faster."""
    found: list[Json] = []
    for size in (setting.rollouts // share for share in SHARES):
        if size >= LEAST:
            found.append(run_part(name, setting, **more, micro_batch=size))
            if best(found) is not found[-1]:
                break
    return found


def best(found: Sequence[Json]) -> Json:
    """Return the fastest of those that worked, else the first failure."""
    worked = [one for one in found if "seconds" in one]
    return min(worked, key=lambda one: median(one["seconds"])) if worked else dict(found[0]) if found else {}


def ratios(limits: Json, contenders: Mapping[str, Json]) -> dict[str, float | None]:
    """Compare medians; None where a contender could not be measured."""
    tree, trl = contenders["tree"], contenders["trl"]
    found: dict[str, float | None] = {}
    for name, (other, key) in FIXED["speedups"].items():
        seconds = contenders[other].get("seconds")
        found[name] = median(seconds) / median(tree[key]) if seconds else None
    for stage in ("rollout", "update"):
        operations, seconds = tree[f"{stage}_operations"], median(tree[f"{stage}_seconds"])
        found[f"{stage}_share_of_peak"] = operations / seconds / limits["products"][tree["dtype"]]
    found["memory_ratio_vs_trl"] = tree["peak_memory_mb"] / trl["peak_memory_mb"] if "peak_memory_mb" in trl else None
    return found


def lay_out_results(found: Json, alt: str | None = None) -> str:
    """Return the tables, a line on each contender and then the ratios; with ``alt``, of a figure or empty, a report."""
    shown = {name: found[name] for name in ratios(found["limits"], found["contenders"])}
    return render("bench.md.j2", **found, alt=alt, ratios=shown, median=median).strip()
