"""CMFL, the cross-modal focal loss (CVPR 2021, George and Marcel): a branch learns less where another is sure already.

Each branch has a classifier of its own beside the joint one. With p and q the probability of the true class that
branches a and b give a sample:

    w(a, b)  = q · 2 p q / (p + q)
    CMFL_a   = -α (1 - w)^γ log p,   mean over the other branches b
    L        = (1 - λ) BCE(joint) + λ mean over branches of CMFL_a

The paper has two branches, for which this is its loss with λ = 1/2; over three, the mean of ordered pairs is ours. A
sample with one modality has no other branch: its factor is 1. Gradients pass through w, as in the authors' code.

Legend: b batch, m modalities (order of `network.MODALITIES`), c features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.network import LIVE_COLUMN, MMDG, MODALITIES
from mmdg_model.training.methods.class_token_networks import ClassTokenNetwork, build_class_token_network
from mmdg_model.training.methods.contract import Method, MethodContext, TrainingBatch
from mmdg_model.training.methods.dense_branches import DenseBranches
from mmdg_model.training.methods.mean_loss import MeanLossMethod
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import LateFusionViT
from mmdg_model.training.methods.starting_weights import check_start, draw_network


@dataclass(frozen=True, kw_only=True)
class CmflSettings:
    """What may be set.

    Attributes:
        network: what it is put on; null for its own, DenseNet-161's first half a modality.
        scale, focus: α and γ (paper: 1 and 3).
        branch_weight: λ (paper: 0.5).

    Raises:
        ValueError: a value out of range; between 0 and 1 the gradient of (1 - w)^γ has no bound.
    """

    network: ClassTokenNetwork | None = None
    scale: float = 1.0
    focus: float = 3.0
    branch_weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.scale < float("inf"):
            raise ValueError(f"scale is {self.scale!r}, expected at least 0")
        if not (self.focus == 0.0 or 1.0 <= self.focus < float("inf")):
            raise ValueError(f"focus is {self.focus!r}, expected 0 or at least 1")
        if not 0.0 <= self.branch_weight <= 1.0:
            raise ValueError(f"branch_weight is {self.branch_weight!r}, expected 0 to 1")


def cross_modal_focal_loss(branch_logit_BM: Tensor, label_B: Tensor, present_BM: Tensor, *, scale: float,
                           focus: float) -> Tensor:
    """Mean over the branches that a sample has of CMFL_a, `[b]`.

    Args:
        branch_logit_BM: `[b, m]`, log-odds of bona fide; an absent branch's is not read.
        label_B: `int64 [b]`, `network.LIVE_COLUMN` for live.
        present_BM: `bool [b, m]`, at least one a row.
        scale, focus: α and γ.
    """
    sign_B1 = torch.where(label_B == LIVE_COLUMN, 1.0, -1.0).to(branch_logit_BM.dtype)[:, None]
    logit_BM = torch.where(present_BM, branch_logit_BM, 0.0)
    log_true_BM = F.logsigmoid(sign_B1 * logit_BM)
    true_BM = log_true_BM.exp()
    own_BM1, other_B1M = true_BM[:, :, None], true_BM[:, None]
    tiny = torch.finfo(true_BM.dtype).tiny
    weight_BMM = other_B1M * (2.0 * own_BM1 * other_B1M / (own_BM1 + other_B1M).clamp_min(tiny))
    modulation_BMM = (1.0 - weight_BMM).clamp_min(0.0).pow(focus)
    apart = ~torch.eye(true_BM.shape[1], dtype=torch.bool, device=true_BM.device)
    asked_BMM = (present_BM[:, None] & apart).expand(-1, true_BM.shape[1], -1)
    others_BM = asked_BMM.sum(dim=2)
    mean_BM = torch.where(asked_BMM, modulation_BMM, 0.0).sum(dim=2) / others_BM.clamp_min(1)
    factor_BM = torch.where(others_BM > 0, mean_BM, 1.0)
    loss_BM = torch.where(present_BM, -scale * factor_BM * log_true_BM, 0.0)
    return loss_BM.sum(dim=1) / present_BM.sum(dim=1)


class BranchOutput(NamedTuple):
    """What one forward pass returns.

    Attributes:
        logits: `[b, 2]` of the joint classifier, column 1 = bona fide.
        branch_logits: `[b, m]` of the branches' own, log-odds of bona fide.
    """

    logits: Tensor
    branch_logits: Tensor


class _Branches(nn.Module):
    """One classifier of one logit a modality."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.Linear(width, 1) for _ in MODALITIES)

    def forward(self, features_BMC: Tensor) -> Tensor:
        return torch.cat([layer(features_BMC[:, index]) for index, layer in enumerate(self.each)], dim=1)


