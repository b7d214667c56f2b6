"""The rooms of scale that need no trainer: positions, shares of documents, rewards, settings, commands."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from hypothesis import given
from hypothesis import strategies as st
from rmt_mini.scale.objective import IGNORED, document_logprobs, documents_batch, share_of_documents
from rmt_mini.scale.rewards import reward_functions

from rmt_mini.cli import main
from rmt_mini.config import preset
from rmt_mini.engine.text import Text
from rmt_mini.errors import UserError
from rmt_mini.scale import launch
from rmt_mini.scale.launch import CONFIGS, SETUPS, commands, scale_settings, setup_for, start
from rmt_mini.scale.positions import Positions, places
from rmt_mini.scale.settings import ScaleSettings, micro_steps, require_carried, require_installed
from rmt_mini.scale.train import main as train_main
from rmt_mini.scale.train import require_same
from tests.fakes import tiny_model
from tests.scale.tiny import settings_of_run

TEXTS = [Text("a", tuple(range(10, 22)), 1), Text("b", tuple(range(30, 45)), 1), Text("c", tuple(range(50, 61)), 1)]


def read(texts: Any) -> list[torch.Tensor]:
    return [torch.tensor([float(token % 5) for token in text.ids]) for text in texts]


# Positions


def test_draws_go_on_where_another_stood() -> None:
    config = settings_of_run(steps=6)
    one, two = Positions(config, TEXTS), Positions(config, TEXTS)
    for step in range(3):
        one.step = step
        one.draw(read)
    two.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert (two.step, two.thresholds) == (2, one.thresholds)
    for step in range(3, 6):
        one.step = two.step = step
        assert one.draw(read).questions == two.draw(read).questions
    assert one.sampler.counts == two.sampler.counts


def test_budget_follows_the_step_and_the_position() -> None:
    by_step = Positions(settings_of_run(steps=4, budget_start=40), TEXTS)
    by_entropy = Positions(settings_of_run(steps=4, budget_start=40, budget_rule="entropy"), TEXTS)
    unstated = Positions(settings_of_run(steps=4, budget_start=40, use_budget=False), TEXTS)
    for one in (by_step, by_entropy, unstated):
        one.step = 2
    assert {(q.budget, q.stated) for q in by_step.draw(read).questions} == {(17, 17)}  # floor(40 * 0.2 ** 0.5)
    assert len({q.budget for q in by_entropy.draw(read).questions}) > 1
    assert {(q.budget, q.stated) for q in unstated.draw(read).questions} == {(40, None)}


def test_positions_must_be_there() -> None:
    with pytest.raises(UserError, match="positions_per_document is 11, but the shortest text has 10"):
        Positions(settings_of_run(positions_per_document=11), TEXTS)


def test_places_repeat_with_every_step() -> None:
    assert places(settings_of_run(steps=2))["place"] == [0, 1, 2, 3, 0, 1, 2, 3]


# The next-token loss


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 6))
def test_every_document_is_read_once(count: int, micro_steps: int, processes: int) -> None:
    shares = [
        [share_of_documents(count, step, micro_steps, process, processes) for process in range(processes)]
        for step in range(micro_steps)
    ]
    assert sorted(n for row in shares for share in row for n in share or ()) == list(range(count))
    # all read in a micro-step, or none: with sharded weights a pass needs everyone
    assert all(len({share is None for share in row}) == 1 for row in shares)


def test_labels_stand_where_the_mask_is() -> None:
    plan = Positions(settings_of_run(), TEXTS).draw(read)
    batch = documents_batch(plan, range(2), 0, torch.device("cpu"))
    for row, (text, mask) in enumerate(zip(plan.texts, plan.masks, strict=True)):
        size = len(text.ids)
        assert batch["input_ids"][row, :size].tolist() == list(text.ids)
        assert (batch["labels"][row, :size] != IGNORED).tolist() == mask.tolist()
        assert batch["labels"][row][batch["labels"][row] != IGNORED].tolist() == torch.tensor(text.ids)[mask].tolist()
        assert batch["attention_mask"][row].sum() == size
        assert (batch["labels"][row, size:] == IGNORED).all()
    assert plan.ntp_tokens == (batch["labels"] != IGNORED).sum()
    empty = documents_batch(plan, range(0), 0, torch.device("cpu"))
    assert (empty["labels"] == IGNORED).all()


def test_documents_are_read_at_temperature_one() -> None:
    """Where sampling has another temperature, TRL's fused head cannot serve."""
    model = tiny_model("qwen3", vocabulary=64)
    plan = Positions(settings_of_run(), TEXTS).draw(read)
    batch = documents_batch(plan, range(2), 0, torch.device("cpu"))
    with torch.no_grad():
        found, mask = document_logprobs(model, batch, temperature=0.5)
        for row, text in enumerate(plan.texts):
            alone = model(input_ids=torch.tensor([text.ids])).logits[0].log_softmax(-1)
            for at in range(1, len(text.ids)):
                if mask[row, at - 1]:
                    assert found[row, at - 1].item() == pytest.approx(alone[at - 1, text.ids[at]].item(), abs=1e-4)


