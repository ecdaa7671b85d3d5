"""One optimiser step of MMDG's objective: gradients of each batch, added over batches and processes, modulated once.

    step = StepGradients.empty(trainable, config)
    for batch in accumulated:
        step.add(batch_gradients(network(batch.planes, batch.present), ...))
    step.all_reduce()                                  # only with several processes
    gradients, record = step.update(config)
    assign_gradients(trainable, gradients)
    optimizer.step()                                   # weight decay acts here, after modulation

Legend: b batch, m modalities (order of `network.MODALITIES`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import NamedTuple, Self

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from mmdg_model.network import MODALITIES, NetworkOutput
from mmdg_model.scorer import Modality
from mmdg_model.training.modality_gradients import (
    ModalityGradients,
    is_head,
    modality_gradients,
    modulated_names,
    parameter_owner,
)
from mmdg_model.training.prototypes import Prototypes
from mmdg_model.training.regrad import CertaintyFactor, ReGradConfig, ReGradRecord, modulate
from mmdg_model.training.ssp_loss import ssp_loss
from mmdg_model.uncertainty import BatchAggregation, modality_certainty


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """L = CE + λ Σ_m L_m (arXiv 2402.19298, Eq. 8) and how its gradients are modulated.

    Attributes:
        ssp_weight: λ. The paper gives none; the released code has 0.3. At 0 the SSP loss still names the fast modality.
        regrad: see `ReGradConfig`.

    Raises:
        ValueError: a negative weight.
    """

    ssp_weight: float = 0.3
    regrad: ReGradConfig = field(default_factory=ReGradConfig)

    def __post_init__(self) -> None:
        if not 0.0 <= self.ssp_weight < float("inf"):
            raise ValueError(f"objective.ssp_weight is {self.ssp_weight!r}, expected at least 0")


class StepStatistics(NamedTuple):
    """Sums over samples, `float64`; those by modality are over the samples that have it.

    Attributes:
        samples: `[]`.
        cross_entropy: `[]`.
        ssp_loss, ssp_entropy: `[m]`.
        certainty: `[m]` of U (`mean_of_exp`) or log U (`exp_of_mean`) of the class tokens.
        present: `[m]` number of samples.
    """

    samples: Tensor
    cross_entropy: Tensor
    ssp_loss: Tensor
    ssp_entropy: Tensor
    certainty: Tensor
    present: Tensor


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What to log of one step.

    Attributes:
        cross_entropy: mean over samples.
        ssp_entropy: mean softmax entropy over the domain classes in nats, by modality; NaN where absent.
        regrad: the modulation's own record, with the SSP losses and certainties.
    """

    cross_entropy: float
    ssp_entropy: tuple[float, ...]
    regrad: ReGradRecord


@dataclass(frozen=True, eq=False)
class BatchGradients:
    """Gradients of the objective's mean over one batch, and the sums that go with it."""

    gradients: ModalityGradients
    statistics: StepStatistics


def batch_gradients(output: NetworkOutput, *, label_B: Tensor, domain_B: Tensor, present_BM: Tensor,
                    prototypes: Prototypes, trainable: Mapping[str, nn.Parameter], config: ObjectiveConfig,
                    loss_scale: float | Tensor = 1.0) -> BatchGradients:
    """Forward output and labels of one batch to its gradients by modality. Frees the output's graph.

    Args:
        output: of `network.MMDG`, with its graph.
        label_B: `int64 [b]`, `network.LIVE_COLUMN` for live.
        domain: `int64 [b]`, row of each sample (`DomainClasses.row`).
        present: `bool [b, m]`, as the network saw it.
        prototypes: of this epoch, on the output's device.
        trainable: by name, as `trainable.freeze_the_rest` returns them.
        loss_scale: of a gradient scaler; the same for all batches of a step.

    Raises:
        ValueError: an empty batch, or what `ssp_loss` refuses.
    """
    if not len(label_B):
        raise ValueError("the batch holds no sample; its mean loss is no number")
    cross_entropy = F.cross_entropy(output.logits.float() if output.logits.dtype.itemsize < 4 else output.logits,
                                    label_B)
    ssp = ssp_loss(output.class_tokens, domain_B, present_BM, prototypes_MKD=prototypes.values,
                   known_MK=prototypes.known)
    domain_loss_M = config.ssp_weight * ssp.mean_over_batch()
    gradients = modality_gradients(
        cross_entropy=cross_entropy, domain_loss_M=domain_loss_M if config.ssp_weight else domain_loss_M.detach(),
        class_tokens_BMD=output.class_tokens, parameters=trainable, head=[name for name in trainable if is_head(name)],
        modulated=modulated_names(trainable, config.regrad), target=config.regrad.target, loss_scale=loss_scale)
    present_M = present_BM.double().sum(dim=0)
    certainty_M = modality_certainty(output.class_certainty.double(), present_BM, config.regrad.aggregation)
    if config.regrad.aggregation is BatchAggregation.EXP_OF_MEAN:
        certainty_M = certainty_M.log()
    return BatchGradients(gradients, StepStatistics(
        samples=present_M.new_tensor(len(label_B)), cross_entropy=cross_entropy.detach().double() * len(label_B),
        ssp_loss=ssp.loss.detach().double().sum(dim=0), ssp_entropy=ssp.entropy.double().sum(dim=0),
        certainty=certainty_M * present_M, present=present_M))


