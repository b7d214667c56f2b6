"""The command line: ``rmt-mini run [PRESET] [--config F.yaml] [--any-setting V]`` and its companions.

Every field of RMTConfig is a flag of the same name. Bad input: exit code 2 and one line ``error: ...``. Results go to
stdout, progress and log lines to stderr. Each command imports what it needs, so that --help is quick.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypedDict, get_args

from cyclopts import App, CycloptsError, Group, Parameter, Token
from cyclopts.validators import Number

from rmt_mini import __version__
from rmt_mini.config import NOT_IN_POSTTRAINING, PRESETS, PretrainConfig, RMTConfig, Settings, preset, read_settings
from rmt_mini.errors import Stopped, UserError, disk_full, out_of_memory

if TYPE_CHECKING:
    from rmt_mini.arms import Arm
    from rmt_mini.runs.pre_and_post import ExamResult
    from rmt_mini.runs.run import RunResult

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


def _from(least: int, help: str) -> Parameter:
    return Parameter(help=help, converter=_whole, validator=Number(gte=least))


def _text(help: str) -> Parameter:
    return Parameter(help=help, show_default=False)


def _flags(settings: type[Settings], without: Iterable[str] = ()) -> Any:
    """Return the type of a parameter that takes every field as a flag; its value holds those that were given."""
    kinds: dict[str, Any] = {
        "config": Annotated[Path, _text("YAML file of settings, or a run folder to take them from")]
    }
    groups: dict[str, Group] = {}
    for name, field in settings.model_fields.items():
        default, title = field.default, str(dict(field.json_schema_extra or {})["group"])  # type: ignore[arg-type]
        kind = tuple[(float,) * len(default)] if isinstance(default, tuple) else type(default)  # type: ignore[misc]
        choices = f"({', '.join(get_args(field.annotation))}) " if kind is str and get_args(field.annotation) else ""
        group = groups.setdefault(title, Group(title, sort_key=len(groups) + 1))
        text = f"{field.description} {choices}[default: {default}]"
        kinds[name] = Annotated[kind, Parameter(help=text, group=group, converter=_whole if kind is int else None)]
    kept = {name: kind for name, kind in kinds.items() if name not in ("preset", *without)}
    return Annotated[TypedDict("Flags", kept, total=False), Parameter("*")] | None  # type: ignore[operator]


IN_COMPARISON = ("out", "seed", *NOT_IN_POSTTRAINING)  # exams take the first two from the comparison
if TYPE_CHECKING:
    Flags: TypeAlias = dict[str, Any] | None
    PretrainFlags: TypeAlias = Flags
    PosttrainFlags: TypeAlias = Flags
    ExamFlags: TypeAlias = Flags
else:
    Flags, PretrainFlags = _flags(RMTConfig), _flags(PretrainConfig)
    PosttrainFlags, ExamFlags = _flags(RMTConfig, NOT_IN_POSTTRAINING), _flags(RMTConfig, IN_COMPARISON)

Name = Annotated[str | None, Parameter("PRESET", help=f"{', '.join(PRESETS)} [default: laptop]")]
Arms = Annotated[str, _text("names with commas between; rmt is always there [default: all]")]
Fields = Annotated[str, _text("settings to vary, with commas between [default: all that can be]")]
Interval = Annotated[float | None, Parameter(help="half an interval: 0.03 is 3 points", validator=Number(gt=0, lte=1))]
Start = Annotated[bool, Parameter("--run", help="start it here, or print what to type", negative="--print")]
Marks = Annotated[Path | None, Parameter("--json", help="also write the marks here")]
Budget = Annotated[int | None, _from(1, "stated budget, tokens [default: B_T of the run]")]
File = Annotated[Path | None, _text("also write the result here, as JSON")]


@Parameter("*")
class _Several(TypedDict, total=False):  # runs side by side
    seeds: Annotated[int, _from(1, "runs of each arm, --seed first [default: 3]")]
    workers: Annotated[int, _from(0, "runs side by side; 0: one a core for micro, else 1 [default: 0]")]
    report_only: Annotated[bool, Parameter(help="run nothing; write the report of what is there again", negative="")]


@Parameter("*")
class _Exam(TypedDict, total=False):
    questions: Annotated[str, _text("micro, micro-text, gym:TASK or champ [default: by the model]")]
    count: Annotated[int, _from(2, "questions, held-out ones included [default: 400]")]
    k: Annotated[int, _from(1, "answers to each held-out question [default: 8]")]


@Parameter("*")
class _Exams(_Exam, total=False):
    arms: Annotated[str, _text("names with commas between; base and rmt are always there [default: ntp,rpt]")]
    every: Annotated[int, _from(0, "steps between measurements; 0: the ends only [default: 20]")]
    workers: Annotated[int, _from(0, "runs side by side; 0: one a core for micro, else 1 [default: 0]")]


@Parameter("*")
class _Changes(TypedDict, total=False):  # what may change in a run under way
    branch_tokens: Annotated[int, Parameter(help="continue with fewer where memory ran out", converter=_whole)]
    on_nan: Annotated[str, _text("continue with 'skip' where a step was not finite")]


@Parameter("*")
class _Elsewhere(TypedDict, total=False):  # gPUs that need not be here
    gpus: Annotated[int, _from(1, "simulate so many GPUs a machine [default: this machine]")]
    machines: Annotated[int, _from(1, "of so many GPUs [default: 1]")]
    gpu: Annotated[str, _text("a100, h100 or h200 [default: h100]")]
    way: Annotated[str, _text("tree, trl or trl-vllm [default: as launch would]")]


@Parameter("*")
class _Spread(TypedDict, total=False):  # how the work is spread over GPUs
    server: Annotated[str, _text("host:port of the vLLM server")]
    engine: Annotated[str, _text("transformers, vllm-colocate or vllm-server [default: by the setup]")]
    micro_batch: Annotated[int, _from(1, "rollouts in one pass of a process")]
    lora_rank: Annotated[int, _from(0, "train only adapters of this rank; 0: all weights")]
    gpu_memory: Annotated[float, _text("share of a GPU that a colocated vLLM takes")]
    tensor_parallel: Annotated[int, _from(1, "GPUs that share one colocated vLLM [default: 1]")]


@Parameter("*")
class _Sizes(TypedDict, total=False):  # sizes of the step that is timed
    model: Annotated[str, _text("as for run [default: smollm2-135m]")]
    corpus: Annotated[str, _text("as for run [default: champ]")]
    dtype: Annotated[str, _text("auto, float32 or bfloat16 [default: auto]")]
    steps: Annotated[int, _from(1, "timed steps of each contender [default: 5]")]
    documents: Annotated[int, _from(1, "of a step [default: 2]")]
    positions: Annotated[int, _from(1, "K, of a document [default: 4]")]
    group_size: Annotated[int, _from(2, "G, rollouts a position [default: 8]")]
    prefix: Annotated[int, _from(16, "tokens before a position, on average [default: 125]")]
    thought_tokens: Annotated[int, _from(1, "of every rollout [default: 24]")]


def _given(flags: Flags, without: Iterable[str] = ()) -> dict[str, Any]:
    """Return the settings of --config, replaced by flags; of a run's settings only those that the command takes."""
    given = dict(flags or {})
    file = given.pop("config", None)
    found = {} if file is None else read_settings(file, without)
    for name in without:
        if name in found:
            raise UserError(f"{name} has no effect in this command; leave it out of {str(file)!r}")
    return {**found, **given}


