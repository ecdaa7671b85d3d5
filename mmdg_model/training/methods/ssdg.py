"""SSDG, single-side domain generalisation (Jia et al., CVPR 2020, arXiv 2004.14043), on three trunks.

Attacks of different data sets should stay apart, live faces should not: a triplet loss in which all live faces are one
class and the attacks of each data set another, and a discriminator of data sets that learns on live faces alone, behind
a gradient reversal. Features and the classifier's weights are normalised.

    L = CE + w_t L_triplet + w_a L_adversarial

Legend: b batch, d width, k data sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.network import LIVE_COLUMN
from mmdg_model.training.methods.contract import Method, MethodContext, TrainingBatch
from mmdg_model.training.methods.gradient_reversal import DomainDiscriminator, ramp, reverse_gradient
from mmdg_model.training.methods.mean_loss import MeanLossMethod, widened
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import new_head
from mmdg_model.training.methods.residual_network import scaled
from mmdg_model.training.methods.starting_weights import check_start, draw_network
from mmdg_model.training.methods.trunks import AnyTrunk, Trunk, build_trunk, start

#: Below this a distance or norm has no useful gradient.
LEAST = 1e-12


@dataclass(frozen=True, kw_only=True)
class SsdgSettings:
    """What may be set; defaults are the release's for three of its four protocols.

    Attributes:
        trunk: see `Trunk`; fixed by the row.
        triplet_weight: w_t (release: 1, and 2 where OULU-NPU is the target).
        triplet_margin: of the triplet loss.
        adversarial_weight: w_a (release: 0.5, and 0.1 where OULU-NPU is the target).
        ramp_updates: over which the reversal gains its strength, see `gradient_reversal.ramp`.
        dropout: of the embedding (own trunk) and of the discriminator.
        normalised: normalised features and classifier weights; False: a plain linear head.

    Raises:
        ValueError: a value out of range.
    """

    trunk: Trunk = Trunk.OWN
    triplet_weight: float = 1.0
    triplet_margin: float = 0.1
    adversarial_weight: float = 0.5
    ramp_updates: int = 4000
    dropout: float = 0.5
    normalised: bool = True

    def __post_init__(self) -> None:
        for name in ("triplet_weight", "triplet_margin", "adversarial_weight", "ramp_updates"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected at least 0")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout!r}, expected 0 to below 1")


def asymmetric_triplet_loss(feature_BD: Tensor, domain_B: Tensor, *, margin: float) -> Tensor:
    """Mean of max(0, |a - p| - |a - n| + margin) over all triplets for which it is above 0.

    Args:
        feature_BD: features.
        domain_B: `int64 [b]`, row of each sample: live faces are one class, the attacks of each data set another.
        margin: by how much further the other class must be.

    Returns:
        `[]`; 0 where no triplet is above 0, as where all samples are of one class.
    """
    squared_BB = (feature_BD[:, None] - feature_BD[None]).square().sum(dim=2)
    distance_BB = squared_BB.clamp_min(LEAST).sqrt()
    same_BB = domain_B[:, None] == domain_B[None]
    itself_BB = torch.eye(len(domain_B), dtype=torch.bool, device=domain_B.device)
    excess_BBB = distance_BB[:, :, None] - distance_BB[:, None, :] + margin  # anchor, positive, negative
    valid_BBB = (same_BB & ~itself_BB)[:, :, None] & ~same_BB[:, None, :]
    active_BBB = valid_BBB & (excess_BBB > 0)
    kept_BBB = torch.where(active_BBB, excess_BBB, torch.zeros_like(excess_BBB))
    mean: Tensor = kept_BBB.sum() / active_BBB.sum().clamp_min(1)
    return mean


def live_domain_loss(logits_BK: Tensor, source_B: Tensor, live_B: Tensor) -> Tensor:
    """Cross entropy of the data set, mean over the live samples alone; 0 where there is none.

    Args:
        logits_BK: of the discriminator. source_B: `int64 [b]`. live_B: `bool [b]`.
    """
    losses_B = F.cross_entropy(logits_BK, source_B, reduction="none")
    mean: Tensor = torch.where(live_B, losses_B, torch.zeros_like(losses_B)).sum() / live_B.sum().clamp_min(1)
    return mean


def normalised_feature(feature_BD: Tensor) -> Tensor:
    """f / sqrt(2 |f|), the release's normalisation: a feature keeps the root of its length."""
    length_B1 = feature_BD.norm(dim=1, keepdim=True).clamp_min(LEAST)
    scaled_BD: Tensor = feature_BD / (2.0 * length_B1).sqrt()
    return scaled_BD


