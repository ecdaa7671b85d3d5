"""Evidence over time: Wald's sequential probability ratio test, tempered for frames that repeat each other.

Scores of successive frames are not independent: thirty frames at 30 Hz say little more than one or two. A naive sum of
their log-likelihood ratios (LLR) over-claims; at a correlation of 0.95 some 19 times for 30 frames. The sum is
therefore scaled by the effective number of frames (Bayley and Hammersley 1946; the AR(1) case), and compared with the
bounds of Wald, "Sequential Tests of Statistical Hypotheses", 1945:

    n_eff = N / (1 + 2 Σ_{k=1}^{N-1} (1 - k/N) ρᵏ)        evidence = (Σ LLR) · n_eff / N
    accept at A = ln((1 - β) / α), reject at B = ln(β / (1 - α))

Everything here is pure: values in, values out, no clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

from pipeline.policy import Policy

_NS_PER_MS = 1_000_000


class EvidenceError(ValueError):
    """A score is not a usable number; the message quotes it."""


class Bound(StrEnum):
    """Which bound the evidence has crossed."""

    NONE = "none"
    UPPER = "upper"
    LOWER = "lower"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the counted frames of one track have said so far.

    Attributes:
        frames: N, counted since the last reset. llr_sum: their clipped LLRs, in nats.
        uncertainty_sum: their class-token uncertainties, each the mean over the used modalities, in [0, 1].
        first_ns, last_ns: arrival of the first and last counted frame.
        debt: evidence carried over resets, never positive (see `reset`).
    """

    frames: int = 0
    llr_sum: float = 0.0
    uncertainty_sum: float = 0.0
    first_ns: int = 0
    last_ns: int = 0
    debt: float = 0.0


@lru_cache(maxsize=8192)
def effective_frames(frames: int, correlation: float, lasting: float = 0.0) -> float:
    """n_eff of `frames` scores: as many independent ones have a mean of the same variance. 0 for none.

    Args:
        correlation: ρ of an AR(1) about the session's own level. lasting: share of the variance that is the session's
            level: it repeats in every frame, so n_eff stays below 1 / lasting however long one looks.

    Returns:
        1 / (lasting + (1 - lasting) / n_AR1), between 1 and `frames`.
    """
    if frames <= 0:
        return 0.0
    weight = 1.0 + 2.0 * math.fsum((1 - k / frames) * correlation**k for k in range(1, frames))
    return 1.0 / (lasting + (1.0 - lasting) * weight / frames)


def effective(frames: int, policy: Policy) -> float:
    """`effective_frames` with what the policy knows of the scores."""
    return effective_frames(frames, policy.correlation, policy.lasting_share)


def count(evidence: Evidence, logit: float, uncertainty: Mapping[str, float], modalities: tuple[str, ...],
          stamp_ns: int, policy: Policy) -> Evidence:
    """Add one frame's score.

    Args:
        logit: logit(bona fide) - logit(attack). uncertainty: per used modality, in [0, 1]; a used modality that is not
            named counts as 1, since unknown is not zero. stamp_ns: arrival of the frame.

    Raises:
        EvidenceError: not a finite logit, an uncertainty outside [0, 1], no modality at all.
    """
    if not math.isfinite(logit):
        raise EvidenceError(f"logit {logit!r} is not a finite number")
    if not modalities:
        raise EvidenceError("a score that used no modality is no evidence")
    values = [uncertainty.get(modality, 1.0) for modality in modalities]
    for modality, value in zip(modalities, values, strict=True):
        if not 0.0 <= value <= 1.0:
            raise EvidenceError(f"uncertainty of {modality} is {value!r}, expected [0, 1]")
    return replace(evidence, frames=evidence.frames + 1, llr_sum=evidence.llr_sum + policy.frame_llr(logit),
                   uncertainty_sum=evidence.uncertainty_sum + sum(values) / len(values),
                   first_ns=evidence.first_ns if evidence.frames else stamp_ns, last_ns=stamp_ns)


def reset(evidence: Evidence, policy: Policy) -> Evidence:
    """Forget what spoke for a live face; what spoke against it stays as a debt.

    Without the debt, covering the lens for a moment would be a fresh try within the session. Positive evidence pays no
    debt back across a reset.
    """
    return Evidence(debt=evidence.debt + min(0.0, tempered(evidence, policy) - evidence.debt))


def tempered(evidence: Evidence, policy: Policy) -> float:
    """Evidence in nats, scaled to the effective number of frames, with the debt."""
    if not evidence.frames:
        return evidence.debt
    scale = effective(evidence.frames, policy) / evidence.frames
    return policy.bounded(evidence.llr_sum * scale) + evidence.debt


def for_acceptance(evidence: Evidence, policy: Policy) -> float:
    """Evidence lowered by the mean uncertainty: it makes accepting harder and never touches rejecting."""
    if not evidence.frames:
        return evidence.debt
    return tempered(evidence, policy) - policy.uncertainty_weight * evidence.uncertainty_sum / evidence.frames


def crossed(evidence: Evidence, policy: Policy) -> Bound:
    """Which bound is crossed; none before `min_frames` frames spanning `min_time_ms`."""
    if evidence.frames < policy.min_frames or evidence.last_ns - evidence.first_ns < policy.min_time_ms * _NS_PER_MS:
        return Bound.NONE
    if tempered(evidence, policy) <= policy.lower_bound:
        return Bound.LOWER
    if for_acceptance(evidence, policy) >= policy.upper_bound:
        return Bound.UPPER
    return Bound.NONE


def fewest_frames(policy: Policy, limit: int = 2000, bound: float | None = None) -> int | None:
    """Frames before a bound can be crossed at all, with every score at the clip and no uncertainty.

    It is the floor under the time to a decision that frame correlation alone allows.

    Args:
        bound: nats, positive; the policy's bound of acceptance by default. For rejection: -policy.lower_bound.

    Returns:
        The number, at least `min_frames`; None when `limit` is not enough.
    """
    wanted = policy.upper_bound if bound is None else bound
    for frames in range(max(1, policy.min_frames), limit + 1):
        if policy.bounded(policy.llr_clip * effective(frames, policy)) >= wanted:
            return frames
    return None


def floor_ms(policy: Policy, frame_period_ms: float, bound: float | None = None) -> float | None:
    """Least time between the first frame and a decision: the (N-1) periods of `fewest_frames`, or `min_time_ms`.

    Args:
        frame_period_ms: between scored frames. bound: as `fewest_frames`.
    """
    frames = fewest_frames(policy, bound=bound)
    return None if frames is None else max((frames - 1) * frame_period_ms, float(policy.min_time_ms))
