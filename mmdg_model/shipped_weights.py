"""The weights that come with the program: a checkpoint, its manifest and its model card in `shipped/`. Needs no torch.

They are trained on simulated data only, their purpose says so, and decisions refuse them on a real camera. They run
where no checkpoint is named. The manifest says how they were made; it is checked against the file's bytes.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import Purpose
from mmdg_model.whole_file import write_whole

SHIPPED_DIRECTORY = Path(__file__).parent / "shipped"
WEIGHTS_NAME = "default.safetensors"
MANIFEST_NAME = "default.json"
CARD_NAME = "MODEL_CARD.md"
#: Of the weights file: a repository is cloned by people who never look at it.
LARGEST_BYTES = 16 * 10**6

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ShippedWeightsError(ValueError):
    """The shipped weights are incomplete or altered; the message names the file and the remedy."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the shipped weights were made.

    Attributes:
        sha256, bytes: of the weights file. purpose: as in the file.
        run, method, protocol, sources, seed, epoch: the training run, by the hash of its configuration, and its epoch.
        start_sha256: of the checkpoint of the first stage that the run went on from; None where there was none.
        recipe_sha256: of the recipe as it stood when they were shipped. run_config_sha256: of the run's `run.json`.
        data_fingerprint: of the lists and files it was trained on. simulated: all of them were.
        specification_sha256: of the difficulty specification that the simulator was held to; None where none was named.
        trained_by, made_by: program and version that trained, and that wrote the file.
        float16_deviation: largest difference of the known-answer logits between the float32 weights that were trained
            and the float16 weights that are stored, relative to the largest logit or 1.
        operating_point: as in the file, None before calibration. evaluation_sha256: of the figures in the model card.
    """

    format_version: int
    sha256: Sha256
    bytes: Annotated[int, Meta(gt=0, le=LARGEST_BYTES)]
    purpose: Purpose
    run: str
    method: str
    protocol: str
    sources: tuple[str, ...]
    seed: int
    epoch: int
    start_sha256: Sha256 | None = None
    recipe_sha256: Sha256
    run_config_sha256: Sha256
    data_fingerprint: str
    simulated: bool
    specification_sha256: Sha256 | None
    trained_by: str
    made_by: str
    float16_deviation: float
    operating_point: OperatingPoint | None
    evaluation_sha256: Sha256 | None


FORMAT_VERSION = 1


def shipped_checkpoint(directory: Path = SHIPPED_DIRECTORY) -> tuple[Path, str] | None:
    """Path of the shipped weights and the SHA-256 that they must have; None where none are shipped.

    Raises:
        ShippedWeightsError: as `read_manifest`, or the weights are not beside it.
    """
    if not (directory / MANIFEST_NAME).exists():
        return None
    manifest = read_manifest(directory)
    path = directory / WEIGHTS_NAME
    if not path.is_file():
        raise ShippedWeightsError(f"{path} is missing though {MANIFEST_NAME} names it; install the program again, or "
                                  "name a checkpoint with --model")
    return path, manifest.sha256


def verify(directory: Path = SHIPPED_DIRECTORY) -> Manifest:
    """The manifest, after comparing it with the bytes of the weights.

    Raises:
        ShippedWeightsError: none are shipped, or the file is another one.
    """
    if (found := shipped_checkpoint(directory)) is None:
        raise ShippedWeightsError(f"no weights are shipped in {directory}; make train-default makes them")
    blob = found[0].read_bytes()
    actual = hashlib.sha256(blob).hexdigest()
    manifest = read_manifest(directory)
    if (actual, len(blob)) != (manifest.sha256, manifest.bytes):
        raise ShippedWeightsError(f"{found[0]}: {len(blob)} bytes with SHA-256 {actual}, {MANIFEST_NAME} says "
                                  f"{manifest.bytes} with {manifest.sha256}; install the program again")
    return manifest


def read_manifest(directory: Path = SHIPPED_DIRECTORY) -> Manifest:
    """Raises `ShippedWeightsError` for a file that is no manifest of this version."""
    path = directory / MANIFEST_NAME
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, ValueError) as error:
        raise ShippedWeightsError(f"{path}: no manifest of shipped weights ({error}); install the program again"
                                  ) from error
    if manifest.format_version != FORMAT_VERSION:
        raise ShippedWeightsError(f"{path}: format_version is {manifest.format_version}, this program reads "
                                  f"{FORMAT_VERSION}; install matching versions of both")
    return manifest


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Writes it whole or not at all."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    write_whole(directory / MANIFEST_NAME, text + b"\n")
