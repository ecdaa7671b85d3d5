"""Makes the simulated benchmark: four simulated domains in the data sets' layouts, through the live path.

A recording is the unit of work: its samples are written, then a record of it in `recordings/`, and only then it counts
as done. A run that was killed goes on where it was; lists are written when all their recordings are there. What decides
the pixels is hashed into `simulated.json` before the first of them is written, and no tree mixes two hashes.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from detect.faces import Detector
from detect.model_assets import find_face_model
from mmdg_model.inputs import InputSpecification
from mmdg_model.training.manifests import list_path
from mmdg_model.training.samples import PUBLIC_DOMAINS, Domain, Split
from mmdg_model.training.simulated_tree import MARK
from pipeline.simulated_trees.domains import DOMAINS, SimulationError, fingerprint, list_sizes
from pipeline.simulated_trees.files import alone_in, list_bytes, write_sample, write_whole
from pipeline.simulated_trees.plan import Recording, padisi_code, plan_list
from pipeline.worker_pool import WorkerLostError, work_through

#: Side of the stored crops of S, C, W and L, as WMCA's export has it; P's files are 320 x 256.
STORED_SIZE = 128
#: What a table of P is called, beside the lists.
PADISI_TABLE = "P-metadata.csv"
#: For the announcement only, from `python -m benchmarks.simulated_benchmark` on a shared two-core machine.
_SECONDS_A_RECORDING, _SECONDS_A_FRAME = 0.75, 0.16
_BYTES_A_TRIPLE, _BYTES_A_LOSSLESS_TRIPLE, _BYTES_A_CHANNEL_FILE = 10_000, 60_000, 240_000


@dataclass(frozen=True, kw_only=True)
class BenchmarkPlan:
    """Everything that is going to be rendered.

    Attributes:
        recordings: of each list, in its order. inputs: how crops become levels.
        physics: False for null attacks.
        specification_sha256: of all that decides the pixels.
    """

    seed: int
    size: str
    inputs: InputSpecification
    recordings: Mapping[tuple[Domain, Split], tuple[Recording, ...]]
    specification_sha256: str
    physics: bool = True

    @property
    def frames(self) -> int:
        """Samples, if every frame shows a face that is found."""
        return sum(each.frames for recordings in self.recordings.values() for each in recordings)

    @property
    def megabytes(self) -> float:
        """Expected size on disk."""
        scale = (self.inputs.image_size / STORED_SIZE) ** 2
        by_domain = defaultdict(lambda: _BYTES_A_TRIPLE * scale, {
            Domain.PADISI: _BYTES_A_CHANNEL_FILE, Domain.LIVE: _BYTES_A_LOSSLESS_TRIPLE * scale})
        return sum(each.frames * by_domain[domain] for (domain, _), recordings in self.recordings.items()
                   for each in recordings) / 1e6

    def minutes(self, jobs: int) -> float:
        """Expected time with so many undisturbed cores."""
        seconds = sum(map(len, self.recordings.values())) * _SECONDS_A_RECORDING + self.frames * _SECONDS_A_FRAME
        return seconds / jobs / 60


@dataclass
class BenchmarkOutcome:
    """What was made. `rendered`, `missed`: frames by scene, and those without a single found face among them."""

    lists: dict[str, dict[str, int]] = field(default_factory=dict)
    rendered: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    bytes: int = 0


def attack_scenes() -> tuple[str, ...]:
    """The scenes that the simulator has."""
    from capture.simulated.catalogue import SCENES

    return SCENES


def plan_benchmark(size: str, *, seed: int = 0, image_size: int = STORED_SIZE,
                   domains: Collection[Domain] = PUBLIC_DOMAINS, scenes: Collection[str] | None = None,
                   physics: bool = True, frames: int | None = None) -> BenchmarkPlan:
    """What `make_benchmark` is going to render.

    Args:
        size: `tiny`, `small`, `medium`, `large`, or a number of samples over the four data sets' twelve lists.
        seed: of everything. image_size: side of the stored crops of S, C, W and L.
        domains: which to make; one can be added to a tree later.
        scenes: that may be rendered; by default all that the simulator has.
        physics: False makes every attack a null attack: what then still tells it from bona fide is the machinery's.
        frames: of each recording at most; None for the domain's own number. With fewer, the same number of samples is
            of more recordings, persons and instruments.

    Raises:
        SimulationError: an impossible size, seed or number of frames, or too few scenes. SpecificationError: an
            impossible image size.
    """
    scenes = attack_scenes() if scenes is None else scenes
    inputs = InputSpecification(image_size=image_size)
    sizes = list_sizes(size)
    return BenchmarkPlan(
        seed=seed, size=size, inputs=inputs,
        recordings={(domain, split): plan_list(domain, split, sizes[domain, split], seed=seed, scenes=scenes,
                                               physics=physics, frames=frames)
                    for domain in Domain for split in Split if domain in domains},
        specification_sha256=fingerprint(seed=seed, size=size, inputs=inputs.to_dict(), scenes=sorted(scenes),
                                         physics=physics, program=program(),
                                         **({} if frames is None else {"frames": frames})), physics=physics)


def program() -> str:
    """Name and version of this program."""
    try:
        return f"mmdg-live {importlib.metadata.version('mmdg-live')}"
    except importlib.metadata.PackageNotFoundError:
        return "mmdg-live, not installed"


def make_benchmark(root: Path, plan: BenchmarkPlan, *, jobs: int = 1,
                   on_progress: Callable[[int, int], None] = lambda done, total: None) -> BenchmarkOutcome:
    """Renders what is missing of the plan below `root`, then writes lists and `simulated.json`.

    Args:
        root: data root of the tree. jobs: processes; 1 renders in this one.
        on_progress: called with recordings done and recordings in all.

    Raises:
        SimulationError: `root` holds something else, another run is at work there, or a worker process was lost (run
            it again: it goes on).
        DetectorError: there is no face detector. CameraError: the simulator cannot render.
    """
    _mark(root, plan, {}, {}, {})
    folder = root / "recordings"
    folder.mkdir(exist_ok=True)
    with alone_in(folder, root):
        return _make(root, plan, jobs, on_progress)


def _make(root: Path, plan: BenchmarkPlan, jobs: int, on_progress: Callable[[int, int], None]) -> BenchmarkOutcome:
    everything = [each for recordings in plan.recordings.values() for each in recordings]
    missing = [each for each in everything if not _record_path(root, each.key).exists()]
    done = len(everything) - len(missing)
    on_progress(done, len(everything))
    for _ in _film_all(root, missing, plan.inputs, jobs):
        done += 1
        on_progress(done, len(everything))
    return _finish(root, plan)


def _record_path(root: Path, key: str) -> Path:
    return root / "recordings" / f"{key}.json"


def _mark(root: Path, plan: BenchmarkPlan, counts: dict[str, Any], identities: dict[str, Any],
          report: dict[str, Any]) -> None:
    """Writes `simulated.json`, keeping what an earlier run of the same specification has finished."""
    path = root / MARK
    before: dict[str, Any] = {}
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            other = before["specification_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SimulationError(f"{path} cannot be read ({error}); name a new folder") from None
        if other != plan.specification_sha256:
            raise SimulationError(
                f"{root} holds a simulated tree of another specification ({before.get('program')}, seed "
                f"{before.get('seed')}, size {before.get('size')}); name a new folder, or ask for the same again")
    elif root.exists() and any(root.iterdir()):
        raise SimulationError(f"{root} is not empty and bears no {MARK}; name a new folder, so that simulated and "
                              "other data never mix")
    content = {
        "simulated": True, "null_attacks": not plan.physics, "program": program(), "seed": plan.seed, "size": plan.size,
        "specification_sha256": plan.specification_sha256, "inputs": plan.inputs.to_dict(),
        "counts": {**before.get("counts", {}), **counts}, "identities": {**before.get("identities", {}), **identities},
        "domains": {str(domain): asdict(each) for domain, each in DOMAINS.items()},
        "non_response": {**before.get("non_response", {}), **report.get("non_response", {})},
        "species": {**before.get("species", {}), **report.get("species", {})}}
    write_whole(path, json.dumps(content, indent=1).encode())


@dataclass
class _Worker:
    """What one process films with."""

    root: Path
    inputs: InputSpecification
    detector: Detector

    def work(self, recording: Recording) -> str:
        """Writes the recording's samples, then the record that they are there."""
        from pipeline.simulated_trees.presentation import record

        instants, num_bytes = [], 0
        for each in record(recording, self.detector, self.inputs):
            observation = each.observation
            names = recording.names(each.index) if each.levels is not None else None
            if each.levels is not None and names is not None:
                num_bytes += write_sample(self.root, names, each.levels, DOMAINS[recording.domain].jpeg_quality)
            instants.append({
                "names": names, "conditions": observation.conditions,
                "boxes": [[face.x, face.y, face.width, face.height, face.score] for face in observation.faces],
                "quality": None if observation.quality is None else {
                    "distance_m": observation.quality.distance_m, "depth_fill": observation.quality.depth_fill,
                    "yaw_deg": observation.quality.yaw_deg, "pitch_deg": observation.quality.pitch_deg}})
        session = recording.session
        content = {"simulated": True, "scene": recording.scene, "species": recording.species,
                   "person": recording.person, "subject": recording.subject, "camera": session.camera.serial,
                   "place": session.place, "distance_m": session.distance_m, "bytes": num_bytes, "instants": instants}
        write_whole(_record_path(self.root, recording.key), json.dumps(content).encode())
        return recording.key

    def close(self) -> None:
        """Ends the detector."""
        self.detector.close()


