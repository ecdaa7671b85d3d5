"""Statistics of rendered frames against the figures of docs/simulator-sources.md. All data is simulated."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from capture.simulated.catalogue import make_scene
from capture.simulated.profiles import SENSOR_PROFILES, SensorNoise
from capture.simulated.projector import dot_pattern
from capture.simulated.response import decode_srgb
from capture.simulated.scene import Light, Scene, Wall
from capture.simulated.sensors import Sensors, simulated_rig
from capture.simulated.skin import Complexion, skin_reflectance

SIZE = (320, 240)
D4XX = SENSOR_PROFILES["d4xx"]
MIDDLE = np.s_[80:160, 110:210]


def wall_at(distance_m, *, metered_m=1.0, **light):
    return Scene(name="wall", label=None, species=None, bodies=(), wall=Wall(distance_m=distance_m, yaw_rad=0.0),
                 light=Light(**light), nominal_distance_m=metered_m)


def planes_of(scene, noise, *, frames=1, size=SIZE, profile=D4XX, seed=3, serial="UNIT"):
    sensors = Sensors(scene, simulated_rig(size, profile=profile, serial=serial), noise, seed, profile)
    return [sensors.planes(index, 0.1, 0.1) for index in range(frames)]


NO_HOLES = replace(SensorNoise(), holes=False)


def test_averaging_frames_leaves_the_share_of_depth_noise_that_lasts():
    """D4xx: waves on a wall that the mean of 50 frames shows as well."""
    depth_m = np.stack([each.depth[MIDDLE] for each in planes_of(wall_at(2.0), NO_HOLES, frames=24)]) * 1e-3
    error = 1 / depth_m - 0.5
    left = np.var(error.mean(axis=0)) / np.var(error)
    # 24 frames are 8 patterns that fade into each other: their mean keeps about a fifth of the rest.
    assert NO_HOLES.lasting_share <= left < NO_HOLES.lasting_share + (1 - NO_HOLES.lasting_share) / 4
    lone = replace(NO_HOLES, lasting_share=0.0)
    alone = np.stack([each.depth[MIDDLE] for each in planes_of(wall_at(2.0), lone, frames=24)]) * 1e-3
    assert np.var((1 / alone - 0.5).mean(axis=0)) / np.var(1 / alone - 0.5) < 1 / 4
    assert alone.std() == pytest.approx(depth_m.std(), rel=0.05)  # how large it is does not depend on how long it lasts


@pytest.mark.parametrize(("distance_m", "seen"), [(0.148, False), (0.158, True)])
def test_depth_ends_where_126_disparities_end(distance_m, seen):
    """f B / 126: 0.153 m at 640 x 480."""
    assert D4XX.focal_px * D4XX.baseline_m / 126 == pytest.approx(0.153, abs=0.001)
    noise = replace(SensorNoise(), glare_code=1e9)
    (found,) = planes_of(wall_at(distance_m, metered_m=distance_m), noise, size=(640, 480))
    middle = found.depth[200:280, 280:360]
    assert np.mean(middle > 0) > 0.9 if seen else not middle.any()


def test_depth_of_structured_light_comes_in_eighths_of_a_millimetre():
    profile = SENSOR_PROFILES["sr300"]
    (found,) = planes_of(wall_at(0.5), replace(profile.noise, holes=False), profile=profile)
    assert profile.depth_scale_m == pytest.approx(1.25e-4)
    assert np.median(found.depth) * profile.depth_scale_m == pytest.approx(0.5, abs=0.002)
    assert len(np.unique(found.depth[MIDDLE])) > 8  # several steps within a millimetre's spread


#: Between the wall's picture and its door, from 1 m on.
PLASTER = np.s_[80:160, 172:188]


def infrared_of(scene):
    return planes_of(scene, SensorNoise.none())[0].infrared[PLASTER].mean()


@pytest.mark.parametrize("far_m", [2.0, 3.0])
def test_infrared_of_the_lamp_falls_with_the_square_of_distance_and_that_of_the_room_does_not(far_m):
    near, far = (infrared_of(wall_at(z, room_infrared=0.0)) for z in (1.0, far_m))
    assert near / far == pytest.approx(far_m ** 2, rel=0.10)
    near, far = (infrared_of(wall_at(z, metered_m=0.6, room_infrared=2.0)) for z in (1.0, far_m))
    assert near / far == pytest.approx(3 / (2 + 1 / far_m ** 2), rel=0.10)


def test_who_comes_nearer_than_was_metered_saturates_and_loses_depth_there():
    """Exposure is settled at 0.6 m; at 0.3 m four times the light comes back."""
    scene = replace(make_scene("bona_fide", seed=2, distance_m=0.6, drift_m_per_s=(0, 0, -0.2)), depth_misses=0.0)
    sensors = Sensors(scene, simulated_rig(SIZE), SensorNoise(), 2)
    saturated, known = [], []
    for time_s in (0.0, 1.5):
        planes = sensors.planes(1, time_s, time_s)
        face = sensors.stage.visible(sensors.depth_view, sensors.stage.states(time_s)).owner == 0
        saturated.append(np.mean(planes.infrared[face] == 255))
        known.append(np.mean(planes.depth[face] > 0))
        if saturated[-1] > 0.5:  # clipped, not noisy: a saturated pixel stays white
            assert np.all(sensors.planes(2, time_s, time_s).infrared[face][planes.infrared[face] == 255] > 240)
    assert saturated[0] < 0.02
    assert saturated[1] > 0.5
    assert known[1] < known[0] - 0.3


def test_temporal_noise_follows_the_photon_transfer_curve():
    """EMVA 1288's method: half the variance of the difference of two frames, against the level; shot and read noise."""
    noise = replace(SensorNoise(), blur_px=0.0)
    for metered_m in (0.5, 0.8, 1.1):
        frames = [each.infrared[MIDDLE].astype(float) for each in planes_of(wall_at(1.0, metered_m=metered_m), noise,
                                                                            frames=6)]
        level = np.mean(frames)
        variance = np.mean([np.var(one - other) / 2 for one, other in zip(frames[0::2], frames[1::2], strict=True)])
        expected = level * 255 / noise.full_well + noise.read_codes ** 2 + 1 / 12  # and rounding to codes
        assert variance == pytest.approx(expected, rel=0.08), metered_m


