"""ViT with cross-attention fusion, in the manner of Flex-Modal-FAS (arXiv 2202.08192): channels ask channels.

One plain ViT for all modalities gives each a map X_m of patch tokens. Each ordered pair of modalities that are there,
a modality with itself included, exchanges by attention between channels (n patches, c channels):

    F_ab  = softmax( Q X_a (K X_b)^T / sqrt(n) ) V X_b               [c, n]
    F     = mean of F_ab over the pairs
    score = head( dropout( mean over patches of ReLU( norm( conv3x3(F) ) ) ) )

Legend: b batch, m modalities (order of `network.MODALITIES`), n patches, d width, c channels, g patches a side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmdg_model.config import ModelConfig
from mmdg_model.training.methods.contract import Method, MethodContext
from mmdg_model.training.methods.mean_loss import LogitsMethod
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import PlainViT, is_trainable, new_head, read_planes, through_block
from mmdg_model.training.methods.sample_norm import sample_norm
from mmdg_model.training.methods.starting_weights import check_start, draw_network
from mmdg_model.vit import INIT_STD


@dataclass(frozen=True, kw_only=True)
class ViTCrossSettings:
    """What may be set.

    Attributes:
        dropout: before the head, in training (source: 0.3).

    Raises:
        ValueError: a share outside [0, 1).
    """

    dropout: float = 0.3

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout!r}, expected at least 0 and below 1")


class ChannelCrossAttention(nn.Module):
    """Maps of the modalities to one; see the module's text."""

    def __init__(self, *, width: int, channels: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, channels, bias=False)
        self.key = nn.Linear(width, channels, bias=False)
        self.value = nn.Linear(width, channels, bias=False)
        self.mix = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = sample_norm(channels)
        for linear in (self.query, self.key, self.value):
            nn.init.trunc_normal_(linear.weight, std=INIT_STD)

    def forward(self, patches_BMND: Tensor, read_BM: Tensor) -> Tensor:
        """`[b, m, n, d]` and `bool [b, m]`, which are read, to features `[b, c]`."""
        query_BMCN, key_BMCN, value_BMCN = (layer(patches_BMND).transpose(2, 3)
                                            for layer in (self.query, self.key, self.value))
        patches = patches_BMND.shape[2]
        weight_BXYCE = torch.softmax(
            torch.einsum("bxcn,byen->bxyce", query_BMCN, key_BMCN) * patches ** -0.5, dim=-1)
        pair_BXY = (read_BM[:, :, None] & read_BM[:, None]).to(value_BMCN.dtype)
        share_BXY = pair_BXY / pair_BXY.sum(dim=(1, 2), keepdim=True)
        fused_BCN = torch.einsum("bxy,bxyce,byen->bcn", share_BXY, weight_BXYCE, value_BMCN)
        grid = int(patches ** 0.5)
        mixed_BCGG = torch.relu(self.norm(self.mix(fused_BCN.reshape(*fused_BCN.shape[:2], grid, grid))))
        return mixed_BCGG.mean(dim=(2, 3))


class CrossAttentionViT(nn.Module):
    """One ViT, channel cross-attention, one head. Its patches only are read, the class token through them."""

    def __init__(self, shape: ModelConfig, *, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        self.vit = PlainViT(shape)
        channels = max(8, shape.width // 12)  # 64 at the paper's size: a c x c weight for each of nine pairs
        self.fusion = ChannelCrossAttention(width=shape.width, channels=channels)
        self.dropout = nn.Dropout(dropout)
        self.head = new_head(channels)

    def forward(self, planes: Tensor, present_BM: Tensor) -> Tensor:
        """`[b, 3, 3, S, S]`, `bool [b, 3]` to logits `[b, 2]`. Raises `ValueError` as `read_planes`."""
        seen, read_BM = read_planes(planes, present_BM, self.shape)
        stream_SND: Tensor = self.vit.embedding(seen.flatten(0, 1))
        for block in self.vit.blocks:
            stream_SND, _ = through_block(block, stream_SND)
        patches_SND = self.vit.norm(stream_SND[:, 1:])
        features_BC = self.fusion(patches_SND.reshape(*read_BM.shape, *patches_SND.shape[1:]), read_BM)
        logits: Tensor = self.head(self.dropout(features_BC))
        return logits


def build_vit_cross(context: MethodContext, settings: ViTCrossSettings) -> Method:
    """What trains: as for the other plain ViTs (`plain_vit.is_trainable`), and the fusion always.

    Raises:
        MethodError: see `check_start`.
        BackboneError: a backbone that does not fit.
    """
    check_start(context)
    network = draw_network(context, lambda: CrossAttentionViT(context.model, dropout=settings.dropout))
    if context.backbone is not None:
        network.vit.place(context.backbone, context.model)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_trainable(name, context.model))
    return LogitsMethod(context, network)


ROWS = (MethodEntry(
    name="vit_cross", title="ViT, cross-attention fusion",
    summary="one plain ViT for all modalities, patch maps joined by channel attention",
    source="arXiv 2202.08192 (Flex-Modal-FAS); arXiv 2402.19298, row ViT (fusion not stated there)",
    settings=ViTCrossSettings, build=build_vit_cross, fixed={}),)
