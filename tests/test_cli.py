from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rmt_mini.cli import _group, main
from rmt_mini.config import PRESETS, RMTConfig
from tests.fakes import make_tiny_policy

FIELDS = [field.name for field in dataclasses.fields(RMTConfig) if field.name != "preset"]
STORY = "\n\n\n".join(f"Tale {n}. The cat sat on the mat and the dog ran {n} times around it." for n in range(6))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model."""
    folder = tmp_path_factory.mktemp("model")
    policy = make_tiny_policy()
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "story.txt").write_text(STORY)
    return tmp_path


def outcome(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, list[str]]:
    """Exit code, output, and lines of stderr."""
    code = 0
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    caught = capsys.readouterr()
    return code, caught.out, caught.err.splitlines()


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(arguments: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(here)
    code, out, lines = outcome(arguments, capsys)
    assert (code, out) == (2, "")
    lines = [line for line in lines if line and not line.startswith("Loading weights: ")]  # a bar of transformers
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert re.search(words, lines[0]), lines[0]
    assert files(here) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "huge"], r"preset 'huge' is unknown; use one of .*laptop"),
        (["run", "--stepz", "3"], r"--stepz.*--steps"),
        (["run", "--steps", "0"], r"steps is 0; give a whole number"),
        (["run", "--steps", "many"], r"--steps.*'many' is not a valid integer"),
        (["run", "--steps", "2.5"], r"--steps.*'2.5'"),
        (["run", "--learning-rate", "fast"], r"--learning-rate.*'fast'"),
        (["run", "--learning-rate", "nan"], r"learning_rate is nan; give a number above 0"),
        (["run", "--tier-thresholds", "3", "1"], r"tier_thresholds is \(3.0, 1.0\); .*smaller first"),
        (["run", "--tier-thresholds", "3"], r"--tier-thresholds.*2"),
        (["run", "--tier-probs-late", "1", "1", "1"], r"tier_probs_late is .*sum to 1"),
        (["run", "--loss-per", "step"], r"loss_per is 'step'; use one of token, rollout"),
        (["run", "--no-use-rl", "--no-use-ntp"], r"use_ntp is False; .*nothing would train"),
        (["run", "--no-use-rl", "--ntp-weight", "0"], r"ntp_weight is 0.0; use_rl is off, so nothing would train"),
        (["run", "--temperature", "1e-42"], r"temperature is 1e-42; give a number of at least 0.001"),
        (["preflight", "--group-size", "1"], r"group_size is 1; "),
        (["plan", "--gpu", "a100"], r"--gpu describes GPUs elsewhere; give --gpus as well"),
        (["plan", "--machines", "2"], r"--machines describes GPUs elsewhere; give --gpus as well"),
        (["compare", "--report-only", "--arms", "rmt"], r"--report-only .*leave out --arms"),
        (["launch", "gpu", "--main-address", "a"], r"main_address is of use with several machines only"),
        (["launch", "gpu", "--machine-rank", "0"], r"--machine-rank is of use with --run only"),
        (["launch", "gpu", "--server", "a:1"], r"server is of use with engine 'vllm-server' only"),
        (["launch", "gpu", "--gpu-memory", "0.5"], r"gpu_memory is of use with engine 'vllm-colocate' only"),
        (["launch", "gpu", "--evaluation-positions", "9"], r"evaluation_positions has no effect on TRL"),
        (["launch", "gpu", "--device", "cpu"], r"device has no effect on TRL"),
        (["plan", "--dtype", "int8"], r"dtype is 'int8'; use one of"),
        (["run", "laptop", "more"], r"unexpected extra argument"),
        (["fly"], r"No such command 'fly'"),
        (["evaluate"], r"Missing argument 'CHECKPOINT'"),
        (["pretrain", "earth"], r"'earth' is not 'micro'"),
        (["pretrain", "--hidden-size", "101"], r"hidden_size is 101; give an even multiple of heads \(5\)"),
        (["pretrain", "--steps", "0"], r"steps is 0; give a whole number of at least 1"),
        (["pretrain", "--learning-rate", "-1"], r"learning_rate is -1.0; give a number above 0"),
        (["posttrain", "micro", "--count", "1"], r"--count.*1 is not in the range"),
        (["compare", "huge"], r"preset 'huge' is unknown"),
        (["compare", "micro", "--arms", "rmt,rlhf"], r"arm 'rlhf' is unknown; the arms are ntp, .*rmt-shuffled-reward"),
        (["compare", "micro", "--seeds", "0"], r"--seeds.*0 is not in the range x>=1"),
        (["compare", "micro", "--report-only", "--out", "absent"], r"'absent' holds no comparison; give the folder of"),
        (["compare", "micro", "--model", "absent-model"], r"model 'absent-model' is neither a folder nor a known name"),
        (["plan", "micro", "--interval", "0"], r"--interval.*0.0 is not in the range 0<x<=1"),
        (["sensitivity", "micro", "--fields", "steps"], r"setting 'steps' is not varied here; those that are: budget_"),
        (["run", "--difficulty", "taste"], r"difficulty is 'taste'; use one of entropy, loss, pass-rate"),
        (["run", "--budget-rule", "mood"], r"budget_rule is 'mood'; use one of step, entropy"),
        (["run", "--evaluation-thresholds", "2", "1"], r"evaluation_thresholds is \(2.0, 1.0\); .*smaller first"),
        (["exams", "absent"], r"'absent' holds no comparison"),
        (["seeds", "--out", "all"], r"Missing argument 'RUNS"),
        (["seeds", "absent", "--out", "all"], r"'absent' is not a run folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_flags_are_one_line(
    arguments: list[str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(arguments, words, here, capsys)


def _make(name: str, content: bytes) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return name

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: "absent.txt", r"corpus 'absent.txt' does not exist in the current folder; give"),
        (_make("empty.txt", b""), r"corpus 'empty.txt' holds no text; give one that does"),
        (_make("short.txt", b"Hi.\n\n\nHo."), r"none of the 1 training documents has min_document_tokens \(48\)"),
        (_make("latin.txt", b"caf\xe9 " * 20), r"corpus file 'latin.txt': byte 3 is not UTF-8; save it as UTF-8"),
        (_make("one.txt", b"word " * 40), r"fewer than 2 different documents"),
        (_make("book.pdf", b"%PDF"), r"corpus 'book.pdf' is neither .txt nor .jsonl"),
        (_make("bad.jsonl", b"{'text': 1}"), r"corpus file 'bad.jsonl' line 1 is not JSON"),
    ],
    ids=["absent", "empty", "short", "latin1", "one-document", "pdf", "not-json"],
)
def test_a_bad_text_file_is_one_line(
    make: Callable[[Path], str], words: str, here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["preflight", "--model", model, "--corpus", make(here)], words, here, capsys)


def test_documents_below_min_document_tokens_are_one_line(
    here: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["preflight", "--model", model, "--corpus", "story.txt", "--document-tokens", "300"]
    arguments += ["--min-document-tokens", "200"]
    refused(arguments, r"none of the . training documents has min_document_tokens \(200\)", here, capsys)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: "absent-model", r"model 'absent-model' is neither a folder nor a known name"),
        (lambda _: "./absent", r"model './absent' is neither a folder"),
        (lambda here: _folder(here, {}), r"model folder 'm' has no config.json"),
        (lambda here: _folder(here, {"config.json": "{}"}), r"model folder 'm' holds no weights"),
        (
            lambda here: _folder(here, {"config.json": "{", "model.safetensors": ""}),
            r"model 'm' cannot be opened \(.*\); check the folder",
        ),
    ],
    ids=["name", "path", "no-config", "no-weights", "broken"],
)
def test_a_bad_model_is_one_line(
    make: Callable[[Path], str], words: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["plan", "--model", make(here)], words, here, capsys)


def _folder(here: Path, contents: dict[str, str]) -> str:
    (here / "m").mkdir()
    for name, text in contents.items():
        (here / "m" / name).write_text(text)
    return "m"


def test_an_output_folder_in_use_is_not_touched(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "metrics.jsonl").write_text("precious")
    arguments = ["run", "--model", model, "--corpus", "story.txt", "--out", "mine"]
    refused(arguments, r"output folder 'mine' is in use; choose another with --out", here, capsys)


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="POSIX paths")
def test_an_output_folder_under_a_file_is_one_line(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--model", model, "--corpus", "story.txt", "--out", "story.txt/run"]
    refused(arguments, r"output folder 'story.txt/run' cannot be written", here, capsys)


@pytest.mark.parametrize("target", ["absent", "."])
def test_what_is_no_run_cannot_be_evaluated(target: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["evaluate", target], rf"'{re.escape(target)}' is not a checkpoint of a run", here, capsys)


def test_a_device_that_is_not_there_is_one_line(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["plan", "--model", model, "--device", "toaster"], r"device 'toaster'", here, capsys)


@pytest.mark.parametrize("command", ["run", "compare", "sensitivity", "preflight", "plan"])
def test_help_lists_every_field_and_preset(command: str) -> None:
    result = CliRunner().invoke(_group(), [command, "--help"], terminal_width=200)
    assert result.exit_code == 0
    for name in FIELDS:
        assert re.search(rf"--{name.replace('_', '-')}\b", result.output), name
    for name in PRESETS:
        assert name in result.output


def test_the_help_of_the_group_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = outcome(["--help"], capsys)
    assert code == 0
    names = "pretrain run compare sensitivity exams posttrain preflight plan launch evaluate seeds bench"
    for name in names.split():
        assert re.search(rf"^  {name} ", out, re.MULTILINE)
        assert outcome([name, "--help"], capsys)[0] == 0


def test_flags_reach_the_config(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from rmt_mini import cli

    seen: list[RMTConfig] = []
    monkeypatch.setattr(cli, "_config", _spy(cli._config, seen))
    monkeypatch.setattr("rmt_mini.engine.model.load_policy", _stop)
    flags = ["--steps", "7", "--tier-thresholds", "0.5", "2", "--no-use-curriculum", "--length-if-correct"]
    with pytest.raises(RuntimeError, match="stopped"):
        main(["plan", "gpu", *flags, "--model", "x/y"])
    (config,) = seen
    assert (config.preset, config.steps, config.tier_thresholds) == ("gpu", 7, (0.5, 2.0))
    assert (config.use_curriculum, config.length_if_correct, config.use_ntp) == (False, True, True)
    assert config.budget_start == PRESETS["gpu"]["budget_start"]


def _spy(function: Callable[..., RMTConfig], seen: list[RMTConfig]) -> Callable[..., RMTConfig]:
    def spied(*args: Any) -> RMTConfig:
        seen.append(function(*args))
        return seen[-1]

    return spied


def _stop(*_: Any) -> None:
    raise RuntimeError("stopped")


def test_plan_prints_time_and_memory(here: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(here)
    sizes = ["--steps", "5", "--documents-per-step", "2", "--positions-per-document", "8", "--group-size", "7"]
    code, out, _ = outcome(["plan", "--model", model, *sizes, "--dtype", "float32"], capsys)
    assert code == 0
    assert "560 in RMT" in out
    assert re.search(r"time +about [\d.]+ min", out)
    assert re.search(r"memory +about [\d.]+ GB", out)
    assert re.search(r"interval +a difference of two arms within 6.8 points \(1 seed\)", out)  # 1.96 x 0.54 / 240^0.5
    assert "wished" not in out
    code, out, _ = outcome(["plan", "--model", model, "--interval", "0.03", "--dtype", "float32"], capsys)
    assert "3.0 points either way take 1,245 positions (1 seed), 415 (3 seeds), 249 (5 seeds)" in out
    assert files(here) == before


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(28, "No space left"), 2)])
def test_interruption_and_a_full_disk_end_in_one_line(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("rmt_mini.engine.model.load_policy", fail)
    found, out, lines = outcome(["plan"], capsys)
    lines = [line for line in lines if line]  # click ends the line of ^C first
    assert (found, out, len(lines)) == (code, "", 1)
    assert lines[0] == "Interrupted." if code == 130 else lines[0].startswith("error: no space left")


@pytest.mark.parametrize("how", [["-m", "rmt_mini"], ["-m", "rmt_mini.cli"]])
def test_python_m_is_the_command(how: list[str]) -> None:
    done = subprocess.run([sys.executable, *how, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"rmt-mini {importlib.metadata.version('rmt-mini')}\n")
    done = subprocess.run([sys.executable, *how, "run", "huge"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: preset 'huge' is unknown")


def test_a_flag_for_a_single_run_is_refused_for_a_comparison(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "compared").mkdir()
    (here / "compared" / "compare.json").write_text("{}")
    refused(["resume", "compared", "--on-nan", "skip"], "on_nan is of use with a single run", here, capsys)
