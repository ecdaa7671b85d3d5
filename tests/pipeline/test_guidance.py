import itertools

from hypothesis import given
from hypothesis import strategies as st

from pipeline.guidance import GUIDANCE_CODES, GUIDANCE_ORDER, HOLD_NS, Guidance, step, worst


def test_codes_are_the_published_ones():
    assert set(GUIDANCE_ORDER) == GUIDANCE_CODES == {
        "no_face", "multiple_faces", "move_closer", "move_back", "centre_face", "look_at_camera", "remove_mask",
        "remove_sunglasses", "hold_still", "face_changed", "too_dark", "too_bright", "ir_saturated", "depth_holes",
        "clean_lens"}
    assert len(GUIDANCE_ORDER) == len(GUIDANCE_CODES)


def test_the_worst_known_condition_is_shown():
    assert worst(["clean_lens", "too_dark"]) == "too_dark"
    assert worst(["a_code_of_tomorrow"]) is None
    assert worst([]) is None


def test_the_first_code_is_shown_at_once_and_then_held():
    shown = step(Guidance(), ["no_face"], 0)
    assert shown == Guidance("no_face", 0)
    assert step(shown, ["too_dark"], HOLD_NS - 1) is shown
    assert step(shown, ["too_dark"], HOLD_NS) == Guidance("too_dark", HOLD_NS)


def test_clearing_is_a_change_that_is_held_too():
    cleared = step(Guidance("no_face", 0), [], HOLD_NS)
    assert cleared == Guidance(None, HOLD_NS)
    assert step(cleared, ["no_face"], HOLD_NS + 1) is cleared


@given(st.lists(st.tuples(st.sampled_from([*GUIDANCE_ORDER, None]), st.integers(0, 200_000_000)), max_size=60))
def test_changes_never_come_faster_than_the_hold(frames):
    shown, now_ns, changes = Guidance(), 0, []
    for code, gap_ns in frames:
        now_ns += gap_ns
        following = step(shown, [code] if code else [], now_ns)
        if following is not shown:
            changes.append(now_ns)
        shown = following
    assert all(later - earlier >= HOLD_NS for earlier, later in itertools.pairwise(changes))
