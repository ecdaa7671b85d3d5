"""Live persons: a head with expressions, hair and perhaps spectacles, on a torso."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np

from capture.simulated.covers import Cover, make_cover
from capture.simulated.eyewear import STAND_OFF_M, make_spectacles
from capture.simulated.garments import make_garments, woven
from capture.simulated.hair import Hair, HairStyle, beard_mesh, hair_mesh, paint_hair
from capture.simulated.heads import EXPRESSIONS, load_heads
from capture.simulated.materials import CLOTH, HAIR, HAIR_HOLES, SKIN
from capture.simulated.meshes import Float32, torso_mesh
from capture.simulated.scene import Blinking, Body, Motion, Segment
from capture.simulated.skin import Complexion, paint_head

#: What a head turns about, in its own frame: the top of the spine, behind and below the eyes.
NECK_PIVOT_M = (0.0, -0.07, -0.09)
#: Share of people who wear spectacles.
SPECTACLES = 0.3


@lru_cache(maxsize=6)
def _complexion(seed: int) -> tuple[Complexion, Float32]:
    """Colours of a person and the atlas painted with them; the last few are kept, for a victim comes up repeatedly."""
    rng = np.random.default_rng([seed, 11])
    complexion = Complexion.random(rng)
    texture = paint_head(load_heads(), complexion, rng)
    texture.flags.writeable = False
    return complexion, texture


def make_person(*, seed: int, identity: int, motion: Motion, person: int = 0, spectacles: bool = True,
                headwear: bool = True, above_skin_m: float = 0.0,
                cover: Cover = Cover.NONE) -> tuple[Body, ...]:
    """Head, torso, then what there is of hair, beard, spectacles, hat, scarf, hood and headscarf of one person.

    `identity` picks the form of the head, `seed` colours, hair and clothes, the motion's seed the blinking. Spectacles
    and fringe sit `above_skin_m` further out when something is worn below them; `spectacles=False` and `headwear=False`
    take off what could not be worn over something else. `cover` hides hair, fringe and hat.
    """
    heads = load_heads()
    identity %= len(heads)
    complexion, texture = _complexion(seed)
    meshes = {"neutral": heads.mesh(identity), "half_blink": heads.mesh(identity, "blink", 0.5)}
    meshes |= {name: heads.mesh(identity, name, 0.5 if name == "jaw_open" else 1.0) for name in EXPRESSIONS}
    blinking = Blinking(motion.seed)
    head = Body(name=f"head {identity}", segment=Segment.FACE, meshes=meshes,
                texture=texture, material=SKIN, motion=motion,
                expression=blinking, face_points=heads.face_points(identity), person=person)
    torso = Body(name="torso", segment=Segment.OTHER, meshes={"neutral": torso_mesh()}, material=CLOTH,
                 texture=woven(np.random.default_rng([seed, 14])), motion=motion, person=person)
    bodies = [head, torso]
    grown = np.random.default_rng([seed, 12])
    hair = Hair.random(complexion, grown)
    strands = paint_hair(complexion, grown)
    coarse = replace(HAIR, hole_fraction=float(np.random.default_rng([seed, 17]).uniform(*HAIR_HOLES)))
    coat = hair_mesh(heads, identity, hair.style, complexion, grown)
    if coat is not None and cover is Cover.NONE:
        bodies.append(Body(name=f"{HairStyle(hair.style).value} hair", segment=Segment.OTHER, meshes={"neutral": coat},
                           texture=strands, material=coarse, motion=motion, person=person))
    if hair.beard_m:
        beards = {"neutral": beard_mesh(heads, identity, hair.beard_m),
                  "smile": beard_mesh(heads, identity, hair.beard_m, "smile"),
                  "jaw_open": beard_mesh(heads, identity, hair.beard_m, "jaw_open", 0.5)}
        bodies.append(Body(name="beard", segment=Segment.FACE, meshes=beards, texture=texture, material=coarse,
                           motion=motion, expression=blinking, person=person))
    if np.random.default_rng([seed, 13]).uniform() < SPECTACLES and spectacles:
        outline = heads.face_points(identity)
        bodies.extend(make_spectacles(heads.eyes(identity), motion=motion, rng=grown, person=person,
                                      stand_off_m=STAND_OFF_M + above_skin_m,
                                      half_head_m=float(np.abs(outline[:, 0]).max()) + 0.004))
    bodies.extend(make_garments(heads, identity, seed=seed, motion=motion, person=person,
                                headwear=headwear and cover is Cover.NONE,
                                strands=None if coat is None else strands, above_skin_m=above_skin_m))
    bodies.extend(make_cover(heads, identity, cover, seed=seed, motion=motion, person=person,
                             above_skin_m=above_skin_m))
    return tuple(bodies)
