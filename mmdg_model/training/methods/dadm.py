"""DADM (ICCV 2025): mutual information between modalities, one hyperplane a source, angles between sources.

On `dadm_network.DadmNetwork`, with c_m the class tokens and W_k the hyperplane of source k:

    L   = CE( W_source · c ) + w_a L_angle + λ Σ_m ( SSP_m + w_i M_m )
    M_m = -mean over m's two pairs and the blocks of I(info_m, info_j)     a lower bound of mutual information
    G   = gradient of the first two + ReGrad( gradients of the third by modality, U_m )
    U_m = 1 - exp( -2 max(0, -M_m) )

The modality with the least U is ReGrad's fast one. After an update each hyperplane is pulled towards the least similar
other one (PG-IRM); a score is from their mean. Terms compare the samples of one part of a batch.
docs/methods/clip_and_later.md says what is substituted.

Legend: b batch, m modalities (order of `network.MODALITIES`), k sources, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from mmdg_model.config import TrainableParts
from mmdg_model.network import MMDG, MODALITIES
from mmdg_model.scorer import Modality
from mmdg_model.training.compute import TrainingDiverged
from mmdg_model.training.methods.contract import Method, MethodContext, Scalars, TrainingBatch
from mmdg_model.training.methods.dadm_network import PAIRS, DadmNetwork
from mmdg_model.training.methods.mean_loss import widened
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.prototype_epochs import PrototypeMethod
from mmdg_model.training.methods.regrad_objective import record_scalars
from mmdg_model.training.methods.starting_weights import check_start, draw_network
from mmdg_model.training.modality_gradients import modality_gradients
from mmdg_model.training.prototypes import PrototypeConfig
from mmdg_model.training.regrad import ReGradCases, ReGradConfig, ReGradError, ReGradTarget
from mmdg_model.training.ssp_loss import ssp_loss
from mmdg_model.training.step_gradients import (
    BatchGradients,
    ObjectiveConfig,
    StepGradients,
    StepStatistics,
    assign_gradients,
)
from mmdg_model.uncertainty import BatchAggregation


@dataclass(frozen=True, kw_only=True)
class DadmSettings:
    """What may be set.

    Attributes:
        modality_weight: λ (release: 0.3). information_weight: w_i (release: 0.5). angle_weight: w_a (paper: 0.3;
            release: 0.2).
        live_cosine, attack_cosine: towards which cosines between sources are drawn (release: 1.0 and 0.85).
        pull: share of the other hyperplane in one after an update (paper and release: 0.005).
        regrad_cases: see `ReGradConfig`.
        dropout: in the adapters (release: 0.1).

    Raises:
        ValueError: a value out of range.
    """

    modality_weight: float = 0.3
    information_weight: float = 0.5
    angle_weight: float = 0.3
    live_cosine: float = 1.0
    attack_cosine: float = 0.85
    pull: float = 0.005
    regrad_cases: ReGradCases = ReGradCases.ALL
    dropout: float = 0.1

    def __post_init__(self) -> None:
        self.objective()
        for name in ("information_weight", "angle_weight"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected at least 0")
        for name, low in (("live_cosine", -1.0), ("attack_cosine", -1.0), ("pull", 0.0)):
            if not low <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {low:g} to 1")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout is {self.dropout!r}, expected at least 0 and below 1")

    def objective(self) -> ObjectiveConfig:
        """As ReGrad's machinery has it. Raises `ValueError`."""
        return ObjectiveConfig(ssp_weight=self.modality_weight, regrad=ReGradConfig(
            target=ReGradTarget.SSP, cases=self.regrad_cases, aggregation=BatchAggregation.MEAN_OF_EXP))


def mutual_information(first_BD: Tensor, second_BD: Tensor) -> Tensor:
    """Lower bound in nats (Donsker-Varadhan, as MINE, arXiv 1801.04062, has it): mean over pairs of one sample of T,
    less the logarithm of the mean over pairs of two samples of exp T; T is the cosine. 0 of fewer than two samples."""
    if len(first_BD) < 2:
        return (first_BD.sum() + second_BD.sum()) * 0.0
    critic_BB = F.normalize(first_BD, dim=-1) @ F.normalize(second_BD, dim=-1).T
    itself = torch.eye(len(critic_BB), dtype=torch.bool, device=critic_BB.device)
    marginal = torch.logsumexp(critic_BB[~itself], dim=0) - torch.log(critic_BB.new_tensor(float((~itself).sum())))
    return critic_BB.diagonal().mean() - marginal


