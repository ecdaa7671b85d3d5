"""`MeanLossMethod`: base of every method whose loss is a mean over samples. A new one writes `loss` and no more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from mmdg_model.training.methods.contract import Scalars, TrainingBatch
from mmdg_model.training.methods.mean_gradients import MeanGradients
from mmdg_model.training.methods.trained_network import TrainedNetwork
from mmdg_model.training.step_gradients import assign_gradients


def widened(value: Tensor) -> Tensor:
    """At least float32: losses of half-precision outputs."""
    return value.float() if value.dtype.itemsize < 4 else value


class MeanLossMethod(TrainedNetwork, ABC):
    """One backward pass a batch; batches and processes are joined by their numbers of samples; one optimiser step.

    `DistributedDataParallel` is not needed, and not wanted: it would average processes with unequal shares wrongly.

    A subclass declares `terms`, the names of its loss's terms (a process without samples must know them, too), and
    returns them from `loss`.
    """

    terms: ClassVar[tuple[str, ...]]

    @abstractmethod
    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Terms by name, each a mean over the batch and already weighted; what is minimised is their sum.

        Called in training mode under the run's precision; `batch` is on the device and holds at least one sample.
        """

    def start_epoch(self, epoch: int, clean_batches: Callable[[], Iterable[TrainingBatch]]) -> Scalars:
        """Needs nothing: no pass over the clean samples is paid for."""
        return {}

    def update(self, batches: Sequence[TrainingBatch]) -> Scalars:
        """As `Method.update`; logs each term as `loss/<term>` beside `loss/total`."""
        gathered = MeanGradients.empty(self.trainable, self.terms)
        with self.training_pass():
            for batch in batches:
                batch = batch.to(self.compute.device)
                with self.compute.autocast():
                    losses = self.loss(batch)
                gathered.add(losses, samples=len(batch.label), loss_scale=self.compute.loss_scale)
        if self.compute.world_size > 1:
            gathered.all_reduce()
        means = gathered.mean_losses()
        scalars = {"loss/total": sum(means.values()), **{f"loss/{name}": value for name, value in means.items()}}
        self.require_finite(scalars)
        assign_gradients(self.trainable, gathered.gradients)
        return scalars | {"update/skipped": float(not self.step())}


class CrossEntropyMethod(MeanLossMethod):
    """Cross entropy of live against attack, and nothing else."""

    terms = ("cross_entropy",)

    def loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """CE of the network's logits, in float32 at least."""
        logits = self.logits(batch.planes, batch.present)
        return {"cross_entropy": F.cross_entropy(widened(logits), batch.label)}


class LogitsMethod(CrossEntropyMethod):
    """The same on a network that returns logits and no more."""

    def logits(self, planes: Tensor, present: Tensor) -> Tensor:
        """`[b, 2]`."""
        logits: Tensor = self.network(planes, present)
        return logits
