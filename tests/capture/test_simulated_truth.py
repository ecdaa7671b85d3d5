"""Ground truth of the simulated camera against an independent projection. All data is simulated."""

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest

from capture.camera import Pace
from capture.frames import StreamKind
from capture.simulated.camera import SimulatedCamera
from capture.simulated.catalogue import make_scene
from capture.simulated.scene import Motion, Segment
from capture.simulated.sensors import SensorNoise, simulated_rig

SIZE = (320, 240)
COLOUR, DEPTH = StreamKind.COLOUR, StreamKind.DEPTH


@lru_cache
def captured(name, *, skew_ms=0.0, drift_m_per_s=(0.0, 0.0, 0.0), distorted=False, noise=None):
    scene = make_scene(name, seed=4, distance_m=0.5, drift_m_per_s=drift_m_per_s)
    with SimulatedCamera(scene, seed=4, pace=Pace.LOCKSTEP, frames=1, skew_ms=skew_ms, with_truth=True,
                         rig=simulated_rig(SIZE, distorted=distorted), noise=noise or SensorNoise.none()) as camera:
        found = camera.read(1.0)
    return found, found.truth.render_truth()


def deprojected(depth_m, intrinsics):
    """OpenCV's own way from pixels and depth to points (N, 3)."""
    columns, rows = np.meshgrid(np.arange(intrinsics.width, dtype=float), np.arange(intrinsics.height, dtype=float))
    pixels = np.stack([columns.ravel(), rows.ravel()], 1)[:, None]
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-14)
    plane = cv2.undistortPointsIter(pixels, intrinsics.matrix, np.array(intrinsics.coefficients), None, None,
                                    criteria)[:, 0]
    return np.concatenate([plane, np.ones((len(plane), 1))], 1) * depth_m.reshape(-1, 1).astype(float)


def projected(points, intrinsics):
    return cv2.projectPoints(points, np.zeros(3), np.zeros(3), intrinsics.matrix,
                             np.array(intrinsics.coefficients))[0][:, 0]


@pytest.mark.parametrize("distorted", [False, True])
@pytest.mark.parametrize("name", ["bona_fide", "print", "mask", "two_people", "nobody"])
def test_correspondences_agree_with_the_rig_in_both_directions(name, distorted):
    found, maps = captured(name, distorted=distorted)
    rig = found.truth.rig
    for source, target, depth_m, pixels in ((COLOUR, DEPTH, maps.colour_depth_m, maps.colour_to_depth),
                                            (DEPTH, COLOUR, maps.depth_m, maps.depth_to_colour)):
        move = rig.transform(source, target)
        points = deprojected(depth_m, rig.intrinsics[source]) @ move.matrix.T + move.translation
        # Far outside the image the distortion polynomial folds back: compare where the other image is near.
        near = (np.abs(pixels.reshape(-1, 2) - np.array(SIZE) / 2) < np.array(SIZE) * 0.6).all(1)
        error = np.abs(projected(points[near], rig.intrinsics[target]) - pixels.reshape(-1, 2)[near])
        assert near.mean() > 0.3
        assert error.max() < 0.05


@pytest.mark.parametrize("name", ["bona_fide", "mask", "two_people"])
def test_visible_points_have_their_depth_in_the_other_view_and_hidden_ones_something_nearer(name):
    found, maps = captured(name)
    rig = found.truth.rig
    move = rig.transform(COLOUR, DEPTH)
    points = deprojected(maps.colour_depth_m, rig.intrinsics[COLOUR]) @ move.matrix.T + move.translation
    uv = np.rint(maps.colour_to_depth.reshape(-1, 2))
    inside = ((uv >= 0) & (uv < SIZE)).all(1)
    seen = maps.colour_seen_by_depth.ravel()
    assert not seen[~inside].any()
    outside = ((maps.depth_to_colour < -0.5) | (maps.depth_to_colour > np.array(SIZE) - 0.5)).any(-1)
    assert outside.any()  # the depth sensor sees wider
    assert not maps.depth_seen_by_colour[outside].any()
    there = np.full(len(points), np.nan)
    there[inside] = maps.depth_m[uv[inside, 1].astype(int), uv[inside, 0].astype(int)]
    behind_m = points[:, 2] - there
    assert np.median(np.abs(behind_m[seen & inside])) < 1e-3
    assert np.mean(np.abs(behind_m[seen & inside]) < 0.01) > 0.98  # the rest: rounding (u, v) across an edge
    hidden = ~seen & inside
    assert 20 < hidden.sum() < 0.1 * len(points)
    assert np.mean(behind_m[hidden] > 0.001) > 0.75


