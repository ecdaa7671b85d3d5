"""Hard cases of both labels, light, and what happens to the colour stream. All data is simulated."""

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest

from capture.simulated.catalogue import draw_light, draw_misses, make_scene
from capture.simulated.profiles import SensorNoise
from capture.simulated.scene import Light, Scene, Segment
from capture.simulated.sensors import Sensors, simulated_rig

SIZE = (320, 240)
scene_of = lru_cache(make_scene)


def planes_of(scene, *, noise=None, seed=5, time_s=0.3):
    return Sensors(scene, simulated_rig(SIZE), noise or SensorNoise(), seed).planes(2, time_s, time_s)


def hole_share(name, seed):
    """How much of the face's inner part, as it is boxed in the depth image, has no depth."""
    scene = make_scene(name, seed=seed, distance_m=0.5)
    sensors = Sensors(scene, simulated_rig(SIZE), SensorNoise(), seed)
    planes, visible = sensors.planes(2, 0.2, 0.2), sensors.stage.visible(sensors.depth_view, sensors.stage.states(0.2))
    bearers = [i for i, body in enumerate(scene.bodies) if body.segment is Segment.FACE]
    (number,) = [i for i, body in enumerate(scene.bodies) if body.face_points is not None]
    points = visible.states[number].pose.to_world(scene.bodies[number].face_points)
    (left, top), (right, bottom) = (np.percentile(sensors.depth_view.project(points), share, axis=0).astype(int)
                                    for share in (12, 88))
    window = np.s_[top:bottom, left:right]
    face = np.isin(visible.owner[window], bearers)
    return float((planes.depth[window] == 0)[face].mean())


def test_holes_of_hard_live_faces_overlap_those_of_replays():
    live, shown = ([hole_share(name, seed) for seed in range(14)] for name in ("bona_fide", "tablet_replay"))
    assert np.percentile(live, 90) > np.percentile(shown, 35)
    assert np.median(live) < np.median(shown)
    assert min(live) < 0.03
    better = np.mean([a > b for a in shown for b in live])
    assert better < 0.97, f"holes alone tell replays from live faces, AUC {better:.2f}"


def test_one_session_in_four_misses_depth_on_every_surface():
    shares = np.array([draw_misses(seed) for seed in range(800)])
    assert np.mean(shares > 0.03) == pytest.approx(0.25, abs=0.05)
    for name in ("bona_fide", "matte_display_replay"):
        scene = scene_of(name, seed=2)
        clear, missing = (np.mean(planes_of(replace(scene, depth_misses=share)).depth[90:150, 130:190] == 0)
                          for share in (0.0, 0.3))
        assert missing > clear + 0.1


def test_the_sun_costs_depth():
    scene = replace(scene_of("flat_print", seed=2), depth_misses=0.0)
    lost = [np.mean(planes_of(replace(scene, light=Light(room_infrared=sun))).depth[90:150, 130:190] == 0)
            for sun in (0.02, 1.5)]
    assert lost[1] > lost[0] + 0.03


def test_rooms_are_even_hard_lit_or_dim():
    lights = [draw_light(seed) for seed in range(500)]
    assert np.mean([light.level < 1 for light in lights]) == pytest.approx(1 / 7, abs=0.05)
    hard = [light for light in lights if light.key > 0.75]
    assert len(hard) / 500 == pytest.approx(1 / 7, abs=0.05)
    assert all(abs(light.towards_key[0]) > 0.85 for light in hard)
    assert all(light.key + light.ambient < 1.35 for light in lights)


def test_a_dim_room_costs_noise_and_little_brightness():
    wall = Scene(name="wall", label=None, species=None, bodies=())
    dim = replace(wall, light=replace(wall.light, level=0.2))
    shots = [[planes_of(scene, seed=seed).colour[100:140, 100:180].astype(float) for seed in (1, 2)]
             for scene in (wall, dim)]
    spread = [np.std(first / first.mean() - second / second.mean()) for first, second in shots]
    assert spread[1] > 1.7 * spread[0]
    assert 0.8 < np.mean(shots[1]) / np.mean(shots[0]) < 0.98


def test_jpeg_leaves_blocks_and_is_off_by_default():
    scene = scene_of("bona_fide", seed=2)
    plain, packed = (planes_of(scene, noise=replace(SensorNoise(), jpeg_quality=quality)).colour
                     for quality in (None, 40))
    assert SensorNoise().jpeg_quality is None
    assert 25 < cv2.PSNR(plain, packed) < 45
    grey = packed[..., 1].astype(float)
    steps = np.abs(np.diff(grey, axis=1)).mean(axis=0)
    assert steps[7::8].mean() > 1.1 * np.delete(steps, np.s_[7::8]).mean()  # at the edges of 8 x 8 blocks


def test_a_moving_face_smears_along_its_way_and_a_still_wall_does_not():
    scene = make_scene("bona_fide", seed=2, distance_m=0.5, drift_m_per_s=(0.4, 0.0, 0.0))
    ideal = SensorNoise.none()
    sharp, smeared = (planes_of(scene, noise=replace(ideal, exposure_ms=length)).colour.astype(float)
                      for length in (0.0, 30.0))
    face = np.s_[90:140, 150:190]
    across, down = ([np.abs(np.diff(image[face].mean(axis=2), axis=axis)).mean() for image in (sharp, smeared)]
                    for axis in (1, 0))
    assert across[1] < 0.8 * across[0]
    assert across[1] / across[0] < down[1] / down[0]
    assert np.array_equal(sharp[:20, :40], smeared[:20, :40])
