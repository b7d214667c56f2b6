"""Run the arms of a comparison over several seeds, and read them as one result.

    DIR/compare.json             what is compared: settings, arms, seeds
    DIR/runs/ARM-seedN/          a whole run each, as ``rmt-mini run`` leaves it
    DIR/comparison.json, report.md, figures/

Every run is a folder of its own, so a comparison that was interrupted goes on where it stopped: what is done is kept,
what was under way is resumed. Small models leave most of a processor idle; their runs stand side by side, one thread
each.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rmt_mini.config import RMTConfig
from rmt_mini.errors import UserError
from rmt_mini.stages.journal import machine, versions
from rmt_mini.stages.store import write_whole
from rmt_mini.study.arms import ARMS, arm_config
from rmt_mini.study.claims import write_comparison_report
from rmt_mini.study.comparison import METHOD, compare_runs, expected_half_width

logger = logging.getLogger(__name__)

SMALLEST_GAP = 0.0365  # between the paper's RMT-R1 and its closest ablation (no curriculum)
SIDE_BY_SIDE = ("micro",)  # models so small that one thread serves them nearly as well as all


def compare(
    config: RMTConfig,
    arms: Sequence[str] = ARMS,
    seeds: int = 3,
    workers: int = 0,
    progress: bool = True,
) -> tuple[Path, str]:
    """Run every arm with every seed, except what is done already, and report.

    Args:
        config: settings of the method; the first seed is ``config.seed``, and ``config.out`` the folder.
        arms: of ARMS; "rmt" is always among them, since the others are held against it.
        seeds: runs of each arm.
        workers: runs side by side; 0 takes as many as there are cores for the micro model, and 1 for others.
        progress: show a progress bar.

    Returns:
        The folder, and the table of accuracies.

    Raises:
        UserError: if the folder holds another comparison, or an arm is unknown.
    """
    arms = [arm for arm in ARMS if arm in {*arms, METHOD}] + [arm for arm in arms if arm not in ARMS]
    folder = Path(config.out) if config.out else Path("runs") / f"compare-{config.preset}"
    configs = {
        (arm, seed): arm_config(config, arm).replace(seed=seed, out=str(run_folder(folder, arm, seed)))
        for seed in range(config.seed, config.seed + seeds)  # all arms of one seed, then the next: early sight
        for arm in arms
    }
    _open(folder, config, arms, seeds)
    width = expected_half_width(config.evaluation_positions, seeds)
    if width > SMALLEST_GAP:
        logger.warning(
            "With %d positions and %d seeds a difference of two arms is known to within about %.1f points; the paper's "
            "closest ablation lies %.1f away. For that take %d positions, or more seeds.",
            config.evaluation_positions, seeds, 100 * width, 100 * SMALLEST_GAP,
            round(config.evaluation_positions * (width / SMALLEST_GAP) ** 2),
        )  # fmt: skip
    todo = [one for one in configs.values() if not is_done(Path(one.out))]
    with tqdm(
        total=len(configs), initial=len(configs) - len(todo), desc="Compare", disable=not progress, unit="run"
    ) as bar:
        for name in _carry_out(todo, workers or (os.cpu_count() or 1 if config.model in SIDE_BY_SIDE else 1)):
            bar.set_postfix_str(name)
            bar.update()
    return folder, report(folder)


def report(folder: Path) -> str:
    """Write comparison.json and report.md from the runs in a comparison's folder; returns the table.

    Raises:
        UserError: if a run is missing.
    """
    notes = _notes(folder)
    first = notes["config"]["seed"]
    seeds = range(first, first + notes["seeds"])
    found = {arm: [run_folder(folder, arm, seed) for seed in seeds] for arm in notes["arms"]}
    missing = [str(path) for paths in found.values() for path in paths if not is_done(path)]
    if missing:
        raise UserError(f"the comparison lacks {len(missing)} runs, {missing[0]!r} first; give its command again")
    compared = compare_runs(found) | {"config": notes["config"], "seeds": list(seeds), "machine": machine()}
    write_whole(folder / "comparison.json", json.dumps(compared | {"versions": versions()}, indent=1) + "\n")
    return write_comparison_report(folder, compared)


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """Return where one run of a comparison stands."""
    return folder / "runs" / f"{arm}-seed{seed}"


def is_done(path: Path) -> bool:
    """Tell whether a run folder holds a finished run."""
    try:
        return bool(json.loads((path / "run.json").read_text(encoding="utf-8"))["status"] == "done")
    except (OSError, ValueError, KeyError):
        return False


def _notes(folder: Path) -> dict[str, Any]:
    try:
        notes: dict[str, Any] = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{str(folder)!r} holds no comparison; give the folder of rmt-mini compare") from error
    return notes


def _open(folder: Path, config: RMTConfig, arms: Sequence[str], seeds: int) -> None:
    """Begin a folder, or go on in one of the same settings; arms and seeds may be added."""
    settings = json.loads(json.dumps(config.to_dict() | {"out": ""}))
    if (folder / "compare.json").exists():
        before = _notes(folder)["config"]
        differ = sorted(name for name in settings if settings[name] != before.get(name))
        if differ:
            raise UserError(
                f"folder {str(folder)!r} holds a comparison with other settings ({', '.join(differ)}); choose another "
                f"--out, or delete it"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"output folder {str(folder)!r} is in use; choose another with --out, or delete it")
    folder.mkdir(parents=True, exist_ok=True)
    notes = {"config": settings, "arms": list(arms), "seeds": seeds}
    write_whole(folder / "compare.json", json.dumps(notes, indent=1) + "\n")


def _carry_out(configs: Sequence[RMTConfig], workers: int) -> Iterator[str]:
    """Run each; yields the name of its folder as it ends."""
    if workers == 1:
        for config in configs:
            yield _one(config)
        return
    context = multiprocessing.get_context("spawn")  # a forked process and a started thread pool do not go together
    with ProcessPoolExecutor(workers, context, _single_threaded) as pool:
        pending = [pool.submit(_one, config) for config in configs]
        try:
            for future in as_completed(pending):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _single_threaded() -> None:
    import torch

    torch.set_num_threads(1)
    logging.basicConfig(level=logging.ERROR)


def _one(config: RMTConfig) -> str:
    from rmt_mini.run import resume, run

    path = Path(config.out)
    if (path / "run.json").exists():
        resume(path, progress=False)
    else:
        run(config, progress=False)
    return path.name
