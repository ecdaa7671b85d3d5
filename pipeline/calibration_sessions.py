"""Labelled sessions of a folder, scored with every subset of modalities: what score calibration is fitted to.

A folder holds films of `mmdg simulate films`, or recordings (`recordings/KEY.mcap` of `mmdg record` or
`mmdg simulate session`), and `index.json`:

    {"simulated": false, "kind": "recordings", "sessions": [
      {"key": "0001", "split": "val", "label": "attack", "species": "flat_print", "person": "p07"}, ...]}

Recordings go through the live camera step. Scores are kept session by session below `scores/`, by the model's hash, so
that a run that was killed goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from calibration.evidence_maps import ScoredSession
from calibration.operating_point_file import SUBSETS, ModalityName
from capture.camera import CameraDescription, CameraError, Pace
from detect.faces import Detector
from mmdg_model.scorer import CropPlanes, Modality, Scorer
from mmdg_model.whole_file import write_whole
from pipeline.simulated_sessions.film import camera_kind_of, film_frames, load_film
from pipeline.simulated_sessions.scoring import ModelFacts, without
from pipeline.simulated_sessions.studio import INDEX, film_path, recording_path
from pipeline.worker_pool import WorkerLostError, work_through

Subset = tuple[ModalityName, ...]


class CalibrationSessionsError(ValueError):
    """Sessions cannot be used for calibration; the message names the folder, the value and the remedy."""


class SessionLabel(msgspec.Struct, frozen=True, kw_only=True):
    """What calibration has to know of a session; an index may say more.

    Attributes:
        key: of the session, and name of its file. split: `val`. label: `bona_fide` or `attack`. species: of the
            instrument, or `bona_fide`. person: who is live or depicted.
    """

    key: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
    split: str
    label: Literal["bona_fide", "attack"]
    species: Annotated[str, Meta(min_length=1, max_length=64)]
    person: int | str


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    simulated: bool
    kind: Literal["films", "recordings"]
    sessions: Annotated[list[SessionLabel], Meta(min_length=1)]


@dataclass(frozen=True, kw_only=True)
class LabelledFolder:
    """A folder of sessions. sha256: of its index."""

    root: Path
    simulated: bool
    kind: Literal["films", "recordings"]
    labels: tuple[SessionLabel, ...]
    sha256: str


class SessionScores(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Scores of one session. by_subset: logits in order, by names of modalities joined with `+`."""

    camera_kind: str
    simulated: bool
    by_subset: dict[str, list[float]]


def read_labelled_folder(root: Path, splits: Sequence[str] = ("val",)) -> LabelledFolder:
    """The index of a folder, checked. splits: that its sessions may be of; `train` is never one.

    Raises:
        CalibrationSessionsError: no index, a session named twice, a file missing, a label that contradicts its species,
            or a session of another split: only those of `val` may be calibrated on.
    """
    path = root / INDEX
    try:
        blob = path.read_bytes()
        index = msgspec.json.decode(blob, type=_Index)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CalibrationSessionsError(f"{path}: {error}; expected a folder of mmdg simulate films or mmdg simulate "
                                       "session, or recordings with an index (docs/calibration.md)") from error
    seen: set[str] = set()
    for place, label in enumerate(index.sessions):
        where = f"{path}: sessions[{place}] {label.key!r}"
        if label.split not in splits and len(splits) > 1:
            raise CalibrationSessionsError(f"{where} is of split {label.split!r}, expected {' or '.join(splits)}: "
                                           "training sessions flatter the network; judge others")
        if label.split not in splits:
            raise CalibrationSessionsError(
                f"{where} is of split {label.split!r}: calibrate on validation sessions (split 'val') of people and "
                "instruments that are in no other split; test sessions are for judging alone, and training sessions "
                "flatter the network. Make some with mmdg simulate films OUT --split val")
        if (label.label == "bona_fide") != (label.species == "bona_fide"):
            raise CalibrationSessionsError(f"{where}: label {label.label!r} and species {label.species!r} contradict "
                                           "each other; correct the index")
        if label.key in seen:
            raise CalibrationSessionsError(f"{where} stands there twice; each session counts once")
        seen.add(label.key)
        if not _file_of(root, index.kind, label.key).is_file():
            raise CalibrationSessionsError(f"{where}: no file {_file_of(root, index.kind, label.key)}; complete the "
                                           "folder, or take the session out of the index")
    return LabelledFolder(root=root, simulated=index.simulated, kind=index.kind, labels=tuple(index.sessions),
                          sha256=hashlib.sha256(blob).hexdigest())


