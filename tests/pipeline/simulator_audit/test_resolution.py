"""What a planned tree could tell, against what simulated scores of nothing do tell."""

import numpy as np
import pytest

from capture.simulated.catalogue import SCENES
from mmdg_model.training.samples import Domain
from pipeline.simulated_benchmark import plan_benchmark
from pipeline.simulator_audit.areas import area, units
from pipeline.simulator_audit.findings import Status, at_most
from pipeline.simulator_audit.resolution import (
    PlannedTree,
    expected_unresolved,
    planned_tree,
    species_too_few,
    spread_of_area,
    unresolved_chance,
    unresolved_leak,
)


def areas_of_nothing(counts, number):
    """Areas of independent recordings without a leak, over domains with (live, other recordings)."""
    rng = np.random.default_rng(8)
    live = np.concatenate([np.arange(one + other) < one for one, other in counts])
    stratum = np.concatenate([np.full(sum(each), str(place)) for place, each in enumerate(counts)])
    names = np.arange(len(live)).astype(str)
    return [area(units(rng.normal(size=len(live)), live, stratum, names, names), resamples=60)
            for _ in range(number)]


@pytest.mark.parametrize("counts", [[(40, 12)], [(30, 20), (90, 8)]])
def test_spread_of_an_area_is_that_of_areas_of_nothing(counts):
    found = np.std([each.value for each in areas_of_nothing(counts, 400)])
    assert spread_of_area(counts) == pytest.approx(found, rel=0.12)


def test_share_of_unresolved_lines_is_that_of_lines_about_nothing():
    counts = [(40, 12)]
    lines = [at_most("", "", "", each, 0.60) for each in areas_of_nothing(counts, 400)]
    share = np.mean([line.status is Status.UNRESOLVED for line in lines])
    assert unresolved_leak(counts) == pytest.approx(share, abs=0.05)


def test_more_recordings_resolve_more_and_too_few_nothing():
    assert unresolved_leak([(300, 7)]) == 1.0
    assert unresolved_leak([(300, 12)]) > unresolved_leak([(300, 24)]) > unresolved_leak([(300, 200)])
    assert unresolved_leak([(300, 40)], 0.55) > unresolved_leak([(300, 40)], 0.5)
    assert unresolved_chance([(400, 400)]) < 0.1 < unresolved_chance([(60, 60)])


def test_expected_lines_are_counted_by_check():
    tree = PlannedTree(live={"L": 100, "S": 4}, attacks={("flat_print", "L"): 60, ("rigid_mask", "S"): 3}, frames=0,
                       minutes=0.0)
    assert species_too_few(tree) == ("rigid_mask",)
    expected = expected_unresolved(tree)
    value, lines = expected["leakage by species"]
    assert lines == 2 * 10
    assert 10 <= value < 11  # every line of the mask, hardly one of the print
    value, lines = expected["leakage by domain"]
    assert (lines, round(value)) == (2 * 10, 10)


def test_a_tree_of_two_thousand_samples_judges_every_species_and_one_frame_a_recording_tells_more():
    usual, single = (planned_tree(plan_benchmark(size, scenes=SCENES, domains=tuple(Domain), frames=frames))
                     for size, frames in (("2000", None), ("1000", 1)))
    assert not species_too_few(usual)
    assert not species_too_few(single)
    assert single.frames < 0.6 * usual.frames
    assert single.recordings > 1.2 * usual.recordings
    unresolved = [sum(value for value, _ in expected_unresolved(each).values()) for each in (single, usual)]
    assert unresolved[0] < 0.8 * unresolved[1]
