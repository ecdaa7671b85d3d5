"""Printed sheets: pages, cut-outs and strips of any bend, with the infrared of their ink and paper."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.infrared_prints import printed_picture
from capture.simulated.materials import (
    CLOTH_SHEET_INFRARED,
    GLOSSY_PAPER,
    PAPER,
    PAPER_INFRARED,
    PRINTED_CLOTH,
    Material,
)
from capture.simulated.meshes import Float32, Mesh, grid_mesh
from capture.simulated.pictures import Picture
from capture.simulated.scene import Body, Motion, Segment
from capture.simulated.species import Bend, Cut, Finish, Outline, Sheet

PAGE_M = (0.210, 0.297)  # A4
_CELL_M = 0.0022
_MARGIN_M = 0.004
#: How far a nose stands out from the plane of the eyes: so far before it a sheet is held.
NOSE_M = 0.030
_FINISH: dict[Finish, tuple[Material, tuple[float, float]]] = {
    Finish.MATTE: (PAPER, PAPER_INFRARED), Finish.GLOSSY: (GLOSSY_PAPER, PAPER_INFRARED),
    Finish.CLOTH: (PRINTED_CLOTH, CLOTH_SHEET_INFRARED)}


@dataclass(frozen=True)
class Ellipse:
    """An ellipse on a sheet, metres from the point between the depicted eyes."""

    across: float
    up: float
    half_width: float
    half_height: float

    def radius(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """1 on the edge, less inside; places (..., 2)."""
        return np.hypot((places[..., 0] - self.across) / self.half_width, (places[..., 1] - self.up) / self.half_height)


def cut_ellipses(parts: tuple[Cut, ...], eye_half_distance_m: float) -> tuple[Ellipse, ...]:
    """Where parts of a face are cut out, for a face with that half distance between its eyes."""
    scale = eye_half_distance_m / 0.031
    by_part = {
        Cut.EYES: [Ellipse(side * 0.031 * scale, 0.0, 0.019 * scale, 0.0115 * scale) for side in (-1, 1)],
        Cut.NOSE: [Ellipse(0.0, -0.036 * scale, 0.019 * scale, 0.024 * scale)],
        Cut.MOUTH: [Ellipse(0.0, -0.075 * scale, 0.029 * scale, 0.013 * scale)],
    }
    return tuple(ellipse for part in parts for ellipse in by_part[part])


def kept_ellipses(outline: Outline, picture: Picture, eye_half_distance_m: float) -> tuple[Ellipse, ...]:
    """What is left of the page: the union of these; empty for the whole page."""
    scale = eye_half_distance_m / 0.031
    if outline is Outline.EYE_DISCS:
        return tuple(Ellipse(side * 0.033 * scale, -0.001, 0.027 * scale, 0.021 * scale) for side in (-1, 1))
    if outline is Outline.EYE_STRIP:
        return (Ellipse(0.0, 0.002, 0.078 * scale, 0.027 * scale),)
    if outline is Outline.BUST:
        # Cut with scissors round hair and shoulders, not along every strand.
        low, high = picture.outline_m.min(axis=0), picture.outline_m.max(axis=0)
        face = (high - low) / 2
        middle = float(low[0] + face[0])
        return (Ellipse(middle, float(low[1] + high[1]) / 2 + 0.022 * scale, 1.15 * float(face[0]),
                        float(face[1]) + 0.047 * scale),
                Ellipse(middle, -0.135 * scale, 0.074 * scale, 0.075 * scale),
                Ellipse(middle, -0.330 * scale, 0.265 * scale, 0.185 * scale))
    if outline is Outline.FACE:
        low, high = picture.outline_m.min(axis=0), picture.outline_m.max(axis=0)
        # A little forehead belongs to a face that somebody cuts out.
        high = high + np.array([0.0, 0.035])
        middle, half = (low + high) / 2, (high - low) / 2
        return (Ellipse(float(middle[0]), float(middle[1]), float(half[0]) * 1.02, float(half[1]) * 1.02),)
    return ()


def bend_sheet(places: NDArray[np.float64], bend: Bend, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points (..., 3) of places (..., 2) of a sheet; the point between the eyes stays at the origin."""
    x, y = places[..., 0], places[..., 1]
    if bend is Bend.FLAT:
        # Paper held by its edges: never quite flat, 1 mm over a hand's breadth.
        return np.stack([x, y, 0.0012 * np.sin(x * 19 + rng.uniform(0, 6)) * np.cos(y * 13 + rng.uniform(0, 6))], -1)
    if bend is Bend.FORMED:
        # Half an egg with a soft ridge down the nose; eye sockets a little lower.
        drop = 0.060 * (x / 0.075) ** 2 + 0.022 * ((y + 0.03) / 0.10) ** 2
        ridge = 0.020 * np.exp(-(x / 0.014) ** 2 - ((y + 0.042) / 0.026) ** 2)
        sockets = 0.007 * np.exp(-((np.abs(x) - 0.031) / 0.018) ** 2 - (y / 0.013) ** 2)
        return np.stack([x, y, ridge - drop - sockets], -1)
    if bend is Bend.DRAPED:
        folds = sum(rng.uniform(0.002, 0.006) * np.sin(x * rng.uniform(20, 60) + y * rng.uniform(-15, 15)
                                                       + rng.uniform(0, 6)) for _ in range(3))
        return np.stack([x, y, np.broadcast_to(folds, x.shape)], -1)
    radius = rng.uniform(0.085, 0.11) if bend is Bend.BENT else rng.uniform(0.35, 0.8)
    # A page held in hands is rolled about any near-vertical axis, one bent around a head about its own.
    axis = 0.0 if bend is Bend.BENT else rng.uniform(-0.5, 0.5)
    across, along = x * np.cos(axis) + y * np.sin(axis), -x * np.sin(axis) + y * np.cos(axis)
    rolled, deep = radius * np.sin(across / radius), radius * (np.cos(across / radius) - 1)
    return np.stack([rolled * np.cos(axis) - along * np.sin(axis), rolled * np.sin(axis) + along * np.cos(axis), deep],
                    -1)


