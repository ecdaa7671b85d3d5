"""IADG's losses, styles and dynamic kernels by hand."""

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.training.compute import SingleProcess
from mmdg_model.training.methods.iadg import covariance, depth_loss, sensitive_entries, whitening_loss
from mmdg_model.training.methods.iadg_network import DynamicKernel
from mmdg_model.training.methods.style_bank import StyleBank, farthest_points, styles_of
from tests.mmdg_model.training.methods.builders import method, samples


def test_the_covariance_by_hand():
    """Channels (-1, 1), (2, -2) and (5, 7): normalised they are (-1, 1), (1, -1), (-1, 1)."""
    feature = torch.tensor([[[[-1.0, 1.0]], [[2.0, -2.0]], [[5.0, 7.0]]]], dtype=torch.float64)
    expected = torch.tensor([[[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]], dtype=torch.float64)
    torch.testing.assert_close(covariance(feature), expected, rtol=1e-4, atol=1e-4)


def test_what_restyling_changes_most_is_driven_to_zero_and_more_of_it_for_live_faces():
    first, second = torch.zeros(2, 3, 3), torch.zeros(2, 3, 3)
    second[:, 0, 1], second[:, 0, 2], second[:, 1, 2] = -0.5, 0.1, 0.3
    second[:, 2, 0] = second[:, 1, 1] = 9.0  # on and below the diagonal nothing counts
    chosen = sensitive_entries(first, second, torch.tensor([2.0 / 9.0, 0.001]))
    assert chosen.nonzero().tolist() == [[0, 0, 1], [0, 1, 2], [1, 0, 1]]
    # (0.5 + 0.3) / 2 and 0.5 / 1.
    assert whitening_loss(second, chosen).item() == pytest.approx((0.4 + 0.5) / 2)
    assert whitening_loss(second, torch.zeros_like(chosen)).item() == 0.0


def test_gradients_of_the_losses_are_right():
    torch.manual_seed(0)
    feature = torch.randn(2, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    chosen = sensitive_entries(covariance(feature), torch.zeros(2, 4, 4), torch.tensor([0.2, 0.1]))
    assert torch.autograd.gradcheck(lambda held: whitening_loss(covariance(held), chosen), feature)
    depth = torch.rand(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda held: depth_loss(held, torch.tensor([1, 0])), depth)


def test_the_depth_of_a_live_face_is_one_and_of_an_attack_zero():
    depth = torch.full((2, 2, 2), 0.25)
    assert depth_loss(depth, torch.tensor([1, 0])).item() == pytest.approx((0.75**2 + 0.25**2) / 2)


def test_farthest_points_by_hand():
    """Mean 4: the first is 10, then 0, then 4; the second 4 adds nothing."""
    points = torch.tensor([[0.0], [4.0], [4.0], [10.0], [2.0]])
    assert farthest_points(points, 3).tolist() == [3, 0, 1]
    assert farthest_points(points[1:3], 5).tolist() == [0]
    assert farthest_points(points[:0], 5).tolist() == []


def test_a_style_is_mean_and_spread_of_a_channel():
    found = styles_of(torch.tensor([[[[1.0, 3.0]], [[5.0, 5.0]]]]))
    torch.testing.assert_close(found, torch.tensor([[[2.0, 5.0], [1.0, 0.0]]]), rtol=1e-4, atol=4e-3)


def test_new_styles_are_mixtures_of_ones_own_labels():
    styles = torch.tensor([[[0.0], [1.0]], [[4.0], [3.0]], [[100.0], [7.0]]])
    bank = StyleBank.of(styles, torch.tensor([1, 1, 0]), kept=8, compute=SingleProcess())
    own = torch.full((3, 2, 1), -1.0)
    label = torch.tensor([1, 0, 1])
    torch.testing.assert_close(bank.mixed(own, label, drawn=False).flatten(1),
                               torch.tensor([[2.0, 2.0], [100.0, 7.0], [2.0, 2.0]]))
    torch.manual_seed(4)
    drawn = bank.mixed(own.expand(3, 2, 1).repeat(40, 1, 1), label.repeat(40), drawn=True)
    live = drawn[label.repeat(40) == 1, 0, 0]
    assert live.isfinite().all()
    assert ((live >= 0) & (live <= 4)).all()
    assert live.std() > 0.5
    assert torch.equal(drawn[1::3, 0, 0], torch.full((40,), 100.0))
    alone = StyleBank(styles[:0], styles)
    assert torch.equal(alone.mixed(own, torch.zeros(3, dtype=torch.int64), drawn=True), own)


def test_a_dynamic_kernel_is_the_samples_own_and_acts_channel_by_channel():
    torch.manual_seed(1)
    layer, maps = DynamicKernel(6, 4), torch.randn(2, 6, 5, 5)
    expected = []
    for each in maps:
        kernels = layer.kernel(each[:3].mean(dim=(1, 2))[:, None]).reshape(3, 1, 3, 3)
        moved = torch.cat([F.conv2d(each[None, channel:channel + 1], kernels[channel:channel + 1], padding=1)
                           for channel in range(3)], dim=1)
        expected.append(layer.joined(torch.cat([moved, layer.fixed(each[None, 3:])], dim=1)))
    torch.testing.assert_close(layer(maps), torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_an_epochs_styles_are_counted_and_needed():
    found = method("iadg_vit")
    with pytest.raises(RuntimeError, match="call start_epoch before"):
        found.update([samples()])
    assert found.start_epoch(0, lambda: [samples()]) == {"style_bank/live": 3.0, "style_bank/attack": 5.0}


@pytest.mark.parametrize(("settings", "message"), [
    ({"live_share": 0.0}, "live_share is 0.0, expected above 0 to 0.5"),
    ({"whitening_weight": -1.0}, "whitening_weight is -1.0, expected at least 0"),
    ({"base_styles": 0}, "base_styles is 0, expected at least 1"),
])
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        method("iadg", settings=settings)
