"""Runs the real `mmdg-live` in a process of its own, for tests."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from mmdg_model.asset_directory import test_checkpoint_path

ROOT = Path(__file__).resolve().parents[2]
_STARTED = re.compile(r"started (?P<name>[\w-]+) as process (?P<pid>\d+)")


@dataclass
class LiveRun:
    """A running `mmdg-live --json`: its events, its processes by name, its log."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)
    started: list[tuple[str, int]] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, what: Callable[[LiveRun], Any], timeout_s: float = 60.0) -> Any:
        """The first true value of `what(self)`; fails with the log after `timeout_s`."""
        with self.changed:
            if not self.changed.wait_for(lambda: what(self) or self.process.poll() is not None, timeout_s):
                raise AssertionError(f"not seen within {timeout_s} s:\n{self.transcript()}")
            found = what(self)
            assert found, f"mmdg-live ended with {self.process.poll()} before:\n{self.transcript()}"
            return found

    def watch(self, seconds: float) -> None:
        """Look on for a while; a test whose subject is that nothing happens needs a window to look through."""
        with self.changed:
            self.changed.wait_for(lambda: self.process.poll() is not None, seconds)

    def wait(self, timeout_s: float = 60.0) -> int:
        """The exit code, after everything was read."""
        code = self.process.wait(timeout_s)
        for reader in self.readers:
            reader.join(10)
        return code

    def named(self, kind: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e.get("type") == kind]

    def pid_of(self, name: str) -> int:
        return [pid for started, pid in self.started if started == name][-1]

    def starts_of(self, name: str) -> int:
        return sum(started == name for started, _ in self.started)

    def kill(self, name: str) -> None:
        os.kill(self.pid_of(name), signal.SIGKILL)

    def transcript(self) -> str:
        return "\n".join([*map(json.dumps, self.events[-10:]), *self.log[-30:]])

    readers: list[threading.Thread] = field(default_factory=list)

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.events.append(json.loads(line))
                self.changed.notify_all()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self.changed:
                self.log.append(line.rstrip())
                if found := _STARTED.search(line):
                    self.started.append((found["name"], int(found["pid"])))
                self.changed.notify_all()


def installed_test_model() -> Path:
    """The test checkpoint, made if this machine has none yet."""
    path = test_checkpoint_path()
    if not path.is_file():
        subprocess.run([sys.executable, "-m", "mmdg_model.test_checkpoint"], check=True, cwd=ROOT)
    return path


@contextmanager
def live_run(*arguments: str) -> Iterator[LiveRun]:
    """Start `mmdg-live --json ARGUMENTS`; afterwards no process of it may be left, killed or not.

    Without a model in the arguments or their configuration it runs the test checkpoint, so that these tests of the
    pipeline hold whatever weights are shipped.
    """
    configured = [Path(value).read_text() for option, value in itertools.pairwise(arguments) if option == "--config"]
    if "--model" not in arguments and not any("model:" in text for text in configured):
        arguments = (*arguments, "--model", str(installed_test_model()))
    environment = {**os.environ, "MMDG_LOG": "INFO", "PYTHONWARNINGS": "default"}
    process = subprocess.Popen([sys.executable, "-m", "pipeline.commands.live", "--json", *arguments], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    run = LiveRun(process)
    run.readers = [threading.Thread(target=read, daemon=True) for read in (run._read_events, run._read_log)]
    for reader in run.readers:
        reader.start()
    try:
        yield run
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for reader in run.readers:
            reader.join(10)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        left = still_running([pid for _, pid in run.started])
        assert not left, f"processes left behind: {left}\n{run.transcript()}"


def still_running(pids: list[int]) -> list[int]:
    """Those of `pids` that live on as processes of ours after two seconds (the kernel reaps in its own time)."""
    alive = []
    for pid in pids:
        try:
            candidate = psutil.Process(pid)
            if "multiprocessing" in " ".join(candidate.cmdline()):
                alive.append(candidate)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    _, left = psutil.wait_procs(alive, timeout=2)
    return [process.pid for process in left]
