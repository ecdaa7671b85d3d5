"""ViTAF, adaptive transformers for few-shot face anti-spoofing (Huang et al., ECCV 2022, arXiv 2203.12175).

A ViT that stays as it was, and in each block two bottleneck adapters side by side after the attention and two after the
MLP (an ensemble), whose outputs are kept orthogonal, and a feature-wise transformation that shakes what the block adds,
in training only. As the benchmark uses it: no sample of the target is seen, behind the 9-to-3 fusion.

    L = CE + w mean cos^2(first adapter's output, second's)

Legend: b batch, n tokens (class token first), d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import ModelConfig
from mmdg_model.training.methods import plain_vit
from mmdg_model.training.methods.contract import Method, MethodContext, TrainingBatch
from mmdg_model.training.methods.mean_loss import MeanLossMethod, widened
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import ModalityFusion, PlainViT
from mmdg_model.training.methods.residual_network import scaled
from mmdg_model.training.methods.ssdg import NormalisedHead, normalised_feature
from mmdg_model.training.methods.starting_weights import check_start, draw_network
from mmdg_model.vit import ViTBlock

#: Standard deviation of an adapter's fresh weights: at first it says next to nothing.
ADAPTER_STD = 2e-4
#: First values of the transformation's parameters, and the sharpness of the softplus around them.
GAMMA_START, BETA_START, SHARPNESS = 0.3, 0.5, 100.0


@dataclass(frozen=True, kw_only=True)
class VitafSettings:
    """What may be set.

    Attributes:
        orthogonality_weight: w (release: 0.03, and 1 where MSU-MFSD is the target).
        feature_transform: whether training shakes features.
        head_updates: first so many updates, in which only the head trains (release: 101, on a pretrained ViT). With
            0 all that trains does so from the start.
        dropout: of the embedding.

    Raises:
        ValueError: a value out of range.
    """

    orthogonality_weight: float = 0.03
    feature_transform: bool = True
    head_updates: int = 0
    dropout: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.orthogonality_weight < float("inf"):
            raise ValueError(f"orthogonality_weight is {self.orthogonality_weight!r}, expected at least 0")
        if self.head_updates < 0:
            raise ValueError(f"head_updates is {self.head_updates!r}, expected at least 0")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout!r}, expected 0 to below 1")


def squared_cosine(first: Tensor, second: Tensor) -> Tensor:
    """`[..., d]` twice to the squared cosine between the two, `[...]`; 0 where one of them is 0."""
    cosine = F.cosine_similarity(first, second, dim=-1)
    return cosine.square()


class BottleneckAdapter(nn.Module):
    """Linear to a few channels, GELU, linear back; what it returns is added to its input by who calls it."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        for layer in (self.down, self.up):
            nn.init.normal_(layer.weight, std=ADAPTER_STD)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """`[b, n, d]` to `[b, n, d]`."""
        change: Tensor = self.up(F.gelu(self.down(tokens_BND)))
        return change


