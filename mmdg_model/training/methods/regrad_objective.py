"""`ReGradMethod`: CE + λ Σ L_m with prototypes, its gradients modulated by ReGrad (docs/training-objective.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

from mmdg_model.network import MMDG, MODALITIES, NetworkOutput
from mmdg_model.training.class_certainty import ClassCertainty
from mmdg_model.training.compute import TrainingDiverged
from mmdg_model.training.methods.contract import MethodContext, Scalars, TrainingBatch
from mmdg_model.training.methods.plain_vit import LateFusionViT
from mmdg_model.training.methods.prototype_epochs import PrototypeMethod
from mmdg_model.training.prototypes import PrototypeConfig
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


def needs_prototypes(objective: ObjectiveConfig) -> bool:
    """Whether the SSP loss adds to the loss or names the fast modality; otherwise all there is is cross entropy."""
    return objective.ssp_weight > 0 or objective.regrad.cases is not ReGradCases.OFF


class ReGradMethod(PrototypeMethod):
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
        super().__init__(context, network, prototypes=prototypes, classes=context.classes)
        self._network = network
        self._certainty = certainty
        self.objective = objective

    def update(self, batches: Sequence[TrainingBatch]) -> Scalars:
        """As `Method.update`; what it logs is listed in docs/methods.md."""
        prototypes = self.current_prototypes
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
        scalars = loss_scalars(gathered.statistics, self.objective.ssp_weight)
        self.require_finite(scalars)
        assign_gradients(self.trainable, gradients)
        return scalars | record_scalars(record) | {"update/skipped": float(not self.step())}

    def _forward(self, batch: TrainingBatch) -> NetworkOutput:
        # Losses and backward passes are outside of autocast: `batch_gradients` widens what it takes.
        reader = None
        if self._certainty is not None and isinstance(self._network, MMDG):
            reader = ClassCertainty(self._network, self._certainty)
        with reader or nullcontext(), self.compute.autocast():
            output: NetworkOutput = self._network(batch.planes, batch.present)
        return output if reader is None else reader.read_into(output, batch.present)


def loss_scalars(statistics: StepStatistics, ssp_weight: float, domain: str = "ssp") -> dict[str, float]:
    """Means over the samples; `domain` is what the loss of domains is called."""
    samples = float(statistics.samples)
    cross_entropy = float(statistics.cross_entropy) / samples
    ssp = ssp_weight * float(statistics.ssp_loss.sum()) / samples
    return {"loss/total": cross_entropy + ssp, "loss/cross_entropy": cross_entropy, f"loss/{domain}": ssp}


def record_scalars(record: StepRecord) -> dict[str, float]:
    """What a modulated step logs beside its losses."""
    regrad = record.regrad
    seen = [loss for loss in regrad.ssp_losses if not math.isnan(loss)]
    mean = sum(seen) / len(seen) if seen else math.nan
    return {
        **_by_modality("ssp", regrad.ssp_losses),
        # Over modalities, as in the paper's Figure 6.
        "ssp/variance": sum((loss - mean) ** 2 for loss in seen) / len(seen) if len(seen) > 1 else math.nan,
        **_by_modality("ssp_entropy", record.ssp_entropy),
        **_by_modality("certainty", regrad.certainty),
        **_of_regrad(regrad),
    }


def _of_regrad(record: ReGradRecord) -> dict[str, float]:
    def number(value: float | None) -> float:
        return math.nan if value is None else value

    return {"regrad/conflict_rate": number(record.conflict_rate),
            "regrad/relative_change": number(record.relative_change),
            "regrad/modulated_tensors": float(record.modulated_tensors),
            **_by_modality("regrad/fast", [float(modality is record.fast) if record.fast is not None else math.nan
                                           for modality in MODALITIES])}


def _by_modality(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}/{modality}": value for modality, value in zip(MODALITIES, values, strict=True)}
