"""The scenes by name."""

from __future__ import annotations

import numpy as np

from capture.camera import CameraError
from capture.simulated.attacks import make_mask, make_print, make_screen
from capture.simulated.people import NECK_PIVOT_M, make_person
from capture.simulated.scene import Body, Motion, Scene, Wall

SCENES = ("bona_fide", "print", "screen", "mask", "nobody", "two_people")


class UnknownSceneError(CameraError):
    """There is no scene of that name; the message lists those there are."""


def make_scene(name: str, *, seed: int = 0, identity: int | None = None, distance_m: float | None = None,
               speed: float = 1.0, drift_m_per_s: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Scene:
    """One of `SCENES`, deterministic by `seed`.

    Args:
        identity: which baked head, by default from the seed. distance_m: of the face, by default 0.50 to 0.62 by seed.
        speed: of all movement. drift_m_per_s: a steady movement added to it.

    Raises:
        UnknownSceneError: the name is none of `SCENES`.
    """
    if name not in SCENES:
        raise UnknownSceneError(f"no simulated scene {name!r}; there are: {', '.join(SCENES)}")
    rng = np.random.default_rng([seed, 31])
    drawn_distance, drawn_identity = float(rng.uniform(0.50, 0.62)), int(rng.integers(1 << 16))
    distance = drawn_distance if distance_m is None else distance_m
    if not 0.2 <= distance <= 3.0:
        raise CameraError(f"scene {name}: distance_m is {distance}, must lie in 0.2 to 3.0 metres")
    identity = drawn_identity if identity is None else identity
    wall = Wall(distance_m=max(float(rng.uniform(1.5, 3.0)), distance + 0.5), yaw_rad=float(rng.uniform(-0.12, 0.12)),
                seed=seed)

    def motion(aside_m: float = 0.0, *, held: bool = False, seed_of: int = 0) -> Motion:
        # A sheet or panel held in hands yaws and sways as a head does, and trembles faster and wider.
        return Motion(centre_m=(aside_m, -0.02, distance), pivot_m=(0.0, 0.0, 0.0) if held else NECK_PIVOT_M,
                      tremor_m=0.002 if held else 0.001, speed=speed, drift_m_per_s=drift_m_per_s,
                      seed=seed * 7 + seed_of)

    bodies: tuple[Body, ...]
    label: str | None = "attack"
    if name == "bona_fide":
        label, bodies = "bona_fide", make_person(seed=seed, identity=identity, motion=motion())
    elif name == "two_people":
        label = "bona_fide"
        bodies = (*make_person(seed=seed, identity=identity, motion=motion(-0.17)),
                  *make_person(seed=seed + 1, identity=identity + 1, motion=motion(0.17, seed_of=1), person=1))
    elif name == "nobody":
        label, bodies = None, ()
    elif name == "print":
        bodies = make_print(seed=seed, identity=identity, motion=motion(held=True))
    elif name == "screen":
        bodies = make_screen(seed=seed, identity=identity, motion=motion(held=True))
    else:
        bodies = make_mask(seed=seed, identity=identity, motion=motion())
    return Scene(name=name, label=label, species=name if label == "attack" else None, bodies=bodies, wall=wall,
                 nominal_distance_m=distance)
