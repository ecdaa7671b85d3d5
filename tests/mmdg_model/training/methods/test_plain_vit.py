"""Plain ViTs: the block by hand, fusion, absent modalities, backbone, and ReGrad without owners."""

import dataclasses

import pytest
import torch

from mmdg_model.config import PositionEmbedding
from mmdg_model.inputs import AbsenceEncoding
from mmdg_model.network import build_mmdg
from mmdg_model.training.methods.plain_vit import EarlyFusionViT, LateFusionViT, PlainViT
from mmdg_model.training.methods.registry import resolve_settings
from mmdg_model.uncertainty import build_uncertainty
from mmdg_model.weights.backbone import BackboneError, place_backbone
from tests.mmdg_model.training.methods.builders import (
    DROPPED,
    TOY,
    double,
    method,
    precise,
    samples,
    toy_backbone,
)


def silent_mmdg(backbone):
    """MMDG whose adapters say nothing: three times the plain ViT."""
    network = build_mmdg(TOY).eval()
    place_backbone(network, backbone)
    return network


def test_late_fusion_is_mmdg_with_silent_adapters():
    """Class tokens and certainty against the other implementation, from one backbone."""
    backbone, batch = toy_backbone(), samples(dropped=DROPPED)
    expected = silent_mmdg(backbone)(batch.planes, batch.present)
    network = LateFusionViT(TOY).eval()
    network.vit.place(backbone, TOY)
    found = network(batch.planes, batch.present)
    torch.testing.assert_close(found.class_tokens, expected.class_tokens, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.class_certainty, expected.class_certainty, rtol=1e-5, atol=1e-6)
    assert not found.class_certainty.requires_grad
    torch.testing.assert_close(found.logits, network.head(found.class_tokens.flatten(1)))


def test_early_fusion_starts_as_the_vit_on_the_modalities_mean():
    batch, network = samples(), EarlyFusionViT(TOY).eval()
    mean, _ = network.vit(batch.planes.mean(dim=1))
    torch.testing.assert_close(network(batch.planes, batch.present), network.head(mean), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [EarlyFusionViT, LateFusionViT])
@pytest.mark.parametrize("absence", list(AbsenceEncoding))
def test_an_absent_plane_is_muted_by_its_flag_or_read_as_it_is(kind, absence):
    batch = samples(dropped=DROPPED)
    network = kind(dataclasses.replace(TOY, absence=absence)).eval()
    with torch.no_grad():
        network.head.weight.normal_()
    other = batch.planes.clone()
    other[~batch.present] += 3.0
    first, second = (network(planes, batch.present) for planes in (batch.planes, other))
    first, second = (found if isinstance(found, torch.Tensor) else found.logits for found in (first, second))
    assert torch.equal(first, second) is (absence is AbsenceEncoding.FLAG)


@pytest.mark.parametrize("kind", [EarlyFusionViT, LateFusionViT])
@pytest.mark.parametrize(("change", "message"), [
    (lambda planes, present: (planes[:, :2], present), "planes have shape"),
    (lambda planes, present: (planes, present.long()), "presence is"),
    (lambda planes, present: (planes, present & False), "row 0 of the batch has no modality"),
])
def test_bad_input_is_refused_by_name(kind, change, message):
    batch = samples()
    with pytest.raises(ValueError, match=message):
        kind(TOY)(*change(batch.planes, batch.present))


def test_positions_are_the_backbones_or_fresh_as_the_model_says():
    backbone = toy_backbone()
    for choice, same in ((PositionEmbedding.PRETRAINED, True), (PositionEmbedding.FRESH, False)):
        config = dataclasses.replace(TOY, position_embedding=choice)
        vit = PlainViT(config)
        vit.place(backbone, config)
        assert torch.equal(vit.embedding.position, backbone.weights["embedding.position"]) is same
        assert torch.equal(vit.norm.weight, backbone.weights["norm.weight"])


@pytest.mark.parametrize("name", ["vit_early", "vit_late", "mmdg"])
def test_a_backbone_of_another_shape_is_refused(name):
    with pytest.raises(BackboneError, match="width is 24 in the network, 48 in the backbone"):
        method(name, backbone=toy_backbone(dataclasses.replace(TOY, width=48)))


def test_regrad_without_owners_modulates_all_but_the_head():
    found = precise("vit_late_regrad")
    found.start_epoch(0, lambda: [double(samples(1))])
    scalars = found.update([double(samples(dropped=DROPPED))])
    assert scalars["regrad/modulated_tensors"] == len(found.trainable) - 2
    assert scalars["regrad/relative_change"] > 0.01
    assert all(0 < scalars[f"certainty/{modality}"] < 1 for modality in ("rgb", "depth", "infrared"))
    batch = double(samples())
    output = found.network(batch.planes, batch.present)
    assert output.class_certainty.shape == (8, 3)
    assert type(found.network.uncertainty) is type(build_uncertainty(TOY))


@pytest.mark.parametrize(("settings", "weight"), [
    ({}, 0.0), ({"regrad": True}, 0.3), ({"regrad": True, "ssp_weight": 0.0}, 0.0), ({"ssp_weight": 0.5}, 0.5),
])
def test_the_weight_of_the_ssp_loss_follows_regrad_unless_it_is_set(settings, weight):
    assert resolve_settings("vit_late", settings).objective().ssp_weight == weight
