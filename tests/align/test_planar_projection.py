import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.planar_projection import (
    LocalLens,
    PixelGrid,
    RayTable,
    SmoothRays,
    homography,
    rays_of_points,
    rotated,
    to_pixels,
)
from capture.projection import deproject, project, transform
from capture.rig import DistortionModel, Extrinsics, Intrinsics
from tests.align.analytic_scene import rotation

COEFFICIENTS = (-0.056, 0.066, -0.0003, 0.0006, -0.021)


def lens(model):
    return Intrinsics(width=640, height=480, fx=450.0, fy=452.0, cx=318.0, cy=243.0, model=model,
                      coefficients=COEFFICIENTS)


def points():
    rng = np.random.default_rng(3)
    z = rng.uniform(0.3, 3, (40, 30))
    return np.stack((rng.uniform(-0.6, 0.6, z.shape) * z, rng.uniform(-0.45, 0.45, z.shape) * z, z), axis=-1)


@pytest.mark.parametrize("model", list(DistortionModel))
def test_planes_project_like_the_projection_they_stand_for(model):
    p = points()
    ray = (p[..., :2] / p[..., 2:]).astype(np.float32)
    x, y = to_pixels(ray[..., 0], ray[..., 1], lens(model), left=7, top=5)
    expected = project(p, lens(model)) - (7, 5)
    assert np.abs(np.stack((x, y), axis=-1) - expected).max() < 1e-3


@pytest.mark.parametrize("model", list(DistortionModel))
def test_rays_lead_back_to_their_pixels(model):
    """Also for the modified model, which the SDK does not invert."""
    columns, rows = np.arange(0, 640, 7, dtype=np.float32), np.arange(0, 480, 7, dtype=np.float32)
    rays = RayTable(lens(model)).at(columns, rows)
    x, y = to_pixels(*np.broadcast_arrays(rays.x, rays.y), lens(model))
    assert np.abs(x - columns[None, :]).max() < 0.01
    assert np.abs(y - rows[:, None]).max() < 0.01


def test_rays_between_pixels_are_exact_enough():
    table = RayTable(lens(DistortionModel.BROWN_CONRADY))
    columns, rows = np.array([10.3, 311.7], np.float32), np.array([20.5, 400.2], np.float32)
    rays = table.at(columns, rows)
    x, y = to_pixels(rays.x, rays.y, lens(DistortionModel.BROWN_CONRADY))
    # OpenCV's remap interpolates on a grid of 1/32 pixel.
    assert np.abs(x - columns[None, :]).max() < 0.02
    assert np.abs(y - rows[:, None]).max() < 0.02


def test_points_move_between_sensors_like_the_transform():
    move = Extrinsics.from_arrays(rotation(3, -2), np.array([0.06, -0.01, 0.005]))
    camera = lens(DistortionModel.NONE)
    columns, rows = np.arange(0, 640, 40, dtype=np.float32), np.arange(0, 480, 40, dtype=np.float32)
    z = np.random.default_rng(1).uniform(0.3, 2, (12, 16)).astype(np.float32)
    rays = rays_of_points(rotated(RayTable(camera).at(columns, rows), move), move, z)
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1).astype(float)
    expected = transform(move, deproject(pixels, z.astype(float), camera))
    assert np.abs(rays.x - expected[..., 0] / expected[..., 2]).max() < 1e-5
    assert np.abs(rays.y - expected[..., 1] / expected[..., 2]).max() < 1e-5


@given(left=st.integers(-50, 500), side=st.integers(1, 700), size=st.integers(16, 300))
def test_a_grid_covers_its_square_evenly(left, side, size):
    grid = PixelGrid(left=left, top=0, side=side, size=size)
    columns = grid.columns().astype(float)
    # Half a step beyond the outer samples lie the outer edges of the square's border pixels.
    assert columns[0] - grid.scale / 2 == pytest.approx(left - 0.5, abs=1e-3)
    assert columns[-1] + grid.scale / 2 == pytest.approx(left + side - 0.5, abs=1e-3)


@pytest.mark.parametrize("model", list(DistortionModel))
@pytest.mark.parametrize(("side", "allowed_px"), [(90, 0.005), (260, 0.01), (420, 0.1)])
def test_a_crop_of_rays_from_a_few_exact_ones_is_exact_enough(model, side, allowed_px):
    grid = PixelGrid(left=200, top=40, side=side, size=224)
    smooth = SmoothRays(RayTable(lens(model)), grid)
    x, y = to_pixels(smooth.spread(np.broadcast_to(smooth.knots.x, (5, 5))),
                     smooth.spread(np.broadcast_to(smooth.knots.y, (5, 5))), lens(model))
    assert np.abs(x - grid.columns()[None, :]).max() < allowed_px
    assert np.abs(y - grid.rows()[:, None]).max() < allowed_px


@pytest.mark.parametrize("model", list(DistortionModel))
def test_the_homography_of_a_grid_is_the_transform_of_its_points(model):
    move = Extrinsics.from_arrays(rotation(3, -2), np.array([0.06, -0.01, 0.005]))
    grid = PixelGrid(left=220, top=100, side=200, size=40)
    z = np.random.default_rng(1).uniform(0.3, 2, (40, 40)).astype(np.float32)
    camera, target = lens(DistortionModel.BROWN_CONRADY), lens(model)
    mapping = homography(SmoothRays(RayTable(camera), grid), move, target)
    x, y = mapping.pixels(1 / z)
    if target.is_distorted:
        x, y = to_pixels(x, y, target)
    pixels = np.stack(np.meshgrid(grid.columns(), grid.rows()), axis=-1).astype(float)
    points = transform(move, deproject(pixels, z.astype(float), camera))
    assert np.abs(np.stack((x, y), axis=-1) - project(points, target)).max() < 0.01
    assert np.abs(mapping.z_of(points[..., 2].astype(np.float32)) - z).max() < 1e-5


@pytest.mark.parametrize("model", list(DistortionModel))
def test_a_local_lens_is_good_for_less_than_a_cell_over_a_face(model):
    x, y = np.meshgrid(np.linspace(0.0, 0.4, 9, dtype=np.float32), np.linspace(-0.1, 0.3, 9, dtype=np.float32))
    near = np.array(LocalLens.around(lens(model), 0.2, 0.1).to_pixels(x, y))
    assert np.abs(near - to_pixels(x, y, lens(model))).max() < (1.0 if lens(model).is_distorted else 1e-3)


def test_beyond_a_lens_that_has_no_inverse_rays_are_nan_not_wrong():
    strong = Intrinsics(width=640, height=480, fx=300.0, fy=300.0, cx=320.0, cy=240.0,
                        model=DistortionModel.BROWN_CONRADY, coefficients=(-0.45, 0.0, 0.0, 0.0, 0.0))
    rays = RayTable(strong).at(np.array([320.0, 2000.0], np.float32), np.array([240.0], np.float32))
    assert np.isfinite(rays.x[0, 0])
    assert np.isnan(rays.x[0, 1])
