"""Which network a checkpoint holds: the one list of architectures that a scorer can build."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from mmdg_model.config import ModelConfig
from mmdg_model.mmdg_plus_plus.config import MMDGPlusPlusConfig
from mmdg_model.mmdg_plus_plus.network import MMDGPlusPlus, build_mmdg_plus_plus
from mmdg_model.network import MMDG, build_mmdg

#: Networks that take `(planes, present_BM)` and return `NetworkOutput`.
Network = MMDG | MMDGPlusPlus
NetworkConfig = ModelConfig | MMDGPlusPlusConfig


class Architecture(StrEnum):
    """Names that checkpoints carry."""

    MMDG = "mmdg"
    MMDG_PLUS_PLUS = "mmdg_plus_plus"


def architecture_of(config: NetworkConfig) -> Architecture:
    """The architecture that `config` configures."""
    return Architecture.MMDG if isinstance(config, ModelConfig) else Architecture.MMDG_PLUS_PLUS


def config_from_dict(architecture: object, values: Mapping[str, object]) -> NetworkConfig:
    """Reads a stored configuration.

    Raises:
        ValueError: an unknown architecture, or values that do not fit it (`ConfigError`).
    """
    match architecture:
        case Architecture.MMDG:
            return ModelConfig.from_dict(values)
        case Architecture.MMDG_PLUS_PLUS:
            return MMDGPlusPlusConfig.from_dict(values)
    raise ValueError(f"architecture is {architecture!r}, this version knows {', '.join(Architecture)}")


def build(config: NetworkConfig) -> Network:
    """A fresh network of `config`'s shape. Draws from torch's global generator."""
    return build_mmdg(config) if isinstance(config, ModelConfig) else build_mmdg_plus_plus(config)
