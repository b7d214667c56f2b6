"""One process of a small run on TRL, as accelerate starts it: OUT, MODEL, then JSON of what differs.

"scripted": sample by script, the same for any number of processes. "kill_at": die by SIGKILL while the checkpoint
of that step is written.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rmt_mini.scale.settings import ScaleSettings
from rmt_mini.scale.train import train
from rmt_mini.scale.trainer import RMTGRPOTrainer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


class Killed(TrainerCallback):  # type: ignore[misc]
    """Die between TRL's part of a checkpoint and ours, as a machine does that loses power."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    from tests.scale.tiny import corpus_of_run, scripted, settings_of_run

    out, model, changes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    kill_at, by_script = changes.pop("kill_at", 0), changes.pop("scripted", False)
    spread = ScaleSettings(
        micro_batch=changes.pop("micro_batch", 4),
        lora_rank=changes.pop("lora_rank", 0),
        checkpointing=changes.pop("checkpointing", False),
        cpu=True,
    )
    nan_on = changes.pop("nan_on", None)  # process whose next-token loss is nan
    before, loss = RMTGRPOTrainer.__init__, RMTGRPOTrainer._ntp_loss
    if nan_on is not None:
        RMTGRPOTrainer._ntp_loss = lambda self, *given, **named: (  # type: ignore[method-assign]
            loss(self, *given, **named) * (float("nan") if self.accelerator.process_index == nan_on else 1.0)
        )

    def begin(self: Any, *arguments: Any, **options: Any) -> None:
        before(self, *arguments, **options)
        if kill_at:
            self.callback_handler.callbacks.insert(0, Killed(kill_at))  # before ours

    RMTGRPOTrainer.__init__ = begin
    corpus = corpus_of_run(out.with_suffix(".jsonl"))
    options = {"generate": scripted} if by_script else {}
    train(settings_of_run(model=model, corpus=str(corpus), out=str(out), **changes), spread, **options)


if __name__ == "__main__":
    main()
