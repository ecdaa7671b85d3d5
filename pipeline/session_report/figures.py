"""The figures of ISO/IEC 30107-3 that a set of judged sessions gives. Pure.

APCER and APNRR are told by species, the worst one heads the page; BPCER and BPNRR of bona fide sessions. Intervals are
exact (Clopper-Pearson) and on sessions alone: frames of one session are not independent, so rates of frames have none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.error_rates import Proportion, Unit, apcer_by_species, bpcer, bpcer_at_apcer
from mmdg_model.training.samples import BONA_FIDE
from pipeline.policy import Policy
from pipeline.simulated_sessions.evaluation import Outcomes, Pace, SessionEvaluation, evaluate
from pipeline.simulated_sessions.judging import JudgedSession

#: APCER at which BPCER is told: BPCER10, BPCER20 and BPCER100 of the standard.
APCER_LIMITS = (0.1, 0.05, 0.01)
#: What is evaluated, in the standard's words, and what is not.
EVALUATION = ("PAD subsystem with its decision policy; one presentation is one session; no comparison subsystem takes "
              "part")
NOT_MEASURED = ("IAPAR, RIAPAR and other figures of a full system", "attack potential of the PAI species",
                "conformance to the standard")
#: Evidence of a session in which nothing ever counted: below any that can be gathered.
NO_EVIDENCE = -1_000.0


@dataclass(frozen=True, kw_only=True)
class ScoredSession:
    """A session as one number: the most evidence for acceptance before rejection (`judging.peak_evidence`)."""

    species: str
    live: bool
    peak: float

    @property
    def score(self) -> float:
        """The peak, finite."""
        return max(self.peak, NO_EVIDENCE)


@dataclass(frozen=True, kw_only=True)
class FrozenPoint:
    """BPCER where the worst species' APCER is at most `limit` on development sessions, told on other sessions.

    Attributes:
        threshold: nats, set on the development sessions; None where `unresolved` says why there is none.
        live: bona fide sessions refused at it, here. worst_species, attacks: and what it let through, here.
    """

    limit: float
    threshold: float | None
    live: Proportion | None
    worst_species: str | None
    attacks: Proportion | None
    unresolved: str | None = None


@dataclass(frozen=True, kw_only=True)
class FrameRates:
    """Rates of single frames by whether their LLR is at least 0, without intervals. None without a scored frame."""

    live_refused: float | None
    attacks_accepted: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class SessionReport:
    """All figures of one page.

    Attributes:
        development: number of development sessions that the thresholds of `frozen` were set on; 0 = none were given.
        facts: what the figures were measured with, plain values.
    """

    evaluation: SessionEvaluation
    frozen: tuple[FrozenPoint, ...]
    frames: FrameRates
    development: int
    simulated: bool
    facts: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        found = self.evaluation
        return {
            "terms": "ISO/IEC 30107-3", "evaluation": EVALUATION, "not_measured": NOT_MEASURED,
            "simulated": self.simulated, **self.facts,
            "species": {name: {**_outcomes(each), "apcer": rates(each.apcer), "apnrr": rates(non_response(each)),
                               "apcer_of_responses": None if each.apcer_of_responses is None else rates(
                                   each.apcer_of_responses),
                               "people": rates(each.people_accepted), "instruments": each.instruments or None}
                        for name, each in found.species.items()},
            "worst_species": found.worst_species,
            "bona_fide": {**_outcomes(found.live), "bpcer": rates(found.live.bpcer),
                          "bpnrr": rates(non_response(found.live)),
                          "classified_as_attack": rates(found.live.called_attack),
                          "people": rates(found.live.people_refused)} if found.live.sessions else None,
            "groups": {f"{attribute}: {value}": {**_outcomes(each), "bpcer": rates(each.bpcer)}
                       for attribute, values in found.groups.items() for value, each in values.items()},
            "bpcer_at_apcer": {"development_sessions": self.development, "points": [
                {"apcer_limit": one.limit, "threshold": one.threshold, "unresolved": one.unresolved,
                 "bpcer": None if one.live is None else rates(one.live), "worst_species": one.worst_species,
                 "apcer": None if one.attacks is None else rates(one.attacks)} for one in self.frozen]},
            "frames_at_llr_0": {"bpcer": self.frames.live_refused, "apcer": dict(self.frames.attacks_accepted)},
            "time_to_acceptance": _pace(found.accepting), "time_to_rejection": _pace(found.rejecting)}


def rates(share: Proportion) -> dict[str, float | int]:
    """A rate with its exact intervals: two-sided 95 %, and the one-sided 95 % bound that targets are judged by."""
    both = share.exact_interval()
    return {"count": share.count, "trials": share.trials, "rate": share.rate, "low_95": both.low, "high_95": both.high,
            "upper_bound_95": share.upper_bound()}


def non_response(each: Outcomes) -> Proportion:
    """APNRR or BPNRR: sessions without one scored frame."""
    return Proportion(count=each.non_response, trials=each.sessions, unit=Unit.VIDEO)


def session_report(judged: Sequence[JudgedSession], scored: Sequence[ScoredSession],
                   development: Sequence[ScoredSession], policy: Policy, facts: Mapping[str, Any]) -> SessionReport:
    """Every figure.

    Args:
        judged, scored: the same sessions, as decided and as numbers. development: others, for thresholds; may be empty.
        policy: that decided, with its operating point applied (`Policy.calibrated`).
    """
    return SessionReport(
        evaluation=evaluate(judged, policy), frozen=tuple(frozen_point(limit, development, scored)
                                                          for limit in APCER_LIMITS) if development else (),
        frames=frame_rates(judged), development=len(development),
        simulated=any(each.truth.simulated for each in judged), facts=facts)


def frozen_point(limit: float, development: Sequence[ScoredSession], scored: Sequence[ScoredSession]) -> FrozenPoint:
    """Sets the threshold on `development` and applies it to `scored`, which has no say in it."""
    def nothing(why: str) -> FrozenPoint:
        return FrozenPoint(limit=limit, threshold=None, live=None, worst_species=None, attacks=None, unresolved=why)

    for name, sessions in (("development", development), ("these", scored)):
        if len({each.live for each in sessions}) < 2:
            return nothing(f"both bona fide and attack sessions are needed among {name} sessions")
    point = bpcer_at_apcer([each.score for each in development], [each.live for each in development],
                           [each.species for each in development], limit, Unit.VIDEO)
    if point.threshold is None:
        return nothing((point.unresolved or "not resolvable").replace(f"{Unit.VIDEO}s of", "development sessions of"))
    if not np.isfinite(point.threshold):
        return nothing("on development sessions only refusing everyone keeps it")
    values, live = [each.score for each in scored], [each.live for each in scored]
    attacks = apcer_by_species(values, live, [each.species for each in scored], point.threshold, Unit.VIDEO)
    worst = next(iter(attacks))
    return FrozenPoint(limit=limit, threshold=point.threshold, live=bpcer(values, live, point.threshold, Unit.VIDEO),
                       worst_species=worst, attacks=attacks[worst])


def frame_rates(judged: Sequence[JudgedSession]) -> FrameRates:
    """Single frames, decided by the sign of their log-likelihood ratio; frames without a calibration are left out."""
    def accepted(sessions: Sequence[JudgedSession]) -> float | None:
        frames = [each.applied.frame_llr(logit) >= 0 for each in sessions if each.applied is not None
                  for logit in each.logits]
        return float(np.mean(frames)) if frames else None

    live = accepted([each for each in judged if each.truth.label == BONA_FIDE])
    attacks = [each for each in judged if each.truth.label != BONA_FIDE]
    return FrameRates(live_refused=None if live is None else 1 - live, attacks_accepted={
        name: accepted([each for each in attacks if each.truth.species == name])
        for name in sorted({each.truth.species for each in attacks})})


def _outcomes(each: Outcomes) -> dict[str, int]:
    return {"sessions": each.sessions, "accepted": each.accepted, "rejected": each.rejected,
            "undecided": each.undecided, "non_response": each.non_response}


def _pace(each: Pace) -> dict[str, float | int | None]:
    return {"decisions": each.decisions, "median_ms": each.median_ms, "p95_ms": each.p95_ms,
            "floor_frames": each.floor_frames, "floor_ms": each.floor_ms, "ratio_to_floor": each.ratio}