def _settings(name: str | None, flags: Flags) -> RMTConfig:
    """Return the preset's settings, replaced by those of --config, replaced by flags."""
    given = _given(flags)
    of_file = given.pop("preset", "laptop")
    return preset(name or of_file, **given)


def _names(text: str) -> list[str]:
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


def _show_report(folder: Path, table: str) -> None:
    print(f"{table}\n\nReport       {folder / 'report.md'}")


def _show(result: RunResult | ExamResult) -> None:
    _show_report(result.folder, result.table)
    print(f"Checkpoint   {result.folder / 'checkpoint'}")


@app.command
def pretrain(world: Literal["micro"] = "micro", /, *, flags: PretrainFlags = None) -> None:
    """Train the micro-world's model from scratch, on 2 cores in about 4 minutes."""
    from rmt_mini.runs.pre_and_post import pretrain_run

    path = pretrain_run(PretrainConfig(**_given(flags)))
    print(f"Checkpoint   {path / 'checkpoint'}")


@app.command
def run(name: Name = None, /, *, flags: Flags = None) -> None:
    """Cold start, RMT, evaluation before and after, report."""
    from rmt_mini.runs.run import run

    config = _settings(name, flags)
    with _stopping() as stop:
        _show(run(config, stop=stop))


@app.command
def resume(folder: Path, /, *, changes: _Changes | None = None) -> None:
    """Continue the run, comparison or exams in FOLDER, which was stopped or killed."""
    from rmt_mini.runs import compare, exams
    from rmt_mini.runs.run import resume

    given: dict[str, Any] = {**(changes or {})}
    compared, examined = ((folder / name).exists() for name in ("compare.json", "exams.json"))
    if given and (compared or examined):
        raise UserError(f"{next(iter(given))} is of use with a single run; resume that run by itself")
    with _stopping() as stop:
        if compared:
            _show_report(folder, compare.go_on(folder, stop=stop))
        elif examined:
            _show_report(folder.parent, exams.go_on(folder, stop=stop))
        else:
            _show(resume(folder, stop=stop, changes=given))


