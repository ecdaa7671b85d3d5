"""Platt's scaling finds the log-likelihood ratio; correlation of frames is fitted without its small-sample bias."""

import numpy as np
import pytest
from scipy.signal import lfilter

from calibration.score_calibration import (
    CalibrationError,
    correlation_interval,
    frame_correlation,
    platt_scaling,
)


def normal_scores(separation, number, seed=0, share_live=0.5):
    """Unit normals whose true log-likelihood ratio is 2 · separation · x."""
    rng = np.random.default_rng(seed)
    live = rng.uniform(size=number) < share_live
    return rng.normal(np.where(live, separation, -separation), 1.0), live


@pytest.mark.parametrize("share_live", [0.5, 0.1])
@pytest.mark.parametrize("stretch", [1.0, 3.0])
def test_scale_and_offset_are_those_of_the_likelihood_ratio_whatever_the_prior(share_live, stretch):
    scores, live = normal_scores(0.8, 20_000, share_live=share_live)
    found = platt_scaling(scores * stretch + 5.0, live)
    assert found.scale == pytest.approx(1.6 / stretch, rel=0.06)
    assert found.scale * 5.0 + found.offset == pytest.approx(0.0, abs=0.08)


def test_scale_and_offset_are_those_of_scikit_learn():
    """scikit-learn 1.9.1, `sklearn.calibration._sigmoid_calibration` (Platt's targets) on the same scores."""
    live = np.repeat([True, False], 60)
    scores = np.round(np.random.default_rng(11).normal(np.where(live, 1.0, -0.4), 1.3), 3)
    assert scores[:3].tolist() == [1.044, 2.768, 2.592]
    found = platt_scaling(scores, live)
    assert found.scale == pytest.approx(0.6980637664923252, abs=1e-4)
    assert found.offset == pytest.approx(-0.2521451481030779, abs=1e-4)


def test_separated_classes_give_a_finite_scale():
    found = platt_scaling([-3.0, -2.0, 2.0, 3.0], [False, False, True, True])
    assert 0 < found.scale < 10
    assert abs(found.offset) < 1e-3


def test_a_session_filmed_longer_weighs_no_more():
    scores, live = normal_scores(0.5, 2_000)
    # One attack session of 600 frames, beside 2,000 sessions of a frame each.
    often, labels = np.append(scores, np.full(600, 1.0)), np.append(live, np.zeros(600, bool))
    plain, unweighed = platt_scaling(scores, live), platt_scaling(often, labels)
    found = platt_scaling(often, labels, np.append(np.ones(2_000), np.full(600, 1 / 600)))
    assert found.scale == pytest.approx(plain.scale, abs=0.02)
    assert abs(unweighed.scale - plain.scale) > 0.2


@pytest.mark.parametrize(("scores", "live", "says"), [
    ([1.0, 2.0], [True, True], "2 live and 0 attack"),
    ([1.0, float("nan")], [True, False], "NaN"),
    ([0.0, 1.0, 2.0, 3.0], [True, True, False, False], "do not rank"),
    ([0.0, 1.0], [True], "one length"),
])
def test_scores_that_cannot_be_calibrated_are_refused(scores, live, says):
    with pytest.raises(CalibrationError, match=says):
        platt_scaling(scores, live)


def autoregressive(correlation, length, number, level=0.0, seed=1):
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((number, length + 50))
    series = lfilter([np.sqrt(1 - correlation**2)], [1, -correlation], noise, axis=1)[:, 50:]
    return list(series + level * rng.standard_normal((number, 1)))


@pytest.mark.parametrize("correlation", [0.0, 0.4, 0.7, 0.9])
def test_the_correlation_within_sessions_is_found_from_short_ones(correlation):
    found = frame_correlation(autoregressive(correlation, 16, 800, level=2.0), ["live"] * 800)
    assert found.within == pytest.approx(correlation, abs=0.03)
    assert found.lag_one < correlation - 0.03  # the fitted mean takes some away
    assert found.total > 0.75  # the sessions' own levels are a correlation, too
    assert found.between > 0.5


@pytest.mark.parametrize(("correlation", "level"), [(0.3, 0.0), (0.7, 0.0), (0.9, 0.0), (0.3, 1.0)])
def test_the_interval_holds_the_true_correlation_and_narrows_with_sessions(correlation, level):
    # Levels of the sessions' own are a correlation too: (ρ + level²) / (1 + level²).
    truth = (correlation + level**2) / (1 + level**2)
    widths = []
    for number in (40, 640):
        held = []
        for seed in range(20):
            series = autoregressive(correlation, 16, number, level=level, seed=seed)
            low, high = correlation_interval(series, ["live"] * number, resamples=200)
            assert 0 <= low <= frame_correlation(series, ["live"] * number).lasting <= high < 1
            held.append(low - 0.02 <= truth <= high + 0.02)
        widths.append(high - low)
        assert sum(held) >= 17  # of 20, at 95 %
    assert widths[1] < widths[0] / 2


def test_levels_of_species_are_no_correlation():
    series = [*autoregressive(0.2, 16, 400), *[one + 30 for one in autoregressive(0.2, 16, 400, seed=2)]]
    assert frame_correlation(series, ["live"] * 400 + ["print"] * 400).total < 0.35


@pytest.mark.parametrize(("series", "says"), [([[1.0, 2.0]], "at least 5"), ([[1.0] * 8], "never change")])
def test_too_little_to_fit_is_said(series, says):
    with pytest.raises(CalibrationError, match=says):
        frame_correlation(series, ["live"] * len(series))
