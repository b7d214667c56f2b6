"""How fast is a step, compared with what one would use instead and with the machine's own limits?

Every contender runs in a process of its own, one after another, on the same positions, rollout counts and thought
lengths. The machine's limits are measured beside them, so that every figure is a ratio of two measurements of one run;
ratios can be compared across machines, seconds cannot. TRL is tried in each dtype that the machine multiplies, with
ever larger micro-batches while they are faster, one step each; the best is then timed like the tree. The padded
update's micro-batch is found likewise.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tqdm.auto import tqdm

from rmt_mini.bench.parts import Json, Setting
from rmt_mini.errors import UserError
from rmt_mini.files import require_free, write_whole
from rmt_mini.report import plots
from rmt_mini.report.markdown import table
from rmt_mini.runs.folder import free_name, machine, versions

logger = logging.getLogger(__name__)

DTYPES = ("bfloat16", "float32")
SLOW = 1 / 8  # of the fastest dtype's rate: a processor without bfloat16 products takes a hundred times as long
LEAST = 8  # rollouts in a micro-batch
SHARES = (8, 4, 2, 1)  # a micro-batch is the rollouts divided by one of these
SWEEPS: dict[str, tuple[int, ...]] = {
    "prefix": (40, 125, 250),
    "positions": (1, 4, 8),
    "group_size": (2, 8, 16),
    "thought_tokens": (6, 24, 48),
}
SPEEDUPS = {  # ratio -> whose seconds are compared with which of the tree's
    "step_speedup_vs_trl": ("trl", "seconds"),
    "rollout_speedup_vs_generate": ("generate", "rollout_seconds"),
    "rollout_speedup_vs_continuous": ("continuous", "rollout_seconds"),
    "update_speedup_vs_plain": ("padded", "update_seconds"),
}
ROWS = (
    ("the tree: step", "tree", "seconds"),
    ("the tree: rollouts", "tree", "rollout_seconds"),
    ("the tree: update", "tree", "update_seconds"),
    ("TRL: step", "trl", "seconds"),
    ("generate: rollouts", "generate", "seconds"),
    ("continuous batching: rollouts", "continuous", "seconds"),
    ("padded rows: update", "padded", "seconds"),
)


def bench(
    setting: Setting,
    out: Path | None = None,
    trl: bool = True,
    sweeps: Mapping[str, Sequence[int]] = SWEEPS,
    progress: bool = True,
) -> tuple[Path, str]:
    """Measure all contenders on one setting; write bench.json, report.md and a figure.

    Args:
        setting: the step that is measured.
        out: a new folder; a free one under runs/ where None.
        trl: whether to measure TRL, which takes most of the time.
        sweeps: sizes to be changed one at a time.
        progress: show a progress bar.

    Returns:
        The folder, and the tables.
    """
    folder = out or free_name(Path("runs") / "bench")
    require_free(folder)
    with tqdm(desc="Bench", disable=not progress, dynamic_ncols=True, unit="part") as bar:

        def part(name: str, one: Setting, **more: Any) -> Json:
            bar.set_postfix_str(" ".join([name, *map(str, more.values())])[:40])
            found = run_part(name, one, **more)
            bar.update()
            return found

        quick = replace(setting, steps=1)
        limits, tree = part("limits", setting), part("tree", setting)
        for name, found in (("limits", limits), ("tree", tree)):
            if "error" in found:
                raise UserError(f"the {name} cannot be measured: {found['error']}")
        generated, continuous = part("generate", setting), part("generate", quick, continuous=True)
        padded = _best(_climb(setting, partial(part, "padded", quick)))
        tried: list[Json] = []
        for dtype in _multiplied(limits) if trl else ():
            tried += _climb(setting, partial(part, "trl", quick, dtype=dtype))
        best = _best(tried)
        if "seconds" in best:
            best = part("trl", setting, dtype=best["dtype"], micro_batch=best["micro_batch"])
        swept = {}
        for name, values in sweeps.items():
            own = getattr(setting, name)
            swept[name] = part("sweep", quick, field=name, values=[value for value in values if value != own])
            if "points" in swept[name] and own in values:
                points = [*swept[name]["points"], {"value": own, **tree}]
                swept[name]["points"] = sorted(points, key=lambda point: point["value"])

    contenders = {"tree": tree, "generate": generated, "continuous": continuous, "padded": padded, "trl": best}
    found = {
        **ratios(limits, contenders),
        "setting": asdict(setting),
        "limits": limits,
        "contenders": contenders | {"trl_trials": tried},
        "sweeps": swept,
        "machine": machine(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "bench.json", json.dumps(found, indent=1) + "\n")
    tables = lay_out_results(found)
    parts = [f"# A step of {setting.rollouts} rollouts of {setting.thought_tokens} tokens", tables]
    if any("points" in one for one in swept.values()):
        figured = plots.cost(swept, limits["products"][tree["dtype"]])
        plots.save(figured, folder / "cost.png")
        parts.append(f"![{figured.alt}](cost.png)")
    write_whole(folder / "report.md", "\n\n".join(parts) + "\n")
    return folder, tables


def _multiplied(limits: Json) -> list[str]:
    """Return the dtypes that the machine multiplies at a useful rate."""
    rates = limits["products"]
    kept = [dtype for dtype in DTYPES if rates[dtype] > SLOW * max(rates.values())]
    for dtype in set(DTYPES) - set(kept):
        logger.info("TRL is not tried in %s: this machine multiplies it at %.1f GFLOP/s", dtype, rates[dtype] / 1e9)
    return kept


def _climb(setting: Setting, measure: Callable[..., Json]) -> list[Json]:
    """Measure ever larger micro-batches for as long as they are faster."""
    found: list[Json] = []
    for size in (setting.rollouts // share for share in SHARES):
        if size < LEAST:
            continue
        found.append(measure(micro_batch=size))
        if "seconds" not in found[-1] or _best(found) is not found[-1]:
            break
    return found


def run_part(name: str, setting: Setting, **more: Any) -> Json:
    """Run one part in a process of its own; {"error": its last line} where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "rmt_mini.bench.parts", name, json.dumps(asdict(setting)), json.dumps(more)],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        logger.debug("%s", done.stderr)
        return {"error": lines[-1][:300], **more}
    found: Json = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _best(found: Sequence[Json]) -> Json:
    """Return the fastest of those that worked, else the first failure."""
    worked = [one for one in found if "seconds" in one]
    return min(worked, key=lambda one: median(one["seconds"])) if worked else dict(found[0]) if found else {}


