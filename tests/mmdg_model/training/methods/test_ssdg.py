"""SSDG's losses by hand, and its network."""

import math

import pytest
import torch

from mmdg_model.config import ModelConfig
from mmdg_model.training.methods.residual_network import ResNet18
from mmdg_model.training.methods.ssdg import (
    NormalisedHead,
    asymmetric_triplet_loss,
    live_domain_loss,
    normalised_feature,
)
from mmdg_model.training.methods.trunks import Trunk, build_trunk, level_blocks
from tests.mmdg_model.training.methods.builders import TOY, double, method, precise, samples

LIVE, FIRST, SECOND = 0, 1, 2


@pytest.mark.parametrize(("places", "domains", "expected"), [
    # Distances live-live 1; live-attack 3 and 2: 1 - 3 and 1 - 2 with margin 1.5 leave only the second, 0.5, and its
    # mirror image is 1 - 3 again.
    ([0.0, 1.0, 3.0], [LIVE, LIVE, FIRST], 0.5),
    # Both anchors: 4 - 1 + 1.5 = 4.5, and 4 - 3 + 1.5 = 2.5.
    ([0.0, 4.0, 1.0], [LIVE, LIVE, FIRST], 3.5),
    # Attacks of two data sets are two classes: without a pair nothing is to be pulled together.
    ([0.0, 1.0, 3.0], [LIVE, FIRST, SECOND], 0.0),
    # Attacks of one data set are one class: 2 - 1 + 1.5 and 2 - 3 + 1.5.
    ([0.0, 1.0, 3.0], [LIVE, FIRST, FIRST], 1.5),
    ([0.0, 1.0, 3.0], [LIVE, LIVE, LIVE], 0.0),
    ([2.0], [LIVE], 0.0),
])
def test_the_triplet_loss_by_hand(places, domains, expected):
    found = asymmetric_triplet_loss(torch.tensor(places)[:, None], torch.tensor(domains), margin=1.5)
    assert found.item() == pytest.approx(expected)


def test_gradients_of_the_losses_are_right():
    torch.manual_seed(3)
    feature = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    domain, source = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 1, 2, 0, 0, 1])
    assert torch.autograd.gradcheck(lambda held: asymmetric_triplet_loss(held, domain, margin=0.5), feature)
    assert torch.autograd.gradcheck(lambda held: live_domain_loss(held, source, domain == 0), feature)
    assert torch.autograd.gradcheck(normalised_feature, feature)


def test_equal_features_have_a_finite_gradient():
    feature = torch.zeros(3, 2, requires_grad=True)
    asymmetric_triplet_loss(feature, torch.tensor([0, 0, 1]), margin=0.1).backward()
    assert feature.grad.isfinite().all()


def test_the_discriminator_is_shown_live_faces_only():
    logits = torch.tensor([[0.0, 0.0], [5.0, -5.0], [math.log(3.0), 0.0]], requires_grad=True)
    loss = live_domain_loss(logits, torch.tensor([0, 1, 0]), torch.tensor([True, False, True]))
    assert loss.item() == pytest.approx((math.log(2.0) + math.log(4.0 / 3.0)) / 2)
    loss.backward()
    assert torch.equal(logits.grad[1], torch.zeros(2))
    assert live_domain_loss(logits, torch.tensor([0, 1, 0]), torch.zeros(3, dtype=torch.bool)).item() == 0.0


def test_a_feature_keeps_the_root_of_its_length_and_a_weight_only_its_direction():
    assert float(normalised_feature(torch.tensor([[6.0, 8.0]])).norm()) == pytest.approx(math.sqrt(10.0 / 2.0))
    head = NormalisedHead(2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.1]]))
    torch.testing.assert_close(head(torch.tensor([[1.0, 2.0]])), torch.tensor([[2.2, 2.0]]))
    torch.testing.assert_close(head.weight, torch.tensor([[3.0, 4.0], [0.0, 0.1]]))  # the stored weight is its own


def test_the_reversal_reaches_the_trunk_with_its_sign_and_strength():
    """The adversarial term's gradient in the trunk is -strength times what the discriminator alone would ask for."""
    found, batch = precise("ssdg", settings={"ramp_updates": 0}), double(samples())
    trunk = list(found.network.trunk.parameters())
    reversed_gradient = torch.autograd.grad(found.loss(batch)["adversarial"], trunk)
    output = found.network(batch.planes, batch.present)
    plain = torch.autograd.grad(0.5 * live_domain_loss(found.network.discriminator(output.feature), batch.source,
                                                       batch.label == 1), trunk)
    for minus, plus in zip(reversed_gradient, plain, strict=True):
        torch.testing.assert_close(minus, -plus, rtol=1e-9, atol=1e-12)
    assert max(float(gradient.abs().max()) for gradient in plain) > 1e-6


def test_the_resnet_has_the_published_parameters_and_levels():
    network = ResNet18(64)
    assert sum(value.numel() for value in network.parameters()) == 11_689_512 - 513_000  # without ResNet's own head
    assert [tuple(level.shape[1:]) for level in ResNet18(8).levels(torch.zeros(1, 3, 64, 64))] == [
        (8, 16, 16), (16, 8, 8), (32, 4, 4), (64, 2, 2)]


@pytest.mark.parametrize("kind", list(Trunk))
@pytest.mark.parametrize("image_size", [32, 80])
def test_trunks_say_the_shapes_they_give(kind, image_size):
    config = ModelConfig(**{**{key: getattr(TOY, key) for key in ("width", "heads", "depth")},
                            "image_size": image_size})
    batch = samples(model=config)
    maps = build_trunk(kind, config, dense=True)
    levels = maps(batch.planes, batch.present).levels
    assert [tuple(level.shape[1:]) for level in levels] == [
        (width, size, size) for width, size in zip(maps.level_widths, maps.level_sizes, strict=True)]
    whole = build_trunk(kind, config, dense=False)
    assert whole(batch.planes, batch.present).vector.shape == (8, whole.width)


def test_levels_of_a_vit_are_thirds_of_its_depth():
    assert level_blocks(12) == (3, 7, 11)
    assert level_blocks(2) == (0, 1, 1)
    assert level_blocks(1) == (0, 0, 0)


@pytest.mark.parametrize(("settings", "message"), [
    ({"triplet_weight": -1.0}, "triplet_weight is -1.0, expected at least 0"),
    ({"dropout": 1.0}, "dropout is 1.0"),
    ({"trunk": "vit"}, "settings.trunk is 'vit', but this row is <Trunk.OWN: 'own'> by definition"),
])
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        method("ssdg", settings=settings)
