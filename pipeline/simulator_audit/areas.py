"""Areas under ROC curves over recordings, within domains, with intervals by bootstrap over people.

A recording scores the mean of its frames. Bona fide recordings are compared with attacks of the same domain only, and
the domains' areas are averaged by their attacks: that domains differ must neither help nor hurt a probe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: Confidence of the interval that must lie above 0.5 before something counts as found. An audit has many lines: of
#: twenty about nothing, one in 400 each and one audit in twenty raises a false alarm.
WIDE = 0.995


@dataclass(frozen=True, kw_only=True)
class Area:
    """Area under a ROC curve; `low` and `high` are the ends of its two-sided 95 % interval, `low_wide` the lower end
    of its interval at `WIDE`.

    `live`, `attacks`: recordings. `clusters`: people (or places) that were drawn for the interval.
    """

    value: float
    low: float
    high: float
    low_wide: float
    live: int
    attacks: int
    clusters: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """Recordings: what is compared. `score`, `live`, `stratum` (the domain), `cluster` (the person): `[u]`."""

    score: FloatArray
    live: NDArray[np.bool_]
    stratum: NDArray[np.str_]
    cluster: NDArray[np.str_]


def units(score: NDArray[np.floating], live: NDArray[np.bool_], stratum: NDArray[np.str_], cluster: NDArray[np.str_],
          recording: NDArray[np.str_]) -> Units:
    """Means of frames by recording; frames whose score is NaN are left out."""
    known = np.isfinite(score)
    _, first, member = np.unique(recording[known], return_index=True, return_inverse=True)
    total = np.bincount(member, weights=score[known])
    return Units(score=total / np.bincount(member), live=live[known][first], stratum=stratum[known][first],
                 cluster=cluster[known][first].astype(str))


def area(of: Units, *, resamples: int = 1000, seed: int = 0) -> Area | None:
    """The area over all domains that have both labels; None where there is none.

    Clusters with both labels, with one and with the other are drawn apart, within their domain, so that no resample
    lacks a label.
    """
    rng = np.random.default_rng([seed, 71])
    areas, weights, counts = [], [], np.zeros(3, int)
    for stratum in np.unique(of.stratum):
        here = of.stratum == stratum
        live, clusters = of.live[here], np.unique(of.cluster[here], return_inverse=True)[1]
        if live.all() or not live.any():
            continue
        score, number = of.score[here], int(clusters.max()) + 1
        shown = np.zeros((2, number))
        np.add.at(shown, (live.astype(int), clusters), 1)
        wins = np.zeros((number, number))
        attack_scores, attack_clusters = score[~live], clusters[~live]
        for one, whose in zip(score[live], clusters[live], strict=True):
            won = (one > attack_scores) + 0.5 * (one == attack_scores)
            wins[whose] += np.bincount(attack_clusters, weights=won, minlength=number)
        times = np.vstack([np.ones(number), _drawn(shown, resamples, rng)])
        won = np.einsum("rs,st,rt->r", times, wins, times, optimize=True)
        areas.append(won / ((times @ shown[1]) * (times @ shown[0])))
        weights.append(float((~live).sum()))
        counts += (int(live.sum()), int((~live).sum()), number)
    if not areas:
        return None
    whole = np.average(np.stack(areas), axis=0, weights=weights)
    low_wide, low, high = np.percentile(whole[1:], (50 * (1 - WIDE), 2.5, 97.5))
    return Area(value=float(whole[0]), low=float(low), high=float(high), low_wide=float(low_wide),
                live=int(counts[0]), attacks=int(counts[1]), clusters=int(counts[2]))


def _drawn(shown: FloatArray, resamples: int, rng: np.random.Generator) -> FloatArray:
    times = np.zeros((resamples, shown.shape[1]))
    kind = (shown[0] > 0) + 2 * (shown[1] > 0)
    for one in np.unique(kind):
        members = np.flatnonzero(kind == one)
        times[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    return times
