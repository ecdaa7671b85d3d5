"""VP-FAS (arXiv 2307.13958): a frozen ViT told by prompts what it sees, and to bear the loss of a modality.

Each modality passes the ViT by itself. In front of its patches stand prompts, anew in each block l: a learned one for
the modality, and a residual that a small network makes of the sample's patches (mean over the modalities present):

    P_lm(x) = V_lm + up_l( QuickGELU( down( mean of patch embeddings ) ) )
    L       = CE(z) + λ |sg(f(all)) - f(some)|^2 / d,   f = mean of the class tokens of the modalities that are there

For the second term the sample is seen again with modalities withheld, in turn by update: all non-empty proper subsets
of the three. A sample that would have nothing left keeps what it has. Prompt length, the generator's form, λ and the
distance are ours: the paper's code is not public.

Legend: b batch, m modalities (order of `network.MODALITIES`), n tokens, d width, p prompts, l blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import ModelConfig, TrainableParts
from mmdg_model.network import MODALITIES
from mmdg_model.training.methods.contract import Method, MethodContext, TrainingBatch
from mmdg_model.training.methods.mean_loss import MeanLossMethod
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import PlainViT, new_head, read_planes, through_block
from mmdg_model.training.methods.starting_weights import check_start, draw_network
from mmdg_model.u_adapter import quick_gelu
from mmdg_model.vit import INIT_STD

#: What is withheld, in turn: one modality, then two.
WITHHELD: tuple[tuple[int, ...], ...] = tuple(
    chosen for size in range(1, len(MODALITIES)) for chosen in combinations(range(len(MODALITIES)), size))


@dataclass(frozen=True, kw_only=True)
class VpFasSettings:
    """What may be set; all defaults are ours.

    Attributes:
        prompts: p, tokens a block and modality.
        context_width: channels inside the network that makes contextual prompts.
        consistency_weight: λ; at 0 samples are seen once.

    Raises:
        ValueError: a value out of range.
    """

    prompts: int = 4
    context_width: int = 8
    consistency_weight: float = 0.1

    def __post_init__(self) -> None:
        for name in ("prompts", "context_width"):
            if not 1 <= getattr(self, name) <= 256:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected 1 to 256")
        if not 0.0 <= self.consistency_weight < float("inf"):
            raise ValueError(f"consistency_weight is {self.consistency_weight!r}, expected at least 0")


class PromptedOutput(NamedTuple):
    """What one forward pass returns.

    Attributes:
        logits: `[b, 2]`, column 1 = bona fide.
        feature: `[b, d]`, mean of the class tokens of the modalities that are there.
    """

    logits: Tensor
    feature: Tensor


class PromptedViT(nn.Module):
    """One ViT for all modalities with prompts in every block; its class tokens side by side to the head."""

    def __init__(self, shape: ModelConfig, *, prompts: int, context_width: int) -> None:
        super().__init__()
        self.shape = shape
        self.vit = PlainViT(shape)
        self.prompts = nn.Parameter(torch.empty(shape.depth, len(MODALITIES), prompts, shape.width))
        self.down = nn.Linear(shape.width, context_width)
        self.up = nn.Linear(context_width, shape.depth * prompts * shape.width)
        self.head = new_head(len(MODALITIES) * shape.width)
        nn.init.normal_(self.prompts, std=INIT_STD)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, planes: Tensor, present_BM: Tensor) -> PromptedOutput:
        """`[b, 3, 3, S, S]`, `bool [b, 3]`; an absent modality's class token is 0, with the encoding `flag`.

        Raises:
            ValueError: as `read_planes`.
        """
        seen, read_BM = read_planes(planes, present_BM, self.shape)
        stream_SND: Tensor = self.vit.embedding(seen.flatten(0, 1))
        share_BM = read_BM.to(stream_SND.dtype)
        share_BM = share_BM / share_BM.sum(dim=1, keepdim=True)
        means_BMD = stream_SND[:, 1:].mean(dim=1).reshape(*read_BM.shape, -1)
        context_BD = torch.einsum("bm,bmd->bd", share_BM, means_BMD)
        residual_BLPD = self.up(quick_gelu(self.down(context_BD))).reshape(-1, *self.prompts.shape[::2],
                                                                           self.shape.width)
        for block, vanilla_MPD, residual_BPD in zip(self.vit.blocks, self.prompts, residual_BLPD.unbind(1),
                                                    strict=True):
            told_SPD = (vanilla_MPD + residual_BPD[:, None]).flatten(0, 1)
            stream_SND = torch.cat([stream_SND[:, :1], told_SPD.to(stream_SND.dtype), stream_SND[:, 1:]], dim=1)
            stream_SND, _ = through_block(block, stream_SND)
            stream_SND = torch.cat([stream_SND[:, :1], stream_SND[:, 1 + told_SPD.shape[1]:]], dim=1)
        class_BMD = self.vit.norm(stream_SND[:, 0]).reshape(*read_BM.shape, -1)
        class_BMD = class_BMD * read_BM[:, :, None].to(class_BMD.dtype)
        return PromptedOutput(self.head(class_BMD.flatten(1)), (share_BM[:, :, None] * class_BMD).sum(dim=1))


def withhold(present_BM: Tensor, chosen: tuple[int, ...]) -> Tensor:
    """Presence without the chosen modalities, `bool [b, m]`; a row that would have nothing left stays as it is."""
    kept_BM = present_BM.clone()
    kept_BM[:, list(chosen)] = False
    return torch.where(kept_BM.any(dim=1, keepdim=True), kept_BM, present_BM)


def consistency_loss(whole_BD: Tensor, partial_BD: Tensor) -> Tensor:
    """|sg(whole) - partial|^2 / d, `[b]`; gradients reach the partial feature only."""
    return (partial_BD - whole_BD.detach()).square().mean(dim=1)


class VpFas(MeanLossMethod):
    """The two terms above."""

    terms = ("cross_entropy", "consistency")

    def __init__(self, context: MethodContext, network: PromptedViT, settings: VpFasSettings) -> None:
        super().__init__(context, network)
        self._settings = settings

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Two forward passes, one with a modality or two withheld."""
        whole: PromptedOutput = self.network(batch.planes, batch.present)
        precise = torch.promote_types(whole.logits.dtype, torch.float32)
        consistency = torch.zeros((), dtype=precise, device=whole.logits.device)
        if weight := self._settings.consistency_weight:
            fewer_BM = withhold(batch.present, WITHHELD[self.updates % len(WITHHELD)])
            partial: PromptedOutput = self.network(batch.planes, fewer_BM)
            consistency = weight * consistency_loss(whole.feature.to(precise), partial.feature.to(precise)).mean()
        return {"cross_entropy": F.cross_entropy(whole.logits.to(precise), batch.label), "consistency": consistency}


def build_vp_fas(context: MethodContext, settings: VpFasSettings) -> Method:
    """Prompts, their generator and the head train on a frozen ViT; with `trainable_parts = everything`, all does.

    Raises:
        MethodError: see `check_start`.
        BackboneError: a backbone that does not fit.
    """
    check_start(context)
    network = draw_network(context, lambda: PromptedViT(context.model, prompts=settings.prompts,
                                                        context_width=settings.context_width))
    if context.backbone is not None:
        network.vit.place(context.backbone, context.model)
    if context.model.trainable_parts is not TrainableParts.EVERYTHING:
        network.vit.requires_grad_(False)
    return VpFas(context, network, settings)


ROWS = (MethodEntry(
    name="vp_fas", title="VP-FAS", summary="visual and contextual prompts on a frozen ViT, modalities withheld in turn",
    source="arXiv 2307.13958; arXiv 2402.19298, Tables 1 to 3", settings=VpFasSettings, build=build_vp_fas, fixed={}),)
