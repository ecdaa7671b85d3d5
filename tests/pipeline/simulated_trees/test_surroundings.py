"""What is near a face in planned recordings: by the session, in the domain of live cameras alone. All simulated."""

from dataclasses import replace

import numpy as np
import pytest

from capture.simulated.catalogue import SCENES
from capture.simulated.profiles import sensor_profile
from capture.simulated.scene import NOBODY
from capture.simulated.skin import MELANIN, Complexion
from capture.simulated.surroundings import Nearby, draw_surroundings
from mmdg_model.training.samples import BONA_FIDE, Domain, Split
from pipeline.simulated_sessions.plan import SessionOptions, plan_sessions
from pipeline.simulated_trees.domains import DOMAINS, END_TONES, TOO_NEAR_M
from pipeline.simulated_trees.plan import draw_session, keyed, plan_list
from pipeline.simulated_trees.presentation import presented_scene, recording_camera, session_profile


@pytest.fixture(scope="module")
def live_list():
    return plan_list(Domain.LIVE, Split.TRAIN, 3000, seed=5, scenes=SCENES)


def of(recordings, nearby):
    """A bona fide recording with that near it and an attack in the same session."""
    for each in recordings:
        if each.bona_fide and draw_surroundings(each.session.surroundings_seed).nearby is nearby:
            for attack in recordings:
                if not attack.bona_fide and attack.session == each.session and attack.person == each.person:
                    return each, attack
    raise AssertionError(f"nobody has {nearby}")


def test_only_the_domain_of_live_cameras_has_surroundings_and_faces_that_come_too_near():
    for domain in Domain:
        sessions = [each.session for each in plan_list(domain, Split.TRAIN, 600, seed=1, scenes=SCENES)]
        assert {each.surroundings_seed is not None for each in sessions} == {domain is Domain.LIVE}
        assert any(each.fine_depth for each in sessions) == (domain is Domain.LIVE)


@pytest.mark.parametrize("nearby", [Nearby.WALL, Nearby.HEADREST, Nearby.OVER_SHOULDER])
def test_both_labels_of_a_session_have_the_same_surroundings_at_the_same_place(live_list, nearby):
    scenes = [presented_scene(each) for each in of(live_list, nearby)]
    assert [scene.label for scene in scenes] == ["bona_fide", "attack"]
    assert scenes[0].wall == scenes[1].wall
    things = [[body.motion for body in scene.bodies if body.person == NOBODY] for scene in scenes]
    assert things[0] == things[1]
    assert bool(things[0]) == (nearby is not Nearby.WALL)


def test_a_near_wall_is_nearer_than_the_rooms_own(live_list):
    live, _ = of(live_list, Nearby.WALL)
    assert presented_scene(live).wall.distance_m < live.session.distance_m + 0.55
    assert presented_scene(live).wall.distance_m < live.session.wall_m
    assert presented_scene(live).wall.seed == live.session.wall_seed


def test_one_session_in_twenty_five_comes_too_near_for_both_labels(live_list):
    near = [each for each in live_list if each.session.fine_depth]
    assert len(near) / len(live_list) == pytest.approx(0.04, abs=0.015)
    assert {each.bona_fide for each in near} == {True, False}
    low, high = TOO_NEAR_M
    assert all(low <= each.session.distance_m <= high for each in near)
    assert all(each.session.distance_m > high for each in live_list if not each.session.fine_depth)


def test_fine_depth_sees_nothing_nearer_than_a_d435s_finest_images(live_list):
    session = next(each.session for each in live_list if each.session.fine_depth)
    profile = session_profile(session)
    nearest_m = profile.focal_px * profile.baseline_m / profile.disparities
    assert nearest_m == pytest.approx(617 * 0.050 / 126, rel=0.01)
    assert session_profile(replace(session, fine_depth=False)) == sensor_profile(session.camera.profile)