def angle_loss(tokens_BMD: Tensor, label_B: Tensor, source_B: Tensor, present_BM: Tensor, *, live: float,
               attack: float) -> Tensor:
    """Mean over pairs of samples of one label and different sources: of (cosine in one modality - target)², summed
    over modalities, plus the squared difference of the cosines between modalities. 0 without such a pair."""
    unit_BMD = F.normalize(tokens_BMD, dim=-1)
    paired_BB = ((label_B[:, None] == label_B) & (source_B[:, None] != source_B)).triu(1)
    count = paired_BB.sum().clamp_min(1)
    target_B1 = torch.where(label_B == 1, live, attack).to(unit_BMD.dtype)[:, None]
    total = unit_BMD.sum() * 0.0
    for index in range(unit_BMD.shape[1]):
        both_BB = paired_BB & present_BM[:, index, None] & present_BM[:, index]
        total = total + ((unit_BMD[:, index] @ unit_BMD[:, index].T - target_B1).square() * both_BB).sum()
    for first, second in PAIRS:
        cosine_B = (unit_BMD[:, first] * unit_BMD[:, second]).sum(dim=-1)
        has_B = present_BM[:, first] & present_BM[:, second]
        total = total + ((cosine_B[:, None] - cosine_B).square() * (paired_BB & has_B[:, None] & has_B)).sum()
    return total / count


def pulled_together(planes_KCD: Tensor, pull: float) -> Tensor:
    """Each source's hyperplanes `[k, 2, d]` turned by `pull` towards the source that points most elsewhere; norms stay.

    Similarity of two sources is the sum over classes of cosines. One source, or a pull of 0, changes nothing.
    """
    if len(planes_KCD) < 2 or not pull:
        return planes_KCD
    unit_KCD = F.normalize(planes_KCD, dim=-1)
    similarity_KK = torch.einsum("kcd,lcd->kl", unit_KCD, unit_KCD)
    similarity_KK = similarity_KK.masked_fill(torch.eye(len(unit_KCD), dtype=torch.bool, device=unit_KCD.device),
                                              torch.inf)
    farthest_KCD = unit_KCD[similarity_KK.argmin(dim=1)]
    turned_KCD = F.normalize((1.0 - pull) * unit_KCD + pull * farthest_KCD, dim=-1)
    kept_KCD: Tensor = turned_KCD * planes_KCD.norm(dim=-1, keepdim=True)
    return kept_KCD


def parameter_owner(name: str) -> Modality | None:
    """Of `DadmNetwork`: embeddings and adapters belong to a modality; masks belong to pairs and so to none."""
    parts = name.split(".")
    if parts[0] == "embeddings":
        return MODALITIES[int(parts[1])]
    return Modality(parts[2]) if parts[0] == "adapters" else None


