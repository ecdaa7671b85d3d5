"""Compiled policies: the guarantee over repetitions, what is refused and what the refusal says, and the file."""

import json
import math

import msgspec
import numpy as np
import pytest
from scipy import stats

from mmdg_model.scorer import Modality, Purpose
from pipeline.policy import Policy, PolicyError
from pipeline.policy_compiler import (
    CompiledPolicyError,
    PolicyRequest,
    Provenance,
    SessionPeak,
    UnsupportedPolicyError,
    compile_policy,
    parse_request,
    read_compiled,
    sessions_needed,
    threshold_grid,
    write_compiled,
)
from pipeline.stream_model import StreamModel, decide

PROVENANCE = Provenance(
    model_hash="a" * 64, purpose=Purpose.SIMULATED, calibration_id="none", calibration="none",
    camera_kinds=("simulated-d4xx",), sessions_sha256=("b" * 64,), splits=("val",),
    frame_period_ms=100.0, simulated=True, apart_from_calibration=True, command="by hand", date="2026-11-23T00:00:00Z")
REQUEST = PolicyRequest(name="gate", apcer_max=0.1, deadline_ms=3000, confidence=0.9,
                        allowed_purposes=(Purpose.SIMULATED,),
                        settings={"frame_correlation": 0.8, "uncertainty_weight": 0.0})


def peak(species, value, index=0, **changes):
    return SessionPeak(**{"species": species, "live": species == "bona_fide", "person": str(index), "peak": value,
                          "responded": True, "duration_ms": 3000.0} | changes)


def sessions(**peaks):
    """`species=[peak of each session]`."""
    return [peak(name, value, index) for name, values in peaks.items() for index, value in enumerate(values)]


def compiled(judged, request=REQUEST, provenance=PROVENANCE):
    return compile_policy(request, judged, provenance, request.policy())


# --- the guarantee --------------------------------------------------------------------------------------------------
def attack_peaks(rng, number, shift):
    """Sessions of a species whose scores are no LLRs: they lie `shift` higher than the model has them."""
    model = StreamModel(d_prime=1.6, correlation=0.8, frames=31, frame_period_ms=100.0)
    return decide(model.draw(rng, number, live=False) + shift, REQUEST.policy(), frame_period_ms=100.0).peak


@pytest.fixture(scope="module")
def worlds():
    """Peaks of very many sessions of three species; what is drawn from them has their APCER exactly."""
    rng = np.random.default_rng(0)
    return {"print": attack_peaks(rng, 4000, 0.0), "mask": attack_peaks(rng, 4000, 1.3),
            "screen": attack_peaks(rng, 4000, 1.2)}


def share_above(peaks, thresholds):
    ordered = np.sort(peaks)
    return 1 - np.searchsorted(ordered, thresholds, side="left") / len(ordered)


def naive_threshold(by_species, thresholds, target):
    """The loosest threshold at which the measured APCER of each species is within the target: no bound, no test."""
    worst = np.max([share_above(peaks, thresholds) for peaks in by_species.values()], axis=0)
    return thresholds[worst <= target].min()


def test_over_repetitions_the_true_apcer_exceeds_the_target_no_more_often_than_allowed_and_a_naive_choice_does(worlds):
    rng, repetitions, number = np.random.default_rng(1), 400, 90
    thresholds = threshold_grid(REQUEST.policy(), 100.0)
    truth = {name: np.sort(peaks) for name, peaks in worlds.items()}

    def violated(threshold):
        return any(len(peaks) - np.searchsorted(peaks, threshold) > REQUEST.apcer_max * len(peaks)
                   for peaks in truth.values())

    violations = naive_violations = chosen = 0
    for _ in range(repetitions):
        drawn = {name: rng.choice(peaks, number) for name, peaks in worlds.items()}
        naive_violations += violated(naive_threshold(drawn, thresholds, REQUEST.apcer_max))
        try:
            found = compiled(sessions(bona_fide=[8.0] * 5, **drawn))
        except UnsupportedPolicyError:
            continue
        chosen += 1
        violations += violated(found.threshold)
    print(f"violations: {violations} compiled, {naive_violations} naive, of {repetitions}")
    delta = 1 - REQUEST.confidence
    assert chosen > 0.9 * repetitions  # refusing always would hold the target, too
    assert stats.binomtest(violations, repetitions, delta, alternative="greater").pvalue > 1e-3
    assert violations > 0  # the sequence goes as far as it may
    assert stats.binomtest(naive_violations, repetitions, delta, alternative="greater").pvalue < 1e-6