def score_folder(folder: LabelledFolder, model: Path, facts: ModelFacts, *, jobs: int = 1,
                 on_progress: Callable[[int, int], None] = lambda done, total: None,
                 ) -> dict[Subset, list[ScoredSession]]:
    """Every session with each subset of modalities; a subset that its camera lacks gives no logits.

    Raises:
        CalibrationSessionsError: a session that cannot be read, or that is not what the index says; a lost worker.
    """
    where = _scores_folder(folder, facts.info.model_hash)
    missing = [label.key for label in folder.labels if not (where / f"{label.key}.json").is_file()]
    done = len(folder.labels) - len(missing)
    on_progress(done, len(folder.labels))
    try:
        for _ in work_through(missing, make_scoring_worker, (folder, model, facts), jobs=jobs):
            done += 1
            on_progress(done, len(folder.labels))
    except WorkerLostError as error:
        raise CalibrationSessionsError(str(error)) from error
    found: dict[Subset, list[ScoredSession]] = {subset: [] for subset in SUBSETS}
    for label in folder.labels:
        scores = _read_scores(where / f"{label.key}.json")
        if scores.simulated != folder.simulated:
            raise CalibrationSessionsError(f"{folder.root}: the index says simulated {folder.simulated}, session "
                                           f"{label.key} says {scores.simulated}; never mix them, correct the index")
        for subset, sessions in found.items():
            sessions.append(ScoredSession(
                key=f"{folder.sha256[:8]}/{label.key}", camera_kind=scores.camera_kind, species=label.species,
                live=label.label == "bona_fide", person=str(label.person),
                logits=tuple(scores.by_subset.get("+".join(subset), ()))))
    return found


def score_subsets(crops: Sequence[CropPlanes], scorer: Scorer) -> dict[str, list[float]]:
    """Logits of a session's crops by subset, where every crop has the sensors of the subset.

    Raises:
        CalibrationSessionsError: the network used other modalities than it was shown, or gave no number.
    """
    found: dict[str, list[float]] = {}
    for subset in SUBSETS:
        if not crops or any(not set(subset) <= {modality.value for modality in crop.modalities} for crop in crops):
            continue
        withheld = [modality for modality in Modality if modality.value not in subset]
        scores = scorer.score([without(crop, withheld) for crop in crops])
        for score in scores:
            if {modality.value for modality in score.modalities} != set(subset) or not math.isfinite(score.logit):
                raise CalibrationSessionsError(
                    f"a frame shown as {'+'.join(subset)} was scored {score.logit!r} with "
                    f"{'+'.join(modality.value for modality in score.modalities)}; this model cannot be calibrated")
        found["+".join(subset)] = [score.logit for score in scores]
    return found


@dataclass
class _ScoringWorker:
    folder: LabelledFolder
    scorer: Scorer
    detector: Detector | None
    image_size: int

    def work(self, key: str) -> str:
        kind, simulated, crops = self._crops(key)
        scores = SessionScores(camera_kind=kind, simulated=simulated, by_subset=score_subsets(crops, self.scorer))
        write_whole(_scores_folder(self.folder, self.scorer.model_hash) / f"{key}.json", msgspec.json.encode(scores))
        return key

    def close(self) -> None:
        if self.detector is not None:
            self.detector.close()

    def _crops(self, key: str) -> tuple[str, bool, Sequence[CropPlanes]]:
        path = _file_of(self.folder.root, self.folder.kind, key)
        if self.folder.kind == "films":
            film = load_film(path)
            if film.record.crop_size != self.image_size:
                raise CalibrationSessionsError(
                    f"{path}: crops of {film.record.crop_size} pixels, the model takes {self.image_size}: film again "
                    f"with --crop-size {self.image_size} in a new folder")
            return camera_kind_of(film.record), film.record.truth.simulated, film.crops
        from capture.sources import make_camera

        assert self.detector is not None, "a worker for recordings has a detector"
        description: CameraDescription | None = None
        camera = make_camera(f"replay:{path}", pace=Pace.LOCKSTEP)
        try:
            description, _, crops = film_frames(camera, self.detector, crop_size=self.image_size)
        except CameraError as error:
            raise CalibrationSessionsError(f"{path}: {error}") from error
        return description.camera_kind, description.simulated, list(crops.values())


def make_scoring_worker(folder: LabelledFolder, model: Path, facts: ModelFacts) -> _ScoringWorker:
    """What one process scores with."""
    import cv2

    from pipeline.inference_stage import InferenceSettings, load_scorer

    cv2.setNumThreads(1)  # processes share the cores already
    detector: Detector | None = None
    if folder.kind == "recordings":
        from detect.blazeface import BlazeFaceDetector

        detector = BlazeFaceDetector()
    return _ScoringWorker(folder, load_scorer(InferenceSettings(
        model=model, threads=1, expected_sha256=facts.info.model_hash)), detector, facts.image_size)


def index_counts(folders: Sequence[LabelledFolder]) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Sessions by label and by species, sorted by name."""
    labels = [label for folder in folders for label in folder.labels]
    by_label = {name: sum(label.label == name for label in labels) for name in ("attack", "bona_fide")}
    by_species = {name: sum(label.species == name for label in labels)
                  for name in sorted({label.species for label in labels})}
    return by_label, by_species


def _file_of(root: Path, kind: str, key: str) -> Path:
    return film_path(root, key) if kind == "films" else recording_path(root, key)


def _scores_folder(folder: LabelledFolder, model_hash: str) -> Path:
    return folder.root / "scores" / f"subsets-{model_hash[:16]}"


def _read_scores(path: Path) -> SessionScores:
    try:
        scores = msgspec.convert(json.loads(path.read_text(encoding="utf-8")), SessionScores)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise CalibrationSessionsError(f"{path}: {error}; delete it, it is made again") from error
    if not all(math.isfinite(logit) for logits in scores.by_subset.values() for logit in logits):
        raise CalibrationSessionsError(f"{path}: a logit is no finite number; delete it, it is made again")
    return scores
