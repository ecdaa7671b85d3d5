"""What the gateway tells about the engine itself: health, cameras, alerts, counts. Pure: time is an argument."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Literal

from pipeline import kiosk_messages as wire
from pipeline.decision import DecisionEngine
from pipeline.verdict import DecisionRecord

_NS_PER_MS = 1_000_000
HEALTH_PERIOD_NS = 1_000_000_000
#: A camera that has shown nothing for this long is told as `silent`.
SILENT_NS = 1_000_000_000
#: Each alert code goes out at most this often, with a count.
ALERT_PERIOD_NS = 1_000_000_000
_TIMES_KEPT = 1000

CameraStatus = Literal["serving", "silent", "unseen", "lost"]
#: (topic, event) in the order in which they are to be sent.
Told = list[tuple[str, wire.Envelope]]


@dataclass
class _Alert:
    count: int
    detail: str
    told_ns: int | None = None


@dataclass
class KioskMetrics:
    """Counted by the gateway; `told` makes the reply."""

    started_ns: int
    commands: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    sessions: int = 0
    events_published: int = 0
    _times_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_TIMES_KEPT))

    def decided(self, record: DecisionRecord) -> None:
        """One session has its decision."""
        self.verdicts[record.verdict.value] += 1
        self.reasons[record.reason] += 1
        self._times_ms.append(record.time_to_decision_ms)

    def told(self, now_ns: int, *, clients: int, open_sessions: int) -> wire.Metrics:
        """The reply's content."""
        times = sorted(self._times_ms)
        spread = {} if not times else {name: round(times[min(len(times) - 1, int(share * len(times)))], 1)
                                       for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}
        return wire.Metrics(uptime_s=round((now_ns - self.started_ns) / 1e9, 3), clients=clients,
                            open_sessions=open_sessions, sessions=self.sessions, commands=dict(self.commands),
                            errors=dict(self.errors), verdicts=dict(self.verdicts), reasons=dict(self.reasons),
                            events_published=self.events_published, time_to_decision_ms=spread)


class EngineWatch:
    """Follows the engine and says what has changed."""

    def __init__(self, engine: DecisionEngine) -> None:
        self.engine = engine
        self._observed: dict[str, tuple[int, int]] = {}  # camera -> (receipt, sequence)
        self._sequences: Counter[str] = Counter()
        self._health_ns: int | None = None
        self._health_wanted = False
        self._told_state: object = None
        self._told_status: dict[str, CameraStatus] = {}
        self._alerts: dict[str, _Alert] = {}

    def observed(self, camera: str, sequence: int, now_ns: int) -> None:
        """A camera lives."""
        self._observed[camera] = (now_ns, sequence)

    def want_health(self) -> None:
        """Somebody has just subscribed to it."""
        self._health_wanted = True

    def alert(self, code: str, detail: str, count: int = 1) -> None:
        """To be told on the security topic, with how often, at most once a second."""
        known = self._alerts.setdefault(code, _Alert(0, detail))
        known.count, known.detail = known.count + count, detail

    def next_due_ns(self, now_ns: int) -> int:
        """When `due` has something to say at the latest."""
        return now_ns if self._health_ns is None else self._health_ns + HEALTH_PERIOD_NS

    def due(self, now_ns: int, counters: Counter[str]) -> Told:
        """Health each second and on change, cameras on change, alerts."""
        told: Told = []
        statuses = {name: self.status(name, now_ns) for name in sorted(self.engine.cameras)}
        for camera, status in statuses.items():
            if self._told_status.get(camera) != status:
                told.append((wire.DEVICE_TOPIC, wire.DeviceStatusEvent(
                    sequence=self._next(wire.DEVICE_TOPIC), camera=camera, status=status)))
        self._told_status = statuses
        state = (self.engine.ready, self.engine.model, self.engine.lost, tuple(statuses.items()))
        if self._health_wanted or state != self._told_state or now_ns >= self.next_due_ns(now_ns):
            self._health_ns, self._told_state, self._health_wanted = now_ns, state, False
            told.append((wire.HEALTH_TOPIC, wire.HealthEvent(sequence=self._next(wire.HEALTH_TOPIC),
                                                             health=self.health(now_ns, counters))))
        for code, alert in self._alerts.items():
            if alert.count and (alert.told_ns is None or now_ns - alert.told_ns >= ALERT_PERIOD_NS):
                told.append((wire.SECURITY_TOPIC, wire.SecurityAlertEvent(
                    sequence=self._next(wire.SECURITY_TOPIC), code=code, count=alert.count, detail=alert.detail)))
                alert.count, alert.told_ns = 0, now_ns
        return told

    def _next(self, topic: str) -> int:
        self._sequences[topic] += 1
        return self._sequences[topic]

    def status(self, camera: str, now_ns: int) -> CameraStatus:
        """How a camera is doing."""
        if camera in self.engine.absent:
            return "lost"
        received_ns, _ = self._observed.get(camera, (None, None))
        if received_ns is None:
            return "unseen"
        return "silent" if now_ns - received_ns > SILENT_NS else "serving"

    def health(self, now_ns: int, counters: Counter[str]) -> wire.Health:
        """The state of the engine now. `counters`: the gateway's, the engine's are added."""
        model, busy = self.engine.model, self.engine.busy_cameras
        cameras = []
        for name in sorted(self.engine.cameras):
            received_ns, sequence = self._observed.get(name, (None, None))
            age_ms = None if received_ns is None else round((now_ns - received_ns) / _NS_PER_MS, 1)
            cameras.append(wire.CameraHealth(name=name, status=self.status(name, now_ns), age_ms=age_ms,
                                             sequence=sequence, open_session=name in busy))
        return wire.Health(ready=self.engine.ready, model_hash=model.model_hash if model else None,
                           model_purpose=model.purpose.value if model else None, lost=sorted(self.engine.lost),
                           cameras=cameras, counters=dict(counters + self.engine.counters))