class NormalisedHead(nn.Linear):
    """Two classes; each class's weight vector counts by its direction alone."""

    def __init__(self, width: int) -> None:
        super().__init__(width, 2, bias=False)

    def forward(self, feature_BD: Tensor) -> Tensor:
        """`[b, d]` to `[b, 2]`."""
        return F.linear(feature_BD, F.normalize(self.weight, dim=1, eps=LEAST))


class SsdgOutput(NamedTuple):
    """`logits [b, 2]`; `feature [b, d]`, normalised where the settings say so."""

    logits: Tensor
    feature: Tensor


class SsdgNetwork(nn.Module):
    """Trunk, embedding (after a ResNet only: on a ViT the class token is the feature), head, discriminator."""

    def __init__(self, trunk: AnyTrunk, *, embedding: int, hidden: int, domains: int, settings: SsdgSettings) -> None:
        super().__init__()
        self.normalised = settings.normalised
        self.trunk = trunk
        width = embedding or trunk.width
        self.head: nn.Linear = NormalisedHead(width) if settings.normalised else new_head(width)
        self.embedding: nn.Module = nn.Identity() if not embedding else nn.Sequential(
            nn.Linear(trunk.width, embedding), nn.ReLU(), nn.Dropout(settings.dropout))
        self.discriminator = DomainDiscriminator(width, hidden, domains, dropout=settings.dropout)

    def forward(self, planes: Tensor, present_BM: Tensor) -> SsdgOutput:
        """`[b, 3, 3, S, S]`, `bool [b, 3]`. Raises `ValueError`: wrong shapes, or no modality present."""
        feature_BD: Tensor = self.embedding(self.trunk(planes, present_BM).vector)
        if self.normalised:
            feature_BD = normalised_feature(widened(feature_BD))
        return SsdgOutput(self.head(feature_BD), feature_BD)


class Ssdg(MeanLossMethod):
    """The three terms. The triplet loss compares samples of a part; the other two are means over samples."""

    terms = ("cross_entropy", "triplet", "adversarial")

    def __init__(self, context: MethodContext, network: SsdgNetwork, settings: SsdgSettings) -> None:
        super().__init__(context, network)
        self._network = network
        self._settings = settings

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """A term with weight 0 is not computed."""
        settings, output = self._settings, self._network(batch.planes, batch.present)
        feature_BD = widened(output.feature)
        triplet = adversarial = feature_BD.new_zeros(())
        if settings.triplet_weight:
            triplet = settings.triplet_weight * asymmetric_triplet_loss(feature_BD, batch.domain,
                                                                        margin=settings.triplet_margin)
        if settings.adversarial_weight:
            strength = ramp(self.updates, settings.ramp_updates)
            logits_BK = widened(self._network.discriminator(reverse_gradient(feature_BD, strength)))
            adversarial = settings.adversarial_weight * live_domain_loss(logits_BK, batch.source,
                                                                         batch.label == LIVE_COLUMN)
        return {"cross_entropy": F.cross_entropy(widened(output.logits), batch.label), "triplet": triplet,
                "adversarial": adversarial}


def build_ssdg(context: MethodContext, settings: SsdgSettings) -> Method:
    """Raises `MethodError` (see `check_start`), `BackboneError`."""
    check_start(context)
    config = context.model
    own = settings.trunk is Trunk.OWN
    network = draw_network(context, lambda: SsdgNetwork(
        build_trunk(settings.trunk, config, dense=False), embedding=scaled(512, config) if own else 0,
        hidden=scaled(512, config), domains=len(context.classes.sources), settings=settings))
    start(network, context)
    return Ssdg(context, network, settings)


_entry = partial(MethodEntry, settings=SsdgSettings, build=build_ssdg, batch_coupled=True,
                 cross_entropy_alone={"triplet_weight": 0.0, "adversarial_weight": 0.0})

ROWS = (
    _entry(name="ssdg", title="SSDG", summary="asymmetric triplets and adversarial live faces, on ResNet-18",
           source="arXiv 2004.14043 (CVPR 2020), SSDG-R; arXiv 2402.19298, Tables 1 to 3", fixed={"trunk": Trunk.OWN},
           own_backbone=True),
    _entry(name="ssdg_vit", title="SSDG on ViT", summary="SSDG's losses on the plain ViT",
           source="arXiv 2004.14043; arXiv 2402.19298, Figure 5", fixed={"trunk": Trunk.VIT}),
    _entry(name="ssdg_u_adapter", title="SSDG on ViT + U-Adapter", summary="SSDG's losses on MMDG's network",
           source="arXiv 2004.14043; arXiv 2402.19298, Table 4 and Figure 5", fixed={"trunk": Trunk.U_ADAPTER}),
)
