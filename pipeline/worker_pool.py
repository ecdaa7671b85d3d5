"""Independent pieces of work over processes: each has its own worker; killed cleanly, lost processes are said.

A worker is made once a process by a function that can be imported, so that heavy libraries load there and not here.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task", contravariant=True)
Result = TypeVar("Result", covariant=True)
T = TypeVar("T")
R = TypeVar("R")


class WorkerLostError(RuntimeError):
    """A worker process died; what others had finished is done."""


class Worker(Protocol[Task, Result]):
    """Does one piece of work after the other; `close` ends what it holds."""

    def work(self, task: Task) -> Result:
        """One piece."""
        ...

    def close(self) -> None:
        """Idempotent."""
        ...


_of_this_process: Worker[Any, Any] | None = None


def work_through(tasks: Sequence[T], make_worker: Callable[..., Worker[T, R]], arguments: tuple[Any, ...], *,
                 jobs: int) -> Iterator[R]:
    """Results as they are done, in any order. One job works in this process.

    Args:
        tasks, make_worker, arguments: travel to the processes, where `make_worker(*arguments)` is called once.

    Raises:
        WorkerLostError: a process died, of memory for example. What a worker raises comes through.
    """
    if not tasks:
        return
    if jobs <= 1:
        worker = make_worker(*arguments)
        try:
            for task in tasks:
                yield worker.work(task)
        finally:
            worker.close()
        return
    with ProcessPoolExecutor(min(jobs, len(tasks)), mp_context=multiprocessing.get_context("spawn"),
                             initializer=_start, initargs=(make_worker, arguments)) as pool:
        futures = [pool.submit(_work_here, task) for task in tasks]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise WorkerLostError(f"a worker process was lost ({error}); what was finished is kept: run the same "
                                  "command again, with fewer --jobs if memory was short") from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(make_worker: Callable[..., Worker[Any, Any]], arguments: tuple[Any, ...]) -> None:
    global _of_this_process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers are started by the pool"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _of_this_process = make_worker(*arguments)


def _end_with(sentinel: int) -> None:
    """A killed parent cannot stop its workers; they would wait for work for ever."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _work_here(task: Any) -> Any:
    assert _of_this_process is not None, "the pool starts each process with `_start`"
    return _of_this_process.work(task)
