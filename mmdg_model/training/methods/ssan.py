"""SSAN, shuffled style assembly (Wang et al., CVPR 2022, arXiv 2203.05340), on three trunks.

A sample's content (what the face is) and its style (how it was presented) are taken apart: content must not tell the
data set, by a discriminator behind a gradient reversal. Content is then assembled anew, with its own style for the
classification, and with another sample's style for a contrast: it should look like its own where that sample has the
same label, and unlike it where not.

    L = CE + w_c L_contrast + w_a L_adversarial

Legend: b batch, c channels, s side of a map, d width, k data sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import ModelConfig
from mmdg_model.training.methods.contract import Method, MethodContext, TrainingBatch
from mmdg_model.training.methods.gradient_reversal import DomainDiscriminator, ramp, reverse_gradient
from mmdg_model.training.methods.mean_loss import MeanLossMethod, widened
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import new_head
from mmdg_model.training.methods.residual_network import convolution, scaled
from mmdg_model.training.methods.sample_norm import sample_norm
from mmdg_model.training.methods.starting_weights import check_start, draw_network
from mmdg_model.training.methods.trunks import AnyTrunk, ResidualTrunk, Trunk, build_trunk, level_strides, start

#: Of instance normalisation.
NORM_EPS = 1e-5


class StyleDonors(StrEnum):
    """Whose style a sample borrows."""

    SHUFFLED = "shuffled"  # a random order of the part's samples
    NEXT = "next"  # the following one, the last one's being the first: nothing is drawn


@dataclass(frozen=True, kw_only=True)
class SsanSettings:
    """What may be set; weights are the paper's.

    Attributes:
        trunk: see `Trunk`; fixed by the row.
        contrast_weight, adversarial_weight: w_c and w_a.
        ramp_updates: over which the reversal gains its strength, see `gradient_reversal.ramp`.
        dropout: of the discriminator.
        donors: see `StyleDonors`.

    Raises:
        ValueError: a value out of range.
    """

    trunk: Trunk = Trunk.OWN
    contrast_weight: float = 1.0
    adversarial_weight: float = 1.0
    ramp_updates: int = 4000
    dropout: float = 0.5
    donors: StyleDonors = StyleDonors.SHUFFLED

    def __post_init__(self) -> None:
        for name in ("contrast_weight", "adversarial_weight", "ramp_updates"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected at least 0")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout!r}, expected 0 to below 1")


def style_contrast(own_BD: Tensor, borrowed_BD: Tensor, same_label_B: Tensor) -> Tensor:
    """Mean of -cos where the donor has the sample's label, and +cos where it has not.

    Args:
        own_BD: content with its own style: the anchor, which gets no gradient.
        borrowed_BD: the same content with the donor's style.
        same_label_B: `bool [b]`.

    Returns:
        `[]`, -1 to 1.
    """
    cosine_B = F.cosine_similarity(own_BD.detach(), borrowed_BD, dim=1)
    return torch.where(same_label_B, -cosine_B, cosine_B).mean()


def instance_normalised(map_BCSS: Tensor) -> Tensor:
    """Each channel of each sample to mean 0 and variance 1 over the map; a map of one pixel becomes 0."""
    variance, mean = torch.var_mean(map_BCSS, dim=(2, 3), keepdim=True, correction=0)
    return (map_BCSS - mean) * torch.rsqrt(variance + NORM_EPS)


def assembled(map_BCSS: Tensor, gamma_BC: Tensor, beta_BC: Tensor) -> Tensor:
    """AdaIN (arXiv 1703.06868): the map's own mean and spread replaced by `beta` and `gamma`."""
    return instance_normalised(map_BCSS) * gamma_BC[:, :, None, None] + beta_BC[:, :, None, None]


class InstanceNorm(nn.Module):
    """`instance_normalised` as a layer, for maps of any size."""

    def forward(self, map_BCSS: Tensor) -> Tensor:
        """Same shape."""
        return instance_normalised(map_BCSS)


