"""Trunks: what a method of one image can stand on, so that its backbone can be swapped (the paper's Figure 5).

`own` is the method's published backbone and `vit` a plain ViT, both behind the 9-to-3 fusion; `u_adapter` is MMDG's
network, which takes the three modalities as they are.

Legend: b batch, m modalities, n tokens (class token first), d width, c channels, s side of a map.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mmdg_model import trainable
from mmdg_model.config import ModelConfig
from mmdg_model.inputs import AbsenceEncoding
from mmdg_model.network import MMDG, MODALITIES, AdaptedBlock, build_mmdg
from mmdg_model.training.methods import plain_vit
from mmdg_model.training.methods.contract import MethodContext
from mmdg_model.training.methods.plain_vit import ModalityFusion, PlainViT, through_block
from mmdg_model.training.methods.residual_network import ResNet18, scaled
from mmdg_model.vit import TokenEmbedding
from mmdg_model.weights.backbone import place_backbone

#: What parameters of the trunk are called in a method's network, before their own names.
TRUNK_PREFIX = "trunk."


class Trunk(StrEnum):
    """What a method stands on."""

    OWN = "own"  # the backbone it was published with
    VIT = "vit"  # plain ViT behind the 9-to-3 convolution
    U_ADAPTER = "u_adapter"  # ViT with U-Adapters, three modalities side by side


class TrunkFeatures(NamedTuple):
    """What a trunk makes of a sample.

    Attributes:
        levels: three maps `[b, c_i, s_i, s_i]`, early to late; empty where they were not asked for.
        vector: `[b, d]`, one feature for the whole; empty `[b, 0]` where the trunk has none.
    """

    levels: tuple[Tensor, ...]
    vector: Tensor


class ResidualTrunk(nn.Module):
    """9-to-3 fusion and a ResNet-18: three stages as levels (`dense`), or all four and their mean over the image.

    Attributes:
        width: channels of the vector. level_widths, level_sizes: of the maps.
    """

    def __init__(self, config: ModelConfig, *, dense: bool) -> None:
        super().__init__()
        self.dense = dense
        self.fusion = ModalityFusion(config)
        self.network = ResNet18(scaled(64, config), stages=3 if dense else 4)
        self.width = self.network.widths[-1]
        self.level_widths = self.network.widths[:3]
        self.level_sizes = tuple(-(-config.image_size // stride) for stride in (4, 8, 16))

    def forward(self, planes: Tensor, present_BM: Tensor) -> TrunkFeatures:
        """`[b, 3, 3, S, S]`, `bool [b, 3]`. Raises `ValueError`, see `ModalityFusion`."""
        images = self.fusion(planes, present_BM)
        if self.dense:
            levels = tuple(self.network.levels(images))
            return TrunkFeatures(levels, images.new_zeros(len(images), 0))
        return TrunkFeatures((), self.network(images).mean(dim=(2, 3)))


class ViTTrunk(nn.Module):
    """9-to-3 fusion and a plain ViT: its class token, or the patch tokens after a third, two thirds and all blocks.

    Attributes: as of `ResidualTrunk`.
    """

    def __init__(self, config: ModelConfig, *, dense: bool) -> None:
        super().__init__()
        self.dense = dense
        self.config = config
        self.fusion = ModalityFusion(config)
        self.vit = PlainViT(config)
        self.width = config.width
        self.level_widths = (config.width,) * 3
        self.level_sizes = (config.grid,) * 3

    def forward(self, planes: Tensor, present_BM: Tensor) -> TrunkFeatures:
        """`[b, 3, 3, S, S]`, `bool [b, 3]`. Raises `ValueError`, see `ModalityFusion`."""
        images = self.fusion(planes, present_BM)
        if not self.dense:
            class_BD, _ = self.vit(images)
            return TrunkFeatures((), class_BD)
        stream_BND: Tensor = self.vit.embedding(images)
        kept = []
        for block in self.vit.blocks:
            stream_BND, _ = through_block(block, stream_BND)
            kept.append(stream_BND)
        kept[-1] = self.vit.norm(kept[-1])
        return TrunkFeatures(tuple(patch_map(kept[index]) for index in level_blocks(self.config.depth)),
                             kept[-1][:, 0])


class UAdapterTrunk(MMDG):
    """MMDG's network without its head: class tokens side by side, or patch tokens as maps, averaged over modalities.

    Attributes: as of `ResidualTrunk`.
    """

    head: None  # type: ignore[assignment]

    def __init__(self, config: ModelConfig, *, dense: bool) -> None:
        whole = build_mmdg(config)
        super().__init__(config, embeddings=[cast(TokenEmbedding, part) for part in whole.embeddings],
                         blocks=[cast(AdaptedBlock, part) for part in whole.blocks], norm=whole.norm, head=whole.head)
        del self.head
        self.dense = dense
        self.width = len(MODALITIES) * config.width
        self.level_widths = (config.width,) * 3
        self.level_sizes = (config.grid,) * 3

    def forward(self, planes: Tensor, present_BM: Tensor) -> TrunkFeatures:  # type: ignore[override]
        """`[b, 3, 3, S, S]`, `bool [b, 3]`; an absent modality stands in no map, and its class token is 0.

        Raises:
            ValueError: wrong shapes, or a row with no modality present.
        """
        self._check(planes, present_BM)
        self._start_pass()
        read_BM = present_BM if self.config.absence is AbsenceEncoding.FLAG else torch.ones_like(present_BM)
        stream_MBND = self._embed(planes, read_BM)
        kept = []
        for index, block in enumerate(self.blocks):
            alone = block.training and not self.dense and index == len(self.blocks) - 1
            stream_MBND, _ = block(stream_MBND, read_BM.T, **({"class_tokens_only": True} if alone else {}))
            kept.append(stream_MBND)
        vector_BD = self._class_tokens(stream_MBND, read_BM).flatten(1)
        if not self.dense:
            return TrunkFeatures((), vector_BD)
        kept[-1] = self.norm(kept[-1])
        share_MB11 = (read_BM.T / read_BM.sum(dim=1))[:, :, None, None].to(stream_MBND.dtype)
        return TrunkFeatures(tuple(patch_map((kept[index] * share_MB11).sum(dim=0))
                                   for index in level_blocks(self.config.depth)), vector_BD)


AnyTrunk = ResidualTrunk | ViTTrunk | UAdapterTrunk


def level_blocks(depth: int) -> tuple[int, ...]:
    """Indices of the blocks after which the three levels are taken: a third, two thirds, all, rounded up."""
    return tuple(-(-depth * third // 3) - 1 for third in (1, 2, 3))


def patch_map(stream_BND: Tensor) -> Tensor:
    """Patch tokens as a map: `[b, 1 + s * s, d]` to `[b, d, s, s]`."""
    patches_BDN = stream_BND[:, 1:].transpose(1, 2)
    side = round(patches_BDN.shape[-1] ** 0.5)
    return patches_BDN.reshape(*patches_BDN.shape[:2], side, side)


def level_strides(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """What brings each level to the size of the next."""
    return tuple(-(-here // later) for here, later in pairwise(sizes))


def build_trunk(kind: Trunk, config: ModelConfig, *, dense: bool) -> AnyTrunk:
    """A fresh trunk; `own` is the ResNet-18. Draws from torch's global generator.

    Args:
        kind: which.
        config: shape and choices.
        dense: maps are wanted, not the one vector.
    """
    kinds: dict[Trunk, type[ResidualTrunk | ViTTrunk | UAdapterTrunk]] = {
        Trunk.OWN: ResidualTrunk, Trunk.VIT: ViTTrunk, Trunk.U_ADAPTER: UAdapterTrunk}
    return kinds[kind](config, dense=dense)


def start(network: nn.Module, context: MethodContext) -> None:
    """Puts the context's backbone into `network.trunk` and freezes what of it is not to train.

    What a method adds to its trunk always trains, and so does a trunk that is no ViT, into which no backbone fits.

    Raises:
        BackboneError: a backbone that does not fit.
    """
    trunk, config, backbone = network.trunk, context.model, context.backbone
    if backbone is not None and isinstance(trunk, ViTTrunk):
        trunk.vit.place(backbone, config)
    if backbone is not None and isinstance(trunk, UAdapterTrunk):
        place_backbone(trunk, backbone)
    for name, parameter in network.named_parameters():
        inner = name.removeprefix(TRUNK_PREFIX)
        parameter.requires_grad_(inner == name or _trains(trunk, inner, config))


def _trains(trunk: nn.Module | Tensor, name: str, config: ModelConfig) -> bool:
    match trunk:
        case ViTTrunk():
            return plain_vit.is_trainable(name, config)
        case UAdapterTrunk():
            return trainable.is_trainable(name, config)
        case _:
            return True