@dataclass(eq=False)
class StepGradients:
    """What a step has gathered so far.

    Attributes:
        by_modality, plain: as in `ModalityGradients`, of the objective's mean over all samples so far; tensors that
            nothing reached are missing.
        statistics: sums over the samples.
        trainable: parameters, in the order in which processes exchange their gradients.
        modulated: names of those in `by_modality` as soon as something reaches them.
    """

    by_modality: dict[str, Tensor]
    plain: dict[str, Tensor]
    statistics: StepStatistics
    trainable: Mapping[str, nn.Parameter]
    modulated: tuple[str, ...]

    @classmethod
    def empty(cls, trainable: Mapping[str, nn.Parameter], config: ObjectiveConfig, *,
              modulated: tuple[str, ...] | None = None) -> Self:
        """No sample yet; also what a process contributes whose shard has run out.

        Args:
            modulated: of a network that is not MMDG; None: those of `modulated_names`.
        """
        zeros_M = torch.zeros(len(MODALITIES), dtype=torch.float64, device=next(iter(trainable.values())).device)
        nothing = StepStatistics(zeros_M[0], zeros_M[0], zeros_M, zeros_M, zeros_M, zeros_M)
        return cls({}, {}, nothing, trainable,
                   modulated_names(trainable, config.regrad) if modulated is None else modulated)

    def add(self, batch: BatchGradients) -> None:
        """Counts a batch, by its number of samples."""
        share = float(batch.statistics.samples / (self.statistics.samples + batch.statistics.samples))
        for means, gradients in ((self.by_modality, batch.gradients.by_modality), (self.plain, batch.gradients.plain)):
            add_to_means(means, gradients, share)
        self.statistics = StepStatistics(*(mine + its for mine, its in zip(self.statistics, batch.statistics,
                                                                          strict=True)))

    def all_reduce(self, group: distributed.ProcessGroup | None = None) -> None:
        """Joins all processes of the group (torch.distributed, initialised): afterwards equal in each, bit for bit.

        Three messages: statistics with what is reached at all, gradients by modality, plain gradients. Processes may
        hold different numbers of samples, none included, and reach different tensors.
        """
        if distributed.get_world_size(group) == 1:
            return
        mine = float(self.statistics.samples)
        reached = [*(name in self.by_modality for name in self.modulated),
                   *(name in self.plain for name in self.trainable)]
        sizes = [value.numel() for value in self.statistics]
        message = torch.cat([*(value.flatten() for value in self.statistics),
                             self.statistics.samples.new_tensor(reached, dtype=torch.float64)])
        distributed.all_reduce(message, group=group)
        parts = message[:sum(sizes)].split_with_sizes(sizes)
        self.statistics = StepStatistics(*(part.reshape(value.shape) for part, value in zip(
            parts, self.statistics, strict=True)))
        anywhere = [count > 0 for count in message[sum(sizes):].tolist()]
        by_modality, plain = anywhere[:len(self.modulated)], anywhere[len(self.modulated):]
        weight = mine / max(1.0, float(self.statistics.samples))
        self._reduce(self.by_modality, list(compress(self.modulated, by_modality)), (len(MODALITIES),), weight, group)
        self._reduce(self.plain, list(compress(self.trainable, plain)), (), weight, group)

    def mean_domain_losses(self) -> tuple[float, ...]:
        """Mean SSP, or other domain, loss of each modality over the samples that have it; NaN where none has."""
        losses: list[float] = (self.statistics.ssp_loss / self.statistics.present).tolist()
        return tuple(losses)

    def update(self, config: ObjectiveConfig, *, owner: Callable[[str], Modality | None] = parameter_owner,
               ranking: Sequence[float] | None = None) -> tuple[dict[str, Tensor], StepRecord]:
        """The step's gradients, modulated, and what to log. A tensor that nothing reaches has none, as in PyTorch.

        Args:
            config: see `ObjectiveConfig`.
            owner: modality of a parameter, by name.
            ranking: what names the fast modality by its smallest value; None: this step's SSP losses.

        Raises:
            ValueError: no sample was added.
            ReGradError: an SSP loss that is not finite.
        """
        # One transfer for all of them: each would make a GPU wait.
        statistics = self._on_processor()
        samples = float(statistics.samples)
        if not samples:
            raise ValueError("the step holds no sample; add at least one batch before the update")
        counts_M = statistics.present
        ssp_losses, entropies = ((total_M / counts_M).tolist() for total_M in (  # 0 / 0 is NaN: absent
            statistics.ssp_loss, statistics.ssp_entropy))
        # In the parameters' order, whatever was reached first: sums over them are equal in all processes, bit for bit.
        by_modality = {name: self.by_modality[name] for name in self.modulated if name in self.by_modality}
        updates, record = modulate(
            by_modality, {name: owner(name) for name in by_modality},
            ssp_losses=ssp_losses if ranking is None else ranking,
            present=(counts_M > 0).tolist(), certainty=_certainty(statistics, config.regrad), cases=config.regrad.cases)
        both = [name for name in updates if name in self.plain]
        if both:
            joined = torch._foreach_add([updates[name] for name in both], [self.plain[name] for name in both])
            updates.update(zip(both, joined, strict=True))
        updates |= {name: gradient for name, gradient in self.plain.items() if name not in updates}
        return updates, StepRecord(cross_entropy=float(statistics.cross_entropy) / samples,
                                   ssp_entropy=tuple(entropies), regrad=record)

    def _on_processor(self) -> StepStatistics:
        flat = torch.cat([value.flatten() for value in self.statistics]).cpu()
        parts = flat.split_with_sizes([value.numel() for value in self.statistics])
        return StepStatistics(*(part.reshape(value.shape) for part, value in zip(parts, self.statistics, strict=True)))

    def _reduce(self, gradients: dict[str, Tensor], names: list[str], leading: tuple[int, ...], weight: float,
                group: distributed.ProcessGroup | None) -> None:
        """Weighted sum over processes of the named tensors, in one message; one not reached here counts as zeros."""
        if not names:
            return
        for name in names:
            if name not in gradients:
                parameter = self.trainable[name]
                gradients[name] = parameter.new_zeros((*leading, *parameter.shape))
        message = torch.cat([gradients[name].flatten() for name in names]) * weight
        distributed.all_reduce(message, group=group)
        parts = message.split_with_sizes([gradients[name].numel() for name in names])
        for name, part in zip(names, parts, strict=True):
            gradients[name] = part.reshape(gradients[name].shape)


