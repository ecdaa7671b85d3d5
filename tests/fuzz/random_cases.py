"""Random cases: a few sessions of one engine each, honest or with faults, as lists of operations in virtual time.

Every fault is a function of `tests.fuzz.faults`; it changes the plan of one session. `never` = no session with it may
open, whatever else happens; for the others the witness says what is allowed. A case follows from seed and index alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import tests.fuzz.faults  # noqa: F401 registers them
from tests.fuzz.plan import CALIBRATES, CONFIGURES, FAULTS, NEVER, Frame, Plan
from tests.fuzz.world import CAMERAS, MODEL_HASH, PERIOD_MS

#: Share of cases without any fault.
HONEST = 0.15


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
