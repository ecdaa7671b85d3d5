"""Mistakes of fielded systems that lie before the wire: in the model, the evidence, the policy and the timers.

Each test runs the rule that was the mistake on the same stream first, and it opens: what keeps closed is our rule, not
the stream. Sessions run through the real engine and gateway in virtual time; observations and scores are synthetic.
"""

import dataclasses
import itertools

import msgspec
import pytest

from mmdg_model.checkpoint import load_checkpoint
from mmdg_model.known_answer import known_answer_crops
from mmdg_model.network import LIVE_COLUMN
from mmdg_model.scorer import KnownAnswerError, Purpose
from mmdg_model.test_checkpoint import make_test_checkpoint
from mmdg_model.torch_scorer import TorchScorer, build_network, measure_known_answer
from pipeline.config import settings_from
from pipeline.decision import Decided, DecisionEngine, LockedOut
from pipeline.guidance import GUIDANCE_CODES
from pipeline.lockout import LockoutLimits
from pipeline.messages import Observation, Score
from pipeline.policy import Policy
from pipeline.security import Role
from pipeline.session_guards import Lockout, SessionGuards
from pipeline.supervisor import Supervisor
from pipeline.synthetic_scene import SyntheticScene
from pipeline.verdict import Origin, Reason, Verdict, ended_as
from tests.mmdg_model.builders import MICRO
from tests.pipeline.kiosk_transcripts import MS, POLICY, Stage
from tests.pipeline.scene import CAMERA, QUICK, observation, request, score
from tests.pipeline.test_kiosk_field_mistakes import decided, opens, owners
from tests.pipeline.test_session_calibration import FULL, KIND, calibration, evidence_map
from tests.pipeline.test_session_calibration import Scene as CalibratedScene


class Altered(SyntheticScene):
    """A made-up scene whose messages something alters on their way; `logits` are those that arrive."""

    def __init__(self, alter, scene="bona_fide"):
        super().__init__("front", scene)
        self.alter, self.logits = alter, []

    def step(self, now_ns):
        said = [other for message in super().step(now_ns) for other in self.alter(message, now_ns)]
        self.logits += [message.logit for message in said if isinstance(message, Score)]
        return said


def altered(alter, scene="bona_fide", **policies):
    """A session of a kiosk with such a scene, run to its end."""
    stage = Stage(scene)
    stage.scene = Altered(alter, scene)
    stage.engine.policies.update(policies)
    stage.run(100)
    stage.hello()
    stage.run(20_000, keepalive=stage.begin(policy=next(iter(policies), "default")))
    return stage


def unaltered(message, now_ns):
    return [message]


def test_an_unaltered_session_opens_so_that_the_others_mean_something():
    assert opens(decided(altered(unaltered)), owners(None), at_ms=5000)


# --- evidence -------------------------------------------------------------------------------------------------------
def test_one_score_is_not_used_for_seconds():
    """The network answers once and dies; its last word is given again for every later frame."""
    first = []

    def last_word(message, now_ns):
        if isinstance(message, Score) and now_ns > 700 * MS:  # the person has come close enough
            first.append(message)
            return [first[0]]
        return [message]

    stage = altered(last_word)
    assert len(stage.scene.logits) > 20
    assert all(logit > 0 for logit in stage.scene.logits), "a rule that takes the latest score opens"
    assert (decided(stage).verdict, decided(stage).fields["frames_used"]) == ("undecided", 1)


def test_a_score_that_comes_seconds_after_its_frame_is_no_evidence():
    waiting = []

    def slow(message, now_ns):
        if not isinstance(message, Score):
            return [message]
        waiting.append((now_ns + 1500 * MS, message))
        return [waiting.pop(0)[1]] if waiting[0][0] <= now_ns else []

    stage = altered(slow)
    assert sum(stage.scene.logits) > 20, "a rule that does not look at the age opens"
    assert (decided(stage).verdict, decided(stage).fields["frames_used"]) == ("undecided", 0)


