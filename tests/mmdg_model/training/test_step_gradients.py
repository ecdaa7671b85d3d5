"""One step: accumulation, processes, mixed precision, missing modalities, ablations, and what the optimiser gets."""

import dataclasses
import math

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from mmdg_model.config import TrainableParts
from mmdg_model.network import NetworkOutput
from mmdg_model.scorer import Modality
from mmdg_model.trainable import freeze_the_rest
from mmdg_model.training.modality_gradients import parameter_owner
from mmdg_model.training.regrad import CertaintyFactor, ReGradCases, ReGradError, ReGradTarget, SharedTensors
from mmdg_model.training.ssp_loss import ssp_loss
from mmdg_model.training.step_gradients import ObjectiveConfig, StepGradients, assign_gradients, batch_gradients
from mmdg_model.uncertainty import BatchAggregation, modality_certainty
from tests.mmdg_model.builders import lively_network
from tests.mmdg_model.training import two_processes
from tests.mmdg_model.training.builders import (
    SMALL,
    fresh_prototypes,
    labelled_batch,
    objective,
    step_of,
    training_network,
)

ABSENT = [(3, 2), (6, 2), (1, 1)]


def assert_same(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **({"rtol": 1e-9, "atol": 1e-12} | tolerance), equal_nan=True)


def updates_of(network, trainable, batches, prototypes, config, **changes):
    return step_of(network, trainable, batches, prototypes, config, **changes).update(config)


@pytest.fixture(scope="module")
def single_process():
    return two_processes.results("whole", 0, reduce=False)


@pytest.fixture(scope="module")
def two_process_results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_processes")
    torch.multiprocessing.spawn(two_processes.process, args=(str(folder),), nprocs=2)
    return {(sharding, rank): load_file(folder / f"{sharding}-{rank}.safetensors")
            for sharding in two_processes.SHARDINGS for rank in range(2)}


@pytest.mark.parametrize("sharding", list(two_processes.SHARDINGS))
def test_two_processes_equal_one(single_process, two_process_results, sharding):
    """Updates, log values and prototypes, for all targets, with unequal shards and with an idle process."""
    assert_same(two_process_results[sharding, 0], single_process)


@pytest.mark.parametrize("sharding", list(two_processes.SHARDINGS))
def test_both_processes_hold_the_same_bits(two_process_results, sharding):
    assert_same(two_process_results[sharding, 1], two_process_results[sharding, 0], rtol=0, atol=0)


def test_modulating_each_shard_would_be_wrong(single_process):
    """What is tested above is not linear: the mean of the shards' own updates is another update."""
    network, trainable = training_network()
    prototypes, whole = fresh_prototypes(network), labelled_batch(8, absent=ABSENT)
    config = objective()
    halves = [updates_of(network, trainable, [whole.rows(rows)], prototypes, config)[0]
              for rows in (slice(0, 4), slice(4, 8))]
    wrong = max(float(((a + b) / 2 - single_process[f"ce/exp_of_mean/{name}"]).abs().max())
                for name, a, b in ((name, halves[0][name], halves[1][name]) for name in halves[0]))
    assert wrong > 1e-3


@pytest.mark.parametrize("parts", [[4, 4], [1, 7], [3, 3, 2]])
@pytest.mark.parametrize("target", list(ReGradTarget))
def test_accumulation_equals_one_batch(parts, target):
    network, trainable = training_network()
    whole, prototypes = labelled_batch(8, absent=ABSENT), fresh_prototypes(network)
    config = objective(target=target)
    expected, record = updates_of(network, trainable, [whole], prototypes, config)
    batches = [whole.rows(rows) for rows in torch.arange(8).split(parts)]
    found, accumulated = updates_of(network, trainable, batches, prototypes, config)
    assert_same(found, expected)
    assert accumulated.cross_entropy == pytest.approx(record.cross_entropy)
    assert accumulated.regrad.fast is record.regrad.fast
    assert accumulated.regrad.certainty == pytest.approx(record.regrad.certainty)


