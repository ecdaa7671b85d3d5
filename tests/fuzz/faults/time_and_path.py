"""Clocks that jump, and messages that come late, twice or from elsewhere."""

from __future__ import annotations

import random

from tests.fuzz.plan import OTHER_MODEL, Plan, change_scores, change_seen, fault, prolong, timer_stops
from tests.fuzz.world import MODEL_HASH


def _slowly(plan: Plan, frames: int) -> None:
    """Hardly any evidence for so many frames: the camera sees the face, few of the frames are fit."""
    prolong(plan, frames + 6)
    change_seen(plan.frames[:frames], conditions=["too_dark"])


@fault()
def slow_person(rng, plan):
    _slowly(plan, rng.randrange(8, 26))


@fault(never=True)
def never_a_keepalive(rng, plan):
    _slowly(plan, 21)
    plan.keepalives = False
    if rng.random() < 0.5:
        timer_stops(plan)


@fault(never=True)
def evidence_after_the_deadline(rng, plan):
    plan.begin["deadline_ms"] = 500
    _slowly(plan, 18)
    if rng.random() < 0.6:
        timer_stops(plan)


@fault(never=True)
def scores_after_the_deadline(rng, plan):
    """Frames in time, their scores not, and a timer that is late."""
    plan.begin["deadline_ms"] = 500
    _slowly(plan, 9)
    plan.frames = [frame for frame in plan.frames if frame.at < 490]
    for frame in plan.frames:
        frame.delay = 505 + frame.at / 100 - frame.at
    timer_stops(plan)


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
        change_scores(plan, [f for f in plan.frames if f.at + f.delay > at], model_hash=OTHER_MODEL, purpose=purpose)
    plan.extra.append((2500, "process", {"role": "inference", "event": "ready", "model_hash": MODEL_HASH,
                                         "purpose": "release"}))


@fault(never=True)
def checkpoint_not_for_release(rng, plan):
    purpose = rng.choice(["test", "simulated"])
    plan.begin["policy"] = rng.choice(["gate", "demo"])
    plan.extra.append((-0.5, "process", {"role": "inference", "event": "ready", "model_hash": "77" * 32,
                                         "purpose": purpose}))
    change_scores(plan, plan.frames, model_hash="77" * 32, purpose=purpose)
    plan.extra.append((2500, "process", {"role": "inference", "event": "ready", "model_hash": MODEL_HASH,
                                         "purpose": "release"}))


@fault(never=True)
def simulated_camera_and_weights(rng, plan):
    """A demonstration decides, and opens nothing."""
    checkpoint_not_for_release(random.Random(1), plan)
    plan.begin["policy"] = "demo"
    change_seen(plan.frames, simulated=True)
    for at, kind, arguments in plan.extra:
        if at < 0 and kind == "process":
            arguments["purpose"] = "simulated"
    change_scores(plan, plan.frames, purpose="simulated")


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
