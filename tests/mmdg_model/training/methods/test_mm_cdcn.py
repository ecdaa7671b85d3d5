"""Central differences and the contrastive depth loss by hand, gradients, the map's size and the published widths."""

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.config import ModelConfig
from mmdg_model.training.methods.contract import MethodError
from mmdg_model.training.methods.mm_cdcn import (
    CentralDifferenceBranch,
    CentralDifferenceConv2d,
    MultiModalCDCN,
    contrastive_depth_loss,
)
from tests.mmdg_model.training.methods.builders import TOY, method, samples


def test_a_central_difference_convolution_by_its_definition():
    generator = torch.Generator().manual_seed(1)
    layer = CentralDifferenceConv2d(2, 3, theta=0.7).double()
    maps = torch.randn(2, 2, 5, 5, dtype=torch.float64, generator=generator)
    expected = F.conv2d(maps, layer.weight, padding=1) - 0.7 * F.conv2d(maps, layer.weight.sum(dim=(2, 3),
                                                                                              keepdim=True))
    torch.testing.assert_close(layer(maps), expected)


def test_the_contrastive_depth_loss_by_hand():
    """One inner place of 0 among eight neighbours: one of 3, one of 1, the rest 0; the target is flat."""
    found = torch.zeros(1, 3, 3, dtype=torch.float64)
    found[0, 0, 0], found[0, 1, 2] = 3.0, 1.0
    assert contrastive_depth_loss(found, torch.ones_like(found)).item() == pytest.approx((9 + 1) / 8)
    assert contrastive_depth_loss(found, found).item() == 0.0


def test_gradient_of_the_contrastive_depth_loss():
    generator = torch.Generator().manual_seed(2)
    found, target = (torch.randn(2, 4, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    assert torch.autograd.gradcheck(contrastive_depth_loss, (found.requires_grad_(), target))


def test_a_branch_has_the_published_widths():
    """3x3 kernels without bias, two values a channel for the norm: counted from the published widths."""
    pairs = [(3, 64), (64, 128), (128, 196), (196, 128), *[(128, 128), (128, 196), (196, 128)] * 2, (384, 128)]
    with torch.device("meta"):
        branch = CentralDifferenceBranch(64, theta=0.7)
        network = MultiModalCDCN(ModelConfig.base(), theta=0.7)
    count = sum(9 * inputs * outputs + 2 * outputs for inputs, outputs in pairs)
    assert sum(value.numel() for value in branch.parameters()) == count
    joined = 9 * 384 * 128 + 2 * 128 + 9 * 128
    assert sum(value.numel() for value in network.parameters()) == 3 * count + joined
    assert branch(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 128, 28, 28)


def test_a_branch_reads_its_own_modality_alone():
    """The release's depth branch goes on with what RGB's second block gave."""
    network, planes = method("mm_cdcn").network, samples().planes.requires_grad_()
    for index, branch in enumerate(network.branches):
        features = []
        hook = branch.register_forward_hook(lambda _, __, output, features=features: features.append(output))
        network(planes, torch.ones(8, 3, dtype=torch.bool))
        hook.remove()
        (gradient,) = torch.autograd.grad(features[0].square().sum(), planes)
        assert [bool(gradient[:, other].any()) for other in range(3)] == [other == index for other in range(3)]


def test_a_score_is_four_times_what_the_maps_mean_has_above_one_half():
    found, batch = method("mm_cdcn"), samples()
    found.network.eval()
    with torch.no_grad():
        maps = found.network(batch.planes, batch.present)
    assert maps.shape == (8, 4, 4)
    assert maps.min() >= 0.0
    torch.testing.assert_close(found.score(batch.planes, batch.present), 4 * (maps.mean(dim=(1, 2)) - 0.5))


def test_an_image_that_gives_no_map_is_refused():
    with pytest.raises(MethodError, match=r"image_size is 16, expected a multiple of 8 from 24"):
        method("mm_cdcn", model=TOY.__class__.from_dict(TOY.to_dict() | {"image_size": 16}))
