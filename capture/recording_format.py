"""What a session file holds: its messages, their schemas, and the manifest. `capture.recording` does the files.

A session is an MCAP file. Each frame set is one chunk with

    /frame_set               mmdg.FrameSet (JSON): stamps, exposure, emitter, SHA-256 of each plane
    /<stream>/image          foxglove.RawImage (protobuf): rgb8, 16UC1, mono8 or mono16, little-endian
    /<stream>/calibration    foxglove.CameraCalibration (protobuf), in the first chunk only

and metadata records hold the manifest (`mmdg.manifest`, first in the file) and the end count (`mmdg.end`, last).
The Foxglove messages let any MCAP viewer show a session; the rig in the manifest is what replay believes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.RawImage_pb2 import RawImage
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.message import DecodeError

from capture.camera import CameraDescription
from capture.frames import ClockDomain, EmitterState, Frame, FrameError, FrameSet, Pixels, Spectrum, StreamKind
from capture.rig import DistortionModel, Rig, RigError

FORMAT = "mmdg-session"
FORMAT_VERSION = 1
PROFILE = "mmdg"
MANIFEST_RECORD = "mmdg.manifest"
END_RECORD = "mmdg.end"
FRAME_SET_TOPIC = "/frame_set"
#: Viewers that know no other lens model; `inverse_` and `modified_brown_conrady` are written under their own names.
_ROS_MODELS = {DistortionModel.NONE: "plumb_bob", DistortionModel.BROWN_CONRADY: "plumb_bob"}
_STAMP = {"type": "integer"}
FRAME_SET_SCHEMA: dict[str, Any] = {
    "title": "mmdg.FrameSet", "type": "object",
    "description": "Index of one frame set. Stamps are nanoseconds; arrival is the host's CLOCK_MONOTONIC.",
    "properties": {
        "position": {"type": "integer", "description": "counts from 0 within the file, without gaps"},
        "source": {"type": "string"}, "epoch": {"type": "integer"}, "sequence": {"type": "integer"},
        "depth_scale_m": {"type": ["number", "null"], "description": "metres per depth unit"},
        "planes": {"type": "object", "additionalProperties": {"type": "object", "properties": {
            "sha256": {"type": "string", "description": "of the plane's bytes, row by row, little-endian"},
            "shape": {"type": "array", "items": {"type": "integer"}}, "dtype": {"type": "string"},
            "frame_number": {"type": ["integer", "null"]}, "sensor_timestamp_ns": _STAMP, "arrival_ns": _STAMP,
            "clock_domain": {"type": "string"}, "bit_depth": {"type": "integer"},
            "exposure_us": {"type": ["number", "null"]}, "gain": {"type": ["number", "null"]},
            "emitter": {"type": "string"}, "spectrum": {"type": "string"}}}},
    },
}


class FormatError(ValueError):
    """A record is not what this module writes; the message says which value, and of which plane."""


def image_topic(kind: StreamKind) -> str:
    return f"/{kind.value}/image"


def calibration_topic(kind: StreamKind) -> str:
    return f"/{kind.value}/calibration"


def software_version() -> str:
    try:
        return f"mmdg-live {version('mmdg-live')}"
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "mmdg-live (not installed)"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a session says about itself.

    Attributes:
        kind, serial, frame_rate, simulated, details: of the recorded camera (`CameraDescription`).
        rig: its geometry. created: wall clock at the start, ISO 8601, a label only. software: what wrote the file.
        label: what was presented (`bona_fide`, `print` ...), "" unknown. notes: free text.
        recovered_from: why the original could not be read to its end; "" for an undamaged recording.
    """

    kind: str
    serial: str
    rig: Rig
    frame_rate: float
    simulated: bool
    created: str
    software: str
    details: dict[str, str] = field(default_factory=dict)
    label: str = ""
    notes: str = ""
    recovered_from: str = ""

    @classmethod
    def of(cls, camera: CameraDescription, *, created: str, label: str = "", notes: str = "") -> Manifest:
        return cls(kind=camera.kind, serial=camera.serial, rig=camera.rig, frame_rate=camera.frame_rate,
                   simulated=camera.simulated, details=dict(camera.details), created=created,
                   software=software_version(), label=label, notes=notes)

    def recovered(self, reason: str) -> Manifest:
        return replace(self, recovered_from=reason)

    def to_record(self) -> dict[str, str]:
        """Metadata record: JSON text, and its SHA-256, for no checksum of MCAP's covers metadata."""
        raw = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "rig"}
        raw |= {"rig": self.rig.to_dict(), "rig_sha256": self.rig.hash}
        text = json.dumps(raw, sort_keys=True, allow_nan=False)
        return {"format": FORMAT, "version": str(FORMAT_VERSION), "manifest": text, "sha256": _sha256(text.encode())}

    @classmethod
    def from_record(cls, record: dict[str, str]) -> Manifest:
        """Raises: FormatError."""
        if record.get("format") != FORMAT or record.get("version") != str(FORMAT_VERSION):
            raise FormatError(f"format {record.get('format')!r} version {record.get('version')!r}, this build reads "
                              f"{FORMAT!r} version {FORMAT_VERSION}")
        text = record.get("manifest", "")
        if _sha256(text.encode()) != record.get("sha256"):
            raise FormatError("the manifest does not match its SHA-256")
        try:
            raw = json.loads(text)
            rig = Rig.from_dict(raw.pop("rig"), place="manifest")
            if raw.pop("rig_sha256") != rig.hash:
                raise FormatError("the rig does not match its SHA-256")
            manifest = cls(rig=rig, **raw)
            if not manifest.frame_rate > 0:
                raise FormatError(f"frame_rate is {manifest.frame_rate}, must be positive")
            return manifest
        except (ValueError, KeyError, TypeError, RigError) as error:
            raise FormatError(f"manifest: {error}") from error


