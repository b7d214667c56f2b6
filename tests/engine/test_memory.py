import ctypes
import os
import platform
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rmt_mini.engine.memory import ACTIVATION_NUMBERS, chunk_tokens, keep_freed_memory, peak_memory_mb


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


def test_a_gpu_reads_as_many_tokens_at_once_as_a_quarter_of_its_free_memory_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    each = 30 * 576 * ACTIVATION_NUMBERS * 2  # bytes a token, of SmolLM2-135M in bfloat16
    shape = SimpleNamespace(num_hidden_layers=30, hidden_size=576, num_attention_heads=9)
    config = SimpleNamespace(get_text_config=lambda: shape)
    model = SimpleNamespace(device=torch.device("cuda"), dtype=torch.bfloat16, config=config, num_parameters=lambda: 0)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * each)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: each)
    for free, tokens in ((0, 100), (4 * 150 * each - 2 * each, 150), (10**6 * each, 400)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10**12))
        assert chunk_tokens(model, 100) == tokens
    model.device = torch.device("cpu")
    assert chunk_tokens(model, 100) == 100
