"""How much of the scores' variance a session keeps for as long as it lasts: the part that looking longer never tells.

Model, within a class (species): score = class mean + √λ · the session's level + √(1-λ) · AR(1) of correlation ρ. The
mean of n frames then has the variance λ + (1-λ) / n_AR1(n, ρ), where n_AR1 is the effective number of frames; so
evidence of a session is never worth more than 1 / λ frames. The share of the variance that lies *between* sessions is
larger than λ in short sessions, where an AR(1) has not yet come round either; both moments together tell the two apart.

NumPy only; pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.score_calibration import LARGEST_CORRELATION, CalibrationError, expected_lag_one

FloatArray = NDArray[np.float64]

#: Of ρ, at which its expectations are tabulated. Linear in between.
_GRID = np.linspace(0.0, LARGEST_CORRELATION, 100)
#: Sessions of fewer scored frames are left out, as in `score_calibration.frame_correlation`.
_FEWEST_FRAMES = 5


@dataclass(frozen=True, kw_only=True)
class LastingShare:
    """λ in [0, 1), with its interval over sessions.

    Attributes:
        correlation: ρ of the frames about their session's level that goes with `share`.
        low, high: percentile bootstrap, whole sessions drawn again within their class.
    """

    share: float
    low: float
    high: float
    correlation: float


def fit_lasting_share(sessions: Sequence[ArrayLike], classes: Sequence[str], *, confidence: float = 0.95,
                      resamples: int = 1000, seed: int = 0) -> LastingShare:
    """λ and ρ by the method of moments, classes in one pool.

    ρ is the one whose exact expectation of the lag-one autocorrelation about sessions' own means is what was measured;
    λ the one whose expectation of the mean squares between and within sessions is, given that ρ.

    Args:
        sessions: scores of each session in order; those of fewer than 5 frames are left out.
        classes: of each session: what its level is expected to depend on, such as its species.
        confidence: of the interval, in (0, 1).

    Raises:
        CalibrationError: no class with two sessions of 5 frames, or scores that never change within a session.
    """
    everything = [(np.asarray(scores, np.float64), name) for scores, name in zip(sessions, classes, strict=True)
                  if len(np.asarray(scores)) >= _FEWEST_FRAMES]
    names = [name for _, name in everything]
    kept = [(scores, name) for scores, name in everything if names.count(name) > 1]
    if not kept:
        raise CalibrationError("no species with two sessions of at least 5 scored frames; how much of a score is the "
                               "session's own cannot be fitted: add sessions")
    moments = _Moments([scores for scores, _ in kept], [name for _, name in kept])
    if moments.squares.sum() <= 0:
        raise CalibrationError("scores never change within a session; how much of them is the session's own cannot be "
                               "fitted")
    share, correlation = moments.solve(np.ones((1, len(kept))), again=False)
    drawn = moments.drawn_again(np.random.default_rng(seed), resamples)
    low, high = np.quantile(moments.solve(drawn, again=True)[0], [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    found = float(share[0])
    return LastingShare(share=found, low=min(low, found), high=max(high, found), correlation=float(correlation[0]))


class _Moments:
    """What is needed of each session, and the tables of expectations over ρ."""

    def __init__(self, sessions: Sequence[FloatArray], classes: Sequence[str]) -> None:
        self.frames = np.array([len(one) for one in sessions], np.float64)
        self.means = np.array([one.mean() for one in sessions])
        centred = [one - one.mean() for one in sessions]
        self.squares = np.array([float((one**2).sum()) for one in centred])
        self.products = np.array([float((one[1:] * one[:-1]).sum()) for one in centred])
        self.members = [np.flatnonzero(np.array([name == own for own in classes])) for name in sorted(set(classes))]
        lengths = {int(number): int((self.frames == number).sum()) for number in np.unique(self.frames)}
        self.lag_one = np.maximum.accumulate([expected_lag_one(float(rho), lengths) for rho in _GRID])
        #: Variance of a session's mean for λ = 0, by length: 1 / n_AR1.
        self.of_mean = {length: np.array([_variance_of_mean(length, float(rho)) for rho in _GRID])
                        for length in lengths}

    def drawn_again(self, rng: np.random.Generator, resamples: int) -> FloatArray:
        """How often each session is drawn, `[resamples, sessions]`: as many of each class as there are."""
        counts = np.zeros((resamples, len(self.frames)))
        for own in self.members:
            picks = rng.integers(0, len(own), (resamples, len(own)))
            for row in range(resamples):
                counts[row, own] = np.bincount(picks[row], minlength=len(own))
        return counts

    def solve(self, counts: FloatArray, *, again: bool) -> tuple[FloatArray, FloatArray]:
        """λ and ρ of each row of counts. again: they were drawn from these sessions, not from all that there could be:
        squares between sessions are too small by 1 - 1 / sessions of the class."""
        within = counts @ self.squares
        pairs, frames = counts @ (self.frames - 1), counts @ self.frames
        measured = (counts @ self.products) / pairs / np.maximum(within / frames, 1e-300)
        rho = np.interp(measured, self.lag_one, _GRID)
        mean = np.stack([np.interp(rho, _GRID, self.of_mean[int(length)]) for length in self.frames], axis=1)
        inside = (counts * self.frames * (1 - mean)).sum(1)
        between, level, passing = np.zeros(len(counts)), np.zeros(len(counts)), np.zeros(len(counts))
        for own in self.members:
            drawn = counts[:, own] * self.frames[own]
            total = drawn.sum(1)
            centre = (drawn @ self.means[own]) / total
            squares = drawn @ self.means[own] ** 2 - total * centre**2
            between += np.maximum(squares, 0) * (len(own) / (len(own) - 1) if again else 1)
            # Each term less what the fitted mean of the class takes away.
            share = self.frames[own] * (1 - self.frames[own] / self.frames[own].sum())
            level += share.sum()
            passing += (share * mean[:, own]).sum(1)
        ratio = np.maximum((between / np.maximum(within, 1e-300) * inside - passing) / level, 0)
        return np.minimum(ratio / (1 + ratio), LARGEST_CORRELATION), rho


def _variance_of_mean(frames: int, correlation: float) -> float:
    """Of an AR(1) of unit variance: 1 / n_AR1."""
    lags = np.arange(1, frames)
    return float(1 + 2 * ((1 - lags / frames) * correlation**lags).sum()) / frames
