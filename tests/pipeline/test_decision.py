"""What is evidence, what is not, and when it starts anew; whole sessions, driven by values."""

import msgspec
import pytest

from mmdg_model.scorer import Purpose
from pipeline.decision import Decided, ModelInfo, Phase, PhaseChanged, SessionStarted, Verdict
from pipeline.policy import DEFAULT_GATES
from tests.pipeline.engine_scene import Scene
from tests.pipeline.scene import EPOCH, MODALITIES, MODEL, QUICK, TEST_MODEL, request


def test_a_live_face_is_bona_fide_with_everything_a_kiosk_needs_to_know():
    scene = Scene().both(3)
    record = scene.record
    assert scene.outcome() == ("bona_fide", "llr_upper")
    assert (record.frames_used, record.examined, record.nonce) == (3, True, "00" * 16)
    assert [m.value for m in record.modalities_used] == MODALITIES
    assert record.time_to_decision_ms == pytest.approx(99.0)
    assert record.model == MODEL
    assert [e.phase for e in scene.of(PhaseChanged)] == [Phase.SEARCHING, Phase.ACQUIRING, Phase.DECIDING]
    assert isinstance(scene.events[0], SessionStarted)


def test_an_attack_is_an_attack():
    assert Scene().both(3, logit=-6.0).outcome() == ("attack", "llr_lower")


@pytest.mark.parametrize("logit", [6.0, -6.0])
def test_a_test_checkpoint_decides_nothing_and_says_what_it_would_have_said_only_when_asked(logit):
    scene = Scene(model=TEST_MODEL)
    for _ in range(3):
        scene.see().hear(logit, model=TEST_MODEL)
    assert scene.outcome() == ("undecided", "model_unverified")
    assert scene.record.would_decide is None
    exposed = Scene(msgspec.structs.replace(QUICK, expose_would_decide=True), model=TEST_MODEL)
    for _ in range(3):
        exposed.see().hear(logit, model=TEST_MODEL)
    assert exposed.outcome() == ("undecided", "model_unverified")
    assert exposed.record.would_decide is (Verdict.BONA_FIDE if logit > 0 else Verdict.ATTACK)

# --- scores that are no evidence ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("changes", "counter"), [
    ({"epoch": EPOCH + 1}, "score_of_another_epoch"),
    ({"source": "sim-2"}, "score_of_another_epoch"),
    ({"track_id": 2}, "score_of_another_track"),
    ({"failed": "plane missing"}, "score_failed"),
    ({"logit": float("nan")}, "score_not_a_number"),
    ({"logit": float("inf")}, "score_not_a_number"),
    ({"uncertainty": {"rgb": float("nan")}}, "score_not_a_number"),
    ({"modalities": ["rgb", "depth"]}, "score_lacks_modality"),
    ({"modalities": []}, "score_lacks_modality"),
    ({"modalities": ["rgb", "depth", "infrared", "thermal"]}, "score_unknown_word"),
    ({"purpose": "Release"}, "score_unknown_word"),
    ({"model": TEST_MODEL}, "score_of_another_model"),
    ({"model": ModelInfo(model_hash="other", purpose=Purpose.RELEASE)}, "score_of_another_model"),
    ({"model_hash": MODEL.model_hash, "purpose": "test"}, "score_of_another_model"),
])
def test_a_score_that_does_not_match_is_counted_and_left_out(changes, counter):
    scene = Scene()
    for _ in range(5):
        scene.see().hear(**changes)
    scene.events += scene.engine.cancel("s1", scene.now_ns)
    assert scene.record.counters[counter] == 5
    assert scene.record.frames_used == 0
    assert scene.record.examined is False


def test_one_frame_counts_once_however_often_its_score_comes():
    scene = Scene().both()
    for _ in range(10):
        scene.hear()
    scene.see().see().hear().hear(sequence=scene.sequence - 1)  # backwards
    scene.events += scene.engine.cancel("s1", scene.now_ns)
    assert scene.record.frames_used == 2
    assert scene.record.counters["score_repeated"] == 11


