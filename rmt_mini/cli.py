"""The command line: ``rmt-mini run [PRESET] [--any-config-field V]`` and its companions.

Every field of RMTConfig is a flag by its name. Bad input ends with exit code 2 and one line ``error: ...``.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
import threading
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rmt_mini.config import NOT_IN_POSTTRAINING, PRESETS, PretrainConfig, RMTConfig, preset
from rmt_mini.errors import Stopped, UserError, disk_full, out_of_memory

if TYPE_CHECKING:
    from rmt_mini.runs.run import RunResult

_TYPES: dict[Any, Any] = {str: str, int: int, float: float, bool: bool}


def _option(field: dataclasses.Field[Any], kind: Any) -> click.Option:
    """Turn one field into a flag; a tuple takes its numbers after one another, a switch also as --no-..."""
    flag = "--" + field.name.replace("_", "-")
    shown = f"{field.metadata['help']}  [{field.default}]"
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}"], default=None, help=shown)
    arguments = typing.get_args(kind)
    count = len(arguments) or 1
    return click.Option([flag], type=_TYPES[arguments[0] if arguments else kind], nargs=count, default=None, help=shown)


def _config_options(settings: Any = RMTConfig, without: Sequence[str] = ()) -> list[click.Parameter]:
    kinds, hidden = typing.get_type_hints(settings), {"preset", *without}
    return [_option(field, kinds[field.name]) for field in dataclasses.fields(settings) if field.name not in hidden]


def _config(name: str, given: dict[str, Any]) -> RMTConfig:
    return preset(name, **{field: value for field, value in given.items() if value is not None})


def _command(name: str, body: Callable[..., None], *own: click.Option) -> click.Command:
    """Make a command that takes a preset, options of its own and every field as a flag; its help is the docstring."""

    def callback(preset_name: str, **given: Any) -> None:
        options = {option.name or "": given.pop(option.name or "") for option in own}
        body(_config(preset_name, given), **options)

    argument = click.Argument(["preset_name"], metavar="PRESET", default="laptop")
    presets = ", ".join(PRESETS)
    text = f"{body.__doc__}\n\nPRESET is one of {presets}; the default is laptop."
    return click.Command(name, callback=callback, params=[argument, *own, *_config_options()], help=text)


class _Unheard:
    """Standard error, whose reader may go away (a closed terminal, ``2>&1 | head``): the run goes on without."""

    def __init__(self, stream: typing.TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._hush()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._hush()

    def _hush(self) -> None:
        """Let all that is still written, by compiled code too, go nowhere."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError):
            os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _streams() -> Iterator[None]:
    """Give the process standard streams that it can write to, whatever it was started with."""
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(sys.stdout))  # as they were, when all is done
        stack.enter_context(redirect_stderr(sys.stderr))
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed, as by 2>&-, or a program without a console
                setattr(sys, name, stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
        if getattr(sys.stdout, "encoding", "utf-8") not in ("utf-8", "UTF-8") and hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")
        sys.stderr = typing.cast(typing.TextIO, _Unheard(sys.stderr))
        yield


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C, or a SIGTERM, into a request to stop behind the step; a second one stops at once."""
    stop = threading.Event()

    def ask(number: int, _: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        click.echo("Stopping behind this step; once more stops at once.", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(result: RunResult) -> None:
    click.echo(result.table)
    click.echo(f"\nReport       {result.folder / 'report.md'}\nCheckpoint   {result.folder / 'checkpoint'}")


def _run(config: RMTConfig) -> None:
    """Cold start, RMT, evaluation before and after, report."""
    from rmt_mini.runs.run import run

    with _stopping() as stop:
        _tell(run(config, stop=stop))


@click.command("resume")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--branch-tokens", type=int, default=None, help="go on with a smaller one where memory ran out")
@click.option("--on-nan", default=None, help="go on with 'skip' where a step was not finite")
def _resume(folder: Path, **given: Any) -> None:
    """Take up the run, comparison or exams in FOLDER, which was stopped or killed, where it stood."""
    from rmt_mini.runs.run import resume

    changes = {name: value for name, value in given.items() if value is not None}
    compared, examined = ((folder / name).exists() for name in ("compare.json", "exams.json"))
    if changes and (compared or examined):
        raise UserError(f"{next(iter(changes))} is of use with a single run; resume that run by itself")
    with _stopping() as stop:
        if compared:
            from rmt_mini.runs.compare import go_on

            _tell_report(folder, go_on(folder, stop=stop))
        elif examined:
            from rmt_mini.runs.exams import go_on as go_on_with_exams

            _tell_report(folder.parent, go_on_with_exams(folder, stop=stop))
        else:
            _tell(resume(folder, stop=stop, changes=changes))


_SEEDS = click.Option(["--seeds"], type=click.IntRange(min=1), default=3, help="runs of each arm, --seed first  [3]")
_WORKERS = click.Option(
    ["--workers"], type=click.IntRange(min=0), default=0, help="runs side by side; 0: one a core for micro, else 1  [0]"
)
_REPORT_ONLY = click.Option(["--report-only"], is_flag=True, help="run nothing; write the report of what is there anew")


def _tell_report(folder: Path, table: str) -> None:
    click.echo(table)
    click.echo(f"\nReport       {folder / 'report.md'}")


def _compare(config: RMTConfig, arms: str, seeds: int, workers: int, report_only: bool) -> None:
    """Run RMT, its baseline, ablations and controls over several seeds; its command given again goes on."""
    from rmt_mini.arms import ARMS, arms_named
    from rmt_mini.runs.compare import compare, comparison_folder, report

    if report_only:
        if arms:
            raise UserError("--report-only reports all arms that have run; leave out --arms")
        folder = comparison_folder(config)
        _tell_report(folder, report(folder))
        return
    names = [name.strip() for name in arms.split(",")] if arms else ARMS
    with _stopping() as stop:
        _tell_report(*compare(config, arms_named(config, names), seeds, workers, stop=stop))


def _sensitivity(config: RMTConfig, fields: str, seeds: int, workers: int, report_only: bool) -> None:
    """Change one setting at a time around the preset's value, over several seeds; its command given again goes on."""
    from rmt_mini.report.claims import SYMBOLS
    from rmt_mini.runs.compare import compare, report
    from rmt_mini.runs.sweep import variants

    config = config.replace(out=config.out or f"runs/sensitivity-{config.preset}")
    if report_only:
        _tell_report(Path(config.out), report(Path(config.out)))
        return
    names = [name.strip() for name in fields.split(",")] if fields else SYMBOLS
    with _stopping() as stop:
        _tell_report(*compare(config, variants(config, names), seeds, workers, stop=stop))


def _preflight(config: RMTConfig) -> None:
    """Say, before any RL, whether groups carry a signal."""
    from rmt_mini.runs.remedies import explained
    from rmt_mini.runs.run import prepare
    from rmt_mini.stages.preflight import preflight

    with explained(config):
        material = prepare(config)
    with explained(config, material.policy):
        found = preflight(material.policy, material.train, config)

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.0%}"

    click.echo(f"{'tier':<8} {'positions':>9} {'accuracy':>9} {'pass@' + str(config.group_size):>9} {'signal':>9}")
    for tier, row in found["tiers"].items():
        cells = [share(row[key]) for key in ("accuracy", "pass_at_g", "signal_groups")]
        click.echo(f"{tier:<8} {row['positions']:>9} " + " ".join(f"{cell:>9}" for cell in cells))
    click.echo(
        f"\nGroups with a signal {share(found['signal_groups'])}; thoughts that close themselves "
        f"{share(found['closed_share'])}; length {found['thought_length']:.1f} tokens, spread within a group "
        f"{found['length_spread']:.1f}, budget {found['budget']}."
    )
    for advice in found["advice"] or ["Nothing stands in the way of RL."]:
        click.echo(f"- {advice}")


