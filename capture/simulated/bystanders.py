"""A second person in view: over the shoulder, passing by behind, or standing partly in front. Never the face that
counts: turned away from the camera, further away, or seen from the back."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from capture.simulated.heads import load_heads
from capture.simulated.meshes import Mesh
from capture.simulated.people import NECK_PIVOT_M, make_person
from capture.simulated.scene import NOBODY, Body, Motion, Segment, always_neutral, turn

#: A bystander has another head and other colours than whoever is shown.
_OTHER_IDENTITY, _OTHER_SEED = 61, 2_000
#: Nobody stands nearer to the camera than this.
_NEAREST_M = 0.22


class Crossing(StrEnum):
    """Where a second person is."""

    OVER_SHOULDER = "over_shoulder"
    BEHIND = "passer_behind"
    IN_FRONT = "passer_in_front"


def make_bystander(crossing: Crossing, *, seed: int, identity: int, distance_m: float,
                   side: float) -> tuple[Body, ...]:
    """Bodies of the second person beside a face at `distance_m` on the axis; none where there is no room in front.

    Over the shoulder: 0.28 to 0.45 m behind, turned aside, partly hidden. Behind: walks across 0.3 to 1 m behind, in
    profile. In front: the back of a head 0.12 to 0.20 m nearer, which hides up to 2 cm of the face's edge.

    Args:
        seed: of the session. identity: of the head that is shown. side: -1 or 1.
    """
    rng = np.random.default_rng([seed, 54])
    up = float(rng.uniform(-0.05, 0.06))
    drift = 0.0
    if crossing is Crossing.OVER_SHOULDER:
        place = (side * rng.uniform(0.16, 0.27), -up, distance_m + rng.uniform(0.28, 0.45))
        yaw = -side * rng.uniform(0.9, 1.6)  # towards the middle of the image
    elif crossing is Crossing.BEHIND:
        drift = float(-side * rng.uniform(0.15, 0.7))
        # Passes behind the face within the first second and a half.
        place = (-drift * rng.uniform(0.2, 1.5), -up, distance_m + rng.uniform(0.30, 1.0))
        yaw = -side * rng.uniform(1.3, 1.8)
    else:
        nearer = float(rng.uniform(0.12, 0.20))
        if distance_m - nearer < _NEAREST_M:
            return ()
        edge = float(rng.uniform(0.060, 0.090)) / distance_m  # of the face, that the back of the head reaches
        place = (side * (0.105 + edge * (distance_m - nearer)), -up, distance_m - nearer)
        yaw = np.pi + float(rng.uniform(-0.4, 0.4))
    motion = Motion(centre_m=(float(place[0]), float(place[1]), float(place[2])), pivot_m=NECK_PIVOT_M,
                    attitude_rad=(0.08, 0.04, 0.03), drift_m_per_s=(drift, 0.0, 0.0), seed=seed * 7 + 3)
    bodies = make_person(seed=seed + _OTHER_SEED, identity=load_heads().another(identity, _OTHER_IDENTITY),
                         motion=motion)
    rotation = turn(float(yaw), 0.0, 0.0)
    return tuple(_away(body, rotation) for body in bodies)


def _away(body: Body, rotation: NDArray[np.float64]) -> Body:
    """The body with its shape turned about the neck; it bears no face that counts."""
    mesh, pivot = body.meshes["neutral"], np.array(NECK_PIVOT_M)
    turned = Mesh(vertices=((mesh.vertices - pivot) @ rotation.T + pivot).astype(np.float32),
                  triangles=mesh.triangles, texels=mesh.texels)
    return replace(body, meshes={"neutral": turned}, expression=always_neutral, face_points=None,
                   segment=Segment.OTHER, person=NOBODY)
