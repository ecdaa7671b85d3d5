"""The authors' released MMDG++ weights, once imported, as a checkpoint that a scorer takes.

`mmdg import-weights --layout mmdg_plus_plus` writes them in a file of its own kind (`weights.plus_plus_file`), where
they keep the release's structure. Here they get this network's names.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmdg_model.checkpoint import Checkpoint
from mmdg_model.mmdg_plus_plus.config import MMDGPlusPlusConfig
from mmdg_model.mmdg_plus_plus.network import build_mmdg_plus_plus, input_specification
from mmdg_model.torch_scorer import measure_known_answer
from mmdg_model.weights.plus_plus_file import PlusPlusWeights

#: Inside an adapter: prefix in the imported file -> ours.
_IN_ADAPTER = {
    "own_down.": "own_down.", "source_down.": "other_down.", "own_norm.": "own_norm.", "source_norm.": "query_norm.",
    "cross_attention.query_source.": "other_query.", "cross_attention.query_own.": "own_query.",
    "cross_attention.mean_source.": "other_distribution.mean.", "cross_attention.mean_own.": "own_distribution.mean.",
    "cross_attention.log_variance_source.": "other_distribution.log_variance.",
    "cross_attention.log_variance_own.": "own_distribution.log_variance.",
    "cross_attention.key.": "key.", "cross_attention.value.": "value.", "cross_attention.output.": "output.",
    "mlp.": "token_mlp.", "convolution.": "convolution.", "up.": "up.",
}

#: (pattern over the imported file's names, ours), outside adapters.
_OUTSIDE = (
    (r"blocks\.(\d+)\.block\.(.+)", r"tower.blocks.\1.\2"),
    (r"(patches|embedding_norm|norm)\.(.+)", r"tower.\1.\2"),
    (r"embeddings\.(\w+)\.(class_token|position)", r"ends.\1.\2"),
    (r"projections\.(\w+)", r"ends.\1.projection"),
    (r"(head\..+)", r"\1"),
)


def our_name(name: str) -> str | None:
    """This network's name of an imported weight; None for prompts, which scoring does without.

    Raises:
        ValueError: a name that imported weights do not have.
    """
    if name.startswith("prompts."):
        return None
    if adapter := re.fullmatch(r"blocks\.(\d+)\.adapters\.(\w+)\.(.+)", name):
        for theirs, ours in _IN_ADAPTER.items():
            if adapter[3].startswith(theirs):
                return f"adapters.{adapter[1]}.of.{adapter[2]}.{ours}{adapter[3].removeprefix(theirs)}"
    for pattern, replacement in _OUTSIDE:
        if found := re.fullmatch(pattern, name):
            return found.expand(replacement)
    raise ValueError(f"weight {name!r} is not one of imported MMDG++ weights; import them again")


def state_from_release(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Imported weights under this network's names, without the prompts."""
    return {ours: weight for name, weight in weights.items() if (ours := our_name(name)) is not None}


def config_from_sizes(sizes: Mapping[str, int], choices: MMDGPlusPlusConfig | None = None) -> MMDGPlusPlusConfig:
    """The configuration of imported weights.

    Args:
        sizes: as `PlusPlusWeights.sizes`.
        choices: where everything but sizes comes from; by default the deterministic `MMDGPlusPlusConfig.base()`.

    Raises:
        ConfigError: sizes that no network has.
    """
    shared: dict[str, Any] = {name: sizes[name] for name in (
        "width", "heads", "depth", "patch_size", "image_size", "mlp_ratio", "adapter_width")}
    return dataclasses.replace(choices or MMDGPlusPlusConfig.base(), **shared, feature_width=sizes["projection_width"])


def checkpoint_from_release(released: PlusPlusWeights, choices: MMDGPlusPlusConfig | None = None) -> Checkpoint:
    """A checkpoint of imported weights, ready to be saved; its purpose is the one stated at import.

    Pixels are prepared as `input_specification` says. How the authors encoded depth and infrared levels is in their
    data, not in their weights: scores on other encodings are not theirs.

    Raises:
        ConfigError: sizes that no network has.
    """
    config = config_from_sizes(released.sizes, choices)
    network, specification = build_mmdg_plus_plus(config).eval(), input_specification(config)
    network.load_state_dict(state_from_release(released.weights))
    return Checkpoint(
        config=config, input_spec=specification, purpose=released.purpose, weights=network.state_dict(),
        known_answer=measure_known_answer(network, specification), created_by="mmdg_model.mmdg_plus_plus",
        training={"weights": "released MMDG++", "source_sha256": released.source_sha256})
