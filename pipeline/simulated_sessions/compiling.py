"""Filmed sessions as evidence for a policy: which they are, and the peak of each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from mmdg_model.operating_point import OperatingPoint
from mmdg_model.training.samples import BONA_FIDE, Split
from pipeline.policy import Policy
from pipeline.policy_compiler import SessionPeak
from pipeline.simulated_sessions.film import FilmRecord
from pipeline.simulated_sessions.judging import peak_evidence
from pipeline.simulated_sessions.presentation import Truth
from pipeline.simulated_sessions.scoring import FrameScore
from pipeline.simulated_trees.domains import SimulationError
from pipeline.verdict import ModelInfo


def session_peaks(records: Sequence[FilmRecord], scores: Mapping[str, Sequence[FrameScore]], policy: Policy,
                  model: ModelInfo) -> list[SessionPeak]:
    """Each session through the real decision step, see `judging.peak_evidence`. Keys must differ."""
    return [SessionPeak(
        species=record.truth.species, live=record.truth.label == BONA_FIDE, person=str(record.truth.person),
        peak=peak_evidence(record, scores[record.truth.key], policy, model), responded=bool(scores[record.truth.key]),
        duration_ms=(record.observations[-1].stamp_ns - record.observations[0].stamp_ns) / 1e6) for record in records]


def identity(truth: Truth) -> tuple[object, ...]:
    """What two films of one presentation have in common, and two presentations have not."""
    return (truth.key, truth.person, truth.instrument, truth.head, truth.distance_m, truth.serial, truth.place,
            truth.renderer)


def refuse_repeats(folders: Mapping[str, Sequence[Truth]]) -> dict[tuple[object, ...], str]:
    """The folder of each session.

    Raises:
        SimulationError: a session is there twice; counted twice it would be evidence that is not there.
    """
    seen: dict[tuple[object, ...], str] = {}
    for folder, truths in folders.items():
        for truth in truths:
            if identity(truth) in seen:
                raise SimulationError(f"session {truth.key} is in {seen[identity(truth)]} and in {folder}; counted "
                                      "twice it would be evidence that is not there")
            seen[identity(truth)] = folder
    return seen


def check_sessions(folders: Mapping[str, Sequence[Truth]], apart_from: Mapping[str, Sequence[Truth]],
                   why: str) -> None:
    """That a threshold may be chosen on these sessions: none is a test session, there twice, or in `apart_from`.

    Args:
        why: what the sessions of `apart_from` are, such as "which calibrated the scores".

    Raises:
        SimulationError: one is; names the folders and the session.
    """
    seen = refuse_repeats(folders)
    for folder, truths in folders.items():
        if tested := [truth.key for truth in truths if truth.split == Split.TEST]:
            raise SimulationError(f"{folder}: {tested[0]} is a test session: a threshold is chosen on others, the test "
                                  "set is for judging alone (mmdg evaluate sessions)")
    for folder, truths in apart_from.items():
        if shared := [truth.key for truth in truths if identity(truth) in seen]:
            raise SimulationError(f"{len(shared)} sessions, such as {shared[0]}, are in {folder}, too, {why}: film "
                                  "others (mmdg simulate films --seed N) to choose a threshold on")


def calibration_id(point: OperatingPoint | None) -> str:
    """SHA-256 of an operating point's canonical JSON; `none` without one."""
    return "none" if point is None else hashlib.sha256(json.dumps(point.to_dict(), sort_keys=True).encode()).hexdigest()