def _plan(config: RMTConfig, interval: float | None, gpus: int, **elsewhere: Any) -> None:
    """Estimate time and memory before a run, here or on --gpus, and how fine a difference its evaluation tells."""
    from rmt_mini.runs.plan import interval_lines, plan_run

    given = {name: value for name, value in elsewhere.items() if value is not None}
    if gpus:
        from rmt_mini.scale.forecast import forecast

        lines = forecast(config, gpus, **given)
    elif given:
        raise UserError(f"--{next(iter(given))} describes GPUs elsewhere; give --gpus as well")
    else:
        from rmt_mini.engine.model import load_policy
        from rmt_mini.runs.remedies import explained

        with explained(config):
            lines = plan_run(config, load_policy(config.model, config.device, config.dtype)).lines()
    click.echo("\n".join([*lines, *interval_lines(config.evaluation_positions, interval)]))


def _launch(
    config: RMTConfig,
    run: bool,
    main_address: str,
    machine_rank: int | None,
    setup: str,
    gpus: int,
    machines: int,
    **scale: Any,
) -> None:
    """Print, or with --run start, the accelerate command that trains by the same method on TRL, on many GPUs."""
    from rmt_mini.engine.model import locate_model
    from rmt_mini.scale.launch import commands, scale_settings, setup_for, start

    where = setup_for(config.preset, setup, gpus, machines)
    spread = scale_settings(config.preset, where, {name: value for name, value in scale.items() if value is not None})
    made = commands(config.replace(model=locate_model(config.model)), where, spread, main_address)
    if run:
        sys.exit(start(made, spread, machine_rank or 0))
    if machine_rank is not None:
        raise UserError("--machine-rank is of use with --run only; without it the commands of all machines are printed")
    click.echo("\n".join(made.lines()))


