"""One `FaceCrop` as one multipart message: a header, then its planes. Packed by the camera, unpacked by the worker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import msgspec
import numpy as np
from numpy.typing import NDArray

from align.face_crop import CROP_DEPTH_UNIT_M, FaceCrop
from capture.frames import Frame, FrameSet
from mmdg_model.scorer import CropPlanes
from pipeline import messages
from pipeline.messages import BundleHeader, FrameStamp, MessageError, PlaneHeader

#: A mask travels as one bit a pixel, rows packed together (numpy.packbits).
BITS = "bits"
_DTYPES: dict[str, tuple[str, ...]] = {
    "colour": ("uint8",), "depth": ("uint16",), "infrared": ("uint8", "uint16"),
    "colour_valid": (BITS,), "depth_valid": (BITS,), "infrared_valid": (BITS,),
}


def quality_on_the_wire(crop: FaceCrop) -> messages.Quality:
    """The crop's quality measures as the message that travels."""
    return messages.Quality(**asdict(crop.quality))


def _stamp(frame: Frame) -> FrameStamp:
    return FrameStamp(
        kind=frame.kind.value, frame_number=frame.frame_number, sensor_timestamp_ns=frame.sensor_timestamp_ns,
        clock_domain=frame.clock_domain.value, exposure_us=frame.exposure_us, gain=frame.gain,
        emitter=frame.emitter.value)


def pack(crop: FaceCrop, frame_set: FrameSet, *, camera: str, rig_hash: str, stamps_ns: dict[str, int],
         lockstep: bool) -> list[bytes]:
    """Header and planes of one bundle, in the order of the header's `planes`."""
    planes: list[tuple[str, NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.bool_]]] = [
        ("colour", crop.colour), ("colour_valid", crop.colour_valid)]
    for name, plane, mask in (("depth", crop.depth, crop.depth_valid),
                              ("infrared", crop.infrared, crop.infrared_valid)):
        if plane is not None and mask is not None:
            planes += [(name, plane), (f"{name}_valid", mask)]
    header = BundleHeader(
        camera=camera, source=frame_set.source, epoch=frame_set.epoch, sequence=frame_set.sequence,
        track_id=crop.track_id, view=crop.view.value,
        planes=[PlaneHeader(name=name, shape=list(plane.shape), dtype=BITS if plane.dtype == bool else str(plane.dtype))
                for name, plane in planes],
        depth_unit_m=CROP_DEPTH_UNIT_M, infrared_bit_depth=crop.infrared_bit_depth,
        frames=[_stamp(frame) for frame in frame_set.frames()], rig_hash=rig_hash,
        quality=quality_on_the_wire(crop), stamps_ns=stamps_ns, lockstep=lockstep)
    return [messages.encode(header),
            *(np.packbits(plane).tobytes() if plane.dtype == bool else plane.tobytes() for _, plane in planes)]


def _plane(header: PlaneHeader, raw: bytes | memoryview) -> NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.bool_]:
    allowed = _DTYPES.get(header.name)
    if allowed is None or header.dtype not in allowed:
        raise MessageError(f"plane {header.name!r} of dtype {header.dtype!r}: known are {_DTYPES}")
    pixels = math.prod(header.shape)
    if header.dtype == BITS:
        if len(raw) != (pixels + 7) // 8:
            raise MessageError(f"plane {header.name} {header.shape}: {len(raw)} bytes, expected {(pixels + 7) // 8}")
        bits = np.unpackbits(np.frombuffer(raw, np.uint8), count=pixels)
        return bits.astype(bool).reshape(header.shape)
    dtype = np.dtype(header.dtype)
    if len(raw) != pixels * dtype.itemsize:
        raise MessageError(f"plane {header.name} {header.shape} {dtype}: {len(raw)} bytes, expected "
                           f"{pixels * dtype.itemsize}")
    return np.frombuffer(raw, dtype).reshape(header.shape)


def read_header(frames: Sequence[bytes | memoryview]) -> BundleHeader:
    """The header of a bundle whose number of frames agrees with it.

    Raises:
        MessageError: not a bundle, another schema version, or a plane too many or too few.
    """
    if not frames:
        raise MessageError("an empty message where a bundle was expected")
    header = messages.decode(frames[0], BundleHeader)
    if len(frames) - 1 != len(header.planes):
        raise MessageError(f"bundle {header.sequence} of {header.camera} announces {len(header.planes)} planes and "
                           f"carries {len(frames) - 1}")
    return header


def restamp(frames: Sequence[bytes], header: BundleHeader, **stamps_ns: int) -> list[bytes]:
    """The same bundle with further stamps in its header."""
    stamped = msgspec.structs.replace(header, stamps_ns={**header.stamps_ns, **stamps_ns})
    return [messages.encode(stamped), *frames[1:]]


def unpack(frames: Sequence[bytes | memoryview]) -> tuple[BundleHeader, CropPlanes]:
    """Read one bundle; the planes alias `frames`.

    Raises:
        MessageError: see `read_header`; also an unknown, repeated or missing plane, or one whose bytes do not fill
            its shape.
    """
    header = read_header(frames)
    planes = {h.name: _plane(h, raw) for h, raw in zip(header.planes, frames[1:], strict=True)}
    names = set(planes)
    if len(planes) != len(header.planes) or "colour" not in names or \
            any((name in names) != (f"{name}_valid" in names) for name in ("colour", "depth", "infrared")):
        raise MessageError(f"bundle {header.sequence} of {header.camera}: planes {[p.name for p in header.planes]}; "
                           "each plane needs its validity mask, none may repeat, and colour must be present")
    side = planes["colour"].shape[0]
    for name, plane in planes.items():
        expected = (side, side, 3) if name == "colour" else (side, side)
        if plane.shape != expected:
            raise MessageError(f"bundle {header.sequence} of {header.camera}: plane {name} has shape {plane.shape}, "
                               f"expected {expected}")
    return header, CropPlanes(
        colour=planes["colour"], colour_valid=planes["colour_valid"],  # type: ignore[arg-type]
        depth=planes.get("depth"), depth_valid=planes.get("depth_valid"),  # type: ignore[arg-type]
        depth_unit_m=header.depth_unit_m,
        infrared=planes.get("infrared"), infrared_valid=planes.get("infrared_valid"),  # type: ignore[arg-type]
        infrared_bit_depth=header.infrared_bit_depth)
