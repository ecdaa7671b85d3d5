"""OpenAI CLIP's weights into MMDG++: the image side under each modality's name, the text side if it is trained with."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmdg_model.mmdg_plus_plus.clip_towers import ClipTextTower
from mmdg_model.mmdg_plus_plus.network import MMDGPlusPlus

#: Inside a block: name of OpenAI's model (and open_clip's) -> ours.
_IN_BLOCK = {
    "ln_1": "attention_norm", "attn.in_proj_": "attention.query_key_value.", "attn.out_proj": "attention.output",
    "ln_2": "mlp_norm", "mlp.c_fc": "mlp.0", "mlp.c_proj": "mlp.2",
}

#: In a half precision file these are numbers stored as tensors, not weights.
_NUMBERS = {"input_resolution", "context_length", "vocab_size"}


class ClipWeightsError(ValueError):
    """Weights are not those of a CLIP that fits; the message lists what is missing, unused or misshapen."""


@torch.no_grad()
def load_clip_image_side(network: MMDGPlusPlus, weights: Mapping[str, Tensor]) -> None:
    """Fills the tower, and starts each modality's class token, position and projection as a copy of CLIP's.

    Adapters and head stay as they are.

    Args:
        network: of the same size.
        weights: state of OpenAI's CLIP ViT, whole; the text side is left out.

    Raises:
        ClipWeightsError: a weight missing, unknown or of another shape. Nothing has been changed then.
    """
    named = {f"tower.{_image_name(name)}": weight for name, weight in weights.items() if name.startswith("visual.")}
    renamed = {name: weight for name, weight in named.items() if not name.startswith("tower.ends.")}
    for modality in network.ends:
        renamed |= {name.replace("tower.ends.", f"ends.{modality}."): weight for name, weight in named.items()
                    if name.startswith("tower.ends.")}
    _copy_into(network, renamed, wanted=[name for name in network.state_dict() if name.startswith(("tower.", "ends."))])


@torch.no_grad()
def load_clip_text_side(tower: ClipTextTower, weights: Mapping[str, Tensor]) -> None:
    """Fills the text tower and the temperature.

    Raises:
        ClipWeightsError: a weight missing, unknown or of another shape. Nothing has been changed then.
    """
    renamed = {_text_name(name): weight for name, weight in weights.items()
               if not name.startswith("visual.") and name not in _NUMBERS}
    _copy_into(tower, renamed, wanted=list(tower.state_dict()))


def _block_name(name: str) -> str:
    matched = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", name)
    if not matched:
        return name
    inside = matched[2]
    for theirs, ours in _IN_BLOCK.items():
        if inside.startswith(theirs):
            return f"blocks.{matched[1]}.{ours}{inside[len(theirs):]}"
    return name


def _image_name(name: str) -> str:
    ends = {"class_embedding": "ends.class_token", "positional_embedding": "ends.position", "proj": "ends.projection",
            "conv1.weight": "patches.weight"}
    inner = name.removeprefix("visual.")
    inner = re.sub(r"^ln_pre\b", "embedding_norm", re.sub(r"^ln_post\b", "norm", inner))
    return ends.get(inner) or _block_name(inner)


def _text_name(name: str) -> str:
    outer = {"positional_embedding": "position", "text_projection": "projection"}
    return outer.get(name) or _block_name(re.sub(r"^ln_final\b", "norm", name))


def _copy_into(module: nn.Module, renamed: Mapping[str, Tensor], *, wanted: list[str]) -> None:
    state = module.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in renamed]
    faults += [f"{name} is unknown" for name in sorted(set(renamed) - set(wanted))]
    for name in (name for name in wanted if name in renamed):
        found, needed = tuple(renamed[name].shape), tuple(state[name].shape)
        if _without_leading_ones(found) != _without_leading_ones(needed):
            faults.append(f"{name} has shape {found}, needed {needed}")
    if faults:
        raise ClipWeightsError(f"these are not the weights of a CLIP of this size: {'; '.join(faults[:5])}"
                               f"{f'; and {len(faults) - 5} more' if len(faults) > 5 else ''}; use ViT-B/16 with "
                               "the base configuration")
    for name in wanted:
        state[name].copy_(renamed[name].reshape(state[name].shape))


def _without_leading_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """CLIP keeps class token and positions without our leading axes of length 1."""
    return shape if not shape or shape[0] != 1 else _without_leading_ones(shape[1:])