# Rewards


def test_length_counts_for_right_answers_only_where_told() -> None:
    form = SimpleNamespace(judge=lambda answer, trunk, index: float(answer[0] == trunk[index]))
    question = SimpleNamespace(text=SimpleNamespace(ids=(3, 4)), position=SimpleNamespace(index=1), budget=4)
    asked = {"question": [question] * 3, "answer": [[4], [3], [4]], "thought_length": [4, 4, 2]}
    told: list[tuple[str, float]] = []
    expected = {False: [1.0, 1.0, 0.5], True: [1.0, 0.0, 0.5]}
    for only, wanted in expected.items():
        (match, length), weights = reward_functions(form, settings_of_run(length_weight=0.3, length_if_correct=only))  # type: ignore[arg-type]
        assert match(**asked) == [1.0, 0.0, 1.0]
        assert length(log_metric=lambda *said: told.append(said), **asked) == wanted
        assert weights == [0.7, 0.3]
    assert told == [("length_reward", pytest.approx(2.5 / 3))] * 2
    functions, weights = reward_functions(form, settings_of_run(use_budget=False))  # type: ignore[arg-type]
    assert (len(functions), weights) == (1, [1.0])


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_rl": False}, "use_rl is False; on TRL it can only be True: use rmt-mini run"),
        ({"difficulty": "loss"}, "difficulty is 'loss'; on TRL it can only be 'entropy'"),
        ({"entropy_model": "x"}, "entropy_model is 'x'"),
        ({"on_nan": "skip"}, "on_nan is 'skip'"),
        (
            {"warmup_steps": 3},
            "warmup_steps is 3; the cold start runs on one machine: give its checkpoint with --model",
        ),
    ],
)
def test_what_is_not_carried_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        require_carried(settings_of_run(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_batch": 0}, "micro_batch is 0; give a whole number of at least 1"),
        ({"micro_batch": True}, "micro_batch is True"),
        ({"lora_rank": -1}, "lora_rank is -1; give a whole number of at least 0"),
        ({"gpu_memory": 1.5}, "gpu_memory is 1.5; give a share between 0 and 1"),
        ({"server": "gpu7"}, "server is 'gpu7'; give host:port"),
        ({"nodes": 2}, "field 'nodes' is unknown; the fields are micro_batch, engine"),
    ],
)
def test_impossible_spread_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ScaleSettings.from_dict(changes)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    for missing, engine, message in (
        ("trl", "transformers", r"package 'trl' is not installed; install the extra: pip install 'rmt-mini\[scale\]'"),
        ("vllm", "vllm-colocate", "engine 'vllm-colocate' needs vLLM, which is not installed"),
        ("deepspeed", "transformers", "package 'deepspeed' is not installed, and this setup needs it"),
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
    require_same(tmp_path, both | {"scale": ScaleSettings(micro_batch=1).to_dict()})  # the spread may change
    with pytest.raises(UserError, match="holds a run with another seed \\(0\\)"):
        require_same(tmp_path, {"config": settings_of_run(seed=5).to_dict()})
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        require_same(tmp_path, both)
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(UserError, match="holds a finished run"):
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
    assert config.num_machines == setup.machines
    assert config.num_processes == setup.machines * setup.gpus
    assert (config.distributed_type == "DEEPSPEED") == (name in ("one-node", "nodes"))
    assert config.use_cpu == (name == "cpu")
    if name in ("one-node", "nodes"):
        assert config.deepspeed_config["zero_stage"] == 3


def test_configs_are_shipped() -> None:
    files = {path.name for path in CONFIGS.glob("*.yaml")}
    assert files == {setup.config for setup in SETUPS.values()}
    assert all(yaml.safe_load((CONFIGS / name).read_text())["compute_environment"] == "LOCAL_MACHINE" for name in files)


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
        assert found.num_processes == processes
        assert (found.module, found.training_script) == (True, "rmt_mini.scale.train")
        assert found.training_script_args[:3] == [name, "--changes", '{"steps": 7}']
        if machines > 1:
            assert (found.num_machines, found.machine_rank, found.main_process_ip) == (machines, rank, "10.0.0.1")
        flags = dict(zip(found.training_script_args[1::2], found.training_script_args[2::2], strict=True))
        spread = json.loads(flags.get("--scale", "{}"))
        assert spread.get("engine", "transformers") == engine
    assert (made.server is not None) == (engine == "vllm-server")
    if made.server is not None:
        assert made.server[:5] == ("env", "VLLM_SERVER_DEV_MODE=1", "vllm", "serve", config.model)
        assert "processed_logprobs" in made.server
    assert [shlex.split(line) for line in made.lines() if not line.startswith("#")] == [
        list(one) for one in ([made.server] if made.server else []) + list(made.train)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpu", "cluster"), "setup 'cluster' is unknown; use one of cpu, one-gpu, one-node, nodes"),
        (("gpu", "one-gpu", 2), "gpus is 2, and setup 'one-gpu' is for one; use --setup one-node"),
        (("paper", "one-node", 8, 2), "machines is 2, and setup 'one-node' is for one; use --setup nodes"),
    ],
)
def test_impossible_setups_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        setup_for(*arguments)


