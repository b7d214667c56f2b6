"""Jobs in processes of their own: all are done, and all end when they are asked to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rmt_mini.errors import Stopped, UserError
from rmt_mini.runs.workers import carry_out

HEARTBEAT = 0.05


def note(item: tuple[str, str], stop: threading.Event) -> str:
    """Write a name into a folder; return it."""
    folder, name = item
    Path(folder, name).touch()
    return name


def beat(item: tuple[str, str], stop: threading.Event) -> str:
    """Work until asked to stop, a beat at a time."""
    folder, name = item
    Path(folder, f"{name}-{os.getpid()}").touch()
    while not stop.is_set():
        time.sleep(HEARTBEAT)
    Path(folder, f"{name}-ended").touch()
    raise Stopped(name)


def fail(item: tuple[str, str], stop: threading.Event) -> str:
    """Fail where the name says so, once the others have begun; they work until asked to stop."""
    if item[1] != "bad":
        return beat(item, stop)
    while len(list(Path(item[0]).iterdir())) < 1:
        time.sleep(HEARTBEAT)
    raise UserError("steps is 0; give more")


def die(item: tuple[str, str], stop: threading.Event) -> str:
    """End as a process does that the system kills."""
    os.kill(os.getpid(), signal.SIGKILL)
    return ""


def named(folder: Path, *names: str) -> list[tuple[str, str]]:
    return [(str(folder), name) for name in names]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(workers: int, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e"]
    told = list(carry_out(note, named(tmp_path, *names), workers, threading.Event()))
    assert sorted(told) == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_nothing_to_do(tmp_path: Path) -> None:
    assert list(carry_out(note, [], 2, threading.Event())) == []


def test_with_one_worker_a_stop_takes_effect_between_jobs(tmp_path: Path) -> None:
    stop = threading.Event()
    jobs = carry_out(note, named(tmp_path, "a", "b"), 1, stop)
    assert next(jobs) == "a"
    stop.set()
    with pytest.raises(Stopped):
        next(jobs)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_stop_reaches_every_worker(tmp_path: Path) -> None:
    stop = threading.Event()
    threading.Thread(target=lambda: (_until(tmp_path, 2), stop.set()), daemon=True).start()
    with pytest.raises(Stopped):
        list(carry_out(beat, named(tmp_path, "a", "b", "c", "d"), 2, stop))
    names = {path.name for path in tmp_path.iterdir()}
    assert {"a-ended", "b-ended"} <= names
    assert not any(name.startswith(("c", "d")) for name in names)


def test_where_one_fails_the_others_end_in_good_order(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="steps is 0"):
        list(carry_out(fail, named(tmp_path, "good", "bad"), 2, threading.Event()))
    assert (tmp_path / "good-ended").exists()


def test_a_killed_worker_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a worker process was killed, .* fewer --workers"):
        list(carry_out(die, named(tmp_path, "a"), 2, threading.Event()))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_do_not_outlive_their_parent(number: int, tmp_path: Path) -> None:
    code = (
        "import sys, threading; from rmt_mini.runs.workers import carry_out; from tests.runs.test_workers import beat, named;"
        "from pathlib import Path\n"
        "if __name__ == '__main__': list(carry_out(beat, named(Path(sys.argv[1]), 'a', 'b'), 2, threading.Event()))"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    _until(tmp_path, 2)
    children = [int(path.name.split("-")[1]) for path in tmp_path.iterdir()]
    parent.send_signal(number)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode != 0
    end = time.monotonic() + 30
    while any(map(_lives, children)) and time.monotonic() < end:
        time.sleep(HEARTBEAT)
    assert not any(map(_lives, children))
    ended = {path.name for path in tmp_path.iterdir()} & {"a-ended", "b-ended"}
    assert len(ended) == (2 if number == signal.SIGINT else 0), said


def _until(folder: Path, count: int) -> None:
    end = time.monotonic() + 60
    while len(list(folder.iterdir())) < count and time.monotonic() < end:
        time.sleep(HEARTBEAT)


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/status")
    return not (status.exists() and "State:\tZ" in status.read_text())  # dead, though no one has asked yet
