"""What of scale needs no trainer: positions, settings, folders, commands."""

import importlib.util
import re
import shlex
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

from rmt_mini.cli import main
from rmt_mini.config import preset
from rmt_mini.errors import UserError
from rmt_mini.records import Text
from rmt_mini.scale import launch
from rmt_mini.scale.launch import CONFIGS, SETUPS, commands, require_installed, setup_for, start
from rmt_mini.scale.sampling import Positions
from rmt_mini.scale.train import Started, require_same
from rmt_mini.scale.train import main as train_main
from tests.scale.tiny import settings_of_run


def test_texts_must_have_enough_positions() -> None:
    texts = [Text("a", tuple(range(12)), 1), Text("b", tuple(range(11)), 1)]
    with pytest.raises(UserError, match="positions_per_document is 11, but the shortest text has 10"):
        Positions(settings_of_run(positions_per_document=11), texts)


FOUND = ModuleSpec("any", None, origin="a file")


@pytest.mark.parametrize(
    ("missing", "engine", "message"),
    [
        ("trl", "transformers", r"training on TRL needs the package 'trl', .*: pip install -e '.\[scale\]'"),
        ("vllm", "vllm-colocate", "engine 'vllm-colocate' needs the package 'vllm'"),
        ("deepspeed", "transformers", "this setup needs the package 'deepspeed'"),
    ],
)
def test_missing_packages_are_named(missing: str, engine: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else ModuleSpec(name, None, origin=name)
    )
    with pytest.raises(UserError, match=message):
        require_installed(engine, ["deepspeed"])


def test_only_a_folder_with_an_unfinished_run_of_these_settings_is_taken(tmp_path: Path) -> None:
    config = settings_of_run()
    require_same(tmp_path / "new", config)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')  # of the document tree, say
    with pytest.raises(UserError, match="is in use; choose another with --out"):
        require_same(tmp_path, config)
    Started(config=config, scale={}).write(tmp_path)
    require_same(tmp_path, config)
    with pytest.raises(UserError, match="has a run with another seed \\(0\\)"):
        require_same(tmp_path, config.replace(seed=5))
    (tmp_path / "checkpoint").mkdir()
    with pytest.raises(UserError, match="has a finished run"):
        require_same(tmp_path, config)


@pytest.mark.parametrize("name", SETUPS)
def test_accelerate_takes_each_config(name: str) -> None:
    setup = setup_for("", name)
    config = load_config_from_file(str(CONFIGS / setup.config))
    assert (config.num_machines, config.num_processes) == (setup.machines, setup.machines * setup.gpus)
    assert config.use_cpu == (name == "cpu")
    if name in ("one-node", "nodes"):
        assert config.distributed_type == "DEEPSPEED"
        assert config.deepspeed_config["zero_stage"] == 3


@pytest.mark.parametrize(
    ("arguments", "processes", "script"),
    [
        ("gpu --seed 3 --lora-rank 8", 1, ["gpu", "--changes", '{"seed": 3}', "--scale", '{"lora_rank": 8}']),
        ("paper --setup one-node", 8, ["paper", "--scale", '{"micro_batch": 4, "engine": "vllm-colocate", ']),
        ("paper --main-address A --server V:8", 16, ["paper", "--scale", '{"engine": "vllm-server", "server": "V:8"}']),
    ],
)
def test_commands_are_those_that_accelerate_reads(
    arguments: str, processes: int, script: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["launch", *arguments.split()])
    lines = capsys.readouterr().out.splitlines()
    made = dict(zip(lines[::2], map(shlex.split, lines[1::2]), strict=True))
    server = made.pop("# on the node that samples:", None)
    assert [*made] == (["# here:"] if processes < 16 else ["# on training node 0:", "# on training node 1:"])
    for rank, command in enumerate(made.values()):
        assert command[:2] == ["accelerate", "launch"]
        found = launch_command_parser().parse_args(command[2:])  # unknown flags end the test
        assert (found.num_processes, found.module, found.training_script) == (processes, True, "rmt_mini.scale.train")
        assert len(found.training_script_args) == len(script)
        assert all(map(str.startswith, found.training_script_args, script))
        if server:
            assert (found.num_machines, found.machine_rank, found.main_process_ip) == (2, rank, "A")
    if server:
        assert server[:5] == ["env", "VLLM_SERVER_DEV_MODE=1", "vllm", "serve", preset("paper").model]
        assert server[server.index("--weight-transfer-config") + 1] == '{"backend": "nccl"}'
    assert (server is not None) == (processes == 16)


@pytest.mark.parametrize(
    ("address", "rank", "message"),
    [
        ("", 0, "MAIN_ADDRESS is not known; give --main-address"),
        ("10.0.0.1", 1, "VLLM_ADDRESS is not known; give --server"),
        ("10.0.0.1", 2, "machine_rank is 2; give 0 to 1"),
    ],
)
def test_command_with_gaps_is_not_started(
    address: str, rank: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "require_installed", lambda *_: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it was started"))
    where = setup_for("paper")
    with pytest.raises(UserError, match=message):
        start(commands(preset("paper"), where, address), where, rank)


def test_printing_a_command_needs_no_extra() -> None:
    code = "import rmt_mini.scale.launch, sys; print({'trl', 'accelerate', 'peft', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("launch laptop", "warmup_steps is 16; the cold start runs on one machine"),
        ("launch gpu --no-use-rl", "use_rl is False; on TRL it can only be True: use rmt-mini run"),
        ("launch gpu --setup moon", "setup 'moon' is unknown; use one of cpu, one-gpu, one-node, nodes"),
        ("launch gpu --gpus 2", "gpus is 2, and setup 'one-gpu' is for one; use --setup one-node"),
        ("launch paper --setup one-node --machines 2", "machines is 2, and setup 'one-node' is for one; use --setup n"),
        ("launch gpu --server gpu7", "server is 'gpu7'; give host:port"),
        ("launch gpu --dtype float64", "dtype is 'float64', and TRL computes in float32 or bfloat16 here"),
        ("launch micro --setup cpu --dtype bfloat16", "dtype is 'bfloat16', and TRL computes in float32 here"),
        ("launch gpu --gpu-memory 0.5", "gpu_memory is of use with engine 'vllm-colocate' only"),
        ("launch gpu --main-address 10.0.0.1", "main_address is of use with several machines only"),
        ("launch paper --gpus 3 --micro-batch 2", "micro_batch is 2; the 1024 rollouts .* evenly over 6 processes"),
        ("plan gpu --gpus 1 --gpu v100", "gpu is 'v100'; use one of a100, h100, h200"),
        ("plan gpu --gpus 1 --way fsdp", "way is 'fsdp'; use one of tree, trl, trl-vllm"),
        ("plan gpu --gpus 8 --way tree", "way is 'tree'; use one of trl, trl-vllm"),
        ('process gpu --scale {"x":1}', "field 'x' is unknown"),
        ('process gpu --changes {"corpus":"no.txt"}', "corpus 'no.txt' does not exist"),
    ],
)
def test_bad_wishes_end_in_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *rest = arguments.split()
    with pytest.raises(SystemExit) as stop:
        train_main(rest) if command == "process" else main([command, *rest])
    out, err = capsys.readouterr()
    assert (stop.value.code, out) == (2, "")
    assert re.match(f"error: {message}", err)
    assert len(err.strip().splitlines()) == 1
