"""Judged sessions as evidence for a policy: which they are, and the peak of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from calibration.operating_point_file import OperatingPointFile
from mmdg_model.training.samples import BONA_FIDE, Split
from pipeline.policy import Policy, PolicyError
from pipeline.policy_compiler import SessionPeak
from pipeline.session_folders import SessionFolder
from pipeline.simulated_sessions.film import FilmRecord, camera_kind_of
from pipeline.simulated_sessions.judging import peak_evidence
from pipeline.simulated_sessions.scoring import FrameScore
from pipeline.simulated_trees.domains import SimulationError
from pipeline.verdict import ModelInfo


def session_peaks(records: Sequence[FilmRecord], scores: Mapping[str, Sequence[FrameScore]], policy: Policy,
                  model: ModelInfo, calibration: OperatingPointFile | None = None) -> list[SessionPeak]:
    """Each session through the real decision step, see `judging.peak_evidence`. Keys must differ."""
    return [SessionPeak(
        species=record.truth.species, live=record.truth.label == BONA_FIDE, person=str(record.truth.person),
        peak=peak_evidence(record, scores[record.truth.key], policy, model, calibration),
        responded=bool(scores[record.truth.key]),
        duration_ms=(record.observations[-1].stamp_ns - record.observations[0].stamp_ns) / 1e6) for record in records]


def check_mapped(records: Sequence[FilmRecord], policy: Policy, calibration: OperatingPointFile | None) -> None:
    """That each session is of a kind of camera for which the calibration has a map with the required modalities.

    Sessions of another kind are never accepted; counted among the attacks they would vouch for nothing.

    Raises:
        PolicyError: one is not.
    """
    if calibration is None:
        return
    needed = {modality.value for modality in policy.required_modalities}
    known = {one.camera_kind for one in calibration.maps if needed <= set(one.modalities)}
    for record in records:
        if (kind := camera_kind_of(record)) not in known:
            raise PolicyError(f"session {record.truth.key} is of camera kind {kind}, for which calibration "
                              f"{calibration.calibration_id} has no map with {', '.join(sorted(needed))}: it could "
                              "never be accepted and would vouch for nothing. Calibrate that kind, or leave its "
                              "sessions out")


def refuse_repeats(folders: Sequence[SessionFolder]) -> dict[tuple[object, ...], str]:
    """The folder of each session.

    Raises:
        SimulationError: a session is there twice; counted twice it would be evidence that is not there.
    """
    seen: dict[tuple[object, ...], str] = {}
    for folder in folders:
        for truth, identity in zip(folder.truths, folder.identities, strict=True):
            if identity in seen:
                raise SimulationError(f"session {truth.key} is in {seen[identity]} and in {folder.root}; counted twice "
                                      "it would be evidence that is not there")
            seen[identity] = str(folder.root)
    return seen


def check_sessions(folders: Sequence[SessionFolder], apart_from: Sequence[SessionFolder], why: str) -> None:
    """That a threshold may be chosen on these sessions: none is a test session, there twice, or in `apart_from`.

    Args:
        why: what the sessions of `apart_from` are, such as "which calibrated the scores".

    Raises:
        SimulationError: one is; names the folders and the session.
    """
    seen = refuse_repeats(folders)
    for folder in folders:
        if tested := [truth.key for truth in folder.truths if truth.split == Split.TEST]:
            raise SimulationError(f"{folder.root}: {tested[0]} is a test session: a threshold is chosen on others, the "
                                  "test set is for judging alone (mmdg evaluate sessions)")
    for folder in apart_from:
        if shared := [truth.key for truth, identity in zip(folder.truths, folder.identities, strict=True)
                      if identity in seen]:
            raise SimulationError(f"{len(shared)} sessions, such as {shared[0]}, are in {folder.root}, too, {why}: "
                                  "film others (mmdg simulate films --seed N), or record some, to choose on")
