"""ViT + AMA (arXiv 2302.05744): one frozen ViT over the tokens of all modalities, adaptive multimodal adapters in it.

The stream holds one class token and the patches of RGB, depth and infrared, so the ViT's own attention joins them.
Beside the attention and beside the MLP of each block stands an adapter, a channels wide:

    x_m   = down(tokens of m) through QuickGELU, as a map of g x g
    w     = sigmoid( conv1x1( mean over places of [x_R; x_D; x_I] ) )          one weight a modality
    out_m = up( dropout( QuickGELU( w_m · conv3x3([x_R; x_D; x_I]) ) ) )

The class token passes the same convolution as a map of one place, three times over, with the mean weight.

Legend: b batch, m modalities (order of `network.MODALITIES`), n patches of a modality, d width, a adapter width,
g patches a side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from mmdg_model.config import ModelConfig, TrainableParts
from mmdg_model.network import MODALITIES
from mmdg_model.training.methods.contract import Method, MethodContext
from mmdg_model.training.methods.mean_loss import LogitsMethod
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import PlainViT, new_head, read_planes
from mmdg_model.training.methods.starting_weights import check_start, draw_network
from mmdg_model.u_adapter import quick_gelu
from mmdg_model.vit import ViTBlock


@dataclass(frozen=True, kw_only=True)
class ViTAmaSettings:
    """What may be set; the adapters' width is the model's `adapter_width` (source: 8).

    Attributes:
        dropout: before an adapter's up projection, in training (source: 0.1).

    Raises:
        ValueError: a share outside [0, 1).
    """

    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout!r}, expected at least 0 and below 1")


class AdaptiveMultimodalAdapter(nn.Module):
    """See the module's text. Freshly made its output is zero, so that a pretrained ViT starts undisturbed."""

    def __init__(self, *, width: int, adapter_width: int, dropout: float) -> None:
        super().__init__()
        joined = len(MODALITIES) * adapter_width
        self.down = nn.Linear(width, adapter_width)
        self.mix = nn.Conv2d(joined, adapter_width, kernel_size=3, padding=1)
        self.weigh = nn.Linear(joined, len(MODALITIES))
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(adapter_width, width)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """`[b, 1 + 3 n, d]`, class token first, then the modalities' patches, to the same shape."""
        narrow_BNA = quick_gelu(self.down(tokens_BND))
        modalities = len(MODALITIES)
        patches_BMNA = narrow_BNA[:, 1:].reshape(len(narrow_BNA), modalities, -1, narrow_BNA.shape[2])
        grid = int(patches_BMNA.shape[2] ** 0.5)
        maps_BXGG = patches_BMNA.transpose(2, 3).reshape(len(narrow_BNA), -1, grid, grid)
        weight_BM = torch.sigmoid(self.weigh(maps_BXGG.mean(dim=(2, 3))))
        mixed_BNA = self.mix(maps_BXGG).flatten(2).transpose(1, 2)
        own_BMNA = weight_BM[:, :, None, None] * mixed_BNA[:, None]
        class_BX = narrow_BNA[:, 0].repeat(1, modalities)
        # A map of one place: padding leaves the convolution its centre tap.
        class_BA = nn.functional.linear(class_BX, self.mix.weight[:, :, 1, 1], self.mix.bias)
        class_B1A = (weight_BM.mean(dim=1, keepdim=True) * class_BA)[:, None]
        joined_BNA = torch.cat([class_B1A, own_BMNA.flatten(1, 2)], dim=1)
        adapted: Tensor = self.up(self.dropout(quick_gelu(joined_BNA)))
        return adapted


class AdaptedJointViT(nn.Module):
    """One ViT over 1 + 3 n tokens with two adapters a block; the class token to the head."""

    def __init__(self, shape: ModelConfig, *, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        self.vit = PlainViT(shape)

        def adapters() -> nn.ModuleList:
            return nn.ModuleList(AdaptiveMultimodalAdapter(width=shape.width, adapter_width=shape.adapter_width,
                                                           dropout=dropout) for _ in range(shape.depth))

        self.attention_adapters = adapters()
        self.mlp_adapters = adapters()
        self.head = new_head(shape.width)

    def forward(self, planes: Tensor, present_BM: Tensor) -> Tensor:
        """`[b, 3, 3, S, S]`, `bool [b, 3]` to logits `[b, 2]`.

        An absent modality's plane counts as zeros, as in the source, and its tokens stay in the stream.

        Raises:
            ValueError: as `read_planes`.
        """
        seen, _ = read_planes(planes, present_BM, self.shape)
        tokens_SND = self.vit.embedding(seen.flatten(0, 1))
        tokens_BMND = tokens_SND.reshape(-1, len(MODALITIES), *tokens_SND.shape[1:])
        stream_BND = torch.cat([tokens_BMND[:, 0, :1], tokens_BMND[:, :, 1:].flatten(1, 2)], dim=1)
        for module, beside_attention, beside_mlp in zip(self.vit.blocks, self.attention_adapters, self.mlp_adapters,
                                                        strict=True):
            block = cast(ViTBlock, module)
            normed_BND = block.attention_norm(stream_BND)
            stream_BND = stream_BND + block.attention(normed_BND) + beside_attention(normed_BND)
            normed_BND = block.mlp_norm(stream_BND)
            stream_BND = stream_BND + block.mlp(normed_BND) + beside_mlp(normed_BND)
        logits: Tensor = self.head(self.vit.norm(stream_BND[:, 0]))
        return logits


def build_vit_ama(context: MethodContext, settings: ViTAmaSettings) -> Method:
    """Adapters and head train on a frozen ViT, which is the method; with `trainable_parts = everything`, all does.

    Raises:
        MethodError: see `check_start`.
        BackboneError: a backbone that does not fit.
    """
    check_start(context)
    network = draw_network(context, lambda: AdaptedJointViT(context.model, dropout=settings.dropout))
    if context.backbone is not None:
        network.vit.place(context.backbone, context.model)
    if context.model.trainable_parts is not TrainableParts.EVERYTHING:
        network.vit.requires_grad_(False)
    return LogitsMethod(context, network)


ROWS = (MethodEntry(
    name="vit_ama", title="ViT + AMA", summary="a frozen ViT over all modalities' tokens, adaptive multimodal adapters",
    source="arXiv 2302.05744; arXiv 2402.19298, Tables 1 to 3", settings=ViTAmaSettings, build=build_vit_ama,
    fixed={}),)
