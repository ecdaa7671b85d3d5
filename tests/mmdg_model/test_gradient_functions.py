"""Operations with a backward pass of our own: values and gradients are PyTorch's, for any number of cotangents."""

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.gradient_functions import attention, gelu, one_channel_attention


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gradients_twice(function, inputs, cotangents):
    """Value, and the gradients that each cotangent gives over one graph."""
    leaves = [each.clone().requires_grad_() for each in inputs]
    value = function(*leaves)
    return value.detach(), [torch.autograd.grad(value, leaves, each.to(value.dtype), retain_graph=True)
                            for each in cotangents]


@pytest.mark.parametrize("queries", [1, 5])
def test_one_channel_attention_is_attention(queries):
    inputs = [random(2, 3, size, seed=seed) for seed, size in enumerate((queries, 5, 5))]
    cotangents = [random(2, 3, queries, seed=seed) for seed in (7, 8)]
    found = gradients_twice(one_channel_attention, inputs, cotangents)
    expected = gradients_twice(lambda *parts: F.scaled_dot_product_attention(
        *(each.unsqueeze(-1) for each in parts), scale=1.0).squeeze(-1), inputs, cotangents)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_large_logits_of_one_channel_stay_finite():
    inputs = [torch.full((1, 4), 1e4), torch.tensor([[-1e4, 0.0, 1.0, 1e4]]), torch.ones(1, 4)]
    value, gradients = gradients_twice(one_channel_attention, inputs, [torch.ones(1, 4)])
    assert torch.equal(value, torch.ones(1, 4))
    assert all(torch.isfinite(each).all() for each in gradients[0])


@pytest.mark.parametrize(("function", "reference", "arguments"), [
    (attention, F.scaled_dot_product_attention, 3), (gelu, F.gelu, 1)])
def test_bfloat16_is_as_close_to_the_truth_as_pytorchs_own(function, reference, arguments):
    inputs = [random(2, 3, 17, 16, seed=seed).bfloat16() for seed in range(arguments)]
    cotangents = [random(2, 3, 17, 16, seed=seed) for seed in (7, 8)]
    exact = gradients_twice(reference, [each.double() for each in inputs], [each.bfloat16() for each in cotangents])
    errors = []
    for candidate in (function, reference):
        found = gradients_twice(candidate, inputs, cotangents)
        errors.append([(a.double() - b).abs().max().item() / b.abs().max().item()
                       for a, b in ((found[0], exact[0]), *zip(sum(found[1], ()), sum(exact[1], ()), strict=True))])
    ours, pytorchs = errors
    assert max(ours) < 0.02
    assert all(mine <= 3 * its + 0.004 for mine, its in zip(ours, pytorchs, strict=True))


def test_full_precision_is_pytorchs_own():
    query, key, value = (random(1, 2, 5, 4, dtype=torch.float32, seed=seed) for seed in range(3))
    assert torch.equal(attention(query, key, value), F.scaled_dot_product_attention(query, key, value))
    assert torch.equal(gelu(query), F.gelu(query))