def image_schema() -> bytes:
    """Schema data of `foxglove.RawImage` for MCAP's `protobuf` encoding."""
    return _descriptors(RawImage)


def calibration_schema() -> bytes:
    """Schema data of `foxglove.CameraCalibration` for MCAP's `protobuf` encoding."""
    return _descriptors(CameraCalibration)


def _descriptors(message: type[Any]) -> bytes:
    """The serialised FileDescriptorSet of a message and of everything it imports."""
    files = FileDescriptorSet()
    seen: set[str] = set()

    def add(descriptor: FileDescriptor) -> None:
        if descriptor.name not in seen:
            seen.add(descriptor.name)
            for dependency in descriptor.dependencies:
                add(dependency)
            descriptor.CopyToProto(files.file.add())

    add(message.DESCRIPTOR.file)
    return bytes(files.SerializeToString())


def encode_set(frames: FrameSet, position: int) -> tuple[bytes, dict[StreamKind, bytes]]:
    """The index message and the image message of each plane."""
    planes: dict[str, Any] = {}
    images: dict[StreamKind, bytes] = {}
    for frame in frames.frames():
        data = frame.pixels.astype(frame.pixels.dtype.newbyteorder("<"), copy=False).tobytes()
        planes[frame.kind.value] = {
            "sha256": _sha256(data), "shape": frame.pixels.shape, "dtype": frame.pixels.dtype.name,
            "frame_number": frame.frame_number, "sensor_timestamp_ns": frame.sensor_timestamp_ns,
            "arrival_ns": frame.arrival_ns, "clock_domain": frame.clock_domain, "bit_depth": frame.bit_depth,
            "exposure_us": frame.exposure_us, "gain": frame.gain, "emitter": frame.emitter,
            "spectrum": frame.spectrum}
        encoding = ("rgb8" if frame.kind is StreamKind.COLOUR else "16UC1" if frame.kind is StreamKind.DEPTH
                    else "mono8" if frame.pixels.dtype == np.uint8 else "mono16")
        message = RawImage(frame_id=frame.kind.value, width=frame.width, height=frame.height, encoding=encoding,
                           step=frame.pixels.strides[0], data=data)
        message.timestamp.FromNanoseconds(frame.arrival_ns)
        images[frame.kind] = bytes(message.SerializeToString())
    index = {"position": position, "source": frames.source, "epoch": frames.epoch, "sequence": frames.sequence,
             "depth_scale_m": frames.depth_scale_m, "planes": planes}
    return json.dumps(index, allow_nan=False).encode(), images


