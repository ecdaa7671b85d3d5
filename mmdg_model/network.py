"""`MMDG`: one shared ViT over three modalities, U-Adapters between them, one head on their class tokens.

Legend: b batch, m modalities (RGB, depth, infrared: `MODALITIES`), n tokens (class token first), d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmdg_model.config import ModelConfig
from mmdg_model.scorer import Modality
from mmdg_model.u_adapter import build_u_adapter
from mmdg_model.uncertainty import AnalyticUncertainty, build_uncertainty
from mmdg_model.vit import INIT_STD, TokenEmbedding, ViTBlock, build_block, build_embedding

#: Order of the modality axis of every tensor.
MODALITIES: tuple[Modality, ...] = (Modality.RGB, Modality.DEPTH, Modality.INFRARED)

#: (own, source): depth and infrared never exchange directly (paper, Section 3.2).
DIRECTIONS: tuple[tuple[Modality, Modality], ...] = (
    (Modality.RGB, Modality.DEPTH),
    (Modality.RGB, Modality.INFRARED),
    (Modality.DEPTH, Modality.RGB),
    (Modality.INFRARED, Modality.RGB),
)

#: Column of the logits that means bona fide; column 0 means attack.
LIVE_COLUMN = 1


def direction_name(own: Modality, source: Modality) -> str:
    """Name of the adapter that feeds `own` from `source`, as parameter names carry it: `rgb_from_depth`."""
    return f"{own}_from_{source}"


class NetworkOutput(NamedTuple):
    """What one forward pass returns.

    Attributes:
        logits: `[b, 2]`, column 1 = bona fide.
        class_tokens: `[b, m, d]` after the final norm; 0 for an absent modality.
        class_certainty: `[b, m]` of the class token in the last block, in (0, 1]; 0 for an absent modality. No
            gradient. With reduction `mean_then_exp` the paper's u is -log(certainty) / rate.
    """

    logits: Tensor
    class_tokens: Tensor
    class_certainty: Tensor


class AdaptedBlock(nn.Module):
    """One ViT block shared by all modalities, with a U-Adapter for each allowed direction beside its MLP.

    The skip is the pre-norm residual stream, as released; the paper's Eq. 1-3 would skip from the norm's output and so
    discard the pretrained stream.
    """

    def __init__(self, *, block: ViTBlock, adapters: Mapping[str, nn.Module], uncertainty: AnalyticUncertainty) -> None:
        super().__init__()
        self.block = block
        self.adapters = nn.ModuleDict(dict(adapters))
        self.uncertainty = uncertainty

    def forward(self, stream_MBND: Tensor, present_MB: Tensor) -> tuple[Tensor, Tensor]:
        """Stream `[m, b, n, d]`, presence `[m, b]` to the next stream and the token certainty `[m, b, n, 1]`."""
        attended_MBND = self._attend(stream_MBND)
        certainty_MBN1: Tensor = self.uncertainty(attended_MBND)
        residual_MBND = stream_MBND + attended_MBND
        normed_MBND = self.block.mlp_norm(residual_MBND)
        exchanged_MBND = self._exchange(normed_MBND, certainty_MBN1, present_MB)
        return residual_MBND + self.block.mlp(normed_MBND) + exchanged_MBND, certainty_MBN1

    def _attend(self, stream_MBND: Tensor) -> Tensor:
        stacked = self.block.attention_norm(stream_MBND).flatten(0, 1)
        attended: Tensor = self.block.attention(stacked)
        return attended.reshape(stream_MBND.shape)

    def _exchange(self, normed_MBND: Tensor, certainty_MBN1: Tensor, present_MB: Tensor) -> Tensor:
        """Sum of the adapters' outputs for each own modality; an absent source gives nothing."""
        received: dict[Modality, Tensor] = {}
        for own, source in DIRECTIONS:
            own_index, source_index = MODALITIES.index(own), MODALITIES.index(source)
            adapter = self.adapters[direction_name(own, source)]
            message_BND: Tensor = adapter(normed_MBND[own_index], normed_MBND[source_index],
                                          certainty_MBN1[source_index])
            message_BND = message_BND * present_MB[source_index, :, None, None].to(message_BND.dtype)
            received[own] = received[own] + message_BND if own in received else message_BND
        return torch.stack([received[modality] for modality in MODALITIES])


