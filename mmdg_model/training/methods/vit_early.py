"""Plain ViT, early fusion: nine channels -> 1x1 convolution -> three, one ViT, cross entropy."""

from __future__ import annotations

from dataclasses import dataclass

from mmdg_model.training.methods.contract import Method, MethodContext
from mmdg_model.training.methods.mean_loss import LogitsMethod
from mmdg_model.training.methods.plain_vit import build_early


@dataclass(frozen=True, kw_only=True)
class ViTEarlySettings:
    """There is nothing to set; the network's shape and what trains are the model configuration's."""


def build_vit_early(context: MethodContext, settings: ViTEarlySettings) -> Method:
    """Raises `MethodError`, `BackboneError`; see `plain_vit.build_early`."""
    return LogitsMethod(context, build_early(context))
