"""The memory of a notebook is that of its kernel and of the processes that it started."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from rmt_mini.teaching import lessons
from rmt_mini.teaching.cost import Cost, costs_read, costs_written, watched
from rmt_mini.teaching.lessons import main, run

HOLD = "held = b'x' * {bytes}; import time; time.sleep(0.5)"


def written(path: Path, *sources: str) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources]), path)
    return path


def test_memory_of_a_kernel_is_seen_and_its_notebook_is_left_alone(tmp_path: Path) -> None:
    small, large = (written(tmp_path / f"{size}.ipynb", HOLD.format(bytes=size)) for size in (10_000_000, 210_000_000))
    before = large.read_bytes()
    costs = [run(path)[1] for path in (small, large)]
    assert 150 < costs[1].peak_memory_mb - costs[0].peak_memory_mb < 250
    assert all(0.5 < cost.seconds < 60 for cost in costs)
    assert large.read_bytes() == before


def test_memory_of_a_child_counts(tmp_path: Path) -> None:
    child = HOLD.format(bytes=210_000_000)
    path = written(tmp_path / "a.ipynb", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])")
    assert run(path)[1].peak_memory_mb > 210


def test_a_client_whose_kernel_never_starts_has_no_memory() -> None:
    for client in (SimpleNamespace(), SimpleNamespace(km=None), SimpleNamespace(km=SimpleNamespace(provisioner=None))):
        with watched(client) as peak:
            pass
        assert peak.megabytes == 0


def test_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(costs_written({"a": Cost(1.26, 300.4)}, "a machine"), encoding="utf-8")
    assert costs_read(path) == {"a": Cost(1.3, 300)}


def test_measuring_writes_the_file_and_no_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.ipynb", "1 + 1")
    before = path.read_bytes()
    monkeypatch.setattr("sys.argv", ["lessons", str(path), "--measure", str(tmp_path / "costs.json"), "--machine", "m"])
    main()
    assert list(costs_read(tmp_path / "costs.json")) == ["a"]
    assert path.read_bytes() == before
    assert lessons.MARK not in before.decode()


def test_measuring_into_a_folder_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["lessons", "absent.ipynb", "--measure", str(tmp_path)])
    with pytest.raises(SystemExit, match="is a folder or a device; give the name of a file"):
        main()
