"""From a planned recording to levels: the live path, measured masks, and non-responses that stay non-responses."""

from dataclasses import replace

import numpy as np
import pytest

from capture.simulated.catalogue import SCENES
from detect.blazeface import BlazeFaceDetector
from mmdg_model.inputs import InputSpecification
from mmdg_model.training.samples import Domain, Split
from pipeline.simulated_trees.domains import DOMAINS
from pipeline.simulated_trees.plan import plan_list
from pipeline.simulated_trees.presentation import (
    CHANNEL_FILE_SHAPE,
    EXTRA_INSTANTS,
    SampleLevels,
    camera_rig,
    presented_scene,
    record,
    recording_camera,
    white_balanced,
    without_background,
)

INPUTS = InputSpecification(image_size=64)


class Blind:
    """A detector that finds nothing, as BlazeFace on a bad attack."""

    def detect(self, image):
        return []

    def close(self):
        pass


@pytest.fixture(scope="module")
def planned():
    return {domain: plan_list(domain, Split.TRAIN, 12, seed=4, scenes=SCENES) for domain in Domain}


@pytest.fixture(scope="module")
def detector():
    with BlazeFaceDetector() as made:
        yield made


def grey(size, level):
    return np.full((size, size), level, np.uint8)


def test_what_is_measured_far_behind_and_outside_the_oval_becomes_black():
    depth = grey(64, 100)
    depth[:, 36:] = 255  # measured, and far behind
    depth[20:24, 28:32] = 0  # a hole in the face
    levels = without_background(SampleLevels(colour=np.repeat(grey(64, 9)[..., None], 3, 2), depth=depth,
                                             infrared=grey(64, 7)), INPUTS, 1.3)
    assert not levels.colour[:, 36:].any()
    assert not levels.infrared[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert (levels.colour[20:24, 28:32] == 9).all()  # unknown depth is not background
    assert (levels.depth[20:24, 28:32] == 0).all()
    assert levels.depth[40, 30] == 100


def test_the_mask_is_the_same_for_a_sheet_and_a_face_that_fill_the_oval():
    def shown(depth):
        levels = without_background(SampleLevels(colour=np.full((64, 64, 3), 50, np.uint8), depth=depth,
                                                 infrared=grey(64, 50)), INPUTS, 1.3)
        return levels.colour[..., 0] > 0
    relief = grey(64, 120)
    relief[28:36, 28:36] = 90
    assert np.array_equal(shown(grey(64, 103)), shown(relief))


def test_a_session_decides_place_light_and_movement_alike_for_both_labels(planned):
    live, attack = planned[Domain.WMCA][0], next(each for each in planned[Domain.WMCA] if not each.bona_fide)
    assert live.person == attack.person
    scenes = [presented_scene(live), presented_scene(attack)]
    assert scenes[0].label == "bona_fide"
    assert scenes[1].label == "attack"
    for same in ("wall", "light", "nominal_distance_m"):
        assert getattr(scenes[0], same) == getattr(scenes[1], same)
    assert len({body.motion.seed for scene in scenes for body in scene.bodies}) == 1


def middle_of_face(scene):
    body = next(each for each in scene.bodies if each.face_points is not None)
    outline = replace(body.motion, sway_m=(0, 0, 0), attitude_rad=(0, 0, 0), tremor_m=0.0).pose(0.0).to_world(
        body.face_points)
    return np.array([*(outline.min(axis=0) + outline.max(axis=0))[:2] / 2, np.median(outline[:, 2])])


@pytest.mark.parametrize("domain", Domain)
def test_the_middle_of_the_face_is_where_the_session_says_whatever_bears_it(planned, domain):
    for recording in (planned[domain][0], planned[domain][-1]):
        session = recording.session
        expected = [*session.aside_m, session.distance_m]
        assert middle_of_face(presented_scene(recording)) == pytest.approx(expected, abs=1e-6)


def test_two_cameras_of_a_domain_have_two_rigs_and_one_white_balance_each(planned):
    for specification in DOMAINS.values():
        assert len({camera_rig(camera).hash for camera in specification.cameras}) == len(specification.cameras) >= 2
    with recording_camera(planned[Domain.PADISI][0], frames=1) as camera:
        plain = camera.read(1.0)
    balanced = white_balanced(plain, (0.5, 1.0, 2.0))
    assert np.array_equal(balanced.colour.pixels[..., 1], plain.colour.pixels[..., 1])
    assert balanced.colour.pixels[..., 0].max() <= 128
    assert balanced.depth is plain.depth


def test_a_face_that_is_not_found_gives_no_sample(planned):
    recording = planned[Domain.WMCA][0]
    instants = list(record(recording, Blind(), INPUTS))
    assert [each.levels for each in instants] == [None] * (3 + EXTRA_INSTANTS)
    assert all(each.observation.conditions == ["no_face"] for each in instants)


@pytest.mark.parametrize("domain", Domain)
def test_recordings_become_levels_of_their_domain(planned, domain, detector):
    recording = planned[domain][-1]
    instants = list(record(recording, detector, INPUTS))
    levels = [each.levels for each in instants if each.levels is not None]
    assert len(levels) == (1 if domain is Domain.PADISI else 3)
    first = levels[0]
    assert first.depth.shape == (CHANNEL_FILE_SHAPE if domain is Domain.PADISI else (64, 64))
    assert first.colour.any()
    assert first.depth.any()
    black = not first.colour[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert black == (domain in (Domain.CASIA_SURF, Domain.CEFA))


def test_noise_follows_the_noise_seed_alone(planned):
    def frame(recording):
        with recording_camera(recording, frames=1) as camera:
            return camera.read(1.0).colour.pixels
    recording = planned[Domain.WMCA][0]
    assert np.array_equal(frame(recording), frame(recording))
    other = frame(replace(recording, noise_seed=recording.noise_seed + 1)).astype(int)
    assert 0 < np.abs(frame(recording) - other).mean() < 6
