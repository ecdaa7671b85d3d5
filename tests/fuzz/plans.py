"""Random cases: a few sessions of one engine each, honest or with faults, as lists of operations in virtual time.

Every fault is a function in `FAULTS`; it changes the plan of one session. `never` = no session with it may open,
whatever else happens; for the others the witness says what is allowed. A case follows from seed and index alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.world import CAMERAS, MODEL_HASH, PERIOD_MS

#: Share of cases without any fault.
HONEST = 0.15
OTHER_MODEL = "99" * 32


@dataclass
class Frame:
    """One frame of a plan; at: ms after the session began. None for either message: it is never sent."""

    at: float
    sequence: int
    seen: dict[str, Any] | None = field(default_factory=dict)
    score: dict[str, Any] | None = field(default_factory=dict)
    delay: float = 35.0


@dataclass
class Plan:
    """One session. extra: further operations, ms after it began. begin: arguments of it."""

    number: int
    kiosk: int
    camera: str
    begin: dict[str, Any]
    frames: list[Frame]
    extra: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    never: bool = False
    keepalives: bool = True
    config: dict[str, Any] = field(default_factory=dict)  # of the case


FAULTS: dict[str, Callable[[random.Random, Plan], None]] = {}
NEVER: set[str] = set()
CONFIGURES: set[str] = set()  # faults of the whole case
#: Faults that choose the case's calibration.
CALIBRATES = {"uncalibrated_camera", "uncalibrated_subset", "subsets_in_turn"}


def fault(*, never: bool = False, configures: bool = False):
    """Register."""
    def register(function):
        FAULTS[function.__name__] = function
        if never:
            NEVER.add(function.__name__)
        if configures:
            CONFIGURES.add(function.__name__)
        return function
    return register


def _some(rng: random.Random, plan: Plan) -> list[Frame]:
    """Some of its frames: all, the first few, or a random part."""
    return [f for f in plan.frames if rng.random() < 0.6] if rng.random() < 0.5 else plan.frames[rng.randrange(3):]


def _longer(plan: Plan, frames: int, period: float = PERIOD_MS) -> None:
    while len(plan.frames) < frames:
        last = plan.frames[-1]
        plan.frames.append(Frame(last.at + period, last.sequence + 1))


def _scores(plan: Plan, frames: list[Frame], **changes: Any) -> None:
    for frame in frames:
        if frame.score is not None:
            frame.score |= changes


def _seen(frames: list[Frame], **changes: Any) -> None:
    for frame in frames:
        if frame.seen is not None:
            frame.seen |= changes


# --- evidence that is missing, stale, repeated, foreign -------------------------------------------------------------
@fault(never=True)
def no_scores(rng, plan):
    for frame in plan.frames:
        frame.score = None


@fault(never=True)
def too_few_scores(rng, plan):
    for frame in plan.frames[2:]:
        frame.score = None


@fault(never=True)
def scores_lack_a_modality(rng, plan):
    used = rng.choice([["rgb"], ["rgb", "infrared"], ["depth", "infrared"], ["infrared"], []])
    _scores(plan, plan.frames, modalities=used)


@fault()
def some_scores_lack_a_modality(rng, plan):
    _scores(plan, _some(rng, plan), modalities=rng.choice([["rgb", "depth"], ["rgb", "infrared"]]))


@fault(never=True)
def camera_lacks_a_modality(rng, plan):
    _seen(plan.frames, modalities=rng.choice([["rgb", "infrared"], ["rgb"], []]))


@fault()
def camera_loses_a_modality(rng, plan):
    _longer(plan, 7)
    _seen(plan.frames[2:3 + rng.randrange(2)], modalities=["rgb", "infrared"])


@fault(never=True)
def stale_scores(rng, plan):
    _longer(plan, 22)
    late = rng.uniform(305, 450)
    for frame in plan.frames:
        frame.delay = late


@fault()
def slow_scores(rng, plan):
    for frame in _some(rng, plan):
        frame.delay = rng.uniform(100, 420)


@fault(never=True)
def stale_frames(rng, plan):
    _longer(plan, 8)
    lag = rng.uniform(305, 390)
    plan.frames = [Frame(f.at + lag, f.sequence, f.seen, f.score, f.delay) for f in plan.frames]
    _seen(plan.frames, lag_ms=lag - 2)
    plan.extra.append((0.5, "timer", {"on": False}))


@fault(never=True)
def one_score_again_and_again(rng, plan):
    """The same score each time, or its copies under the same sequence with other numbers."""
    for frame in plan.frames[1:]:
        if frame.score is not None:
            frame.score |= {"sequence": plan.frames[0].sequence, "logit": rng.choice([8.0, 9.5])}


@fault()
def scores_twice(rng, plan):
    for frame in _some(rng, plan):
        plan.extra.append((frame.at + frame.delay + rng.uniform(0, 30), "score",
                           {"camera": plan.camera, "sequence": frame.sequence}))


@fault()
def scores_in_another_order(rng, plan):
    _longer(plan, 7)
    for frame in plan.frames:
        frame.delay = rng.uniform(-30, 120)


@fault(never=True)
def scores_of_another_source(rng, plan):
    _scores(plan, plan.frames, source="serial-elsewhere")


@fault(never=True)
def scores_of_another_epoch(rng, plan):
    _scores(plan, plan.frames, epoch=rng.choice([0, 2]))


@fault(never=True)
def scores_of_another_track(rng, plan):
    _scores(plan, plan.frames, track_id=2)


@fault(never=True)
def scores_of_another_camera(rng, plan):
    _scores(plan, plan.frames, camera=next(c for c in CAMERAS if c != plan.camera))


@fault(never=True)
def scores_without_observation(rng, plan):
    """Each score names a frame that was never told of, right before one that was."""
    first = plan.frames[0].sequence
    for frame in plan.frames:
        frame.sequence = first + 2 * (frame.sequence - first) + 1
        _scores(plan, [frame], sequence=frame.sequence - 1)


@fault(never=True)
def frames_before_the_session(rng, plan):
    """Scores and frames of before: the camera is silent now."""
    base = rng.uniform(70, 250)
    for index, frame in enumerate(plan.frames):
        _seen([frame], lag_ms=frame.at + base - 30.0 * min(index, 2) - index)


@fault(never=True)
def scores_of_another_model(rng, plan):
    _scores(plan, plan.frames, model_hash=OTHER_MODEL)


@fault(never=True)
def scores_of_another_purpose(rng, plan):
    _scores(plan, plan.frames, purpose=rng.choice(["test", "simulated", "reference", ""]))


@fault(never=True)
def no_numbers(rng, plan):
    _scores(plan, plan.frames, logit=rng.choice([math.nan, math.inf, -math.inf]))


@fault()
def some_no_numbers(rng, plan):
    _scores(plan, _some(rng, plan), logit=rng.choice([math.nan, math.inf, -math.inf]))


@fault(never=True)
def uncertainty_out_of_range(rng, plan):
    _scores(plan, plan.frames, uncertainty={"rgb": rng.choice([-5.0, math.nan, 7.0, -math.inf]), "depth": 0.1,
                                            "infrared": 0.1})


@fault()
def uncertain_or_untold(rng, plan):
    _scores(plan, _some(rng, plan), uncertainty=rng.choice([{}, {"rgb": 0.1}, dict.fromkeys(
        ("rgb", "depth", "infrared"), 0.95)]))


@fault(never=True)
def failed_scores(rng, plan):
    _scores(plan, plan.frames, failed="worker out of memory")


@fault(never=True)
def unknown_modality(rng, plan):
    _scores(plan, plan.frames, modalities=["rgb", "depth", "infrared", "thermal"])


@fault(never=True)
def weak_scores(rng, plan):
    _scores(plan, plan.frames, logit=rng.uniform(-0.2, 0.2))


@fault(never=True)
def attack(rng, plan):
    _scores(plan, plan.frames, logit=-8.0)


@fault()
def lukewarm_scores(rng, plan):
    """Enough for a sum that takes correlated frames for independent ones, not yet for one that does not."""
    _longer(plan, 9)
    _scores(plan, plan.frames, logit=rng.uniform(1.6, 2.4))


@fault()
def lukewarm_scores_twice(rng, plan):
    """What one look at each frame does not give, two of the same would."""
    _longer(plan, 9)
    _scores(plan, plan.frames, logit=rng.uniform(1.0, 1.8))
    plan.extra += [(frame.at + frame.delay + 1, "score", {"camera": plan.camera, **frame.score,
                                                          "sequence": frame.sequence})
                   for frame in plan.frames if frame.score is not None]


@fault()
def one_huge_score(rng, plan):
    _longer(plan, 7)
    _scores(plan, plan.frames, logit=0.3)
    _scores(plan, plan.frames[1:2], logit=1e30)


@fault()
def besieged(rng, plan):
    """Attack after attack on one camera."""
    plan.camera = "front"
    _scores(plan, plan.frames, logit=-8.0)


@fault(configures=True)
def besieged_over_restarts(rng, plan):
    besieged(rng, plan)
    plan.config["lockout_file"] = True
    restart(rng, plan)
    at = 2000.0 - plan.extra[-4][0]
    plan.extra[-4:] = [(time + at, kind, arguments) for time, kind, arguments in plan.extra[-4:]]


@fault()
def flood_of_sessions(rng, plan):
    plan.extra += [step for i in range(8) for step in (
        (2100.0 + 140 * i, "begin", {"number": 10_000 + 10 * plan.number + i, "kiosk": plan.kiosk,
                                     "camera": plan.camera, "nonce": f"{plan.number * 10 + i:062x}ff"}),
        (2160.0 + 140 * i, "cancel", {"number": 10_000 + 10 * plan.number + i}))]


@fault()
def attack_then_live(rng, plan):
    """A debt: a reset forgets nothing that spoke against the face."""
    _longer(plan, 9)
    _scores(plan, plan.frames[:1], logit=-rng.uniform(2.2, 2.8))
    _seen(plan.frames[2:3], tracks=[1, 2])


# --- what the camera sees -------------------------------------------------------------------------------------------
@fault(never=True)
def gated_frames(rng, plan):
    _seen(plan.frames, conditions=[rng.choice(["too_dark", "remove_mask", "depth_holes", "ir_saturated"])])


@fault()
def some_gated_frames(rng, plan):
    _seen(_some(rng, plan), conditions=["too_dark"])


@fault(never=True)
def two_faces(rng, plan):
    _seen(plan.frames, tracks=[1, 2])


@fault()
def sometimes_two_faces(rng, plan):
    _longer(plan, 8)
    _seen(plan.frames[rng.randrange(4)::rng.choice([2, 3])], tracks=[1, 2])


@fault(never=True)
def nobody(rng, plan):
    _longer(plan, 14)
    _seen(plan.frames, tracks=[])


@fault()
def face_swapped(rng, plan):
    _longer(plan, 7)
    for frame in plan.frames[1 + rng.randrange(3):]:
        _seen([frame], tracks=[2])
        if rng.random() < 0.8:
            _scores(plan, [frame], track_id=2)


@fault()
def broken_track(rng, plan):
    _longer(plan, 7)
    _seen(plan.frames[1 + rng.randrange(2)::2], track_broken=True)


@fault()
def track_gap(rng, plan):
    _longer(plan, 10)
    start = 1 + rng.randrange(3)
    _seen(plan.frames[start:start + 4], tracks=[])


@fault()
def away_for_long(rng, plan):
    """No face for longer than allowed, then a live one; with a timer that may be late."""
    _longer(plan, 24)
    _seen(plan.frames[1:15], tracks=[])
    if rng.random() < 0.5:
        plan.extra.append((60, "timer", {"on": False}))


@fault()
def another_epoch(rng, plan):
    _longer(plan, 7)
    for frame in plan.frames[1 + rng.randrange(3):]:
        _seen([frame], epoch=2)
        _scores(plan, [frame], epoch=2)


@fault()
def another_source(rng, plan):
    _longer(plan, 7)
    for frame in plan.frames[1 + rng.randrange(2):]:
        _seen([frame], source="serial-elsewhere")
        if rng.random() < 0.9:
            _scores(plan, [frame], source="serial-elsewhere")


@fault(never=True)
def stamps_in_the_future(rng, plan):
    _seen(plan.frames[:rng.choice([1, None])], lag_ms=-rng.uniform(1, 140))


@fault()
def stamps_that_stand_or_go_back(rng, plan):
    for frame in plan.frames[1:]:
        _seen([frame], lag_ms=4.0 + rng.choice([0, PERIOD_MS + 3, 70.0]))


@fault(never=True)
def integrity(rng, plan):
    _seen(plan.frames[rng.randrange(2):], integrity=[rng.choice(
        ["frozen_rgb", "frozen_infrared", "repeated_depth", "timestamp_rgb", "skew", "domain", "camera_serial",
         "drift_depth", "never_heard_of"])])


@fault()
def observations_again(rng, plan):
    """An observation repeated, with another content."""
    for frame in _some(rng, plan):
        plan.extra.append((frame.at + rng.uniform(0, 30), "observe", {
            "camera": plan.camera, "sequence": frame.sequence, "tracks": rng.choice([[1], [2], []])}))


@fault()
def gated_once_told_twice(rng, plan):
    """Frames not fit to judge, told again as fit under the same sequence."""
    plan.never = True
    for frame in plan.frames:
        _seen([frame], conditions=["too_dark"])
        plan.extra.append((frame.at + 1, "observe", {"camera": plan.camera, "sequence": frame.sequence}))


@fault()
def observations_in_another_order(rng, plan):
    for frame in plan.frames:
        shift = rng.uniform(-50, 50)
        frame.at = max(5.0, frame.at + shift)
        _seen([frame], lag_ms=max(0.0, 4.0 + shift))


@fault()
def stall(rng, plan):
    """Frames stop for longer than allowed; the timer may be late, or the gap may stand in the stamps alone."""
    start = 1 + rng.randrange(2)
    for frame in plan.frames[start:]:
        frame.at += 260.0
    if rng.random() < 0.6:
        plan.extra.append((20, "timer", {"on": False}))


@fault()
def burst(rng, plan):
    """Frames that follow each other faster than evidence may."""
    for index, frame in enumerate(plan.frames):
        frame.at = 20 + 6.0 * index


@fault(never=True)
def unknown_camera(rng, plan):
    _seen(plan.frames, camera="side")


@fault()
def goes_lockstep(rng, plan):
    """A camera that suddenly says that its frames are a recording's."""
    _seen(plan.frames[rng.randrange(3):], lockstep=True)
    if rng.random() < 0.7:
        plan.frames = plan.frames[:3]


