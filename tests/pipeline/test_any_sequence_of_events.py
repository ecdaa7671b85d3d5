"""Whatever comes in whatever order: nothing accepts without fresh matching scores."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from mmdg_model.scorer import Purpose
from pipeline.decision import Decided, Verdict
from pipeline.policy import Policy
from tests.pipeline.engine_scene import Scene
from tests.pipeline.scene import EPOCH, MODALITIES, MODEL, QUICK, TEST_MODEL

STEPS = st.one_of(
    st.tuples(st.just("see"), st.fixed_dictionaries({}, optional={
        "tracks": st.sampled_from([[], [1], [1], [2], [1, 2]]),
        "track_broken": st.booleans(),
        "conditions": st.sampled_from([[], ["too_dark"], ["no_face"]]),
        "modalities": st.sampled_from([MODALITIES, MODALITIES, ["rgb", "depth"]]),
        "epoch": st.sampled_from([EPOCH, EPOCH, EPOCH + 1]),
    })),
    st.tuples(st.just("hear"), st.fixed_dictionaries({"logit": st.sampled_from([6.0, 6.0, 6.0, -6.0, float("nan")])},
                                                     optional={
        "track_id": st.sampled_from([1, 1, 2]), "sequence": st.integers(0, 40),
        "failed": st.sampled_from([None, "no"]), "epoch": st.sampled_from([EPOCH, EPOCH + 1]),
        "modalities": st.sampled_from([MODALITIES, ["rgb"]]),
        "model": st.sampled_from([MODEL, MODEL, TEST_MODEL])})),
    st.tuples(st.just("both"), st.fixed_dictionaries({"frames": st.integers(1, 3)})),
    st.tuples(st.just("pass_ms"), st.fixed_dictionaries({"ms": st.sampled_from([0, 10, 140, 200])})),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40), st.sampled_from(list(Purpose)))
def test_no_sequence_of_events_accepts_without_fresh_matching_scores(steps, purpose):
    model = replace(MODEL, purpose=purpose)
    scene = Scene(model=model)
    shown, fresh = {}, []  # what an honest reader of the scene would count
    for verb, arguments in steps:
        before = len(scene.of(Decided))
        if verb == "both":
            for _ in range(arguments["frames"]):
                scene.see()
                shown[scene.sequence] = scene.now_ns
                scene.hear(model=model)
                fresh.append(scene.sequence)
        else:
            getattr(scene, verb)(**arguments)
            if verb == "see":
                shown[scene.sequence] = scene.now_ns
            if verb == "hear" and arguments["logit"] == 6.0 and arguments.get("failed") is None:
                fresh.append(arguments.get("sequence", scene.sequence))
        if before:
            assert len(scene.of(Decided)) == before
    assert len(scene.of(Decided)) <= 1
    for decided in scene.of(Decided):
        record = decided.record
        if purpose is not Purpose.RELEASE:
            assert record.verdict is Verdict.UNDECIDED
        if record.verdict is Verdict.BONA_FIDE:
            assert record.evidence >= QUICK.upper_bound
            assert record.frames_used >= QUICK.min_frames
            assert len(set(fresh) & set(shown)) >= record.frames_used
            assert [m.value for m in record.modalities_used] == MODALITIES
            assert record.examined


def test_without_a_policy_that_says_so_a_simulated_checkpoint_cannot_decide_either():
    assert Policy().allowed_purposes == (Purpose.RELEASE,)
