"""Many cases, what they came to, and the smallest form of one that fails."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline import audit_check
from tests.fuzz import random_cases
from tests.fuzz.random_cases import Case
from tests.fuzz.world import FuzzLog, Violation, World

#: Cases that share one audit log.
BLOCK = 400


@dataclass
class Tally:
    """Counts of a campaign; sessions are those that a plan wanted to begin."""

    cases: int = 0
    sessions: int = 0
    unfaulted: int = 0
    unfaulted_opened: int = 0
    between: int = 0  # honest sessions between faulted ones
    between_opened: int = 0
    faulted: int = 0
    faulted_opened: int = 0
    never: int = 0
    never_opened: int = 0
    records: int = 0
    violations: Counter = field(default_factory=Counter)
    verdicts: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    by_fault: Counter = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)


def case_of(seed: int, index: int, names: list[str] | None = None) -> Case:
    """The case of this number: always the same."""
    return random_cases.make(random.Random(f"{seed}:{index}"), names)


def play(case: Case, log: FuzzLog | None, folder: Path | None = None) -> World:
    """Raises `Violation`; any other error out of the code under test is one, too."""
    world = World(case.config, log, folder)
    try:
        world.play(case.operations)
    except Violation:
        raise
    except Exception as error:
        raise Violation("exception", f"{type(error).__name__}: {error}") from error
    for number in case.never:
        if number in world.sessions and world.sessions[number].opened:
            raise Violation("never", f"session {number} opened with {case.faults[number]}")
    return world


def count(case: Case, world: World) -> Tally:
    """What one case came to."""
    opened = {number for number, session in world.sessions.items() if session.opened}
    tally = Tally(cases=1, sessions=len(case.honest) + len(case.faults), verdicts=world.verdicts,
                  reasons=world.reasons, refused=world.refused)
    hits = len(opened & set(case.honest))
    if case.unfaulted:
        tally.unfaulted, tally.unfaulted_opened = len(case.honest), hits
    else:
        tally.between, tally.between_opened = len(case.honest), hits
    tally.faulted, tally.faulted_opened = len(case.faults), len(opened & set(case.faults))
    tally.never, tally.never_opened = len(case.never), len(opened & set(case.never))
    for names in case.faults.values():
        tally.by_fault.update(names)
    return tally


def campaign(seed: int, indices: Iterable[int], folder: Path, *, names: list[str] | None = None,
             failed: Callable[[int, Case, Violation], bool] | None = None,
             progress: Callable[[Tally], None] | None = None) -> Tally:
    """Play the cases of these numbers.

    Args:
        folder: for audit logs, one for each block of cases; each is verified, then removed.
        failed: told of each violation; returns whether to go on. None = the first is raised.
    """
    tally, log, accepts, path = Tally(), None, 0, folder / "audit.jsonl"
    for done, index in enumerate(indices):
        if log is None:
            log, accepts = FuzzLog(path, sync="never", max_bytes=2**30), 0
        case = case_of(seed, index, names)
        try:
            world = play(case, log, folder)
            tally.add(count(case, world))
            accepts += len(world.accepts)
        except Violation as violation:
            tally.violations[violation.rule] += 1
            if failed is None or not failed(index, case, violation):
                log.full = False
                log.close()
                if failed is None:
                    raise
                return tally
            accepts = -10**9  # what the broken case told is not known
        if done % BLOCK == BLOCK - 1:
            tally.records += _check_log(log, accepts)
            log = None
            if progress is not None:
                progress(tally)
    if log is not None:
        tally.records += _check_log(log, accepts)
    return tally


def _check_log(log: FuzzLog, accepts: int) -> int:
    """Its chain holds, and it tells of every decision that could open. The number of its records."""
    log.full = False
    log.close()
    report = audit_check.verify(log.path)
    if report.problems or not report.closed:
        raise Violation("audit_chain", f"{report.problems[:3]}")
    told = sum(1 for record in audit_check.records(log.path)
               if record.kind == "session.decided" and record.content["verdict"] == "bona_fide")
    if accepts >= 0 and told != accepts:
        raise Violation("audit_record", f"{accepts} decisions that may open were told, {told} are in the log")
    log.path.unlink()
    return report.records


def rule_of(case: Case, folder: Path) -> str | None:
    """The rule that a case breaks, None for none. Its audit log is its own."""
    path = folder / f"case-{time.monotonic_ns()}.jsonl"
    log = FuzzLog(path, sync="never")
    try:
        world = play(case, log, folder)
        _check_log(log, len(world.accepts))
    except Violation as violation:
        return violation.rule
    finally:
        log.full = False
        log.close()
        path.unlink(missing_ok=True)
    return None


def shrink(case: Case, rule: str, folder: Path, attempts: int = 400) -> Case:
    """The same violation with as few operations as can be found by leaving some out."""
    best, size = case, max(1, len(case.operations) // 2)
    while size and attempts > 0:
        start, hit = 0, False
        while start < len(best.operations) and attempts > 0:
            smaller = Case(**{**vars(best), "operations": best.operations[:start] + best.operations[start + size:]})
            attempts -= 1
            if rule_of(smaller, folder) == rule:
                best, hit = smaller, True
            else:
                start += size
        size = size if hit and size == 1 else size // 2
    return best


def save(case: Case, path: Path, about: dict) -> None:
    """As JSON, to be played again (`load`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, **asdict(case)}, indent=1))


def load(path: Path) -> Case:
    """A saved case."""
    found = json.loads(path.read_text())
    return Case(config=found["config"], operations=found["operations"], unfaulted=found["unfaulted"],
                honest=found["honest"], never=found["never"],
                faults={int(number): names for number, names in found["faults"].items()})