class Dadm(PrototypeMethod):
    """Gradients by modality, modulated once an update; hyperplanes pulled together after it."""

    def __init__(self, context: MethodContext, network: DadmNetwork, settings: DadmSettings) -> None:
        super().__init__(context, cast(MMDG, network), prototypes=PrototypeConfig(), classes=context.classes)
        self._network = network
        self.settings = settings
        self.objective = settings.objective()
        self._modulated = () if settings.regrad_cases is ReGradCases.OFF else tuple(
            name for name in self.trainable if parameter_owner(name) is not None)

    def update(self, batches: Sequence[TrainingBatch]) -> Scalars:
        """As `Method.update`; what it logs is listed in docs/methods/clip_and_later.md."""
        gathered = StepGradients.empty(self.trainable, self.objective, modulated=self._modulated)
        with self.training_pass():
            for batch in batches:
                gathered.add(self._gradients(batch.to(self.compute.device)))
        if self.compute.world_size > 1:
            gathered.all_reduce()
        statistics = gathered.statistics
        informed = (statistics.certainty / statistics.present.clamp_min(1.0)).tolist()
        losses = gathered.mean_domain_losses()
        try:
            # A loss that is no number shows in `losses`; information alone would rank on.
            ranking = [value + 0.0 * loss for value, loss in zip(informed, losses, strict=True)]
            gradients, record = gathered.update(self.objective, owner=parameter_owner, ranking=ranking)
        except ReGradError as error:
            raise TrainingDiverged(f"{error}, at update {self.updates}") from error
        samples = float(statistics.samples)
        scalars = {"loss/classes_and_angles": float(statistics.cross_entropy) / samples,
                   "loss/modalities": self.objective.ssp_weight * float(statistics.ssp_loss.sum()) / samples}
        scalars = {"loss/total": sum(scalars.values())} | scalars
        self.require_finite(scalars)
        assign_gradients(self.trainable, gradients)
        applied = self.step()
        if applied:
            self._pull()
        logged = {key: value for key, value in record_scalars(record).items() if key.startswith("regrad/")}
        each = {f"modality_loss/{modality}": float(total) / samples
                for modality, total in zip(MODALITIES, statistics.ssp_loss, strict=True)}
        return scalars | logged | each | {"update/skipped": float(not applied)}

    @torch.no_grad()
    def _pull(self) -> None:
        weight = self._network.head.weight
        planes_KCD = weight.reshape(self._network.sources, 2, -1)
        weight.copy_(pulled_together(planes_KCD, self.settings.pull).reshape(weight.shape))

    def _gradients(self, batch: TrainingBatch) -> BatchGradients:
        chosen, prototypes = self.settings, self.current_prototypes
        with self.compute.autocast():
            output = self._network.outputs(batch.planes, batch.present)
        tokens_BMD = output.class_tokens
        own_B2 = widened(output.by_source)[torch.arange(len(batch.label), device=batch.label.device), batch.source]
        plain = F.cross_entropy(own_B2, batch.label)
        if chosen.angle_weight:
            plain = plain + chosen.angle_weight * angle_loss(
                widened(tokens_BMD), batch.label, batch.source, batch.present, live=chosen.live_cosine,
                attack=chosen.attack_cosine)
        ssp = ssp_loss(tokens_BMD, batch.domain, batch.present, prototypes_MKD=prototypes.values,
                       known_MK=prototypes.known)
        information_M = self._information(output.information, batch.present)
        present_M = batch.present.double().sum(dim=0)
        share_M = (present_M / len(batch.label)).to(information_M.dtype)
        losses_M = ssp.mean_over_batch() - chosen.information_weight * share_M * information_M
        weighted_M = self.objective.ssp_weight * losses_M
        gradients = modality_gradients(
            cross_entropy=plain, domain_loss_M=weighted_M if self.objective.ssp_weight else weighted_M.detach(),
            class_tokens_BMD=tokens_BMD, parameters=self.trainable, head=["head.weight"], modulated=self._modulated,
            target=ReGradTarget.SSP, loss_scale=self.compute.loss_scale)
        informed_M = -torch.expm1(-2.0 * information_M.detach().double().clamp_min(0.0))
        return BatchGradients(gradients, StepStatistics(
            samples=present_M.new_tensor(len(batch.label)), cross_entropy=plain.detach().double() * len(batch.label),
            ssp_loss=losses_M.detach().double() * len(batch.label), ssp_entropy=ssp.entropy.double().sum(dim=0),
            certainty=informed_M * present_M, present=present_M))

    @staticmethod
    def _information(tokens: dict[tuple[int, int], tuple[Tensor, Tensor]], present_BM: Tensor) -> Tensor:
        """`[m]`: mean over blocks and a modality's two pairs of the bound, from samples that have both."""
        pairs = {}
        for pair, (first_LBD, second_LBD) in tokens.items():
            both_B = present_BM[:, pair[0]] & present_BM[:, pair[1]]
            pairs[pair] = torch.stack([mutual_information(widened(first)[both_B], widened(second)[both_B])
                                       for first, second in zip(first_LBD, second_LBD, strict=True)]).mean()
        return torch.stack([torch.stack([value for pair, value in pairs.items() if index in pair]).mean()
                            for index in range(len(MODALITIES))])


def is_trainable(name: str, parts: TrainableParts, depth: int) -> bool:
    """Of `DadmNetwork`. `release`: masks, adapters, hyperplanes, last block, norm, class tokens, positions."""
    if parts is TrainableParts.EVERYTHING or name.startswith(("pairs.", "adapters.", "head.")):
        return True
    return parts is TrainableParts.RELEASE and (name.startswith((f"blocks.{depth - 1}.", "norm."))
                                                or name.endswith((".class_token", ".position")))


def build_dadm(context: MethodContext, settings: DadmSettings) -> Method:
    """Raises `MethodError` as `check_start`, `BackboneError` where a backbone does not fit."""
    check_start(context)
    network = draw_network(context, lambda: DadmNetwork(context.model, sources=len(context.classes.sources),
                                                        dropout=settings.dropout))
    if context.backbone is not None:
        network.place(context.backbone)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_trainable(name, context.model.trainable_parts, context.model.depth))
    return Dadm(context, network, settings)


ROWS = (MethodEntry(
    name="dadm", title="DADM", summary="masks by mutual information between modalities, a hyperplane a source, angles",
    source="DADM, ICCV 2025 (facts from the authors' release)", settings=DadmSettings, build=build_dadm, fixed={},
    batch_coupled=True, still={"pull": 0.0, "regrad_cases": ReGradCases.OFF}),)
