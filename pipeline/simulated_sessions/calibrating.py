"""The operating point of a checkpoint, from its scores of validation sessions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.operating_point_file import SpeciesWeights
from calibration.score_calibration import FrameCorrelation, ScaledLogit, frame_correlation, platt_scaling
from mmdg_model.operating_point import OperatingPoint
from mmdg_model.training.samples import BONA_FIDE
from pipeline.policy import Policy
from pipeline.simulated_sessions.film import FilmRecord
from pipeline.simulated_sessions.judging import peak_evidence
from pipeline.simulated_sessions.scoring import FrameScore
from pipeline.simulated_trees.domains import SimulationError
from pipeline.verdict import ModelInfo

#: The share of the worst species' sessions that may be accepted at the threshold, on the calibration sessions.
APCER_TARGET = 0.05
#: Of an operating point (`mmdg_model.operating_point`): evidence of scores that never differ would not grow at all.
LARGEST_CORRELATION = 0.99


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was fitted, and what it gives on the sessions that it was fitted to.

    Attributes:
        point: to be stored in the checkpoint. correlation: of frames' scores.
        worst_species: with the largest APCER at the threshold. wald_bound: the policy's own; the threshold is never
            below it.
        apcer: by species, at the threshold: accepted and sessions.
        accepted_live, live: bona fide sessions accepted at the threshold, and all.
    """

    point: OperatingPoint
    correlation: FrameCorrelation
    worst_species: str
    wald_bound: float
    apcer: Mapping[str, tuple[int, int]]
    accepted_live: int
    live: int


def calibrate(records: Sequence[FilmRecord], scores: Mapping[str, Sequence[FrameScore]], policy: Policy,
              model: ModelInfo, *, command: str, apcer_target: float = APCER_TARGET,
              species_weights: SpeciesWeights = "balanced") -> Calibration:
    """Fits scale and offset, then the correlation of frames, then the threshold of a session's evidence.

    1. Platt's scaling of frames' logits at equal priors; each session weighs the same within its species, and where
       `species_weights` is `balanced` each species the same within the attacks, so that a common species does not
       speak for a rare one.
    2. ρ: of successive scores about the mean of their species, sessions' own levels included, or of an AR(1) about each
       session's mean where that is more (`calibration.score_calibration.frame_correlation`). A mask that passes in one
       frame passes in the next: with the latter alone evidence would grow for as long as it is looked at.
    3. The smallest threshold, not below Wald's bound, at which no species' APCER exceeds `apcer_target`: a session is
       accepted when its evidence reaches the threshold before it is rejected. Undecided sessions are not accepted.

    Args:
        records: validation sessions, bona fide and attacks. scores: of each. policy: that is going to decide; what it
            states of scale, log odds and correlation is not used here.
        command: as typed, for the record.

    Raises:
        SimulationError: no session of one label, or test sessions. CalibrationError: scores that cannot be calibrated.
    """
    if wrong := sorted({record.truth.split for record in records} - {"val", "train"}):
        raise SimulationError(f"sessions of split {', '.join(wrong)}: calibrate on validation sessions, the test set "
                              "is for judging alone")
    live = [record for record in records if record.truth.label == BONA_FIDE]
    attacks = [record for record in records if record.truth.label != BONA_FIDE]
    if not live or not attacks:
        raise SimulationError(f"{len(live)} bona fide and {len(attacks)} attack sessions; both are needed")
    scaled = _scaled(records, scores, species_weights)
    scored = [record for record in records if scores[record.truth.key]]
    correlation = frame_correlation([[score.logit for score in scores[record.truth.key]] for record in scored],
                                    [record.truth.species for record in scored])

    lasting = min(max(correlation.within, correlation.total), LARGEST_CORRELATION)
    point = OperatingPoint(
        logit_scale=scaled.scale, logit_offset=scaled.offset, frame_correlation=lasting, threshold=0.0,
        apcer=0.0, bpcer=0.0, sessions=len(records), data="simulated", command=command)
    measured = ModelInfo(model_hash=model.model_hash, purpose=model.purpose, operating_point=point)
    bare = _bare(policy)
    peaks = {record.truth.key: peak_evidence(record, scores[record.truth.key], bare, measured) for record in records}
    wald = bare.upper_bound
    threshold = lowest_threshold([(record.truth.species, peaks[record.truth.key]) for record in attacks],
                                 at_least=wald, target=apcer_target)
    apcer = _accepted(attacks, peaks, threshold)
    accepted_live = sum(peaks[record.truth.key] >= threshold for record in live)
    worst = max(apcer, key=lambda species: (apcer[species][0] / apcer[species][1], species))
    return Calibration(
        point=OperatingPoint(**{**point.to_dict(), "threshold": threshold,  # type: ignore[arg-type]
                                "apcer": apcer[worst][0] / apcer[worst][1], "bpcer": 1 - accepted_live / len(live)}),
        correlation=correlation, worst_species=worst, wald_bound=wald, apcer=apcer, accepted_live=accepted_live,
        live=len(live))


def lowest_threshold(peaks: Sequence[tuple[str, float]], *, at_least: float, target: float) -> float:
    """The smallest threshold, not below `at_least`, that at most `target` of each species' sessions reach.

    Args:
        peaks: (species, the evidence that the session reached at most) of each attack session.
    """
    threshold = at_least
    for species in {name for name, _ in peaks}:
        own = sorted((peak for name, peak in peaks if name == species), reverse=True)
        allowed = math.floor(target * len(own) + 1e-9)
        if allowed < len(own) and own[allowed] >= threshold:
            threshold = float(np.nextafter(own[allowed], math.inf))
    return threshold


def _bare(policy: Policy) -> Policy:
    """Nothing that the operating point is about is stated by the policy itself."""
    import msgspec

    return msgspec.structs.replace(policy, logit_scale=None, training_log_odds=None, frame_correlation=None)


def _scaled(records: Sequence[FilmRecord], scores: Mapping[str, Sequence[FrameScore]],
            species_weights: SpeciesWeights) -> ScaledLogit:
    scored = [record for record in records if scores[record.truth.key]]
    of_species = Counter(record.truth.species for record in scored)
    logits, labels, weights = [], [], []
    for record in scored:
        own = scores[record.truth.key]
        logits += [score.logit for score in own]
        labels += [record.truth.label == BONA_FIDE] * len(own)
        sharing = of_species[record.truth.species] if species_weights == "balanced" else 1
        weights += [1 / len(own) / sharing] * len(own)
    return platt_scaling(logits, labels, weights)


def _accepted(attacks: Sequence[FilmRecord], peaks: Mapping[str, float],
              threshold: float) -> dict[str, tuple[int, int]]:
    names = sorted({record.truth.species for record in attacks})
    return {name: (sum(peaks[record.truth.key] >= threshold for record in attacks if record.truth.species == name),
                   sum(record.truth.species == name for record in attacks)) for name in names}
