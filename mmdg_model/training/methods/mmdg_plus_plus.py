"""MMDG++ as a training method (IEEE TPAMI 2025, doi 10.1109/TPAMI.2025.3573785): domain prompts and smoothed ReGrad.

The network is `mmdg_plus_plus.network.MMDGPlusPlus`; the domain loss of a modality, in the place of MMDG's SSP loss, is
a cross entropy against sentences (`mmdg_plus_plus.domain_prompts`):

    L   = CE(head) + w Σ_m L_m,      L_m = CE( T · cos(v_m, t_m,k), domain )     k: all live faces, attacks of a source
    S_m ← c S_m + (1 - c) L_m        of the modalities seen; the smallest S names the fast modality
    G   = ReGrad(gradients of w L_m by modality, U_m) + gradient of CE

U_m is the batch's mean certainty of the class token in the last block. docs/methods/clip_and_later.md lists what the
release does otherwise, and its bugs.

Legend: b batch, m modalities (order of `network.MODALITIES`), q domains, e width of the joint space.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmdg_model.config import TrainableParts
from mmdg_model.inputs import AbsenceEncoding
from mmdg_model.mmdg_plus_plus.clip_towers import build_text_tower
from mmdg_model.mmdg_plus_plus.config import MMDGPlusPlusConfig, QueryEstimator, QuerySelection
from mmdg_model.mmdg_plus_plus.domain_prompts import DomainPrompts, tokenise_prompts
from mmdg_model.mmdg_plus_plus.network import MMDGPlusPlus, build_mmdg_plus_plus, parameter_owner
from mmdg_model.mmdg_plus_plus.u_adapter_plus_plus import QueryDistribution
from mmdg_model.network import MODALITIES, NetworkOutput
from mmdg_model.training.compute import TrainingDiverged
from mmdg_model.training.methods.clip_start import (
    ClipPixels,
    ClipStart,
    clip_start,
    clip_tokenizer,
    place_text,
    used_words,
)
from mmdg_model.training.methods.contract import Method, MethodContext, MethodError, Scalars, TrainingBatch
from mmdg_model.training.methods.mean_loss import widened
from mmdg_model.training.methods.method_entry import MethodEntry
from mmdg_model.training.methods.regrad_objective import loss_scalars, record_scalars
from mmdg_model.training.methods.starting_weights import draw_network
from mmdg_model.training.methods.trained_network import TrainedNetwork, evaluation_mode
from mmdg_model.training.modality_gradients import modality_gradients
from mmdg_model.training.regrad import CertaintyFactor, ReGradCases, ReGradConfig, ReGradError, ReGradTarget
from mmdg_model.training.step_gradients import (
    BatchGradients,
    ObjectiveConfig,
    StepGradients,
    StepStatistics,
    assign_gradients,
)
from mmdg_model.uncertainty import BatchAggregation

#: Of CLIP's vocabulary.
WORDS = 49408

_SMOOTHED = "mmdg_plus_plus.smoothed"


@dataclass(frozen=True, kw_only=True)
class MmdgPlusPlusSettings:
    """What may be set; the defaults are the release's, its bugs mended.

    Attributes:
        domain_weight: w (release: 1). At 0 the domain loss still names the fast modality.
        smoothing: c, share of the past in the smoothed losses (release: 0.5).
        regrad_cases, regrad_certainty: see `ReGradConfig`.
        query_estimator: of training; a score always takes the analytic one, so that it has no randomness.
        query_selection: see `QuerySelection`.
        query_samples: draws of the sampled estimator (release: 50).

    Raises:
        ValueError: a value out of range.
    """

    domain_weight: float = 1.0
    smoothing: float = 0.5
    regrad_cases: ReGradCases = ReGradCases.ALL
    regrad_certainty: CertaintyFactor = CertaintyFactor.MODALITY
    query_estimator: QueryEstimator = QueryEstimator.SAMPLED
    query_selection: QuerySelection = QuerySelection.BY_CERTAINTY
    query_samples: int = 50

    def __post_init__(self) -> None:
        self.objective()
        if not 0.0 <= self.smoothing < 1.0:
            raise ValueError(f"smoothing is {self.smoothing!r}, expected at least 0 and below 1")
        if not 2 <= self.query_samples <= 1000:
            raise ValueError(f"query_samples is {self.query_samples!r}, expected 2 to 1000")

    def objective(self) -> ObjectiveConfig:
        """As ReGrad's machinery has it; the domain loss stands in the SSP loss's place. Raises `ValueError`."""
        return ObjectiveConfig(ssp_weight=self.domain_weight, regrad=ReGradConfig(
            target=ReGradTarget.SSP, cases=self.regrad_cases, certainty=self.regrad_certainty,
            aggregation=BatchAggregation.MEAN_OF_EXP))


def domain_loss(logits_BMQ: Tensor, domain_B: Tensor, present_BM: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of each modality's domain logits, and the softmax's entropy in nats, `[b, m]` each.

    Both are 0 where the modality is absent, whatever its logits are. A row at -inf stands in no denominator.

    Raises:
        ValueError: a domain out of range.
    """
    if len(domain_B) and not 0 <= int(domain_B.min()) <= int(domain_B.max()) < logits_BMQ.shape[-1]:
        raise ValueError(f"domain rows {domain_B.tolist()}, expected 0 to {logits_BMQ.shape[-1] - 1}")
    logits_BMQ = torch.where(present_BM[:, :, None], widened(logits_BMQ), 0.0)
    log_share_BMQ = torch.log_softmax(logits_BMQ, dim=-1)
    own_BM1 = domain_B[:, None, None].expand(-1, logits_BMQ.shape[1], 1)
    loss_BM = -log_share_BMQ.gather(-1, own_BM1).squeeze(-1)
    entropy_BM = torch.special.entr(log_share_BMQ.detach().exp()).sum(dim=-1)
    return torch.where(present_BM, loss_BM, 0.0), torch.where(present_BM, entropy_BM, 0.0)