def test_a_network_that_was_not_given_infrared_does_not_pass_on_colour_alone():
    """The sensor works and every frame has it, but the score was made without."""
    def blind(message, now_ns):
        if isinstance(message, Score):
            return [msgspec.structs.replace(message, modalities=["rgb", "depth"])]
        return [message]

    stage = altered(blind)
    assert sum(stage.scene.logits) > 20, "a rule that takes any modality's pass opens"
    assert decided(stage).verdict == "undecided"


def replaced_logits(logits):
    def alter(message, now_ns):
        return [msgspec.structs.replace(message, logit=next(logits)) if isinstance(message, Score) else message]

    return alter


@pytest.mark.parametrize("lucky", [1e30, 50.0, 10.0])
def test_an_attack_does_not_wait_for_the_frame_that_passes(lucky):
    stage = altered(replaced_logits(itertools.cycle([-6.0, -6.0, lucky, -6.0, -6.0])), "print")
    assert max(stage.scene.logits) > 0, "a rule that opens with the first frame that passes opens"
    assert decided(stage).verdict == "attack"


def test_a_glossy_print_that_passes_a_single_frame_gate_69_times_of_70_does_not_open():
    """Just on the live side in nearly every frame: sixty-nine passes are not sixty-nine independent ones."""
    stage = altered(replaced_logits(itertools.cycle([*[0.3] * 69, -2.0])), "print")
    passed = [logit > 0 for logit in stage.scene.logits]
    assert sum(passed) / len(passed) > 0.95
    assert sum(stage.scene.logits) > POLICY.upper_bound, "adding up correlated frames opens, too"
    assert decided(stage).verdict != "bona_fide"


@pytest.mark.parametrize("first", [
    {"conditions": ["too_dark"]}, {"conditions": ["move_closer"]}, {"subject": None, "faces": []},
    {"modalities": ["rgb"]}, {"logit": -20.0}, {"failed": "network", "logit": float("nan")}, {"track_broken": True}],
    ids=lambda first: next(iter(first)))
def test_a_bad_first_frame_does_not_spoil_the_attempt(first):
    """The first frame of the session and its score are bad, each in one way; the person still gets in."""
    spoilt = []

    def bad_start(message, now_ns):
        if now_ns <= 100 * MS:  # before the session
            return [message]
        if isinstance(message, Observation):
            spoilt.append(message.sequence) if not spoilt and message.bundle_sent else None
            fields = {k: v for k, v in first.items() if k in Observation.__struct_fields__}
        else:
            fields = {k: v for k, v in first.items() if k in ("logit", "failed", "modalities")}
        return [msgspec.structs.replace(message, **fields) if message.sequence in spoilt else message]

    decision = decided(altered(bad_start))
    assert spoilt
    assert opens(decision, owners(None), at_ms=5000), decision.fields


# --- thresholds and retries -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("stricter", [
    {"apcer_max": 1e-12}, {"min_accept_evidence": 100.0}, {"min_frames": 1000}, {"frame_correlation": 0.999},
    {"llr_clip": 0.01}, {"evidence_clip": 1.0}, {"allowed_purposes": ["release"]}], ids=str)
def test_configured_thresholds_hold_for_the_session_that_names_their_policy(stricter):
    """From YAML through the configuration to the verdict, on a stream that opens with the default."""
    written = {"name": "strict", "allowed_purposes": ["release", "simulated"], **stricter}
    settings = settings_from({"cameras": [{"spec": "simulated"}], "policy": written}, "test")
    decision = decided(altered(unaltered, strict=settings.policy))
    assert decision.verdict == "undecided"
    assert decision.fields["policy"] == "strict"
    assert decision.fields["policy_id"] != decided(altered(unaltered)).fields["policy_id"]


def test_the_decision_process_is_started_with_the_configured_policy(tmp_path):
    path = tmp_path / "model.safetensors"
    make_test_checkpoint(path, MICRO)
    settings = settings_from({"cameras": [{"spec": "simulated"}], "runtime_dir": str(tmp_path / "run"),
                              "policy": {"name": "gate", "apcer_max": 1e-4, "min_accept_evidence": 7.0}}, "test")
    supervisor = Supervisor(settings, path, on_report=print, should_stop=lambda: True)
    started = supervisor.children["decision"].arguments[-1]
    assert dict(started.policies) == {"gate": settings.policy}
    assert settings.policy.min_accept_evidence == 7.0


