"""`SimulatedTruth`: what a simulated frame set really shows. Maps are rendered only when asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from capture.frames import StreamKind
from capture.rig import Rig
from capture.simulated.meshes import Float32
from capture.simulated.render import BodyState, Stage, Visible, segments
from capture.simulated.view import View

#: A surface point counts as visible if the first surface on its line of sight lies no further than this before it.
VISIBLE_WITHIN_M = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class TruthMaps:
    """Noise-free geometry of both viewpoints. (H, W) arrays; infrared shares the depth grid.

    Attributes:
        depth_m: along the axis of the depth sensor, at its instant. colour_depth_m: of the colour sensor, at its own.
        segments, colour_segments: `capture.simulated.scene.Segment` per pixel.
        colour_to_depth: float64 (H, W, 2), for each colour pixel the (u, v) in the depth image of the surface point it
            shows, where that point is at the depth sensor's instant; NaN if it lies behind that sensor.
        colour_seen_by_depth: whether that point is inside the depth image and nothing hides it there.
        depth_to_colour, depth_seen_by_colour: the same the other way, at the colour sensor's instant.
    """

    depth_m: Float32
    colour_depth_m: Float32
    segments: NDArray[np.uint8]
    colour_segments: NDArray[np.uint8]
    colour_to_depth: NDArray[np.float64]
    colour_seen_by_depth: NDArray[np.bool_]
    depth_to_colour: NDArray[np.float64]
    depth_seen_by_colour: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class SimulatedTruth:
    """Ground truth of one simulated set.

    Attributes:
        scene: name of the scene. label: `bona_fide`, `attack` or None (nobody there). species: of the attack, or None.
        time_s, colour_time_s: the instants of depth/infrared and of colour in scene time.
        rig: the true rig.
    """

    scene: str
    label: str | None
    species: str | None
    time_s: float
    colour_time_s: float
    rig: Rig
    _stage: Stage = field(repr=False)
    _colour_view: View = field(repr=False)
    _depth_view: View = field(repr=False)

    def face_boxes(self, stream: StreamKind = StreamKind.COLOUR) -> tuple[tuple[float, float, float, float], ...]:
        """Tight box (left, top, right, bottom) in pixels around each face's outline, in the stream's image; one a face.

        The outline is the face from hairline to chin and cheek to cheek, hidden or not; a box may reach outside.
        """
        colour = stream is StreamKind.COLOUR
        view = self._colour_view if colour else self._depth_view
        states = self._stage.states(self.colour_time_s if colour else self.time_s)
        boxes = []
        for body, state in zip(self._stage.scene.bodies, states, strict=True):
            if body.face_points is not None:
                pixels = view.project(state.pose.to_world(body.face_points))
                (left, top), (right, bottom) = pixels.min(0), pixels.max(0)
                boxes.append((float(left), float(top), float(right), float(bottom)))
        return tuple(boxes)

    def render_truth(self) -> TruthMaps:
        """Casts four sets of rays; takes a few times as long as a frame."""
        states, later = self._stage.states(self.time_s), self._stage.states(self.colour_time_s)
        depth, colour = self._stage.visible(self._depth_view, states), self._stage.visible(self._colour_view, later)
        to_depth, seen_by_depth = self._correspond(self._colour_view, colour, self._depth_view, states)
        to_colour, seen_by_colour = self._correspond(self._depth_view, depth, self._colour_view, later)
        bodies = self._stage.scene.bodies
        return TruthMaps(depth_m=depth.depth_m, colour_depth_m=colour.depth_m, segments=segments(depth, bodies),
                         colour_segments=segments(colour, bodies), colour_to_depth=to_depth,
                         colour_seen_by_depth=seen_by_depth, depth_to_colour=to_colour,
                         depth_seen_by_colour=seen_by_colour)

    def _correspond(self, view: View, visible: Visible, other: View,
                    states: list[BodyState]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Where `other` would image what `view` sees, its bodies being in `states`; and whether it sees that."""
        directions = view.directions.reshape(-1, 3).astype(np.float64)
        world = view.origin + visible.depth_m.reshape(-1, 1).astype(np.float64) * directions  # right for the wall
        for layer in visible.layers:
            # The same spot of the same surface, wherever the body and its expression have taken it.
            state = states[layer.body]
            points = self._stage.mesh(layer.body, state).points(layer.triangle, layer.u, layer.v)
            world[layer.pixel] = state.pose.to_world(points)
        pixels = other.project(world)
        depth = other.points(world)[:, 2]
        i = other.intrinsics
        with np.errstate(invalid="ignore"):
            seen = (depth > 0) & (pixels >= -0.5).all(1) & (pixels[:, 0] < i.width - 0.5) \
                & (pixels[:, 1] < i.height - 0.5)
        ahead = np.flatnonzero(seen)
        rays = (world[ahead] - other.origin) / depth[ahead, None]
        for group in self._stage.groups:
            hits = self._stage.cast(group, states, other.origin, np.asarray(rays, np.float32))
            hiding = hits.distance < depth[ahead[hits.ray]] - VISIBLE_WITHIN_M
            seen[ahead[hits.ray[hiding]]] = False
        shape = visible.depth_m.shape
        return pixels.reshape(*shape, 2), seen.reshape(shape)
