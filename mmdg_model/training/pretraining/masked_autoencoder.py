"""Masked autoencoding (MAE, He et al., arXiv 2111.06377) of RGB, depth and infrared by one shared ViT encoder.

Every modality of every sample is an image of its own: the encoder sees a quarter of its patches and never another
modality, so it becomes the single-image ViT that MMDG starts from. A light decoder fills in the hidden patches, and,
asked for another modality, that one's patches as well.

MAE's class token has no target: nothing makes it describe the image. MMDG classifies by nothing else. Here the class
token alone must predict the mean colour of every patch of the whole image: exactly what the normalised targets of the
masked patches leave out, and nothing that one visible patch tells by itself.

Legend: b samples, i images (one a present modality), n patches, k visible patches, p values of a patch, d width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import ModelConfig
from mmdg_model.network import MODALITIES
from mmdg_model.training.pretraining.config import DecoderConfig, ObjectiveConfig, visible_patches
from mmdg_model.vit import INIT_STD, ViTBlock, build_block, build_embedding

#: Half the levels' range: what `InputSpecification` divides by, so one level is 1 / 128 of a plane's unit.
LEVELS_PER_UNIT = 128.0


class MaskedBatch(NamedTuple):
    """Input of one update.

    Attributes:
        planes: `float32 [b, m, 3, S, S]` as `inputs.prepare` makes it.
        present: `bool [b, m]`.
        kept: `int64 [b, m, k]`: the patches of each image that the encoder sees, ascending.
        other: `int64 [b, m]`: the modality to reconstruct across from each; itself where there is no other.
    """

    planes: Tensor
    present: Tensor
    kept: Tensor
    other: Tensor

    def to(self, device: torch.device) -> MaskedBatch:
        return MaskedBatch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Reconstruction(NamedTuple):
    """What the network makes of a batch; the first axis is that of the images.

    Attributes:
        sample, modality, other: `int64 [i]`: which image, and what was asked for beside it.
        hidden: `bool [i, n]`: patches that the encoder did not see.
        own, across: `[i, n, p]`: normalised patches of the own and of the other modality; `across` is empty (`[0]`)
            when nothing was asked.
        patch_means: `[i, m, n, 3]`: from the class token, of every modality.
    """

    sample: Tensor
    modality: Tensor
    other: Tensor
    hidden: Tensor
    own: Tensor
    across: Tensor
    patch_means: Tensor


class Errors(NamedTuple):
    """Mean squared errors, one a target.

    Attributes:
        masked: `[i]`, of hidden patches, normalised.
        across: `[c]`, of all patches of the other modality, for the images with another; `across_rows` says which.
        across_rows: `int64 [c]`.
        class_token: `[i]`, of patch means in the planes' unit, over the modalities asked for.
    """

    masked: Tensor
    across: Tensor
    across_rows: Tensor
    class_token: Tensor


class ViTEncoder(nn.Module):
    """A plain ViT over the visible patches of single images. Its state has a backbone's names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = build_embedding(config)
        self.blocks = nn.ModuleList(build_block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)

    def forward(self, patches: Tensor, kept: Tensor) -> Tensor:
        """Patches `[i, n, p]` and `int64 [i, k]` to `[i, 1 + k, d]`, class token first, after the final norm."""
        stream = self._embed(patches, kept)
        for block in self.blocks:
            stream = _through(block, stream)
        normed: Tensor = self.norm(stream)
        return normed

    def _embed(self, patches: Tensor, kept: Tensor) -> Tensor:
        """`TokenEmbedding.forward` for the visible patches only: a convolution over all costs four times as much."""
        embedding = self.embedding
        visible = F.linear(_gathered(patches, kept), embedding.patches.weight.flatten(1), embedding.patches.bias)
        tokens = torch.cat([embedding.class_token.to(visible.dtype).expand(len(kept), -1, -1), visible], dim=1)
        places = torch.cat([kept.new_zeros(len(kept), 1), kept + 1], dim=1)
        placed: Tensor = embedding.norm(tokens + embedding.position[0][places])
        return placed


