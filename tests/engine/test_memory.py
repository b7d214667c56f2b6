from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rmt_mini.engine.memory import keep_freed_memory, peak_memory_mb


def test_the_c_library_accepts() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize("found", [lambda name: object(), lambda name: os.stat("/no/library")])
def test_other_libraries_are_left_as_they_are(found: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", found)
    assert keep_freed_memory() is False


def test_peak_memory_is_that_of_the_device_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on the CPU of a machine with a GPU reports its process, not the idle GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {"cuda:1": 7e6}[str(device)])
    assert peak_memory_mb(torch.device("cuda:1")) == 7
    assert peak_memory_mb(torch.device("cpu")) > 50
