"""From trees and lists to batches: the same pixels as live crops, every process its part, no target, no silence."""

import shutil
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from mmdg_model.inputs import DepthEncoding, InputSpecification, prepare
from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.augmentation import DrawKey, augment
from mmdg_model.training.batch_loader import BatchLoader
from mmdg_model.training.decoding import TroubleKind, load_sample
from mmdg_model.training.level_cache import CacheIndex
from mmdg_model.training.loading import ListedData
from mmdg_model.training.protocols import Scenario
from mmdg_model.training.run_config import InputChoice, MachineConfig, RunConfigError
from mmdg_model.training.sample_reader import BatchRequest, LoadingError, SampleReader, SampleRequest
from mmdg_model.training.samples import Domain, ManifestError, Split
from tests.mmdg_model.training.trees import (
    NO_AUGMENTATION,
    lines_of,
    machine_of,
    picture,
    toy_run,
    trial,
    write_jpeg,
    write_list,
)

SIZE = 32


def open_data(root, config=None, *, rank=0, world_size=1, **machine):
    return ListedData.open(config or toy_run(), machine_of(root, **machine), rank=rank, world_size=world_size)


def batches_of(updates):
    return [batch for update in updates for batch in update]


def equal(first, second):
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def same_batches(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(map(equal, first, second))


def same_scoring(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(
        np.array_equal(one.rows, other.rows) and np.array_equal(one.inputs.planes, other.inputs.planes)
        and np.array_equal(one.inputs.present, other.inputs.present) and one.samples == other.samples
        for one, other in zip(first, second, strict=True))


def colour_of(data, row=0, domain=Domain.CEFA):
    samples = [sample for sample in data.training_samples if sample.domain is domain]
    return samples[row].files[Modality.RGB]


# What is read


def test_an_epoch_holds_every_training_sample_with_its_label_and_classes(whole_tree):
    data = open_data(whole_tree, toy_run("CW_PS", augmentation=NO_AUGMENTATION))
    assert data.classes.rows == ("live", "C", "W")
    batches = batches_of(data.epoch(0))
    assert [len(batch.label) for batch in batches] == [4, 4, 2]
    assert data.updates_per_epoch == 3
    seen = sorted((int(source), int(label), int(domain)) for batch in batches
                  for source, label, domain in zip(batch.source, batch.label, batch.domain, strict=True))
    assert seen == sorted([(0, 1, 0)] * 2 + [(0, 0, 1)] * 3 + [(1, 1, 0)] * 2 + [(1, 0, 2)] * 3)


def test_without_augmentation_a_sample_is_what_live_crops_are_made_of(whole_tree):
    data = open_data(whole_tree, toy_run(augmentation=NO_AUGMENTATION, batch_size=15))
    ((batch,),) = data.epoch(3)
    order = [draw.place for draw in data._order.draws(3)]
    crops = [load_sample(data.training_samples[place], image_size=SIZE) for place in order]
    expected = prepare(crops, data.inputs)
    assert np.array_equal(batch.planes.numpy(), expected.planes)
    assert np.array_equal(batch.present.numpy(), expected.present)
    assert data.inputs == InputSpecification(image_size=SIZE, depth_encoding=DepthEncoding.IDENTITY_8BIT)


def test_an_augmented_sample_is_keyed_by_seed_epoch_place_and_copy(whole_tree):
    config = toy_run(seed=5, batch_size=25, samples_per_epoch=25)
    data = open_data(whole_tree, config)
    ((batch,),) = data.epoch(3)
    crops = [augment(load_sample(data.training_samples[draw.place], image_size=SIZE), config.augmentation,
                     DrawKey(5, 3, draw.place, draw.copy)) for draw in data._order.draws(3)]
    assert np.array_equal(batch.planes.numpy(), prepare(crops, data.inputs).planes)


def live_crop(seed):
    """A face half a metre away, with depth holes, as a depth camera gives it."""
    generator = np.random.default_rng(seed)
    valid = generator.random((SIZE, SIZE)) > 0.1
    return CropPlanes(
        colour=np.stack([picture((seed, channel), (SIZE, SIZE)) for channel in range(3)], axis=2),
        colour_valid=np.ones((SIZE, SIZE), dtype=np.bool_),
        depth=np.where(valid, generator.integers(4000, 8000, (SIZE, SIZE)), 0).astype(np.uint16), depth_valid=valid,
        depth_unit_m=1e-4, infrared=picture((seed, 9), (SIZE, SIZE)),
        infrared_valid=np.ones((SIZE, SIZE), dtype=np.bool_), infrared_bit_depth=8)


def test_a_live_crop_with_metric_depth_and_its_export_as_levels_are_one_tensor(tree):
    """The way of a simulated benchmark: live crops are written as 8-bit levels, and read as the data sets are."""
    live_specification = InputSpecification(image_size=SIZE)
    for number in range(5):
        crop = live_crop(number)
        metric = prepare([crop], live_specification)
        levels = np.rint(metric.planes[0, 1, 0] * live_specification.depth_scale
                         + live_specification.depth_mean).astype(np.uint8)
        assert len(np.unique(levels[crop.depth_valid])) > 100
        assert np.array_equal(levels > 0, crop.depth_valid)
        stack = np.zeros((1, 22, SIZE, SIZE), dtype=np.float32)
        stack[0, :3] = crop.colour.transpose(2, 0, 1)[::-1]
        stack[0, 3], stack[0, 4] = crop.infrared, levels
        np.savez_compressed(tree / f"{trial(Split.TRAIN, number)}.npz", data=stack / np.float32(255))
    data = open_data(tree, toy_run(augmentation=NO_AUGMENTATION, batch_size=15))
    (batch,) = data.clean_batches()
    exported = batch.planes[batch.source == data.classes.sources.index("P")].numpy()
    assert np.array_equal(exported, prepare([live_crop(number) for number in range(5)], live_specification).planes)


def test_augmented_planes_differ_and_clean_ones_do_not(whole_tree):
    data = open_data(whole_tree, toy_run(batch_size=15))
    ((first,),), ((second,),) = data.epoch(0), data.epoch(1)
    assert not torch.equal(first.planes.sum((1, 2, 3, 4)).sort().values, second.planes.sum((1, 2, 3, 4)).sort().values)
    assert same_batches(data.clean_batches(), data.clean_batches())
    assert same_batches(data.clean_batches(), open_data(
        whole_tree, toy_run(batch_size=15, augmentation=NO_AUGMENTATION)).clean_batches())


def test_selection_and_test_rows_name_their_samples(whole_tree):
    data = open_data(whole_tree)
    for passes, samples in ((data.selection(), data.selection_samples), (data.test(Scenario.COMPLETE),
                                                                         data.test_samples)):
        batches = list(passes)
        rows = [int(row) for batch in batches for row in batch.rows]
        assert rows == list(range(len(samples)))
        assert [sample for batch in batches for sample in batch.samples] == list(samples)
    assert {sample.domain for sample in data.test_samples} == {Domain.WMCA}
    assert {(sample.domain, sample.split) for sample in data.selection_samples} == {
        (domain, Split.VALIDATION) for domain in (Domain.CEFA, Domain.PADISI, Domain.CASIA_SURF)}


@pytest.mark.parametrize(("scenario", "present"), [
    (Scenario.COMPLETE, [True, True, True]), (Scenario.MISSING_DEPTH, [True, False, True]),
    (Scenario.MISSING_INFRARED, [True, True, False]), (Scenario.MISSING_DEPTH_AND_INFRARED, [True, False, False]),
])
def test_a_scenario_withholds_from_every_test_sample(whole_tree, scenario, present):
    for batch in open_data(whole_tree, toy_run("CW_PS")).test(scenario):
        assert (batch.inputs.present == present).all()


# Processes, parts, places of entry


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 1), (3, 2), (5, 1)])
def test_processes_together_see_what_one_sees(whole_tree, world_size, accumulate):
    config = toy_run(accumulate=accumulate)
    alone = [torch.cat([part.planes for part in update]) for update in open_data(whole_tree, toy_run()).epoch(1)]
    ranks = [list(open_data(whole_tree, config, rank=rank, world_size=world_size).epoch(1))
             for rank in range(world_size)]
    assert {len(updates) for updates in ranks} == {len(alone)}
    for number, expected in enumerate(alone):
        together = [part.planes for updates in ranks for part in updates[number]]
        assert torch.equal(torch.cat(together), expected)
    assert any(updates[-1] == [] for updates in ranks) == (world_size == 5)  # 3 samples are left for the last update


