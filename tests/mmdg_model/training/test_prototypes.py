"""Prototypes: class means, both behaviours over epochs, presence, training mode, save and restore."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mmdg_model.training.prototypes import (
    PrototypeBatch,
    PrototypeConfig,
    Prototypes,
    PrototypeSums,
    UnseenRows,
    sum_class_tokens,
)
from mmdg_model.training.ssp_loss import DomainClasses, ssp_loss
from tests.mmdg_model.training.builders import CLASSES, fresh_prototypes, labelled_batch, training_network

PAPER, RELEASE = PrototypeConfig(), PrototypeConfig.release()


def sums_of(tokens, domain, present=None, classes=CLASSES):
    tokens = torch.as_tensor(tokens, dtype=torch.float64)
    present = torch.ones(tokens.shape[:2], dtype=torch.bool) if present is None else torch.as_tensor(present)
    sums = PrototypeSums.empty(classes, tokens.shape[-1])
    sums.add(tokens, torch.as_tensor(domain), present)
    return sums


def one_width(*rows):
    """`[b, 3, 1]` tokens: RGB, depth, infrared of each sample."""
    return [[[value] for value in row] for row in rows]


ALL_ROWS = one_width((1, 2, 3), (3, 4, 5), (10, 20, 30), (11, 21, 31), (12, 22, 32))  # live, live, C, P, S
ALL_DOMAINS = [0, 0, 1, 2, 3]


def test_a_prototype_is_the_mean_of_its_class_in_its_modality():
    prototypes = sums_of(ALL_ROWS, ALL_DOMAINS).prototypes(PAPER)
    assert prototypes.values.shape == (3, 4, 1)  # N_s + 1 rows
    assert prototypes.values[:, :, 0].tolist() == [[2, 10, 11, 12], [3, 20, 21, 22], [4, 30, 31, 32]]
    assert prototypes.known.all()


def test_an_absent_modality_is_not_averaged_in():
    present = torch.ones(5, 3, dtype=torch.bool)
    present[0, 1] = present[2, 1] = False
    tokens = torch.tensor(ALL_ROWS, dtype=torch.float64)
    tokens[0, 1] = torch.nan
    prototypes = sums_of(tokens, ALL_DOMAINS, present).prototypes(PAPER)
    assert prototypes.values[1, :, 0].tolist() == [4, 0, 21, 22]
    assert prototypes.known[1].tolist() == [True, False, True, True]
    assert prototypes.known[[0, 2]].all()


def test_the_paper_forgets_and_the_release_remembers():
    first = sums_of(ALL_ROWS, ALL_DOMAINS)
    second = sums_of((torch.tensor(ALL_ROWS) + 100).tolist(), ALL_DOMAINS)
    paper = second.prototypes(PAPER, first.prototypes(PAPER))
    assert paper.values[0, :, 0].tolist() == [102, 110, 111, 112]
    release = second.prototypes(RELEASE, first.prototypes(RELEASE))
    torch.testing.assert_close(release.values[0, :, 0], torch.tensor([82.0, 90.0, 91.0, 92.0]))  # 0.8 · 102 + 0.2 · 2


def test_depth_and_infrared_history_stay_apart_over_epochs():
    """The release swaps them each epoch; after three epochs of equal tokens every modality is still its own mean."""
    prototypes = None
    for _ in range(3):
        prototypes = sums_of(ALL_ROWS, ALL_DOMAINS).prototypes(RELEASE, prototypes)
    torch.testing.assert_close(prototypes.values[:, 0, 0], torch.tensor([2.0, 3.0, 4.0]))


def test_a_row_not_seen_this_epoch():
    """Ours: keeps its value, out of the denominator until first seen. Release: zero at first, decays later."""
    sampled = PrototypeConfig(batch_share=0.5, fresh_weight=0.8)
    some = sums_of(ALL_ROWS[:3], ALL_DOMAINS[:3])
    everything = sums_of(ALL_ROWS, ALL_DOMAINS)
    for config, before, after in ((sampled, 0.0, 12.0), (RELEASE, 0.0, 0.2 * 12.0)):
        unseen = some.prototypes(config)
        assert unseen.values[0, 3, 0] == before
        assert bool(unseen.known[0, 3]) is (config.unseen is UnseenRows.ZERO)
        later = some.prototypes(config, everything.prototypes(config))
        assert later.values[0, 3, 0] == pytest.approx(after)
        assert later.known.all()
        # First seen later: its own mean, undiluted by a value that never was.
        if config is sampled:
            assert everything.prototypes(config, unseen).values[0, 3, 0] == 12.0


def test_held_out_row_stands_in_the_releases_loss_only():
    classes = DomainClasses(("C", "P", "S"), held_out=("W",))
    sums = sums_of(ALL_ROWS, ALL_DOMAINS, classes=classes)
    losses = []
    for config in (PAPER, PrototypeConfig(unseen=UnseenRows.ZERO)):
        prototypes = sums.prototypes(config)
        assert prototypes.values[:, 4].eq(0).all()
        losses.append(ssp_loss(torch.tensor(ALL_ROWS, dtype=torch.float32), torch.tensor(ALL_DOMAINS),
                               torch.ones(5, 3, dtype=torch.bool), prototypes_MKD=prototypes.values,
                               known_MK=prototypes.known).loss)
    assert (losses[1] >= losses[0]).all()
    assert (losses[1][:2] > losses[0][:2] + 0.01).all()  # live faces lie nearest to the zeros
    three = sums_of(ALL_ROWS, ALL_DOMAINS).prototypes(PAPER)
    assert torch.equal(losses[0], ssp_loss(
        torch.tensor(ALL_ROWS, dtype=torch.float32), torch.tensor(ALL_DOMAINS), torch.ones(5, 3, dtype=torch.bool),
        prototypes_MKD=three.values, known_MK=three.known).loss)


def batches_of(size=8, parts=2, absent=()):
    batch = labelled_batch(size, absent=absent)
    return [PrototypeBatch(part.planes, part.present, part.domain)
            for part in (batch.rows(rows) for rows in torch.arange(size).chunk(parts))]


def test_a_pass_is_the_mean_of_evaluation_class_tokens_without_gradients():
    network, _ = training_network()
    network.blocks[0].adapters["rgb_from_depth"].dropout.p = 0.9  # would show if the pass were in training mode
    batches = batches_of(absent=[(0, 1)])
    prototypes = sum_class_tokens(network, batches, CLASSES, PAPER, seed=0, epoch=0).prototypes(PAPER)
    assert not prototypes.values.requires_grad
    network.eval()
    whole = labelled_batch(absent=[(0, 1)])
    tokens = network(whole.planes, whole.present).class_tokens.detach()
    torch.testing.assert_close(prototypes.values[0, 0], tokens[whole.domain == 0, 0].mean(dim=0).float())
    torch.testing.assert_close(prototypes.values[1, 0], tokens[4, 1].float())


@pytest.mark.parametrize("training", [True, False])
def test_every_modules_training_mode_is_restored(training):
    network, _ = training_network()
    network.train(training)
    network.blocks[0].eval()  # a frozen part that training keeps in evaluation mode
    before = {name: module.training for name, module in network.named_modules()}
    sum_class_tokens(network, batches_of(), CLASSES, PAPER, seed=0, epoch=0)
    assert {name: module.training for name, module in network.named_modules()} == before
    broken = [PrototypeBatch(torch.zeros(1, 3, 3, 5, 5), torch.ones(1, 3, dtype=torch.bool), torch.zeros(1).long())]
    with pytest.raises(ValueError, match="planes have shape"):
        sum_class_tokens(network, broken, CLASSES, PAPER, seed=0, epoch=0)
    assert {name: module.training for name, module in network.named_modules()} == before


def test_parameters_and_global_random_numbers_are_left_alone():
    network, _ = training_network()
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    sum_class_tokens(network, batches_of(), CLASSES, RELEASE, seed=0, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def batches_read(**key):
    """Indices of the batches that a pass with `batch_share` 0.5 reads: each batch holds one class token of its own."""
    class Echo(nn.Module):
        def forward(self, planes, present):
            return type("Output", (), {"class_tokens": planes[:, :, 0, 0, :1]})
    one_hot = [PrototypeBatch(torch.full((1, 3, 3, 2, 2), 2.0**index), torch.ones(1, 3, dtype=torch.bool),
                              torch.zeros(1).long()) for index in range(40)]
    total = int(sum_class_tokens(Echo(), one_hot, CLASSES, RELEASE, **key).sums[0, 0, 0])
    return [index for index in range(40) if total >> index & 1]


def test_sampled_batches_depend_on_seed_epoch_and_rank_only():
    first = batches_read(seed=0, epoch=0)
    assert 8 < len(first) < 32
    assert batches_read(seed=0, epoch=0) == first
    others = [batches_read(seed=1, epoch=0), batches_read(seed=0, epoch=1), batches_read(seed=0, epoch=0, rank=1)]
    assert all(other != first for other in others)


def test_an_empty_pass_sums_nothing():
    network, _ = training_network()
    sums = sum_class_tokens(network, [], CLASSES, RELEASE, seed=0, epoch=0)
    assert not sums.counts.any()
    assert sums.sums.shape == (3, 4, 24)


def test_prototypes_survive_a_file_bit_for_bit(tmp_path):
    network, _ = training_network()
    prototypes = fresh_prototypes(network)
    tensors, metadata = prototypes.state()
    save_file(tensors, tmp_path / "state.safetensors", metadata | {"other": "kept by the trainer"})
    with safe_open(tmp_path / "state.safetensors", framework="pt") as stored:
        restored = Prototypes.from_state({key: stored.get_tensor(key) for key in tensors}, stored.metadata(), CLASSES)
    assert torch.equal(restored.values, prototypes.values)
    assert torch.equal(restored.known, prototypes.known)
    sums = sums_of(torch.randn(5, 3, 24), ALL_DOMAINS)
    assert torch.equal(sums.prototypes(RELEASE, restored).values, sums.prototypes(RELEASE, prototypes).values)


def test_a_state_of_another_run_is_refused():
    network, _ = training_network()
    tensors, metadata = fresh_prototypes(network).state()
    with pytest.raises(ValueError, match="other training sources"):
        Prototypes.from_state(tensors, metadata, DomainClasses(("P", "C", "S")))
    with pytest.raises(ValueError, match="saved without prototypes"):
        Prototypes.from_state({}, {}, CLASSES)
    cut = {key: value[:, :3] for key, value in tensors.items()}
    with pytest.raises(ValueError, match=r"expected float32 \(3, 4, 'd'\)"):
        Prototypes.from_state(cut, metadata, CLASSES)


def test_a_source_without_samples_is_an_error_where_everything_was_read():
    with pytest.raises(ValueError, match="no training sample belongs to class 'S'"):
        sums_of(ALL_ROWS[:4], ALL_DOMAINS[:4]).prototypes(PAPER)


def test_diverged_tokens_make_no_prototype():
    tokens = torch.tensor(ALL_ROWS, dtype=torch.float64)
    tokens[3, 2] = torch.inf
    with pytest.raises(ValueError, match="infrared class tokens are not finite"):
        sums_of(tokens, ALL_DOMAINS).prototypes(RELEASE)


def test_prototypes_of_other_classes_are_not_continued():
    previous = sums_of(ALL_ROWS, ALL_DOMAINS, classes=DomainClasses(("P", "C", "S"))).prototypes(PAPER)
    with pytest.raises(ValueError, match="live, P, C, S, expected live, C, P, S"):
        sums_of(ALL_ROWS, ALL_DOMAINS).prototypes(PAPER, previous)


@pytest.mark.parametrize("change", [{"batch_share": 0.0}, {"batch_share": 1.5}, {"fresh_weight": 0.0}])
def test_impossible_shares_are_refused(change):
    with pytest.raises(ValueError, match="expected above 0"):
        PrototypeConfig(**change)
