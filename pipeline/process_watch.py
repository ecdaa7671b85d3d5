"""Is a process alive? Judged on the progress it shows, since a heartbeat thread lives on in a hung process. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """What is known of a process."""

    STARTING = "starting"
    SERVING = "serving"
    ENDED = "ended"  # said so itself: a recording is over
    FAILED = "failed"  # said so itself: cannot run with what it was given
    SILENT = "silent"  # showed no progress for too long: hung
    GONE = "gone"  # the operating system says so


@dataclass
class ProcessWatch:
    """What is known of one process since it was started."""

    started_s: float
    silent_after_s: float
    start_within_s: float
    state: str = "starting"
    heard_s: float | None = None

    def heard(self, state: str, now_s: float) -> None:
        self.state, self.heard_s = state, now_s

    def health(self, now_s: float, *, alive: bool) -> Health:
        """Judge at `now_s`; `alive` is the operating system's word."""
        if self.state == "failed":
            return Health.FAILED
        if self.state == "ended":
            return Health.ENDED
        if not alive:
            return Health.GONE
        if self.state == "starting":
            return Health.SILENT if now_s - self.started_s > self.start_within_s else Health.STARTING
        heard_s = self.started_s if self.heard_s is None else self.heard_s
        return Health.SILENT if now_s - heard_s > self.silent_after_s else Health.SERVING
