"""Sessions with an operating-point file: each subset on each kind of camera has its own map, or it is no evidence."""

import hashlib
import math
import signal
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from calibration.operating_point_file import (
    CalibratedModel,
    CalibrationSessions,
    EvidenceMap,
    OperatingPointFile,
    OperatingPointFileError,
    file_bytes,
)
from mmdg_model.scorer import Modality, Purpose
from pipeline.commands.live import app
from pipeline.config import load_calibration, settings_from
from pipeline.decision import Decided, DecisionEngine, ModelInfo, NotReady, SessionEnded
from pipeline.decision_stage import DecisionStageSettings
from pipeline.messages import ProcessEvent
from pipeline.policy import Policy, PolicyError
from pipeline.sequential_test import effective, fewest_frames
from pipeline.supervisor import ExitCode, Supervisor
from pipeline.verdict import Verdict
from tests.pipeline.scene import CAMERA, MODALITIES, MS, POINT, QUICK, observation, request, score

KIND = "simulated-d4xx"
MODEL = ModelInfo(model_hash="ab" * 32, purpose=Purpose.RELEASE)
FULL, RGB_D = tuple(MODALITIES), ("rgb", "depth")
#: Any of RGB-D and RGB-D-IR will do; an accept takes ln(0.9 / 0.1) = 2.2 nats.
LENIENT = msgspec.structs.replace(QUICK, required_modalities=(Modality.RGB, Modality.DEPTH), apcer_max=0.1,
                                  bpcer_max=0.1)


def evidence_map(modalities=FULL, kind=KIND, **changes):
    values = {"camera_kind": kind, "modalities": list(modalities), "scale": 1.0, "offset": 0.0, "frame_llr_clip": 3.0,
              "evidence_clip": 3.0, "frame_correlation": 0.0, "frame_correlation_low": 0.0,
              "frame_correlation_high": 0.1, "lasting_share": 0.0, "lasting_share_low": 0.0,
              "lasting_share_high": 0.1, "cllr_raw": 1.0, "cllr": 0.5, "cllr_min": 0.4, "cllr_held_out": None,
              "sessions_bona_fide": 21, "sessions_attack": 21, "frames": 400}
    return EvidenceMap(**(values | changes))


def calibration(*maps, sha256=MODEL.model_hash):
    return OperatingPointFile(
        model=CalibratedModel(sha256=sha256, purpose="release"), data="simulated", created="2026-11-23",
        command="by hand", species_weights="balanced", maps=list(maps) or [evidence_map()],
        sessions=CalibrationSessions(
            total=42, unscored=0, by_label={}, by_species={}, index_sha256=["00" * 32]))


class Scene:
    """A session of one camera kind, fed frame by frame with scores of some modalities."""

    def __init__(self, file, policy=LENIENT, model=MODEL, kind=KIND):
        self.engine = DecisionEngine({policy.name: policy}, cameras=[CAMERA], model=model, calibration=file)
        self.now_ns, self.sequence, self.kind = 1_000 * MS, 0, kind
        self.events = self.engine.begin(request(policy), self.now_ns)

    def both(self, frames=1, logit=6.0, modalities=FULL):
        for _ in range(frames):
            self.now_ns += 33 * MS
            self.sequence += 1
            self.events += self.engine.observe(
                observation(self.sequence, self.now_ns, camera_kind=self.kind), self.now_ns)
            self.events += self.engine.score(
                score(self.sequence, logit, MODEL, modalities=list(modalities)), self.now_ns)
        return self

    def to_the_end(self, **changes):
        while not self.events or not isinstance(self.events[-1], SessionEnded):
            self.both(**changes)
        return self.record

    @property
    def record(self):
        return next(event.record for event in self.events if isinstance(event, Decided))

    @property
    def session(self):
        return self.engine.session("s1")


def test_a_calibrated_subset_decides_and_the_decision_names_its_calibration():
    file = calibration()
    record = Scene(file).to_the_end()
    assert (record.verdict, record.reason) == (Verdict.BONA_FIDE, "llr_upper")
    assert record.calibration_id == file.calibration_id
    assert Scene(file).to_the_end(logit=-6.0).verdict is Verdict.ATTACK