@pytest.mark.parametrize("world_size", [2, 4])
def test_passes_are_split_over_processes(whole_tree, world_size):
    ranks = [open_data(whole_tree, rank=rank, world_size=world_size) for rank in range(world_size)]
    alone = open_data(whole_tree)
    for passes in (lambda data: [batch.planes for batch in data.clean_batches()],
                   lambda data: [torch.from_numpy(batch.inputs.planes) for batch in data.selection()]):
        assert torch.equal(torch.cat([planes for data in ranks for planes in passes(data)]), torch.cat(passes(alone)))
    assert [int(row) for data in ranks for batch in data.selection() for row in batch.rows] == list(range(15))


@pytest.mark.parametrize("first_update", [1, 3, 4])
def test_an_epoch_entered_later_goes_on_alike_and_decodes_nothing_before(tree, first_update):
    config = toy_run(accumulate=2)
    whole = list(open_data(tree, config).epoch(2))
    data = open_data(tree, config)
    for draw in data._order.draws(2)[:first_update * 4]:  # what came before can no longer be read
        for path in data.training_samples[draw.place].files.values():
            path.unlink(missing_ok=True)  # a PADISI-Face sample is one file
    later = list(data.epoch(2, first_update=first_update))
    assert len(later) == 4 - first_update
    assert all(map(same_batches, later, whole[first_update:]))
    assert data.troubles == ()


