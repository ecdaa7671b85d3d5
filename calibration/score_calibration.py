"""From raw scores to evidence: Platt's scaling of logits, and how alike successive frames' scores are. Pure functions.

NumPy and SciPy only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize

FloatArray = NDArray[np.float64]

#: Scores so far apart that any scale would do are given this one at most.
LARGEST_SCALE = 100.0
#: Nor is any correlation larger than this one: frames would never add up to a decision.
LARGEST_CORRELATION = 0.99


class CalibrationError(ValueError):
    """Scores cannot be calibrated; the message says what is wrong with them and what to do."""


@dataclass(frozen=True, kw_only=True)
class ScaledLogit:
    """LLR = scale · logit + offset, in nats, 0 where a frame speaks for neither class."""

    scale: float
    offset: float


def platt_scaling(logits: ArrayLike, live: ArrayLike, weights: ArrayLike | None = None) -> ScaledLogit:
    """Logistic regression of the label on the logit at equal priors, with Platt's smoothed targets.

    Platt, "Probabilistic outputs for support vector machines", 1999: targets (n₊ + 1) / (n₊ + 2) and 1 / (n₋ + 2)
    instead of 1 and 0 keep the scale finite where scores separate the classes. n are effective numbers of samples,
    (Σw)² / Σw².

    Args:
        logits, live: `[n]`; live is True for bona fide. weights: `[n]`, of the samples within their class, such as
            1 / frames of the session; each class weighs one half whatever they add up to.

    Raises:
        CalibrationError: one class only, a score that is no number, or scores that rank attacks above live faces.
    """
    values, labels = np.asarray(logits, np.float64), np.asarray(live, np.bool_)
    weighed = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    if values.ndim != 1 or labels.shape != values.shape or weighed.shape != values.shape:
        raise CalibrationError(f"logits {values.shape}, labels {labels.shape}, weights {weighed.shape}: expected three "
                               "lists of one length")
    if not np.isfinite(values).all() or not (weighed > 0).all():
        raise CalibrationError("a logit is NaN or infinite, or a weight is not positive; leave such frames out")
    if labels.all() or not labels.any():
        raise CalibrationError(f"{int(labels.sum())} live and {int((~labels).sum())} attack frames; both are needed")
    share, target = np.empty_like(values), np.empty_like(values)
    for label in (True, False):
        own = weighed[labels == label]
        effective = own.sum() ** 2 / (own**2).sum()
        share[labels == label] = own / own.sum() / 2
        target[labels == label] = (effective + 1) / (effective + 2) if label else 1 / (effective + 2)
    spread = max(float(values.std()), 1e-9)
    centre = float(values.mean())

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        llr = parameters[0] * (values - centre) / spread + parameters[1]
        cost = share * (np.logaddexp(0, llr) - target * llr)
        slope = share * (1 / (1 + np.exp(-np.clip(llr, -500, 500))) - target)
        return float(cost.sum()), np.array([(slope * (values - centre) / spread).sum(), slope.sum()])

    found = optimize.minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS").x
    scale = float(found[0]) / spread
    if not scale > 1e-3:
        raise CalibrationError(f"the fitted scale is {scale:.3g}: these scores do not rank live faces above attacks; "
                               "train the network, or look for swapped labels")
    scale = min(scale, LARGEST_SCALE)
    return ScaledLogit(scale=scale, offset=float(found[1]) - scale * centre)


@dataclass(frozen=True, kw_only=True)
class FrameCorrelation:
    """How alike scores of one session are.

    Attributes:
        within: ρ of an AR(1) fitted to the scores about their session's mean, of the expectation that equals `lag_one`.
        lag_one: what was measured before that correction.
        total: correlation of successive scores about the mean of their class: sessions' own levels included.
        between: share of the variance (about the class's mean) that lies between sessions.
        sessions, pairs: what it was measured on.
    """

    within: float
    lag_one: float
    total: float
    between: float
    sessions: int
    pairs: int

    @property
    def lasting(self) -> float:
        """ρ to temper evidence with: the larger one, so that what a session keeps is not counted again each frame."""
        return min(max(self.within, self.total, 0.0), LARGEST_CORRELATION)


def frame_correlation(sessions: Sequence[ArrayLike], classes: Sequence[str]) -> FrameCorrelation:
    """Fits an AR(1) to the scores of successive frames, all sessions in one pool.

    The mean of n correlated scores lies nearer to them than their true mean, so autocorrelations about it are too small
    (Marriott and Pope, "Bias in the estimation of autocorrelations", 1954). The expected ratio of the pooled moments is
    known exactly for an AR(1) of these lengths (`expected_lag_one`); ρ is where it equals the one measured.

    Args:
        sessions: scores of each session in order; those of fewer than 5 frames are left out.
        classes: of each session: what its level is expected to depend on, such as its species.

    Raises:
        CalibrationError: no session of 5 frames, or scores that never change.
    """
    kept = [(np.asarray(scores, np.float64), name) for scores, name in zip(sessions, classes, strict=True)
            if len(np.asarray(scores)) >= 5]
    if not kept:
        raise CalibrationError("no session with at least 5 scored frames; correlation cannot be fitted")
    levels = {name: float(np.concatenate([scores for scores, own in kept if own == name]).mean())
              for name in {name for _, name in kept}}
    about_session = [scores - scores.mean() for scores, _ in kept]
    about_class = [scores - levels[name] for scores, name in kept]
    within = _mean_square(about_session)
    if within <= 0:
        raise CalibrationError("scores never change within a session; correlation cannot be fitted")
    lag_one = _lag_one(about_session)
    lengths = Counter(len(scores) for scores, _ in kept)
    return FrameCorrelation(
        within=_correlation_behind(lag_one, lengths), lag_one=lag_one, total=_lag_one(about_class),
        between=max(0.0, 1 - within / _mean_square(about_class)), sessions=len(kept),
        pairs=sum(len(scores) - 1 for scores, _ in kept))


def correlation_interval(sessions: Sequence[ArrayLike], classes: Sequence[str], *, confidence: float = 0.95,
                         resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Interval of `FrameCorrelation.lasting`: whole sessions drawn again with replacement (percentile bootstrap).

    Sessions, not frames: frames of a session are what is not independent. Means of the classes stay as they are.

    Args:
        sessions, classes: as for `frame_correlation`. confidence: in (0, 1).

    Raises:
        CalibrationError: as `frame_correlation`.
    """
    found = frame_correlation(sessions, classes)
    kept = [(np.asarray(scores, np.float64), name) for scores, name in zip(sessions, classes, strict=True)
            if len(np.asarray(scores)) >= 5]
    levels = {name: float(np.concatenate([scores for scores, own in kept if own == name]).mean())
              for name in {name for _, name in kept}}
    lengths = Counter(len(scores) for scores, _ in kept)
    size = np.array([len(scores) for scores, _ in kept], np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(kept), (resamples, len(kept)))
    bounds = []
    for about_session in (True, False):
        centred = [scores - (scores.mean() if about_session else levels[name]) for scores, name in kept]
        products = np.array([float((one[1:] * one[:-1]).sum()) for one in centred])
        squares = np.array([float((one**2).sum()) for one in centred])
        moments = (products[drawn].sum(1) / (size - 1)[drawn].sum(1)) / (
            np.maximum(squares[drawn].sum(1), 1e-300) / size[drawn].sum(1))
        low, high = np.quantile(moments, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
        if about_session:  # the fitted means took some correlation away
            low, high = _correlation_behind(low, lengths), _correlation_behind(high, lengths)
        bounds.append((low, high))
    low, high = (min(max(*ends, 0.0), LARGEST_CORRELATION) for ends in zip(*bounds, strict=True))
    return min(low, found.lasting), max(high, found.lasting)


def expected_lag_one(correlation: float, lengths: Mapping[int, int]) -> float:
    """Pooled lag-one autocorrelation about sessions' own means that an AR(1) leads to.

    Args:
        correlation: ρ. lengths: number of sessions by their number of frames.
    """
    products = squares = 0.0
    for length, sessions in lengths.items():
        powers = correlation ** np.arange(length)
        # Of unit variance: var(mean), and cov(first frame, mean), which is that of the last frame, too.
        of_mean = float(1 + 2 * ((1 - np.arange(1, length) / length) * powers[1:]).sum()) / length
        of_end = float(powers.sum()) / length
        products += sessions * ((length - 1) * correlation - (length + 1) * of_mean + 2 * of_end)
        squares += sessions * length * (1 - of_mean)
    terms = sum(sessions * (length - 1) for length, sessions in lengths.items())
    return products / terms * sum(sessions * length for length, sessions in lengths.items()) / squares


def _correlation_behind(lag_one: float, lengths: Mapping[int, int]) -> float:
    """ρ in [0, LARGEST_CORRELATION] whose expectation is what was measured."""
    if lag_one <= expected_lag_one(0.0, lengths):
        return 0.0
    if lag_one >= expected_lag_one(LARGEST_CORRELATION, lengths):
        return LARGEST_CORRELATION
    return float(optimize.brentq(lambda rho: expected_lag_one(rho, lengths) - lag_one, 0.0, LARGEST_CORRELATION))


def _mean_square(series: Sequence[FloatArray]) -> float:
    return float(np.mean(np.concatenate(series) ** 2))


def _lag_one(series: Sequence[FloatArray]) -> float:
    """Autocovariance at lag one over the variance, each a mean over its own number of terms."""
    products = np.concatenate([one[1:] * one[:-1] for one in series])
    return float(products.mean()) / _mean_square(series)
