"""Run the arms of a comparison over several seeds, and read them as one result.

    DIR/compare.json             what is compared: settings, arms, seeds, bases
    DIR/runs/ARM-seedN/          a whole run each, as ``rmt-mini run`` leaves it; ARM-baseB-seedN from another base
    DIR/comparison.json, report.md, figures/
    DIR/sensitivity.json         if arms are variants of settings

A comparison that was interrupted, or killed, continues where it stopped: finished runs are kept, the others resumed.
A small model leaves most of a processor idle, so its runs go side by side, one thread each.
"""

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import psutil
import torch
from loky import ProcessPoolExecutor, cpu_count
from pydantic_core import to_jsonable_python as _plain
from tqdm.auto import tqdm
from tqdm.std import tqdm as any_bar

from rmt_mini.arms import METHOD, Arm
from rmt_mini.config import MAY_CHANGE, WORLDS, RMTConfig
from rmt_mini.engine.memory import free_memory
from rmt_mini.engine.model import BASE, choose_device, locate_model
from rmt_mini.engine.text import format_for
from rmt_mini.engine.weights import BASES, WORLD_MODELS
from rmt_mini.errors import Stopped, UserError, logger
from rmt_mini.files import Comparison, ComparisonPlan, Notes, PostTraining, Sensitivity, require_free
from rmt_mini.report import comparison
from rmt_mini.report.report import write_comparison_report
from rmt_mini.runs import tracking
from rmt_mini.runs.run import anywhere, prepare, resume, run

SMALLEST_GAP = 0.0365  # between the paper's RMT-R1 and its closest ablation (no curriculum)
RUN_BYTES = 4 * 10**9  # of a GPU's memory, for a run of a small model beside others
GLANCE = 0.2  # seconds between two looks at a request to stop

Job = Callable[[Path, threading.Event | None], Path]  # does the run that belongs in a folder, and returns the folder


def compare(
    config: RMTConfig,
    arms: Sequence[Arm],
    seeds: int = 3,
    workers: int = 0,
    progress: bool = True,
    stop: threading.Event | None = None,
    bases: int = 1,
    control_seeds: int | None = None,
) -> tuple[Path, str]:
    """Run every arm with every seed, except what is done already, and report; returns the folder and the table.

    Args:
        config: settings of the method; the first seed is ``config.seed``, and ``config.out`` the folder.
        arms: what is compared, "rmt" among them (``arms_named`` makes them).
        seeds: runs of each arm, from each base.
        workers: runs side by side; 0 takes as many as there are cores for the micro model, and 1 for others.
        progress: show a progress bar.
        stop: once set, the runs end. It raises Stopped, as where it was interrupted; the same call, or ``go_on``,
            continues it.
        bases: pre-trained models that runs begin with, each with every seed. A world has several; of others, "{base}"
            in ``config.model`` stands for the number of a base, from 0.
        control_seeds: how many of the seeds an arm that is not in ``arms.MAIN`` has; None: all.
    """
    config = anywhere(config)
    tracking.require(config.report_to)
    folder = comparison_folder(config)
    for arm in arms:
        arm.config(config)  # complains now and not in an hour
    require_bases(config, bases)
    fewer = None if control_seeds is None or control_seeds >= seeds else control_seeds
    plan = ComparisonPlan(config=config.replace(out=""), arms=list(arms), seeds=seeds, bases=bases, control_seeds=fewer)
    _open(folder, plan)
    width = comparison.expected_half_width(config.evaluation_positions, bases * seeds)
    if width > SMALLEST_GAP:
        logger.warning(
            "With %d positions and %d runs an arm a difference of two arms is known to within about %.1f points; the "
            "paper's closest ablation lies %.1f away. For that take %d positions, or more seeds.",
            config.evaluation_positions, bases * seeds, 100 * width, 100 * SMALLEST_GAP,
            comparison.expected_positions(SMALLEST_GAP, bases * seeds),
        )  # fmt: skip
    return folder, go_on(folder, workers, progress, stop)


