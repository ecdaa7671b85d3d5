"""Scores of filmed sessions by one network, as a table on disk: made once, read as often as one likes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import CropPlanes, Modality, Scorer
from mmdg_model.whole_file import write_whole
from pipeline.simulated_sessions.film import FilmRecord, load_film
from pipeline.simulated_sessions.presentation import Truth
from pipeline.simulated_sessions.studio import film_path
from pipeline.simulated_trees.domains import SimulationError
from pipeline.verdict import ModelInfo
from pipeline.worker_pool import WorkerLostError, work_through

#: Columns of a score table: one row a scored frame. `parameter`, `value`: of a sweep, else empty.
COLUMNS = ("parameter", "value", "session", "split", "label", "species", "person", "skin_tone", "hair", "spectacles",
           "distance_m", "sequence", "stamp_ms", "logit", "uncertainty_rgb", "uncertainty_depth",
           "uncertainty_infrared")


@dataclass(frozen=True, kw_only=True)
class FrameScore:
    """What the network says of one frame of a session. `uncertainty`: by the modalities that it used."""

    session: str
    sequence: int
    logit: float
    uncertainty: Mapping[Modality, float]


def score_film(crops: Sequence[CropPlanes], sequences: Sequence[int], session: str, scorer: Scorer,
               withheld: Sequence[Modality] = ()) -> list[FrameScore]:
    """Scores of one film's crops. `withheld`: modalities that the network is not shown (never RGB)."""
    shown = [without(crop, withheld) for crop in crops]
    return [FrameScore(session=session, sequence=sequence, logit=score.logit, uncertainty=dict(score.uncertainty))
            for sequence, score in zip(sequences, scorer.score(shown) if shown else [], strict=True)]


def without(crop: CropPlanes, withheld: Sequence[Modality]) -> CropPlanes:
    """The crop as of a camera that lacks these sensors.

    Raises:
        SimulationError: RGB withheld.
    """
    if Modality.RGB in withheld:
        raise SimulationError("rgb cannot be withheld: the face is found there and the network always reads it")
    if Modality.DEPTH in withheld:
        crop = replace(crop, depth=None, depth_valid=None)
    if Modality.INFRARED in withheld:
        crop = replace(crop, infrared=None, infrared_valid=None)
    return crop


@dataclass
class _ScoringWorker:
    root: Path
    scorer: Scorer
    withheld: tuple[Modality, ...]

    def work(self, key: str) -> list[FrameScore]:
        film = load_film(film_path(self.root, key))
        return score_film(film.crops, film.record.crop_sequences, key, self.scorer, self.withheld)

    def close(self) -> None:
        """Nothing is held."""


def make_scoring_worker(root: Path, model: Path, threads: int, withheld: tuple[Modality, ...]) -> _ScoringWorker:
    """What one process scores with."""
    from pipeline.inference_stage import InferenceSettings, load_scorer

    return _ScoringWorker(root, load_scorer(InferenceSettings(model=model, threads=threads)), withheld)


@dataclass(frozen=True)
class ModelFacts:
    """The checkpoint that scores. `image_size`: side of the crops that it takes."""

    info: ModelInfo
    image_size: int

    @property
    def operating_point(self) -> OperatingPoint | None:
        """The checkpoint's own, None without one."""
        return self.info.operating_point


def model_facts(model: Path) -> ModelFacts:
    """Loads and tests the checkpoint once, here, so that it is refused before any process starts.

    Raises:
        SimulationError: there is none, or it cannot be used.
    """
    from mmdg_model.backends import BackendError
    from mmdg_model.backends.exported_model import ExportedModelError
    from mmdg_model.checkpoint import CheckpointError
    from mmdg_model.scorer import KnownAnswerError
    from mmdg_model.stored_inputs import stored_image_size
    from pipeline.inference_stage import InferenceSettings, load_scorer

    try:
        scorer = load_scorer(InferenceSettings(model=model, threads=1))
    except (BackendError, CheckpointError, ExportedModelError, KnownAnswerError) as error:
        raise SimulationError(str(error)) from error
    return ModelFacts(ModelInfo(model_hash=scorer.model_hash, purpose=scorer.purpose,
                                operating_point=scorer.operating_point), stored_image_size(model))


