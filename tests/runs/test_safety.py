"""What comes from elsewhere is data: nothing is unpickled, no code of a model runs; and no one is told anything."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import shlex
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rmt_mini.engine.model import load_policy
from rmt_mini.errors import UserError
from rmt_mini.report.plots import Figured
from rmt_mini.runs.run import run
from tests.fakes import make_tiny_policy
from tests.lab_process import lab_process
from tests.runs.test_run import settings
from tests.test_cli import outcome

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "rmt_mini").rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]

# Weights


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    policy = make_tiny_policy()
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return folder


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
    assert load_policy(str(model), "cpu").parameters  # safetensors stand beside it
    (model / "model.safetensors").unlink()
    for command in ("plan", "posttrain"):
        arguments = ["--model", str(model)] if command == "plan" else [str(model)]
        code, out, lines = outcome([command, *arguments], capsys)
        told = [line for line in lines if line and not line.startswith("Loading weights")]
        assert (code, out, len(told)) == (2, "", 1)
        assert re.search(r"^error: model folder '.*model' holds no weights \(\*\.safetensors\)", told[0])
    (model / "model.safetensors").write_bytes((model / "pytorch_model.bin").read_bytes())  # under a false name
    with pytest.raises(UserError, match="cannot be opened"):
        load_policy(str(model), "cpu")
    assert not mark.exists()


PICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}


def unsafe(source: str) -> list[str]:
    """Return what in a module could execute what it reads."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
            found += [module for module in modules if module.split(".")[0] in PICKLING]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("torch.load", "eval", "exec", "os.system", "np.load", "numpy.load", "runpy.run_path"):
                found.append(called)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if given.get("trust_remote_code", "False") != "False" or given.get("shell", "False") != "False":
                found.append(f"{called} {given}")
            if called.endswith(".from_pretrained") and given.get("trust_remote_code") != "False":
                found.append(f"{called} leaves trust_remote_code to a question on the terminal")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from joblib import load", "def f():\n    import dill as d", "torch.load('x')", "eval('1')",
        "AutoModel.from_pretrained('x')", "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "load_dataset('x', trust_remote_code=flag)", "subprocess.run('ls', shell=True)",
    ],
)  # fmt: skip
def test_what_executes_is_seen(source: str) -> None:
    assert unsafe(source)


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_nothing_that_is_read_is_executed(path: Path) -> None:
    assert unsafe(path.read_text(encoding="utf-8")) == []


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
        assert line.endswith("needs code of its own, which is never executed; choose one that transformers knows")
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
    monkeypatch.setattr(Figured, "png", lambda _: b"")
    run(config, progress=False)
    assert tried == []


@pytest.mark.parametrize(("chosen", "off"), [(None, True), ("0", False), ("1", True)])
def test_telemetry_is_off_unless_it_is_asked_for(chosen: str | None, off: bool) -> None:
    code = "import rmt_mini; from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    kept = {name: value for name, value in os.environ.items() if not re.search("TELEMETRY|DO_NOT_TRACK", name)}
    env = kept | ({} if chosen is None else {"HF_HUB_DISABLE_TELEMETRY": chosen})
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(off), done.stderr


# Files


def unencoded(source: str) -> list[str]:
    """Return the calls that read or write text in whatever encoding the machine happens to have."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        given = {keyword.arg for keyword in node.keywords}
        mode = "".join(str(one.value) for one in node.args if isinstance(one, ast.Constant))
        fixed = "encoding" in given or ("b" in mode and name in ("open", "fdopen")) or "utf-8" in mode
        system = ast.unparse(node.func) in ("os.open", "zipfile.ZipFile.open")
        text = name in ("open", "fdopen", "read_text", "write_text") and not system
        if (text and not fixed) or (given & {"text", "universal_newlines"} and "encoding" not in given):
            found.append(ast.unparse(node))
    return found


def test_an_encoding_left_out_is_seen() -> None:
    for source in ("open('x')", "path.open('w')", "path.read_text()", "path.write_text(t)", "run(c, text=True)"):
        assert unencoded(source), source
    for source in ("path.open('rb')", "path.read_text(encoding='utf-8')", "path.read_text('utf-8')", "os.open(p, 0)"):
        assert not unencoded(source), source


@pytest.mark.parametrize("path", SOURCES, ids=NAMES)
def test_every_text_file_names_its_encoding(path: Path) -> None:
    assert unencoded(path.read_text(encoding="utf-8")) == []


# Notebooks on loopback, behind a token


def lab_command(*arguments: str) -> str:
    """Return the command that ``make lab`` would run with this interpreter's environment."""
    if not shutil.which("make"):
        pytest.skip("make is not installed")
    command = ["make", "-n", "lab", f"VENV={sys.prefix}", f"ARGS={' '.join(arguments)}"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of make test
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_lab_listens_to_this_machine_alone_and_keeps_its_token() -> None:
    command = lab_command()
    assert "jupyterlab" in command
    assert "--ServerApp.ip=127.0.0.1" in command
    assert not re.search(r"token|password|0\.0\.0\.0|ip=['\"]?\*|allow_remote|disable_check_xsrf|allow_origin", command)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A lab as ``make lab`` starts it, without a browser: its port, and all that it said."""
    with lab_process(shlex.split(lab_command("--no-browser", "--allow-root")), tmp_path, ROOT) as started:
        yield started


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def listening(port: int) -> set[str]:
    """Return the addresses on which something listens at a port, as /proc writes them."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            address, state = line.split()[1], line.split()[3]
            host, _, number = address.partition(":")
            if state == "0A" and int(number, 16) == port:
                found.add(host)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_the_lab_answers_those_who_know_its_token(lab: tuple[int, str]) -> None:
    port, said = lab
    token = re.search(r"token=([0-9a-f]{32,})", said)
    assert token, said
    api = f"http://127.0.0.1:{port}/api/contents"
    assert status(api) == 403
    assert status(f"{api}?token=") == 403
    assert status(f"{api}?token={token[1]}") == 200
    assert listening(port) == {"0100007F"}  # 127.0.0.1