class MMDG(nn.Module):
    """The MMDG network (arXiv 2402.19298) with a flag for each modality that may be missing.

    Built by `build_mmdg`; the parts are passed in.

    Args:
        config: the numbers the parts were built from.
        embeddings: one `TokenEmbedding` a modality, in the order of `MODALITIES`.
        blocks: the adapted blocks, in order.
        norm: the final layer norm.
        head: linear, m·d to 2.
    """

    def __init__(self, config: ModelConfig, *, embeddings: list[TokenEmbedding], blocks: list[AdaptedBlock],
                 norm: nn.LayerNorm, head: nn.Linear) -> None:
        super().__init__()
        self.config = config
        self.embeddings = nn.ModuleList(embeddings)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head = head

    def forward(self, planes: Tensor, present_BM: Tensor) -> NetworkOutput:
        """Scores a batch.

        Args:
            planes: `[b, 3, 3, height, width]`, modality before channel, as `inputs.prepare` makes it.
            present_BM: `bool [b, 3]`; where False, that plane's content, whatever it holds, changes nothing.

        Raises:
            ValueError: wrong shapes, or a row with no modality present.
        """
        self._check(planes, present_BM)
        present_MB = present_BM.T
        stream_MBND = self._embed(planes, present_BM)
        for block in self.blocks:
            stream_MBND, certainty_MBN1 = block(stream_MBND, present_MB)
        class_tokens_BMD = self._class_tokens(stream_MBND, present_BM)
        logits: Tensor = self.head(class_tokens_BMD.flatten(1))
        class_certainty_BM = certainty_MBN1[:, :, 0, 0].T * present_BM.to(logits.dtype)
        return NetworkOutput(logits, class_tokens_BMD, class_certainty_BM)

    def _embed(self, planes: Tensor, present_BM: Tensor) -> Tensor:
        # Selected, not multiplied: 0 · NaN is NaN, and an absent plane may hold anything.
        seen = torch.where(present_BM[:, :, None, None, None], planes, torch.zeros_like(planes))
        return torch.stack([embed(seen[:, index]) for index, embed in enumerate(self.embeddings)])

    def _class_tokens(self, stream_MBND: Tensor, present_BM: Tensor) -> Tensor:
        class_tokens_BMD: Tensor = self.norm(stream_MBND[:, :, 0]).transpose(0, 1)
        return class_tokens_BMD * present_BM[:, :, None].to(class_tokens_BMD.dtype)

    def _check(self, planes: Tensor, present_BM: Tensor) -> None:
        size = self.config.image_size
        expected = (len(planes), len(MODALITIES), 3, size, size)
        if tuple(planes.shape) != expected:
            raise ValueError(f"planes have shape {tuple(planes.shape)}, expected (b, 3, 3, {size}, {size})")
        if tuple(present_BM.shape) != expected[:2] or present_BM.dtype != torch.bool:
            raise ValueError(f"presence is {present_BM.dtype} {tuple(present_BM.shape)}, expected bool {expected[:2]}")
        # Skipped while the graph is captured for another runtime: the check depends on values.
        if not torch.compiler.is_compiling() and not bool(present_BM.any(dim=1).all()):
            row = int((~present_BM.any(dim=1)).nonzero()[0])
            raise ValueError(f"row {row} of the batch has no modality present; a score needs at least one")


def build_mmdg(config: ModelConfig) -> MMDG:
    """A fresh network of `config`'s shape, adapters silent. Draws from torch's global generator."""
    uncertainty = build_uncertainty(config)
    blocks = [
        AdaptedBlock(block=build_block(config), uncertainty=uncertainty,
                     adapters={direction_name(own, source): build_u_adapter(config) for own, source in DIRECTIONS})
        for _ in range(config.depth)
    ]
    head = nn.Linear(len(MODALITIES) * config.width, 2)
    nn.init.trunc_normal_(head.weight, std=INIT_STD)
    nn.init.zeros_(head.bias)
    return MMDG(config, embeddings=[build_embedding(config) for _ in MODALITIES], blocks=blocks,
                norm=nn.LayerNorm(config.width, eps=config.layer_norm_eps), head=head)
