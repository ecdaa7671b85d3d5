import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.realsense_restart import Action, Event, RestartLadder, RestartPolicy

MS = 1_000_000
POLICY = RestartPolicy(stall_ms=1_000, settle_ms=3_000, reopen_every_ms=500, reenumerate_ms=2_000, healthy_ms=5_000)


def silence_until_action(ladder, from_ms, limit_ms=20_000):
    """Silence every 100 ms until the ladder wants something: (action, when)."""
    for now_ms in range(from_ms, from_ms + limit_ms, 100):
        action = ladder.step(Event.SILENCE, now_ms * MS)
        if action is not Action.WAIT:
            return action, now_ms
    raise AssertionError(f"nothing wanted in {limit_ms} ms")


def test_short_silences_are_waited_out():
    ladder = RestartLadder(POLICY, 0)
    for now_ms in range(0, 10_000, 900):
        assert ladder.step(Event.SILENCE, (now_ms + 899) * MS) is Action.WAIT
        assert ladder.step(Event.SET, (now_ms + 900) * MS) is Action.WAIT


def test_a_stall_climbs_every_rung_in_order_and_ends_outside_the_process():
    ladder, climbed, now_ms = RestartLadder(POLICY, 0), [], 0
    while not climbed or climbed[-1][0] is not Action.GIVE_UP:
        action, now_ms = silence_until_action(ladder, now_ms)
        climbed.append((action, now_ms))
        if action is not Action.GIVE_UP:
            ladder.step(Event.DONE, now_ms * MS)
    assert climbed == [(Action.RESTART_STREAMS, 1_000), (Action.REOPEN, 4_000), (Action.HARDWARE_RESET, 7_000),
                       (Action.REOPEN, 7_500), (Action.GIVE_UP, 10_500)]
    assert ladder.step(Event.SET, 11_000 * MS) is Action.GIVE_UP, "giving up is final"


def test_an_unplugged_camera_is_looked_for_until_the_deadline_then_given_up():
    ladder, now_ms = RestartLadder(POLICY, 0), 1_000
    assert ladder.step(Event.SILENCE, now_ms * MS) is Action.RESTART_STREAMS
    action, searches = ladder.step(Event.FAILED, now_ms * MS), []
    while action is Action.REOPEN:
        searches.append(now_ms)
        action = ladder.step(Event.FAILED, now_ms * MS)
        if action is Action.WAIT:
            action, now_ms = silence_until_action(ladder, now_ms)
    assert searches == [1_000, 1_500, 2_000, 2_500, 3_000]
    assert action is Action.HARDWARE_RESET
    assert ladder.step(Event.FAILED, now_ms * MS) is Action.GIVE_UP


def test_a_reset_camera_may_take_several_searches_to_enumerate():
    ladder = RestartLadder(POLICY, 0)
    assert ladder.step(Event.SILENCE, 1_000 * MS) is Action.RESTART_STREAMS
    assert ladder.step(Event.FAILED, 1_000 * MS) is Action.REOPEN
    assert ladder.step(Event.FAILED, 3_000 * MS) is Action.HARDWARE_RESET
    assert ladder.step(Event.DONE, 3_000 * MS) is Action.WAIT, "not searched at once: it has to leave first"
    assert silence_until_action(ladder, 3_100) == (Action.REOPEN, 3_500)
    assert ladder.step(Event.FAILED, 3_500 * MS) is Action.WAIT
    assert silence_until_action(ladder, 3_600) == (Action.REOPEN, 4_000)
    assert ladder.step(Event.DONE, 4_000 * MS) is Action.WAIT
    assert ladder.step(Event.SET, 4_500 * MS) is Action.WAIT


@pytest.mark.parametrize(("delivered_ms", "next_rung"), [(4_900, Action.REOPEN), (5_000, Action.RESTART_STREAMS)])
def test_a_restart_is_forgiven_only_after_a_healthy_stretch(delivered_ms, next_rung):
    ladder = RestartLadder(POLICY, 0)
    assert ladder.step(Event.SILENCE, 1_000 * MS) is Action.RESTART_STREAMS
    ladder.step(Event.DONE, 1_000 * MS)
    ladder.step(Event.SET, 1_200 * MS)
    ladder.step(Event.SET, (1_200 + delivered_ms) * MS)
    assert silence_until_action(ladder, 1_200 + delivered_ms)[0] is next_rung


@given(st.lists(st.tuples(st.sampled_from(list(Event)), st.integers(1, 4_000)), max_size=60))
def test_whatever_happens_no_action_is_repeated_without_an_answer_for_ever(story):
    """With nothing but silence after any story, the ladder reaches its end within the sum of its patience."""
    ladder, now_ms = RestartLadder(POLICY, 0), 0
    for event, step_ms in story:
        now_ms += step_ms
        ladder.step(event, now_ms * MS)
    for now in itertools.count(now_ms, 100):
        assert now - now_ms <= 1_000 + 3 * 3_000 + 2 * 2_500, "never gave up"
        action = ladder.step(Event.SILENCE, now * MS)
        if action is Action.GIVE_UP:
            break
        if action is not Action.WAIT and ladder.step(Event.FAILED, now * MS) is Action.GIVE_UP:
            break


@pytest.mark.parametrize("field", ["wait_ms", "stall_ms", "reenumerate_ms"])
def test_policy_refuses_no_patience_at_all(field):
    with pytest.raises(ValueError, match=f"{field} is 0"):
        RestartPolicy(**{field: 0})
