"""Which parameters training changes: row 1 of the choices between paper and release (docs/model.md)."""

from __future__ import annotations

import torch
from torch import nn

from mmdg_model.config import ModelConfig, TrainableParts
from mmdg_model.network import MMDG, build_mmdg


def trainable_parameters(config: ModelConfig) -> dict[str, int]:
    """Names of the parameters that `config.trainable_parts` lets training change, with their numbers of values.

    Nothing is allocated. ViT-B/16 with the release's choices: 8,513,666 of 88,252,034.
    """
    with torch.device("meta"):
        network = build_mmdg(config)
    return {name: parameter.numel() for name, parameter in network.named_parameters() if is_trainable(name, config)}


def is_trainable(name: str, config: ModelConfig) -> bool:
    """Whether `config.trainable_parts` lets training change the parameter of that name."""
    if config.trainable_parts is TrainableParts.EVERYTHING:
        return True
    if ".adapters." in name or name.startswith("head."):
        return True
    if config.trainable_parts is TrainableParts.ADAPTERS_AND_HEAD:
        return False
    return (name.startswith((f"blocks.{config.depth - 1}.block.", "norm."))
            or name.endswith((".class_token", ".position")))


def freeze_the_rest(network: MMDG) -> dict[str, nn.Parameter]:
    """Sets `requires_grad` of every parameter as the network's configuration says; returns the trainable ones.

    Frozen parameters need no gradient and no optimiser state. Frozen blocks still pass gradients to adapters below.
    """
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(is_trainable(name, network.config))
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