def _launch_options() -> list[click.Option]:
    """Return the options about processes."""
    none, least = click.IntRange(min=0), click.IntRange(min=1)
    return [
        click.Option(["--run/--print"], default=False, help="start it here, or print what to type  [print]"),
        click.Option(["--setup"], default="", help="cpu, one-gpu, one-node or nodes  [by the preset]"),
        click.Option(["--gpus"], type=none, default=0, help="processes on a machine  [by the setup]"),
        click.Option(["--machines"], type=none, default=0, help="that train  [by the setup]"),
        click.Option(["--machine-rank"], type=none, default=None, help="which of them this one is  [0]"),
        click.Option(["--main-address"], default="", help="address of machine 0, where there are several"),
        click.Option(["--server"], default=None, help="host:port of the vLLM server"),
        click.Option(["--engine"], default=None, help="transformers, vllm-colocate or vllm-server  [by the setup]"),
        click.Option(["--micro-batch"], type=least, default=None, help="rollouts in one pass of a process"),
        click.Option(
            ["--lora-rank"], type=none, default=None, help="train adapters of this rank alone  [0: all weights]"
        ),
        click.Option(["--gpu-memory"], type=float, default=None, help="share of a GPU that a colocated vLLM takes"),
        click.Option(["--tensor-parallel"], type=least, default=None, help="GPUs that share one colocated vLLM  [1]"),
    ]


@click.command("evaluate")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--budget", type=click.IntRange(min=1), default=None, help="stated budget, tokens  [B_T of the run]")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="also write the result here, as JSON")
def _evaluate(checkpoint: Path, budget: int | None, out: Path | None) -> None:
    """Measure a CHECKPOINT, or a run folder, on its run's held-out positions."""
    from rmt_mini.files import Evaluation, require_file_name, write_keeping
    from rmt_mini.report.report import evaluation_table
    from rmt_mini.runs.run import evaluate_checkpoint

    if out is not None:
        require_file_name(out)  # before minutes of work
    found = evaluate_checkpoint(checkpoint, budget)
    click.echo(evaluation_table(Evaluation(after=found)))
    if out is not None:
        write_keeping(out, found.model_dump_json(indent=1, exclude_unset=True) + "\n")


@click.command("seeds")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for evaluation.json and report.md")
def _seeds(runs: Sequence[Path], out: Path) -> None:
    """Read RUNS that differ in their seed alone as one result, with intervals over seeds and documents."""
    from rmt_mini.report.report import write_seeds_report

    click.echo(write_seeds_report(runs, out))
    click.echo(f"\nReport       {out / 'report.md'}")


