"""What must not depend on the label: who stands where, in what light, how the shown face is held. All simulated."""

import numpy as np
import pytest

from capture.simulated.attacks import HELD_SCALES, WORN_SCALES
from capture.simulated.catalogue import make_scene
from capture.simulated.gestures import SHARES, Gesture, draw_gesture
from capture.simulated.pictures import take_picture
from capture.simulated.scene import Blinking

PAGE = (0.105, 0.15)


def bearer(scene):
    return next(body for body in scene.bodies if body.face_points is not None)


@pytest.mark.parametrize("name", ["bona_fide", "flat_print", "tablet_video_replay", "rigid_mask"])
def test_place_and_movement_follow_the_session_and_the_person_follows_the_seed(name):
    first, same_place, same_person = (make_scene(name, seed=seed, session_seed=session)
                                      for seed, session in ((1, 50), (2, 50), (1, 51)))
    assert (first.wall, first.light, first.nominal_distance_m) == (
        same_place.wall, same_place.light, same_place.nominal_distance_m)
    assert bearer(first).motion == bearer(same_place).motion
    assert not np.array_equal(bearer(first).texture, bearer(same_place).texture)
    assert (first.wall, first.light) != (same_person.wall, same_person.light)
    assert bearer(first).motion != bearer(same_person).motion
    assert np.array_equal(bearer(first).texture, bearer(same_person).texture)
    assert np.array_equal(bearer(first).face_points, bearer(same_person).face_points)


def test_without_a_session_seed_everything_follows_the_seed():
    plain, same = make_scene("bona_fide", seed=7), make_scene("bona_fide", seed=7, session_seed=7)
    assert (plain.wall, plain.light, bearer(plain).motion) == (same.wall, same.light, bearer(same).motion)
    assert np.array_equal(bearer(plain).texture, bearer(same).texture)


def test_another_instrument_of_the_same_victim_in_the_same_session_is_another_picture():
    first, other = (bearer(make_scene("flat_print", seed=3, instrument_seed=number)) for number in (1, 2))
    assert first.motion == other.motion
    assert first.texture.shape != other.texture.shape or not np.array_equal(first.texture, other.texture)


def turned(picture):
    """How far the middle of the outline lies beside the point between the eyes, as a share of the face's width."""
    across = picture.outline_m[:, 0]
    return float((across.max() + across.min()) / 2 / np.ptp(across))


def test_faces_in_portraits_turn_as_far_as_live_ones_and_as_far_as_liveliness_says():
    heads = {liveliness: np.array([turned(take_picture(seed=4, identity=3, portrait_seed=number, size_m=PAGE,
                                                       liveliness=liveliness)) for number in range(12)])
             for liveliness in (1.0, 0.2)}
    assert np.ptp(heads[1.0]) > 3 * np.ptp(heads[0.2])
    live = bearer(make_scene("bona_fide", seed=4, identity=3))
    poses = [live.motion.pose(time_s) for time_s in np.linspace(0, 60, 200)]
    shown = [(live.face_points @ pose.rotation.T)[:, 0] - (np.zeros(3) @ pose.rotation.T)[0] for pose in poses]
    live_range = np.ptp([(each.max() + each.min()) / 2 / np.ptp(each) for each in shown])
    assert 0.5 < np.ptp(heads[1.0]) / live_range < 1.2


def test_a_portraits_expression_is_drawn_as_a_live_faces_is():
    moments = [Blinking(seed)(time_s) for seed in range(40) for time_s in (0.4, 9.7, 33.1)]
    assert {"neutral", "smile", "jaw_open"} <= set(moments)
    pictures = [take_picture(seed=4, identity=3, portrait_seed=number, size_m=PAGE).radiance for number in range(6)]
    same_pose = take_picture(seed=4, identity=3, portrait_seed=1, size_m=PAGE, expression="jaw_open").radiance
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)
    assert not np.array_equal(same_pose, take_picture(seed=4, identity=3, portrait_seed=1, size_m=PAGE,
                                                      expression="neutral").radiance)


@pytest.mark.parametrize(("name", "limits"), [("flat_print", HELD_SCALES), ("tablet_replay", HELD_SCALES),
                                              ("face_cut_print", WORN_SCALES)])
def test_depicted_faces_come_in_sizes_around_life(name, limits):
    live = np.ptp(bearer(make_scene("bona_fide", seed=3, identity=5)).face_points, axis=0)[1]
    sizes = [np.ptp(bearer(make_scene(name, seed=3, identity=5, instrument_seed=number)).face_points, axis=0)[1] / live
             for number in range(6)]
    assert min(sizes) > 0.9 * limits[0]
    assert max(sizes) < 1.1 * limits[1]
    assert max(sizes) - min(sizes) > 0.3 * (limits[1] - limits[0])


def session_of(gesture):
    return next(seed for seed in range(1000) if draw_gesture(seed) is gesture)


def names(scene):
    return [body.name for body in scene.bodies]


@pytest.mark.parametrize(("gesture", "shows"), [(Gesture.CHIN, {"hand"}), (Gesture.TEMPLE, {"hand"}),
                                                (Gesture.SHEET, {"hand", "sheet of text"}),
                                                (Gesture.PHONE, {"hand", "phone in hand"}), (Gesture.NONE, set())])
@pytest.mark.parametrize("name", ["bona_fide", "rigid_mask", "face_cut_print", "heavy_make_up"])
def test_hands_and_objects_belong_to_the_session_whatever_the_label(name, gesture, shows):
    seen = set(names(make_scene(name, seed=3, session_seed=session_of(gesture))))
    assert seen & {"hand", "sheet of text", "phone in hand"} == shows


def test_shares_of_gestures_are_what_is_drawn():
    drawn = [draw_gesture(seed) for seed in range(1500)]
    for gesture, share in SHARES.items():
        assert drawn.count(gesture) / 1500 == pytest.approx(share, abs=0.035)


def test_wearers_of_masks_wear_spectacles_hats_and_scarves_as_often_as_anybody():
    live, wearers = ([set(names(make_scene(name, seed=seed))) for seed in range(40)]
                     for name in ("bona_fide", "rigid_mask"))
    for worn in ("spectacle frame", "scarf"):
        counts = [sum(worn in each for each in group) for group in (live, wearers)]
        assert min(counts) > 0
        assert abs(counts[0] - counts[1]) < 12
