"""FLIP-MCL (arXiv 2309.16649, Section 3): faces told from attacks by sentences, with two self-supervised terms.

Nine channels to three, CLIP's image tower and text tower, all fine-tuned. v: feature of the image; t_c: mean of the
features of the sentences of class c; v', v'': features of two views of the image; t', t'': means over the two halves
of its class's sentences, drawn anew for each sample:

    L_ce  = CE( T cos(v, t_c) )
    L_ssl = InfoNCE( g(v'), g(v''), temperature 0.1 )              g: three layers, training only
    L_mse = mean ( cos(v', t') - cos(v'', t'') )²
    L     = L_ce + w1 L_ssl + w2 L_mse

InfoNCE compares the samples of one part of a batch. docs/methods/clip_and_later.md has components and the release's
bugs.

Legend: b batch, c classes, s sentences, e width of the joint space, v channels of g's output.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import TrainableParts
from mmdg_model.training.methods.clip_start import (
    ClassSentences,
    ClipImageEncoder,
    ClipPixels,
    ClipStart,
    clip_start,
    similarity_logits,
)
from mmdg_model.training.methods.contract import Method, MethodContext, TrainingBatch
from mmdg_model.training.methods.mean_loss import MeanLossMethod, widened
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.plain_vit import ModalityFusion
from mmdg_model.training.methods.starting_weights import draw_network

#: Of attack and live, in the order of the logits: plain statements as FLIP has them, in our words.
CLASS_SENTENCES = (
    ("a photo of a spoof face", "this face is an attack", "the face in this picture is not real",
     "a picture of a fake face", "an example of a presentation attack", "a printed or replayed face"),
    ("a photo of a live face", "this face is genuine", "the face in this picture is real",
     "a picture of a real person", "an example of a bonafide face", "a face of flesh and blood"),
)

#: Of InfoNCE (release).
TEMPERATURE = 0.1


@dataclass(frozen=True, kw_only=True)
class FlipSettings:
    """What may be set; the weights are the release's.

    Attributes:
        contrastive_weight: w1. consistency_weight: w2.
        view_strength: how much two views of an image differ, 0 (not at all; halves of sentences are then fixed) to 1.

    Raises:
        ValueError: a value out of range.
    """

    contrastive_weight: float = 1.0
    consistency_weight: float = 1.0
    view_strength: float = 1.0

    def __post_init__(self) -> None:
        for name in ("contrastive_weight", "consistency_weight"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected at least 0")
        if not 0.0 <= self.view_strength <= 1.0:
            raise ValueError(f"view_strength is {self.view_strength!r}, expected 0 to 1")


def info_nce(first_BV: Tensor, second_BV: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Mean over all 2 b views of the cross entropy of finding its other view among the 2 b - 1 others, by cosine."""
    views = F.normalize(torch.cat([first_BV, second_BV]), dim=-1)
    count = len(first_BV)
    itself = torch.eye(2 * count, dtype=torch.bool, device=views.device)
    similarity = (views @ views.T / temperature).masked_fill(itself, -torch.inf)
    other = torch.arange(2 * count, device=views.device).roll(count)
    return F.cross_entropy(similarity, other)


def consistency(first_B: Tensor, second_B: Tensor) -> Tensor:
    """Mean square of the difference between the two views' cosines with their halves of sentences."""
    return (first_B - second_B).square().mean()


def random_view(images: Tensor, strength: float) -> Tensor:
    """Another view of each image `[b, 3, S, S]`: cropped to as little as 0.6 of its side, mirrored or not, contrast
    and brightness changed by up to 0.4, all less with less `strength`; 0 is the image itself and draws nothing."""
    if not strength:
        return images
    batch = len(images)
    draws = torch.rand(6, batch, dtype=images.dtype, device=images.device)
    side = 1.0 - 0.4 * strength * draws[0]
    mirror = torch.where(draws[1] < 0.5, -1.0, 1.0)
    shift = (1.0 - side) * (2.0 * draws[2:4] - 1.0)
    place = torch.zeros(batch, 2, 3, dtype=images.dtype, device=images.device)
    place[:, 0, 0], place[:, 1, 1], place[:, :, 2] = side * mirror, side, shift.T
    cropped = F.grid_sample(images, F.affine_grid(place, list(images.shape), align_corners=False),
                            padding_mode="reflection", align_corners=False)
    contrast, brightness = (0.4 * strength * (2.0 * draw[:, None, None, None] - 1.0) for draw in draws[4:6])
    view: Tensor = cropped * (1.0 + contrast) + brightness
    return view


def sentence_halves(count: int, batch: int, *, drawn: bool, device: torch.device) -> Tensor:
    """`bool [b, s]`: which sentences are a sample's first half; the others are the second. A true partition."""
    order = torch.rand(batch, count, device=device) if drawn else torch.arange(
        count, device=device).expand(batch, count)
    return order.argsort(dim=1).argsort(dim=1) < count // 2


