"""Evidence that is missing, stale, repeated or foreign."""

from __future__ import annotations

import math

from tests.fuzz.plan import OTHER_MODEL, Frame, change_scores, change_seen, fault, prolong, some_frames, timer_stops
from tests.fuzz.world import CAMERAS


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
    change_scores(plan, plan.frames, modalities=used)


@fault()
def some_scores_lack_a_modality(rng, plan):
    change_scores(plan, some_frames(rng, plan), modalities=rng.choice([["rgb", "depth"], ["rgb", "infrared"]]))


@fault(never=True)
def camera_lacks_a_modality(rng, plan):
    change_seen(plan.frames, modalities=rng.choice([["rgb", "infrared"], ["rgb"], []]))


@fault()
def camera_loses_a_modality(rng, plan):
    prolong(plan, 7)
    change_seen(plan.frames[2:3 + rng.randrange(2)], modalities=["rgb", "infrared"])


@fault(never=True)
def stale_scores(rng, plan):
    prolong(plan, 22)
    late = rng.uniform(305, 450)
    for frame in plan.frames:
        frame.delay = late


@fault()
def slow_scores(rng, plan):
    for frame in some_frames(rng, plan):
        frame.delay = rng.uniform(100, 420)


@fault(never=True)
def stale_frames(rng, plan):
    prolong(plan, 8)
    lag = rng.uniform(305, 390)
    plan.frames = [Frame(f.at + lag, f.sequence, f.seen, f.score, f.delay) for f in plan.frames]
    change_seen(plan.frames, lag_ms=lag - 2)
    timer_stops(plan, 0.5)


@fault(never=True)
def one_score_again_and_again(rng, plan):
    """The same score each time, or its copies under the same sequence with other numbers."""
    for frame in plan.frames[1:]:
        if frame.score is not None:
            frame.score |= {"sequence": plan.frames[0].sequence, "logit": rng.choice([8.0, 9.5])}


@fault()
def scores_twice(rng, plan):
    for frame in some_frames(rng, plan):
        plan.extra.append((frame.at + frame.delay + rng.uniform(0, 30), "score",
                           {"camera": plan.camera, "sequence": frame.sequence}))


@fault()
def scores_in_another_order(rng, plan):
    prolong(plan, 7)
    for frame in plan.frames:
        frame.delay = rng.uniform(-30, 120)


@fault(never=True)
def scores_of_another_source(rng, plan):
    change_scores(plan, plan.frames, source="serial-elsewhere")


@fault(never=True)
def scores_of_another_epoch(rng, plan):
    change_scores(plan, plan.frames, epoch=rng.choice([0, 2]))


@fault(never=True)
def scores_of_another_track(rng, plan):
    change_scores(plan, plan.frames, track_id=2)


@fault(never=True)
def scores_of_another_camera(rng, plan):
    change_scores(plan, plan.frames, camera=next(c for c in CAMERAS if c != plan.camera))


@fault(never=True)
def scores_without_observation(rng, plan):
    """Each score names a frame that was never told of, right before one that was."""
    first = plan.frames[0].sequence
    for frame in plan.frames:
        frame.sequence = first + 2 * (frame.sequence - first) + 1
        change_scores(plan, [frame], sequence=frame.sequence - 1)


@fault(never=True)
def frames_before_the_session(rng, plan):
    """Scores and frames of before: the camera is silent now."""
    base = rng.uniform(70, 250)
    for index, frame in enumerate(plan.frames):
        change_seen([frame], lag_ms=frame.at + base - 30.0 * min(index, 2) - index)


@fault(never=True)
def scores_of_another_model(rng, plan):
    change_scores(plan, plan.frames, model_hash=OTHER_MODEL)


@fault(never=True)
def scores_of_another_purpose(rng, plan):
    change_scores(plan, plan.frames, purpose=rng.choice(["test", "simulated", "reference", ""]))


@fault(never=True)
def no_numbers(rng, plan):
    change_scores(plan, plan.frames, logit=rng.choice([math.nan, math.inf, -math.inf]))


@fault()
def some_no_numbers(rng, plan):
    change_scores(plan, some_frames(rng, plan), logit=rng.choice([math.nan, math.inf, -math.inf]))


@fault(never=True)
def uncertainty_out_of_range(rng, plan):
    change_scores(plan, plan.frames, uncertainty={"rgb": rng.choice([-5.0, math.nan, 7.0, -math.inf]), "depth": 0.1,
                                            "infrared": 0.1})


@fault()
def uncertain_or_untold(rng, plan):
    change_scores(plan, some_frames(rng, plan), uncertainty=rng.choice([{}, {"rgb": 0.1}, dict.fromkeys(
        ("rgb", "depth", "infrared"), 0.95)]))


@fault(never=True)
def failed_scores(rng, plan):
    change_scores(plan, plan.frames, failed="worker out of memory")


@fault(never=True)
def unknown_modality(rng, plan):
    change_scores(plan, plan.frames, modalities=["rgb", "depth", "infrared", "thermal"])


@fault(never=True)
def weak_scores(rng, plan):
    change_scores(plan, plan.frames, logit=rng.uniform(-0.2, 0.2))


@fault(never=True)
def attack(rng, plan):
    change_scores(plan, plan.frames, logit=-8.0)


@fault()
def lukewarm_scores(rng, plan):
    """Enough for a sum that takes correlated frames for independent ones, not yet for one that does not."""
    prolong(plan, 9)
    change_scores(plan, plan.frames, logit=rng.uniform(1.6, 2.4))


@fault()
def lukewarm_scores_twice(rng, plan):
    """What one look at each frame does not give, two of the same would."""
    prolong(plan, 9)
    change_scores(plan, plan.frames, logit=rng.uniform(1.0, 1.8))
    plan.extra += [(frame.at + frame.delay + 1, "score", {"camera": plan.camera, **frame.score,
                                                          "sequence": frame.sequence})
                   for frame in plan.frames if frame.score is not None]


@fault()
def one_huge_score(rng, plan):
    prolong(plan, 7)
    change_scores(plan, plan.frames, logit=0.3)
    change_scores(plan, plan.frames[1:2], logit=1e30)


@fault()
def attack_then_live(rng, plan):
    """A debt: a reset forgets nothing that spoke against the face."""
    prolong(plan, 9)
    change_scores(plan, plan.frames[:1], logit=-rng.uniform(2.2, 2.8))
    change_seen(plan.frames[2:3], tracks=[1, 2])
