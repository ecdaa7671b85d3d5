"""The gradient turns round, and the ramp is the published one."""

import pytest
import torch

from mmdg_model.training.methods.gradient_reversal import DomainDiscriminator, ramp, reverse_gradient


def test_forward_it_is_the_identity_and_backward_minus_its_strength():
    value = torch.tensor([1.0, -2.0], dtype=torch.float64, requires_grad=True)
    through = reverse_gradient(value, 0.25)
    assert torch.equal(through, value)
    (gradient,) = torch.autograd.grad((through**3).sum(), value)
    torch.testing.assert_close(gradient, -0.25 * 3 * value.detach()**2)


def test_a_discriminator_learns_while_what_lies_before_it_unlearns():
    """One step of each on a feature that tells the domain: the discriminator's loss falls by its own step and rises
    by the feature's."""
    torch.manual_seed(0)
    discriminator = DomainDiscriminator(2, 8, 2, dropout=0.0).double()
    feature = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    domain = torch.tensor([0, 1])

    def loss(held):
        return torch.nn.functional.cross_entropy(discriminator(held), domain)

    before = loss(feature)
    loss(reverse_gradient(feature, 1.0)).backward()
    with torch.no_grad():
        assert loss(feature - 0.1 * feature.grad) > before
        for parameter in discriminator.parameters():
            parameter -= 0.1 * parameter.grad
        assert loss(feature) < before


@pytest.mark.parametrize(("update", "length", "strength"), [
    (0, 4000, 0.0), (400, 4000, 0.46211716), (4000, 4000, 0.99990920), (9999, 4000, 0.99990920), (0, 0, 1.0),
])
def test_the_ramp_is_danns(update, length, strength):
    assert ramp(update, length) == pytest.approx(strength)
