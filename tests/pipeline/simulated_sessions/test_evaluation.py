"""Figures of judged sessions on small sets that can be counted by hand."""

import json

import msgspec
import pytest

from pipeline.policy import SIMULATED_POLICY
from pipeline.sequential_test import effective_frames, fewest_frames
from pipeline.simulated_sessions.evaluation import evaluate
from pipeline.simulated_sessions.judging import judge
from pipeline.simulated_sessions.openings import open_test_set, read_openings
from pipeline.simulated_sessions.report import write_report
from pipeline.simulated_trees.domains import SimulationError
from tests.pipeline.simulated_sessions.films import MODEL, POINT, record, scores

POLICY = SIMULATED_POLICY


def judged(species, logits, index=0, **changes):
    film = record(species, index, **changes)
    return judge(film, scores(film, logits), POLICY, MODEL)


@pytest.fixture(scope="module")
def sessions():
    """Live: 8 accepted, 1 rejected, 1 undecided, 2 without response. Masks: 1 of 4 accepted. Prints: none of 3."""
    live = [judged("bona_fide", 6.0, index, skin_tone="dark" if index < 4 else "light") for index in range(8)]
    live += [judged("bona_fide", -6.0, 8), judged("bona_fide", 0.1, 9, spectacles=True)]
    live += [judged("bona_fide", 0.0, index, missed=range(12)) for index in (10, 11)]
    masks = [judged("silicone_mask", logit, index) for index, logit in enumerate((6.0, -6.0, 0.1, -6.0))]
    prints = [judged("flat_print", -6.0, index, missed=range(4)) for index in range(3)]
    return live + masks + prints


def test_every_session_is_counted_once_under_its_outcome(sessions):
    found = evaluate(sessions, POLICY.calibrated(POINT))
    live = found.live
    assert (live.sessions, live.accepted, live.rejected, live.undecided, live.non_response) == (12, 8, 1, 1, 2)
    assert live.bpcer.rate == pytest.approx(4 / 12)  # whoever was not accepted
    assert list(found.species) == ["silicone_mask", "flat_print"]
    mask, paper = found.species.values()
    assert (mask.accepted, mask.rejected, mask.undecided) == (1, 2, 1)
    assert mask.apcer.rate == 0.25  # whoever was accepted
    assert paper.apcer.rate == 0.0
    assert paper.apcer.upper_bound() == pytest.approx(1 - 0.05 ** (1 / 3))
    assert (paper.frames, paper.missed) == (36, 12)
    assert found.worst_species == "silicone_mask"


def test_groups_are_of_live_people_and_small_ones_are_not_called_worst(sessions):
    found = evaluate(sessions, POLICY.calibrated(POINT))
    assert found.groups["skin_tone"]["dark"].bpcer.rate == 0.0
    assert found.groups["skin_tone"]["light"].bpcer.rate == 0.5
    assert found.groups["spectacles"]["yes"].sessions == 1
    assert found.worst_groups == {"hair": "short", "spectacles": "no", "beard": "no"}


def test_time_is_compared_with_the_floor_that_correlation_allows(sessions):
    found = evaluate(sessions, POLICY.calibrated(POINT))
    assert found.accepting.decisions == 9
    assert (found.accepting.median_ms, found.accepting.floor_ms, found.accepting.ratio) == (400, 400, 1.0)
    assert found.rejecting.p95_ms == pytest.approx(800)


@pytest.mark.parametrize(("correlation", "within"), [(0.0, (5, 5)), (0.5, (5, 5)), (0.9, (6, 20)), (0.95, (12, 40))])
def test_the_floor_is_the_fewest_frames_whose_evidence_can_reach_the_bound(correlation, within):
    policy = msgspec.structs.replace(POLICY, frame_correlation=correlation)
    found = fewest_frames(policy, 100, 5.5)
    assert within[0] <= found <= within[1]
    assert policy.llr_clip * effective_frames(found, correlation) >= 5.5
    assert found == policy.min_frames or policy.llr_clip * effective_frames(found - 1, correlation) < 5.5


def test_a_bound_out_of_reach_has_no_floor():
    assert fewest_frames(msgspec.structs.replace(POLICY, frame_correlation=0.999), 100, 5.5) is None


def test_the_report_says_simulated_and_agrees_with_the_figures(sessions, tmp_path):
    found = evaluate(sessions, POLICY.calibrated(POINT))
    page = write_report(tmp_path, found, sessions, {"command": "by hand", "operating_point": POINT.to_dict()})
    text = page.read_text()
    assert "Every session is simulated" in text
    assert "| silicone_mask | 4 | 1 | 2 | 1 | 0 | 0.0% | 25.0% |" in text
    assert "Worst species: silicone_mask, APCER 25.0%" in text
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["simulated"] is True
    assert content["bona_fide"]["bpcer"] == pytest.approx(4 / 12)
    assert content["command"] == "by hand"
    assert len((tmp_path / "decisions.csv").read_text().splitlines()) == 1 + len(sessions)
    for name in ("scores.png", "det.png", "time_to_decision.png"):
        assert (tmp_path / name).stat().st_size > 5_000


def test_attacks_alone_can_be_evaluated(tmp_path):
    only = [judged("flat_print", -6.0)]
    found = evaluate(only, POLICY.calibrated(POINT))
    assert found.area is None
    assert write_report(tmp_path, found, only, {}).exists()


def test_every_opening_is_kept(tmp_path):
    for number in (1, 2):
        openings = open_test_set(tmp_path, checkpoint="c" * 64, operating_point="", sessions="s", number=150,
                                 command="mmdg simulate evaluate")
        assert len(openings) == number
    assert read_openings(tmp_path) == openings
    (tmp_path / "openings.jsonl").write_text("{}\n")
    with pytest.raises(SimulationError, match=r"openings\.jsonl"):
        read_openings(tmp_path)
