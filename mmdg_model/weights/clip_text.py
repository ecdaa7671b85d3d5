"""The text tower of a CLIP, beside its image tower in a backbone file, for methods that compare with sentences.

Names are those of `clip_towers.ClipTextTower`; sizes are read from the weights' shapes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mmdg_model.config import ConfigError
from mmdg_model.mmdg_plus_plus.clip_towers import ClipTextTower, build_text_tower
from mmdg_model.mmdg_plus_plus.clip_weights import ClipWeightsError, load_clip_text_side
from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig

#: Weights do not say how many heads share their width; CLIP's towers have 64 channels a head.
CHANNELS_A_HEAD = 64


class ClipTextError(ValueError):
    """Weights are not those of a CLIP's text tower; the message names what is wrong."""


def text_config(weights: Mapping[str, Tensor]) -> DomainPromptConfig:
    """Sizes of a text tower; what the configuration says of domains and prompts is its default.

    Raises:
        ClipTextError: a weight is missing or of a shape that no text tower has.
    """
    axes = {"token_embedding.weight": 2, "position": 3, "projection": 2, "blocks.0.mlp.0.weight": 2}
    for name, number in axes.items():
        if name not in weights or weights[name].dim() != number:
            raise ClipTextError(f"text weight {name!r} is missing or has not {number} axes: no CLIP text tower")
    vocabulary, width = weights["token_embedding.weight"].shape
    try:
        return DomainPromptConfig(
            width=width, heads=text_heads(width), vocabulary_size=vocabulary,
            depth=sum(name.endswith(".mlp.0.weight") for name in weights),
            mlp_ratio=len(weights["blocks.0.mlp.0.weight"]) // max(1, width),
            context_length=weights["position"].shape[1], feature_width=weights["projection"].shape[1])
    except ConfigError as error:
        raise ClipTextError(f"text tower: {error}") from error


def text_heads(width: int) -> int:
    """Attention heads of a text tower that is `width` wide."""
    return max(1, width // CHANNELS_A_HEAD)


def check_text_weights(weights: Mapping[str, Tensor]) -> None:
    """Refuses weights that are not exactly those of one finite float32 text tower.

    Raises:
        ClipTextError: naming the first weight that is wrong.
    """
    expected = _on_meta(text_config(weights)).state_dict()
    if odd := sorted(set(expected) ^ set(weights)):
        raise ClipTextError(f"text weight {odd[0]!r} is {'missing' if odd[0] in expected else 'unknown'}")
    for name, like in expected.items():
        if weights[name].shape != like.shape or weights[name].dtype is not torch.float32:
            raise ClipTextError(f"text weight {name!r} is {weights[name].dtype} {tuple(weights[name].shape)}, expected "
                                f"float32 {tuple(like.shape)}")
        if not weights[name].is_meta and not bool(torch.isfinite(weights[name]).all()):
            raise ClipTextError(f"text weight {name!r} holds NaN or infinity")


def text_tower_of(clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower of a whole CLIP's state, as OpenAI and open_clip name it.

    Raises:
        ClipTextError: a weight is missing, unknown or misshapen.
    """
    vocabulary, projection = clip.get("token_embedding.weight"), clip.get("text_projection")
    position, first = clip.get("positional_embedding"), clip.get("transformer.resblocks.0.mlp.c_fc.weight")
    if vocabulary is None or projection is None or position is None or first is None or any(
            weight.dim() != 2 for weight in (vocabulary, projection, position, first)):
        raise ClipTextError("there is no text tower in this file: --text-tower needs the whole CLIP")
    try:
        config = DomainPromptConfig(
            width=vocabulary.shape[1], heads=text_heads(vocabulary.shape[1]), vocabulary_size=len(vocabulary),
            depth=sum(name.startswith("transformer.") and name.endswith(".mlp.c_fc.weight") for name in clip),
            mlp_ratio=len(first) // max(1, vocabulary.shape[1]), context_length=len(position),
            feature_width=projection.shape[1])
        tower = _on_meta(config).to_empty(device="cpu")
        load_clip_text_side(tower, clip)
    except (ConfigError, ClipWeightsError) as error:
        raise ClipTextError(f"text tower: {error}") from error
    return {name: weight.detach().clone() for name, weight in tower.state_dict().items()}


def _on_meta(config: DomainPromptConfig) -> ClipTextTower:
    with torch.device("meta"):
        return build_text_tower(config)
