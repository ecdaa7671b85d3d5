"""Costs of log-likelihood ratios against tables worked by hand, and what no monotone map may change."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.likelihood_ratio_cost import (
    LikelihoodRatioError,
    cllr,
    detection_cost,
    isotonic_llrs,
    minimum_cllr,
    reliability,
)

LN3 = math.log(3)


@pytest.mark.parametrize(("llrs", "live", "weights", "bits"), [
    ([0.0, 0.0], [True, False], None, 1.0),  # no evidence costs one bit
    ([LN3, -LN3], [True, False], None, math.log2(4 / 3)),  # log₂(1 + 1/3) for each
    ([-LN3, LN3], [True, False], None, 2.0),  # log₂(1 + 3): wrong by as much
    # Bona fide: log₂(4/3) = 0.4150 and log₂ 4, mean 1.2075; attacks: 1, 1 and log₂(4/3), mean 0.8050; half of the sum.
    ([LN3, -LN3, 0.0, 0.0, -LN3], [True, True, False, False, False], None, 1.0062656),
    # The right bona fide one weighs three times the wrong one: 0.8113; the last attack four times: 0.6100.
    ([LN3, -LN3, 0.0, 0.0, -LN3], [True, True, False, False, False], [3, 1, 1, 1, 4], 0.7106516),
    ([math.inf, -math.inf], [True, False], None, 0.0),
    ([math.inf, math.inf], [True, False], None, math.inf),  # a certainty that is wrong
])
def test_the_cost_of_a_known_table(llrs, live, weights, bits):
    assert cllr(llrs, live, weights) == pytest.approx(bits, abs=1e-6)


def test_the_least_cost_of_a_known_table():
    # Pooled: {1: attack}, {2: bona fide, 3: attack}, {4: bona fide}. Of four samples of equal weight the middle two
    # have LLR 0 and cost a bit each, the outer ones nothing: half a bit.
    scores, live = [1, 2, 3, 4], [False, True, False, True]
    np.testing.assert_allclose(isotonic_llrs(scores, live), [-math.inf, 0, 0, math.inf], atol=1e-9)
    assert minimum_cllr(scores, live) == pytest.approx(0.5)
    assert minimum_cllr([1, 2, 3, 4], [False, False, True, True]) == 0.0
    assert minimum_cllr([5, 5, 5, 5], [False, False, True, True]) == pytest.approx(1.0)  # equals are one sample
    # One bona fide frame of three speaks against two of its session: weight 1/2 beside two halves.
    assert minimum_cllr([1, 1, 2], [True, False, True], [1, 2, 1]) == pytest.approx(
        0.5 * (0.5 * math.log2(3) + math.log2(1.5)))


def test_the_least_cost_is_that_of_scikit_learns_isotonic_regression():
    """scikit-learn 1.9.1 on the same scores: log_loss(live, IsotonicRegression().fit_transform(x, live)) / ln 2."""
    live = np.repeat([True, False], 60)
    scores = np.round(np.random.default_rng(11).normal(np.where(live, 1.0, -0.4), 1.3), 3)
    assert scores[:3].tolist() == [1.044, 2.768, 2.592]
    assert minimum_cllr(scores, live) == pytest.approx(0.7966601442205697, abs=1e-7)


def test_the_weights_of_a_class_do_not_matter_to_the_other():
    scores, live = [0.3, -2.0, 1.0, 0.1], [True, False, True, False]
    assert cllr(scores, live, [1, 7, 1, 7]) == pytest.approx(cllr(scores, live))


SCORES = st.lists(st.integers(-40, 40), min_size=4, max_size=40)


@settings(max_examples=60, deadline=None)
@given(scores=SCORES, seed=st.integers(0, 1000))
def test_the_least_cost_is_least_and_survives_monotone_maps(scores, seed):
    values = np.array(scores) / 8
    rng = np.random.default_rng(seed)
    live = rng.uniform(size=len(values)) < 0.5
    live[:2] = True, False
    weights = rng.uniform(0.2, 3, len(values))
    least = minimum_cllr(values, live, weights)
    assert 0 <= least <= 1 + 1e-9
    assert least <= cllr(values, live, weights) + 1e-9
    for scale, offset in ((0.3, 2.0), (5.0, -1.0)):
        assert least <= cllr(scale * values + offset, live, weights) + 1e-9
        assert minimum_cllr(scale * values + offset, live, weights) == pytest.approx(least, abs=1e-9)
    assert minimum_cllr(np.exp(values), live, weights) == pytest.approx(least, abs=1e-9)
    assert minimum_cllr(values**3, live, weights) == pytest.approx(least, abs=1e-9)


def test_true_likelihood_ratios_lose_next_to_nothing_and_over_sure_ones_do():
    rng = np.random.default_rng(3)
    live = np.arange(8000) % 2 == 0
    scores = rng.normal(np.where(live, 1.0, -1.0), 1.0)  # true LLR: 2 · score
    least = minimum_cllr(scores, live)
    assert cllr(2 * scores, live) == pytest.approx(least, abs=0.01)
    assert cllr(8 * scores, live) > least + 0.2
    assert cllr(2 * scores + 2, live) > least + 0.1


@pytest.mark.parametrize(("prior", "cost_attack", "cost_live", "expected"), [
    # Threshold 0: of LLRs 1, -1 | -1, 2 one of each class is wrong: (½ + ½) · ½ over ½.
    (0.5, 1, 1, 1.0),
    # Threshold ln 9 = 2.2: nothing is accepted, BPCER 1: 0.1 over min(0.9, 0.1).
    (0.9, 1, 1, 1.0),
    # Threshold ln(1/9): everything is accepted, APCER 1: 0.1 over min(0.1, 0.9).
    (0.1, 1, 1, 1.0),
    # Threshold ln 4 = 1.39: both bona fide ones refused, the attack at 2 accepted: 0.8 · 0.5 + 0.2 · 1, over 0.2.
    (0.8, 1, 1, 3.0),
    (0.5, 4, 1, 3.0),  # the same by cost instead of prior
])
def test_costs_of_decisions(prior, cost_attack, cost_live, expected):
    assert detection_cost([1, -1, -1, 2], [True, True, False, False], attack_prior=prior,
                          cost_accepted_attack=cost_attack, cost_refused_live=cost_live) == pytest.approx(expected)


def test_reliability_compares_what_is_said_with_what_is_so():
    rng = np.random.default_rng(5)
    live = np.arange(20_000) % 2 == 0
    llrs = 2 * rng.normal(np.where(live, 1.0, -1.0), 1.0)
    bins = [one for one in reliability(llrs, live) if abs(one.predicted) < 3]
    assert len(bins) >= 6
    assert sum(one.share for one in reliability(llrs, live)) == pytest.approx(1.0)
    for one in bins:
        assert one.observed == pytest.approx(one.predicted, abs=0.3)
    for one in reliability(3 * llrs, live):  # three times too sure
        if 2 < abs(one.predicted) < 8:
            assert abs(one.observed) < abs(one.predicted) / 2


@pytest.mark.parametrize(("llrs", "live", "weights", "says"), [
    ([0.0, 1.0], [True, True], None, "2 bona fide and 0 attack"),
    ([0.0, math.nan], [True, False], None, "NaN"),
    ([0.0, 1.0], [True, False], [1.0, 0.0], "not positive"),
    ([0.0, 1.0], [True, False, True], None, "one length"),
])
def test_what_has_no_cost_is_refused(llrs, live, weights, says):
    for function in (cllr, minimum_cllr, detection_cost, reliability):
        with pytest.raises(LikelihoodRatioError, match=says):
            function(llrs, live, weights=weights)


def test_a_prior_outside_its_range_is_refused():
    with pytest.raises(LikelihoodRatioError, match=r"attack_prior 1\.0"):
        detection_cost([0.0, 1.0], [True, False], attack_prior=1.0)
