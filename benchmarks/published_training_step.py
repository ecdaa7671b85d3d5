"""MMDG's training step written down plainly, as published: the reference for benchmarks/training.py. Not for use.

Three streams one after the other with stored dropout samples (`naive_reference`), a distance matrix filled by two
loops, four backward passes over one retained graph, and modulation of one parameter tensor after the other, each with
decisions taken in Python. The released code fails before its first modulation (an undefined name, an index that drifts,
a tensor without gradient); this is what it would do if it did not, without its epsilon in a squared norm. It shares no
code with `mmdg_model`, so that both would have to make the same mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.naive_reference import STREAMS, NaiveMmdg


@dataclass(frozen=True)
class PublishedStep:
    """One step's gradients.

    Attributes:
        network: its `weights` are leaves; those to train require a gradient.
        prototypes: `[3, k, d]`, all known.
        ssp_weight: λ.
        target: `ssp` (released code) or `ce` (the paper's text).
    """

    network: NaiveMmdg
    prototypes: Tensor
    ssp_weight: float
    target: str

    def gradients(self, planes: Tensor, label: Tensor, domain: Tensor) -> dict[str, Tensor]:
        """The update of each tensor that anything reaches: `[b, 3, 3, S, S]`, `int64 [b]`, `int64 [b]`."""
        tokens, certainty = self.network.class_tokens(planes)
        logits = self.network.head(tokens)
        cross_entropy = F.cross_entropy(logits.float() if logits.dtype.itemsize < 4 else logits, label)
        domain_losses = [self._domain_loss(tokens[index], self.prototypes[index], domain) for index in range(3)]
        factors = [each.double().mean().item() for each in certainty]
        fast = min(range(3), key=lambda index: domain_losses[index].item())
        if self.target == "ssp":
            parts = [self._collect(self.ssp_weight * loss) for loss in domain_losses]
            rest = self._collect(cross_entropy, retain=False)
        else:
            # A modality's cross entropy: the other class tokens are constants to it. The head's is whole in each.
            parts = []
            for index in range(3):
                held = [token if index == m else token.detach() for m, token in enumerate(tokens)]
                alone = self.network.head(held)
                parts.append(self._collect(F.cross_entropy(
                    alone.float() if alone.dtype.itemsize < 4 else alone, label)))
            head = {name: gradient for name, gradient in parts[0].items() if name.startswith("head.")}
            parts = [{name: gradient for name, gradient in part.items() if name not in head} for part in parts]
            rest = self._collect(self.ssp_weight * (domain_losses[0] + domain_losses[1] + domain_losses[2]),
                                 retain=False) | head
        return self._joined(parts, rest, factors, fast)

    def _domain_loss(self, tokens: Tensor, prototypes: Tensor, domain: Tensor) -> Tensor:
        tokens = tokens.float() if tokens.dtype.itemsize < 4 else tokens
        rows = []
        for token in tokens:
            rows.append(torch.stack([(token - prototype).square().sum().sqrt() for prototype in prototypes]))
        distance = torch.stack(rows)
        own = distance.gather(1, domain[:, None])[:, 0]
        return (own + torch.logsumexp(-distance, dim=1)).mean()

    def _collect(self, loss: Tensor, *, retain: bool = True) -> dict[str, Tensor]:
        loss.backward(retain_graph=retain)
        found = {}
        for name, weight in self.network.weights.items():
            if weight.grad is not None:
                found[name] = weight.grad
                weight.grad = None
        return found

    def _joined(self, parts: list[dict[str, Tensor]], rest: dict[str, Tensor], factors: list[float],
                fast: int) -> dict[str, Tensor]:
        updates: dict[str, Tensor] = {}
        for name, weight in self.network.weights.items():
            gradients = [part.get(name) for part in parts]
            if all(gradient is None for gradient in gradients):
                total = None
            else:
                flat = [torch.zeros_like(weight).flatten() if gradient is None else gradient.flatten()
                        for gradient in gradients]
                total = self._modulated(flat, _owner(name), factors, fast).reshape(weight.shape)
            if name in rest:
                total = rest[name] if total is None else total + rest[name]
            if total is not None:
                updates[name] = total
        return updates

    def _modulated(self, flat: list[Tensor], owner: int | None, factors: list[float], fast: int) -> Tensor:
        if owner is None:
            return flat[0] + flat[1] + flat[2]
        if owner == fast:
            slow = [flat[index] for index in range(3) if index != fast]
            main = slow[0] + slow[1]
            return factors[fast] * self._kept(main, flat[fast]) + main
        total = flat[owner]
        for index in range(3):
            if index != owner:
                total = total + factors[index] * self._kept(flat[owner], flat[index])
        return total

    @staticmethod
    def _kept(main: Tensor, other: Tensor) -> Tensor:
        dot, square = (main * other).sum(), (main * main).sum()
        parallel = dot / square * main if square > 0 else torch.zeros_like(main)
        return parallel if dot > 0 else other - parallel


def _owner(name: str) -> int | None:
    """Modality that a tensor belongs to, from its name; None for the shared ones and the head."""
    parts = name.split(".")
    if parts[0] == "embeddings":
        return int(parts[1])
    if "adapters" in parts:
        return STREAMS.index(parts[parts.index("adapters") + 1].split("_from_")[0])
    return None


def leaves(weights: Mapping[str, Tensor], trainable: Mapping[str, object]) -> dict[str, Tensor]:
    """Copies of the weights, of which those named in `trainable` require a gradient."""
    return {name: weight.detach().clone().requires_grad_(name in trainable) for name, weight in weights.items()}
