"""Fits one `EvidenceMap` a camera kind and subset of modalities to the logits of labelled sessions. Pure functions.

Classes weigh the same whatever their numbers (equal priors). Among the attacks each species weighs the same
(`balanced`: error rates are promised of the worst species, so a common one must not speak for a rare one) or as often
as it occurs (`occurrence`: the sessions are the mixture to be met); within a species each session weighs the same
however many frames it has. How far evidence may go is bounded by how many sessions there are: from n sessions of a
class nobody can show that something happens less often than about once in n.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.lasting_share import fit_lasting_share
from calibration.likelihood_ratio_cost import cllr, minimum_cllr
from calibration.operating_point_file import EvidenceMap, ModalityName, SpeciesWeights
from calibration.score_calibration import (
    CalibrationError,
    ScaledLogit,
    correlation_interval,
    frame_correlation,
    platt_scaling,
)

#: Sessions of each class, of one camera kind, below which nothing is fitted: ln 10 = 2.3 nats is the least clip.
FEWEST_SESSIONS = 10
#: Parts that the people are dealt into for `cllr_held_out`.
_FOLDS = 5

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ScoredSession:
    """Logits of one session in order, scored with one subset of modalities.

    Attributes:
        key: of the session. camera_kind: `CameraDescription.camera_kind`. species: of the instrument, or `bona_fide`.
        live: bona fide. person: live or depicted; nobody is on both sides of a held-out figure.
    """

    key: str
    camera_kind: str
    species: str
    live: bool
    person: str
    logits: tuple[float, ...]


def supported_llr(sessions_bona_fide: int, sessions_attack: int) -> float:
    """Largest |LLR| in nats that so many sessions support: ln of the smaller class's number.

    With no error among n sessions a rate of about 1/n cannot be told from 0, so a ratio of rates beyond n is a guess.

    Raises:
        CalibrationError: fewer than two sessions of a class: nothing at all.
    """
    fewer = min(sessions_bona_fide, sessions_attack)
    if fewer < 2:
        raise CalibrationError(f"{sessions_bona_fide} bona fide and {sessions_attack} attack sessions support no "
                               "evidence; at least two of each are needed")
    return math.log(fewer)


def check_numbers(sessions: Sequence[ScoredSession], camera_kind: str, fewest: int = FEWEST_SESSIONS) -> None:
    """Whether there are enough scored sessions of each class of one camera kind.

    Raises:
        CalibrationError: one class only, or too few; says how many are there and how many are needed.
    """
    own = [one for one in sessions if one.camera_kind == camera_kind and one.logits]
    live = sum(one.live for one in own)
    attacks = len(own) - live
    if not live or not attacks:
        raise CalibrationError(f"camera kind {camera_kind}: {live} bona fide and {attacks} attack sessions with "
                               "scores; both are needed")
    if min(live, attacks) < fewest:
        raise CalibrationError(f"camera kind {camera_kind}: {live} bona fide and {attacks} attack sessions with "
                               f"scores, expected at least {fewest} of each: add sessions of this kind, or leave it "
                               "out")


def fit_evidence_map(sessions: Sequence[ScoredSession], camera_kind: str, modalities: Sequence[ModalityName], *,
                     fewest: int = FEWEST_SESSIONS, species_weights: SpeciesWeights = "balanced") -> EvidenceMap:
    """The map of one camera kind and subset.

    Args:
        sessions: scored with this subset; those of other kinds are left out, and those without a score.
        modalities: of `operating_point_file.SUBSETS`. fewest: sessions of each class.
        species_weights: of the attacks, see the module.

    Raises:
        CalibrationError: too few sessions or frames, or scores that do not rank live faces above attacks.
    """
    check_numbers(sessions, camera_kind, fewest)
    own = [one for one in sessions if one.camera_kind == camera_kind and one.logits]
    live = sum(one.live for one in own)
    clip = supported_llr(live, len(own) - live)
    logits, labels, weights = frames_of(own, species_weights)
    scaled = platt_scaling(logits, labels, weights)
    series, species = [one.logits for one in own], [one.species for one in own]
    correlation = frame_correlation(series, species)
    low, high = correlation_interval(series, species)
    lasting = fit_lasting_share(series, species)
    return EvidenceMap(
        camera_kind=camera_kind, modalities=list(modalities), scale=scaled.scale, offset=scaled.offset,
        frame_llr_clip=clip, evidence_clip=clip, frame_correlation=correlation.lasting, frame_correlation_low=low,
        frame_correlation_high=high, lasting_share=lasting.share, lasting_share_low=lasting.low,
        lasting_share_high=lasting.high, cllr_raw=cllr(logits, labels, weights),
        cllr=cllr(_mapped(logits, scaled, clip), labels, weights), cllr_min=minimum_cllr(logits, labels, weights),
        cllr_held_out=_held_out(own, clip, species_weights), sessions_bona_fide=live, sessions_attack=len(own) - live,
        frames=len(logits))


def frames_of(sessions: Sequence[ScoredSession],
              species_weights: SpeciesWeights = "balanced") -> tuple[FloatArray, NDArray[np.bool_], FloatArray]:
    """`[n]` logits of all frames, whether they are live, and their weights.

    A weight is 1 / frames of the session, and where species are balanced 1 / sessions of the species, too.
    """
    logits = np.concatenate([np.asarray(one.logits, np.float64) for one in sessions])
    counts = [len(one.logits) for one in sessions]
    of_species = Counter(one.species for one in sessions)
    weights = [1 / (len(one.logits) * (of_species[one.species] if species_weights == "balanced" else 1))
               for one in sessions]
    return logits, np.repeat([one.live for one in sessions], counts), np.repeat(weights, counts)


def _mapped(logits: FloatArray, scaled: ScaledLogit, clip: float) -> FloatArray:
    mapped: FloatArray = np.clip(scaled.scale * logits + scaled.offset, -clip, clip)
    return mapped


def _held_out(sessions: Sequence[ScoredSession], clip: float, species_weights: SpeciesWeights) -> float | None:
    """Cllr of maps fitted without the person judged. None: a fold leaves one class, or scores that do not rank."""
    people = {person: index % _FOLDS for index, person in enumerate(sorted({one.person for one in sessions}))}
    if len(people) < _FOLDS:
        return None
    llrs, labels, weights = [], [], []
    for fold in range(_FOLDS):
        judged = [one for one in sessions if people[one.person] == fold]
        try:
            scaled = platt_scaling(*frames_of([one for one in sessions if people[one.person] != fold],
                                              species_weights))
        except CalibrationError:
            return None
        logits, live, weight = frames_of(judged)
        llrs.append(_mapped(logits, scaled, clip))
        labels.append(live)
        weights.append(weight)
    return cllr(np.concatenate(llrs), np.concatenate(labels), np.concatenate(weights))
