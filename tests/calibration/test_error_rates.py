"""Error rates: hand cases, tie rules, invariances, cross-checks against SciPy, what must be refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats

from calibration.error_rates import (
    Proportion,
    Unit,
    acer,
    apcer_by_species,
    auc,
    bpcer,
    bpcer_at_apcer,
    equal_error_point,
    equal_error_rate,
    pooled_apcer,
    roc,
    tpr_at_fpr,
)


def labelled(live, attacks):
    """Scores and labels with the given live and attack scores."""
    return np.array([*live, *attacks], dtype=float), np.array([True] * len(live) + [False] * len(attacks))


@st.composite
def samples(draw):
    """Scores on a coarse grid, so that ties within and between classes are common; both classes present."""
    score = st.integers(-8, 8)
    live, attacks = draw(st.lists(score, min_size=1, max_size=30)), draw(st.lists(score, min_size=1, max_size=30))
    scores, labels = labelled(live, attacks)
    order = draw(st.permutations(range(len(scores))))
    return scores[list(order)], labels[list(order)]


# ---- ROC, AUC, equal error ----

@pytest.mark.parametrize(("live", "attacks", "area", "hter", "threshold"), [
    ([3, 4], [1, 2], 1.0, 0.0, 3.0),  # separated: accept is >=, so the threshold is the lowest live score
    ([1, 2], [3, 4], 0.0, 1.0, 3.0),  # flipped
    ([0, 0, 0], [0, 0], 0.5, 0.5, math.inf),  # constant scores accept nothing: 50 / 50
    ([2, 4], [1, 3], 0.75, 0.5, 3.0),
    ([1], [1], 0.5, 0.5, math.inf),
])
def test_hand_cases(live, attacks, area, hter, threshold):
    curve = roc(*labelled(live, attacks))
    point = equal_error_point(curve)
    assert (auc(curve), point.hter, point.threshold) == (area, hter, threshold)


def test_the_first_of_equally_distant_thresholds_wins():
    """FPR + TPR - 1 is -1/2 at 3 and +1/2 at 2: the higher threshold, first in falling order, is taken."""
    point = equal_error_point(roc(*labelled([3, 2], [2, 1])))
    assert (point.threshold, point.fpr, point.fnr) == (3.0, 0.0, 0.5)


def test_the_equal_error_point_is_not_the_point_of_least_hter():
    scores, labels = labelled([10, 9, 8, 7, 6, 1, 1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5, 5, 5, 5, 0.5, 0.5, 0.5])
    curve = roc(scores, labels)
    assert equal_error_point(curve).hter > float(np.min((curve.fpr + 1 - curve.tpr) / 2))


def test_thresholds_fall_and_end_at_accepting_everything():
    curve = roc(*labelled([1, 2, 2], [0, 2]))
    assert curve.thresholds.tolist() == [math.inf, 2, 1, 0]
    assert curve.tpr.tolist() == [0, 2 / 3, 1, 1]
    assert curve.fpr.tolist() == [0, 0.5, 0.5, 1]


@given(samples())
def test_auc_is_the_mann_whitney_statistic(case):
    scores, labels = case
    statistic = stats.mannwhitneyu(scores[labels], scores[~labels]).statistic
    assert auc(roc(scores, labels)) == pytest.approx(statistic / (labels.sum() * (~labels).sum()), abs=1e-12)


@given(samples())
def test_auc_is_the_area_under_the_points(case):
    curve = roc(*case)
    assert auc(curve) == pytest.approx(integrate.trapezoid(curve.tpr, curve.fpr), abs=1e-12)


@given(samples())
def test_every_point_of_the_roc_is_a_plain_count(case):
    scores, labels = case
    curve = roc(scores, labels)
    for threshold, accepted_live, accepted_attacks in zip(curve.thresholds, curve.accepted_live,
                                                          curve.accepted_attacks, strict=True):
        assert accepted_live == (scores[labels] >= threshold).sum()
        assert accepted_attacks == (scores[~labels] >= threshold).sum()


@given(samples())
def test_flipped_labels_give_the_complement(case):
    scores, labels = case
    assert auc(roc(scores, ~labels)) == pytest.approx(1 - auc(roc(scores, labels)), abs=1e-15)


@given(samples(), st.sampled_from([np.exp, np.cbrt, lambda s: 3 * s - 7, lambda s: 1 / (1 + np.exp(-s)), np.arctan]))
def test_monotone_maps_change_no_rate(case, rising):
    scores, labels = case
    before, after = roc(scores, labels), roc(rising(scores), labels)
    assert auc(before) == auc(after)
    assert equal_error_point(before).hter == equal_error_point(after).hter
    assert equal_error_rate(before) == equal_error_rate(after)
    assert np.array_equal(before.accepted_live, after.accepted_live)


@given(samples())
def test_the_equal_error_point_minimises_the_distance_and_is_first(case):
    curve = roc(*case)
    distance = np.abs(curve.tpr + curve.fpr - 1)
    index = int(np.flatnonzero(curve.thresholds == equal_error_point(curve).threshold)[0])
    assert distance[index] == pytest.approx(distance.min(), abs=1e-12)
    assert (distance[:index] > distance[index] - 1e-12).all()


@given(samples())
def test_equal_error_rate_is_the_root_on_the_joined_curve(case):
    curve = roc(*case)
    # Along the path of the joined points; the root of 1 - x - ROC(x), without the vertical steps' ambiguity.
    steps = np.arange(len(curve.fpr))
    root = optimize.brentq(lambda t: np.interp(t, steps, curve.fpr + curve.tpr - 1), 0, steps[-1])
    # Where FPR + TPR stays at 1 over no length, FPR at the root is the rate.
    assert equal_error_rate(curve) == pytest.approx(np.interp(root, steps, curve.fpr), abs=1e-9)


def test_the_order_of_samples_changes_nothing():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 9, 60).astype(float), rng.random(60) < 0.4
    order = rng.permutation(60)
    one, other = roc(scores, labels), roc(scores[order], labels[order])
    assert np.array_equal(one.accepted_live, other.accepted_live)
    assert np.array_equal(one.thresholds, other.thresholds)


def test_random_scores_are_near_half():
    rng = np.random.default_rng(1)
    curve = roc(rng.random(20_000), rng.random(20_000) < 0.3)
    assert auc(curve) == pytest.approx(0.5, abs=0.02)
    assert equal_error_point(curve).hter == pytest.approx(0.5, abs=0.02)


# ---- APCER, BPCER, ACER ----

SCORES, LIVE = labelled([0.9, 0.5, 0.4, 0.8], [0.5, 0.1, 0.6, 0.7, 0.2, 0.3])
SPECIES = np.array(["bona_fide"] * 4 + ["print", "print", "mask", "mask", "replay", "replay"])


def test_accept_is_at_or_above_the_threshold():
    assert bpcer(SCORES, LIVE, 0.5, Unit.FRAME).count == 1  # 0.4; the live score of exactly 0.5 is accepted
    assert pooled_apcer(SCORES, LIVE, 0.5, Unit.FRAME).count == 3  # the attack at exactly 0.5 too


def test_species_come_worst_first_and_bona_fide_is_none_of_them():
    apcer = apcer_by_species(SCORES, LIVE, SPECIES, 0.5, Unit.VIDEO)
    assert [(name, rate.count, rate.trials) for name, rate in apcer.items()] == [
        ("mask", 2, 2), ("print", 1, 2), ("replay", 0, 2)]


def test_acer_takes_the_worst_species():
    apcer = apcer_by_species(SCORES, LIVE, SPECIES, 0.5, Unit.VIDEO)
    assert acer(apcer, bpcer(SCORES, LIVE, 0.5, Unit.VIDEO)) == (1.0 + 0.25) / 2


def test_an_infinite_threshold_accepts_nothing():
    assert bpcer(SCORES, LIVE, math.inf, Unit.FRAME).rate == 1.0
    assert pooled_apcer(SCORES, LIVE, math.inf, Unit.FRAME).rate == 0.0


# ---- fixed rates ----

def test_bpcer_at_apcer_takes_the_most_accepting_threshold_that_every_species_allows():
    attacks = [*np.arange(10) / 10, *(np.arange(10) / 10 + 0.05)]
    scores, live = labelled([0.83, 0.87, 0.92, 0.97], attacks)
    names = np.array(["bona_fide"] * 4 + ["a"] * 10 + ["b"] * 10)
    point = bpcer_at_apcer(scores, live, names, 0.1, Unit.VIDEO)
    # One accepted of ten each is allowed: a's 0.9 and b's 0.95 may pass, b's 0.85 may not.
    assert point.threshold == 0.87
    assert (point.rate.count, point.rate.trials) == (1, 4)


def test_ties_between_live_and_attack_cannot_be_told_apart():
    scores, live = labelled([1.0, 2.0], [1.0] * 10)
    point = bpcer_at_apcer(scores, live, ["x"] * 12, 0.1, Unit.VIDEO)
    assert (point.threshold, point.rate.rate) == (2.0, 0.5)


def test_only_refusing_everyone_may_hold_a_limit():
    scores, live = labelled([1.0, 2.0], [3.0] * 10)
    point = bpcer_at_apcer(scores, live, ["x"] * 12, 0.1, Unit.VIDEO)
    assert (point.threshold, point.rate.rate) == (math.inf, 1.0)


def test_a_rate_finer_than_the_data_is_not_resolvable():
    scores, live = labelled(np.linspace(0, 1, 50), np.linspace(0, 1, 1326))
    point = tpr_at_fpr(scores, live, 1e-4, Unit.FRAME)
    assert point.rate is None
    assert point.threshold is None
    assert "1326" in point.unresolved
    assert "10000" in point.unresolved


def test_the_smallest_species_decides_what_is_resolvable():
    scores, live = labelled([1.0], [0.0] * 120)
    names = np.array(["bona_fide"] + ["print"] * 100 + ["mask"] * 20)
    assert "'mask'" in bpcer_at_apcer(scores, live, names, 0.01, Unit.VIDEO).unresolved
    assert bpcer_at_apcer(scores, live, names, 0.05, Unit.VIDEO).rate.rate == 0.0


@given(samples(), st.sampled_from([0.5, 0.25, 0.1, 0.05]))
def test_fixed_rates_agree_with_the_roc(case, limit):
    scores, live = case
    point, curve = tpr_at_fpr(scores, live, limit, Unit.FRAME), roc(scores, live)
    if point.rate is None:
        assert (~live).sum() < 1 / limit
    else:
        assert point.rate.rate == curve.tpr[curve.fpr <= limit + 1e-12].max()


# ---- intervals ----

@pytest.mark.parametrize(("count", "trials", "upper"), [(0, 150, 0.0243), (0, 3000, 0.00123), (3, 100, 0.0852)])
def test_two_sided_exact_interval(count, trials, upper):
    interval = Proportion(count=count, trials=trials, unit=Unit.VIDEO).exact_interval()
    assert interval.high == pytest.approx(upper, abs=5e-5)
    assert interval.high == pytest.approx(stats.beta.ppf(0.975, count + 1, trials - count), abs=1e-9)


def test_none_of_149_shows_two_percent_and_none_of_148_does_not():
    assert Proportion(count=0, trials=149, unit=Unit.SUBJECT).upper_bound() <= 0.02
    assert Proportion(count=0, trials=148, unit=Unit.SUBJECT).upper_bound() > 0.02


def test_exact_intervals_cover_at_least_their_confidence():
    trials, truth = 25, 0.1
    chance = stats.binom.pmf(np.arange(trials + 1), trials, truth)
    intervals = [Proportion(count=k, trials=trials, unit=Unit.VIDEO).exact_interval() for k in range(trials + 1)]
    assert sum(p for p, i in zip(chance, intervals, strict=True) if i.low <= truth <= i.high) >= 0.95


@pytest.mark.parametrize("ask", [Proportion.exact_interval, Proportion.upper_bound])
def test_frames_get_no_exact_interval(ask):
    with pytest.raises(ValueError, match="videos or on subjects"):
        ask(Proportion(count=1, trials=300, unit=Unit.FRAME))


# ---- refusals ----

@pytest.mark.parametrize(("scores", "live", "message"), [
    ([0.1, math.nan], [0, 1], "score nan at index 1"),
    ([math.inf, 0.2], [0, 1], "score inf at index 0"),
    ([0.1, 0.2], [1, 2], "at index 1; 1 is bona fide"),
    ([0.1, 0.2], [1, 1], "2 bona fide and 0 attack"),
    ([0.1, 0.2], [0, 0], "0 bona fide and 2 attack"),
    ([], [], "0 bona fide and 0 attack"),
    ([0.1, 0.2], [1], "must be"),
    ([[0.1, 0.2]], [[0, 1]], "must be"),
    ([0.1, 0.2], [0, math.nan], "at index 1"),
])
def test_what_is_no_evaluation_is_an_error(scores, live, message):
    with pytest.raises(ValueError, match=message):
        roc(scores, live)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: bpcer(SCORES, LIVE, math.nan, Unit.FRAME), "threshold NaN"),
    (lambda: apcer_by_species(SCORES, LIVE, ["x"], 0.5, Unit.FRAME), "one a score"),
    (lambda: bpcer_at_apcer(SCORES, LIVE, SPECIES, 1.0, Unit.FRAME), "limit 1.0"),
    (lambda: Proportion(count=0, trials=0, unit=Unit.VIDEO), "0 of 0"),
    (lambda: Proportion(count=3, trials=2, unit=Unit.VIDEO), "3 of 2"),
    (lambda: acer({}, Proportion(count=0, trials=1, unit=Unit.VIDEO)), "at least one"),
])
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_equal_distances_are_compared_in_whole_numbers():
    """3/7 + 2/11 and its mirror 4/7 + 9/11 lie equally far from 1; in floating point the second seems nearer."""
    live = [9, 9, 9, 5, 1, 1, 1]
    attacks = [8, 8, *[5] * 7, 0, 0]
    point = equal_error_point(roc(*labelled(live, attacks)))
    distances = [abs(3 / 7 + 2 / 11 - 1), abs(4 / 7 + 9 / 11 - 1)]
    assert distances[0] != distances[1]
    assert distances[0] == pytest.approx(distances[1], abs=1e-12)
    assert point.threshold == 8