class MaskedAutoencoder(nn.Module):
    """Encoder, decoder and what the class token predicts. Draws its start from torch's global generator."""

    def __init__(self, config: ModelConfig, decoder: DecoderConfig, objective: ObjectiveConfig) -> None:
        super().__init__()
        self.config = config
        self.objective = objective
        patches, width = config.grid**2, decoder.width
        self.encoder = ViTEncoder(config)
        self.to_decoder = nn.Linear(config.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        self.wanted_modality = nn.Parameter(torch.zeros(len(MODALITIES), width))
        self.decoder_position = nn.Parameter(sine_positions(config.grid, width))
        self.decoder_blocks = nn.ModuleList(
            ViTBlock(width=width, heads=decoder.heads, mlp_ratio=4, layer_norm_eps=config.layer_norm_eps)
            for _ in range(decoder.depth))
        self.decoder_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.to_patch = nn.Linear(width, 3 * config.patch_size**2)
        self.to_patch_means = nn.Linear(config.width, len(MODALITIES) * patches * 3)
        self._start(config)

    def _start(self, config: ModelConfig) -> None:
        """MAE's start: Xavier for linear layers and patches, sines as positions (here they train on)."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        embedding = self.encoder.embedding
        assert embedding.patches.bias is not None
        nn.init.zeros_(embedding.patches.bias)
        nn.init.xavier_uniform_(embedding.patches.weight.flatten(1))  # a view: the convolution's own storage
        with torch.no_grad():
            embedding.position.copy_(sine_positions(config.grid, config.width))
        for parameter in (self.mask_token, self.wanted_modality):
            nn.init.normal_(parameter, std=INIT_STD)

    def forward(self, batch: MaskedBatch) -> Reconstruction:
        """Encodes every present image and reconstructs it, and, if the objective weighs it, another modality."""
        sample, modality = batch.present.nonzero(as_tuple=True)
        kept, other = batch.kept[sample, modality], batch.other[sample, modality]
        encoded = self.encoder(as_patches(batch.planes[sample, modality], self.config.patch_size), kept)
        patch_means = self.to_patch_means(encoded[:, 0]).reshape(len(encoded), len(MODALITIES), -1, 3)
        own = self._decoded(encoded, kept, modality)
        across = self._decoded(encoded, kept, other) if self.objective.cross_modal_weight else own.new_empty(0)
        hidden = torch.ones(len(kept), self.config.grid**2, dtype=torch.bool, device=kept.device)
        hidden.scatter_(1, kept, value=False)
        return Reconstruction(sample, modality, other, hidden, own, across, patch_means)

    def _decoded(self, encoded: Tensor, kept: Tensor, wanted: Tensor) -> Tensor:
        """`[i, n, p]`: the patches of the wanted modality."""
        narrow = self.to_decoder(encoded)
        patches = self.mask_token.to(narrow.dtype).expand(len(narrow), self.config.grid**2, -1).scatter(
            1, kept[:, :, None].expand(-1, -1, narrow.shape[2]), narrow[:, 1:])
        stream = torch.cat([narrow[:, :1], patches], dim=1) + self.decoder_position
        stream = stream + self.wanted_modality[wanted][:, None]
        for block in self.decoder_blocks:
            stream = _through(block, stream)
        decoded: Tensor = self.to_patch(self.decoder_norm(stream[:, 1:]))
        return decoded

    def errors(self, batch: MaskedBatch, made: Reconstruction) -> Errors:
        """Squared errors of a reconstruction, in float32 whatever the precision of the pass."""
        targets, means = self.normalised(as_patches(batch.planes, self.config.patch_size))
        own = (made.own.float() - targets[made.sample, made.modality]).square().mean(dim=2)
        masked = (own * made.hidden).sum(dim=1) / made.hidden.sum(dim=1)
        rows = (made.other != made.modality).nonzero()[:, 0] if len(made.across) else made.other.new_empty(0)
        across = masked.new_empty(0)
        if len(rows):
            wanted = targets[made.sample[rows], made.other[rows]]
            across = (made.across[rows].float() - wanted).square().mean(dim=(1, 2))
        asked = F.one_hot(made.modality, len(MODALITIES)).bool()
        if self.objective.cross_modal_weight:
            asked = batch.present[made.sample]
        squared = (made.patch_means.float() - means[made.sample]).square().mean(dim=(2, 3))
        squared = torch.where(asked, squared, torch.zeros_like(squared))  # not multiplied: an absent plane may hold NaN
        return Errors(masked, across, rows, squared.sum(dim=1) / asked.sum(dim=1))

    def normalised(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Patches `[..., n, p]` with mean 0 and, unless flat, variance 1; and their mean colours `[..., n, 3]`."""
        floor = self.objective.variance_floor_levels / LEVELS_PER_UNIT
        colours = patches.reshape(*patches.shape[:-1], 3, -1).mean(dim=-1)
        centred = patches - colours.mean(dim=-1, keepdim=True)
        variance = centred.square().mean(dim=-1, keepdim=True)
        return centred * (variance + floor**2).rsqrt(), colours

    def total(self, errors: Errors) -> Tensor:
        """The loss of a batch: means over its images, weighed."""
        loss = errors.masked.mean() + self.objective.class_token_weight * errors.class_token.mean()
        if len(errors.across):
            loss = loss + self.objective.cross_modal_weight * errors.across.mean()
        return loss

    @property
    def visible(self) -> int:
        """Patches of an image that the encoder sees."""
        return visible_patches(self.config.grid**2, self.objective.mask_share)


def build_masked_autoencoder(config: ModelConfig, decoder: DecoderConfig, objective: ObjectiveConfig, *,
                             seed: int) -> MaskedAutoencoder:
    """A fresh one; the same for the same seed, and torch's generator is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedAutoencoder(config, decoder, objective)


def as_patches(images: Tensor, patch_size: int) -> Tensor:
    """`[..., 3, S, S]` to `[..., n, p]`, p in the order channel, row, column."""
    patches: Tensor = F.unfold(images.flatten(0, -4), kernel_size=patch_size, stride=patch_size).transpose(1, 2)
    stacked: Tensor = patches.reshape(*images.shape[:-3], *patches.shape[1:])
    return stacked


def as_images(patches: Tensor, patch_size: int, image_size: int) -> Tensor:
    """`[i, n, p]` to `[i, 3, S, S]`: the inverse of `as_patches`."""
    images: Tensor = F.fold(patches.transpose(1, 2), output_size=(image_size, image_size), kernel_size=patch_size,
                            stride=patch_size)
    return images


def sine_positions(grid: int, width: int) -> Tensor:
    """MAE's two-dimensional sines, `[1, 1 + grid², width]`; 0 for the class token. `width` is a multiple of 4."""
    frequency = 1.0 / 10000.0 ** (torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(grid, dtype=torch.float64)[:, None] * frequency
    along = torch.cat([angles.sin(), angles.cos()], dim=1)
    columns, rows = along.repeat(grid, 1), along.repeat_interleave(grid, dim=0)
    places = torch.cat([columns, rows], dim=1)
    return torch.cat([torch.zeros(1, places.shape[1]), places]).float()[None]


def _through(block: nn.Module, stream: Tensor) -> Tensor:
    """One pre-norm block by itself, as `network.AdaptedBlock` without adapters."""
    assert isinstance(block, ViTBlock)
    attended: Tensor = stream + block.attention(block.attention_norm(stream))
    through: Tensor = attended + block.mlp(block.mlp_norm(attended))
    return through


def _gathered(tokens: Tensor, places: Tensor) -> Tensor:
    chosen: Tensor = tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[2]))
    return chosen
