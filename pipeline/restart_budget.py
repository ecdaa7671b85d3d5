"""When a process that ended is started again, and when that has happened too often. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0


@dataclass
class RestartBudget:
    """At most `max_restarts` in any `window_s` seconds, with a pause that doubles from 0.2 s to 5 s."""

    max_restarts: int
    window_s: float
    _restarts_s: deque[float] = field(default_factory=deque)

    def next_start_s(self, now_s: float) -> float | None:
        """When to start again after an end at `now_s`, or None when the budget is spent."""
        while self._restarts_s and now_s - self._restarts_s[0] > self.window_s:
            self._restarts_s.popleft()
        if len(self._restarts_s) >= self.max_restarts:
            return None
        backoff_s = min(FIRST_BACKOFF_S * 2.0 ** len(self._restarts_s), LONGEST_BACKOFF_S)
        self._restarts_s.append(now_s)
        return now_s + backoff_s
