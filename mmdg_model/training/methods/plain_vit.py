"""Plain Vision Transformers over three modalities, without adapters: fused before the ViT, or after it.

Legend: b batch, m modalities (order of `network.MODALITIES`), s images, n tokens (class token first), d width.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mmdg_model.config import ModelConfig, PositionEmbedding, TrainableParts
from mmdg_model.inputs import AbsenceEncoding
from mmdg_model.network import MODALITIES, NetworkOutput
from mmdg_model.training.methods.contract import MethodContext
from mmdg_model.training.methods.starting_weights import check_start, draw_network
from mmdg_model.uncertainty import TokenUncertainty, build_uncertainty
from mmdg_model.vit import INIT_STD, ViTBlock, build_block, build_embedding
from mmdg_model.weights.backbone import Backbone, check_fit


class PlainViT(nn.Module):
    """One ViT; its parameters have the names of a backbone's weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = build_embedding(config)
        self.blocks = nn.ModuleList(build_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """`[s, 3, S, S]` to the class tokens `[s, d]` and what the last block's attention gave them `[s, d]`."""
        stream_SND: Tensor = self.embedding(images)
        attended_SND = stream_SND
        for block in self.blocks:
            stream_SND, attended_SND = through_block(block, stream_SND)
        class_SD: Tensor = self.norm(stream_SND[:, 0])
        return class_SD, attended_SND[:, 0]

    def place(self, backbone: Backbone, config: ModelConfig) -> None:
        """Takes a backbone's weights; position embeddings stay fresh where `config.position_embedding` says so.

        Raises:
            BackboneError: listing each value of its configuration that differs.
        """
        check_fit(config, backbone)
        unused = {"projection"}
        if config.position_embedding is PositionEmbedding.FRESH:
            unused.add("embedding.position")
        odd = self.load_state_dict({name: weight for name, weight in backbone.weights.items() if name not in unused},
                                   strict=False)
        assert not odd.unexpected_keys, odd
        assert set(odd.missing_keys) <= unused, odd


class ModalityFusion(nn.Conv2d):
    """Nine channels to three by a trained 1x1 convolution: how the paper feeds methods of one modality.

    It starts as the mean of the modalities, channel by channel, so that a pretrained network first sees an image and
    not a random mixture.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(3 * len(MODALITIES), 3, kernel_size=1)
        self.config = config
        with torch.no_grad():
            self.weight.copy_(torch.eye(3).repeat(1, len(MODALITIES))[:, :, None, None] / len(MODALITIES))
            self.bias.zero_()  # type: ignore[union-attr]

    def forward(self, planes: Tensor, present_BM: Tensor) -> Tensor:  # type: ignore[override]
        """`[b, 3, 3, S, S]`, `bool [b, 3]` to one image `[b, 3, S, S]`. An absent modality's channels are 0 with the
        encoding `flag`, whatever the plane holds; with the others, planes are read as `inputs.prepare` has filled them.

        Raises:
            ValueError: wrong shapes, or a row with no modality present.
        """
        seen, _ = read_planes(planes, present_BM, self.config)
        return super().forward(seen.flatten(1, 2))


class EarlyFusionViT(nn.Module):
    """Nine channels to three by a trained 1x1 convolution, one ViT, its class token to the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.fusion = ModalityFusion(config)
        self.vit = PlainViT(config)
        self.head = new_head(config.width)

    def forward(self, planes: Tensor, present_BM: Tensor) -> Tensor:
        """`[b, 3, 3, S, S]`, `bool [b, 3]` to logits `[b, 2]`; see `ModalityFusion` for absent modalities."""
        class_BD, _ = self.vit(self.fusion(planes, present_BM))
        logits: Tensor = self.head(class_BD)
        return logits


class LateFusionViT(nn.Module):
    """One ViT that all modalities share, embedding included; its three class tokens side by side to the head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vit = PlainViT(config)
        self.uncertainty: TokenUncertainty = build_uncertainty(config)
        self.head = new_head(len(MODALITIES) * config.width)

    def forward(self, planes: Tensor, present_BM: Tensor) -> NetworkOutput:
        """`[b, 3, 3, S, S]`, `bool [b, 3]` to logits, class tokens and their certainty, which only ReGrad reads.

        The class token of an absent modality is 0 with the encoding `flag`, whatever the plane holds.

        Raises:
            ValueError: wrong shapes, or a row with no modality present.
        """
        seen, read_BM = read_planes(planes, present_BM, self.config)
        class_SD, attended_SD = self.vit(seen.flatten(0, 1))
        shape = (*read_BM.shape, self.config.width)
        class_tokens_BMD = class_SD.reshape(shape) * read_BM[:, :, None].to(class_SD.dtype)
        logits: Tensor = self.head(class_tokens_BMD.flatten(1))
        certainty_BM: Tensor = self.uncertainty(attended_SD.reshape(shape)).squeeze(-1)
        return NetworkOutput(logits, class_tokens_BMD, certainty_BM * present_BM.to(certainty_BM.dtype))


def is_trainable(name: str, config: ModelConfig) -> bool:
    """Whether `config.trainable_parts` lets training change a parameter of `EarlyFusionViT` or `LateFusionViT`.

    `everything`: all. `release`: what the release of MMDG trains beside its adapters, that is the last block, the final
    norm, class token, position embedding and head; and the fusing convolution, which no backbone knows.
    `adapters_and_head`: there are no adapters, so the head and the fusing convolution on a frozen ViT.
    """
    if config.trainable_parts is TrainableParts.EVERYTHING or name.startswith(("head.", "fusion.")):
        return True
    if config.trainable_parts is TrainableParts.ADAPTERS_AND_HEAD:
        return False
    return (name.startswith((f"vit.blocks.{config.depth - 1}.", "vit.norm."))
            or name.endswith((".class_token", ".position")))


def build_early(context: MethodContext) -> EarlyFusionViT:
    """On the host, as the context says. Raises `MethodError`, `BackboneError`."""
    check_start(context)
    network = draw_network(context, lambda: EarlyFusionViT(context.model))
    _start(network, context)
    return network


def build_late(context: MethodContext) -> LateFusionViT:
    """On the host, as the context says. Raises `MethodError`, `BackboneError`."""
    check_start(context)
    network = draw_network(context, lambda: LateFusionViT(context.model))
    _start(network, context)
    return network


def _start(network: EarlyFusionViT | LateFusionViT, context: MethodContext) -> None:
    if context.backbone is not None:
        network.vit.place(context.backbone, context.model)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_trainable(name, context.model))


def through_block(module: nn.Module, stream_SND: Tensor) -> tuple[Tensor, Tensor]:
    """Through a pre-norm `ViTBlock`: the next stream, and what the attention added, `[s, n, d]` each."""
    block = cast(ViTBlock, module)
    attended_SND: Tensor = block.attention(block.attention_norm(stream_SND))
    residual_SND = stream_SND + attended_SND
    return residual_SND + block.mlp(block.mlp_norm(residual_SND)), attended_SND


def new_head(width: int) -> nn.Linear:
    """Two logits of `width` channels, drawn as a ViT's other projections."""
    head = nn.Linear(width, 2)
    nn.init.trunc_normal_(head.weight, std=INIT_STD)
    nn.init.zeros_(head.bias)
    return head


def read_planes(planes: Tensor, present_BM: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor]:
    """Planes with 0 in what is not read, and which are read, `bool [b, m]`, after a check of the input.

    Raises:
        ValueError: wrong shapes, or a row with no modality present.
    """
    expected = (len(planes), len(MODALITIES), 3, config.image_size, config.image_size)
    if tuple(planes.shape) != expected:
        raise ValueError(f"planes have shape {tuple(planes.shape)}, expected (b, 3, 3, {config.image_size}, "
                         f"{config.image_size})")
    if tuple(present_BM.shape) != expected[:2] or present_BM.dtype != torch.bool:
        raise ValueError(f"presence is {present_BM.dtype} {tuple(present_BM.shape)}, expected bool {expected[:2]}")
    if not bool(present_BM.any(dim=1).all()):
        row = int((~present_BM.any(dim=1)).nonzero()[0])
        raise ValueError(f"row {row} of the batch has no modality present; a score needs at least one")
    read_BM = present_BM if config.absence is AbsenceEncoding.FLAG else torch.ones_like(present_BM)
    # Selected, not multiplied: 0 · NaN is NaN, and an absent plane may hold anything.
    return torch.where(read_BM[:, :, None, None, None], planes, torch.zeros_like(planes)), read_BM
