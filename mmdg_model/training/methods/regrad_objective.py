"""`ReGradMethod`: CE + λ Σ L_m with prototypes, its gradients modulated by ReGrad (docs/training-objective.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from mmdg_model.network import MMDG, MODALITIES, NetworkOutput
from mmdg_model.training.class_certainty import ClassCertainty
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
from mmdg_model.training.regrad import ReGradCases, ReGradError, ReGradRecord
from mmdg_model.training.step_gradients import (
    ObjectiveConfig,
    StepGradients,
    StepRecord,
    StepStatistics,
    assign_gradients,
    batch_gradients,
)
from mmdg_model.uncertainty import TokenUncertainty

_EPOCH = "method.prototype_epoch"
_NO_EPOCH = "-1"


def needs_prototypes(objective: ObjectiveConfig) -> bool:
    """Whether the SSP loss adds to the loss or names the fast modality; otherwise all there is is cross entropy."""
    return objective.ssp_weight > 0 or objective.regrad.cases is not ReGradCases.OFF


class ReGradMethod(TrainedNetwork):
    """Prototypes once an epoch, gradients by modality, modulated once an update after batches and processes are joined.

    Args:
        context: see `MethodContext`.
        network: with `requires_grad` set.
        objective: λ and ReGrad's choices. With ReGrad off an update is one backward pass a batch.
        prototypes: how they are taken.
        certainty: reads U_m beside a network whose adapters do without; None takes the network's own.
    """

    def __init__(self, context: MethodContext, network: MMDG | LateFusionViT, *, objective: ObjectiveConfig,
                 prototypes: PrototypeConfig, certainty: TokenUncertainty | None = None) -> None:
        super().__init__(context, network)
        self._network = network
        self._certainty = certainty
        self.objective = objective
        self.prototype_config = prototypes
        self.prototypes: Prototypes | None = None
        self._prototype_epoch = _NO_EPOCH

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
                sums = sum_class_tokens(self._network, self._prototype_batches(clean_batches()), self.context.classes,
                                        self.prototype_config, seed=self.context.seed, epoch=epoch,
                                        rank=self.compute.rank)
            if self.compute.world_size > 1:
                sums.all_reduce()
            _require_finite_tokens(sums, epoch)
            self.prototypes = sums.prototypes(self.prototype_config, previous=self.prototypes)
            self._prototype_epoch = str(epoch)
        return _prototype_scalars(self._current_prototypes())

    def update(self, batches: Sequence[TrainingBatch]) -> Scalars:
        """As `Method.update`; what it logs is listed in docs/methods.md."""
        prototypes = self._current_prototypes()
        gathered = StepGradients.empty(self.trainable, self.objective)
        with self.training_pass():
            for batch in batches:
                batch = batch.to(self.compute.device)
                output = self._forward(batch)
                gathered.add(batch_gradients(
                    output, label_B=batch.label, domain_B=batch.domain, present_BM=batch.present,
                    prototypes=prototypes, trainable=self.trainable, config=self.objective,
                    loss_scale=self.compute.loss_scale))
        if self.compute.world_size > 1:
            gathered.all_reduce()
        try:
            gradients, record = gathered.update(self.objective)
        except ReGradError as error:
            raise TrainingDiverged(f"{error}, at update {self.updates}") from error
        scalars = _loss_scalars(gathered.statistics, self.objective.ssp_weight)
        self.require_finite(scalars)
        assign_gradients(self.trainable, gradients)
        return scalars | _record_scalars(record) | {"update/skipped": float(not self.step())}

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
            restored = Prototypes.from_state(tensors, metadata, self.context.classes)
            device = self.compute.device
            prototypes = Prototypes(restored.classes, restored.values.to(device), restored.known.to(device))
        super().load_state(tensors, metadata)
        self.prototypes, self._prototype_epoch = prototypes, metadata[_EPOCH]

    def _forward(self, batch: TrainingBatch) -> NetworkOutput:
        # Losses and backward passes are outside of autocast: `batch_gradients` widens what it takes.
        reader = None
        if self._certainty is not None and isinstance(self._network, MMDG):
            reader = ClassCertainty(self._network, self._certainty)
        with reader or nullcontext(), self.compute.autocast():
            output: NetworkOutput = self._network(batch.planes, batch.present)
        return output if reader is None else reader.read_into(output, batch.present)

    def _prototype_batches(self, batches: Iterable[TrainingBatch]) -> Iterator[PrototypeBatch]:
        for batch in batches:
            here = batch.to(self.compute.device)
            yield PrototypeBatch(here.planes, here.present, here.domain)

    def _current_prototypes(self) -> Prototypes:
        if self.prototypes is None:
            raise RuntimeError("no prototypes yet; call start_epoch before the first update")
        return self.prototypes


def _require_finite_tokens(sums: PrototypeSums, epoch: int) -> None:
    for index, modality in enumerate(MODALITIES):
        if not bool(torch.isfinite(sums.sums[index]).all()):
            raise TrainingDiverged(f"the {modality} class tokens are not finite before epoch {epoch}; lower the "
                                   "learning rate, or look for a broken input")


def _prototype_scalars(prototypes: Prototypes) -> Scalars:
    variances = [float(values_KD[known_K].double().var(dim=0, correction=0).mean()) if bool(known_K.any()) else math.nan
                 for values_KD, known_K in zip(prototypes.values, prototypes.known, strict=True)]
    return {f"prototypes/variance/{modality}": value for modality, value in zip(MODALITIES, variances, strict=True)}


def _loss_scalars(statistics: StepStatistics, ssp_weight: float) -> dict[str, float]:
    samples = float(statistics.samples)
    cross_entropy = float(statistics.cross_entropy) / samples
    ssp = ssp_weight * float(statistics.ssp_loss.sum()) / samples
    return {"loss/total": cross_entropy + ssp, "loss/cross_entropy": cross_entropy, "loss/ssp": ssp}


def _record_scalars(record: StepRecord) -> dict[str, float]:
    regrad = record.regrad
    seen = [loss for loss in regrad.ssp_losses if not math.isnan(loss)]
    mean = sum(seen) / len(seen) if seen else math.nan
    return {
        **_by_modality("ssp", regrad.ssp_losses),
        # Over modalities, as in the paper's Figure 6.
        "ssp/variance": sum((loss - mean) ** 2 for loss in seen) / len(seen) if len(seen) > 1 else math.nan,
        **_by_modality("ssp_entropy", record.ssp_entropy),
        **_by_modality("certainty", regrad.certainty),
        **_regrad_scalars(regrad),
    }


def _regrad_scalars(record: ReGradRecord) -> dict[str, float]:
    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return {"regrad/conflict_rate": number(record.conflict_rate),
            "regrad/relative_change": number(record.relative_change),
            "regrad/modulated_tensors": float(record.modulated_tensors),
            **_by_modality("regrad/fast", [float(modality is record.fast) if record.fast is not None else math.nan
                                           for modality in MODALITIES])}


def _by_modality(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}/{modality}": value for modality, value in zip(MODALITIES, values, strict=True)}
