"""A wheel alone is enough, and a bundle without a network: lessons run in environments and folders without a clone."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LESSONS = ("03_budget", "09_replication")
HERE = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
NO_NETWORK = {name: value for name, value in HERE.items() if not name.startswith(("PIP_", "RMT_MINI_"))} | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PIP_CONFIG_FILE": os.devnull,
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"),
}


def copied_project(target: Path) -> Path:
    """Copy the project, since building leaves files beside the sources."""
    unwanted = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info")
    shutil.copytree(ROOT, target, ignore=lambda folder, names: unwanted(folder, names) if folder == str(ROOT) else ())
    return target


def run_lessons(python: Path, room: Path, env: Mapping[str, str], lessons: str = ".", cut: Sequence[str] = ()) -> None:
    """Run notebooks in a folder by the environment of ``python``, and compare the outputs that are marked for it."""
    pytest_there = [str(python), "-m", "pytest", "-q", "--nbval-lax", "-p", "no:cacheprovider", "-c", os.devnull]
    ran = subprocess.run([*cut, *pytest_there, lessons], cwd=room, env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-9000:]


def without_network() -> list[str]:
    """Return what to put before a command, so that it has no network but itself; nothing where that is not allowed."""
    cut = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    allowed = shutil.which("unshare") and subprocess.run([*cut, "true"], capture_output=True).returncode == 0
    return cut if allowed else []


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
def test_lessons_run_from_a_wheel_alone(tmp_path: Path) -> None:
    source = copied_project(tmp_path / "source")
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
    install = [*pip, "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, env=HERE, check=True)  # a package on PYTHONPATH would count as installed
    (site,) = (tmp_path / "env").rglob("site-packages")
    # other packages are those of this environment, after its own; a .pth there, as of an editable install, is not read
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    room = tmp_path / "room"
    room.mkdir()
    where = "import rmt_mini; print(rmt_mini.__file__)"
    found = subprocess.run([python, "-c", where], cwd=room, env=HERE, check=True, capture_output=True, text=True)
    assert found.stdout.startswith(str(site))
    for name in LESSONS:
        shutil.copy2(ROOT / "notebooks" / f"{name}.ipynb", room)
    kernel = [str(python), "-m", "ipykernel", "install", "--prefix", str(tmp_path / "env"), "--name", "python3"]
    subprocess.run(kernel, cwd=room, env=HERE, check=True, capture_output=True)
    run_lessons(python, room, HERE)


@pytest.mark.slow
@pytest.mark.xdist_group("wheel")
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.skipif(importlib.util.find_spec("nvidia") is not None, reason="PyTorch for CUDA makes it 10 GB")
def test_a_lesson_runs_from_a_bundle_without_a_network(tmp_path: Path) -> None:
    source, bundle, cut = copied_project(tmp_path / "source"), tmp_path / "a bundle", without_network()
    make = ["make", "bundle", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.installed", f"BUNDLE={bundle}"]
    subprocess.run(make, cwd=source, env=HERE, check=True)
    shutil.rmtree(source)
    assert sorted(path.name for path in bundle.iterdir()) == ["README.txt", "notebooks", "slides", "wheels"]
    assert not [*bundle.rglob("solutions"), *bundle.rglob("*.tar.gz")]

    readme = (bundle / "README.txt").read_text(encoding="utf-8")
    install = re.findall(r"^    (python3 .+|\.venv/bin/python -m pip .+)$", readme, re.MULTILINE)
    assert len(install) == 2
    for line in install:
        subprocess.run([*cut, "sh", "-c", line], cwd=bundle, env=NO_NETWORK, check=True)
    python = bundle / ".venv/bin/python"
    run_lessons(python, bundle / "notebooks", NO_NETWORK, "00_start_here.ipynb", cut)

    (settings,) = re.findall(r"^    (PIP_.+) \.venv/bin/rmt-mini run laptop", readme, re.MULTILINE)
    code = "import pathlib, sys; from rmt_mini.engine.weights import _gguf; _gguf(pathlib.Path(sys.argv[1]))"
    fetch = [*cut, "env", *settings.split(), str(python), "-c", code, str(tmp_path)]
    subprocess.run(fetch, cwd=bundle, env=NO_NETWORK, check=True)  # which compares the digest