# --- time and the path ----------------------------------------------------------------------------------------------
def _slowly(plan: Plan, frames: int) -> None:
    """Hardly any evidence for so many frames: the camera sees the face, few of the frames are fit."""
    _longer(plan, frames + 6)
    _seen(plan.frames[:frames], conditions=["too_dark"])


@fault()
def slow_person(rng, plan):
    _slowly(plan, rng.randrange(8, 26))


@fault(never=True)
def never_a_keepalive(rng, plan):
    _slowly(plan, 21)
    plan.keepalives = False
    if rng.random() < 0.5:
        plan.extra.append((20, "timer", {"on": False}))


@fault(never=True)
def evidence_after_the_deadline(rng, plan):
    plan.begin["deadline_ms"] = 500
    _slowly(plan, 18)
    if rng.random() < 0.6:
        plan.extra.append((20, "timer", {"on": False}))


@fault(never=True)
def scores_after_the_deadline(rng, plan):
    """Frames in time, their scores not, and a timer that is late."""
    plan.begin["deadline_ms"] = 500
    _slowly(plan, 9)
    plan.frames = [frame for frame in plan.frames if frame.at < 490]
    for frame in plan.frames:
        frame.delay = 505 + frame.at / 100 - frame.at
    plan.extra.append((20, "timer", {"on": False}))


