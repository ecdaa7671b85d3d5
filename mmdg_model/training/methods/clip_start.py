"""What methods on CLIP share: the start from its two towers, its pixels, image features and sentences' features.

Such a method's network has the shape of the run's model with CLIP's conventions (QuickGELU, a norm before the blocks,
epsilon 1e-5) whatever the model says of those three. Joint space and text tower have the proportions of CLIP's ViT-B:
two thirds of the image tower's width.

Legend: b batch, m modalities (order of `network.MODALITIES`), s images or sentences, t tokens of a sentence, c classes,
d width, e width of the joint space.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import Activation, EmbeddingNorm, ModelConfig, TrainableParts
from mmdg_model.inputs import InputSpecification
from mmdg_model.mmdg_plus_plus.clip_towers import (
    CLIP_PIXEL_MEAN,
    CLIP_PIXEL_STD,
    ClipTextTower,
    build_text_tower,
)
from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig
from mmdg_model.mmdg_plus_plus.domain_prompts import TextEncoder
from mmdg_model.training.methods.contract import MethodContext, MethodError
from mmdg_model.training.methods.plain_vit import PlainViT
from mmdg_model.training.methods.starting_weights import check_start
from mmdg_model.weights.backbone import Backbone
from mmdg_model.weights.clip_text import text_config, text_heads

#: How CLIP's weights come here; part of every refusal.
IMPORT_LINE = "mmdg import-weights ViT-B-16.pt clip_vit_b_16.safetensors --layout openai_clip --text-tower"


def clip_shortfall(backbone: Backbone | None) -> str | None:
    """Why a backbone cannot start a method on CLIP, with the remedy; None where it can."""
    if backbone is None:
        return f"needs CLIP weights: name them with --backbone; {IMPORT_LINE} makes the file"
    if not backbone.config.projection_width or backbone.config.embedding_norm is not EmbeddingNorm.LAYER_NORM:
        return f"needs CLIP weights, the backbone is of layout {backbone.layout!r}; {IMPORT_LINE} makes such a file"
    if backbone.text is None:
        return f"needs CLIP weights, the backbone holds no text tower: {IMPORT_LINE}"
    bias = backbone.weights["embedding.patches.bias"]
    if not bias.is_meta and bool((bias != 0).any()):
        return "needs CLIP weights, the backbone's patch convolution has a bias, which no CLIP has"
    return None


@dataclass(frozen=True)
class ClipStart:
    """A checked start.

    Attributes:
        model: the run's, with CLIP's conventions.
        feature_width: e. text_width: of the text tower.
        backbone: None only where all weights are about to be replaced.
    """

    model: ModelConfig
    feature_width: int
    text_width: int
    backbone: Backbone | None

    def text_config(self, vocabulary_size: int, *, num_domains: int = 1) -> DomainPromptConfig:
        """Sizes of the text tower, its vocabulary the words in use. Of domains of prompts the first is live."""
        return DomainPromptConfig(width=self.text_width, heads=text_heads(self.text_width), depth=self.model.depth,
                                  mlp_ratio=self.model.mlp_ratio, vocabulary_size=vocabulary_size,
                                  feature_width=self.feature_width, num_domains=num_domains,
                                  live_domain=0)


def clip_start(context: MethodContext) -> ClipStart:
    """Checks a context for a method on CLIP.

    Raises:
        MethodError: no CLIP, a CLIP of another shape than the model, or as `check_start`.
    """
    shortfall = clip_shortfall(context.backbone)
    if shortfall and not context.weights_follow:
        raise MethodError(f"this method {shortfall}")
    backbone = None if shortfall else context.backbone
    # What is frozen does not matter where weights follow.
    check_start(context if backbone is not None else replace(
        context, backbone=None, model=replace(context.model, trainable_parts=TrainableParts.EVERYTHING)))
    model = replace(context.model, activation=Activation.QUICK_GELU, embedding_norm=EmbeddingNorm.LAYER_NORM,
                    layer_norm_eps=1e-5)
    feature_width = 2 * model.width // 3
    start = ClipStart(model, feature_width, feature_width, backbone)
    if backbone is not None:
        assert backbone.text is not None
        theirs = text_config(backbone.text)
        found = {"joint space": backbone.config.projection_width, "text width": theirs.width,
                 "text depth": theirs.depth, "text MLP ratio": theirs.mlp_ratio, "text context": theirs.context_length}
        ours = start.text_config(1)
        expected = {"joint space": feature_width, "text width": ours.width, "text depth": ours.depth,
                    "text MLP ratio": ours.mlp_ratio, "text context": ours.context_length}
        if differing := [f"{key} {found[key]}, needed {value}" for key, value in expected.items()
                         if found[key] != value]:
            raise MethodError(f"this CLIP is none of ViT-B's proportions: {'; '.join(differing)}; use ViT-B/16")
    return start


class ClipPixels(nn.Module):
    """Planes as the run's input specification makes them, to CLIP's normalisation of levels 0..255."""

    def __init__(self, inputs: InputSpecification) -> None:
        super().__init__()
        scale = torch.tensor([inputs.colour_scale, inputs.depth_scale, inputs.infrared_scale])
        mean = torch.tensor([inputs.colour_mean, inputs.depth_mean, inputs.infrared_mean])
        self.register_buffer("scale", scale[:, None, None, None], persistent=False)
        self.register_buffer("mean", mean[:, None, None, None], persistent=False)
        self.scale: Tensor
        self.mean: Tensor

    def unit(self, planes: Tensor) -> Tensor:
        """`[b, m, 3, S, S]` to 0..1 where levels were 0..255."""
        return (planes * self.scale + self.mean) / 255.0

    def forward(self, planes: Tensor) -> Tensor:
        """`[b, m, 3, S, S]` to the same, less CLIP's mean and over its deviation, channel by channel."""
        mean, std = (torch.tensor(values, dtype=planes.dtype, device=planes.device)[:, None, None]
                     for values in (CLIP_PIXEL_MEAN, CLIP_PIXEL_STD))
        return (self.unit(planes) - mean) / std


