"""Visible surfaces and their radiance: the noise-free part of the simulated camera. One way for every label."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.simulated.meshes import Float32, Mesh
from capture.simulated.raycast import Hits, RayCaster
from capture.simulated.scene import Body, Light, Motion, Pose, Scene, Segment
from capture.simulated.view import Rays, View
from capture.simulated.wall import wall_depth

#: A jump in depth between neighbours beyond which a pixel's edge is smoothed, as a share of depth.
EDGE_JUMP = 0.012
#: Depth along one view's axis differs from that along another's by no more than this: both look the same way.
_BETWEEN_VIEWS_M = 0.02
#: The colour sensor's own pixels are this much finer than the 640 x 480 image made of them (1440 columns of a D435's
#: 1920 x 1080 imager); lens and pixel aperture at that scale decide how much of a display's raster gets through.
NATIVE_SAMPLING = 2.25
NATIVE_BLUR_PX = 0.25
#: Contrast of a display's raster of coloured stripes and black matrix, before lens and aperture.
RASTER_CONTRAST = 0.9


class BodyState(NamedTuple):
    """Where a body is at one instant, and which of its meshes it wears."""

    pose: Pose
    expression: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """The rays (of one view: pixels) that meet one body first: flat indices, depth and place on its mesh."""

    body: int
    state: BodyState
    pixel: NDArray[np.intp]
    depth_m: Float32
    triangle: NDArray[np.int32]
    u: Float32
    v: Float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Visible:
    """What one view sees at one instant.

    Attributes:
        depth_m: (H, W) along its axis. layers: one per solid body in sight.
        veils: one per transparent body (a lens, clear plastic) before them; they have no depth of their own.
        owner: (H, W), number of the body in front, -1 the wall. states: of the bodies at that instant.
    """

    depth_m: Float32
    layers: tuple[Layer, ...]
    veils: tuple[Layer, ...]
    owner: NDArray[np.int8]
    states: list[BodyState]


class Shaded(NamedTuple):
    """Radiance of the pixels of one layer: `colour` (N, 3), `infrared` (N,) (either None when not asked), and the
    cosine `facing` between normal and line of sight (N,)."""

    colour: Float32 | None
    infrared: Float32 | None
    facing: Float32


class _Painted(NamedTuple):
    """Radiance that is being painted over: `colour` (N, 3), `infrared` (N,), None where it is not asked for."""

    colour: Float32 | None
    infrared: Float32 | None

    def at(self, pixels: NDArray[np.intp]) -> _Painted:
        """A copy of some pixels."""
        return _Painted(*(None if plane is None else plane[pixels] for plane in self))

    def fourfold(self) -> _Painted:
        """Every pixel four times, one after the other."""
        return _Painted(*(None if plane is None else np.repeat(plane, 4, axis=0) for plane in self))

    def put(self, pixels: NDArray[np.intp], shaded: Shaded, passed: float = 0.0) -> None:
        """Paints some pixels; `passed` is the share of what is behind that still shows."""
        for plane, values in ((self.colour, shaded.colour), (self.infrared, shaded.infrared)):
            if plane is not None and values is not None:
                plane[pixels] = plane[pixels] * np.float32(passed) + values if passed else values

    def average(self, fine: _Painted, pixels: NDArray[np.intp]) -> None:
        """Each of the `pixels` becomes the mean of its four in `fine`."""
        if self.colour is not None and fine.colour is not None:
            # After the sensor has clipped: a glint at an edge is no brighter than white.
            self.colour[pixels] = np.minimum(fine.colour, 1.0).reshape(-1, 4, 3).mean(axis=1)
        if self.infrared is not None and fine.infrared is not None:
            self.infrared[pixels] = fine.infrared.reshape(-1, 4).mean(axis=1)


@dataclass(eq=False)
class Stage:
    """A scene with its ray casters: answers what a view sees, and with what radiance."""

    scene: Scene
    _casters: dict[tuple[tuple[int, str], ...], RayCaster] = field(default_factory=dict)
    _walls: dict[View, Float32] = field(default_factory=dict)
    _textures: dict[tuple[int, int], Float32] = field(default_factory=dict)
    _densities: dict[tuple[int, str], float] = field(default_factory=dict)
    _placed: dict[int, tuple[BodyState, NDArray[np.float64]]] = field(default_factory=dict)

    def states(self, time_s: float) -> list[BodyState]:
        return [BodyState(body.motion.pose(time_s), body.mesh_at(time_s)) for body in self.scene.bodies]

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Solid bodies that move together and so share a ray caster: a head, its torso and the mask on it."""
        return self._grouped(veil=False)

    @cached_property
    def veil_groups(self) -> tuple[tuple[int, ...], ...]:
        """The same of transparent bodies."""
        return self._grouped(veil=True)

    def _grouped(self, *, veil: bool) -> tuple[tuple[int, ...], ...]:
        together: dict[Motion, list[int]] = {}
        for number, body in enumerate(self.scene.bodies):
            if (body.material.transmission > 0) is veil:
                together.setdefault(body.motion, []).append(number)
        return tuple(tuple(numbers) for numbers in together.values())

    def mesh(self, body: int, state: BodyState) -> Mesh:
        return self.scene.bodies[body].meshes[state.expression]

    def _corners(self, body: int, state: BodyState) -> NDArray[np.float64]:
        """Vertices (V, 3) of a body in the world; the last instant's are kept."""
        kept = self._placed.get(body)
        if kept is None or kept[0] is not state:
            kept = state, state.pose.to_world(self.mesh(body, state).vertices)
            self._placed[body] = kept
        return kept[1]

    def cast(self, group: tuple[int, ...], states: list[BodyState], origin: NDArray[np.float64],
             directions: Float32) -> Hits:
        """First hits on one group of rays from a world point along world directions (N, 3); `Hits.mesh` counts within
        the group."""
        key = tuple((number, states[number].expression) for number in group)
        if key not in self._casters:
            self._casters[key] = RayCaster(*(self.mesh(number, states[number]) for number in group))
        pose = states[group[0]].pose
        return self._casters[key].cast(pose.rotation.T @ (origin - pose.translation),
                                       directions @ pose.rotation.astype(np.float32))

    def visible(self, view: View, states: list[BodyState], window: tuple[slice, slice] | None = None) -> Visible:
        """Cast the rays of `view` that may meet a body (of those in the `window` of rows and columns, if there is one);
        the wall fills the rest."""
        if view not in self._walls:
            self._walls[view] = wall_depth(view, self.scene.wall)
        depth = self._walls[view].copy()

        def candidates(group: tuple[int, ...]) -> NDArray[np.intp]:
            mask = np.zeros(depth.shape, np.uint8)
            for number in group:
                view.mark(mask, self._corners(number, states[number]))
            if window is not None:
                inside = mask[window].copy()
                mask[:] = 0
                mask[window] = inside
            return np.flatnonzero(mask)
        chosen = {group: candidates(group) for group in (*self.groups, *self.veil_groups)}
        layers, veils, owner = self._resolve(view.rays, states, depth.reshape(-1), chosen)
        return Visible(depth_m=depth, layers=layers, veils=veils, owner=owner.reshape(depth.shape),
                       states=states)

    def _resolve(self, rays: Rays, states: list[BodyState], depth: Float32,
                 chosen: dict[tuple[int, ...], NDArray[np.intp]]) -> tuple[tuple[Layer, ...], tuple[Layer, ...],
                                                                        NDArray[np.int8]]:
        """Layers and veils of `rays` (of each group only the `chosen` ones), and the body that owns each ray; `depth`
        (N,) holds what is behind everything and receives what is in front."""
        owner = np.full(len(depth), -1, np.int8)
        found, see_through = [], []
        # From front to back: what is nearer than a group's nearest corner need not be asked about that group.
        nearest = {group: min(float(self._corners(number, states[number])[:, 2].min()) for number in group)
                   for group in (*self.groups, *self.veil_groups)}
        for group in (*sorted(self.groups, key=lambda group: nearest[group]), *self.veil_groups):
            own = chosen[group]
            own = own[depth[own] > np.float32(nearest[group] - _BETWEEN_VIEWS_M)]
            hits = self.cast(group, states, rays.origin, rays.directions[own])
            pixel, body = own[hits.ray], np.array(group, np.int8)[hits.mesh]
            nearer = hits.distance < depth[pixel]
            if group in self.veil_groups:
                see_through.append((group, pixel, body, hits, nearer))
                continue
            depth[pixel[nearer]] = hits.distance[nearer]
            owner[pixel[nearer]] = body[nearer]
            found.append((group, pixel, body, hits))

        def layer(number: int, own: NDArray[np.intp], pixel: NDArray[np.intp], hits: Hits) -> Layer:
            return Layer(body=number, state=states[number], pixel=pixel[own], depth_m=hits.distance[own],
                         triangle=hits.triangle[own], u=hits.u[own], v=hits.v[own])
        layers = [layer(number, own, pixel, hits) for group, pixel, body, hits in found for number in group
                  if len(own := np.flatnonzero((body == number) & (owner[pixel] == number)))]
        veils = [layer(number, own, pixel, hits) for group, pixel, body, hits, nearer in see_through
                 for number in group if len(own := np.flatnonzero((body == number) & nearer))]
        return tuple(layers), tuple(veils), owner

    def paint(self, view: View, visible: Visible, *, colour: Float32 | None = None,
              infrared: Float32 | None = None) -> list[Float32]:
        """Writes what is visible over the wall's radiance, edges smoothed: `colour` (H * W, 3), `infrared` (H * W,),
        either or both. Returns, for each of `visible.layers`, the cosine between normal and line of sight."""
        painted = _Painted(colour, infrared)
        edge = edges(visible)
        wall = painted.at(edge)
        facing = self._put(view.rays, visible.layers, visible.veils, painted, view.intrinsics.fx)
        if not len(edge):
            return facing
        rays = view.rays_within(edge)
        behind = np.full(len(rays.directions), np.inf, np.float32)
        everything = np.arange(len(behind))
        layers, veils, _ = self._resolve(rays, visible.states, behind,
                                         dict.fromkeys((*self.groups, *self.veil_groups), everything))
        fine = wall.fourfold()
        self._put(rays, layers, veils, fine, view.intrinsics.fx)
        painted.average(fine, edge)
        return facing

    def _put(self, rays: Rays, layers: tuple[Layer, ...], veils: tuple[Layer, ...], painted: _Painted,
             focal_px: float) -> list[Float32]:
        facing = []
        for layer in layers:
            shaded = self._shade(rays, layer, focal_px, painted)
            painted.put(layer.pixel, shaded)
            facing.append(shaded.facing)
        for layer in veils:
            painted.put(layer.pixel, self._shade(rays, layer, focal_px, painted),
                        passed=self.scene.bodies[layer.body].material.transmission)
        return facing

    def _shade(self, rays: Rays, layer: Layer, focal_px: float, painted: _Painted) -> Shaded:
        """Diffuse light with soft terminator, one specular lobe, and the illuminator's 1/r² in infrared; of what is
        `painted`.

        `layer.pixel` counts among `rays`; `focal_px` says how wide a pixel is on the surface. Of a veil, the light it
        adds itself.
        """
        body, rotation = self.scene.bodies[layer.body], layer.state.pose.rotation
        material, light = body.material, self.scene.light
        values = self.mesh(layer.body, layer.state).normals_and_texels(layer.triangle, layer.u, layer.v)
        normal = values[:, :3]
        normal /= np.maximum(np.sqrt(np.einsum("ij,ij->i", normal, normal)), 1e-9)[:, None]
        texture = self._albedo(layer, values[:, 3:], focal_px)
        towards_eye = rays.unit_directions[layer.pixel] @ (-rotation).astype(np.float32)
        facing = np.einsum("ij,ij->i", normal, towards_eye)
        veiled = np.float32(1 - material.transmission)
        radiance = infrared_radiance = None
        soft = np.float32(material.softness)
        if painted.colour is not None:
            if material.emission:
                # Displays dim off their axis; the raster of their pixels beats with the camera's.
                glow = material.emission * np.power(np.clip(facing, 0.05, 1), np.float32(0.7))
                radiance = texture[:, :3] * glow.astype(np.float32, copy=False)[:, None]
                if material.pixel_pitch_m:
                    radiance *= self._raster(layer, values[:, 3:], focal_px)
            else:
                towards_key = (np.array(light.towards_key) / np.linalg.norm(light.towards_key)) @ rotation
                up = rotation.T @ np.array([0.0, -1.0, 0.0])
                diffuse = np.maximum((normal @ towards_key.astype(np.float32) + soft) / (1 + soft), 0) * light.key
                diffuse += light.ambient * (0.75 + 0.25 * (normal @ up.astype(np.float32)))
                radiance = texture[:, :3] * diffuse.astype(np.float32, copy=False)[:, None]
                radiance *= np.array(light.tint, np.float32) * veiled
            if material.gloss:
                radiance += _lobe(normal, towards_eye, facing, light, rotation, material.shininess)[:, None] \
                    * np.float32(material.gloss * light.key)
        if painted.infrared is not None:
            lit = np.maximum((facing + soft * 0.5) / (1 + soft * 0.5), 0)
            fall_off = 1 / np.square(layer.depth_m * rays.lengths[layer.pixel])
            infrared_radiance = texture[:, 3] * veiled * (lit * fall_off + np.float32(light.room_infrared))
            if material.gloss_infrared:
                # Illuminator and sensor are side by side: the half vector is the line of sight.
                infrared_radiance += _power(facing, 2 * material.shininess) * fall_off \
                    * np.float32(material.gloss_infrared)
        return Shaded(radiance, infrared_radiance, facing)

    def _density(self, layer: Layer) -> float:
        """Texels a metre on a body's surface, on average."""
        key = (layer.body, layer.state.expression)
        if key not in self._densities:
            self._densities[key] = self.mesh(layer.body, layer.state).texels_per_metre
        return self._densities[key]

    def _albedo(self, layer: Layer, texels: Float32, focal_px: float) -> Float32:
        """The body's texture (N, bands) at `texels` (N, 2), averaged as far as this layer's pixels are wider than its
        texels (a pixel is an area): halved as often as that goes, then blurred by the rest."""
        texture = self.scene.bodies[layer.body].texture
        width = self._density(layer) * float(np.median(layer.depth_m[::7])) / focal_px
        step = max(round(2 * np.log2(width)), 0) if width > 0 else 0
        if not step:
            return sample(texture, texels)
        halved, rest = divmod(step, 2)
        key = (id(texture), step)
        if key not in self._textures:
            small = texture
            if halved:
                rows, columns = (max(n >> halved, 1) for n in texture.shape[:2])
                small = np.asarray(cv2.resize(texture, (columns, rows), interpolation=cv2.INTER_AREA), np.float32)
            if rest:
                small = np.asarray(cv2.GaussianBlur(small, (0, 0), 0.4), np.float32)  # 0.4 sqrt(2 - 1)
            self._textures[key] = small
        small = self._textures[key]
        ratio = np.array([small.shape[1] / texture.shape[1], small.shape[0] / texture.shape[0]], np.float32)
        return sample(small, np.asarray((texels + np.float32(0.5)) * ratio - np.float32(0.5), np.float32))

    def _raster(self, layer: Layer, texels: Float32, focal_px: float) -> Float32:
        """What is left of a display's raster of red, green and blue stripes, (N, 3), mean 1: moiré."""
        pitch_m = self.scene.bodies[layer.body].material.pixel_pitch_m
        places = texels.astype(np.float64) / (self._density(layer) * pitch_m)  # in display pixels
        frequency = float(np.median(layer.depth_m)) / (focal_px * NATIVE_SAMPLING * pitch_m)  # cycles a native pixel
        through = RASTER_CONTRAST * abs(np.sinc(0.9 * frequency)) \
            * np.exp(-2 * (np.pi * NATIVE_BLUR_PX * frequency) ** 2)
        stripes = 2 * np.pi * (places[:, :1] + np.array([0.0, 1 / 3, 2 / 3]))
        rows = 2 * np.pi * places[:, 1:]
        return np.asarray(1 + through * (0.7 * np.cos(stripes) + 0.3 * np.cos(rows)), np.float32)