@fault(never=True)
def longer_than_the_evidence_allows(rng, plan):
    """A compiled policy, and a kiosk that asks for more time."""
    plan.begin |= {"policy": "asked", "deadline_ms": 5000}
    _slowly(plan, 20)


@fault()
def process_lost(rng, plan):
    at = rng.uniform(1, 120)
    role = rng.choice(["inference", "hub", "camera"])
    detail = {"camera": plan.camera} if role == "camera" and rng.random() < 0.7 else {}
    plan.extra.append((at, "process", {"role": role, "event": "lost", **detail}))
    back = {"model_hash": MODEL_HASH, "purpose": "release"} if role == "inference" else {}
    plan.extra.append((at + rng.uniform(1, 3000), "process", {"role": role, "event": "ready", **back}))
    if role == "camera" and "camera" not in detail:
        plan.extra.append((at, "process", {"role": role, "event": "ready"}))


@fault(never=True)
def process_lost_before(rng, plan):
    role = rng.choice(["inference", "hub"])
    plan.extra.append((-0.5, "process", {"role": role, "event": "lost"}))
    back = {"model_hash": MODEL_HASH, "purpose": "release"} if role == "inference" else {}
    plan.extra.append((2000, "process", {"role": role, "event": "ready", **back}))


@fault(never=True)
def camera_lost_before(rng, plan):
    plan.extra.append((-0.5, "process", {"role": "camera", "event": "lost", "camera": plan.camera}))


