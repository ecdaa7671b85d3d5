"""Error rates of presentation attack detection, from scores and labels: APCER, BPCER, HTER, ROC, AUC, EER, intervals.

Words are those of ISO/IEC 30107-3: an *attack presentation* of a *presentation attack instrument species* (here:
species) accepted as bona fide counts towards that species' APCER; a *bona fide presentation* refused counts towards
BPCER. HTER and ACER are older terms, kept for the papers' tables.

Rules, the same everywhere:
- a larger score means more like a live face; label 1 (True) is bona fide, 0 (False) is an attack;
- **accept is score >= threshold**; the threshold +inf accepts nothing;
- among equally good thresholds **the first index** wins, thresholds in falling order: the strictest of them;
- NaN and infinite scores, labels other than 0 and 1, and a missing class are errors, never zero.

NumPy and SciPy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


class Unit(StrEnum):
    """What one trial is."""

    FRAME = "frame"
    VIDEO = "video"
    SUBJECT = "subject"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Two-sided interval at `confidence`, both ends included."""

    low: float
    high: float
    confidence: float


@dataclass(frozen=True, kw_only=True)
class Proportion:
    """`count` of `trials`, and what a trial is. There is no proportion of zero trials: that is unknown, not zero.

    Raises:
        ValueError: no trials, or a count outside 0..trials.
    """

    count: int
    trials: int
    unit: Unit

    def __post_init__(self) -> None:
        if self.trials < 1 or not 0 <= self.count <= self.trials:
            raise ValueError(f"{self.count} of {self.trials} {self.unit}s is no proportion; "
                             "at least one trial and a count between 0 and the trials are needed")

    @property
    def rate(self) -> float:
        """In 0..1."""
        return self.count / self.trials

    def exact_interval(self, confidence: float = 0.95) -> Interval:
        """Two-sided Clopper-Pearson interval.

        Raises:
            ValueError: a trial is a frame (frames of a video are not independent, so the interval would be far too
                narrow: use videos or subjects), or a confidence outside 0..1.
        """
        self._refuse_frames()
        ends = stats.binomtest(self.count, self.trials).proportion_ci(confidence, method="exact")
        return Interval(low=float(ends.low), high=float(ends.high), confidence=confidence)

    def upper_bound(self, confidence: float = 0.95) -> float:
        """One-sided Clopper-Pearson bound: what a target such as "APCER at most 2 %" is judged by.

        Raises:
            ValueError: as `exact_interval`.
        """
        self._refuse_frames()
        ends = stats.binomtest(self.count, self.trials, alternative="less").proportion_ci(confidence, method="exact")
        return float(ends.high)

    def _refuse_frames(self) -> None:
        if self.unit is Unit.FRAME:
            raise ValueError(f"an exact interval on {self.trials} frames would claim that frames of one video are "
                             "independent; compute it on videos or on subjects")