def edges(visible: Visible) -> NDArray[np.intp]:
    """Flat indices of the pixels at whose side another body, or the same one further away, begins."""
    if not visible.layers:
        return np.zeros(0, np.intp)
    width = visible.depth_m.shape[1]
    occupied = np.flatnonzero((visible.owner >= 0).any(axis=0))
    rows = slice(max(min(int(layer.pixel.min()) for layer in visible.layers) // width - 1, 0),
                 max(int(layer.pixel.max()) for layer in visible.layers) // width + 2)
    columns = slice(max(int(occupied[0]) - 1, 0), int(occupied[-1]) + 2)
    owner, depth = visible.owner[rows, columns], visible.depth_m[rows, columns]
    mask = np.zeros(depth.shape, bool)
    for axis in (0, 1):
        first, second = (np.s_[:-1], np.s_[1:]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        differs = (owner[first] != owner[second]) | (
            np.abs(depth[first] - depth[second]) > EDGE_JUMP * depth[first])
        differs &= (owner[first] >= 0) | (owner[second] >= 0)
        mask[first] |= differs
        mask[second] |= differs
    row, column = np.nonzero(mask)
    return np.asarray((row + rows.start) * width + column + columns.start)


def sample(texture: Float32, texels: Float32) -> Float32:
    """Bilinear look-up of (N, 2) texels in (rows, columns[, bands])."""
    count, folded = len(texels), 512  # OpenCV remaps at most 32,767 rows: the list is folded into a rectangle
    padded = np.zeros((2, -(-count // folded) * folded), np.float32)
    padded[:, :count] = texels.T
    column, row = padded.reshape(2, -1, folded)
    out = cv2.remap(texture, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out.reshape(-1, *texture.shape[2:])[:count], np.float32)


def _lobe(normal: Float32, towards_eye: Float32, facing: Float32, light: Light, rotation: NDArray[np.float64],
          shininess: float) -> Float32:
    """Blinn's lobe of the key light, normalised to grow sharper, not brighter in sum, with its exponent."""
    towards_key = ((np.array(light.towards_key) / np.linalg.norm(light.towards_key)) @ rotation).astype(np.float32)
    half = towards_eye + towards_key
    half /= np.maximum(np.sqrt(np.einsum("ij,ij->i", half, half)), 1e-9)[:, None]
    strength = _power(np.einsum("ij,ij->i", normal, half), shininess)
    return np.asarray(strength * np.float32((shininess + 2) / 8) * (facing > 0), np.float32)


def _power(cosine: Float32, exponent: float) -> Float32:
    """`cosine ** exponent`, 0 where that is below 1e-5: powers that underflow are ten times slower."""
    out = np.zeros_like(cosine)
    strong = np.flatnonzero(cosine > 1e-5 ** (1 / exponent))
    out[strong] = cosine[strong] ** np.float32(exponent)
    return out


def segments(visible: Visible, bodies: tuple[Body, ...]) -> NDArray[np.uint8]:
    """`Segment` of every pixel, (H, W)."""
    out = np.full(visible.depth_m.size, Segment.BACKGROUND, np.uint8)
    for layer in visible.layers:
        out[layer.pixel] = bodies[layer.body].segment
    return out.reshape(visible.depth_m.shape)