@fault()
def camera_ended(rng, plan):
    plan.extra.append((rng.uniform(1, 150), "camera_ended", {
        "camera": plan.camera, "reason": rng.choice(["device_lost", "end_of_stream", "stopped", "corrupt_stream"]),
        "epoch": rng.choice([1, 1, 0])}))


@fault()
def model_changes(rng, plan):
    at = rng.uniform(1, 120)
    purpose = rng.choice(["release", "test"])
    plan.extra.append((at, "process", {"role": "inference", "event": "ready", "model_hash": OTHER_MODEL,
                                       "purpose": purpose}))
    if rng.random() < 0.5:
        _scores(plan, [f for f in plan.frames if f.at + f.delay > at], model_hash=OTHER_MODEL, purpose=purpose)
    plan.extra.append((2500, "process", {"role": "inference", "event": "ready", "model_hash": MODEL_HASH,
                                         "purpose": "release"}))


@fault(never=True)
def checkpoint_not_for_release(rng, plan):
    purpose = rng.choice(["test", "simulated"])
    plan.begin["policy"] = rng.choice(["gate", "demo"])
    plan.extra.append((-0.5, "process", {"role": "inference", "event": "ready", "model_hash": "77" * 32,
                                         "purpose": purpose}))
    _scores(plan, plan.frames, model_hash="77" * 32, purpose=purpose)
    plan.extra.append((2500, "process", {"role": "inference", "event": "ready", "model_hash": MODEL_HASH,
                                         "purpose": "release"}))


