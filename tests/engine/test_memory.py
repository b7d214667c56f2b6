from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from rmt_mini.engine import memory
from rmt_mini.engine.memory import keep_freed_memory

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
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False

    def refused(name: object) -> object:
        raise OSError("no library")

    monkeypatch.setattr(ctypes, "CDLL", refused)
    assert keep_freed_memory() is False
