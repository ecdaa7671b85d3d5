"""A pre-norm Vision Transformer's parts (ViT, arXiv 2010.11929): token embedding, self-attention, MLP.

Legend: b batch, n tokens (class token first), d width, h heads, k channels a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import Activation, EmbeddingNorm, ModelConfig
from mmdg_model.gradient_functions import attention, gelu
from mmdg_model.u_adapter import quick_gelu

#: Standard deviation of fresh tokens, position embeddings and projections (ViT's).
INIT_STD = 0.02


class QuickGELU(nn.Module):
    """`quick_gelu` as a layer, for backbones that were trained with it (OpenAI CLIP)."""

    def forward(self, value: Tensor) -> Tensor:
        """Element by element; any shape."""
        return quick_gelu(value)


class GELU(nn.GELU):
    """GELU; in training its slope is computed once, however many cotangents are sent back (`gradient_functions`)."""

    def forward(self, input: Tensor) -> Tensor:
        """Element by element; any shape."""
        return gelu(input) if self.training and torch.is_grad_enabled() else super().forward(input)


class TokenEmbedding(nn.Module):
    """Image to tokens: patch convolution, class token in front, position embedding added; CLIP then normalises."""

    def __init__(self, *, image_size: int, patch_size: int, width: int,
                 embedding_norm: EmbeddingNorm = EmbeddingNorm.NONE, layer_norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, (image_size // patch_size) ** 2 + 1, width))
        normed = embedding_norm is EmbeddingNorm.LAYER_NORM
        self.norm: nn.Module = nn.LayerNorm(width, eps=layer_norm_eps) if normed else nn.Identity()
        nn.init.trunc_normal_(self.patches.weight, std=INIT_STD)
        nn.init.normal_(self.class_token, std=INIT_STD)
        nn.init.normal_(self.position, std=INIT_STD)

    def forward(self, image: Tensor) -> Tensor:
        """`[b, 3, height, width]` to tokens `[b, n, d]`."""
        patches_BND = self.patches(image).flatten(2).transpose(1, 2)
        tokens_BND = torch.cat([self.class_token.expand(len(image), -1, -1), patches_BND], dim=1) + self.position
        normed_BND: Tensor = self.norm(tokens_BND)
        return normed_BND


class SelfAttention(nn.Module):
    """Multi-head self-attention with one joint query-key-value projection; `causal`: no token sees a later one."""

    def __init__(self, *, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        for linear in (self.query_key_value, self.output):
            nn.init.trunc_normal_(linear.weight, std=INIT_STD)
            nn.init.zeros_(linear.bias)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """`[b, n, d]` to `[b, n, d]`."""
        joint_BN3HK = self.query_key_value(tokens_BND).reshape(*tokens_BND.shape[:2], 3, self.heads, -1)
        query_BHNK, key_BHNK, value_BHNK = joint_BN3HK.permute(2, 0, 3, 1, 4).unbind(0)
        if self.training and torch.is_grad_enabled() and not self.causal:
            mixed_BHNK = attention(query_BHNK, key_BHNK, value_BHNK)
        else:
            mixed_BHNK = F.scaled_dot_product_attention(query_BHNK, key_BHNK, value_BHNK, is_causal=self.causal)
        output: Tensor = self.output(mixed_BHNK.transpose(1, 2).flatten(2))
        return output


class ViTBlock(nn.Module):
    """The parts of one pre-norm block. `network.AdaptedBlock` joins them, because adapters act between them."""

    def __init__(self, *, width: int, heads: int, mlp_ratio: int, layer_norm_eps: float,
                 activation: Activation = Activation.GELU) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=layer_norm_eps)
        self.attention = SelfAttention(width=width, heads=heads)
        self.mlp_norm = nn.LayerNorm(width, eps=layer_norm_eps)
        non_linearity = QuickGELU() if activation is Activation.QUICK_GELU else GELU()
        self.mlp = nn.Sequential(nn.Linear(width, mlp_ratio * width), non_linearity,
                                 nn.Linear(mlp_ratio * width, width))
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=INIT_STD)
                nn.init.zeros_(layer.bias)


def build_embedding(config: ModelConfig) -> TokenEmbedding:
    return TokenEmbedding(image_size=config.image_size, patch_size=config.patch_size, width=config.width,
                          embedding_norm=config.embedding_norm, layer_norm_eps=config.layer_norm_eps)


def build_block(config: ModelConfig) -> ViTBlock:
    return ViTBlock(width=config.width, heads=config.heads, mlp_ratio=config.mlp_ratio,
                    layer_norm_eps=config.layer_norm_eps, activation=config.activation)
