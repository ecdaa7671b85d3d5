"""One planned recording through the live path: simulated camera, detector, aligner, crop, 8-bit levels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from align.crop import CropSettings
from capture.camera import Pace
from capture.frames import FrameSet, StreamKind
from capture.rig import Rig
from capture.simulated.camera import SimulatedCamera
from capture.simulated.catalogue import make_scene
from capture.simulated.heads import load_heads
from capture.simulated.profiles import SensorNoise, SensorProfile, sensor_profile
from capture.simulated.scene import FACING, NOBODY, Blinking, Body, Light, Scene, Wall
from capture.simulated.sensors import simulated_rig
from capture.simulated.surroundings import Nearby, draw_surroundings
from detect.faces import Detector
from mmdg_model.inputs import InputSpecification, crop_levels
from mmdg_model.scorer import CropPlanes
from mmdg_model.training.samples import Domain
from pipeline.bundle import unpack
from pipeline.camera_stage import CameraStep
from pipeline.messages import Observation
from pipeline.simulated_trees.domains import DOMAINS, FINE_DEPTH_SHARE, CameraSpecification
from pipeline.simulated_trees.plan import Recording, Session, keyed

Levels = NDArray[np.uint8]

#: PADISI-Face's channel files: height and width. Their crops are cut to that ratio, not squeezed.
CHANNEL_FILE_SHAPE = (320, 256)
#: How many instants a recording may take beyond its frames when no single face is found in some.
EXTRA_INSTANTS = 2
#: Surfaces so far behind the middle of the face are background, where a domain removes it.
BACKGROUND_BEHIND_M = 0.12
#: Half axes of the oval that stays, as a share of the face box's side, and how far its centre is above the box's.
_OVAL, _OVAL_ABOVE = (0.47, 0.62), 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleLevels:
    """8-bit levels of one instant: RGB `[h, w, 3]`, depth and infrared `[h, w]`; 0 is nothing measured."""

    colour: Levels
    depth: Levels
    infrared: Levels


@dataclass(frozen=True, kw_only=True, eq=False)
class Instant:
    """What one simulated frame set gave. `levels` is None when no single face was found: a non-response.

    `index`: which instant, from 0. `observation`: as the camera process reports it.
    """

    index: int
    levels: SampleLevels | None
    observation: Observation


def camera_rig(camera: CameraSpecification) -> Rig:
    """The true rig of one simulated camera, 640 x 480."""
    rig = simulated_rig(serial=camera.serial, distorted=camera.distorted, profile=sensor_profile(camera.profile))
    focal = {StreamKind.COLOUR: camera.colour_focal_px, StreamKind.DEPTH: camera.infrared_focal_px,
             StreamKind.INFRARED: camera.infrared_focal_px}
    # Specimens differ in where the axis meets the sensor, too.
    shift = np.random.default_rng(keyed("rig", camera.serial)).uniform(-4, 4, 4)
    offsets = {StreamKind.COLOUR: shift[:2], StreamKind.DEPTH: shift[2:], StreamKind.INFRARED: shift[2:]}
    return replace(rig, intrinsics={
        kind: replace(each, fx=focal[kind], fy=focal[kind], cx=each.cx + float(offsets[kind][0]),
                      cy=each.cy + float(offsets[kind][1])) for kind, each in rig.intrinsics.items()})


def camera_noise(camera: CameraSpecification) -> SensorNoise:
    """What one simulated camera's sensors add."""
    noise = sensor_profile(camera.profile).noise
    return replace(noise, disparity_px=noise.disparity_px * camera.disparity_share, full_well=camera.full_well,
                   read_codes=camera.read_codes, blur_px=camera.blur_px)


def presented_scene(recording: Recording, identity: int | None = None) -> Scene:
    """The recording's scene: who and what from the person, everything else from the session.

    `identity`: which baked head, by default the recording's of the main family.
    """
    session = recording.session
    surroundings = None if session.surroundings_seed is None else draw_surroundings(session.surroundings_seed)
    scene = make_scene(recording.scene, seed=recording.person_seed,
                       identity=load_heads().family()[recording.head] if identity is None else identity,
                       distance_m=session.distance_m,
                       physics=recording.physics, session_seed=session.movement_seed,
                       instrument_seed=keyed("instrument", recording.noise_seed) & 0x7FFFFFFF,
                       liveliness=session.liveliness, surroundings=surroundings)
    near_wall = surroundings is not None and surroundings.nearby is Nearby.WALL

    # Whatever bears it, the middle of the face dwells where the session says: a sheet's origin is its own middle, a
    # head's lies between its eyes, and the difference would tell them apart by where the box is.
    bearer = next(each for each in scene.bodies if each.face_points is not None)
    assert bearer.face_points is not None
    low, high = bearer.face_points.min(axis=0), bearer.face_points.max(axis=0)
    middle = FACING @ np.array([*(low + high)[:2] / 2, np.median(bearer.face_points[:, 2])])
    shift = np.array([*session.aside_m, session.distance_m]) - middle - np.array(bearer.motion.centre_m)

    def body(each: Body) -> Body:
        if each.person == NOBODY:  # furniture and passers-by stand where they stand, whoever is shown
            return each
        x, y, z = (float(value) for value in np.array(each.motion.centre_m) + shift)
        motion = replace(each.motion, seed=session.movement_seed, centre_m=(x, y, z))
        expression = Blinking(session.movement_seed) if isinstance(each.expression, Blinking) else each.expression
        return replace(each, motion=motion, expression=expression)

    towards = np.array(session.towards_key) / np.linalg.norm(session.towards_key)
    return replace(
        scene, bodies=tuple(body(each) for each in scene.bodies),
        wall=replace(scene.wall, seed=session.wall_seed) if near_wall else
        Wall(distance_m=session.wall_m, yaw_rad=session.wall_yaw_rad, seed=session.wall_seed),
        light=Light(towards_key=(float(towards[0]), float(towards[1]), float(towards[2])), key=session.key_light,
                    ambient=session.ambient_light, room_infrared=session.room_infrared),
        nominal_distance_m=session.distance_m * session.infrared_exposure)


