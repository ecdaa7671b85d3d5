"""Projection against OpenCV, against the RealSense SDK, and against itself."""

import ctypes
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capture.projection import ProjectionError, deproject, project, transform
from capture.rig import DistortionModel, Extrinsics, Intrinsics

D455_LIKE = (-0.0567, 0.0668, -0.0005, 0.0008, -0.0215)
MODELS = list(DistortionModel)
INVERTIBLE = [m for m in MODELS if m is not DistortionModel.MODIFIED_BROWN_CONRADY]


def intrinsics_with(model, coefficients=D455_LIKE, width=1280, height=720, fx=640.0, fy=638.0, cx=637.5, cy=361.25):
    return Intrinsics(width=width, height=height, fx=fx, fy=fy, cx=cx, cy=cy, model=model, coefficients=coefficients)


def random_points(rng, count=200):
    z = rng.uniform(0.2, 5.0, count)
    return np.stack([rng.uniform(-0.9, 0.9, count) * z, rng.uniform(-0.5, 0.5, count) * z, z], axis=-1)


@pytest.fixture(scope="module")
def rs():
    """The RealSense SDK; the wheel of libusb must be in the process before it."""
    libusb = pytest.importorskip("libusb_package")
    ctypes.CDLL(str(Path(libusb.get_library_path())), ctypes.RTLD_GLOBAL)
    return pytest.importorskip("pyrealsense2")


def sdk_intrinsics(rs, ours):
    theirs = rs.intrinsics()
    theirs.width, theirs.height = ours.width, ours.height
    theirs.fx, theirs.fy, theirs.ppx, theirs.ppy = ours.fx, ours.fy, ours.cx, ours.cy
    theirs.model = getattr(rs.distortion, ours.model.value)
    theirs.coeffs = list(ours.coefficients)
    return theirs


def random_intrinsics(rng, model):
    return intrinsics_with(
        model, tuple(rng.uniform(-1, 1, 5) * (0.06, 0.05, 0.001, 0.001, 0.01)), fx=float(rng.uniform(700, 900)),
        fy=float(rng.uniform(700, 900)), cx=float(rng.uniform(600, 680)), cy=float(rng.uniform(340, 380)))


@pytest.mark.parametrize("coefficients", [D455_LIKE, (0.15, -0.45, 0.001, -0.002, 0.4)])
def test_brown_conrady_projects_like_opencv(coefficients):
    points = random_points(np.random.default_rng(1))
    ours = intrinsics_with(DistortionModel.BROWN_CONRADY, coefficients)
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), ours.matrix, np.array(coefficients))
    np.testing.assert_allclose(project(points, ours), expected[:, 0], atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_projects_like_the_realsense_sdk(rs, model):
    rng = np.random.default_rng(2)
    for _ in range(10):
        ours = random_intrinsics(rng, model)
        points = random_points(rng, 20)
        expected = [rs.rs2_project_point_to_pixel(sdk_intrinsics(rs, ours), list(map(float, p))) for p in points]
        np.testing.assert_allclose(project(points, ours), expected, atol=2e-3)  # the SDK computes in float32


@pytest.mark.parametrize("model", INVERTIBLE)
def test_deprojects_like_the_realsense_sdk(rs, model):
    rng = np.random.default_rng(3)
    for _ in range(10):
        ours = random_intrinsics(rng, model)
        pixels, depth = rng.uniform((0, 0), (1279, 719), (20, 2)), rng.uniform(0.2, 4, 20)
        theirs = sdk_intrinsics(rs, ours)
        expected = [rs.rs2_deproject_pixel_to_point(theirs, list(map(float, p)), float(z))
                    for p, z in zip(pixels, depth, strict=True)]
        np.testing.assert_allclose(deproject(pixels, depth, ours), expected, atol=1e-5)


def test_transforms_like_the_realsense_sdk(rs):
    rotation, _ = cv2.Rodrigues(np.array([0.02, -0.3, 0.11]))
    ours = Extrinsics.from_arrays(rotation, np.array([0.059, -0.001, 0.002]))
    theirs = rs.extrinsics()
    theirs.rotation = list(map(float, rotation.T.ravel()))  # column-major there
    theirs.translation = list(ours.translation_m)
    points = random_points(np.random.default_rng(4), 20)
    expected = [rs.rs2_transform_point_to_point(theirs, list(map(float, p))) for p in points]
    np.testing.assert_allclose(transform(ours, points), expected, atol=1e-6)
    np.testing.assert_allclose(transform(ours.inverse(), transform(ours, points)), points, atol=1e-12)


@pytest.mark.parametrize("model", INVERTIBLE)
@settings(max_examples=40, deadline=None)
@given(u=st.floats(0, 1279), v=st.floats(0, 719), depth_m=st.floats(0.1, 10))
def test_projecting_a_deprojected_pixel_gives_it_back(model, u, v, depth_m):
    ours = intrinsics_with(model)
    point = deproject(np.array([u, v]), depth_m, ours)
    assert point[2] == depth_m
    # 0.03 px: the SDK's inverse of the inverse model is an approximation in the corners.
    np.testing.assert_allclose(project(point, ours), [u, v], atol=0.03)


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(0.1, 10), x=st.floats(-1, 1), y=st.floats(-1, 1))
def test_a_pixel_does_not_depend_on_the_distance_along_the_ray(scale, x, y):
    ours = intrinsics_with(DistortionModel.BROWN_CONRADY)
    point = np.array([x, y, 1.0])
    np.testing.assert_allclose(project(point * scale, ours), project(point, ours), atol=1e-9)


