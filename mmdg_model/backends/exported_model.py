"""An exported model at rest: a directory of runtime files and a manifest that says what they are. Needs no torch.

`manifest.json` names every file with its SHA-256; the SHA-256 of the manifest itself therefore identifies the whole
directory, and is what a configuration pins.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmdg_model.inputs import InputSpecification
from mmdg_model.known_answer import KnownAnswer
from mmdg_model.operating_point import OperatingPoint
from mmdg_model.scorer import Purpose

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
PRECISIONS = ("float32", "bfloat16", "int8")

_KEYS = ("format_version", "backend", "precision", "checkpoint_sha256", "purpose", "inputs", "known_answer", "files",
         "made_with", "calibration")
_KEYS_WITH_DEFAULT: dict[str, Any] = {"operating_point": None}
_LARGEST_MANIFEST_BYTES = 2**20


class ExportedModelError(ValueError):
    """An exported model cannot be used; the message quotes the file, the key, the value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """What a manifest says.

    Attributes:
        backend: which runtime the files are for.
        precision: of the large matrix products, one of `PRECISIONS`.
        checkpoint_hash: SHA-256 of the checkpoint that it was made from.
        purpose, input_spec, known_answer, operating_point: the checkpoint's.
        files: SHA-256 in hexadecimal of each file, by name.
        made_with: versions of the programs that made it.
        calibration: what the ranges of an int8 model were measured on; empty otherwise.
        hash: SHA-256 of the manifest file; empty before it is saved.
    """

    backend: str
    precision: str
    checkpoint_hash: str
    purpose: Purpose
    input_spec: InputSpecification
    known_answer: KnownAnswer
    files: Mapping[str, str]
    made_with: Mapping[str, str]
    calibration: Mapping[str, Any]
    operating_point: OperatingPoint | None = None
    hash: str = ""


def is_exported_model(path: Path) -> bool:
    """Whether `path` is a directory with a manifest."""
    return (path / MANIFEST_NAME).is_file()


