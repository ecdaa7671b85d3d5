"""The scenes by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from capture.camera import CameraError
from capture.simulated.attacks import make_attack, make_live
from capture.simulated.covers import Cover
from capture.simulated.heads import load_heads
from capture.simulated.people import NECK_PIVOT_M, make_person
from capture.simulated.scene import Body, Light, Motion, Scene, Wall
from capture.simulated.species import ALIASES, SPECIES
from capture.simulated.surroundings import Surroundings, furnished

#: Every scene: who is alive, the older names of three attacks, nobody, and every species.
SCENES = ("bona_fide", "print", "screen", "mask", "nobody", "two_people", *SPECIES)


#: A face cannot be shown nearer: its nose would touch the lens.
NEAREST_M = 0.12


class UnknownSceneError(CameraError):
    """There is no scene of that name; the message lists those there are."""


def make_scene(name: str, *, seed: int = 0, identity: int | None = None, distance_m: float | None = None,
               speed: float = 1.0, drift_m_per_s: tuple[float, float, float] = (0.0, 0.0, 0.0),
               physics: bool = True, session_seed: int | None = None, instrument_seed: int | None = None,
               liveliness: float = 1.0, surroundings: Surroundings | None = None) -> Scene:
    """One of `SCENES`, deterministic by its seeds; nothing but the instrument itself follows from the label.

    Args:
        seed: of the person who is shown, live or depicted: face, complexion, hair, clothes.
        session_seed: of place, distance, wall, light and movement; by default `seed`.
        instrument_seed: of an attack's instrument: portrait, scale, printer, mould; by default `seed`.
        liveliness: multiplies how far a live face turns and nods, and how far one in a portrait does.
        identity: which baked head, by default one of the main family from the seed; of an attack, the victim.
        distance_m: of the face, by default 0.50 to 0.62 by seed.
        speed: of all movement. drift_m_per_s: a steady movement added to it.
        surroundings: what stands near in this session and what is worn around the face; with any (`Surroundings()` is a
            bare room) instruments also come in several sizes and outlines. None: as scenes were before there were any.
        physics: False makes an attack scene its null attack (`capture.simulated.attacks.make_attack`).

    Raises:
        UnknownSceneError: the name is none of `SCENES`.
        CameraError: a distance outside 0.12 to 3.0 m.
    """
    if name not in SCENES:
        raise UnknownSceneError(f"no simulated scene {name!r}; there are: {', '.join(SCENES)}")
    session_seed = seed if session_seed is None else session_seed
    rng = np.random.default_rng([session_seed, 31])
    drawn_distance = float(rng.uniform(0.50, 0.62))
    drawn_identity = int(np.random.default_rng([seed, 36]).integers(1 << 16))
    distance = drawn_distance if distance_m is None else distance_m
    if not NEAREST_M <= distance <= 3.0:
        raise CameraError(f"scene {name}: distance_m is {distance}, must lie in {NEAREST_M} to 3.0 metres")
    main = load_heads().family()
    identity = main[drawn_identity % len(main)] if identity is None else identity % len(load_heads())
    wall = Wall(distance_m=max(float(rng.uniform(1.5, 3.0)), distance + 0.5), yaw_rad=float(rng.uniform(-0.12, 0.12)),
                seed=session_seed)
    light = draw_light(session_seed)
    tremor_m = float(np.random.default_rng([session_seed, 33]).uniform(0.0005, 0.0025))

    def motion(aside_m: float = 0.0, seed_of: int = 0) -> Motion:
        plain = Motion(centre_m=(aside_m, -0.02, distance), pivot_m=NECK_PIVOT_M, tremor_m=tremor_m, speed=speed,
                       drift_m_per_s=drift_m_per_s, seed=session_seed * 7 + seed_of)
        yaw, pitch, roll = plain.attitude_rad
        return replace(plain, attitude_rad=(yaw * liveliness, pitch * liveliness, roll))

    bodies: tuple[Body, ...]
    label: str | None = "attack"
    species: str | None = None
    if name == "bona_fide":
        label = "bona_fide"
        bodies = make_live(seed=seed, identity=identity, motion=motion(), session_seed=session_seed,
                           cover=surroundings.cover if surroundings else Cover.NONE)
    elif name == "two_people":
        label = "bona_fide"
        bodies = (*make_person(seed=seed, identity=identity, motion=motion(-0.17)),
                  *make_person(seed=seed + 1, identity=load_heads().another(identity, 1),
                               motion=motion(0.17, seed_of=1), person=1))
    elif name == "nobody":
        label, bodies = None, ()
    else:
        species = ALIASES.get(name, name)
        bodies = make_attack(species, seed=seed, identity=identity, motion=motion(), physics=physics,
                             instrument_seed=instrument_seed, session_seed=session_seed, liveliness=liveliness,
                             surroundings=surroundings)
    scene = Scene(name=name, label=label, species=species, bodies=bodies, wall=wall, light=light,
                  nominal_distance_m=distance, depth_misses=draw_misses(session_seed))
    return scene if surroundings is None else furnished(scene, surroundings, identity=identity, distance_m=distance)


def draw_misses(seed: int) -> float:
    """How much depth is missing on any surface: nothing in three sessions of four, up to a third in one."""
    rng = np.random.default_rng([seed, 37])
    return float(rng.uniform(0.05, 0.35) if rng.uniform() < 0.25 else 0.0)


def draw_light(seed: int) -> Light:
    """Light of a room: where the key light stands, how hard it is, its tint after white balance, infrared in it. In one
    room of seven a hard light from the side, one of seven is dim, one of ten has the sun in it."""
    rng, special = np.random.default_rng([seed, 32]), np.random.default_rng([seed, 38])
    azimuth, height = rng.uniform(-1.1, 1.1), rng.uniform(0.25, 0.9)
    key = float(rng.uniform(0.35, 0.70))
    ambient = 1.0 - key + float(rng.uniform(-0.08, 0.08))
    hard, dim = special.uniform(size=2) < 1 / 7
    if hard:
        azimuth = float(special.choice([-1.0, 1.0])) * special.uniform(1.15, 1.55)
        key, ambient = float(special.uniform(0.80, 1.05)), float(special.uniform(0.10, 0.22))
    level = float(special.uniform(0.12, 0.45)) if dim else 1.0
    towards = (float(np.sin(azimuth)), float(-height), float(-np.cos(azimuth)))
    warmth = float(rng.normal(0.0, 0.035))  # what automatic white balance leaves of the lamp's colour
    # At 850 nm the sun rivals the lamp.
    sun = float(rng.uniform(0.3, 1.5)) if rng.uniform() < 0.1 else 0.0
    return Light(towards_key=towards, key=key, ambient=ambient, tint=(1 + warmth, 1.0, 1 - warmth), level=level,
                 room_infrared=float(rng.uniform(0.01, 0.08)) + sun)