@fault(never=True)
def simulated_camera_and_weights(rng, plan):
    """A demonstration decides, and opens nothing."""
    checkpoint_not_for_release(random.Random(1), plan)
    plan.begin["policy"] = "demo"
    _seen(plan.frames, simulated=True)
    for at, kind, arguments in plan.extra:
        if at < 0 and kind == "process":
            arguments["purpose"] = "simulated"
    _scores(plan, plan.frames, purpose="simulated")


@fault(never=True, configures=True)
def no_model(rng, plan):
    plan.config["model"] = False


@fault(never=True)
def restart(rng, plan):
    """The engine is another process from here on; the camera and the scores go on as if nothing was."""
    at = rng.uniform(1, plan.frames[2].at + 15)  # before the third score can be there
    plan.extra.append((at, "restart", {}))
    plan.extra.append((at, "process", {"role": "inference", "event": "ready", "model_hash": MODEL_HASH,
                                       "purpose": "release"}))
    plan.extra += [(at + 1, "hello", {"kiosk": kiosk}) for kiosk in (0, 1)]


# --- kiosks ---------------------------------------------------------------------------------------------------------
@fault()
def cancelled(rng, plan):
    plan.extra.append((rng.uniform(1, 150), "cancel", {"number": plan.number}))


@fault()
def nonce_again(rng, plan):
    plan.begin["nonce"] = f"{1:064x}"


@fault(never=True)
def weak_nonce(rng, plan):
    plan.begin["nonce"] = rng.choice(["", "00" * 15, "not a nonce at all!"])


@fault(never=True)
def monitor_begins(rng, plan):
    plan.begin["role"] = "MONITOR"


@fault(never=True)
def unknown_policy(rng, plan):
    plan.begin["policy"] = rng.choice(["lenient", "default"])


@fault()
def second_begin(rng, plan):
    plan.extra.append((rng.uniform(0.1, 90), "begin", {
        "number": 1000 + plan.number, "kiosk": 1 - plan.kiosk, "camera": plan.camera,
        "nonce": f"{plan.number:e>64x}"}))


@fault()
def other_kiosk_meddles(rng, plan):
    other = 1 - plan.kiosk
    plan.extra += [(rng.uniform(1, 100), "cancel", {"number": plan.number, "kiosk": other}),
                   (rng.uniform(150, 900), "get", {"number": plan.number, "kiosk": other}),
                   (rng.uniform(1, 100), "get", {"number": plan.number}), (250, "status", {"number": plan.number})]


