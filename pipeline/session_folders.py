"""Folders of sessions to be judged: films, or labelled recordings of any camera, as records and scores of frames.

What is judged is the same for both: the observations of the live camera step and the network's scores. Films keep their
observations; a recording goes through the live camera step here. That is kept session by session below `scores/`, by
the model's hash and the recording's, so that a run that was killed goes on where it was. An index of recordings is that
of docs/calibration.md; its rows may also say `instrument`, and of the person `skin_tone`, `hair`, `spectacles`,
`beard`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from capture.camera import CameraError, Pace
from detect.faces import Detector
from mmdg_model.backends.exported_model import file_hash
from mmdg_model.scorer import Modality, Scorer
from mmdg_model.training.samples import Split
from mmdg_model.whole_file import write_whole
from pipeline.calibration_sessions import read_labelled_folder
from pipeline.simulated_sessions.film import FilmRecord, film_frames, load_record
from pipeline.simulated_sessions.presentation import Truth
from pipeline.simulated_sessions.scoring import FrameScore, ModelFacts, score_film, score_sessions
from pipeline.simulated_sessions.studio import INDEX, film_path, read_index, recording_path, sessions_hash
from pipeline.simulated_trees.domains import SimulationError
from pipeline.worker_pool import WorkerLostError, work_through

#: Splits that a session may be of here; training sessions flatter a network.
SPLITS = (Split.VALIDATION.value, Split.TEST.value)


class SessionFolderError(ValueError):
    """Sessions cannot be judged; the message names the folder, the value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class SessionFolder:
    """Sessions as their index has them.

    Attributes:
        truths: in the index's order. Of a recording that was not simulated, what its label says; frames and rate are
            known only once it was read.
        identities: of each session: equal for two files of one presentation. sha256: of which sessions these are.
    """

    root: Path
    kind: Literal["films", "recordings"]
    simulated: bool
    truths: tuple[Truth, ...]
    identities: tuple[tuple[object, ...], ...]
    sha256: str


def read_session_folder(root: Path) -> SessionFolder:
    """The index of a folder, checked; recordings are hashed.

    Raises:
        SimulationError: no index, or one that cannot be read. CalibrationSessionsError: an index of recordings that
            contradicts itself or names training sessions. OSError: a recording that cannot be read.
    """
    if _kind(root) == "films":
        truths = tuple(read_index(root))
        return SessionFolder(root=root, kind="films", simulated=any(each.simulated for each in truths), truths=truths,
                             identities=tuple(_presentation(each) for each in truths), sha256=sessions_hash(root))
    folder = read_labelled_folder(root, splits=SPLITS)
    rows = {row["key"]: row for row in json.loads((root / INDEX).read_bytes())["sessions"]}
    hashes = {label.key: file_hash(recording_path(root, label.key)) for label in folder.labels}
    truths = tuple(_truth(rows[label.key], folder.simulated, root) for label in folder.labels)
    seen: dict[str, str] = {}
    for key, sha256 in hashes.items():
        if sha256 in seen:
            raise SessionFolderError(f"{root}: recordings {seen[sha256]} and {key} are the same bytes; each session is "
                                     "evidence once")
        seen[sha256] = key
    # A simulated presentation is known by its plan, whether it was filmed or recorded; any other one by its bytes.
    identities = tuple(_presentation(each) if each.simulated and each.renderer else ("recording", hashes[each.key])
                       for each in truths)
    listed = msgspec.json.encode(sorted((hashes[each.key], each.label, each.species, str(each.person), each.split)
                                        for each in truths))
    return SessionFolder(root=root, kind="recordings", simulated=folder.simulated, truths=truths,
                         identities=identities, sha256=hashlib.sha256(listed).hexdigest())


def check_one_world(folders: Sequence[SessionFolder], facts: ModelFacts) -> None:
    """That simulated and recorded sessions do not mix, and that the model may decide on what they were filmed by.

    Raises:
        SessionFolderError: they do, or it may not.
    """
    from mmdg_model.scorer import Purpose

    if len({folder.simulated for folder in folders}) > 1:
        kinds = ", ".join(f"{folder.root} {'simulated' if folder.simulated else 'recorded'}" for folder in folders)
        raise SessionFolderError(f"simulated and recorded sessions never mix: {kinds}; judge one of them")
    if facts.info.purpose is Purpose.SIMULATED and any(not folder.simulated for folder in folders):
        raise SessionFolderError("this model was trained on simulated data alone and decides nothing on recordings of "
                                 "a camera; name a model that was trained on real data: --model FILE")


