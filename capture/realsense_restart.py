"""The restart ladder of a RealSense: what to try next when sets stop coming. Pure: events and times in, actions out.

    silence for `stall_ms` -> stop and start the streams -> find the device again by serial and open it anew
    -> hardware reset, then wait for the device to enumerate -> give up: leave the process

Waits on the SDK itself are `wait_ms` long, so nothing here blocks. Giving up is a rung of its own because recovery
inside a process is known to hang or crash in the SDK; a supervisor starts a clean process.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum, StrEnum


class Action(StrEnum):
    WAIT = "wait"
    RESTART_STREAMS = "restart_streams"
    REOPEN = "reopen"
    HARDWARE_RESET = "hardware_reset"
    GIVE_UP = "give_up"


class Event(StrEnum):
    SET = "set"  # a complete, fresh set was handed on
    SILENCE = "silence"  # a wait ended without one
    DONE = "done"  # the last action succeeded
    FAILED = "failed"  # the last action failed


class _Rung(IntEnum):
    RUNNING = 0
    RESTARTED = 1
    REOPENED = 2
    RESET = 3
    GONE = 4


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """How patient the ladder is, in milliseconds.

    Attributes:
        wait_ms: longest single wait on the SDK.
        stall_ms: silence that starts the ladder: 30 frame periods at 30 a second.
        settle_ms: silence allowed after a restart; auto-exposure and USB need up to two seconds.
        reopen_every_ms, reenumerate_ms: how often, and how long, a vanished device is looked for. A reset device
            needs several seconds to enumerate.
        healthy_ms: this much delivery since the last restart forgives it; a shorter run continues up the ladder.
    """

    wait_ms: float = 200.0
    stall_ms: float = 1_000.0
    settle_ms: float = 3_000.0
    reopen_every_ms: float = 500.0
    reenumerate_ms: float = 10_000.0
    healthy_ms: float = 10_000.0

    def __post_init__(self) -> None:
        for each in fields(self):
            if not getattr(self, each.name) > 0:
                raise ValueError(f"restart policy: {each.name} is {getattr(self, each.name)!r}, must be positive")


class RestartLadder:
    """One camera's ladder. Every `step` tells what happened and when, and answers what to do now."""

    def __init__(self, policy: RestartPolicy, now_ns: int) -> None:
        self.policy = policy
        self._rung = _Rung.RUNNING
        self._since_ns = now_ns  # the last progress: a set, or a restart that succeeded
        self._recovered_ns: int | None = None  # when sets came back after the last restart
        self._search_until_ns: int | None = None  # set while the device is being looked for
        self._next_search_ns = 0

    def step(self, event: Event, now_ns: int) -> Action:
        if self._rung is _Rung.GONE:
            return Action.GIVE_UP
        if event is Event.SET:
            return self._delivered(now_ns)
        if event is Event.DONE:
            return self._succeeded(now_ns)
        if event is Event.FAILED:
            return self._failed(now_ns)
        if self._search_until_ns is not None:
            return self._search(now_ns)
        patience_ms = self.policy.stall_ms if self._rung is _Rung.RUNNING or self._recovered_ns is not None \
            else self.policy.settle_ms
        return self._climb(now_ns) if now_ns - self._since_ns >= patience_ms * 1e6 else Action.WAIT

    def _delivered(self, now_ns: int) -> Action:
        self._since_ns = now_ns
        if self._rung is not _Rung.RUNNING:
            if self._recovered_ns is None:
                self._recovered_ns = now_ns
            elif now_ns - self._recovered_ns >= self.policy.healthy_ms * 1e6:
                self._rung = _Rung.RUNNING
        return Action.WAIT

    def _succeeded(self, now_ns: int) -> Action:
        if self._rung is _Rung.RESET and self._search_until_ns is None:
            return self._start_search(now_ns, first_after_ms=self.policy.reopen_every_ms)
        self._search_until_ns = None
        self._since_ns = now_ns
        return Action.WAIT

    def _failed(self, now_ns: int) -> Action:
        if self._search_until_ns is not None and now_ns < self._search_until_ns:
            self._next_search_ns = now_ns + round(self.policy.reopen_every_ms * 1e6)
            return Action.WAIT
        return self._climb(now_ns)

    def _search(self, now_ns: int) -> Action:
        return Action.REOPEN if now_ns >= self._next_search_ns else Action.WAIT

    def _start_search(self, now_ns: int, first_after_ms: float = 0.0) -> Action:
        self._search_until_ns = now_ns + round(self.policy.reenumerate_ms * 1e6)
        self._next_search_ns = now_ns + round(first_after_ms * 1e6)
        return self._search(now_ns)

    def _climb(self, now_ns: int) -> Action:
        self._rung = _Rung(self._rung + 1)
        self._since_ns, self._recovered_ns, self._search_until_ns = now_ns, None, None
        if self._rung is _Rung.RESTARTED:
            return Action.RESTART_STREAMS
        if self._rung is _Rung.REOPENED:
            return self._start_search(now_ns)
        return Action.HARDWARE_RESET if self._rung is _Rung.RESET else Action.GIVE_UP
