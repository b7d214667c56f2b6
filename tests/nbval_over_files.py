"""A pytest plugin: nbval runs every cell twice, and reaches its kernels through sockets in the file system.

A reader changes a number in a cell and reruns it, so each cell is run a second time right after the first, and its
output compared again. Kernels that start side by side may be given the same free port; files have names of their own.
"""

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
    """Put a second run of each cell after the first; solutions only define a function and check it."""
    items[:] = [one for item in items for one in ((item,) if "solutions" in item.path.parts else (item, _again(item)))]


if os.name == "posix":
    nbval.kernel.KernelManager = manager
