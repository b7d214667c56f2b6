"""A pytest plugin: nbval runs every cell twice, and speaks to its kernels through sockets in the file system.

Readers change a number in a cell and run it again, so each cell is run a second time right after the first, and its
output compared again where it is checked.

By default a kernel is told five free port numbers before it binds them. Where two kernels start side by side, one may
take a number that the other was told; then the second is never reached, and all cells of a notebook fail. Files have
names of their own.
"""

from __future__ import annotations

import copy
import os
import tempfile
from typing import Any

import nbval.kernel
import pytest
from jupyter_client.manager import KernelManager
from nbval.plugin import IPyNbCell


def manager(**given: Any) -> KernelManager:
    """Make a kernel manager whose sockets lie in a folder of their own; a path has room for 100 characters."""
    return KernelManager(transport="ipc", ip=os.path.join(tempfile.mkdtemp(prefix="nbval-"), "kernel"), **given)


def _again(item: IPyNbCell) -> IPyNbCell:
    cell = copy.deepcopy(item.cell)  # nbval joins the stored streams of a cell in place
    same = {"cell_num": item.cell_num, "cell": cell, "options": item.options}
    again: IPyNbCell = IPyNbCell.from_parent(item.parent, name=f"{item.name} again", **same)
    return again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put a second run of each cell after the first."""
    items[:] = [one for item in items for one in (item, _again(item))]


if os.name == "posix":
    nbval.kernel.KernelManager = manager
