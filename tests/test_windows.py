"""What can be known about Windows on another system: only grading needs what it does not have."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GRADING = {"rmt_mini/teaching/grading.py", "rmt_mini/teaching/submission.py"}

# Hides modules of POSIX from this package (libraries look after themselves), reads memory as psutil does there, and
# refuses to sync a file that is open for reading only.
AS_ON_WINDOWS = """
import builtins, os, pkgutil, psutil, stat, sys
from importlib import import_module
from types import SimpleNamespace

import rmt_mini.engine.memory

real_import, real_sync = builtins.__import__, os.fsync

def imported(name, globals=None, *more, **named):
    if name in {"fcntl", "grp", "pty", "pwd", "resource", "termios"}:
        if str((globals or {}).get("__name__")).startswith("rmt_mini"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return real_import(name, globals, *more, **named)

def synced(descriptor):
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.write(descriptor, b"")
    real_sync(descriptor)

builtins.__import__, os.fsync = imported, synced
rmt_mini.engine.memory.sys = SimpleNamespace(platform="win32")
psutil.Process.memory_info = lambda self: SimpleNamespace(rss=10**9, vms=10**9, peak_wset=10**9)
"""
IMPORT_ALL = """
for module in pkgutil.walk_packages(rmt_mini.__path__, "rmt_mini."):
    if module.name not in ("rmt_mini.__main__", "rmt_mini.teaching.submission"):
        import_module(module.name)
"""
COMMANDS = """
from rmt_mini.cli import main
main(sys.argv[1:])
import rmt_mini.teaching.grading as grading
grading.sys = SimpleNamespace(platform="win32")
main(["grade", "mine.ipynb"])
"""


def as_on_windows(code: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run code as far as possible as Windows would."""
    command = [sys.executable, "-c", AS_ON_WINDOWS + code, *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_all_but_grading_needs_no_posix_and_grading_says_so(tmp_path: Path) -> None:
    sizes = {"steps": 1, "evaluation-documents": 2, "evaluation-positions": 6, "checked-positions": 3}
    flags = [f"--{name}={value}" for name, value in {**sizes, "preflight-positions": 3, "out": "run"}.items()]
    done = as_on_windows(IMPORT_ALL + COMMANDS, "run", "micro", *flags, cwd=tmp_path)
    assert (tmp_path / "run/report.md").is_file(), done.stderr
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    needs = "error: grading needs limits of Linux or macOS; on Windows run rmt-mini grade in WSL"
    assert done.stderr.splitlines()[-1] == needs


def test_functions_that_windows_does_not_have_are_called_by_grading_alone(tmp_path: Path) -> None:
    quick = ["--config-file", os.devnull, "--follow-imports", "skip", "--ignore-missing-imports"]  # Python's names only
    mypy = [sys.executable, "-m", "mypy", "--platform", "win32", *quick, "--cache-dir", str(tmp_path), "rmt_mini"]
    said = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True).stdout
    assert {*re.findall(r"^(\S+?):\d+: error: Module has no attribute", said, re.MULTILINE)} == GRADING
