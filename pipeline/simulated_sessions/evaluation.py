"""Error rates of decisions: APCER by species, BPCER by group of people, time to decision, with bounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from calibration.error_rates import Proportion, Unit, auc, roc
from calibration.score_calibration import CalibrationError, FrameCorrelation, frame_correlation
from mmdg_model.training.samples import BONA_FIDE
from pipeline import sequential_test
from pipeline.policy import Policy
from pipeline.simulated_sessions.judging import JudgedSession
from pipeline.verdict import Verdict

#: What bona fide sessions are grouped by.
GROUPS = ("skin_tone", "hair", "spectacles", "beard")
#: Smaller groups are printed and never called the worst.
SMALLEST_GROUP = 10


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """How sessions of one kind ended.

    Attributes:
        sessions: all. accepted, rejected: verdict bona_fide, attack. undecided: neither, though frames were scored.
        non_response: undecided without a scored frame: no single face was found, or none fit to crop.
        frames, missed: filmed, and those without a crop.
        people: who is live or depicted. accepted_people, refused_people: of them, with at least one session accepted,
            and with at least one that was not.
        instruments: attack instruments, where the sessions name them; 0 where one does not: nobody knows.
    """

    sessions: int
    accepted: int
    rejected: int
    undecided: int
    non_response: int
    frames: int
    missed: int
    people: int
    accepted_people: int
    refused_people: int
    instruments: int

    @classmethod
    def of(cls, judged: Sequence[JudgedSession]) -> Outcomes:
        """Of these sessions."""
        accepted = sum(each.decision.verdict is Verdict.BONA_FIDE for each in judged)
        rejected = sum(each.decision.verdict is Verdict.ATTACK for each in judged)
        silent = sum(not each.responded for each in judged)
        passing = {each.truth.person for each in judged if each.decision.verdict is Verdict.BONA_FIDE}
        failing = {each.truth.person for each in judged if each.decision.verdict is not Verdict.BONA_FIDE}
        named = {each.truth.instrument for each in judged}
        return cls(sessions=len(judged), accepted=accepted, rejected=rejected, non_response=silent,
                   undecided=len(judged) - accepted - rejected - silent, frames=sum(each.frames for each in judged),
                   missed=sum(each.missed for each in judged), people=len(passing | failing),
                   accepted_people=len(passing), refused_people=len(failing),
                   instruments=0 if "" in named else len(named))

    @property
    def apcer(self) -> Proportion:
        """Attack sessions accepted. Undecided ones were not."""
        return Proportion(count=self.accepted, trials=self.sessions, unit=Unit.VIDEO)

    @property
    def bpcer(self) -> Proportion:
        """Bona fide sessions not accepted: rejected, undecided and without response alike."""
        return Proportion(count=self.sessions - self.accepted, trials=self.sessions, unit=Unit.VIDEO)

    @property
    def apcer_of_responses(self) -> Proportion | None:
        """Attack sessions accepted, of those with a response; None: there was none."""
        responses = self.sessions - self.non_response
        return Proportion(count=self.accepted, trials=responses, unit=Unit.VIDEO) if responses else None

    @property
    def called_attack(self) -> Proportion:
        """Sessions classified as attacks, of all."""
        return Proportion(count=self.rejected, trials=self.sessions, unit=Unit.VIDEO)

    @property
    def people_accepted(self) -> Proportion:
        """People with at least one session accepted."""
        return Proportion(count=self.accepted_people, trials=self.people, unit=Unit.SUBJECT)

    @property
    def people_refused(self) -> Proportion:
        """People with at least one session that was not accepted."""
        return Proportion(count=self.refused_people, trials=self.people, unit=Unit.SUBJECT)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Time to the decisions of one bound, in recorded time since the session's first frame, and the least possible.

    Attributes:
        decisions: how many crossed the bound. median_ms, p95_ms: of them; None without one.
        floor_frames: fewest frames N with llr_clip · n_eff(N, ρ) at the bound (and `min_frames`), every score at the
            clip; None where no number is enough.
        floor_ms: max((N - 1) · frame period, min_time_ms).
    """

    decisions: int
    median_ms: float | None
    p95_ms: float | None
    floor_frames: int | None
    floor_ms: float | None

    @property
    def ratio(self) -> float | None:
        """Median over floor."""
        return None if self.median_ms is None or not self.floor_ms else self.median_ms / self.floor_ms


