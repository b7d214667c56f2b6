"""What tests of runs share: figures left out, a network that is cut, an unbroken run to compare with."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rmt_mini.report.plots import Figured
from rmt_mini.runs.run import run
from tests.runs.test_run import settings


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Leave figures out: ``test_run.py`` and tests of reports draw them, and they take half of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figured, "png", lambda _: b"")
        yield


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a network is used."""

    def cut(*_: object, **__: object) -> None:
        raise AssertionError("a network is used")

    monkeypatch.setattr(socket, "getaddrinfo", cut)
    monkeypatch.setattr(socket.socket, "connect", cut)


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of six steps that nothing befell."""
    folder = tmp_path_factory.mktemp("unbroken")
    run(settings(folder, steps=6), progress=False)
    return folder / "run"
