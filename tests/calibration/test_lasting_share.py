"""The share of variance that a session keeps: told apart from frames that merely repeat each other for a while."""

import numpy as np
import pytest

from calibration.lasting_share import fit_lasting_share
from calibration.score_calibration import CalibrationError, frame_correlation


def streams(share, rho, *, frames=30, sessions=200, seed=0, levels=(-2.0, 2.0)):
    """Sessions of two classes: AR(1) of unit variance with that share of it the session's own level."""
    rng = np.random.default_rng(seed)
    series = [rng.standard_normal(2 * sessions)]
    for _ in range(frames - 1):
        series.append(rho * series[-1] + np.sqrt(1 - rho**2) * rng.standard_normal(2 * sessions))
    scores = np.sqrt(share) * rng.standard_normal(2 * sessions) + np.sqrt(1 - share) * np.array(series)
    centres = np.repeat(levels, sessions)
    return list((scores + centres).T), ["mask"] * sessions + ["bona_fide"] * sessions


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
def test_share_and_correlation_are_found(share, rho):
    found = fit_lasting_share(*streams(share, rho, sessions=600, seed=3), resamples=200)
    assert found.share == pytest.approx(share, abs=0.2 if rho > 0.8 else 0.1)  # thirty such frames are two or three
    assert found.correlation == pytest.approx(rho, abs=0.06)
    assert found.low <= found.share <= found.high
    assert found.low - 0.02 <= share <= found.high + 0.02


def test_what_lies_between_short_sessions_is_not_all_lasting():
    """Six correlated frames have means that differ by themselves."""
    sessions, classes = streams(0.0, 0.9, frames=6, sessions=2000)
    assert frame_correlation(sessions, classes).between > 0.7
    assert fit_lasting_share(sessions, classes, resamples=50).share < 0.25


def test_classes_levels_are_not_sessions_levels():
    assert fit_lasting_share(*streams(0.0, 0.0, levels=(-50.0, 50.0)), resamples=50).share < 0.02


def test_fewer_sessions_tell_less():
    few, many = (fit_lasting_share(*streams(0.4, 0.5, sessions=number)) for number in (15, 400))
    assert few.high - few.low > 2 * (many.high - many.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Forty fits of 30 + 30 sessions; a 95 % interval that is right misses more than 7 of them in 1 of 1,000 cases."""
    missed = 0
    for seed in range(40):
        found = fit_lasting_share(*streams(0.4, 0.5, sessions=30, seed=seed), resamples=200)
        missed += not found.low <= 0.4 <= found.high
    assert missed <= 7


def test_unequal_lengths_and_their_order_do_not_matter():
    sessions, classes = streams(0.5, 0.5)
    cut = [one[:10 + index % 20] for index, one in enumerate(sessions)]
    found = fit_lasting_share(cut, classes, resamples=50)
    assert found.share == pytest.approx(0.5, abs=0.1)
    order = np.random.default_rng(1).permutation(len(cut))
    again = fit_lasting_share([cut[index] for index in order], [classes[index] for index in order], resamples=50)
    assert again.share == pytest.approx(found.share, abs=1e-9)


@pytest.mark.parametrize(("sessions", "classes", "says"), [
    ([[1.0] * 4, [2.0] * 4], ["a", "a"], "no species with two sessions of at least 5"),
    ([np.arange(9.0), np.arange(9.0)], ["a", "b"], "no species with two sessions"),
    ([[1.0] * 9, [2.0] * 9], ["a", "a"], "never change within a session"),
    ([], [], "no species"),
])
def test_what_cannot_be_fitted_is_refused(sessions, classes, says):
    with pytest.raises(CalibrationError, match=says):
        fit_lasting_share(sessions, classes)
