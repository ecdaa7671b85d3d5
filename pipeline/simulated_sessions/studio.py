"""Films and recordings of planned sessions below a folder: parallel, resumable, never mixed with other data."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from detect.faces import Detector
from detect.model_assets import find_face_model
from mmdg_model.training.simulated_tree import MARK
from pipeline.simulated_sessions.film import FilmRecord, film_session, load_record, save_film
from pipeline.simulated_sessions.plan import PlannedSession
from pipeline.simulated_sessions.presentation import CameraFactory, Truth, session_camera, truth_of
from pipeline.simulated_trees.domains import SimulationError
from pipeline.simulated_trees.files import alone_in, write_whole
from pipeline.worker_pool import WorkerLostError, work_through

#: Side of the crops: what the networks of preset `micro` take.
CROP_SIZE = 112
INDEX = "index.json"
#: For the announcement only: processor time and sizes of twelve films on a shared two-core machine.
_SECONDS_A_SESSION, _SECONDS_A_FRAME, _BYTES_A_CROP, _BYTES_A_SET = 0.4, 0.16, 45_000, 800_000
_FILMS, _RECORDINGS = "films", "recordings"


@dataclass(frozen=True)
class Announcement:
    """What a run is going to take, roughly."""

    sessions: int
    megabytes: float
    minutes: float


@dataclass
class StudioOutcome:
    """What is in the folder. `frames`, `missed`: by species, and those that gave no crop among them."""

    sessions: int = 0
    bytes: int = 0
    frames: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)


def announce(planned: Sequence[PlannedSession], jobs: int, *, recordings: bool = False) -> Announcement:
    """Sessions, disk and time to expect with so many undisturbed cores."""
    frames = sum(each.options.frames for each in planned)
    seconds = len(planned) * _SECONDS_A_SESSION + frames * _SECONDS_A_FRAME
    return Announcement(len(planned), frames * (_BYTES_A_SET if recordings else _BYTES_A_CROP) / 1e6,
                        seconds / jobs / 60)


def film_path(root: Path, key: str) -> Path:
    """Where the film of a session lies."""
    return root / _FILMS / f"{key}.npz"


def recording_path(root: Path, key: str) -> Path:
    """Where the recording of a session lies."""
    return root / _RECORDINGS / f"{key}.mcap"


def make_films(root: Path, planned: Sequence[PlannedSession], *, jobs: int = 1, crop_size: int = CROP_SIZE,
               factory: str = f"{session_camera.__module__}:{session_camera.__name__}",
               on_progress: Callable[[int, int], None] = lambda done, total: None) -> StudioOutcome:
    """Films what is missing of the plan below `root`, then writes `index.json`. Run it again to go on.

    Args:
        planned: with equal options; a later run may plan more sessions of the same options.
        jobs: processes; 1 films in this one. crop_size: side of the stored crops.
        factory: `module:name` of a `CameraFactory`; another renderer is held out this way.
        on_progress: called with sessions done and sessions in all.

    Raises:
        SimulationError: `root` holds something else, another run is at work there, or a worker process was lost.
        DetectorError: there is no face detector. CameraError: the camera cannot render.
    """
    camera_factory(factory)
    with _claimed(root, planned, kind=_FILMS, crop_size=crop_size, factory=factory):
        missing = [each for each in planned if not film_path(root, each.key).exists()]
        if missing:
            find_face_model()  # says here, once, what is missing, instead of in every worker
        _work(missing, len(planned), make_film_worker, (root, crop_size, factory), jobs, on_progress)
        records = [load_record(film_path(root, each.key)) for each in planned]
        _write_index(root, _FILMS, [record.truth for record in records])
        return _outcome(root, records)


def record_sessions(root: Path, planned: Sequence[PlannedSession], *, jobs: int = 1,
                    factory: str = f"{session_camera.__module__}:{session_camera.__name__}",
                    on_progress: Callable[[int, int], None] = lambda done, total: None) -> StudioOutcome:
    """Records what is missing of the plan as session files of `mmdg record`, then writes `index.json`.

    Arguments and errors as `make_films`; no detector is needed. Every file says that it is simulated.
    """
    camera_factory(factory)
    with _claimed(root, planned, kind=_RECORDINGS, factory=factory):
        missing = [each for each in planned if not recording_path(root, each.key).exists()]
        _work(missing, len(planned), make_recording_worker, (root, factory), jobs, on_progress)
        _write_index(root, _RECORDINGS, [truth_of(each, factory.partition(":")[0]) for each in planned])
    outcome = StudioOutcome(sessions=len(planned), bytes=sum(
        recording_path(root, each.key).stat().st_size for each in planned))
    for each in planned:
        outcome.frames[each.recording.species] += each.options.frames
    return outcome


def camera_factory(name: str) -> CameraFactory:
    """The factory of that `module:name`.

    Raises:
        SimulationError: it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    try:
        factory: CameraFactory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SimulationError(f"camera factory {name!r}: {error}; expected module:function") from None
    return factory


