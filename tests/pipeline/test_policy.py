import dataclasses
import math

import pytest

from mmdg_model.scorer import Modality, Purpose
from pipeline.policy import Policy, PolicyError, parse_policy
from tests.pipeline.scene import POINT


def test_the_defaults_are_valid_and_let_only_release_checkpoints_decide():
    policy = Policy().check()
    assert policy.allowed_purposes == (Purpose.RELEASE,)
    assert set(policy.required_modalities) == set(Modality)
    assert policy.expose_would_decide is False


def test_bounds_are_walds():
    policy = Policy(apcer_max=0.01, bpcer_max=0.05)
    assert policy.upper_bound == pytest.approx(math.log(0.95 / 0.01))
    assert policy.lower_bound == pytest.approx(math.log(0.05 / 0.99))


@pytest.mark.parametrize(("period_ms", "limit_ms"), [
    (33.3, 150.0),  # 4.5 periods are 149.85 ms
    (100.0, 450.0),
    (0.0, 150.0), (-1.0, 150.0), (math.nan, 150.0), (math.inf, 150.0),  # an impossible period is unknown
    (1e9, 2000.0),  # a period of days does not switch the limit off
])
def test_stall_limit(period_ms, limit_ms):
    assert Policy().stall_limit_ms(period_ms) == pytest.approx(limit_ms)


@pytest.mark.parametrize(("values", "expected"), [
    ({"apcer_max": 0}, r"policies\.gate\.apcer_max: 0(\.0)? is out of range"),
    ({"apcer_max": 0.5}, r"policies\.gate\.apcer_max: 0\.5"),
    ({"bpcer_max": float("nan")}, r"policies\.gate\.bpcer_max: nan"),
    ({"deadline_ms": 10_001}, r"policies\.gate\.deadline_ms: 10001"),
    ({"deadline_ms": "soon"}, r"policies\.gate\.deadline_ms: Expected `int`, got `str`"),
    ({"frame_correlation": 1.0}, r"policies\.gate\.frame_correlation: 1\.0"),
    ({"logit_scale": 0.0}, r"policies\.gate\.logit_scale: 0\.0"),
    ({"min_accept_evidence": -1}, r"policies\.gate\.min_accept_evidence: -1"),
    ({"min_frames": 1}, r"policies\.gate\.min_frames: 1"),
    ({"expires_in_ms": 5_001}, r"policies\.gate\.expires_in_ms: 5001"),
    ({"min_time_ms": 6_000}, r"policies\.gate\.min_time_ms: 6000 is not below deadline_ms 5000"),
    ({"allowed_purposes": []}, r"policies\.gate\.allowed_purposes: \[\]"),
    ({"allowed_purposes": ["relase"]}, r"policies\.gate\.allowed_purposes\[0\]: Invalid enum value 'relase'"),
    ({"required_modalities": ["depth"]}, r"policies\.gate\.required_modalities"),
    ({"gating_conditions": ["to_dark"]}, r"policies\.gate\.gating_conditions\[0\]: 'to_dark'"),
    ({"deadline": 4}, r"policies\.gate.*deadline"),
    ({"name": ""}, r"policies\.gate\.name"),
])
def test_a_bad_value_is_refused_with_its_path(values, expected):
    with pytest.raises(PolicyError, match=expected):
        parse_policy(values, "policies.gate")


def test_an_operating_point_fills_in_what_the_policy_leaves_open():
    policy = Policy().calibrated(POINT)
    assert (policy.logit_scale, policy.training_log_odds, policy.correlation) == (0.5, 1.0, 0.2)
    assert policy.frame_llr(4.0) == pytest.approx(1.0)
    assert Policy().calibrated(None) == Policy()
    assert (Policy().correlation, Policy().frame_llr(1.5)) == (0.95, 1.5)


def test_what_the_policy_states_stands():
    policy = Policy(logit_scale=2.0, training_log_odds=0.25, frame_correlation=0.6)
    calibrated = policy.calibrated(POINT)
    assert (calibrated.logit_scale, calibrated.training_log_odds, calibrated.correlation) == (2.0, 0.25, 0.6)


def test_a_threshold_makes_acceptance_harder_and_never_easier():
    assert Policy().calibrated(dataclasses.replace(POINT, threshold=9.0)).upper_bound == 9.0
    assert Policy().calibrated(dataclasses.replace(POINT, threshold=-50.0)).upper_bound == Policy().upper_bound
    assert Policy(min_accept_evidence=10.0).calibrated(POINT).upper_bound == 10.0
    assert Policy().calibrated(dataclasses.replace(POINT, threshold=9.0)).lower_bound == Policy().lower_bound