# Worker processes


@pytest.fixture(scope="module")
def damaged_tree(whole_tree, tmp_path_factory):
    """A train and a validation sample without readable colour, and a train sample without depth."""
    root = shutil.copytree(whole_tree, tmp_path_factory.mktemp("damaged") / "tree")
    data = open_data(root)
    colour, validation = colour_of(data), data.selection_samples[1].files[Modality.RGB]
    for path in (colour, validation):
        path.write_bytes(path.read_bytes()[:300])
    depth = data.training_samples[3].files[Modality.DEPTH]
    depth.unlink()
    return root, {colour: TroubleKind.UNREADABLE, validation: TroubleKind.UNREADABLE, depth: TroubleKind.MISSING}


@pytest.fixture(scope="module", params=[0, 8], ids=["uncached", "cached"])
def worker_data(request, damaged_tree):
    data = open_data(damaged_tree[0], toy_run(accumulate=2, balanced=True, samples_per_epoch=18), workers=2,
                     cache_mib=request.param)
    yield data
    data.close()


def test_workers_change_nothing_and_one_bad_file_neither_ends_a_run_nor_is_hidden(worker_data, damaged_tree):
    root, expected = damaged_tree
    here = open_data(root, toy_run(accumulate=2, balanced=True, samples_per_epoch=18))
    for epoch in (0, 1):
        assert all(map(same_batches, worker_data.epoch(epoch), list(here.epoch(epoch))))
    assert same_batches(worker_data.clean_batches(), here.clean_batches())
    for _ in range(2):
        assert same_scoring(worker_data.selection(), here.selection())
    assert same_scoring(worker_data.test(Scenario.MISSING_DEPTH), here.test(Scenario.MISSING_DEPTH))
    for data in (worker_data, here):
        assert {trouble.path: trouble.kind for trouble in data.troubles} == expected
        assert [sample.files[Modality.RGB] in expected for sample in data.unscored] == [True]
    assert sum(len(batch.label) for batch in here.clean_batches()) == 14
    assert [int(row) for batch in here.selection() for row in batch.rows] == [0, *range(2, 15)]


