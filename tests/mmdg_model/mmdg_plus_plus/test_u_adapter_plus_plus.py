"""The U-Adapter++: size, a naive second implementation, its certainty, its choice of queries, its draws."""

import dataclasses

import pytest
import torch

from mmdg_model.mmdg_plus_plus.config import MMDGPlusPlusConfig, QueryEstimator, QuerySelection
from mmdg_model.mmdg_plus_plus.u_adapter_plus_plus import (
    QueryDistribution,
    build_u_adapter_plus_plus,
    other_modality_probability,
)
from tests.mmdg_model.mmdg_plus_plus.builders import MICRO, enliven

SAMPLED = dataclasses.replace(MICRO, query_estimator=QueryEstimator.SAMPLED)
TOKENS = MICRO.num_tokens
HERE, AWAY = torch.tensor([True, True]), torch.tensor([False, False])


def lively_adapter(config=MICRO, seed=0):
    torch.manual_seed(seed)
    adapter = build_u_adapter_plus_plus(config).eval()
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            enliven(name, parameter)
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return adapter


def token_pair(batch=2, seed=1, config=MICRO):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, batch, config.num_tokens, config.width, generator=generator).unbind()


def uncertainties(adapter, own, other):
    """Of the other's and of the own candidate query, from the adapter's parts."""
    own_small = adapter.own_norm(gelu(adapter.own_down(own)))
    other_small = adapter.query_norm(gelu(adapter.other_down(other)))
    return tuple(distribution.log_variance(query).exp().mean(dim=-1, keepdim=True) for distribution, query in (
        (adapter.other_distribution, adapter.other_query(other_small)),
        (adapter.own_distribution, adapter.own_query(own_small))))


def gelu(value):
    return value / (1 + torch.exp(-1.702 * value))


def test_size_at_the_published_width():
    with torch.device("meta"):
        adapter = build_u_adapter_plus_plus(MMDGPlusPlusConfig.base())
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 20_480


@torch.inference_mode()
def test_fresh_adapter_says_nothing():
    torch.manual_seed(0)
    output = build_u_adapter_plus_plus(MICRO).eval()(*token_pair(), HERE)
    assert not output.term.any()
    assert ((output.certainty > 0) & (output.certainty < 1)).all()


def naive_adapter(adapter, own, other, other_present):
    """One sample, one token, one head at a time, as the method is described."""
    terms = []
    for own_tokens, other_tokens, present in zip(own, other, other_present, strict=True):
        small = adapter.own_norm(gelu(adapter.own_down(own_tokens)))
        other_small = adapter.query_norm(gelu(adapter.other_down(other_tokens)))
        keys, values = adapter.key(small), adapter.value(small)
        mixed = []
        for token in range(len(small)):
            candidates = [(adapter.own_distribution, adapter.own_query(small[token]))]
            if present:
                candidates.append((adapter.other_distribution, adapter.other_query(other_small[token])))
            certainty, query = max(
                ((torch.exp(-adapter.rate * part.log_variance(query).exp().mean()), part.mean(query))
                 for part, query in candidates), key=lambda pair: pair[0].item())
            heads = []
            for channel in range(adapter.heads):  # width 1 a head, so nothing to divide by
                attention = torch.softmax(query[channel] * keys[:, channel] * certainty, dim=0)
                heads.append((attention * values[:, channel]).sum())
            mixed.append(small[token] + adapter.output(torch.stack(heads)))
        mixed = torch.stack(mixed)
        mixed = mixed + adapter.token_mlp(adapter.query_norm(mixed))
        terms.append(adapter.up(gelu(naive_central_difference(mixed, adapter.convolution))))
    return torch.stack(terms)


def naive_central_difference(tokens, convolution):
    grid = int((len(tokens) - 1) ** 0.5)
    padded = torch.zeros(grid + 2, grid + 2, tokens.shape[1])
    padded[1:-1, 1:-1] = tokens[1:].reshape(grid, grid, -1)
    plain_sum = convolution.weight.sum(dim=(2, 3))
    out = [convolution.weight[:, :, 1, 1] @ tokens[0] - convolution.theta * plain_sum @ tokens[0]]
    for row in range(grid):
        for column in range(grid):
            taps = sum(convolution.weight[:, :, i, j] @ padded[row + i, column + j] for i in range(3) for j in range(3))
            out.append(taps - convolution.theta * plain_sum @ padded[row + 1, column + 1])
    return torch.stack(out)