def test_off_is_the_baseline_bit_for_bit():
    """One batch, ReGrad off: the optimiser gets what backward() of CE + λ Σ L_m leaves, None where it leaves None."""
    network, trainable = training_network()
    batch, prototypes = labelled_batch(7), fresh_prototypes(network)  # not a power of two: 7 · g / 7 is not always g
    output = network(batch.planes, batch.present)
    ssp = ssp_loss(output.class_tokens, batch.domain, batch.present, prototypes_MKD=prototypes.values,
                   known_MK=prototypes.known)
    (F.cross_entropy(output.logits, batch.label) + 0.3 * ssp.mean_over_batch().sum()).backward()
    expected = {name: parameter.grad for name, parameter in trainable.items()}
    off, record = updates_of(network, trainable, [batch], prototypes, objective(cases=ReGradCases.OFF))
    assert_same(off, expected, rtol=0, atol=0)
    assert record.regrad.fast is None


def test_on_changes_every_owned_tensor_that_two_modalities_reach():
    """A slow owner's tensor that no other modality reaches (last block) keeps its gradient; a fast owner's does not."""
    network, trainable = training_network()
    batch, prototypes = labelled_batch(8), fresh_prototypes(network)
    step = step_of(network, trainable, [batch], prototypes, objective())
    on, record = step.update(objective())
    off, _ = updates_of(network, trainable, [batch], prototypes, objective(cases=ReGradCases.OFF))
    expected = {name for name, gradient in step.by_modality.items()
                if sum(bool(part.any()) for part in gradient) > 1 or parameter_owner(name) is record.regrad.fast}
    changed = {name for name in on if not torch.allclose(on[name], off[name], rtol=1e-6)}
    assert changed == expected
    assert len(expected) > 14 * 4  # the first block's adapters at least
    assert record.regrad.modulated_tensors == len(step.by_modality) == 2 * 4 * 14 + 6


def test_without_ssp_weight_off_is_cross_entropy_alone_bit_for_bit():
    network, trainable = training_network()
    batch, prototypes = labelled_batch(8), fresh_prototypes(network)
    F.cross_entropy(network(batch.planes, batch.present).logits, batch.label).backward()
    expected = {name: parameter.grad for name, parameter in trainable.items()}
    config = objective(cases=ReGradCases.OFF, ssp_weight=0.0)
    assert_same(updates_of(network, trainable, [batch], prototypes, config)[0], expected, rtol=0, atol=0)


VARIANTS = [
    objective(),
    objective(target=ReGradTarget.SSP),
    objective(target=ReGradTarget.BOTH),
    objective(cases=ReGradCases.OFF),
    objective(cases=ReGradCases.CONFLICTED_ONLY),
    objective(cases=ReGradCases.UNCONFLICTED_ONLY),
    objective(certainty=CertaintyFactor.ONE),
    objective(aggregation=BatchAggregation.MEAN_OF_EXP),
    objective(shared=SharedTensors.SYMMETRIC),
    objective(ssp_weight=0.0),
]


def test_every_switch_gives_another_update():
    network, trainable = training_network()
    batch, prototypes = labelled_batch(8), fresh_prototypes(network)
    flat = [torch.cat([value.flatten() for value in
                       updates_of(network, trainable, [batch], prototypes, config)[0].values()]) for config in VARIANTS]
    for first in range(len(flat)):
        for second in range(first):
            assert float((flat[first] - flat[second]).norm() / flat[second].norm()) > 1e-6, (first, second)


