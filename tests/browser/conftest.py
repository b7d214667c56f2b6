"""A real JupyterLab and a real Chromium, shared by the tests of this folder."""

import json
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from docs.make.handouts import find_browser
from rmt_mini.teaching.lessons import read_notebook
from tests.lab_process import lab_process

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page, also out of sight
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run",
]  # fmt: skip


@dataclass(frozen=True)
class Server:
    """A server over a copy of the lessons."""

    url: str
    token: str

    def page(self, path: str) -> str:
        return f"{self.url}/{path}?token={self.token}"

    def lab(self, path: str) -> str:
        """JupyterLab with this notebook alone: a workspace of its own, or it would open those of other tests again."""
        return self.page(f"lab/workspaces/{secrets.token_hex(4)}/tree/{path}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab, and Notebook 7 beside it, over the lessons; nothing that is saved reaches the repository."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    small = read_notebook(ROOT / "notebooks/08_the_loop.ipynb")  # the panel alone
    kept = re.compile(r"\bbegin\(|\bPanel\b")
    small.cells = [cell for cell in small.cells if cell.cell_type == "markdown" or kept.search(cell.source)]
    nbformat.write(small, home / "notebooks/panel.ipynb")
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={home}",
    ]  # fmt: skip
    places = {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    with lab_process(command, home, home, places) as (port, said):
        token = re.search(r"token=([0-9a-f]{32,})", said)
        assert token, said
        yield Server(f"http://127.0.0.1:{port}", token[1])


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, where there is one."""
    executable = find_browser()
    if executable is None:
        pytest.skip("there is no Chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where screenshots are kept for a person to look at."""
    path = ROOT / "build" / "screenshots"
    path.mkdir(parents=True, exist_ok=True)
    return path
