"""Views, visible surfaces and their radiance: the noise-free part of the simulated camera."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.rig import Extrinsics, Intrinsics
from capture.simulated.meshes import Float32, Mesh
from capture.simulated.raycast import Hits, RayCaster
from capture.simulated.scene import Body, Light, Motion, Pose, Scene, Segment, Wall, turn


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One sensor's pinhole (with Brown-Conrady distortion where its intrinsics say so) and its place in the world."""

    intrinsics: Intrinsics
    from_world: Extrinsics

    @cached_property
    def origin(self) -> NDArray[np.float64]:
        """The pinhole in the world, (3,)."""
        return np.asarray(self.from_world.inverse().translation)

    @cached_property
    def directions(self) -> Float32:
        """World directions (H, W, 3) of all pixels, scaled so that a multiple of one is a depth along the axis."""
        i = self.intrinsics
        column, row = np.meshgrid(np.arange(i.width, dtype=np.float64), np.arange(i.height, dtype=np.float64))
        if i.is_distorted:
            pixels = np.stack([column, row], axis=-1).reshape(-1, 1, 2)
            criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-12)
            plane = cv2.undistortPointsIter(pixels, i.matrix, np.array(i.coefficients), np.eye(3), np.eye(3), criteria)
            x, y = plane[:, 0, 0].reshape(column.shape), plane[:, 0, 1].reshape(column.shape)
        else:
            x, y = (column - i.cx) / i.fx, (row - i.cy) / i.fy
        local = np.stack([x, y, np.ones_like(x)], axis=-1)
        return np.asarray(local @ self.from_world.matrix, np.float32)  # rows: R^T d

    @cached_property
    def ray_lengths(self) -> Float32:
        """Length of each of `directions`, (H, W)."""
        return np.asarray(np.linalg.norm(self.directions, axis=-1), np.float32)

    @cached_property
    def unit_directions(self) -> Float32:
        """`directions` scaled to length 1, (H, W, 3)."""
        return np.asarray(self.directions / self.ray_lengths[..., None])

    def points(self, world: NDArray[np.floating]) -> NDArray[np.float64]:
        """World points (N, 3) in this view's frame."""
        return np.asarray(world @ self.from_world.matrix.T + self.from_world.translation)

    def project(self, world: NDArray[np.floating]) -> NDArray[np.float64]:
        """World points (N, 3) to pixels (N, 2); NaN behind the pinhole."""
        p, i = self.points(world), self.intrinsics
        with np.errstate(divide="ignore", invalid="ignore"):
            x, y = p[:, 0] / p[:, 2], p[:, 1] / p[:, 2]
            if i.is_distorted:
                k1, k2, p1, p2, k3 = i.coefficients
                r2 = x * x + y * y
                radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
                x, y = (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                        y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y))
            pixels = np.stack([x * i.fx + i.cx, y * i.fy + i.cy], axis=1)
        pixels[~(p[:, 2] > 1e-6)] = np.nan
        return pixels

    def mark(self, mask: NDArray[np.uint8], world: NDArray[np.floating]) -> None:
        """Sets `mask` (H, W) to 1 wherever the convex hull of world points (N, 3) may show; if one lies behind the
        pinhole, everywhere."""
        pixels = self.project(world)
        if not np.isfinite(pixels).all() or np.abs(pixels).max() > 30_000:
            mask[:] = 1
            return
        hull = cv2.convexHull(np.rint(pixels).astype(np.int32))
        cv2.fillConvexPoly(mask, hull, 1)
        # The outline, 5 px thick, makes up for rounding and for straight edges that distortion bends.
        cv2.polylines(mask, [hull], True, 1, 5)


class BodyState(NamedTuple):
    """Where a body is at one instant, and which of its meshes it wears."""

    pose: Pose
    expression: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """The pixels of one view in which one body is in front: flat indices, depth and place on its mesh."""

    body: int
    state: BodyState
    pixel: NDArray[np.intp]
    depth_m: Float32
    triangle: NDArray[np.int32]
    u: Float32
    v: Float32


@dataclass(frozen=True, kw_only=True, eq=False)
class Visible:
    """What one view sees at one instant: `depth_m` (H, W) along its axis, and a layer per body in sight."""

    depth_m: Float32
    layers: tuple[Layer, ...]