class AssemblyBlock(nn.Module):
    """Residual block of two convolutions whose norms carry the style."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels)
        self.second = convolution(channels, channels)

    def forward(self, map_BCSS: Tensor, gamma_BC: Tensor, beta_BC: Tensor) -> Tensor:
        """Same shape as `map_BCSS`."""
        hidden_BCSS = F.relu(assembled(self.first(map_BCSS), gamma_BC, beta_BC))
        return map_BCSS + assembled(self.second(hidden_BCSS), gamma_BC, beta_BC)


class SsanParts(NamedTuple):
    """`content [b, c, s, s]`; style as `gamma [b, c]` and `beta [b, c]`."""

    content: Tensor
    gamma: Tensor
    beta: Tensor


class SsanOutput(NamedTuple):
    """`logits [b, 2]`; `feature [b, d]`, content with its own style; `parts`, what it was assembled of."""

    logits: Tensor
    feature: Tensor
    parts: SsanParts


class SsanNetwork(nn.Module):
    """Trunk, content, style, assembly, head and discriminator, in the sizes of SSAN-R."""

    def __init__(self, trunk: AnyTrunk, config: ModelConfig, *, domains: int, dropout: float) -> None:
        super().__init__()
        own = isinstance(trunk, ResidualTrunk)
        widths = trunk.level_widths if own else tuple(scaled(channels, config) for channels in (64, 128, 256))
        width = widths[2]
        self.trunk = trunk
        # A ViT's levels are wider than SSAN's, and all alike.
        self.necks = nn.ModuleList(nn.Identity() if own else convolution(inputs, outputs, size=1)
                                   for inputs, outputs in zip(trunk.level_widths, widths, strict=True))
        strides = (*level_strides(trunk.level_sizes), _last_stride(trunk.level_sizes[2]))
        self.content = nn.Sequential(convolution(width, width, stride=strides[2]), sample_norm(width), nn.ReLU())
        self.styles = nn.ModuleList([
            nn.Sequential(convolution(widths[0], widths[1], stride=strides[0]), InstanceNorm(), nn.ReLU()),
            nn.Sequential(convolution(widths[1], width, stride=strides[1]), InstanceNorm(), nn.ReLU()),
            nn.Sequential(convolution(width, width, stride=strides[2]), InstanceNorm())])
        self.style = nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU())
        self.gamma = nn.Linear(width, width, bias=False)
        self.beta = nn.Linear(width, width, bias=False)
        self.assembly = nn.ModuleList([AssemblyBlock(width), AssemblyBlock(width)])
        self.feature = nn.Sequential(convolution(width, 2 * width, stride=2), sample_norm(2 * width))
        self.head = new_head(2 * width)
        self.discriminator = DomainDiscriminator(width, width, domains, dropout=dropout)

    def forward(self, planes: Tensor, present_BM: Tensor) -> SsanOutput:
        """`[b, 3, 3, S, S]`, `bool [b, 3]`. Raises `ValueError`: wrong shapes, or no modality present."""
        levels = [neck(level) for neck, level in zip(self.necks, self.trunk(planes, present_BM).levels, strict=True)]
        style_BCSS = self.styles[0](levels[0]) + levels[1]
        style_BCSS = self.styles[2](self.styles[1](style_BCSS) + levels[2])
        style_BC = self.style(style_BCSS.amax(dim=(2, 3)))
        parts = SsanParts(self.content(levels[2]), self.gamma(style_BC), self.beta(style_BC))
        feature_BD = self.assemble(parts.content, parts.gamma, parts.beta)
        return SsanOutput(self.head(feature_BD), feature_BD, parts)

    def assemble(self, content_BCSS: Tensor, gamma_BC: Tensor, beta_BC: Tensor) -> Tensor:
        """A feature `[b, d]` of content and style, which may be another sample's."""
        for block in self.assembly:
            content_BCSS = block(content_BCSS, gamma_BC, beta_BC)
        return cast(Tensor, self.feature(content_BCSS)).mean(dim=(2, 3))


def _last_stride(size: int) -> int:
    # As published, but a map of one pixel has no style.
    return 2 if size >= 4 else 1


class Ssan(MeanLossMethod):
    """The three terms; styles are exchanged within a part."""

    terms = ("cross_entropy", "contrast", "adversarial")

    def __init__(self, context: MethodContext, network: SsanNetwork, settings: SsanSettings) -> None:
        super().__init__(context, network)
        self._network = network
        self._settings = settings

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """A term with weight 0 is not computed."""
        settings, output = self._settings, self._network(batch.planes, batch.present)
        contrast = adversarial = widened(output.feature).new_zeros(())
        if settings.contrast_weight:
            donor_B = self._donors(len(batch.label), output.feature.device)
            borrowed_BD = self._network.assemble(output.parts.content, output.parts.gamma[donor_B],
                                                 output.parts.beta[donor_B])
            contrast = settings.contrast_weight * style_contrast(widened(output.feature), widened(borrowed_BD),
                                                                 batch.label == batch.label[donor_B])
        if settings.adversarial_weight:
            content_BC = reverse_gradient(output.parts.content.mean(dim=(2, 3)),
                                          ramp(self.updates, settings.ramp_updates))
            adversarial = settings.adversarial_weight * F.cross_entropy(
                widened(self._network.discriminator(content_BC)), batch.source)
        return {"cross_entropy": F.cross_entropy(widened(output.logits), batch.label), "contrast": contrast,
                "adversarial": adversarial}

    def _donors(self, samples: int, device: torch.device) -> Tensor:
        if self._settings.donors is StyleDonors.NEXT:
            return torch.arange(1, samples + 1, device=device) % samples
        return torch.randperm(samples).to(device)


def build_ssan(context: MethodContext, settings: SsanSettings) -> Method:
    """Raises `MethodError` (see `check_start`), `BackboneError`."""
    check_start(context)
    network = draw_network(context, lambda: SsanNetwork(
        build_trunk(settings.trunk, context.model, dense=True), context.model,
        domains=len(context.classes.sources), dropout=settings.dropout))
    start(network, context)
    return Ssan(context, network, settings)


_entry = partial(MethodEntry, settings=SsanSettings, build=build_ssan, batch_coupled=True,
                 still={"donors": StyleDonors.NEXT},
                 cross_entropy_alone={"contrast_weight": 0.0, "adversarial_weight": 0.0})

ROWS = (
    _entry(name="ssan", title="SSAN", summary="content and style apart, assembled anew, on ResNet-18",
           source="arXiv 2203.05340 (CVPR 2022), SSAN-R; arXiv 2402.19298, Tables 1 to 3", fixed={"trunk": Trunk.OWN},
           own_backbone=True),
    _entry(name="ssan_vit", title="SSAN on ViT", summary="SSAN on the plain ViT's patch tokens",
           source="arXiv 2203.05340; arXiv 2402.19298, Figure 5", fixed={"trunk": Trunk.VIT}),
    _entry(name="ssan_u_adapter", title="SSAN on ViT + U-Adapter", summary="SSAN on the patch tokens of MMDG's network",
           source="arXiv 2203.05340; arXiv 2402.19298, Table 4 and Figure 5", fixed={"trunk": Trunk.U_ADAPTER}),
)