def test_retrying_in_new_sessions_ends_at_a_locked_camera():
    """Nobody presents a print until it passes: after five attacks even a good face is refused for a while."""
    guards = SessionGuards(lockout=Lockout(LockoutLimits()))
    engine = DecisionEngine({"quick": QUICK}, cameras=[CAMERA], model=CalibratedScene(None).engine.model,
                            gate=guards.gate)
    now_ns, sequence = 10**9, 0

    def attempt(number, logit):
        nonlocal now_ns, sequence
        events = engine.begin(request(session_id=f"s{number}", origin=Origin.KIOSK), now_ns)
        while not any(isinstance(event, Decided) for event in events):
            now_ns, sequence = now_ns + 33 * MS, sequence + 1
            events += engine.observe(observation(sequence, now_ns), now_ns)
            events += engine.score(score(sequence, logit, engine.model), now_ns)
        return next(e.record.verdict for e in guards.keep(events, now_ns) if isinstance(e, Decided))

    assert attempt(0, 6.0) is Verdict.BONA_FIDE
    assert [attempt(number, -6.0) for number in range(1, 6)] == [Verdict.ATTACK] * 5
    with pytest.raises(LockedOut, match="5 attacks"):
        attempt(6, 6.0)


# --- timers ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("deadline_ms", [500, 5000])
def test_a_session_ends_also_when_no_frame_ever_comes(deadline_ms):
    """In the dark nothing calls us: the engine itself must name a time to be woken at, from the first moment."""
    stage = Stage("nobody")
    stage.run(100)
    stage.hello()
    stage.scene = Altered(lambda message, now_ns: [])
    stage.begin(deadline_ms=deadline_ms)
    due_ns = stage.engine.next_deadline_ns()
    assert due_ns is not None
    assert due_ns <= stage.now_ns + deadline_ms * MS + 1
    stage.run(20_000)
    decision = decided(stage)
    assert (decision.verdict, decision.reason) == ("undecided", "stream_stale")
    assert decision.fields["time_to_decision_ms"] < 151


@pytest.mark.parametrize("limit", ["deadline_ms", "no_face_ms", "keepalive_ms"])
def test_no_limit_waits_for_the_frame_after_it(limit):
    """Frames stop; each limit alone still ends the session, by the timer."""
    patient = {"deadline_ms": 10_000, "no_face_ms": 10_000, "stall_min_ms": 1000.0, "stall_frame_periods": 30.0,
               "keepalive_ms": 5000, "min_frames": 1000}
    policy = Policy(**(patient | {limit: 500 if limit != "keepalive_ms" else 250}))
    engine = DecisionEngine({"default": policy}, cameras=[CAMERA], model=CalibratedScene(None).engine.model)
    engine.observe(observation(1, 10**9), 10**9)
    engine.begin(request(policy, needs_keepalive=True), 10**9 + MS)
    due_ns = engine.next_deadline_ns()
    assert due_ns == 10**9 + 501 * MS + 1
    (record,) = (event.record for event in engine.tick(due_ns) if isinstance(event, Decided))
    assert record.verdict is Verdict.UNDECIDED


# --- words ----------------------------------------------------------------------------------------------------------
#: As released. Words are added, never taken away, renamed or numbered: a kiosk of last year reads this year's engine.
WORDS = {
    Verdict: "attack bona_fide undecided",
    Reason: "abandoned audit_failed calibration_missing camera_changed cancelled clock_jump deadline device_lost "
            "engine_error engine_stopped face_swapped llr_lower llr_upper locked_out modality_missing model_changed "
            "model_unverified no_face quality_insufficient rate_limited stream_ended stream_repeated stream_stale "
            "track_lost",
    Purpose: "release simulated test", Origin: "kiosk local"}
