"""One whole run: what ``make run``, a notebook and a test all call.

text -> policy -> evaluation before -> cold start -> pre-flight -> RMT -> evaluation after -> checkpoint, report
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from rmt_mini.config import RMTConfig
from rmt_mini.engine.model import Policy, load_policy
from rmt_mini.errors import UserError
from rmt_mini.records import Answer, Judged, Position, StepMetrics
from rmt_mini.stages.evaluate import answer_positions, evaluate, plan_positions
from rmt_mini.stages.journal import Journal, answer_line, evenly, model_digest, now_done, rollout_line
from rmt_mini.stages.material import Text, format_for, to_texts
from rmt_mini.stages.midtrain import RMTTrainer, StepResult, budget_of
from rmt_mini.stages.preflight import preflight, signal_by_tier
from rmt_mini.stages.store import RunFolder, as_dict, folder_for, require_free
from rmt_mini.stages.summary import summarize_all
from rmt_mini.stages.warmup import cold_start
from rmt_mini.study.report import write_report
from rmt_mini.worlds.corpus import load_corpus

logger = logging.getLogger(__name__)

SAMPLES = 12
CHECKED_STEPS = 10  # first steps that the pre-flight's prediction is held against
SPARE_BYTES = 50_000_000


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


def prepare(config: RMTConfig, policy: Policy | None = None) -> Material:
    """Load the corpus and the policy, split by document, tokenize.

    Raises:
        UserError: if either cannot be had.
    """
    corpus = load_corpus(config.corpus, column=config.column)  # first, since it fails fast
    train, held_out = corpus.split(config.evaluation_fraction)
    policy = policy or load_policy(config.model, config.device, config.dtype)
    form = format_for(policy, config)
    return Material(
        policy,
        to_texts(train, form, config, "training"),
        to_texts(held_out, form, config, "held-out")[: config.evaluation_documents],
        corpus.digest,
    )


def run(
    config: RMTConfig,
    policy: Policy | None = None,
    on_step: Callable[[StepResult], None] | None = None,
    progress: bool = True,
) -> RunResult:
    """Run the whole of RMT once: cold start, mid-training, evaluation before and after, report.

    Args:
        config: all settings; ``config.out`` empty chooses a free folder under runs/.
        policy: a model already in memory, changed in place; loaded by ``config.model`` where None.
        on_step: sees each RMT step as it ends.
        progress: show progress bars.

    Returns:
        The run folder and what is in it.

    Raises:
        UserError: for anything that a user can set right.
    """
    path = folder_for(config.out, f"{config.preset}-seed{config.seed}")
    require_free(path)  # before anything slow, and the folder is made only when all else is ready
    began = time.perf_counter()
    material = prepare(config, policy)
    checkpoint_bytes = 2 * material.policy.parameters * material.policy.dtype.itemsize  # the old one stays meanwhile
    one = _Run(config, RunFolder(path, checkpoint_bytes + SPARE_BYTES), material, progress)
    one.journal.notes["seconds"]["loading"] = round(time.perf_counter() - began, 2)
    return one.all_stages(on_step)


def evaluate_checkpoint(path: Path, budget: int | None = None) -> dict[str, Any]:
    """Measure a run's checkpoint on the very positions that the run was measured on.

    Args:
        path: DIR or DIR/checkpoint of a run.
        budget: stated budget, tokens; B_T of the run where None.

    Returns:
        {"ntp": R, "think": R}.

    Raises:
        UserError: if the folder is not a run's, or its corpus has changed since.
    """
    folder = path.parent if path.name == "checkpoint" else path
    try:
        notes = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        saved = json.loads((folder / "positions.json").read_text(encoding="utf-8"))["positions"]
        config = RMTConfig.from_dict(notes["config"])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{str(path)!r} is not a checkpoint of a run: {str(folder)!r} lacks a readable run.json or positions.json; "
            f"give runs/NAME or runs/NAME/checkpoint"
        ) from error
    material = prepare(config, load_policy(str(folder / "checkpoint"), config.device, config.dtype))
    if material.corpus_digest != notes["corpus_digest"]:
        raise UserError(
            f"corpus {config.corpus!r} has changed since the run in {str(folder)!r}; its positions do not fit"
        )
    return evaluate(
        material.policy,
        material.held_out,
        config,
        [Position(**position) for position in saved],
        budget or config.evaluation_budget or budget_of(config, config.steps),
    )


def step_bar(title: str, total: int, progress: bool) -> tqdm[Any]:
    """Make a progress bar that counts steps."""
    return tqdm(total=total, desc=title, disable=not progress, dynamic_ncols=True, unit="step")


class _Run:
    """The stages of one run."""

    def __init__(self, config: RMTConfig, folder: RunFolder, material: Material, progress: bool) -> None:
        self.config, self.folder, self.material, self.progress = config, folder, material, progress
        self.journal = Journal(folder, config.to_dict())

    def bar(self, title: str, total: int) -> tqdm[Any]:
        return step_bar(title, total, self.progress)

    def all_stages(self, on_step: Callable[[StepResult], None] | None) -> RunResult:
        with self.journal.recorded():
            return self._stages(on_step)

    def _stages(self, on_step: Callable[[StepResult], None] | None) -> RunResult:
        config, material = self.config, self.material
        policy = material.policy
        self.journal.note(corpus_digest=material.corpus_digest, model_digest=model_digest(policy))
        positions = plan_positions(policy, material.held_out, config)
        self.folder.write_json("positions.json", {"positions": [as_dict(position) for position in positions]})

        first, last = budget_of(config, 0), budget_of(config, config.steps)
        measured = {"before": self._measure("before", material, positions, config.evaluation_budget or first)}
        if config.warmup_steps:
            with self.journal.timed("cold_start"), self.bar("Cold start", config.warmup_steps) as bar:

                def told(_: int, losses: dict[str, float]) -> None:
                    bar.set_postfix_str(
                        f"answer loss {losses['answer_loss']:.2f}, closing loss {losses['close_loss']:.2f}"
                    )
                    bar.update()

                cold_start(policy, format_for(policy, config), material.train, config, told)
            measured["cold_start"] = self._measure(
                "after the cold start", material, positions, config.evaluation_budget or first
            )
        foretold: dict[str, Any] = {}
        if config.use_rl:
            with self.journal.timed("preflight"):
                foretold = preflight(policy, material.train, config, config.preflight_positions)
            self.folder.write_json("preflight.json", foretold)
            for advice in foretold["advice"]:
                logger.warning("Pre-flight: %s", advice)

        with self.journal.timed("midtrain"):
            metrics = self._midtrain(material, foretold, on_step)
        self.folder.save_checkpoint(policy)
        measured["after"] = self._measure("after", material, positions, config.evaluation_budget or last)
        evaluation = summarize_all(measured)
        self.folder.write_json("evaluation.json", evaluation)
        for when, (_, answers) in measured.items():
            self.folder.append("answers.jsonl", [answer_line(when, material.held_out, one) for one in answers])
        samples = {
            name: [
                rollout_line(policy, config.steps, material.held_out, answer) for answer in _spread(measured[name][1])
            ]
            for name in ("before", "after")
        }
        self.folder.write_json("samples.json", samples)
        self.journal.note(**now_done())
        table = write_report(self.folder.path)
        return RunResult(self.folder.path, evaluation, metrics, table, policy)

    def _measure(
        self, when: str, material: Material, positions: Sequence[Position], budget: int
    ) -> tuple[int, list[Answer]]:
        logger.info("Evaluating %d held-out positions %s", len(positions), when)
        with self.journal.timed("evaluation"):
            return budget, answer_positions(material.policy, material.held_out, positions, self.config, budget)

    def _midtrain(
        self, material: Material, foretold: dict[str, Any], on_step: Callable[[StepResult], None] | None
    ) -> list[StepMetrics]:
        config = self.config
        trainer = RMTTrainer(config, material.policy, material.train)
        early: list[Judged] = []
        with self.bar("RMT", config.steps) as bar:

            def told(result: StepResult) -> None:
                metrics = result.metrics
                self.journal.step(material.policy, result, config.rollouts_logged)
                bar.set_postfix_str(
                    f"reward {metrics.reward:.2f}, length {metrics.thought_length:.1f} of {metrics.budget}"
                )
                bar.update()
                if metrics.step < CHECKED_STEPS:
                    early.extend(result.judged)
                if config.save_every and (metrics.step + 1) % config.save_every == 0:
                    self.folder.save_checkpoint(material.policy)
                if on_step is not None:
                    on_step(result)

            history = trainer.fit(told)
        if early:
            seen = {"steps": min(CHECKED_STEPS, config.steps), "tiers": signal_by_tier(early, config.group_size)}
            self.folder.write_json("preflight.json", foretold | {"seen": seen})
        return history


def _spread(answers: Sequence[Answer]) -> list[Answer]:
    """Return the same few positions of every tier for every measurement."""
    per_tier = [[answer for answer in answers if answer.position.tier == tier] for tier in range(3)]
    return [answer for tier in per_tier for answer in evenly(tier, SAMPLES // 3)]
