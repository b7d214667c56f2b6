"""How fast is a step, compared with what one would use instead and with the machine's own limits?

Every contender runs in a process of its own, on the same positions, rollout counts and thought lengths. TRL is tried in
each dtype that the machine multiplies, and in the faster one with ever larger micro-batches while that helps. What is
known is written after every row, so that an interrupted benchmark leaves what it measured.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from rmt_mini.bench.sizes import FIXED, ROWS, SWEEPS, Setting
from rmt_mini.errors import UserError, logger
from rmt_mini.files import require_free, write_whole
from rmt_mini.report import plots
from rmt_mini.report.markdown import render
from rmt_mini.runs.folder import free_name
from rmt_mini.runs.journal import machine, now, versions

Json = dict[str, Any]

DTYPES = ("bfloat16", "float32")
SLOW = 1 / 8  # of the fastest dtype's rate: a processor without bfloat16 products takes a hundred times as long
LEAST = 8  # rollouts in a micro-batch
SHARES = (8, 4, 2, 1)  # a micro-batch is the rollouts divided by one of these
FEW = 3  # steps of generate, and of the tree beside another program and with the long prefix
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # the package chooses these in every part


def bench(setting: Setting, out: Path | None = None, rows: Collection[str] = ROWS) -> tuple[Path, str]:
    """Measure the rows; write bench.json, report.md and a figure after each; return the folder and the tables."""
    folder = out or free_name(Path("runs") / "bench")
    require_free(folder)
    found: Json = {}
    for found in measure(setting, rows):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "bench.json", json.dumps(found, indent=1) + "\n")
        swept, alt = {name: one for name, one in found["sweeps"].items() if one["points"]}, ""
        if swept:
            figured = plots.cost(swept, found["limits"]["products"][next(iter(swept.values()))["points"][0]["dtype"]])
            plots.save(figured, folder / "cost.png")
            alt = figured.alt
        write_whole(folder / "report.md", lay_out_results(found, alt) + "\n")
    return folder, lay_out_results(found)


def measure(setting: Setting, rows: Collection[str]) -> Iterator[Json]:
    """Measure the machine's limits and one row after the other; yield all that is known after each."""
    quick, few = setting.replace(steps=1), setting.replace(steps=min(FEW, setting.steps))
    long = few.replace(prefix=setting.long_prefix)
    contenders: Json = {"tree": _needed("tree", setting)} if "tree" in rows else {}
    limits = _needed("limits", setting)
    known = {quick: contenders["tree"]} if contenders else {}  # the tree's steps, by their sizes
    sweeps: Json = {}
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    begun = {"machine": machine(), "versions": versions("trl"), "date": now(), "command": command}

    def so_far() -> Json:
        compared, sizes = ratios(limits, contenders), setting.to_dict()
        return {**compared, "setting": sizes, "limits": limits, "contenders": contenders, "sweeps": sweeps, **begun}

    if contenders:
        left = median(contenders["tree"]["seconds"]) * sum(FIXED["takes"][row] for row in rows if row != "tree")
        logger.info("About %.0f minutes to go, by the seconds of this step", left / 60)
    yield so_far()
    for name in ("busy", "generate"):
        if name in rows:
            contenders[name] = run_part(name, few)
            yield so_far()
    rates = limits["products"]
    dtypes = [{"dtype": dtype} for dtype in DTYPES if rates[dtype] > SLOW * max(rates.values())]
    if "trl" in rows:
        for tried in climb(setting.replace(steps=setting.trl_steps), "trl", dtypes):
            contenders |= {"trl": best(tried), "trl_trials": tried}
            yield so_far()
    if "long" in rows:
        contenders["tree_long"] = known[long.replace(steps=1)] = run_part("tree", long) | {"prefix": long.prefix}
        yield so_far()
        way = {"dtype": max(rates, key=rates.get), "micro_batch": [*micro_batches(setting), setting.rollouts][0]}
        way |= {name: one for name, one in contenders.get("trl", {}).items() if name in way}
        contenders["trl_long"] = run_part("trl", long.replace(steps=setting.trl_steps), **way) | {"prefix": long.prefix}
        yield so_far()
    if "padded" in rows:
        for tried in climb(quick, "padded"):
            contenders["padded"] = best(tried)
            yield so_far()
    for name in (row for row in rows if row in SWEEPS):
        beside = {"trl": getattr(setting, name), **({"trl_long": long.prefix} if name == "prefix" else {})}
        timed = [row for row in beside if "seconds" in contenders.get(row, {})]
        sweeps[name] = {"points": [], "trl": [{"value": beside[row], **contenders[row]} for row in timed]}
        for value in SWEEPS[name]:
            size = quick.replace(**{name: value})
            one = known[size] = known.get(size) or run_part("tree", size)
            if "error" not in one:
                sweeps[name]["points"].append({**one, "value": value})
                yield so_far()


