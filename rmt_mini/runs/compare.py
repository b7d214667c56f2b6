"""Run the arms of a comparison over several seeds, and read them as one result.

    DIR/compare.json             what is compared: settings, arms, seeds
    DIR/runs/ARM-seedN/          a whole run each, as ``rmt-mini run`` leaves it
    DIR/comparison.json, report.md, figures/
    DIR/sensitivity.json         where arms are variants of settings

Every run is a folder of its own, so a comparison that was interrupted, or killed, goes on where it stopped: what is
done is kept, what was under way is resumed. Small models leave most of a processor idle; their runs stand side by side,
one thread each.

All runs of a seed are measured before training at the same positions by the same model, so that one measurement could
serve them all. It does not: arms differ in the budget they are asked under, and on the micro-world it would save 3 % of
the time.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rmt_mini.arms import Arm
from rmt_mini.config import RMTConfig
from rmt_mini.engine.prompt import Turn
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import write_whole
from rmt_mini.report.comparison import compare_runs, expected_half_width, expected_positions, steps_for_compute_of
from rmt_mini.report.comparison_report import write_comparison_report
from rmt_mini.report.sensitivity import sensitivities
from rmt_mini.runs.journal import machine, versions
from rmt_mini.runs.run import anywhere, prepare, resume, run
from rmt_mini.runs.workers import carry_out
from rmt_mini.stages import reading

logger = logging.getLogger(__name__)

SMALLEST_GAP = 0.0365  # between the paper's RMT-R1 and its closest ablation (no curriculum)
SIDE_BY_SIDE = ("micro",)  # models so small that one thread serves them nearly as well as all


def compare(
    config: RMTConfig,
    arms: Sequence[Arm],
    seeds: int = 3,
    workers: int = 0,
    progress: bool = True,
    stop: threading.Event | None = None,
) -> tuple[Path, str]:
    """Run every arm with every seed, except what is done already, and report.

    Args:
        config: settings of the method; the first seed is ``config.seed``, and ``config.out`` the folder.
        arms: what is compared, "rmt" among them (``arms_named`` makes them).
        seeds: runs of each arm.
        workers: runs side by side; 0 takes as many as there are cores for the micro model, and 1 for others.
        progress: show a progress bar.
        stop: once set, the runs end behind the step they are in, and this raises.

    Returns:
        The folder, and the table of accuracies.

    Raises:
        UserError: if the folder holds another comparison, or for anything else that a user can set right.
        Stopped: where ``stop`` was set, or it was interrupted; the same call, or ``go_on``, takes it up again.
    """
    config = anywhere(config)
    folder = comparison_folder(config)
    for arm in arms:
        arm.config(config)  # complains now and not in an hour
    _open(folder, config, arms, seeds)
    width = expected_half_width(config.evaluation_positions, seeds)
    if width > SMALLEST_GAP:
        logger.warning(
            "With %d positions and %d seeds a difference of two arms is known to within about %.1f points; the paper's "
            "closest ablation lies %.1f away. For that take %d positions, or more seeds.",
            config.evaluation_positions, seeds, 100 * width, 100 * SMALLEST_GAP,
            expected_positions(SMALLEST_GAP, seeds),
        )  # fmt: skip
    return folder, go_on(folder, workers, progress, stop)


def go_on(folder: Path, workers: int = 0, progress: bool = True, stop: threading.Event | None = None) -> str:
    """Do what a comparison still lacks, and report; returns the table of accuracies.

    Raises:
        UserError: if the folder holds no comparison, or for anything else that a user can set right.
        Stopped: as ``compare``.
    """
    config, arms, seeds = read_comparison(folder)
    stop = stop or threading.Event()
    workers = workers or (os.cpu_count() or 1 if config.model in SIDE_BY_SIDE else 1)
    wanted = [(arm, seed) for seed in seeds for arm in arms]  # all arms of one seed, then the next: early sight
    done = sum(is_done(run_folder(folder, arm.name, seed)) for arm, seed in wanted)
    with tqdm(total=len(wanted), initial=done, desc="Compare", disable=not progress, unit="run") as bar:
        try:
            for late in (False, True):  # an arm that takes another's compute waits for what that took
                part = [(arm, seed) for arm, seed in wanted if bool(arm.compute_of) == late]
                todo = [_run_config(folder, config, arm, seed) for arm, seed in part]
                for name in carry_out(_one, [one for one in todo if not is_done(Path(one.out))], workers, stop):
                    bar.set_postfix_str(name)
                    bar.update()
        except (Stopped, KeyboardInterrupt) as error:
            raise Stopped(str(folder)) from error
    return report(folder)


def report(folder: Path) -> str:
    """Write comparison.json and report.md from the runs in a comparison's folder; returns the table.

    Raises:
        UserError: if the folder holds no comparison, or a run is missing.
    """
    config, arms, seeds = read_comparison(folder)
    found = {arm.name: [run_folder(folder, arm.name, seed) for seed in seeds] for arm in arms}
    missing = [str(path) for paths in found.values() for path in paths if not is_done(path)]
    if missing:
        raise UserError(f"the comparison lacks {len(missing)} runs, {missing[0]!r} first; give its command again")
    compared = compare_runs(found) | {"config": config.to_dict(), "seeds": seeds, "machine": machine()}
    write_whole(folder / "comparison.json", json.dumps(compared | {"versions": versions()}, indent=1) + "\n")
    after = folder / "posttraining.json"  # of exams, where there were any
    posttraining = json.loads(after.read_text(encoding="utf-8")) if after.exists() else None
    varied = sensitivities(compared, config)
    if varied:
        write_whole(folder / "sensitivity.json", json.dumps({"settings": varied, "seeds": seeds}, indent=1) + "\n")
    return write_comparison_report(folder, compared, posttraining, varied)


def comparison_folder(config: RMTConfig) -> Path:
    """Return where a comparison stands: always the same place, so that its command given again goes on."""
    return Path(config.out) if config.out else Path("runs") / f"compare-{config.preset}"


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """Return where one run of a comparison stands."""
    return folder / "runs" / f"{arm}-seed{seed}"


def is_done(path: Path) -> bool:
    """Tell whether a run folder holds a finished run."""
    try:
        return bool(json.loads((path / "run.json").read_text(encoding="utf-8"))["status"] == "done")
    except (OSError, ValueError, KeyError):
        return False


def read_comparison(folder: Path) -> tuple[RMTConfig, list[Arm], list[int]]:
    """Read what a folder compares: settings of the method, arms, seeds.

    Raises:
        UserError: if it holds no comparison.
    """
    try:
        notes: dict[str, Any] = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
        config, arms = RMTConfig.from_dict(notes["config"]), [Arm(**arm) for arm in notes["arms"]]
        return config, arms, list(range(config.seed, config.seed + notes["seeds"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{str(folder)!r} holds no comparison; give the folder of rmt-mini compare") from error


def _open(folder: Path, config: RMTConfig, arms: Sequence[Arm], seeds: int) -> None:
    """Begin a folder, or go on in one of the same settings; arms and seeds may be added."""
    settings = config.replace(out="")
    if (folder / "compare.json").exists():
        before, known, _ = read_comparison(folder)
        old, new = before.to_dict(), settings.to_dict()
        differ = sorted(name for name in new if new[name] != old[name])
        plain = {arm.name: _plain(arm) for arm in arms}
        differ += [f"arm {arm.name}" for arm in known if _plain(arm) != plain.get(arm.name, _plain(arm))]
        if differ:
            raise UserError(
                f"folder {str(folder)!r} holds a comparison with other settings ({', '.join(differ)}); choose another "
                f"--out, or delete it"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"output folder {str(folder)!r} is in use; choose another with --out, or delete it")
    else:
        prepare(config)  # a text or a model that is not there should leave no folder behind
    folder.mkdir(parents=True, exist_ok=True)
    notes = {"config": settings.to_dict(), "arms": [_plain(arm) for arm in arms], "seeds": seeds}
    write_whole(folder / "compare.json", json.dumps(notes, indent=1) + "\n")


def _plain(arm: Arm) -> dict[str, Any]:
    """Return an arm as JSON gives it back."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(arm)))
    return found


def _run_config(folder: Path, config: RMTConfig, arm: Arm, seed: int) -> RMTConfig:
    found = arm.config(config).replace(seed=seed, out=str(run_folder(folder, arm.name, seed)))
    if not arm.compute_of:
        return found
    return found.replace(steps=steps_for_compute_of(run_folder(folder, arm.compute_of, seed)))


def _one(config: RMTConfig, stop: threading.Event) -> str:
    path = Path(config.out)
    if (path / "run.json").exists():
        resume(path, progress=False, stop=stop)
    else:
        run(config, progress=False, stop=stop, turn=turn_before(path.parent, config.model))
    return path.name


def turn_before(runs: Path, model: str | None = None) -> Turn | None:
    """Return the chat turn of a run that is there, so that those begun on different days state the same date.

    Args:
        runs: folder of run folders.
        model: whose turn is asked for; None where all are of one origin.
    """
    notes = [reading.read_notes(path.parent) for path in sorted(runs.glob("*/run.json"))]
    return next((reading.turn_of(one) for one in notes if model in (None, one["config"]["model"])), None)
