"""Gradients by modality: they sum to the plain gradient, each is its modality's own, all owned tensors take part."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.config import AdapterDirections, HeadInput, ModelConfig, TrainableParts
from mmdg_model.network import MODALITIES, build_mmdg
from mmdg_model.scorer import Modality
from mmdg_model.trainable import trainable_parameters
from mmdg_model.training.modality_gradients import is_head, modality_gradients, modulated_names, parameter_owner
from mmdg_model.training.regrad import ReGradCases, ReGradConfig, ReGradTarget, SharedTensors
from mmdg_model.training.ssp_loss import ssp_loss
from tests.mmdg_model.training.builders import SMALL, fresh_prototypes, labelled_batch, training_network

OWNER_BY_NAME = [
    ("embeddings.0.class_token", Modality.RGB),
    ("embeddings.1.position", Modality.DEPTH),
    ("embeddings.2.patches.weight", Modality.INFRARED),
    ("blocks.3.adapters.rgb_from_depth.up.weight", Modality.RGB),
    ("blocks.3.adapters.depth_from_rgb.up.bias", Modality.DEPTH),
    ("blocks.11.adapters.infrared_from_rgb.norm.weight", Modality.INFRARED),
    ("blocks.0.adapters.infrared_from_depth.up.weight", Modality.INFRARED),
    ("blocks.11.block.attention.output.weight", None),
    ("norm.weight", None),
    ("head.weight", None),
]


@pytest.mark.parametrize(("name", "owner"), OWNER_BY_NAME)
def test_a_tensor_belongs_to_the_modality_it_feeds(name, owner):
    assert parameter_owner(name) is owner


def test_everything_owned_is_modulated_at_the_papers_size():
    """672 adapter tensors, 3 class tokens, 3 position embeddings; not the 6 that the released code reaches."""
    names = list(trainable_parameters(ModelConfig.release()))
    modulated = modulated_names(names, ReGradConfig())
    assert len([name for name in modulated if ".adapters." in name]) == 672
    assert len(modulated) == 672 + 6
    assert {str(parameter_owner(name)) for name in modulated} == set(MODALITIES)
    with_shared = modulated_names(names, ReGradConfig(shared=SharedTensors.SYMMETRIC))
    assert set(names) - set(with_shared) == {"head.weight", "head.bias"}
    shared = {name for name in names if name.startswith(("norm.", "blocks.11.block."))}
    assert set(with_shared) - set(modulated) == shared
    assert modulated_names(names, ReGradConfig(cases=ReGradCases.OFF)) == ()


def losses(network, batch, prototypes, ssp_weight=0.3):
    output = network(batch.planes, batch.present)
    ssp = ssp_loss(output.class_tokens, batch.domain, batch.present, prototypes_MKD=prototypes.values,
                   known_MK=prototypes.known)
    return F.cross_entropy(output.logits, batch.label), ssp_weight * ssp.mean_over_batch(), output


def plain_gradients(loss, trainable):
    found = torch.autograd.grad(loss, list(trainable.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(trainable, found, strict=True) if gradient is not None}


def split_gradients(network, trainable, batch, prototypes, config, **changes):
    cross_entropy, domain_loss, output = losses(network, batch, prototypes)
    return modality_gradients(cross_entropy=cross_entropy, domain_loss_M=domain_loss,
                              class_tokens_BMD=output.class_tokens, parameters=trainable,
                              head=[name for name in trainable if is_head(name)],
                              modulated=modulated_names(trainable, config), target=config.target, **changes)


CONFIGS = [
    SMALL,
    replace(SMALL, trainable_parts=TrainableParts.EVERYTHING, adapter_directions=AdapterDirections.ALL_PAIRS),
    replace(SMALL, head_input=HeadInput.MEAN_TOKEN),
]


@pytest.mark.parametrize("config", CONFIGS, ids=["release parts", "everything, all pairs", "mean token"])
@pytest.mark.parametrize("target", list(ReGradTarget))
@pytest.mark.parametrize("shared", list(SharedTensors))
def test_the_parts_sum_to_the_plain_gradient(config, target, shared):
    network, trainable = training_network(config)
    batch = labelled_batch(absent=[(1, 1), (2, 2), (2, 1)])
    prototypes = fresh_prototypes(network)
    cross_entropy, domain_loss, _ = losses(network, batch, prototypes)
    expected = plain_gradients(cross_entropy + domain_loss.sum(), trainable)
    parts = split_gradients(network, trainable, batch, prototypes, ReGradConfig(target=target, shared=shared))
    assert set(parts.by_modality) | set(parts.plain) == set(expected) == set(trainable)
    for name, gradient in expected.items():
        total = torch.zeros_like(gradient)
        if name in parts.by_modality:
            total = total + parts.by_modality[name].sum(dim=0)
        if name in parts.plain:
            total = total + parts.plain[name]
        torch.testing.assert_close(total, gradient, rtol=1e-9, atol=1e-12)


def test_cross_entropy_of_a_modality_is_the_gradient_with_the_other_tokens_held():
    """The m-th part equals the gradient of CE when the head reads the other class tokens as constants."""
    network, trainable = training_network()
    batch, prototypes = labelled_batch(), fresh_prototypes(network)
    parts = split_gradients(network, trainable, batch, prototypes, ReGradConfig())
    for index in range(3):
        tokens = network(batch.planes, batch.present).class_tokens
        held = torch.stack([tokens[:, m] if m == index else tokens[:, m].detach() for m in range(3)], dim=1)
        expected = plain_gradients(F.cross_entropy(network.head(held.flatten(1)), batch.label), trainable)
        for name in parts.by_modality:
            gradient = expected.get(name, torch.zeros_like(trainable[name]))
            torch.testing.assert_close(parts.by_modality[name][index], gradient, rtol=1e-9, atol=1e-12)


def test_ssp_target_holds_the_ssp_gradients_and_plain_the_cross_entropy():
    network, trainable = training_network()
    batch, prototypes = labelled_batch(), fresh_prototypes(network)
    parts = split_gradients(network, trainable, batch, prototypes, ReGradConfig(target=ReGradTarget.SSP))
    cross_entropy, _, _ = losses(network, batch, prototypes)
    for name, gradient in plain_gradients(cross_entropy, trainable).items():
        if name in parts.by_modality or is_head(name):
            torch.testing.assert_close(parts.plain[name], gradient, rtol=1e-9, atol=1e-12)
    for index in range(3):
        _, domain_loss, _ = losses(network, batch, prototypes)
        expected = plain_gradients(domain_loss[index], trainable)
        for name in parts.by_modality:
            gradient = expected.get(name, torch.zeros_like(trainable[name]))
            torch.testing.assert_close(parts.by_modality[name][index], gradient, rtol=1e-9, atol=1e-12)


def test_the_head_keeps_the_plain_cross_entropy_gradient():
    network, trainable = training_network()
    batch, prototypes = labelled_batch(), fresh_prototypes(network)
    cross_entropy, _, _ = losses(network, batch, prototypes)
    expected = plain_gradients(cross_entropy, trainable)
    for target in ReGradTarget:
        parts = split_gradients(network, trainable, batch, prototypes, ReGradConfig(target=target))
        for name in ("head.weight", "head.bias"):
            assert torch.equal(parts.plain[name], expected[name])
            assert name not in parts.by_modality


def test_off_is_the_baseline_bit_for_bit():
    network, trainable = training_network()
    batch, prototypes = labelled_batch(), fresh_prototypes(network)
    cross_entropy, domain_loss, _ = losses(network, batch, prototypes)
    (cross_entropy + domain_loss.sum()).backward()
    parts = split_gradients(network, trainable, batch, prototypes, ReGradConfig(cases=ReGradCases.OFF))
    assert parts.by_modality == {}
    assert set(parts.plain) == set(trainable)
    for name, parameter in trainable.items():
        assert torch.equal(parts.plain[name], parameter.grad)


def test_unreached_tensors_are_those_of_the_last_blocks():
    """At the paper's depth a modality's loss leaves out 28 / 56 / 56 adapter tensors, 30 / 58 / 58 with the head."""
    config = replace(SMALL, depth=12)
    network, trainable = training_network(config)
    batch, prototypes = labelled_batch(4, config), fresh_prototypes(network, config)
    parts = split_gradients(network, trainable, batch, prototypes, ReGradConfig(target=ReGradTarget.SSP))
    assert len(parts.by_modality) == 678
    unreached = [{name for name, gradient in parts.by_modality.items()
                  if ".adapters." in name and not gradient[index].any()} for index in range(3)]
    assert [len(names) for names in unreached] == [28, 56, 56]
    assert {name.split(".")[1] + " " + name.split(".")[3] for name in unreached[1]} == {
        "11 rgb_from_depth", "11 rgb_from_infrared", "11 infrared_from_rgb", "10 infrared_from_rgb"}


def test_one_token_read_by_the_head_leaves_cross_entropy_one_modality():
    """With `rgb_token` the cross entropy has an RGB part only: the target `ce` finds nothing to balance there."""
    network, trainable = training_network(replace(SMALL, head_input=HeadInput.RGB_TOKEN))
    parts = split_gradients(network, trainable, labelled_batch(), fresh_prototypes(network), ReGradConfig())
    assert all(not gradient[1:].any() for gradient in parts.by_modality.values())
    assert any(gradient[0].any() for gradient in parts.by_modality.values())


def test_a_loss_scale_multiplies_everything():
    network, trainable = training_network()
    batch, prototypes = labelled_batch(), fresh_prototypes(network)
    for target in ReGradTarget:
        config = ReGradConfig(target=target)
        once, scaled = (split_gradients(network, trainable, batch, prototypes, config, loss_scale=scale)
                        for scale in (1.0, 1024.0))
        for mapping, reference in ((scaled.by_modality, once.by_modality), (scaled.plain, once.plain)):
            assert mapping.keys() == reference.keys()
            for name in mapping:
                assert torch.equal(mapping[name], 1024.0 * reference[name])


@pytest.mark.parametrize("stray", ["head.weight", "no.such.parameter"])
def test_what_cannot_be_modulated_is_refused(stray):
    network = build_mmdg(SMALL)
    with pytest.raises(ValueError, match=stray):
        modality_gradients(cross_entropy=torch.zeros(()), domain_loss_M=torch.zeros(3),
                           class_tokens_BMD=torch.zeros(1, 3, 24), parameters=dict(network.named_parameters()),
                           head=["head.weight"], modulated=[stray], target=ReGradTarget.BOTH)