@dataclass(frozen=True, kw_only=True)
class SessionEvaluation:
    """All figures of one set of judged sessions.

    Attributes:
        live: bona fide sessions. species: attack sessions by species, worst APCER first.
        groups: bona fide sessions by attribute, then value. accepting, rejecting: pace of the two bounds.
        correlation: of successive frames' raw scores; None where it could not be fitted.
        area: AUC of sessions' mean logits, None where a label is missing.
    """

    live: Outcomes
    species: Mapping[str, Outcomes]
    groups: Mapping[str, Mapping[str, Outcomes]]
    accepting: Pace
    rejecting: Pace
    correlation: FrameCorrelation | None
    area: float | None

    @property
    def worst_species(self) -> str | None:
        """The species with the largest APCER, by name among equals."""
        return next(iter(self.species), None)

    @property
    def worst_groups(self) -> dict[str, str]:
        """By attribute: the value with the largest BPCER, of those with `SMALLEST_GROUP` sessions."""
        worst = {}
        for attribute, values in self.groups.items():
            large = {value: each for value, each in values.items() if each.sessions >= SMALLEST_GROUP}
            if large:
                worst[attribute] = max(large, key=lambda value: (large[value].bpcer.rate, value))
        return worst

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; every rate with its one-sided 95 % Clopper-Pearson bound."""
        def rates(each: Outcomes, rate: Proportion, name: str) -> dict[str, Any]:
            return {"sessions": each.sessions, "accepted": each.accepted, "rejected": each.rejected,
                    "undecided": each.undecided, "non_response": each.non_response, "frames": each.frames,
                    "frames_missed": each.missed, name: rate.rate, f"{name}_upper_95": rate.upper_bound()}

        def pace(each: Pace) -> dict[str, Any]:
            return {"decisions": each.decisions, "median_ms": each.median_ms, "p95_ms": each.p95_ms,
                    "floor_frames": each.floor_frames, "floor_ms": each.floor_ms, "ratio": each.ratio}

        correlation = self.correlation
        return {
            "simulated": True, "bona_fide": rates(self.live, self.live.bpcer, "bpcer") if self.live.sessions else None,
            "species": {name: rates(each, each.apcer, "apcer") for name, each in self.species.items()},
            "worst_species": self.worst_species,
            "groups": {f"{attribute}: {value}": rates(each, each.bpcer, "bpcer")
                       for attribute, values in self.groups.items() for value, each in values.items()},
            "worst_groups": self.worst_groups, "accepting": pace(self.accepting), "rejecting": pace(self.rejecting),
            "auc_of_session_means": self.area,
            "frame_correlation": None if correlation is None else {
                "within": correlation.within, "lag_one_within": correlation.lag_one, "lag_one_total": correlation.total,
                "between_share": correlation.between, "sessions": correlation.sessions, "pairs": correlation.pairs}}


def evaluate(judged: Sequence[JudgedSession], policy: Policy) -> SessionEvaluation:
    """Every figure.

    Args:
        judged: at least one session. policy: that decided, with its operating point applied (`Policy.calibrated`).
            Floors are of the fastest among the policies that were applied to sessions.
    """
    live = [each for each in judged if each.truth.label == BONA_FIDE]
    attacks = [each for each in judged if each.truth.label != BONA_FIDE]
    species = {name: Outcomes.of([each for each in attacks if each.truth.species == name])
               for name in sorted({each.truth.species for each in attacks})}
    groups = {attribute: {value: Outcomes.of([each for each in live if _value(each, attribute) == value])
                          for value in sorted({_value(each, attribute) for each in live} - {""})}
              for attribute in GROUPS}
    scored = [each for each in judged if each.responded]
    try:
        correlation = frame_correlation([each.logits for each in scored], [each.truth.species for each in scored])
    except CalibrationError:
        correlation = None
    labels = {each.truth.label for each in scored}
    area = auc(roc([float(np.mean(each.logits)) for each in scored],
                   [each.truth.label == BONA_FIDE for each in scored])) if len(labels) == 2 else None
    period_ms = min(1e3 / each.truth.frame_rate for each in judged)
    return SessionEvaluation(
        live=Outcomes.of(live), species=dict(sorted(species.items(), key=lambda item: (-item[1].apcer.rate, item[0]))),
        groups=groups, correlation=correlation, area=area,
        accepting=_pace(judged, Verdict.BONA_FIDE, policy, policy.upper_bound, period_ms),
        rejecting=_pace(judged, Verdict.ATTACK, policy, -policy.lower_bound, period_ms))


def _pace(judged: Sequence[JudgedSession], verdict: Verdict, policy: Policy, bound: float, period_ms: float) -> Pace:
    times = [each.decision.time_to_decision_ms for each in judged if each.decision.verdict is verdict]
    applied = list(dict.fromkeys(each.applied for each in judged if each.applied is not None)) or [policy]
    frames = [number for one in applied if (number := sequential_test.fewest_frames(one, bound=bound)) is not None]
    floors = [time for one in applied if (time := sequential_test.floor_ms(one, period_ms, bound)) is not None]
    return Pace(decisions=len(times), median_ms=float(np.median(times)) if times else None,
                p95_ms=float(np.percentile(times, 95)) if times else None,
                floor_frames=min(frames, default=None), floor_ms=min(floors, default=None))


def _value(judged: JudgedSession, attribute: str) -> str:
    """Empty: nobody said; such sessions are in no group."""
    value = getattr(judged.truth, attribute)
    if value is None:
        return ""
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
