"""One whole run: what ``make run``, a notebook and a test all call.

text -> policy -> evaluation before -> cold start -> pre-flight -> RMT -> evaluation after -> checkpoint, report

Each stage leaves its result in the run folder, and RMT its state every minute or so. A run that was stopped, or killed
at any moment, is taken up again by ``resume``: stages that left a result are not repeated, and what follows is byte by
byte what an unbroken run would have done. (Only measured seconds and memory differ, as they do between any two runs.)
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy, absolute_name, load_policy
from rmt_mini.engine.prompt import Turn
from rmt_mini.engine.text import Text, to_texts, unknown_share
from rmt_mini.errors import Stopped, UserError
from rmt_mini.files import require_free
from rmt_mini.method.schedule import budget_of
from rmt_mini.records import Answer, Position, StepMetrics
from rmt_mini.report.report import write_report
from rmt_mini.runs.folder import RunFolder, as_dict, folder_for
from rmt_mini.runs.journal import (
    DIGESTS,
    Journal,
    answer_line,
    evenly,
    machine,
    metrics_of,
    model_digest,
    now_done,
    read_answer,
    rollout_line,
    token_digest,
    versions,
)
from rmt_mini.runs.remedies import explained, warn_of_little_memory
from rmt_mini.stages import reading
from rmt_mini.stages.coldstart import cold_start
from rmt_mini.stages.evaluate import answer_positions, evaluate, plan_positions, yardstick
from rmt_mini.stages.material import format_for, proxy_of
from rmt_mini.stages.midtrain import RMTTrainer, StepResult
from rmt_mini.stages.optimizer import require_sound
from rmt_mini.stages.preflight import groups_seen, preflight, signal_by_tier
from rmt_mini.stages.state import State, drop_states, load_state, save_state
from rmt_mini.stages.statistics import summarize_all
from rmt_mini.worlds.corpus import absolute, load_corpus

logger = logging.getLogger(__name__)

SAMPLES = 12
CHECKED_STEPS = 10  # first steps that the pre-flight's prediction is held against
SPARE_BYTES = 50_000_000
MAY_CHANGE = ("branch_tokens", "on_nan")  # without making another run of it; last digits may differ


@dataclass(frozen=True)
class RunResult:
    """What a run leaves behind.

    Attributes:
        folder: the run folder.
        evaluation: the content of evaluation.json.
        metrics: one record a step.
        table: the final table as text.
        policy: the trained policy.
    """

    folder: Path
    evaluation: dict[str, Any]
    metrics: list[StepMetrics]
    table: str
    policy: Policy = field(repr=False)


@dataclass(frozen=True)
class Material:
    """A run's policy and its texts, split into training and held-out."""

    policy: Policy
    train: list[Text]
    held_out: list[Text]
    corpus_digest: str
    token_digest: str

    def digests(self) -> dict[str, str]:
        """Say what text, tokens and weights these are; all must be the same where a run is taken up again."""
        found = {
            "corpus_digest": self.corpus_digest,
            "token_digest": self.token_digest,
            "model_digest": model_digest(self.policy),
        }
        return found if self.policy.proxy is None else found | {"proxy_digest": model_digest(self.policy.proxy)}


def prepare(config: RMTConfig, policy: Policy | None = None, turn: Turn | None = None) -> Material:
    """Load the corpus and the policy, split by document, tokenize.

    Args:
        config: all settings.
        policy: a model already in memory; loaded by ``config.model`` where None.
        turn: what a chat template writes around a text, where an earlier run settled it: a template may state today's
            date, and would give other tokens on another day.

    Raises:
        UserError: if either cannot be had.
    """
    corpus = load_corpus(config.corpus, column=config.column)  # first, since it fails fast
    train, held_out = corpus.split(config.evaluation_fraction)
    policy = policy or load_policy(config.model, config.device, config.dtype)
    policy.turn = turn
    form = format_for(policy, config)
    training = to_texts(train, form, config, "training")
    asked = to_texts(held_out, form, config, "held-out")[: config.evaluation_documents]
    texts = [*training, *asked]
    proxy_of(policy, config, max(len(text.ids) for text in texts))  # complains before there is a folder
    tokens = token_digest(form, texts, config.budget_start)
    return Material(policy, training, asked, corpus.digest, tokens)