@click.command("bench")
@click.option("--model", default="smollm2-135m", help="as for run  [smollm2-135m]")
@click.option("--corpus", default="champ", help="as for run  [champ]")
@click.option("--dtype", default="auto", help="auto, float32 or bfloat16  [auto]")
@click.option("--steps", type=click.IntRange(min=1), default=5, help="timed steps of each contender  [5]")
@click.option("--documents", type=click.IntRange(min=1), default=2, help="of a step  [2]")
@click.option("--positions", type=click.IntRange(min=1), default=4, help="K, of a document  [4]")
@click.option("--group-size", type=click.IntRange(min=2), default=8, help="G, rollouts a position  [8]")
@click.option("--prefix", type=click.IntRange(min=16), default=125, help="tokens before a position, on average  [125]")
@click.option("--thought-tokens", type=click.IntRange(min=1), default=24, help="of every rollout  [24]")
@click.option("--trl/--no-trl", default=True, help="measure TRL's GRPOTrainer, most of the time  [yes]")
@click.option("--sweeps/--no-sweeps", default=True, help="show how cost grows with each size  [yes]")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="folder  [runs/bench]")
def _bench(trl: bool, sweeps: bool, out: Path | None, **sizes: Any) -> None:
    """Time a step against TRL, generate, a padded update and the machine's limits, side by side."""
    from rmt_mini.bench.bench import SWEEPS, bench
    from rmt_mini.bench.parts import Setting

    setting = Setting(**sizes)
    folder, told = bench(setting, out, trl, SWEEPS if sweeps else {})
    click.echo(told)
    click.echo(f"\nReport       {folder / 'report.md'}")


@click.command("release")
@click.option("--students", type=click.Path(path_type=Path), default=None, help="folder  [notebooks/exercises]")
@click.option("--nbgrader", type=click.Path(path_type=Path), default=None, help="also make an nbgrader course here")
def _release(students: Path | None, nbgrader: Path | None) -> None:
    """Make students' copies of the solved exercises, and an nbgrader course if asked for."""
    from rmt_mini.teaching.release import STUDENTS, release

    written = release(students or STUDENTS, nbgrader)
    click.echo("\n".join(map(str, written)) or "Nothing to write: all copies are up to date.")