def resting_place(points: NDArray[np.float64], stays: NDArray[np.bool_],
                  wearer: NDArray[np.floating]) -> float:
    """How far forward a sheet has to be moved to rest on its wearer's vertices (V, 3) without cutting them, metres.

    What pokes through a hole does not hold it off. `points` (rows, columns, 3) of the sheet, `stays` where it is left.
    """
    size = 0.003  # cells of a height map in which sheet and wearer meet
    low, high = points[..., :2].min(axis=(0, 1)), points[..., :2].max(axis=(0, 1))
    shape = tuple(int(n) for n in np.ceil((high - low) / size).astype(int)[::-1] + 1)
    sheet = np.full(shape, np.nan)
    column, row = (((points[..., :2] - low) / size).astype(int))[stays].T
    sheet[row, column] = points[..., 2][stays]
    front = wearer[(wearer[:, 2] > -0.10) & (wearer[:, :2] > low).all(1) & (wearer[:, :2] < high).all(1)]
    column, row = ((front[:, :2] - low) / size).astype(int).T
    clearance = front[:, 2] - sheet[row, column]
    touching = clearance[np.isfinite(clearance)]
    return float(touching.max()) + 0.002 if len(touching) else NOSE_M


def sheet_grid(size_m: tuple[float, float], eye: tuple[float, float]) -> NDArray[np.float64]:
    """Places (rows, columns, 2) of a page of `size_m`, whose eyes lie at `eye` (shares of width and height)."""
    columns, rows = (int(np.ceil(length / _CELL_M)) + 1 for length in size_m)
    across = (np.linspace(0, 1, columns) - eye[0]) * size_m[0]
    up = (eye[1] - np.linspace(0, 1, rows)) * size_m[1]
    return np.stack(np.meshgrid(across, up), axis=-1)