GUIDANCE = ("no_face multiple_faces move_closer move_back centre_face look_at_camera remove_mask remove_sunglasses "
            "hold_still face_changed too_dark too_bright ir_saturated depth_holes clean_lens")


@pytest.mark.parametrize("kind", WORDS, ids=lambda kind: kind.__name__)
def test_words_of_the_contract_are_added_and_never_renumbered(kind):
    now = {member.name.lower(): member.value for member in kind}
    assert {word: now.get(word) for word in WORDS[kind].split()} == {word: word for word in WORDS[kind].split()}
    assert all(isinstance(value, str) and not value.isdigit() for value in now.values())


def test_guidance_and_roles_and_ends_keep_their_names():
    assert set(GUIDANCE.split()) <= GUIDANCE_CODES
    assert {role.name for role in Role} >= {"MONITOR", "KIOSK", "OPERATOR"}
    assert {ended_as(reason) for reason in Reason} >= {"decided", "timeout", "cancelled", "abandoned", "device_lost",
                                                       "engine_error"}
    assert {ended_as(reason) for reason in (Reason.LLR_UPPER, Reason.LLR_LOWER)} == {"decided"}


# --- another camera, another order of labels ------------------------------------------------------------------------
def test_people_before_a_camera_that_nobody_calibrated_are_told_so_and_not_refused_as_attacks():
    """On the other kind of camera the same people score three nats lower: its own map knows, the first one does not."""
    known, other = evidence_map(), evidence_map(kind="other-d455", offset=5.0)
    assert CalibratedScene(calibration(msgspec.structs.replace(known, camera_kind="other-d455")), kind="other-d455"
                           ).to_the_end(logit=-3.0).verdict is Verdict.ATTACK, "the wrong map refuses the person"
    record = CalibratedScene(calibration(known), kind="other-d455").to_the_end(logit=-3.0)
    assert (record.verdict, record.reason, record.examined) == (Verdict.UNDECIDED, "calibration_missing", False)
    assert CalibratedScene(calibration(known, other), kind="other-d455").to_the_end(
        logit=-3.0).verdict is Verdict.BONA_FIDE
    assert {tuple(known.modalities), known.camera_kind} == {FULL, KIND}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    make_test_checkpoint(path, MICRO)
    return load_checkpoint(path)


def with_exchanged_labels(checkpoint):
    """The head as a network would have it whose first class is the other one."""
    weights = dict(checkpoint.weights)
    for name in ("head.weight", "head.bias"):
        weights[name] = weights[name].flip(0).clone()
    return dataclasses.replace(checkpoint, weights=weights)


def test_weights_whose_classes_are_in_the_other_order_are_not_loaded(checkpoint):
    """A file converted with the classes exchanged would read every attack as live."""
    crops, straight = known_answer_crops(checkpoint.input_spec), TorchScorer(checkpoint)
    inverted = with_exchanged_labels(checkpoint)
    answer = measure_known_answer(build_network(inverted), inverted.input_spec)
    scored = TorchScorer(dataclasses.replace(inverted, known_answer=answer)).score(crops)
    assert [one.logit for one in scored] == pytest.approx([-one.logit for one in straight.score(crops)], abs=1e-4)
    with pytest.raises(KnownAnswerError):
        TorchScorer(inverted)


def test_the_live_column_is_the_one_that_accepts(checkpoint):
    weights = dict(checkpoint.weights)
    weights["head.bias"] = weights["head.bias"].clone()
    weights["head.bias"][LIVE_COLUMN] += 60.0
    biased = dataclasses.replace(checkpoint, weights=weights)
    answer = measure_known_answer(build_network(biased), biased.input_spec)
    scored = TorchScorer(dataclasses.replace(biased, known_answer=answer)).score(known_answer_crops(biased.input_spec))
    assert all(one.logit > 30 and one.probability > 0.99 for one in scored)
    assert decided(altered(replaced_logits(itertools.cycle([one.logit for one in scored])))).verdict == "bona_fide"
