"""CLIP's two towers (arXiv 2103.00020) as MMDG++ uses them: frozen, in float32, taken apart where adapters act.

Legend: b batch, n tokens, d width, e width of the joint space.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmdg_model.config import Activation
from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig, MMDGPlusPlusConfig
from mmdg_model.vit import INIT_STD, ViTBlock

#: Per channel of RGB in 0..1: what CLIP's images were normalised by.
CLIP_PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)

#: CLIP's initial temperature, 1 / 0.07, as stored: a logarithm.
INITIAL_LOGIT_SCALE = math.log(1 / 0.07)


class ClipBlock(ViTBlock):
    """A pre-norm block of either tower. In the image tower adapters act between its two halves."""

    def __init__(self, *, width: int, heads: int, mlp_ratio: int, layer_norm_eps: float, causal: bool = False) -> None:
        super().__init__(width=width, heads=heads, mlp_ratio=mlp_ratio, layer_norm_eps=layer_norm_eps,
                         activation=Activation.QUICK_GELU)
        self.attention.causal = causal

    def attend(self, stream_BND: Tensor) -> Tensor:
        """The first half: `[b, n, d]` to the stream after self-attention."""
        attended_BND: Tensor = self.attention(self.attention_norm(stream_BND))
        return stream_BND + attended_BND

    def forward(self, stream_BND: Tensor) -> Tensor:
        """Both halves, without adapters: `[b, n, d]` to `[b, n, d]`."""
        residual_BND = self.attend(stream_BND)
        grown_BND: Tensor = self.mlp(self.mlp_norm(residual_BND))
        return residual_BND + grown_BND


class ClipImageTower(nn.Module):
    """What all modalities share of the image tower. Class token, position and projection are each modality's own.

    Attributes:
        patches: patch convolution, without bias.
        embedding_norm: CLIP's `ln_pre`, over embedded tokens.
        blocks: in order.
        norm: CLIP's `ln_post`, over the class token.
    """

    def __init__(self, *, patches: nn.Conv2d, embedding_norm: nn.LayerNorm, blocks: list[ClipBlock],
                 norm: nn.LayerNorm) -> None:
        super().__init__()
        self.patches = patches
        self.embedding_norm = embedding_norm
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def embed(self, image: Tensor, class_token_11D: Tensor, position_1ND: Tensor) -> Tensor:
        """Normalised `[b, 3, height, width]` to tokens `[b, n, d]`, class token first."""
        patches_BND = self.patches(image).flatten(2).transpose(1, 2)
        tokens_BND = torch.cat([class_token_11D.expand(image.shape[0], -1, -1), patches_BND], dim=1) + position_1ND
        normed_BND: Tensor = self.embedding_norm(tokens_BND)
        return normed_BND


class ClipTextTower(nn.Module):
    """CLIP's text tower from embedded tokens on, so that learnable tokens can take the place of words.

    Attributes:
        token_embedding: vocabulary to `[d]`.
        position: `[1, n, d]`.
        projection: `[d, e]`.
        logit_scale: logarithm of CLIP's temperature, a scalar.
    """

    def __init__(self, *, token_embedding: nn.Embedding, context_length: int, blocks: list[ClipBlock],
                 norm: nn.LayerNorm, feature_width: int) -> None:
        super().__init__()
        width = token_embedding.embedding_dim
        self.token_embedding = token_embedding
        self.position = nn.Parameter(torch.zeros(1, context_length, width))
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.projection = nn.Parameter(torch.zeros(width, feature_width))
        self.logit_scale = nn.Parameter(torch.full((), INITIAL_LOGIT_SCALE))
        nn.init.normal_(self.token_embedding.weight, std=INIT_STD)
        nn.init.normal_(self.position, std=0.01)
        nn.init.normal_(self.projection, std=width ** -0.5)

    def forward(self, embedded_BND: Tensor, end_B: Tensor) -> Tensor:
        """Features of sentences.

        Attention is causal, so nothing after a sentence's end token matters: n may be any length up to the context
        that holds the longest sentence.

        Args:
            embedded_BND: token embeddings, without positions.
            end_B: `int64 [b]`, place of each end token.

        Returns:
            `[b, e]`, not normalised.
        """
        stream_BND = embedded_BND + self.position[:, :embedded_BND.shape[1]]
        for block in self.blocks:
            stream_BND = block(stream_BND)
        ends_BD = stream_BND[torch.arange(len(stream_BND), device=stream_BND.device), end_B]
        features_BE: Tensor = self.norm(ends_BD) @ self.projection
        return features_BE


def build_image_tower(config: MMDGPlusPlusConfig) -> ClipImageTower:
    """A random image tower of `config`'s shape, frozen."""
    patches = nn.Conv2d(3, config.width, kernel_size=config.patch_size, stride=config.patch_size, bias=False)
    nn.init.trunc_normal_(patches.weight, std=INIT_STD)
    tower = ClipImageTower(
        patches=patches, embedding_norm=nn.LayerNorm(config.width, eps=config.layer_norm_eps),
        blocks=[ClipBlock(width=config.width, heads=config.heads, mlp_ratio=config.mlp_ratio,
                          layer_norm_eps=config.layer_norm_eps) for _ in range(config.depth)],
        norm=nn.LayerNorm(config.width, eps=config.layer_norm_eps))
    return tower.requires_grad_(False)


def build_text_tower(config: DomainPromptConfig) -> ClipTextTower:
    """A random text tower of `config`'s shape, frozen."""
    tower = ClipTextTower(
        token_embedding=nn.Embedding(config.vocabulary_size, config.width), context_length=config.context_length,
        blocks=[ClipBlock(width=config.width, heads=config.heads, mlp_ratio=config.mlp_ratio,
                          layer_norm_eps=config.layer_norm_eps, causal=True) for _ in range(config.depth)],
        norm=nn.LayerNorm(config.width, eps=config.layer_norm_eps), feature_width=config.feature_width)
    return tower.requires_grad_(False)
