"""The cross-modal focal loss by hand and by the authors' two branches, its gradient, and DenseNet-161's count."""

import math

import pytest
import torch
from torch import nn

from mmdg_model.training.methods.cmfl import cross_modal_focal_loss
from mmdg_model.training.methods.dense_branches import DenseFeatures
from tests.mmdg_model.training.methods.builders import method, samples


def logit(probability):
    return math.log(probability / (1.0 - probability))


def test_two_branches_by_hand():
    """p = 0.6, q = 0.9: w_a = q 2pq / (p + q) = 0.648, w_b = p 2pq / (p + q) = 0.432."""
    logits = torch.tensor([[logit(0.6), logit(0.9)], [logit(0.4), logit(0.1)]], dtype=torch.float64)
    found = cross_modal_focal_loss(logits, torch.tensor([1, 0]), torch.ones(2, 2, dtype=torch.bool), scale=2.0,
                                   focus=3.0)
    expected = -2.0 * (0.352**3 * math.log(0.6) + 0.568**3 * math.log(0.9)) / 2
    assert found.tolist() == pytest.approx([expected, expected])


def test_three_branches_are_the_mean_of_ordered_pairs():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    label, all_there = torch.tensor([1, 0, 1, 0, 0]), torch.ones(5, 3, dtype=torch.bool)
    pairs = [cross_modal_focal_loss(logits[:, pair], label, all_there[:, pair], scale=1.0, focus=3.0)
             for pair in ([0, 1], [0, 2], [1, 2])]
    torch.testing.assert_close(cross_modal_focal_loss(logits, label, all_there, scale=1.0, focus=3.0),
                               torch.stack(pairs).mean(dim=0))


def test_absent_branches_are_neither_asked_nor_trained():
    logits = torch.tensor([[logit(0.6), logit(0.9), math.nan], [logit(0.6), math.nan, math.nan]], dtype=torch.float64)
    present = torch.tensor([[True, True, False], [True, False, False]])
    found = cross_modal_focal_loss(logits, torch.tensor([1, 1]), present, scale=1.0, focus=3.0)
    assert found[0].item() == pytest.approx(-(0.352**3 * math.log(0.6) + 0.568**3 * math.log(0.9)) / 2)
    assert found[1].item() == pytest.approx(-math.log(0.6))  # no other branch: plain cross entropy


def test_its_gradient_and_no_focus_is_cross_entropy():
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(3, 3, dtype=torch.float64, generator=generator).requires_grad_()
    label, present = torch.tensor([1, 0, 1]), torch.tensor([[True] * 3, [True, False, True], [False, True, False]])
    assert torch.autograd.gradcheck(lambda given: cross_modal_focal_loss(given, label, present, scale=1.5, focus=3.0),
                                    (logits,))
    plain = nn.functional.binary_cross_entropy_with_logits(logits, label[:, None].double().expand(-1, 3),
                                                           reduction="none")
    torch.testing.assert_close(cross_modal_focal_loss(logits, label, present, scale=1.0, focus=0.0),
                               (plain * present).sum(dim=1) / present.sum(dim=1))
    far = torch.tensor([[-2000.0, 2000.0, -2000.0]]).requires_grad_()
    loss = cross_modal_focal_loss(far, torch.tensor([1]), torch.ones(1, 3, dtype=torch.bool), scale=1.0, focus=3.0)
    (gradient,) = torch.autograd.grad(loss.sum(), far)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


def test_its_network_is_half_of_densenet_161():
    """The complete one has 28,681,000 parameters with a classifier of 1,000 classes."""
    with torch.device("meta"):
        whole = DenseFeatures(48, (6, 12, 36, 24), last_transition=False)
        half = DenseFeatures(48, (6, 12))
    complete = sum(value.numel() for value in whole.parameters())
    assert complete + 1_000 * (whole.channels + 1) == 28_681_000
    assert (half.channels, half(torch.empty(1, 3, 224, 224, device="meta")).shape) == (384, (1, 384, 14, 14))


@pytest.mark.parametrize(("name", "baseline"), [("cmfl_vit", "vit_late"), ("cmfl_u_adapter", "u_adapter")])
def test_without_branches_it_is_the_network_it_stands_on_bit_for_bit(name, baseline):
    found, expected = method(name, settings={"branch_weight": 0.0}), method(baseline)
    for each in (found, expected):
        for _ in range(2):
            each.update([samples()])
    for key, value in expected.network.state_dict().items():
        assert torch.equal(found.network.state_dict()[f"body.{key}"], value), key