def smoothed_losses(before: Sequence[float], losses: Sequence[float], smoothing: float) -> tuple[float, ...]:
    """Exponential moving average of each modality; NaN: never seen. A loss of NaN (absent) leaves its average alone.

    The release adds instead of averaging (its sum grows 1.5-fold a step and overflows), and lets the average of an
    absent modality decay, which would make the absent one the fast one.
    """
    def one(old: float, new: float) -> float:
        if math.isnan(new):
            return old
        return new if math.isnan(old) else smoothing * old + (1.0 - smoothing) * new
    return tuple(one(old, new) for old, new in zip(before, losses, strict=True))


class PromptedNetwork(nn.Module):
    """`MMDGPlusPlus` behind CLIP's pixels, and the prompts that its features are compared with in training."""

    def __init__(self, start: ClipStart, context: MethodContext, config: MMDGPlusPlusConfig) -> None:
        super().__init__()
        rows = context.classes.rows
        self.unseen = tuple(range(1 + len(context.classes.sources), len(rows)))
        self.pixels = ClipPixels(context.inputs)
        self.scoring = build_mmdg_plus_plus(config)
        with torch.device("cpu"):
            tokens = tokenise_prompts(start.text_config(WORDS, num_domains=len(rows)), clip_tokenizer())
            self.used, renumbered = used_words(tokens.ids)
        text = start.text_config(len(self.used), num_domains=len(rows))
        self.prompts = DomainPrompts(text, tower=build_text_tower(text), tokens=tokens._replace(ids=renumbered))

    def forward(self, planes: Tensor, present_BM: Tensor) -> NetworkOutput:
        """`[b, 3, 3, S, S]`, `bool [b, 3]` to logits, features `[b, m, e]` and certainties `[b, m]`."""
        seen = torch.where(present_BM[:, :, None, None, None], planes, 0.0)
        output: NetworkOutput = self.scoring(self.pixels.unit(seen), present_BM)
        return output

    def domain_logits(self, features_BME: Tensor) -> Tensor:
        """`[b, m, q]`; rows of data sets without a training sample are -inf."""
        logits: Tensor = self.prompts(features_BME, unseen_domains=self.unseen)
        return logits

    @torch.no_grad()
    def place(self, start: ClipStart) -> None:
        """Tower from a CLIP; each modality's ends start as copies of its own."""
        if start.backbone is None:
            return
        placed: dict[str, Tensor] = {}
        for name, weight in start.backbone.weights.items():
            part, _, rest = name.partition(".")
            if part == "projection" or rest in ("class_token", "position"):
                placed |= {f"ends.{modality}.{rest or part}": weight for modality in MODALITIES}
            elif rest != "patches.bias":  # zeros; this tower's convolution has none
                placed["tower." + {"patches.weight": "patches.weight", "norm.weight": "embedding_norm.weight",
                                   "norm.bias": "embedding_norm.bias"}[rest] if part == "embedding"
                       else f"tower.{name}"] = weight
        unexpected = self.scoring.load_state_dict(placed, strict=False).unexpected_keys
        assert not unexpected, unexpected
        place_text(self.prompts.tower, start, self.used)


