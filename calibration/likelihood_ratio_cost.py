"""How good log-likelihood ratios are: Cllr, its part that no map could save, and costs of decisions. Pure functions.

Brümmer and du Preez, "Application-independent evaluation of speaker detection", 2006, for a detector of two classes:

    Cllr = ½ · (mean over bona fide of log₂(1 + e^-llr) + mean over attacks of log₂(1 + e^llr))        in bits

0 is perfect, 1 is what an LLR of 0 for everything costs, more than 1 is worse than not looking. Cllr-min is what the
best monotone map of the same scores would leave (pool adjacent violators); Cllr - Cllr-min is lost by calibration.

LLRs are natural logarithms throughout, positive for bona fide. NumPy and SciPy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special

FloatArray = NDArray[np.float64]
_BITS = 1 / math.log(2)


class LikelihoodRatioError(ValueError):
    """LLRs that have no cost: lists of unequal lengths, one class only, a NaN."""


def cllr(llrs: ArrayLike, live: ArrayLike, weights: ArrayLike | None = None) -> float:
    """The cost of log-likelihood ratios in bits; each class weighs one half.

    Args:
        llrs: `[n]`, in nats; infinite ones are allowed and cost infinitely much where they are wrong. live: `[n]`, True
            for bona fide. weights: `[n]`, positive, of the samples within their class.

    Raises:
        LikelihoodRatioError: see there.
    """
    values, labels, share = _checked(llrs, live, weights)
    return float((share * np.logaddexp(0.0, np.where(labels, -values, values))).sum()) * _BITS


def minimum_cllr(scores: ArrayLike, live: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Cllr after the best non-decreasing map of the scores: never above `cllr` of them, equal for maps that keep order.

    Raises:
        LikelihoodRatioError: see there.
    """
    return cllr(isotonic_llrs(scores, live, weights), live, weights)


def isotonic_llrs(scores: ArrayLike, live: ArrayLike, weights: ArrayLike | None = None) -> FloatArray:
    """`[n]` LLRs by pool adjacent violators: of all non-decreasing maps of the scores, the one of least Cllr.

    Optimal on the samples that it was fitted to, infinite at their ends, and no calibration for others.

    Raises:
        LikelihoodRatioError: see there.
    """
    values, labels, share = _checked(scores, live, weights)
    # Equal scores cannot be told apart by any map: they are one sample.
    distinct, place = np.unique(values, return_inverse=True)
    weight = np.bincount(place, share, len(distinct))
    live_share = np.bincount(place, share * labels, len(distinct)) / weight
    fitted = optimize.isotonic_regression(live_share, weights=weight, increasing=True).x
    # Means of zeros and ones can miss the ends by a rounding: an end is exact or it is not one.
    fitted = np.where(fitted < 1e-12, 0.0, np.where(fitted > 1 - 1e-12, 1.0, fitted))
    llrs: FloatArray = special.logit(fitted)[place]
    return llrs


def detection_cost(llrs: ArrayLike, live: ArrayLike, *, attack_prior: float = 0.5, cost_accepted_attack: float = 1.0,
                   cost_refused_live: float = 1.0, weights: ArrayLike | None = None) -> float:
    """Cost of the decisions that Bayes' rule makes with these LLRs, over that of always deciding the cheaper way.

    1 means that the LLRs are of no use at this prior; more, that they do harm (NIST's normalised detection cost, DCF).

    Raises:
        LikelihoodRatioError: see there, or a prior outside (0, 1), or a cost that is not positive.
    """
    if not 0 < attack_prior < 1 or not cost_accepted_attack > 0 or not cost_refused_live > 0:
        raise LikelihoodRatioError(f"attack_prior {attack_prior!r}, costs {cost_accepted_attack!r} and "
                                   f"{cost_refused_live!r}: expected a prior in (0, 1) and positive costs")
    values, labels, share = _checked(llrs, live, weights)
    accepting, refusing = attack_prior * cost_accepted_attack, (1 - attack_prior) * cost_refused_live
    accepted = values >= math.log(accepting / refusing)
    apcer = 2 * float(share[~labels & accepted].sum())
    bpcer = 2 * float(share[labels & ~accepted].sum())
    return (accepting * apcer + refusing * bpcer) / min(accepting, refusing)


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Samples of like LLRs. predicted: mean LLR, nats. observed: the LLR that their labels show, ±inf where only one
    class is there. share: of the weight of both classes, in (0, 1]."""

    predicted: float
    observed: float
    share: float


def reliability(llrs: ArrayLike, live: ArrayLike, weights: ArrayLike | None = None,
                bins: int = 10) -> list[ReliabilityBin]:
    """What the LLRs say against what the labels show, in `bins` groups of about equal weight: equal when calibrated.

    Raises:
        LikelihoodRatioError: see there.
    """
    values, labels, share = _checked(llrs, live, weights)
    order = np.argsort(values, kind="stable")
    group = np.minimum((np.cumsum(share[order]) * bins - 1e-9).astype(int), bins - 1)
    found = []
    for number in np.unique(group):
        inside = order[group == number]
        own = share[inside]
        live_share = float(own[labels[inside]].sum() / own.sum())
        found.append(ReliabilityBin(predicted=float(np.average(values[inside], weights=own)),
                                    observed=float(special.logit(live_share)), share=float(own.sum())))
    return found


def _checked(llrs: ArrayLike, live: ArrayLike,
             weights: ArrayLike | None) -> tuple[FloatArray, NDArray[np.bool_], FloatArray]:
    """Values, labels, and weights that add up to one half in each class."""
    values, labels = np.asarray(llrs, np.float64), np.asarray(live, np.bool_)
    weighed = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    if values.ndim != 1 or labels.shape != values.shape or weighed.shape != values.shape:
        raise LikelihoodRatioError(f"llrs {values.shape}, labels {labels.shape}, weights {weighed.shape}: expected "
                                   "three lists of one length")
    if np.isnan(values).any() or not (np.isfinite(weighed) & (weighed > 0)).all():
        raise LikelihoodRatioError("an LLR is NaN, or a weight is not positive and finite; leave such samples out")
    if labels.all() or not labels.any():
        raise LikelihoodRatioError(f"{int(labels.sum())} bona fide and {int((~labels).sum())} attack samples; both are "
                                   "needed")
    share = np.where(labels, weighed / weighed[labels].sum(), weighed / weighed[~labels].sum()) / 2
    return values, labels, share
