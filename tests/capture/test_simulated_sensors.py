"""Noise, holes and light of the simulated sensors. All data is simulated."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from capture.camera import Pace
from capture.frames import StreamKind
from capture.simulated.camera import SimulatedCamera
from capture.simulated.catalogue import make_scene
from capture.simulated.heads import ASSET, HeadAssetError, load_heads
from capture.simulated.render import wall_depth
from capture.simulated.response import decode_srgb, encode_srgb
from capture.simulated.scene import Scene, Segment, Wall
from capture.simulated.sensors import STEREO_BASELINE_M, SensorNoise, Sensors, simulated_rig

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


def test_noise_differs_between_frames_and_pixels():
    noise = replace(SensorNoise(), holes=False)
    a, b = (s.depth.pixels.astype(float) for s in sets_of(wall_at(2.0), frames=2, noise=noise))
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(a[:, 1:].ravel(), a[:, :-1].ravel())[0, 1]) < 0.02


def test_infrared_falls_with_the_square_of_distance():
    level = {}
    for distance_m in (0.5, 1.0):
        scene = replace(scene_of("bona_fide", seed=2, distance_m=distance_m), nominal_distance_m=0.5)
        (found,) = sets_of(scene, noise=SensorNoise.none())
        maps = found.truth.render_truth()
        level[distance_m] = np.median(found.infrared.pixels[maps.segments == Segment.FACE])
    assert level[0.5] / level[1.0] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(("name", "low", "high"), [("bona_fide", 90, 220), ("print", 150, 255), ("mask", 35, 130),
                                                   ("screen", 0, 25)])
def test_each_material_has_its_own_level_at_850_nm(name, low, high):
    (found,) = sets_of(scene_of(name, seed=2))
    maps = found.truth.render_truth()
    (left, top, right, bottom), = found.truth.face_boxes(StreamKind.INFRARED)
    window = np.s_[int(top):int(bottom), int(left):int(right)]
    face = maps.segments[window] == Segment.FACE
    assert low <= np.median(found.infrared.pixels[window][face]) <= high


def test_a_print_shows_its_portrait_in_colour_and_next_to_nothing_of_it_in_infrared():
    (found,) = sets_of(scene_of("print", seed=2), noise=SensorNoise.none())
    maps = found.truth.render_truth()
    contrast = {}
    for kind, plane, segments in (("colour", found.colour.pixels.mean(axis=2), maps.colour_segments),
                                  ("infrared", found.infrared.pixels, maps.segments)):
        values = plane[segments == Segment.FACE].astype(float)
        contrast[kind] = values.std() / values.mean()
    assert contrast["colour"] > 0.2
    assert contrast["infrared"] < 0.08


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
    assert len(heads) >= 8
    for identity in range(len(heads)):
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
    eyes = load_heads().eyes[int(names[1].split()[1])]
    from_eye_m = np.min([np.hypot(front[:, 0] - x, front[:, 1] - y) for x, y, _, _ in eyes], axis=0)
    assert len(by_name["mask"].pixel) > 10 * len(front)
    assert len(front) > 30  # the wearer's eyes do show
    assert np.mean(from_eye_m < 0.020) > 0.9