def test_a_score_of_a_frame_from_before_the_session_is_no_evidence():
    scene = Scene(begin=False).see()
    scene.events += scene.engine.begin(request(), scene.now_ns + 1)
    scene.hear()
    scene.see().hear(sequence=scene.sequence - 1)
    scene.events += scene.engine.cancel("s1", scene.now_ns)
    assert scene.record.frames_used == 0


def test_a_score_that_comes_too_late_is_no_evidence():
    scene = Scene()
    scene.see()
    late = scene.sequence
    for _ in range(31):
        scene.see()
    scene.hear(sequence=late)
    scene.events += scene.engine.cancel("s1", scene.now_ns)
    assert scene.record.frames_used == 0


def test_a_score_that_overtakes_its_observation_waits_for_it():
    scene = Scene().both(2)
    scene.hear(sequence=scene.sequence + 1)
    assert scene.of(Decided) == []
    assert scene.see().outcome() == ("bona_fide", "llr_upper")


def test_scores_may_lag_behind_the_camera():
    scene = Scene()
    for _ in range(10):
        scene.see()
    for sequence in (2, 5, 9):
        scene.hear(sequence=sequence)
    assert scene.outcome() == ("bona_fide", "llr_upper")


def test_a_face_that_is_not_the_subject_is_neither_evidence_nor_a_break():
    scene = Scene().both(2)
    scene.both(1, tracks=[1], subject=None)
    assert scene.of(Decided) == []
    assert scene.both(1).outcome() == ("bona_fide", "llr_upper")


@pytest.mark.parametrize("code", DEFAULT_GATES)
def test_a_gated_frame_is_no_evidence(code):
    scene = Scene()
    scene.both(10, conditions=[code])
    assert scene.of(Decided) == []
    assert scene.both(2).of(Decided) == []
    assert scene.both(1).outcome() == ("bona_fide", "llr_upper")
    assert scene.record.frames_used == 3


def test_scores_that_come_early_are_kept_within_a_bound():
    scene = Scene(begin=False)
    for sequence in range(100, 120):
        scene.hear(sequence=sequence)
    assert scene.engine.counters["score_without_observation"] == 12


# --- resets ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("break_it", "cause"), [
    ({"tracks": [1, 2]}, "multiple_faces"),
    ({"track_broken": True}, "track_broken"),
    ({"modalities": ["rgb", "depth"]}, "modality_lost"),
])
def test_a_break_forgets_what_was_gathered(break_it, cause):
    scene = Scene().both(2).see(**break_it)
    scene.both(2)
    assert scene.of(Decided) == []
    scene.both(1)
    assert scene.outcome() == ("bona_fide", "llr_upper")
    assert scene.record.counters[f"reset_{cause}"] == 1
    assert scene.record.frames_used == 3


def test_a_face_gone_for_longer_than_the_gap_starts_anew_and_a_blink_of_the_detector_does_not():
    blink = Scene().both(2).see(tracks=[]).both(1)
    assert blink.outcome() == ("bona_fide", "llr_upper")
    gone = Scene().both(2)
    for _ in range(9):
        gone.see(tracks=[])
    assert gone.both(2).of(Decided) == []
    assert gone.both(1).record.counters["reset_track_gap"] == 1


def test_a_score_of_a_frame_before_the_break_does_not_count_after_it():
    scene = Scene().both(2).see().see(tracks=[1, 2]).see()
    scene.hear(sequence=scene.sequence - 2).hear().both(1)
    assert scene.of(Decided) == []


def test_a_bad_start_cannot_be_wiped_away_by_showing_a_second_face():
    policy = msgspec.structs.replace(QUICK, llr_clip=2.0, bpcer_max=0.001)
    clean = Scene(policy).both(3, logit=2.0)
    assert clean.outcome() == ("bona_fide", "llr_upper")
    tainted = Scene(policy).both(2, logit=-2.0).see(tracks=[1, 2]).both(3, logit=2.0)
    assert tainted.of(Decided) == []