def file_hash(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(model: ExportedModel, directory: Path) -> str:
    """Writes the manifest last, whole or not at all, and returns its SHA-256."""
    about = {
        "format_version": FORMAT_VERSION, "backend": model.backend, "precision": model.precision,
        "checkpoint_sha256": model.checkpoint_hash, "purpose": str(model.purpose),
        "inputs": model.input_spec.to_dict(),
        "known_answer": {"formula": model.known_answer.formula, "logits": model.known_answer.logits},
        "files": dict(model.files), "made_with": dict(model.made_with), "calibration": dict(model.calibration),
    }
    if model.operating_point is not None:
        about["operating_point"] = model.operating_point.to_dict()
    blob = (json.dumps(about, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()
    unfinished = directory / f"{MANIFEST_NAME}.unfinished"
    unfinished.write_bytes(blob)
    unfinished.replace(directory / MANIFEST_NAME)
    return hashlib.sha256(blob).hexdigest()


def read_exported_model(directory: Path, *, expected_hash: str | None = None) -> ExportedModel:
    """Reads and checks the manifest; the files are verified when they are read (`read_file`).

    Args:
        directory: as `mmdg export` wrote it.
        expected_hash: SHA-256 in hexadecimal that the manifest must have.

    Raises:
        ExportedModelError: no manifest, another hash, an unknown version, key or value, or a file outside the
            directory.
    """
    path = directory / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            blob = file.read(_LARGEST_MANIFEST_BYTES + 1)
    except OSError as error:
        raise ExportedModelError(f"exported model {directory}: {MANIFEST_NAME} cannot be read ({error.strerror}); "
                                 "give a directory that `mmdg export` wrote") from error
    manifest_hash = hashlib.sha256(blob).hexdigest()
    if expected_hash is not None and manifest_hash != expected_hash.strip().lower():
        raise ExportedModelError(f"exported model {directory}: SHA-256 of {MANIFEST_NAME} is {manifest_hash}, expected "
                                 f"{expected_hash}; this is another or an altered model: restore the right one, or "
                                 "state this hash if the change is meant")
    about = _parsed(blob, str(path))
    _check_names(about["files"], directory)
    try:
        return ExportedModel(
            backend=about["backend"], precision=_one_of("precision", about["precision"], PRECISIONS, path),
            checkpoint_hash=about["checkpoint_sha256"],
            purpose=Purpose(_one_of("purpose", about["purpose"], tuple(Purpose), path)),
            input_spec=InputSpecification.from_dict(about["inputs"]),
            known_answer=KnownAnswer(formula=about["known_answer"].get("formula"), logits=tuple(
                tuple(row) for row in about["known_answer"].get("logits", ()))),
            files=about["files"], made_with=about["made_with"], calibration=about["calibration"],
            operating_point=None if about["operating_point"] is None else OperatingPoint.from_dict(
                about["operating_point"], place="operating_point"), hash=manifest_hash)
    except (ValueError, TypeError) as error:
        if isinstance(error, ExportedModelError):
            raise
        raise ExportedModelError(f"exported model {path}: {error}; export it again") from error


def read_file(model: ExportedModel, directory: Path, name: str) -> bytes:
    """One file of the model. The bytes hashed are the bytes returned.

    Raises:
        ExportedModelError: not in the manifest, missing or altered.
    """
    if name not in model.files:
        raise ExportedModelError(f"exported model {directory}: the manifest names no {name}, only "
                                 f"{', '.join(model.files)}; export it again")
    try:
        blob = (directory / name).read_bytes()
    except OSError as error:
        raise ExportedModelError(f"exported model {directory}: {name} cannot be read ({error.strerror}); copy the "
                                 "whole directory, or export it again") from error
    actual = hashlib.sha256(blob).hexdigest()
    if actual != model.files[name]:
        raise ExportedModelError(f"exported model {directory}: SHA-256 of {name} is {actual}, the manifest says "
                                 f"{model.files[name]}; the file is damaged or altered: copy or export it again")
    return blob


def _parsed(blob: bytes, place: str) -> dict[str, Any]:
    try:
        about = json.loads(blob)
    except (ValueError, RecursionError) as error:
        raise ExportedModelError(f"exported model {place}: not JSON ({error}); export it again") from error
    if not isinstance(about, dict) or about.get("format_version") != FORMAT_VERSION:
        version = about.get("format_version") if isinstance(about, dict) else type(about).__name__
        raise ExportedModelError(f"exported model {place}: format_version is {version!r}, this program reads "
                                 f"{FORMAT_VERSION}; export it again with a matching version")
    if unknown := sorted(set(about) - {*_KEYS, *_KEYS_WITH_DEFAULT}):
        raise ExportedModelError(f"exported model {place}: unknown key {unknown[0]} = {about[unknown[0]]!r}; known "
                                 f"keys: {', '.join([*_KEYS, *_KEYS_WITH_DEFAULT])}")
    if missing := [key for key in _KEYS if key not in about]:
        raise ExportedModelError(f"exported model {place}: key {missing[0]!r} is missing; export it again")
    for key, kind in (("backend", str), ("checkpoint_sha256", str), ("inputs", dict), ("known_answer", dict),
                      ("files", dict), ("made_with", dict), ("calibration", dict)):
        if not isinstance(about[key], kind):
            raise ExportedModelError(f"exported model {place}: {key} is {about[key]!r}, expected "
                                     f"{'a text' if kind is str else 'an object'}; export it again")
    return _KEYS_WITH_DEFAULT | about


def _one_of(key: str, value: object, allowed: tuple[str, ...], place: Path) -> str:
    if value not in allowed:
        raise ExportedModelError(f"exported model {place}: {key} is {value!r}, expected one of {', '.join(allowed)}; "
                                 "export it again")
    return str(value)


def _check_names(files: Mapping[str, object], directory: Path) -> None:
    if not files:
        raise ExportedModelError(f"exported model {directory}: the manifest names no files; export it again")
    for name in files:
        if Path(name).name != name or name in ("", ".", ".."):
            raise ExportedModelError(f"exported model {directory}: the manifest names the file {name!r}, expected a "
                                     "plain file name; export it again")