def encode_calibration(rig: Rig, kind: StreamKind, stamp_ns: int) -> bytes:
    i = rig.intrinsics[kind]
    message = CameraCalibration(
        frame_id=kind.value, width=i.width, height=i.height, distortion_model=_ROS_MODELS.get(i.model, i.model.value),
        D=i.coefficients, K=i.matrix.ravel().tolist(), R=np.eye(3).ravel().tolist(),
        P=np.hstack([i.matrix, np.zeros((3, 1))]).ravel().tolist())
    message.timestamp.FromNanoseconds(stamp_ns)
    return bytes(message.SerializeToString())


def decode_set(index: bytes, images: dict[StreamKind, bytes], rig: Rig, position: int) -> FrameSet:
    """Rebuild a frame set and check every plane against the index.

    Raises:
        FormatError: a plane is missing, has another size than the rig says, or does not match its SHA-256.
    """
    try:
        raw = json.loads(index)
        planes = {StreamKind(name): plane for name, plane in raw["planes"].items()}
        if raw["position"] != position:
            raise FormatError(f"found set {raw['position']} where set {position} was expected")
        if set(planes) != set(rig.intrinsics) or set(images) != set(planes):
            raise FormatError(f"planes {sorted(images)}, index of {sorted(planes)}, rig of {sorted(rig.intrinsics)}: "
                              "a required stream is missing")
        frames = {kind.value: _decode_frame(kind, plane, images[kind], rig) for kind, plane in planes.items()}
        return FrameSet(source=str(raw["source"]), epoch=int(raw["epoch"]), sequence=int(raw["sequence"]),
                        depth_scale_m=raw["depth_scale_m"], **frames)
    except FormatError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, FrameError) as error:
        raise FormatError(f"index of set {position}: {type(error).__name__} {error}") from error


def _decode_frame(kind: StreamKind, plane: dict[str, Any], image: bytes, rig: Rig) -> Frame:
    return Frame(
        kind=kind, pixels=_decode_pixels(kind, plane, image, rig),
        frame_number=None if plane["frame_number"] is None else int(plane["frame_number"]),
        sensor_timestamp_ns=int(plane["sensor_timestamp_ns"]), clock_domain=ClockDomain(plane["clock_domain"]),
        arrival_ns=int(plane["arrival_ns"]), bit_depth=int(plane["bit_depth"]),
        exposure_us=None if plane["exposure_us"] is None else float(plane["exposure_us"]),
        gain=None if plane["gain"] is None else float(plane["gain"]),
        emitter=EmitterState(plane["emitter"]), spectrum=Spectrum(plane["spectrum"]))


def _decode_pixels(kind: StreamKind, plane: dict[str, Any], image: bytes, rig: Rig) -> Pixels:
    message = RawImage()
    try:
        message.ParseFromString(image)
    except DecodeError as error:
        raise FormatError(f"{kind} plane: its image message is damaged ({error})") from error
    if _sha256(message.data) != plane["sha256"]:
        raise FormatError(f"{kind} plane: its bytes do not match their SHA-256")
    shape, expected = tuple(plane["shape"]), (rig.intrinsics[kind].height, rig.intrinsics[kind].width)
    if shape[:2] != expected:
        raise FormatError(f"{kind} plane: {shape[1]}x{shape[0]}, but the rig says {expected[1]}x{expected[0]}")
    pixels: Pixels = np.frombuffer(message.data, dtype=np.dtype(plane["dtype"]).newbyteorder("<")).reshape(shape)
    return pixels.astype(plane["dtype"])  # a copy: it owns its memory, in native byte order


def _sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()