@pytest.mark.parametrize(("maps", "used", "kind", "reason"), [
    ([FULL], RGB_D, KIND, "modality_missing:infrared"),
    ([("rgb", "infrared"), FULL], ("rgb", "infrared"), "simulated-sr300", "calibration_missing"),
    ([FULL], FULL, "intel-realsense-d435i", "calibration_missing"),
    ([FULL], FULL, "", "calibration_missing"),  # a camera that does not say what it is
    ([RGB_D], FULL, KIND, "calibration_missing"),  # a wider subset is another subset
])
def test_a_subset_without_a_map_is_no_evidence_and_never_accepted(maps, used, kind, reason):
    policy = msgspec.structs.replace(LENIENT, required_modalities=(Modality.RGB,))
    scene = Scene(calibration(*[evidence_map(subset) for subset in maps]), policy, kind=kind)
    record = scene.to_the_end(modalities=used, logit=50.0)
    assert (record.verdict, record.reason) == (Verdict.UNDECIDED, reason)
    assert record.frames_used == 0
    assert record.examined is False
    assert record.counters["score_without_calibration"] > 100
    assert scene.events[-1].reason == "timeout"


@pytest.mark.parametrize("file", [None, calibration()])
@pytest.mark.parametrize("used", [FULL, RGB_D])
def test_a_kind_of_camera_that_the_policys_threshold_was_not_measured_on_is_never_accepted(file, used):
    measured = msgspec.structs.replace(LENIENT, camera_kinds=("intel-realsense-d435i", "simulated-sr300"))
    record = Scene(file, measured).to_the_end(modalities=used, logit=50.0)
    assert (record.verdict, record.reason) == (Verdict.UNDECIDED, "calibration_missing")
    assert record.frames_used == 0
    silent = Scene(file, measured, kind="").to_the_end(modalities=used, logit=50.0)
    assert (silent.verdict, silent.reason) == (Verdict.UNDECIDED, "calibration_missing")
    own = msgspec.structs.replace(LENIENT, camera_kinds=("simulated-sr300", KIND))
    assert Scene(file, own).to_the_end(logit=50.0).verdict is Verdict.BONA_FIDE


def test_of_two_wider_subsets_the_nearest_names_what_is_missing():
    policy = msgspec.structs.replace(LENIENT, required_modalities=(Modality.RGB,))
    maps = [evidence_map(), evidence_map(("rgb", "infrared"))]
    assert Scene(calibration(*maps), policy).to_the_end(modalities=("rgb",)).reason == "modality_missing:infrared"
    assert Scene(calibration(maps[0]), policy).to_the_end(modalities=("rgb",)).reason == "modality_missing:depth"


@pytest.mark.parametrize("point", [None, POINT])
def test_without_a_file_only_all_three_modalities_are_evidence(point):
    model = replace(MODEL, operating_point=point)
    record = Scene(None, model=model).to_the_end(modalities=RGB_D, logit=50.0)
    assert (record.verdict, record.reason, record.frames_used) == (Verdict.UNDECIDED, "modality_missing:infrared", 0)
    accepted = Scene(None, model=model).to_the_end(logit=50.0)
    assert accepted.verdict is Verdict.BONA_FIDE
    assert accepted.calibration_id == (None if point is None else point.calibration_id)


def test_each_subset_is_weighed_by_its_own_map():
    maps = [evidence_map(scale=0.1, offset=0.05), evidence_map(RGB_D, scale=0.01)]
    assert Scene(calibration(*maps)).both(1, 4.0).session.evidence.llr_sum == pytest.approx(0.45)
    assert Scene(calibration(*maps)).both(1, 4.0, RGB_D).session.evidence.llr_sum == pytest.approx(0.04)
    correlated = calibration(evidence_map(scale=0.1, frame_correlation=0.9))
    policy = msgspec.structs.replace(LENIENT, min_frames=1000)
    assert Scene(correlated, policy).both(10).to_the_end().effective_frames < 20 < Scene(
        calibration(), policy).to_the_end().effective_frames


