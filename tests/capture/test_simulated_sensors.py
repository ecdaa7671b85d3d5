"""Noise, holes and light of the simulated sensors. All data is simulated."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from capture.camera import CameraError, Pace
from capture.frames import StreamKind
from capture.rig import Extrinsics
from capture.simulated.camera import SimulatedCamera
from capture.simulated.catalogue import make_scene
from capture.simulated.heads import ASSET, HeadAssetError, load_heads
from capture.simulated.profiles import SENSOR_PROFILES
from capture.simulated.projector import dot_pattern, projected_dots
from capture.simulated.response import decode_srgb, encode_srgb
from capture.simulated.scene import Scene, Segment, Wall
from capture.simulated.sensors import STEREO_BASELINE_M, SensorNoise, Sensors, simulated_rig
from capture.simulated.view import View
from capture.simulated.wall import wall_depth

SIZE = (320, 240)
scene_of = lru_cache(make_scene)


def sets_of(scene, *, frames=1, noise=None, seed=9):
    with SimulatedCamera(scene, seed=seed, pace=Pace.LOCKSTEP, frames=frames, noise=noise, size=SIZE,
                         with_truth=True) as camera:
        return [camera.read(1.0) for _ in range(frames)]


def wall_at(distance_m):
    return Scene(name="wall", label=None, species=None, bodies=(), wall=Wall(distance_m=distance_m, yaw_rad=0.0))


@pytest.mark.parametrize("distance_m", [1.0, 2.0, 3.0])
def test_depth_noise_is_constant_in_disparity_hence_grows_with_the_square_of_distance(distance_m):
    noise = replace(SensorNoise(), holes=False)
    depth_m = np.stack([s.depth.pixels for s in sets_of(wall_at(distance_m), frames=8, noise=noise)]) * 1e-3
    predicted_m = distance_m ** 2 * 0.08 / (simulated_rig(SIZE).intrinsics[StreamKind.DEPTH].fx * STEREO_BASELINE_M)
    assert depth_m.std() == pytest.approx(predicted_m, rel=0.05)
    assert depth_m.mean() == pytest.approx(distance_m, abs=0.1 * predicted_m)


def test_depth_errors_are_alike_nearby_and_from_frame_to_frame_as_the_profile_says():
    noise = replace(SensorNoise(), holes=False)
    depth_m = np.stack([s.depth.pixels for s in sets_of(wall_at(2.0), frames=4, noise=noise)]) * 1e-3
    error = 1 / depth_m - 1 / 2.0

    def alike(first, second):
        return np.corrcoef(first.ravel(), second.ravel())[0, 1]
    # White noise behind a Gaussian of that width: exp(-d² / 4 sigma²).
    expected = np.exp(-np.array([1, 3]) ** 2 / (4 * noise.correlation_px ** 2))
    assert alike(error[0][:, 1:], error[0][:, :-1]) == pytest.approx(expected[0], abs=0.04)
    assert alike(error[0][:, 3:], error[0][:, :-3]) == pytest.approx(expected[1], abs=0.05)
    assert abs(alike(error[0][:, 12:], error[0][:, :-12])) < 0.06
    # Two patterns blend over `hold_frames`, beside one that lasts.
    share = noise.lasting_share
    assert alike(error[0], error[1]) == pytest.approx(share + (1 - share) * np.cos(np.pi / 2 / noise.hold_frames),
                                                      abs=0.06)
    assert alike(error[0], error[noise.hold_frames]) == pytest.approx(share, abs=0.06)


def test_disparity_comes_in_steps_of_a_thirty_second_of_a_pixel():
    (found,) = sets_of(wall_at(3.0), noise=replace(SensorNoise(), holes=False))
    depth_m = np.unique(found.depth.pixels) * 1e-3
    disparity = simulated_rig(SIZE).intrinsics[StreamKind.DEPTH].fx * STEREO_BASELINE_M / depth_m
    assert len(depth_m) > 5
    assert np.abs(disparity * 32 - np.rint(disparity * 32)).max() < 0.05  # the rest: rounding to 1 mm


@pytest.mark.parametrize(("profile", "distance_m", "error_m"), [
    # Carfagni et al. 2017: about a millimetre at half a metre. Tuning guide: z² 0.08 px / (f B).
    ("sr300", 0.5, 0.9e-3), ("d4xx", 0.5, 1.04e-3), ("d4xx", 1.0, 4.15e-3)])
def test_error_of_depth_by_profile(profile, distance_m, error_m):
    kind = SENSOR_PROFILES[profile]
    with SimulatedCamera(wall_at(distance_m), profile=kind, seed=4, pace=Pace.LOCKSTEP, frames=8) as camera:
        depth = np.stack([camera.read(1.0).depth.pixels for _ in range(8)]).astype(float)
    assert kind.depth_scale_m * depth[depth > 0].std() == pytest.approx(error_m, rel=0.12)


@pytest.mark.parametrize(("profile", "distance_m", "seen"), [
    ("d4xx", 0.12, False), ("d4xx", 0.25, True), ("sr300", 0.15, False), ("sr300", 0.5, True), ("sr300", 1.8, False)])
def test_range_of_depth(profile, distance_m, seen):
    with SimulatedCamera(wall_at(distance_m), profile=profile, pace=Pace.LOCKSTEP, frames=1) as camera:
        depth = camera.read(1.0).depth.pixels
    assert np.mean(depth > 0) > 0.6 if seen else not depth.any()


def test_the_projector_puts_dots_into_infrared_that_shift_with_depth_and_the_flood_does_not():
    contrast = {}
    for profile in ("d4xx", "d4xx_projector"):
        with SimulatedCamera(wall_at(0.6), profile=profile, pace=Pace.LOCKSTEP, frames=1, noise=SensorNoise.none()) \
                as camera:
            plane = camera.read(1.0)
        middle = plane.infrared.pixels[180:300, 240:400].astype(float)
        contrast[profile] = middle.std() / middle.mean()
        assert plane.infrared.emitter is SENSOR_PROFILES[profile].emitter
        assert plane.infrared.spectrum is SENSOR_PROFILES[profile].spectrum
    assert contrast["d4xx_projector"] > 0.4
    assert contrast["d4xx"] < 0.2
    view = View(intrinsics=simulated_rig().intrinsics[StreamKind.DEPTH], from_world=Extrinsics.identity())
    pattern = dot_pattern(5000, np.random.default_rng(0))
    near, far = (projected_dots(pattern, view, np.full((480, 640), z, np.float32))[200:280] for z in (0.5, 0.6))
    # The projector stands 21 mm beside the imager: f b (1/z - 1/z') pixels.
    expected = 385.1 * 0.021 * (1 / 0.5 - 1 / 0.6)
    shifts = range(-8, 9)
    likeness = [np.corrcoef(near[:, 100:500].ravel(), far[:, 100 + n:500 + n].ravel())[0, 1] for n in shifts]
    assert abs(shifts[int(np.argmax(likeness))]) == pytest.approx(expected, abs=0.6)


def test_imagers_that_see_visible_light_see_a_screens_picture():
    contrast = {}
    for share in (0.0, 0.25):
        profile = replace(SENSOR_PROFILES["d4xx"], visible_share=share, noise=SensorNoise.none())
        scene = scene_of("screen", seed=2)
        with SimulatedCamera(scene, profile=profile, size=SIZE, pace=Pace.LOCKSTEP, frames=1,
                             with_truth=True) as camera:
            found = camera.read(1.0)
        (left, top, right, bottom), = found.truth.face_boxes(StreamKind.INFRARED)
        contrast[share] = found.infrared.pixels[int(top):int(bottom), int(left):int(right)].astype(float).mean()
    assert contrast[0.25] > contrast[0.0] + 15


def fixed_pattern(serial, seed):
    """What a frame owes to its unit: the same frame with and without the pattern, all other noise being equal."""
    planes = [Sensors(wall_at(1.0), simulated_rig(SIZE, serial=serial), replace(SensorNoise(), fixed_pattern=share),
                      seed).planes(0, 0, 0) for share in (0.03, 0.0)]
    return [np.subtract(*(getattr(p, name).astype(float) for p in planes)).ravel() for name in ("colour", "infrared")]


def test_fixed_pattern_noise_belongs_to_the_serial():
    for mine, again, other in zip(fixed_pattern("A", 1), fixed_pattern("A", 2), fixed_pattern("B", 2), strict=True):
        assert np.corrcoef(mine, again)[0, 1] > 0.4
        assert abs(np.corrcoef(mine, other)[0, 1]) < 0.05


def test_unknown_profile_is_refused_with_those_there_are():
    with pytest.raises(CameraError, match="'kinect'; there are: d4xx, d4xx_projector, sr300, time_of_flight, clean"):
        SimulatedCamera(wall_at(1.0), profile="kinect")


def test_infrared_falls_with_the_square_of_distance():
    level = {}
    for distance_m in (0.5, 1.0):
        scene = replace(scene_of("bona_fide", seed=2, distance_m=distance_m), nominal_distance_m=0.5)
        (found,) = sets_of(scene, noise=SensorNoise.none())
        maps = found.truth.render_truth()
        level[distance_m] = np.median(found.infrared.pixels[maps.segments == Segment.FACE])
    assert level[0.5] / level[1.0] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(("name", "low", "high"), [("bona_fide", 90, 220), ("print", 110, 255), ("mask", 35, 190),
                                                   ("screen", 0, 25)])
def test_each_material_has_its_own_level_at_850_nm(name, low, high):
    (found,) = sets_of(scene_of(name, seed=2))
    maps = found.truth.render_truth()
    (left, top, right, bottom), = found.truth.face_boxes(StreamKind.INFRARED)
    window = np.s_[int(top):int(bottom), int(left):int(right)]
    face = maps.segments[window] == Segment.FACE
    assert low <= np.median(found.infrared.pixels[window][face]) <= high


def test_holes_lie_where_stereo_fails():
    (found,), (screen,) = sets_of(scene_of("bona_fide", seed=2)), sets_of(scene_of("screen", seed=2))
    maps, screen_maps = found.truth.render_truth(), screen.truth.render_truth()
    hole = found.depth.pixels == 0
    face, wall = maps.segments == Segment.FACE, maps.segments == Segment.BACKGROUND
    rows = np.nonzero(face.any(axis=1))[0]
    first = face.argmax(axis=1)
    beside_left = np.mean([hole[row, first[row] - 8:first[row]].mean() for row in rows])
    last = SIZE[0] - 1 - face[:, ::-1].argmax(axis=1)
    beside_right = np.mean([hole[row, last[row] + 2:last[row] + 10].mean() for row in rows])
    assert beside_left > 0.8  # the stereo shadow
    assert beside_right < 0.3
    assert hole[face].mean() < 0.15
    assert hole[wall].mean() < 0.5
    assert 0.2 < (screen.depth.pixels == 0)[screen_maps.segments == Segment.FACE].mean() < 0.6


def test_ideal_sensors_leave_no_holes():
    (found,) = sets_of(scene_of("screen", seed=2), noise=SensorNoise.none())
    assert (found.depth.pixels > 0).all()


def test_srgb_round_trip_is_exact_on_codes():
    codes = np.arange(256, dtype=np.uint8)
    assert np.abs(encode_srgb(decode_srgb(codes)).astype(int) - codes).max() <= 1
    assert encode_srgb(np.array([-1.0, 7.0], np.float32)).tolist() == [0, 255]


def test_heads_are_face_sized_outward_and_blink():
    heads = load_heads()
    assert len(heads) >= 150
    assert len(heads.family(held_out=True)) >= 20
    assert not set(heads.family()) & set(heads.family(held_out=True))
    for identity in range(0, len(heads), 8):
        mesh = heads.mesh(identity)
        outline = heads.face_points(identity)
        width, height, _ = np.ptp(outline, axis=0)
        assert 0.11 < width < 0.20
        assert 0.12 < height < 0.22
        nose = mesh.vertices[:, 2].argmax()
        assert mesh.normals[nose, 2] > 0.5
        assert np.abs(mesh.vertices[:, 0].mean()) < 0.01
        moved = np.linalg.norm(heads.vertices(identity, "blink") - heads.vertices(identity), axis=1)
        assert 0.004 < moved.max() < 0.03
        assert np.abs(mesh.vertices[moved > 0.004, 1]).max() < 0.05  # a blink stays near the eyes
    assert ASSET.stat().st_size < 1_500_000


def test_other_heads_than_the_committed_ones_are_refused(monkeypatch, tmp_path):
    damaged = tmp_path / "heads.npz"
    damaged.write_bytes(ASSET.read_bytes()[:-1] + b"x")
    monkeypatch.setattr("capture.simulated.heads.ASSET", damaged)
    with pytest.raises(HeadAssetError, match=r"SHA-256 .* expected"):
        load_heads.__wrapped__()
    monkeypatch.setattr("capture.simulated.heads.ASSET", tmp_path / "absent.npz")
    with pytest.raises(HeadAssetError, match=r"absent\.npz"):
        load_heads.__wrapped__()


@pytest.mark.parametrize("distorted", [False, True])
@pytest.mark.parametrize("name", ["bona_fide", "mask", "print", "two_people"])
def test_casting_only_inside_the_hulls_finds_what_casting_everywhere_finds(name, distorted):
    scene = scene_of(name, seed=2)
    stage = Sensors(scene, simulated_rig(SIZE, distorted=distorted), SensorNoise.none(), 0)
    view, states = stage.colour_view, stage.stage.states(0.4)
    visible = stage.stage.visible(view, states)
    depth_m, body = wall_depth(view, scene.wall).copy().ravel(), np.full(visible.depth_m.size, -1)
    for group in stage.stage.groups:
        hits = stage.stage.cast(group, states, view.origin, view.directions.reshape(-1, 3))
        nearer = hits.distance < depth_m[hits.ray]
        depth_m[hits.ray[nearer]] = hits.distance[nearer]
        body[hits.ray[nearer]] = np.array(group)[hits.mesh[nearer]]
    found = np.full(visible.depth_m.size, -1)
    for layer in visible.layers:
        found[layer.pixel] = layer.body
    assert np.array_equal(found, body)
    assert np.abs(visible.depth_m.ravel() - depth_m).max() < 1e-5


def test_a_mask_hides_its_wearer_except_at_the_eyes():
    stage = Sensors(scene_of("mask", seed=2), simulated_rig(SIZE), SensorNoise.none(), 0)
    states = stage.stage.states(0.4)
    names = [body.name for body in stage.stage.scene.bodies]
    visible = stage.stage.visible(stage.colour_view, states)
    by_name = {names[layer.body]: layer for layer in visible.layers}
    wearer = by_name[names[1]]
    points = stage.stage.mesh(1, states[1]).points(wearer.triangle, wearer.u, wearer.v)
    front = points[(points[:, 2] > -0.04) & (np.abs(points[:, 1]) < 0.05)]
    eyes = load_heads().eyes(int(names[1].split()[1]))
    from_eye_m = np.min([np.hypot(front[:, 0] - x, front[:, 1] - y) for x, y, _, _ in eyes], axis=0)
    assert len(by_name["mask"].pixel) > 10 * len(front)
    assert len(front) > 30  # the wearer's eyes do show
    assert np.mean(from_eye_m < 0.020) > 0.9
