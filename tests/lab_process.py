"""JupyterLab as a process: started on a free port of this machine, read until it is ready, and ended."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lab_process(
    command: Sequence[str], home: Path, cwd: Path, settings: Mapping[str, str] | None = None
) -> Iterator[tuple[int, str]]:
    """Start a lab without the settings of the user who runs the test.

    Args:
        command: that starts it, without opening a browser; the port is added.
        home: for its settings and its log.
        cwd: its working directory.
        settings: more environment variables.

    Yields:
        Its port, and what it printed until its token appeared or it ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = home / "said.txt"
    env = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    env |= {"JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    here = [*command, f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    with said.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            here, cwd=cwd, env=env | dict(settings or {}), stdout=file, stderr=file, stdin=subprocess.DEVNULL
        )
    try:
        for _ in range(1200):
            if "token=" in said.read_text(encoding="utf-8") or process.poll() is not None:
                break
            time.sleep(0.1)
        yield port, said.read_text(encoding="utf-8")
    finally:
        process.terminate()
        process.wait(60)
