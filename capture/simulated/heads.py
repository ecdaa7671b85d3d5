"""The baked heads: geometry from `assets/heads.npz`, with expressions, as `Mesh`es."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from capture.camera import CameraError
from capture.simulated.meshes import Float32, Mesh

ASSET = Path(__file__).parent / "assets" / "heads.npz"
ASSET_SHA256 = "45c46684bf9e394e6158dfa81a3780283dffc796652e7387dc91e1338ef1c169"
UNIT_M = 1e-5  # of the stored positions
EXPRESSIONS = ("blink", "smile", "jaw_open")  # order of the stored ones

#: The texture of a head: skin around the whole head above, then tiles for right eye, left eye, inside of the mouth.
SKIN_WIDTH, SKIN_HEIGHT, TILE = 1536, 512, 96
ATLAS_SHAPE = (SKIN_HEIGHT + TILE, SKIN_WIDTH)


class HeadAssetError(CameraError):
    """The baked heads are missing or not the ones this build was made with."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """All baked heads. Regions are float32 maps in [0, 1] over the skin's texture coordinates."""

    neutral: Float32  # (heads, V, 3) metres, origin between the eyes
    expressions: Float32  # (heads, expressions, V, 3) metres to add
    triangles: NDArray[np.int32]
    part: NDArray[np.uint8]  # (T,): 0 skin, 1 eyes, 2 inside of the mouth
    texels: Float32  # (T, 3, 2) in the atlas
    paint: Float32  # (V, 2) texture coordinates in [0, 1]
    lips: Float32
    eyes: Float32  # (heads, 2, 4): centre and radius, right then left

    def __len__(self) -> int:
        return len(self.neutral)

    def vertices(self, identity: int, expression: str = "neutral", amount: float = 1.0) -> Float32:
        """Vertices (V, 3) of one head with `amount` of one expression."""
        if expression == "neutral":
            return np.asarray(self.neutral[identity])
        added = self.expressions[identity, EXPRESSIONS.index(expression)]
        return np.asarray(self.neutral[identity] + np.float32(amount) * added)

    def mesh(self, identity: int, expression: str = "neutral", amount: float = 1.0) -> Mesh:
        return Mesh(vertices=self.vertices(identity, expression, amount), triangles=self.triangles,
                    texels=self.texels)

    def face_points(self, identity: int) -> Float32:
        """The vertices of the face proper, hairline to chin and cheek to cheek: what a face box should enclose."""
        v = self.neutral[identity]
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
    neutral = data["neutral"].astype(np.float32) * np.float32(UNIT_M)
    tile = np.where(part == 2, 2, np.where(neutral[0][triangles].mean(axis=1)[:, 0] < 0, 0, 1))
    inside = corners * (TILE - 1)
    inside[:, :, 0] += (tile * TILE)[:, None]
    inside[:, :, 1] += SKIN_HEIGHT
    inside[part == 2] = np.array([2.5 * TILE, SKIN_HEIGHT + TILE / 2], np.float32)
    texels[~skin] = inside[~skin]
    return Heads(neutral=neutral, expressions=data["expressions"].astype(np.float32) * np.float32(UNIT_M),
                 triangles=triangles, part=part, texels=texels, paint=paint, eyes=data["eyes"],
                 lips=data["lips"].astype(np.float32) / 255)
