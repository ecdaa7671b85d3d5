"""Leave-one-species-out and single modalities: what a run is not given, it never reads; what it is, it reads alike."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mmdg_model.scorer import Modality
from mmdg_model.training.decoding import TroubleKind
from mmdg_model.training.loading import ListedData
from mmdg_model.training.protocols import Scenario
from mmdg_model.training.run_config import InputChoice, RunConfig, RunConfigError, from_plain
from mmdg_model.training.run_evaluation import scenarios_of
from mmdg_model.training.samples import Domain, Split
from tests.mmdg_model.training.trees import NO_AUGMENTATION, machine_of, toy_run, write_list

#: Of `small_tree`: all attacks of C, of S and of W are of one species each.
CEFA, SURF, WMCA = "cloth_print", "flat_print_eyes_cut", "print"


def opened(root, *species, protocol="CSW_P", modalities=tuple(Modality), **machine):
    config = replace(toy_run(protocol, augmentation=NO_AUGMENTATION), leave_out_species=species,
                     inputs=InputChoice(modalities=modalities))
    return ListedData.open(config, machine_of(root, **machine))


def with_two_species(root):
    """C's lists get a second species: a print of each split becomes a screen."""
    for split in (Split.TRAIN, Split.VALIDATION):
        path = root / "lists" / f"C-{split}.txt"
        lines = path.read_text().split("\n")
        *names, label = lines[-1].split()
        moved = [name.replace("_3_1_2/", "_3_1_4/") for name in names]
        for old, new in zip(names, moved, strict=True):
            (root / new).parent.mkdir(parents=True, exist_ok=True)
            (root / old).rename(root / new)
        write_list(root / "lists", Domain.CEFA, split, [*(line.strip() for line in lines[:-1]),
                                                        " ".join([*moved, label])])


# ---- species ----

def test_left_out_samples_are_read_nowhere_in_training_and_stay_in_tests(tree):
    with_two_species(tree)
    whole = opened(tree, protocol="CSW_C")
    left_out = [sample for sample in whole.training_samples + whole.selection_samples if sample.species == CEFA]
    assert len(left_out) == 4
    tested = {sample.name for sample in whole.test_samples}
    for sample in left_out:
        for path in sample.files.values():
            path.unlink()  # whatever reads it would say so
    data = opened(tree, CEFA, protocol="CSW_C")
    for passed in (data.epoch(0), data.clean_batches(), data.selection()):
        assert list(passed)
    assert not data.troubles
    assert {sample.species for sample in data.training_samples if sample.domain is Domain.CEFA} == {
        "bona_fide", "screen_replay"}
    assert {sample.name for sample in data.test_samples} == tested
    assert CEFA in {sample.species for sample in data.test_samples}


def test_a_source_without_an_attack_left_goes_out_whole(tree):
    data = opened(tree, SURF)
    assert data.classes.sources == ("C", "W")
    assert {sample.domain for sample in data.training_samples + data.selection_samples} == {Domain.CEFA, Domain.WMCA}
    (batch,) = [batch for update in data.epoch(0, first_update=2) for batch in update]
    assert int(batch.source.max()) <= 1


def test_what_is_left_out_is_part_of_the_datas_identity(tree):
    assert len({opened(tree, *species).fingerprint for species in ((), (SURF,), (WMCA,), (SURF, WMCA))}) == 4
    assert opened(tree, SURF, WMCA).fingerprint == opened(tree, WMCA, SURF).fingerprint


@pytest.mark.parametrize(("species", "protocol", "says"), [
    (("silicon_mask",), "CSW_P", r"silicon_mask, and no training sample is of any of them; there are cloth_print"),
    ((CEFA, SURF, WMCA), "CSW_P", "leaves no attack to train on"),
    ((CEFA,), "CPS_W", "the species of 6 attacks of list P-train is unknown, such as"),
])
def test_names_that_would_leave_out_nothing_or_everything_are_refused(tree, species, protocol, says):
    with pytest.raises(RunConfigError, match=says):
        opened(tree, *species, protocol=protocol)


@pytest.mark.parametrize("species", [("bona_fide",), ("unknown",), ("",), ("replay", "replay")])
def test_only_attack_species_can_be_left_out_each_once(species):
    with pytest.raises(RunConfigError, match="leave_out_species names"):
        from_plain({"leave_out_species": list(species)})


# ---- modalities ----

@pytest.mark.parametrize("modality", list(Modality))
def test_a_run_of_one_modality_sees_no_other_anywhere(tree, modality):
    data, whole = opened(tree, modalities=(modality,)), opened(tree)
    index = list(Modality).index(modality)
    batches = [(batch.planes.numpy(), batch.present.numpy()) for update in data.epoch(0) for batch in update]
    batches += [(batch.planes.numpy(), batch.present.numpy()) for batch in data.clean_batches()]
    for passed in (data.selection(), data.test(Scenario.COMPLETE)):
        batches += [batch.inputs for batch in passed]
    for planes, present in batches:
        assert present[:, index].all()
        assert not np.delete(present, index, axis=1).any()
        assert not np.delete(planes, index, axis=1).any()
        assert planes[:, index].any()
    one, other = next(iter(data.selection())).inputs, next(iter(whole.selection())).inputs
    assert np.array_equal(one.planes[:, index], other.planes[:, index])


def test_a_sample_that_measured_nothing_in_the_runs_modality_is_left_out_and_told(tree):
    data = opened(tree, modalities=(Modality.DEPTH,))
    lost = data.selection_samples[1]
    lost.files[Modality.DEPTH].unlink()
    scored = [sample for batch in data.selection() for sample in batch.samples]
    assert [sample.name for sample in scored] == [sample.name for sample in data.selection_samples if sample != lost]
    assert data.unscored == [lost]
    assert {(trouble.modality, trouble.kind) for trouble in data.troubles} <= {
        (Modality.DEPTH, TroubleKind.MISSING), (Modality.DEPTH, TroubleKind.UNREADABLE)}
    assert data.troubles


def test_a_run_of_one_modality_is_tested_complete_only():
    assert len(scenarios_of(RunConfig(protocol="CPS_W"))) == 4
    assert scenarios_of(from_plain({"protocol": "CPS_W", "inputs": {"modalities": ["depth"]}})) == (Scenario.COMPLETE,)


@pytest.mark.parametrize("modalities", [[], ["rgb", "rgb"], ["thermal"]])
def test_modalities_are_some_of_the_three_each_once(modalities):
    with pytest.raises(RunConfigError, match=r"modalities|thermal"):
        from_plain({"inputs": {"modalities": modalities}})


# ---- the run's hash ----

def test_runs_that_leave_out_nothing_keep_the_hash_that_they_had():
    plain = json.loads(RunConfig().to_json())
    assert "leave_out_species" not in plain
    assert "modalities" not in plain["inputs"]
    assert from_plain(plain) == RunConfig()


def test_what_is_left_out_changes_the_hash_but_its_order_does_not():
    runs = [from_plain(values) for values in (
        {}, {"leave_out_species": ["replay", "print"]}, {"leave_out_species": ["print"]},
        {"inputs": {"modalities": ["rgb", "depth"]}}, {"inputs": {"modalities": ["depth"]}})]
    assert len({run.hash for run in runs}) == len(runs)
    assert runs[1].hash == from_plain({"leave_out_species": ["print", "replay"]}).hash
    assert runs[3].hash == from_plain({"inputs": {"modalities": ["depth", "rgb"]}}).hash
    for run in runs:
        assert from_plain(json.loads(run.to_json())).hash == run.hash
