"""Check and time a GPU within ten minutes, from a checkout: ``python -m tests.bench.gpu --out FOLDER``.

Every part of gpu.yaml runs in a process of its own under a time limit of its own. gpu.json is written again after each:
the step beside TRL's, with its seconds for rollouts, update and trunks, and how every part ended. A model folder
without weights gets random ones, with which a step takes as long. ``--tiny`` tries the script itself, on a CPU too.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rmt_mini.bench.bench import Json, best, limited, ratios, run_part
from rmt_mini.bench.sizes import Setting
from rmt_mini.engine.model import locate_model
from rmt_mini.errors import logger
from rmt_mini.files import write_whole
from rmt_mini.runs.folder import free_name
from rmt_mini.runs.journal import machine, now, versions

ROOT = Path(__file__).parents[2]
PLAN = yaml.safe_load(Path(__file__).with_name("gpu.yaml").read_text(encoding="utf-8"))
OVERRUN = 3  # times its usual seconds, after which a part is ended
PYTEST = ("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-o", "minversion=6")
NO_GPU = "no GPU here"
STARTED = 60  # seconds that imports took at most


def check(test: str, seconds: float) -> Json:
    """Run a test of the checkout; one that is skipped has not passed."""
    if not torch.cuda.is_available():
        return {"state": NO_GPU}
    try:
        done = limited([sys.executable, *PYTEST, test], seconds, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {"state": f"failed: it took longer than {seconds:.0f} s"}
    said = (done.stdout + done.stderr).strip()
    last = (done.stdout.strip() or said).rpartition("\n")[2]
    if done.returncode == 0 and "passed" in last and "skipped" not in last:
        return {"state": f"passed: {last}"}
    return {"state": f"failed: {last}", "output": said[-3000:]}


def time_row(setting: Setting, seconds: float, row: str, share: int = 0, **more: Any) -> Json:
    """Measure a row of the benchmark; TRL with a ``share`` of the rollouts in a micro-batch."""
    if share:
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
        more |= {"dtype": dtype, "micro_batch": setting.rollouts // share}
    if more.get("continuous") and not torch.cuda.is_available():
        return {"state": NO_GPU}  # it takes half of the machine's memory
    found = run_part(row, setting, seconds, **more)
    if "error" in found:
        return {"state": f"failed: {found['error']}"}
    step = f": {median(found['seconds']):.2f} s a step" if "seconds" in found else ""
    return {"state": f"measured{step}", "found": found}


def work_through(setting: Setting, end: float) -> Iterator[Json]:
    """Do the parts that fit into the time until ``end``; yield rows, as in bench.json, and states after each."""
    parts: Json = {name: {"state": "not run"} for name in PLAN["parts"]}
    trials: list[Json] = []
    rows: Json = {}
    for name, part in PLAN["parts"].items():
        what, began = dict(part), time.time()
        usual = what.pop("seconds")
        if end - began < usual:
            continue
        seconds = min(OVERRUN * usual, end - began)
        parts[name] = check(**what, seconds=seconds) if "test" in what else time_row(setting, seconds, **what)
        parts[name]["seconds"] = round(time.time() - began, 1)
        logger.info("%3.0f s left; %s: %s", end - time.time(), name, parts[name]["state"])
        if found := parts[name].pop("found", None):
            rows[f"{what['row']}_continuous" if "continuous" in what else what["row"]] = found
            if what["row"] == "trl" and "continuous" not in what:
                trials.append(found)
                rows["trl"] = best(trials)
        compared = ratios(rows["limits"], rows) if "limits" in rows else {}
        yield {**compared, **rows, "trl_trials": trials, "parts": parts}
    logger.info("Not run: %s", ", ".join(name for name in parts if parts[name]["state"] == "not run") or "nothing")


def with_random_weights(name: str, folder: str) -> str:
    """Save a model like ``name`` in a folder, with the same tokenizer and random weights."""
    torch.manual_seed(0)
    made: Any = AutoModelForCausalLM
    made.from_config(AutoConfig.from_pretrained(name, trust_remote_code=False)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(name, trust_remote_code=False).save_pretrained(folder)
    return folder


def main() -> None:
    """Work through the parts; a line for each goes to stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for gpu.json; a new one under runs/ if not given")
    parser.add_argument("--limit", type=float, default=570, help="seconds from the start of Python on (%(default)g)")
    parser.add_argument("--model", default="smollm2-135m", help="as for rmt-mini run; a folder needs no weights")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few tokens, to try the script")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    path = (given.out or free_name(Path("runs") / "gpu")) / "gpu.json"
    if path.exists():
        parser.error(f"{str(path)!r} is there already; give another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    model = locate_model("micro") if given.tiny else given.model
    setting = Setting(model=model, **PLAN["tiny" if given.tiny else "setting"])
    random = given.tiny or (Path(model).is_dir() and not any(Path(model).glob("*.safetensors")))
    about = {"setting": setting.to_dict(), "random_weights": random, "machine": machine(), "date": now()}
    about |= {"versions": versions("trl", "accelerate", "datasets", "pytest")}
    about |= {"command": " ".join([parser.prog, *sys.argv[1:]])}
    with tempfile.TemporaryDirectory() as scratch:
        setting = setting.replace(model=with_random_weights(model, scratch) if random else model)
        began = max(psutil.Process().create_time(), time.time() - STARTED)  # a container's clock of boot may be off
        for found in work_through(setting, began + given.limit):
            write_whole(path, json.dumps(about | found, indent=1) + "\n")
    logger.info("Results      %s", path)


if __name__ == "__main__":
    main()
