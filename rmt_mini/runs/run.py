"""One whole run: what ``make run``, a notebook and a test all call.

The stages in order (``_Run.stages``), and what each leaves in the run folder:

    load corpus and policy                      run.json
    choose held-out positions                   positions.json
    evaluate before                             answers.jsonl, samples.json
    cold start, evaluate again                  state/step-000000, answers.jsonl
    pre-flight                                  preflight.json
    RMT                                         metrics.jsonl, rollouts.jsonl, state/ every minute or so
    evaluate after                              checkpoint/, answers.jsonl, samples.json, evaluation.json
    report                                      report.md, figures/

A run that was stopped, or killed at any moment, is continued by ``resume``: stages that left a result are not repeated,
and what follows is byte for byte what an unbroken run would have done. (Only measured seconds and memory differ; and on
a GPU last digits may, since its sums have no order.)
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rmt_mini import files
from rmt_mini.config import MAY_CHANGE, RMTConfig
from rmt_mini.engine.model import Policy, absolute_name, load_policy
from rmt_mini.engine.text import format_for, proxy_of, to_texts, unknown_share
from rmt_mini.errors import Stopped, UserError, logger
from rmt_mini.files import Evaluation, Measured, Notes, Positions, Preflight, Samples
from rmt_mini.method.schedule import budget_of
from rmt_mini.records import Answer, Overlap, Position, State, StepMetrics, Text
from rmt_mini.report.report import write_report
from rmt_mini.runs import journal, tracking
from rmt_mini.runs.capacity import explained, warn_of_little_memory
from rmt_mini.runs.folder import RunFolder, drop_states, folder_for, load_state, save_state
from rmt_mini.stages import evaluate
from rmt_mini.stages.coldstart import cold_start
from rmt_mini.stages.midtrain import RMTTrainer, StepResult
from rmt_mini.stages.optimizer import require_sound
from rmt_mini.stages.preflight import groups_seen, preflight, signal_by_tier
from rmt_mini.stages.statistics import summarize, summarize_all
from rmt_mini.worlds.corpus import absolute, corpus_for
from rmt_mini.worlds.micro import TEXTS
from rmt_mini.worlds.overlap import overlap

SAMPLES = 12
CHECKED_STEPS = 10  # first steps that the pre-flight's prediction is compared with
SPARE_BYTES = 50_000_000
ANEW = "; without its folder state/ the run trains again from the start"

OnStep = Callable[[StepResult], None]


@dataclass(frozen=True)
class RunResult:
    """What a run leaves: its folder, what it measured, a record a step, the final table as text, the trained policy."""

    folder: Path
    evaluation: Evaluation
    metrics: list[StepMetrics]
    table: str
    policy: Policy = field(repr=False)


@dataclass(frozen=True)
class Inputs:
    """A run's policy and its texts, split into training and held-out."""

    policy: Policy
    train: list[Text]
    held_out: list[Text]
    corpus_digest: str
    token_digest: str
    overlap: Overlap

    def digests(self) -> dict[str, str]:
        """Return digests of text, tokens and weights; all must be the same where a run is resumed."""
        models = [one for one in (self.policy, self.policy.proxy) if one is not None]
        values = [self.corpus_digest, self.token_digest, *map(journal.model_digest, models)]
        return dict(zip(files.DIGESTS, values, strict=False))


def prepare(config: RMTConfig, policy: Policy | None = None) -> Inputs:
    """Load the corpus, and the policy unless it is given; split by document, tokenize."""
    corpus = corpus_for(config)  # first, since it fails fast
    train, held_out = corpus.split(config.evaluation_fraction)
    policy = policy or load_policy(config.model, config.device, config.dtype)
    form = format_for(policy, config)
    training = to_texts(train, form, config, "training")
    asked = to_texts(held_out, form, config, "held-out")[: config.evaluation_documents]
    texts = [*training, *asked]
    proxy_of(policy, config, max(len(text.ids) for text in texts))  # fails before there is a folder
    token_digest = journal.token_digest(form, texts, config.budget_start)
    shared = overlap(train, held_out, calculations=config.corpus in TEXTS)
    return Inputs(policy, training, asked, corpus.digest, token_digest, shared)


