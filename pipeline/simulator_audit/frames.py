"""Every stored frame of a simulated tree as rows of numbers, with what the tree's records say of its making."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdg_model.scorer import Modality
from mmdg_model.training.decoding import FileTrouble, read_sample_levels
from mmdg_model.training.manifests import list_path, read_list, read_metadata
from mmdg_model.training.samples import BONA_FIDE, Domain, Sample, Split
from mmdg_model.training.simulated_tree import MARK, read_simulated_tree
from pipeline.simulator_audit.describing import Description, describe, file_features

Strings = NDArray[np.str_]


class AuditError(ValueError):
    """A tree cannot be audited; the message quotes the place and the remedy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """`n` frames, row by row.

    Attributes:
        domain, split: letters and lists. scene: of the simulator, `bona_fide` for live ones. live: the label.
        person: number of the person shown. recording: unique over the tree. index: of the frame in its recording.
        camera: serial. place: with the domain's letter. distance_m: of the session.
        probes: group of features -> `float32 [n, k]`, k by domain where the layout decides it, padded with NaN.
        cues, noise: `float32 [n, ...]`. planes: `uint8 [n, PLANES, PLANES, CHANNELS]`.
    """

    domain: Strings
    split: Strings
    scene: Strings
    live: NDArray[np.bool_]
    person: NDArray[np.int64]
    recording: Strings
    index: NDArray[np.int64]
    camera: Strings
    place: Strings
    distance_m: NDArray[np.float64]
    probes: Mapping[str, NDArray[np.float32]]
    cues: NDArray[np.float32]
    noise: NDArray[np.float32]
    planes: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.live)

    def taken(self, rows: NDArray[Any]) -> Frames:
        """The same of some rows (numbers or a mask)."""
        values: dict[str, Any] = {name: value[rows] for name, value in vars(self).items() if name != "probes"}
        values["probes"] = {name: group[rows] for name, group in self.probes.items()}
        return Frames(**values)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One recording as its record tells it: instants that were filmed, and those without a single found face."""

    key: str
    domain: str
    scene: str
    species: str
    person: int
    subject: str
    camera: str
    place: int
    instants: int
    missed: int

    @property
    def live(self) -> bool:
        return self.species == BONA_FIDE


@dataclass(frozen=True, kw_only=True, eq=False)
class AuditedTree:
    """A simulated tree, read.

    Attributes:
        physics: False for a tree of null attacks. specification_sha256, seed: as its mark has them.
        counts: (lines, live) by list. identities: persons by list.
    """

    root: Path
    seed: int
    size: str
    physics: bool
    specification_sha256: str
    counts: Mapping[tuple[str, str], tuple[int, int]]
    identities: Mapping[tuple[str, str], tuple[int, ...]]
    recordings: tuple[Recorded, ...]
    frames: Frames


def read_tree(root: Path, on_progress: Callable[[int, int], None] = lambda done, total: None) -> AuditedTree:
    """Reads every listed frame of a tree that `mmdg simulate benchmark` made.

    Raises:
        AuditError: no simulated tree, an unfinished one, or a file that cannot be read.
        ManifestError: the mark or a list is damaged.
    """
    tree = read_simulated_tree(root)
    if tree is None:
        raise AuditError(f"{root} bears no {MARK}; make a tree with `mmdg simulate benchmark`")
    mark: dict[str, Any] = json.loads((root / MARK).read_text(encoding="utf-8"))
    instants: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {}
    for path in sorted((root / "recordings").glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        for index, instant in enumerate(content["instants"]):
            if instant["names"]:
                instants[instant["names"][0]] = (path.stem, content, instant, index)
    lists = [(domain, split, list_path(root / "lists", domain, split)) for domain in Domain for split in Split]
    metadata = {name: each for table in sorted((root / "lists").glob("*-metadata.csv"))
                for name, each in read_metadata(table).items()}
    samples = [sample for domain, split, path in lists if path.exists()
               for sample in read_list(path, root, domain, split, metadata=metadata)]
    if not samples:
        raise AuditError(f"{root} has no list; finish it with the same `mmdg simulate benchmark`")
    metres_a_level = tree.inputs.depth_range_m / 254
    rows = []
    for done, sample in enumerate(samples):
        if sample.name not in instants:
            raise AuditError(f"{root}: {sample.name} of {sample.domain}-{sample.split}, line {sample.line}, is in no "
                             "record of `recordings`; the tree was not made whole by one program")
        on_progress(done, len(samples))
        rows.append(_row(sample, *instants[sample.name], float(mark["domains"][sample.domain]["face_scale"]),
                         metres_a_level))
    return AuditedTree(
        root=root, seed=tree.seed, size=str(mark.get("size")), physics=_has_physics(mark),
        specification_sha256=tree.specification_sha256,
        counts={(str(domain), str(split)): (each.lines, each.live) for (domain, split), each in tree.counts.items()},
        identities={(str(domain), str(split)): each for (domain, split), each in tree.identities.items()},
        recordings=tuple(_recorded(path) for path in sorted((root / "recordings").glob("*.json"))),
        frames=_stacked(rows))


def name_number(name: str, domain: Domain) -> float:
    """What a probe reads of a file's name: its digits as one number; of P, whose names are hashes, their count."""
    digits = "".join(each for each in Path(name).stem if each.isdigit())
    return float(digits) if digits and domain is not Domain.PADISI else float(len(digits))