def read_index(root: Path) -> list[Truth]:
    """Truths of the sessions below a folder.

    Raises:
        SimulationError: there is no index, or it cannot be read.
    """
    try:
        return msgspec.convert(json.loads((root / INDEX).read_text(encoding="utf-8"))["sessions"], list[Truth])
    except (OSError, ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise SimulationError(f"{root / INDEX} cannot be read ({error}); film or record the sessions first: "
                              "mmdg simulate films, mmdg simulate session") from None


def sessions_hash(root: Path) -> str:
    """SHA-256 of which sessions these are and of how they were made: of the mark's specification and the index."""
    digest = hashlib.sha256(json.loads((root / MARK).read_text(encoding="utf-8"))["specification_sha256"].encode())
    digest.update(msgspec.json.encode(sorted(truth.key for truth in read_index(root))))
    return digest.hexdigest()


@dataclass
class _FilmWorker:
    root: Path
    crop_size: int
    factory: CameraFactory
    renderer: str
    detector: Detector

    def work(self, planned: PlannedSession) -> str:
        film = film_session(self.factory(planned), truth_of(planned, self.renderer), self.detector,
                            crop_size=self.crop_size)
        save_film(film_path(self.root, planned.key), film)
        return planned.key

    def close(self) -> None:
        self.detector.close()


def make_film_worker(root: Path, crop_size: int, factory: str) -> _FilmWorker:
    """What one process films with."""
    import cv2

    from detect.blazeface import BlazeFaceDetector

    cv2.setNumThreads(1)  # processes share the cores already
    return _FilmWorker(root, crop_size, camera_factory(factory), factory.partition(":")[0], BlazeFaceDetector())


@dataclass
class _RecordingWorker:
    root: Path
    factory: CameraFactory

    def work(self, planned: PlannedSession) -> str:
        from pipeline.commands.record import record_camera

        path = recording_path(self.root, planned.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + ".partial").unlink(missing_ok=True)  # of a run that was killed: we are alone here
        summary = record_camera(self.factory(planned), path, frames=planned.options.frames,
                                label=planned.recording.species, notes=f"simulated session {planned.key}")
        if summary.error or summary.sets != planned.options.frames:
            path.unlink(missing_ok=True)
            raise SimulationError(f"{path}: {summary.sets} of {planned.options.frames} sets recorded; "
                                  f"{summary.error or summary.ended}")
        return planned.key

    def close(self) -> None:
        """Nothing is held."""


def make_recording_worker(root: Path, factory: str) -> _RecordingWorker:
    """What one process records with."""
    import cv2

    cv2.setNumThreads(1)
    return _RecordingWorker(root, camera_factory(factory))


def _work(missing: Sequence[PlannedSession], total: int, make_worker: Callable[..., Any], arguments: tuple[Any, ...],
          jobs: int, on_progress: Callable[[int, int], None]) -> None:
    done = total - len(missing)
    on_progress(done, total)
    try:
        for _ in work_through(missing, make_worker, arguments, jobs=jobs):
            done += 1
            on_progress(done, total)
    except WorkerLostError as error:
        raise SimulationError(str(error)) from error


@contextmanager
def _claimed(root: Path, planned: Sequence[PlannedSession], **what: object) -> Iterator[None]:
    """Marks the folder as of this specification and locks it while it is worked on."""
    if len({each.options for each in planned}) != 1 or len({each.key for each in planned}) != len(planned):
        raise SimulationError(f"{len(planned)} sessions of {len({each.options for each in planned})} sets of options; "
                              "expected one set, and each session once")
    options = planned[0].options
    specification = options.specification(**what)
    path = root / MARK
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["specification_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SimulationError(f"{path} cannot be read ({error}); name a new folder") from None
        if found != specification:
            raise SimulationError(f"{root} holds simulated sessions of another specification; name a new folder, or "
                                  "ask for the same again")
    elif root.exists() and any(root.iterdir()):
        raise SimulationError(f"{root} is not empty and bears no {MARK}; name a new folder, so that simulated and "
                              "other data never mix")
    write_whole(path, json.dumps({"simulated": True, "specification_sha256": specification,
                                  "options": asdict(options), **what}, indent=1).encode())
    with alone_in(root, root):
        yield


def _write_index(root: Path, kind: str, truths: Sequence[Truth]) -> None:
    """The index of all sessions of the folder: those of earlier plans, too."""
    known: dict[str, Truth] = {}
    if (root / INDEX).exists():
        known = {truth.key: truth for truth in read_index(root)}
    known |= {truth.key: truth for truth in truths}
    rows = [msgspec.to_builtins(known[key]) for key in sorted(known)]
    write_whole(root / INDEX, json.dumps({"simulated": True, "kind": kind, "sessions": rows}, indent=1).encode())


def _outcome(root: Path, records: Sequence[FilmRecord]) -> StudioOutcome:
    outcome = StudioOutcome(sessions=len(records))
    for record in records:
        species = record.truth.species
        outcome.bytes += film_path(root, record.truth.key).stat().st_size
        outcome.frames[species] += len(record.observations)
        outcome.missed[species] += len(record.observations) - len(record.crop_sequences)
    return outcome
