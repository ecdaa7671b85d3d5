"""Chance floors: what selection makes of random scores."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.error_rates import auc, equal_error_point, roc
from mmdg_model.training.chance_floor import _random_run, chance_floors

LIVE = np.arange(240) < 60


@pytest.fixture(scope="module")
def floors():
    return chance_floors(LIVE, LIVE, epochs=70, repeats=60)


def test_the_best_of_seventy_epochs_makes_about_41_percent_of_random_scores(floors):
    assert floors.oracle_best.hter == pytest.approx(0.41, abs=0.012)
    assert floors.oracle_best.hter_low < floors.oracle_best.hter
    assert floors.oracle_best.auc > 0.56


def test_columns_without_selection_on_the_target_stay_at_half(floors):
    for floor in (floors.oracle_last, floors.honest):
        assert floor.hter == pytest.approx(0.5, abs=0.02)
        assert floor.auc == pytest.approx(0.5, abs=0.02)


def test_more_epochs_lower_the_floor_and_more_videos_raise_it(floors):
    assert chance_floors(LIVE, LIVE, epochs=5, repeats=60).oracle_best.hter > floors.oracle_best.hter + 0.01
    many = np.arange(2000) < 500
    assert chance_floors(many, LIVE, epochs=70, repeats=10).oracle_best.hter > floors.oracle_best.hter + 0.03


def test_one_epoch_selects_nothing():
    floors = chance_floors(LIVE, LIVE, epochs=1, repeats=20)
    assert floors.oracle_best == floors.oracle_last


def test_the_vectorised_run_follows_the_metrics_own_rules():
    scores, hter, threshold, area = _random_run(LIVE, 25, np.random.default_rng(0))
    for row in range(25):
        curve = roc(scores[row], LIVE)
        point = equal_error_point(curve)
        assert (hter[row], threshold[row]) == (pytest.approx(point.hter, abs=1e-12), point.threshold)
        assert area[row] == pytest.approx(auc(curve), abs=1e-12)


def test_a_seed_repeats():
    assert chance_floors(LIVE, LIVE, epochs=3, repeats=5, seed=4) == chance_floors(LIVE, LIVE, epochs=3, repeats=5,
                                                                                   seed=4)


@pytest.mark.parametrize(("target", "source", "epochs", "message"), [
    (LIVE, LIVE, 0, "0 epochs"),
    (np.ones(4, dtype=bool), LIVE, 1, "target labels are of one class"),
    (LIVE, np.zeros(4, dtype=bool), 1, "source validation labels are of one class"),
])
def test_what_has_no_floor_is_refused(target, source, epochs, message):
    with pytest.raises(ValueError, match=message):
        chance_floors(target, source, epochs=epochs)
