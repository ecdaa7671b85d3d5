"""Families of species: every name that lists can tell belongs to one, and the simulator's families are the same."""

import pytest

from capture.simulated.species import DATA_SET_SPECIES, SPECIES, Category
from mmdg_model.training import casia_surf, cefa, padisi, wmca
from mmdg_model.training.species_families import FAMILIES, Family, described, family_of


@pytest.mark.parametrize("names", [casia_surf.SPECIES.values(), cefa.INSTRUMENTS.values(), cefa.MASKS.values(),
                                   wmca.SPECIES.values(), padisi.SPECIES.values(), SPECIES,
                                   *DATA_SET_SPECIES.values()])
def test_every_attack_that_a_list_can_name_has_a_family(names):
    assert [name for name in names if family_of(name) is None and name != "bona_fide"] == []


def test_a_species_has_one_family_and_the_simulators_say_the_same():
    names = [name for of_family in FAMILIES.values() for name in of_family]
    assert len(names) == len(set(names))
    as_here = {Category.MANNEQUIN: Family.MASK}
    assert {name: family_of(name) for name in SPECIES} == {
        name: as_here.get(row.category, Family(row.category.replace("mannequin", "mask")))
        for name, row in SPECIES.items()}


def test_a_species_of_a_data_set_has_the_family_of_what_stands_for_it():
    for names in DATA_SET_SPECIES.values():
        for name, ours in names.items():
            assert {family_of(each) for each in ours} <= {family_of(name)}


def test_families_are_named_whole_and_others_singly():
    assert described(FAMILIES[Family.MASK]) == "mask"
    assert described([*FAMILIES[Family.REPLAY], "paper", "flat_print"]) == "replay, flat_print, paper"
    assert family_of("bona_fide") is None
