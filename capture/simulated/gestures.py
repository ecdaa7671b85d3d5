"""What people do with their hands while they are filmed: nothing, mostly; or hold a sheet or a phone at the chest, rest
the chin, touch the temple. It belongs to the session, so hands and objects in view say nothing of a label."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from capture.simulated.heads import load_heads
from capture.simulated.holders import hand, skin_texture
from capture.simulated.materials import PAPER, PAPER_INFRARED, SCREEN, SCREEN_INFRARED, SKIN
from capture.simulated.meshes import Float32, Mesh, capsule, grid_mesh, joined
from capture.simulated.scene import Body, Motion, Segment


class Gesture(StrEnum):
    """What hands do."""

    NONE = "none"
    CHIN = "chin"
    TEMPLE = "temple"
    SHEET = "sheet"
    PHONE = "phone"


SHARES = {Gesture.NONE: 0.62, Gesture.CHIN: 0.08, Gesture.TEMPLE: 0.08, Gesture.SHEET: 0.11, Gesture.PHONE: 0.11}


def draw_gesture(session_seed: int) -> Gesture:
    """Of everybody in that session."""
    rng = np.random.default_rng([session_seed, 34])
    return Gesture(rng.choice([each.value for each in SHARES], p=list(SHARES.values())))


def make_gesture(session_seed: int, *, identity: int, skin_seed: int, motion: Motion,
                 person: int = 0) -> tuple[Body, ...]:
    """Hands, and what they hold, of the one whose skin `skin_seed` decides and whose head has the form `identity`."""
    gesture = draw_gesture(session_seed)
    rng = np.random.default_rng([session_seed, 35])
    side = float(rng.choice([-1.0, 1.0]))
    elbow = np.array([side * rng.uniform(0.16, 0.26), rng.uniform(-0.50, -0.40), 0.02])

    def skin(*meshes: Mesh) -> Body:
        return Body(name="hand", segment=Segment.OTHER, meshes={"neutral": joined(list(meshes))},
                    texture=skin_texture(skin_seed), material=SKIN, motion=motion, person=person)
    if gesture is Gesture.NONE:
        return ()
    if gesture is Gesture.CHIN:
        head = load_heads().vertices(identity)
        chin = head[(np.abs(head[:, 0]) < 0.02) & (head[:, 1] > -0.13) & (head[:, 1] < -0.09)]
        place = np.array([side * rng.uniform(0.0, 0.02), rng.uniform(-0.135, -0.120), float(chin[:, 2].max()) + 0.008])
        fingers = [capsule(place + _step(side * 0.036, -0.017 * number, -0.022),
                           place + _step(-side * 0.014, -0.016 * number, 0.0), 0.0095, 0.0085) for number in range(4)]
        back = place + _step(side * 0.052, -0.030, -0.026)
        palm = capsule(place + _step(side * 0.045, 0.0, -0.024), back + _step(0.0, -0.035, 0.0), 0.017, 0.022)
        return (skin(*fingers, palm, capsule(back + _step(0.0, -0.03, 0.0), elbow, 0.024, 0.040)),)
    if gesture is Gesture.TEMPLE:
        face = load_heads().face_points(identity)
        edge = np.array([side * (float(np.abs(face[:, 0]).max()) + 0.006), rng.uniform(-0.05, 0.01), -0.03])
        return (skin(hand(side, edge, 0.0, elbow + _step(side * 0.06, 0.0, 0.0))),)
    page = gesture is Gesture.SHEET
    size = (rng.uniform(0.12, 0.21), rng.uniform(0.15, 0.29)) if page else (rng.uniform(0.068, 0.080),
                                                                         rng.uniform(0.14, 0.165))
    top = rng.uniform(-0.20, -0.145)
    middle = np.array([rng.uniform(-0.05, 0.05), top - size[1] / 2, rng.uniform(0.03, 0.08)])
    thing = _sheet_of_text(rng) if page else _phone_front(rng)
    tilt = rng.uniform(-0.5, 0.2)
    grid = np.stack(np.meshgrid(np.linspace(-size[0] / 2, size[0] / 2, 9), np.linspace(size[1] / 2, -size[1] / 2, 9)),
                    axis=-1)
    points = np.stack([grid[..., 0], grid[..., 1] * np.cos(tilt), grid[..., 1] * np.sin(tilt)], axis=-1) + middle
    texels = np.stack(np.meshgrid(np.linspace(0, thing.shape[1] - 1, 9), np.linspace(0, thing.shape[0] - 1, 9)), -1)
    held = Body(name="sheet of text" if page else "phone in hand", segment=Segment.OTHER, texture=thing,
                meshes={"neutral": grid_mesh(points, texels)}, motion=motion, person=person,
                material=PAPER if page else replace(SCREEN, emission=float(rng.choice([0.02, 0.5]))))
    hands = [hand(each, middle + _step(each * size[0] / 2, -0.2 * size[1], 0.0), 0.012, _step(each * 0.24, -0.5, -0.1))
             for each in ((-1.0, 1.0) if page else (side,))]
    return (held, *(skin(each) for each in hands))


def _step(left: float, up: float, front: float) -> NDArray[np.float64]:
    return np.array([left, up, front])


def _sheet_of_text(rng: np.random.Generator) -> Float32:
    """A printed page, no picture on it: (140, 100, 4)."""
    texture = np.empty((140, 100, 4), np.float32)
    texture[:] = [*np.repeat(rng.uniform(0.62, 0.86), 3), rng.uniform(*PAPER_INFRARED)]
    for row in range(12, 128, 5):
        end = int(rng.integers(30, 92))
        texture[row:row + 2, 9:end] *= np.float32(rng.uniform(0.35, 0.6))
    return texture


def _phone_front(rng: np.random.Generator) -> Float32:
    """A phone's screen with some bars on it: (120, 60, 4)."""
    texture = np.empty((120, 60, 4), np.float32)
    texture[:] = [*rng.uniform(0.3, 0.9, 3), rng.uniform(*SCREEN_INFRARED)]
    for row in range(10, 110, 14):
        texture[row:row + 8, 6:54, :3] = rng.uniform(0.05, 0.9, 3)
    texture[:3], texture[-3:], texture[:, :2], texture[:, -2:] = ([0.012, 0.012, 0.013, 0.05],) * 4
    return texture
