"""What is worn on or stands in for a face: shells of resin, silicone, card and clear plastic; mannequins; paint."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.heads import SKIN_HEIGHT, SKIN_WIDTH, Heads, load_heads
from capture.simulated.infrared_prints import infrared_toner
from capture.simulated.materials import (
    CLEAR_PLASTIC,
    PAPER,
    PAPER_INFRARED,
    PLASTIC,
    PLASTIC_INFRARED,
    RESIN,
    RESIN_INFRARED,
    SILICONE,
    SILICONE_INFRARED,
    Material,
)
from capture.simulated.meshes import Float32, Mesh
from capture.simulated.pictures import printed
from capture.simulated.scene import Body, Segment, always_neutral
from capture.simulated.species import Ink, Paint, Shell, Stuff

_MATERIAL: dict[Stuff, Material] = {Stuff.RESIN: RESIN, Stuff.SILICONE: SILICONE, Stuff.PAPER: PAPER,
                                    Stuff.PLASTIC: PLASTIC, Stuff.CLEAR_PLASTIC: CLEAR_PLASTIC,
                                    Stuff.INFRARED_PRINT: PAPER}
#: Thickness and passes of smoothing: card keeps least of a face's relief, silicone most.
_FORM: dict[Stuff, tuple[float, int]] = {Stuff.RESIN: (0.004, 12), Stuff.SILICONE: (0.0025, 3),
                                         Stuff.PAPER: (0.006, 60), Stuff.CLEAR_PLASTIC: (0.003, 10),
                                         Stuff.INFRARED_PRINT: (0.003, 6)}


def thickness_m(stuff: Stuff) -> float:
    """Of a shell of that stuff."""
    return _FORM[stuff][0]


def shell(heads: Heads, identity: int, *, thickness_m: float = 0.004, smoothing: int = 12, expression: str = "neutral",
          amount: float = 1.0, lower_half: bool = False) -> Mesh:
    """The front of a head, pushed out and smoothed, without the eyes' openings."""
    triangles = heads.triangles[heads.part == 0]
    v = heads.vertices(identity, expression, amount).astype(np.float64)
    neutral = heads.vertices(identity).astype(np.float64)
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
    lift = np.maximum(thickness_m, min(0.003, thickness_m) - clearance)
    vertices = (smooth + lift[:, None] * normals).astype(np.float32)
    centre = neutral[triangles].mean(axis=1)
    azimuth = np.abs(heads.paint[triangles, 0].mean(axis=1) - 0.5)
    keep = (azimuth < 0.24) & (centre[:, 1] > -0.125) & (centre[:, 1] < 0.085) & (centre[:, 2] > -0.11)
    if lower_half:
        # Under the eyes, rising to the bridge of the nose.
        keep &= centre[:, 1] < -0.016 + 0.012 * np.exp(-(centre[:, 0] / 0.02) ** 2)
    for x, y, _, radius in heads.eyes(identity):
        keep &= ((centre[:, 0] - x) / (1.02 * radius)) ** 2 + ((centre[:, 1] - y) / (0.62 * radius)) ** 2 > 1
    return Mesh(vertices=vertices, triangles=triangles[keep], texels=out.texels[keep])


def paint_shell(stuff: Stuff, victim: Float32, rng: np.random.Generator) -> Float32:
    """The atlas of a shell that depicts a victim whose atlas is given."""
    texture = victim.copy()
    skin = texture[:SKIN_HEIGHT]
    if stuff is Stuff.PAPER:
        skin[:] = printed(skin[..., :3], Ink.TONER, float(rng.uniform(*PAPER_INFRARED)), rng)
        return texture
    if stuff is Stuff.INFRARED_PRINT:
        skin[:] = infrared_toner(skin[..., 3], float(rng.uniform(*PAPER_INFRARED)), rng)
        return texture
    grey = texture[..., :3].mean(axis=2, keepdims=True)
    relative = texture[..., 3] / max(float(np.median(skin[..., 3])), 1e-6)
    if stuff is Stuff.SILICONE:
        # Cast from a face and pigmented: its colour is a good match, its fine detail is not.
        texture[..., :3] = cv2.GaussianBlur(texture[..., :3], (0, 0), 2.0) * rng.uniform(0.92, 1.06, 3)
        texture[..., 3] = rng.uniform(*SILICONE_INFRARED) * (0.85 + 0.15 * relative)
    else:
        low, high = PLASTIC_INFRARED if stuff is Stuff.PLASTIC else RESIN_INFRARED
        texture[..., :3] = 0.02 + 0.95 * (grey + rng.uniform(0.75, 0.95) * (texture[..., :3] - grey))
        texture[..., 3] = rng.uniform(low, high) * (0.9 + 0.1 * relative)
    return np.clip(texture, 0, 1).astype(np.float32)


