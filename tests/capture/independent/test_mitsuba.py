"""The independent renderer itself, against exact geometry and known light. Needs the extra `independent`."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from capture.camera import CameraError, EndOfStreamError
from capture.frames import StreamKind
from capture.independent.camera import IndependentCamera, Quality, independent_rig
from capture.independent.description import Band, face_window
from capture.independent.mitsuba_renderer import MitsubaStage, RendererMissingError, Shot, load_mitsuba
from capture.rig import Extrinsics
from capture.simulated.catalogue import make_scene
from capture.simulated.render import Stage
from capture.simulated.scene import Light
from capture.simulated.view import View

needs_mitsuba = pytest.mark.skipif(find_spec("mitsuba") is None, reason="mitsuba is not installed (extra independent)")
QUICK = Quality(colour=2, infrared=2, dots=2, outside=1, step=8)


@pytest.mark.skipif(find_spec("mitsuba") is not None, reason="mitsuba is installed")
def test_a_missing_renderer_names_the_extra():
    with pytest.raises(RendererMissingError, match=r"mmdg-live\[independent\]"):
        load_mitsuba()


@pytest.fixture(scope="module")
def stage():
    return MitsubaStage(make_scene("bona_fide", seed=1, distance_m=0.5), threads=1)


def depth_view():
    return View(intrinsics=independent_rig().intrinsics[StreamKind.DEPTH], from_world=Extrinsics.identity())


def colour_view():
    rig = independent_rig()
    return View(intrinsics=rig.intrinsics[StreamKind.COLOUR],
                from_world=rig.transform(StreamKind.DEPTH, StreamKind.COLOUR))


@needs_mitsuba
@pytest.mark.parametrize("view", [depth_view(), colour_view()], ids=["depth", "colour"])
def test_mitsubas_geometry_is_the_scenes(stage, view):
    rows, columns = face_window(stage.scene, view, 0.4)
    found = stage.at(0.4, Band.INFRARED).depth_m(Shot(view, rows, columns, 1), 1)
    exact = Stage(stage.scene)
    seen = exact.visible(view, exact.states(0.4))
    where = seen.owner[rows, columns] >= 0
    error = np.abs(found - seen.depth_m[rows, columns])[where]
    # Mitsuba looks somewhere inside each pixel, not at its middle.
    assert np.median(error) < 3e-4
    assert np.percentile(error, 95) < 3e-3


@needs_mitsuba
def test_the_wall_is_as_bright_as_its_light_and_paint_make_it(stage):
    scene = replace(make_scene("nobody", seed=1), light=Light(key=0.0, ambient=0.5))
    bright, brighter = (
        MitsubaStage(replace(scene, light=replace(scene.light, ambient=ambient)), threads=1).at(0.0, Band.COLOUR)
        .radiance(Shot(depth_view(), slice(0, 480), slice(0, 640), 4, 8), 1, bounces=1).mean()
        for ambient in (0.4, 0.8))
    assert brighter == pytest.approx(2 * bright, rel=0.02)


@needs_mitsuba
def test_infrared_falls_with_the_square_of_distance():
    levels = []
    for distance in (0.4, 0.8):
        scene = make_scene("bona_fide", seed=1, distance_m=distance)
        scene = replace(scene, light=replace(scene.light, room_infrared=0.0))
        own = MitsubaStage(scene, threads=1)
        view = depth_view()
        window = face_window(scene, view, 0.0, scale=0.3)
        levels.append(float(np.median(own.at(0.0, Band.INFRARED).radiance(Shot(view, *window, 4), 1, bounces=1))))
    assert levels[0] / levels[1] == pytest.approx(4.0, rel=0.25)


@needs_mitsuba
def test_a_screen_glows_in_colour_and_is_dark_in_infrared():
    scene = make_scene("tablet_replay", seed=1, distance_m=0.5)
    live = make_scene("bona_fide", seed=1, distance_m=0.5)
    view = depth_view()

    def level(shown, band):
        window = face_window(shown, view, 0.0, scale=0.6)
        image = MitsubaStage(shown, threads=1).at(0.0, band).radiance(Shot(view, *window, 4), 1)
        return float(np.median(image))
    assert level(scene, Band.INFRARED) < 0.3 * level(live, Band.INFRARED)
    assert level(scene, Band.COLOUR) > 0.3 * level(live, Band.COLOUR)


@needs_mitsuba
def test_the_camera_keeps_the_contract():
    camera = IndependentCamera("flat_print", seed=2, frames=2, quality=QUICK, with_truth=True)
    with pytest.raises(CameraError, match="before open"):
        camera.read(1.0)
    with camera:
        description = camera.open()
        first, second = camera.read(1.0), camera.read(1.0)
        with pytest.raises(EndOfStreamError):
            camera.read(1.0)
    assert description.simulated
    assert not description.live
    assert (first.sequence, second.sequence) == (0, 1)
    assert second.colour.sensor_timestamp_ns - first.colour.sensor_timestamp_ns == 100_000_000
    assert first.truth.species == "flat_print"
    assert len(first.truth.face_boxes()) == 1
    assert first.depth.pixels.shape == first.infrared.pixels.shape == (480, 640)


@needs_mitsuba
def test_equal_seeds_give_equal_sets():
    one, two = (IndependentCamera("bona_fide", seed=4, frames=1, quality=QUICK) for _ in range(2))
    with one, two:
        first, second = one.read(1.0), two.read(1.0)
    for a, b in zip(first.frames(), second.frames(), strict=True):
        assert np.array_equal(a.pixels, b.pixels)


@needs_mitsuba
def test_matched_depth_of_a_print_is_flat_and_right():
    scene = make_scene("flat_print", seed=1, distance_m=0.5)
    with IndependentCamera(scene, seed=1, frames=1, with_truth=True) as camera:
        frames = camera.read(1.0)
    rows, columns = face_window(scene, depth_view(), 0.0, scale=0.6)
    measured = frames.depth.pixels[rows, columns] * 1e-3
    exact = frames.truth.render_truth().depth_m[rows, columns]
    good = measured > 0
    assert good.mean() > 0.95
    assert np.median(np.abs(measured - exact)[good]) < 2e-3


@needs_mitsuba
def test_nobody_can_be_filmed():
    with IndependentCamera("nobody", seed=1, frames=1, quality=QUICK) as camera:
        assert np.median(camera.read(1.0).depth.pixels) > 1000  # the wall
