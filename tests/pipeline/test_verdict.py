import itertools
from dataclasses import replace

import msgspec
import pytest

from mmdg_model.scorer import Modality, Purpose
from pipeline.policy import Policy
from pipeline.sequential_test import Bound
from pipeline.verdict import Facts, ModelInfo, Reason, Verdict, conclude, ended_as
from tests.pipeline.scene import MODEL, POINT, QUICK

ALL = frozenset(Modality)
OTHER = ModelInfo(model_hash="other", purpose=Purpose.RELEASE)


def facts(**changes):
    values = {"bound": Bound.UPPER, "frames": 3, "modalities": ALL, "models": frozenset({MODEL}), "announced": MODEL}
    return Facts(**(values | changes))


def test_the_one_way_to_bona_fide_and_the_one_way_to_attack():
    assert conclude(facts(), QUICK, None) == (Verdict.BONA_FIDE, Reason.LLR_UPPER)
    assert conclude(facts(bound=Bound.LOWER), QUICK, None) == (Verdict.ATTACK, Reason.LLR_LOWER)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"bound": Bound.NONE}, Reason.DEADLINE),
    ({"frames": 2}, Reason.DEADLINE),
    ({"frames": 0, "models": frozenset(), "modalities": frozenset()}, Reason.DEADLINE),
    ({"modalities": frozenset({Modality.RGB, Modality.DEPTH})}, Reason.MODALITY_MISSING),
    ({"announced": None}, Reason.MODEL_UNVERIFIED),
    ({"models": frozenset({OTHER})}, Reason.MODEL_CHANGED),
    ({"models": frozenset({MODEL, OTHER})}, Reason.MODEL_CHANGED),
    ({"models": frozenset()}, Reason.MODEL_CHANGED),
])
@pytest.mark.parametrize("bound", [Bound.UPPER, Bound.LOWER])
def test_any_doubt_is_undecided(changes, reason, bound):
    assert conclude(facts(**({"bound": bound} | changes)), QUICK, None) == (Verdict.UNDECIDED, reason)


@pytest.mark.parametrize("purpose", [Purpose.TEST, Purpose.SIMULATED])
@pytest.mark.parametrize("bound", [Bound.UPPER, Bound.LOWER])
def test_a_purpose_that_is_not_allowed_decides_nothing(purpose, bound):
    model = ModelInfo(model_hash="x", purpose=purpose)
    got = conclude(facts(bound=bound, models=frozenset({model}), announced=model), QUICK, None)
    assert got == (Verdict.UNDECIDED, Reason.MODEL_UNVERIFIED)


GENEROUS = msgspec.structs.replace(QUICK, allowed_purposes=tuple(Purpose))


@pytest.mark.parametrize(("bound", "verdict"), [(Bound.UPPER, Verdict.BONA_FIDE), (Bound.LOWER, Verdict.ATTACK)])
def test_weights_trained_on_simulated_data_decide_on_simulated_cameras_alone_whatever_policy_allows(bound, verdict):
    model = ModelInfo(model_hash="x", purpose=Purpose.SIMULATED)
    of_the_model = {"bound": bound, "models": frozenset({model}), "announced": model}
    assert conclude(facts(**of_the_model), GENEROUS, None) == (Verdict.UNDECIDED, Reason.MODEL_UNVERIFIED)
    assert conclude(facts(**of_the_model, simulated_camera=True), GENEROUS, None)[0] is verdict
    assert conclude(facts(**of_the_model, simulated_camera=True), QUICK, None)[1] is Reason.MODEL_UNVERIFIED


def test_the_operating_point_is_no_part_of_what_tells_models_apart():
    assert replace(MODEL, operating_point=POINT) == MODEL
    assert conclude(facts(announced=replace(MODEL, operating_point=POINT)), QUICK, None)[0] is Verdict.BONA_FIDE


@pytest.mark.parametrize("reason", list(Reason))
def test_a_session_that_something_else_ended_is_undecided_whatever_the_evidence(reason):
    verdict, why = conclude(facts(), QUICK, reason)
    assert (verdict, why) == (Verdict.UNDECIDED, reason)


def test_every_combination_of_facts_accepts_exactly_once():
    accepted = [
        combination for combination in itertools.product(
            list(Bound), [0, 2, 3], [ALL, ALL - {Modality.INFRARED}], [frozenset(), frozenset({MODEL})],
            [None, MODEL, OTHER], [None, *Reason])
        if conclude(Facts(bound=combination[0], frames=combination[1], modalities=combination[2],
                          models=combination[3], announced=combination[4]), QUICK, combination[5])[0]
        is Verdict.BONA_FIDE]
    assert accepted == [(Bound.UPPER, 3, ALL, frozenset({MODEL}), MODEL, None)]


def test_the_default_policy_wants_three_modalities():
    assert conclude(facts(frames=9, modalities=frozenset({Modality.RGB})), Policy(), None)[0] is Verdict.UNDECIDED


def test_every_reason_has_an_end_in_the_contracts_words():
    assert {ended_as(reason) for reason in Reason} == {"decided", "timeout", "cancelled", "abandoned", "device_lost",
                                                       "engine_error"}