def make_shell(kind: Shell, wearer: Body, victim: Body, identity: int, rng: np.random.Generator) -> Body:
    """A mask on a living head; silicone moves with the expression below it, everything else is rigid."""
    heads = load_heads()
    thick_m, smoothing = _FORM[kind.stuff]
    if kind.stuff is Stuff.CLEAR_PLASTIC:
        texture = np.full_like(victim.texture, 0.04)
        texture[..., 3] = 0.05
    else:
        texture = paint_shell(kind.stuff, victim.texture, rng)

    def form(expression: str, amount: float = 1.0) -> Mesh:
        return shell(heads, identity, thickness_m=thick_m, smoothing=smoothing, expression=expression,
                     amount=amount, lower_half=kind.lower_half)
    meshes = {"neutral": form("neutral")}
    moves = kind.stuff in (Stuff.SILICONE, Stuff.CLEAR_PLASTIC)
    if moves:  # as far as the jaw and the cheeks go; lids blink behind the holes
        meshes |= {"smile": form("smile", 0.8), "jaw_open": form("jaw_open", 0.4)}
    return Body(name="mask", segment=Segment.FACE, meshes=meshes, texture=texture, material=_MATERIAL[kind.stuff],
                motion=wearer.motion, expression=wearer.expression if moves else always_neutral,
                face_points=wearer.face_points)


def make_mannequin(victim: Body, rng: np.random.Generator) -> Body:
    """A head of painted plastic that never blinks."""
    return replace(victim, name="mannequin", meshes={"neutral": victim.meshes["neutral"]}, expression=always_neutral,
                   texture=paint_shell(Stuff.PLASTIC, victim.texture, rng), material=PLASTIC)


def put_on(paint: Paint, head: Body, rng: np.random.Generator) -> Body:
    """A living head with paint on its skin; only the texture changes."""
    texture = head.texture.copy()
    skin = texture[:SKIN_HEIGHT]
    u, v = np.meshgrid((np.arange(SKIN_WIDTH, dtype=np.float32) + 0.5) / SKIN_WIDTH - 0.5,
                       (np.arange(SKIN_HEIGHT, dtype=np.float32) + 0.5) / SKIN_HEIGHT)
    side = np.abs(u)

    def spot(across: float, down: float, wide: float, high: float) -> Float32:
        return np.exp(-((side - across) / wide) ** 2 - ((v - down) / high) ** 2)[..., None]
    if paint is Paint.MAKE_UP:
        # Foundation evens the skin out; pigments of shadow, rouge and lipstick hardly show at 850 nm.
        face = _face_mask(side, v)
        even = np.median(skin[(face > 0.5) & (skin[..., 0] > 0.05)], axis=0)
        cover = 0.55 * face[..., None]
        foundation = even * np.array([*rng.uniform(0.85, 1.25, 3), 0.97])
        bright = (skin[..., :1] > 0.35 * even[0]).astype(np.float32)  # not over brows and hair
        skin[:] = skin * (1 - cover * bright) + cover * bright * foundation
        shadow = np.array([*rng.uniform(0.1, 0.7, 3), 0.93])
        skin *= 1 - spot(0.0556, 0.355, 0.034, 0.024) * (1 - shadow)
        skin *= 1 - 0.5 * spot(0.095, 0.56, 0.03, 0.05) * np.array([0.1, 0.6, 0.5, 0.03])
        skin *= 1 - spot(0.0, 0.70, 0.045, 0.022) * np.array([0.15, 0.75, 0.65, 0.06])
    else:
        # Lines of carbon ink, dark in both bands.
        canvas = np.zeros((SKIN_HEIGHT, SKIN_WIDTH), np.float32)
        for _ in range(int(rng.integers(4, 8))):
            start = np.array([SKIN_WIDTH * rng.uniform(0.40, 0.60), SKIN_HEIGHT * rng.uniform(0.22, 0.80)])
            angle, points = rng.uniform(0, 6.3), [start]
            for _ in range(14):
                angle += rng.normal(0, 0.5)
                points.append(points[-1] + [6 * np.cos(angle), 9 * np.sin(angle)])
            cv2.polylines(canvas, [np.array(points, np.int32)], False, 1.0, int(rng.integers(4, 9)), cv2.LINE_AA)
        ink = cv2.GaussianBlur(canvas * _face_mask(side, v), (0, 0), 1.2)[..., None] * 0.85
        skin[:] = skin * (1 - ink) + ink * np.array([0.05, 0.06, 0.07, 0.10])
    return replace(head, texture=np.clip(texture, 0, 1))


def _face_mask(side: NDArray[np.floating], v: NDArray[np.floating]) -> Float32:
    return np.asarray(np.clip((0.17 - side) / 0.03, 0, 1) * np.clip((v - 0.20) / 0.03, 0, 1)
                      * np.clip((0.92 - v) / 0.05, 0, 1), np.float32)
