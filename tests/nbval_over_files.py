"""A pytest plugin: nbval speaks to its kernels through sockets in the file system.

By default a kernel is told five free port numbers before it binds them. Where two kernels start side by side, one may
take a number that the other was told; then the second is never reached, and all cells of a notebook fail. Files have
names of their own.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

import nbval.kernel
from jupyter_client.manager import KernelManager


def manager(**given: Any) -> KernelManager:
    """Make a kernel manager whose sockets lie in a folder of their own; a path has room for 100 characters."""
    return KernelManager(transport="ipc", ip=os.path.join(tempfile.mkdtemp(prefix="nbval-"), "kernel"), **given)


if os.name == "posix":
    nbval.kernel.KernelManager = manager
