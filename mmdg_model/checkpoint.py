"""Checkpoints: one safetensors file that holds weights and everything needed to use them. Nothing in it can execute.

The header carries one metadata key, `mmdg_live`, with a JSON object: `format_version`, `model`, `inputs`, `purpose`,
`created_by`, `training`, `known_answer`, for other networks than MMDG `architecture`, and where it was measured
`operating_point`. One key, sorted JSON: the same content is the same file, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mmdg_model.architectures import Architecture, NetworkConfig, architecture_of, build, config_from_dict
from mmdg_model.inputs import InputSpecification
from mmdg_model.known_answer import KnownAnswer
from mmdg_model.operating_point import OperatingPoint, OperatingPointError
from mmdg_model.safetensors_header import BACKBONE_KEY, METADATA_KEY, PLUS_PLUS_KEY, header_metadata
from mmdg_model.scorer import Purpose
from mmdg_model.whole_file import write_whole

FORMAT_VERSION = 1

#: Larger files are refused unread: ViT-B/16 takes 0.35 GB in float32, and nothing the product runs comes near this.
LARGEST_FILE_BYTES = 4 * 2**30

_STORED_DTYPES = (torch.float32, torch.float16)
_KEYS = ("format_version", "model", "inputs", "purpose", "created_by", "training", "known_answer")
_KEYS_WITH_DEFAULT: dict[str, Any] = {"architecture": str(Architecture.MMDG), "operating_point": None}

#: Metadata keys of our other kinds of weight files (`weights/`), and what they are.
_OTHER_KINDS = {BACKBONE_KEY: "a backbone, from which training starts, and no liveness model",
                PLUS_PLUS_KEY: "released MMDG++ weights, which are no checkpoint of this network"}


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message quotes the file, the key, the value and the remedy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """A network at rest.

    Attributes:
        config, input_spec: what the weights fit and what they eat.
        purpose: what may be done with its scores.
        weights: state of `architectures.build(config)`, all float32 or all float16 (storage; computing is the scorer's
            choice).
        known_answer: logits that a loaded network must reproduce.
        created_by: program and version that wrote the file.
        training: provenance, free JSON (data sets, seed, epochs); empty for random weights.
        operating_point: what its scores were measured to mean; None where nobody has.
        hash: SHA-256 of the file in hexadecimal; empty before it is saved.
    """

    config: NetworkConfig
    input_spec: InputSpecification
    purpose: Purpose
    weights: dict[str, Tensor] = field(repr=False)
    known_answer: KnownAnswer
    created_by: str
    training: Mapping[str, Any] = field(default_factory=dict)
    operating_point: OperatingPoint | None = None
    hash: str = ""


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> str:
    """Writes the file whole or not at all, and returns its SHA-256.

    Raises:
        CheckpointError: weights that `load_checkpoint` would refuse.
    """
    _check_weights(checkpoint.weights, checkpoint.config, str(path))
    _check_sizes(checkpoint.config, checkpoint.input_spec, str(path))
    _check_measured_on(checkpoint.operating_point, checkpoint.purpose, str(path))
    about = {
        "format_version": FORMAT_VERSION,
        "model": checkpoint.config.to_dict(),
        "inputs": checkpoint.input_spec.to_dict(),
        "purpose": str(checkpoint.purpose),
        "created_by": checkpoint.created_by,
        "training": dict(checkpoint.training),
        "known_answer": {"formula": checkpoint.known_answer.formula, "logits": checkpoint.known_answer.logits},
    }
    if (architecture := architecture_of(checkpoint.config)) is not Architecture.MMDG:
        about["architecture"] = str(architecture)
    if checkpoint.operating_point is not None:
        about["operating_point"] = checkpoint.operating_point.to_dict()
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.weights.items()}
    blob = safetensors.torch.save(weights, metadata={METADATA_KEY: json.dumps(about, sort_keys=True, allow_nan=False)})
    write_whole(path, blob)
    return hashlib.sha256(blob).hexdigest()


def load_checkpoint(path: Path, *, expected_hash: str | None = None) -> Checkpoint:
    """Reads and checks a checkpoint. The bytes hashed are the bytes loaded.

    Args:
        path: the safetensors file.
        expected_hash: SHA-256 in hexadecimal that the file must have, from a configuration or a signed list.

    Raises:
        CheckpointError: unreadable, larger than `LARGEST_FILE_BYTES`, truncated, not safetensors, another hash, an
            unknown version or purpose, a configuration or weights that do not fit. Never a partial result.
    """
    blob = _read(path)
    file_hash = hashlib.sha256(blob).hexdigest()
    if expected_hash is not None and file_hash != expected_hash.strip().lower():
        raise CheckpointError(f"checkpoint {path}: SHA-256 is {file_hash}, expected {expected_hash}; this is another "
                              "or an altered file: restore the right one, or state this hash if the change is meant")
    try:
        weights = safetensors.torch.load(blob)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path}: not a whole safetensors file ({error}); it is truncated or of "
                              "another format: copy or export it again") from error
    about = _metadata(blob, str(path))
    config, input_spec, known_answer = _described(about, str(path))
    _check_sizes(config, input_spec, str(path))
    _check_weights(weights, config, str(path))
    purpose, point = _purpose(about["purpose"], str(path)), _operating_point(about["operating_point"], str(path))
    _check_measured_on(point, purpose, str(path))
    return Checkpoint(config=config, input_spec=input_spec, purpose=purpose, weights=weights, known_answer=known_answer,
                      created_by=about["created_by"], training=about["training"], operating_point=point,
                      hash=file_hash)


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file() or size > LARGEST_FILE_BYTES:
            raise CheckpointError(f"checkpoint {path}: cannot be read ({size} bytes, expected a regular file of at "
                                  f"most {LARGEST_FILE_BYTES}); give the path of a checkpoint file")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read ({error.strerror}); give the path of a checkpoint "
                              "file that this user may read") from error


def _metadata(blob: bytes, place: str) -> dict[str, Any]:
    metadata = header_metadata(blob)
    text = metadata.get(METADATA_KEY)
    if text is None and (kind := next((what for key, what in _OTHER_KINDS.items() if key in metadata), None)):
        raise CheckpointError(f"checkpoint {place}: {kind}; give a trained checkpoint")
    if text is None:
        raise CheckpointError(f"checkpoint {place}: no metadata key {METADATA_KEY!r}; these are bare weights: import "
                              "them with the weight importer first")
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"checkpoint {place}: metadata {METADATA_KEY!r} is not JSON ({error}); export it "
                              "again") from error
    if not isinstance(about, dict) or about.get("format_version") != FORMAT_VERSION:
        version = about.get("format_version") if isinstance(about, dict) else about
        raise CheckpointError(f"checkpoint {place}: format_version is {version!r}, this program reads "
                              f"{FORMAT_VERSION}; export it again with a matching version")
    if unknown := sorted(set(about) - {*_KEYS, *_KEYS_WITH_DEFAULT}):
        raise CheckpointError(f"checkpoint {place}: unknown metadata key {unknown[0]} = {about[unknown[0]]!r}; known "
                              f"keys: {', '.join([*_KEYS, *_KEYS_WITH_DEFAULT])}")
    if missing := [key for key in _KEYS if key not in about]:
        raise CheckpointError(f"checkpoint {place}: metadata key {missing[0]!r} is missing; export it again")
    for key in ("model", "inputs", "training", "known_answer"):
        if not isinstance(about[key], dict):
            raise CheckpointError(f"checkpoint {place}: metadata {key} is {about[key]!r}, expected an object; export "
                                  "it again")
    if not isinstance(about["created_by"], str):
        raise CheckpointError(f"checkpoint {place}: metadata created_by is {about['created_by']!r}, expected a text; "
                              "export it again")
    return _KEYS_WITH_DEFAULT | about


def _described(about: dict[str, Any], place: str) -> tuple[NetworkConfig, InputSpecification, KnownAnswer]:
    try:
        answer = about["known_answer"]
        return (config_from_dict(about["architecture"], about["model"]),
                InputSpecification.from_dict(about["inputs"]),
                KnownAnswer(formula=answer.get("formula"),
                            logits=tuple(tuple(row) for row in answer.get("logits", ()))))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"checkpoint {place}: {error}; export it again") from error


def _purpose(value: object, place: str) -> Purpose:
    if value not in list(Purpose):
        raise CheckpointError(f"checkpoint {place}: purpose is {value!r}, expected one of {', '.join(Purpose)}; a "
                              "checkpoint of unknown purpose may decide nothing: export it again")
    return Purpose(str(value))


def _operating_point(value: object, place: str) -> OperatingPoint | None:
    if value is None:
        return None
    try:
        return OperatingPoint.from_dict(value, place=f"checkpoint {place}: operating_point")
    except OperatingPointError as error:
        raise CheckpointError(f"{error}; measure it and export the checkpoint again") from error


def _check_measured_on(point: OperatingPoint | None, purpose: Purpose, place: str) -> None:
    if point is not None and purpose is Purpose.RELEASE and point.data != "real":
        raise CheckpointError(f"checkpoint {place}: purpose is release, operating_point.data is {point.data!r}; what "
                              "decides about real people is calibrated on real sessions: measure it there, or leave "
                              "it out")


def _check_sizes(config: NetworkConfig, input_spec: InputSpecification, place: str) -> None:
    if config.image_size != input_spec.image_size:
        raise CheckpointError(f"checkpoint {place}: model.image_size is {config.image_size}, inputs.image_size is "
                              f"{input_spec.image_size}; they must be equal: export it again")
    if config.absence is not input_spec.absence:
        raise CheckpointError(f"checkpoint {place}: model.absence is {config.absence}, inputs.absence is "
                              f"{input_spec.absence}; they must be equal: export it again")


def _check_weights(weights: Mapping[str, Tensor], config: NetworkConfig, place: str) -> None:
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in build(config).state_dict().items()}
    if missing := [name for name in expected if name not in weights]:
        raise CheckpointError(f"checkpoint {place}: weight {missing[0]!r} is missing, as are {len(missing) - 1} more; "
                              "the weights belong to another configuration: export them together")
    if unknown := sorted(set(weights) - set(expected)):
        raise CheckpointError(f"checkpoint {place}: weight {unknown[0]!r} is unknown, as are {len(unknown) - 1} more; "
                              "the weights belong to another configuration: export them together")
    stored_as = weights[next(iter(expected))].dtype
    for name, shape in expected.items():
        weight = weights[name]
        if tuple(weight.shape) != shape:
            raise CheckpointError(f"checkpoint {place}: weight {name!r} has shape {tuple(weight.shape)}, model needs "
                                  f"{shape}; export weights and configuration together")
        if weight.dtype not in _STORED_DTYPES or weight.dtype is not stored_as:
            raise CheckpointError(f"checkpoint {place}: weight {name!r} is {weight.dtype}, expected all float32 or "
                                  "all float16; export it again")
        if not bool(torch.isfinite(weight).all()):
            raise CheckpointError(f"checkpoint {place}: weight {name!r} holds NaN or infinity; its training diverged: "
                                  "use an earlier checkpoint")
