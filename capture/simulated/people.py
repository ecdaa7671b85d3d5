"""Live persons: a head with expressions on a torso."""

from __future__ import annotations

import cv2
import numpy as np

from capture.simulated.heads import EXPRESSIONS, load_heads
from capture.simulated.materials import CLOTH, CLOTH_INFRARED, SKIN
from capture.simulated.meshes import Float32, torso_mesh
from capture.simulated.scene import Blinking, Body, Motion, Segment
from capture.simulated.skin import Complexion, paint_head

#: What a head turns about, in its own frame: the top of the spine, behind and below the eyes.
NECK_PIVOT_M = (0.0, -0.07, -0.09)


def paint_cloth(rng: np.random.Generator) -> Float32:
    """A knitted shirt: (64, 64, 4). Dyes that are dark in the visible are often bright at 850 nm."""
    colour = np.array([*rng.uniform(0.03, 0.45, 3), CLOTH_INFRARED * rng.uniform(0.6, 1.4)])
    knit = 1 + 0.12 * cv2.GaussianBlur(rng.standard_normal((64, 64)), (0, 0), 0.8)
    return np.asarray(np.clip(knit[..., None] * colour, 0, 1), np.float32)


def make_person(*, seed: int, identity: int, motion: Motion, person: int = 0) -> tuple[Body, Body]:
    """Head and torso of one live person; `identity` picks the baked head, `seed` the colours and the blinking."""
    heads = load_heads()
    identity %= len(heads)
    rng = np.random.default_rng([seed, 11])
    meshes = {"neutral": heads.mesh(identity), "half_blink": heads.mesh(identity, "blink", 0.5)}
    meshes |= {name: heads.mesh(identity, name, 0.5 if name == "jaw_open" else 1.0) for name in EXPRESSIONS}
    head = Body(name=f"head {identity}", segment=Segment.FACE, meshes=meshes,
                texture=paint_head(heads, Complexion.random(rng), rng), material=SKIN, motion=motion,
                expression=Blinking(seed), face_points=heads.face_points(identity), person=person)
    torso = Body(name="torso", segment=Segment.OTHER, meshes={"neutral": torso_mesh()}, texture=paint_cloth(rng),
                 material=CLOTH, motion=motion, person=person)
    return head, torso
