"""The scene as a path tracer takes it: needs no Mitsuba."""

import numpy as np
import pytest

from capture.camera import CameraError
from capture.frames import StreamKind
from capture.independent.camera import independent_rig
from capture.independent.description import (
    KEY_DISTANCE_M,
    Band,
    Poser,
    emitted,
    face_window,
    key_lamp,
    reflectance,
    reflection_of,
    split_corners,
    subject_place,
    wall_corners,
    wall_texture,
)
from capture.independent.mitsuba_renderer import Shot, camera_to_world, covered_part, film, pinhole, without_fireflies
from capture.rig import Extrinsics
from capture.simulated.catalogue import make_scene
from capture.simulated.materials import Material
from capture.simulated.scene import Light, Wall
from capture.simulated.sensors import simulated_rig
from capture.simulated.view import View

SCENES = ("bona_fide", "flat_print", "phone_replay", "rigid_mask", "printed_eye_glasses")


@pytest.fixture(scope="module")
def scenes():
    return {name: make_scene(name, seed=3, distance_m=0.5) for name in SCENES}


def view_of(kind=StreamKind.COLOUR, rig=None):
    rig = rig or independent_rig()
    return View(intrinsics=rig.intrinsics[kind], from_world=rig.transform(StreamKind.DEPTH, kind))


@pytest.mark.parametrize("name", SCENES)
def test_split_corners_keep_every_triangle_in_place_and_in_texture(scenes, name):
    for body in scenes[name].bodies:
        mesh, (rows, columns) = body.meshes["neutral"], body.texture.shape[:2]
        corners = split_corners(mesh, (rows, columns))
        assert np.array_equal(corners.vertex[corners.triangles], mesh.triangles)
        texels = corners.uv[corners.triangles] * [columns, rows] - 0.5
        assert np.abs(texels - mesh.texels).max() < 1e-3


def test_surfaces_are_posed_as_the_scene_says(scenes):
    scene = scenes["bona_fide"]
    for surface in Poser(scene).surfaces(0.7):
        body = scene.bodies[surface.body]
        mesh = body.meshes[body.mesh_at(0.7)]
        world = body.motion.pose(0.7).to_world(mesh.vertices)
        assert np.abs(world[mesh.triangles] - surface.vertices[surface.triangles]).max() < 1e-5
        assert np.allclose(np.linalg.norm(surface.normals, axis=1), 1, atol=1e-4)


def test_a_display_glows_in_colour_and_is_dark_glass_in_infrared(scenes):
    display = next(body for body in scenes["phone_replay"].bodies if body.name == "display")
    assert emitted(display, Band.COLOUR).max() > 0.3
    assert emitted(display, Band.INFRARED) is None
    assert reflectance(display, Band.COLOUR).max() < 0.05
    assert reflectance(display, Band.INFRARED).max() < 0.1


@pytest.mark.parametrize("name", SCENES)
def test_reflectance_never_creates_light(scenes, name):
    for body in scenes[name].bodies:
        for band in Band:
            values = reflectance(body, band)
            assert values.shape[2] == 3
            assert values.min() >= 0
            assert values.max() <= 0.95


def test_a_glossier_unknown_material_reflects_sharper():
    dull, bright = (reflection_of(Material(name="new", gloss=gloss, shininess=shine))
                    for gloss, shine in ((0.01, 5), (0.3, 500)))
    assert bright.roughness < dull.roughness
    assert bright.specular > dull.specular


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("kind", [StreamKind.COLOUR, StreamKind.DEPTH])
def test_the_window_holds_every_face(scenes, name, kind):
    view = view_of(kind)
    rows, columns = face_window(scenes[name], view, 0.3)
    i = view.intrinsics
    for body in scenes[name].bodies:
        if body.face_points is not None:
            pixels = view.project(body.motion.pose(0.3).to_world(body.face_points))
            inside = np.clip(pixels, 0, [i.width, i.height])
            assert (inside >= [columns.start, rows.start]).all()
            assert (inside <= [columns.stop, rows.stop]).all()