def go_on(folder: Path, workers: int = 0, progress: bool = True, stop: threading.Event | None = None) -> str:
    """Do the runs of a comparison that are not done, and report; returns the table of accuracies."""
    plan = ComparisonPlan.read(folder)
    # an arm that takes another's compute waits for what that took
    arms = [[arm for arm in plan.arms if bool(arm.compute_of) == late] for late in (False, True)]
    paired = [[_folder(folder, plan, arm, run) for run in plan.all_runs for arm in some] for some in arms]
    rounds = [[path for path in some if path] for some in paired]
    finish(folder.name, _one, rounds, workers or usual_workers(plan.config), progress, stop, folder)
    return report(folder)


def report(folder: Path) -> str:
    """Write comparison.json and report.md from the runs of a comparison, if none is missing; returns the table."""
    plan = ComparisonPlan.read(folder)
    found = {arm.name: [_folder(folder, plan, arm, run) for run in plan.all_runs] for arm in plan.arms}
    missing = [str(path) for paths in found.values() for path in paths if path and not is_done(path)]
    if missing:
        raise UserError(f"{len(missing)} runs are missing, {missing[0]!r} first; give the comparison's command again")
    first = Notes.read(next(path for path in found[METHOD] if path))  # where it ran, which may be elsewhere
    ran: dict[str, Any] = {"config": plan.config, "seeds": plan.all_seeds, "bases": plan.bases}
    ran |= {"machine": first.machine, "versions": first.versions}
    compared = Comparison(**comparison.compare_runs(found, plan.bases), **ran)
    compared.write(folder)
    varied = comparison.sensitivities(compared, plan.config)
    if varied:
        Sensitivity(settings=varied, seeds=plan.all_seeds).write(folder)
    return write_comparison_report(folder, compared, (PostTraining.find(folder) or PostTraining()).exams, varied)


def require_bases(config: RMTConfig, bases: int) -> None:
    """Refuse more pre-trained models than there are of a kind."""
    most = BASES if config.model in WORLDS else 1
    if bases > most and BASE not in config.model:
        found = f"bases is {bases}, but of {config.model!r} there {'is one' if most == 1 else f'are {most}'}"
        raise UserError(f"{found}; give fewer, or {BASE} in a folder's name for the number of each")
    for base in range(1, bases):
        locate_model(model_of(config, base))


def model_of(config: RMTConfig, base: int) -> str:
    """Return the name of the model that runs from a base begin with; of a world, base 0 has the world's name."""
    return config.model.replace(BASE, str(base)) if BASE in config.model or not base else f"{config.model}-{base}"


def comparison_folder(config: RMTConfig) -> Path:
    """Return the folder of a comparison: always the same, so that its command given again continues it."""
    return Path(config.out or f"runs/compare-{config.preset}")


def run_folder(folder: Path, arm: str, seed: int, base: int = 0) -> Path:
    """Return the folder of one run of a comparison."""
    return folder / "runs" / (f"{arm}-base{base}-seed{seed}" if base else f"{arm}-seed{seed}")


def _folder(folder: Path, plan: ComparisonPlan, arm: Arm, run: tuple[int, int]) -> Path | None:
    return run_folder(folder, arm.name, *run) if plan.has(arm.name, run[0]) else None


def is_done(path: Path) -> bool:
    """Say whether a folder holds a finished run."""
    notes = Notes.find(path)
    return notes is not None and notes.status == "done"


