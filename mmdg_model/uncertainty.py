"""Uncertainty of a token from its activations: the paper's Uncertainty Estimation Module, sampled and in closed form.

Legend: n tokens, d channels, m modalities, b batch; a leading `...` stands for any batch axes.

The paper applies dropout (probability p, inverted scaling) t times to the attention's output a and takes the spread
of the samples. An element becomes a / (1 - p) or 0, so if k of its t samples were dropped, their unbiased variance is

    s_k² = a² / (1 - p)² · k (t - k) / (t (t - 1)),       k ~ Binomial(t, p).

Nothing else about the samples matters. Hence three ways to the certainty U = exp(-r u), with u = s or s²:
drawing k (`MonteCarloUncertainty`), the exact mean of U over all k (`FiniteSampleUncertainty`), and the limit t -> ∞
(`AnalyticUncertainty`), where s² = a² p / (1 - p). "Uncertain" thus means a large activation, not an epistemic doubt.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from mmdg_model.config import ModelConfig, UncertaintyEstimatorKind, UncertaintyReduction, UncertaintyStatistic


class TokenUncertainty(nn.Module):
    """What the estimators share: tokens in, certainty in (0, 1] out. No parameters, no gradient.

    Args:
        rate: r_e, how fast certainty falls with uncertainty.
        dropout: p of the dropout, between 0 and 1.
        statistic: standard deviation (release) or variance (paper).
        reduction: over channels, after (release) or before (paper) the exponential.
    """

    def __init__(self, *, rate: float, dropout: float, statistic: UncertaintyStatistic,
                 reduction: UncertaintyReduction) -> None:
        super().__init__()
        self.rate = rate
        self.dropout = dropout
        self.statistic = statistic
        self.reduction = reduction

    def element_uncertainty(self, activation_ND: Tensor) -> Tensor:
        """u of each element, its mean over the samples where they are random: `[..., n, d]` to `[..., n, d]`."""
        raise NotImplementedError

    def element_certainty(self, activation_ND: Tensor) -> Tensor:
        """U of each element taken alone: `[..., n, d]` to `[..., n, d]` in (0, 1]."""
        return torch.exp(-self.rate * self.element_uncertainty(activation_ND))

    @torch.no_grad()
    def forward(self, activation_ND: Tensor) -> Tensor:
        """Token certainty U: `[..., n, d]` to `[..., n, 1]` in (0, 1]."""
        if self.reduction is UncertaintyReduction.MEAN_THEN_EXP:
            return self._exp_of_mean(activation_ND)
        return self.element_certainty(activation_ND).mean(dim=-1, keepdim=True)

    def _exp_of_mean(self, activation_ND: Tensor) -> Tensor:
        return torch.exp(-self.rate * self.element_uncertainty(activation_ND).mean(dim=-1, keepdim=True))

    def _spread(self, activation_ND: Tensor, variance_gain: Tensor | float) -> Tensor:
        """u where the samples' variance is `variance_gain` a²."""
        deviation_ND = activation_ND.abs() * variance_gain ** 0.5
        # Squared last: in half precision a² alone overflows, and infinity times a gain of 0 would be NaN.
        return deviation_ND.square() if self.statistic is UncertaintyStatistic.VARIANCE else deviation_ND


class AnalyticUncertainty(TokenUncertainty):
    """Infinitely many samples: variance a² p / (1 - p). One multiplication an element, deterministic."""

    def element_uncertainty(self, activation_ND: Tensor) -> Tensor:
        """Spread of each element under dropout: `[..., n, d]` to `[..., n, d]`, at least 0."""
        return self._spread(activation_ND, self.dropout / (1.0 - self.dropout))


class FiniteSampleUncertainty(TokenUncertainty):
    """The exact mean of the certainty that t samples give: a sum over the binomial outcomes. Deterministic.

    Outcomes k and t - k have the same spread, so t / 2 exponentials an element are left. Channels are dropped
    independently: the mean of a product over channels (`mean_then_exp`) is the product of the channels' means.

    Args:
        samples: t, at least 2.
    """

    def __init__(self, *, samples: int, rate: float, dropout: float, statistic: UncertaintyStatistic,
                 reduction: UncertaintyReduction) -> None:
        super().__init__(rate=rate, dropout=dropout, statistic=statistic, reduction=reduction)
        self.outcomes = _outcomes(samples, dropout)

    def element_uncertainty(self, activation_ND: Tensor) -> Tensor:
        """Mean spread over the outcomes. Its exponential is not the mean certainty (Jensen)."""
        if self.statistic is UncertaintyStatistic.VARIANCE:
            gain = sum(probability * variance for probability, variance in self.outcomes)
            return activation_ND.square() * gain
        return activation_ND.abs() * sum(probability * math.sqrt(variance) for probability, variance in self.outcomes)

    def element_certainty(self, activation_ND: Tensor) -> Tensor:
        """Mean of exp(-r u) over the outcomes, element by element."""
        return 1.0 + self._mean_loss(activation_ND, self.rate)

    def _mean_loss(self, activation_ND: Tensor, rate: float) -> Tensor:
        """Mean of exp(-rate u) - 1, in [-1, 0]: summed so, an activation of 0 is certain to the last bit."""
        loss_ND = torch.zeros_like(activation_ND)
        for probability, variance in self.outcomes:
            loss_ND = loss_ND + probability * torch.expm1(-rate * self._spread(activation_ND, variance))
        return loss_ND.clamp_min(-1.0)

    def _exp_of_mean(self, activation_ND: Tensor) -> Tensor:
        channels = activation_ND.shape[-1]
        # Logarithms: a product of hundreds of factors below 1 is nothing in half precision.
        return torch.exp(torch.log1p(self._mean_loss(activation_ND, self.rate / channels)).sum(dim=-1, keepdim=True))