class FeatureTransform(nn.Module):
    """Feature-wise transformation (arXiv 2001.08735): x to gamma x + beta, drawn anew for each batch in training.

    gamma is 1, and beta 0, plus a normal draw times a trained spread, channel by channel. In evaluation mode the
    identity.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma_spread = nn.Parameter(torch.full((width,), GAMMA_START))
        self.beta_spread = nn.Parameter(torch.full((width,), BETA_START))

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """Same shape."""
        if not self.training:
            return tokens_BND
        gamma_D, beta_D = (torch.randn_like(spread) * F.softplus(spread, beta=SHARPNESS)
                           for spread in (self.gamma_spread, self.beta_spread))
        return tokens_BND * (1.0 + gamma_D) + beta_D


class AdaptedLayers(nn.Module):
    """What one block gets: two adapters after its attention, two after its MLP, and the transformation."""

    def __init__(self, config: ModelConfig, *, transform: bool) -> None:
        super().__init__()
        bottleneck = scaled(64, config)
        self.attention = nn.ModuleList(BottleneckAdapter(config.width, bottleneck) for _ in range(2))
        self.mlp = nn.ModuleList(BottleneckAdapter(config.width, bottleneck) for _ in range(2))
        self.transform: nn.Module = FeatureTransform(config.width) if transform else nn.Identity()


class VitafOutput(NamedTuple):
    """`logits [b, 2]`; `overlap [b]`, squared cosine between the two adapters, mean over places and tokens."""

    logits: Tensor
    overlap: Tensor


class VitafNetwork(nn.Module):
    """9-to-3 fusion, ViT, adapters beside its blocks, embedding, normalised head."""

    def __init__(self, config: ModelConfig, settings: VitafSettings) -> None:
        super().__init__()
        width = scaled(512, config)
        self.fusion = ModalityFusion(config)
        self.vit = PlainViT(config)
        self.adapters = nn.ModuleList(AdaptedLayers(config, transform=settings.feature_transform)
                                      for _ in range(config.depth))
        self.embedding = nn.Sequential(nn.Linear(config.width, width), nn.ReLU(), nn.Dropout(settings.dropout))
        self.head = NormalisedHead(width)

    def forward(self, planes: Tensor, present_BM: Tensor, *, head_only: bool = False) -> VitafOutput:
        """Scores a batch.

        Args:
            planes: `[b, 3, 3, S, S]`. present_BM: `bool [b, 3]`.
            head_only: no gradient below the embedding, and the ViT without adapters and transformation.

        Raises:
            ValueError: wrong shapes, or no modality present.
        """
        images = self.fusion(planes, present_BM)
        overlap_B = images.new_zeros(len(images))
        if head_only:
            class_BD, _ = self.vit(images)
            class_BD = class_BD.detach()
        else:
            class_BD, overlap_B = self._adapted(images)
        feature_BD = normalised_feature(widened(self.embedding(class_BD)))
        return VitafOutput(self.head(feature_BD), overlap_B)

    def _adapted(self, images: Tensor) -> tuple[Tensor, Tensor]:
        stream_BND: Tensor = self.vit.embedding(images)
        overlaps = []
        for block, layers in zip(self.vit.blocks, self.adapters, strict=True):
            block, layers = cast(ViTBlock, block), cast(AdaptedLayers, layers)
            attended_BND, overlap_B = _ensemble(layers.attention, block.attention(block.attention_norm(stream_BND)))
            overlaps.append(overlap_B)
            stream_BND = stream_BND + attended_BND
            added_BND, overlap_B = _ensemble(layers.mlp, block.mlp(block.mlp_norm(stream_BND)))
            overlaps.append(overlap_B)
            stream_BND = stream_BND + layers.transform(added_BND)
        return self.vit.norm(stream_BND[:, 0]), torch.stack(overlaps).mean(dim=0)


def _ensemble(adapters: nn.ModuleList, tokens_BND: Tensor) -> tuple[Tensor, Tensor]:
    """The tokens with what both adapters add, and the two's squared cosine `[b]`."""
    first, second = (adapter(tokens_BND) for adapter in adapters)
    return tokens_BND + first + second, squared_cosine(widened(first), widened(second)).mean(dim=1)


def is_trainable(name: str, config: ModelConfig) -> bool:
    """As `plain_vit.is_trainable`; what ViTAF adds always trains."""
    return not name.startswith("vit.") or plain_vit.is_trainable(name, config)


class Vitaf(MeanLossMethod):
    """Both terms are means over samples."""

    terms = ("cross_entropy", "orthogonality")

    def __init__(self, context: MethodContext, network: VitafNetwork, settings: VitafSettings) -> None:
        super().__init__(context, network)
        self._network = network
        self._settings = settings

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """In the first `head_updates` the cross entropy of the head alone."""
        settings = self._settings
        output = self._network(batch.planes, batch.present, head_only=self.updates < settings.head_updates)
        weight = settings.orthogonality_weight
        orthogonality = weight * output.overlap.mean() if weight else widened(output.logits).new_zeros(())
        return {"cross_entropy": F.cross_entropy(widened(output.logits), batch.label), "orthogonality": orthogonality}


def build_vitaf(context: MethodContext, settings: VitafSettings) -> Method:
    """Raises `MethodError` (see `check_start`), `BackboneError`."""
    check_start(context)
    network = draw_network(context, lambda: VitafNetwork(context.model, settings))
    if context.backbone is not None:
        network.vit.place(context.backbone, context.model)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_trainable(name, context.model))
    return Vitaf(context, network, settings)


ROWS = (
    MethodEntry(name="vitaf", title="ViTAF", summary="ensemble adapters and feature-wise transformation on a ViT",
                source="arXiv 2203.12175 (ECCV 2022); arXiv 2402.19298, Tables 1 to 3", settings=VitafSettings,
                build=build_vitaf, fixed={}, still={"feature_transform": False},
                cross_entropy_alone={"orthogonality_weight": 0.0}),
)