def test_a_pass_with_workers_leaves_torchs_random_state(worker_data):
    before = torch.get_rng_state()
    list(worker_data.epoch(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pass_may_be_left_and_the_next_is_whole(worker_data):
    whole = list(worker_data.epoch(1))
    left = worker_data.epoch(0)
    next(left)
    assert all(map(same_batches, worker_data.epoch(1), whole))
    with pytest.raises(RuntimeError, match="another was begun"):
        next(left)


def request_that_fails(root):
    data = open_data(root)
    broken = replace(data.training_samples[2], files=data.training_samples[2].files | {Modality.DEPTH: 5})
    reader = SampleReader(data.inputs, NO_AUGMENTATION, None)
    requests = [BatchRequest((SampleRequest(sample),)) for sample in (data.training_samples[0], broken)]
    return reader, requests, str(data.training_samples[2].files[Modality.RGB])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_names_the_sample(whole_tree, workers):
    reader, requests, path = request_that_fails(whole_tree)
    loader = BatchLoader(reader, CacheIndex(0, SIZE, 1), workers=workers, on_trouble=pytest.fail)
    batches = loader.run(requests)
    assert next(batches).kept == (0,)
    with pytest.raises(LoadingError) as caught:
        next(batches)
    assert path in str(caught.value)
    assert "list C-train, line 3" in str(caught.value)
    assert "AttributeError" in str(caught.value)
    loader.close()


def test_closing_ends_the_workers(whole_tree):
    data = open_data(whole_tree, workers=1)
    before = set(psutil.Process().children(recursive=True))
    list(data.epoch(0))
    # The fork server itself, our child, stays for the next pass of whichever data; workers are its children.
    workers = [child for child in set(psutil.Process().children(recursive=True)) - before
               if child.ppid() != psutil.Process().pid]
    assert len(workers) == 1
    data.close()
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    assert len(list(data.epoch(0))) == 4
    data.close()


# Troubles


def test_a_sample_that_failed_once_stays_unscored(tree):
    data = open_data(tree)
    path = data.selection_samples[4].files[Modality.RGB]
    kept = path.read_bytes()
    path.write_bytes(b"")
    first = list(data.selection())
    path.write_bytes(kept)  # a file server's hiccup is over
    assert same_scoring(data.selection(), first)
    assert [sample.files[Modality.RGB] for sample in data.unscored] == [path]
    assert [int(row) for batch in first for row in batch.rows] == [row for row in range(15) if row != 4]


def test_an_update_of_unreadable_samples_has_no_part(tree):
    data = open_data(tree, toy_run(batch_size=1))
    colour_of(data).write_bytes(b"")
    assert sorted(len(update) for update in data.epoch(0)) == [0] + [1] * 14


@pytest.mark.parametrize(("damage", "message"), [
    (lambda root: shutil.rmtree(root / "CeFA"), "list C-train: not one of its colour images exists below"),
    (lambda root: (root / "lists" / "S-val.txt").unlink(), "no list .*S-val.txt"),
])
def test_a_source_that_is_not_there_is_refused_at_once(tree, damage, message):
    damage(tree)
    with pytest.raises(ManifestError, match=message):
        open_data(tree)


@pytest.mark.parametrize(("config", "machine", "error", "message"), [
    (replace(toy_run(), data="abc"), {}, RunConfigError, "data is abc, but the lists of"),
    (replace(toy_run(), inputs=InputChoice(depth_levels=False)), {}, RunConfigError, "depth_levels is False"),
    (toy_run(), {"cache_mib": -1}, ValueError, "cache_mib is -1"),
    (toy_run(), {"workers": -1}, ValueError, "workers is -1"),
])
def test_impossible_configurations_are_refused(whole_tree, config, machine, error, message):
    with pytest.raises(error, match=message):
        open_data(whole_tree, config, **machine)


@pytest.mark.parametrize("world_size", [0, 1])
def test_an_impossible_rank_is_refused(whole_tree, world_size):
    with pytest.raises(ValueError, match=f"rank is 1 of {world_size}"):
        open_data(whole_tree, rank=1, world_size=world_size)


# Leakage


def test_training_and_selection_never_touch_the_target(tree):
    data = open_data(tree)
    expected = list(data.epoch(0)), list(data.clean_batches()), list(data.selection())
    shutil.rmtree(tree / "WMCA-Image")
    for split in Split:
        (tree / "lists" / f"W-{split}.txt").unlink()
    blind = open_data(tree)
    assert blind.fingerprint == data.fingerprint
    assert all(map(same_batches, blind.epoch(0), expected[0]))
    assert same_batches(blind.clean_batches(), expected[1])
    assert same_scoring(blind.selection(), expected[2])
    assert blind.unscored == []
    with pytest.raises(ManifestError, match="W-test"):
        blind.test(Scenario.COMPLETE)


def test_other_target_labels_and_pixels_change_no_training(tree):
    expected = open_data(tree)
    batches, tested = list(expected.epoch(0)), expected.test_fingerprint
    for line in lines_of(Domain.WMCA, Split.TEST, 2, 3):
        for number, name in enumerate(line.split()[:3]):
            write_jpeg(tree / name, picture((99, number)))
    lines = lines_of(Domain.WMCA, Split.TEST, 2, 3)
    write_list(tree / "lists", Domain.WMCA, Split.TEST, lines[:3])
    data = open_data(tree)
    assert data.fingerprint == expected.fingerprint
    assert all(map(same_batches, data.epoch(0), batches))
    assert data.test_fingerprint != tested


# The rest of the contract


def test_time_spent_waiting_is_a_share_of_the_time_since_it_was_asked(whole_tree):
    ticks = iter(range(100))
    data = ListedData.open(toy_run(), machine_of(whole_tree), clock_s=lambda: float(next(ticks)))
    updates = data.epoch(0)
    next(updates)
    assert data.take_waiting_share() == pytest.approx(1 / 3)  # asked at 0; waited from 1 to 2; asked at 3
    assert data.take_waiting_share() == 0.0
    next(updates)
    next(updates)
    assert data.take_waiting_share() == pytest.approx(2 / 5)


def test_a_simulated_tree_says_so(tree):
    assert not open_data(tree).simulated
    (tree / "simulated.json").write_text("{}")
    assert open_data(tree).simulated


def test_the_machine_finds_its_data_anywhere(whole_tree, tmp_path):
    shutil.copytree(whole_tree, tmp_path / "elsewhere")
    assert open_data(tmp_path / "elsewhere").fingerprint == open_data(whole_tree).fingerprint
    assert isinstance(machine_of(whole_tree), MachineConfig)