@app.command
def posttrain(checkpoint: str, /, *, exam: _Exam | None = None, flags: PosttrainFlags = None) -> None:
    """Post-train CHECKPOINT, a run folder or a model, by GRPO on questions; measure pass@k before and after."""
    from rmt_mini.runs.pre_and_post import posttrain_run

    asked = exam or {}
    changes = _given(flags, ("preset", *NOT_IN_POSTTRAINING))
    _show(posttrain_run(checkpoint, asked.get("questions"), asked.get("count", 400), asked.get("k", 8), changes))


@app.command
def compare(name: Name = None, /, *, arms: Arms = "", options: _Several | None = None, flags: Flags = None) -> None:
    """Run RMT, its baseline, ablations and controls over several seeds; the same command again continues."""
    from rmt_mini.arms import ARMS, arms_named

    config = _settings(name, flags)
    if arms and (options or {}).get("report_only"):
        raise UserError("--report-only reports all arms that have run; leave out --arms")
    _compare(config, arms_named(config, _names(arms) or ARMS), **(options or {}))


@app.command
def sensitivity(
    name: Name = None, /, *, fields: Fields = "", options: _Several | None = None, flags: Flags = None
) -> None:
    """Change one setting at a time around the preset's value, over several seeds; the same command again continues."""
    from rmt_mini.report.claims import SYMBOLS
    from rmt_mini.runs.sweep import variants

    config = _settings(name, flags)
    config = config.replace(out=config.out or f"runs/sensitivity-{config.preset}")
    _compare(config, variants(config, _names(fields) or SYMBOLS), **(options or {}))


def _compare(
    config: RMTConfig, arms: Sequence[Arm], seeds: int = 3, workers: int = 0, report_only: bool = False
) -> None:
    from rmt_mini.runs.compare import compare, comparison_folder, report

    if report_only:
        folder = comparison_folder(config)
        _show_report(folder, report(folder))
        return
    with _stopping() as stop:
        _show_report(*compare(config, arms, seeds, workers, stop=stop))


@app.command
def exams(folder: Path, /, *, exam: _Exams | None = None, flags: ExamFlags = None) -> None:
    """Post-train, by GRPO on questions, what the comparison in FOLDER trained, and the untrained model."""
    from rmt_mini.runs.exams import exams

    asked = exam or {}
    questions = asked.get("questions"), asked.get("count", 400), asked.get("k", 8), asked.get("every", 20)
    changes, workers = _given(flags, ("preset", *IN_COMPARISON)), asked.get("workers", 0)
    with _stopping() as stop:
        _show_report(folder, exams(folder, _names(asked.get("arms", "")), *questions, changes, workers, stop=stop))


@app.command
def preflight(name: Name = None, /, *, flags: Flags = None) -> None:
    """Measure, before any RL, whether groups carry a signal."""
    from rmt_mini.runs.capacity import explained
    from rmt_mini.runs.run import prepare
    from rmt_mini.stages.preflight import preflight

    config = _settings(name, flags)
    with explained(config):
        material = prepare(config)
    with explained(config, material.policy):
        found = preflight(material.policy, material.train, config)

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.0%}"

    print(f"{'tier':<8} {'positions':>9} {'accuracy':>9} {'pass@' + str(config.group_size):>9} {'signal':>9}")
    for tier, row in found["tiers"].items():
        cells = [share(row[key]) for key in ("accuracy", "pass_at_g", "signal_groups")]
        print(f"{tier:<8} {row['positions']:>9} " + " ".join(f"{cell:>9}" for cell in cells))
    print(
        f"\nGroups with a signal {share(found['signal_groups'])}; thoughts that close themselves "
        f"{share(found['closed_share'])}; length {found['thought_length']:.1f} tokens, spread within a group "
        f"{found['length_spread']:.1f}, budget {found['budget']}."
    )
    for advice in found["advice"] or ["Nothing prevents RL."]:
        print(f"- {advice}")


@app.command
def plan(
    name: Name = None, /, *, interval: Interval = None, options: _Elsewhere | None = None, flags: Flags = None
) -> None:
    """Estimate time and memory before a run, here or on --gpus, and how small a difference its evaluation shows."""
    from rmt_mini.runs.capacity import interval_lines
    from rmt_mini.scale.planner import forecast, plan_run

    config, elsewhere = _settings(name, flags), options or {}
    if elsewhere.get("gpus"):
        lines = forecast(config, **elsewhere)
    elif elsewhere:
        raise UserError(f"--{next(iter(elsewhere))} describes GPUs elsewhere; give --gpus as well")
    else:
        from rmt_mini.engine.model import load_policy
        from rmt_mini.runs.capacity import explained

        with explained(config):
            lines = plan_run(config, load_policy(config.model, config.device, config.dtype)).lines()
    print("\n".join([*lines, *interval_lines(config.evaluation_positions, interval)]))


