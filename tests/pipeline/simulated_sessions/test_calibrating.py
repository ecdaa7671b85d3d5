"""The operating point: thresholds hold their target on every species, and nobody calibrates on the test set."""

import math

import numpy as np
import pytest

from calibration.score_calibration import CalibrationError
from mmdg_model.operating_point import read_operating_point, write_operating_point
from pipeline.policy import SIMULATED_POLICY
from pipeline.simulated_sessions.calibrating import calibrate, lowest_threshold
from pipeline.simulated_sessions.judging import judge
from pipeline.simulated_trees.domains import SimulationError
from pipeline.verdict import ModelInfo, Verdict
from tests.pipeline.simulated_sessions.films import MODEL, record, scores

POLICY = SIMULATED_POLICY


@pytest.mark.parametrize(("peaks", "target", "accepted"), [
    ([("a", 1.0), ("a", 2.0), ("a", 9.0), ("a", 5.0)], 0.25, 1),
    ([("a", 1.0), ("a", 9.0), ("a", 9.0), ("a", 5.0)], 0.25, 0),  # of equals all or none
    ([("a", 9.0)] * 3 + [("b", 7.0)], 0.0, 0),
    ([("a", -math.inf)], 0.0, 0),
    ([("a", 3.0)] * 20, 0.05, 0),  # all below Wald's bound
])
def test_the_threshold_is_the_lowest_that_holds_the_target(peaks, target, accepted):
    threshold = lowest_threshold(peaks, at_least=4.0, target=target)
    assert threshold >= 4.0
    assert sum(peak >= threshold for _, peak in peaks) == accepted
    for species in {name for name, _ in peaks}:
        own = [peak for name, peak in peaks if name == species]
        assert sum(peak >= threshold for peak in own) <= target * len(own)
    if threshold > 4.0:  # a little lower would not hold it
        lower = math.nextafter(threshold, 0.0)
        assert any(sum(peak >= lower for name, peak in peaks if name == species)
                   > target * sum(name == species for name, _ in peaks) for species in {name for name, _ in peaks})


def many(seed=0, hard=-1.0):
    """40 sessions each of live faces, an easy and a hard species, with levels of their own."""
    rng = np.random.default_rng(seed)
    films = [record(species, index) for species in ("bona_fide", "flat_print", "silicone_mask") for index in range(40)]
    levels = {"bona_fide": 3.0, "flat_print": -4.0, "silicone_mask": hard}
    return films, {film.truth.key: scores(film, rng.normal(levels[film.truth.species], 1.5)
                                          + rng.normal(0, 0.8, len(film.crop_sequences))) for film in films}


@pytest.mark.parametrize("hard", [-3.0, -1.0, 2.0])
def test_decisions_with_the_operating_point_have_the_rates_that_it_states(hard):
    films, of_film = many(hard=hard)
    found = calibrate(films, of_film, POLICY, MODEL, command="by hand")
    point = found.point
    model = ModelInfo(model_hash=MODEL.model_hash, purpose=MODEL.purpose, operating_point=point)
    accepted = {species: [judge(film, of_film[film.truth.key], POLICY, model).decision.verdict is Verdict.BONA_FIDE
                          for film in films if film.truth.species == species]
                for species in ("bona_fide", "flat_print", "silicone_mask")}
    assert point.bpcer == 1 - np.mean(accepted["bona_fide"])
    assert point.apcer == max(np.mean(accepted["flat_print"]), np.mean(accepted["silicone_mask"])) <= 0.05
    assert point.threshold >= found.wald_bound
    assert point.sessions == 120
    # White noise of variance 0.64 about levels of variance 2.25 that a session keeps: what stays is no new evidence.
    assert found.correlation.within < 0.3
    assert point.frame_correlation == pytest.approx(2.25 / (2.25 + 0.64), abs=0.08)


def test_the_file_reads_back_equal(tmp_path):
    films, of_film = many()
    point = calibrate(films, of_film, POLICY, MODEL, command="by hand").point
    write_operating_point(point, tmp_path / "point.json")
    assert read_operating_point(tmp_path / "point.json") == point


@pytest.mark.parametrize(("films", "error", "says"), [
    ([record(split="test"), record("flat_print", split="test")], SimulationError, "split test"),
    ([record()], SimulationError, "1 bona fide and 0 attack"),
    ([record(missed=range(12)), record("flat_print")], CalibrationError, "0 live"),
])
def test_sessions_that_cannot_calibrate_are_refused(films, error, says):
    with pytest.raises(error, match=says):
        calibrate(films, {film.truth.key: scores(film, 1.0) for film in films}, POLICY, MODEL, command="by hand")