class ClipImageEncoder(nn.Module):
    """CLIP's image tower, all of it: `[s, 3, S, S]` to features `[s, e]`, not normalised."""

    def __init__(self, start: ClipStart) -> None:
        super().__init__()
        self.vit = PlainViT(start.model)
        self.projection = nn.Parameter(torch.randn(start.model.width, start.feature_width) * start.model.width ** -0.5)
        nn.init.zeros_(self._no_bias())

    def forward(self, images: Tensor) -> Tensor:
        class_SD, _ = self.vit(images)
        features_SE: Tensor = class_SD @ self.projection
        return features_SE

    def _no_bias(self) -> Tensor:
        bias = self.vit.embedding.patches.bias
        assert bias is not None
        return bias

    @torch.no_grad()
    def place(self, start: ClipStart) -> None:
        """Takes a CLIP's weights. Raises `BackboneError` where its shape is another."""
        if start.backbone is not None:
            self.vit.place(start.backbone, start.model)
            self.projection.copy_(start.backbone.weights["projection"])

    def choose_trainable(self, parts: TrainableParts) -> None:
        """Sets `requires_grad`: with `everything` and `release` all, as CLIP fine-tuning does; with
        `adapters_and_head` the projection alone. The patch convolution has no bias in CLIP: its stays 0.
        """
        self.vit.requires_grad_(parts is not TrainableParts.ADAPTERS_AND_HEAD)
        self.projection.requires_grad_(True)
        self._no_bias().requires_grad_(False)


@functools.cache
def clip_tokenizer() -> TextEncoder:
    """CLIP's byte pairs; made once, because that takes longer than all sentences.

    Raises:
        ModuleNotFoundError: the extra is not installed; names it.
    """
    from mmdg_model.mmdg_plus_plus.tokenizer import ClipTokenizer
    return ClipTokenizer()


def used_words(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids in use, sorted `[k]`, and `ids` renumbered to their places in them.

    A tower for fixed sentences needs no other rows of CLIP's 49,408: they would never be read, trained or changed.
    """
    used, renumbered = torch.unique(ids, return_inverse=True)
    return used, renumbered


@torch.no_grad()
def place_text(tower: ClipTextTower, start: ClipStart, used: Tensor) -> None:
    """Takes a CLIP's text tower, of its vocabulary the rows in use."""
    if start.backbone is not None and start.backbone.text is not None:
        key = "token_embedding.weight"
        vocabulary = start.backbone.text[key]
        rows = torch.empty(len(used), vocabulary.shape[1], device="meta") if vocabulary.is_meta else vocabulary[used]
        tower.load_state_dict(start.backbone.text | {key: rows})


class ClassSentences(nn.Module):
    """Several sentences of each class through a CLIP text tower: FLIP's ensembles (arXiv 2309.16649, Section 3.2).

    Args:
        start: see `ClipStart`.
        sentences: of each class, as many of each.
    """

    ids: Tensor
    ends: Tensor

    def __init__(self, start: ClipStart, sentences: tuple[tuple[str, ...], ...]) -> None:
        super().__init__()
        encoder = clip_tokenizer()
        rows = [[[encoder.start_of_text, *encoder.encode(text), encoder.end_of_text] for text in each]
                for each in sentences]
        longest = max(len(ids) for each in rows for ids in each)
        with torch.device("cpu"):
            ids = torch.tensor([[ids + [encoder.end_of_text] * (longest - len(ids)) for ids in each] for each in rows])
            ends = torch.tensor([[len(ids) - 1 for ids in each] for each in rows])
            self.used, renumbered = used_words(ids)
        self.register_buffer("ids", renumbered, persistent=False)  # the sentences are code, not weights
        self.register_buffer("ends", ends, persistent=False)
        self.tower = build_text_tower(start.text_config(len(self.used)))

    def forward(self) -> Tensor:
        """Features of every sentence, `[c, s, e]`, not normalised."""
        classes, sentences = self.ends.shape
        embedded = self.tower.token_embedding(self.ids).flatten(0, 1)
        features: Tensor = self.tower(embedded, self.ends.flatten())
        return features.reshape(classes, sentences, -1)

    def place(self, start: ClipStart) -> None:
        """Takes a CLIP's weights."""
        place_text(self.tower, start, self.used)

    @property
    def temperature(self) -> Tensor:
        """exp of CLIP's learned logarithm: what cosines are multiplied by."""
        return self.tower.logit_scale.exp()


def similarity_logits(image_BE: Tensor, class_CE: Tensor, temperature: Tensor | float) -> Tensor:
    """Temperature times the cosine of each image with each class: `[b, c]` (CLIP, arXiv 2103.00020, Section 2.3)."""
    logits: Tensor = temperature * F.normalize(image_BE, dim=-1) @ F.normalize(class_CE, dim=-1).T
    return logits