def anywhere(config: RMTConfig) -> RMTConfig:
    """Return settings whose files are named by whole paths, so that a run is resumed and measured from any folder."""
    names = {"corpus": absolute(config.corpus), "model": absolute_name(config.model)}
    if config.entropy_model != "self":
        names["entropy_model"] = absolute_name(config.entropy_model)
    return config.replace(**names)


def run(
    config: RMTConfig,
    policy: Policy | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
    stop: threading.Event | None = None,
) -> RunResult:
    """Run the whole of RMT once: cold start, mid-training, evaluation before and after, report.

    An empty ``config.out`` chooses a free folder under runs/. A policy already in memory is changed in place. Once
    ``stop`` is set, the run ends after the current step, saves its state and raises Stopped, as where it was
    interrupted; ``resume`` continues it.
    """
    config = anywhere(config)
    path = folder_for(config.out, f"{config.preset}-seed{config.seed}")
    tracking.require(config.report_to)
    files.require_free(path)  # before anything slow; the folder is made only when all else is ready
    began = time.perf_counter()
    inputs = prepare(config, policy)
    policy = inputs.policy
    unknown = unknown_share(policy.tokenizer, [*inputs.train, *inputs.held_out])
    if inputs.overlap.shared:
        logger.warning("%s Their accuracy may be memory", inputs.overlap.sentence)
    notes = journal.first_notes(
        "mid-training",
        config,
        parameters=policy.parameters,
        **inputs.digests(),
        overlap=inputs.overlap,
        unknown_share=round(unknown, 4) if unknown else None,
    )
    warn_of_little_memory(config, policy)
    # at most two checkpoints and two states, old and new, for a moment
    needed = policy.parameters * 2 * (policy.dtype.itemsize + 12) + SPARE_BYTES
    notes.seconds["loading"] = round(time.perf_counter() - began, 2)
    with RunFolder(path, notes, needed) as folder:
        return _Run(config, folder, inputs, None, progress, stop or threading.Event()).to_the_end(on_step)


def resume(
    path: Path,
    policy: Policy | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
    stop: threading.Event | None = None,
    changes: Mapping[str, Any] | None = None,
) -> RunResult:
    """Continue the run in a folder, which was stopped or killed; return what a finished one left.

    ``changes`` are new values of settings that MAY_CHANGE names; ``policy`` is needed only where the run's model was
    never on disk; the rest is as for ``run``. A UserError says that the folder is not a run's, or that code, settings,
    model or text are not those it started with.
    """
    notes = Notes.read(path)
    if notes.kind != "mid-training":
        raise UserError(f"{str(path)!r} is a {notes.kind} run, which cannot be taken up again; start a new one")
    for name in changes or {}:
        if name not in MAY_CHANGE:
            raise UserError(f"{name} cannot change in a run under way, only {', '.join(MAY_CHANGE)} can")
    config = notes.settings.replace(**changes or {})
    tracking.require(config.report_to)
    with RunFolder(path, notes, resume=True) as folder:
        if notes.status == "done":
            return _result_of(path, config)
        Preflight.find(path)  # needed much later: complain now
        Samples.find(path)
        versions, threads = journal.versions(), {"threads": journal.machine()["threads"]}
        _require_same("version of ", path, {"rmt-mini": notes.versions.get("rmt-mini")}, versions)
        old, new = notes.versions | {"threads": notes.machine.get("threads")}, versions | threads
        changed = [f"{name} {value} to {new.get(name)}" for name, value in old.items() if new.get(name) != value]
        if changed:
            logger.warning("Changed since the run started: %s; last digits may differ", ", ".join(changed))
        state = load_state(path)
        if state is not None:
            before = {name: value for name, value in state.plain["config"].items() if name not in MAY_CHANGE}
            _require_same("setting ", path, before, json.loads(notes.settings.model_dump_json()))
        inputs = prepare(config, policy)
        digests = inputs.digests()
        _require_same("", path, {name: getattr(notes, name) for name in digests}, digests)
        warn_of_little_memory(config, inputs.policy)
        notes.config, notes.end, notes.error = config, None, None
        notes.resumed = [*notes.resumed, journal.now()]
        early = [(tier, signal) for tier, signal in state.plain["early"]] if state else []
        return _Run(config, folder, inputs, state, progress, stop or threading.Event(), early).to_the_end(on_step)


