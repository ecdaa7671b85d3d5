"""The single-side prototypical (SSP) loss (arXiv 2402.19298, Section 3.3, Eq. 6-8), and the classes it knows.

"Single-side": attacks differ from one data set to the next and get a class each; live faces should not, and share one.

Legend: b batch, m modalities (order of `network.MODALITIES`), k domain classes, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmdg_model.network import MODALITIES

#: Name of the class of all live faces, whatever their data set; always row 0.
LIVE_CLASS = "live"


@dataclass(frozen=True)
class DomainClasses:
    """Rows of the prototypes: all live faces, then the attacks of each training source.

    Args:
        sources: names of the training data sets, in any order that stays; N_s of them.
        held_out: data sets that are not trained on but get a row, as in the released code (whose five rows are C, P,
            S, W and live whatever the protocol). Such a row stays zero, and still stands in the loss's denominator.

    Raises:
        ValueError: no source, a name twice, or a source called `live`.
    """

    sources: tuple[str, ...]
    held_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("domain classes need at least one training source, got none")
        names = self.rows
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"domain class {repeated[0]!r} occurs twice in {', '.join(names)}; names must differ, and "
                             f"{LIVE_CLASS!r} is taken by the live faces")

    @property
    def rows(self) -> tuple[str, ...]:
        """Name of each row: `live`, the sources, those held out."""
        return (LIVE_CLASS, *self.sources, *self.held_out)

    def row(self, source: str, *, is_live: bool) -> int:
        """Row of a sample.

        Raises:
            ValueError: an attack from a data set that is not a source.
        """
        if source not in self.sources:
            raise ValueError(f"sample of data set {source!r}, expected one of {', '.join(self.sources)}")
        return 0 if is_live else 1 + self.sources.index(source)


class SSPLoss(NamedTuple):
    """What `ssp_loss` returns; 0 where the sample lacks the modality.

    Attributes:
        loss: `[b, m]`; at least 0.
        entropy: `[b, m]` of the softmax over domain classes, in nats, no gradient. The loss has no temperature: how
            sharp it is depends on the width of the tokens, and this is where that shows.
    """

    loss: Tensor
    entropy: Tensor

    def mean_over_batch(self) -> Tensor:
        """L_m `[m]`: sum over the samples that have the modality, divided by *all* samples of the batch.

        So the objective is a mean of per-sample losses, an absent modality adds nothing, and shards of any size
        can be added up. Without missing modalities it is the paper's mean.
        """
        return self.loss.sum(dim=0) / len(self.loss)


def ssp_loss(class_tokens_BMD: Tensor, domain_B: Tensor, present_BM: Tensor, *, prototypes_MKD: Tensor,
             known_MK: Tensor) -> SSPLoss:
    """ED(c, p_own) + log Σ_k exp(-ED(c, p_k)) of each sample and modality; ED is the Euclidean distance, not squared.

    Equal to the cross entropy of softmax(-ED). Gradients reach the class tokens only. Where a token lies on a
    prototype the distance has no derivative; it counts as 0 there.

    Args:
        class_tokens_BMD: `[b, m, d]` after the final norm; half precision is computed in float32.
        domain: `int64 [b]`, row of each sample (`DomainClasses.row`).
        present: `bool [b, m]`; what an absent modality's token holds changes nothing.
        prototypes_MKD: `[m, k, d]`; constants.
        known: `bool [m, k]`; an unknown prototype stands in no denominator.

    Raises:
        ValueError: shapes that do not fit, a domain out of range, or a present sample whose own prototype is unknown.
    """
    _check(class_tokens_BMD, domain_B, present_BM, prototypes_MKD, known_MK)
    precise = torch.promote_types(class_tokens_BMD.dtype, torch.float32)
    # Selected, not multiplied: 0 · NaN is NaN, in the gradient too.
    tokens_BMD = torch.where(present_BM[:, :, None], class_tokens_BMD, 0.0).to(precise)
    difference_BMKD = tokens_BMD[:, :, None] - prototypes_MKD.detach().to(precise)
    # `vector_norm` defines its gradient at 0 as 0; sqrt(sum of squares) would give NaN there.
    distance_BMK = torch.linalg.vector_norm(difference_BMKD, dim=-1)
    # An absent sample keeps all classes: a row of -inf alone would be NaN, and its gradient with it.
    counted_BMK = known_MK | ~present_BM[:, :, None]
    log_share_BMK = torch.log_softmax((-distance_BMK).masked_fill(~counted_BMK, -torch.inf), dim=-1)
    own_BM1 = domain_B[:, None, None].expand(-1, len(known_MK), 1)
    loss_BM = -log_share_BMK.gather(-1, own_BM1).squeeze(-1)
    entropy_BM = torch.special.entr(log_share_BMK.detach().exp()).sum(dim=-1)
    return SSPLoss(torch.where(present_BM, loss_BM, 0.0), torch.where(present_BM, entropy_BM, 0.0))


def _check(class_tokens_BMD: Tensor, domain_B: Tensor, present_BM: Tensor, prototypes_MKD: Tensor,
           known_MK: Tensor) -> None:
    batch, modalities, width = class_tokens_BMD.shape
    classes = prototypes_MKD.shape[1]
    _expect("domain", domain_B, (batch,), torch.int64)
    _expect("presence", present_BM, (batch, modalities), torch.bool)
    _expect("prototypes", prototypes_MKD, (modalities, classes, width), prototypes_MKD.dtype)
    _expect("known", known_MK, (modalities, classes), torch.bool)
    if batch and bool(((domain_B < 0) | (domain_B >= classes)).any()):
        raise ValueError(f"domain rows {domain_B.tolist()}, expected 0 to {classes - 1}")
    orphans_BM = present_BM & ~known_MK.T[domain_B]
    if bool(orphans_BM.any()):
        sample, modality = (int(index) for index in orphans_BM.nonzero()[0])
        raise ValueError(f"sample {sample} belongs to domain row {int(domain_B[sample])}, whose {_modality(modality)} "
                         "prototype is unknown; compute prototypes over all training samples first")


def _expect(name: str, value: Tensor, shape: Sequence[int], dtype: torch.dtype) -> None:
    if tuple(value.shape) != tuple(shape) or value.dtype != dtype:
        raise ValueError(f"{name} is {value.dtype} {tuple(value.shape)}, expected {dtype} {tuple(shape)}")


def _modality(index: int) -> str:
    return str(MODALITIES[index]) if index < len(MODALITIES) else f"modality {index}"
