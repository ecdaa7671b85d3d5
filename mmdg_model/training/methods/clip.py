"""CLIP, fine-tuned with two heads: the row "CLIP" of later tables (arXiv 2103.00020; arXiv 2505.09484, Table 1).

One CLIP image tower for all modalities, fine-tuned whole; v_m is the feature of modality m, of length 1:

    classes : head( [v_R; v_D; v_I] )                                       two logits
    text    : mean over the modalities seen of T · cos(v_m, t_m,c)          c: attack, live; t: mean of nine sentences
    L       = CE(classes) + w CE(text);  score from classes + w · text

The tables name the row without a description of its heads or of what trains; docs/methods/clip_and_later.md says what
is substituted.

Legend: b batch, m modalities (order of `network.MODALITIES`), c classes, e width of the joint space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.mmdg_plus_plus.domain_prompts import CLASSES
from mmdg_model.mmdg_plus_plus.prompt_sentences import sentences
from mmdg_model.network import MODALITIES
from mmdg_model.training.methods.clip_start import (
    ClassSentences,
    ClipImageEncoder,
    ClipPixels,
    ClipStart,
    clip_start,
)
from mmdg_model.training.methods.contract import Method, MethodContext, TrainingBatch
from mmdg_model.training.methods.mean_loss import MeanLossMethod, widened
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import new_head, read_planes
from mmdg_model.training.methods.starting_weights import draw_network


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """What may be set.

    Attributes:
        text_weight: w, of the text head in loss and score; at 0 the text tower is not used.

    Raises:
        ValueError: a negative weight.
    """

    text_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.text_weight < float("inf"):
            raise ValueError(f"text_weight is {self.text_weight!r}, expected at least 0")


def mean_similarity(features_BME: Tensor, class_MCE: Tensor, present_BM: Tensor, temperature: Tensor) -> Tensor:
    """`[b, c]`: temperature times the cosine with each class, mean over the modalities that a sample has."""
    cosine_BMC = torch.einsum("bme,mce->bmc", F.normalize(features_BME, dim=-1), F.normalize(class_MCE, dim=-1))
    counted_BMC = torch.where(present_BM[:, :, None], cosine_BMC, 0.0)
    logits: Tensor = temperature * counted_BMC.sum(dim=1) / present_BM.sum(dim=1, keepdim=True)
    return logits


class DualHeadClip(nn.Module):
    """See the module's text."""

    def __init__(self, start: ClipStart, context: MethodContext) -> None:
        super().__init__()
        self.shape = start.model
        self.pixels = ClipPixels(context.inputs)
        self.image = ClipImageEncoder(start)
        self.head = new_head(len(MODALITIES) * start.feature_width)
        self.sentences = ClassSentences(start, tuple(sentences(modality, face) for modality in MODALITIES
                                                     for face in CLASSES))

    def features(self, planes: Tensor, present_BM: Tensor) -> tuple[Tensor, Tensor]:
        """`[b, m, e]` of length 1, 0 where a modality is not read, and which are read `bool [b, m]`.

        Raises:
            ValueError: as `read_planes`.
        """
        seen, read_BM = read_planes(planes, present_BM, self.shape)
        features_BME = F.normalize(self.image(self.pixels(seen).flatten(0, 1)), dim=-1).reshape(*read_BM.shape, -1)
        return features_BME * read_BM[:, :, None].to(features_BME.dtype), read_BM

    def class_logits(self, features_BME: Tensor) -> Tensor:
        """`[b, 2]` of the linear head."""
        logits: Tensor = self.head(features_BME.flatten(1))
        return logits

    def text_logits(self, features_BME: Tensor, read_BM: Tensor) -> Tensor:
        """`[b, 2]` against the sentences."""
        class_MCE = self.sentences().mean(dim=1).reshape(len(MODALITIES), len(CLASSES), -1)
        return mean_similarity(features_BME, class_MCE, read_BM, self.sentences.temperature)


class FineTunedClip(MeanLossMethod):
    """Cross entropies of both heads."""

    terms = ("cross_entropy", "text_cross_entropy")

    def __init__(self, context: MethodContext, network: DualHeadClip, settings: ClipSettings) -> None:
        super().__init__(context, network)
        self._network = network
        self.settings = settings

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """See the module's text."""
        features_BME, read_BM = self._network.features(batch.planes, batch.present)
        losses = {"cross_entropy": F.cross_entropy(widened(self._network.class_logits(features_BME)), batch.label)}
        losses["text_cross_entropy"] = losses["cross_entropy"].new_zeros(())
        if self.settings.text_weight:
            text = widened(self._network.text_logits(features_BME, read_BM))
            losses["text_cross_entropy"] = self.settings.text_weight * F.cross_entropy(text, batch.label)
        return losses

    def logits(self, planes: Tensor, present: Tensor) -> Tensor:
        """`[b, 2]`: the linear head's plus w times the text head's."""
        features_BME, read_BM = self._network.features(planes, present)
        logits = self._network.class_logits(features_BME)
        if self.settings.text_weight:
            logits = logits + self.settings.text_weight * self._network.text_logits(features_BME, read_BM)
        return logits


def build_clip(context: MethodContext, settings: ClipSettings) -> Method:
    """The image tower trains whole (with `adapters_and_head` only its projection), the text tower never.

    Raises:
        MethodError: see `clip_start`.
        BackboneError: a CLIP that does not fit the model.
        ModuleNotFoundError: the tokenizer's extra is not installed.
    """
    start = clip_start(context)
    network = draw_network(context, lambda: DualHeadClip(start, context))
    network.image.place(start)
    network.sentences.place(start)
    network.image.choose_trainable(start.model.trainable_parts)
    network.sentences.requires_grad_(False)
    return FineTunedClip(context, network, settings)


ROWS = (MethodEntry(
    name="clip", title="CLIP, fine-tuned", summary="CLIP's image tower fine-tuned, a linear and a text head",
    source="arXiv 2103.00020; the row CLIP of arXiv 2505.09484, Table 1", settings=ClipSettings, build=build_clip,
    fixed={}, needs_clip=True, cross_entropy_alone={"text_weight": 0.0}),)
