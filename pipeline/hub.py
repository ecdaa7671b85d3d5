"""The hub: one slot a camera, newest bundle wins, handed out on credit.

Measured (docs/streaming.md): PUB/SUB, PUSH/PULL with high-water marks and CONFLATE all let frames grow old behind a
slow worker. Here a worker asks, and gets the newest bundle of the next camera in turn; what is replaced or too old is
dropped and counted by its cause. In lock-step (replay) nothing is dropped: the camera waits for each bundle's score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline import messages
from pipeline.bundle import read_header, restamp
from pipeline.messages import BundleHeader, MessageError, Ready

#: A worker that repeats an answered credit after this time has lost the bundle (its socket reconnected).
ANSWER_LOST_AFTER_NS = 1_000_000_000
#: A worker that was not heard of for this long gets nothing more (it repeats its READY each 200 ms).
WORKER_SILENT_AFTER_NS = 2_000_000_000


@dataclass
class _Slot:
    header: BundleHeader
    frames: Sequence[bytes]
    received_ns: int


@dataclass
class _Worker:
    credit: int
    heard_ns: int
    answered_credit: int = -1
    answered_ns: int = 0


@dataclass(frozen=True)
class Handout:
    """One bundle for one worker; `frames` are ready to be sent to `identity`."""

    identity: bytes
    frames: list[bytes]
    camera: str
    sequence: int


@dataclass
class Hub:
    """The hub's whole state. `max_age_ms`: a bundle whose frames arrived longer ago is dropped, not handed out."""

    max_age_ms: float = 250.0
    counters: Counter[str] = field(default_factory=Counter)
    _slots: dict[str, _Slot] = field(default_factory=dict)
    _last_sequence: dict[str, tuple[int, int]] = field(default_factory=dict)
    _workers: dict[bytes, _Worker] = field(default_factory=dict)
    _turn: list[str] = field(default_factory=list)

    def offer(self, frames: Sequence[bytes], now_ns: int) -> None:
        """Take a bundle from a camera. Malformed, repeated or backwards: counted and dropped."""
        try:
            header = read_header(frames)
        except MessageError:
            self.counters["malformed_bundle"] += 1
            return
        epoch, sequence = self._last_sequence.get(header.camera, (-1, -1))
        if header.epoch == epoch and header.sequence <= sequence:
            self.counters["sequence_back"] += 1
            return
        self._last_sequence[header.camera] = (header.epoch, header.sequence)
        if header.camera in self._slots:
            self.counters["replaced"] += 1
        if header.camera not in self._turn:
            self._turn.append(header.camera)
        self._slots[header.camera] = _Slot(header, frames, now_ns)
        self.counters["received"] += 1

    def ready(self, identity: bytes, message: bytes, now_ns: int) -> None:
        """A worker says how many bundles it has taken; it has room for one more."""
        try:
            ready = messages.decode(message, Ready)
        except MessageError:
            self.counters["malformed_ready"] += 1
            return
        worker = self._workers.get(identity)
        if worker is None:
            self._workers[identity] = _Worker(ready.credit, now_ns)
            return
        worker.heard_ns = now_ns
        if ready.credit == worker.answered_credit and now_ns - worker.answered_ns > ANSWER_LOST_AFTER_NS:
            self.counters["credit_reissued"] += 1
            worker.answered_credit = -1
        worker.credit = ready.credit

    def hand_out(self, now_ns: int) -> list[Handout]:
        """Pair waiting workers with the newest bundles, cameras in turn."""
        handouts = []
        for identity, worker in list(self._workers.items()):
            if now_ns - worker.heard_ns > WORKER_SILENT_AFTER_NS:
                del self._workers[identity]
                continue
            if worker.credit == worker.answered_credit:
                continue
            slot = self._next_slot(now_ns)
            if slot is None:
                break
            worker.answered_credit, worker.answered_ns = worker.credit, now_ns
            handouts.append(Handout(
                identity, restamp(slot.frames, slot.header, hub_received=slot.received_ns, handed_out=now_ns),
                slot.header.camera, slot.header.sequence))
            self.counters["handed_out"] += 1
        return handouts

    def undeliverable(self, handout: Handout) -> None:
        """The socket had no route to that worker: forget it; the bundle is lost and counted."""
        self._workers.pop(handout.identity, None)
        self.counters["worker_gone"] += 1

    def _next_slot(self, now_ns: int) -> _Slot | None:
        for camera in list(self._turn):
            slot = self._slots.pop(camera, None)
            if slot is None:
                continue
            self._turn.remove(camera)
            self._turn.append(camera)
            # Age counts from the frames' arrival in the camera process, so that a bundle which sat in a socket while
            # the hub was restarted is as old as it really is.
            age_ms = (now_ns - slot.header.stamps_ns.get("arrival", slot.received_ns)) / 1e6
            if age_ms > self.max_age_ms and not slot.header.lockstep:
                self.counters["too_old"] += 1
                continue
            return slot
        return None