# --- the choice -----------------------------------------------------------------------------------------------------
def test_the_loosest_threshold_that_the_worst_species_allows_is_chosen():
    # 46 sessions with one accepted and 22 with none: both just enough for 10 % at 90 %.
    masks, prints = [1.0] * 37 + [6.0, 5.0], [0.5] * 22
    found = compiled(sessions(bona_fide=[9.0] * 9 + [2.0], mask=masks, print=prints))
    assert 5.0 < found.threshold < 5.0 + 0.1  # two accepted of 39 would be one too many
    mask = found.species["mask"]
    assert (mask.accepted, mask.sessions) == (1, 39)
    assert mask.p_value == pytest.approx(stats.binom.cdf(1, 39, 0.1))
    assert mask.upper_bound <= 0.1
    assert found.species["print"].p_value == pytest.approx(0.9**22)
    assert found.worst_species == "mask" or found.species["print"].upper_bound >= mask.upper_bound
    assert (found.bona_fide.refused, found.bona_fide.sessions, found.bona_fide.p_value) == (1, 10, None)
    assert found.bona_fide.upper_bound == pytest.approx(stats.beta.ppf(0.9, 2, 9))
    assert found.tried[-1].p_value > 0.1  # the step that ended the sequence is told
    assert [each.threshold for each in found.tried] == sorted((each.threshold for each in found.tried), reverse=True)


def test_a_threshold_is_never_below_the_policys_own_bound():
    found = compiled(sessions(bona_fide=[9.0], mask=[-math.inf] * 100))
    assert found.threshold == found.policy.upper_bound
    assert found.in_force().upper_bound == found.policy.upper_bound
    stricter = compiled(sessions(bona_fide=[9.0], mask=[0.0] * 90 + [7.0] * 10))
    assert stricter.in_force().upper_bound == stricter.threshold > found.threshold
    assert stricter.in_force().lower_bound == stricter.policy.lower_bound
    assert stricter.in_force().threshold_id == stricter.threshold_id
    assert stricter.in_force().camera_kinds == ("simulated-d4xx",)


def test_the_threshold_of_the_operating_point_is_the_loosest_that_is_tried():
    calibrated = msgspec.structs.replace(REQUEST.policy(), min_accept_evidence=7.0)
    found = compile_policy(REQUEST, sessions(bona_fide=[9.0], mask=[0.0] * 100), PROVENANCE, calibrated)
    assert found.threshold == 7.0


def test_bona_fide_sessions_have_no_say_in_the_threshold_and_are_tested_where_that_is_demanded():
    masks = [0.0] * 60 + [5.5]
    free = compiled(sessions(bona_fide=[9.0] * 20 + [1.0] * 10, mask=masks))
    assert free.threshold == compiled(sessions(bona_fide=[9.0], mask=masks)).threshold
    strict = msgspec.structs.replace(REQUEST, bpcer_max=0.2)
    with pytest.raises(UnsupportedPolicyError, match=r"10 of 30 bona fide sessions are refused: BPCER <= 0\.\d+ at"):
        compiled(sessions(bona_fide=[9.0] * 20 + [1.0] * 10, mask=masks), strict)
    kept = compiled(sessions(bona_fide=[9.0] * 30 + [1.0], mask=masks), strict)
    assert kept.bona_fide.p_value == pytest.approx(stats.binom.cdf(1, 31, 0.2))
    assert kept.policy.bpcer_max == 0.2
    with pytest.raises(UnsupportedPolicyError, match="that takes 11 sessions without one refused"):
        compiled(sessions(bona_fide=[9.0] * 5, mask=masks), strict)


