"""The operating-point file: one map from logits to evidence for each camera kind and subset of modalities, as JSON.

    {"format": "mmdg-live operating points", "version": 2, "calibration_id": "<16 hex>", "model": {...}, ...}

`calibration_id` is the first 16 hexadecimal digits of the SHA-256 of the canonical bytes: the document without that
key, keys sorted, no white space, ASCII, shortest numbers. A decision names it, so that it can be traced to what was
measured. A file that does not carry the id of its own content was altered and is refused, as is one of another model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

FORMAT: Literal["mmdg-live operating points"] = "mmdg-live operating points"
#: 2: `lasting_share` of each map, and `species_weights`. Files of version 1 lack them and are refused.
VERSION: Literal[2] = 2
#: Larger than any file of ours.
LARGEST_BYTES = 4 * 1024 * 1024

ModalityName = Literal["rgb", "depth", "infrared"]
#: How attack sessions weigh, see `OperatingPointFile`.
SpeciesWeights = Literal["balanced", "occurrence"]
#: Subsets of modalities that a camera may deliver. RGB is in each: the face is found there and the network always reads
#: it.
SUBSETS: tuple[tuple[ModalityName, ...], ...] = (
    ("rgb", "depth", "infrared"), ("rgb", "infrared"), ("rgb", "depth"), ("rgb",))

Number = Annotated[float, Meta(ge=-1e6, le=1e6)]
Share = Annotated[float, Meta(ge=0, le=1)]
Correlation = Annotated[float, Meta(ge=0, lt=1)]
Bits = Annotated[float, Meta(ge=0, le=1e6)]
Counted = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class OperatingPointFileError(ValueError):
    """An operating-point file cannot be used; the message quotes the file, the place in it and the value."""


class _Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class CalibratedModel(_Strict, frozen=True, kw_only=True):
    """The checkpoint or exported model whose scores were calibrated. purpose: `mmdg_model.scorer.Purpose`."""

    sha256: Sha256
    purpose: Annotated[str, Meta(min_length=1, max_length=32)]


class CalibrationSessions(_Strict, frozen=True, kw_only=True):
    """What was measured on.

    Attributes:
        total: sessions. unscored: of them, without a single scored frame: they are in no map.
        by_label, by_species: how many. index_sha256: of the index of each folder, in the order of the command.
    """

    total: AtLeastOne
    unscored: Counted
    by_label: dict[str, int]
    by_species: dict[str, int]
    index_sha256: Annotated[list[Sha256], Meta(min_length=1)]


class EvidenceMap(_Strict, frozen=True, kw_only=True):
    """From the logits of one subset of modalities, seen by one kind of camera, to evidence.

    A frame's LLR in nats is scale · logit + offset, within ±frame_llr_clip; a session's evidence is within
    ±evidence_clip. Both clips are ln(sessions of the smaller class): more than that so many sessions cannot show.

    Attributes:
        camera_kind: `CameraDescription.camera_kind`. modalities: of `SUBSETS`.
        frame_correlation: ρ of successive scored frames (AR(1)), as `calibration.score_calibration.frame_correlation`
            fits it, sessions' own levels included; low, high: its 95 % interval over sessions.
        lasting_share: of the scores' variance about the mean of their species, what is the session's own level and
            repeats in every frame (`calibration.lasting_share`); low, high: its 95 % interval over sessions.
        cllr_raw, cllr, cllr_min: cost in bits of the logits taken as LLRs, of the mapped and clipped LLRs, and of the
            best monotone map, on the sessions of the fit. cllr_held_out: of maps fitted without the person that they
            are judged on; None where too few people are left for that.
        sessions_bona_fide, sessions_attack, frames: that the map was fitted to.
    """

    camera_kind: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9_.-]{0,127}$")]
    modalities: list[ModalityName]
    scale: Annotated[float, Meta(ge=1e-3, le=100)]
    offset: Annotated[float, Meta(ge=-1000, le=1000)]
    frame_llr_clip: Annotated[float, Meta(gt=0, le=20)]
    evidence_clip: Annotated[float, Meta(gt=0, le=20)]
    frame_correlation: Correlation
    frame_correlation_low: Correlation
    frame_correlation_high: Correlation
    lasting_share: Correlation
    lasting_share_low: Correlation
    lasting_share_high: Correlation
    cllr_raw: Bits
    cllr: Bits
    cllr_min: Bits
    cllr_held_out: Bits | None
    sessions_bona_fide: AtLeastOne
    sessions_attack: AtLeastOne
    frames: AtLeastOne

    def llr(self, logit: float) -> float:
        """A frame's log-likelihood ratio in nats, clipped."""
        return max(-self.frame_llr_clip, min(self.frame_llr_clip, self.scale * logit + self.offset))


