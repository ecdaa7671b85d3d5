"""Lock-out, limits, the audit log, calibration."""

from __future__ import annotations

from tests.fuzz.faults.time_and_path import restart
from tests.fuzz.plan import change_scores, change_seen, fault, prolong


@fault()
def besieged(rng, plan):
    """Attack after attack on one camera."""
    plan.camera = "front"
    change_scores(plan, plan.frames, logit=-8.0)


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
    change_seen(plan.frames, camera_kind=rng.choice(["", "other-kind"]))


@fault(never=True)
def unmeasured_camera(rng, plan):
    """The policy's threshold was measured on other kinds of camera."""
    plan.begin["policy"] = "asked"
    change_seen(plan.frames, camera_kind=rng.choice(["", "other-kind"]))


@fault()
def uncalibrated_subset(rng, plan):
    """Fewer modalities than all, and nobody has calibrated their scores."""
    plan.begin["policy"] = "two"
    if rng.random() < 0.5:
        plan.config["calibration"] = "own"
        change_scores(plan, plan.frames, modalities=["rgb", "infrared"])
    else:
        plan.config.setdefault("calibration", None)
        change_scores(plan, plan.frames, modalities=["rgb", "depth"] if plan.config["calibration"] is None else ["rgb"])


@fault()
def subsets_in_turn(rng, plan):
    """Two calibrated subsets, never the same twice: their evidence must not be added."""
    plan.begin["policy"], plan.config["calibration"] = "two", "own"
    prolong(plan, 7)
    change_scores(plan, plan.frames[rng.randrange(2)::2], modalities=["rgb", "depth"])
