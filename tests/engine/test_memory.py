from __future__ import annotations

import ctypes
import mmap
import os
import platform
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rmt_mini.engine.memory import free_memory, keep_freed_memory, peak_memory_mb, resident_memory


def test_the_c_library_accepts() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


@pytest.mark.parametrize("found", [lambda name: object(), lambda name: os.stat("/no/library")])
def test_other_libraries_are_left_as_they_are(found: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", found)
    assert keep_freed_memory() is False


def test_memory_of_machine_and_process() -> None:
    free, total = free_memory()
    assert 0 < free <= total
    held = resident_memory()
    with mmap.mmap(-1, 50_000_000) as block:  # fresh from the kernel, whatever malloc has to spare
        block.write(b"x" * len(block))
        assert 40_000_000 < resident_memory() - held < 150_000_000


def test_peak_memory_is_that_of_the_device_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run on the CPU of a machine with a GPU reports its process, not the idle GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: {"cuda:1": 7e6}[str(device)])
    assert peak_memory_mb(torch.device("cuda:1")) == 7
    assert peak_memory_mb(torch.device("cpu")) > 50