def test_the_wall_beside_the_head_is_hidden_on_the_side_that_parallax_hides():
    """Colour sits to the left, so it sees wall past the head's left edge that the depth sensor cannot."""
    _, maps = captured("bona_fide")
    wall = maps.colour_segments == Segment.BACKGROUND
    hidden = wall & ~maps.colour_seen_by_depth & (maps.colour_to_depth[..., 0] > 0) \
        & (maps.colour_to_depth[..., 0] < SIZE[0] - 1)
    rows, columns = np.nonzero(hidden & ~wall.all(axis=1)[:, None])
    middle = [np.nonzero(~wall[row])[0].mean() for row in rows]
    assert len(rows) > 50
    assert np.mean(columns < middle) > 0.95


def still_print(drift_m_per_s):
    scene = make_scene("print", seed=4, distance_m=0.5)
    motion = Motion(centre_m=(0, 0, 0.5), sway_m=(0, 0, 0), attitude_rad=(0, 0, 0), tremor_m=0.0,
                    drift_m_per_s=drift_m_per_s)
    return replace(scene, bodies=tuple(replace(body, motion=motion) for body in scene.bodies))


def test_skew_moves_the_correspondence_of_a_moving_body_and_leaves_the_wall():
    maps = {}
    for skew_ms in (0.0, 20.0):
        with SimulatedCamera(still_print((0.3, 0.0, 0.0)), pace=Pace.LOCKSTEP, frames=1, skew_ms=skew_ms, size=SIZE,
                             with_truth=True, noise=SensorNoise.none()) as camera:
            maps[skew_ms] = camera.read(1.0).truth.render_truth()
    rig = simulated_rig(SIZE)
    shift = maps[20.0].depth_to_colour - maps[0.0].depth_to_colour
    # 0.3 m/s for 20 ms at 0.5 m, seen by the colour sensor.
    expected = 0.3 * 0.020 / maps[0.0].depth_m * rig.intrinsics[COLOUR].fx
    on_print = maps[0.0].segments == Segment.FACE
    assert on_print.sum() > 2000
    assert np.abs(shift[on_print][:, 0] - expected[on_print]).max() < 0.05
    assert np.abs(shift[maps[0.0].segments == Segment.BACKGROUND]).max() == 0


@pytest.mark.parametrize("name", ["bona_fide", "screen", "mask", "nobody"])
def test_ideal_depth_is_the_truth_to_the_nearest_unit(name):
    found, maps = captured(name)
    assert np.abs(found.depth.pixels * 1e-3 - maps.depth_m).max() <= 0.5001e-3


@pytest.mark.parametrize(("name", "faces"), [("bona_fide", 1), ("print", 1), ("screen", 1), ("mask", 1), ("nobody", 0),
                                             ("two_people", 2)])
def test_face_boxes_enclose_the_face_and_move_with_parallax(name, faces):
    found, maps = captured(name)
    boxes, in_depth = found.truth.face_boxes(), found.truth.face_boxes(DEPTH)
    assert len(boxes) == len(in_depth) == faces
    for (left, top, right, bottom), depth_box in zip(boxes, in_depth, strict=True):
        assert 0.10 < (right - left) / found.truth.rig.intrinsics[COLOUR].fx * 0.5 < 0.20  # metres across
        assert 0.12 < (bottom - top) / found.truth.rig.intrinsics[COLOUR].fx * 0.5 < 0.25
        centre = maps.colour_segments[int((top + bottom) / 2), min(int((left + right) / 2), SIZE[0] - 1)]
        assert centre == Segment.FACE
        assert depth_box[2] - depth_box[0] < right - left  # the depth sensor's field of view is wider


@pytest.mark.parametrize(("name", "label", "species"), [
    ("bona_fide", "bona_fide", None), ("two_people", "bona_fide", None), ("nobody", None, None),
    ("print", "attack", "rolled_print"), ("screen", "attack", "tablet_replay"), ("mask", "attack", "rigid_mask")])
def test_label_and_species(name, label, species):
    truth = captured(name)[0].truth
    assert (truth.scene, truth.label, truth.species) == (name, label, species)


def test_face_relief_tells_heads_from_flat_attacks():
    """Of the truth itself: what is left of depth over the face after the best plane, in mm."""
    relief_mm = {}
    for name in ("bona_fide", "mask", "print", "screen"):
        found, maps = captured(name)
        (left, top, right, bottom), = found.truth.face_boxes(DEPTH)
        window = np.s_[int(top):int(bottom), int(left):int(right)]
        face = maps.segments[window] == Segment.FACE
        rows, columns = np.nonzero(face)
        z = maps.depth_m[window][face]
        plane = np.stack([rows, columns, np.ones_like(rows)], 1).astype(float)
        relief_mm[name] = 1e3 * np.std(z - plane @ np.linalg.lstsq(plane, z, rcond=None)[0])
    assert min(relief_mm["bona_fide"], relief_mm["mask"]) > 8
    assert relief_mm["print"] < 5
    assert relief_mm["screen"] < 0.5
