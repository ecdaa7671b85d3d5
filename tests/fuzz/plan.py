"""A session's plan, what may be done to one, and the registry of faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fuzz.world import PERIOD_MS

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


def some_frames(rng: random.Random, plan: Plan) -> list[Frame]:
    """Some of its frames: all, the first few, or a random part."""
    return [f for f in plan.frames if rng.random() < 0.6] if rng.random() < 0.5 else plan.frames[rng.randrange(3):]


def prolong(plan: Plan, frames: int, period: float = PERIOD_MS) -> None:
    while len(plan.frames) < frames:
        last = plan.frames[-1]
        plan.frames.append(Frame(last.at + period, last.sequence + 1))


def change_scores(plan: Plan, frames: list[Frame], **changes: Any) -> None:
    for frame in frames:
        if frame.score is not None:
            frame.score |= changes


def change_seen(frames: list[Frame], **changes: Any) -> None:
    for frame in frames:
        if frame.seen is not None:
            frame.seen |= changes


def timer_stops(plan: Plan, at: float = 20) -> None:
    """The engine's timer rings no more from then on."""
    plan.extra.append((at, "timer", {"on": False}))