def _make_worker(root: Path, inputs: InputSpecification) -> _Worker:
    import cv2

    from detect.blazeface import BlazeFaceDetector

    cv2.setNumThreads(1)  # processes share the cores already
    return _Worker(root, inputs, BlazeFaceDetector())


def _film_all(root: Path, recordings: Sequence[Recording], inputs: InputSpecification, jobs: int) -> Iterator[str]:
    """Keys of the recordings as they are done."""
    if recordings and jobs > 1:
        find_face_model()  # says here, once, what is missing, instead of in every worker
    try:
        yield from work_through(recordings, _make_worker, (root, inputs), jobs=jobs)
    except WorkerLostError as error:
        raise SimulationError(str(error)) from error


def _finish(root: Path, plan: BenchmarkPlan) -> BenchmarkOutcome:
    """Lists, P's table and the mark, from the records."""
    outcome = BenchmarkOutcome()
    identities: dict[str, dict[str, list[int]]] = defaultdict(dict)
    missed_of: dict[str, Any] = {}
    shown: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    padisi_rows = ["trial_id,ground_truth,participant_id"]
    for (domain, split), recordings in plan.recordings.items():
        samples: list[tuple[Sequence[str], bool]] = []
        rendered, missed = Counter[str](), Counter[str]()
        for recording in recordings:
            content = json.loads(_record_path(root, recording.key).read_text(encoding="utf-8"))
            shown[domain][recording.species].add(recording.scene)
            outcome.bytes += content["bytes"]
            for instant in content["instants"]:
                rendered[recording.species] += 1
                outcome.rendered[recording.scene] += 1
                if instant["names"] is None:
                    missed[recording.species] += 1
                    outcome.missed[recording.scene] += 1
                    continue
                samples.append((instant["names"], recording.bona_fide))
                if domain is Domain.PADISI:
                    padisi_rows.append(f"{instant['names'][0].removesuffix('.npz')},{padisi_code(recording.species)},"
                                       f"{recording.subject}")
        if not any(label for _, label in samples) or all(label for _, label in samples):
            raise SimulationError(f"{domain}-{split}: the face detector left one label without a sample; the list "
                                  "cannot be used")
        write_whole(list_path(root / "lists", domain, split), list_bytes(domain, samples))
        live = sum(label for _, label in samples)
        outcome.lists[f"{domain}-{split}"] = {"lines": len(samples), "live": live, "spoof": len(samples) - live,
                                              "duplicates": 0}
        identities[domain][split] = sorted({recording.person for recording in recordings})
        missed_of[f"{domain}-{split}"] = {species: {"frames": rendered[species], "missed": missed[species]}
                                          for species in rendered}
    if any(domain is Domain.PADISI for domain, _ in plan.recordings):
        write_whole(root / "lists" / PADISI_TABLE, ("\n".join(padisi_rows) + "\n").encode())
    _mark(root, plan, outcome.lists, identities, {"non_response": missed_of, "species": {
        domain: {species: sorted(scenes) for species, scenes in of_domain.items()}
        for domain, of_domain in shown.items()}})
    return outcome
