"""Layout of the authors' released MMDG model (`models/u_adapter.py` of github.com/lxbuaa/mmdg_plus_plus).

Branches are numbered: 1 RGB, 2 depth, 3 infrared. `adapter_a_b_2.k` feeds branch a from branch b in block k, with
`adapter_down_1` on the own and `adapter_down_2` on the source branch. The shared ViT is a sequence: position 0 an empty
dropout, then the blocks from 1 on, then the final norm, whose position therefore depends on the depth. Class tokens
enter the head in the order 1, 2, 3. Column 1 of the head is bona fide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from mmdg_model.config import ModelConfig
from mmdg_model.network import DIRECTIONS, MODALITIES, direction_name
from mmdg_model.weights.layout import BLOCK, Convention, Layout, Result, Rule, linear
from mmdg_model.weights.torchvision_vit import OLD_MLP_NAMES, encoder_block

#: What the release computes with and its weights do not tell.
RELEASED_CHOICES = ModelConfig.release()

#: The release's number of each modality.
BRANCHES = {modality: number for number, modality in enumerate(MODALITIES, start=1)}


def _embedding(index: int) -> tuple[Rule, ...]:
    return (
        Rule(target=f"embeddings.{index}.class_token", sources=(f"class_token{index + 1}",)),
        Rule(target=f"embeddings.{index}.position", sources=(f"pos_embedding{index + 1}",)),
        *linear(f"embeddings.{index}.patches", f"conv_proj{index + 1}"),
    )


def _adapter(target: str, source: str) -> tuple[Rule, ...]:
    attention = f"{source}.cross_attention"
    return (
        *linear(f"{target}.own_down", f"{source}.adapter_down_1"),
        *linear(f"{target}.source_down", f"{source}.adapter_down_2"),
        Rule(target=f"{target}.cross_attention.query.weight", sources=(f"{attention}.q_linear.weight",)),
        Rule(target=f"{target}.cross_attention.key.weight", sources=(f"{attention}.k_linear.weight",)),
        Rule(target=f"{target}.cross_attention.value.weight", sources=(f"{attention}.v_linear.weight",)),
        *linear(f"{target}.cross_attention.output", f"{attention}.proj"),
        *linear(f"{target}.norm", f"{source}.ln_before"),
        Rule(target=f"{target}.convolution.weight", sources=(f"{source}.adapter_conv.conv.weight",)),
        *linear(f"{target}.up", f"{source}.adapter_up"),
    )


class _ReleasedLayout(Layout):
    """Gives blocks and final norm names of their own, because their numbers are positions in one sequence."""

    def respelled(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        plain = super().respelled(weights)
        positions = [int(match[1]) for name in plain if (match := re.match(r"ViT_Encoder\.([0-9]{1,4})\.", name))]
        last = max(positions, default=0)
        return {_block_name(name, last): weight for name, weight in plain.items()}

    def shown(self, name: str) -> str:
        if match := re.fullmatch(r"encoder_block\.([0-9]+)\.(.+)", name):
            return f"ViT_Encoder.{int(match[1]) + 1}.{match[2]}"
        return name.replace("final_norm.", "ViT_Encoder.<last>.")


def _block_name(name: str, last: int) -> str:
    """`ViT_Encoder.<last>.weight` is the norm's, `ViT_Encoder.<k>.…` block k - 1's; anything else stays as it is."""
    match = re.fullmatch(r"ViT_Encoder\.([0-9]{1,4})\.(.+)", name)
    if match is None:
        return name
    position, rest = int(match[1]), match[2]
    if rest in ("weight", "bias"):
        return f"final_norm.{rest}" if position == last else name
    return f"encoder_block.{position - 1}.{rest}" if position >= 1 else name


RELEASED_MMDG = _ReleasedLayout(
    name="mmdg", title="MMDG as released by its authors", result=Result.CHECKPOINT,
    rules=(
        *(rule for index in range(len(MODALITIES)) for rule in _embedding(index)),
        *encoder_block(f"blocks.{BLOCK}.block", f"encoder_block.{BLOCK}"),
        *(rule for own, source in DIRECTIONS
          for rule in _adapter(f"blocks.{BLOCK}.adapters.{direction_name(own, source)}",
                               f"adapter_{BRANCHES[own]}_{BRANCHES[source]}_2.{BLOCK}")),
        *linear("norm", "final_norm"),
        *linear("head", "fc_all.0"),
    ),
    spellings=OLD_MLP_NAMES,
    # The release states no pixel normalisation; (x - 127.5) / 128 is that of its authors' line of work.
    convention=Convention(layer_norm_eps=1e-6, pixel_std=(128 / 255, 128 / 255, 128 / 255)),
)