@fault()
def read_again(rng, plan):
    plan.extra += [(rng.uniform(1, 2600), "get", {"number": plan.number}) for _ in range(3)]


@fault(never=True)
def presented_late(rng, plan):
    plan.begin["hold"] = True
    plan.extra.append((rng.uniform(2210, 9000), "present", {"number": plan.number}))


@fault(never=True)
def decision_of_another_session(rng, plan):
    plan.begin["hold"] = True
    plan.extra += [(at, "present", {"number": plan.number, "of": plan.number - 1}) for at in (5.0, 100.0, 400.0)]


#: What a decision of the engine's own key says that must not open, one at a time.
ODD = ({"origin": "local"}, {"examined": False}, {"examined": 1}, {"simulated": True}, {"simulated": None},
       {"model_purpose": "simulated"}, {"model_purpose": None}, {"contract": 2}, {"contract": True},
       {"type": "session.decision"}, {"verdict": "undecided"}, {"verdict": "attack"}, {"verdict": "BONA_FIDE"},
       {"verdict": None}, {"nonce": None}, {"nonce": "00" * 32}, {"nonce": "é"}, {"transaction_hash": "11" * 32},
       {"expires_in_ms": 60_000}, {"expires_in_ms": 10**400}, {"expires_in_ms": "5000"}, {"time_to_decision_ms": 10**9},
       {"time_to_decision_ms": -1}, {"time_to_decision_ms": None}, {"session_id": "f" * 32}, {"key_id": "0" * 16},
       {"key_id": None}, {"modalities_used": "rgb"}, {"nonce": "\ud800"})


@fault(never=True)
def odd_decision(rng, plan):
    """Signed by the engine's key, and yet not a decision to open on."""
    plan.begin["hold"] = True
    plan.extra += [(250.0, "present", {"number": plan.number, "change": odd, "signature": "engine"})
                   for odd in rng.sample(ODD, 4)]


@fault(never=True)
def altered_or_unsigned(rng, plan):
    if rng.random() < 0.5:
        _scores(plan, plan.frames, logit=-8.0)
    plan.begin["hold"] = True
    made_up = {"verdict": "bona_fide", "reason": "llr_upper"}
    plan.extra += [(220.0, "present", {"number": plan.number, "change": made_up, "signature": how})
                   for how in ("own", "none", "foreign")]
    plan.extra += [(230.0, "present", {"number": plan.number, "signature": how})
                   for how in ("none", "short", "flipped", "foreign")]


# --- guards ---------------------------------------------------------------------------------------------------------
@fault()
def disk_full(rng, plan):
    at = rng.uniform(-1, 130)
    plan.extra += [(at, "disk", {"full": True}), (at + rng.choice([5.0, 60.0, 2000.0]), "disk", {"full": False})]


@fault(never=True)
def disk_full_all_along(rng, plan):
    at = rng.choice([-0.5, 3.0])
    plan.extra += [(at, "disk", {"full": True}), (at + 0.1, "process", {"role": "hub", "event": "ready"}),
                   (2500.0, "disk", {"full": False})]


@fault(never=True, configures=True)
def calibration_of_another_model(rng, plan):
    plan.config["calibration"] = "other"


@fault(never=True)
def uncalibrated_camera(rng, plan):
    plan.config["calibration"] = "own"
    _seen(plan.frames, camera_kind=rng.choice(["", "other-kind"]))


@fault(never=True)
def unmeasured_camera(rng, plan):
    """The policy's threshold was measured on other kinds of camera."""
    plan.begin["policy"] = "asked"
    _seen(plan.frames, camera_kind=rng.choice(["", "other-kind"]))


@fault()
def uncalibrated_subset(rng, plan):
    """Fewer modalities than all, and nobody has calibrated their scores."""
    plan.begin["policy"] = "two"
    if rng.random() < 0.5:
        plan.config["calibration"] = "own"
        _scores(plan, plan.frames, modalities=["rgb", "infrared"])
    else:
        plan.config.setdefault("calibration", None)
        _scores(plan, plan.frames, modalities=["rgb", "depth"] if plan.config["calibration"] is None else ["rgb"])


@fault()
def subsets_in_turn(rng, plan):
    """Two calibrated subsets, never the same twice: their evidence must not be added."""
    plan.begin["policy"], plan.config["calibration"] = "two", "own"
    _longer(plan, 7)
    _scores(plan, plan.frames[rng.randrange(2)::2], modalities=["rgb", "depth"])


