"""Light transport by Mitsuba 3 (Jakob et al., https://www.mitsuba-renderer.org). The only importer of `mitsuba`.

Path tracing with emitter sampling: area lamps, real cast shadows, light that walls and clothes throw on a face, rough
reflection by the principled model. Variant `scalar_rgb`; infrared is rendered as grey with the 850 nm textures (the
spectral variants end at 830 nm).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from capture.camera import CameraError
from capture.independent.description import (
    LAMP_PLACE_M,
    LAMP_RADIUS_M,
    AreaLamp,
    Band,
    Poser,
    Surface,
    emitted,
    key_lamp,
    reflectance,
    reflection_of,
    subject_place,
    wall_corners,
    wall_texture,
)
from capture.simulated.meshes import Float32
from capture.simulated.scene import Body, Scene
from capture.simulated.view import View

NEAR_CLIP_M = 1e-3


class RendererMissingError(CameraError):
    """Mitsuba is not installed; the message names the extra."""


def load_mitsuba(threads: int | None = None) -> Any:
    """The module with its variant set; `threads` for all renders of this process.

    Raises:
        RendererMissingError: it is not installed.
    """
    try:
        import drjit
        import mitsuba
    except ImportError as error:
        raise RendererMissingError(f"the independent renderer needs mitsuba ({error}): "
                                   "pip install 'mmdg-live[independent]'") from None
    if mitsuba.variant() != "scalar_rgb":
        mitsuba.set_variant("scalar_rgb")
    if threads is not None:
        drjit.set_thread_count(threads)
    return mitsuba


class Projector(NamedTuple):
    """A pattern (rows, columns) of irradiance at 1 m on the axis, from `place_m`, `field_deg` wide."""

    pattern: Float32
    place_m: tuple[float, float, float]
    field_deg: float


class Shot(NamedTuple):
    """One image to render: `rows`, `columns` of `view`, every `step`-th pixel, with so many `samples` a pixel."""

    view: View
    rows: slice
    columns: slice
    samples: int
    step: int = 1


class MitsubaStage:
    """A scene before Mitsuba. Each image depends on the scene, the instant and `seed` alone.

    Raises:
        RendererMissingError: Mitsuba is not installed.
    """

    def __init__(self, scene: Scene, threads: int | None = None) -> None:
        self.scene, self.poser = scene, Poser(scene)
        self.mi = load_mitsuba(threads)
        self._reflections: dict[tuple[int, Band], Any] = {}
        self._wall: dict[Band, Any] = {}

    def at(self, time_s: float, band: Band, *, lamp: bool = True, projector: Projector | None = None) -> StageAtInstant:
        """The scene at one instant in one band; `lamp` and `projector` light it in infrared."""
        surfaces = self.poser.surfaces(time_s)
        solid = [each for each in surfaces if not self.scene.bodies[each.body].material.transmission]
        veils = [each for each in surfaces if self.scene.bodies[each.body].material.transmission]
        parts: dict[str, Any] = {"type": "scene", "wall": self._wall_shape(band)}
        for surface in solid:
            body = self.scene.bodies[surface.body]
            parts[f"body_{surface.body}"] = self._mesh(surface, self._reflection(surface.body, band),
                                                       emitted(body, band))

        def lights() -> dict[str, Any]:  # anew for each scene: Mitsuba moves a texture's data out of its description
            return self._lights(time_s, band, lamp=lamp, projector=projector)
        found = StageAtInstant(self.mi, self.mi.load_dict({**parts, **lights()}), None, None)
        if not veils:
            return found
        black = self.mi.load_dict({"type": "twosided", "black": {"type": "diffuse", "reflectance": 0.0}})
        glass: dict[str, Any] = {"type": "scene", **{f"body_{each.body}": self._mesh(each, black, None)
                                                     for each in solid}}
        cover = dict(glass)
        for surface in veils:
            mirror = self._glass(self.scene.bodies[surface.body])
            glass[f"veil_{surface.body}"] = self._mesh(surface, mirror, None)
            lost = np.full((2, 2, 3), 1 - self.scene.bodies[surface.body].material.transmission, np.float32)
            cover[f"veil_{surface.body}"] = self._mesh(surface, black, lost)
        return StageAtInstant(self.mi, found.solid, self.mi.load_dict({**glass, **lights()}), self.mi.load_dict(cover))

    def _bitmap(self, values: Float32) -> dict[str, Any]:
        return {"type": "bitmap", "data": self.mi.TensorXf(values), "raw": True, "wrap_mode": "clamp"}

    def _reflection(self, number: int, band: Band) -> Any:
        if (number, band) not in self._reflections:
            body = self.scene.bodies[number]
            own = reflection_of(body.material)
            self._reflections[number, band] = self.mi.load_dict({"type": "twosided", "surface": {
                "type": "principled", "base_color": self._bitmap(reflectance(body, band)),
                "roughness": own.roughness, "specular": own.specular, "clearcoat": own.clearcoat,
                "clearcoat_gloss": 0.9}})
        return self._reflections[number, band]

    def _glass(self, body: Body) -> Any:
        # Two faces of a lens of index 1.5 return 8 %, seen as a slightly rough mirror over nothing.
        return self.mi.load_dict({"type": "twosided", "mirror": {
            "type": "roughconductor", "material": "none", "distribution": "ggx", "alpha": 0.03,
            "specular_reflectance": float(min(0.9 * (1 - body.material.transmission), 0.15))}})

    def _mesh(self, surface: Surface, reflection: Any, radiance: Float32 | None) -> Any:
        properties = self.mi.Properties()
        properties["mesh_bsdf"] = reflection
        if radiance is not None:
            properties["mesh_emitter"] = self.mi.load_dict({
                "type": "area", "radiance": self._bitmap(radiance), "sampling_weight": 1e-4})
        mesh = self.mi.Mesh(f"body_{surface.body}", vertex_count=len(surface.vertices),
                            face_count=len(surface.triangles), has_vertex_normals=True, has_vertex_texcoords=True,
                            props=properties)
        values = self.mi.traverse(mesh)
        values["vertex_positions"] = surface.vertices.ravel()
        values["vertex_normals"] = surface.normals.ravel()
        values["vertex_texcoords"] = surface.uv.ravel()
        values["faces"] = surface.triangles.ravel()
        values.update()
        return mesh

    def _wall_shape(self, band: Band) -> Any:
        if band not in self._wall:
            texture = wall_texture(self.scene.wall.seed)
            values = np.repeat(texture[..., 3:], 3, axis=2) if band is Band.INFRARED else texture[..., :3]
            plaster = self.mi.load_dict({"type": "twosided", "plaster": {
                "type": "diffuse", "reflectance": self._bitmap(np.ascontiguousarray(values))}})
            facing = np.tile(np.array([[0.0, 0.0, -1.0]], np.float32), (4, 1))
            self._wall[band] = self._mesh(Surface(
                body=-1, vertices=wall_corners(self.scene.wall), normals=facing,
                uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32),
                triangles=np.array([[0, 2, 1], [0, 3, 2]], np.uint32)), plaster, None)
        return self._wall[band]

    def _lights(self, time_s: float, band: Band, *, lamp: bool, projector: Projector | None) -> dict[str, Any]:
        light, transform = self.scene.light, self.mi.ScalarTransform4f
        if band is Band.COLOUR:
            around = [light.ambient * each for each in light.tint]
            return {"room": _constant(around), "key": self._softbox(key_lamp(light, subject_place(self.scene, time_s)))}
        lights: dict[str, Any] = {"room": _constant([light.room_infrared] * 3)}
        if lamp:
            # A disk of radiance L gives white at 1 m the radiance L r².
            radiance = 1 / LAMP_RADIUS_M ** 2
            place = transform().translate(list(LAMP_PLACE_M)).scale(LAMP_RADIUS_M)
            lights["lamp"] = {"type": "disk", "to_world": place,
                              "emitter": {"type": "area", "radiance": {"type": "rgb", "value": [radiance] * 3}}}
        if projector is not None:
            x, y, z = projector.place_m
            lights["projector"] = {
                "type": "projector", "fov": projector.field_deg,
                "irradiance": self._bitmap(np.repeat(projector.pattern[..., None] * np.float32(np.pi), 3, axis=2)),
                "to_world": transform().look_at([x, y, z], [x, y, z + 1], [0, -1, 0])}
        return lights

    def _softbox(self, lamp: AreaLamp) -> dict[str, Any]:
        up = [0, -1, 0] if abs(lamp.towards_m[1] - lamp.place_m[1]) < 0.9 * np.linalg.norm(
            lamp.towards_m - lamp.place_m) else [0, 0, 1]
        return {"type": "rectangle", "to_world": self.mi.ScalarTransform4f().look_at(
            list(lamp.place_m), list(lamp.towards_m), up).scale(lamp.side_m / 2),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": list(lamp.radiance)}}}


class StageAtInstant:
    """A scene in Mitsuba: `solid` bodies; `glass`: reflections alone of transparent bodies before black ones, and
    `cover`: how much light transparent bodies take; both None where there are none.

    Transparent bodies (lenses, clear plastic) are laid over afterwards, since a path tracer finds no lamp through glass
    by emitter sampling: image = solid (1 - cover) + glass.
    """

    def __init__(self, mi: Any, solid: Any, glass: Any, cover: Any) -> None:
        self._mi, self.solid, self._glass, self._cover = mi, solid, glass, cover

    def radiance(self, shot: Shot, seed: int, *, bounces: int = 3) -> Float32:
        """Radiance (rows, columns, 3) of the shot; `bounces` of light before the eye."""
        image = without_fireflies(self._render(self.solid, shot, seed, {"type": "path", "max_depth": bounces + 1}))
        if self._glass is None:
            return image
        taken = self._render(self._cover, shot._replace(samples=4), seed + 1, {"type": "path", "max_depth": 1})
        part = covered_part(taken[..., 0] > 0, shot)
        if part is None:
            return image
        rows, columns = (slice((own.start - whole.start) // shot.step, (own.stop - whole.start) // shot.step)
                         for own, whole in ((part.rows, shot.rows), (part.columns, shot.columns)))
        image *= 1 - taken
        image[rows, columns] += without_fireflies(self._render(
            self._glass, part, seed + 2, {"type": "path", "max_depth": 2, "hide_emitters": True}))
        return image

    def depth_m(self, shot: Shot, seed: int) -> Float32:
        """Depth (rows, columns) along the view's axis, by Mitsuba's ray intersection."""
        distance = self._render(self.solid, shot._replace(samples=1), seed,
                                {"type": "aov", "aovs": "distance:depth"}, centred=True)[..., -1]
        lengths = shot.view.rays.lengths.reshape(shot.view.directions.shape[:2])[shot.rows, shot.columns]
        # Mitsuba's rays start on the near plane.
        return np.asarray(NEAR_CLIP_M + distance / lengths[::shot.step, ::shot.step], np.float32)

    def _render(self, scene: Any, shot: Shot, seed: int, integrator: dict[str, Any], *,
                centred: bool = False) -> Float32:
        mi = self._mi
        sensor = mi.load_dict({**pinhole(shot), "to_world": mi.ScalarTransform4f(camera_to_world(shot.view)),
                               "film": {**film(shot), "rfilter": {"type": "box"} if centred else {
                                   "type": "gaussian", "stddev": 0.45}},
                               "sampler": {"type": "independent" if centred else "multijitter",
                                           "sample_count": shot.samples}})
        image = mi.render(scene, sensor=sensor, integrator=mi.load_dict(integrator), seed=seed & 0x7FFFFFFF,
                          spp=shot.samples)
        return np.asarray(image, np.float32)


def covered_part(covered: NDArray[np.bool_], shot: Shot) -> Shot | None:
    """The smallest shot within `shot` that holds what is `covered` (rows, columns of its image); None: nothing."""
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    if not len(rows):
        return None
    step = shot.step
    return shot._replace(
        rows=slice(shot.rows.start + int(rows[0]) * step, shot.rows.start + int(rows[-1] + 1) * step),
        columns=slice(shot.columns.start + int(columns[0]) * step, shot.columns.start + int(columns[-1] + 1) * step))


def without_fireflies(image: Float32) -> Float32:
    """Single pixels that are ten times brighter than the median around them (paths that met a small lamp by chance)
    become that median."""
    median = cv2.medianBlur(np.ascontiguousarray(image), 3)
    wild: NDArray[np.bool_] = np.any(image > 10 * median + np.float32(0.05), axis=2)
    return np.asarray(np.where(wild[..., None], median, image), np.float32)


def _constant(radiance: list[float]) -> dict[str, Any]:
    """Light from everywhere. Paths find it by themselves; the lamps get all the samples that are aimed at emitters."""
    return {"type": "constant", "radiance": {"type": "rgb", "value": radiance}, "sampling_weight": 0.0}


def camera_to_world(view: View) -> NDArray[np.float64]:
    """4x4 of Mitsuba's camera (x left, y up, z forward) for a view whose axes are x right, y down, z forward."""
    back = view.from_world.inverse()
    out = np.eye(4)
    out[:3, :3] = back.matrix @ np.diag([-1.0, -1.0, 1.0])
    out[:3, 3] = back.translation
    return out