def _certainty(statistics: StepStatistics, config: ReGradConfig) -> list[float]:
    """U_m; 1 for a modality that no sample has."""
    counts_M = statistics.present
    if config.certainty is CertaintyFactor.ONE:
        return [1.0] * len(counts_M)
    mean_M = statistics.certainty / counts_M.clamp_min(1.0)
    if config.aggregation is BatchAggregation.EXP_OF_MEAN:
        mean_M = mean_M.exp()
    # Rounding may carry a certainty of 1 past it.
    certainty: list[float] = torch.where(counts_M > 0, mean_M, 1.0).clamp(0.0, 1.0).tolist()
    return certainty


def add_to_means(means: dict[str, Tensor], gradients: Mapping[str, Tensor], share: float) -> None:
    """Joins a batch's gradients to the means so far, in place; what is missing on either side counts as zeros.

    A running mean, not a sum: the only batch of a step stays what autograd gave, bit for bit.

    Args:
        means: over the samples so far.
        gradients: over the batch's samples.
        share: of the batch among all samples, it included; 1 for the first.
    """
    for name in means.keys() - gradients.keys():
        means[name] = means[name] * (1.0 - share)
    for name, gradient in gradients.items():
        mean = means.get(name, 0.0)
        means[name] = gradient if share == 1.0 else mean + share * (gradient - mean)


def assign_gradients(trainable: Mapping[str, nn.Parameter], gradients: Mapping[str, Tensor]) -> None:
    """Sets `grad` of each parameter; None where there is none, so that the optimiser leaves the tensor alone."""
    for name, parameter in trainable.items():
        parameter.grad = gradients.get(name)
