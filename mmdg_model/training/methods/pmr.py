"""PMR, prototypical modal rebalance (CVPR 2023, Fan et al.): the slow modalities also learn from prototypes.

With z_m the class token of modality m, μ_k its mean over the training samples of class k (live, attack), once an epoch:

    p_m(k)  = softmax_k( -|z_m - μ_k| )                              Euclidean distance, not squared
    PCE_m   = -log p_m(true),   H_m = entropy of p_m
    ρ_m     = s_m / mean of the others' s,   s_m = mean of p_m(true) over the update's samples
    L       = CE + α Σ_m clip(1/ρ_m - 1, 0, 1) PCE_m - μ [epoch < E] Σ_m clip(ρ_m - 1, 0, 1) H_m

The paper has two modalities, for which this is its loss: the factor of PCE is above 0 for the slower one, that of the
entropy (PER, early epochs) for the faster one. The ratio to the mean of the others is ours.

Legend: b batch, m modalities (order of `network.MODALITIES`), k classes (live, attack), d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdg_model.network import LIVE_COLUMN, MMDG, NetworkOutput
from mmdg_model.training.methods.balanced_update import BalancedMethod
from mmdg_model.training.methods.class_token_networks import ClassTokenNetwork, build_class_token_network
from mmdg_model.training.methods.contract import Method, MethodContext, TrainingBatch
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import LateFusionViT
from mmdg_model.training.methods.prototype_epochs import PrototypeMethod
from mmdg_model.training.prototypes import PrototypeConfig
from mmdg_model.training.ssp_loss import DomainClasses

#: Rows of the prototypes: live first, as `DomainClasses` has it.
CLASSES = DomainClasses(("attack",))


@dataclass(frozen=True, kw_only=True)
class PmrSettings:
    """What may be set.

    Attributes:
        network: what it is put on.
        prototype_weight: α (release: 1).
        entropy_weight: μ of the entropy term; the release leaves the term out. 0.01 is ours.
        entropy_epochs: E, how many epochs the entropy term acts.
        prototype_epochs: how many epochs α acts (release: 100).
        prototype_batch_share: see `PrototypeConfig` (release: 0.1; ours reads all, as no class may go without).
        prototype_fresh_weight: see `PrototypeConfig` (release: 0.8).

    Raises:
        ValueError: a value out of range.
    """

    network: ClassTokenNetwork = ClassTokenNetwork.VIT
    prototype_weight: float = 1.0
    entropy_weight: float = 0.01
    entropy_epochs: int = 10
    prototype_epochs: int = 100
    prototype_batch_share: float = 1.0
    prototype_fresh_weight: float = 0.8

    def __post_init__(self) -> None:
        for name in ("prototype_weight", "entropy_weight", "entropy_epochs", "prototype_epochs"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected at least 0")
        self.prototypes()

    def prototypes(self) -> PrototypeConfig:
        """How prototypes are taken. Raises `ValueError`."""
        return PrototypeConfig(batch_share=self.prototype_batch_share, fresh_weight=self.prototype_fresh_weight)


def prototype_log_probability(class_tokens_BMD: Tensor, present_BM: Tensor, prototypes_MKD: Tensor,
                              known_MK: Tensor) -> Tensor:
    """log softmax_k(-|z_m - μ_k|), `[b, m, k]`; -inf where a present modality's prototype is unknown.

    Gradients reach the class tokens only. What an absent modality's token holds is not read.
    """
    precise = torch.promote_types(class_tokens_BMD.dtype, torch.float32)
    tokens_BMD = torch.where(present_BM[:, :, None], class_tokens_BMD, 0.0).to(precise)
    distance_BMK = torch.linalg.vector_norm(tokens_BMD[:, :, None] - prototypes_MKD.detach().to(precise), dim=-1)
    # A row of -inf alone would be NaN: an absent modality keeps all classes, and nothing reads them.
    counted_BMK = known_MK | ~present_BM[:, :, None]
    return torch.log_softmax((-distance_BMK).masked_fill(~counted_BMK, -torch.inf), dim=-1)


def rebalancing_terms(log_probability_BMK: Tensor, row_B: Tensor, present_BM: Tensor,
                      ratio_M: Tensor) -> tuple[Tensor, Tensor]:
    """Σ_m clip(1/ρ_m - 1, 0, 1) PCE_m and -Σ_m clip(ρ_m - 1, 0, 1) H_m, means over all samples of the batch.

    Args:
        log_probability_BMK: `[b, m, k]` of `prototype_log_probability`.
        row_B: `int64 [b]`, class of each sample.
        present_BM: `bool [b, m]`; an absent modality adds nothing.
        ratio_M: `[m]`, ρ; a constant.
    """
    index_BM1 = row_B[:, None, None].expand(-1, present_BM.shape[1], 1)
    cross_entropy_BM = torch.where(present_BM, -log_probability_BMK.gather(-1, index_BM1).squeeze(-1), 0.0)
    # 0 · log 0 is 0; its gradient would be NaN, so the logarithm of an impossible class is left out before.
    finite_BMK = log_probability_BMK.masked_fill(log_probability_BMK == -torch.inf, 0.0)
    share_BMK = log_probability_BMK.exp()
    entropy_BM = torch.where(present_BM, -(share_BMK * finite_BMK).sum(dim=-1), 0.0)
    ratio_M = ratio_M.detach().to(log_probability_BMK.dtype)
    slow_M = (1.0 / ratio_M - 1.0).clamp(0.0, 1.0)
    fast_M = (ratio_M - 1.0).clamp(0.0, 1.0)
    return (slow_M * cross_entropy_BM).sum(dim=1).mean(), -(fast_M * entropy_BM).sum(dim=1).mean()


class PMR(BalancedMethod, PrototypeMethod):
    """Cross entropy and the two terms above."""

    terms = ("cross_entropy", "prototype", "entropy")

    def __init__(self, context: MethodContext, network: MMDG | LateFusionViT, settings: PmrSettings) -> None:
        PrototypeMethod.__init__(self, context, network, prototypes=settings.prototypes(), classes=CLASSES)
        self._settings = settings

    def prototype_row(self, batch: TrainingBatch) -> Tensor:
        """0 for live, 1 for an attack of whatever source."""
        return (batch.label != LIVE_COLUMN).long()

    def confidence(self, output: NetworkOutput, batch: TrainingBatch) -> Tensor:
        """p_m(true)."""
        log_probability_BMK = self._log_probability(output, batch).detach()
        row_BM1 = self.prototype_row(batch)[:, None, None].expand(-1, log_probability_BMK.shape[1], 1)
        return log_probability_BMK.gather(-1, row_BM1).squeeze(-1).exp()

    def loss(self, output: NetworkOutput, batch: TrainingBatch, ratio_M: Tensor) -> dict[str, Tensor]:
        """CE, α PCE, μ PER."""
        settings = self._settings
        slow, fast = rebalancing_terms(self._log_probability(output, batch), self.prototype_row(batch), batch.present,
                                       ratio_M)
        logits = output.logits.to(torch.promote_types(output.logits.dtype, torch.float32))
        return {"cross_entropy": F.cross_entropy(logits, batch.label),
                "prototype": settings.prototype_weight * (self.epoch < settings.prototype_epochs) * slow,
                "entropy": settings.entropy_weight * (self.epoch < settings.entropy_epochs) * fast}

    def _log_probability(self, output: NetworkOutput, batch: TrainingBatch) -> Tensor:
        prototypes = self.current_prototypes
        return prototype_log_probability(output.class_tokens, batch.present, prototypes.values, prototypes.known)


def build_pmr(context: MethodContext, settings: PmrSettings) -> Method:
    """Raises `MethodError`, `BackboneError`; see `build_class_token_network`."""
    return PMR(context, build_class_token_network(context, settings.network), settings)


ROWS = tuple(MethodEntry(
    name=f"pmr_{network}", title=f"{on}, PMR", summary=f"prototypical modal rebalance on {plain}",
    source=f"Fan et al., CVPR 2023; arXiv 2402.19298, {where}", settings=PmrSettings, build=build_pmr,
    fixed={"network": network}) for network, on, plain, where in (
        (ClassTokenNetwork.VIT, "ViT", "the plain ViT", "Figure 5"),
        (ClassTokenNetwork.U_ADAPTER, "ViT + U-Adapter", "ViT and U-Adapters", "Table 4")))
