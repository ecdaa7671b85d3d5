"""What every process of the pipeline is given: its name, the endpoints, a stop flag, and a way to show progress."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping

from pipeline import messages
from pipeline.channels import PUSH, Endpoints, Sockets, send_now

PROGRESS_PERIOD_NS = 100_000_000
_PR_SET_PDEATHSIG = 1


class StageContext:
    """Made inside the child process, first thing.

    SIGTERM sets the stop flag; SIGINT is ignored (the terminal sends it to the whole group, and only the supervisor
    answers it, so that the stop has an order). If the supervisor dies the kernel sends us SIGTERM.

    install_signals: False in a thread of another program's process, which alone decides how long it runs: the shell
    that started it may be gone long before.
    """

    def __init__(self, name: str, endpoints: Endpoints, *, install_signals: bool = True) -> None:
        self.name = name
        self.endpoints = endpoints
        self.sockets = Sockets()
        self.log = logging.getLogger(name)
        self._stop = False
        self._parent = os.getppid() if install_signals else None
        self._last_progress_ns = 0
        self._last_state = ""
        if install_signals:
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, lambda *_: self.request_stop())
            logging.basicConfig(stream=sys.stderr, level=os.environ.get("MMDG_LOG", "WARNING").upper(),
                                format=f"%(asctime)s {name} %(levelname)s %(message)s")
        self._progress = self.sockets.open(PUSH, endpoints.progress, bind=False)

    def request_stop(self) -> None:
        self._stop = True

    @property
    def stop_requested(self) -> bool:
        if self._parent is not None and os.getppid() != self._parent:  # the supervisor is gone: nobody may keep running
            self._stop = True
        return self._stop

    def progress(self, state: str, sequence: int, counters: Mapping[str, int] | None = None,
                 detail: Mapping[str, str] | None = None) -> None:
        """Tell the supervisor that we advance; sent at most each 100 ms, at once when `state` changes."""
        now = time.monotonic_ns()
        if state == self._last_state and now - self._last_progress_ns < PROGRESS_PERIOD_NS:
            return
        self._last_progress_ns, self._last_state = now, state
        send_now(self._progress, [messages.encode(messages.Progress(
            process=self.name, pid=os.getpid(), state=state, sequence=sequence, stamp_ns=now,
            counters=dict(counters or {}), detail=dict(detail or {})))])

    def report(self, line: str) -> None:
        """One JSON line for people and for `--json`, printed by the supervisor."""
        send_now(self._progress, [messages.encode(messages.Report(line=line))])

    def close(self, linger_ms: int = 0) -> None:
        self.sockets.close(linger_ms)