class FlipNetwork(nn.Module):
    """See the module's text. `views` is g, which scores do not need."""

    def __init__(self, start: ClipStart, context: MethodContext) -> None:
        super().__init__()
        hidden = 8 * start.feature_width
        self.pixels = ClipPixels(context.inputs)
        self.fusion = ModalityFusion(start.model)
        self.image = ClipImageEncoder(start)
        self.sentences = ClassSentences(start, CLASS_SENTENCES)
        self.views = nn.Sequential(
            nn.Linear(start.feature_width, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, hidden),
            nn.LayerNorm(hidden), nn.ReLU(), nn.Linear(hidden, start.feature_width // 2))

    def fused(self, planes: Tensor, present_BM: Tensor) -> Tensor:
        """One image `[b, 3, S, S]`. Raises `ValueError` as `read_planes`."""
        image: Tensor = self.fusion(self.pixels(planes), present_BM)
        return image

    def views_of(self, features_BE: Tensor) -> Tensor:
        """g: `[b, e]` to `[b, v]`."""
        compared_BV: Tensor = self.views(features_BE)
        return compared_BV

    def logits_of(self, images: Tensor, class_CSE: Tensor) -> Tensor:
        """`[b, 2]`: temperature times the cosines."""
        features_BE: Tensor = self.image(images)
        return similarity_logits(features_BE, class_CSE.mean(dim=1), self.sentences.temperature)


class Flip(MeanLossMethod):
    """The sum of three terms."""

    terms = ("cross_entropy", "contrastive", "consistency")

    def __init__(self, context: MethodContext, network: FlipNetwork, settings: FlipSettings) -> None:
        super().__init__(context, network)
        self._network = network
        self.settings = settings

    def logits(self, planes: Tensor, present: Tensor) -> Tensor:
        """`[b, 2]`."""
        return self._network.logits_of(self._network.fused(planes, present), self._network.sentences())

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """See the module's text. A term of weight 0 is not computed."""
        network, chosen = self._network, self.settings
        images, class_CSE = network.fused(batch.planes, batch.present), network.sentences()
        losses = {"cross_entropy": F.cross_entropy(widened(network.logits_of(images, class_CSE)), batch.label)}
        nothing = losses["cross_entropy"].new_zeros(())
        losses |= {"contrastive": nothing, "consistency": nothing}
        if not chosen.contrastive_weight and not chosen.consistency_weight:
            return losses
        views = [network.image(random_view(images, chosen.view_strength)) for _ in range(2)]
        if chosen.contrastive_weight:
            losses["contrastive"] = chosen.contrastive_weight * info_nce(
                widened(network.views_of(views[0])), widened(network.views_of(views[1])))
        if chosen.consistency_weight:
            own_BSE = widened(class_CSE)[batch.label]
            first_BS = sentence_halves(own_BSE.shape[1], len(own_BSE), drawn=chosen.view_strength > 0,
                                       device=own_BSE.device)
            losses["consistency"] = chosen.consistency_weight * consistency(*(
                F.cosine_similarity(widened(view_BE), _mean_of(own_BSE, half_BS))
                for view_BE, half_BS in zip(views, (first_BS, ~first_BS), strict=True)))
        return losses


def _mean_of(sentences_BSE: Tensor, chosen_BS: Tensor) -> Tensor:
    share_BS = chosen_BS.to(sentences_BSE.dtype) / chosen_BS.sum(dim=1, keepdim=True)
    return torch.einsum("bs,bse->be", share_BS, sentences_BSE)


def build_flip(context: MethodContext, settings: FlipSettings) -> Method:
    """Both towers train whole; with `adapters_and_head` the image projection, the fusion and g alone.

    Raises:
        MethodError: see `clip_start`.
        BackboneError: a CLIP that does not fit the model.
        ModuleNotFoundError: the tokenizer's extra is not installed.
    """
    start = clip_start(context)
    network = draw_network(context, lambda: FlipNetwork(start, context))
    network.image.place(start)
    network.sentences.place(start)
    network.image.choose_trainable(start.model.trainable_parts)
    network.sentences.requires_grad_(start.model.trainable_parts is not TrainableParts.ADAPTERS_AND_HEAD)
    return Flip(context, network, settings)


ROWS = (MethodEntry(
    name="flip", title="FLIP", summary="CLIP fine-tuned to sentences of live and attack, two self-supervised terms",
    source="arXiv 2309.16649 (FLIP-MCL); nine channels in by the rule of arXiv 2402.19298, Section 4.1",
    settings=FlipSettings, build=build_flip, fixed={}, needs_clip=True, batch_coupled=True,
    still={"view_strength": 0.0}, cross_entropy_alone={"contrastive_weight": 0.0, "consistency_weight": 0.0}),)