def score_sessions(root: Path, records: Sequence[FilmRecord], model: Path, facts: ModelFacts, *, jobs: int = 1,
                   withheld: tuple[Modality, ...] = (),
                   on_progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, list[FrameScore]]:
    """Scores of each session by its key. What is in the table of the same checkpoint is not scored again.

    The table lies in `scores/` below `root`, named by the checkpoint's hash.

    Raises:
        SimulationError: crops of another size than the network takes, or a worker process was lost.
    """
    wrong = next((record for record in records if record.crop_size != facts.image_size), None)
    if wrong is not None:
        raise SimulationError(f"films below {root} hold crops of {wrong.crop_size} pixels, {model} takes "
                              f"{facts.image_size}: film again with --crop-size {facts.image_size} in a new folder")
    path = score_table_path(root, facts.info.model_hash, withheld)
    found = read_score_table(path) if path.exists() else {}
    missing = [record.truth.key for record in records
               if record.truth.key not in found and record.crop_sequences]
    done = len(records) - len(missing)
    on_progress(done, len(records))
    try:
        for scores in work_through(missing, make_scoring_worker, (root, model, 1, withheld), jobs=jobs):
            found[scores[0].session] = scores
            done += 1
            on_progress(done, len(records))
    except WorkerLostError as error:
        raise SimulationError(str(error)) from error
    if missing:
        everything = {record.truth.key: record for record in records}
        kept = {key: scores for key, scores in found.items() if key in everything}
        write_whole(path, score_table(kept, everything).encode())
    return {record.truth.key: found.get(record.truth.key, []) for record in records}


def score_table_path(root: Path, model_hash: str, withheld: Sequence[Modality] = ()) -> Path:
    """Where the scores of one checkpoint lie."""
    name = "-".join([model_hash[:16], *(f"without_{modality.value}" for modality in withheld)])
    return root / "scores" / f"{name}.csv"


def score_table(scores: Mapping[str, Sequence[FrameScore]], records: Mapping[str, FilmRecord], parameter: str = "",
                value: str = "") -> str:
    """The scores as CSV text under `COLUMNS`, sessions and frames in order. Numbers read back equal."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if not parameter:
        writer.writerow(COLUMNS)
    for key in sorted(scores):
        truth: Truth = records[key].truth
        stamps = {observation.sequence: observation.stamp_ns for observation in records[key].observations}
        for score in scores[key]:
            uncertainty = [repr(score.uncertainty[modality]) if modality in score.uncertainty else ""
                           for modality in Modality]
            writer.writerow((parameter, value, key, truth.split, truth.label, truth.species, truth.person,
                             truth.skin_tone, truth.hair, _yes_or_no(truth.spectacles), truth.distance_m,
                             score.sequence, round(stamps[score.sequence] / 1e6, 3), repr(score.logit), *uncertainty))
    return stream.getvalue()


def _yes_or_no(value: bool | None) -> str:
    return "" if value is None else str(int(value))


def read_score_table(path: Path) -> dict[str, list[FrameScore]]:
    """Scores of a table by session.

    Raises:
        SimulationError: not a score table.
    """
    found: dict[str, list[FrameScore]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                uncertainty = {modality: float(row[f"uncertainty_{modality.value}"]) for modality in Modality
                               if row[f"uncertainty_{modality.value}"]}
                found.setdefault(row["session"], []).append(FrameScore(
                    session=row["session"], sequence=int(row["sequence"]), logit=float(row["logit"]),
                    uncertainty=uncertainty))
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise SimulationError(f"score table {path}: {type(error).__name__} {error}; delete it, it is made again"
                              ) from error
    return found
