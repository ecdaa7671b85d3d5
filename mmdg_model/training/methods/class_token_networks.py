"""The two networks that end in a class token a modality: what methods that act on class tokens can be put on."""

from __future__ import annotations

from enum import StrEnum

from mmdg_model.network import MMDG
from mmdg_model.training.methods.contract import MethodContext
from mmdg_model.training.methods.mmdg import build_mmdg_network
from mmdg_model.training.methods.plain_vit import LateFusionViT, build_late
from mmdg_model.training.methods.starting_weights import check_start


class ClassTokenNetwork(StrEnum):
    """Which; both return a `network.NetworkOutput`."""

    VIT = "vit"  # one plain ViT for all modalities, class tokens side by side
    U_ADAPTER = "u_adapter"  # the same with U-Adapters between the modalities (arXiv 2402.19298, Section 3.2)


def build_class_token_network(context: MethodContext, network: ClassTokenNetwork) -> LateFusionViT | MMDG:
    """On the host, started and frozen as the context says.

    Raises:
        MethodError: see `check_start`.
        BackboneError: a backbone that does not fit.
    """
    if network is ClassTokenNetwork.VIT:
        return build_late(context)
    check_start(context)
    return build_mmdg_network(context, context.model)
