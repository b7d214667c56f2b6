from __future__ import annotations

import ctypes
import mmap
import platform
import subprocess
import sys

import pytest
import torch

from rmt_mini.engine.memory import free_memory, keep_freed_memory, peak_memory_mb, resident_memory

FAULTS = """
import resource, torch
from rmt_mini.engine.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
for _ in range(12):
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    """Ten blocks of 64 MB one after another: without it each is mapped and touched anew."""
    found = {}
    for keep in (False, True):
        done = subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, text=True)
        found[keep] = int(done.stdout)
    assert found[True] < 0.2 * found[False]


def test_other_libraries_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False

    def refused(name: object) -> object:
        raise OSError("no library")

    monkeypatch.setattr(ctypes, "CDLL", refused)
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
