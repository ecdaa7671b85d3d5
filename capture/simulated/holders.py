"""Who presents an instrument: hands on its edges, and the attacker's body behind or above it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from capture.simulated.materials import SKIN
from capture.simulated.meshes import Float32, Mesh, capsule, joined
from capture.simulated.people import make_person
from capture.simulated.scene import Body, Motion, Segment
from capture.simulated.skin import Complexion, skin_reflectance
from capture.simulated.species import Hold


def hand(side: float, edge: NDArray[np.float64], reach: float, elbow: NDArray[np.float64]) -> Mesh:
    """A hand that holds an edge at the point `edge`: thumb before, four fingers behind, forearm to the elbow.

    `side` -1 for an instrument's left edge in the image, 1 for its right; `reach` how far fingers go past the edge.
    """
    inward = np.array([-side, 0.0, 0.0])
    parts = []
    for number in range(4):
        root = edge + np.array([side * 0.022, 0.030 - 0.019 * number, -0.016])
        tip = root + inward * (0.022 + reach) + np.array([0.0, 0.006, -0.002])
        parts.append(capsule(root, tip, 0.0092, 0.0078))
    palm = edge + np.array([side * 0.034, -0.005, -0.010])
    parts.append(capsule(palm + np.array([0, 0.026, 0]), palm - np.array([0, 0.030, 0]), 0.017, 0.021))
    parts.append(capsule(palm + np.array([0.0, 0.004, 0.014]),
                         edge + inward * reach + np.array([0.0, 0.026, 0.012]), 0.012,
                         0.0085))
    wrist = palm + np.array([side * 0.010, -0.050, -0.012])
    parts.append(capsule(palm - [0, 0.02, 0], wrist, 0.020, 0.024))
    parts.append(capsule(wrist, elbow, 0.026, 0.040))
    return joined(parts)


def skin_texture(seed: int) -> Float32:
    """Skin of a hand, (64, 64, 4)."""
    rng = np.random.default_rng([seed, 11])  # as of the person's face
    tone = skin_reflectance(Complexion.random(rng).melanin)
    speckle = 1 + 0.04 * rng.standard_normal((64, 64, 1))
    return np.asarray(np.clip(tone * speckle, 0, 1), np.float32)


def held_in_hands(size_m: tuple[float, float], middle: NDArray[np.float64], *, seed: int, motion: Motion,
                  rng: np.random.Generator, low: bool = False) -> tuple[Body, Body]:
    """Two hands on the lower half of a flat instrument of that size round `middle`; they move with it. `low`: at its
    lower corners, since a bust has no edge beside the neck."""
    grip = rng.uniform(-0.6, -0.1) * size_m[1] / 2
    if low:
        grip = rng.uniform(-0.97, -0.88) * size_m[1] / 2
    reach = min(0.018, 0.16 * size_m[0])
    found = []
    for side in (-1.0, 1.0):
        edge = middle + np.array([side * size_m[0] / 2, grip + rng.uniform(-0.015, 0.015), 0.0])
        elbow = np.array([side * rng.uniform(0.20, 0.27), middle[1] - rng.uniform(0.30, 0.38), -0.16])
        found.append(Body(name="hand", segment=Segment.OTHER, meshes={"neutral": hand(side, edge, reach, elbow)},
                          texture=skin_texture(seed), material=SKIN, motion=motion))
    return found[0], found[1]


def presenter(hold: Hold, *, seed: int, identity: int, motion: Motion, rng: np.random.Generator) -> tuple[Body, ...]:
    """The attacker's own head and torso behind a held instrument; nobody beside one that stands by itself.

    Before the face: the attacker stands 0.12 to 0.22 m behind it and keeps the face hidden. At the chest: so near and
    high that the head is above the image, as somebody does who shows a phone to a kiosk.
    """
    if hold is Hold.STANDING:
        return ()
    x, y, z = motion.centre_m
    if hold is Hold.AT_CHEST:
        behind = rng.uniform(0.16, 0.26)
        up = 0.40 * (z + behind) + rng.uniform(0.15, 0.20)  # the colour image's upper edge, and a chin below the eyes
        place = (x + rng.uniform(-0.04, 0.04), y - up, z + behind)
    else:
        place = (x + rng.uniform(-0.015, 0.015), y + rng.uniform(-0.01, 0.02), z + rng.uniform(0.12, 0.22))
    own = replace(motion, centre_m=place, seed=motion.seed + 5003, drift_m_per_s=motion.drift_m_per_s)
    bodies = make_person(seed=seed, identity=identity, motion=own, person=1)
    return tuple(replace(body, face_points=None, segment=Segment.OTHER) for body in bodies)
