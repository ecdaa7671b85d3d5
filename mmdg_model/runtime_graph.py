"""`build_runtime_graph`: an `MMDG` network rearranged for inference: equal up to rounding, in fewer and larger steps.

Legend: b batch, m modalities, n tokens (class token first), d width, a adapter width, k adapters of a block, h heads,
g patches a side.

Embedding, class tokens, certainty and head are the network's own code; only the blocks are replaced:

- all adapters of a block run as one batch (the modalities already do), their down projections as one matrix product;
- the central difference convolutions, weights folded, are one grouped convolution;
- presence, the up projections, their biases and the sum over sources are one matrix product a modality;
- certainty scales the query, so that a fused attention kernel applies (`u_adapter.py` does so too);
- with a half precision, matrix products and attention over `d` use it; the residual stream, norms, certainty and
  everything inside the adapters stay float32, where they cost little and rounding would add up over the blocks.
"""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import ResidualSource
from mmdg_model.network import MMDG, MODALITIES, AdaptedBlock, direction_name
from mmdg_model.scorer import Modality
from mmdg_model.u_adapter import UAdapter, quick_gelu
from mmdg_model.vit import TokenEmbedding

#: Precisions of the matrix products.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class StackedAdapters(nn.Module):
    """The U-Adapters of one block as one batch.

    Args:
        adapters: of the block, by direction.
        dtype: of the down projections' product, the only large one.
    """

    def __init__(self, adapters: dict[tuple[Modality, Modality], UAdapter], *, dtype: torch.dtype) -> None:
        super().__init__()
        self.own_index = [MODALITIES.index(own) for own, _ in adapters]
        self.source_index = [MODALITIES.index(source) for _, source in adapters]
        #: Positions among the adapters of those that feed each modality.
        self.feeding = [[k for k, index in enumerate(self.own_index) if index == m] for m in range(len(MODALITIES))]
        parts = list(adapters.values())
        attentions = [part.cross_attention for part in parts]
        self.heads = attentions[0].heads
        self.scale = attentions[0].scale
        self.norm_eps = parts[0].norm.eps
        downs = [part.own_down for part in parts] + [part.source_down for part in parts]
        # Own and source halves of all adapters, for every modality: an eighth more than needed, in one product.
        self.down_weight = _constant(torch.cat([down.weight for down in downs]), dtype)
        self.down_bias = _constant(torch.cat([down.bias for down in downs]), dtype)
        self.query = _constant(torch.stack([attention.query.weight.T for attention in attentions]))
        self.key_value = _constant(torch.stack([torch.cat([attention.key.weight, attention.value.weight]).T
                                                for attention in attentions]))
        self.output_weight = _constant(torch.stack([attention.output.weight.T for attention in attentions]))
        self.output_bias = _constant(torch.stack([attention.output.bias for attention in attentions])[:, None])
        self.norm_weight = _constant(torch.stack([part.norm.weight for part in parts])[:, None])
        self.norm_bias = _constant(torch.stack([part.norm.bias for part in parts])[:, None])
        folded = [part.convolution.folded_weight() for part in parts]
        self.convolution = _constant(torch.cat(folded))
        self.class_token_convolution = _constant(torch.stack([weight[:, :, 1, 1].T for weight in folded]))
        self.up = _constant(self._stacked_up(parts))

    def forward(self, normed_MBND: Tensor, certainty_MBN1: Tensor, present_MB: Tensor) -> Tensor:
        """Messages for each modality, `[m, b·n, d]`: normalised tokens, certainty float32, presence of the sources."""
        own_KTA, source_KTA = self._down(normed_MBND)
        batch, tokens = normed_MBND.shape[1:3]
        certainty_KT1 = torch.stack([certainty_MBN1[index] for index in self.source_index]).flatten(1, 2)
        mixed_KTA = self._attend(own_KTA, source_KTA, certainty_KT1, batch, tokens)
        normed_KTA = F.layer_norm(mixed_KTA + own_KTA, mixed_KTA.shape[-1:], eps=self.norm_eps)
        normed_KTA = normed_KTA * self.norm_weight + self.norm_bias
        convolved_KTA = quick_gelu(self._convolve(normed_KTA, batch, tokens))
        return self._up(convolved_KTA, present_MB, batch, tokens)

    def _down(self, normed_MBND: Tensor) -> tuple[Tensor, Tensor]:
        """Own and source tokens of each adapter, `[k, b·n, a]` each."""
        count = len(self.own_index)
        down = quick_gelu(F.linear(normed_MBND, self.down_weight, self.down_bias).float())
        own, source = (half.reshape(*half.shape[:-1], count, -1) for half in down.chunk(2, dim=-1))
        return (torch.stack([own[index, :, :, k] for k, index in enumerate(self.own_index)]).flatten(1, 2),
                torch.stack([source[index, :, :, k] for k, index in enumerate(self.source_index)]).flatten(1, 2))

    def _attend(self, own_KTA: Tensor, source_KTA: Tensor, certainty_KT1: Tensor, batch: int, tokens: int) -> Tensor:
        # Certainty on the query's input: the product is linear.
        query = torch.bmm(source_KTA * certainty_KT1, self.query)
        key, value = torch.bmm(own_KTA, self.key_value).chunk(2, dim=-1)
        query, key, value = (self._split(part, batch, tokens) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return torch.baddbmm(self.output_bias, mixed.transpose(1, 2).reshape(own_KTA.shape), self.output_weight)

    def _split(self, part_KTA: Tensor, batch: int, tokens: int) -> Tensor:
        """`[k·b, h, n, a/h]`."""
        return part_KTA.reshape(len(self.own_index) * batch, tokens, self.heads, -1).transpose(1, 2)

    def _convolve(self, tokens_KTA: Tensor, batch: int, tokens: int) -> Tensor:
        count, grid = len(self.own_index), int((tokens - 1) ** 0.5)
        tokens_KBNA = tokens_KTA.reshape(count, batch, tokens, -1)
        class_KBA = torch.bmm(tokens_KBNA[:, :, 0], self.class_token_convolution)
        map_BCGG = tokens_KBNA[:, :, 1:].permute(1, 0, 3, 2).reshape(batch, -1, grid, grid)
        patches_BCGG = F.conv2d(map_BCGG, self.convolution, padding=1, groups=count)
        patches_KBNA = patches_BCGG.reshape(batch, count, -1, tokens - 1).permute(1, 0, 3, 2)
        return torch.cat([class_KBA[:, :, None], patches_KBNA], dim=2).flatten(1, 2)

    def _up(self, tokens_KTA: Tensor, present_MB: Tensor, batch: int, tokens: int) -> Tensor:
        present_KB = torch.stack([present_MB[index] for index in self.source_index]).to(tokens_KTA.dtype)
        present_KT1 = present_KB[:, :, None].expand(-1, -1, tokens).reshape(len(self.own_index), -1, 1)
        # The column of presence carries the bias: an absent source gives neither product nor bias.
        columns_KTC = torch.cat([tokens_KTA * present_KT1, present_KT1], dim=-1)
        nothing_TC = torch.zeros_like(columns_KTC[0])
        slots = max(len(feeding) for feeding in self.feeding)
        filled_MTC = torch.stack([torch.cat([columns_KTC[feeding[slot]] if slot < len(feeding) else nothing_TC
                                             for slot in range(slots)], dim=-1) for feeding in self.feeding])
        return torch.bmm(filled_MTC, self.up)

    def _stacked_up(self, parts: list[UAdapter]) -> Tensor:
        """`[m, slots · (a + 1), d]`: for each adapter of a modality its up weight, then its bias as one more row."""
        blocks = [torch.cat([part.up.weight.T, part.up.bias[None]]) for part in parts]
        slots = max(len(feeding) for feeding in self.feeding)
        nothing = torch.zeros_like(blocks[0])
        return torch.stack([torch.cat([blocks[feeding[slot]] if slot < len(feeding) else nothing
                                       for slot in range(slots)]) for feeding in self.feeding])


class RuntimeBlock(nn.Module):
    """Stands in for an `AdaptedBlock`: same call, same result up to rounding."""

    def __init__(self, adapted: AdaptedBlock, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.attention_norm = adapted.block.attention_norm
        self.mlp_norm = adapted.block.mlp_norm
        self.attention = copy.deepcopy(adapted.block.attention).to(dtype)
        self.mlp = copy.deepcopy(adapted.block.mlp).to(dtype)
        self.uncertainty = adapted.uncertainty
        self.residual_source = adapted.residual_source
        adapters: dict[tuple[Modality, Modality], UAdapter] = {}
        for own, source in adapted.directions:
            adapters[own, source] = cast(UAdapter, adapted.adapters[direction_name(own, source)])
        self.adapters = StackedAdapters(adapters, dtype=dtype)

    def forward(self, stream_MBND: Tensor, present_MB: Tensor) -> tuple[Tensor, Tensor]:
        """As `AdaptedBlock.forward`."""
        normed_MBND = self.attention_norm(stream_MBND).to(self.dtype)
        attended_MBND = self.attention(normed_MBND.flatten(0, 1)).reshape(stream_MBND.shape).float()
        certainty_MBN1: Tensor = self.uncertainty(attended_MBND)
        residual_MBND = stream_MBND + attended_MBND
        full_MBND = self.mlp_norm(residual_MBND)
        normed_MBND = full_MBND.to(self.dtype)
        messages_MTD = self.adapters(normed_MBND, certainty_MBN1, present_MB)
        skip_MBND = full_MBND if self.residual_source is ResidualSource.NORMED else residual_MBND
        return skip_MBND + messages_MTD.reshape(stream_MBND.shape) + self.mlp(normed_MBND), certainty_MBN1


class PatchProduct(nn.Module):
    """Stands in for a `TokenEmbedding`: the patch convolution as one matrix product."""

    def __init__(self, embedding: TokenEmbedding, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.patch_size = embedding.patches.kernel_size[0]
        self.weight = _constant(embedding.patches.weight.flatten(1), dtype)
        assert embedding.patches.bias is not None
        first = embedding.class_token + embedding.position[:, :1]
        self.class_token = _constant(first)
        self.position = _constant(embedding.position[:, 1:] + embedding.patches.bias)
        self.norm = embedding.norm

    def forward(self, image: Tensor) -> Tensor:
        """As `TokenEmbedding.forward`, always float32."""
        size = self.patch_size
        grid = image.shape[-1] // size
        patches = image.to(self.weight.dtype).reshape(-1, 3, grid, size, grid, size)
        patches_BNP = patches.permute(0, 2, 4, 1, 3, 5).reshape(-1, grid * grid, 3 * size * size)
        patches_BND = F.linear(patches_BNP, self.weight).float() + self.position
        tokens_BND: Tensor = self.norm(torch.cat([self.class_token.expand(image.shape[0], -1, -1), patches_BND], dim=1))
        return tokens_BND


class RuntimeGraph(MMDG):
    """What `build_runtime_graph` returns: `MMDG` in its call and result, with other parts inside.

    Attributes:
        checks_input: False while the graph is captured for another runtime, where comparing values is impossible and
            comparing shapes would fix the batch size.
    """

    checks_input = True

    def _check(self, planes: Tensor, present_BM: Tensor) -> None:
        if self.checks_input:
            super()._check(planes, present_BM)


def build_runtime_graph(network: nn.Module, *, dtype: torch.dtype = torch.float32) -> RuntimeGraph:
    """An `MMDG` for inference only, computing as the module's text says. Shares norms and head with `network`.

    Its parameters have other names and layouts than a checkpoint's: it is built, never loaded or saved.

    Args:
        network: in evaluation mode, float32; not changed.
        dtype: of the large matrix products.

    Raises:
        ValueError: a network in training mode or not float32, or another dtype.
    """
    if not isinstance(network, MMDG):
        raise ValueError(f"the network is {type(network).__name__}; only MMDG has a runtime graph, backend torch runs "
                         "it")
    if network.training:
        raise ValueError("the network is in training mode, which the runtime graph lacks; call network.eval()")
    if network.head.weight.dtype is not torch.float32:
        raise ValueError(f"the network is {network.head.weight.dtype}, expected torch.float32; `dtype` chooses the "
                         "precision of the runtime graph")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype}, expected one of {', '.join(map(str, DTYPES))}")
    blocks = [RuntimeBlock(cast(AdaptedBlock, block), dtype=dtype) for block in network.blocks]
    embeddings = [PatchProduct(cast(TokenEmbedding, embedding), dtype=dtype) for embedding in network.embeddings]
    return RuntimeGraph(network.config, embeddings=cast(list[TokenEmbedding], embeddings),
                        blocks=cast(list[AdaptedBlock], blocks), norm=network.norm, head=network.head).eval()


def _constant(value: Tensor, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(value.detach().to(dtype).contiguous(), requires_grad=False)
