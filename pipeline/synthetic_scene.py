"""What a camera and a network would say about a made-up scene: observations and scores without any picture. Pure.

Everything here is invented: no camera looks, no network judges. It lets integrators drive the real sessions, verdicts
and kiosk socket on a machine with neither (`pipeline.simulated_engine`). Its logits say nothing about any checkpoint.
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, replace

from mmdg_model.scorer import Purpose
from pipeline.messages import Message, Observation, ObservedFace, ProcessEvent, Quality, Score
from pipeline.verdict import ModelInfo

FRAME_PERIOD_NS = 33_333_333
#: Each third frame is scored, as on a machine that keeps up with ten scores a second.
SCORED_EACH = 3
SCORE_LATENCY_NS = 40_000_000
#: Into a session, for faults that happen at a moment.
FAULT_AFTER_NS = 800_000_000
KILLED_FOR_NS = 2_000_000_000
#: Sets whose sensors are farther apart than half a period are no sets (`capture.pairing`).
MAX_SKEW_MS = FRAME_PERIOD_NS / 2e6

SCENES: dict[str, tuple[int, float]] = {  # faces in view, mean logit
    "bona_fide": (1, 6.0), "print": (1, -6.0), "screen": (1, -5.0), "mask": (1, -4.0), "doubtful": (1, 0.0),
    "nobody": (0, 0.0), "two_people": (2, 6.0)}
MODALITIES = ("rgb", "depth", "infrared")
_ALIASES = {"ir": "infrared", "infrared": "infrared", "depth": "depth"}
_KILLABLE = ("inference", "hub", "camera")

#: Announced as the network. `simulated`: it may decide on simulated cameras alone, whatever a policy says.
SYNTHETIC_MODEL = ModelInfo(model_hash=hashlib.sha256(b"synthetic scores, no network").hexdigest(),
                            purpose=Purpose.SIMULATED)

_QUALITY = Quality(face_width_px=180.0, distance_m=0.5, sharpness=120.0, brightness=120.0, depth_fill=0.95,
                   infrared_brightness=0.4, infrared_saturation=0.0, yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0)


class FaultError(ValueError):
    """A fault cannot be read; the message quotes it and says which there are."""


@dataclass(frozen=True, kw_only=True)
class SyntheticFaults:
    """What goes wrong.

    Attributes:
        stall_ms: no frame for this long, 0.8 s into each session. drop: modalities that are never there.
        skew_ms: infrared lags by this much; beyond half a frame period no set is complete.
        kill: a process that is lost 0.8 s into each session, for two seconds: `inference`, `hub` or `camera`.
    """

    stall_ms: float = 0.0
    drop: frozenset[str] = frozenset()
    skew_ms: float = 0.0
    kill: str | None = None


def parse_faults(text: str) -> SyntheticFaults:
    """`stall:2s,drop:ir,skew:20ms,kill:inference`, each at will. Empty: none.

    Raises:
        FaultError: an unknown kind, process or modality, or no time.
    """
    faults = SyntheticFaults()
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, _, value = part.partition(":")
        if kind == "stall":
            faults = replace(faults, stall_ms=_milliseconds(part, value))
        elif kind == "skew":
            faults = replace(faults, skew_ms=_milliseconds(part, value))
        elif kind == "drop" and value in _ALIASES:
            faults = replace(faults, drop=faults.drop | {_ALIASES[value]})
        elif kind == "kill" and value in _KILLABLE:
            faults = replace(faults, kill=value)
        else:
            raise FaultError(f"{part!r} is no fault; there are stall:TIME, skew:TIME (such as 2s, 20ms), "
                             f"drop:{'|'.join(sorted(_ALIASES))}, kill:{'|'.join(_KILLABLE)}")
    return faults


def _milliseconds(part: str, value: str) -> float:
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)(ms|s)", value)
    if match is None:
        raise FaultError(f"{part!r}: {value!r} is no time; write 20ms or 2s")
    return float(match[1]) * (1000.0 if match[2] == "s" else 1.0)


class SyntheticScene:
    """Produces messages when they are due. The caller says when sessions begin, as a supervisor hears it.

    Args:
        camera: its name. scene: of `SCENES`. now_ns: monotonic, of the first frame. seed: of the logits' noise.
        approach_ms: a person who steps up is too far away for this long.
    """

    def __init__(self, camera: str, scene: str, *, faults: SyntheticFaults | None = None, seed: int = 0,
                 now_ns: int = 0, approach_ms: float = 500.0) -> None:
        if scene not in SCENES:
            raise ValueError(f"no scene {scene!r}; there are {', '.join(SCENES)}")
        self.camera, self.faults = camera, faults if faults is not None else SyntheticFaults()
        self._faces, self._mean_logit = SCENES[scene]
        self._approach_ns = round(approach_ms * 1e6)
        self._random = random.Random(seed)
        self._next_ns = now_ns
        self._sequence, self._epoch = 0, 1
        self._scores: list[tuple[int, Score]] = []  # (due, score)
        self._began_ns: int | None = None
        self._stalled_until_ns = 0
        self._fault_ns: int | None = None
        self._returns_ns: int | None = None  # the killed process

    def session_began(self, now_ns: int) -> None:
        """A person steps up, and the faults that happen at a moment get theirs."""
        self._began_ns = now_ns
        if self.faults.stall_ms or self.faults.kill is not None:
            self._fault_ns = now_ns + FAULT_AFTER_NS

    def next_due_ns(self) -> int:
        """When `step` has something to say next."""
        moments = [self._next_ns, *(at for at, _ in self._scores)]
        return min(moments + [at for at in (self._fault_ns, self._returns_ns) if at is not None])

    def step(self, now_ns: int) -> list[Message]:
        """Everything that is due. A caller that comes late finds one frame, not all that were missed."""
        said: list[Message] = []
        if self._fault_ns is not None and now_ns >= self._fault_ns:
            self._fault_ns = None
            said += self._strike(now_ns)
        if self._returns_ns is not None and now_ns >= self._returns_ns:
            self._returns_ns = None
            self._epoch += self.faults.kill == "camera"
            said.append(self._process("ready", now_ns))
        if now_ns >= self._next_ns:
            self._next_ns = max(self._next_ns + FRAME_PERIOD_NS, now_ns)
            if self._shows(now_ns):
                said.append(self._frame(now_ns))
        said += [score for at, score in self._scores if at <= now_ns]
        self._scores = [(at, score) for at, score in self._scores if at > now_ns]
        return said

    def _strike(self, now_ns: int) -> list[Message]:
        self._stalled_until_ns = now_ns + round(self.faults.stall_ms * 1e6)
        if self.faults.kill is None:
            return []
        self._returns_ns = now_ns + KILLED_FOR_NS
        self._scores.clear()
        return [self._process("lost", now_ns)]

    def _process(self, event: str, now_ns: int) -> ProcessEvent:
        killed = self.faults.kill or "inference"
        detail = {"camera": self.camera} if killed == "camera" else announcement() if killed == "inference" else {}
        return ProcessEvent(process=killed, role=killed, event=event, stamp_ns=now_ns, detail=detail)

    def _shows(self, now_ns: int) -> bool:
        camera_is_down = self._returns_ns is not None and self.faults.kill == "camera"
        return not camera_is_down and now_ns >= self._stalled_until_ns and self.faults.skew_ms <= MAX_SKEW_MS

    def _frame(self, now_ns: int) -> Observation:
        self._sequence += 1
        modalities = [name for name in MODALITIES if name not in self.faults.drop]
        far = self._began_ns is not None and now_ns - self._began_ns < self._approach_ns
        conditions = {0: ["no_face"], 1: ["move_closer"] if far else []}.get(self._faces, ["multiple_faces"])
        scored = self._faces == 1 and self._sequence % SCORED_EACH == 0 and self._returns_ns is None
        if scored:
            self._scores.append((now_ns + SCORE_LATENCY_NS, self._score(modalities)))
        faces = [ObservedFace(track_id=track, x=200.0 * track, y=100.0, width=180.0, height=220.0, score=0.9)
                 for track in range(1, self._faces + 1)]
        return Observation(camera=self.camera, source="synthetic", epoch=self._epoch, sequence=self._sequence,
                           stamp_ns=now_ns, frame_period_ms=FRAME_PERIOD_NS / 1e6, faces=faces,
                           subject=1 if self._faces == 1 else None, track_broken=False, conditions=conditions,
                           quality=_QUALITY if self._faces else None, bundle_sent=scored, modalities=modalities,
                           counters={}, simulated=True)

    def _score(self, modalities: list[str]) -> Score:
        return Score(camera=self.camera, source="synthetic", epoch=self._epoch, sequence=self._sequence, track_id=1,
                     worker="synthetic", logit=self._random.gauss(self._mean_logit, 1.0), probability=0.5,
                     uncertainty=dict.fromkeys(modalities, 0.1), modalities=modalities,
                     model_hash=SYNTHETIC_MODEL.model_hash, purpose=SYNTHETIC_MODEL.purpose.value, durations_ms={},
                     stamps_ns={}, quality=_QUALITY)


def announcement() -> dict[str, str]:
    """What the inference process would say of its model when it is ready."""
    return {"model_hash": SYNTHETIC_MODEL.model_hash, "purpose": SYNTHETIC_MODEL.purpose.value}
