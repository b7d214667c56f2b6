"""One process of a small run on TRL, as accelerate starts it: OUT, MODEL."""

import sys
from pathlib import Path

from rmt_mini.scale.train import train
from tests.scale.tiny import CPU, run_settings, scripted

if __name__ == "__main__":
    # activations are made again in the backward pass, as on GPUs by default
    train(run_settings(Path(sys.argv[1]), sys.argv[2]), CPU.replace(checkpointing=True), generate=scripted)