def checked(scores: ArrayLike, live: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Scores as `float64 [n]` and labels as `bool [n]`, both classes present.

    Raises:
        ValueError: wrong or unequal shapes, a score that is NaN or infinite, a label other than 0 or 1, a class
            without a sample; the message quotes the first offender and its index.
    """
    values, labels = np.asarray(scores, dtype=np.float64), np.asarray(live)
    if values.ndim != 1 or labels.shape != values.shape:
        raise ValueError(f"scores of shape {values.shape} and labels of shape {labels.shape}; both must be [n]")
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        raise ValueError(f"score {values[first]} at index {first}; a score must be a finite number")
    if labels.dtype != np.bool_:
        wrong = np.flatnonzero(~np.isin(labels, (0, 1)))
        if len(wrong):
            raise ValueError(f"label {labels[wrong[0]]!r} at index {int(wrong[0])}; 1 is bona fide, 0 is attack")
        labels = labels.astype(np.bool_)
    bona_fide = int(labels.sum())
    if bona_fide in (0, len(labels)):
        raise ValueError(f"{bona_fide} bona fide and {len(labels) - bona_fide} attack samples; both are needed")
    return values, labels


@dataclass(frozen=True, kw_only=True, eq=False)
class Roc:
    """Every distinct threshold and what is accepted at it, in exact counts.

    No collinear point is dropped (scikit-learn's `roc_curve` drops them unless told not to, which can move the equal
    error point by half a step).

    Attributes:
        thresholds: `[k + 1]`, falling; the first is +inf (nothing accepted), the others are the k distinct scores.
        accepted_live, accepted_attacks: `int64 [k + 1]`, samples with score >= threshold.
        live, attacks: totals.
    """

    thresholds: FloatArray
    accepted_live: IntArray
    accepted_attacks: IntArray
    live: int
    attacks: int

    @property
    def tpr(self) -> FloatArray:
        """True positive rate = 1 - BPCER, by threshold."""
        return self.accepted_live / self.live

    @property
    def fpr(self) -> FloatArray:
        """False positive rate = APCER with all species in one pool, by threshold."""
        return self.accepted_attacks / self.attacks


def roc(scores: ArrayLike, live: ArrayLike) -> Roc:
    """Raises `ValueError` as `checked`."""
    values, labels = checked(scores, live)
    order = np.argsort(-values, kind="stable")
    values, labels = values[order], labels[order]
    last_of_equals = np.append(np.flatnonzero(values[1:] != values[:-1]), len(values) - 1)
    accepted_live = np.cumsum(labels, dtype=np.int64)[last_of_equals]
    accepted_attacks = last_of_equals + 1 - accepted_live
    return Roc(thresholds=np.concatenate([[np.inf], values[last_of_equals]]),
               accepted_live=np.concatenate([[0], accepted_live]),
               accepted_attacks=np.concatenate([[0], accepted_attacks]),
               live=int(accepted_live[-1]), attacks=int(accepted_attacks[-1]))


def auc(curve: Roc) -> float:
    """Area under the ROC: chance that a live sample scores above an attack, ties counted half.

    The trapezoid sum is taken in whole numbers, so flipped labels give exactly the complement.
    """
    new_attacks = np.diff(curve.accepted_attacks)
    twice = int(np.sum(new_attacks * (curve.accepted_live[1:] + curve.accepted_live[:-1])))
    return twice / (2 * curve.live * curve.attacks)


@dataclass(frozen=True, kw_only=True)
class ThresholdPoint:
    """One threshold of a ROC, with its two error rates (attacks pooled over species)."""

    threshold: float
    fpr: float
    fnr: float

    @property
    def hter(self) -> float:
        """Half total error rate, (FPR + FNR) / 2."""
        return (self.fpr + self.fnr) / 2


def equal_error_point(curve: Roc) -> ThresholdPoint:
    """The threshold at argmin |TPR + FPR - 1|, first index on ties (compared in whole numbers, hence exactly).

    This is the operating point of the field's cross-dataset code (SSAN and its descendants). It need not have the
    smallest HTER of all thresholds. Constant scores give +inf: nothing accepted, HTER 0.5.
    """
    both = curve.live * curve.attacks
    distance = np.abs(curve.accepted_live * curve.attacks + curve.accepted_attacks * curve.live - both)
    index = int(np.argmin(distance))
    return ThresholdPoint(threshold=float(curve.thresholds[index]), fpr=float(curve.fpr[index]),
                          fnr=1 - float(curve.tpr[index]))


def equal_error_rate(curve: Roc) -> float:
    """EER: where the ROC, its points joined by straight lines, meets FPR = 1 - TPR (the root of 1 - x - ROC(x))."""
    excess = curve.fpr + curve.tpr - 1  # rises from -1 to 1
    after = int(np.argmax(excess >= 0))
    share = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(curve.fpr[after - 1] + share * (curve.fpr[after] - curve.fpr[after - 1]))


def bpcer(scores: ArrayLike, live: ArrayLike, threshold: float, unit: Unit) -> Proportion:
    """Bona fide presentations refused (score < threshold).

    Raises:
        ValueError: as `checked`, or a threshold that is NaN.
    """
    values, labels = checked(scores, live)
    refused = values[labels] < checked_threshold(threshold)
    return Proportion(count=int(refused.sum()), trials=len(refused), unit=unit)


def pooled_apcer(scores: ArrayLike, live: ArrayLike, threshold: float, unit: Unit) -> Proportion:
    """Attack presentations accepted, all species in one pool: the FPR of the papers, not ISO's APCER.

    Raises:
        ValueError: as `bpcer`.
    """
    values, labels = checked(scores, live)
    accepted = values[~labels] >= checked_threshold(threshold)
    return Proportion(count=int(accepted.sum()), trials=len(accepted), unit=unit)


def apcer_by_species(scores: ArrayLike, live: ArrayLike, species: Sequence[str] | NDArray[np.str_], threshold: float,
                     unit: Unit) -> dict[str, Proportion]:
    """APCER of each species present among the attacks, **worst first** (then by name).

    Args:
        species: `[n]`, name of each sample's species; that of bona fide samples is not read.

    Raises:
        ValueError: as `bpcer`, or another number of species than of scores.
    """
    values, labels = checked(scores, live)
    names = checked_species(species, len(values))[~labels]
    accepted = values[~labels] >= checked_threshold(threshold)
    rates = {str(name): Proportion(count=int(accepted[names == name].sum()), trials=int((names == name).sum()),
                                   unit=unit) for name in np.unique(names)}
    return dict(sorted(rates.items(), key=lambda item: (-item[1].rate, item[0])))


def acer(apcer: dict[str, Proportion], bona_fide: Proportion) -> float:
    """(worst species' APCER + BPCER) / 2.

    Raises:
        ValueError: no species.
    """
    if not apcer:
        raise ValueError("ACER without an attack species; at least one is needed")
    return (max(rate.rate for rate in apcer.values()) + bona_fide.rate) / 2


@dataclass(frozen=True, kw_only=True)
class FixedRatePoint:
    """A rate at the most accepting threshold whose attack rate is within a limit.

    Attributes:
        limit: on the attack rate, in 0..1.
        threshold: that was found; +inf when only refusing everyone holds the limit.
        rate: of bona fide samples refused (BPCER) or accepted (TPR); None where `unresolved` says why.
        unresolved: why the data cannot tell: fewer than 1 / limit attacks, so that only zero accepted would pass and
            the figure would speak of another limit than it names.
    """

    limit: float
    threshold: float | None
    rate: Proportion | None
    unresolved: str | None = None


def bpcer_at_apcer(scores: ArrayLike, live: ArrayLike, species: Sequence[str] | NDArray[np.str_], limit: float,
                   unit: Unit) -> FixedRatePoint:
    """BPCER where every species' APCER is at most `limit` (ISO: BPCER10, 20, 100 at 10, 5, 1 %).

    The threshold is set on these same samples. Give one name to all attacks for the pooled figure.

    Raises:
        ValueError: as `apcer_by_species`, or a limit outside 0..1.
    """
    values, labels = checked(scores, live)
    names = checked_species(species, len(values))
    if not 0 < limit < 1:
        raise ValueError(f"limit {limit!r} on the attack rate; it must lie between 0 and 1, such as 0.01")
    of_species = {str(name): np.sort(values[~labels & (names == name)]) for name in np.unique(names[~labels])}
    smallest = min(of_species, key=lambda name: len(of_species[name]))
    needed = math.ceil(1 / limit - 1e-9)
    if len(of_species[smallest]) < needed:
        return FixedRatePoint(limit=limit, threshold=None, rate=None, unresolved=(
            f"not resolvable: {len(of_species[smallest])} {unit}s of {smallest!r}, at least {needed} are needed"))
    thresholds = np.concatenate([[np.inf], np.unique(values)[::-1]])
    within = np.ones(len(thresholds), dtype=np.bool_)
    for attacks in of_species.values():
        accepted = len(attacks) - np.searchsorted(attacks, thresholds, side="left")
        within &= accepted <= math.floor(limit * len(attacks) + 1e-9)
    threshold = float(thresholds[np.flatnonzero(within)[-1]])
    return FixedRatePoint(limit=limit, threshold=threshold, rate=bpcer(values, labels, threshold, unit))


def tpr_at_fpr(scores: ArrayLike, live: ArrayLike, limit: float, unit: Unit) -> FixedRatePoint:
    """Bona fide samples accepted where at most `limit` of all attacks, in one pool, are.

    Raises:
        ValueError: as `bpcer_at_apcer`.
    """
    point = bpcer_at_apcer(scores, live, np.full(len(np.asarray(live)), "attack"), limit, unit)
    if point.rate is None:
        return point
    accepted = Proportion(count=point.rate.trials - point.rate.count, trials=point.rate.trials, unit=unit)
    return FixedRatePoint(limit=limit, threshold=point.threshold, rate=accepted)


def checked_threshold(threshold: float) -> float:
    """The threshold; raises `ValueError` where it is NaN (every comparison with it would be silently false)."""
    if math.isnan(threshold):
        raise ValueError("threshold NaN; it must be a number, or +inf to accept nothing")
    return threshold


def checked_species(species: Sequence[str] | NDArray[np.str_], number: int) -> NDArray[np.str_]:
    """Species as `[n]` strings; raises `ValueError` where there are not as many as scores."""
    names = np.asarray(species, dtype=np.str_)
    if names.shape != (number,):
        raise ValueError(f"{names.shape} species for {number} scores; one a score is needed")
    return names
