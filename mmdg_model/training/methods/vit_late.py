"""Plain ViT, late fusion: one ViT for all modalities, class tokens side by side; cross entropy, with ReGrad on demand.

ReGrad on a network of which no modality owns a tensor takes the form without an owner for all of it below the head
(`SharedTensors.SYMMETRIC`): the row "ViT, ReGrad" of the paper's Table 4.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmdg_model.config import UncertaintyEstimatorKind
from mmdg_model.training.methods.contract import Method, MethodContext, MethodError
from mmdg_model.training.methods.mean_loss import CrossEntropyMethod
from mmdg_model.training.methods.plain_vit import build_late
from mmdg_model.training.methods.regrad_objective import ReGradMethod, needs_prototypes
from mmdg_model.training.prototypes import PrototypeConfig
from mmdg_model.training.regrad import ReGradCases, ReGradConfig, ReGradTarget, SharedTensors
from mmdg_model.training.step_gradients import ObjectiveConfig

#: λ where ReGrad acts and nothing else is said: the release's.
REGRAD_SSP_WEIGHT = 0.3


@dataclass(frozen=True, kw_only=True)
class ViTLateSettings:
    """What may be set.

    Attributes:
        regrad: modulate gradients by modality.
        regrad_target: see `ReGradTarget`.
        ssp_weight: λ; None means 0 without ReGrad (the plain ViT of the tables) and 0.3 with it.

    Raises:
        ValueError: a negative weight.
    """

    regrad: bool = False
    regrad_target: ReGradTarget = ReGradTarget.CROSS_ENTROPY
    ssp_weight: float | None = None

    def __post_init__(self) -> None:
        self.objective()

    def objective(self) -> ObjectiveConfig:
        """λ and ReGrad's choices. Raises `ValueError`."""
        default = REGRAD_SSP_WEIGHT if self.regrad else 0.0
        return ObjectiveConfig(ssp_weight=default if self.ssp_weight is None else self.ssp_weight, regrad=ReGradConfig(
            target=self.regrad_target, cases=ReGradCases.ALL if self.regrad else ReGradCases.OFF,
            shared=SharedTensors.SYMMETRIC))


def build_vit_late(context: MethodContext, settings: ViTLateSettings) -> Method:
    """Without ReGrad and λ it takes no prototypes, and one backward pass.

    Raises:
        MethodError: see `check_start`; or ReGrad on a model without an estimator of certainty.
        BackboneError: a backbone that does not fit.
    """
    if settings.regrad and context.model.uncertainty_estimator is UncertaintyEstimatorKind.NONE:
        raise MethodError("regrad is true, but model.uncertainty_estimator is 'none': every U would be 1; choose an "
                          "estimator")
    network, objective = build_late(context), settings.objective()
    if not needs_prototypes(objective):
        return CrossEntropyMethod(context, network)
    return ReGradMethod(context, network, objective=objective, prototypes=PrototypeConfig())