# --- refusals -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("apcer_max", "confidence", "needed"), [
    (0.02, 0.95, 149), (0.01, 0.95, 299), (0.001, 0.95, 2995), (0.05, 0.95, 59), (0.1, 0.9, 22), (0.5, 0.5, 1)])
def test_sessions_needed_is_the_fewest_whose_bound_is_within_the_target(apcer_max, confidence, needed):
    assert sessions_needed(apcer_max, confidence) == needed
    assert (1 - apcer_max) ** needed <= 1 - confidence + 1e-12
    assert (1 - apcer_max) ** (needed - 1) > 1 - confidence


def test_too_few_sessions_are_refused_with_the_number_it_takes_and_what_there_is():
    request = msgspec.structs.replace(REQUEST, apcer_max=0.001, confidence=0.95)
    with pytest.raises(UnsupportedPolicyError) as refused:
        compiled(sessions(bona_fide=[9.0] * 20, mask=[0.0] * 150, print=[0.0] * 3000), request)
    assert (refused.value.needed, refused.value.missing) == (2995, {"mask": 2845})
    text = str(refused.value)
    assert "takes 2995 sessions of each species without one accepted; there are mask 150" in text
    assert "APCER <= 0.0198 (mask)" in text  # 1 - 0.05^(1/150)
    assert "0 of 20 bona fide sessions refused" in text


def test_one_session_fewer_than_needed_is_refused_and_as_many_are_not():
    assert compiled(sessions(bona_fide=[9.0], mask=[0.0] * 22)).species["mask"].accepted == 0
    with pytest.raises(UnsupportedPolicyError, match="takes 22 sessions"):
        compiled(sessions(bona_fide=[9.0], mask=[0.0] * 21))


def test_attacks_that_no_threshold_stops_are_named():
    with pytest.raises(UnsupportedPolicyError, match=r"strictest threshold, .* nats: of mask 20 of 40 sessions"):
        compiled(sessions(bona_fide=[9.0] * 5, mask=[99.0] * 20 + [0.0] * 20))


def test_a_threshold_at_which_nobody_is_accepted_is_no_policy():
    with pytest.raises(UnsupportedPolicyError, match="none of 5 bona fide sessions is accepted any more"):
        compiled(sessions(bona_fide=[5.0] * 5, mask=[7.0] * 20 + [0.0] * 20))


@pytest.mark.parametrize(("judged", "changes", "said"), [
    (sessions(mask=[0.0] * 30), {}, "0 bona fide and 30 attack sessions"),
    (sessions(bona_fide=[9.0]), {}, "1 bona fide and 0 attack sessions"),
    (sessions(bona_fide=[9.0], mask=[0.0] * 30), {"species": ("mask", "screen")}, "no session of 'screen'"),
    (sessions(bona_fide=[9.0], mask=[0.0] * 30), {"allowed_purposes": (Purpose.RELEASE,)}, "leave out the"),
    (sessions(bona_fide=[9.0], mask=[0.0] * 30), {"deadline_ms": 3100}, "deadline_ms of at most 3000"),
])
def test_sessions_that_do_not_fit_the_policy_are_refused(judged, changes, said):
    with pytest.raises(PolicyError, match=said):
        compiled(judged, msgspec.structs.replace(REQUEST, **changes))


