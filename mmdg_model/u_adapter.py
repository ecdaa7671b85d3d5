"""The U-Adapter (paper, Section 3.2, Eq. 4): attention between two modalities, tempered by uncertainty, narrow inside.

Legend: b batch, n tokens (class token first), d width, a adapter width, h heads, k channels a head, g patches a side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import AttentionDivisor, ModelConfig


def quick_gelu(value: Tensor) -> Tensor:
    """z · sigmoid(1.702 z), CLIP's approximation of GELU, which the adapters use."""
    return value * torch.sigmoid(1.702 * value)


class CentralDifferenceConvolution(nn.Module):
    """CDC (arXiv 2003.04092) on a token grid: 3x3 taps minus `theta` times their sum at the centre.

    conv3x3(x; w) - theta · conv1x1(x; sum of w's taps) is linear in x, so the second term folds into the centre tap
    and one convolution remains. The class token is a 1x1 map of its own: padding leaves it the folded centre tap only.
    """

    def __init__(self, *, channels: int, theta: float) -> None:
        super().__init__()
        self.theta = theta
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # what `nn.Conv2d` does, as in the release

    def folded_weight(self) -> Tensor:
        """`[a, a, 3, 3]` of the one equivalent convolution."""
        return self.weight - self.theta * F.pad(self.weight.sum(dim=(2, 3), keepdim=True), (1, 1, 1, 1))

    def forward(self, tokens_BNA: Tensor) -> Tensor:
        """`[b, 1 + g*g, a]` to the same shape: patches as a g x g map, the class token as a 1x1 map."""
        weight = self.folded_weight()
        grid = int((tokens_BNA.shape[1] - 1) ** 0.5)
        map_BAGG = tokens_BNA[:, 1:].transpose(1, 2).reshape(tokens_BNA.shape[0], -1, grid, grid)
        patches_BNA = F.conv2d(map_BAGG, weight, padding=1).flatten(2).transpose(1, 2)
        class_B1A = F.linear(tokens_BNA[:, :1], weight[:, :, 1, 1])
        return torch.cat([class_B1A, patches_BNA], dim=1)


class UncertaintyCrossAttention(nn.Module):
    """The source modality asks, the own modality answers; a query's logits shrink with its token's certainty.

    A source token of certainty 0 spreads its attention evenly over the own tokens: it is muted, not masked.

    Args:
        width: channels a of the tokens.
        heads: must divide `width`.
        divisor: the logits are divided by the square root of the channels of a head (release) or of a token (paper).
    """

    def __init__(self, *, width: int, heads: int, divisor: AttentionDivisor = AttentionDivisor.HEAD_WIDTH) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads if divisor is AttentionDivisor.HEAD_WIDTH else width) ** -0.5
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)

    def forward(self, own_BNA: Tensor, source_BNA: Tensor, certainty_BN1: Tensor) -> Tensor:
        """`[b, n, a]`, `[b, n, a]`, certainty of the source `[b, n, 1]` to `[b, n, a]`."""
        # U scales row i of Q K^T (Eq. 4), which is scaling query i: the fused attention kernel stays usable.
        query_BHNK = self._split(self.query(source_BNA) * certainty_BN1)
        key_BHNK, value_BHNK = self._split(self.key(own_BNA)), self._split(self.value(own_BNA))
        mixed_BHNK = F.scaled_dot_product_attention(query_BHNK, key_BHNK, value_BHNK, scale=self.scale)
        output: Tensor = self.output(mixed_BHNK.transpose(1, 2).flatten(2))
        return output

    def attention(self, own_BNA: Tensor, source_BNA: Tensor, certainty_BN1: Tensor) -> Tensor:
        """The weights that `forward` applies, which its fused kernel never shows: `[b, h, n source, n own]`."""
        query_BHNK, key_BHNK = self._split(self.query(source_BNA)), self._split(self.key(own_BNA))
        logits_BHNN = query_BHNK @ key_BHNK.transpose(2, 3) * self.scale * certainty_BN1[:, None]
        return torch.softmax(logits_BHNN, dim=-1)

    def _split(self, tokens_BNA: Tensor) -> Tensor:
        return tokens_BNA.reshape(*tokens_BNA.shape[:2], self.heads, -1).transpose(1, 2)


class UAdapter(nn.Module):
    """What one modality learns from another: a term to add to the own residual stream.

    Freshly made, the up projection is zero and so is the adapter's output: a pretrained ViT starts undisturbed.
    """

    def __init__(self, *, width: int, adapter_width: int, heads: int, theta: float, dropout: float,
                 divisor: AttentionDivisor = AttentionDivisor.HEAD_WIDTH) -> None:
        super().__init__()
        self.own_down = nn.Linear(width, adapter_width)
        self.source_down = nn.Linear(width, adapter_width)
        self.cross_attention = UncertaintyCrossAttention(width=adapter_width, heads=heads, divisor=divisor)
        self.norm = nn.LayerNorm(adapter_width)
        self.convolution = CentralDifferenceConvolution(channels=adapter_width, theta=theta)
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(adapter_width, width)
        for down in (self.own_down, self.source_down):
            nn.init.xavier_uniform_(down.weight)
            nn.init.zeros_(down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, own_BND: Tensor, source_BND: Tensor, source_certainty_BN1: Tensor) -> Tensor:
        """Normalised tokens of both modalities `[b, n, d]`, certainty `[b, n, 1]` in (0, 1] to `[b, n, d]`."""
        own_BNA = quick_gelu(self.own_down(own_BND))
        source_BNA = quick_gelu(self.source_down(source_BND))
        mixed_BNA = self.norm(self.cross_attention(own_BNA, source_BNA, source_certainty_BN1) + own_BNA)
        convolved_BNA = quick_gelu(self.convolution(mixed_BNA))
        adapted: Tensor = self.up(self.dropout(convolved_BNA))
        return adapted


def build_u_adapter(config: ModelConfig) -> UAdapter:
    return UAdapter(width=config.width, adapter_width=config.adapter_width, heads=config.adapter_heads,
                    theta=config.cdc_theta, dropout=config.adapter_dropout, divisor=config.attention_divisor)
