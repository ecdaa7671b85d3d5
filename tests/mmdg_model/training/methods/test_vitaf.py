"""ViTAF's loss, adapters and transformation by hand."""

import math

import pytest
import torch

from mmdg_model.training.methods.vitaf import BottleneckAdapter, FeatureTransform, squared_cosine
from tests.mmdg_model.training.methods.builders import double, method, precise, samples, weights


def test_the_squared_cosine_by_hand():
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    second = torch.tensor([[0.0, 3.0], [-5.0, 0.0], [3.0, 4.0], [1.0, 1.0]])
    torch.testing.assert_close(squared_cosine(first, second), torch.tensor([0.0, 1.0, 0.36, 0.0]))


def test_its_gradient_is_right():
    torch.manual_seed(0)
    both = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(squared_cosine, both)


def test_the_term_is_counted_in_the_loss():
    found, batch = precise("vitaf"), double(samples())
    first = found.loss(batch)["orthogonality"]
    assert 0.0 < first.item() <= 0.03
    gradients = torch.autograd.grad(first, [found.network.adapters[0].mlp[0].up.weight])
    assert float(gradients[0].abs().max()) > 0.0


def test_a_fresh_adapter_says_next_to_nothing():
    torch.manual_seed(0)
    adapter = BottleneckAdapter(16, 8)
    assert 0.0 < float(adapter(torch.randn(2, 3, 16)).detach().abs().max()) < 1e-4


def test_the_transformation_shakes_in_training_alone_with_the_published_spread():
    layer, tokens = FeatureTransform(4000), torch.full((1, 1, 4000), 2.0)
    torch.manual_seed(0)
    shaken = layer(tokens).detach()
    assert shaken.std().item() == pytest.approx(math.hypot(2.0 * 0.3, 0.5), rel=0.05)
    assert shaken.mean().item() == pytest.approx(2.0, abs=0.05)
    assert torch.equal(layer.eval()(tokens), tokens)


def test_first_only_the_head_trains():
    found = method("vitaf", settings={"head_updates": 1})
    before = weights(found)
    found.update([samples()])
    changed = {key for key, value in weights(found).items() if not torch.equal(value, before[key])}
    assert changed == {"embedding.0.weight", "embedding.0.bias", "head.weight"}
    found.update([samples()])
    assert any(key.startswith("adapters.") and not torch.equal(value, before[key])
               for key, value in weights(found).items())


@pytest.mark.parametrize(("settings", "message"), [
    ({"head_updates": -1}, "head_updates is -1, expected at least 0"),
    ({"orthogonality_weight": -0.1}, "orthogonality_weight is -0.1, expected at least 0"),
])
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        method("vitaf", settings=settings)
