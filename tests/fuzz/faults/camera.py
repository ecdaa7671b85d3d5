"""What the camera sees, or does not."""

from __future__ import annotations

from tests.fuzz.plan import change_scores, change_seen, fault, prolong, some_frames, timer_stops
from tests.fuzz.world import PERIOD_MS


@fault(never=True)
def gated_frames(rng, plan):
    change_seen(plan.frames, conditions=[rng.choice(["too_dark", "remove_mask", "depth_holes", "ir_saturated"])])


@fault()
def some_gated_frames(rng, plan):
    change_seen(some_frames(rng, plan), conditions=["too_dark"])


@fault(never=True)
def two_faces(rng, plan):
    change_seen(plan.frames, tracks=[1, 2])


@fault()
def sometimes_two_faces(rng, plan):
    prolong(plan, 8)
    change_seen(plan.frames[rng.randrange(4)::rng.choice([2, 3])], tracks=[1, 2])


@fault(never=True)
def nobody(rng, plan):
    prolong(plan, 14)
    change_seen(plan.frames, tracks=[])


@fault()
def face_swapped(rng, plan):
    prolong(plan, 7)
    for frame in plan.frames[1 + rng.randrange(3):]:
        change_seen([frame], tracks=[2])
        if rng.random() < 0.8:
            change_scores(plan, [frame], track_id=2)


@fault()
def broken_track(rng, plan):
    prolong(plan, 7)
    change_seen(plan.frames[1 + rng.randrange(2)::2], track_broken=True)


@fault()
def track_gap(rng, plan):
    prolong(plan, 10)
    start = 1 + rng.randrange(3)
    change_seen(plan.frames[start:start + 4], tracks=[])


@fault()
def away_for_long(rng, plan):
    """No face for longer than allowed, then a live one; with a timer that may be late."""
    prolong(plan, 24)
    change_seen(plan.frames[1:15], tracks=[])
    if rng.random() < 0.5:
        timer_stops(plan, 60)


@fault()
def another_epoch(rng, plan):
    prolong(plan, 7)
    for frame in plan.frames[1 + rng.randrange(3):]:
        change_seen([frame], epoch=2)
        change_scores(plan, [frame], epoch=2)


@fault()
def another_source(rng, plan):
    prolong(plan, 7)
    for frame in plan.frames[1 + rng.randrange(2):]:
        change_seen([frame], source="serial-elsewhere")
        if rng.random() < 0.9:
            change_scores(plan, [frame], source="serial-elsewhere")


@fault(never=True)
def stamps_in_the_future(rng, plan):
    change_seen(plan.frames[:rng.choice([1, None])], lag_ms=-rng.uniform(1, 140))


@fault()
def stamps_that_stand_or_go_back(rng, plan):
    for frame in plan.frames[1:]:
        change_seen([frame], lag_ms=4.0 + rng.choice([0, PERIOD_MS + 3, 70.0]))


@fault(never=True)
def integrity(rng, plan):
    change_seen(plan.frames[rng.randrange(2):], integrity=[rng.choice(
        ["frozen_rgb", "frozen_infrared", "repeated_depth", "timestamp_rgb", "skew", "domain", "camera_serial",
         "drift_depth", "never_heard_of"])])


@fault()
def observations_again(rng, plan):
    """An observation repeated, with another content."""
    for frame in some_frames(rng, plan):
        plan.extra.append((frame.at + rng.uniform(0, 30), "observe", {
            "camera": plan.camera, "sequence": frame.sequence, "tracks": rng.choice([[1], [2], []])}))


@fault()
def gated_once_told_twice(rng, plan):
    """Frames not fit to judge, told again as fit under the same sequence."""
    plan.never = True
    for frame in plan.frames:
        change_seen([frame], conditions=["too_dark"])
        plan.extra.append((frame.at + 1, "observe", {"camera": plan.camera, "sequence": frame.sequence}))


@fault()
def observations_in_another_order(rng, plan):
    for frame in plan.frames:
        shift = rng.uniform(-50, 50)
        frame.at = max(5.0, frame.at + shift)
        change_seen([frame], lag_ms=max(0.0, 4.0 + shift))


@fault()
def stall(rng, plan):
    """Frames stop for longer than allowed; the timer may be late, or the gap may stand in the stamps alone."""
    start = 1 + rng.randrange(2)
    for frame in plan.frames[start:]:
        frame.at += 260.0
    if rng.random() < 0.6:
        timer_stops(plan)


@fault()
def burst(rng, plan):
    """Frames that follow each other faster than evidence may."""
    for index, frame in enumerate(plan.frames):
        frame.at = 20 + 6.0 * index


@fault(never=True)
def unknown_camera(rng, plan):
    change_seen(plan.frames, camera="side")


@fault()
def goes_lockstep(rng, plan):
    """A camera that suddenly says that its frames are a recording's."""
    change_seen(plan.frames[rng.randrange(3):], lockstep=True)
    if rng.random() < 0.7:
        plan.frames = plan.frames[:3]
