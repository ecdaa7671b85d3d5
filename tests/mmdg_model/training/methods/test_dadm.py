"""DADM's losses, hyperplanes and owners by hand."""

import math

import pytest
import torch

from mmdg_model.training.methods.dadm import angle_loss, mutual_information, parameter_owner, pulled_together
from tests.mmdg_model.training.methods.builders import double, method, precise, samples, weights


def test_mutual_information_by_hand():
    first, second = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert mutual_information(first, second).item() == pytest.approx(1.0)  # joint 1, marginal ln mean(e^0, e^0) = 0
    assert mutual_information(first, second.flip(0)).item() == pytest.approx(-1.0)  # joint 0, marginal ln e
    assert mutual_information(first[:1], second[:1]).item() == 0.0


def test_information_is_none_where_modalities_are_unrelated():
    """The release's statistic is additive in the two and takes the same value related or not."""
    torch.manual_seed(0)
    first, other = torch.randn(400, 3), torch.randn(400, 3)
    assert abs(mutual_information(first, other).item()) < 0.25
    assert mutual_information(first, first + 0.1 * other).item() > 0.7


def test_the_angle_loss_by_hand():
    tokens = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], [[0.0, 2.0], [2.0, 0.0], [1.0, 0.0]],
                           [[5.0, 0.0], [0.0, 1.0], [0.0, 1.0]]])
    present = torch.ones(3, 3, dtype=torch.bool)
    chosen = {"live": 1.0, "attack": 0.85}
    # Samples 0 and 1, both live, of two sources. RGB: cosine 0, (0 - 1)² = 1; others 1, 0. Between modalities:
    # cosines of sample 0 are 1, 1, 1, of sample 1 are 0, 0, 1: 1 + 1 + 0. The attack has no partner.
    label, source = torch.tensor([1, 1, 0]), torch.tensor([0, 1, 2])
    assert angle_loss(tokens, label, source, present, **chosen).item() == pytest.approx(3.0)
    one_source = torch.tensor([0, 0, 2])
    assert angle_loss(tokens, label, one_source, present, **chosen).item() == 0.0
    attacks = angle_loss(tokens, 0 * label, torch.tensor([0, 1, 0]), present, **chosen)
    # Now 0 and 1 as attacks: (0 - .85)² + 2 (1 - .85)² + 2; and 1 with 2: three modalities at cosine 0, angles
    # 0, 0, 1 against 0, 0, 1.
    assert attacks.item() == pytest.approx((0.85**2 + 2 * 0.15**2 + 2 + 3 * 0.85**2) / 2)
    absent = present.clone()
    absent[1, 0] = False
    assert angle_loss(tokens, label, source, absent, **chosen).item() == pytest.approx(0.0)  # depth, infrared agree


@pytest.mark.parametrize("loss", [
    mutual_information,
    lambda a, b: angle_loss(torch.stack([a, b, a * b], dim=1), torch.tensor([1, 1, 0]), torch.tensor([0, 1, 1]),
                            torch.ones(3, 3, dtype=torch.bool), live=1.0, attack=0.85),
])
def test_gradients_are_right(loss):
    torch.manual_seed(0)
    both = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(loss, both)


def test_hyperplanes_are_pulled_towards_the_least_similar_and_keep_their_norms():
    degrees = torch.tensor([0.0, 60.0, 90.0]) * math.pi / 180
    planes = torch.stack([torch.stack([degrees.cos(), degrees.sin()], dim=1)] * 2, dim=1) * 3.0
    pulled = pulled_together(planes, 0.1)
    turned = torch.atan2(pulled[:, 0, 1], pulled[:, 0, 0]) * 180 / math.pi
    assert turned[0] > 0.0  # towards 90
    assert turned[1] < 60.0  # towards 0, which is farther from it than 90
    assert turned[2] < 90.0
    torch.testing.assert_close(pulled.norm(dim=-1), planes.norm(dim=-1))
    assert torch.equal(pulled_together(planes, 0.0), planes)
    assert torch.equal(pulled_together(planes[:1], 0.5), planes[:1])


def test_after_an_update_the_hyperplanes_have_been_pulled():
    ends = []
    for pull in (0.0, 0.2):
        found = method("dadm", settings={"pull": pull})
        found.start_epoch(0, lambda: [samples()])
        found.update([samples()])
        ends.append(weights(found))
    assert not torch.equal(ends[0]["head.weight"], ends[1]["head.weight"])
    assert torch.equal(ends[0]["norm.weight"], ends[1]["norm.weight"])


def test_embeddings_and_adapters_have_owners_and_masks_none():
    found = method("dadm")
    owners = {name: parameter_owner(name) for name in found.trainable}
    assert set(found._modulated) == {name for name, owner in owners.items() if owner is not None}
    assert owners["embeddings.1.class_token"] == "depth"
    assert owners["adapters.0.infrared.up.weight"] == "infrared"
    assert owners["pairs.0.2.fuse.0.weight"] is None


def test_each_sample_is_classified_by_its_own_sources_hyperplane():
    found, batch = precise("dadm", settings={"angle_weight": 0.0, "modality_weight": 0.0, "regrad_cases": "off",
                                             "pull": 0.0}), double(samples())
    found.start_epoch(0, lambda: [batch])
    of_first = batch._replace(**{key: value[batch.source == 0] for key, value in batch._asdict().items()})
    found.update([of_first])
    gradient = found.network.head.weight.grad.reshape(3, 2, -1)
    assert gradient[0].abs().max() > 0.0
    assert gradient[1:].abs().max() == 0.0


@pytest.mark.parametrize(("settings", "message"), [
    ({"pull": 1.5}, "pull is 1.5, expected 0 to 1"), ({"angle_weight": -1.0}, "angle_weight is -1.0, expected"),
    ({"dropout": 1.0}, "dropout is 1.0"),
])
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        method("dadm", settings=settings)
