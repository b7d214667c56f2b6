"""What comes from elsewhere is data: nothing is unpickled, no code of a model runs, and nothing is sent."""

import ast
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rmt_mini.engine.model import load_policy
from rmt_mini.errors import UserError
from rmt_mini.runs.run import run
from tests.fakes import make_tiny_policy
from tests.runs.test_run import save, settings
from tests.test_cli import outcome

ROOT = Path(__file__).resolve().parents[2]

# Weights


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save(make_tiny_policy(), tmp_path / "model")
    return tmp_path / "model"


def arm(model: Path, mark: Path) -> None:
    """Put pickles that act beside the model's files, under all the names that transformers looks for."""
    torch.save(Bomb(mark), model / "pytorch_model.bin")
    (model / "model.pkl").write_bytes(pickle.dumps(Bomb(mark)))
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model.bin"}}
    (model / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_a_pickle_that_acts_is_not_opened(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "executed"
    arm(model, mark)
    weights = torch.load(model / "pytorch_model.bin", weights_only=False)  # the bomb works
    assert (weights, mark.is_dir()) == (None, True)
    mark.rmdir()
    assert load_policy(str(model), "cpu").parameters  # there are safetensors beside it
    (model / "model.safetensors").unlink()
    for command in ("plan", "posttrain"):
        arguments = ["--model", str(model)] if command == "plan" else [str(model)]
        code, out, lines = outcome([command, *arguments], capsys)
        said = [line for line in lines if line and not line.startswith("Loading weights")]
        assert (code, out, len(said)) == (2, "", 1)
        assert re.search(r"^error: model folder '.*model' holds no weights \(\*\.safetensors\)", said[0])
    (model / "model.safetensors").write_bytes((model / "pytorch_model.bin").read_bytes())  # under a false name
    with pytest.raises(UserError, match="cannot be opened"):
        load_policy(str(model), "cpu")
    assert not mark.exists()


def test_nothing_that_is_read_is_executed_and_every_text_file_names_its_encoding() -> None:
    rules = "S102,S301,S302,S307,S403,S602,S604,S605,PLW1514"  # exec, pickle, eval, shells; open without encoding
    where = ["rmt_mini", "--extend-exclude", "rmt_mini/teaching/checks"]  # a check executes the student's own code
    command = [sys.executable, "-m", "ruff", "check", "--preview", "--isolated", "--select", rules, *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for path in (ROOT / "rmt_mini").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert called not in ("torch.load", "np.load"), path
                usual = "left to a question" if called.endswith(".from_pretrained") else "False"
                assert given.get("trust_remote_code", usual) == "False", f"{path}: {called}"


# Code of a model


@pytest.mark.parametrize("known", [True, False], ids=["an architecture transformers knows", "one it does not"])
def test_a_models_own_code_does_not_run(
    known: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "executed"
    acting = f"import os\nos.mkdir({str(mark)!r})\n"
    (model / "modeling_own.py").write_text(
        acting + "from transformers import LlamaConfig as Shape, LlamaModel as Own\n"
    )
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "modeling_own.Shape", "AutoModelForCausalLM": "modeling_own.Own"}
    if not known:
        config |= {"model_type": "own", "architectures": ["Own"]}
    (model / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # what a hasty user types at transformers' question
    if known:
        assert load_policy(str(model), "cpu").parameters
    else:
        code, out, lines = outcome(["plan", "--model", str(model)], capsys)
        assert (code, out) == (2, "")
        (line,) = lines
        assert line.endswith("a model's own code is never executed")
    assert not mark.exists()


# The network


def test_a_run_talks_to_no_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def refused(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("no network")

    config = settings(tmp_path, steps=1)
    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, refused)
    run(config, progress=False)
    assert tried == []


@pytest.mark.parametrize(("chosen", "off"), [(None, True), ("0", False)])
def test_telemetry_is_off_unless_it_is_asked_for(chosen: str | None, off: bool) -> None:
    code = "import rmt_mini; from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    kept = {name: value for name, value in os.environ.items() if not re.search("TELEMETRY|DO_NOT_TRACK", name)}
    env = kept | ({} if chosen is None else {"HF_HUB_DISABLE_TELEMETRY": chosen})
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(off), done.stderr


@pytest.mark.parametrize("chosen", [None, "active"])
def test_threads_that_wait_give_up_their_core_unless_the_user_chose(chosen: str | None) -> None:
    code = "import os, sys, rmt_mini.cli; print('torch' in sys.modules, *map(os.getenv, sys.argv[1:]))"
    names = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
    env = {name: value for name, value in os.environ.items() if name not in names}
    env |= {} if chosen is None else {"OMP_WAIT_POLICY": chosen}
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, env=env, capture_output=True, text=True)
    expected = [chosen, "None"] if chosen else ["passive", "1000"]
    assert done.stdout.split() == ["False", *expected], done.stderr  # torch reads them when it is loaded


# Notebooks on loopback, behind a token


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_the_lab_listens_to_this_machine_alone_and_keeps_its_token() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of make test
    made = ["make", "-n", "lab", f"VENV={sys.prefix}"]
    done = subprocess.run(made, cwd=ROOT, env=env, capture_output=True, text=True)
    command = done.stdout.strip().splitlines()[-1]
    assert "jupyterlab" in command
    assert "--ServerApp.ip=127.0.0.1" in command
    assert not re.search(r"token|password|0\.0\.0\.0|ip=['\"]?\*|allow_remote|disable_check_xsrf|allow_origin", command)
