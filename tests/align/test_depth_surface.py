import numpy as np
import pytest

from align.depth_surface import ZBuffer, bridged, splat, tolerance_m, without_leaks


def plane(z=0.5, side=40):
    return np.full((side, side), z, np.float32)


def test_the_nearest_point_of_a_cell_wins_whatever_the_order():
    x, y = np.array([1.2, 1.4, 1.6], np.float32), np.array([2.5, 2.5, 2.5], np.float32)
    for z in ([0.9, 0.5, 0.7], [0.5, 0.9, 0.7]):
        buffer = splat(x, y, np.array(z, np.float32), left=0, top=0, width=4, height=4, cell_px=1)
        assert buffer.z_m[2, 1] == np.float32(0.5)
        assert np.count_nonzero(buffer.z_m) == 1


def test_points_outside_and_points_without_depth_leave_no_trace():
    x = np.array([-0.1, 4.1, 2.0, 2.0, 1e6], np.float32)
    y = np.array([2.0, 2.0, -3.0, 2.0, -1e6], np.float32)
    z = np.array([0.5, 0.5, 0.5, 0.0, 0.5], np.float32)
    assert not splat(x, y, z, left=0, top=0, width=4, height=4, cell_px=1).z_m.any()


def test_a_hole_in_a_slope_is_bridged_close_to_the_slope():
    z = plane() + np.arange(40, dtype=np.float32) * np.float32(0.0012)  # 45 degrees at 0.5 m
    holed = z.copy()
    holed[15:20, 18:23] = 0
    filled = bridged(holed)
    assert (filled > 0).all()
    assert np.abs(filled - z).max() < 0.003
    assert np.array_equal(filled[holed > 0], holed[holed > 0])


def test_a_hole_on_a_contour_is_not_bridged_across():
    z = plane()
    z[:, 20:] = 1.5
    z[10:20, 18:22] = 0
    filled = bridged(z)[10:20, 18:22]
    # Beside it, one surface is continued; across it, the two are never blended.
    assert ((filled == 0) | (np.abs(filled - 0.5) < 1e-3) | (np.abs(filled - 1.5) < 1e-3)).all()
    assert (filled[3:7, 1:3] == 0).all()


def test_a_hole_larger_than_its_surroundings_stays():
    z = np.zeros((60, 60), np.float32)
    z[:2] = 0.5
    assert (bridged(z)[30:] == 0).all()


def test_background_in_a_hole_of_the_face_is_emptied():
    z = plane()
    z[17:22, 17:22] = 1.5
    emptied = without_leaks(z)
    assert (emptied[17:22, 17:22] == 0).all()
    assert (emptied > 0).sum() == 40 * 40 - 25


def test_an_edge_keeps_its_near_side_and_loses_one_cell_of_the_far():
    z = plane()
    z[:, 20:] = 1.5
    kept = without_leaks(z) > 0
    assert kept[:, :20].all()
    assert not kept[:, 20].any()
    assert kept[:, 21:].all()


def test_what_lies_behind_a_nearer_surface_is_hidden():
    z = plane(1.5)
    z[10:20, 10:20] = 0.5
    buffer = ZBuffer(z_m=z, left=-0.5, top=-0.5, cell_px=1.0)
    at = np.array([[15.0, 15.0, 30.0, 20.4]], np.float32)
    depth = np.array([[0.5, 1.5, 1.5, 1.5]], np.float32)
    # On the near surface; behind it; free; behind it by less than a cell of its silhouette.
    assert buffer.shows(at, np.full((1, 4), 15, np.float32), depth).tolist() == [[True, False, True, False]]


@pytest.mark.parametrize(("z_m", "allowed"), [(0.5, 0.0225), (1.0, 0.03), (2.0, 0.06), (1000.0, 0.18)])
def test_the_tolerance_grows_with_stereo_noise_and_is_bounded(z_m, allowed):
    assert tolerance_m(np.array([z_m], np.float32))[0] == pytest.approx(allowed)