def scored_records(folder: SessionFolder, model: Path, facts: ModelFacts, *, jobs: int = 1,
                   on_progress: Callable[[int, int], None] = lambda done, total: None,
                   ) -> tuple[list[FilmRecord], dict[str, Sequence[FrameScore]]]:
    """Records in the index's order, and scores of each by its key.

    Raises:
        SimulationError, FilmError: as `scoring.score_sessions`. SessionFolderError: a recording that cannot be read or
            contradicts the index, a lost worker.
    """
    if folder.kind == "films":
        records = [load_record(film_path(folder.root, truth.key)) for truth in folder.truths]
        found: dict[str, Sequence[FrameScore]] = dict(score_sessions(folder.root, records, model, facts, jobs=jobs,
                                                                     on_progress=on_progress))
        return records, found
    kept: dict[str, _Kept] = {}
    for truth in folder.truths:
        known = _read_kept(_kept_path(folder.root, facts.info.model_hash, truth.key))
        if known is not None and known.recording_sha256 == file_hash(recording_path(folder.root, truth.key)):
            relabelled = msgspec.structs.replace(known.record, truth=_with_measured(truth, known.record))
            kept[truth.key] = msgspec.structs.replace(known, record=relabelled)
    missing = [truth for truth in folder.truths if truth.key not in kept]
    done = len(kept)
    on_progress(done, len(folder.truths))
    try:
        for one in work_through(missing, make_recording_reader, (folder.root, model, facts), jobs=jobs):
            kept[one.record.truth.key] = one
            done += 1
            on_progress(done, len(folder.truths))
    except WorkerLostError as error:
        raise SessionFolderError(str(error)) from error
    return ([kept[truth.key].record for truth in folder.truths],
            {key: [FrameScore(session=key, sequence=each.sequence, logit=each.logit, uncertainty=each.uncertainty)
                   for each in one.scores] for key, one in kept.items()})


class _KeptScore(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    sequence: int
    logit: float
    uncertainty: dict[Modality, float]


class _Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the camera step and one network made of a recording."""

    recording_sha256: str
    record: FilmRecord
    scores: list[_KeptScore]


@dataclass
class _RecordingReader:
    root: Path
    scorer: Scorer
    detector: Detector
    image_size: int

    def work(self, truth: Truth) -> _Kept:
        from capture.sources import make_camera

        path = recording_path(self.root, truth.key)
        try:
            description, observations, crops = film_frames(
                make_camera(f"replay:{path}", pace=Pace.LOCKSTEP), self.detector, crop_size=self.image_size)
        except CameraError as error:
            raise SessionFolderError(f"{path}: {error}") from error
        if description.simulated != truth.simulated:
            raise SessionFolderError(f"{path}: the index says simulated {truth.simulated}, the recording says "
                                     f"{description.simulated}; correct the index")
        if len(observations) < 2:
            raise SessionFolderError(f"{path}: {len(observations)} frame sets; a session has at least 2")
        first = next(iter(crops.values()), None)
        record = FilmRecord(
            truth=truth, crop_size=self.image_size, observations=observations, crop_sequences=list(crops),
            depth_unit_m=first.depth_unit_m if first else 1e-4,
            infrared_bit_depth=first.infrared_bit_depth if first else 8)
        record = msgspec.structs.replace(record, truth=_with_measured(truth, record))
        scores = score_film(list(crops.values()), list(crops), truth.key, self.scorer)
        kept = _Kept(recording_sha256=file_hash(path), record=record, scores=[
            _KeptScore(sequence=each.sequence, logit=each.logit, uncertainty=dict(each.uncertainty))
            for each in scores])
        write_whole(_kept_path(self.root, self.scorer.model_hash, truth.key), msgspec.json.encode(kept))
        return kept

    def close(self) -> None:
        self.detector.close()


def make_recording_reader(root: Path, model: Path, facts: ModelFacts) -> _RecordingReader:
    """What one process reads recordings with."""
    import cv2

    from detect.blazeface import BlazeFaceDetector
    from pipeline.inference_stage import InferenceSettings, load_scorer

    cv2.setNumThreads(1)  # processes share the cores already
    scorer = load_scorer(InferenceSettings(model=model, threads=1, expected_sha256=facts.info.model_hash))
    return _RecordingReader(root, scorer, BlazeFaceDetector(), facts.image_size)


def _kind(root: Path) -> str:
    try:
        index: Any = json.loads((root / INDEX).read_bytes())
        return str(index.get("kind", "films"))
    except (OSError, ValueError, AttributeError) as error:
        raise SimulationError(f"{root / INDEX} cannot be read ({error}); film or record the sessions first: mmdg "
                              "simulate films, mmdg simulate session, or mmdg record with an index "
                              "(docs/calibration.md)") from None


def _truth(row: Mapping[str, Any], simulated: bool, root: Path) -> Truth:
    known = {name: row[name] for name in Truth.__struct_fields__ if name in row} | {"simulated": simulated}
    try:
        return msgspec.convert({"frames": 0, "frame_rate": 0.0} | known, Truth)
    except msgspec.ValidationError as error:
        raise SessionFolderError(f"{root / INDEX}: session {row['key']!r}: {error}") from error


def _with_measured(truth: Truth, record: FilmRecord) -> Truth:
    """With frames and rate as recorded."""
    stamps = [seen.stamp_ns for seen in record.observations]
    return msgspec.structs.replace(truth, frames=len(stamps), frame_rate=1e9 / float(np.median(np.diff(stamps))))


def _presentation(truth: Truth) -> tuple[object, ...]:
    """What two films of one presentation have in common, and two presentations have not."""
    return (truth.key, truth.person, truth.instrument, truth.head, truth.distance_m, truth.serial, truth.place,
            truth.renderer)


def _kept_path(root: Path, model_hash: str, key: str) -> Path:
    return root / "scores" / f"judged-{model_hash[:16]}" / f"{key}.json"


def _read_kept(path: Path) -> _Kept | None:
    """None: not there, or of another version; it is made again."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (OSError, msgspec.MsgspecError):
        return None