def is_trainable(name: str, parts: TrainableParts) -> bool:
    """Of `PromptedNetwork`. `release`: what the release trains; `adapters_and_head`: without the modalities' tokens,
    positions and projections; `everything`: the image tower, too. The text tower never trains."""
    if name.startswith("prompts.tower."):
        return False
    if parts is TrainableParts.EVERYTHING or name.startswith(("prompts.", "scoring.adapters.", "scoring.head.")):
        return True
    return parts is TrainableParts.RELEASE and name.startswith("scoring.ends.")


class MmdgPlusPlusMethod(TrainedNetwork):
    """Gradients by modality, modulated once an update by losses smoothed over updates."""

    def __init__(self, context: MethodContext, network: PromptedNetwork, settings: MmdgPlusPlusSettings) -> None:
        super().__init__(context, network)
        self._network = network
        self.settings = settings
        self.objective = settings.objective()
        self.smoothed: tuple[float, ...] = (math.nan,) * len(MODALITIES)
        self._modulated = () if settings.regrad_cases is ReGradCases.OFF else tuple(
            name for name in self.trainable if not self._is_head(name) and parameter_owner(name) is not None)

    def start_epoch(self, epoch: int, clean_batches: object) -> Scalars:
        """Needs nothing: sentences take the place of prototypes."""
        return {}

    def update(self, batches: Sequence[TrainingBatch]) -> Scalars:
        """As `Method.update`; what it logs is listed in docs/methods/clip_and_later.md."""
        gathered = StepGradients.empty(self.trainable, self.objective, modulated=self._modulated)
        with self.training_pass():
            for batch in batches:
                gathered.add(self._gradients(batch.to(self.compute.device)))
        if self.compute.world_size > 1:
            gathered.all_reduce()
        losses = gathered.mean_domain_losses()
        smoothed = smoothed_losses(self.smoothed, losses, self.settings.smoothing)
        try:
            gradients, record = gathered.update(self.objective, owner=parameter_owner, ranking=smoothed)
        except ReGradError as error:
            raise TrainingDiverged(f"{error}, at update {self.updates}") from error
        scalars = loss_scalars(gathered.statistics, self.objective.ssp_weight, "domain")
        self.require_finite(scalars)
        assign_gradients(self.trainable, gradients)
        self.smoothed = smoothed
        logged = record_scalars(replace(record, regrad=replace(record.regrad, ssp_losses=losses)))
        kept = {f"domain_smoothed/{modality}": value for modality, value in zip(MODALITIES, smoothed, strict=True)}
        return scalars | logged | kept | {"update/skipped": float(not self.step())}

    @torch.no_grad()
    def score(self, planes: Tensor, present: Tensor) -> Tensor:
        """As `Method.score`, with analytic queries: the trained weights are the same, and nothing is drawn."""
        with evaluation_mode(self.network), analytic_queries(self._network.scoring):
            return super().score(planes, present)

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """With the smoothed losses."""
        tensors, metadata = super().state()
        return tensors | {_SMOOTHED: torch.tensor(self.smoothed, dtype=torch.float64)}, metadata

    def load_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Restores `state`. Raises `ValueError` as `Method.load_state` says."""
        super().load_state(tensors, metadata)
        if _SMOOTHED not in tensors:
            raise ValueError(f"{_SMOOTHED} is missing: the state of another method")
        self.smoothed = tuple(tensors[_SMOOTHED].tolist())

    def _gradients(self, batch: TrainingBatch) -> BatchGradients:
        with self.compute.autocast():
            output: NetworkOutput = self._network(batch.planes, batch.present)
            features_BME = widened(output.class_tokens)
            logits_BMQ = self._network.domain_logits(features_BME)
        cross_entropy = F.cross_entropy(widened(output.logits), batch.label)
        loss_BM, entropy_BM = domain_loss(logits_BMQ, batch.domain, batch.present)
        weight = self.objective.ssp_weight
        loss_M = weight * loss_BM.sum(dim=0) / len(loss_BM)
        gradients = modality_gradients(
            cross_entropy=cross_entropy, domain_loss_M=loss_M if weight else loss_M.detach(),
            class_tokens_BMD=output.class_tokens, parameters=self.trainable, modulated=self._modulated,
            head=[name for name in self.trainable if self._is_head(name)], target=ReGradTarget.SSP,
            loss_scale=self.compute.loss_scale)
        present_M = batch.present.double().sum(dim=0)
        return BatchGradients(gradients, StepStatistics(
            samples=present_M.new_tensor(len(batch.label)),
            cross_entropy=cross_entropy.detach().double() * len(batch.label),
            ssp_loss=loss_BM.detach().double().sum(dim=0), ssp_entropy=entropy_BM.double().sum(dim=0),
            certainty=output.class_certainty.detach().double().sum(dim=0), present=present_M))

    @staticmethod
    def _is_head(name: str) -> bool:
        return name.startswith("scoring.head.")


@contextmanager
def analytic_queries(network: MMDGPlusPlus) -> Iterator[None]:
    """Queries as their limit of infinitely many draws, and as they were afterwards."""
    distributions = [module for module in network.modules() if isinstance(module, QueryDistribution)]
    before = [module.estimator for module in distributions]
    try:
        for module in distributions:
            module.estimator = QueryEstimator.ANALYTIC
        yield
    finally:
        for module, estimator in zip(distributions, before, strict=True):
            module.estimator = estimator


def build_mmdg_plus_plus_method(context: MethodContext, settings: MmdgPlusPlusSettings) -> Method:
    """Tower and text tower from CLIP and frozen, unless `trainable_parts = everything`.

    Raises:
        MethodError: see `clip_start`; or absent modalities encoded otherwise than by their flag.
        BackboneError: a CLIP that does not fit the model.
        ModuleNotFoundError: the tokenizer's extra is not installed.
    """
    start = clip_start(context)
    if context.model.absence is not AbsenceEncoding.FLAG:
        raise MethodError(f"model.absence is {str(context.model.absence)!r}, but MMDG++ knows absent modalities by "
                          "their flag only: set it to 'flag'")
    model = start.model
    config = MMDGPlusPlusConfig(
        width=model.width, heads=model.heads, depth=model.depth, patch_size=model.patch_size,
        image_size=model.image_size, mlp_ratio=model.mlp_ratio, layer_norm_eps=model.layer_norm_eps,
        feature_width=start.feature_width, adapter_width=model.adapter_width, adapter_heads=model.adapter_heads,
        cdc_theta=model.cdc_theta, query_estimator=settings.query_estimator, query_selection=settings.query_selection,
        query_samples=settings.query_samples)
    network = draw_network(context, lambda: PromptedNetwork(start, context, config))
    network.place(start)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_trainable(name, model.trainable_parts)
                                 and not (name.endswith("log_variance.weight")  # nothing reaches it then
                                          and settings.query_estimator is QueryEstimator.ANALYTIC))
    return MmdgPlusPlusMethod(context, network, settings)


ROWS = (MethodEntry(
    name="mmdg_plus_plus", title="MMDG++", summary="CLIP, U-Adapter++, asymmetric domain prompts, smoothed ReGrad",
    source="IEEE TPAMI 47(9):7608-7625, doi 10.1109/TPAMI.2025.3573785 (facts from the authors' release)",
    settings=MmdgPlusPlusSettings, build=build_mmdg_plus_plus_method, fixed={}, needs_clip=True,
    still={"query_estimator": QueryEstimator.ANALYTIC, "query_selection": QuerySelection.OTHER_MODALITY}),)
