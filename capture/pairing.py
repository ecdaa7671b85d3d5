"""Pairing: frames of several sensors become complete, fresh, time-matched groups. Pure; time is what the frames say.

Camera SDKs repeat stale frames and emit incomplete groups without an error, so freshness and matching are decided
here, the same for hardware, playback and simulation. A frame belongs to at most one group, and an old frame never
completes a new group: a missing sensor means no group.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from capture.frames import ClockDomain, Frame, StreamKind

PairedFrames = dict[StreamKind, Frame]

#: A would-be partner nearer than this share of a period counts as out of tolerance (`skew`), farther as `incomplete`.
_SAME_TICK = 0.75


@dataclass(frozen=True, kw_only=True)
class PairingLimits:
    """How much the pairer holds.

    Attributes:
        max_wait_periods: a frame this many frame periods older than the newest of its own stream has waited in vain.
            Sensors of one camera are delivered up to two periods apart over USB.
        max_pending: frames held per stream, whatever their stamps say.
        restart_periods: a stamp that goes back this far, with a frame number that goes back too, is a restarted
            stream (playback that wrapped, a device that was reset) and not a repeated frame.
    """

    max_wait_periods: float = 4.0
    max_pending: int = 8
    restart_periods: float = 15.0

    def __post_init__(self) -> None:
        if not (self.max_wait_periods > 0 and self.max_pending >= 1 and self.restart_periods > 0):
            raise ValueError(f"pairing limits must be positive: {self}")


@dataclass
class _Newest:
    """What the newest accepted frame of a stream was, to judge the next one by."""

    frame_number: int | None
    stamp_ns: int
    clock_domain: ClockDomain


class Pairer:
    """Groups frames by sensor timestamp.

    Args:
        streams: the streams that every group must have.
        frame_period_ns: nominal period of the fastest stream.
        max_skew_ns: largest difference of sensor timestamps within a group; default half a period, beyond which the
            nearest partner may be another exposure's.
        limits: bounds on waiting and memory.

    `counters`: `stale_<stream>` repeated or old frames, `gap_<stream>` frame numbers never seen, `skew` frames dropped
    because their partner was out of tolerance, `incomplete` frames dropped because a partner never came,
    `clock_domain` frames dropped because their stamps cannot be compared, `clock_back` restarts of the sensor clock,
    `unexpected_<stream>` frames of a stream that was not asked for. `skew_ms` is the histogram of emitted groups'
    skew in whole milliseconds, rounded down.
    """

    def __init__(self, streams: Iterable[StreamKind], frame_period_ns: int, max_skew_ns: int | None = None,
                 limits: PairingLimits | None = None) -> None:
        self.streams = tuple(dict.fromkeys(streams))
        if not self.streams:
            raise ValueError("a pairer needs at least one stream")
        if frame_period_ns <= 0:
            raise ValueError(f"frame_period_ns is {frame_period_ns}, must be positive")
        if max_skew_ns is not None and max_skew_ns < 0:
            raise ValueError(f"max_skew_ns is {max_skew_ns}, must not be negative")
        self.frame_period_ns = frame_period_ns
        self.max_skew_ns = frame_period_ns // 2 if max_skew_ns is None else max_skew_ns
        self.limits = limits or PairingLimits()
        self.counters: Counter[str] = Counter()
        self.skew_ms: Counter[int] = Counter()
        self._pending: dict[StreamKind, deque[Frame]] = {kind: deque() for kind in self.streams}
        self._newest: dict[StreamKind, _Newest] = {}

    @property
    def pending(self) -> int:
        """Frames held now: at most `max_pending` a stream."""
        return sum(len(queue) for queue in self._pending.values())

    def step(self, frames: Iterable[Frame]) -> list[PairedFrames]:
        """Take new frames, in the order in which they arrived; return the groups that they complete, oldest first."""
        groups: list[PairedFrames] = []
        for frame in frames:
            if frame.kind not in self._pending:
                self.counters[f"unexpected_{frame.kind}"] += 1
            elif self._accept(frame):
                self._pending[frame.kind].append(frame)
                groups.extend(self._match())
                self._let_go_of_the_old(frame)
        return groups

    def reset(self) -> None:
        """Forget everything held and every frame number seen, as after a restart of the device. Counters go on."""
        self.counters["incomplete"] += self.pending
        for queue in self._pending.values():
            queue.clear()
        self._newest.clear()

    def _accept(self, frame: Frame) -> bool:
        """Judge freshness; count what is stale, missing or restarted."""
        newest = self._newest.get(frame.kind)
        if newest is not None:
            comparable = frame.clock_domain is newest.clock_domain
            advance_ns = frame.sensor_timestamp_ns - newest.stamp_ns if comparable else None
            numbered = frame.frame_number is not None and newest.frame_number is not None
            steps = (frame.frame_number or 0) - (newest.frame_number or 0) if numbered else None
            restarted = advance_ns is not None and advance_ns < 0 and (
                steps is None or steps > 0 or -advance_ns >= self.limits.restart_periods * self.frame_period_ns)
            if restarted:
                self.counters["clock_back"] += 1
                self.reset()
            elif advance_ns == 0 or (steps is not None and steps <= 0):
                # A new number on an old stamp is no new exposure either.
                self.counters[f"stale_{frame.kind}"] += 1
                return False
            elif steps is not None and steps > 1:
                self.counters[f"gap_{frame.kind}"] += steps - 1
        self._newest[frame.kind] = _Newest(frame.frame_number, frame.sensor_timestamp_ns, frame.clock_domain)
        return True

    def _match(self) -> Iterable[PairedFrames]:
        """Emit while every stream has a frame. Whatever is emitted does not depend on how frames were batched."""
        while all(self._pending.values()):
            heads = {kind: queue[0] for kind, queue in self._pending.items()}
            if len({frame.clock_domain for frame in heads.values()}) > 1:
                self._drop(min(heads.values(), key=lambda frame: frame.arrival_ns).kind, "clock_domain")
                continue
            stamps = sorted((frame.sensor_timestamp_ns, kind) for kind, frame in heads.items())
            (earliest_ns, earliest), latest_ns = stamps[0], stamps[-1][0]
            if latest_ns - earliest_ns <= self.max_skew_ns:
                for queue in self._pending.values():
                    queue.popleft()
                self.skew_ms[(latest_ns - earliest_ns) // 1_000_000] += 1
                yield heads
            else:
                # The other streams only move on from here, so the earliest frame can never find its partners.
                near = latest_ns - earliest_ns < _SAME_TICK * self.frame_period_ns
                self._drop(earliest, "skew" if near else "incomplete")

    def _let_go_of_the_old(self, newest: Frame) -> None:
        queue = self._pending[newest.kind]
        horizon_ns = newest.sensor_timestamp_ns - int(self.limits.max_wait_periods * self.frame_period_ns)
        while queue and (len(queue) > self.limits.max_pending
                         or (queue[0].clock_domain is newest.clock_domain
                             and queue[0].sensor_timestamp_ns < horizon_ns)):
            self._drop(newest.kind, "incomplete")

    def _drop(self, kind: StreamKind, cause: str) -> None:
        self._pending[kind].popleft()
        self.counters[cause] += 1
