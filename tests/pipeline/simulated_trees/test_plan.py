"""The plan of a simulated benchmark: who, what, where; matched between the labels, disjoint between the lists."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from capture.simulated.catalogue import SCENES
from capture.simulated.heads import load_heads
from mmdg_model.training import casia_surf, cefa, live_sessions, wmca
from mmdg_model.training.samples import BONA_FIDE, Domain, Split
from pipeline.simulated_benchmark import plan_benchmark
from pipeline.simulated_trees.domains import DOMAINS, SimulationError, list_sizes
from pipeline.simulated_trees.plan import draw_session, person_number, plan_list

PRESENTATION = {Domain.CASIA_SURF: casia_surf.presentation, Domain.CEFA: cefa.presentation,
                Domain.WMCA: wmca.presentation, Domain.LIVE: live_sessions.presentation}


@pytest.fixture(scope="module", params=["tiny", "small", "large"])
def plan(request):
    return plan_benchmark(request.param, scenes=SCENES, domains=tuple(Domain)).recordings


@pytest.fixture(scope="module")
def small():
    return plan_benchmark("small", scenes=SCENES, domains=tuple(Domain)).recordings


def persons(recordings, *, bona_fide):
    return {each.person for each in recordings if each.bona_fide == bona_fide}


def test_persons_and_subjects_are_of_one_list_only(plan):
    lists = list(plan.values())
    numbers = [each for recordings in lists for each in {recording.person for recording in recordings}]
    assert len(numbers) == len(set(numbers))
    for domain in Domain:
        subjects = [{recording.subject for recording in plan[domain, split]} for split in Split]
        assert sum(map(len, subjects)) == len(set.union(*subjects))


def test_every_person_is_live_and_depicted(plan):
    for recordings in plan.values():
        assert persons(recordings, bona_fide=True) == persons(recordings, bona_fide=False)


def test_paths_say_what_was_planned_and_no_two_agree(plan):
    for (domain, _), recordings in plan.items():
        names = [name for each in recordings for instant in range(DOMAINS[domain].frames)
                 for name in each.names(instant)]
        assert len(names) == len(set(names))
        for each in recordings if domain in PRESENTATION else ():
            told = PRESENTATION[domain](each.names(0)[0])
            assert (told.bona_fide, told.species, told.subject) == (each.bona_fide, each.species, each.subject)


def test_no_file_of_two_lists_agrees(plan):
    names = [each.names(0)[0] for recordings in plan.values() for each in recordings]
    assert len(names) == len(set(names))


def test_labels_are_in_the_stated_ratio(small):
    for key, recordings in small.items():
        share = sum(each.bona_fide for each in recordings) / len(recordings)
        assert share == pytest.approx(DOMAINS[key[0]].prior(key[1]), abs=1 / len(recordings) + 0.01)
        assert len(recordings) * DOMAINS[key[0]].frames == pytest.approx(list_sizes("small")[key], abs=2)


def test_each_camera_and_place_films_both_labels(small):
    for domain in Domain:
        seen = defaultdict(set)
        for split in Split:
            for each in small[domain, split]:
                seen[each.session.camera.serial].add(each.bona_fide)
                seen[each.session.place].add(each.bona_fide)
        assert all(labels == {True, False} for labels in seen.values())
        assert sum(isinstance(key, str) for key in seen) >= 2


def test_the_first_attack_is_made_in_the_session_of_the_first_bona_fide_recording(small):
    for recordings in small.values():
        sessions = {}
        for each in recordings:
            sessions.setdefault((each.person, each.bona_fide), each.session)
        for person in persons(recordings, bona_fide=True):
            assert sessions[person, True] == sessions[person, False]


def test_nuisances_have_one_distribution_for_both_labels(plan):
    """Two-sample Kolmogorov-Smirnov, at a level that 24 true null hypotheses rarely reach."""
    from scipy.stats import ks_2samp

    for domain in Domain:
        for values in ("distance_m", "key_light", "frame_gap_s", "infrared_exposure"):
            drawn = {label: [getattr(each.session, values) for split in Split for each in plan[domain, split]
                             if each.bona_fide == label] for label in (True, False)}
            assert ks_2samp(drawn[True], drawn[False]).pvalue > 1e-3, (domain, values)


def test_a_session_knows_neither_label_nor_instrument():
    assert set(draw_session.__annotations__) == {"specification", "split", "person", "session", "seed", "return"}
    first = draw_session(DOMAINS[Domain.WMCA], Split.TRAIN, 5, 0, 1)
    assert first == draw_session(DOMAINS[Domain.WMCA], Split.TRAIN, 5, 0, 1)
    assert all(first != draw_session(DOMAINS[Domain.WMCA], *other)
               for other in ((Split.TEST, 5, 0, 1), (Split.TRAIN, 6, 0, 1), (Split.TRAIN, 5, 1, 1),
                             (Split.TRAIN, 5, 0, 2)))


def test_noise_differs_between_all_recordings(plan):
    seeds = [each.noise_seed for recordings in plan.values() for each in recordings]
    assert len(seeds) == len(set(seeds))


def test_another_seed_shows_other_people():
    first, second = (plan_list(Domain.WMCA, Split.TRAIN, 90, seed=seed, scenes=SCENES) for seed in (0, 1))
    assert not {each.person for each in first} & {each.person for each in second}
    assert first == plan_list(Domain.WMCA, Split.TRAIN, 90, seed=0, scenes=SCENES)


def test_a_list_does_not_depend_on_the_other_domains(small):
    alone = plan_benchmark("small", scenes=SCENES, domains=[Domain.PADISI])
    assert alone.recordings == {key: each for key, each in small.items() if key[0] is Domain.PADISI}
    assert alone.specification_sha256 == plan_benchmark("small", scenes=SCENES).specification_sha256


def test_a_subject_of_surf_has_each_attack_once():
    recordings = plan_list(Domain.CASIA_SURF, Split.TRAIN, 6297, seed=0, scenes=SCENES)
    attacks = defaultdict(list)
    for each in recordings:
        attacks[each.subject].append(each.species)
    assert all(len(species) == len(set(species)) for species in attacks.values())
    assert len(attacks) == 300
    by_species = np.unique([each.species for each in recordings if each.species != BONA_FIDE], return_counts=True)[1]
    assert len(by_species) == 6
    assert np.ptp(by_species) <= 2


def test_species_are_in_their_shares():
    recordings = plan_list(Domain.CEFA, Split.TRAIN, 4800, seed=0, scenes=SCENES)
    replays = sum(each.species == "screen_replay" for each in recordings)
    assert replays / sum(not each.bona_fide for each in recordings) == pytest.approx(600 / 1800, abs=0.01)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, 10_000)])
def test_numbers_of_persons_never_meet(seed, index):
    with pytest.raises(SimulationError, match="expected a seed"):
        person_number(seed, Domain.WMCA, Split.TRAIN, index)


def test_file_names_do_not_depend_on_the_label(small):
    for each in small[Domain.WMCA, Split.TRAIN]:
        assert [name.rpartition("/")[2] for name in each.names(2)] == ["0036.jpg"] * 3
        same = replace(each, species=BONA_FIDE, folder="elsewhere")
        assert [name.rpartition("/")[2] for name in same.names(1)] == ["0024.jpg"] * 3


def test_no_head_is_in_two_splits(plan):
    heads = {split: {each.head for (_, of), recordings in plan.items() if of is split for each in recordings}
             for split in Split}
    assert sum(map(len, heads.values())) == len(set.union(*heads.values()))
    assert all(0 <= head < len(load_heads().family()) for head in set.union(*heads.values()))


def test_a_null_tree_is_planned_alike():
    real, null = (plan_benchmark("tiny", scenes=SCENES, physics=physics) for physics in (True, False))
    assert real.specification_sha256 != null.specification_sha256
    assert {key: tuple(replace(each, physics=False) for each in recordings)
            for key, recordings in real.recordings.items()} == null.recordings


def test_fewer_frames_are_of_more_recordings_and_nothing_else_differs():
    usual, single = (plan_list(Domain.WMCA, Split.TRAIN, 90, seed=0, scenes=SCENES, frames=frames)
                     for frames in (None, 1))
    assert ({each.frames for each in usual}, len(usual)) == ({3}, 30)
    assert ({each.frames for each in single}, len(single)) == ({1}, 90)
    assert draw_session(DOMAINS[Domain.WMCA], Split.TRAIN, single[0].person, 0, 0) == usual[0].session
    # More than a domain has is no more: P's recordings are one frame.
    assert {each.frames for each in plan_list(Domain.PADISI, Split.TRAIN, 40, seed=0, scenes=SCENES, frames=2)} == {1}


def test_frames_are_part_of_the_specification_only_where_they_are_asked_for():
    plain, single, again = (plan_benchmark("tiny", scenes=SCENES, domains=[Domain.WMCA], frames=frames)
                            for frames in (None, 1, 1))
    assert plain.specification_sha256 != single.specification_sha256 == again.specification_sha256
    assert single.frames == plain.frames


@pytest.mark.parametrize(("domain", "samples", "frames", "message"), [
    (Domain.WMCA, 90, 0, "0 frames a recording, expected at least 1"),
    (Domain.CASIA_SURF, 29266, 1, r"S-train: \d+ persons, room for 400; ask for a smaller size, or for more than 1")])
def test_frames_that_cannot_be_had_are_refused(domain, samples, frames, message):
    with pytest.raises(SimulationError, match=message):
        plan_list(domain, Split.TRAIN, samples, seed=0, scenes=SCENES, frames=frames)
