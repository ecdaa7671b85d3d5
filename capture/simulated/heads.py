"""The baked heads: geometry from `assets/heads.npz`, with expressions, as `Mesh`es."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capture.camera import CameraError
from capture.simulated.meshes import Float32, Mesh

ASSET = Path(__file__).parent / "assets" / "heads.npz"
ASSET_SHA256 = "5fd6ad63f4639ae6c60eba3c121008209bd7c0c1c5a809eb3ed7396b5bd141ee"
UNIT_M = 1e-5  # of the stored positions
EXPRESSIONS = ("blink", "smile", "jaw_open")  # order of the stored ones

#: The texture of a head: skin around the whole head above, then tiles for right eye, left eye, inside of the mouth.
SKIN_WIDTH, SKIN_HEIGHT, TILE = 1024, 512, 96
ATLAS_SHAPE = (SKIN_HEIGHT + TILE, SKIN_WIDTH)


class HeadAssetError(CameraError):
    """The baked heads are missing or not the ones this build was made with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """All baked heads, each a mean plus weighted components. An identity counts modulo their number."""

    mean: Float32  # (1 + expressions, V, 3) metres, origin between the eyes: neutral, then what expressions add
    components: Float32  # (components, 1 + expressions, V, 3) metres for a coefficient of 1
    coefficients: Float32  # (heads, components)
    held_out: NDArray[np.bool_]  # (heads,): of the family kept for testing
    triangles: NDArray[np.int32]
    part: NDArray[np.uint8]  # (T,): 0 skin, 1 eyes, 2 inside of the mouth
    texels: Float32  # (T, 3, 2) in the atlas
    paint: Float32  # (V, 2) texture coordinates in [0, 1]
    lips: Float32  # map in [0, 1] over the skin's texture coordinates
    _shapes: dict[int, Float32] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.coefficients)

    def family(self, held_out: bool = False) -> tuple[int, ...]:
        """Identities of the main family, or of the one that is kept for testing (older, other shapes)."""
        return tuple(int(i) for i in np.flatnonzero(self.held_out == held_out))

    def another(self, identity: int, step: int) -> int:
        """The identity `step` places on in the same family."""
        family = self.family(bool(self.held_out[identity % len(self)]))
        return family[(family.index(identity % len(self)) + step) % len(family)]

    def shape(self, identity: int) -> Float32:
        """(1 + expressions, V, 3): the neutral head, then what each expression adds."""
        identity %= len(self)
        if identity not in self._shapes:
            added = np.tensordot(self.coefficients[identity], self.components, axes=1)
            self._shapes[identity] = np.asarray(self.mean + added, np.float32)
        return self._shapes[identity]

    def vertices(self, identity: int, expression: str = "neutral", amount: float = 1.0) -> Float32:
        """Vertices (V, 3) of one head with `amount` of one expression."""
        shape = self.shape(identity)
        if expression == "neutral":
            return np.asarray(shape[0])
        return np.asarray(shape[0] + np.float32(amount) * shape[1 + EXPRESSIONS.index(expression)])

    def mesh(self, identity: int, expression: str = "neutral", amount: float = 1.0) -> Mesh:
        return Mesh(vertices=self.vertices(identity, expression, amount), triangles=self.triangles,
                    texels=self.texels)

    def eyes(self, identity: int) -> NDArray[np.float64]:
        """(2, 4): centre and radius of the right (negative x) and the left eyeball, metres."""
        v = self.vertices(identity)[np.unique(self.triangles[self.part == 1])].astype(np.float64)
        found = []
        for own in (v[v[:, 0] < 0], v[v[:, 0] >= 0]):
            low, high = own.min(axis=0), own.max(axis=0)
            radius = float((high - low)[:2].max() / 2)
            found.append([*((low + high) / 2)[:2], high[2] - radius, radius])
        return np.array(found)

    def face_points(self, identity: int) -> Float32:
        """The vertices of the face proper, hairline to chin and cheek to cheek: what a face box should enclose."""
        v = self.vertices(identity)
        skin = np.zeros(len(v), bool)
        skin[self.triangles[self.part == 0].ravel()] = True
        front = skin & (np.abs(self.paint[:, 0] - 0.5) < 0.17) & (v[:, 1] < 0.04) & (v[:, 2] > -0.075)
        return np.asarray(v[front])


@lru_cache(maxsize=1)
def load_heads() -> Heads:
    """Reads and checks the asset.

    Raises:
        HeadAssetError: the file is missing, or its SHA-256 is not the committed one.
    """
    try:
        raw = ASSET.read_bytes()
    except OSError as error:
        raise HeadAssetError(f"baked heads {ASSET}: {error}; reinstall, or bake them with "
                             "`python -m capture.simulated.bake_heads`") from None
    digest = hashlib.sha256(raw).hexdigest()
    if digest != ASSET_SHA256:
        raise HeadAssetError(f"baked heads {ASSET}: SHA-256 {digest}, expected {ASSET_SHA256}; reinstall, or after "
                             "baking on purpose update heads.ASSET_SHA256")
    with np.load(io.BytesIO(raw), allow_pickle=False) as stored:
        data = {name: stored[name] for name in stored.files}
    triangles, part, paint = data["triangles"].astype(np.int32), data["part"], data["paint"]
    corners = paint[triangles].astype(np.float32)  # (T, 3, 2)
    skin = part == 0
    # Triangles across the back of the head join azimuth -180 and 180 degrees: keep them on one side.
    across = skin & (np.ptp(corners[:, :, 0], axis=1) > 0.5)
    corners[across, :, 0] = np.where(corners[across, :, 0] < 0.5, 0.999, corners[across, :, 0])
    texels = corners * np.array([SKIN_WIDTH - 1, SKIN_HEIGHT - 1], np.float32)
    mean = data["mean"].astype(np.float32) * np.float32(UNIT_M)
    tile = np.where(part == 2, 2, np.where(mean[0][triangles].mean(axis=1)[:, 0] < 0, 0, 1))
    inside = corners * (TILE - 1)
    inside[:, :, 0] += (tile * TILE)[:, None]
    inside[:, :, 1] += SKIN_HEIGHT
    inside[part == 2] = np.array([2.5 * TILE, SKIN_HEIGHT + TILE / 2], np.float32)
    texels[~skin] = inside[~skin]
    return Heads(mean=mean, components=data["components"].astype(np.float32) * np.float32(UNIT_M),
                 coefficients=data["coefficients"], held_out=data["held_out"], triangles=triangles, part=part,
                 texels=texels, paint=paint, lips=data["lips"].astype(np.float32) / 255)
