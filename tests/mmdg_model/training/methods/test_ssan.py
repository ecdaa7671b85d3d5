"""SSAN's contrast and assembly by hand."""

import math

import pytest
import torch

from mmdg_model.training.methods.ssan import AssemblyBlock, assembled, instance_normalised, style_contrast
from tests.mmdg_model.training.methods.builders import double, method, precise, samples


def test_the_contrast_by_hand():
    """Cosines 1, 0.6 and 0; the second donor has another label."""
    own = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    borrowed = torch.tensor([[5.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
    found = style_contrast(own, borrowed, torch.tensor([True, False, True]))
    assert found.item() == pytest.approx((-1.0 + 0.6 - 0.0) / 3)


def test_the_contrast_moves_what_is_borrowed_and_not_the_anchor():
    torch.manual_seed(2)
    own = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    borrowed = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    same = torch.tensor([True, False, True, True])
    assert torch.autograd.gradcheck(lambda held: style_contrast(own, held, same), borrowed)
    style_contrast(own, borrowed, same).backward()
    assert own.grad is None


def test_assembly_replaces_mean_and_spread():
    """Values -1 and 1 have spread 1: gamma 2 and beta 5 make 3 and 7 of them."""
    content = torch.tensor([[[[0.0, 4.0]]]], dtype=torch.float64)
    found = assembled(content, torch.tensor([[2.0]], dtype=torch.float64), torch.tensor([[5.0]], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[[[3.0, 7.0]]]], dtype=torch.float64), rtol=1e-5, atol=1e-5)
    assert torch.equal(instance_normalised(torch.full((1, 1, 1, 1), 3.0)), torch.zeros(1, 1, 1, 1))
    content = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    style = [torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(assembled, (content, *style))


def test_both_convolutions_of_an_assembly_block_act():
    torch.manual_seed(0)
    block, content = AssemblyBlock(4), torch.randn(1, 4, 3, 3)
    style = torch.ones(1, 4), torch.zeros(1, 4)
    before = block(content, *style)
    for layer in (block.first, block.second):
        held = layer.weight.detach().clone()
        torch.nn.init.normal_(layer.weight)
        assert float((block(content, *style) - before).detach().abs().max()) > 0.01
        with torch.no_grad():
            layer.weight.copy_(held)


def test_the_score_is_of_a_samples_own_style():
    """The feature that is classified is the content with its own style; with another's it is another."""
    found, batch = precise("ssan"), double(samples())
    output = found.network(batch.planes, batch.present)
    own = found.network.assemble(*output.parts)
    torch.testing.assert_close(own, output.feature)
    other = found.network.assemble(output.parts.content, output.parts.gamma.roll(1, 0), output.parts.beta.roll(1, 0))
    assert float((other - own).detach().abs().max()) > 1e-3


def test_the_discriminator_sees_every_sample_and_starts_at_chance_over_data_sets():
    found = method("ssan")
    scalars = found.update([samples()])
    assert scalars["loss/adversarial"] == pytest.approx(math.log(3.0), abs=0.3)


@pytest.mark.parametrize(("settings", "message"), [
    ({"contrast_weight": -0.1}, "contrast_weight is -0.1, expected at least 0"),
    ({"donors": "best"}, "Invalid enum value 'best'"),
])
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        method("ssan", settings=settings)