def test_no_sum_mixes_two_subsets():
    file = calibration(evidence_map(scale=0.1), evidence_map(RGB_D, scale=0.1))
    scene = Scene(file).both(2, 5.0)
    assert scene.session.evidence.llr_sum == pytest.approx(1.0)
    scene.both(1, 5.0, RGB_D)
    assert (scene.session.evidence.frames, scene.session.evidence.llr_sum) == (1, pytest.approx(0.5))
    assert scene.session.counters["reset_modalities_changed"] == 1
    alternating = Scene(file)
    for index in range(200):
        if alternating.session is None:
            break
        alternating.both(1, 6.0, (FULL, RGB_D)[index % 2])
    assert alternating.record.verdict is Verdict.UNDECIDED


@settings(max_examples=60, deadline=None)
@given(frames=st.lists(st.tuples(st.sampled_from([FULL, RGB_D, ("rgb", "infrared"), ("rgb",)]),
                                 st.floats(-5, 50)), min_size=1, max_size=40),
       maps=st.lists(st.sampled_from([FULL, RGB_D, ("rgb",)]), min_size=1, unique=True),
       kind=st.sampled_from([KIND, KIND, "other", ""]))
def test_nothing_is_accepted_on_frames_of_a_subset_without_a_map(frames, maps, kind):
    policy = msgspec.structs.replace(LENIENT, required_modalities=(Modality.RGB,))
    scene = Scene(calibration(*[evidence_map(subset) for subset in maps]), policy, kind=kind)
    for modalities, logit in frames:
        scene.both(1, logit, modalities)
        if scene.session is None:
            break
    decided = [event.record for event in scene.events if isinstance(event, Decided)]
    counted = sum(subset in maps for subset, _ in frames) if kind == KIND else 0
    for record in decided:
        assert tuple(m.value for m in record.modalities_used) in maps
        assert record.frames_used <= counted
    if not counted:
        assert decided == []


def test_what_one_subset_said_against_the_face_stays_a_debt_on_another():
    file = calibration(evidence_map(scale=0.1), evidence_map(RGB_D, scale=0.1))
    scene = Scene(file).both(2, -8.0).both(1, 5.0, RGB_D)
    assert scene.session.evidence.debt == pytest.approx(-1.6)


def test_evidence_goes_no_further_than_the_sessions_of_the_calibration():
    file = calibration(evidence_map(frame_llr_clip=2.5, evidence_clip=2.5))
    policy = msgspec.structs.replace(LENIENT, min_frames=1000)
    assert Scene(file, policy).to_the_end(logit=50.0).evidence == 2.5
    assert Scene(file, policy).to_the_end(logit=-50.0).evidence == -2.5
    strict = msgspec.structs.replace(LENIENT, apcer_max=0.01)  # ln(0.9 / 0.01) = 4.5 nats: out of reach
    assert Scene(file, strict).to_the_end(logit=50.0).verdict is Verdict.UNDECIDED
    assert fewest_frames(strict.mapped(file.maps[0])) is None
    assert fewest_frames(LENIENT.mapped(file.maps[0])) == 3


def test_the_thresholds_of_a_checkpoints_own_point_give_way_to_the_file():
    model = replace(MODEL, operating_point=replace(POINT, threshold=900.0))
    assert Scene(None, model=model).to_the_end(logit=50.0).verdict is Verdict.UNDECIDED
    assert Scene(calibration(), model=model).to_the_end(logit=50.0).verdict is Verdict.BONA_FIDE


def test_a_policy_makes_a_map_more_cautious_never_less():
    one = evidence_map(frame_correlation=0.5, frame_llr_clip=3.0, evidence_clip=3.0)
    for stated, expected in ((0.2, 0.5), (0.9, 0.9), (None, 0.5)):
        assert Policy(frame_correlation=stated).mapped(one).correlation == expected
    assert Policy(llr_clip=1.0, evidence_clip=2.0).mapped(one).frame_llr(99.0) == 1.0
    assert Policy(evidence_clip=2.0).mapped(one).bounded(99.0) == 2.0
    assert Policy(llr_clip=20.0, evidence_clip=900.0).mapped(one).bounded(-99.0) == -3.0
    assert Policy().mapped(one).upper_bound == Policy().upper_bound


