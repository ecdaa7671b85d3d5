import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.policy import Policy
from pipeline.sequential_test import (
    Bound,
    Evidence,
    EvidenceError,
    count,
    crossed,
    effective_frames,
    fewest_frames,
    for_acceptance,
    reset,
    tempered,
)

MS = 1_000_000
POLICY = Policy(min_frames=2, min_time_ms=0, uncertainty_weight=0.0)
RGB = ("rgb",)


def summed(logits, policy=POLICY, uncertainty=0.0, evidence=Evidence()):  # noqa: B008 - frozen
    for index, logit in enumerate(logits):
        evidence = count(evidence, logit, {"rgb": uncertainty}, RGB, index * 33 * MS, policy)
    return evidence


def test_effective_frames_by_hand():
    assert effective_frames(0, 0.95) == 0.0
    assert effective_frames(1, 0.95) == 1.0
    assert effective_frames(2, 0.5) == pytest.approx(2 / (1 + 2 * (1 / 2) * 0.5))
    assert effective_frames(3, 0.5) == pytest.approx(3 / (1 + 2 * (2 / 3 * 0.5 + 1 / 3 * 0.25)))
    assert effective_frames(10, 0.0) == 10.0


def test_thirty_frames_at_095_carry_about_one_and_a_half():
    effective = effective_frames(30, 0.95)
    assert effective == pytest.approx(1.57, abs=0.01)
    assert 30 / effective == pytest.approx(19.1, abs=0.1)  # what a naive sum over-claims


def test_effective_frames_is_the_variance_ratio_of_an_ar1_mean():
    # var(mean of N AR(1) samples) = var / n_eff; from the covariance matrix itself.
    frames, rho = 12, 0.8
    variance = sum(rho ** abs(i - j) for i in range(frames) for j in range(frames)) / frames**2
    assert effective_frames(frames, rho) == pytest.approx(1 / variance)


@given(st.integers(1, 300), st.floats(0, 0.99))
def test_effective_frames_lies_between_one_and_all(frames, rho):
    assert 1.0 - 1e-9 <= effective_frames(frames, rho) <= frames + 1e-9


def test_a_naive_sum_would_have_accepted_what_the_tempered_one_does_not():
    evidence = summed([0.5] * 30)
    assert evidence.llr_sum > POLICY.upper_bound
    assert tempered(evidence, POLICY) < 1.0
    assert crossed(evidence, POLICY) is Bound.NONE


def test_each_frame_is_clipped():
    assert summed([1e6]).llr_sum == POLICY.llr_clip
    assert summed([-1e6]).llr_sum == -POLICY.llr_clip


def test_the_training_prior_is_taken_off():
    assert summed([2.0], Policy(training_log_odds=0.5)).llr_sum == pytest.approx(1.5)


@pytest.mark.parametrize("logit", [math.nan, math.inf, -math.inf])
def test_no_number_is_no_evidence(logit):
    with pytest.raises(EvidenceError, match="finite"):
        count(Evidence(), logit, {"rgb": 0.0}, RGB, 0, POLICY)


@pytest.mark.parametrize("value", [math.nan, -0.01, 1.01])
def test_an_impossible_uncertainty_is_refused(value):
    with pytest.raises(EvidenceError, match="uncertainty of rgb"):
        count(Evidence(), 1.0, {"rgb": value}, RGB, 0, POLICY)


def test_no_modality_is_refused():
    with pytest.raises(EvidenceError, match="no modality"):
        count(Evidence(), 1.0, {}, (), 0, POLICY)


def test_an_unknown_uncertainty_is_the_largest():
    evidence = count(Evidence(), 1.0, {"rgb": 0.2}, ("rgb", "depth"), 0, POLICY)
    assert evidence.uncertainty_sum == pytest.approx((0.2 + 1.0) / 2)


def test_uncertainty_makes_accepting_harder_and_leaves_rejecting_alone():
    policy = Policy(min_frames=2, min_time_ms=0, frame_correlation=0.0, uncertainty_weight=3.0)
    assert crossed(summed([3.0, 3.0], policy, uncertainty=0.0), policy) is Bound.UPPER
    assert crossed(summed([3.0, 3.0], policy, uncertainty=0.9), policy) is Bound.NONE
    for uncertainty in (0.0, 0.9):
        assert crossed(summed([-3.0, -3.0], policy, uncertainty=uncertainty), policy) is Bound.LOWER


def test_bounds_are_symmetric_for_symmetric_errors():
    policy = Policy(apcer_max=0.02, bpcer_max=0.02, min_frames=2, min_time_ms=0, frame_correlation=0.3,
                    uncertainty_weight=0.0)
    for frames in range(1, 12):
        up, down = (crossed(summed([sign * 2.0] * frames, policy), policy) for sign in (1, -1))
        assert {Bound.UPPER: Bound.LOWER, Bound.NONE: Bound.NONE}[up] is down


def test_neither_bound_counts_before_enough_frames_and_time():
    policy = Policy(min_frames=4, min_time_ms=150, frame_correlation=0.0, uncertainty_weight=0.0)
    for logit, bound in ((4.0, Bound.UPPER), (-4.0, Bound.LOWER)):
        assert crossed(summed([logit] * 3, policy), policy) is Bound.NONE  # frames
        assert crossed(summed([logit] * 5, policy), policy) is Bound.NONE  # 4 x 33 ms
        assert crossed(summed([logit] * 6, policy), policy) is bound


def test_a_reset_forgets_what_spoke_for_and_keeps_what_spoke_against():
    assert reset(summed([3.0] * 5), POLICY) == Evidence()
    against = summed([-2.0] * 5)
    kept = reset(against, POLICY)
    assert kept.debt == pytest.approx(tempered(against, POLICY))
    assert kept.frames == 0
    assert reset(summed([3.0] * 5, evidence=kept), POLICY).debt == kept.debt  # not paid back across a reset
    assert reset(kept, POLICY) == kept


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=40), st.floats(0, 0.99), st.floats(0, 1), st.floats(-20, 0))
def test_never_accepts_without_positive_evidence(logits, rho, uncertainty, debt):
    policy = Policy(min_frames=2, min_time_ms=0, frame_correlation=rho)
    evidence = summed(logits, policy, uncertainty, Evidence(debt=debt))
    if sum(max(-4.0, min(4.0, logit)) for logit in logits) <= 0:
        assert crossed(evidence, policy) is not Bound.UPPER
    assert for_acceptance(evidence, policy) <= tempered(evidence, policy) + 1e-12
    if crossed(evidence, policy) is Bound.UPPER:
        assert tempered(evidence, policy) >= policy.upper_bound


def test_fewest_frames_is_where_the_strongest_evidence_first_accepts():
    policy = Policy(min_frames=2, min_time_ms=0)
    floor = fewest_frames(policy)
    assert floor is not None
    assert crossed(summed([99.0] * floor, policy), policy) is Bound.UPPER
    assert crossed(summed([99.0] * (floor - 1), policy), policy) is Bound.NONE
    assert fewest_frames(Policy(llr_clip=0.01), limit=50) is None
