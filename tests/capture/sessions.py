"""Builders of small rigs, frame sets and session files for the tests of `capture` and whoever reads its recordings."""

import numpy as np

from capture.camera import CameraDescription
from capture.frames import ClockDomain, EmitterState, Frame, FrameSet, Spectrum, StreamKind
from capture.recording import RecordingWriter
from capture.rig import DistortionModel, Extrinsics, Intrinsics, Rig

PERIOD_NS = 33_333_333
START_NS = 5_000_000_000_000
SERIAL = "0123456789"


def make_rig(width=40, height=30, colour_only=False):
    intrinsics = {StreamKind.COLOUR: Intrinsics(
        width=width + 8, height=height + 6, fx=44.0, fy=44.0, cx=23.5, cy=17.5,
        model=DistortionModel.INVERSE_BROWN_CONRADY, coefficients=(-0.05, 0.06, -0.0005, 0.0008, -0.02))}
    if not colour_only:
        infrared = Intrinsics(width=width, height=height, fx=38.0, fy=38.0, cx=19.5, cy=14.5)
        intrinsics |= {StreamKind.DEPTH: infrared, StreamKind.INFRARED: infrared}
    left = Extrinsics.from_arrays(np.eye(3), np.array([0.0147, 0.0, 0.0]))
    to_colour = {kind: Extrinsics.identity() if kind is StreamKind.COLOUR else left for kind in intrinsics}
    return Rig(serial=SERIAL, name="test rig", intrinsics=intrinsics, to_colour=to_colour,
               depth_scale_m=None if colour_only else 0.00025)


def make_description(rig=None, **changes):
    values = {"kind": "realsense", "serial": SERIAL, "rig": rig or make_rig(), "frame_rate": 30.0, "live": True,
              "details": {"firmware": "5.16.0.1"}}
    return CameraDescription(**{**values, **changes})


def make_set(sequence, rig=None, infrared_dtype=np.uint8, epoch=77):
    """A set of noise, different for each sequence number, as a RealSense would stamp it."""
    rig = rig or make_rig()
    rng = np.random.default_rng(sequence)
    stamp_ns = START_NS + sequence * PERIOD_NS
    planes = {}
    for i, kind in enumerate(sorted(rig.intrinsics)):
        shape = (rig.intrinsics[kind].height, rig.intrinsics[kind].width)
        if kind is StreamKind.COLOUR:
            pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        elif kind is StreamKind.DEPTH:
            pixels = rng.integers(0, 65536, shape, dtype=np.uint16)
        else:
            pixels = rng.integers(0, np.iinfo(infrared_dtype).max + 1, shape, dtype=infrared_dtype)
        known = kind is not StreamKind.INFRARED
        planes[kind.value] = Frame(
            kind=kind, pixels=pixels, frame_number=1000 + sequence if known else None,
            sensor_timestamp_ns=1_700_000_000_000_000_000 + sequence * PERIOD_NS + i * 1_000_003,
            clock_domain=ClockDomain.GLOBAL, arrival_ns=stamp_ns + i * 2_000_000,
            bit_depth=16 if kind is StreamKind.DEPTH else 8, exposure_us=8333.25 if known else None,
            gain=16.0 if known else None, emitter=EmitterState.ON if known else EmitterState.UNKNOWN,
            spectrum=Spectrum.VISIBLE if kind is StreamKind.COLOUR else Spectrum.VISIBLE_AND_NEAR_INFRARED)
    return FrameSet(source=rig.serial, epoch=epoch, sequence=sequence, depth_scale_m=rig.depth_scale_m, **planes)


def write_session(path, count=5, rig=None, counters=None, label="", notes="", **changes):
    rig = rig or make_rig()
    with RecordingWriter(path, make_description(rig, **changes), min_free_bytes=0, label=label, notes=notes) as writer:
        for sequence in range(count):
            writer.write(make_set(sequence, rig))
        writer.close(counters)
    return path
