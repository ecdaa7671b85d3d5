"""The U-Adapters of one block as one batch, for training: the same result up to rounding, in fewer and larger steps.

A block's adapters are small (8 channels): run one after the other, forward and several times backward, they cost a GPU
mostly kernel launches and a processor mostly passes over memory. Here their weights, which stay the adapters' own
parameters, are stacked in each pass and all adapters go through each step together. In the last block only the class
tokens are read, so only what reaches them is computed.

Inside the adapters everything is float32 even under autocast: it costs little there, and half precision is slower on
a processor. The large products, down from and up to the width d, follow autocast.

Legend: b batch, m modalities (order of `network.MODALITIES`), n tokens (class token first), q tokens of the result
(n or 1), d width, a adapter width, k adapters of the block, h heads, g patches a side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdg_model.gradient_functions import one_channel_attention
from mmdg_model.u_adapter import UAdapter, quick_gelu


@dataclass(frozen=True)
class AdapterLayout:
    """Who reads and feeds whom, as indices.

    Args:
        own, source: index of the modality that each adapter feeds and asks.
        modalities: m.
    """

    own: tuple[int, ...]
    source: tuple[int, ...]
    modalities: int

    @property
    def feeding(self) -> list[list[int]]:
        """Adapters that feed each modality."""
        return [[k for k, own in enumerate(self.own) if own == m] for m in range(self.modalities)]

    @property
    def reading(self) -> list[list[int]]:
        """Down projections that read each modality: k for the own one of adapter k, k + K for its source one."""
        return [[place for place, read in enumerate(self.own + self.source) if read == m]
                for m in range(self.modalities)]


def exchange_jointly(adapters: Sequence[UAdapter], layout: AdapterLayout, normed_MBND: Tensor, certainty_MBN1: Tensor,
                     present_MB: Tensor, *, class_tokens_only: bool = False) -> Tensor:
    """Sum of the adapters' messages to each modality: `[m, b, q, d]`, q = 1 with `class_tokens_only`, else n.

    Args:
        adapters: in the order of `layout`; of one shape.
        layout: see there; every modality is fed by at least one adapter.
        normed_MBND: the tokens that the adapters read.
        certainty_MBN1: of each token.
        present_MB: `bool`; an absent source gives nothing.
        class_tokens_only: leave out the messages to patch tokens.
    """
    own_KBNA, source_KBNA = _down(adapters, layout, normed_MBND)
    certainty_KBN1 = torch.stack([certainty_MBN1[index] for index in layout.source])
    with torch.autocast(normed_MBND.device.type, enabled=False):
        certainty_KBN1 = certainty_KBN1.to(source_KBNA.dtype)
        if class_tokens_only:
            source_KBNA, certainty_KBN1 = source_KBNA[:, :, :1], certainty_KBN1[:, :, :1]
        mixed_KBQA = _attend(adapters, own_KBNA, source_KBNA, certainty_KBN1)
        mixed_KBQA = mixed_KBQA + own_KBNA[:, :, :source_KBNA.shape[2]]
        normed_KBQA = F.layer_norm(mixed_KBQA, mixed_KBQA.shape[-1:], eps=adapters[0].norm.eps)
        weight_K11A, bias_K11A = (torch.stack([getattr(each.norm, name) for each in adapters])[:, None, None]
                                  for name in ("weight", "bias"))
        normed_KBQA = torch.addcmul(bias_K11A, normed_KBQA, weight_K11A)
        convolved_KBQA = quick_gelu(_convolve(adapters, normed_KBQA))
        first = adapters[0].dropout
        convolved_KBQA = F.dropout(convolved_KBQA, first.p, first.training)
    return _up(adapters, layout, convolved_KBQA, present_MB)


def _down(adapters: Sequence[UAdapter], layout: AdapterLayout, normed_MBND: Tensor) -> tuple[Tensor, Tensor]:
    """Own and source tokens of each adapter, `[k, b, n, a]` each: one product a modality, padded to equal width."""
    projections = [each.own_down for each in adapters] + [each.source_down for each in adapters]
    reading = layout.reading
    slots = max(map(len, reading))
    weight_MSAD = _filled([[projections[place].weight for place in places] for places in reading], slots)
    bias_MSA = _filled([[projections[place].bias for place in places] for places in reading], slots)
    modalities, batch, tokens, width = normed_MBND.shape
    down_MTC = torch.baddbmm(bias_MSA.flatten(1)[:, None], normed_MBND.reshape(modalities, -1, width),
                             weight_MSAD.flatten(1, 2).transpose(1, 2))
    adapter_width = bias_MSA.shape[-1]
    half = down_MTC.dtype.itemsize < 4
    down_MTC = quick_gelu(down_MTC.float() if half else down_MTC)
    down_SBNA = down_MTC.reshape(modalities, batch, tokens, slots, adapter_width).permute(0, 3, 1, 2, 4).flatten(0, 1)
    row = {place: m * slots + slot for m, places in enumerate(reading) for slot, place in enumerate(places)}
    # Stacked views, not an index tensor: that would be copied to a GPU in each pass and make it wait.
    parts = down_SBNA.unbind()
    own_KBNA, source_KBNA = (torch.stack([parts[row[place]] for place in places]) for places in (
        range(len(adapters)), range(len(adapters), len(projections))))
    return own_KBNA, source_KBNA


def _filled(lists: list[list[Tensor]], slots: int) -> Tensor:
    """`[m, slots, *shape]`, zeros where a list is shorter."""
    nothing = torch.zeros_like(lists[0][0])
    return torch.stack([torch.stack([*parts, *[nothing] * (slots - len(parts))]) for parts in lists])


def _attend(adapters: Sequence[UAdapter], own_KBNA: Tensor, source_KBQA: Tensor, certainty_KBQ1: Tensor) -> Tensor:
    """`[k, b, q, a]` before the sum with the own tokens."""
    attentions = [each.cross_attention for each in adapters]
    query_KAA = torch.stack([each.query.weight for each in attentions])
    key_value_KCA = torch.stack([torch.cat([each.key.weight, each.value.weight]) for each in attentions])
    output_KAA = torch.stack([each.output.weight for each in attentions])
    output_K1A = torch.stack([each.output.bias for each in attentions])[:, None]
    heads, scale = attentions[0].heads, attentions[0].scale
    count, batch, queries, width = source_KBQA.shape
    # Certainty on the query's input: the product is linear.
    query_KTA = torch.bmm((source_KBQA * (certainty_KBQ1 * scale)).flatten(1, 2), query_KAA.transpose(1, 2))
    key_KTA, value_KTA = torch.bmm(own_KBNA.flatten(1, 2), key_value_KCA.transpose(1, 2)).chunk(2, dim=-1)
    query, key, value = (part.reshape(count * batch, -1, heads, width // heads).transpose(1, 2)
                         for part in (query_KTA, key_KTA, value_KTA))
    if width == heads:
        mixed = one_channel_attention(query.squeeze(-1), key.squeeze(-1), value.squeeze(-1)).unsqueeze(-1)
    else:
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)
    mixed_KTA = mixed.transpose(1, 2).reshape(count, batch * queries, width)
    return torch.baddbmm(output_K1A, mixed_KTA, output_KAA.transpose(1, 2)).reshape(source_KBQA.shape)


def _convolve(adapters: Sequence[UAdapter], tokens_KBQA: Tensor) -> Tensor:
    """The central difference convolutions: patches as one grouped convolution, class tokens by the centre taps."""
    count, batch, tokens, width = tokens_KBQA.shape
    weight_KAA33 = torch.stack([each.convolution.folded_weight() for each in adapters])
    class_KBA = torch.bmm(tokens_KBQA[:, :, 0], weight_KAA33[..., 1, 1].transpose(1, 2))
    if tokens == 1:
        return class_KBA[:, :, None]
    grid = int((tokens - 1) ** 0.5)
    map_BCGG = tokens_KBQA[:, :, 1:].permute(1, 0, 3, 2).reshape(batch, -1, grid, grid)
    patches_BCGG = F.conv2d(map_BCGG, weight_KAA33.flatten(0, 1), padding=1, groups=count)
    patches_KBNA = patches_BCGG.reshape(batch, count, width, tokens - 1).permute(1, 0, 3, 2)
    return torch.cat([class_KBA[:, :, None], patches_KBNA], dim=2)


def _up(adapters: Sequence[UAdapter], layout: AdapterLayout, tokens_KBQA: Tensor, present_MB: Tensor) -> Tensor:
    batch, queries = tokens_KBQA.shape[1:3]
    present_KB = torch.stack([present_MB[index] for index in layout.source])
    present_KB11 = present_KB[:, :, None, None].to(tokens_KBQA.dtype)
    # The column of presence carries the bias: an absent source gives neither product nor bias.
    columns_KBQC = torch.cat([tokens_KBQA * present_KB11, present_KB11.expand(-1, -1, queries, -1)], dim=-1)
    columns = columns_KBQC.flatten(1, 2).unbind()
    feeding = layout.feeding
    slots = max(map(len, feeding))
    columns_MSTC = _filled([[columns[k] for k in places] for places in feeding], slots)
    up_KCD = [torch.cat([each.up.weight.T, each.up.bias[None]]) for each in adapters]
    up_MSCD = _filled([[up_KCD[k] for k in places] for places in feeding], slots)
    messages_MTD = torch.bmm(columns_MSTC.transpose(1, 2).flatten(2), up_MSCD.flatten(1, 2))
    return messages_MTD.reshape(layout.modalities, batch, queries, -1)
