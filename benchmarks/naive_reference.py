"""MMDG written down plainly, as published: the reference that speed and numbers are compared with. Not for use.

Three separate streams, one after the other; certainty from stored dropout samples of the attention's output; attention
with explicit logits and softmax; central differences as two convolutions. It takes a checkpoint's weights by name and
shares no code with `mmdg_model`, so that both would have to make the same mistake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

STREAMS = ("rgb", "depth", "infrared")
EXCHANGES = (("rgb", "depth"), ("rgb", "infrared"), ("depth", "rgb"), ("infrared", "rgb"))


class NaiveMmdg:
    """The network over named weights, of any dtype.

    Args:
        weights: state of the network.
        heads, depth, adapter_heads, theta, rate, dropout, eps: as in its configuration.
        samples: dropout samples for certainty; None takes their limit in closed form, which has no noise.
        adapter_dropout: dropout before an adapter's up projection; 0 for scores, 0.2 in training.
    """

    def __init__(self, weights: Mapping[str, Tensor], *, heads: int, depth: int, adapter_heads: int, theta: float,
                 rate: float, dropout: float, eps: float, samples: int | None, adapter_dropout: float = 0.0) -> None:
        self.weights = weights
        self.heads, self.depth, self.adapter_heads = heads, depth, adapter_heads
        self.theta, self.rate, self.dropout, self.eps, self.samples = theta, rate, dropout, eps, samples
        self.adapter_dropout = adapter_dropout

    def logits(self, planes: Tensor, present: Tensor | None = None) -> Tensor:
        """`[b, 3, 3, S, S]`, presence `bool [b, 3]` (default: all) to `[b, 2]`."""
        tokens, _ = self.class_tokens(planes, present)
        return self.head(tokens)

    def head(self, tokens: list[Tensor]) -> Tensor:
        """Class tokens of the three streams `[b, d]` to `[b, 2]`."""
        return self._linear(torch.cat(tokens, dim=1), "head")

    def class_tokens(self, planes: Tensor, present: Tensor | None = None) -> tuple[list[Tensor], list[Tensor]]:
        """Class tokens of the three streams, `[b, d]` each, and their certainty in the last block, `[b, d]` each."""
        present = (torch.ones(len(planes), 3, dtype=torch.bool, device=planes.device) if present is None
                   else present)
        here = {name: present[:, index, None, None] for index, name in enumerate(STREAMS)}
        stream = {}
        for index, name in enumerate(STREAMS):
            image = planes[:, index].masked_fill(~present[:, index, None, None, None], 0.0)
            stream[name] = self._tokens(image, f"embeddings.{index}")
        certainty: dict[str, Tensor] = {}
        for number in range(self.depth):
            stream, certainty = self._block(stream, here, f"blocks.{number}")
        return ([self._norm(stream[name], "norm", self.eps)[:, 0] * here[name][:, 0] for name in STREAMS],
                [certainty[name][:, 0] for name in STREAMS])

    def _tokens(self, image: Tensor, place: str) -> Tensor:
        weight = self.weights[f"{place}.patches.weight"]
        patches = F.conv2d(image, weight, self.weights[f"{place}.patches.bias"], stride=weight.shape[-1])
        first = self.weights[f"{place}.class_token"].expand(len(image), -1, -1)
        return torch.cat([first, patches.flatten(2).transpose(1, 2)], dim=1) + self.weights[f"{place}.position"]

    def _block(self, stream: dict[str, Tensor], here: dict[str, Tensor],
               place: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        residual, normed, certainty = {}, {}, {}
        for name in STREAMS:
            attended = self._attention(self._norm(stream[name], f"{place}.block.attention_norm", self.eps),
                                       f"{place}.block.attention")
            certainty[name] = self._certainty(attended)
            residual[name] = stream[name] + attended
            normed[name] = self._norm(residual[name], f"{place}.block.mlp_norm", self.eps)
        following = {}
        for name in STREAMS:
            hidden = F.gelu(self._linear(normed[name], f"{place}.block.mlp.0"))
            following[name] = residual[name] + self._linear(hidden, f"{place}.block.mlp.2")
        for own, source in EXCHANGES:
            message = self._adapter(normed[own], normed[source], certainty[source],
                                    f"{place}.adapters.{own}_from_{source}")
            following[own] = following[own] + message * here[source]
        return following, certainty

    @torch.no_grad()
    def _certainty(self, attended: Tensor) -> Tensor:
        """`[b, n, d]`, kept for every element until the adapter averages it."""
        if self.samples is None:
            return torch.exp(-self.rate * attended.abs() * math.sqrt(self.dropout / (1 - self.dropout)))
        drawn = torch.stack([F.dropout(attended, self.dropout, training=True) for _ in range(self.samples)])
        return torch.exp(-self.rate * drawn.std(dim=0))

    def _attention(self, tokens: Tensor, place: str) -> Tensor:
        query, key, value = (self._split(part, self.heads)
                             for part in self._linear(tokens, f"{place}.query_key_value").chunk(3, dim=-1))
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return self._linear(self._joined(torch.softmax(logits, dim=-1) @ value), f"{place}.output")

    def _adapter(self, own: Tensor, source: Tensor, certainty: Tensor, place: str) -> Tensor:
        own, source = (_quick_gelu(self._linear(tokens, f"{place}.{name}_down"))
                       for name, tokens in (("own", own), ("source", source)))
        query, key, value = (self._split(self._linear(tokens, f"{place}.cross_attention.{name}"), self.adapter_heads)
                             for name, tokens in (("query", source), ("key", own), ("value", own)))
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        logits = logits * certainty.mean(dim=-1)[:, None, :, None]
        mixed = self._linear(self._joined(torch.softmax(logits, dim=-1) @ value), f"{place}.cross_attention.output")
        joined = self._norm(mixed + own, f"{place}.norm", 1e-5)
        grid = math.isqrt(joined.shape[1] - 1)
        class_map = joined[:, :1].transpose(1, 2).unflatten(2, (1, 1))
        patch_map = joined[:, 1:].transpose(1, 2).unflatten(2, (grid, grid))
        maps = [self._central_difference(each, f"{place}.convolution.weight").flatten(2).transpose(1, 2)
                for each in (class_map, patch_map)]
        convolved = F.dropout(_quick_gelu(torch.cat(maps, dim=1)), self.adapter_dropout)
        return self._linear(convolved, f"{place}.up")

    def _central_difference(self, tokens: Tensor, name: str) -> Tensor:
        weight = self.weights[name]
        return (F.conv2d(tokens, weight, padding=1)
                - self.theta * F.conv2d(tokens, weight.sum(dim=(2, 3), keepdim=True)))

    def _norm(self, tokens: Tensor, place: str, eps: float) -> Tensor:
        return F.layer_norm(tokens, tokens.shape[-1:], self.weights[f"{place}.weight"], self.weights[f"{place}.bias"],
                            eps)

    def _linear(self, tokens: Tensor, place: str) -> Tensor:
        return F.linear(tokens, self.weights[f"{place}.weight"], self.weights.get(f"{place}.bias"))

    @staticmethod
    def _split(tokens: Tensor, heads: int) -> Tensor:
        return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)

    @staticmethod
    def _joined(heads: Tensor) -> Tensor:
        return heads.transpose(1, 2).flatten(2)


def _quick_gelu(value: Tensor) -> Tensor:
    return value * torch.sigmoid(1.702 * value)
