"""Methods that watch how sure each modality is by itself and help the slow ones: ratios of a whole update.

PMR and OGM-GE compare modalities by s_m, the probability of the true class that modality m gives alone. Their released
code does so by the batch at hand; here the ratio is of all samples of the update, over accumulated parts and processes,
so that no split changes the result. It must be known before the backward pass: an update in several parts runs each
part forward twice, the first time without a graph.

Legend: b batch, m modalities (order of `network.MODALITIES`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, distributed

from mmdg_model.network import MODALITIES, NetworkOutput
from mmdg_model.training.methods.contract import Scalars, TrainingBatch
from mmdg_model.training.methods.mean_gradients import MeanGradients
from mmdg_model.training.methods.trained_network import TrainedNetwork
from mmdg_model.training.step_gradients import assign_gradients


def confidence_ratios(sum_M: Tensor, count_M: Tensor) -> Tensor:
    """ρ_m = s_m / mean of the others' s, with s_m = sum_m / count_m: above 1 for a modality ahead of the others.

    With two modalities this is the ratio of PMR (CVPR 2023) and OGM-GE (CVPR 2022); neither paper has
    three. 1 for a modality that no sample has, and where it is the only one.

    Args:
        sum_M: `[m]`, probabilities of the true class summed over the samples that have the modality.
        count_M: `[m]`, how many those are.
    """
    present_M = count_M > 0
    mean_M = torch.where(present_M, sum_M / count_M.clamp_min(1.0), 0.0)
    others_M = present_M.sum() - present_M.to(sum_M.dtype)
    rest_M = mean_M.sum() - mean_M
    compared_M = present_M & (others_M > 0)
    tiny = torch.finfo(sum_M.dtype).tiny
    return torch.where(compared_M, mean_M * others_M / rest_M.clamp_min(tiny), 1.0)


class BalancedMethod(TrainedNetwork, ABC):
    """One optimiser step whose loss or gradients depend on the ratios of the whole update.

    A subclass declares `terms`, the names of its loss's terms, as in `MeanLossMethod`.
    """

    terms: ClassVar[tuple[str, ...]]

    @abstractmethod
    def confidence(self, output: NetworkOutput, batch: TrainingBatch) -> Tensor:
        """`[b, m]`: probability of the true class by each modality alone; no gradient. What an absent one has is not
        read."""

    @abstractmethod
    def loss(self, output: NetworkOutput, batch: TrainingBatch, ratio_M: Tensor) -> dict[str, Tensor]:
        """Terms by name, each a mean over the batch and weighted; `ratio_M` `[m]` is a constant."""

    def modulate(self, gradients: Mapping[str, Tensor], ratio_M: Tensor) -> Mapping[str, Tensor]:
        """The gradients that the optimiser gets; called once an update after all parts and processes are joined."""
        return gradients

    def update(self, batches: Sequence[TrainingBatch]) -> Scalars:
        """As `Method.update`; logs each term as `loss/<term>` and the ratios as `balance/ratio/<modality>`."""
        totals = torch.zeros(2, len(MODALITIES), dtype=torch.float64, device=self.compute.device)
        if len(batches) > 1:
            with self.training_pass(), torch.no_grad():
                for batch in batches:
                    here = batch.to(self.compute.device)
                    totals += self._sums(self._forward(here), here)
        gathered = MeanGradients.empty(self.trainable, self.terms)
        with self.training_pass():  # draws what the pass above drew
            kept: NetworkOutput | None = None
            if len(batches) == 1:
                here = batches[0].to(self.compute.device)
                kept = self._forward(here)
                totals += self._sums(kept, here)
            if self.compute.world_size > 1:
                distributed.all_reduce(totals)
            ratio_M = confidence_ratios(*totals)
            for batch in batches:
                here = batch.to(self.compute.device)
                output = self._forward(here) if kept is None else kept
                with self.compute.autocast():
                    losses = self.loss(output, here, ratio_M)
                gathered.add(losses, samples=len(here.label), loss_scale=self.compute.loss_scale)
        if self.compute.world_size > 1:
            gathered.all_reduce()
        means = gathered.mean_losses()
        scalars = {"loss/total": sum(means.values()), **{f"loss/{name}": value for name, value in means.items()}}
        self.require_finite(scalars)
        assign_gradients(self.trainable, self.modulate(gathered.gradients, ratio_M))
        ratios = {f"balance/ratio/{modality}": ratio for modality, ratio in zip(MODALITIES, ratio_M.tolist(),
                                                                               strict=True)}
        return scalars | ratios | {"update/skipped": float(not self.step())}

    def _forward(self, batch: TrainingBatch) -> NetworkOutput:
        with self.compute.autocast():
            output: NetworkOutput = self.network(batch.planes, batch.present)
        return output

    def _sums(self, output: NetworkOutput, batch: TrainingBatch) -> Tensor:
        probability_BM = torch.where(batch.present, self.confidence(output, batch).double(), 0.0)
        return torch.stack([probability_BM.sum(dim=0), batch.present.double().sum(dim=0)])
