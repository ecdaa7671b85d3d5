"""`MMDG`: one shared ViT over three modalities, U-Adapters between them, one head on their class tokens.

Legend: b batch, m modalities (RGB, depth, infrared: `MODALITIES`), n tokens (class token first), d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mmdg_model.config import AdapterDirections, HeadInput, ModelConfig, ResidualSource
from mmdg_model.inputs import AbsenceEncoding
from mmdg_model.joint_adapters import AdapterLayout, exchange_jointly
from mmdg_model.scorer import Modality
from mmdg_model.u_adapter import UAdapter, build_u_adapter
from mmdg_model.uncertainty import MonteCarloUncertainty, TokenUncertainty, build_uncertainty
from mmdg_model.vit import INIT_STD, TokenEmbedding, ViTBlock, build_block, build_embedding

#: Order of the modality axis of every tensor.
MODALITIES: tuple[Modality, ...] = (Modality.RGB, Modality.DEPTH, Modality.INFRARED)

#: (own, source): depth and infrared never exchange directly (paper, Section 3.2), unless a configuration says so.
DIRECTIONS: tuple[tuple[Modality, Modality], ...] = (
    (Modality.RGB, Modality.DEPTH),
    (Modality.RGB, Modality.INFRARED),
    (Modality.DEPTH, Modality.RGB),
    (Modality.INFRARED, Modality.RGB),
)

#: What the choice `all_pairs` adds.
DEPTH_INFRARED_DIRECTIONS: tuple[tuple[Modality, Modality], ...] = (
    (Modality.DEPTH, Modality.INFRARED),
    (Modality.INFRARED, Modality.DEPTH),
)

#: Column of the logits that means bona fide; column 0 means attack.
LIVE_COLUMN = 1


def direction_name(own: Modality, source: Modality) -> str:
    """Name of the adapter that feeds `own` from `source`, as parameter names carry it: `rgb_from_depth`."""
    return f"{own}_from_{source}"


def adapter_directions(config: ModelConfig) -> tuple[tuple[Modality, Modality], ...]:
    """(own, source) of each adapter of a block."""
    return DIRECTIONS + (DEPTH_INFRARED_DIRECTIONS if config.adapter_directions is AdapterDirections.ALL_PAIRS else ())


class NetworkOutput(NamedTuple):
    """What one forward pass returns.

    Attributes:
        logits: `[b, 2]`, column 1 = bona fide.
        class_tokens: `[b, m, d]` after the final norm; 0 for a modality that is absent and muted by its flag.
        class_certainty: `[b, m]` of the class token in the last block, in (0, 1]; 0 for an absent modality. No
            gradient. With reduction `mean_then_exp` the paper's u is -log(certainty) / rate.
    """

    logits: Tensor
    class_tokens: Tensor
    class_certainty: Tensor


class AdaptedBlock(nn.Module):
    """One ViT block shared by all modalities, with a U-Adapter for each allowed direction beside its MLP.

    Args:
        block, adapters, uncertainty: its parts; adapters by `direction_name`.
        directions: (own, source) of each adapter.
        residual_source: the pre-norm residual stream, as released; the paper's Eq. 1-3 as printed skip from the norm's
            output and so discard the pretrained stream.
    """

    def __init__(self, *, block: ViTBlock, adapters: Mapping[str, nn.Module], uncertainty: TokenUncertainty,
                 directions: tuple[tuple[Modality, Modality], ...] = DIRECTIONS,
                 residual_source: ResidualSource = ResidualSource.STREAM) -> None:
        super().__init__()
        self.directions = directions
        self.residual_source = residual_source
        self.layout = AdapterLayout(tuple(MODALITIES.index(own) for own, _ in directions),
                                    tuple(MODALITIES.index(source) for _, source in directions), len(MODALITIES))
        self.block = block
        self.adapters = nn.ModuleDict(dict(adapters))
        self.uncertainty = uncertainty

    def forward(self, stream_MBND: Tensor, present_MB: Tensor, *,
                class_tokens_only: bool = False) -> tuple[Tensor, Tensor]:
        """Stream `[m, b, n, d]`, presence `[m, b]` to the next stream and the token certainty `[m, b, n, 1]`.

        Args:
            stream_MBND: of the block before.
            present_MB: `bool`.
            class_tokens_only: compute the next stream of the class tokens alone, `[m, b, 1, d]`: all that is read of
                the last block. In training mode only.
        """
        attended_MBND = self._attend(stream_MBND)
        certainty_MBN1: Tensor = self.uncertainty(attended_MBND)
        residual_MBND = stream_MBND + attended_MBND
        normed_MBND = self.block.mlp_norm(residual_MBND)
        if self.training:
            exchanged_MBND = exchange_jointly(
                [cast(UAdapter, self.adapters[direction_name(*pair)]) for pair in self.directions], self.layout,
                normed_MBND, certainty_MBN1, present_MB, class_tokens_only=class_tokens_only)
            if class_tokens_only:
                normed_MBND, residual_MBND = normed_MBND[:, :, :1], residual_MBND[:, :, :1]
        else:  # one adapter after the other, for hooks and exporters to see
            exchanged_MBND = self._exchange(normed_MBND, certainty_MBN1, present_MB)
        skip_MBND = normed_MBND if self.residual_source is ResidualSource.NORMED else residual_MBND
        return skip_MBND + self.block.mlp(normed_MBND) + exchanged_MBND, certainty_MBN1

    def _attend(self, stream_MBND: Tensor) -> Tensor:
        stacked = self.block.attention_norm(stream_MBND).flatten(0, 1)
        attended: Tensor = self.block.attention(stacked)
        return attended.reshape(stream_MBND.shape)

    def _exchange(self, normed_MBND: Tensor, certainty_MBN1: Tensor, present_MB: Tensor) -> Tensor:
        """Sum of the adapters' outputs for each own modality; an absent source gives nothing."""
        received: dict[Modality, Tensor] = {}
        for own, source in self.directions:
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
        head: linear to 2, from m·d or d channels as `config.head_input` says.
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
            present_BM: `bool [b, 3]`; where False, that plane's content, whatever it holds, changes nothing. With
                `config.absence` other than `flag` absent planes are read as they are: `inputs.prepare` has filled them.

        Raises:
            ValueError: wrong shapes, a row with no modality present, or one without the modality the head reads.
        """
        self._check(planes, present_BM)
        self._start_pass()
        read_BM = present_BM if self.config.absence is AbsenceEncoding.FLAG else torch.ones_like(present_BM)
        stream_MBND = self._embed(planes, read_BM)
        for index, block in enumerate(self.blocks):
            # All that is read of the last block are class tokens.
            shortened = {"class_tokens_only": True} if block.training and index == len(self.blocks) - 1 else {}
            stream_MBND, certainty_MBN1 = block(stream_MBND, read_BM.T, **shortened)
        class_tokens_BMD = self._class_tokens(stream_MBND, read_BM)
        logits: Tensor = self.head(self._head_input(class_tokens_BMD, read_BM))
        class_certainty_BM = certainty_MBN1[:, :, 0, 0].T * present_BM.to(logits.dtype)
        return NetworkOutput(logits, class_tokens_BMD, class_certainty_BM)

    def _start_pass(self) -> None:
        """Sampled certainty begins anew at its seed when scores are wanted, and goes on drawing in training."""
        if self.training:
            return
        for block in self.blocks:
            if isinstance(block.uncertainty, MonteCarloUncertainty):
                block.uncertainty.start_pass()

    def _embed(self, planes: Tensor, read_BM: Tensor) -> Tensor:
        # Selected, not multiplied: 0 · NaN is NaN, and an absent plane may hold anything.
        seen = torch.where(read_BM[:, :, None, None, None], planes, torch.zeros_like(planes))
        return torch.stack([embed(seen[:, index]) for index, embed in enumerate(self.embeddings)])

    def _class_tokens(self, stream_MBND: Tensor, read_BM: Tensor) -> Tensor:
        class_tokens_BMD: Tensor = self.norm(stream_MBND[:, :, 0]).transpose(0, 1)
        return class_tokens_BMD * read_BM[:, :, None].to(class_tokens_BMD.dtype)

    def _head_input(self, class_tokens_BMD: Tensor, read_BM: Tensor) -> Tensor:
        match self.config.head_input:
            case HeadInput.RGB_TOKEN:
                return class_tokens_BMD[:, MODALITIES.index(Modality.RGB)]
            case HeadInput.MEAN_TOKEN:  # absent tokens are 0
                return class_tokens_BMD.sum(dim=1) / read_BM.sum(dim=1, keepdim=True).to(class_tokens_BMD.dtype)
            case HeadInput.CONCATENATED:
                return class_tokens_BMD.flatten(1)

    def _check(self, planes: Tensor, present_BM: Tensor) -> None:
        size = self.config.image_size
        expected = (len(planes), len(MODALITIES), 3, size, size)
        if tuple(planes.shape) != expected:
            raise ValueError(f"planes have shape {tuple(planes.shape)}, expected (b, 3, 3, {size}, {size})")
        if tuple(present_BM.shape) != expected[:2] or present_BM.dtype != torch.bool:
            raise ValueError(f"presence is {present_BM.dtype} {tuple(present_BM.shape)}, expected bool {expected[:2]}")
        # Skipped while the graph is captured for another runtime: the check depends on values.
        if torch.compiler.is_compiling():
            return
        if not bool(present_BM.any(dim=1).all()):
            row = int((~present_BM.any(dim=1)).nonzero()[0])
            raise ValueError(f"row {row} of the batch has no modality present; a score needs at least one")
        rgb_B = present_BM[:, MODALITIES.index(Modality.RGB)]
        if self.config.head_input is HeadInput.RGB_TOKEN and not bool(rgb_B.all()):
            row = int((~rgb_B).nonzero()[0])
            raise ValueError(f"row {row} of the batch has no RGB, the only modality that head_input "
                             f"{self.config.head_input} reads; its score would be a constant")


def build_mmdg(config: ModelConfig) -> MMDG:
    """A fresh network of `config`'s shape, adapters silent. Draws from torch's global generator."""
    uncertainty = build_uncertainty(config)
    directions = adapter_directions(config)
    blocks = [
        AdaptedBlock(block=build_block(config), uncertainty=uncertainty, directions=directions,
                     residual_source=config.residual_source,
                     adapters={direction_name(own, source): build_u_adapter(config) for own, source in directions})
        for _ in range(config.depth)
    ]
    tokens_read = len(MODALITIES) if config.head_input is HeadInput.CONCATENATED else 1
    head = nn.Linear(tokens_read * config.width, 2)
    nn.init.trunc_normal_(head.weight, std=INIT_STD)
    nn.init.zeros_(head.bias)
    return MMDG(config, embeddings=[build_embedding(config) for _ in MODALITIES], blocks=blocks,
                norm=nn.LayerNorm(config.width, eps=config.layer_norm_eps), head=head)
