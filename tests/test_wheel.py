"""A wheel alone is enough: lessons run in an environment and a folder that have no clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LESSONS = ("00_start_here", "03_budget", "09_replication")


@pytest.mark.slow
def test_lessons_run_from_a_wheel_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves files beside the sources
    unwanted = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info")
    shutil.copytree(ROOT, source, ignore=lambda folder, names: unwanted(folder, names) if folder == str(ROOT) else ())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(source)], check=True
    )
    checked = [sys.executable, "-m", "twine", "check", "--strict", *map(str, tmp_path.glob("rmt_mini-*.*"))]
    assert subprocess.run(checked, check=True, capture_output=True, text=True).stdout.count("PASSED") == 2
    shutil.rmtree(source)
    (wheel,) = tmp_path.glob("rmt_mini-*.whl")

    venv.create(tmp_path / "env", symlinks=os.name != "nt")
    python = tmp_path / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([*pip, "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = (tmp_path / "env").rglob("site-packages")
    # other packages are those of this environment, after its own; a .pth there, as of an editable install, is not read
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    room = tmp_path / "room"
    room.mkdir()
    here = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = "import rmt_mini; print(rmt_mini.__file__)"
    found = subprocess.run([python, "-c", where], cwd=room, env=here, check=True, capture_output=True, text=True)
    assert found.stdout.startswith(str(site))
    for name in LESSONS:
        shutil.copy2(ROOT / "notebooks" / f"{name}.ipynb", room)
    kernel = [str(python), "-m", "ipykernel", "install", "--prefix", str(tmp_path / "env"), "--name", "python3"]
    subprocess.run(kernel, cwd=room, env=here, check=True, capture_output=True)
    lessons = [str(python), "-m", "pytest", "-q", "--nbval-lax", "-p", "no:cacheprovider", "-c", os.devnull, "."]
    ran = subprocess.run(lessons, cwd=room, env=here, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-9000:]