def cut_grid(places: NDArray[np.float64], kept: tuple[Ellipse, ...],
             cut: tuple[Ellipse, ...]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Places (rows, columns, 2) of a grid, those near an edge moved onto it, and (rows, columns) which stay."""
    places = places.copy()
    for ellipse in (*kept, *cut):
        radius = ellipse.radius(places)
        near = np.abs(radius - 1) * min(ellipse.half_width, ellipse.half_height) < 0.6 * _CELL_M
        middle = np.array([ellipse.across, ellipse.up])
        places[near] = middle + (places[near] - middle) / radius[near][:, None]
    stays = np.ones(places.shape[:2], bool)
    if kept:
        stays = np.min([ellipse.radius(places) for ellipse in kept], axis=0) < 1 + 1e-6
    for ellipse in cut:
        stays &= ellipse.radius(places) > 1 - 1e-6
    return places, stays


def trimmed(mesh: Mesh, stays: NDArray[np.bool_]) -> Mesh:
    """The triangles all of whose vertices stay."""
    keep = stays.ravel()[mesh.triangles].all(axis=1)
    return Mesh(vertices=mesh.vertices, triangles=mesh.triangles[keep], texels=mesh.texels[keep])


def make_sheet(sheet: Sheet, picture: Picture, *, eye_half_distance_m: float, motion: Motion,
               rng: np.random.Generator, wearer: NDArray[np.floating] | None = None, bust: bool = False) -> Body:
    """The sheet as a body whose origin is that of the depicted or worn face, eyes at the eyes.

    `bust` cuts a whole page along head and shoulders.
    `wearer`: vertices (V, 3) of the head on which it rests, in every expression; None for a sheet held in hands.
    """
    material, limits = _FINISH[sheet.finish]
    paper_infrared = float(rng.uniform(*limits))
    texture = printed_picture(picture, sheet.ink, paper_infrared, rng)
    height, width = texture.shape[:2]
    outline = Outline.BUST if bust and sheet.outline is Outline.PAGE else sheet.outline
    if sheet.outline is Outline.PAGE:
        margin = round(_MARGIN_M / picture.metres_per_pixel)
        blank = np.ones((height, width), bool)
        blank[margin:-margin, margin:-margin] = False
        texture[blank] = [0.80, 0.80, 0.78, paper_infrared]
    if sheet.finish is Finish.CLOTH:
        weave = cv2.GaussianBlur(rng.standard_normal((height, width)).astype(np.float32), (0, 0), 1.2)
        texture *= 1 + 0.10 * weave[..., None]
    size_m = (width * picture.metres_per_pixel, height * picture.metres_per_pixel)
    eye = (picture.eye_pixel[0] / (width - 1), picture.eye_pixel[1] / (height - 1))
    places, stays = cut_grid(sheet_grid(size_m, eye), kept_ellipses(outline, picture, eye_half_distance_m),
                             cut_ellipses(sheet.cut, eye_half_distance_m))
    points = bend_sheet(places, sheet.bend, rng)
    points[..., 2] += NOSE_M if wearer is None else resting_place(points, stays, wearer)
    mesh = trimmed(grid_mesh(points, picture.pixels(places)), stays)
    return Body(name="sheet", segment=Segment.FACE, meshes={"neutral": mesh}, texture=texture, material=material,
                motion=motion, face_points=_outline(points, places, picture.outline_m))


def _outline(points: NDArray[np.float64], places: NDArray[np.float64], outline_m: NDArray[np.float64]) -> Float32:
    """Points of a grid nearest to the outline's places, good to a cell."""
    across, up = places[places.shape[0] // 2, :, 0], places[:, places.shape[1] // 2, 1]
    column = np.abs(across[None] - outline_m[:, :1]).argmin(axis=1)
    row = np.abs(up[None] - outline_m[:, 1:]).argmin(axis=1)
    return np.asarray(points[row, column], np.float32)