def anywhere(config: RMTConfig) -> RMTConfig:
    """Return settings whose files are named by whole paths, so that a run is resumed and measured from any folder."""
    names = {"corpus": absolute(config.corpus), "model": absolute_name(config.model)}
    if config.entropy_model != "self":
        names["entropy_model"] = absolute_name(config.entropy_model)
    # a path that is not UTF-8 cannot be written to run.json: such a name stays relative
    return config.replace(**{field: name for field, name in names.items() if name.isprintable()})


OnStep = Callable[[StepResult], None]


def run(
    config: RMTConfig,
    policy: Policy | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
    stop: threading.Event | None = None,
    turn: Turn | None = None,
) -> RunResult:
    """Run the whole of RMT once: cold start, mid-training, evaluation before and after, report.

    Args:
        config: all settings; ``config.out`` empty chooses a free folder under runs/.
        policy: a model already in memory, changed in place; loaded by ``config.model`` where None.
        on_step: sees each RMT step as it ends.
        progress: show progress bars.
        stop: once set, the run ends behind the step it is in, saves its state and raises.
        turn: as for ``prepare``, of a run that this one is compared with.

    Returns:
        The run folder and what is in it.

    Raises:
        UserError: for anything that a user can set right.
        Stopped: where ``stop`` was set, or the run was interrupted; ``resume`` takes it up again.
    """
    config = anywhere(config)
    path = folder_for(config.out, f"{config.preset}-seed{config.seed}")
    require_free(path)  # before anything slow, and the folder is made only when all else is ready
    began = time.perf_counter()
    with explained(config):
        material = prepare(config, policy, turn)
        origin: dict[str, Any] = material.digests() | {"parameters": material.policy.parameters}
        unknown = unknown_share(material.policy.tokenizer, [*material.train, *material.held_out])
        if unknown:
            origin["unknown_share"] = round(unknown, 4)  # of the tokens; none of them is asked or trained on
        if material.policy.turn is not None:
            origin["chat_turn"] = material.policy.turn._asdict()
    warn_of_little_memory(config, material.policy)
    folder = RunFolder(path, _needed_bytes(material.policy))
    try:
        with explained(config, material.policy, path, resumable=False):
            journal = Journal(folder, config.to_dict())
            journal.notes["seconds"]["loading"] = round(time.perf_counter() - began, 2)
            journal.note(**origin, status="running")  # from here on the run can be taken up again
    except BaseException:
        folder.release()
        raise
    return _Run(config, folder, journal, material, None, progress, stop).all_stages(on_step)


def resume(
    path: Path,
    policy: Policy | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
    stop: threading.Event | None = None,
    changes: Mapping[str, Any] | None = None,
) -> RunResult:
    """Take up a run that was stopped or killed, where it stood.

    Args:
        path: the run folder.
        policy: the model that the run began with, where it is in memory only; else ``config.model`` is loaded again.
        on_step: sees each RMT step that is left.
        progress: show progress bars.
        stop: as for ``run``.
        changes: new values of settings that MAY_CHANGE names.

    Returns:
        As ``run``; for a run that is done, what it left.

    Raises:
        UserError: if the folder is not a run's, or code, settings, model or text are not those it began with.
        Stopped: as ``run``.
    """
    notes = reading.read_notes(path)
    if "kind" in notes:
        raise UserError(f"{str(path)!r} is a {notes['kind']} run, which cannot be taken up again; begin it anew")
    config = reading.config_of(notes["config"], path)
    lacking = [name for name in ("versions", "machine", "seconds", *DIGESTS) if name not in notes]
    if lacking:
        raise UserError(f"{str(path / 'run.json')!r} is damaged (it lacks {lacking[0]!r}); restore it from a copy")
    config = config.replace(**_allowed(changes or {}))
    folder = RunFolder(path, resume=True)
    try:
        with explained(config, folder=path):
            if notes["status"] == "done":
                return _done(folder, config)
            reading.read_preflight(path)  # needed much later: complain now
            reading.read_json(path / "samples.json", reading.SAMPLES, absent={})
            _require_same_code(path, notes["versions"], notes["machine"])
            state = load_state(path)
            if state is not None:
                before = {name: value for name, value in state.plain["config"].items() if name not in MAY_CHANGE}
                _require_same("setting", path, before, notes["config"])
            material = prepare(config, policy, reading.turn_of(notes))
            digests = material.digests()
            _require_same("", path, {name: notes.get(name) for name in digests}, digests)
            warn_of_little_memory(config, material.policy)
    except BaseException:
        folder.release()
        raise
    journal = Journal(folder, config.to_dict(), notes)
    return _Run(config, folder, journal, material, state, progress, stop).all_stages(on_step)