class DenseBranchNetwork(nn.Module):
    """CMFL's own network: a convolutional branch a modality, their features side by side to the joint classifier."""

    def __init__(self, context: MethodContext) -> None:
        super().__init__()
        self.body = DenseBranches(context.model)
        self.branches = _Branches(self.body.channels)
        self.head = nn.Linear(len(MODALITIES) * self.body.channels, 1)

    def forward(self, planes: Tensor, present_BM: Tensor) -> BranchOutput:
        """`[b, 3, 3, S, S]`, `bool [b, 3]`; an absent modality's features are 0, with the encoding `flag`."""
        features_BMC = self.body(planes, present_BM)
        joint_B1 = self.head(features_BMC.flatten(1))
        return BranchOutput(torch.cat([torch.zeros_like(joint_B1), joint_B1], dim=1), self.branches(features_BMC))


class ClassTokenBranchNetwork(nn.Module):
    """Branch classifiers on the class tokens of another network, whose head is the joint classifier."""

    def __init__(self, body: LateFusionViT | MMDG) -> None:
        super().__init__()
        self.body = body
        self.branches = _Branches(body.norm.normalized_shape[0] if isinstance(body, MMDG) else body.config.width)

    def forward(self, planes: Tensor, present_BM: Tensor) -> BranchOutput:
        """`[b, 3, 3, S, S]`, `bool [b, 3]`; see the body's `forward`."""
        output = self.body(planes, present_BM)
        return BranchOutput(output.logits, self.branches(output.class_tokens))


class Cmfl(MeanLossMethod):
    """The two terms above."""

    terms = ("joint", "branches")

    def __init__(self, context: MethodContext, network: nn.Module, settings: CmflSettings) -> None:
        super().__init__(context, network)
        self._settings = settings

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Binary cross entropy of the joint classifier and the branches' focal losses."""
        output: BranchOutput = self.network(batch.planes, batch.present)
        settings, precise = self._settings, torch.promote_types(output.logits.dtype, torch.float32)
        branches_B = cross_modal_focal_loss(output.branch_logits.to(precise), batch.label, batch.present,
                                            scale=settings.scale, focus=settings.focus)
        joint = F.cross_entropy(output.logits.to(precise), batch.label)
        return {"joint": (1.0 - settings.branch_weight) * joint, "branches": settings.branch_weight * branches_B.mean()}


def build_cmfl(context: MethodContext, settings: CmflSettings) -> Method:
    """Its own network trains as a whole (no pretrained weights are read); on the others, the branch classifiers also.

    Raises:
        MethodError: see `check_start`.
        BackboneError: a backbone that does not fit.
    """
    check_start(context)
    if settings.network is None:
        return Cmfl(context, draw_network(context, lambda: DenseBranchNetwork(context)), settings)
    body = build_class_token_network(context, settings.network)
    return Cmfl(context, draw_network(context, lambda: ClassTokenBranchNetwork(body)), settings)


ROWS = (
    MethodEntry(name="cmfl", title="CMFL", summary="cross-modal focal loss, half a DenseNet-161 a modality",
                source="George and Marcel, CVPR 2021 (arXiv 2103.00948); arXiv 2402.19298, Tables 1 to 3",
                settings=CmflSettings, build=build_cmfl, fixed={"network": None}, own_backbone=True),
    MethodEntry(name="cmfl_vit", title="ViT, CMFL", summary="cross-modal focal loss on the plain ViT",
                source="arXiv 2103.00948; arXiv 2402.19298, Figure 5", settings=CmflSettings, build=build_cmfl,
                fixed={"network": ClassTokenNetwork.VIT}),
    MethodEntry(name="cmfl_u_adapter", title="ViT + U-Adapter, CMFL",
                summary="cross-modal focal loss on ViT and U-Adapters", source="arXiv 2103.00948; arXiv 2402.19298, "
                "Figure 5", settings=CmflSettings, build=build_cmfl, fixed={"network": ClassTokenNetwork.U_ADAPTER}),
)