def test_fast_certainty_and_losses_of_the_record_are_those_of_the_batch():
    network, trainable = training_network()
    batch, prototypes = labelled_batch(8, absent=ABSENT), fresh_prototypes(network)
    output = network(batch.planes, batch.present)
    ssp = ssp_loss(output.class_tokens, batch.domain, batch.present, prototypes_MKD=prototypes.values,
                   known_MK=prototypes.known)
    losses = (ssp.loss.sum(dim=0) / batch.present.sum(dim=0)).tolist()
    for aggregation in BatchAggregation:
        _, record = updates_of(network, trainable, [batch], prototypes, objective(aggregation=aggregation))
        assert record.regrad.ssp_losses == pytest.approx(losses)
        assert record.regrad.fast == list(Modality)[losses.index(min(losses))]
        assert record.regrad.certainty == pytest.approx(
            modality_certainty(output.class_certainty, batch.present, aggregation).tolist())
        assert all(0 < value < math.log(4) + 1e-9 for value in record.ssp_entropy)
        assert 0 < record.regrad.conflict_rate < 1
        assert record.regrad.relative_change > 0.01
    one = updates_of(network, trainable, [batch], prototypes, objective(certainty=CertaintyFactor.ONE))[1]
    assert one.regrad.certainty == (1.0, 1.0, 1.0)


def test_a_modality_absent_from_the_step_is_neither_fast_nor_felt():
    """Depth missing in every sample: whatever its plane holds, the update is the same, and finite."""
    network, trainable = training_network()
    prototypes = fresh_prototypes(network)
    batch = labelled_batch(8, absent=[(sample, 1) for sample in range(8)])
    updates, record = updates_of(network, trainable, [batch], prototypes, objective())
    noisy = dataclasses.replace(batch, planes=batch.planes.clone())
    noisy.planes[:, 1] = torch.nan
    assert_same(updates_of(network, trainable, [noisy], prototypes, objective())[0], updates, rtol=0, atol=0)
    assert record.regrad.fast in (Modality.RGB, Modality.INFRARED)
    assert math.isnan(record.regrad.ssp_losses[1])
    assert math.isnan(record.ssp_entropy[1])
    assert record.regrad.certainty[1] == 1.0
    assert all(value.isfinite().all() for value in updates.values())
    depth = [name for name in updates if parameter_owner(name) is Modality.DEPTH]
    assert depth
    assert not any(updates[name].any() for name in depth)


def test_colour_alone_is_not_modulated():
    network, trainable = training_network()
    prototypes = fresh_prototypes(network)
    batch = labelled_batch(8, absent=[(sample, modality) for sample in range(8) for modality in (1, 2)])
    on, record = updates_of(network, trainable, [batch], prototypes, objective())
    off, _ = updates_of(network, trainable, [batch], prototypes, objective(cases=ReGradCases.OFF))
    assert record.regrad.fast is None
    assert_same({name: on[name] for name in off}, off)


@pytest.mark.parametrize("target", list(ReGradTarget))
def test_unscaling_after_modulation_gives_the_same_step(target):
    """A gradient scaler's power of two goes through modulation bit for bit."""
    network, _ = training_network()
    network = network.float()
    trainable = freeze_the_rest(network)
    batch = labelled_batch(8)
    batch.planes = batch.planes.float()
    prototypes, config = fresh_prototypes_float(network), objective(target=target)
    expected, _ = updates_of(network, trainable, [batch], prototypes, config)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    scaled, record = updates_of(network, trainable, [batch], prototypes, config,
                                loss_scale=scaler.scale(torch.ones(())))
    assign_gradients(trainable, scaled)
    scaler.unscale_(optimizer)
    assert_same({name: parameter.grad for name, parameter in trainable.items()}, expected, rtol=0, atol=0)
    assert record.cross_entropy < 100  # log values are unscaled


def test_an_overflowing_step_is_skipped():
    network, _ = training_network()
    network = network.float()
    trainable = freeze_the_rest(network)
    batch = labelled_batch(8)
    batch.planes = batch.planes.float()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    before = {name: parameter.detach().clone() for name, parameter in trainable.items()}
    updates, _ = updates_of(network, trainable, [batch], fresh_prototypes_float(network), objective(),
                            loss_scale=scaler.scale(torch.ones(())))
    assign_gradients(trainable, updates)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**126
    assert all(torch.equal(parameter, before[name]) for name, parameter in trainable.items())


