"""What an audit finds: lines with a number, its bound, and whether the bound holds; and the bounds themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.simulator_audit.areas import WIDE, Area


class Status(StrEnum):
    """`UNRESOLVED`: too few recordings to tell; a larger tree must. It is no pass. `REPORTED`: there is no bound."""

    PASSED = "passed"
    FAILED = "FAILED"
    UNRESOLVED = "unresolved"
    REPORTED = "reported"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Every bound of the audit. They stand in the difficulty specification; a change of one is a change of that.

    Attributes:
        chance_upper: the upper end, at 95 %, that a line at chance must prove.
        fewest: recordings of each label that an area must be measured on to be judged.
        planted: a leak planted on purpose must be found with at least this area.
        leak: area of what should say nothing. leak_of_species: of the same, species by species.
        cue: area of a single cue over all attacks. cue_chance: an area this near 0.5 is near chance.
            cue_chance_species: how many species it must be near chance on.
        apcer, bpcer: each modality alone has a species with at least this APCER at this BPCER.
        informative, uninformative: areas that make a modality the only informative one.
        misleading: area of a modality of a domain unseen in training, at most this for some species somewhere.
        hard_share: of bona fide recordings, at least this has as many holes as the replays with few.
        missed: bona fide instants without a found face. serials: of a domain, each with both labels.
        residual_correlation: between frames of one recording once the fixed pattern is removed.
        fixed_pattern: least correlation of one camera's pattern over recordings. noise_correlation: least correlation
            of depth noise between neighbouring pixels, and between successive frames.
        association: largest bias-corrected Cramer's V of the label with cameras and with places.
        depicted: least share of live identities that are depicted as well.
        prior: largest difference between a list's share of live samples and the public list's.
        in_domain_hter, unseen_hter: of a plain late-fusion ViT.
    """

    chance_upper: float = 0.60
    fewest: int = 8
    planted: float = 0.80
    leak: float = 0.60
    leak_of_species: float = 0.60
    cue: float = 0.90
    cue_chance: float = 0.15
    cue_chance_species: int = 3
    apcer: float = 0.30
    bpcer: float = 0.05
    informative: float = 0.80
    uninformative: float = 0.65
    misleading: float = 0.50
    hard_share: float = 0.01
    missed: float = 0.05
    serials: int = 2
    residual_correlation: float = 0.02
    fixed_pattern: float = 0.20
    noise_correlation: float = 0.20
    association: float = 0.15
    depicted: float = 1.0
    prior: float = 0.05
    in_domain_hter: float = 0.05
    unseen_hter: tuple[float, float] = (0.15, 0.40)


BOUNDS = Bounds()


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the audit.

    Attributes:
        check: which demand, by its number and name. what: is measured. scope: domain, species or tree.
        value: NaN never stands here: what could not be measured is unresolved, with `value` None.
        bound: in words. low, high: of the interval, where there is one. units: what was counted.
    """

    check: str
    what: str
    scope: str
    value: float | None
    bound: str
    status: Status
    low: float | None = None
    high: float | None = None
    units: str = ""
    note: str = ""


@dataclass
class Findings:
    """All lines, the tables beside them, and pictures' data. `tables`: title -> rows of cells, the first the head."""

    lines: list[Line] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    matrices: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        """Appends a line."""
        self.lines.append(line)

    def count(self, status: Status) -> int:
        """Lines of a status."""
        return sum(line.status is status for line in self.lines)


def at_chance(check: str, what: str, scope: str, area: Area | None, note: str = "") -> Line:
    """A line whose area must be 0.5. Below chance is no leak: with matched pairs, held-out areas of nothing fall a
    little below 0.5."""
    bound = f"interval at {WIDE:.1%} reaches 0.5, upper end at 95 % ≤ {BOUNDS.chance_upper:.2f}"
    if area is None:
        return Line(check=check, what=what, scope=scope, value=None, bound=bound, status=Status.UNRESOLVED,
                    note="nothing to tell apart by, or one label only")
    status = Status.FAILED if area.low_wide > 0.5 else (
        Status.PASSED if area.high <= BOUNDS.chance_upper else Status.UNRESOLVED)
    return _of_area(check, what, scope, area, bound, status, note)


def at_most(check: str, what: str, scope: str, area: Area | None, limit: float, note: str = "") -> Line:
    """A line whose area must not exceed a limit.

    Above it without evidence against 0.5, or measured on fewer recordings than `Bounds.fewest`: unresolved.
    """
    bound = f"≤ {limit:.2f}"
    if area is None:
        return Line(check=check, what=what, scope=scope, value=None, bound=bound, status=Status.UNRESOLVED,
                    note="not measured: nothing to tell apart by, or one label only")
    if min(area.live, area.attacks) < BOUNDS.fewest:
        return _of_area(check, what, scope, area, bound, Status.UNRESOLVED, note or "too few recordings")
    status = Status.PASSED if area.value <= limit else (
        Status.FAILED if area.low_wide > 0.5 else Status.UNRESOLVED)
    return _of_area(check, what, scope, area, bound, status, note)


def reported(check: str, what: str, scope: str, area: Area | None, note: str = "") -> Line:
    """A line without a bound."""
    if area is None:
        return Line(check=check, what=what, scope=scope, value=None, bound="", status=Status.REPORTED, note="constant")
    return _of_area(check, what, scope, area, "", Status.REPORTED, note)


def _of_area(check: str, what: str, scope: str, area: Area, bound: str, status: Status, note: str) -> Line:
    return Line(check=check, what=what, scope=scope, value=area.value, bound=bound, status=status, low=area.low,
                high=area.high, units=f"{area.live} live, {area.attacks} other recordings", note=note)


def number_line(check: str, what: str, scope: str, value: float | None, bound: str, holds: bool, *, units: str = "",
                note: str = "", low: float | None = None, high: float | None = None) -> Line:
    """A line about a plain number; None is unresolved."""
    status = Status.UNRESOLVED if value is None else Status.PASSED if holds else Status.FAILED
    return Line(check=check, what=what, scope=scope, value=value, bound=bound, status=status, units=units, note=note,
                low=low, high=high)