def recording_camera(recording: Recording, *, frames: int) -> SimulatedCamera:
    """The simulated camera of one recording, in lock-step, with as many instants as the recording may take."""
    camera, session = recording.session.camera, recording.session
    return SimulatedCamera(presented_scene(recording), seed=recording.noise_seed, pace=Pace.LOCKSTEP,
                           frame_rate=1 / session.frame_gap_s, frames=frames + EXTRA_INSTANTS,
                           profile=session_profile(session), noise=camera_noise(camera), rig=camera_rig(camera))


def session_profile(session: Session) -> SensorProfile:
    """The kind of camera that films a session. With fine depth fewer disparities are searched on the stored grid."""
    profile = sensor_profile(session.camera.profile)
    if not session.fine_depth:
        return profile
    return replace(profile, disparities=round(profile.disparities * FINE_DEPTH_SHARE))


def white_balanced(frame_set: FrameSet, gains: tuple[float, float, float]) -> FrameSet:
    """The set with its colour codes multiplied, as a camera's imperfect white balance does."""
    table = np.rint(np.clip(np.arange(256)[:, None] * np.array(gains), 0, 255)).astype(np.uint8)
    pixels = np.stack([table[frame_set.colour.pixels[..., channel], channel] for channel in range(3)], axis=-1)
    return replace(frame_set, colour=replace(frame_set.colour, pixels=pixels))


def record(recording: Recording, detector: Detector, inputs: InputSpecification) -> Iterator[Instant]:
    """Films one recording until it has its frames, or has taken as many instants as it may.

    Args:
        recording: planned. detector: the live one. inputs: how pixels become levels; `image_size` is the side of the
            crops of S, C, W and L.
    """
    specification = DOMAINS[recording.domain]
    wide = specification.domain is Domain.PADISI
    size = CHANNEL_FILE_SHAPE[0] if wide else inputs.image_size
    settings = CropSettings(size=size, face_scale=specification.face_scale)
    found = 0
    with recording_camera(recording, frames=recording.frames) as camera:
        step = CameraStep("simulated", camera.describe(), detector, settings, lockstep=True)
        for index in range(recording.frames + EXTRA_INSTANTS):
            frame_set = white_balanced(camera.read(1.0), recording.session.camera.colour_gains)
            result = step.step(frame_set, {})
            levels = None
            if result.bundle is not None:
                levels = sample_levels(unpack(result.bundle)[1], replace(inputs, image_size=size))
                if specification.background_removed:
                    levels = without_background(levels, inputs, specification.face_scale)
                if wide:
                    levels = _cut_to_channel_file(levels)
                found += 1
            yield Instant(index=index, levels=levels, observation=result.observation)
            if found == recording.frames:
                return


def sample_levels(crop: CropPlanes, inputs: InputSpecification) -> SampleLevels:
    """Levels of a crop; an absent plane is black, as data sets have it."""
    colour, depth, infrared = crop_levels(crop, inputs)
    black = np.zeros(colour.shape[:2], np.uint8)
    return SampleLevels(colour=colour, depth=black if depth is None else depth,
                        infrared=black if infrared is None else infrared)


def without_background(levels: SampleLevels, inputs: InputSpecification, face_scale: float) -> SampleLevels:
    """Black outside an oval around the face box, and where depth *measures* something far behind the face.

    The data sets cut faces out by fitted face models, for prints and people alike. What was measured decides here: a
    hole in depth is not background, and no ground truth is asked.
    """
    size = levels.depth.shape[0]
    oval = np.zeros((size, size), np.uint8)
    side = size / face_scale
    cv2.ellipse(oval, (round(size / 2), round(size / 2 - _OVAL_ABOVE * side)),
                (round(_OVAL[0] * side), round(_OVAL[1] * side)), 0, 0, 360, 1, -1)
    # Levels are relative to the middle of the face: the same level is as far behind it in every crop.
    behind = 1 + 254 * (inputs.depth_near_m + BACKGROUND_BEHIND_M) / inputs.depth_range_m
    far = cv2.morphologyEx((levels.depth > behind).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    keep = (oval == 1) & (far == 0)
    return SampleLevels(colour=np.where(keep[..., None], levels.colour, np.uint8(0)),
                        depth=np.where(keep, levels.depth, np.uint8(0)),
                        infrared=np.where(keep, levels.infrared, np.uint8(0)))


def _cut_to_channel_file(levels: SampleLevels) -> SampleLevels:
    height, width = CHANNEL_FILE_SHAPE
    left = (height - width) // 2
    columns = slice(left, left + width)
    return SampleLevels(colour=levels.colour[:, columns], depth=levels.depth[:, columns],
                        infrared=levels.infrared[:, columns])
