"""Maps from logits to evidence: right on scores whose likelihood ratio is known, modest where sessions are few."""

import math

import numpy as np
import pytest

from calibration.evidence_maps import (
    ScoredSession,
    check_numbers,
    fit_evidence_map,
    frames_of,
    supported_llr,
)
from calibration.operating_point_file import SUBSETS
from calibration.score_calibration import CalibrationError

RGB = ("rgb",)


def sessions(number, d_prime=2.0, sigma=1.0, frames=6, seed=0, kind="cam", centre=0.0):
    """`number` of each class; frames are independent normals d'·σ apart: the true LLR is d'/σ · (x - centre)."""
    rng = np.random.default_rng(seed)
    return [ScoredSession(
        key=f"{kind}-{live}-{index}", camera_kind=kind, species="bona_fide" if live else "flat_print", live=live,
        person=str(index), logits=tuple(rng.normal(centre + (0.5 if live else -0.5) * d_prime * sigma, sigma, frames)))
        for index in range(number) for live in (True, False)]


@pytest.mark.parametrize(("d_prime", "sigma", "centre"), [(1.0, 1.0, 0.0), (2.0, 3.0, 5.0), (1.5, 0.2, -1.0)])
def test_the_scale_is_d_prime_over_sigma_and_the_llr_is_nought_half_way(d_prime, sigma, centre):
    found = fit_evidence_map(sessions(800, d_prime, sigma, centre=centre), "cam", RGB)
    assert found.scale == pytest.approx(d_prime / sigma, rel=0.08)
    assert found.llr(centre) == pytest.approx(0.0, abs=0.1)
    assert found.llr(centre + sigma) == pytest.approx(d_prime, rel=0.1)


@pytest.mark.parametrize(("live", "attacks", "nats"), [(20, 300, 2.995732), (300, 20, 2.995732), (150, 150, 5.010635),
                                                       (2, 9, 0.693147)])
def test_evidence_goes_no_further_than_the_smaller_class(live, attacks, nats):
    assert supported_llr(live, attacks) == pytest.approx(nats, abs=1e-6)


@pytest.mark.parametrize(("live", "attacks"), [(1, 50), (0, 9)])
def test_a_session_alone_supports_nothing(live, attacks):
    with pytest.raises(CalibrationError, match=f"{live} bona fide and {attacks} attack"):
        supported_llr(live, attacks)


def test_a_map_clips_frames_at_what_its_sessions_support():
    found = fit_evidence_map(sessions(12), "cam", RGB)
    assert found.frame_llr_clip == found.evidence_clip == pytest.approx(math.log(12))
    assert found.llr(1e9) == pytest.approx(math.log(12))
    assert found.llr(-1e9) == pytest.approx(-math.log(12))


def test_costs_fall_from_raw_to_calibrated_to_the_least():
    stretched = [ScoredSession(key=one.key, camera_kind="cam", species=one.species, live=one.live, person=one.person,
                               logits=tuple(9 * value + 4 for value in one.logits)) for one in sessions(60, 1.2)]
    found = fit_evidence_map(stretched, "cam", RGB)
    assert found.cllr_min <= found.cllr < found.cllr_raw
    assert found.cllr < 0.9
    assert found.cllr_held_out is not None
    assert found.cllr_held_out == pytest.approx(found.cllr, abs=0.03)


def test_a_long_session_weighs_as_a_short_one():
    few = sessions(40, frames=5, seed=3)
    odd = ScoredSession(key="odd", camera_kind="cam", species="flat_print", live=False, person="x",
                        logits=tuple(np.linspace(0.9, 1.1, 5)))
    long = ScoredSession(key="odd", camera_kind="cam", species="flat_print", live=False, person="x",
                         logits=tuple(np.linspace(0.9, 1.1, 500)))
    short_map, long_map = (fit_evidence_map([*few, one], "cam", RGB) for one in (odd, long))
    assert long_map.scale == pytest.approx(short_map.scale, rel=0.01)
    assert long_map.frames == short_map.frames + 495
    logits, live, weights = frames_of([*few, long], "occurrence")
    assert weights[~live].sum() == pytest.approx(41)
    assert len(logits) == 40 * 2 * 5 + 500


def test_kinds_of_camera_are_fitted_apart():
    both = [*sessions(30, 2.0, 1.0, kind="a"), *sessions(30, 2.0, 10.0, kind="b", seed=2)]
    first, second = (fit_evidence_map(both, kind, SUBSETS[0]) for kind in ("a", "b"))
    assert first == fit_evidence_map(sessions(30, 2.0, 1.0, kind="a"), "a", SUBSETS[0])
    assert first.scale > 5 * second.scale
    assert first.modalities == ["rgb", "depth", "infrared"]


def test_sessions_without_a_score_count_for_nothing():
    own = sessions(12)
    silent = [ScoredSession(key=f"s{index}", camera_kind="cam", species="mask", live=False, person="z", logits=())
              for index in range(50)]
    assert fit_evidence_map([*own, *silent], "cam", RGB) == fit_evidence_map(own, "cam", RGB)


@pytest.mark.parametrize(("own", "says"), [
    (sessions(9), "9 bona fide and 9 attack sessions with scores, expected at least 10"),
    ([one for one in sessions(20) if one.live], "20 bona fide and 0 attack"),
    ([one for one in sessions(20) if not one.live], "0 bona fide and 20 attack"),
    (sessions(20, kind="other"), "camera kind cam: 0 bona fide and 0 attack"),
])
def test_too_few_sessions_or_one_class_are_refused_with_their_numbers(own, says):
    with pytest.raises(CalibrationError, match=says):
        fit_evidence_map(own, "cam", RGB)


def test_fewer_sessions_are_taken_only_when_asked_for():
    check_numbers(sessions(3), "cam", fewest=3)
    assert fit_evidence_map(sessions(3, 3.0), "cam", RGB, fewest=3).evidence_clip == pytest.approx(math.log(3))


def test_scores_that_rank_nothing_get_no_map():
    with pytest.raises(CalibrationError, match="do not rank"):
        fit_evidence_map(sessions(40, -1.0), "cam", RGB)