@app.command
def launch(
    name: Name = None,
    /,
    *,
    start: Start = False,
    setup: Annotated[str, _text("cpu, one-gpu, one-node or nodes [default: by the preset]")] = "",
    gpus: Annotated[int, _from(0, "processes on a machine; 0: by the setup")] = 0,
    machines: Annotated[int, _from(0, "that train; 0: by the setup")] = 0,
    machine_rank: Annotated[int | None, _from(0, "which of them this one is")] = None,
    main_address: Annotated[str, _text("address of machine 0, where there are several")] = "",
    spread: _Spread | None = None,
    flags: Flags = None,
) -> None:
    """Print, or with --run start, the accelerate command that trains by the same method on TRL, on many GPUs."""
    from rmt_mini.engine.model import locate_model
    from rmt_mini.scale import launch

    config = _settings(name, flags)
    where = launch.setup_for(config.preset, setup, gpus, machines)
    scale = launch.scale_settings(config.preset, where, {**(spread or {})})
    made = launch.commands(config.replace(model=locate_model(config.model)), where, scale, main_address)
    if start:
        sys.exit(launch.start(made, scale, machine_rank or 0))
    if machine_rank is not None:
        raise UserError("--machine-rank is of use with --run only; without it the commands of all machines are printed")
    print("\n".join(made.lines()))


@app.command
def evaluate(checkpoint: Path, /, *, budget: Budget = None, out: File = None) -> None:
    """Measure a CHECKPOINT, or a run folder, on its run's held-out positions."""
    from rmt_mini.files import Evaluation, require_file_name, write_keeping
    from rmt_mini.report.report import evaluation_table
    from rmt_mini.runs.run import evaluate_checkpoint

    if out is not None:
        require_file_name(out)  # before minutes of work
    found = evaluate_checkpoint(checkpoint, budget)
    print(evaluation_table(Evaluation(after=found)))
    if out is not None:
        write_keeping(out, found.model_dump_json(indent=1, exclude_unset=True) + "\n")


@app.command
def seeds(*runs: Path, out: Annotated[Path, _text("folder for evaluation.json and report.md")]) -> None:
    """Read RUNS that differ in their seed alone as one result, with intervals over seeds and documents."""
    from rmt_mini.report.report import write_seeds_report

    if not runs:
        raise UserError("no run folder is given; give two or more after rmt-mini seeds")
    _show_report(out, write_seeds_report(runs, out))


@app.command
def bench(*, sizes: _Sizes | None = None, trl: bool = True, sweeps: bool = True, out: Path | None = None) -> None:
    """Time a step against TRL, generate, a padded update and the machine's limits, side by side.

    Args:
        sizes: of the step that is timed.
        trl: measure TRL's GRPOTrainer, most of the time.
        sweeps: show how cost grows with each size.
        out: folder; a new one under runs/ if not given.
    """
    from rmt_mini.bench.bench import SWEEPS, bench
    from rmt_mini.bench.parts import Setting

    _show_report(*bench(Setting(**(sizes or {})), out, trl, SWEEPS if sweeps else {}))


@app.command
def release(*, students: Path | None = None, nbgrader: Path | None = None) -> None:
    """Make students' copies of the solved exercises, and an nbgrader course if asked for.

    Args:
        students: folder; notebooks/exercises if not given.
        nbgrader: also make an nbgrader course here.
    """
    from rmt_mini.teaching.release import STUDENTS, release

    written = release(students or STUDENTS, nbgrader)
    print("\n".join(map(str, written)) or "Nothing to write: all copies are up to date.")


@app.command
def grade(*notebooks: Path, out: Marks = None) -> None:
    """Run exercise NOTEBOOKS and mark each exercise; their code runs with your rights."""
    from rmt_mini.files import write_keeping, write_whole
    from rmt_mini.teaching.grading import Report, grade_all

    if not notebooks:
        raise UserError("no notebook is given; give one or more after rmt-mini grade")
    reports: list[Report] = []
    if out is not None:
        write_keeping(out, "[]\n")  # complains now and not after a class
    for report in grade_all(notebooks):
        reports.append(report)
        print(report.text(), flush=True)
        if out is not None:
            write_whole(out, json.dumps([report.as_json() for report in reports], indent=1) + "\n")
    without = [report.notebook for report in reports if report.reason]
    if without:
        raise UserError(
            f"{len(without)} of {len(reports)} notebooks could not be graded, {without[0]!r} first; see their reports"
        )


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
    except Stopped as stopped:
        print(str(stopped)[:1].upper() + str(stopped)[1:], file=sys.stderr)
        sys.exit(130)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        message = _one_line(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
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
