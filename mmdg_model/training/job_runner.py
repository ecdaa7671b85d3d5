"""Runs many jobs side by side, each a process group of its own, and leaves every one resumable whatever happens.

The order of things is `run_jobs`, the same on one machine (`LocalExecutor`) and on a cluster (`ray_executor`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from mmdg_model.training.benchmark_grid import Job, JobState, failure_of, log_file
from mmdg_model.training.job import EXIT_BUSY, EXIT_DONE, EXIT_INTERRUPTED

#: Time that an interrupted job has for saving before it is killed; a killed one resumes from its last save.
GRACE_S = 120.0
_LOOK_EVERY_S = 0.1


class Outcome(StrEnum):
    """What this invocation did about a job."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    ALREADY_DONE = "already done"
    FAILED = "failed"
    FAILED_BEFORE = "failed before"  # not tried again unless asked to
    INTERRUPTED = "interrupted"  # resumable
    ELSEWHERE = "elsewhere"  # another process works on it
    NOT_STARTED = "not started"  # time was up


class Running(Protocol):
    """A job that an executor has started."""

    def exit_code(self) -> int | None:
        """None while it runs."""
        ...

    def interrupt(self) -> None:
        """Asks it to save and end."""
        ...

    def kill(self) -> None:
        """Ends it and all its processes now."""
        ...


class Executor(Protocol):
    """Where jobs run."""

    @property
    def slots(self) -> int:
        """Jobs at the same time."""
        ...

    def start(self, job: Job) -> Running: ...


@dataclass
class JobStatus:
    """A job in this invocation; `note` says why it failed."""

    job: Job
    outcome: Outcome
    running: Running | None = None
    started_s: float = 0.0
    seconds: float = 0.0
    note: str = ""


@dataclass
class Tally:
    """All jobs of an invocation, in order, and why it ended early, if it did."""

    statuses: list[JobStatus] = field(default_factory=list)
    stopped: str = ""

    def count(self, *outcomes: Outcome) -> int:
        """Jobs with one of these outcomes."""
        return sum(status.outcome in outcomes for status in self.statuses)

    @property
    def complete(self) -> bool:
        """Whether every job is done."""
        return self.count(Outcome.DONE, Outcome.ALREADY_DONE) == len(self.statuses)


def run_jobs(jobs: Sequence[Job], executor: Executor, *, retry: bool = False, time_limit_s: float = float("inf"),
             grace_s: float = GRACE_S, on_change: Callable[[Tally], None] = lambda _: None,
             clock: Callable[[], float] = time.monotonic, pause: Callable[[float], None] = time.sleep) -> Tally:
    """Does what is left of each job; returns when all have ended, or the time is up and the running ones have saved.

    Args:
        retry: try jobs that failed before, too.
        time_limit_s: no job starts after it; running ones are interrupted then, and can be resumed.
        grace_s: they have for saving.
        on_change: called on every look.

    A `KeyboardInterrupt` is as the time limit; a second one kills at once.
    """
    tally = Tally([_status_before(job, retry) for job in jobs])
    began, stop_s = clock(), float("inf")
    while True:
        try:
            if not tally.stopped and clock() - began >= time_limit_s:
                tally.stopped, stop_s = "time limit", clock()
                _interrupt_all(tally)
            if not tally.stopped:
                _start_waiting(tally, executor, clock)
            _collect(tally, clock)
            on_change(tally)
            if not tally.count(Outcome.RUNNING) and (tally.stopped or not tally.count(Outcome.WAITING)):
                break
            if clock() - stop_s > grace_s:
                _kill_all(tally)
            pause(_LOOK_EVERY_S)
        except KeyboardInterrupt:
            if tally.stopped:
                _kill_all(tally)
            else:
                tally.stopped, stop_s = "interrupted", clock()
                _interrupt_all(tally)
    for status in tally.statuses:
        if status.outcome is Outcome.WAITING:
            status.outcome = Outcome.NOT_STARTED
    on_change(tally)
    return tally


def _status_before(job: Job, retry: bool) -> JobStatus:
    state = job.state
    if state is JobState.DONE:
        return JobStatus(job, Outcome.ALREADY_DONE)
    if state is JobState.FAILED and not retry:
        return JobStatus(job, Outcome.FAILED_BEFORE, note=failure_of(job.directory))
    return JobStatus(job, Outcome.WAITING)


def _start_waiting(tally: Tally, executor: Executor, clock: Callable[[], float]) -> None:
    for status in tally.statuses:
        if tally.count(Outcome.RUNNING) >= executor.slots:
            return
        if status.outcome is Outcome.WAITING:
            status.running = executor.start(status.job)
            status.outcome, status.started_s = Outcome.RUNNING, clock()


def _collect(tally: Tally, clock: Callable[[], float]) -> None:
    for status in tally.statuses:
        if status.running is None or status.outcome is not Outcome.RUNNING:
            continue
        status.seconds = clock() - status.started_s
        code = status.running.exit_code()
        if code is None:
            continue
        if code == EXIT_DONE:
            status.outcome = Outcome.DONE
        elif code == EXIT_BUSY:
            status.outcome = Outcome.ELSEWHERE
        elif code == EXIT_INTERRUPTED or tally.stopped:
            status.outcome = Outcome.INTERRUPTED
        else:
            status.outcome = Outcome.FAILED
            status.note = failure_of(status.job.directory) or (
                f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")


def _interrupt_all(tally: Tally) -> None:
    for status in tally.statuses:
        if status.outcome is Outcome.RUNNING and status.running is not None:
            status.running.interrupt()


def _kill_all(tally: Tally) -> None:
    for status in tally.statuses:
        if status.outcome is Outcome.RUNNING and status.running is not None:
            status.running.kill()


def last_words(job: Job) -> str:
    """The last line of a job's log, for a table; empty where there is none."""
    try:
        with log_file(job.directory).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 4096))
            lines = log.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:100] for line in reversed(lines) if line.strip()), "")


class LocalExecutor:
    """Processes of this machine. Each has its own process group and log; the cores are shared out evenly."""

    def __init__(self, command: Sequence[str], *, slots: int = 1, cores: int = 0) -> None:
        """`command` starts a job when its directory is appended; `cores` 0 takes all that this process may use."""
        self.slots = slots
        self._command = tuple(command)
        self._threads = max(1, (cores or len(os.sched_getaffinity(0))) // slots)

    def start(self, job: Job) -> Running:
        """Starts the job; its output is appended to its log."""
        return LocalProcess([*self._command, str(job.directory.path), "--threads", str(self._threads)], job,
                            threads=self._threads)


class LocalProcess:
    """A job's process, leader of a group and a session of its own: a Ctrl-C at the terminal does not reach it."""

    def __init__(self, command: Sequence[str], job: Job, *, threads: int) -> None:
        job.directory.path.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE",
                                    "PYTHONUNBUFFERED": "1"}
        with log_file(job.directory).open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                             env=environment, start_new_session=True)

    def exit_code(self) -> int | None:
        """As `Popen.poll`; negative where a signal ended it."""
        return self._process.poll()

    def interrupt(self) -> None:
        """To the leader alone: loader processes end with it, in order."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """The whole group."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
