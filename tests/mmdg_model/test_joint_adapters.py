"""In training a block's adapters run as one batch and the last block for its class tokens: the same network."""

from dataclasses import replace

import pytest
import torch

from mmdg_model.config import (
    AdapterDirections,
    AttentionDivisor,
    ModelConfig,
    ResidualSource,
    UncertaintyReduction,
)
from tests.mmdg_model.builders import lively_network, random_planes

SMALL = ModelConfig(width=24, heads=3, depth=2, image_size=48, adapter_dropout=0.0)
CONFIGS = {
    "default": SMALL,
    "all pairs": replace(SMALL, adapter_directions=AdapterDirections.ALL_PAIRS),
    "two channels a head": replace(SMALL, adapter_heads=4),
    "one head, divided by the width": replace(SMALL, adapter_heads=1, attention_divisor=AttentionDivisor.ADAPTER_WIDTH),
    "residual of the paper": replace(SMALL, residual_source=ResidualSource.NORMED,
                                     uncertainty_reduction=UncertaintyReduction.MEAN_THEN_EXP),
    "one block": replace(SMALL, depth=1),
}
PRESENT = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 0, 0]], dtype=torch.bool)


def outcome(network, planes):
    """Outputs, and the gradients of a scalar that depends on all of them."""
    network.zero_grad()
    output = network(planes, PRESENT)
    (output.logits.square().sum() + output.class_tokens.sin().sum()).backward()
    return output, {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("name", CONFIGS)
def test_training_and_evaluation_compute_the_same(name):
    network, planes = lively_network(CONFIGS[name]).double(), random_planes(4, SMALL).double()
    expected_output, expected = outcome(network.eval(), planes)
    found_output, found = outcome(network.train(), planes)
    torch.testing.assert_close(found_output, expected_output, rtol=1e-9, atol=1e-11)
    for parameter, gradient in expected.items():
        if gradient is None or not gradient.any():  # what only the last block's patch tokens would use
            assert found[parameter] is None or not found[parameter].any(), parameter
        else:
            torch.testing.assert_close(found[parameter], gradient, rtol=1e-8, atol=1e-11 * gradient.abs().max().item(),
                                       msg=parameter)


def test_under_autocast_it_stays_near_full_precision():
    network, planes = lively_network(SMALL).train(), random_planes(4, SMALL)
    exact = network(planes, PRESENT).class_tokens
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(planes, PRESENT)
    assert (rounded.class_tokens - exact).abs().mean() < 0.03 * exact.abs().mean()
    rounded.logits.float().square().sum().backward()
    assert all(parameter.grad is not None and torch.isfinite(parameter.grad).all()
               for parameter in network.parameters())


def test_dropout_acts_in_training_and_draws_anew():
    network, planes = lively_network(replace(SMALL, adapter_dropout=0.5)).train(), random_planes(4, SMALL)
    first, second = (network(planes, PRESENT).logits for _ in range(2))
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    again = network(planes, PRESENT).logits
    torch.manual_seed(3)
    assert torch.equal(again, network(planes, PRESENT).logits)
