"""Several processes (gloo, on this CPU): they agree with one, and a run that was killed ends as the unbroken one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rmt_mini.scale.callback import State
from rmt_mini.scale.settings import CONFIGS
from rmt_mini.scale.train import train
from tests.scale.tiny import CPU, corpus_of_run, metrics_of, save_model, scripted, settings_of_run

ROOT = Path(__file__).resolve().parents[2]


def start(out: Path, model: Path, processes: int, **changes: Any) -> subprocess.CompletedProcess[str]:
    """Run tests/scale/process.py on so many processes, as ``rmt-mini launch --setup cpu`` would."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "cpu.yaml")]
    command += ["--num_processes", str(processes), "--main_process_port", "0", "-m", "tests.scale.process"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(out), str(model), json.dumps(changes)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoint/model.safetensors")


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """The same 24 rollouts a step, as 6 passes of 4 and as 2 x 3: the same losses, gradients and weights.

    The two make their activations again in the backward pass, as GPUs do by default.
    """
    model = save_model(tmp_path / "model")
    config = settings_of_run(
        model=str(model),
        corpus=str(corpus_of_run(tmp_path / "1.jsonl")),
        out=str(tmp_path / "1"),
        documents_per_step=3,
    )
    train(config, CPU, generate=scripted)
    done = start(tmp_path / "2", model, 2, scripted=True, documents_per_step=3, checkpointing=True)
    assert done.returncode == 0, done.stderr
    one, two = metrics_of(tmp_path / "1"), metrics_of(tmp_path / "2")
    assert len(one) == len(two) == 3
    for ours, theirs in zip(one, two, strict=True):
        assert ours["rl_loss"] != 0
        for name, value in ours.items():
            assert theirs[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    begun = load_file(model / "model.safetensors")
    first, second = weights_of(tmp_path / "1"), weights_of(tmp_path / "2")
    for name, tensor in first.items():
        moved = (tensor - begun[name]).norm()
        assert moved > 0, name
        assert (tensor - second[name]).norm() < 1e-2 * moved, name


@pytest.mark.slow
def test_killed_run_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    """Two processes die by SIGKILL while the second checkpoint is written: TRL's part is there, ours is not."""
    model = save_model(tmp_path / "model")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = start(whole, model, 2, save_every=1)
    assert done.returncode == 0, done.stderr
    assert start(broken, model, 2, save_every=1, kill_at=2).returncode != 0
    assert (broken / "checkpoint-2/model.safetensors").exists()
    assert not (broken / "checkpoint-2" / State.NAME).exists()
    assert not (broken / "checkpoint").exists()
    done = start(broken, model, 2, save_every=1)
    assert done.returncode == 0, done.stderr
    assert metrics_of(broken) == metrics_of(whole)
    ours, theirs = weights_of(whole), weights_of(broken)
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())
