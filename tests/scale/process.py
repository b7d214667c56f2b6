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

from rmt_mini.scale import trainer as room
from rmt_mini.scale.train import train

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.scale.tiny import CPU, corpus_of_run, scripted, settings_of_run


class Killed(TrainerCallback):  # type: ignore[misc]
    """Die between TRL's part of a checkpoint and ours, as a machine does that loses power."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == KILL_AT:
            os.kill(os.getpid(), signal.SIGKILL)


class Killable(room.RMTGRPOTrainer):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.callback_handler.callbacks.insert(0, Killed())  # before ours


if __name__ == "__main__":
    out, model, changes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    KILL_AT = changes.pop("kill_at", 0)
    options = {"generate": scripted} if changes.pop("scripted", False) else {}
    spread = CPU.replace(checkpointing=changes.pop("checkpointing", False))
    room.RMTGRPOTrainer = Killable  # type: ignore[misc]
    corpus = corpus_of_run(out.with_suffix(".jsonl"))
    train(settings_of_run(model=model, corpus=str(corpus), out=str(out), **changes), spread, **options)
