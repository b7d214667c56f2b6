"""The command line: ``rmt-mini run [PRESET] [--config F.yaml] [--any-setting V]`` and its companions.

Every field of RMTConfig is a flag of the same name. Bad input: exit code 2 and one line ``error: ...``. Results go to
stdout, progress and log lines to stderr. Each command imports what it needs, so that --help is quick.
"""

import io
import json
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict, Unpack

from cyclopts import App, CycloptsError, Group, Parameter, Token
from cyclopts.validators import Number

from rmt_mini import __version__
from rmt_mini.arms import Arm, arms_named
from rmt_mini.bench.sizes import ROWS, Setting, rows_named
from rmt_mini.config import (
    NOT_IN_POSTTRAINING,
    PRESETS,
    PretrainConfig,
    RMTConfig,
    Settings,
    WorldName,
    preset,
    read_settings,
)
from rmt_mini.errors import Stopped, UserError, disk_full, out_of_memory
from rmt_mini.files import Evaluation, require_file_name, write_keeping, write_whole
from rmt_mini.scale.launch import ScaleSettings

app = App(
    "rmt-mini",
    help="Reinforcement Mid-Training (arXiv 2509.24375), small and complete.",
    help_format="plaintext",
    version=f"rmt-mini {__version__}",
    default_parameter=Parameter(negative_iterable=()),
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


def _whole(kind: Any, tokens: Sequence[Token]) -> int:
    try:
        return int(tokens[0].value)
    except ValueError:  # cyclopts itself reads 2.5 as 2
        raise ValueError(f"{tokens[0].value!r} is not a whole number") from None


def _from(least: int, help: str, most: int | None = None) -> Parameter:
    return Parameter(help=help, converter=_whole, validator=Number(gte=least, lte=most))


Command = Callable[..., None]


def _command(*kinds: type[Settings], without: Iterable[str] = ()) -> Callable[[Command], Command]:
    """Register a command whose ``**flags`` are fields of settings, each a flag; it receives those that were given."""
    about = Parameter(help="YAML file of settings, or a run folder to take them from")
    flags: dict[str, Any] = {"config": Annotated[Path, about]}
    groups: dict[str, Group] = {}
    for name, field in (item for kind in kinds for item in kind.model_fields.items()):
        title = str(dict(field.json_schema_extra or {}).get("group", "Other"))  # type: ignore[arg-type]
        group = groups.setdefault(title, Group(title, sort_key=len(groups) + 1))
        text, whole = f"{field.description} [default: {field.default}]", _whole if field.annotation is int else None
        flags[name] = Annotated[field.annotation, Parameter(help=text, group=group, converter=whole)]
    kept = {name: kind for name, kind in flags.items() if name not in ("preset", *without)}

    def register(command: Command) -> Command:
        command.__annotations__["flags"] = Unpack[TypedDict("Flags", kept, total=False)]  # type: ignore[operator]
        return app.command(command)

    return register


IN_COMPARISON = ("out", "seed", *NOT_IN_POSTTRAINING)  # exams take the first two from the comparison
Name = Annotated[str | None, Parameter("PRESET", help=f"{', '.join(PRESETS)} [default: laptop]")]
Arms = Annotated[str | None, Parameter(help="names with commas between; rmt is always there [default: all]")]
Fields = Annotated[str | None, Parameter(help="settings to vary, with commas between [default: all that can be]")]
Over = Annotated[str | None, Parameter(help="FIELD=a,b,c: a map of the arms, or of ntp, rpt and rmt, over a setting")]
Runs = Annotated[int, _from(1, "runs of each arm, --seed first")]
Fewer = Annotated[int | None, _from(1, "runs of an arm that is no ablation nor ntp, rpt, rmt")]
Jobs = Annotated[int, _from(0, "runs side by side; 0: one a core for micro, else 1")]
Redo = Annotated[bool, Parameter("--report-only", negative="", help="run nothing; write again the report of what ran")]
Questions = Annotated[
    str | None, Parameter(help="micro, micro-text, abacus-all, gym:TASK, champ, ... [default: by the model]")
]
Several = Annotated[int, _from(2, "questions, held-out ones included")]
Answers = Annotated[int, _from(1, "answers to each held-out question")]
Tokens = Annotated[int | None, Parameter(help="continue with fewer where memory ran out", converter=_whole)]
OnNan = Annotated[str | None, Parameter(help="continue with 'skip' where a step was not finite")]
ReportTo = Annotated[str | None, Parameter(help="show metrics in tensorboard, wandb or trackio as well, or none")]
Share = Annotated[float | None, Parameter(help="half an interval: 0.03 is 3 points", validator=Number(gt=0, lte=1))]
Budget = Annotated[int | None, _from(1, "stated budget, tokens [default: that of the run's evaluation]")]
File = Annotated[Path | None, Parameter(help="also write the result here, as JSON")]
Out = Annotated[Path, Parameter(help="folder for evaluation.json and report.md")]
ModelFolder = Annotated[Path, Parameter(help="folder for the model; a new one")]
Repository = Annotated[str | None, Parameter(help="repository on the Hugging Face Hub; private if it is new")]
Against = Annotated[str | None, Parameter(help="the model before [default: what the run began with]")]
Tasks = Annotated[
    str | None,
    Parameter(help="sources of questions, as of posttrain, and tasks of lm-eval, with commas between"),
]
Limit = Annotated[int | None, _from(2, "most questions of a task")]
Rows = Annotated[str | None, Parameter(help=f"sweeps, {', '.join(ROWS)}, with commas between [default: all]")]
Folder = Annotated[Path | None, Parameter(help="folder; a new one under runs/ if not given")]
Students = Annotated[Path | None, Parameter(help="folder [default: notebooks/exercises]")]
Folded = Annotated[bool | None, Parameter(help="fold solutions away in the copies [default: not in another folder]")]
Course = Annotated[Path | None, Parameter(help="also make an nbgrader course here")]
Lessons = Annotated[Path | None, Parameter(help="also write lessons with fields for predictions and no outputs here")]
Seed = Annotated[str | None, Parameter(help="draws the private cases [default: a new one, which the marks name]")]
Marks = Annotated[Path | None, Parameter("--json", help="also write the marks here")]


def _given(flags: dict[str, Any], without: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings of --config, replaced by flags; of a run's settings only those that the command takes."""
    file = flags.pop("config", None)
    found = {} if file is None else read_settings(file, without)
    for name in found.keys() & {*without}:
        raise UserError(f"{name} has no effect in this command; leave it out of {str(file)!r}")
    return found | flags


def _settings(name: str | None, flags: dict[str, Any]) -> RMTConfig:
    """Return the preset's settings, replaced by those of --config, replaced by flags."""
    given = _given(flags)
    of_file = given.pop("preset", "laptop")
    return preset(name or of_file, **given)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, or a SIGTERM, into a request to stop after the step; a second one stops at once."""
    stop = threading.Event()

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("Stopping after this step; once more stops at once.", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(folder: Path, table: str) -> None:
    print(f"{table}\n\nReport       {folder / 'report.md'}")
    if (folder / "checkpoint").exists():
        print(f"Checkpoint   {folder / 'checkpoint'}")


@_command(PretrainConfig, without=("world",))
def pretrain(world: WorldName | None = None, /, **flags: Any) -> None:
    """Train a world's model, micro if none is named, from scratch (4 minutes; abacus: 8), or --model's further."""
    from rmt_mini.runs.pre_and_post import pretrain_run

    folder = pretrain_run(PretrainConfig(**_given(flags) | ({"world": world} if world else {})))
    print(f"Checkpoint   {folder / 'checkpoint'}")


@_command(RMTConfig)
def run(name: Name = None, /, **flags: Any) -> None:
    """Cold start, RMT, evaluation before and after, report."""
    from rmt_mini.runs.run import run

    config = _settings(name, flags)
    with _stopping() as stop:
        result = run(config, stop=stop)
    _show(result.folder, result.table)


@app.command
def resume(folder: Path, /, *, branch_tokens: Tokens = None, on_nan: OnNan = None, report_to: ReportTo = None) -> None:
    """Continue the run, comparison (--over values, too) or exams in FOLDER, which was stopped or killed."""
    from rmt_mini.runs import compare, pre_and_post, sweep
    from rmt_mini.runs.run import resume

    given = {"branch_tokens": branch_tokens, "on_nan": on_nan, "report_to": report_to}
    changes = {name: value for name, value in given.items() if value is not None}
    folder = folder.resolve()  # what it belongs to may be above it
    several = {"compare.json": compare, "over.json": sweep, "exams.json": pre_and_post}
    found = next((room for name, room in several.items() if (folder / name).exists()), None)
    if changes and found:
        raise UserError(f"{next(iter(changes))} is of use with a single run; resume that run by itself")
    with _stopping() as stop:
        if found is None:
            _show(folder, resume(folder, stop=stop, changes=changes).table)
        else:
            _show(folder.parents[1] if found is pre_and_post else folder, found.go_on(folder, stop=stop))


@_command(RMTConfig, without=NOT_IN_POSTTRAINING)
def posttrain(
    checkpoint: str, /, *, questions: Questions = None, count: Several = 400, k: Answers = 8, **flags: Any
) -> None:
    """Post-train CHECKPOINT, a run folder or a model, by GRPO on questions; measure pass@k before and after."""
    from rmt_mini.runs.pre_and_post import posttrain_run

    _show(*posttrain_run(checkpoint, questions, count, k, _given(flags, ("preset", *NOT_IN_POSTTRAINING))))


@_command(RMTConfig)
def compare(
    name: Name = None,
    /,
    *,
    arms: Arms = None,
    seeds: Runs = 3,
    bases: Annotated[int, _from(1, "models to begin with: abacus has 3; yours are --model 'mine/{base}'")] = 1,
    control_seeds: Fewer = None,
    over: Over = None,
    workers: Jobs = 0,
    redo: Redo = False,
    **flags: Any,
) -> None:
    """Run RMT, its baseline, ablations and controls over several seeds; the same command again continues."""
    config = _settings(name, flags)
    if arms and redo:
        raise UserError("--report-only reports all arms that have run; leave out --arms")
    if over is None:
        return _compare(config, arms_named(config, _names(arms)), seeds, workers, redo, bases, control_seeds)
    if control_seeds:
        raise UserError("--over gives every arm all seeds; leave out --control-seeds")
    from rmt_mini.runs import sweep

    field, values = sweep.over_values(config, over)
    if field in flags:
        raise UserError(f"{field} is what --over changes; leave out its flag")
    config = config.replace(out=config.out or f"runs/over-{field}-{config.preset}")
    if redo:
        _show(folder := Path(config.out), sweep.report(folder))
    else:
        with _stopping() as stop:
            chosen = _names(arms) or ("ntp", "rpt")
            _show(*sweep.over(config, field, values, chosen, seeds, workers, stop=stop, bases=bases))


@_command(RMTConfig)
def sensitivity(
    name: Name = None, /, *, fields: Fields = None, seeds: Runs = 3, workers: Jobs = 0, redo: Redo = False, **flags: Any
) -> None:
    """Change one setting at a time around the preset's value, over several seeds; the same command again continues."""
    from rmt_mini.report.claims import SYMBOLS
    from rmt_mini.runs.sweep import variants

    config = _settings(name, flags)
    config = config.replace(out=config.out or f"runs/sensitivity-{config.preset}")
    _compare(config, variants(config, _names(fields) or SYMBOLS), seeds, workers, redo)


def _compare(
    config: RMTConfig,
    arms: Sequence[Arm],
    seeds: int,
    workers: int,
    redo: bool,
    bases: int = 1,
    control_seeds: int | None = None,
) -> None:
    from rmt_mini.runs.compare import compare, comparison_folder, report

    if redo:
        _show(folder := comparison_folder(config), report(folder))
    else:
        with _stopping() as stop:
            _show(*compare(config, arms, seeds, workers, stop=stop, bases=bases, control_seeds=control_seeds))


@_command(RMTConfig, without=IN_COMPARISON)
def exams(
    folder: Path,
    /,
    *,
    arms: Annotated[
        str | None, Parameter(help="names with commas between, beside base and rmt [default: ntp,rpt]")
    ] = None,
    questions: Questions = None,
    count: Several = 400,
    k: Answers = 8,
    every: Annotated[int, _from(0, "steps between measurements; 0: the ends only")] = 20,
    workers: Jobs = 0,
    **flags: Any,
) -> None:
    """Post-train, by GRPO on questions, what the comparison in FOLDER trained, and the untrained model."""
    from rmt_mini.runs.pre_and_post import exams

    changes = _given(flags, ("preset", *IN_COMPARISON))
    with _stopping() as stop:
        table = exams(folder, _names(arms), questions, count, k, every, changes, workers, stop=stop)
    _show(folder, table)


@_command(RMTConfig)
def preflight(name: Name = None, /, **flags: Any) -> None:
    """Measure, before any RL, whether groups carry a signal."""
    from rmt_mini.report.markdown import macro
    from rmt_mini.runs.run import prepare
    from rmt_mini.stages.preflight import preflight

    config = _settings(name, flags)
    inputs = prepare(config)
    print(macro("tables.md.j2", "preflight", preflight(inputs.policy, inputs.train, config), config.group_size))


@_command(RMTConfig)
def plan(
    name: Name = None,
    /,
    *,
    interval: Share = None,
    gpus: Annotated[int | None, _from(1, "simulate so many GPUs a machine [default: this machine]")] = None,
    machines: Annotated[int, _from(1, "of so many GPUs")] = 1,
    gpu: Annotated[str, Parameter(help="a100, h100 or h200")] = "h100",
    way: Annotated[str, Parameter(help="tree, trl or trl-vllm [default: as launch would]", show_default=False)] = "",
    **flags: Any,
) -> None:
    """Estimate time and memory before a run, here or on --gpus, and how small a difference its evaluation shows."""
    from rmt_mini.engine.model import load_policy
    from rmt_mini.runs.capacity import interval_lines
    from rmt_mini.scale.planner import forecast, plan_run

    config = _settings(name, flags)
    if gpus:
        lines = forecast(config, gpus, machines, gpu, way)
    elif (machines, gpu, way) != (1, "h100", ""):
        raise UserError("--machines, --gpu and --way describe GPUs elsewhere; give --gpus as well")
    else:
        lines = plan_run(config, load_policy(config.model, config.device, config.dtype)).lines()
    print("\n".join([*lines, *interval_lines(config.evaluation_positions, interval)]))


@_command(RMTConfig, ScaleSettings, without=("checkpointing", "cpu"))
def launch(
    name: Name = None,
    /,
    *,
    start: Annotated[bool, Parameter("--run", negative="--print", help="start it here, or print what to type")] = False,
    setup: Annotated[str | None, Parameter(help="cpu, one-gpu, one-node or nodes [default: by the preset]")] = None,
    gpus: Annotated[int, _from(0, "processes on a machine; 0: by the setup")] = 0,
    machines: Annotated[int, _from(0, "that train; 0: by the setup")] = 0,
    machine_rank: Annotated[int | None, _from(0, "which of them this one is")] = None,
    main_address: Annotated[str | None, Parameter(help="address of machine 0, where there are several")] = None,
    **flags: Any,
) -> None:
    """Print, or with --run start, the accelerate command that trains by the same method on TRL, on many GPUs."""
    from rmt_mini.engine.model import locate_model
    from rmt_mini.scale import launch

    spread = {field: flags.pop(field) for field in ScaleSettings.model_fields if field in flags}
    config = _settings(name, flags)
    where = launch.setup_for(config.preset, setup or "", gpus, machines, **spread)
    launch.commands(config, where, main_address or "")  # complains before a model is fetched
    made = launch.commands(config.replace(model=locate_model(config.model)), where, main_address or "")
    if start:
        sys.exit(launch.start(made, where, machine_rank or 0))
    if machine_rank is not None:
        raise UserError("--machine-rank is of use with --run only; without it the commands of all machines are printed")
    print("\n".join(f"# {place}:\n{shlex.join(command)}" for place, command in made.items()))


@app.command
def evaluate(checkpoint: Path, /, *, budget: Budget = None, out: File = None) -> None:
    """Measure a CHECKPOINT, or a run folder, on its run's held-out positions."""
    from rmt_mini.report.report import evaluation_table
    from rmt_mini.runs.run import evaluate_checkpoint

    if out is not None:
        require_file_name(out)  # before minutes of work
    found = evaluate_checkpoint(checkpoint, budget)
    print(evaluation_table(Evaluation(after=found)))
    if out is not None:
        write_keeping(out, found.model_dump_json(indent=1, exclude_unset=True) + "\n")


@app.command
def export(run: Path, /, *, out: ModelFolder, push: Repository = None) -> None:
    """Write the model of a finished RUN, with a model card, into a folder; upload it only if --push says where."""
    from rmt_mini.runs.export import export

    print(f"Model        {export(run, out, push)}")


@app.command
def benchmark(checkpoint: str, /, *, against: Against = None, tasks: Tasks = None, limit: Limit = None) -> None:
    """Say what CHECKPOINT, a run folder or a model, kept of what it began as, by lm-evaluation-harness."""
    from rmt_mini.runs.retention import benchmark

    print(benchmark(checkpoint, against, _names(tasks), limit)[1])


@app.command
def seeds(*runs: Path, out: Out) -> None:
    """Read RUNS that differ in their seed alone as one result, with intervals over seeds and documents."""
    from rmt_mini.report.report import write_seeds_report

    if not runs:
        raise UserError("no run folder is given; give two or more after rmt-mini seeds")
    _show(out, write_seeds_report(runs, out))


@_command(Setting, without=("config",))
def bench(*, parts: Rows = None, out: Folder = None, **flags: Any) -> None:
    """Time a step against TRL, generate, a padded update and the machine's limits; every part is written as it ends.

    busy: the tree's step while another program computes
    long: the tree and TRL at --long-prefix
    sweeps: how the cost of a step grows with each size
    """
    rows = rows_named(_names(parts))
    from rmt_mini.bench.bench import bench

    _show(*bench(Setting(**flags), out, rows))


@app.command
def release(
    *, students: Students = None, nbgrader: Course = None, solutions: Folded = None, lessons: Lessons = None
) -> None:
    """Make students' copies of the solved exercises, and an nbgrader course if asked for."""
    from rmt_mini.teaching.release import STUDENTS, release, release_lessons

    written = release(students or STUDENTS, nbgrader, solutions) + (release_lessons(lessons) if lessons else [])
    print("\n".join(map(str, written)) or "Nothing to write: all copies are up to date.")


@app.command
def grade(*notebooks: Path, out: Marks = None, seed: Seed = None) -> None:
    """Run exercise NOTEBOOKS and mark each exercise; their code runs with your rights."""
    from rmt_mini.teaching.grading import Report, grade_all

    if not notebooks:
        raise UserError("no notebook is given; give one or more after rmt-mini grade")
    reports: list[Report] = []
    if out is not None:
        write_keeping(out, "[]\n")  # complains now and not after a class
    for report in grade_all(notebooks, seed=seed):
        reports.append(report)
        print(report.text(), flush=True)
        if out is not None:
            write_whole(out, json.dumps([report.as_json() for report in reports], indent=1) + "\n")
    without = [report.notebook for report in reports if report.reason]
    if without:
        many = f"{len(without)} of {len(reports)} notebooks"
        raise UserError(f"{many} could not be graded, {without[0]!r} first; see their reports")


class _Stream(io.FileIO):
    """A standard stream whose reader may go away (``2>&1 | head``): the run continues without it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())  # for compiled code, too
            return len(data)


def _keep_streams_usable() -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is getattr(sys, f"__{name}__"):  # neither a notebook's nor a test's
            if getattr(sys, name) is None:  # closed, as by 2>&-
                os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            raw = io.BufferedWriter(_Stream(number, "w", closefd=False))
            encoding = getattr(getattr(sys, name), "encoding", "utf-8")
            setattr(sys, name, io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad input, 130 interrupted."""
    _keep_streams_usable()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("httpx", "transformers", "fontTools", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        app(arguments)
    except (Stopped, KeyboardInterrupt) as stopped:
        message = str(stopped) or "interrupted."
        print(message[:1].upper() + message[1:], file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if (line := _one_line(error)) is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


def _one_line(error: Exception) -> str | None:
    """Return what a user can set right; None for a fault of the program, whose traceback is wanted."""
    if isinstance(error, UserError | CycloptsError):
        message = str(error)
    elif out_of_memory(error):
        message = "out of memory; close other programs, or take a smaller model"
    elif disk_full(error):
        message = "no space left on the disk; free some and run again, or choose another --out"
    elif isinstance(error, OSError):
        message = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
    else:
        return None
    return " ".join(message.split())