def fresh_prototypes_float(network):
    """As `fresh_prototypes`, from a float64 copy: they do not depend on the network's precision."""
    twin = lively_network(SMALL).double()
    twin.load_state_dict(network.state_dict())
    return fresh_prototypes(twin)


def test_weight_decay_comes_after_modulation():
    network, trainable = training_network()
    batch, prototypes = labelled_batch(8), fresh_prototypes(network)
    updates, _ = updates_of(network, trainable, [batch], prototypes, objective())
    expected = {name: parameter.detach() - 0.1 * (updates[name] + 0.5 * parameter.detach())
                for name, parameter in trainable.items()}
    assign_gradients(trainable, updates)
    torch.optim.SGD(trainable.values(), lr=0.1, weight_decay=0.5).step()
    assert_same({name: parameter.detach() for name, parameter in trainable.items()}, expected)


def test_a_tensor_nothing_reaches_gets_no_gradient():
    """As in PyTorch: an optimiser then leaves it alone, weight decay included."""
    network, trainable = training_network()
    stranger = torch.nn.Parameter(torch.ones(3))
    stranger.grad = torch.ones(3)
    together = trainable | {"stranger": stranger}
    updates, _ = updates_of(network, together, [labelled_batch(8)], fresh_prototypes(network), objective())
    assert "stranger" not in updates
    assign_gradients(together, updates)
    assert stranger.grad is None
    assert trainable["head.weight"].grad is updates["head.weight"]


def test_a_vit_without_adapters_has_a_symmetric_form():
    """Table 4's ViT row: everything trains, adapters silent and frozen; ReGrad then changes the shared tensors."""
    network, _ = training_network(dataclasses.replace(SMALL, trainable_parts=TrainableParts.EVERYTHING))
    shared = {name: parameter for name, parameter in network.named_parameters() if parameter_owner(name) is None}
    batch, prototypes = labelled_batch(8), fresh_prototypes(network)
    on, record = updates_of(network, shared, [batch], prototypes, objective(shared=SharedTensors.SYMMETRIC))
    off, _ = updates_of(network, shared, [batch], prototypes, objective(cases=ReGradCases.OFF))
    assert record.regrad.modulated_tensors == len(shared) - 2
    same = {name for name in shared if torch.allclose(on[name], off[name], rtol=1e-9)}
    assert same == {"head.weight", "head.bias"}


def test_training_with_it_learns_eight_samples():
    network, trainable = training_network()
    batch, config = labelled_batch(8), objective()
    optimizer = torch.optim.Adam(trainable.values(), lr=3e-3)
    history = []
    for _ in range(30):
        updates, record = updates_of(network, trainable, [batch], fresh_prototypes(network), config)
        assign_gradients(trainable, updates)
        optimizer.step()
        history.append(record.cross_entropy)
    assert history[-1] < 0.1 < history[0]


def test_a_step_without_samples_is_refused():
    _, trainable = training_network()
    with pytest.raises(ValueError, match="no sample"):
        StepGradients.empty(trainable, objective()).update(objective())


def test_an_empty_batch_is_refused():
    network, trainable = training_network()
    batch = labelled_batch(8).rows(slice(0, 0))
    output = NetworkOutput(torch.zeros(0, 2), torch.zeros(0, 3, 24), torch.zeros(0, 3))
    with pytest.raises(ValueError, match="no sample"):
        batch_gradients(output, label_B=batch.label, domain_B=batch.domain, present_BM=batch.present,
                        prototypes=fresh_prototypes(network), trainable=trainable, config=objective())


def test_a_diverged_loss_is_refused_by_name():
    network, trainable = training_network()
    prototypes = fresh_prototypes(network)
    prototypes.values[0, 0, 0] = torch.nan
    with pytest.raises(ReGradError, match="SSP loss of modality 0 is nan"):
        updates_of(network, trainable, [labelled_batch(8)], prototypes, objective())


@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_an_impossible_weight_is_refused(weight):
    with pytest.raises(ValueError, match=r"objective\.ssp_weight"):
        ObjectiveConfig(ssp_weight=weight)
