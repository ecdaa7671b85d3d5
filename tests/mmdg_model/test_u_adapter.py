"""The U-Adapter against recorded outputs of the released module, and its own properties."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmdg_model.config import ModelConfig, UncertaintyReduction, UncertaintyStatistic
from mmdg_model.u_adapter import CentralDifferenceConvolution, UAdapter, build_u_adapter
from mmdg_model.uncertainty import AnalyticUncertainty, build_uncertainty

GOLDEN = Path(__file__).parents[1] / "data" / "u_adapter.npz"

#: Parameter names of the release on the left, ours on the right.
RELEASED_NAMES = {
    "adapter_conv.conv.weight": "convolution.weight",
    "cross_attention.q_linear.weight": "cross_attention.query.weight",
    "cross_attention.k_linear.weight": "cross_attention.key.weight",
    "cross_attention.v_linear.weight": "cross_attention.value.weight",
    "cross_attention.proj.weight": "cross_attention.output.weight",
    "cross_attention.proj.bias": "cross_attention.output.bias",
    "ln_before.weight": "norm.weight",
    "ln_before.bias": "norm.bias",
    "adapter_down_1.weight": "own_down.weight",
    "adapter_down_1.bias": "own_down.bias",
    "adapter_down_2.weight": "source_down.weight",
    "adapter_down_2.bias": "source_down.bias",
    "adapter_up.weight": "up.weight",
    "adapter_up.bias": "up.bias",
}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def released_adapter(golden):
    adapter = UAdapter(width=48, adapter_width=8, heads=8, theta=0.5, dropout=0.2).eval()
    adapter.load_state_dict({ours: golden[f"weight/{theirs}"] for theirs, ours in RELEASED_NAMES.items()})
    return adapter


def random_adapter(seed=0):
    torch.manual_seed(seed)
    adapter = build_u_adapter(ModelConfig(width=48, heads=3)).eval()
    torch.nn.init.normal_(adapter.up.weight)
    return adapter


def test_every_released_weight_is_mapped(golden):
    recorded = {name.removeprefix("weight/") for name in golden if name.startswith("weight/")}
    assert recorded == set(RELEASED_NAMES)


@torch.inference_mode()
def test_output_equals_the_released_module(golden, released_adapter):
    certainty = golden["certainty"].mean(dim=-1, keepdim=True)
    output = released_adapter(golden["own"], golden["other"], certainty)
    assert golden["output"].std() > 0.1
    torch.testing.assert_close(output, golden["output"], atol=1e-5, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("fault", ["swapped inputs", "no certainty", "plain convolution", "class token as a patch"])
def test_golden_output_notices(golden, released_adapter, fault):
    own, source, certainty = golden["own"], golden["other"], golden["certainty"].mean(dim=-1, keepdim=True)
    if fault == "swapped inputs":
        own, source = source, own
    if fault == "no certainty":
        certainty = torch.ones_like(certainty)
    adapter = UAdapter(width=48, adapter_width=8, heads=8, theta=0.0 if fault == "plain convolution" else 0.5,
                       dropout=0.2).eval()
    adapter.load_state_dict(released_adapter.state_dict())
    if fault == "class token as a patch":
        own, source, certainty = (torch.roll(tokens, 1, dims=1) for tokens in (own, source, certainty))
    assert (adapter(own, source, certainty) - golden["output"]).abs().max() > 1e-3


def test_certainty_closed_form_equals_the_recorded_one(golden):
    certainty = build_uncertainty(ModelConfig()).element_certainty(golden["attention_output"])
    torch.testing.assert_close(certainty, golden["certainty"], atol=1e-6, rtol=0)


def test_certainty_agrees_with_recorded_sampling(golden):
    """400 dropout samples estimate a standard deviation to about 1 / sqrt(2 · 400) = 3.5 %, more for p far from 1/2."""
    estimator = build_uncertainty(ModelConfig())
    uncertainty = estimator.element_uncertainty(golden["attention_output"])
    sampled = -golden["certainty_monte_carlo_400"].log() / estimator.rate
    seen = uncertainty > 1e-3
    ratio = sampled[seen] / uncertainty[seen]
    assert abs(ratio.mean().item() - 1) < 2e-3
    assert ratio.std().item() < 0.04
    assert (ratio - 1).abs().max().item() < 0.25


@pytest.mark.parametrize("statistic", list(UncertaintyStatistic))
@pytest.mark.parametrize("reduction", list(UncertaintyReduction))
def test_larger_activation_is_less_certain(statistic, reduction):
    estimator = AnalyticUncertainty(rate=2.25, dropout=0.3, statistic=statistic, reduction=reduction)
    activation = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    certainty = torch.stack([estimator(activation * gain) for gain in (0.0, 0.5, 1.0, 2.0)])
    assert certainty.shape == (4, 2, 5, 1)
    assert torch.equal(certainty[0], torch.ones(2, 5, 1))
    assert (certainty.diff(dim=0) < 0).all()
    assert (certainty > 0).all()


def test_paper_and_release_statistics_by_hand():
    """a = (1, 2), p = 0.3: variance a² · 3/7, rate 1."""
    activation = torch.tensor([[[1.0, 2.0]]])
    cases = {
        ("variance", "mean_then_exp"): np.exp(-(3 / 7) * 2.5),
        ("variance", "exp_then_mean"): (np.exp(-3 / 7) + np.exp(-12 / 7)) / 2,
        ("standard_deviation", "mean_then_exp"): np.exp(-1.5 * np.sqrt(3 / 7)),
        ("standard_deviation", "exp_then_mean"): (np.exp(-np.sqrt(3 / 7)) + np.exp(-2 * np.sqrt(3 / 7))) / 2,
    }
    for (statistic, reduction), expected in cases.items():
        estimator = AnalyticUncertainty(rate=1.0, dropout=0.3, statistic=UncertaintyStatistic(statistic),
                                        reduction=UncertaintyReduction(reduction))
        assert estimator(activation).item() == pytest.approx(expected, rel=1e-6)


def test_certainty_carries_no_gradient():
    activation = torch.randn(1, 3, 8, requires_grad=True)
    assert not build_uncertainty(ModelConfig())(activation).requires_grad


@torch.inference_mode()
def test_folded_convolution_equals_its_definition():
    torch.manual_seed(0)
    cdc = CentralDifferenceConvolution(channels=8, theta=0.7)
    tokens = torch.randn(2, 26, 8)
    output = cdc(tokens)
    patches = tokens[:, 1:].transpose(1, 2).reshape(2, 8, 5, 5)
    taps = cdc.weight.sum(dim=(2, 3), keepdim=True)
    for image, result in ((patches, output[:, 1:]), (tokens[:, :1].transpose(1, 2).reshape(2, 8, 1, 1), output[:, :1])):
        expected = F.conv2d(image, cdc.weight, padding=1) - 0.7 * F.conv2d(image, taps)
        torch.testing.assert_close(result, expected.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_fresh_adapter_is_silent():
    adapter = build_u_adapter(ModelConfig(width=48, heads=3))
    tokens = torch.randn(2, 17, 48)
    assert torch.equal(adapter(tokens, tokens.flip(0), torch.ones(2, 17, 1)), torch.zeros(2, 17, 48))


@torch.inference_mode()
def test_certainty_zero_makes_attention_uniform():
    """With U = 0 every query row is uniform, so what the source shows no longer matters."""
    adapter = random_adapter()
    own, one, other = (torch.randn(2, 17, 48) for _ in range(3))
    nothing, full = torch.zeros(2, 17, 1), torch.ones(2, 17, 1)
    torch.testing.assert_close(adapter(own, one, nothing), adapter(own, other, nothing))
    assert (adapter(own, one, full) - adapter(own, other, full)).abs().max() > 1e-3


def test_dropout_acts_in_training_only():
    adapter = random_adapter()
    own, source, certainty = torch.randn(2, 17, 48), torch.randn(2, 17, 48), torch.ones(2, 17, 1)
    assert torch.equal(adapter(own, source, certainty), adapter(own, source, certainty))
    adapter.train()
    assert not torch.equal(adapter(own, source, certainty), adapter(own, source, certainty))