def _has_physics(mark: Mapping[str, Any]) -> bool:
    """A mark that says nothing of it is of a tree with physics."""
    return mark.get("null_attacks", False) is not True


def _recorded(path: Path) -> Recorded:
    content = json.loads(path.read_text(encoding="utf-8"))
    return Recorded(key=path.stem, domain=path.stem.partition("-")[0], scene=content["scene"],
                    species=content["species"], person=content["person"], subject=str(content["subject"]),
                    camera=content["camera"], place=content["place"], instants=len(content["instants"]),
                    missed=sum(each["names"] is None for each in content["instants"]))


def _row(sample: Sample, key: str, record: Mapping[str, Any], instant: Mapping[str, Any], index: int,
         face_scale: float, metres_a_level: float) -> dict[str, Any]:
    levels = read_sample_levels(sample)
    planes = []
    for modality in (Modality.RGB, Modality.DEPTH, Modality.INFRARED):
        plane = levels[modality]
        if isinstance(plane, FileTrouble):
            raise AuditError(f"{plane}; render the tree anew")
        planes.append(plane)
    description: Description = describe(*planes, face_scale=face_scale, metres_a_level=metres_a_level)
    left, top, width, height, _ = instant["boxes"][0]
    quality = instant["quality"] or {}
    files = file_features(tuple(dict.fromkeys(sample.files.values())))
    described = {
        "file sizes": files[0::3], "JPEG tables": files[1::3] + files[2::3] * 1e4,
        "names": np.array([name_number(sample.name, sample.domain), index], np.float32),
        "box": np.array([left, top, width, height, width / height, quality.get("distance_m") or np.nan], np.float32),
        **description.probes}
    return {"domain": str(sample.domain), "split": str(sample.split), "live": sample.bona_fide,
            "scene": BONA_FIDE if sample.bona_fide else record["scene"], "person": record["person"], "recording": key,
            "index": index, "camera": record["camera"], "place": f"{sample.domain}{record['place']}",
            "distance_m": record["distance_m"], "probes": described, "cues": description.cues,
            "noise": description.noise, "planes": description.planes}


def _stacked(rows: list[dict[str, Any]]) -> Frames:
    probes = {}
    for name in rows[0]["probes"]:
        width = max(len(row["probes"][name]) for row in rows)
        table = np.full((len(rows), width), np.nan, np.float32)
        for number, row in enumerate(rows):
            table[number, :len(row["probes"][name])] = row["probes"][name]
        probes[name] = table
    whole = {name: np.array([row[name] for row in rows]) for name in rows[0] if name != "probes"}
    for name, column in (("camera", whole["camera"]), ("place", whole["place"])):
        kinds = np.unique(column)
        probes[name] = (column[:, None] == kinds).astype(np.float32)
    return Frames(probes=probes, **whole)
