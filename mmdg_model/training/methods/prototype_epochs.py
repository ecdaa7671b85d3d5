"""`PrototypeMethod`: base of methods that take the mean class tokens of each class once an epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

from mmdg_model.network import MMDG, MODALITIES
from mmdg_model.training.compute import TrainingDiverged
from mmdg_model.training.methods.contract import MethodContext, Scalars, TrainingBatch
from mmdg_model.training.methods.plain_vit import LateFusionViT
from mmdg_model.training.methods.trained_network import TrainedNetwork
from mmdg_model.training.prototypes import (
    PrototypeBatch,
    PrototypeConfig,
    Prototypes,
    PrototypeSums,
    sum_class_tokens,
)
from mmdg_model.training.ssp_loss import DomainClasses

_EPOCH = "method.prototype_epoch"
_NO_EPOCH = "-1"


class PrototypeMethod(TrainedNetwork):
    """Takes prototypes at the start of an epoch and keeps them in the state of a resumed run.

    Args:
        context: see `MethodContext`.
        network: with `requires_grad` set.
        prototypes: how they are taken.
        classes: rows of the prototypes.
    """

    def __init__(self, context: MethodContext, network: MMDG | LateFusionViT, *, prototypes: PrototypeConfig,
                 classes: DomainClasses) -> None:
        super().__init__(context, network)
        self._class_token_network = network
        self.prototype_config = prototypes
        self.prototype_classes = classes
        self.prototypes: Prototypes | None = None
        self._prototype_epoch = _NO_EPOCH

    def prototype_row(self, batch: TrainingBatch) -> Tensor:
        """`int64 [b]`: row of each sample among the prototypes."""
        return batch.domain

    @property
    def epoch(self) -> int:
        """Whose prototypes are held; -1 before the first."""
        return int(self._prototype_epoch)

    @property
    def current_prototypes(self) -> Prototypes:
        """Of this epoch. Raises `RuntimeError` before the first `start_epoch`."""
        if self.prototypes is None:
            raise RuntimeError("no prototypes yet; call start_epoch before the first update")
        return self.prototypes

    def start_epoch(self, epoch: int, clean_batches: Callable[[], Iterable[TrainingBatch]]) -> Scalars:
        """Takes the epoch's prototypes; of an epoch that was begun before a restart they are kept as restored.

        Returns:
            `prototypes/variance/<modality>`: mean over channels of the variance over the known domain classes.

        Raises:
            TrainingDiverged: class tokens that are not finite.
            ValueError: a training source without a sample.
        """
        if self._prototype_epoch != str(epoch):
            with self.compute.autocast():
                sums = sum_class_tokens(self._class_token_network, self._prototype_batches(clean_batches()),
                                        self.prototype_classes, self.prototype_config, seed=self.context.seed,
                                        epoch=epoch, rank=self.compute.rank)
            if self.compute.world_size > 1:
                sums.all_reduce()
            _require_finite_tokens(sums, epoch)
            self.prototypes = sums.prototypes(self.prototype_config, previous=self.prototypes)
            self._prototype_epoch = str(epoch)
        return _prototype_scalars(self.current_prototypes)

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Also the prototypes, and the epoch that they were taken for."""
        tensors, metadata = super().state()
        if self.prototypes is not None:
            more_tensors, more_metadata = self.prototypes.state()
            tensors, metadata = tensors | more_tensors, metadata | more_metadata
        return tensors, metadata | {_EPOCH: self._prototype_epoch}

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restores `state`.

        Raises:
            ValueError: missing entries, or a state of another run.
        """
        if _EPOCH not in metadata:
            raise ValueError(f"{_EPOCH} is missing: this state was saved by a method without prototypes")
        prototypes = None
        if metadata[_EPOCH] != _NO_EPOCH:
            restored = Prototypes.from_state(tensors, metadata, self.prototype_classes)
            device = self.compute.device
            prototypes = Prototypes(restored.classes, restored.values.to(device), restored.known.to(device))
        super().load_state(tensors, metadata)
        self.prototypes, self._prototype_epoch = prototypes, metadata[_EPOCH]

    def _prototype_batches(self, batches: Iterable[TrainingBatch]) -> Iterator[PrototypeBatch]:
        for batch in batches:
            here = batch.to(self.compute.device)
            yield PrototypeBatch(here.planes, here.present, self.prototype_row(here))


def _require_finite_tokens(sums: PrototypeSums, epoch: int) -> None:
    for index, modality in enumerate(MODALITIES):
        if not bool(torch.isfinite(sums.sums[index]).all()):
            raise TrainingDiverged(f"the {modality} class tokens are not finite before epoch {epoch}; lower the "
                                   "learning rate, or look for a broken input")


def _prototype_scalars(prototypes: Prototypes) -> Scalars:
    variances = [float(values_KD[known_K].double().var(dim=0, correction=0).mean()) if bool(known_K.any()) else math.nan
                 for values_KD, known_K in zip(prototypes.values, prototypes.known, strict=True)]
    return {f"prototypes/variance/{modality}": value for modality, value in zip(MODALITIES, variances, strict=True)}