def test_nobody_has_no_window():
    assert face_window(make_scene("nobody", seed=1), view_of(), 0.0) is None


def test_windows_of_a_live_face_and_of_its_null_attack_are_equal():
    live = make_scene("bona_fide", seed=5, distance_m=0.5)
    null = make_scene("rigid_mask", seed=5, distance_m=0.5, physics=False)
    assert face_window(live, view_of(), 0.2) == face_window(null, view_of(), 0.2)


def test_the_softbox_lights_white_as_bright_as_the_scene_says():
    lamp = key_lamp(Light(key=0.6, tint=(1.1, 1.0, 0.9)), np.array([0.0, 0.0, 0.5]))
    assert np.linalg.norm(lamp.place_m - [0, 0, 0.5]) == pytest.approx(KEY_DISTANCE_M)
    irradiance = lamp.radiance * lamp.side_m ** 2 / KEY_DISTANCE_M ** 2
    assert irradiance / np.pi == pytest.approx(0.6 * np.array([1.1, 1.0, 0.9]))


def test_the_subject_is_where_the_face_is(scenes):
    assert subject_place(scenes["bona_fide"], 0.0)[2] == pytest.approx(0.5, abs=0.08)


def test_the_wall_stands_at_its_distance_and_belongs_to_its_seed():
    assert wall_corners(Wall(distance_m=2.0, yaw_rad=0.1)).mean(axis=0) == pytest.approx([0, 0, 2], abs=1e-5)
    assert not np.array_equal(wall_texture(1), wall_texture(2))
    assert np.array_equal(wall_texture(1), wall_texture(1))


def test_the_camera_of_mitsuba_looks_along_the_view():
    right = View(intrinsics=independent_rig().intrinsics[StreamKind.DEPTH],
                 from_world=Extrinsics.from_arrays(np.eye(3), np.array([-0.055, 0, 0])))
    matrix = camera_to_world(right)
    assert matrix[:3, 3] == pytest.approx([0.055, 0, 0])
    assert matrix[:3, 2] == pytest.approx([0, 0, 1])  # forward
    assert matrix[:3, 0] == pytest.approx([-1, 0, 0])  # its x points left
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)


def test_a_pinhole_puts_the_optical_axis_on_its_pixel():
    shot = Shot(view_of(), slice(0, 480), slice(0, 640), 1)
    made, i = pinhole(shot), shot.view.intrinsics
    assert (0.5 - made["principal_point_offset_x"]) * i.width - 0.5 == pytest.approx(i.cx)
    assert np.tan(np.radians(made["fov"] / 2)) * 2 * i.fx == pytest.approx(i.width)


def test_distorted_views_are_refused():
    view = view_of(rig=simulated_rig(distorted=True))
    with pytest.raises(CameraError, match="undistorted views with square pixels"):
        pinhole(Shot(view, slice(0, 8), slice(0, 8), 1))


def test_a_film_covers_the_window_at_its_step():
    made = film(Shot(view_of(), slice(80, 240), slice(40, 200), 4, 4))
    assert (made["width"], made["height"], made["crop_offset_x"], made["crop_offset_y"], made["crop_width"],
            made["crop_height"]) == (160, 120, 10, 20, 40, 40)


def test_the_covered_part_is_the_smallest_shot():
    shot = Shot(view_of(), slice(100, 140), slice(60, 100), 9, 2)
    covered = np.zeros((20, 20), bool)
    assert covered_part(covered, shot) is None
    covered[3:5, 7] = True
    part = covered_part(covered, shot)
    assert (part.rows, part.columns) == (slice(106, 110), slice(74, 76))


def test_fireflies_go_and_edges_stay():
    image = np.full((9, 9, 3), 0.2, np.float32)
    image[:, 5:] = 0.9
    image[2, 2] = 50
    out = without_fireflies(image)
    assert out[2, 2] == pytest.approx(0.2)
    assert np.array_equal(out[4:], image[4:])