@pytest.mark.parametrize(("policy", "says"), [
    (Policy(logit_scale=1.0, apcer_max=0.1), r"p\.logit_scale: 1\.0 contradicts calibration"),
    (Policy(training_log_odds=0.0, apcer_max=0.1), r"p\.training_log_odds: 0\.0 contradicts"),
    # ln(0.95 / 0.01) = 4.55 nats; ln 95 sessions.
    (Policy(apcer_max=0.01), r"p\.apcer_max: accepting takes 4\.55 nats, .* supports 3\.00: .* at least 95 sessions"),
    (Policy(apcer_max=0.1, min_accept_evidence=900.0), r"accepting takes 900\.00 nats.*smaller min_accept_evidence"),
    (Policy(apcer_max=0.1, evidence_clip=1.0), r"supports 1\.00"),  # the policy's own bound is below its own aim
])
def test_a_policy_that_the_calibration_cannot_serve_is_refused_with_the_remedy(policy, says):
    with pytest.raises(PolicyError, match=says):
        policy.check_calibration(calibration(), "p")
    Policy(apcer_max=0.05, bpcer_max=0.05).check_calibration(calibration(), "p")


@pytest.mark.parametrize(("policy", "map_share", "share"), [
    (Policy(), 0.4, 0.4), (Policy(lasting_share=0.6), 0.4, 0.6), (Policy(lasting_share=0.6), 0.0, 0.6)])
def test_the_larger_lasting_share_counts(policy, map_share, share):
    applied = policy.mapped(evidence_map(lasting_share=map_share))
    assert applied.lasting_share == share
    assert effective(10_000, applied) == pytest.approx(1 / share, rel=1e-3)


@pytest.mark.parametrize(("share", "served"), [(0.0, True), (0.9, True), (0.95, False)])
def test_a_share_with_which_nothing_could_ever_be_accepted_is_refused(share, served):
    """2.7 nats a frame and 2.94 to accept: more than 0.918 of the variance kept by a session is too much."""
    file = calibration(evidence_map(lasting_share=share, lasting_share_high=0.97))
    policy = Policy(apcer_max=0.05, bpcer_max=0.05, llr_clip=2.7)
    if served:
        policy.check_calibration(file, "p")
        return
    with pytest.raises(PolicyError, match=r"p\.apcer_max: .* never gather more than 2\.84, .* a share of 0\.95"):
        policy.check_calibration(file, "p")


def test_what_lasts_keeps_a_session_from_deciding_that_would_decide_without_it():
    for share, verdict in ((0.0, Verdict.BONA_FIDE), (0.7, Verdict.UNDECIDED)):
        file = calibration(evidence_map(lasting_share=share, lasting_share_high=0.9))
        assert Scene(file).to_the_end(logit=1.4).verdict is verdict


def test_a_policy_that_requires_what_no_map_has_is_refused():
    with pytest.raises(PolicyError, match=r"required_modalities: \['depth', 'infrared', 'rgb'\].* only simulated-d4xx "
                                          r"rgb\+depth"):
        Policy(apcer_max=0.1).check_calibration(calibration(evidence_map(RGB_D)))
    LENIENT.check_calibration(calibration(evidence_map(RGB_D)))


def test_the_decision_process_does_not_start_with_a_policy_that_nothing_could_satisfy():
    with pytest.raises(PolicyError, match=r"policies\.default\.apcer_max: accepting takes 4\.55 nats"):
        DecisionStageSettings(calibration=calibration())
    DecisionStageSettings(policies={"default": LENIENT}, calibration=calibration())


