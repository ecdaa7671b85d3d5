"""Layouts of OpenAI CLIP's ViT image tower, inside the whole model or saved by itself. open_clip names it alike.

It normalises embedded tokens before the first block, has no bias in the patch convolution, and uses QuickGELU.
"""

from __future__ import annotations

from mmdg_model.config import Activation, EmbeddingNorm
from mmdg_model.weights.layout import BLOCK, Convention, Layout, Result, Rule, linear

CLIP_CONVENTION = Convention(
    layer_norm_eps=1e-5, activation=Activation.QUICK_GELU, embedding_norm=EmbeddingNorm.LAYER_NORM,
    pixel_mean=(0.48145466, 0.4578275, 0.40821073), pixel_std=(0.26862954, 0.26130258, 0.27577711))

#: The text side, and three numbers that OpenAI's file stores as tensors.
CLIP_TEXT_TOWER = (
    (r"transformer\.resblocks\..*", "text tower"),
    (r"(positional_embedding|text_projection|token_embedding\.weight|ln_final\.(weight|bias))", "text tower"),
    (r"(logit_scale|logit_bias)", "temperature of image and text"),
    (r"(input_resolution|context_length|vocab_size)", "a number, not a weight"),
)


def residual_block(target: str, source: str) -> tuple[Rule, ...]:
    """A block as CLIP's `ResidualAttentionBlock` names it."""
    return (
        *linear(f"{target}.attention_norm", f"{source}.ln_1"),
        Rule(target=f"{target}.attention.query_key_value.weight", sources=(f"{source}.attn.in_proj_weight",)),
        Rule(target=f"{target}.attention.query_key_value.bias", sources=(f"{source}.attn.in_proj_bias",)),
        *linear(f"{target}.attention.output", f"{source}.attn.out_proj"),
        *linear(f"{target}.mlp_norm", f"{source}.ln_2"),
        *linear(f"{target}.mlp.0", f"{source}.mlp.c_fc"),
        *linear(f"{target}.mlp.2", f"{source}.mlp.c_proj"),
    )


def _image_tower(prefix: str) -> tuple[Rule, ...]:
    return (
        Rule(target="embedding.class_token", sources=(f"{prefix}class_embedding",), leading_axes=2),
        Rule(target="embedding.position", sources=(f"{prefix}positional_embedding",), leading_axes=1),
        Rule(target="embedding.patches.weight", sources=(f"{prefix}conv1.weight",)),
        Rule(target="embedding.patches.bias", zeros=True),
        *linear("embedding.norm", f"{prefix}ln_pre"),
        *residual_block(f"blocks.{BLOCK}", f"{prefix}transformer.resblocks.{BLOCK}"),
        *linear("norm", f"{prefix}ln_post"),
        Rule(target="projection", sources=(f"{prefix}proj",)),
    )


OPENAI_CLIP = Layout(
    name="openai_clip", title="OpenAI CLIP ViT-B/16, image tower of the whole model", result=Result.BACKBONE,
    rules=_image_tower("visual."), left_out=CLIP_TEXT_TOWER, convention=CLIP_CONVENTION)

OPENAI_CLIP_VISUAL = Layout(
    name="openai_clip_visual", title="OpenAI CLIP ViT-B/16, image tower by itself", result=Result.BACKBONE,
    rules=_image_tower(""), convention=CLIP_CONVENTION)