class Shaded(NamedTuple):
    """Radiance of the pixels of one layer: `colour` (N, 3), `infrared` (N,) (either None when not asked), and the
    cosine `facing` between normal and line of sight (N,)."""

    colour: Float32 | None
    infrared: Float32 | None
    facing: Float32


@dataclass(eq=False)
class Stage:
    """A scene with its ray casters: answers what a view sees, and with what radiance."""

    scene: Scene
    _casters: dict[tuple[tuple[int, str], ...], RayCaster] = field(default_factory=dict)
    _walls: dict[View, Float32] = field(default_factory=dict)

    def states(self, time_s: float) -> list[BodyState]:
        return [BodyState(body.motion.pose(time_s), body.mesh_at(time_s)) for body in self.scene.bodies]

    @cached_property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Bodies that move together and so share a ray caster: a head, its torso and the mask on it."""
        together: dict[Motion, list[int]] = {}
        for number, body in enumerate(self.scene.bodies):
            together.setdefault(body.motion, []).append(number)
        return tuple(tuple(numbers) for numbers in together.values())

    def mesh(self, body: int, state: BodyState) -> Mesh:
        return self.scene.bodies[body].meshes[state.expression]

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

    def visible(self, view: View, states: list[BodyState]) -> Visible:
        """Cast the rays of `view` that may meet a body; the wall fills the rest."""
        if view not in self._walls:
            self._walls[view] = wall_depth(view, self.scene.wall)
        depth = self._walls[view].copy()
        flat = depth.reshape(-1)
        owner = np.full(flat.shape, -1, np.int8)
        found = []
        for group in self.groups:
            mask = np.zeros(depth.shape, np.uint8)
            for number in group:
                view.mark(mask, states[number].pose.to_world(self.mesh(number, states[number]).vertices))
            candidates = np.flatnonzero(mask)
            hits = self.cast(group, states, view.origin, view.directions.reshape(-1, 3)[candidates])
            pixel, body = candidates[hits.ray], np.array(group, np.int8)[hits.mesh]
            nearer = hits.distance < flat[pixel]
            flat[pixel[nearer]] = hits.distance[nearer]
            owner[pixel[nearer]] = body[nearer]
            found.append((group, pixel, body, hits))
        layers = []
        for group, pixel, body, hits in found:
            for number in group:
                own = np.flatnonzero((body == number) & (owner[pixel] == number))
                if len(own):
                    layers.append(Layer(body=number, state=states[number], pixel=pixel[own], depth_m=hits.distance[own],
                                        triangle=hits.triangle[own], u=hits.u[own], v=hits.v[own]))
        return Visible(depth_m=depth, layers=tuple(layers))

    def shade(self, view: View, layer: Layer, *, colour: bool, infrared: bool) -> Shaded:
        """Diffuse light with soft terminator, one specular lobe, and the illuminator's 1/r² in infrared."""
        body, rotation = self.scene.bodies[layer.body], layer.state.pose.rotation
        material, light = body.material, self.scene.light
        table = self.mesh(layer.body, layer.state).shading_attributes
        rows = table[layer.triangle]
        values = rows[:, :5] + layer.u[:, None] * rows[:, 5:10] + layer.v[:, None] * rows[:, 10:]
        normal = values[:, :3]
        normal /= np.maximum(np.sqrt(np.einsum("ij,ij->i", normal, normal)), 1e-9)[:, None]
        texture = _sample(body.texture, values[:, 3:])
        towards_eye = view.unit_directions.reshape(-1, 3)[layer.pixel] @ (-rotation).astype(np.float32)
        facing = np.einsum("ij,ij->i", normal, towards_eye)
        radiance = infrared_radiance = None
        soft = np.float32(material.softness)
        if colour and material.emission:
            radiance = texture[:, :3] * np.float32(material.emission * 1.0)
            radiance += _lobe(normal, towards_eye, facing, light, rotation, material.shininess)[:, None] \
                * np.float32(material.gloss * light.key)
        elif colour:
            towards_key = (np.array(light.towards_key) / np.linalg.norm(light.towards_key)) @ rotation
            up = rotation.T @ np.array([0.0, -1.0, 0.0])
            diffuse = np.maximum((normal @ towards_key.astype(np.float32) + soft) / (1 + soft), 0) * light.key
            diffuse += light.ambient * (0.75 + 0.25 * (normal @ up.astype(np.float32)))
            radiance = texture[:, :3] * diffuse[:, None].astype(np.float32)
            if material.gloss:
                radiance += _lobe(normal, towards_eye, facing, light, rotation, material.shininess)[:, None] \
                    * np.float32(material.gloss * light.key)
        if infrared:
            lit = np.maximum((facing + soft * 0.5) / (1 + soft * 0.5), 0)
            fall_off = 1 / np.square(layer.depth_m * view.ray_lengths.reshape(-1)[layer.pixel])
            infrared_radiance = texture[:, 3] * (lit * fall_off + np.float32(light.room_infrared))
            if material.gloss_infrared:
                # Illuminator and sensor are side by side: the half vector is the line of sight.
                infrared_radiance += _power(facing, 2 * material.shininess) * fall_off \
                    * np.float32(material.gloss_infrared)
        return Shaded(radiance, infrared_radiance, facing)


