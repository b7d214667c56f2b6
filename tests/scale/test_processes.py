"""Two processes (gloo, on this CPU) agree with one, and a run that was cut short ends as the uninterrupted one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rmt_mini.scale.launch import CONFIGS
from rmt_mini.scale.train import train
from rmt_mini.scale.trainer import State
from tests.fakes import byte_tokenizer, tiny_model
from tests.scale.tiny import CPU, metrics_of, run_settings, scripted

ROOT = Path(__file__).resolve().parents[2]


def two_processes(out: Path, model: Path) -> None:
    """Run tests/scale/process.py as ``rmt-mini launch --setup cpu`` would."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "cpu.yaml")]
    command += ["--num_processes", "2", "--main_process_port", "0", "-m", "tests.scale.process", str(out), str(model)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_resume(tmp_path: Path) -> None:
    """The same 24 rollouts a step, as 6 passes of 4 and as 2 x 3: the same losses, gradients and weights."""
    model, first, second = tmp_path / "model", tmp_path / "1", tmp_path / "2"
    tiny_model("qwen3").save_pretrained(model)
    byte_tokenizer().save_pretrained(model)
    train(run_settings(first, model), CPU, generate=scripted)
    two_processes(second, model)
    one, two = metrics_of(first), metrics_of(second)
    assert len(one) == len(two) == 3
    for ours, theirs in zip(one, two, strict=True):
        assert ours["rl_loss"] != 0
        for name, value in ours.items():
            assert theirs[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    begun, *trained = (
        load_file(path / "model.safetensors") for path in (model, first / "checkpoint", second / "checkpoint")
    )
    for name, tensor in trained[0].items():
        moved = (tensor - begun[name]).norm()
        assert moved > 0, name
        assert (tensor - trained[1][name]).norm() < 1e-2 * moved, name

    # killed after TRL wrote its part of the last checkpoint, and before we wrote ours
    shutil.rmtree(second / "checkpoint")
    (second / "checkpoint-3" / State.NAME).unlink()
    kept = (second / "checkpoint-2" / State.NAME).stat().st_mtime_ns
    two_processes(second, model)
    assert (second / "checkpoint-2" / State.NAME).stat().st_mtime_ns == kept  # it went on from there
    assert metrics_of(second) == two
    again = load_file(second / "checkpoint/model.safetensors")
    assert all(tensor.equal(again[name]) for name, tensor in trained[1].items())