@pytest.mark.parametrize("model", INVERTIBLE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_keeps_the_floating_type_and_the_leading_shape(model, dtype):
    ours = intrinsics_with(model)
    pixels = np.moveaxis(np.mgrid[100:103, 50:54], 0, -1).astype(dtype)  # (3, 4, 2)
    points = deproject(pixels, dtype(0.7), ours)
    assert (points.shape, points.dtype) == ((3, 4, 3), dtype)
    back = project(transform(Extrinsics.identity(), points), ours)
    assert (back.shape, back.dtype) == ((3, 4, 2), dtype)
    np.testing.assert_allclose(back, pixels, atol=0.03)


def test_float32_loses_less_than_a_hundredth_of_a_pixel():
    ours = intrinsics_with(DistortionModel.BROWN_CONRADY)
    pixels = np.random.default_rng(5).uniform((0, 0), (1279, 719), (500, 2))
    exact = deproject(pixels, np.full(500, 0.6), ours)
    single = deproject(pixels.astype(np.float32), np.full(500, 0.6, np.float32), ours)
    assert np.abs(project(single, ours) - project(exact, ours)).max() < 0.01


@pytest.mark.parametrize("point", [(0.1, 0.2, 0.0), (0.0, 0.0, 0.0), (0.1, 0.2, -1.0), (np.nan, 0.0, 1.0)])
def test_points_not_in_front_of_the_camera_have_no_pixel(point):
    pixels = project(np.array([point, (0.0, 0.0, 1.0)]), intrinsics_with(DistortionModel.BROWN_CONRADY))
    assert np.isnan(pixels[0, 0])
    assert np.isfinite(pixels[1]).all()


def test_modified_brown_conrady_is_not_deprojected_silently():
    with pytest.raises(ProjectionError, match=r"modified_brown_conrady .*-0\.0567"):
        deproject(np.zeros((1, 2)), 1.0, intrinsics_with(DistortionModel.MODIFIED_BROWN_CONRADY))
    undistorted = intrinsics_with(DistortionModel.MODIFIED_BROWN_CONRADY, (0.0,) * 5)  # what a D435 reports
    np.testing.assert_allclose(project(deproject(np.array([10.0, 20.0]), 1.0, undistorted), undistorted), [10, 20])


@pytest.mark.parametrize(("call", "message"), [
    (lambda k: project(np.zeros((4, 2)), k), r"points of shape \(4, 2\)"),
    (lambda k: project(np.float64(1), k), r"points of shape \(\)"),
    (lambda k: deproject(np.zeros((4, 3)), 1.0, k), r"pixels of shape \(4, 3\)"),
    (lambda k: deproject(np.zeros((4, 2)), np.zeros(3), k), r"depth of shape \(3,\) does not fit"),
    (lambda k: transform(Extrinsics.identity(), np.zeros((3, 1))), r"points of shape \(3, 1\)"),
])
def test_wrong_shapes_are_named(call, message):
    with pytest.raises(ProjectionError, match=message):
        call(intrinsics_with(DistortionModel.NONE))


def test_a_pixel_whose_distortion_has_no_inverse_is_unknown():
    ours = intrinsics_with(DistortionModel.BROWN_CONRADY, (0.15, -0.45, 0.0, 0.0, 0.4))
    pixels = np.array([[0.0, 0.0], [640.0, 360.0], [1279.0, 719.0]])
    points = deproject(pixels, 1.0, ours)
    assert np.isnan(points[[0, 2], :2]).all()
    np.testing.assert_allclose(project(points[1], ours), pixels[1], atol=1e-6)


def test_empty_arrays_stay_empty():
    ours = intrinsics_with(DistortionModel.BROWN_CONRADY)
    assert deproject(np.zeros((0, 2)), 1.0, ours).shape == (0, 3)
    assert project(np.zeros((0, 3)), ours).shape == (0, 2)
