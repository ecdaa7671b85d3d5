"""Gradients of a mean loss, added over accumulated batches and processes by their numbers of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, distributed, nn

from mmdg_model.training.step_gradients import add_to_means


@dataclass(eq=False)
class MeanGradients:
    """What an update has gathered so far.

    Attributes:
        trainable: parameters, in the order in which processes exchange their gradients.
        terms: names of the loss's terms; the loss is their sum.
        samples: how many.
        sums: `float64 [t]`, each term's mean times its samples, added up.
        gradients: of the mean over all samples so far; a tensor that nothing reached is missing.
    """

    trainable: Mapping[str, nn.Parameter]
    terms: tuple[str, ...]
    samples: int
    sums: Tensor
    gradients: dict[str, Tensor]

    @classmethod
    def empty(cls, trainable: Mapping[str, nn.Parameter], terms: tuple[str, ...]) -> Self:
        """No sample yet; also what a process contributes whose share has run out."""
        device = next(iter(trainable.values())).device
        return cls(trainable, terms, 0, torch.zeros(len(terms), dtype=torch.float64, device=device), {})

    def add(self, losses: Mapping[str, Tensor], *, samples: int, loss_scale: float = 1.0) -> None:
        """Counts a batch: takes the gradient of the sum of its terms, each a mean over its samples.

        Raises:
            ValueError: other terms than were declared, or no sample.
        """
        if set(losses) != set(self.terms):
            raise ValueError(f"the loss has the terms {', '.join(losses)}, declared are {', '.join(self.terms)}")
        if samples < 1:
            raise ValueError("the batch holds no sample; its mean loss is no number")
        total = torch.stack([losses[name].to(torch.promote_types(losses[name].dtype, torch.float32))
                             for name in self.terms]).sum()
        found: Sequence[Tensor | None] = torch.autograd.grad(total * loss_scale, list(self.trainable.values()),
                                                             allow_unused=True)
        self.samples += samples
        share = samples / self.samples
        self.sums = self.sums + samples * torch.stack([losses[name].detach().double() for name in self.terms])
        add_to_means(self.gradients, {name: gradient for name, gradient in zip(self.trainable, found, strict=True)
                                      if gradient is not None}, share)

    def all_reduce(self, group: distributed.ProcessGroup | None = None) -> None:
        """Joins all processes of the group in one message: afterwards equal in each, bit for bit.

        Processes may hold different numbers of samples, none included, and reach different tensors.
        """
        reached = [float(name in self.gradients) for name in self.trainable]
        first = next(iter(self.trainable.values()))
        numbers = torch.tensor([float(self.samples), *self.sums.tolist(), *reached], dtype=first.dtype,
                               device=first.device)
        weighted = [self.gradients[name].flatten() * self.samples if name in self.gradients
                    else torch.zeros_like(parameter).flatten() for name, parameter in self.trainable.items()]
        message = torch.cat([numbers, *weighted])
        distributed.all_reduce(message, group=group)
        numbers, *parts = message.split_with_sizes([len(numbers), *(part.numel() for part in weighted)])
        counts = numbers.tolist()
        self.samples = round(counts[0])
        self.sums = numbers[1:1 + len(self.terms)].double()
        anywhere = counts[1 + len(self.terms):]
        self.gradients = {name: part.reshape(parameter.shape) / max(1, self.samples)
                          for (name, parameter), part, count in zip(self.trainable.items(), parts, anywhere,
                                                                    strict=True) if count}

    def mean_losses(self) -> dict[str, float]:
        """Each term's mean over the samples.

        Raises:
            ValueError: no sample was added.
        """
        if not self.samples:
            raise ValueError("the update holds no sample; add at least one batch before it")
        return dict(zip(self.terms, (self.sums / self.samples).tolist(), strict=True))