class MonteCarloUncertainty(TokenUncertainty):
    """t dropout samples, as the release draws them in training and in use. For comparison: scores depend on `seed`.

    Only k, the number of dropped samples of an element, is drawn: given k the spread is the formula above, so the
    result has exactly the distribution of t stored samples, without the t copies.

    `start_pass` rewinds the draws to `seed`: the network does so before each pass in evaluation mode, so the same batch
    gives the same bits. A crop's score still depends on its place in the batch. In training the draws go on.

    Args:
        samples: t, at least 2.
        seed: of the draws; may be changed at any time.
    """

    def __init__(self, *, samples: int, rate: float, dropout: float, statistic: UncertaintyStatistic,
                 reduction: UncertaintyReduction, seed: int = 0) -> None:
        super().__init__(rate=rate, dropout=dropout, statistic=statistic, reduction=reduction)
        self.samples = samples
        self.seed = seed
        self._generator: torch.Generator | None = None

    def start_pass(self) -> None:
        """Begin the draws of `seed` again."""
        if self._generator is not None:
            self._generator.manual_seed(self.seed)

    def element_uncertainty(self, activation_ND: Tensor) -> Tensor:
        """Drawn spread of each element: `[..., n, d]` to `[..., n, d]`, at least 0."""
        if self._generator is None or self._generator.device != activation_ND.device:
            self._generator = torch.Generator(activation_ND.device).manual_seed(self.seed)
        trials = torch.full(activation_ND.shape, float(self.samples), device=activation_ND.device)
        dropped = torch.binomial(trials, torch.full_like(trials, self.dropout), generator=self._generator)
        variance_gain = _variance_gain(dropped, self.samples, self.dropout).to(activation_ND.dtype)
        return self._spread(activation_ND, variance_gain)


class NoUncertainty(TokenUncertainty):
    """U = 1 for every token: what is left of the network without its uncertainty."""

    def element_uncertainty(self, activation_ND: Tensor) -> Tensor:
        """Zero for each element."""
        return torch.zeros_like(activation_ND)


def build_uncertainty(config: ModelConfig) -> TokenUncertainty:
    """The estimator that `config` names."""
    match config.uncertainty_estimator:
        case UncertaintyEstimatorKind.FINITE_SAMPLES:
            return FiniteSampleUncertainty(samples=config.uncertainty_samples, **_shared(config))
        case UncertaintyEstimatorKind.MONTE_CARLO:
            return MonteCarloUncertainty(samples=config.uncertainty_samples, **_shared(config))
        case UncertaintyEstimatorKind.NONE:
            return NoUncertainty(**_shared(config))
        case UncertaintyEstimatorKind.ANALYTIC:
            return AnalyticUncertainty(**_shared(config))


class BatchAggregation(StrEnum):
    """How the class-token certainties of a batch become one number a modality, U(u_m) of the gradient modulation."""

    EXP_OF_MEAN = "exp_of_mean"  # the paper: exp(-r · batch mean of u), the geometric mean of the certainties
    MEAN_OF_EXP = "mean_of_exp"  # the released code: the arithmetic mean of the certainties


@torch.no_grad()
def modality_certainty(class_certainty_BM: Tensor, present_BM: Tensor, aggregation: BatchAggregation) -> Tensor:
    """U(u_m) of each modality over the samples that have it: `[b, m]`, `bool [b, m]` to `[m]` in (0, 1].

    With reduction `exp_then_mean` a sample's u is taken as -log(U) / r, so that both aggregations are of one U.
    A modality that no sample has gets 1: nothing of it needs tempering.
    """
    values_BM = class_certainty_BM.double()
    if aggregation is BatchAggregation.EXP_OF_MEAN:
        # An activation so large that its certainty underflowed to 0 must not make the mean of the logarithms -inf.
        values_BM = values_BM.clamp_min(torch.finfo(torch.float32).tiny).log()
    totals_M = torch.where(present_BM, values_BM, 0.0).sum(dim=0)
    counts_M = present_BM.sum(dim=0)
    means_M = totals_M / counts_M.clamp_min(1)
    if aggregation is BatchAggregation.EXP_OF_MEAN:
        means_M = means_M.exp()
    return torch.where(counts_M > 0, means_M, 1.0).to(class_certainty_BM.dtype)


def _shared(config: ModelConfig) -> dict[str, Any]:
    return {"rate": config.uncertainty_rate, "dropout": config.uncertainty_dropout,
            "statistic": config.uncertainty_statistic, "reduction": config.uncertainty_reduction}


def _variance_gain(dropped: Tensor, samples: int, dropout: float) -> Tensor:
    """s_k² / a² of each count k."""
    return dropped * (samples - dropped) / (samples * (samples - 1) * (1.0 - dropout) ** 2)


def _outcomes(samples: int, dropout: float) -> list[tuple[float, float]]:
    """(probability, s_k² / a²) of each distinct spread, k and t - k joined."""
    joined: dict[int, float] = {}
    for dropped in range(samples + 1):
        # Through logarithms: the binomial coefficient of a thousand samples is beyond a float.
        log_probability = (math.lgamma(samples + 1) - math.lgamma(dropped + 1) - math.lgamma(samples - dropped + 1)
                           + dropped * math.log(dropout) + (samples - dropped) * math.log1p(-dropout))
        product = dropped * (samples - dropped)
        joined[product] = joined.get(product, 0.0) + math.exp(log_probability)
    scale = samples * (samples - 1) * (1.0 - dropout) ** 2
    return [(probability, product / scale) for product, probability in sorted(joined.items())]