def _require_same(what: str, path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted(before):
        if before[name] != now.get(name):
            raise UserError(
                f"the run in {str(path)!r} cannot continue: {what}{name} was {before[name]!r} when it was saved and is "
                f"{now.get(name)!r} now; restore it, or start a new run"
            )


def _result_of(path: Path, config: RMTConfig) -> RunResult:
    """Return what a finished run left; its report is written again, since it is what a run does last."""
    logger.info("The run in %s is done; nothing is left to do", path)
    policy = load_policy(str(path / "checkpoint"), config.device, config.dtype)
    with explained(config, policy, path):
        table = write_report(path)
    drop_states(path)
    return RunResult(path, Evaluation.read(path), files.read_metrics(path), table, policy)


def read_positions(folder: Path, texts: Sequence[Text]) -> list[Position]:
    """Read the held-out positions of a run; a UserError if the texts are not those they were chosen in."""
    found = Positions.read(folder).positions
    places = [(one.trunk, one.index) for one in found]
    known = all(0 <= trunk < len(texts) and index in texts[trunk].places for trunk, index in places)
    if not places or places != sorted(set(places)) or not known:
        raise files.damaged(folder / Positions.NAME, "it does not list positions of the held-out text in order")
    return found


def evaluate_checkpoint(path: Path, budget: int | None = None) -> Measured:
    """Measure the checkpoint of a run in DIR or DIR/checkpoint on its positions, under ``budget`` or as the run was.

    A UserError says that its corpus or tokenizer has changed since, or that the model cannot read that far.
    """
    folder = path.parent if path.name == "checkpoint" else path
    notes = Notes.read(folder)
    if notes.kind != "mid-training":
        raise UserError(f"{str(folder)!r} is a {notes.kind} run; give one of mid-training")
    # its positions are known, so the model that measured entropies is not needed
    config = notes.settings.replace(entropy_model="self")
    policy = load_policy(str(folder / "checkpoint"), config.device, config.dtype)
    inputs = prepare(config, policy)
    what = {"corpus_digest": f"corpus {config.corpus!r}", "token_digest": f"the tokenizer of {policy.name!r}"}
    for name, changed in what.items():
        if getattr(inputs, name) != getattr(notes, name):
            raise UserError(f"{changed} has changed since the run in {str(folder)!r}, so its positions do not fit")
    positions = read_positions(folder, inputs.held_out)
    stated = budget or config.evaluation_budget or budget_of(config, config.steps)
    answers = evaluate.measure_all(policy, inputs.train, inputs.held_out, positions, config, stated)
    if notes.settings.entropy_model != "self":  # which chose the training positions of the gate's threshold
        answers = [replace(one, gated=None) for one in answers]
    return Measured.model_validate(summarize(answers, stated))


def step_bar(title: str, total: int, progress: bool) -> "tqdm[Any]":
    """Make a progress bar that counts steps."""
    return tqdm(total=total, desc=title, disable=not (progress and sys.stderr), dynamic_ncols=True, unit="step")


@dataclass
class _Run:
    """The stages of one run, from its start or from where it stopped."""

    config: RMTConfig
    folder: RunFolder
    inputs: Inputs
    saved: State | None
    progress: bool
    stop: threading.Event
    early: list[tuple[int, bool]] = field(default_factory=list)  # tier and signal of the groups of the first steps

    def __post_init__(self) -> None:
        self.policy, self.path = self.inputs.policy, self.folder.path

    def to_the_end(self, on_step: OnStep | None) -> RunResult:
        try:
            with explained(self.config, self.policy, self.path), self.folder.recorded():
                return self.stages(on_step)
        except KeyboardInterrupt as error:
            raise Stopped(str(self.path)) from error

    def stages(self, on_step: OnStep | None) -> RunResult:
        config, policy = self.config, self.policy
        steps = self.saved.plain["step"] if self.saved else 0
        self.folder.track(steps, self.past(steps))
        first, last = (config.evaluation_budget or budget_of(config, step) for step in (0, config.steps))
        positions = self.positions()
        measured = {"before": self.measure("before", positions, first)}

        if config.warmup_steps and self.saved is None:
            self.cold_start()
        trainer = RMTTrainer(config, policy, self.inputs.train)
        if self.saved is not None:
            trainer.load_state(self.saved)
            self.saved = None  # it is large
        elif config.warmup_steps:
            self.save(trainer)
        if config.warmup_steps:
            measured["cold_start"] = self.measure("cold_start", positions, first, gone=trainer.next_step > 0)

        predicted = self.preflight() if config.use_rl else None
        metrics = self.midtrain(trainer, on_step, [*measured.values()][-1][1])
        if predicted is not None and self.early:  # add what the first steps saw to what was predicted
            seen = files.Seen(steps=min(CHECKED_STEPS, config.steps), tiers=signal_by_tier(self.early))
            predicted.model_copy(update={"seen": seen}).write(self.path)

        self.folder.save_checkpoint(policy)
        measured["after"] = self.measure("after", positions, last)
        evaluation = Evaluation.model_validate(summarize_all(measured))
        evaluation.write(self.path)
        self.folder.note(status="done", end=journal.now())  # before the report, which shows it
        table = write_report(self.path)
        drop_states(self.path)
        return RunResult(self.path, evaluation, metrics, table, policy)

    def check_stop(self) -> None:
        """End here if that was asked for."""
        if self.stop.is_set():
            raise Stopped(str(self.path))

    def positions(self) -> list[Position]:
        if not (self.path / Positions.NAME).exists():
            by, train = evaluate.yardstick(self.config), self.inputs.train
            chosen = evaluate.plan_positions(self.policy, self.inputs.held_out, by, train=train)
            Positions(positions=chosen).write(self.path)
        return read_positions(self.path, self.inputs.held_out)

    def measure(
        self, when: files.Time, positions: Sequence[Position], budget: int, gone: bool = False
    ) -> tuple[int, list[Answer]]:
        """Answer the held-out positions, once: answers that a run left are read again.

        Damaged answers are sampled anew, unless the policy that gave them is ``gone``.
        """
        held_out, known = self.inputs.held_out, files.read_lines(self.path / "answers.jsonl", files.AnswerLine).good
        here, others = ([line for line in known if (line.when == when) == is_here] for is_here in (True, False))
        if [line.position for line in here] == [position.index for position in positions]:
            return budget, [line.answer(position) for line, position in zip(here, positions, strict=True)]
        if gone:
            raise files.damaged(self.path / "answers.jsonl", f"answers from before the first step are missing{ANEW}")
        logger.info("Evaluating %d held-out positions: %s", len(positions), when.replace("_", " "))
        with self.folder.timed("evaluation"):
            answers = evaluate.measure_all(self.policy, self.inputs.train, held_out, positions, self.config, budget)
        if when != "cold_start":
            self.show(when, answers)
        lines = [*others, *(journal.answer_line(when, held_out, one) for one in answers)]
        lines.sort(key=lambda line: files.TIMES.index(line.when))  # as they were first asked
        self.folder.write_lines("answers.jsonl", lines)
        self.check_stop()
        return budget, answers

    def curve_point(self, step: int, known: Sequence[Answer] = ()) -> None:
        """Measure a few held-out positions after ``step`` steps, or take them from answers that are ``known``."""
        config = self.config.replace(evaluation_thoughts=1)
        few = evaluate.some_of(self.positions(), config.checked_positions)
        if not few:
            return
        budget = config.evaluation_budget or budget_of(config, step)
        answers = [one for one in known if one.position in few]
        answers = answers or evaluate.answer_positions(self.policy, self.inputs.held_out, few, config, budget)
        self.folder.append("curve.jsonl", [evaluate.curve_point(step, answers)])

    def show(self, when: str, answers: Sequence[Answer]) -> None:
        """Write the same few answers of every tier as text, at both ends."""
        per_tier = [[answer for answer in answers if answer.position.tier == tier] for tier in range(3)]
        chosen = [answer for tier in per_tier for answer in evaluate.evenly(tier, SAMPLES // 3)]
        texts, step = self.inputs.held_out, 0 if when == "before" else self.config.steps
        thoughts = [one.rollout for one in chosen if one.rollout is not None]
        right = evaluate.matches(format_for(self.policy, self.config), texts, thoughts)  # of the one shown, no mean
        judged = [replace(one, match=match) for one, match in zip(chosen, right, strict=True)]
        shown = [journal.rollout_line(self.policy, step, texts, one) for one in judged]
        (Samples.find(self.path) or Samples()).model_copy(update={when: shown}).write(self.path)

    def cold_start(self) -> None:
        config, policy = self.config, self.policy
        with self.folder.timed("cold_start"), step_bar("Cold start", config.warmup_steps, self.progress) as bar:

            def after_step(_: int, losses: dict[str, float]) -> None:
                bar.set_postfix_str(f"answer loss {losses['answer_loss']:.2f}, closing loss {losses['close_loss']:.2f}")
                bar.update()
                self.check_stop()

            cold_start(policy, format_for(policy, config), self.inputs.train, config, after_step)

    def preflight(self) -> Preflight:
        found = Preflight.find(self.path)
        if found is None:
            with self.folder.timed("preflight"):
                found = preflight(self.policy, self.inputs.train, self.config)
            found.write(self.path)
            for advice in found.advice:
                logger.warning("Pre-flight: %s", advice)
            self.check_stop()
        return found

    def save(self, trainer: RMTTrainer) -> None:
        """Save everything that the rest of the run depends on."""
        require_sound(self.policy)
        state = trainer.state()
        plain = dict(state.plain) | {"early": self.early, "config": self.config.to_dict()}
        with self.folder.timed("saving"):
            save_state(self.path, State(state.tensors, plain))

    def past(self, steps: int) -> list[StepMetrics | files.CurvePoint]:
        """Return what is recorded of the first ``steps`` steps, in their order."""
        curve = files.read_lines(self.path / "curve.jsonl", files.CurvePoint).good
        points = [point for point in curve if 0 < steps >= point.step]
        done = [line for line in files.read_metrics(self.path) if line.step < steps]
        return sorted([*done, *points], key=attrgetter("step"))

    def cut_back(self, steps: int) -> list[StepMetrics]:
        """Remove the lines of steps that no saved state knows; returns the metrics of the ``steps`` that are done."""
        past = self.past(steps)
        metrics = [line for line in past if isinstance(line, StepMetrics)]
        rollouts = files.read_lines(self.path / "rollouts.jsonl", files.RolloutLine).good
        if [line.step for line in metrics] != list(range(steps)):
            raise files.damaged(self.path / "metrics.jsonl", f"some of the {steps} steps done are missing{ANEW}")
        self.folder.write_lines("metrics.jsonl", metrics)
        self.folder.write_lines("rollouts.jsonl", [line for line in rollouts if line.step < steps])
        self.folder.write_lines("curve.jsonl", [line for line in past if isinstance(line, files.CurvePoint)])
        return metrics

    def midtrain(self, trainer: RMTTrainer, on_step: OnStep | None, before: Sequence[Answer]) -> list[StepMetrics]:
        config, saved = self.config, time.monotonic()
        done = self.cut_back(trainer.next_step)
        with self.folder.timed("midtrain"), step_bar("RMT", config.steps, self.progress) as bar:
            bar.update(trainer.next_step)
            if not done and config.curve_every:
                self.curve_point(0, before)

            def after_step(result: StepResult) -> None:
                nonlocal saved
                metrics = result.metrics
                self.folder.step(self.policy, result, config.rollouts_logged)
                bar.set_postfix_str(
                    f"reward {metrics.reward:.2f}, length {metrics.thought_length:.1f} of {metrics.budget}"
                )
                bar.update()
                if metrics.step < CHECKED_STEPS and config.difficulty == "entropy":  # else its tiers are other ones
                    self.early += groups_seen(result.judged, config.group_size)
                if config.curve_every and (metrics.step + 1) % config.curve_every == 0:
                    self.curve_point(metrics.step + 1)
                if config.save_every and (metrics.step + 1) % config.save_every == 0:
                    self.folder.save_checkpoint(self.policy)
                if self.stop.is_set() or time.monotonic() - saved >= config.state_seconds:
                    self.save(trainer)
                    saved = time.monotonic()
                if on_step is not None:
                    on_step(result)
                self.check_stop()

            return [*done, *trainer.fit(after_step)]
