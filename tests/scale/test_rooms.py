"""The rooms of scale that need no trainer: positions, shares of documents, rewards, settings, commands."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from rmt_mini.cli import main
from rmt_mini.config import preset
from rmt_mini.errors import UserError
from rmt_mini.records import Text
from rmt_mini.scale import launch
from rmt_mini.scale.launch import SETUPS, commands, scale_settings, setup_for, start
from rmt_mini.scale.positions import IGNORED, Positions
from rmt_mini.scale.settings import CONFIGS, ScaleSettings, require_installed
from rmt_mini.scale.train import main as train_main
from rmt_mini.scale.train import require_same
from tests.scale.tiny import settings_of_run

TEXTS = [Text("a", tuple(range(10, 22)), 1), Text("b", tuple(range(30, 45)), 1), Text("c", tuple(range(50, 61)), 1)]


def read(texts: Any) -> list[torch.Tensor]:
    return [torch.tensor([float(token % 5) for token in text.ids]) for text in texts]


# Positions


def test_texts_must_have_enough_positions() -> None:
    with pytest.raises(UserError, match="positions_per_document is 11, but the shortest text has 10"):
        Positions(settings_of_run(positions_per_document=11), TEXTS)


# The next-token loss


def test_labels_are_where_the_mask_is() -> None:
    plan = Positions(settings_of_run(), TEXTS).draw(read)
    batch = plan.batch(range(2), 0)
    for row, (text, mask) in enumerate(zip(plan.texts, plan.masks, strict=True)):
        size = len(text.ids)
        assert batch["input_ids"][row, :size].tolist() == list(text.ids)
        assert batch["labels"][row, :size].tolist() == torch.tensor(text.ids).where(mask, IGNORED).tolist()
        assert batch["attention_mask"][row].sum() == size
        assert (batch["labels"][row, size:] == IGNORED).all()
    assert plan.ntp_tokens == (batch["labels"] != IGNORED).sum()
    assert (plan.batch(range(0), 0)["labels"] == IGNORED).all()


# Settings


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    for missing, engine, message in (
        ("trl", "transformers", r"package 'trl' is not installed; pip install 'rmt-mini\[scale\]'"),
        ("vllm", "vllm-colocate", "package 'vllm' is not installed; engine 'vllm-colocate' needs it"),
        ("deepspeed", "transformers", "package 'deepspeed' is not installed; this setup needs it"),
    ):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, gone=missing: None if name == gone else there("json")
        )
        with pytest.raises(UserError, match=message):
            require_installed(engine, ["deepspeed"])


def test_folder_of_other_settings_is_left_alone(tmp_path: Path) -> None:
    both = {"config": settings_of_run().to_dict(), "scale": ScaleSettings().to_dict()}
    require_same(tmp_path, both)
    (tmp_path / "settings.json").write_text(json.dumps(both))
    require_same(tmp_path, both | {"scale": ScaleSettings(micro_batch=1).to_dict()})  # the distribution may change
    with pytest.raises(UserError, match="has a run with another seed \\(0\\)"):
        require_same(tmp_path, {"config": settings_of_run(seed=5).to_dict()})
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        require_same(tmp_path, both)
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(UserError, match="has a finished run"):
        require_same(tmp_path, both)


# Commands


def parsed(command: tuple[str, ...]) -> argparse.Namespace:
    """Read a command as accelerate reads it; unknown flags end the test."""
    assert command[:2] == ("accelerate", "launch")
    return launch_command_parser().parse_args(list(command[2:]))


@pytest.mark.parametrize("name", SETUPS)
def test_accelerate_takes_each_config(name: str) -> None:
    setup = SETUPS[name]
    config = load_config_from_file(str(CONFIGS / setup.config))
    assert (config.num_machines, config.num_processes) == (setup.machines, setup.machines * setup.gpus)
    assert config.use_cpu == (name == "cpu")
    if name in ("one-node", "nodes"):
        assert config.distributed_type == "DEEPSPEED"
        assert config.deepspeed_config["zero_stage"] == 3


@pytest.mark.parametrize(
    ("name", "setup", "machines", "processes", "engine"),
    [
        ("gpu", "", 1, 1, "transformers"),
        ("paper", "one-node", 1, 8, "vllm-colocate"),
        ("paper", "", 2, 16, "vllm-server"),
    ],
)
def test_presets_become_commands(name: str, setup: str, machines: int, processes: int, engine: str) -> None:
    config, where = preset(name, steps=7), setup_for(name, setup)
    made = commands(config, where, scale_settings(name, where, {}), "10.0.0.1" if machines > 1 else "")
    assert len(made.train) == machines
    for rank, command in enumerate(made.train):
        found = parsed(command)
        assert (found.num_processes, found.module, found.training_script) == (processes, True, "rmt_mini.scale.train")
        assert found.training_script_args[:3] == [name, "--changes", '{"steps": 7}']
        assert found.training_script_args[3:4] == ([] if engine == "transformers" else ["--scale"])
        if machines > 1:
            assert (found.num_machines, found.machine_rank, found.main_process_ip) == (machines, rank, "10.0.0.1")
    assert (made.server is not None) == (engine == "vllm-server")
    if made.server is not None:
        assert made.server[:5] == ("env", "VLLM_SERVER_DEV_MODE=1", "vllm", "serve", config.model)
        assert made.server[made.server.index("--weight-transfer-config") + 1] == '{"backend": "nccl"}'
    typed = [tuple(shlex.split(line)) for line in made.lines() if not line.startswith("#")]
    assert typed == [*([made.server] if made.server else []), *made.train]


def test_command_with_gaps_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "require_installed", lambda *_: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it was started"))
    where = setup_for("paper")
    settings = scale_settings("paper", where, {})
    for address, rank, message in (
        ("", 0, "MAIN_ADDRESS is not known; give --main-address"),
        ("10.0.0.1", 0, "VLLM_ADDRESS is not known; give --server"),
        ("10.0.0.1", 2, "machine_rank is 2; give 0 to 1"),
    ):
        with pytest.raises(UserError, match=message):
            start(commands(preset("paper"), where, settings, address), settings, rank)


def test_printing_a_command_needs_no_extra() -> None:
    code = "import rmt_mini.scale.launch, sys; print({'trl', 'accelerate', 'peft', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# The command line


def run_cli(arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a command and return its exit code, standard output and standard error."""
    code = 0
    try:
        main(arguments.split())
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, *capsys.readouterr()


