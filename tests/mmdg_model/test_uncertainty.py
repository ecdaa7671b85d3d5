"""Certainty drawn, exact over finitely many samples, and in the limit: each against the others and against dropout."""

import math

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from mmdg_model.config import ModelConfig, UncertaintyEstimatorKind, UncertaintyReduction, UncertaintyStatistic
from mmdg_model.uncertainty import (
    AnalyticUncertainty,
    BatchAggregation,
    FiniteSampleUncertainty,
    MonteCarloUncertainty,
    NoUncertainty,
    build_uncertainty,
    modality_certainty,
)

READINGS = [(statistic, reduction) for statistic in UncertaintyStatistic for reduction in UncertaintyReduction]
RELEASE = {"rate": 2.25, "dropout": 0.3, "statistic": UncertaintyStatistic.STANDARD_DEVIATION,
           "reduction": UncertaintyReduction.EXP_THEN_MEAN}


def shared(statistic, reduction):
    return RELEASE | {"statistic": statistic, "reduction": reduction}


def activations(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stored_samples(activation, samples, seed):
    """What the paper describes, done literally: `samples` dropout copies `[t, ..., n, d]`."""
    torch.manual_seed(seed)
    return torch.stack([F.dropout(activation, 0.3, training=True) for _ in range(samples)])


@pytest.mark.parametrize(("kind", "type_"), [
    (UncertaintyEstimatorKind.ANALYTIC, AnalyticUncertainty), (UncertaintyEstimatorKind.NONE, NoUncertainty),
    (UncertaintyEstimatorKind.FINITE_SAMPLES, FiniteSampleUncertainty),
    (UncertaintyEstimatorKind.MONTE_CARLO, MonteCarloUncertainty)])
def test_each_kind_is_built(kind, type_):
    assert type(build_uncertainty(ModelConfig(uncertainty_estimator=kind))) is type_


def test_spread_of_stored_samples_depends_on_the_dropped_count_alone():
    """The formula behind two of the estimators, on real dropout: s² = a² k (t - k) / ((1 - p)² t (t - 1))."""
    activation = activations(3, 40) + 0.1
    samples = stored_samples(activation, 20, seed=1).double()
    dropped = (samples == 0).sum(dim=0)
    assert 2 < dropped.double().mean() < 10
    formula = activation.double().square() * dropped * (20 - dropped) / (0.7**2 * 20 * 19)
    torch.testing.assert_close(samples.var(dim=0, correction=1), formula, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("statistic", "reduction"), READINGS)
def test_drawn_certainty_is_distributed_as_that_of_stored_samples(statistic, reduction):
    """Two-sample Kolmogorov-Smirnov test over 2,000 passes of each kind."""
    activation = activations(1, 1, 6, seed=3)
    drawn = MonteCarloUncertainty(samples=8, **shared(statistic, reduction))(activation.expand(2000, 1, 6))
    samples = stored_samples(activation.expand(2000, 1, 6), 8, seed=2)
    spread = samples.var(dim=0) if statistic is UncertaintyStatistic.VARIANCE else samples.std(dim=0)
    literal = (torch.exp(-2.25 * spread).mean(dim=-1) if reduction is UncertaintyReduction.EXP_THEN_MEAN
               else torch.exp(-2.25 * spread.mean(dim=-1)))
    assert stats.ks_2samp(drawn.flatten(), literal.flatten()).pvalue > 0.01


@pytest.mark.parametrize(("statistic", "reduction"), READINGS)
def test_finite_sample_certainty_is_the_mean_of_drawn_ones(statistic, reduction):
    """Over 40,000 draws, within four standard errors; the limit of infinitely many samples is many more away."""
    activation = activations(5, 12, seed=4)
    draws = MonteCarloUncertainty(samples=5, **shared(statistic, reduction))(activation.expand(40_000, 5, 12)).double()
    standard_error = draws.std(dim=0) / math.sqrt(len(draws))
    exact = FiniteSampleUncertainty(samples=5, **shared(statistic, reduction))(activation).double()
    limit = AnalyticUncertainty(**shared(statistic, reduction))(activation).double()
    assert ((draws.mean(dim=0) - exact).abs() < 4 * standard_error + 1e-6).all()
    assert ((draws.mean(dim=0) - limit).abs() > 8 * standard_error).any()


def test_twenty_samples_differ_from_the_limit_by_six_thousandths_at_one():
    """The release's constants, by an independent sum over scipy's binomial probabilities."""
    one = torch.ones(1, 1)
    exact = FiniteSampleUncertainty(samples=20, **RELEASE)(one).item()
    weights = [(stats.binom.pmf(k, 20, 0.3), math.sqrt(k * (20 - k) / (20 * 19)) / 0.7) for k in range(21)]
    assert exact == pytest.approx(sum(weight * math.exp(-2.25 * spread) for weight, spread in weights), abs=1e-6)
    assert exact - AnalyticUncertainty(**RELEASE)(one).item() == pytest.approx(0.006, abs=5e-4)


@pytest.mark.parametrize(("statistic", "reduction"), READINGS)
def test_finite_sample_certainty_tends_to_the_limit(statistic, reduction):
    activation = activations(4, 16)
    limit = AnalyticUncertainty(**shared(statistic, reduction))(activation)
    errors = [(FiniteSampleUncertainty(samples=samples, **shared(statistic, reduction))(activation) - limit).abs().max()
              for samples in (5, 20, 100, 1000)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3 < errors[0]


def slope(counts, errors):
    return stats.linregress([math.log(count) for count in counts], [math.log(error) for error in errors]).slope


def test_drawn_certainty_converges_to_the_closed_form_as_one_over_root_samples():
    """Root mean square error over 30,000 elements, samples doubled eight times: the slope on log axes is -1/2.

    From 64 samples on: with fewer, the chance that none is dropped (0.7^t) adds errors that fall exponentially.
    """
    activation = activations(30_000, 1, seed=5)
    closed = AnalyticUncertainty(**RELEASE).element_certainty(activation)
    counts = [2**power for power in range(6, 15)]
    errors = [(MonteCarloUncertainty(samples=count, **RELEASE, seed=count).element_certainty(activation) - closed)
              .square().mean().sqrt().item() for count in counts]
    assert slope(counts, errors) == pytest.approx(-0.5, abs=0.03)
    assert errors[-1] < 0.01 < errors[0]


def test_mean_of_repeated_draws_converges_to_the_finite_sum_as_one_over_root_repeats():
    activation = activations(50, 20, seed=6)
    exact = FiniteSampleUncertainty(samples=20, **RELEASE)(activation)
    drawn = MonteCarloUncertainty(samples=20, **RELEASE)
    repeats = [4, 16, 64, 256, 1024]
    errors = [(drawn(activation.expand(count, 50, 20)).mean(dim=0) - exact).square().mean().sqrt().item()
              for count in repeats]
    assert slope(repeats, errors) == pytest.approx(-0.5, abs=0.1)


@pytest.mark.parametrize("kind", sorted(set(UncertaintyEstimatorKind) - {UncertaintyEstimatorKind.NONE}))
@pytest.mark.parametrize(("statistic", "reduction"), READINGS)
def test_certainty_falls_with_activation_and_is_one_at_zero(kind, statistic, reduction):
    estimator = build_uncertainty(ModelConfig(uncertainty_estimator=kind, uncertainty_statistic=statistic,
                                              uncertainty_reduction=reduction))
    activation, certainty = activations(6, 200), []
    for gain in (0.0, 0.25, 0.5, 1.0, 2.0):
        if isinstance(estimator, MonteCarloUncertainty):
            estimator.start_pass()  # the same dropped counts each time: the comparison is of activations only
        certainty.append(estimator(activation * gain))
    certainty = torch.stack(certainty)
    assert torch.equal(certainty[0], torch.ones(6, 1))
    assert (certainty.diff(dim=0) < 0).all()
    assert (certainty > 0).all()


@pytest.mark.parametrize("kind", list(UncertaintyEstimatorKind))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("statistic", "reduction"), READINGS)
def test_extreme_activations_stay_within_zero_and_one(kind, dtype, statistic, reduction):
    estimator = build_uncertainty(ModelConfig(uncertainty_estimator=kind, uncertainty_statistic=statistic,
                                              uncertainty_reduction=reduction, uncertainty_samples=2))
    certainty = estimator(torch.tensor([[0.0, 1e-6, 1.0], [3e4, -6e4, 6e4]], dtype=dtype))
    assert certainty.dtype is dtype
    assert ((certainty >= 0) & (certainty <= 1)).all()
    assert not estimator(torch.ones(1, 4, requires_grad=True)).requires_grad


@pytest.mark.parametrize("statistic", list(UncertaintyStatistic))
def test_reducing_after_the_exponential_never_gives_less_certainty(statistic):
    """Jensen's inequality: mean(exp) >= exp(mean), equal where all channels are."""
    activation = activations(100, 30)
    after, before = (AnalyticUncertainty(**shared(statistic, reduction))
                     for reduction in (UncertaintyReduction.EXP_THEN_MEAN, UncertaintyReduction.MEAN_THEN_EXP))
    assert (after(activation) > before(activation)).all()
    torch.testing.assert_close(after(torch.ones(1, 30)), before(torch.ones(1, 30)))


def test_without_uncertainty_every_token_is_certain():
    assert torch.equal(NoUncertainty(**RELEASE)(activations(3, 4)), torch.ones(3, 1))


def test_draws_repeat_by_seed_and_go_on_otherwise():
    activation, estimator = activations(5, 30), MonteCarloUncertainty(samples=20, **RELEASE)
    first, second = estimator(activation), estimator(activation)
    assert not torch.equal(first, second)
    estimator.start_pass()
    assert torch.equal(estimator(activation), first)
    estimator.seed = 7
    estimator.start_pass()
    assert not torch.equal(estimator(activation), first)
    assert torch.equal(MonteCarloUncertainty(samples=20, **RELEASE)(activation), first)


def test_batch_aggregations_by_hand():
    """Certainties 0.2 and 0.8: arithmetic 0.5, geometric 0.4; an absent sample does not count; none at all gives 1."""
    certainty = torch.tensor([[0.2, 0.9, 0.0], [0.8, 0.0, 0.0]])
    present = torch.tensor([[True, True, False], [True, False, False]])
    assert modality_certainty(certainty, present, BatchAggregation.MEAN_OF_EXP).tolist() == pytest.approx([0.5, 0.9, 1])
    assert modality_certainty(certainty, present, BatchAggregation.EXP_OF_MEAN).tolist() == pytest.approx([0.4, 0.9, 1])


def test_exp_of_mean_is_the_papers_formula():
    """exp(-r · batch mean of u) with u the class token's variance, written out."""
    estimator = AnalyticUncertainty(**shared(UncertaintyStatistic.VARIANCE, UncertaintyReduction.MEAN_THEN_EXP))
    class_tokens = activations(6, 1, 10)
    u = (class_tokens.square() * 3 / 7).mean(dim=(1, 2))
    actual = modality_certainty(estimator(class_tokens)[:, 0], torch.ones(6, 1, dtype=torch.bool),
                                BatchAggregation.EXP_OF_MEAN)
    assert actual.item() == pytest.approx(math.exp(-2.25 * u.mean().item()), rel=1e-5)


def test_underflowed_certainty_does_not_undo_the_others():
    certainty = torch.tensor([[0.0], [0.9]])
    assert modality_certainty(certainty, torch.ones(2, 1, dtype=torch.bool), BatchAggregation.EXP_OF_MEAN).item() > 0
