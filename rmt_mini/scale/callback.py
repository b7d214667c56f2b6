"""The callback that moves step, budget and curriculum; the state beside TRL's checkpoints; metrics.jsonl.

Beside TRL's part of a checkpoint, rmt_state.json has the sampler's state, tier thresholds and the metrics so far. It is
written last, whole or not at all: a checkpoint with it is complete, and others are passed over.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from transformers import TrainerCallback

from rmt_mini.engine.memory import peak_memory_mb
from rmt_mini.errors import logger
from rmt_mini.files import File, as_lines, write_whole
from rmt_mini.method.schedule import probabilities_of

LINE = (
    "step {number}/{steps}: budget {budget}, match {match_reward:.3f}, thoughts {thought_length:.1f}, next-token loss "
    "{ntp_loss:.3f}; {rollout_seconds:.1f} + {update_seconds:.1f} s, {left:.1f} min left"
)


class State(File):
    """rmt_state.json: what the steps to come depend on, and metrics.jsonl so far."""

    NAME: ClassVar[str] = "rmt_state.json"
    positions: dict[str, Any]
    lines: list[dict[str, Any]]


class StepCallback(TrainerCallback):
    """Move the step of an RMTGRPOTrainer, save its state, write its metrics."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.lines: list[dict[str, Any]] = []  # of metrics.jsonl
        self.logs: dict[str, Any] = {}  # of the step's updates so far

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Go on from our state in the checkpoint that TRL has loaded, if any."""
        if state.global_step:
            saved = State.read(_checkpoint(args, state))
            self.trainer.positions.load_state_dict(saved.positions)
            self.lines = saved.lines

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set t, which budget and curriculum follow; it is the same for all updates of a step."""
        self.trainer.positions.step = state.global_step // self.trainer.num_iterations

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write metrics.jsonl once the step is complete, with the fields that every run has."""
        logs, trainer = given["logs"], self.trainer
        if "loss" not in logs:  # the summary at the end
            return
        # one update reports what was sampled, each its own losses; the last counts
        seconds = self.logs.get("seconds", 0.0) + logs["step_time"]
        self.logs |= {name: value for name, value in logs.items() if value is not None} | {"seconds": seconds}
        if state.global_step % trainer.num_iterations:
            return
        line, self.logs = step_line(trainer, self.logs), {}
        self.lines.append(line)
        if state.is_world_process_zero:
            left = (trainer.config.steps - line["step"] - 1) * seconds / 60
            logger.info(LINE.format(**line, steps=trainer.config.steps, number=line["step"] + 1, left=left))
            write_whole(Path(args.output_dir) / "metrics.jsonl", as_lines(self.lines))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write our state into the checkpoint that TRL has just written."""
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            State(positions=self.trainer.positions.state_dict(), lines=self.lines).write(_checkpoint(args, state))


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def step_line(trainer: Any, logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's line of metrics.jsonl from what TRL logged of its updates."""
    plan, config = trainer.plan, trainer.config
    tiers = [question.position.tier for question in plan.questions]
    rewards = ("match_reward", "length_reward", "reward", "thought_length", "closed_share", "signal_groups")
    return {
        "step": plan.step,
        "budget": plan.budget,
        "tier_probabilities": probabilities_of(config, plan.step),
        "tier_counts": [tiers.count(tier) for tier in range(3)],
        **{name: logs[name] for name in (*rewards, "rl_loss", "ntp_loss", "grad_norm")},
        "rl_tokens": int(logs["rl_tokens"]),
        "ntp_tokens": plan.ntp_tokens,
        "rollout_seconds": logs["rollout_seconds"],
        "update_seconds": max(0.0, logs["seconds"] - logs["rollout_seconds"]),
        "peak_memory_mb": peak_memory_mb(trainer.accelerator.device),
    }


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run folder; None where there is none."""
    found = [path.parent for path in folder.glob(f"checkpoint-*/{State.NAME}")]
    return max(found, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)