def ratios(limits: Json, contenders: Mapping[str, Json]) -> dict[str, float | None]:
    """Compare medians; None where a contender could not be measured.

    Example:
        >>> tree = {"dtype": "float32", "seconds": [2.0], "rollout_seconds": [0.5], "update_seconds": [1.5],
        ...         "rollout_operations": 1e9, "update_operations": 3e9, "peak_memory_mb": 500.0}
        >>> slow = {"seconds": [6.0, 8.0, 7.0], "peak_memory_mb": 1000.0}
        >>> limit = {"products": {"float32": 4e9}}
        >>> found = ratios(limit, {"tree": tree, "trl": slow, "generate": slow, "continuous": {}, "padded": slow})
        >>> found["step_speedup_vs_trl"], found["update_share_of_peak"], found["memory_ratio_vs_trl"]
        (3.5, 0.5, 0.5)
    """
    tree, trl = contenders["tree"], contenders["trl"]
    found: dict[str, float | None] = {}
    for name, (other, key) in SPEEDUPS.items():
        seconds = contenders[other].get("seconds")
        found[name] = median(seconds) / median(tree[key]) if seconds else None
    for stage in ("rollout", "update"):
        operations, seconds = tree[f"{stage}_operations"], median(tree[f"{stage}_seconds"])
        found[f"{stage}_share_of_peak"] = operations / seconds / limits["products"][tree["dtype"]]
    found["memory_ratio_vs_trl"] = tree["peak_memory_mb"] / trl["peak_memory_mb"] if "peak_memory_mb" in trl else None
    return found


def lay_out_results(found: Json) -> str:
    """Lay the results out as a table with a line on each contender, then the ratios."""
    contenders, limits = found["contenders"], found["limits"]
    peak = limits["products"][contenders["tree"]["dtype"]]
    rows = []
    for label, name, key in ROWS:
        one = contenders[name]
        if key not in one:
            rows.append([label, "-", "-", "-", one.get("error", "not measured")])
            continue
        seconds, operations = one[key], one.get(f"{key.split('_')[0]}_operations")
        how = [one["dtype"]] if "dtype" in one else []
        how += [f"micro-batch {one['micro_batch']}"] if "micro_batch" in one else []
        spread = f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
        floor = f"{operations / peak:.2f}" if operations else "-"
        rows.append([label, spread, floor, f"{one['peak_memory_mb'] / 1000:.1f}", ", ".join(how)])
    shown = [[name, "-" if found[name] is None else f"{found[name]:.2f}"] for name in ratios(limits, contenders)]
    rates = ", ".join(f"{name} {rate / 1e9:.3g} GFLOP/s" for name, rate in limits["products"].items())
    return "\n\n".join(
        [
            table(["", "seconds: median (range)", "floor, s", "peak memory, GB", "how"], rows),
            table(["ratio", ""], shown),
            f"Limits: {rates}, copy {limits['copy_bandwidth'] / 1e9:.1f} GB/s. Floor: the stage's useful\n"
            "arithmetic at that rate.",
        ]
    )
