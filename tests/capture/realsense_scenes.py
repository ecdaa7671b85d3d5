"""Builders for RealSense tests: a tiny distorted, rotated rig, and deterministic frames of it."""

import numpy as np

from capture.frames import ClockDomain, EmitterState, Frame, FrameSet, Spectrum, StreamKind
from capture.realsense_optics import RealSenseSettings
from capture.rig import DistortionModel, Extrinsics, Intrinsics, Rig

PERIOD_NS = 33_333_000
WIDTH, HEIGHT = 64, 48
SETTINGS = RealSenseSettings(stereo_width=WIDTH, stereo_height=HEIGHT, colour_width=WIDTH, colour_height=HEIGHT)


def rig(serial="SIM1", depth_scale_m=0.001, streams=tuple(StreamKind)):
    angle = 0.02
    turned = Extrinsics.from_arrays(np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)],
                                              [0, np.sin(angle), np.cos(angle)]]), np.array([0.015, 0.001, -0.002]))
    plain = Intrinsics(width=WIDTH, height=HEIGHT, fx=60.5, fy=61.0, cx=31.25, cy=23.5)
    colour = Intrinsics(width=WIDTH, height=HEIGHT, fx=58.0, fy=58.5, cx=32.0, cy=24.0,
                        model=DistortionModel.INVERSE_BROWN_CONRADY,
                        coefficients=(-0.055, 0.066, 0.001, -0.0005, -0.02))
    every = {StreamKind.COLOUR: colour, StreamKind.DEPTH: plain, StreamKind.INFRARED: plain}
    return Rig(serial=serial, name="test rig", intrinsics={k: every[k] for k in streams},
               to_colour={k: Extrinsics.identity() if k is StreamKind.COLOUR else turned for k in streams},
               depth_scale_m=depth_scale_m if StreamKind.DEPTH in streams else None)


def plane(kind, number):
    """Textured, so that its PNG is a realistic one, and different for every frame number and stream."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    if kind is StreamKind.COLOUR:
        return np.stack([rows * 3 + number, columns * 2, rows + columns], axis=-1).astype(np.uint8)
    if kind is StreamKind.DEPTH:
        return (500 + rows * 4 + columns + number).astype(np.uint16)
    return (columns * 3 + number * 2).astype(np.uint8)


def frame(kind, number, *, stamp_ns=None, domain=ClockDomain.SIMULATED, emitter=EmitterState.UNKNOWN, exposure_us=None,
          gain=None, spectrum=Spectrum.UNKNOWN):
    return Frame(kind=kind, pixels=plane(kind, number), frame_number=number, clock_domain=domain, arrival_ns=0,
                 sensor_timestamp_ns=1_000_000_000 + number * PERIOD_NS if stamp_ns is None else stamp_ns,
                 exposure_us=exposure_us, gain=gain, emitter=emitter, bit_depth=16 if kind is StreamKind.DEPTH else 8,
                 spectrum=Spectrum.VISIBLE if kind is StreamKind.COLOUR else spectrum)


def frame_set(number, *, streams=tuple(StreamKind), depth_scale_m=0.001, **details):
    """The set that a camera would deliver as its `number`th, counted from 1."""
    planes = {k: frame(k, number, **(details if k is not StreamKind.COLOUR else {})) for k in streams}
    return FrameSet(source="SIM1", epoch=0, sequence=number - 1, colour=planes[StreamKind.COLOUR],
                    depth=planes.get(StreamKind.DEPTH), infrared=planes.get(StreamKind.INFRARED),
                    depth_scale_m=depth_scale_m if StreamKind.DEPTH in streams else None)
