"""Which simulated sessions there are: who presents what to which camera, where and how. Pure: nothing is rendered here.

A session is (split, person, scene, number of the session). Everything random is keyed by what it belongs to, never by
the label: place, light, camera, distance and movement by the person and the number, so that a person's bona fide
session and every attack that depicts them happen in the very same circumstances. Circumstances are drawn as for the
simulated domain `L`; people, rooms and instruments are others than those of every simulated tree.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace

from mmdg_model.training.samples import BONA_FIDE, Domain, Split
from pipeline.simulated_trees.domains import DOMAINS, CameraSpecification, Range, SimulationError, fingerprint
from pipeline.simulated_trees.plan import (
    MOST_PERSONS,
    Recording,
    Session,
    draw_session,
    head_place,
    keyed,
    person_number,
    person_seed,
)

#: A change of what is filmed for equal options; part of the hash.
FORMAT = 2
#: Persons of sessions are numbered from here within their list of `L`; a tree's are numbered from 0.
FIRST_PERSON = MOST_PERSONS // 2

#: One or two species of each family: what decisions are evaluated on.
MAIN_SPECIES = ("flat_print", "bent_print", "glossy_print", "bent_print_eyes_cut", "phone_replay", "tablet_replay",
                "monitor_replay", "rigid_mask", "silicone_mask", "paper_mask", "mannequin_head", "printed_eye_glasses")

#: What is kept for testing and never trained on, beside other people: the other family of heads.
HELD_OUT_HEADS = "held-out family"


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """What sessions of one plan share. Two sets of films with equal options have equal sessions by equal names.

    Attributes:
        seed: of everything. frames: of a session. frame_rate: frame sets a second.
        distance_m: of the face, drawn evenly. profile: kind of camera, of `SENSOR_PROFILES`; None: as domain `L` has.
        held_out_heads: people have heads of the family that is never trained on.
        yaw_deg, pitch_deg: turn of whatever bears the face, added to its movement.
        light: visible light as a multiple of what is drawn. room_infrared: added at 850 nm, as sunlight is.
        noise: disparity error, shot and read noise as multiples of what is drawn.

    Raises:
        SimulationError: a value out of range.
    """

    seed: int = 0
    frames: int = 16
    frame_rate: float = 10.0
    distance_m: Range = (0.35, 1.0)
    profile: str | None = None
    held_out_heads: bool = False
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    light: float = 1.0
    room_infrared: float = 0.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        near, far = self.distance_m
        for name, value, low, high in (
                ("seed", self.seed, 0, 1 << 20), ("frames", self.frames, 1, 10_000),
                ("frame_rate", self.frame_rate, 0.5, 60), ("distance_m", near, 0.2, 3.0),
                ("distance_m", far, near, 3.0),
                ("yaw_deg", self.yaw_deg, -60, 60), ("pitch_deg", self.pitch_deg, -60, 60),
                ("light", self.light, 0.0, 20.0), ("room_infrared", self.room_infrared, 0.0, 20.0),
                ("noise", self.noise, 0.0, 20.0)):
            if not (math.isfinite(value) and low <= value <= high):
                raise SimulationError(f"{name} is {value!r}, expected {low:g} to {high:g}")

    def specification(self, **what: object) -> str:
        """SHA-256 of all that decides the pixels: these options, the domains' data, and what is given."""
        return fingerprint(sessions=FORMAT, options=asdict(self), **what)


@dataclass(frozen=True, kw_only=True)
class PlannedSession:
    """One session. `key`: its name. `number`: which session of this person. `options`: it was planned with."""

    key: str
    number: int
    recording: Recording
    options: SessionOptions

    @property
    def label(self) -> str:
        """`bona_fide` or `attack`."""
        return BONA_FIDE if self.recording.bona_fide else "attack"


def plan_sessions(scenes: Sequence[str], split: Split, count: int, options: SessionOptions | None = None, *,
                  number: int = 0) -> tuple[PlannedSession, ...]:
    """`count` sessions of each scene, each of another person; scene by scene the same people, in the same order.

    Args:
        scenes: `bona_fide` and names of species. split: `val` to calibrate on, `test` to judge by.
        number: which session of these people: another one has other circumstances.

    Raises:
        SimulationError: an unknown or repeated scene, or an impossible count.
    """
    options = options or SessionOptions()
    _check_scenes(scenes)
    if not 1 <= count <= MOST_PERSONS - FIRST_PERSON:
        raise SimulationError(f"count is {count}, expected 1 to {MOST_PERSONS - FIRST_PERSON} sessions of a scene")
    return tuple(_session(scene, split, index, number, options) for index in range(count) for scene in scenes)


def _check_scenes(scenes: Collection[str]) -> None:
    known = (BONA_FIDE, *known_species())
    unknown = [scene for scene in scenes if scene not in known]
    if unknown or not scenes or len(set(scenes)) != len(scenes):
        raise SimulationError(f"scenes are {', '.join(scenes) or 'none'}; expected some of {', '.join(known)}, each "
                              "once")


def known_species() -> tuple[str, ...]:
    """Every species that the simulator has."""
    from capture.simulated.species import SPECIES

    return tuple(SPECIES)


def _session(scene: str, split: Split, index: int, number: int, options: SessionOptions) -> PlannedSession:
    person = person_number(options.seed, Domain.LIVE, split, FIRST_PERSON + index)
    # Below the working range a kiosk asks people to step back, and judges them then: such sessions are for training.
    specification = replace(DOMAINS[Domain.LIVE], distance_m=options.distance_m, too_near=0.0)
    drawn = draw_session(specification, split, person, number, keyed("sessions", options.seed))
    recording = Recording(
        key=f"{split}-{scene}-{index:04d}-{number}", domain=Domain.LIVE, split=split, scene=scene, species=scene,
        person=person, subject=f"{person}", order=index, folder="",
        person_seed=person_seed(specification, split, person), session=_varied(drawn, options),
        head=_head(split, person, options), frames=options.frames,
        noise_seed=keyed("session noise", options.seed, split, person, scene, number))
    return PlannedSession(key=recording.key, number=number, recording=recording, options=options)


def _head(split: Split, person: int, options: SessionOptions) -> int:
    """Place of the person's head in its family."""
    if not options.held_out_heads:
        return head_place(split, person)
    from capture.simulated.heads import load_heads

    return keyed("head", person) % len(load_heads().family(held_out=True))


def _varied(drawn: Session, options: SessionOptions) -> Session:
    """The drawn session with the options' rate, camera, light and noise."""
    camera = drawn.camera if options.profile is None else replace(drawn.camera, profile=options.profile)
    return replace(
        drawn, camera=_noisier(camera, options.noise), frame_gap_s=1 / options.frame_rate,
        key_light=drawn.key_light * options.light, ambient_light=drawn.ambient_light * options.light,
        room_infrared=drawn.room_infrared + options.room_infrared)


def _noisier(camera: CameraSpecification, factor: float) -> CameraSpecification:
    """Shot noise falls with the root of the full well: a well of 1/f² has f times the noise."""
    return replace(camera, disparity_share=camera.disparity_share * factor, read_codes=camera.read_codes * factor,
                   full_well=camera.full_well / max(factor, 1e-3) ** 2)
