"""Exceptions and log lines for the user, and how full disks and exhausted memory are recognised.

Both come in many forms: Python's exceptions, PyTorch's RuntimeError, or, where compiled code writes a file
(safetensors, tokenizers), an exception of its own with the system's error number in its text.
"""

import errno
import importlib.util
import logging
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger("rmt_mini")  # of all rooms: what a user may want to know, though nothing is wrong


class UserError(Exception):
    """Say in one line what is wrong, where, and the remedy; the command line exits with code 2."""


@contextmanager
def refusing(found: str, remedy: str) -> Iterator[None]:
    """Turn any error of another program in this block into a UserError of what was found, why, and a remedy."""
    try:
        yield
    except Exception as error:  # a broken file, an unknown architecture or a network may raise any error
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise UserError(f"{found} ({reason}); {remedy}") from error


def require_package(name: str, user: str, remedy: str) -> None:
    """Raise a UserError that names who needs a package that is not installed."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:  # a folder ./wandb is no package
        raise UserError(f"{user} needs the package {name!r}, which is not installed; install it: {remedy}")


class NonFiniteError(UserError):
    """A loss or a gradient is NaN or infinite; the message names it. The weights have not been touched.

    ``can_skip``: the step may be left out, since the weights themselves are not at fault.
    """

    def __init__(self, message: str, can_skip: bool = False) -> None:
        super().__init__(message)
        self.can_skip = can_skip


class Stopped(Exception):
    """A run or a comparison in this folder was stopped on request; ``rmt-mini resume`` continues it."""

    def __init__(self, folder: str) -> None:
        super().__init__(f"stopped; to go on: {resume_command(folder)}")


def resume_command(folder: str) -> str:
    """Return the command that continues a run, with the folder quoted where needed."""
    quoted = subprocess.list2cmdline([folder]) if os.name == "nt" else shlex.quote(folder)
    return f"rmt-mini resume {quoted}"


FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))  # disk, longest file, quota
FULL_TO_THE_SYSTEM = (112, 39) if os.name == "nt" else FULL


def disk_full(error: BaseException) -> bool:
    """Return whether a write failed because no space was left."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return any(f"(os error {number})" in str(error) for number in FULL_TO_THE_SYSTEM)  # as Rust words it


def out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out, the machine's or a GPU's.

    Example:
        >>> out_of_memory(MemoryError()), out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB."))
        (True, True)
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = ["out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED"]
    words.append("CUBLAS_STATUS_NOT_INITIALIZED")  # on a card with no room for its handle
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
