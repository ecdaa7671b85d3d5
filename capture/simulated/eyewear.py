"""Spectacles: a frame that hides, lenses that pass light and glint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from capture.simulated.materials import FRAME, LENS, LENS_HOLES
from capture.simulated.meshes import Float32, Mesh, capsule, grid_mesh, joined
from capture.simulated.scene import Body, Motion, Segment

#: Before the plane of the eyeballs' fronts.
STAND_OFF_M = 0.017


def _rim_points(eye: NDArray[np.float64], half_width: float, half_height: float, roundness: float,
                stand_off_m: float, count: int = 41) -> NDArray[np.float64]:
    """Points (count, 3) round one eye: a superellipse, from a circle (2) to a rounded box (4)."""
    turn = np.linspace(0, 2 * np.pi, count)
    x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** (2 / roundness) * half_width
    y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** (2 / roundness) * half_height
    # Lenses wrap a little around the face.
    return np.stack([eye[0] * 1.04 + x, eye[1] - 0.003 + y, stand_off_m - 0.9 * (np.abs(eye[0] + x) ** 2)], axis=1)


def _tube(points: NDArray[np.float64], radius: float) -> Mesh:
    """A closed tube along points that lie nearly in a plane of constant z."""
    tangent = np.gradient(points, axis=0)
    tangent[[0, -1]] = points[1] - points[-2]
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    out = np.cross(tangent, [0.0, 0.0, 1.0])
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    around = np.linspace(0, 2 * np.pi, 9)
    grid = points[:, None] + radius * (np.cos(around)[None, :, None] * out[:, None]
                                       + np.sin(around)[None, :, None] * np.array([0.0, 0.0, 1.0]))
    texels = np.stack(np.meshgrid(np.linspace(1, 6, 9), np.linspace(1, 6, len(points))), axis=-1)
    mesh = grid_mesh(grid, texels)
    if mesh.normals[:, 2][mesh.vertices[:, 2] > points[:, 2].max()].mean() < 0:
        return Mesh(vertices=mesh.vertices, triangles=mesh.triangles[:, ::-1].copy(),
                    texels=mesh.texels[:, ::-1].copy())
    return mesh


def make_spectacles(eyes: NDArray[np.float64], *, motion: Motion, rng: np.random.Generator, person: int = 0,
                    half_head_m: float = 0.075, stand_off_m: float = STAND_OFF_M) -> tuple[Body, Body]:
    """Frame and lenses for eyes (2, 4) as of `Heads.eyes`."""
    half_width, half_height = rng.uniform(0.023, 0.028), rng.uniform(0.016, 0.023)
    roundness, thickness = rng.uniform(2.0, 4.0), rng.uniform(0.0009, 0.0024)
    rims = [_rim_points(eye, half_width, half_height, roundness, stand_off_m) for eye in eyes]
    parts = [_tube(points, thickness) for points in rims]
    inner = [points[np.abs(points[:, 0]).argmin()] for points in rims]
    parts.append(capsule(inner[0] + [0, 0.004, 0.001], inner[1] + [0, 0.004, 0.001], thickness, thickness))
    for points, side in zip(rims, (-1.0, 1.0), strict=True):
        outer = points[(side * points[:, 0]).argmax()] + [0, 0.006, 0]
        hinge = np.array([side * (half_head_m - 0.004), outer[1], outer[2] - 0.012])
        parts.append(capsule(outer, hinge, thickness, thickness))
        parts.append(capsule(hinge, hinge + np.array([0, -0.004, -0.085]), thickness, thickness))
    dark = np.array([*rng.choice([[0.02, 0.02, 0.02], [0.10, 0.05, 0.02], [0.25, 0.23, 0.20], [0.05, 0.06, 0.15]]),
                     rng.uniform(0.08, 0.55)])  # plastics that are black in the visible are often pale at 850 nm
    texture: Float32 = np.broadcast_to(dark.astype(np.float32), (8, 8, 4)).copy()
    frame = Body(name="spectacle frame", segment=Segment.FACE, meshes={"neutral": joined(parts)}, texture=texture,
                 material=FRAME, motion=motion, person=person)
    holes = float(rng.uniform(*LENS_HOLES))
    discs = []
    for points in rims:
        middle = points[:-1].mean(axis=0)
        shares = np.linspace(1.0, 0.02, 7)[:, None, None]
        grid = middle + shares * (points[None] - middle)
        grid[..., 2] += 0.003 * (1 - shares[..., 0] ** 2)  # curved outward
        texels = np.full((*grid.shape[:2], 2), 2.0)
        disc = grid_mesh(grid, texels)
        if disc.normals[:, 2].mean() < 0:
            disc = Mesh(vertices=disc.vertices, triangles=disc.triangles[:, ::-1].copy(), texels=disc.texels)
        discs.append(disc)
    lenses = Body(name="spectacle lenses", segment=Segment.FACE, meshes={"neutral": joined(discs)},
                  texture=np.full((4, 4, 4), 0.02, np.float32), material=replace(LENS, hole_fraction=holes),
                  motion=motion, person=person)
    return frame, lenses
