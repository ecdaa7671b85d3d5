import numpy as np
import pytest

from pipeline.simulator_audit.cues import check_cues, check_hard_cases, lagged_correlation
from pipeline.simulator_audit.describing import CUES
from pipeline.simulator_audit.findings import Findings, Status
from pipeline.simulator_audit.frames import Frames


def frames(cues=None, number=240):
    """Forty people, one recording of two frames each live and as three species."""
    row = np.arange(number)
    recording = row // 2
    scenes = np.array(["bona_fide", "flat_print", "phone_replay", "silicone_mask"])[recording % 4]
    rng = np.random.default_rng(0)
    return Frames(domain=np.full(number, "W"), split=np.full(number, "train"), scene=scenes, live=scenes == "bona_fide",
                  person=recording // 4, recording=recording.astype(str), index=row % 2, camera=np.full(number, "A"),
                  place=np.full(number, "W0"), distance_m=np.full(number, 0.5), probes={},
                  cues=rng.normal(size=(number, len(CUES))) if cues is None else cues(scenes, rng),
                  noise=np.zeros((number, 6), np.float32), planes=np.zeros((number, 32, 32, 6), np.uint8))


def line(check, of, what):
    findings = Findings()
    check(of, findings)
    return next(each for each in findings.lines if each.what.startswith(what))


def set_cue(name, **levels):
    def drawn(scenes, rng):
        values = rng.normal(size=(len(scenes), len(CUES))) * 0.1
        for scene, level in levels.items():
            values[scenes == scene, CUES.index(name)] += level
        return values
    return drawn


def test_a_cue_that_decides_alone_fails_and_one_that_tells_one_species_does_not():
    alone = frames(set_cue("depth_mean_mm", bona_fide=3.0))
    assert line(check_cues, alone, "depth_mean_mm").status is Status.FAILED
    assert line(check_cues, alone, "depth_mean_mm: species near chance").value == 0
    one = frames(set_cue("depth_mean_mm", phone_replay=3.0))
    assert line(check_cues, one, "depth_mean_mm").status is Status.PASSED
    assert line(check_cues, one, "depth_mean_mm: species near chance").value == 2


@pytest.mark.parametrize(("levels", "expected"), [
    ({"phone_replay": 3.0}, Status.FAILED),                      # every replay has more holes than any live face
    ({"phone_replay": 0.1, "bona_fide": 0.1}, Status.PASSED),
])
def test_holes_of_live_faces_must_overlap_those_of_replays(levels, expected):
    found = line(check_hard_cases, frames(set_cue("hole_fraction", **levels)), "bona fide recordings with as many")
    assert found.status is expected


def test_a_case_that_the_tree_lacks_is_unresolved():
    assert line(check_hard_cases, frames(), "a matte screen").status is Status.UNRESOLVED


def test_scores_that_a_recording_shares_are_correlated_and_independent_ones_are_not():
    of = frames()
    rng = np.random.default_rng(1)
    shared = rng.normal(size=120)[np.arange(240) // 2]
    assert lagged_correlation(of, shared + 0.01 * rng.normal(size=240))[0] > 0.95
    value, pairs = lagged_correlation(of, rng.normal(size=240))
    assert abs(value) < 0.25
    assert pairs == 120
