"""A scorer in another process: whatever it does, the next answer gets its own score."""

import _thread
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rmt_mini.worlds import referee
from rmt_mini.worlds.referee import Referee


def troublesome():
    """Return a scorer that does what the answer says; a number is its own score."""

    def score(given):
        print("a scorer may print")
        if given == "exit":
            os._exit(3)
        if given == "sleep":
            time.sleep(1)
        return float(given)

    return score


@pytest.fixture
def judge(tmp_path, monkeypatch):
    for name in ("json", "signal", "math_verify"):  # modules of the current folder must not take the place of others
        (tmp_path / f"{name}.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    judge = Referee(troublesome)
    assert judge("0.5") == 0.5  # the process has started
    return judge


def test_an_answer_without_a_score_is_wrong_and_the_next_one_is_scored(judge, monkeypatch):
    for answer in ("no number", "exit", "sleep"):
        monkeypatch.setattr(referee, "SECONDS", 0.3)
        assert judge(answer) == 0.0
        monkeypatch.setattr(referee, "SECONDS", 3.0)
        assert judge("1") == 1.0


def test_an_interrupted_call_leaves_no_score_to_the_next_one(judge):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    threading.Timer(0.2, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        judge("sleep")
    assert judge("0.25") == 0.25


def test_threads_get_their_own_scores(judge):
    with ThreadPoolExecutor(20) as threads:
        assert list(threads.map(judge, map(str, range(20)))) == [float(n) for n in range(20)]