@pytest.fixture
def live(tmp_path, monkeypatch):
    """What `mmdg-live --calibration` does before it starts a process: (settings, model) of a calibrated model."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir(mode=0o700)
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    file = calibration(sha256=hashlib.sha256(b"weights").hexdigest())
    path = tmp_path / "points.json"
    path.write_bytes(file_bytes(file))
    values = {"cameras": [{"spec": "simulated"}], "policy": {"apcer_max": 0.1, "bpcer_max": 0.1},
              "calibration": str(path)}
    return settings_from(values, "test"), model, file


def test_the_configured_file_reaches_the_decision_process(live):
    settings, model, file = live
    assert load_calibration(settings, model) == file
    supervisor = Supervisor(settings, model, on_report=print, should_stop=lambda: True)
    decision = supervisor.children["decision"].arguments[-1]
    assert decision.calibration == file
    # It travels to a process of its own.
    engine = DecisionEngine(decision.policies, model=MODEL, calibration=decision.calibration)
    assert engine.calibration_id == file.calibration_id
    assert load_calibration(msgspec.structs.replace(settings, calibration=None), model) is None


@pytest.mark.parametrize(("alter", "error", "says"), [
    (lambda path, model: model.write_bytes(b"others"), OperatingPointFileError, r"\$\.model\.sha256 is .* the model"),
    (lambda path, model: path.write_text(path.read_text().replace('"scale": 1.0', '"scale": 1.5')),
     OperatingPointFileError, "the file was altered"),
    (lambda path, model: path.unlink(), OperatingPointFileError, "No such file"),
])
def test_a_file_that_does_not_fit_starts_nothing_and_leaves_nothing(live, tmp_path, alter, error, says):
    settings, model, _ = live
    alter(tmp_path / "points.json", model)
    with pytest.raises(error, match=says):
        Supervisor(settings, model, on_report=print, should_stop=lambda: True)
    assert list((tmp_path / "runtime").iterdir()) == []


def test_the_command_line_says_why_and_ends_with_wrong_usage(live, tmp_path, monkeypatch):
    (tmp_path / "points.json").write_text("{}")
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)  # of this process, which goes on
    answer = CliRunner().invoke(app, ["--camera", "simulated", "--model", str(live[1]), "--calibration",
                                      str(tmp_path / "points.json")])
    assert answer.exit_code == ExitCode.USAGE
    assert "$.format is None, this build reads" in answer.stderr


def test_local_sessions_are_calibrated_too():
    file = calibration(evidence_map(scale=0.1))
    engine = DecisionEngine({LENIENT.name: LENIENT}, cameras=[CAMERA], model=MODEL, local_policy=LENIENT,
                            calibration=file)
    events = engine.observe(observation(1, MS, camera_kind=KIND), MS)
    session = engine.session(events[0].request.session_id)
    engine.score(score(1, 5.0, MODEL), MS)
    assert session.evidence.llr_sum == pytest.approx(0.5)
    assert session.calibration_id == file.calibration_id


def test_a_calibration_of_another_model_begins_nothing():
    engine = DecisionEngine({LENIENT.name: LENIENT}, cameras=[CAMERA], model=MODEL, local_policy=LENIENT,
                            calibration=calibration(sha256="cd" * 32))
    assert engine.ready is False
    with pytest.raises(NotReady, match="is of another model than the one that runs"):
        engine.begin(request(LENIENT), 0)
    assert engine.observe(observation(1, MS), MS) == []  # nor a local session


def test_a_model_announced_later_has_to_be_the_calibrated_one():
    file = calibration()
    engine = DecisionEngine({LENIENT.name: LENIENT}, cameras=[CAMERA], calibration=file)
    for sha256, ready in (("cd" * 32, False), (MODEL.model_hash, True)):
        engine.process_event(ProcessEvent(process="i", role="inference", event="ready", stamp_ns=0, detail={
            "model_hash": sha256, "purpose": "release"}), 0)
        assert engine.ready is ready
    assert engine.counters["calibration_of_another_model"] == 1
    assert engine.calibration_id == file.calibration_id


def test_the_camera_kind_is_that_of_the_frames_process():
    """A camera process that comes back as another kind before any evidence is weighed as that kind."""
    file = calibration(evidence_map(scale=0.1), evidence_map(kind="other", scale=0.2))
    scene = Scene(file)
    scene.kind = "other"
    assert scene.both(1, 2.0).session.evidence.llr_sum == pytest.approx(0.4)
    assert math.isclose(scene.session.policy.logit_scale or 0, 0.2)