@click.command("grade")
@click.argument("notebooks", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--json", "out", type=click.Path(path_type=Path), default=None, help="also write the marks here")
def _grade(notebooks: Sequence[Path], out: Path | None) -> None:
    """Run exercise NOTEBOOKS and mark each exercise; their code runs with your rights."""
    from rmt_mini.files import write_keeping, write_whole
    from rmt_mini.teaching.grading import Report, grade_all

    reports: list[Report] = []
    if out is not None:
        write_keeping(out, "[]\n")  # complains now and not after a class
    for report in grade_all(notebooks):
        reports.append(report)
        click.echo(report.text())
        if out is not None:
            write_whole(out, json.dumps([report.as_json() for report in reports], indent=1) + "\n")
    without = [report.notebook for report in reports if report.reason]
    if without:
        raise UserError(
            f"{len(without)} of {len(reports)} notebooks could not be graded, {without[0]!r} first; see their reports"
        )


def _pretrain_command() -> click.Command:
    """Make ``pretrain``; the only world there is to pre-train on is micro."""

    def callback(world: str, **given: Any) -> None:
        from rmt_mini.runs.pre_and_post import pretrain_run

        path = pretrain_run(PretrainConfig(**{name: value for name, value in given.items() if value is not None}))
        click.echo(f"Checkpoint   {path / 'checkpoint'}")

    argument = click.Argument(["world"], type=click.Choice(["micro"]), default="micro")
    text = "Train the micro-world's model from scratch, on 2 cores in about 4 minutes."
    return click.Command("pretrain", callback=callback, params=[argument, *_config_options(PretrainConfig)], help=text)


def _question_options() -> list[click.Parameter]:
    """Return the options about questions."""
    most = click.IntRange(min=2)
    return [
        click.Option(["--questions"], default=None, help="micro, micro-text, gym:TASK or champ  [by the model]"),
        click.Option(["--count"], type=most, default=400, help="questions, held-out ones included  [400]"),
        click.Option(["--k"], type=click.IntRange(min=1), default=8, help="answers to each held-out question  [8]"),
    ]


def _exams_command() -> click.Command:
    """Make ``exams``, which takes every config field as a flag too."""

    def callback(
        folder: Path, arms: str, questions: str | None, count: int, k: int, every: int, workers: int, **given: Any
    ) -> None:
        from rmt_mini.runs.exams import exams

        names = [name.strip() for name in arms.split(",")] if arms else []
        changes = {name: value for name, value in given.items() if value is not None}
        with _stopping() as stop:
            _tell_report(folder, exams(folder, names, questions, count, k, every, changes, workers, stop=stop))

    own: list[click.Parameter] = [
        click.Argument(["folder"], type=click.Path(path_type=Path)),
        click.Option(
            ["--arms"], default="", help="names with commas between; base and rmt are always there  [ntp,rpt]"
        ),
        *_question_options(),
        click.Option(
            ["--every"],
            type=click.IntRange(min=0),
            default=20,
            help="steps between measurements; 0: the ends only  [20]",
        ),
        _WORKERS,
    ]
    fields = _config_options(without=("out", "seed", *NOT_IN_POSTTRAINING))  # the comparison's
    text = "Post-train, by GRPO on questions, what the comparison in FOLDER trained, and the untrained model."
    return click.Command("exams", callback=callback, params=[*own, *fields], help=text)


def _posttrain_command() -> click.Command:
    """Make ``posttrain``, which takes every config field as a flag too."""

    def callback(checkpoint: str, questions: str | None, count: int, k: int, **given: Any) -> None:
        from rmt_mini.runs.pre_and_post import posttrain_run

        changes = {name: value for name, value in given.items() if value is not None}
        result = posttrain_run(checkpoint, questions, count, k, changes)
        click.echo(result.table)
        click.echo(f"\nReport       {result.folder / 'report.md'}\nCheckpoint   {result.folder / 'checkpoint'}")

    own: list[click.Parameter] = [
        click.Argument(["checkpoint"]),
        *_question_options(),
    ]
    fields = _config_options(without=NOT_IN_POSTTRAINING)
    text = "Post-train CHECKPOINT, a run folder or a model, by GRPO on questions; measure pass@k before and after."
    return click.Command("posttrain", callback=callback, params=[*own, *fields], help=text)


def _group() -> click.Group:
    group = click.Group("rmt-mini", help="Reinforcement Mid-Training (arXiv 2509.24375), small and complete.")
    group = click.version_option(package_name="rmt-mini", message="%(prog)s %(version)s")(group)
    group.add_command(_pretrain_command())
    group.add_command(_command("run", _run))
    group.add_command(_resume)
    group.add_command(_posttrain_command())
    arms = click.Option(["--arms"], default="", help="names with commas between; rmt is always there  [all]")
    group.add_command(_command("compare", _compare, arms, _SEEDS, _WORKERS, _REPORT_ONLY))
    fields = click.Option(["--fields"], default="", help="settings to vary, with commas between  [all that can be]")
    group.add_command(_command("sensitivity", _sensitivity, fields, _SEEDS, _WORKERS, _REPORT_ONLY))
    group.add_command(_exams_command())
    group.add_command(_command("preflight", _preflight))
    share = click.FloatRange(min=0, max=1, min_open=True)
    interval = click.Option(["--interval"], type=share, help="half an interval wished for: 0.03 is 3 points")
    elsewhere = [
        click.Option(["--gpus"], type=click.IntRange(min=0), default=0, help="simulate so many GPUs a machine  [none]"),
        click.Option(["--machines"], type=click.IntRange(min=1), default=None, help="of them  [1]"),
        click.Option(["--gpu"], default=None, help="a100, h100 or h200  [h100]"),
        click.Option(["--way"], default=None, help="tree, trl or trl-vllm  [as launch would]"),
    ]
    group.add_command(_command("plan", _plan, interval, *elsewhere))
    group.add_command(_command("launch", _launch, *_launch_options()))
    group.add_command(_evaluate)
    group.add_command(_seeds)
    group.add_command(_bench)
    group.add_command(_release)
    group.add_command(_grade)
    return group


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad input, 130 interrupted."""
    with _streams():
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        for noisy in ("httpx", "transformers", "fontTools", "matplotlib"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        try:
            _group().main(
                args=None if arguments is None else list(arguments), prog_name="rmt-mini", standalone_mode=False
            )
        except Stopped as stopped:
            click.echo(str(stopped)[:1].upper() + str(stopped)[1:], err=True)
            sys.exit(130)
        except (KeyboardInterrupt, click.Abort):
            click.echo("Interrupted.", err=True)
            sys.exit(130)
        except Exception as error:
            message = _one_line(error)
            if message is None:
                raise
            click.echo(f"error: {message}", err=True)
            sys.exit(2)


def _one_line(error: Exception) -> str | None:
    """Say what a user can set right; None where it is a fault of the program, whose traceback is wanted."""
    if isinstance(error, click.ClickException):
        message = error.format_message()
    elif isinstance(error, UserError):
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


if __name__ == "__main__":
    main()