def film(shot: Shot) -> dict[str, Any]:
    """Mitsuba's film of a shot: the view's whole image, cropped."""
    i, step = shot.view.intrinsics, shot.step
    return {"type": "hdrfilm", "pixel_format": "rgb", "component_format": "float32",
            "width": i.width // step, "height": i.height // step,
            "crop_offset_x": shot.columns.start // step, "crop_offset_y": shot.rows.start // step,
            "crop_width": (shot.columns.stop - shot.columns.start) // step,
            "crop_height": (shot.rows.stop - shot.rows.start) // step}


def pinhole(shot: Shot) -> dict[str, Any]:
    """Mitsuba's perspective camera of a view; pixel centres are at integers in ours, at halves in its.

    Raises:
        CameraError: a view with distortion or with pixels that are not square.
    """
    i = shot.view.intrinsics
    if i.is_distorted or abs(i.fx - i.fy) > 1e-6 * i.fx:
        raise CameraError(f"independent renderer: takes undistorted views with square pixels, got {i}")
    return {"type": "perspective", "fov_axis": "x", "fov": float(np.degrees(2 * np.arctan(i.width / (2 * i.fx)))),
            "near_clip": NEAR_CLIP_M, "far_clip": 50.0,
            "principal_point_offset_x": 0.5 - (i.cx + 0.5) / i.width,
            "principal_point_offset_y": 0.5 - (i.cy + 0.5) / i.height}