@pytest.mark.parametrize(("values", "said"), [
    ({"name": "x", "apcer_max": 0.01}, "deadline_ms"),
    ({"name": "x", "apcer_max": 0.01, "deadline_ms": 1000, "apcer": 1}, "apcer"),
    ({"name": "x", "apcer_max": 0.7, "deadline_ms": 1000}, "apcer_max: 0.7 is out of range"),
    ({"name": "x", "apcer_max": 0.01, "deadline_ms": 1000, "confidence": 1.0}, "confidence: 1.0"),
    ({"name": "x", "apcer_max": 0.01, "deadline_ms": 1000, "confidence": math.nan}, "confidence: nan"),
    ({"name": "x", "apcer_max": 0.01, "deadline_ms": 1000, "settings": {"deadline_ms": 9}}, "state it one level up"),
    ({"name": "x", "apcer_max": 0.01, "deadline_ms": 1000, "settings": {"threshold_id": "a"}}, "or not at all"),
    ({"name": "x", "apcer_max": 0.01, "deadline_ms": 1000, "settings": {"llr": 9}}, "llr"),
    ({"name": "x", "apcer_max": 0.01, "deadline_ms": 1000, "settings": {"camera_kinds": []}}, "or not at all"),
    ({"name": "x", "apcer_max": 0.01, "deadline_ms": 1000, "required_modalities": ["depth"]}, "must name rgb"),
    (["x"], "policy.yaml"),
])
def test_a_wrong_request_is_refused_by_name(values, said):
    with pytest.raises(PolicyError, match=said):
        parse_request(values, "policy.yaml")


def test_a_request_becomes_a_policy_in_the_same_words():
    request = parse_request({"name": "gate", "apcer_max": 0.02, "bpcer_max": 0.1, "deadline_ms": 2000,
                             "required_modalities": ["rgb", "infrared"], "allowed_purposes": ["simulated"],
                             "settings": {"min_frames": 7}}, "policy.yaml")
    assert request.policy() == Policy(name="gate", apcer_max=0.02, bpcer_max=0.1, deadline_ms=2000, min_frames=7,
                                      required_modalities=(Modality.RGB, Modality.INFRARED),
                                      allowed_purposes=(Purpose.SIMULATED,))


# --- the file -------------------------------------------------------------------------------------------------------
@pytest.fixture
def written(tmp_path):
    made = compiled(sessions(bona_fide=[9.0] * 20, mask=[0.0] * 90 + [6.0]))
    write_compiled(made, tmp_path / "gate.json")
    return made, tmp_path / "gate.json"


def test_a_file_reads_back_equal(written):
    made, path = written
    assert read_compiled(path) == made
    assert made.threshold_id == made.digest()
    assert len(made.threshold_id) == 64


def test_another_threshold_or_model_is_another_threshold_id(written):
    made, _ = written
    for changed in (msgspec.structs.replace(made, threshold=made.threshold + 1),
                    msgspec.structs.replace(made, provenance=msgspec.structs.replace(PROVENANCE, model_hash="c" * 64))):
        assert changed.digest() != made.threshold_id


@pytest.mark.parametrize(("change", "said"), [
    (lambda values: values | {"threshold": 0.1}, "changed by hand"),
    (lambda values: values | {"version": 1}, "version 1"),
    (lambda values: values | {"more": 1}, "no compiled policy"),
    (lambda values: {key: value for key, value in values.items() if key != "species"}, "no compiled policy"),
    (lambda values: values | {"policy": values["policy"] | {"apcer_max": 2.0}}, "apcer_max: 2.0"),
    (lambda values: values | {"threshold": "high"}, "no compiled policy"),
    (lambda values: [values], "no compiled policy"),
])
def test_a_changed_file_is_refused(written, change, said):
    _, path = written
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CompiledPolicyError, match=said):
        read_compiled(path)


def test_a_low_threshold_is_refused_even_with_its_hash(written):
    made, path = written
    low = msgspec.structs.replace(made, threshold=0.1)
    write_compiled(msgspec.structs.replace(low, threshold_id=low.digest()), path)
    with pytest.raises(CompiledPolicyError, match="below the policy's own bound"):
        read_compiled(path)
    assert low.in_force().upper_bound == made.policy.upper_bound  # and would lower nothing


def test_no_file_is_refused(tmp_path):
    with pytest.raises(CompiledPolicyError, match=r"none\.json.*compile it again"):
        read_compiled(tmp_path / "none.json")
    (tmp_path / "garbage.json").write_bytes(b"\xff\x00")
    with pytest.raises(CompiledPolicyError, match=r"garbage\.json"):
        read_compiled(tmp_path / "garbage.json")
