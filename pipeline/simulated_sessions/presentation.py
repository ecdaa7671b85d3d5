"""A planned session before its simulated camera, and what is true of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from capture.camera import Camera, Pace
from capture.frames import FrameSet
from capture.simulated.camera import SimulatedCamera
from capture.simulated.catalogue import make_scene
from capture.simulated.hair import HairStyle
from capture.simulated.heads import load_heads
from capture.simulated.scene import Motion, Pose, Scene, turn
from capture.simulated.skin import Complexion
from pipeline.simulated_sessions.plan import PlannedSession
from pipeline.simulated_trees.presentation import (
    camera_noise,
    camera_rig,
    presented_scene,
    session_profile,
    white_balanced,
)

#: Makes the camera that films a session, in lock-step, of `options.frames` sets at `options.frame_rate`.
CameraFactory = Callable[[PlannedSession], Camera]

#: Upper ends of the three groups of skin tone, as melanin in 0..1 (`capture.simulated.skin.Complexion`).
SKIN_TONES = {"light": 0.32, "medium": 0.64, "dark": 1.0}


class Truth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one session: everything where it is simulated; where it was recorded, what its index says.

    Whatever nobody knows is None, or "" for a name.

    Attributes:
        key: of the session. split: `val` or `test`. label: `bona_fide` or `attack`. species: of the instrument, or
            `bona_fide`. person: who is live or depicted. instrument: names the one that was presented, "" for none.
        head: number of the baked head. session: which of this person's.
        distance_m: where the face dwells. serial, profile: of the camera. renderer: module that made the images.
        place: number of the room. frames, frame_rate: of the film.
        skin_tone: `light`, `medium`, `dark`, of the person. hair: `HairStyle`. spectacles, beard: whether they wear
            them. Of an attack these describe whom it depicts.
    """

    key: str
    split: str
    label: str
    species: str
    person: int | str
    instrument: str = ""
    head: int | None = None
    held_out_head: bool | None = None
    session: int | None = None
    distance_m: float | None = None
    serial: str = ""
    profile: str = ""
    renderer: str = ""
    place: int | None = None
    frames: int
    frame_rate: float
    skin_tone: str | None = None
    hair: str | None = None
    spectacles: bool | None = None
    beard: bool | None = None
    simulated: bool = True


@dataclass(frozen=True, kw_only=True)
class TiltedMotion(Motion):
    """A `Motion` whose attitude sways about another one than straight ahead.

    `yaw_rad`, `pitch_rad`: added turn about the pivot, after the movement's own.
    """

    yaw_rad: float = 0.0
    pitch_rad: float = 0.0

    def pose(self, time_s: float) -> Pose:
        straight = super().pose(time_s)
        rotation: NDArray[np.float64] = turn(self.yaw_rad, self.pitch_rad, 0.0) @ straight.rotation
        pivot = np.array(self.pivot_m)
        # The pivot stays where the movement has it.
        where = straight.rotation @ pivot + straight.translation
        return Pose(rotation=rotation, translation=where - rotation @ pivot)


def _tilted(motion: Motion, yaw_rad: float, pitch_rad: float) -> Motion:
    own = {field.name: getattr(motion, field.name) for field in fields(Motion)}
    return TiltedMotion(**own, yaw_rad=yaw_rad, pitch_rad=pitch_rad)


def scene_seed(planned: PlannedSession) -> int:
    """Seed of the person and of what depicts them."""
    return planned.recording.person_seed


def head_number(planned: PlannedSession) -> int:
    """Which baked head the person has."""
    family = load_heads().family(held_out=planned.options.held_out_heads)
    return family[planned.recording.head % len(family)]


def session_scene(planned: PlannedSession) -> Scene:
    """The session's scene: who and what from the person, everything else from the session."""
    options = planned.options
    scene = presented_scene(planned.recording, identity=head_number(planned))
    if not options.yaw_deg and not options.pitch_deg:
        return scene
    yaw_rad, pitch_rad = np.radians([options.yaw_deg, options.pitch_deg]).tolist()
    # Whoever holds an instrument moves by a motion of their own and stays as they are; what shares the bearer's
    # motion, such as spectacles, turns with it.
    bearer = next(body for body in scene.bodies if body.face_points is not None)
    return replace(scene, bodies=tuple(
        replace(body, motion=_tilted(body.motion, yaw_rad, pitch_rad)) if body.motion == bearer.motion else body
        for body in scene.bodies))


class SessionCamera(SimulatedCamera):
    """The simulated camera of one session, in lock-step; its white balance is a little off, as its unit's is."""

    def __init__(self, planned: PlannedSession) -> None:
        recording = planned.recording
        specification = recording.session.camera
        self._gains = specification.colour_gains
        super().__init__(session_scene(planned), seed=recording.noise_seed, pace=Pace.LOCKSTEP,
                         frame_rate=planned.options.frame_rate, frames=planned.options.frames,
                         profile=session_profile(recording.session), noise=camera_noise(specification),
                         rig=camera_rig(specification))

    def read(self, timeout_s: float) -> FrameSet:
        return white_balanced(super().read(timeout_s), self._gains)


def session_camera(planned: PlannedSession) -> Camera:
    """The `CameraFactory` of this simulator."""
    return SessionCamera(planned)


def truth_of(planned: PlannedSession, renderer: str = SessionCamera.__module__) -> Truth:
    """What is true of a session. `renderer`: module of the camera's factory."""
    recording, session = planned.recording, planned.recording.session
    names = {body.name for body in make_scene("bona_fide", seed=scene_seed(planned),
                                              identity=head_number(planned)).bodies}
    grown = [style.value for style in HairStyle if f"{style.value} hair" in names]
    melanin = Complexion.of(scene_seed(planned)).melanin
    return Truth(
        key=planned.key, split=recording.split.value, label=planned.label, species=recording.species,
        person=recording.person, head=head_number(planned), held_out_head=planned.options.held_out_heads,
        instrument="" if recording.bona_fide else f"{recording.species}-{recording.person}", session=planned.number,
        distance_m=round(session.distance_m, 4), serial=session.camera.serial, profile=session.camera.profile,
        renderer=renderer, place=session.place, frames=planned.options.frames, frame_rate=planned.options.frame_rate,
        skin_tone=next(name for name, upper in SKIN_TONES.items() if melanin <= upper),
        hair=grown[0] if grown else HairStyle.SHAVED.value, spectacles="spectacle lenses" in names,
        beard="beard" in names)