# --- cases ----------------------------------------------------------------------------------------------------------
def _honest(rng: random.Random, number: int, config: dict[str, Any]) -> Plan:
    frames = [Frame(20 + PERIOD_MS * i + rng.uniform(-2, 2), 100_000 * number + i + 1,
                    {"lag_ms": rng.uniform(2, 12)}, {"logit": rng.uniform(5, 12)}, rng.uniform(20, 60))
              for i in range(5)]
    begin = {"nonce": f"{number:064x}", "transaction": "5a" * 32 if rng.random() < 0.3 else None}
    return Plan(number, rng.randrange(2), rng.choice(CAMERAS), begin, frames, config=config)


def _operations(plan: Plan, start: float) -> list[list[Any]]:
    operations: list[list[Any]] = [[start, "begin", {
        "number": plan.number, "kiosk": plan.kiosk, "camera": plan.camera, **plan.begin}]]
    for frame in plan.frames:
        if frame.seen is not None:
            operations.append([start + frame.at, "observe", {
                "camera": plan.camera, "sequence": frame.sequence} | frame.seen])
        if frame.score is not None:
            operations.append([start + frame.at + frame.delay, "score", {
                "camera": plan.camera, "sequence": frame.sequence} | frame.score])
    operations += [[start + at, kind, arguments] for at, kind, arguments in plan.extra]
    if any(kind == "timer" for _, kind, _ in plan.extra):
        operations.append([start + 2600, "timer", {"on": True}])
    last = max((f.at + f.delay for f in plan.frames), default=0.0)
    if plan.keepalives and last > 250:
        operations += [[start + at, "keepalive", {"number": plan.number}] for at in range(200, int(last) + 200, 200)]
    return operations


@dataclass
class Case:
    """One engine's life.

    Attributes:
        operations: `[at_ms, kind, arguments]`, to be played in order. unfaulted: nothing in it is wrong.
        honest, faults: its sessions. never: those that must not open whatever the witness says.
    """

    config: dict[str, Any]
    operations: list[list[Any]]
    unfaulted: bool
    honest: list[int]
    never: list[int]
    faults: dict[int, list[str]]


def make(rng: random.Random, names: list[str] | None = None) -> Case:
    """One case. names: faults to choose from, one for each session; None = all, with honest sessions between."""
    config: dict[str, Any] = {"calibration": rng.choice([None, None, "own"])}
    unfaulted = names is None and rng.random() < HONEST
    everything = [name for name in sorted(FAULTS) if name not in CONFIGURES] if names is None else names
    plans = []
    for number in range(1, rng.randrange(2, 5) + 1):
        plan = _honest(rng, number, config)
        if not unfaulted and (names is not None or rng.random() < 0.85):
            count = 1 if names is not None else rng.choices([1, 2, 3], [6, 2, 1])[0]
            plan.faults = rng.sample(everything, min(count, len(everything)))
            if names is None and number == 1 and rng.random() < 0.05:
                plan.faults = [rng.choice(sorted(CONFIGURES))]
                everything = [name for name in everything if name not in CALIBRATES]
            for name in plan.faults:
                FAULTS[name](rng, plan)
            # Two faults may cancel each other out; then only the witness can tell.
            plan.never = len(plan.faults) == 1 and plan.faults[0] in NEVER
        plans.append(plan)
    operations: list[list[Any]] = [[1000.0, "hello", {"kiosk": kiosk}] for kiosk in (0, 1)]
    if config.get("model", True):
        operations.append([1000.0, "process", {"role": "inference", "event": "ready", "model_hash": MODEL_HASH,
                                               "purpose": "release"}])
    start = 2000.0
    for plan, following in zip(plans, [*plans[1:], None], strict=True):
        operations += _operations(plan, start)
        overlaps = not unfaulted and rng.random() < 0.1
        start += rng.uniform(200, 2000) if overlaps else 3500.0
        if overlaps and following is not None:  # what is left of one reaches into the other
            plan.never = following.never = False
    operations.sort(key=lambda operation: operation[0])
    return Case(config, operations, unfaulted, [plan.number for plan in plans if not plan.faults],
                [plan.number for plan in plans if plan.never],
                {plan.number: plan.faults for plan in plans if plan.faults})
