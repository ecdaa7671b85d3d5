"""Simulated streams of log-likelihood ratios, and the sequential test over thousands of them at once.

The model that the test's bounds rest on: the scores of a session are a stationary Gaussian AR(1) series with mean ±m
and variance 2m, which makes every single frame a true log-likelihood ratio (LLR) with d' = √(2m). No camera, face or
network is involved, so whatever is measured on it says how the test treats correlated frames, nothing about how well
a checkpoint tells faces from attacks. `decide` is the arithmetic of `pipeline.sequential_test` on arrays; a test holds
the two equal session by session.

NumPy only; pure but for the generator that is passed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.policy import Policy
from pipeline.sequential_test import effective

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StreamModel:
    """Sessions of one kind of camera, as the model has them.

    Attributes:
        d_prime: distance of the means of bona fide and attack scores over their deviation, positive.
        correlation: ρ of successive frames about their session's level, in [0, 1).
        frames: of each session. frame_period_ms: between them.
        lasting: share of a score's variance that a session keeps for as long as it lasts, in [0, 1).
        training_log_odds: ln(bona fide / attack) of the data that a network was trained on: its logits are LLR + this.

    Raises:
        ValueError: a value out of range.
    """

    d_prime: float
    correlation: float
    frames: int = 150
    frame_period_ms: float = 100 / 3
    lasting: float = 0.0
    training_log_odds: float = 0.0

    def __post_init__(self) -> None:
        if not (self.d_prime > 0 and 0 <= self.correlation < 1 and 0 <= self.lasting < 1 and self.frames > 0
                and self.frame_period_ms > 0 and math.isfinite(self.training_log_odds)):
            raise ValueError(f"{self}: d_prime, frames and frame_period_ms must be positive, correlation and lasting "
                             "in [0, 1), training_log_odds finite")

    @property
    def mean_llr(self) -> float:
        """m: expected LLR of one bona fide frame, in nats; an attack's is -m."""
        return self.d_prime**2 / 2

    def draw(self, rng: np.random.Generator, sessions: int, *, live: bool) -> FloatArray:
        """Logits `[sessions, frames]`."""
        noise = rng.standard_normal((self.frames, sessions))
        series = np.empty_like(noise)
        series[0] = noise[0]
        step = math.sqrt(1 - self.correlation**2)
        for frame in range(1, self.frames):
            series[frame] = self.correlation * series[frame - 1] + step * noise[frame]
        if self.lasting:
            series = math.sqrt(1 - self.lasting) * series + math.sqrt(self.lasting) * rng.standard_normal(sessions)
        mean = self.mean_llr if live else -self.mean_llr
        return np.ascontiguousarray((mean + self.d_prime * series + self.training_log_odds).T)


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamOutcomes:
    """How each session ended, `[sessions]`. A session that is neither accepted nor rejected is undecided.

    Attributes:
        frames: counted until the decision, or all there were.
        peak: the most that spoke for acceptance where a bound could count, before rejection, in nats; -inf for nothing.
            Told for an accept bound of +inf, so that `peak >= threshold` says what any other bound would have done.
    """

    accepted: BoolArray
    rejected: BoolArray
    frames: IntArray
    peak: FloatArray

    @property
    def undecided(self) -> BoolArray:
        """Neither bound in time."""
        return ~(self.accepted | self.rejected)

    def time_ms(self, frame_period_ms: float) -> FloatArray:
        """From a session's first frame to its last counted one."""
        return np.asarray((self.frames - 1) * frame_period_ms, np.float64)


def decide(logits: ArrayLike, policy: Policy, *, frame_period_ms: float,
           uncertainty: ArrayLike = 0.0) -> StreamOutcomes:
    """The sequential test on whole sessions at once; frames after the policy's deadline are not counted.

    Args:
        logits: `[sessions, frames]`, finite. uncertainty: of each frame, in [0, 1], anything that broadcasts to them.

    Raises:
        ValueError: not two dimensions, or a number that is not finite or out of range.
    """
    values = np.asarray(logits, np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"logits of shape {values.shape}: expected finite numbers [sessions, frames]")
    doubts = np.broadcast_to(np.asarray(uncertainty, np.float64), values.shape)
    if not ((doubts >= 0) & (doubts <= 1)).all():
        raise ValueError("an uncertainty outside [0, 1]")
    in_time = min(values.shape[1], math.floor(policy.deadline_ms / frame_period_ms + 1e-9) + 1)
    values, doubts = values[:, :in_time], doubts[:, :in_time]
    number = np.arange(1, in_time + 1)
    share = np.array([effective(int(n), policy) / n for n in number])
    scale = 1.0 if policy.logit_scale is None else policy.logit_scale
    llr = np.clip(scale * values - (policy.training_log_odds or 0.0), -policy.llr_clip, policy.llr_clip)
    most = np.inf if policy.evidence_clip is None else policy.evidence_clip
    tempered = np.clip(np.cumsum(llr, axis=1) * share, -most, most)
    accepting = tempered - policy.uncertainty_weight * np.cumsum(doubts, axis=1) / number
    counts = (number >= policy.min_frames) & ((number - 1) * frame_period_ms >= policy.min_time_ms)
    first_lower = _first((tempered <= policy.lower_bound) & counts)
    first_upper = _first((accepting >= policy.upper_bound) & counts)
    accepted = (first_upper < first_lower) & (first_upper < in_time)
    rejected = ~accepted & (first_lower < in_time)
    before = counts & (np.arange(in_time) < first_lower[:, None])
    last = np.where(accepted, first_upper, np.where(rejected, first_lower, in_time - 1))
    return StreamOutcomes(accepted=accepted, rejected=rejected, frames=last + 1,
                          peak=np.where(before, accepting, -np.inf).max(axis=1))


def _first(crossed: BoolArray) -> IntArray:
    """Index of the first frame of each session; the number of frames where there is none."""
    return np.asarray(np.where(crossed.any(axis=1), crossed.argmax(axis=1), crossed.shape[1]), np.int64)


def wald_expected_frames(policy: Policy, mean_llr: float) -> tuple[float, float]:
    """Expected frames to a decision, bona fide and attack, of independent frames whose overshoot is neglected.

    Wald, "Sequential Tests of Statistical Hypotheses", 1945: E[N] · E[LLR] = E[evidence at the end], with the wanted
    error rates as the shares of the two ends.

    Args:
        mean_llr: expected LLR of a bona fide frame in nats; -mean_llr is that of an attack's.
    """
    upper, lower, alpha, beta = policy.upper_bound, policy.lower_bound, policy.apcer_max, policy.bpcer_max
    live = ((1 - beta) * upper + beta * lower) / mean_llr
    attack = (alpha * upper + (1 - alpha) * lower) / -mean_llr
    return live, attack