def test_command_with_gaps_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "require_installed", lambda *_: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it was started"))
    where = setup_for("paper")
    spread = scale_settings("paper", where, {})
    with pytest.raises(UserError, match="MAIN_ADDRESS is not known; give --main-address"):
        start(commands(preset("paper"), where, spread), spread)
    with pytest.raises(UserError, match="VLLM_ADDRESS is not known; give --server"):
        start(commands(preset("paper"), where, spread, "10.0.0.1"), spread)
    with pytest.raises(UserError, match="machine_rank is 2; give 0 to 1"):
        start(commands(preset("paper"), where, spread, "10.0.0.1"), spread, rank=2)


def test_rollouts_must_share_out() -> None:
    assert micro_steps(preset("paper"), micro_batch=2, processes=16) == 32
    with pytest.raises(UserError, match="the 1024 rollouts of a step do not share out evenly over 6 processes"):
        micro_steps(preset("paper"), micro_batch=2, processes=6)


def test_printing_a_command_needs_no_extra() -> None:
    code = "import rmt_mini.scale.launch, sys; print({'trl', 'accelerate', 'peft', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# The command line


def said(arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Run a command and return its exit code, what it printed, and its complaint."""
    try:
        main(arguments.split())
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_launch_prints_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said("launch gpu --seed 3 --micro-batch 4 --lora-rank 8", capsys)
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
        ("launch gpu --setup moon", "setup 'moon' is unknown"),
        ("launch gpu --engine sglang", "engine is 'sglang'; use one of"),
        ("launch gpu --gpu-memory 2", "gpu_memory is 2.0; give a share between 0 and 1"),
        ("launch gpu --micro-batch 7", "micro_batch is 7; the 512 rollouts of a step do not share out evenly"),
        ("plan gpu --gpus 1 --gpu v100", "gpu is 'v100'; use one of"),
    ],
)
def test_bad_wishes_end_in_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(arguments, capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("engine", ["vllm-colocate", "vllm-server"])
def test_vllm_that_is_absent_is_told_in_one_line(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("vllm") is not None:
        pytest.skip("vLLM is installed here")
    code, _, err = said(f"launch gpu --engine {engine} --server 127.0.0.1:8000 --run", capsys)
    assert code == 2
    assert err.strip() == (
        f"error: engine {engine!r} needs vLLM, which is not installed; pip install 'trl[vllm]' on a machine with a "
        f"GPU, or use --engine transformers"
    )


def test_plan_for_other_machines_needs_no_model_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said("plan paper --gpus 8 --machines 2 --document-tokens 512", capsys)
    assert code == 0
    assert out.startswith("simulated    deepseek-ai/DeepSeek-R1-Distill-Qwen-14B, 14.77B parameters, 16 x h100")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["gpu", "--changes", "[1]"], "--changes is '[1]'; give a JSON object"),
        (["gpu", "--changes", "{"], "--changes is '{'; give a JSON object"),
        (["gpu", "--scale", '{"x": 1}'], "field 'x' is unknown"),
        (["gpu", "--changes", '{"use_rl": false}'], "use_rl is False"),
        (["gpu", "--changes", '{"corpus": "no.txt"}'], "corpus 'no.txt' does not exist"),
    ],
)
def test_process_refuses_in_one_line(given: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        train_main(given)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
