"""Uncertainty of a token from its activations: the paper's Uncertainty Estimation Module, in closed form.

Legend: n tokens, d channels; a leading `...` stands for any batch axes.

The paper applies dropout to the attention's output several times and takes the spread of the samples. With inverted
scaling an element a becomes a / (1 - p) with probability 1 - p and 0 otherwise, so its variance is known exactly:
a² · p / (1 - p). Sampling only approximates that number, makes scores random and costs twenty copies of the stream,
so the closed form is used. "Uncertain" thus means a large activation, not an epistemic doubt.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmdg_model.config import ModelConfig, UncertaintyReduction, UncertaintyStatistic


class AnalyticUncertainty(nn.Module):
    """Certainty in (0, 1] of attention outputs; larger activations are less certain. No parameters, no gradient.

    Args:
        rate: r_e, how fast certainty falls with uncertainty.
        dropout: p of the imagined dropout, between 0 and 1.
        statistic: standard deviation (release) or variance (paper).
        reduction: over channels, after (release) or before (paper) the exponential.
    """

    def __init__(self, *, rate: float, dropout: float, statistic: UncertaintyStatistic,
                 reduction: UncertaintyReduction) -> None:
        super().__init__()
        self.rate = rate
        self.statistic = statistic
        self.reduction = reduction
        self.variance_gain = dropout / (1.0 - dropout)

    def element_uncertainty(self, activation_ND: Tensor) -> Tensor:
        """Spread of each element under dropout: `[..., n, d]` to `[..., n, d]`, at least 0."""
        if self.statistic is UncertaintyStatistic.VARIANCE:
            return activation_ND.square() * self.variance_gain
        return activation_ND.abs() * math.sqrt(self.variance_gain)

    def element_certainty(self, activation_ND: Tensor) -> Tensor:
        """exp(-rate · uncertainty) of each element: `[..., n, d]` to `[..., n, d]` in (0, 1]."""
        return torch.exp(-self.rate * self.element_uncertainty(activation_ND))

    @torch.no_grad()
    def forward(self, activation_ND: Tensor) -> Tensor:
        """Token certainty U: `[..., n, d]` to `[..., n, 1]` in (0, 1]."""
        if self.reduction is UncertaintyReduction.MEAN_THEN_EXP:
            return torch.exp(-self.rate * self.element_uncertainty(activation_ND).mean(dim=-1, keepdim=True))
        return self.element_certainty(activation_ND).mean(dim=-1, keepdim=True)


def build_uncertainty(config: ModelConfig) -> AnalyticUncertainty:
    """The estimator that `config` names. A sampling one would have the same call: tokens in, U out."""
    return AnalyticUncertainty(rate=config.uncertainty_rate, dropout=config.uncertainty_dropout,
                               statistic=config.uncertainty_statistic, reduction=config.uncertainty_reduction)
