"""Real-time pacing of recorded sets: which one is due, how long to wait, and how far to move the stamps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from capture.camera import EndOfStreamError, FrameTimeoutError, MonotonicNs

Sleep = Callable[[float], None]


class RealtimePacer:
    """Hands out positions of a recording at its recorded rate; recorded time starts with the first call of `next`.

    A slow reader gets the newest set that is due; those it missed are counted as `late`, as a live camera would.

    Args:
        arrivals_ns: recorded arrival of each set. counters: of the camera. monotonic_ns, sleep: clock and wait.
    """

    def __init__(self, arrivals_ns: Sequence[int], counters: Counter[str], monotonic_ns: MonotonicNs,
                 sleep: Sleep) -> None:
        self._arrivals_ns, self._counters = arrivals_ns, counters
        self._monotonic_ns, self._sleep = monotonic_ns, sleep
        self._position = 0
        self._shift_ns: int | None = None

    @property
    def shift_ns(self) -> int:
        """What to add to recorded stamps to have them on the host's clock. Set by the first `next`."""
        assert self._shift_ns is not None
        return self._shift_ns

    def next(self, timeout_s: float) -> int:
        """Wait until a set is due, and return its position.

        Raises:
            FrameTimeoutError: none is due within `timeout_s`. EndOfStreamError: all have been.
        """
        if self._position >= len(self._arrivals_ns):
            raise EndOfStreamError(f"all {len(self._arrivals_ns)} sets have been played")
        now_ns = self._monotonic_ns()
        if self._shift_ns is None:
            self._shift_ns = now_ns - self._arrivals_ns[0]
        while self._position + 1 < len(self._arrivals_ns) and self._due_ns(self._position + 1) <= now_ns:
            self._counters["late"] += 1
            self._position += 1
        wait_s = (self._due_ns(self._position) - now_ns) / 1e9
        if wait_s > timeout_s:
            self._sleep(timeout_s)
            raise FrameTimeoutError(f"the next recorded set is due in {wait_s - timeout_s:.3f} s")
        if wait_s > 0:
            self._sleep(wait_s)
        self._position += 1
        return self._position - 1

    def _due_ns(self, position: int) -> int:
        return self._arrivals_ns[position] + self.shift_ns
