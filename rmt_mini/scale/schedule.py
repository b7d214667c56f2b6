"""The callback that moves step, budget and curriculum; the state beside TRL's checkpoints; metrics.jsonl.

    checkpoint-12/...              TRL's: weights, optimizer, scheduler, generators of every process
    checkpoint-12/rmt_state.json   ours: the sampler's generator and counts, tier thresholds, the step

Ours is written last, once all processes have written theirs, and whole or not at all. So a checkpoint that holds it is
complete, and one that a kill left half written is passed over.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rmt_mini.config import RMTConfig
from rmt_mini.engine.memory import peak_memory_mb
from rmt_mini.errors import UserError
from rmt_mini.files import write_whole
from rmt_mini.method.curriculum import tier_probabilities

logger = logging.getLogger(__name__)
STATE = "rmt_state.json"


class Schedule(TrainerCallback):
    """Move the trainer's step, keep its state, write its metrics.

    Args:
        trainer: an RMTGRPOTrainer.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.line: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget the metrics of steps that a resumed run does again."""
        if state.is_world_process_zero:
            cut_metrics(Path(args.output_dir), self._step(state))

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set t, which budget and curriculum follow; with several updates a step it moves behind the last."""
        self.trainer.positions.step = self._step(state)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Write a line of metrics once the step is complete, in the form that the tree's runs have."""
        logs: Mapping[str, float] = given["logs"]
        if "loss" not in logs:  # the summary at the end
            return
        # one update reports what was sampled, each its own losses; the last counts
        self.line |= {name: value for name, value in logs.items() if value is not None}
        self.line["seconds"] = self.line.get("seconds", 0.0) + logs["step_time"]
        if state.global_step % self.trainer.num_iterations:
            return
        line, self.line = metrics_line(self.trainer.config, self.trainer.plan, self.line), {}
        line["peak_memory_mb"] = peak_memory_mb(self.trainer.accelerator.device)
        if state.is_world_process_zero:
            logger.info("%s", progress(line, self.trainer.config.steps))
            with (Path(args.output_dir) / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write our state into the checkpoint that TRL has just written, the last file of all."""
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_state(folder, self.trainer.positions.state_dict() | {"step": self._step(state)})

    def _step(self, state: Any) -> int:
        step: int = state.global_step // self.trainer.num_iterations
        return step


def metrics_line(config: RMTConfig, plan: Any, logs: Mapping[str, Any]) -> dict[str, Any]:
    """Turn TRL's log of a step into a line of metrics.jsonl."""
    return {
        "step": plan.step,
        "budget": plan.budget,
        "tier_probabilities": tier_probabilities(
            plan.step,
            config.steps,
            config.tier_probs_early,
            config.tier_probs_late,
            config.curriculum_start,
            config.curriculum_end,
        ),
        "tier_counts": plan.tier_counts,
        "match_reward": logs["rewards/match/mean"],
        "length_reward": logs.get("length_reward", 0.0),
        "reward": logs["reward"],
        **{name: logs[name] for name in ("thought_length", "closed_share", "signal_groups", "rl_loss", "ntp_loss")},
        "grad_norm": logs["grad_norm"],
        "rl_tokens": int(logs["rl_tokens"]),
        "ntp_tokens": plan.ntp_tokens,
        "rollout_seconds": logs["rollout_seconds"],
        "update_seconds": max(0.0, logs["seconds"] - logs["rollout_seconds"]),
    }


def progress(line: Mapping[str, Any], steps: int) -> str:
    """Say in one line how far a run is, and how long the rest takes at this step's pace.

    Example:
        >>> line = {"step": 1, "budget": 9, "match_reward": 0.5, "thought_length": 8.25, "ntp_loss": 2.0}
        >>> progress(line | {"rollout_seconds": 50.0, "update_seconds": 10.0}, steps=4)
        'step 2/4: budget 9, match 0.500, thoughts 8.2, next-token loss 2.000; 60.0 s, 2.0 min left'
    """
    seconds = line["rollout_seconds"] + line["update_seconds"]
    return (
        f"step {line['step'] + 1}/{steps}: budget {line['budget']}, match {line['match_reward']:.3f}, thoughts "
        f"{line['thought_length']:.1f}, next-token loss {line['ntp_loss']:.3f}; {seconds:.1f} s, "
        f"{(steps - line['step'] - 1) * seconds / 60:.1f} min left"
    )


def cut_metrics(folder: Path, step: int) -> None:
    """Drop lines of metrics.jsonl from ``step`` on, and what a kill left of a line."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] < step:
                kept.append(line + "\n")
        except ValueError:
            logger.info("a half-written line of %s is dropped", path)
    write_whole(path, "".join(kept))


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write our state into a checkpoint, whole or not at all."""
    write_whole(folder / STATE, json.dumps(state))


def load_state(checkpoint: str) -> dict[str, Any]:
    """Read our state out of a checkpoint.

    Raises:
        UserError: if the checkpoint has none, or it cannot be read.
    """
    try:
        state: dict[str, Any] = json.loads((Path(checkpoint) / STATE).read_text(encoding="utf-8"))
        return state
    except (OSError, ValueError) as error:
        raise UserError(
            f"checkpoint {checkpoint!r} holds no {STATE} that can be read; it is another trainer's, or was not written "
            f"to its end: take an older one"
        ) from error


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run folder; None where there is none.

    Example:
        >>> latest_checkpoint(Path("no-such-folder")) is None
        True
    """
    found = [
        (int(match[1]), path)
        for path in folder.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and (path / STATE).exists()
    ]
    return max(found)[1] if found else None
