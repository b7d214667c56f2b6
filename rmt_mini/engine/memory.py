"""Keep memory that was freed, for the next tensor of its size; and measure memory.

glibc maps every block above 32 MB from the system and hands it back as soon as it is freed. A step makes and drops such
blocks by the dozen, and touching a fresh one costs a page fault every 4 KB. Kept, they make an update a fifth faster.
"""

import ctypes
import sys
from contextlib import suppress
from typing import Any, NamedTuple

import psutil
import torch

ACTIVATION_NUMBERS = 34  # kept for backward per token, layer and hidden unit

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of <malloc.h>
SETTINGS = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, 2**31 - 1), (M_TOP_PAD, 2**28))
NO_GLIBC = (OSError, AttributeError, TypeError)  # TypeError: Windows has no library without a name


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed memory in the process; returns whether it accepts, as only glibc does."""
    with suppress(*NO_GLIBC):
        return all(ctypes.CDLL(None).mallopt(name, value) for name, value in SETTINGS)
    return False


def free_memory(device: torch.device) -> tuple[int, int]:
    """Return free and total memory, bytes: of a GPU, or of the machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    found = psutil.virtual_memory()
    return found.available, found.total


class Size(NamedTuple):
    """A model's size."""

    parameters: int
    layers: int
    hidden: int
    cached: int  # numbers in the key/value cache of one token


def measure(model: Any) -> Size:
    """Return the size of a model, which may be on the meta device."""
    shape = model.config.get_text_config()
    layers, hidden, heads = shape.num_hidden_layers, shape.hidden_size, shape.num_attention_heads
    key_heads = getattr(shape, "num_key_value_heads", None) or heads
    cached = 2 * layers * key_heads * (getattr(shape, "head_dim", None) or hidden // heads)
    return Size(model.num_parameters(), layers, hidden, cached)


def activation_bytes(tokens: float, size: Size, width: int) -> float:
    """Return the memory that a backward pass over ``tokens`` keeps, at ``width`` bytes a number."""
    return tokens * size.layers * size.hidden * ACTIVATION_NUMBERS * width


def chunk_tokens(model: Any, tokens: int) -> int:
    """Return how many tokens to read at once: on a GPU up to four times ``tokens``, in a quarter of its free memory.

    The rest is for keys and values of the texts before the branches, which fused attention copies for each of them.
    """
    device = model.device
    if device.type != "cuda":
        return tokens
    free = free_memory(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    each = activation_bytes(1, measure(model), model.dtype.itemsize)
    return min(4 * tokens, max(tokens, int(free / 4 / each)))


def resident_memory() -> int:
    """Return the memory that this process holds now, bytes."""
    return int(psutil.Process().memory_info().rss)


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory used so far, MB: of the GPU if ``device`` is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
