"""The held-out time-of-flight sensor. All data is simulated."""

from dataclasses import replace

import numpy as np
import pytest

from capture.frames import StreamKind
from capture.simulated.catalogue import make_scene
from capture.simulated.profiles import SENSOR_PROFILES
from capture.simulated.scene import Light, Scene, Wall
from capture.simulated.sensors import Sensors, simulated_rig
from capture.simulated.time_of_flight import TimeOfFlightErrors

SIZE = (320, 240)
PROFILE = SENSOR_PROFILES["time_of_flight"]


def planes_of(scene, *, noise=PROFILE.noise, seed=1, profile=PROFILE, index=0):
    return Sensors(scene, simulated_rig(SIZE, profile=profile), noise, seed, profile).planes(index, 0.1, 0.1)


def wall_at(distance_m, **light):
    return Scene(name="wall", label=None, species=None, bodies=(), wall=Wall(distance_m=distance_m, yaw_rad=0.0),
                 light=Light(**light), nominal_distance_m=0.8)


@pytest.mark.parametrize(("returned", "ambient", "spread_mm"), [
    # range_noise_m * sqrt(A + B) / A
    (1.0, 0.0, 1.8), (4.0, 0.0, 0.9), (0.25, 0.0, 3.6), (1.0, 3.0, 3.6)])
def test_spread_follows_returned_light(returned, ambient, spread_mm):
    errors = TimeOfFlightErrors((4, 4), PROFILE.noise, 0)
    assert errors.spread_m(np.full((4, 4), returned, np.float32), ambient) == pytest.approx(spread_mm * 1e-3, rel=1e-3)


def test_measured_error_grows_with_distance_and_with_the_suns_light():
    only_noise = replace(PROFILE.noise, mixed_px=0.0, scattered_share=0.0, holes=False, range_noise_limit_m=1.0)

    def spread(scene):
        depth = [planes_of(scene, noise=only_noise, index=index).depth[100:140, 120:200].astype(float)
                 for index in range(3)]
        return np.std(depth[0] - depth[1]) / np.sqrt(2)
    near, far, sunny = spread(wall_at(0.8)), spread(wall_at(1.6)), spread(wall_at(0.8, room_infrared=1.5))
    assert far / near == pytest.approx(2, rel=0.25)  # sqrt(A) / A, A as 1 / z²
    assert sunny > 1.4 * near


def test_infrared_shows_the_lamps_light_alone():
    dark, sunny = (planes_of(wall_at(0.8, room_infrared=share)).infrared.mean() for share in (0.0, 1.5))
    assert dark == pytest.approx(sunny, rel=0.02)
    stereo = SENSOR_PROFILES["d4xx"]
    shades = [planes_of(wall_at(0.8, room_infrared=share), profile=stereo, noise=stereo.noise).infrared.mean()
              for share in (0.0, 0.3)]
    assert shades[1] > 1.1 * shades[0]


def test_flying_pixels_lie_between_head_and_wall_and_no_strip_is_in_shadow():
    scene = make_scene("bona_fide", seed=2, distance_m=0.5)
    scene = replace(scene, depth_misses=0.0)
    found, stereo = (planes_of(scene, profile=SENSOR_PROFILES[name], noise=SENSOR_PROFILES[name].noise)
                     for name in ("time_of_flight", "d4xx"))
    wall = int(1e3 * scene.wall.distance_m)
    flying = (found.depth > 900) & (found.depth < wall - 300)
    assert flying.sum() > 30
    assert not ((stereo.depth > 900) & (stereo.depth < wall - 300)).any()
    assert np.mean(found.depth == 0) < 0.6 * np.mean(stereo.depth == 0)


def test_scattered_light_pulls_dark_surfaces_towards_what_surrounds_them():
    noise = replace(PROFILE.noise, mixed_px=0.0, range_noise_m=0.0)
    depth = np.full((96, 96), 1.0, np.float32)
    bright = np.full((96, 96), 0.8, np.float32)
    depth[40:56, 40:56], bright[40:56, 40:56] = 0.6, 0.02
    measured, lost = TimeOfFlightErrors((96, 96), noise, 0).applied(0, depth, bright, 0.0)
    assert not lost.any()
    assert 0.01 < measured[48, 48] - 0.6 < 0.2
    assert abs(measured[10, 10] - 1.0) < 1e-3


def test_depth_of_a_face_is_right_to_a_few_millimetres():
    scene = replace(make_scene("bona_fide", seed=2, distance_m=0.5), depth_misses=0.0)
    sensors = Sensors(scene, simulated_rig(SIZE, profile=PROFILE), PROFILE.noise, 1, PROFILE)
    planes = sensors.planes(0, 0.1, 0.1)
    visible = sensors.stage.visible(sensors.depth_view, sensors.stage.states(0.1))
    face = (visible.owner == 0) & (planes.depth > 0)
    error = planes.depth[face] * 1e-3 - visible.depth_m[face]
    assert abs(np.median(error)) < 0.003
    assert np.percentile(np.abs(error), 75) < 0.006
    assert simulated_rig(profile=PROFILE).intrinsics[StreamKind.DEPTH].fx == pytest.approx(PROFILE.focal_px)