def usual_workers(config: RMTConfig) -> int:
    """Return how many runs go side by side if no one says: one thread serves the micro model nearly as well as all."""
    if config.model not in WORLD_MODELS:
        return 1
    device, cores = choose_device(config.device), int(cpu_count())
    return cores if device.type == "cpu" else max(1, min(cores, free_memory(device)[0] // RUN_BYTES))


def finish(
    title: str,
    job: Job,
    rounds: Sequence[Sequence[Path]],
    workers: int,
    progress: bool,
    stop: threading.Event | None,
    folder: Path,
) -> None:
    """Do the runs of these folders that are not done, one round after another, ``workers`` of them side by side.

    Each worker is a process with one thread; one worker is this process. Once ``stop`` is set, or for Ctrl-C, a run
    here ends after its step, and workers are killed, since runs are resumed exactly; that raises Stopped, with
    ``folder``. A UserError says that a worker was killed by the system.
    """
    left = [[path for path in paths if not is_done(path)] for paths in rounds]
    total, done = sum(map(len, rounds)), sum(map(len, rounds)) - sum(map(len, left))
    with tqdm(total=total, initial=done, desc=title, disable=not progress, unit="run") as bar:
        try:
            for paths in left:
                here = (job(path, stop) for path in paths)
                for path in here if workers == 1 else _side_by_side(job, paths, workers, stop):
                    bar.set_postfix_str(path.name)
                    bar.update()
                    if stop is not None and stop.is_set():
                        raise KeyboardInterrupt
        except (Stopped, KeyboardInterrupt) as error:
            raise Stopped(str(folder)) from error


def _side_by_side(job: Job, paths: Sequence[Path], workers: int, stop: threading.Event | None) -> Iterator[Path]:
    executor = ProcessPoolExecutor(min(workers, max(1, len(paths))), initializer=_start_worker, initargs=(os.getpid(),))
    try:
        left = {executor.submit(job, path, None) for path in paths}
        while left:
            done, left = wait(left, timeout=GLANCE, return_when=FIRST_COMPLETED)
            if stop is not None and stop.is_set():
                raise KeyboardInterrupt
            for future in done:
                yield future.result()
    except BrokenProcessPool as error:
        line = "a worker process was killed, most likely because memory ran out; give the command again with fewer"
        raise UserError(f"{line} --workers") from error
    finally:
        executor.shutdown(kill_workers=True)


def _start_worker(parent: int) -> None:
    """Take one thread, leave Ctrl-C to the parent, and end when the parent does, even if it has ended by now."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.ERROR)
    any_bar.set_lock(threading.RLock())  # the default is a semaphore, which a killed process leaves
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent and psutil.pid_exists(parent):  # Windows goes on naming a parent that has ended
        time.sleep(GLANCE)
    os._exit(1)


def _open(folder: Path, plan: ComparisonPlan) -> None:
    """Start a folder, or continue in one of the same settings; arms and seeds may be added."""
    before = ComparisonPlan.find(folder)
    if before is not None:
        arms = {arm.name: arm for arm in plan.arms}
        differ = plan.config.differences(before.config)
        differ += [f"arm {arm.name}" for arm in before.arms if _plain(arm) != _plain(arms.get(arm.name, arm))]
        if differ:
            holds = f"a comparison with other settings ({', '.join(differ)})"
            raise UserError(f"folder {str(folder)!r} holds {holds}; choose another --out, or delete it")
        both = plan.added_to(before)
        if both != plan.model_copy(update={"control_seeds": both.control_seeds}):
            logger.info("The folder has more arms, seeds or bases than asked for; all of them go on")
        plan = both
    else:
        require_free(folder)
        # a text or a model that is not there should leave no folder
        policy = prepare(plan.config.replace(model=model_of(plan.config, 0))).policy
        for arm in plan.arms:
            format_for(policy, arm.config(plan.config))  # nor an arm that its answer format rules out, hours of runs
    folder.mkdir(parents=True, exist_ok=True)
    plan.write(folder)


def in_name(path: Path) -> tuple[str, int, int]:
    """Return what the name of a run's folder says: arm, seed, base."""
    arm, base, seed = re.fullmatch(r"(.+?)(?:-base(\d+))?-seed(\d+)", path.name).groups()  # type: ignore[union-attr]
    return arm, int(seed), int(base or 0)


def _one(path: Path, stop: threading.Event | None) -> Path:
    folder, (name, seed, base) = path.parents[1], in_name(path)
    plan = ComparisonPlan.read(folder)
    if (path / Notes.NAME).exists():
        resume(path, progress=False, stop=stop, changes={key: getattr(plan.config, key) for key in MAY_CHANGE})
        return path
    arm = next(arm for arm in plan.arms if arm.name == name)
    config = arm.config(plan.config).replace(model=model_of(plan.config, base), seed=seed, out=str(path))
    if arm.compute_of:
        config = config.replace(steps=comparison.steps_for_compute_of(run_folder(folder, arm.compute_of, seed, base)))
    run(config, progress=False, stop=stop)
    return path