def test_draws_of_surroundings_leave_the_rest_of_a_session_as_it_was():
    plain = replace(DOMAINS[Domain.LIVE], surroundings=False, too_near=0.0)
    for person in range(60):
        with_them, without = (draw_session(each, Split.TRAIN, person, 0, 3) for each in (DOMAINS[Domain.LIVE], plain))
        if not with_them.fine_depth:
            assert replace(with_them, surroundings_seed=None) == without


def test_sessions_have_surroundings_and_stay_within_the_distances_asked_for():
    planned = plan_sessions([BONA_FIDE, "flat_print"], Split.TEST, 200, SessionOptions(distance_m=(0.4, 0.7)))
    assert all(each.recording.session.surroundings_seed is not None for each in planned)
    assert all(0.4 <= each.recording.session.distance_m <= 0.7 for each in planned)
    assert not any(each.recording.session.fine_depth for each in planned)
    fixed = plan_sessions([BONA_FIDE], Split.TEST, 200, SessionOptions(distance_m=(0.5, 0.5)))
    assert {each.recording.session.distance_m for each in fixed} == {0.5}


def melanin(recordings):
    """Share of the range of complexions, one value a person."""
    seeds = {each.person: each.person_seed for each in recordings}
    return np.array([Complexion.of(seed).melanin / MELANIN[1] for seed in seeds.values()])


def test_training_sees_both_ends_of_the_complexions_more_often_than_others_do():
    train = melanin(plan_list(Domain.LIVE, Split.TRAIN, 6000, seed=5, scenes=SCENES))
    darkest, lightest = END_TONES
    assert len(train) > 300
    assert np.mean(train >= 0.75) == pytest.approx(darkest, abs=0.07)
    assert np.mean(train < 0.25) == pytest.approx(lightest, abs=0.07)


@pytest.mark.parametrize("split", [Split.VALIDATION, Split.TEST])
def test_tones_of_validation_and_test_are_as_drawn_for_anybody(split):
    recordings = plan_list(Domain.LIVE, split, 6000, seed=5, scenes=SCENES)
    assert all(each.person_seed == keyed("person", each.person) & 0x7FFFFFFF for each in recordings)
    planned = plan_sessions([BONA_FIDE], split, 40)
    assert all(each.recording.person_seed == keyed("person", each.recording.person) & 0x7FFFFFFF for each in planned)


def test_a_person_looks_the_same_live_and_depicted(live_list):
    seeds = {}
    for each in live_list:
        assert seeds.setdefault(each.person, each.person_seed) == each.person_seed
    other = plan_list(Domain.WMCA, Split.TRAIN, 90, seed=5, scenes=SCENES)
    assert all(each.person_seed == keyed("person", each.person) & 0x7FFFFFFF for each in other)


def hole_share(recording):
    """Share of the pixels that show the face's bearer without depth, of the depth image at one instant."""
    with recording_camera(recording, frames=1) as camera:
        scene, planes = camera.scene, camera.read(1.0)
        stage, view = camera._sensors.stage, camera._sensors.depth_view
        visible = stage.visible(view, stage.states(0.0))
    bearer = next(i for i, body in enumerate(scene.bodies) if body.face_points is not None)
    points = view.project(visible.states[bearer].pose.to_world(scene.bodies[bearer].face_points))
    (left, top), (right, bottom) = (np.percentile(points, share, axis=0).astype(int) for share in (12, 88))
    window = np.s_[top:bottom, left:right]
    return float((planes.depth.pixels[window] == 0)[visible.owner[window] == bearer].mean())


def test_faces_that_come_too_near_miss_depth_as_replays_do(live_list):
    near = [replace(each, session=replace(each.session, distance_m=distance_m)) for each, distance_m in zip(
        [each for each in live_list if each.session.fine_depth and each.bona_fide],
        np.linspace(*TOO_NEAR_M, 5).tolist(), strict=False)]
    live = [hole_share(each) for each in near]
    shown = [hole_share(each) for each in [
        each for each in live_list if each.scene == "tablet_replay" and not each.session.fine_depth][:4]]
    assert len(live) == 5
    assert live[0] > 0.5
    assert any(min(shown) * 0.5 < share < max(shown) * 1.5 for share in live), (live, shown)
