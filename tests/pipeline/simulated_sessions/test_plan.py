"""Planned sessions: what follows from the person, what from the number, and nothing from the label."""

from dataclasses import replace

import pytest

from mmdg_model.training.samples import Domain, Split
from pipeline.simulated_sessions.plan import MAIN_SPECIES, SessionOptions, known_species, plan_sessions
from pipeline.simulated_trees.domains import SimulationError
from pipeline.simulated_trees.plan import plan_list


def test_every_scene_shows_the_same_people_in_the_same_circumstances():
    planned = plan_sessions(["bona_fide", *MAIN_SPECIES], Split.TEST, 5)
    for index in range(5):
        own = [each.recording for each in planned if each.recording.order == index]
        assert len(own) == 1 + len(MAIN_SPECIES)
        assert len({(each.person, each.head) for each in own}) == 1
        assert all(each.session == own[0].session for each in own)
        assert len({each.noise_seed for each in own}) == len(own)
    assert len({each.recording.person for each in planned}) == 5


def test_another_number_is_another_session_of_the_same_person():
    first, second = (plan_sessions(["bona_fide"], Split.TEST, 1, number=number)[0] for number in (0, 1))
    assert first.recording.person == second.recording.person
    assert first.recording.session != second.recording.session
    assert first.key != second.key


def test_more_sessions_leave_the_first_as_they_were():
    few, many = (plan_sessions(["bona_fide", "flat_print"], Split.TEST, count) for count in (2, 4))
    by_key = {each.key: each for each in many}
    assert all(by_key[each.key] == each for each in few)


def test_people_and_heads_are_in_one_split_alone_and_in_no_tree():
    validation, test = (plan_sessions(["bona_fide"], split, 300) for split in (Split.VALIDATION, Split.TEST))
    trees = [recording for domain in (Domain.LIVE, Domain.WMCA) for split in Split
             for recording in plan_list(domain, split, 400, seed=0, scenes=known_species())]
    people = [{each.recording.person for each in validation}, {each.recording.person for each in test},
              {each.person for each in trees}]
    assert sum(map(len, people)) == len(set.union(*people))
    heads = [{each.recording.head for each in validation}, {each.recording.head for each in test},
             {each.head for each in trees if each.split is Split.TRAIN}]
    assert sum(map(len, heads)) == len(set.union(*heads))


@pytest.mark.parametrize(("changes", "what", "expected"), [
    ({"distance_m": (0.7, 0.7)}, lambda session: session.distance_m, 0.7),
    ({"frame_rate": 5.0}, lambda session: session.frame_gap_s, 0.2),
    ({"profile": "sr300"}, lambda session: session.camera.profile, "sr300"),
])
def test_an_option_reaches_the_session(changes, what, expected):
    planned = plan_sessions(["bona_fide"], Split.TEST, 3, SessionOptions(**changes))
    assert [what(each.recording.session) for each in planned] == [expected] * 3


@pytest.mark.parametrize(("changes", "same"), [
    ({"light": 0.5}, ["distance_m", "place", "room_infrared", "movement_seed"]),
    ({"room_infrared": 1.0}, ["distance_m", "place", "key_light", "movement_seed"]),
    ({"noise": 2.0}, ["distance_m", "place", "key_light", "movement_seed"]),
    ({"distance_m": (0.4, 0.4)}, ["place", "key_light", "movement_seed", "camera"]),
    ({"yaw_deg": 20.0}, ["place", "key_light", "movement_seed", "camera", "distance_m"]),
])
def test_an_option_changes_nothing_else(changes, same):
    before, after = (plan_sessions(["bona_fide"], Split.TEST, 1, options)[0]
                     for options in (SessionOptions(), SessionOptions(**changes)))
    assert before.options.specification() != after.options.specification()
    for name in same:
        assert getattr(before.recording.session, name) == getattr(after.recording.session, name), name
    assert before.recording.noise_seed == after.recording.noise_seed


def test_noise_of_one_is_the_drawn_camera():
    plain = plan_sessions(["bona_fide"], Split.TEST, 1)[0].recording.session.camera
    loud = plan_sessions(["bona_fide"], Split.TEST, 1, SessionOptions(noise=2.0))[0].recording.session.camera
    assert loud == replace(plain, disparity_share=2 * plain.disparity_share, read_codes=2 * plain.read_codes,
                           full_well=plain.full_well / 4)


@pytest.mark.parametrize(("ask", "says"), [
    (lambda: plan_sessions(["mystery"], Split.TEST, 1), "scenes are mystery"),
    (lambda: plan_sessions([], Split.TEST, 1), "scenes are none"),
    (lambda: plan_sessions(["flat_print"] * 2, Split.TEST, 1), "each once"),
    (lambda: plan_sessions(["flat_print"], Split.TEST, 0), "count is 0"),
    (lambda: SessionOptions(distance_m=(0.1, 0.5)), "distance_m is 0.1"),
    (lambda: SessionOptions(distance_m=(0.8, 0.5)), "distance_m is 0.5"),
    (lambda: SessionOptions(frame_rate=float("nan")), "frame_rate is nan"),
    (lambda: SessionOptions(seed=-1), "seed is -1"),
])
def test_impossible_plans_are_refused(ask, says):
    with pytest.raises(SimulationError, match=says):
        ask()
