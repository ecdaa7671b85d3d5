"""`MMDGPlusPlus`: a frozen CLIP image tower over three modalities, a U-Adapter++ for each of them in each block.

Legend: b batch, m modalities (RGB, depth, infrared: `MODALITIES`), n tokens (class token first), d width, e width of
CLIP's joint space.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.inputs import InputSpecification
from mmdg_model.mmdg_plus_plus.clip_towers import (
    CLIP_PIXEL_MEAN,
    CLIP_PIXEL_STD,
    ClipBlock,
    ClipImageTower,
    build_image_tower,
)
from mmdg_model.mmdg_plus_plus.config import MMDGPlusPlusConfig, QueryEstimator
from mmdg_model.mmdg_plus_plus.u_adapter_plus_plus import build_u_adapter_plus_plus
from mmdg_model.network import MODALITIES, NetworkOutput
from mmdg_model.scorer import Modality
from mmdg_model.vit import INIT_STD


class ModalityEnds(nn.Module):
    """What one modality has of its own at the two ends of the shared tower.

    Attributes:
        class_token: `[1, 1, d]`.
        position: `[1, n, d]`, for class token and patches.
        projection: `[d, e]`, into CLIP's joint space.
    """

    def __init__(self, *, width: int, num_tokens: int, feature_width: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, num_tokens, width))
        self.projection = nn.Parameter(torch.zeros(width, feature_width))
        nn.init.normal_(self.class_token, std=INIT_STD)
        nn.init.normal_(self.position, std=INIT_STD)
        nn.init.normal_(self.projection, std=width ** -0.5)


class BlockAdapters(nn.Module):
    """The adapters of one block: each modality hears both others. Unlike in MMDG, depth and infrared exchange too."""

    def __init__(self, adapters: dict[Modality, nn.Module]) -> None:
        super().__init__()
        self.of = nn.ModuleDict({str(modality): adapter for modality, adapter in adapters.items()})

    def forward(self, normed_MBND: Tensor, present_MB: Tensor, generator: torch.Generator | None,
                ) -> tuple[Tensor, Tensor]:
        """Normalised tokens `[m, b, n, d]`, presence `[m, b]`.

        Returns:
            Terms to add to the streams, `[m, b, n, d]`, and the class token's certainty, `[m, b]`: the mean over the
            two others. Both are 0 for an absent modality.
        """
        terms, certainties = [], []
        for own, modality in enumerate(MODALITIES):
            adapter = self.of[modality]
            said = [adapter(normed_MBND[own], normed_MBND[other], present_MB[other], generator)
                    for other in range(len(MODALITIES)) if other != own]
            terms.append(said[0].term + said[1].term)
            certainties.append((said[0].certainty[:, 0, 0] + said[1].certainty[:, 0, 0]) / 2)
        terms_MBND, certainty_MB = torch.stack(terms), torch.stack(certainties)
        return terms_MBND * present_MB[:, :, None, None].to(terms_MBND.dtype), certainty_MB * present_MB.to(
            certainty_MB.dtype)


class MMDGPlusPlus(nn.Module):
    """The MMDG++ network that scores (IEEE TPAMI 2025, doi 10.1109/TPAMI.2025.3573785). No text tower: see
    `domain_prompts` for what training adds.

    Built by `build_mmdg_plus_plus`; the parts are passed in. The same call as `network.MMDG`.

    Args:
        config: the numbers the parts were built from.
        tower: the frozen part, shared by the modalities.
        ends: the trainable ends of each modality.
        adapters: of each block.
        head: linear, m·e to 2.
    """

    def __init__(self, config: MMDGPlusPlusConfig, *, tower: ClipImageTower, ends: dict[Modality, ModalityEnds],
                 adapters: list[BlockAdapters], head: nn.Linear) -> None:
        super().__init__()
        self.config = config
        self.tower = tower
        self.ends = nn.ModuleDict({str(modality): end for modality, end in ends.items()})
        self.adapters = nn.ModuleList(adapters)
        self.head = head

    def forward(self, planes: Tensor, present_BM: Tensor, *, generator: torch.Generator | None = None) -> NetworkOutput:
        """Scores a batch.

        Args:
            planes: `[b, 3, 3, height, width]` in 0..1, modality before channel, as `inputs.prepare` makes it from
                `input_specification`; CLIP's mean and deviation are applied here, for they differ by channel.
            present_BM: `bool [b, 3]`; where False, that plane's content, whatever it holds, changes nothing.
            generator: of draws and choices. None: in training torch's global one; in evaluation, where only the
                sampled estimator draws, a new one from `config.sampling_seed`, so that the same batch gives the
                same bits. A crop's sampled score still depends on its place in the batch.

        Returns:
            `class_tokens` are the features `[b, m, e]`, of length 1, or 0 for an absent modality.

        Raises:
            ValueError: wrong shapes, or a row with no modality present.
        """
        self._check(planes, present_BM)
        generator = generator or self._evaluation_generator(planes.device)
        stream_MBND = self._embed(planes, present_BM)
        certainty_MB = torch.zeros_like(stream_MBND[:, :, 0, 0])
        for block, adapters in zip(cast(list[ClipBlock], self.tower.blocks), self.adapters, strict=True):
            residual_MBND = block.attend(stream_MBND.flatten(0, 1)).reshape(stream_MBND.shape)
            normed_MBND = block.mlp_norm(residual_MBND)
            terms_MBND, certainty_MB = adapters(normed_MBND, present_BM.T, generator)
            stream_MBND = residual_MBND + block.mlp(normed_MBND) + terms_MBND
        features_BME = self._features(stream_MBND, present_BM)
        return NetworkOutput(self.head(features_BME.flatten(1)), features_BME, certainty_MB.T)

    def _embed(self, planes: Tensor, present_BM: Tensor) -> Tensor:
        # Selected, not multiplied: 0 · NaN is NaN, and an absent plane may hold anything.
        seen = torch.where(present_BM[:, :, None, None, None], planes, torch.zeros_like(planes))
        mean, std = (torch.tensor(values, dtype=planes.dtype, device=planes.device)[:, None, None]
                     for values in (CLIP_PIXEL_MEAN, CLIP_PIXEL_STD))
        normalised = (seen - mean) / std
        return torch.stack([self.tower.embed(normalised[:, index], end.class_token, end.position)
                            for index, end in enumerate(self._ends())])

    def _features(self, stream_MBND: Tensor, present_BM: Tensor) -> Tensor:
        class_tokens_MBD = self.tower.norm(stream_MBND[:, :, 0])
        projected_MBE = torch.stack([tokens_BD @ end.projection
                                     for tokens_BD, end in zip(class_tokens_MBD, self._ends(), strict=True)])
        features_BME = F.normalize(projected_MBE, dim=-1).transpose(0, 1)
        return features_BME * present_BM[:, :, None].to(features_BME.dtype)

    def _ends(self) -> list[ModalityEnds]:
        return [cast(ModalityEnds, self.ends[modality]) for modality in MODALITIES]

    def _evaluation_generator(self, device: torch.device) -> torch.Generator | None:
        if self.training or self.config.query_estimator is QueryEstimator.ANALYTIC:
            return None
        return torch.Generator(device).manual_seed(self.config.sampling_seed)

    def _check(self, planes: Tensor, present_BM: Tensor) -> None:
        size = self.config.image_size
        expected = (planes.shape[0], len(MODALITIES), 3, size, size)
        if tuple(planes.shape) != expected:
            raise ValueError(f"planes have shape {tuple(planes.shape)}, expected (b, 3, 3, {size}, {size})")
        if tuple(present_BM.shape) != expected[:2] or present_BM.dtype != torch.bool:
            raise ValueError(f"presence is {present_BM.dtype} {tuple(present_BM.shape)}, expected bool {expected[:2]}")
        # Skipped while the graph is captured for another runtime: the check depends on values.
        if not torch.compiler.is_compiling() and not bool(present_BM.any(dim=1).all()):
            row = int((~present_BM.any(dim=1)).nonzero()[0])
            raise ValueError(f"row {row} of the batch has no modality present; a score needs at least one")


def build_mmdg_plus_plus(config: MMDGPlusPlusConfig) -> MMDGPlusPlus:
    """A fresh network of `config`'s shape, tower frozen, adapters silent. Draws from torch's global generator."""
    head = nn.Linear(len(MODALITIES) * config.feature_width, 2)
    nn.init.trunc_normal_(head.weight, std=INIT_STD)
    nn.init.zeros_(head.bias)
    return MMDGPlusPlus(
        config, tower=build_image_tower(config), head=head,
        ends={modality: ModalityEnds(width=config.width, num_tokens=config.num_tokens,
                                     feature_width=config.feature_width) for modality in MODALITIES},
        adapters=[BlockAdapters({modality: build_u_adapter_plus_plus(config) for modality in MODALITIES})
                  for _ in range(config.depth)])


def input_specification(config: MMDGPlusPlusConfig) -> InputSpecification:
    """Levels 0..255 to 0..1 in each modality, as the network expects them."""
    return InputSpecification(image_size=config.image_size, colour_mean=0.0, colour_scale=255.0, depth_mean=0.0,
                              depth_scale=255.0, infrared_mean=0.0, infrared_scale=255.0)


def parameter_owner(name: str) -> Modality | None:
    """The modality that alone owns a parameter of the network or of `DomainPrompts`; None for a shared one.

    Args:
        name: as `named_parameters` gives it. One dotted part is the modality's name, or none is.
    """
    owners = [modality for modality in MODALITIES if modality in name.split(".")]
    return owners[0] if owners else None
