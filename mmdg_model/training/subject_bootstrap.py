"""Bootstrap by subject: how far HTER and AUC would move with other people in the same test set.

Frames and videos of one person share that person's score, so people are drawn, not frames. The drawing is done on sums
per subject: HTER at a fixed threshold is a ratio of such sums, and AUC a bilinear form of them, so a thousand
resamples cost one matrix product and give exactly what recounting all frames would.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.error_rates import Interval, checked, checked_threshold
from mmdg_model.training.scores import Presentations

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectSums:
    """Counts at one threshold by subject, `[s]`, subjects in the order of `names`.

    Attributes:
        names: of the subjects (of the videos, where subjects are unknown).
        live, attacks: presentations of each.
        refused, accepted: of the live, and of the attacks.
        wins: `[s, s]`; live presentations of row's subject against attacks of column's, won by the live one, ties
            half. None where AUC was not asked for.
    """

    names: NDArray[np.str_]
    live: IntArray
    attacks: IntArray
    refused: IntArray
    accepted: IntArray
    wins: FloatArray | None

    def hter(self, times: IntArray) -> FloatArray:
        """HTER at the threshold, `[r]`, with each subject taken `times` `[r, s]` times."""
        return ((times @ self.accepted) / (times @ self.attacks) + (times @ self.refused) / (times @ self.live)) / 2

    def auc(self, times: IntArray) -> FloatArray:
        """AUC, `[r]`; raises `ValueError` where the sums were made without `wins`."""
        if self.wins is None:
            raise ValueError("AUC of sums made without it; call subject_sums(..., with_auc=True)")
        won = np.einsum("rs,rs->r", times @ self.wins, times.astype(np.float64))
        return np.asarray(won / ((times @ self.live) * (times @ self.attacks).astype(np.float64)))

    def drawn(self, resamples: int, rng: np.random.Generator) -> IntArray:
        """How often each subject is taken, `[resamples, s]`, drawn with replacement.

        Subjects with live presentations only, with attacks only and with both are drawn apart, as many as there are
        of each, so that no resample lacks a class.
        """
        times = np.zeros((resamples, len(self.names)), dtype=np.int64)
        kind = (self.live > 0) + 2 * (self.attacks > 0)
        for one in np.unique(kind):
            members = np.flatnonzero(kind == one)
            times[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
        return times


def subject_sums(presentations: Presentations, threshold: float, *, with_auc: bool = True) -> SubjectSums:
    """Sums by subject. Raises `ValueError` as `error_rates.checked` and on a threshold that is NaN."""
    scores, live = checked(presentations.score, presentations.live)
    checked_threshold(threshold)
    names, subject = np.unique(presentations.clusters(), return_inverse=True)

    def count(which: NDArray[np.bool_]) -> IntArray:
        return np.bincount(subject[which], minlength=len(names)).astype(np.int64)

    wins = None
    if with_auc:
        wins = np.zeros((len(names), len(names)))
        live_scores, live_subject = scores[live], subject[live]
        for column in np.unique(subject[~live]):
            attacks = np.sort(scores[~live & (subject == column)])
            won = (np.searchsorted(attacks, live_scores, "left") + np.searchsorted(attacks, live_scores, "right")) / 2
            wins[:, column] = np.bincount(live_subject, weights=won, minlength=len(names))
    return SubjectSums(names=names, live=count(live), attacks=count(~live), refused=count(live & (scores < threshold)),
                       accepted=count(~live & (scores >= threshold)), wins=wins)


@dataclass(frozen=True, kw_only=True)
class BootstrapIntervals:
    """Percentile intervals over resampled subjects, the epoch and the threshold held as they were chosen.

    Attributes:
        hter, auc: None where `unavailable` says why.
        subjects: that were drawn from.
        subjects_known: False where some rows name no subject and their videos were drawn instead; the intervals are
            then too narrow if people appear in several videos.
    """

    hter: Interval | None
    auc: Interval | None
    subjects: int
    subjects_known: bool
    resamples: int
    unavailable: str | None = None


def bootstrap_by_subject(presentations: Presentations, threshold: float, *, resamples: int = 2000, seed: int = 0,
                         confidence: float = 0.95) -> BootstrapIntervals:
    """Intervals of HTER at `threshold` and of AUC.

    Raises:
        ValueError: as `subject_sums`.
    """
    sums = subject_sums(presentations, threshold)
    with_live, with_attacks = int((sums.live > 0).sum()), int((sums.attacks > 0).sum())
    intervals: dict[str, Interval] = {}
    unavailable = None
    if min(with_live, with_attacks) < 2:
        unavailable = (f"{with_live} subjects with bona fide and {with_attacks} with attack presentations; at least 2 "
                       "each are needed")
    else:
        times = sums.drawn(resamples, np.random.default_rng(seed))
        intervals = {"hter": percentile_interval(sums.hter(times), confidence),
                     "auc": percentile_interval(sums.auc(times), confidence)}
    return BootstrapIntervals(hter=intervals.get("hter"), auc=intervals.get("auc"), subjects=len(sums.names),
                              subjects_known=presentations.subjects_known, resamples=resamples,
                              unavailable=unavailable)


def percentile_interval(values: FloatArray, confidence: float) -> Interval:
    """The middle `confidence` of `values` `[r]`."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(low=float(low), high=float(high), confidence=confidence)
