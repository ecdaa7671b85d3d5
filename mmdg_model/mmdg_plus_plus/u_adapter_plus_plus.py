"""The U-Adapter++: queries that know their own spread, and a choice between asking oneself and asking the other.

Legend: b batch, n tokens (class token first), d width, a adapter width, h heads, k channels a head, s draws.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.mmdg_plus_plus.config import MMDGPlusPlusConfig, QueryEstimator, QuerySelection
from mmdg_model.u_adapter import CentralDifferenceConvolution, quick_gelu


class QueryEstimate(NamedTuple):
    """A query and how far it can be relied on.

    Attributes:
        query: `[b, n, a]`.
        uncertainty: `[b, n, 1]`, at least 0: variance, mean over channels. No gradient.
    """

    query: Tensor
    uncertainty: Tensor


class AdapterOutput(NamedTuple):
    """What one adapter says to its own modality.

    Attributes:
        term: `[b, n, d]`, to add to the own residual stream.
        certainty: `[b, n, 1]` in [0, 1] of the query that each token took. No gradient.
    """

    term: Tensor
    certainty: Tensor


class QueryDistribution(nn.Module):
    """A normal distribution over queries, N(mu, diag(exp(logvar))), with mu and logvar linear in the token.

    The uncertainty carries no gradient, as released: `log_variance` learns through the noise of sampled queries only,
    and not at all with the analytic estimator.

    Args:
        width: a.
        estimator: see `QueryEstimator`.
        samples: s, draws of the sampled estimator.
    """

    def __init__(self, *, width: int, estimator: QueryEstimator, samples: int) -> None:
        super().__init__()
        self.estimator = estimator
        self.samples = samples
        self.mean = nn.Linear(width, width, bias=False)
        self.log_variance = nn.Linear(width, width, bias=False)

    def forward(self, token_BNA: Tensor, generator: torch.Generator | None = None) -> QueryEstimate:
        """Tokens `[b, n, a]` to their queries; `generator` (torch's global one if None) is for draws."""
        mean_BNA, log_variance_BNA = self.mean(token_BNA), self.log_variance(token_BNA)
        if self.estimator is QueryEstimator.ANALYTIC:
            return QueryEstimate(mean_BNA, log_variance_BNA.detach().exp().mean(dim=-1, keepdim=True))
        noise_SBNA = torch.randn(self.samples, *mean_BNA.shape, generator=generator, dtype=mean_BNA.dtype,
                                 device=mean_BNA.device)
        draws_SBNA = mean_BNA + noise_SBNA * (log_variance_BNA / 2).exp()
        uncertainty_BN1 = draws_SBNA.detach().var(dim=0).mean(dim=-1, keepdim=True)
        return QueryEstimate(draws_SBNA.mean(dim=0), uncertainty_BN1)


def other_modality_probability(uncertainty_other: Tensor, uncertainty_own: Tensor, rate: float) -> Tensor:
    """certainty_other / (certainty_other + certainty_own), each exp(-rate · uncertainty); any shape, in [0, 1].

    The release has the fraction upside down, at least 1, and so always takes the other modality. Written as a sigmoid,
    since two certainties that round to 0 have no ratio.
    """
    return torch.sigmoid(rate * (uncertainty_own - uncertainty_other))


class UAdapterPlusPlus(nn.Module):
    """What one modality learns from another. One adapter serves a modality and hears both others in turn.

    Each token has two candidate queries, one from the other modality's token and one from the own, and takes one:
    in training by chance, in use the more certain (the other's on a tie). Its certainty tempers the attention over the
    own tokens. Where the other modality is absent the own query is taken: self-attention.

    Freshly made, the up projection is zero and so is the term: the pretrained tower starts undisturbed.

    Args:
        width, adapter_width, heads: d, a, h.
        theta: of the central difference convolution.
        rate: of certainty = exp(-rate · uncertainty).
        estimator, selection, samples: see `MMDGPlusPlusConfig`.
    """

    def __init__(self, *, width: int, adapter_width: int, heads: int, theta: float, rate: float,
                 estimator: QueryEstimator, selection: QuerySelection, samples: int) -> None:
        super().__init__()
        self.heads = heads
        self.rate = rate
        self.selection = selection
        self.own_down = nn.Linear(width, adapter_width)
        self.other_down = nn.Linear(width, adapter_width)
        self.own_norm = nn.LayerNorm(adapter_width)
        self.query_norm = nn.LayerNorm(adapter_width)  # of the other's tokens, and again before the token MLP
        self.other_query = nn.Linear(adapter_width, adapter_width, bias=False)
        self.own_query = nn.Linear(adapter_width, adapter_width, bias=False)
        self.other_distribution = QueryDistribution(width=adapter_width, estimator=estimator, samples=samples)
        self.own_distribution = QueryDistribution(width=adapter_width, estimator=estimator, samples=samples)
        self.key = nn.Linear(adapter_width, adapter_width, bias=False)
        self.value = nn.Linear(adapter_width, adapter_width, bias=False)
        self.output = nn.Linear(adapter_width, adapter_width)
        self.token_mlp = nn.Linear(adapter_width, adapter_width)
        self.convolution = CentralDifferenceConvolution(channels=adapter_width, theta=theta)
        self.up = nn.Linear(adapter_width, width)
        for down in (self.own_down, self.other_down):
            nn.init.xavier_uniform_(down.weight)
            nn.init.zeros_(down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, own_BND: Tensor, other_BND: Tensor, other_present_B: Tensor,
                generator: torch.Generator | None = None) -> AdapterOutput:
        """Normalised tokens of both modalities `[b, n, d]`, presence of the other `bool [b]`."""
        own_BNA = self.own_norm(quick_gelu(self.own_down(own_BND)))
        other_BNA = self.query_norm(quick_gelu(self.other_down(other_BND)))
        asked_by_other = self.other_distribution(self.other_query(other_BNA), generator)
        asked_by_own = self.own_distribution(self.own_query(own_BNA), generator)
        take_other_BN1 = self._choose_other(asked_by_other.uncertainty, asked_by_own.uncertainty, generator)
        chosen = self._choose(take_other_BN1 & other_present_B[:, None, None], asked_by_other, asked_by_own)
        certainty_BN1 = torch.exp(-self.rate * chosen.uncertainty)
        # The certainty scales row i of Q K^T, which is scaling query i: the fused attention kernel stays usable.
        mixed_BNA = own_BNA + self._attend(chosen.query * certainty_BN1, own_BNA)
        mixed_BNA = mixed_BNA + self.token_mlp(self.query_norm(mixed_BNA))
        term_BND: Tensor = self.up(quick_gelu(self.convolution(mixed_BNA)))
        return AdapterOutput(term_BND, certainty_BN1)

    def _choose_other(self, other_BN1: Tensor, own_BN1: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.training:
            return other_BN1 <= own_BN1
        if self.selection is QuerySelection.OTHER_MODALITY:
            return torch.ones_like(other_BN1, dtype=torch.bool)
        chance_BN1 = torch.rand(other_BN1.shape, generator=generator, device=other_BN1.device)
        return chance_BN1 < other_modality_probability(other_BN1, own_BN1, self.rate)

    @staticmethod
    def _choose(take_other_BN1: Tensor, other: QueryEstimate, own: QueryEstimate) -> QueryEstimate:
        return QueryEstimate(torch.where(take_other_BN1, other.query, own.query),
                             torch.where(take_other_BN1, other.uncertainty, own.uncertainty))

    def _attend(self, query_BNA: Tensor, own_BNA: Tensor) -> Tensor:
        mixed_BHNK = F.scaled_dot_product_attention(
            self._split(query_BNA), self._split(self.key(own_BNA)), self._split(self.value(own_BNA)))
        output: Tensor = self.output(mixed_BHNK.transpose(1, 2).flatten(2))
        return output

    def _split(self, tokens_BNA: Tensor) -> Tensor:
        return tokens_BNA.reshape(*tokens_BNA.shape[:2], self.heads, -1).transpose(1, 2)


def build_u_adapter_plus_plus(config: MMDGPlusPlusConfig) -> UAdapterPlusPlus:
    """A fresh, silent adapter of `config`'s shape."""
    return UAdapterPlusPlus(
        width=config.width, adapter_width=config.adapter_width, heads=config.adapter_heads, theta=config.cdc_theta,
        rate=config.uncertainty_rate, estimator=config.query_estimator, selection=config.query_selection,
        samples=config.query_samples)
