import numpy as np
import pytest

from calibration.error_rates import auc, roc
from pipeline.simulator_audit.areas import Units, area, units


def drawn(number=60, shift=1.0, seed=0, stratum=None):
    rng = np.random.default_rng(seed)
    live = np.arange(number) % 3 == 0
    return Units(score=rng.normal(size=number) + shift * live, live=live,
                 stratum=np.full(number, "S") if stratum is None else stratum,
                 cluster=np.array([str(each // 6) for each in range(number)]))


def test_one_domain_has_the_area_of_calibration():
    of = drawn()
    found = area(of)
    assert found.value == pytest.approx(auc(roc(of.score, of.live)))
    assert found.low_wide < found.low < found.value < found.high
    assert (found.live, found.attacks, found.clusters) == (20, 40, 10)


def test_a_difference_between_domains_counts_for_nothing():
    of = drawn(shift=0.0, stratum=np.array(["S"] * 30 + ["W"] * 30))
    moved = Units(score=of.score + np.where(of.stratum == "W", 100.0, 0.0), live=of.live, stratum=of.stratum,
                  cluster=of.cluster)
    assert area(moved).value == pytest.approx(area(of).value)


def test_fewer_people_make_a_wider_interval_than_as_many_recordings_of_their_own():
    rng = np.random.default_rng(3)
    live = np.arange(80) % 2 == 0
    person = np.arange(80) // 10
    score = rng.normal(size=8)[person] * 2 + rng.normal(size=80) * 0.1 + live
    few = Units(score=score, live=live, stratum=np.full(80, "S"), cluster=person.astype(str))
    many = Units(score=score, live=live, stratum=np.full(80, "S"), cluster=np.arange(80).astype(str))
    assert area(few).clusters == 8
    assert area(many).clusters == 80
    assert area(few).value == area(many).value


def test_a_domain_with_one_label_is_left_out_and_none_at_all_is_no_number():
    one = drawn(6)
    assert area(Units(score=one.score, live=np.ones(6, bool), stratum=one.stratum, cluster=one.cluster)) is None


def test_a_recording_scores_the_mean_of_its_known_frames():
    found = units(np.array([1.0, 3.0, np.nan, 5.0]), np.array([True, True, True, False]), np.full(4, "S"),
                  np.array(["a", "a", "a", "b"]), np.array(["r", "r", "r", "t"]))
    assert found.score.tolist() == [2.0, 5.0]
    assert found.live.tolist() == [True, False]
