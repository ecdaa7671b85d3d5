"""`mmdg calibrate score`: from labelled sessions to the operating-point file of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.evidence_maps import FEWEST_SESSIONS, ScoredSession, check_numbers, fit_evidence_map
from calibration.operating_point_file import (
    SUBSETS,
    CalibratedModel,
    CalibrationSessions,
    EvidenceMap,
    OperatingPointFile,
    SpeciesWeights,
)
from calibration.score_calibration import CalibrationError
from pipeline.calibration_sessions import (
    CalibrationSessionsError,
    LabelledFolder,
    Subset,
    index_counts,
    score_folder,
)
from pipeline.simulated_sessions.scoring import ModelFacts


@dataclass(frozen=True, kw_only=True)
class ScoreCalibration:
    """What was fitted.

    Attributes:
        file: to be written. without_map: why a (camera kind, subset) has none; it is refused at run time.
        sessions: that each subset was fitted to.
    """

    file: OperatingPointFile
    without_map: Mapping[tuple[str, Subset], str]
    sessions: Mapping[Subset, Sequence[ScoredSession]]


def score_folders(folders: Sequence[LabelledFolder], model: Path, facts: ModelFacts, *, jobs: int = 1,
                  on_progress: Callable[[int, int], None] = lambda done, total: None,
                  ) -> dict[Subset, list[ScoredSession]]:
    """Sessions of all folders by subset.

    Raises:
        CalibrationSessionsError: none at all, the same folder twice, simulated beside recorded sessions, or as
            `calibration_sessions.score_folder`.
    """
    if not folders:
        raise CalibrationSessionsError("no folder of sessions; name at least one")
    for index, folder in enumerate(folders):
        if folder.sha256 in (other.sha256 for other in folders[:index]):
            raise CalibrationSessionsError(f"{folder.root}: these sessions were named before; each counts once")
    if len({folder.simulated for folder in folders}) > 1:
        kinds = ", ".join(f"{folder.root} {'simulated' if folder.simulated else 'recorded'}" for folder in folders)
        raise CalibrationSessionsError(f"simulated and recorded sessions never mix: {kinds}; calibrate on one of them")
    total = sum(len(folder.labels) for folder in folders)
    found: dict[Subset, list[ScoredSession]] = {subset: [] for subset in SUBSETS}
    before = 0
    for folder in folders:
        def show(done: int, _: int, before: int = before) -> None:
            on_progress(before + done, total)

        for subset, sessions in score_folder(folder, model, facts, jobs=jobs, on_progress=show).items():
            found[subset] += sessions
        before += len(folder.labels)
    return found


def calibrate_scores(sessions: Mapping[Subset, Sequence[ScoredSession]], folders: Sequence[LabelledFolder],
                     facts: ModelFacts, *, command: str, created: str, fewest: int = FEWEST_SESSIONS,
                     camera_kinds: Sequence[str] = (),
                     species_weights: SpeciesWeights = "balanced") -> ScoreCalibration:
    """Fits every camera kind and subset that the sessions have.

    Args:
        sessions: of `score_folders`. command, created: for the record; the date in ISO 8601.
        fewest: scored sessions of each class that a camera kind needs. camera_kinds: to fit; empty: all that there are.
        species_weights: of the attacks, see `calibration.evidence_maps`.

    Raises:
        CalibrationSessionsError: a camera kind that is not there. CalibrationError: a camera kind with one class or too
            few sessions, or not one map that could be fitted.
    """
    everything = next(iter(sessions.values()))
    known = sorted({one.camera_kind for one in everything})
    if unknown := sorted(set(camera_kinds) - set(known)):
        raise CalibrationSessionsError(f"camera kind {unknown[0]!r}: no session of it; there are {', '.join(known)}")
    maps: list[EvidenceMap] = []
    without_map: dict[tuple[str, Subset], str] = {}
    for kind in sorted(camera_kinds or known):
        # RGB is what every camera has: too few of these is too few of anything.
        check_numbers(sessions[SUBSETS[-1]], kind, fewest)
        for subset in SUBSETS:
            try:
                maps.append(fit_evidence_map(sessions[subset], kind, subset, fewest=fewest,
                                             species_weights=species_weights))
            except CalibrationError as error:
                without_map[kind, subset] = str(error)
    if not maps:
        reasons = "; ".join(f"{kind} {'+'.join(subset)}: {why}" for (kind, subset), why in without_map.items())
        raise CalibrationError(f"no map could be fitted: {reasons}")
    by_label, by_species = index_counts(folders)
    scored = {one.key for own in sessions.values() for one in own if one.logits}
    return ScoreCalibration(without_map=without_map, sessions=sessions, file=OperatingPointFile(
        model=CalibratedModel(sha256=facts.info.model_hash, purpose=facts.info.purpose.value),
        data="simulated" if folders[0].simulated else "recorded", created=created, command=command, maps=maps,
        species_weights=species_weights,
        sessions=CalibrationSessions(
            total=len(everything), unscored=len(everything) - len(scored), by_label=dict(by_label),
            by_species=dict(by_species), index_sha256=[folder.sha256 for folder in folders])))
