"""OGM-GE by hand: the split head, the factors, the noise, and which gradients they act on."""

import math

import pytest
import torch

from mmdg_model.config import HeadInput
from mmdg_model.training.methods.contract import MethodError
from mmdg_model.training.methods.ogm_ge import gradient_factors, modality_probability, modulated
from mmdg_model.training.modality_gradients import parameter_owner
from tests.mmdg_model.training.methods.builders import DROPPED, STILL, TOY, double, method, precise, samples


def test_the_head_splits_by_modality():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    weight = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3.0), 5.0, 5.0, math.log(2.0)]])
    bias = torch.tensor([0.0, 2.0 * math.log(2.0)])
    found = modality_probability(tokens, weight, bias, torch.tensor([1]))
    # log-odds ln 3 + ln 2 and 2 ln 2 + ln 2, half of the bias each
    torch.testing.assert_close(found, torch.tensor([[6 / 7, 8 / 9]]))
    torch.testing.assert_close(modality_probability(tokens, weight, bias, torch.tensor([0])), 1 - found)


def test_only_a_modality_that_is_ahead_is_held_back():
    found = gradient_factors(torch.tensor([2.0, 1.0, 0.5]), slope=0.8)
    torch.testing.assert_close(found, torch.tensor([1 - math.tanh(1.6), 1.0, 1.0]))


def test_noise_has_the_spread_of_the_gradient_and_its_seed():
    gradients = {"a": torch.linspace(-3.0, 3.0, 4000, dtype=torch.float64), "b": torch.ones(1), "c": torch.ones(3)}
    found = modulated(gradients, {"a": 0.25, "b": 0.5}, noise=0.5, seed=3)
    noise = found["a"] - 0.25 * gradients["a"]
    assert noise.std() / (0.5 * gradients["a"].std()) == pytest.approx(1.0, abs=0.05)
    assert noise.mean().abs() < 0.1
    assert found["b"] == 0.5
    assert torch.equal(found["c"], gradients["c"])
    assert torch.equal(modulated(gradients, {"a": 0.25}, noise=0.5, seed=3)["a"], found["a"])
    assert not torch.equal(modulated(gradients, {"a": 0.25}, noise=0.5, seed=4)["a"], found["a"])


def gradients_of(name, settings):
    found = precise(name, settings=settings)
    found.start_epoch(0, list)
    scalars = found.update([double(samples(dropped=DROPPED))])
    ratio = torch.tensor([scalars[f"balance/ratio/{modality}"] for modality in ("rgb", "depth", "infrared")],
                         dtype=torch.float64)
    return {key: value.grad for key, value in found.network.named_parameters() if value.grad is not None}, ratio


def test_on_u_adapters_it_acts_on_what_a_modality_owns():
    plain, _ = gradients_of("ogm_ge_u_adapter", {"slope": 0.0, "noise": 0.0})
    found, ratio = gradients_of("ogm_ge_u_adapter", {"noise": 0.0})
    factors = dict(zip(("rgb", "depth", "infrared"), gradient_factors(ratio, 0.8), strict=True))
    assert min(factors.values()) < 0.6
    assert max(factors.values()) == 1.0
    for key, gradient in found.items():
        owner = parameter_owner(key)
        torch.testing.assert_close(gradient, plain[key] * (1.0 if owner is None else factors[owner]), check_dtype=False)


def test_on_the_plain_vit_it_acts_on_what_reaches_a_class_token():
    found, ratio = gradients_of("ogm_ge_vit", {"noise": 0.0})
    other = precise("vit_late", model=STILL)
    batch = double(samples(dropped=DROPPED))
    other.network.train()
    output = other.network(batch.planes, batch.present)
    loss = torch.nn.functional.cross_entropy(output.logits, batch.label)
    (cotangent,) = torch.autograd.grad(loss, output.class_tokens, retain_graph=True)
    body = dict(other.network.vit.named_parameters())
    expected = torch.autograd.grad(output.class_tokens, list(body.values()),
                                   cotangent * gradient_factors(ratio, 0.8)[:, None], retain_graph=True)
    for key, gradient in zip(body, expected, strict=True):
        torch.testing.assert_close(found[f"vit.{key}"], gradient, rtol=1e-6, atol=1e-9)
    (head,) = torch.autograd.grad(loss, other.network.head.weight)
    torch.testing.assert_close(found["head.weight"], head)


def test_a_head_that_reads_one_token_cannot_be_split():
    with pytest.raises(MethodError, match=r"splits the head.*head_input is 'rgb_token'.*'concatenated'"):
        method("ogm_ge_u_adapter", model=TOY.__class__.from_dict(TOY.to_dict() | {"head_input": HeadInput.RGB_TOKEN}))