def _needed_bytes(policy: Policy) -> int:
    """Estimate the disk that a run takes at most: two checkpoints and two states, old and new, for a moment."""
    return policy.parameters * 2 * (policy.dtype.itemsize + 12) + SPARE_BYTES


def _allowed(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    wrong = sorted(name for name in changes if name not in MAY_CHANGE)
    if wrong:
        raise UserError(
            f"{wrong[0]} cannot change in a run under way, only {' and '.join(MAY_CHANGE)}; begin a new run"
        )
    return changes


def _require_same(what: str, path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(dict(now)))
    differ = sorted(name for name in before if before[name] != plain.get(name))
    if differ:
        name = differ[0]
        raise UserError(
            f"the run in {str(path)!r} cannot go on: {' '.join([what, name]).strip()} was {before[name]!r} when it was "
            f"saved and is {plain.get(name)!r} now; restore it, or begin a new run"
        )


def _require_same_code(path: Path, before: Mapping[str, str], machine_before: Mapping[str, Any]) -> None:
    now = versions()
    _require_same("version of", path, {"rmt-mini": before.get("rmt-mini")}, now)
    changed = [f"{name} {old} to {now.get(name)}" for name, old in before.items() if now.get(name) != old]
    threads = machine_before.get("threads"), machine()["threads"]
    changed += [f"threads {threads[0]} to {threads[1]}"] * (threads[0] != threads[1])
    if changed:
        logger.warning("Changed since the run began: %s; last digits may differ for that", ", ".join(changed))


def _done(folder: RunFolder, config: RMTConfig) -> RunResult:
    """Return what a finished run left; its report is written again, since it is what a run does last."""
    path = folder.path
    logger.info("The run in %s is done; nothing is left to do", path)
    policy = load_policy(str(path / "checkpoint"), config.device, config.dtype)
    evaluation = reading.read_evaluation(path)
    metrics = [metrics_of(line) for line in reading.read_lines(path / "metrics.jsonl", reading.METRICS).good]
    table = write_report(path)
    drop_states(path)
    folder.release()
    return RunResult(path, evaluation, metrics, table, policy)


def evaluate_checkpoint(path: Path, budget: int | None = None) -> dict[str, Any]:
    """Measure a run's checkpoint on the very positions that the run was measured on.

    Args:
        path: DIR or DIR/checkpoint of a run.
        budget: stated budget, tokens; B_T of the run where None.

    Returns:
        {"ntp": R, "think": R}.

    Raises:
        UserError: if the folder is not a run's, its corpus or tokenizer has changed since, or the model cannot read as
            far as a thought under ``budget`` may reach.
    """
    folder = path.parent if path.name == "checkpoint" else path
    if not (folder / "run.json").is_file() or not (folder / "positions.json").is_file():
        raise UserError(
            f"{str(path)!r} is not a checkpoint of a run: {str(folder)!r} lacks a readable run.json or positions.json; "
            f"give runs/NAME or runs/NAME/checkpoint"
        )
    notes = reading.read_notes(folder)
    config = reading.config_of(notes["config"], folder)
    with explained(config):
        policy = load_policy(str(folder / "checkpoint"), config.device, config.dtype)
        # its positions are known, so that the model which measured entropies is not needed
        material = prepare(config.replace(entropy_model="self"), policy, reading.turn_of(notes))
    if material.corpus_digest != notes.get("corpus_digest"):
        raise UserError(
            f"corpus {config.corpus!r} has changed since the run in {str(folder)!r}; its positions do not fit"
        )
    if material.token_digest != notes.get("token_digest"):
        raise UserError(
            f"the tokenizer in {str(folder / 'checkpoint')!r} gives other tokens than when the run began, so that its "
            f"positions do not fit; restore it, and the version of tokenizers that run.json names"
        )
    with explained(config, material.policy):
        return evaluate(
            material.policy,
            material.held_out,
            config,
            reading.read_positions(folder, material.held_out),
            budget or config.evaluation_budget or budget_of(config, config.steps),
        )


def step_bar(title: str, total: int, progress: bool) -> tqdm[Any]:
    """Make a progress bar that counts steps."""
    seen = progress and sys.stderr is not None
    return tqdm(total=total, desc=title, disable=not seen, dynamic_ncols=True, unit="step")


class _Run:
    """The stages of one run, from its beginning or from where it stood."""

    def __init__(
        self,
        config: RMTConfig,
        folder: RunFolder,
        journal: Journal,
        material: Material,
        saved: State | None,
        progress: bool,
        stop: threading.Event | None,
    ) -> None:
        self.config, self.folder, self.journal, self.material = config, folder, journal, material
        self.saved, self.progress, self.stop = saved, progress, stop
        self.measured: dict[str, tuple[int, list[Answer]]] = {}
        self.early: list[tuple[int, bool]] = [(tier, signal) for tier, signal in saved.plain["early"]] if saved else []

    def all_stages(self, on_step: OnStep | None) -> RunResult:
        try:
            with explained(self.config, self.material.policy, self.folder.path), self.journal.recorded():
                return self._stages(on_step)
        except KeyboardInterrupt as error:
            raise Stopped(str(self.folder.path)) from error
        finally:
            self.folder.release()

    def _stages(self, on_step: OnStep | None) -> RunResult:
        config, policy = self.config, self.material.policy
        positions = self._positions()
        first, last = budget_of(config, 0), budget_of(config, config.steps)
        self._measure("before", positions, config.evaluation_budget or first)
        if config.warmup_steps and self.saved is None:
            self._cold_start()
        trainer = RMTTrainer(config, policy, self.material.train)
        if self.saved is not None:
            trainer.load_state(self.saved)
            self.saved = None  # a large thing, and used up
        elif config.warmup_steps:
            self._save(trainer)
        if config.warmup_steps:
            self._measure("cold_start", positions, config.evaluation_budget or first, gone=trainer.next_step > 0)
        foretold = self._preflight() if config.use_rl else {}
        with self.journal.timed("midtrain"):
            metrics = self._midtrain(trainer, foretold, on_step)
        self.folder.save_checkpoint(policy)
        self._measure("after", positions, config.evaluation_budget or last)
        evaluation = summarize_all(self.measured)
        self.folder.write_json("evaluation.json", evaluation)
        self.journal.note(**now_done())
        table = write_report(self.folder.path)
        drop_states(self.folder.path)
        return RunResult(self.folder.path, evaluation, metrics, table, policy)

    def bar(self, title: str, total: int) -> tqdm[Any]:
        return step_bar(title, total, self.progress)

    def _heed(self) -> None:
        """End here where that was asked for."""
        if self.stop is not None and self.stop.is_set():
            raise Stopped(str(self.folder.path))

    def _positions(self) -> list[Position]:
        if (self.folder.path / "positions.json").exists():
            return reading.read_positions(self.folder.path, self.material.held_out)
        material = self.material
        positions = plan_positions(material.policy, material.held_out, yardstick(self.config), train=material.train)
        self.folder.write_json("positions.json", {"positions": [as_dict(position) for position in positions]})
        return positions

    def _measure(self, when: str, positions: Sequence[Position], budget: int, gone: bool = False) -> None:
        """Ask the held-out positions, once: answers that a run left are read again.

        Answers that are damaged are asked for anew, unless the policy that gave them is ``gone``.
        """
        held_out, path = self.material.held_out, self.folder.path / "answers.jsonl"
        lines = reading.read_lines(path, reading.ANSWER).good
        told = [line for line in lines if line["when"] == when]
        lines = [line for line in lines if line["when"] != when]
        if [line["position"] for line in told] == [position.index for position in positions]:
            answers = [read_answer(line, position) for line, position in zip(told, positions, strict=True)]
            self.measured[when] = budget, answers
            return
        if gone:
            raise self._lost("answers.jsonl", "answers from before the first step")
        logger.info("Evaluating %d held-out positions: %s", len(positions), when.replace("_", " "))
        with self.journal.timed("evaluation"):
            answers = answer_positions(self.material.policy, held_out, positions, self.config, budget)
        self.measured[when] = budget, answers
        if when != "cold_start":
            samples = reading.read_json(self.folder.path / "samples.json", reading.SAMPLES, absent={})
            shown = [rollout_line(self.material.policy, self.config.steps, held_out, one) for one in _spread(answers)]
            self.folder.write_json("samples.json", samples | {when: shown})
        lines += [answer_line(when, held_out, one) for one in answers]
        lines.sort(key=lambda line: reading.TIMES.index(line["when"]))  # as they were first asked for
        self.folder.write_lines("answers.jsonl", lines)
        self._heed()

    def _lost(self, name: str, what: str) -> UserError:
        """Say that a damaged file held what only the steps already done can give."""
        path = self.folder.path
        return UserError(
            f"{str(path / name)!r} is damaged: it lacks {what}; restore it from a copy, or delete "
            f"{str(path / 'state')!r} to train again from the beginning"
        )

    def _cold_start(self) -> None:
        config, policy = self.config, self.material.policy
        with self.journal.timed("cold_start"), self.bar("Cold start", config.warmup_steps) as bar:

            def told(_: int, losses: dict[str, float]) -> None:
                bar.set_postfix_str(f"answer loss {losses['answer_loss']:.2f}, closing loss {losses['close_loss']:.2f}")
                bar.update()
                self._heed()

            cold_start(policy, format_for(policy, config), self.material.train, config, told)

    def _preflight(self) -> dict[str, Any]:
        if (self.folder.path / "preflight.json").exists():
            return reading.read_preflight(self.folder.path)
        with self.journal.timed("preflight"):
            found = preflight(self.material.policy, self.material.train, self.config)
        self.folder.write_json("preflight.json", found)
        for advice in found["advice"]:
            logger.warning("Pre-flight: %s", advice)
        self._heed()
        return found

    def _save(self, trainer: RMTTrainer) -> None:
        """Save everything that the rest of the run depends on."""
        require_sound(self.material.policy)
        state = trainer.state()
        plain = dict(state.plain) | {"early": self.early, "config": self.config.to_dict()}
        with self.journal.timed("saving"):
            save_state(self.folder.path, State(state.tensors, plain))

    def _midtrain(self, trainer: RMTTrainer, foretold: dict[str, Any], on_step: OnStep | None) -> list[StepMetrics]:
        config, policy = self.config, self.material.policy
        lines, rollouts = (
            [one for one in reading.read_lines(self.folder.path / name, shape).good if one["step"] < trainer.next_step]
            for name, shape in (("metrics.jsonl", reading.METRICS), ("rollouts.jsonl", reading.ROLLOUT))
        )
        if [line["step"] for line in lines] != list(range(trainer.next_step)):
            raise self._lost("metrics.jsonl", f"some of the {trainer.next_step} steps that are done")
        self.folder.write_lines("metrics.jsonl", lines)
        self.folder.write_lines("rollouts.jsonl", rollouts)
        done = [metrics_of(line) for line in lines]
        saved = time.monotonic()
        with self.bar("RMT", config.steps) as bar:
            bar.update(trainer.next_step)

            def told(result: StepResult) -> None:
                nonlocal saved
                metrics = result.metrics
                self.journal.step(policy, result, config.rollouts_logged)
                bar.set_postfix_str(
                    f"reward {metrics.reward:.2f}, length {metrics.thought_length:.1f} of {metrics.budget}"
                )
                bar.update()
                if metrics.step < CHECKED_STEPS and config.difficulty == "entropy":  # else its tiers are other ones
                    self.early += groups_seen(result.judged, config.group_size)
                if config.save_every and (metrics.step + 1) % config.save_every == 0:
                    self.folder.save_checkpoint(policy)
                stopping = self.stop is not None and self.stop.is_set()
                if stopping or time.monotonic() - saved >= config.state_seconds:
                    self._save(trainer)
                    saved = time.monotonic()
                if on_step is not None:
                    on_step(result)
                self._heed()

            history = [*done, *trainer.fit(told)]
        if self.early:
            seen = {"steps": min(CHECKED_STEPS, config.steps), "tiers": signal_by_tier(self.early)}
            self.folder.write_json("preflight.json", foretold | {"seen": seen})
        return history


def _spread(answers: Sequence[Answer]) -> list[Answer]:
    """Return the same few positions of every tier for every measurement."""
    per_tier = [[answer for answer in answers if answer.position.tier == tier] for tier in range(3)]
    return [answer for tier in per_tier for answer in evenly(tier, SAMPLES // 3)]