def _needed(name: str, setting: Setting) -> Json:
    if "error" in (found := run_part(name, setting)):
        raise UserError(f"the {name} cannot be measured: {found['error']}")
    return found


def limited(command: Sequence[str], seconds: float | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command; after ``seconds`` it is ended with all its processes, which raises TimeoutExpired."""
    words: Json = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8", "errors": "replace"}
    with subprocess.Popen(command, **words, **more) as process:
        try:
            out, errors = process.communicate(timeout=seconds)
        except BaseException:
            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def run_part(name: str, setting: Setting, seconds: float | None = None, **more: Any) -> Json:
    """Run one part in a process of its own, for at most some seconds; {"error": its last line} where it fails."""
    sizes, began = {size: getattr(setting, size) for size in SWEEPS}, time.perf_counter()
    what = ", ".join([name, *(f"{key} {value}" for key, value in (more | sizes).items())])
    logger.info("Measuring %s", what)
    given = [name, json.dumps(setting.to_dict()), json.dumps(more)]
    own = {name: value for name, value in os.environ.items() if name not in WAITING}
    environment = own | {"TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
    try:
        done = limited([sys.executable, "-m", "rmt_mini.bench.parts", *given], seconds, env=environment)
    except subprocess.TimeoutExpired:
        return {"error": f"it took longer than {seconds:.0f} s", **more}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        logger.info("%s cannot be measured: %s", what, lines[-1])
        return {"error": lines[-1][:300], **more}
    found: Json = json.loads(done.stdout.strip().splitlines()[-1])
    logger.info("%s took %.0f s in all", what, time.perf_counter() - began)
    return found


def micro_batches(setting: Setting) -> list[int]:
    """Return sizes of a micro-batch, smallest first, that divide the rollouts: TRL leaves out a last part of one."""
    wholes = [setting.rollouts // share for share in SHARES if setting.rollouts % share == 0]
    return [size for size in wholes if size >= LEAST]


def climb(setting: Setting, name: str, ways: Sequence[Json] = ({},)) -> Iterator[list[Json]]:
    """Measure every way with the smallest micro-batch, the fastest with ever larger ones; yield all after each."""
    found: list[Json] = []
    sizes = micro_batches(setting)
    for way in ways if sizes else ():
        found.append(run_part(name, setting, **way, micro_batch=sizes[0]))
        yield found
    for size in sizes[1:]:
        if "seconds" not in best(found) or (len(found) > len(ways) and best(found) is not found[-1]):
            break
        way = {key: best(found)[key] for key in ways[0]}
        found.append(run_part(name, setting, **way, micro_batch=size))
        yield found


def best(found: Sequence[Json]) -> Json:
    """Return the fastest of those that worked, else the first failure."""
    worked = [one for one in found if "seconds" in one]
    return min(worked, key=lambda one: median(one["seconds"])) if worked else dict(found[0]) if found else {}


def ratios(limits: Json, contenders: Mapping[str, Json]) -> dict[str, float | None]:
    """Compare medians of what was tried; None where it could not be measured."""
    found: dict[str, float | None] = {}
    for name, (one, what, other, beside) in FIXED["ratios"].items():
        if one in contenders and other in contenders:
            parts = contenders[one].get(what), contenders[other].get(beside)
            above, below = (median(part) if isinstance(part, list) else part for part in parts)
            if below and what.endswith("_operations"):
                below *= limits["products"][contenders[one]["dtype"]]
            found[name] = above / below if above and below else None
    return found


def lay_out_results(found: Json, alt: str | None = None) -> str:
    """Return the tables, a line on each contender and then the ratios; with ``alt``, of a figure or empty, a report."""
    compared = ratios(found["limits"], found["contenders"])
    return render("bench.md.j2", **found, alt=alt, ratios=compared, median=median).strip()
