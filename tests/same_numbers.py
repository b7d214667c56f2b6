"""Record what runs of every kind compute, and compare another version of the package with it.

    python -m tests.same_numbers OLD.json                  # at the old version
    python -m tests.same_numbers NEW.json --against OLD.json   # at the new one, on the same machine

Everything runs through the command line, whose names stay, so modules may move between the two. Numbers agree within
TOLERANCE of their size; weights are compared by their projections on fixed random directions.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.fakes import make_tiny_policy

TOLERANCE = 1e-6
MEASURED = ("rollout_seconds", "update_seconds", "trunk_seconds", "peak_memory_mb")  # no two runs agree in these
LITTLE = "--evaluation-positions 60 --evaluation-documents 30 --preflight-positions 9 --dtype float32"
TINY = "--steps 3 --warmup-steps 2 --warmup-positions 6 --budget-start 6 --tier-thresholds 4.2 4.45"

VARIANTS = {
    "kl": "--kl-weight 0.1 --clip-epsilon 0.2 --updates-per-step 2 --loss-per rollout --no-scale-advantages",
    "quantile": "--tier-rule quantile --tier-thresholds 0.3 0.7 --budget-rule entropy --entropy-top-k 20",
    "proxy": "--entropy-model micro --length-if-correct --prefix-match --branch-tokens 300",
    "pass-rate": "--difficulty pass-rate",
    "learning-progress": "--difficulty learning-progress --save-every 2",
    "no-thoughts": "--no-use-thinking --no-use-budget",
}


def command(words: str, out: Path, stop_after: int = 0) -> None:
    """Run the command line with one thread; with ``stop_after`` interrupt it after that step."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from rmt_mini.cli import main; main()", *words.split(), str(out)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
    )
    metrics = out / "metrics.jsonl"
    while stop_after and process.poll() is None:
        if metrics.is_file() and len(metrics.read_bytes().splitlines()) >= stop_after:
            process.send_signal(signal.SIGINT)
            break
        time.sleep(0.01)
    expected = (0, 130) if stop_after else (0,)
    if process.wait() not in expected:
        raise SystemExit(f"{words} ended with {process.returncode}")


def folders(work: Path) -> Iterator[tuple[str, Path]]:
    """Run everything; yields each run folder under its name."""
    tiny = make_tiny_policy()
    for part in (tiny.model, tiny.tokenizer):
        part.save_pretrained(work / "tiny")
    for name in ("continuation", "chat"):
        command(f"run laptop {LITTLE} {TINY} --answer-format {name} --model {work}/tiny --out", work / name)
        yield name, work / name
    command(f"compare micro {LITTLE} --steps 3 --seeds 1 --workers 1 --out", work / "arms")
    for path in sorted((work / "arms" / "runs").iterdir()):
        yield path.name, path
    command(f"run micro {LITTLE} --steps 6 --state-seconds 0 --out", work / "resumed", stop_after=3)
    command("resume", work / "resumed")
    command(f"evaluate {work}/resumed --budget 9 --out", work / "resumed" / "again.json")
    yield "resumed", work / "resumed"
    for name, flags in VARIANTS.items():
        command(f"run micro {LITTLE} --steps 3 --warmup-steps 1 {flags} --out", work / name)
        yield name, work / name
    command("pretrain micro --steps 20 --out", work / "pretrained")
    yield "pretrained", work / "pretrained"
    command("posttrain micro --steps 3 --count 60 --k 4 --dtype float32 --out", work / "posttrained")
    yield "posttrained", work / "posttrained"


def numbers(folder: Path) -> dict[str, Any]:
    """Return what a run computed."""
    found: dict[str, Any] = {}
    for path in (*folder.glob("evaluation.json"), *folder.glob("preflight.json"), *folder.glob("again.json")):
        found[path.name] = json.loads(path.read_text("utf-8"))
    for path in (*folder.glob("metrics.jsonl"), *folder.glob("answers.jsonl")):
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        found[path.name] = [{key: value for key, value in line.items() if key not in MEASURED} for line in lines]
    for name, tensor in load_file(folder / "checkpoint" / "model.safetensors").items():
        directions = torch.randn(3, tensor.numel(), generator=torch.Generator().manual_seed(0))
        flat = tensor.flatten().double()
        found[f"weights/{name}"] = [float(flat.norm()), *(directions.double() @ flat / flat.norm()).tolist()]
    return found


def differences(old: Any, new: Any, where: str = "") -> Iterator[str]:
    """Say where two records differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if key in old and key in new:
                yield from differences(old[key], new[key], f"{where}/{key}")
            else:
                yield f"{where}/{key} is only in the {'old' if key in old else 'new'} record"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from differences(one, other, f"{where}/{place}")
    elif isinstance(old, float) and isinstance(new, int | float):
        if not math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{where} was {old!r} and is {new!r}"
    elif old != new:
        yield f"{where} was {old!r:.80} and is {new!r:.80}"


def main() -> None:
    """Record, and compare if asked to."""
    parser = argparse.ArgumentParser(prog="python -m tests.same_numbers", description=str(__doc__).partition("\n")[0])
    parser.add_argument("record", type=Path)
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = {name: numbers(folder) for name, folder in folders(Path(work))}
    given.record.write_text(json.dumps(found, indent=1), "utf-8")
    if given.against is not None:
        wrong = list(
            differences(json.loads(given.against.read_text("utf-8")), json.loads(given.record.read_text("utf-8")))
        )
        raise SystemExit("\n".join(wrong) or 0)


if __name__ == "__main__":
    main()