@torch.inference_mode()
@pytest.mark.parametrize("other_present", [[True, True], [False, False], [True, False]])
def test_equals_the_naive_loop(other_present):
    adapter, (own, other) = lively_adapter(), token_pair()
    present = torch.tensor(other_present)
    term = adapter(own, other, present).term
    assert term.std() > 0.3
    torch.testing.assert_close(term, naive_adapter(adapter, own, other, other_present), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("selection", list(QuerySelection))
def test_in_use_each_token_takes_the_more_certain_query(selection):
    adapter = lively_adapter(dataclasses.replace(MICRO, query_selection=selection))
    own, other = token_pair()
    candidates = torch.cat(uncertainties(adapter, own, other), dim=-1)
    assert 0.2 < (candidates.argmin(dim=-1) == 0).float().mean() < 0.8  # both are taken somewhere
    expected = torch.exp(-adapter.rate * candidates.amin(dim=-1, keepdim=True))
    torch.testing.assert_close(adapter(own, other, HERE).certainty, expected)


@torch.inference_mode()
def test_in_training_the_other_is_asked_as_often_as_it_is_certain():
    adapter = lively_adapter().train()
    own, other = token_pair(batch=64)
    from_other, from_own = uncertainties(adapter, own, other)
    certainty_other, certainty_own = (torch.exp(-adapter.rate * value) for value in (from_other, from_own))
    probability = certainty_other / (certainty_other + certainty_own)
    generator = torch.Generator().manual_seed(0)
    taken = torch.stack([
        (adapter(own, other, torch.ones(64, dtype=torch.bool), generator).certainty - certainty_other).abs() < 1e-6
        for _ in range(8)]).float().mean(dim=0)
    assert probability.std() > 0.1
    for low, high in ((0.0, 0.4), (0.4, 0.5), (0.5, 0.6), (0.6, 1.0)):
        inside = (probability >= low) & (probability < high)
        draws = 8 * int(inside.sum())
        assert draws > 400
        expected = probability[inside].mean()
        assert (taken[inside].mean() - expected).abs() < 4 * (0.25 / draws) ** 0.5, (low, high)


@torch.inference_mode()
def test_released_training_always_asks_the_other():
    adapter = lively_adapter(dataclasses.replace(MICRO, query_selection=QuerySelection.OTHER_MODALITY)).train()
    own, other = token_pair()
    from_other, _ = uncertainties(adapter, own, other)
    torch.testing.assert_close(adapter(own, other, HERE).certainty, torch.exp(-adapter.rate * from_other))


@pytest.mark.parametrize(("uncertainty_other", "uncertainty_own", "expected"), [
    (0.2, 0.2, 0.5), (0.0, 0.8, 0.8807970779778823), (0.8, 0.0, 0.11920292202211757),
    (5000.0, 5001.0, 0.9241418199787566),  # both certainties round to 0; their ratio does not
    (0.0, 1e30, 1.0), (1e30, 0.0, 0.0),
])
def test_probability_of_asking_the_other(uncertainty_other, uncertainty_own, expected):
    """By hand: 1 / (1 + exp(-2.5 · 0.8)) = 0.8808."""
    probability = other_modality_probability(torch.tensor(uncertainty_other, dtype=torch.float64),
                                             torch.tensor(uncertainty_own, dtype=torch.float64), 2.5)
    assert probability.item() == pytest.approx(expected, rel=1e-9)


@torch.inference_mode()
@pytest.mark.parametrize("config", [MICRO, SAMPLED])
@pytest.mark.parametrize("training", [False, True])
def test_an_absent_other_is_never_heard(config, training):
    adapter = lively_adapter(config).train(training)
    own, other = token_pair()
    outputs = [adapter(own, content, AWAY, torch.Generator().manual_seed(3)) for content in (other, -3 * other)]
    assert all(torch.equal(*pair) for pair in zip(*outputs, strict=True))
    heard = [adapter(own, content, HERE, torch.Generator().manual_seed(3)).term for content in (other, -3 * other)]
    assert not torch.equal(*heard)


@torch.inference_mode()
def test_a_token_of_larger_variance_is_less_certain():
    adapter, (own, other) = lively_adapter(), token_pair()
    small = adapter.own_norm(gelu(adapter.own_down(own)))
    log_variance = adapter.own_distribution.log_variance(adapter.own_query(small))
    order = log_variance.exp().mean(dim=-1).flatten().argsort()
    certainty = adapter(own, other, AWAY).certainty.flatten()[order]
    assert (certainty.diff() <= 0).all()
    assert certainty[0] > certainty[-1] + 0.01


def distribution(estimator, samples=50, seed=0):
    torch.manual_seed(seed)
    made = QueryDistribution(width=8, estimator=estimator, samples=samples)
    torch.nn.init.normal_(made.log_variance.weight, std=0.5)
    return made


@torch.inference_mode()
def test_draws_converge_to_the_closed_form():
    """Error falls as the root of the number of draws: a hundredfold of draws, a tenth of it."""
    tokens = torch.randn(4, 50, 8, generator=torch.Generator().manual_seed(5))
    exact = distribution(QueryEstimator.ANALYTIC)(tokens)
    errors = {}
    for samples in (50, 5000):
        drawn = distribution(QueryEstimator.SAMPLED, samples)(tokens, torch.Generator().manual_seed(9))
        errors[samples] = [(a - b).square().mean().sqrt().item() for a, b in zip(drawn, exact, strict=True)]
    for few, many in zip(errors[50], errors[5000], strict=True):
        assert few / many == pytest.approx(10, rel=0.2)
    assert errors[5000][0] < 0.05


@torch.inference_mode()
def test_drawn_uncertainty_is_unbiased():
    tokens = torch.randn(1, 400, 8, generator=torch.Generator().manual_seed(5))
    exact = distribution(QueryEstimator.ANALYTIC)(tokens).uncertainty
    generator, drawn = torch.Generator().manual_seed(0), distribution(QueryEstimator.SAMPLED, samples=2)
    mean = torch.stack([drawn(tokens, generator).uncertainty for _ in range(200)]).mean()
    assert mean.item() == pytest.approx(exact.mean().item(), rel=0.02)  # dividing by s, not s - 1, would halve it


@torch.inference_mode()
def test_the_generator_decides_the_draws():
    adapter, (own, other) = lively_adapter(SAMPLED), token_pair()
    first, again, another = (adapter(own, other, HERE, torch.Generator().manual_seed(seed)).term for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, another)


@pytest.mark.parametrize(("config", "variances_learn"), [(MICRO, False), (SAMPLED, True)])
def test_variances_learn_through_the_draws_only(config, variances_learn):
    adapter = lively_adapter(config).train()
    output = adapter(*token_pair(), HERE, torch.Generator().manual_seed(0))
    output.term.square().sum().backward()
    assert not output.certainty.requires_grad
    for name, parameter in adapter.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.any())
        assert learns == ("log_variance" not in name or variances_learn), name
