import numpy as np
import pytest

from calibration.error_rates import auc, roc
from pipeline.simulator_audit.linear_probe import fitted_weights, folds_by, folds_by_both, held_out_scores


def rows(number=120, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(number, 12)), np.arange(number) % 2 == 0, np.array([str(each // 4)
                                                                               for each in range(number)])


def probed(features, positive, group, **knobs):
    return auc(roc(held_out_scores(features, positive, folds_by(group), **knobs), positive))


def test_a_difference_in_the_mean_or_in_the_spread_is_found_and_nothing_is_not():
    features, positive, group = rows(400)
    assert abs(probed(features, positive, group) - 0.5) < 0.15
    mean, spread = features.copy(), features.copy()
    mean[positive, 3] += 3.0
    spread[positive, 3] *= 5.0
    assert probed(mean, positive, group) > 0.85
    assert probed(spread, positive, group) > 0.75


def test_what_was_not_measured_can_tell_too():
    features, positive, group = rows()
    features[positive & (np.arange(120) % 3 > 0), 5] = np.nan
    assert probed(features, positive, group) > 0.75


def test_constant_features_say_nothing_within_each_stratum():
    _, positive, group = rows()
    stratum = np.where(np.arange(120) < 60, "S", "W")
    level = np.where(stratum == "S", 1.0, 9.0)[:, None]
    assert held_out_scores(level, positive, folds_by(group), stratum) is None


@pytest.mark.parametrize("both", [False, True])
def test_no_group_is_trained_on_and_tested(both):
    _, _, group = rows()
    place = np.array([str(each % 7) for each in range(120)])
    tested = np.zeros(120, int)
    for test, train in folds_by_both(group, place) if both else folds_by(group):
        tested += test
        assert not set(group[test]) & set(group[train])
        assert not both or not set(place[test]) & set(place[train])
    assert (tested == 1).all()


def test_a_label_learnt_by_heart_from_people_is_worth_nothing():
    rng = np.random.default_rng(2)
    group = np.arange(120) // 4
    positive = (np.arange(30) % 2 == 0)[group]
    signature = rng.normal(size=(30, 12))[group]  # each person looks like themselves, and has one label
    assert abs(probed(signature, positive, group.astype(str)) - 0.5) < 0.3


def leaky_crops(shift, spread):
    """90 people at 30 places, four rows each, 96 features in which each place has a level; some tell the label."""
    rng = np.random.default_rng(3)
    person, place = np.arange(360) // 4, np.arange(360) // 12
    positive = np.arange(360) % 2 == 0
    noise = rng.normal(size=(360, 96))
    noise[positive, :6] = noise[positive, :6] * spread + shift
    features = 0.5 * rng.normal(size=(30, 96))[place] + noise
    return features, positive, folds_by_both(person.astype(str), place.astype(str))


@pytest.mark.parametrize(("shift", "spread", "least"), [(0.8, 1.0, 0.80), (0.0, 3.0, 0.78)])
def test_a_leak_in_a_few_of_many_features_is_found_in_few_rows(shift, spread, least):
    features, positive, folds = leaky_crops(shift, spread)
    assert auc(roc(held_out_scores(features, positive, folds), positive)) > least


def test_large_numbers_that_are_all_alike_say_nothing():
    positive = np.arange(123) % 2 == 0
    alike = np.full((123, 2), 6_230_123.7)
    assert held_out_scores(alike, positive, folds_by((np.arange(123) // 4).astype(str))) is None


def test_more_columns_than_rows_have_the_same_minimum():
    """Where the gradient vanishes: each weight is the penalty's share of the rows' pull."""
    rng = np.random.default_rng(4)
    rows, positive = rng.normal(size=(30, 80)), np.arange(30) % 2 == 0
    rows -= rows.mean(axis=0)
    weights = fitted_weights(rows, positive, 0.4)
    wide = fitted_weights(np.vstack([rows, rows, rows]), np.tile(positive, 3), 3 * 0.4)  # fewer columns than rows
    assert weights == pytest.approx(wide, abs=5e-3)
