"""Jobs side by side, in processes of their own that end in good order when they are asked to.

Small models leave most of a processor idle, so each process takes one thread. The parent holds one number that all of
them watch. At the first request to stop, every job ends behind its step; at the second, or when the parent is no more,
its process ends at once, and lets go of its folder.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from rmt_mini.errors import Stopped, UserError

Item = TypeVar("Item")
Job = Callable[[Item, threading.Event], str]  # heeds the event, and returns what to show

GO, STOP, QUIT = range(3)  # what the parent wants
GLANCE = 0.2  # seconds between two looks at it


class _Here:
    """What a worker process knows."""

    order: Any = None
    stop = threading.Event()


def carry_out(job: Job[Item], items: Sequence[Item], workers: int, stop: threading.Event) -> Iterator[str]:
    """Do a job for every item, and yield what each returns as it ends.

    Args:
        job: a function of a module, so that another process finds it.
        items: its arguments.
        workers: processes; with 1 all is done in this one, one after another and with all threads.
        stop: once set, jobs end behind their step.

    Raises:
        Stopped: where ``stop`` was set before all was done.
        UserError: where a process died.
        Exception: what a job raises; the others have ended behind their step then.
    """
    if workers == 1 or not items:
        for item in items:
            if stop.is_set():
                raise Stopped("")
            yield job(item, stop)
        return
    context = multiprocessing.get_context("spawn")  # a forked process and a started thread pool do not go together
    order = context.Value("i", GO)
    with ProcessPoolExecutor(min(workers, len(items)), context, _begin, (order,)) as pool:
        try:
            try:
                with _deaf():
                    pending = {pool.submit(_work, job, item) for item in items}
                while pending:
                    done, pending = wait(pending, timeout=GLANCE, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
                    if pending and stop.is_set():
                        raise Stopped("")
            except BrokenProcessPool as error:
                raise UserError(
                    "a worker process was killed, most likely for want of memory; give the command again with fewer "
                    "--workers"
                ) from error
            except BaseException:
                order.value = STOP
                pool.shutdown(cancel_futures=True)
                raise
        except KeyboardInterrupt:
            order.value = QUIT
            raise


@contextmanager
def _deaf() -> Iterator[None]:
    """Ignore Ctrl-C, and let processes that begin here do so for good: a terminal sends it to all of them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may; _begin will do
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin(order: Any) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.ERROR)
    _Here.order = order
    threading.Thread(target=_obey, daemon=True).start()


def _obey() -> None:
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive() and _Here.order.value != QUIT:
        if _Here.order.value == STOP:
            _Here.stop.set()
        time.sleep(GLANCE)
    os._exit(1)


def _work(job: Job[Item], item: Item) -> str:
    if _Here.order.value != GO:  # one job more than there are workers has left the parent's hands
        raise Stopped("")
    return job(item, _Here.stop)