def test_launch_prints_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_cli("launch gpu --seed 3 --micro-batch 4 --lora-rank 8", capsys)
    assert code == 0
    where, command = out.strip().splitlines()
    assert where == "# here:"
    found = parsed(tuple(shlex.split(command)))
    assert found.training_script_args == [
        "gpu", "--changes", '{"seed": 3}', "--scale", '{"micro_batch": 4, "lora_rank": 8}',
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("launch laptop", "warmup_steps is 16; the cold start runs on one machine"),
        ("launch gpu --no-use-rl", "use_rl is False; on TRL it can only be True: use rmt-mini run"),
        ("launch gpu --difficulty loss", "difficulty is 'loss'; on TRL it can only be 'entropy'"),
        ("launch gpu --entropy-model x", "entropy_model is 'x'"),
        ("launch gpu --on-nan skip", "on_nan is 'skip'"),
        ("launch gpu --setup moon", "setup 'moon' is unknown; use one of cpu, one-gpu, one-node, nodes"),
        ("launch gpu --gpus 2", "gpus is 2, and setup 'one-gpu' is for one; use --setup one-node"),
        ("launch paper --setup one-node --machines 2", "machines is 2, and setup 'one-node' is for one; use --setup n"),
        ("launch gpu --engine sglang", 'Invalid value "sglang" for --engine. Choose from: "transformers"'),
        ("launch gpu --server gpu7", "server is 'gpu7'; give host:port"),
        ("launch gpu --gpu-memory 2", "gpu_memory is 2.0; give"),
        ("launch gpu --gpu-memory 0.5", "gpu_memory is of use with engine 'vllm-colocate' only"),
        ("launch gpu --branch-tokens 9", "branch_tokens has no effect on TRL"),
        ("launch gpu --main-address 10.0.0.1", "main_address is of use with several machines only"),
        ("launch gpu --micro-batch 7", "micro_batch is 7; the 512 rollouts of a step cannot be divided evenly"),
        ("launch paper --gpus 3 --micro-batch 2", "micro_batch is 2; the 1024 rollouts .* evenly over 6 processes"),
        ("plan gpu --gpus 1 --gpu v100", "gpu is 'v100'; use one of"),
    ],
)
def test_bad_wishes_end_in_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run_cli(arguments, capsys)
    assert (code, out) == (2, "")
    assert re.match(f"error: {message}", err)
    assert len(err.strip().splitlines()) == 1


def test_plan_for_other_machines_needs_no_model_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_cli("plan paper --gpus 8 --machines 2 --document-tokens 512", capsys)
    assert code == 0
    assert out.startswith("estimate     deepseek-ai/DeepSeek-R1-Distill-Qwen-14B, 14.77B parameters, 16 x h100")


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--changes", "[1]", "--changes is '[1]'; give a JSON object"),
        ("--changes", "{", "--changes is '{'; give a JSON object"),
        ("--scale", '{"x": 1}', "field 'x' is unknown"),
        ("--scale", '{"micro_batch": true}', "micro_batch is True; give a whole number"),
        ("--changes", '{"corpus": "no.txt"}', "corpus 'no.txt' does not exist"),
    ],
)
def test_process_refuses_in_one_line(flag: str, value: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train_main(["gpu", flag, value])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