class OperatingPointFile(_Strict, frozen=True, kw_only=True):
    """All of the file but its id.

    Attributes:
        data: `simulated` or `recorded`. created: date of the fit, ISO 8601. command: that fitted, as typed.
        species_weights: `balanced`: each species weighs the same among the attacks; `occurrence`: each session does.
        maps: one a camera kind and subset of modalities; what has none is no evidence at run time.
    """

    format: Literal["mmdg-live operating points"] = FORMAT
    version: Literal[2] = VERSION
    model: CalibratedModel
    data: Literal["simulated", "recorded"]
    created: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$")]
    command: Annotated[str, Meta(min_length=1)]
    sessions: CalibrationSessions
    species_weights: SpeciesWeights
    maps: Annotated[list[EvidenceMap], Meta(min_length=1, max_length=256)]

    @property
    def calibration_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical bytes."""
        return hashlib.sha256(canonical_bytes(msgspec.to_builtins(self))).hexdigest()[:16]

    def map_for(self, camera_kind: str, modalities: Iterable[str]) -> EvidenceMap | None:
        """The map of exactly this subset on exactly this kind of camera; None is no evidence, never another's map."""
        wanted = frozenset(modalities)
        return next((one for one in self.maps
                     if one.camera_kind == camera_kind and frozenset(one.modalities) == wanted), None)

    def check_model(self, sha256: str, place: str) -> None:
        """Raises `OperatingPointFileError` where the scores come from another model than was calibrated."""
        if sha256 != self.model.sha256:
            raise OperatingPointFileError(
                f"{place}: $.model.sha256 is {self.model.sha256}, the model that runs has {sha256}; calibrate it "
                "(mmdg calibrate score), or run the model that was calibrated")


def canonical_bytes(document: Mapping[str, Any]) -> bytes:
    """The bytes that the id is of: without the id itself."""
    content = {key: value for key, value in document.items() if key != "calibration_id"}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def file_bytes(operating_points: OperatingPointFile) -> bytes:
    """The file, for people and programs. Equal content gives equal bytes."""
    document = {"calibration_id": operating_points.calibration_id, **msgspec.to_builtins(operating_points)}
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def read_operating_point_file(path: Path, *, model_sha256: str | None = None) -> OperatingPointFile:
    """Reads and checks the whole file.

    Args:
        model_sha256: of the model that is going to run; None does not compare.

    Raises:
        OperatingPointFileError: unreadable, not JSON, another format or version, an unknown, missing or repeated key, a
            value out of range, an id that is not its content's, two maps for one subset, another model.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise OperatingPointFileError(f"{path}: {path.stat().st_size} bytes, expected at most {LARGEST_BYTES}")
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant,
                              object_pairs_hook=_once)
    except OSError as error:
        raise OperatingPointFileError(f"{path}: {error.strerror}; write one with mmdg calibrate score") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise OperatingPointFileError(f"{path}: {error}; write the file again with mmdg calibrate score") from error
    found = operating_points_from(document, str(path))
    if model_sha256 is not None:
        found.check_model(model_sha256, str(path))
    return found


def operating_points_from(document: object, place: str) -> OperatingPointFile:
    """The typed content of a decoded file; `place` names it in errors.

    Raises:
        OperatingPointFileError: as `read_operating_point_file`.
    """
    if not isinstance(document, dict):
        raise OperatingPointFileError(f"{place}: {document!r:.80}, expected a JSON object")
    for key, known in (("format", FORMAT), ("version", VERSION)):
        if document.get(key) != known or isinstance(document.get(key), bool):
            raise OperatingPointFileError(f"{place}: $.{key} is {document.get(key)!r}, this build reads {known!r}; fit "
                                          "the file again with mmdg calibrate score, or run the build that wrote it")
    stated = document.get("calibration_id")
    if not isinstance(stated, str):
        raise OperatingPointFileError(f"{place}: $.calibration_id is {stated!r}, expected 16 hexadecimal digits")
    try:
        found = msgspec.convert({key: value for key, value in document.items() if key != "calibration_id"},
                                OperatingPointFile)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # the latter: a lone surrogate
        text = str(error)
        located = re.search(r"at `([^`]+)`", text)
        value = f" (it is {value_at(document, located[1])!r:.80})" if located else ""
        raise OperatingPointFileError(f"{place}: {text}{value}") from error
    if stated != found.calibration_id:
        raise OperatingPointFileError(f"{place}: $.calibration_id is {stated!r}, the content has "
                                      f"{found.calibration_id!r}: the file was altered; fit it again")
    _check_maps(found, place)
    return found


def _check_maps(found: OperatingPointFile, place: str) -> None:
    seen = set()
    for index, one in enumerate(found.maps):
        where = f"{place}: $.maps[{index}]"
        if tuple(one.modalities) not in SUBSETS:
            raise OperatingPointFileError(f"{where}.modalities is {one.modalities}, expected one of "
                                          f"{', '.join('+'.join(subset) for subset in SUBSETS)}")
        if (key := (one.camera_kind, tuple(one.modalities))) in seen:
            raise OperatingPointFileError(f"{where} is another map for {'+'.join(one.modalities)} of camera kind "
                                          f"{one.camera_kind!r}; keep one")
        seen.add(key)


def value_at(raw: Any, path: str) -> Any:
    """The value at a msgspec path such as `$.maps[0].scale`; None where there is none."""
    for key, index in re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", path):
        try:
            raw = raw[key] if key else raw[0 if index == "..." else int(index)]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number that JSON knows")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r} stands there twice")
        found[key] = value
    return found
