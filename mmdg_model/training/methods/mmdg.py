"""MMDG (arXiv 2402.19298) and its own ablations: U-Adapters, SSP loss, ReGrad, each of which a setting switches off."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mmdg_model.config import ModelConfig, UncertaintyEstimatorKind
from mmdg_model.network import MMDG, build_mmdg
from mmdg_model.trainable import freeze_the_rest
from mmdg_model.training.methods.contract import Method, MethodContext, MethodError
from mmdg_model.training.methods.mean_loss import CrossEntropyMethod
from mmdg_model.training.methods.regrad_objective import ReGradMethod, needs_prototypes
from mmdg_model.training.methods.starting_weights import check_start, draw_network
from mmdg_model.training.prototypes import PrototypeConfig, UnseenRows
from mmdg_model.training.regrad import CertaintyFactor, ReGradCases, ReGradConfig, ReGradTarget, SharedTensors
from mmdg_model.training.step_gradients import ObjectiveConfig
from mmdg_model.uncertainty import BatchAggregation, build_uncertainty
from mmdg_model.weights.backbone import place_backbone


@dataclass(frozen=True, kw_only=True)
class MmdgSettings:
    """What of MMDG's training may be set; the defaults are the paper's, and the release's where the paper is silent.

    Attributes:
        ssp_weight: λ, see `ObjectiveConfig`.
        regrad_target, regrad_cases, regrad_certainty, regrad_aggregation, regrad_shared: see `ReGradConfig`.
        adapter_certainty: whether certainty acts in the adapters (Eq. 4; Table 5). False builds the network with
            `uncertainty_estimator = none`; ReGrad's U_m is then read beside it.
        prototype_batch_share, prototype_fresh_weight, prototype_unseen: see `PrototypeConfig`.

    Raises:
        ValueError: a value out of range.
    """

    ssp_weight: float = 0.3
    regrad_target: ReGradTarget = ReGradTarget.CROSS_ENTROPY
    regrad_cases: ReGradCases = ReGradCases.ALL
    regrad_certainty: CertaintyFactor = CertaintyFactor.MODALITY
    regrad_aggregation: BatchAggregation = BatchAggregation.EXP_OF_MEAN
    regrad_shared: SharedTensors = SharedTensors.PLAIN_SUM
    adapter_certainty: bool = True
    prototype_batch_share: float = 1.0
    prototype_fresh_weight: float = 1.0
    prototype_unseen: UnseenRows = UnseenRows.EXCLUDED

    def __post_init__(self) -> None:
        self.objective()
        self.prototypes()

    def objective(self) -> ObjectiveConfig:
        """λ and ReGrad's choices. Raises `ValueError`."""
        return ObjectiveConfig(ssp_weight=self.ssp_weight, regrad=ReGradConfig(
            target=self.regrad_target, cases=self.regrad_cases, certainty=self.regrad_certainty,
            aggregation=self.regrad_aggregation, shared=self.regrad_shared))

    def prototypes(self) -> PrototypeConfig:
        """How prototypes are taken. Raises `ValueError`."""
        return PrototypeConfig(batch_share=self.prototype_batch_share, fresh_weight=self.prototype_fresh_weight,
                               unseen=self.prototype_unseen)


def build_mmdg_method(context: MethodContext, settings: MmdgSettings) -> Method:
    """The method that the settings describe. Without SSP and ReGrad it takes no prototypes, and one backward pass.

    Raises:
        MethodError: see `check_start`; or certainty wanted in ReGrad from a model that has no estimator.
        BackboneError: a backbone that does not fit.
    """
    check_start(context)
    objective = settings.objective()
    modulates = objective.regrad.cases is not ReGradCases.OFF
    reads_certainty = modulates and objective.regrad.certainty is CertaintyFactor.MODALITY
    if reads_certainty and context.model.uncertainty_estimator is UncertaintyEstimatorKind.NONE:
        raise MethodError("regrad_certainty is 'modality', but model.uncertainty_estimator is 'none': every U would be "
                          "1; choose an estimator (adapter_certainty = false keeps it out of the adapters), or "
                          "regrad_certainty = 'one'")
    network = build_mmdg_network(context, _in_adapters(context.model, settings))
    if not needs_prototypes(objective):
        return CrossEntropyMethod(context, network)
    beside = build_uncertainty(context.model) if reads_certainty and not settings.adapter_certainty else None
    return ReGradMethod(context, network, objective=objective, prototypes=settings.prototypes(), certainty=beside)


def _in_adapters(model: ModelConfig, settings: MmdgSettings) -> ModelConfig:
    if settings.adapter_certainty:
        return model
    return replace(model, uncertainty_estimator=UncertaintyEstimatorKind.NONE)


def build_mmdg_network(context: MethodContext, model: ModelConfig) -> MMDG:
    """ViT and U-Adapters of `model`'s shape on the host, started and frozen as the context says.

    Raises:
        BackboneError: a backbone that does not fit.
    """
    network = draw_network(context, lambda: build_mmdg(model))
    if context.backbone is not None:
        place_backbone(network, context.backbone)
    freeze_the_rest(network)
    return network
