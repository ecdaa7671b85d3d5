"""The specifications as data: sizes, and what makes four domains of them."""

import pytest

from capture.simulated.catalogue import SCENES
from capture.simulated.species import SPECIES
from mmdg_model.training import casia_surf, cefa, padisi, wmca
from mmdg_model.training.manifests import COUNTS
from mmdg_model.training.samples import Domain, Split
from pipeline.simulated_trees.domains import DOMAINS, SIZES, SimulationError, fingerprint, list_sizes, rendered_species

KNOWN_SPECIES = {Domain.CASIA_SURF: set(casia_surf.SPECIES.values()), Domain.WMCA: set(wmca.SPECIES.values()),
                 Domain.CEFA: set(cefa.INSTRUMENTS.values()) | set(cefa.MASKS.values()),
                 Domain.PADISI: set(padisi.SPECIES.values()), Domain.LIVE: set(SPECIES)}


@pytest.mark.parametrize("size", ["tiny", "small", "medium", "3000"])
def test_a_size_is_met(size):
    wanted = SIZES.get(size) or int(size)
    sizes = list_sizes(size)
    public = {key: sizes[key] for key in COUNTS}
    assert abs(sum(public.values()) - wanted) <= len(public)
    assert set(sizes) - set(public) == {(Domain.LIVE, split) for split in Split}
    assert all(sizes.values())
    assert all(sizes[key] <= COUNTS[key].lines for key in COUNTS)


def test_large_is_as_large_as_the_public_lists():
    large = list_sizes("large")
    assert {key: large[key] for key in COUNTS} == {key: counts.lines for key, counts in COUNTS.items()}
    assert list_sizes("999999") == list_sizes("large")


@pytest.mark.parametrize("size", ["119", "-5", "huge", ""])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(SimulationError, match="size is"):
        list_sizes(size)


@pytest.mark.parametrize("domain", Domain)
def test_a_domain_has_two_cameras_and_species_of_its_data_set(domain):
    specification = DOMAINS[domain]
    assert len({camera.serial for camera in specification.cameras}) >= 2
    assert {each.species for each in specification.species} <= KNOWN_SPECIES[domain]
    for split in Split:
        rendered = rendered_species(specification, split, SCENES)
        assert rendered
        assert {scene for scenes in rendered.values() for scene in scenes} <= set(SCENES) - {"bona_fide", "nobody"}


def test_live_sessions_show_every_species():
    assert {each.species for each in DOMAINS[Domain.LIVE].species} == set(SPECIES)


def test_masks_of_cefa_are_in_its_test_list_only():
    train, test = (rendered_species(DOMAINS[Domain.CEFA], split, SCENES) for split in (Split.TRAIN, Split.TEST))
    assert "printed_3d_mask" in test
    assert "printed_3d_mask" not in train


def test_the_fitting_scenes_are_taken_where_the_simulator_has_them():
    fitting = rendered_species(DOMAINS[Domain.WMCA], Split.TRAIN, ("flat_print", "dye_print", "screen", "print"))
    assert fitting == {"print": ("flat_print", "dye_print"), "replay": ("screen",)}
    with pytest.raises(SimulationError, match="none of its attacks"):
        rendered_species(DOMAINS[Domain.WMCA], Split.TRAIN, ("nobody",))


def test_no_two_domains_share_a_camera_and_the_fingerprint_holds_everything():
    serials = [camera.serial for each in DOMAINS.values() for camera in each.cameras]
    assert len(serials) == len(set(serials))
    assert fingerprint(seed=1) == fingerprint(seed=1) != fingerprint(seed=2)
