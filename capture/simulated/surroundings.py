"""What stands near a face in a session, and what is worn around it: drawn from the session's seed, never from a label.

A sheet or a display is larger than a face, so whatever is near the face but outside the detector's box would mean
"attack" if live people always stood alone before a far wall. Here anybody may lean back against a wall, sit in a chair
with a high headrest, stand in a booth or beside a notice board, wear a hood or a headscarf, or share the view with
somebody else; and whoever holds an instrument where there is no room for a body behind it kneels below the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from capture.simulated.bystanders import Crossing, make_bystander
from capture.simulated.covers import Cover
from capture.simulated.furniture import make_board, make_headrest, make_panel
from capture.simulated.scene import Body, Scene, Wall


class Nearby(StrEnum):
    """What stands near: one thing a session."""

    NOTHING = "nothing"
    WALL = "wall"
    PANEL = "panel"
    HEADREST = "headrest"
    BOARD = "board"
    OVER_SHOULDER = Crossing.OVER_SHOULDER.value
    PASSER_BEHIND = Crossing.BEHIND.value
    PASSER_IN_FRONT = Crossing.IN_FRONT.value


#: Shares of sessions.
NEARBY_SHARES = {
    Nearby.NOTHING: 0.22, Nearby.WALL: 0.10, Nearby.PANEL: 0.07, Nearby.HEADREST: 0.24, Nearby.BOARD: 0.23,
    Nearby.OVER_SHOULDER: 0.05, Nearby.PASSER_BEHIND: 0.05, Nearby.PASSER_IN_FRONT: 0.04}
COVER_SHARES = {Cover.NONE: 0.70, Cover.HOOD: 0.16, Cover.HEADSCARF: 0.14}
#: How far behind the back of a head a wall, a panel or a headrest is.
GAP_M = (0.02, 0.30)
#: From the plane of the eyes to the back of a head with hair, with room to sway.
BACK_OF_HEAD_M = 0.235
_LEAVE_ROOM = (Nearby.NOTHING, Nearby.BOARD, Nearby.PASSER_IN_FRONT)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Of one session.

    Attributes:
        nearby: what stands near. cover: what is worn around the face, by whoever is live or wears an instrument.
        gap_m: from the back of the head to a wall, panel or headrest. side: -1 or 1, where a board or a person is.
        seed: of shapes and colours.
    """

    nearby: Nearby = Nearby.NOTHING
    cover: Cover = Cover.NONE
    gap_m: float = 0.15
    side: float = 1.0
    seed: int = 0

    @property
    def kneels(self) -> bool:
        """Whether a holder has no room behind the instrument: the hands come from below the image."""
        return self.nearby not in _LEAVE_ROOM


def draw_surroundings(seed: int) -> Surroundings:
    """Of the session with that seed."""
    rng = np.random.default_rng([seed, 51])
    nearby = Nearby(rng.choice([each.value for each in NEARBY_SHARES], p=list(NEARBY_SHARES.values())))
    return Surroundings(nearby=nearby, cover=draw_cover(seed), gap_m=float(rng.uniform(*GAP_M)),
                        side=float(rng.choice([-1.0, 1.0])), seed=seed)


def draw_cover(seed: int) -> Cover:
    """What is worn around a face: by a session's seed that of the live one, by an instrument's that of a portrait."""
    rng = np.random.default_rng([seed, 52])
    return Cover(rng.choice([each.value for each in COVER_SHARES], p=list(COVER_SHARES.values())))


def furnished(scene: Scene, surroundings: Surroundings, *, identity: int, distance_m: float) -> Scene:
    """The scene with what stands near a face at `distance_m` on the axis; all of it belongs to nobody
    (`capture.simulated.scene.NOBODY`) and stays where it is when the face's bearer is moved.

    Args:
        identity: of the head that is shown; a second person has another one.
    """
    added: tuple[Body, ...] = ()
    behind = BACK_OF_HEAD_M + surroundings.gap_m
    rng = np.random.default_rng([surroundings.seed, 53])
    match surroundings.nearby:
        case Nearby.WALL:
            yaw = float(rng.uniform(-0.05, 0.05))
            return replace(scene, wall=Wall(distance_m=distance_m + behind, yaw_rad=yaw, seed=scene.wall.seed))
        case Nearby.PANEL:
            added = (make_panel(distance_m, behind, rng),)
        case Nearby.HEADREST:
            added = (make_headrest(distance_m, BACK_OF_HEAD_M + 0.2 * surroundings.gap_m, rng),)
        case Nearby.BOARD:
            added = (make_board(distance_m, surroundings.side, rng),)
        case Nearby.OVER_SHOULDER | Nearby.PASSER_BEHIND | Nearby.PASSER_IN_FRONT:
            added = make_bystander(Crossing(surroundings.nearby.value), seed=surroundings.seed, identity=identity,
                                   distance_m=distance_m, side=surroundings.side)
    return replace(scene, bodies=(*scene.bodies, *added))
