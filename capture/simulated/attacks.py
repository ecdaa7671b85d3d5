"""Presentation attacks: a bent print, a screen, a rigid mask. First sketches with the right structure.

Print and screen show a picture that was taken by the same colour path as the camera's own: the head is rendered,
encoded to 8 bits and decoded again, then printed or displayed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from capture.rig import Extrinsics, Intrinsics
from capture.simulated.heads import Heads, load_heads
from capture.simulated.materials import (
    BEZEL_INFRARED,
    INK_INFRARED,
    PAPER,
    PAPER_INFRARED,
    RESIN,
    RESIN_INFRARED,
    SCREEN,
    SCREEN_INFRARED,
)
from capture.simulated.meshes import Float32, Mesh, grid_mesh
from capture.simulated.people import NECK_PIVOT_M, make_person
from capture.simulated.render import Stage, View, wall_radiance
from capture.simulated.response import decode_srgb, encode_srgb
from capture.simulated.scene import Body, Light, Motion, Scene, Segment, Wall, always_neutral

_PICTURE = (600, 840)  # width, height in pixels


def take_picture(*, seed: int, identity: int, width_m: float) -> tuple[Float32, NDArray[np.float64]]:
    """A frontal portrait, `width_m` wide at the distance of the face.

    Returns linear radiance (840, 600, 3) in [0, 1] after an 8-bit round trip, and where the face's outline points fall
    in it, (K, 2) pixels.
    """
    width, height = _PICTURE
    distance = 0.9
    still = Motion(centre_m=(0.0, 0.0, distance), pivot_m=NECK_PIVOT_M, sway_m=(0, 0, 0),
                   attitude_rad=(0.03, 0.0, 0.01), tremor_m=0.0, seed=seed)
    bodies = tuple(replace(body, expression=always_neutral) for body in make_person(seed=seed, identity=identity,
                                                                              motion=still))
    scene = Scene(name="picture", label=None, species=None, bodies=bodies, wall=Wall(distance_m=1.6, seed=seed + 5),
                  light=Light(towards_key=(0.25, -0.4, -0.88), key=0.5, ambient=0.5))
    focal = width * distance / width_m
    view = View(intrinsics=Intrinsics(width=width, height=height, fx=focal, fy=focal, cx=width / 2 - 0.5,
                                      cy=height * 0.44), from_world=Extrinsics.identity())
    stage = Stage(scene)
    states = stage.states(0.0)
    visible = stage.visible(view, states)
    radiance = wall_radiance(view, scene.wall, scene.light)[0].reshape(-1, 3).copy()
    for layer in visible.layers:
        shaded = stage.shade(view, layer, colour=True, infrared=False)
        assert shaded.colour is not None
        radiance[layer.pixel] = shaded.colour
    outline = bodies[0].face_points
    assert outline is not None
    picture = decode_srgb(encode_srgb(radiance.reshape(height, width, 3)))
    return picture, view.project(states[0].pose.to_world(outline))


def _sheet(width_m: float, height_m: float, radius_m: float, columns: int = 33, rows: int = 25) -> NDArray[np.float64]:
    """Points (rows, columns, 3) of a sheet rolled about a vertical axis behind it; an infinite radius keeps it flat."""
    across, down = np.linspace(-0.5, 0.5, columns) * width_m, np.linspace(0.5, -0.5, rows) * height_m
    if np.isinf(radius_m):
        x, z = across, np.zeros_like(across)
    else:
        x, z = radius_m * np.sin(across / radius_m), radius_m * (np.cos(across / radius_m) - 1)
    points = np.zeros((rows, columns, 3))
    points[..., 0], points[..., 1], points[..., 2] = x, down[:, None], z
    return points


def _picture_grid(columns: int, rows: int, width: int, height: int) -> NDArray[np.float64]:
    return np.stack(np.meshgrid(np.linspace(0, width - 1, columns), np.linspace(0, height - 1, rows)), axis=-1)


def _outline_on(points: NDArray[np.float64], pixels: NDArray[np.float64], size: tuple[int, int]) -> Float32:
    """Points of a sheet's grid under picture pixels (K, 2): the grid point nearest to each, good to a few mm."""
    rows, columns = points.shape[:2]
    column = np.clip(np.rint(pixels[:, 0] / (size[0] - 1) * (columns - 1)), 0, columns - 1).astype(int)
    row = np.clip(np.rint(pixels[:, 1] / (size[1] - 1) * (rows - 1)), 0, rows - 1).astype(int)
    return np.asarray(points[row, column], np.float32)