def _sample(texture: Float32, texels: Float32) -> Float32:
    """Bilinear look-up of (N, 2) texels. OpenCV remaps at most 32,767 rows, so the list is folded into a rectangle."""
    count, folded = len(texels), 512
    padded = np.zeros((2, -(-count // folded) * folded), np.float32)
    padded[:, :count] = texels.T
    column, row = padded.reshape(2, -1, folded)
    out = cv2.remap(texture, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(out.reshape(-1, texture.shape[2])[:count], np.float32)


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


def wall_depth(view: View, wall: Wall) -> Float32:
    """Depth (H, W) of the wall along the view's axis."""
    normal = turn(wall.yaw_rad, 0, 0) @ np.array([0.0, 0.0, -1.0])
    offset = normal @ np.array([0.0, 0.0, wall.distance_m])
    depth = (offset - normal @ view.origin) / (view.directions.astype(np.float64) @ normal)
    return np.asarray(depth, np.float32)


def wall_radiance(view: View, wall: Wall, light: Light) -> tuple[Float32, Float32]:
    """Colour (H, W, 3) and infrared (H, W) radiance of the wall: plaster, a darker door and a picture."""
    depth = wall_depth(view, wall)
    points = view.origin + depth[..., None] * view.directions.astype(np.float64)
    rng = np.random.default_rng(wall.seed)
    noise = cv2.GaussianBlur(rng.standard_normal((256, 256)).astype(np.float32), (0, 0), 2.5)
    noise = noise / noise.std()
    x, y = points[..., 0].astype(np.float32), points[..., 1].astype(np.float32)
    plaster = cv2.remap(noise, (x * 40 + 128) % 255, (y * 40 + 128) % 255, cv2.INTER_LINEAR)
    tint = np.array([0.52, 0.50, 0.46]) * rng.uniform(0.7, 1.15, 3) * rng.uniform(0.6, 1.1)
    albedo = np.empty((*depth.shape, 4), np.float32)
    albedo[:] = [*tint, rng.uniform(0.35, 0.65)]
    scale = wall.distance_m / 2
    door = (x > rng.uniform(0.5, 0.9) * scale) & (x < 1.5 * scale)
    albedo[door] *= np.float32(0.6) * np.array([1.0, 0.8, 0.6, 0.9], np.float32)
    left, top = rng.uniform(-1.1, -0.7) * scale, rng.uniform(-0.75, -0.5) * scale
    picture = (x > left) & (x < left + 0.4) & (y > top) & (y < top + 0.3)
    albedo[picture] *= np.array([0.35, 0.5, 0.7, 0.8], np.float32)
    albedo *= 1 + 0.04 * plaster[..., None]
    lit = light.ambient * 0.8 + 0.35 * light.key * (1 - 0.12 * y / scale)
    distance_squared = np.square(np.linalg.norm(points - view.origin, axis=-1))
    facing = np.abs(view.directions @ (turn(wall.yaw_rad, 0, 0) @ np.array([0, 0, 1.0])).astype(np.float32))
    infrared = albedo[..., 3] * (facing / view.ray_lengths / distance_squared + light.room_infrared)
    return np.asarray(albedo[..., :3] * lit[..., None], np.float32), np.asarray(infrared, np.float32)


def segments(visible: Visible, bodies: tuple[Body, ...]) -> NDArray[np.uint8]:
    """`Segment` of every pixel, (H, W)."""
    out = np.full(visible.depth_m.size, Segment.BACKGROUND, np.uint8)
    for layer in visible.layers:
        out[layer.pixel] = bodies[layer.body].segment
    return out.reshape(visible.depth_m.shape)