def test_spatial_non_uniformity_is_the_profiles():
    """Photo-response non-uniformity: what stays when noise is averaged away, as a share of the level."""
    kept, plain = (replace(SensorNoise(), read_codes=0.3, full_well=4e5, blur_px=0.0, fixed_pattern=share)
                   for share in (0.02, 0.0))
    with_pattern, without = (np.mean([each.infrared[MIDDLE] for each in planes_of(wall_at(1.0), noise, frames=4)],
                                     axis=0) for noise in (kept, plain))
    assert np.std(with_pattern - without) / np.mean(without) == pytest.approx(0.02, rel=0.12)


def test_the_projector_has_about_5000_dots():
    pattern = dot_pattern(D4XX.dots, np.random.default_rng(1))
    top = pattern[1:-1, 1:-1]
    around = [np.roll(np.roll(pattern, row, 0), column, 1)[1:-1, 1:-1] for row in (-1, 0, 1) for column in (-1, 0, 1)
              if row or column]
    peaks = np.all([top > each for each in around], axis=0) & (top > 1)
    assert peaks.sum() == pytest.approx(5000, rel=0.05)


@lru_cache
def face_of(seed):
    """Codes of colour (linear) and infrared in the middle of a rendered live face."""
    scene = replace(make_scene("bona_fide", seed=seed, distance_m=0.5), depth_misses=0.0)
    sensors = Sensors(scene, simulated_rig(SIZE), SensorNoise.none(), seed)
    planes, states = sensors.planes(1, 0.1, 0.1), sensors.stage.states(0.1)
    values = []
    for view, plane in ((sensors.colour_view, decode_srgb(planes.colour)[..., 0]),
                        (sensors.depth_view, planes.infrared.astype(float))):
        owner = sensors.stage.visible(view, states).owner == 0
        rows, columns = np.nonzero(owner)
        middle = owner & (np.abs(np.arange(SIZE[1])[:, None] - np.median(rows)) < 0.25 * np.ptp(rows)) \
            & (np.abs(np.arange(SIZE[0])[None] - np.median(columns)) < 0.25 * np.ptp(columns))
        values.append(float(np.median(plane[middle])))
    return values


def test_rendered_faces_differ_far_less_in_infrared_than_in_red():
    found = np.array([face_of(seed) for seed in range(10)])
    spread = found.std(axis=0) / found.mean(axis=0)
    assert spread[0] > 0.30
    assert spread[1] < 0.5 * spread[0]


def test_skin_is_darker_in_every_band_the_more_melanin_it_has_and_least_so_at_850_nm():
    light, dark = (skin_reflectance(melanin) for melanin in (0.0, 1.0))
    ratio = light / dark
    assert (ratio > 1.1).all()
    assert ratio[3] < 1.35
    assert (ratio[:3] > 4).all()
    tones = {Complexion.random(np.random.default_rng(seed)).melanin for seed in range(40)}
    assert max(tones) - min(tones) > 0.8


@lru_cache
def contrast(name):
    """Relative spread of rendered infrared, at the scale of features, in the middle of what bears the face."""
    scene = replace(make_scene(name, seed=2, distance_m=0.5), depth_misses=0.0)
    sensors = Sensors(scene, simulated_rig(SIZE), SensorNoise.none(), 2)
    bearer = next(place for place, body in enumerate(scene.bodies) if body.face_points is not None)
    infrared = sensors.planes(1, 0.1, 0.1).infrared.astype(float)
    owner = sensors.stage.visible(sensors.depth_view, sensors.stage.states(0.1)).owner == bearer
    rows, columns = np.nonzero(owner)
    window = np.s_[int(np.median(rows)) - 25:int(np.median(rows)) + 25,
                   int(np.median(columns)) - 18:int(np.median(columns)) + 18]
    values = infrared[window][owner[window]]
    return float(values.std() / values.mean())


def test_a_laser_print_keeps_its_portrait_at_850_nm_and_an_ink_jet_print_does_not():
    """As in near infrared recordings of WMCA: laser prints match their subject, ink-jet prints and displays hardly."""
    toner, dye = contrast("flat_print"), contrast("dye_print")
    assert toner > 2.5 * dye
    assert dye < 0.08
