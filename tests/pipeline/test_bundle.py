"""A bundle carries a crop bit for bit; anything that does not fill its own description is refused by name."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.face_crop import CROP_DEPTH_UNIT_M, CropQuality, FaceCrop
from capture.frames import ClockDomain, Frame, FrameSet, StreamKind
from pipeline import messages
from pipeline.bundle import pack, read_header, restamp, unpack
from pipeline.messages import MessageError, PlaneHeader

SIDE = 16
QUALITY = CropQuality(face_width_px=100.0, distance_m=None, sharpness=12.5, brightness=99.0, depth_fill=0.5,
                      infrared_brightness=0.25, infrared_saturation=0.0, yaw_deg=-3.0, pitch_deg=1.0, roll_deg=0.5)


def a_crop(*, depth: bool = True, infrared: str | None = "uint8") -> FaceCrop:
    rng = np.random.default_rng(7)
    mask = rng.random((SIDE, SIDE)) < 0.7
    return FaceCrop(
        view=StreamKind.COLOUR, track_id=3, sequence=9,
        colour=rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8), colour_valid=mask,
        depth=rng.integers(0, 65536, (SIDE, SIDE)).astype(np.uint16) if depth else None,
        depth_valid=~mask if depth else None,
        infrared=rng.integers(0, 200, (SIDE, SIDE)).astype(infrared) if infrared else None,
        infrared_valid=mask.T.copy() if infrared else None,
        infrared_bit_depth=10 if infrared == "uint16" else 8, quality=QUALITY)


def a_set() -> FrameSet:
    colour = Frame(kind=StreamKind.COLOUR, pixels=np.zeros((4, 4, 3), np.uint8), frame_number=17,
                   sensor_timestamp_ns=5, clock_domain=ClockDomain.SIMULATED, arrival_ns=6, exposure_us=8000.0)
    return FrameSet(source="SIM", epoch=1, sequence=9, colour=colour)


def packed(crop: FaceCrop | None = None) -> list[bytes]:
    return pack(crop or a_crop(), a_set(), camera="door", rig_hash="ab", stamps_ns={"arrival": 6}, lockstep=False)


@pytest.mark.parametrize(("depth", "infrared"), [(True, "uint8"), (True, "uint16"), (False, "uint8"), (True, None),
                                                 (False, None)])
def test_what_is_packed_is_unpacked_bit_for_bit(depth: bool, infrared: str | None) -> None:
    crop = a_crop(depth=depth, infrared=infrared)
    header, planes = unpack(packed(crop))
    assert (header.camera, header.epoch, header.sequence, header.track_id) == ("door", 1, 9, 3)
    assert header.frames[0].frame_number == 17
    assert planes.depth_unit_m == CROP_DEPTH_UNIT_M
    assert planes.infrared_bit_depth == crop.infrared_bit_depth
    for name in ("colour", "colour_valid", "depth", "depth_valid", "infrared", "infrared_valid"):
        ours, theirs = getattr(crop, name), getattr(planes, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)


def test_restamping_changes_only_the_stamps() -> None:
    frames = packed()
    stamped = restamp(frames, read_header(frames), handed_out=42)
    assert read_header(stamped).stamps_ns == {"arrival": 6, "handed_out": 42}
    assert stamped[1:] == frames[1:]


def with_header(**changes: object) -> list[bytes]:
    frames = packed()
    return [messages.encode(msgspec.structs.replace(read_header(frames), **changes)), *frames[1:]]


def plane(name: str, dtype: str = "uint8", shape: tuple[int, ...] = (SIDE, SIDE)) -> PlaneHeader:
    return PlaneHeader(name=name, shape=list(shape), dtype=dtype)


@pytest.mark.parametrize(("frames", "message"), [
    ([], "empty message"),
    ([b"\x93\x01"], "expected BundleHeader"),
    (packed()[:-1], "announces 6 planes and carries 5"),
    ([*packed(), b""], "announces 6 planes and carries 7"),
    ([*packed()[:-1], b"short"], "5 bytes, expected 32"),
    (with_header(schema=2), "schema 2, this build speaks 1"),
    (with_header(planes=[plane("colour", "float64")] * 6), "dtype 'float64'"),
    (with_header(planes=[plane("face_embedding")] * 6), "face_embedding"),
    (with_header(planes=[plane("infrared_valid", "bits")] * 6), "bytes, expected 32"),
])
def test_a_bundle_that_contradicts_itself_is_refused(frames: list[bytes], message: str) -> None:
    with pytest.raises(MessageError, match=message):
        unpack(frames)


@pytest.mark.parametrize("kept", [["depth", "depth_valid"], ["colour"], ["colour", "colour_valid", "depth"]])
def test_a_plane_without_its_mask_or_a_bundle_without_colour_is_refused(kept: list[str]) -> None:
    frames = packed()
    header = read_header(frames)
    chosen = [(h, raw) for h, raw in zip(header.planes, frames[1:], strict=True) if h.name in kept]
    thinned = msgspec.structs.replace(header, planes=[h for h, _ in chosen])
    with pytest.raises(MessageError, match="validity mask"):
        unpack([messages.encode(thinned), *(raw for _, raw in chosen)])


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_noise_is_refused_by_name_and_nothing_else(frames: list[bytes]) -> None:
    with pytest.raises(MessageError):
        unpack(frames)


@given(st.integers(0, 2**20), st.integers(1, 255))
def test_a_flipped_byte_in_the_header_never_crashes(position: int, flip: int) -> None:
    frames = packed()
    header = bytearray(frames[0])
    header[position % len(header)] ^= flip
    try:
        _, planes = unpack([bytes(header), *frames[1:]])
    except MessageError:
        return
    assert planes.colour.shape == (SIDE, SIDE, 3)