def make_print(*, seed: int, identity: int, motion: Motion) -> tuple[Body, ...]:
    """An A4 sheet with a life-sized portrait, slightly rolled. Ink hides little at 850 nm: a dull, even rectangle."""
    width_m, height_m, margin = 0.210, 0.297, 12
    picture, outline = take_picture(seed=seed, identity=identity, width_m=width_m)
    height, width = picture.shape[:2]
    ink = 1 - picture.mean(axis=2, keepdims=True)
    # A print's blacks are not black and its colours are duller than the scene's.
    grey = picture.mean(axis=2, keepdims=True)
    printed = 0.03 + 0.80 * (grey + 0.82 * (picture - grey))
    infrared = PAPER_INFRARED * (INK_INFRARED + (1 - INK_INFRARED) * (1 - ink))
    texture = np.concatenate([printed, infrared], axis=2).astype(np.float32)
    blank = np.ones((height, width), bool)
    blank[margin:-margin, margin:-margin] = False
    texture[blank] = [0.82, 0.82, 0.80, PAPER_INFRARED]
    radius = float(np.random.default_rng([seed, 21]).uniform(0.35, 0.8))
    grid = _sheet(width_m, height_m, radius, 97, 129)
    mesh = grid_mesh(grid[::4, ::4], _picture_grid(97, 129, width, height)[::4, ::4])
    return (Body(name="print", segment=Segment.FACE, meshes={"neutral": mesh}, texture=texture, material=PAPER,
                 motion=motion, face_points=_outline_on(grid, outline, (width, height))),)


def make_screen(*, seed: int, identity: int, motion: Motion) -> tuple[Body, ...]:
    """A tablet that shows the portrait: it glows in colour, returns nearly nothing at 850 nm but a mirror's glint."""
    width_m, height_m, bezel_m = 0.200, 0.270, 0.012
    picture, outline = take_picture(seed=seed, identity=identity, width_m=width_m)
    height, width = picture.shape[:2]
    texture = np.concatenate([0.01 + picture, np.full((height, width, 1), SCREEN_INFRARED)], axis=2).astype(np.float32)
    bezel = round(bezel_m / width_m * width)
    frame = np.ones((height, width), bool)
    frame[bezel:-bezel, bezel:-bezel] = False
    texture[frame] = [0.012, 0.012, 0.013, BEZEL_INFRARED]
    grid = _sheet(width_m, height_m, float("inf"), 97, 129)
    mesh = grid_mesh(grid[::32, ::32], _picture_grid(97, 129, width, height)[::32, ::32])
    return (Body(name="screen", segment=Segment.FACE, meshes={"neutral": mesh}, texture=texture, material=SCREEN,
                 motion=motion, face_points=_outline_on(grid, outline, (width, height))),)


def shell(heads: Heads, identity: int, *, thickness_m: float = 0.004, smoothing: int = 12) -> Mesh:
    """The front of a head, pushed out and smoothed, without the eyes' openings."""
    triangles = heads.triangles[heads.part == 0]
    v = heads.neutral[identity].astype(np.float64)
    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    count = np.maximum(np.bincount(edges[:, 0], minlength=len(v)), 1)[:, None]
    smooth = v.copy()
    for _ in range(smoothing):
        mean = np.stack([np.bincount(edges[:, 0], smooth[edges[:, 1], axis], len(v)) for axis in range(3)], 1) / count
        smooth += 0.5 * (mean - smooth)
    out = Mesh(vertices=smooth.astype(np.float32), triangles=triangles, texels=heads.texels[heads.part == 0])
    # Where smoothing pulled the surface in (a chin, a brow), push it out again: a shell never cuts its wearer.
    normals = out.normals.astype(np.float64)
    clearance = np.einsum("ij,ij->i", smooth - v, normals)
    lift = np.maximum(thickness_m, 0.003 - clearance)
    vertices = (smooth + lift[:, None] * normals).astype(np.float32)
    centre = v[triangles].mean(axis=1)
    azimuth = np.abs(heads.paint[triangles, 0].mean(axis=1) - 0.5)
    keep = (azimuth < 0.24) & (centre[:, 1] > -0.125) & (centre[:, 1] < 0.085) & (centre[:, 2] > -0.11)
    for x, y, _, radius in heads.eyes[identity]:
        keep &= ((centre[:, 0] - x) / (1.02 * radius)) ** 2 + ((centre[:, 1] - y) / (0.62 * radius)) ** 2 > 1
    return Mesh(vertices=vertices, triangles=triangles[keep], texels=out.texels[keep])


def make_mask(*, seed: int, identity: int, motion: Motion) -> tuple[Body, ...]:
    """A painted resin shell over a live head: rigid, smoother, other infrared, the wearer's eyes behind its holes."""
    head, torso = make_person(seed=seed + 1000, identity=identity, motion=motion)
    victim, _ = make_person(seed=seed, identity=identity, motion=motion)
    texture = victim.texture.copy()
    grey = texture[..., :3].mean(axis=2, keepdims=True)
    texture[..., :3] = 0.02 + 0.95 * (grey + 0.85 * (texture[..., :3] - grey))
    texture[..., 3] = RESIN_INFRARED * (0.9 + 0.1 * texture[..., 3] / texture[..., 3].max())
    rigid = {"neutral": shell(load_heads(), identity % len(load_heads()))}
    mask = Body(name="mask", segment=Segment.FACE, meshes=rigid,
                texture=texture, material=RESIN, motion=motion, face_points=head.face_points)
    return mask, replace(head, face_points=None), torso
