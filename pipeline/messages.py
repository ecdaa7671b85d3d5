"""Messages between the processes: typed MessagePack, every one with a schema version.

A message that does not decode, or carries another schema version, is refused with `MessageError` and counted by the
receiver; nothing is guessed. Stamps are host `CLOCK_MONOTONIC` nanoseconds (lock-step: the recording's clock).
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

SCHEMA = 1

#: No message but a bundle's planes is larger than this; sockets are opened with it as MAXMSGSIZE where they carry none.
MAX_MESSAGE_BYTES = 64 * 1024
#: One plane of a bundle: 1024 x 1024 x 3 bytes is far above any crop.
MAX_PLANE_BYTES = 4 * 1024 * 1024

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Count = Annotated[int, Meta(ge=0)]


class MessageError(ValueError):
    """Bytes off a socket that are not one of our messages; says what was expected and what came."""


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """Head of every internal message: its schema version and its type."""

    schema: int = SCHEMA


# --- camera -> decision ---------------------------------------------------------------------------------------------
class ObservedFace(msgspec.Struct, frozen=True, kw_only=True):
    """One tracked face; the box in pixels of the image it was found in."""

    track_id: Count
    x: float
    y: float
    width: float
    height: float
    score: float


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """`align.face_crop.CropQuality` on the wire; None = that sensor is absent."""

    face_width_px: float
    distance_m: float | None
    sharpness: float
    brightness: float
    depth_fill: float | None
    infrared_brightness: float | None
    infrared_saturation: float | None
    yaw_deg: float
    pitch_deg: float
    roll_deg: float


class Observation(Message, frozen=True, kw_only=True, tag="observation"):
    """What a camera saw in one frame set, face or none. Never pixels.

    Attributes:
        camera: name in the configuration; source: serial; epoch, sequence: of the frame set.
        stamp_ns: arrival of the set. frame_period_ms: nominal, for the stall limit.
        faces: all tracked faces; subject: the track that counts, None when there is none or more than one.
        track_broken: the subject's track id differs from the previous frame's.
        conditions: codes such as `no_face`, `multiple_faces`, `too_dark`, `depth_holes`, worst first.
        bundle_sent: a bundle of this sequence went to the hub (in lock-step: a score will follow).
        modalities: planes present in the set (`rgb`, `depth`, `infrared`).
        counters: the camera's cumulative drop counters by cause.
        camera_kind: `CameraDescription.camera_kind`; "" is unknown, and no kind of camera is calibrated under it.
        integrity: what no honest stream does, as codes of `pipeline.stream_integrity`; any of them ends a session.
    """

    camera: Name
    source: Name
    epoch: Count
    sequence: Count
    stamp_ns: int
    frame_period_ms: float
    faces: list[ObservedFace]
    subject: int | None
    track_broken: bool
    conditions: list[str]
    quality: Quality | None
    bundle_sent: bool
    modalities: list[str]
    counters: dict[str, int]
    lockstep: bool = False
    simulated: bool = False
    camera_kind: Annotated[str, Meta(max_length=128)] = ""
    integrity: list[str] = []


class CameraEnded(Message, frozen=True, kw_only=True, tag="camera_ended"):
    """The last word of a camera's epoch. reason: `end_of_stream`, `device_lost`, `corrupt_stream`, `stopped`."""

    camera: Name
    source: str
    epoch: Count
    reason: str
    detail: str
    stamp_ns: int
    counters: dict[str, int]


class ObservationAck(Message, frozen=True, kw_only=True, tag="observation_ack"):
    """decision -> camera, lock-step only: this sequence (and its score) is accounted for, send the next."""

    epoch: Count
    sequence: Count


# --- camera -> hub -> inference -------------------------------------------------------------------------------------
class PlaneHeader(msgspec.Struct, frozen=True, kw_only=True):
    """One raw buffer of a bundle. name: `colour`, `depth`, `infrared`, or `<name>_valid` (packed bits)."""

    name: str
    shape: list[Annotated[int, Meta(ge=1, le=1024)]]
    dtype: str  # uint8, uint16; masks travel as `bits`


class FrameStamp(msgspec.Struct, frozen=True, kw_only=True):
    """One sensor frame of a bundle: its number, its stamp, and what the sensor said of its light."""

    kind: str
    frame_number: int | None
    sensor_timestamp_ns: int
    clock_domain: str
    exposure_us: float | None
    gain: float | None
    emitter: str


class BundleHeader(Message, frozen=True, kw_only=True, tag="bundle"):
    """Header of one complete bundle; the planes follow as frames of the same multipart message, in order."""

    camera: Name
    source: Name
    epoch: Count
    sequence: Count
    track_id: Count
    view: str
    planes: list[PlaneHeader]
    depth_unit_m: float
    infrared_bit_depth: int
    frames: list[FrameStamp]
    rig_hash: str
    quality: Quality
    stamps_ns: dict[str, int]
    lockstep: bool = False


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """inference -> hub: room for one bundle. Re-sent each 200 ms with the same `credit` until it is answered."""

    worker: Name
    credit: Count


# --- inference -> decision ------------------------------------------------------------------------------------------
class Score(Message, frozen=True, kw_only=True, tag="score"):
    """`mmdg_model.scorer.LivenessScore` of one bundle, with the stamps of its way here."""

    camera: Name
    source: Name
    epoch: Count
    sequence: Count
    track_id: Count
    worker: Name
    logit: float
    probability: float
    uncertainty: dict[str, float]
    modalities: list[str]
    model_hash: str
    purpose: str
    durations_ms: dict[str, float]
    stamps_ns: dict[str, int]
    quality: Quality
    failed: str | None = None  # why this bundle could not be scored; logit is then meaningless and must not be read


# --- everyone -> supervisor, supervisor -> decision -----------------------------------------------------------------
class Progress(Message, frozen=True, kw_only=True, tag="progress"):
    """Liveness: each process, each 100 ms. `state`: starting, ready, running, stopped, ended, failed."""

    process: Name
    pid: int
    state: str
    sequence: int
    stamp_ns: int
    counters: dict[str, int]
    detail: dict[str, str] = {}


class ProcessEvent(Message, frozen=True, kw_only=True, tag="process_event"):
    """supervisor -> decision. event: `lost`, `ready`; role: `camera`, `hub`, `inference`."""

    process: Name
    role: str
    event: str
    stamp_ns: int
    detail: dict[str, str] = {}


class Report(Message, frozen=True, kw_only=True, tag="report"):
    """decision -> supervisor: one line for people and for `--json`; `line` is a JSON object."""

    line: str


AnyMessage = (Observation | CameraEnded | ObservationAck | BundleHeader | Ready | Score | Progress | ProcessEvent
              | Report)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)

M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """The message as MessagePack bytes."""
    return _ENCODER.encode(message)


def decode(data: bytes | memoryview, expected: type[M]) -> M:
    """Decode one message of the expected type.

    Raises:
        MessageError: not MessagePack, another type, another schema version, a field out of range.
    """
    try:
        message = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MessageError(f"expected {expected.__name__}: {error} ({len(data)} bytes)") from error
    if not isinstance(message, expected):
        raise MessageError(f"expected {expected.__name__}, got {type(message).__name__}")
    if message.schema != SCHEMA:
        raise MessageError(f"{expected.__name__} has schema {message.schema}, this build speaks {SCHEMA}: "
                           "run the same version of mmdg-live everywhere")
    return message


def replace(message: M, **changes: object) -> M:
    """The same message with other field values."""
    return msgspec.structs.replace(message, **changes)
