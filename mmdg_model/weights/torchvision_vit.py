"""Layout of torchvision's `VisionTransformer` (`torchvision.models.vit_b_16` and its sizes)."""

from __future__ import annotations

from mmdg_model.weights.layout import BLOCK, Convention, Layout, Result, Rule, linear

#: Earlier releases called the MLP's layers `linear_1` and `linear_2`; torchvision itself still reads such files.
OLD_MLP_NAMES = ((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3."))


def encoder_block(target: str, source: str) -> tuple[Rule, ...]:
    """A block as torchvision's `EncoderBlock` names it; the release of MMDG took these modules over."""
    return (
        *linear(f"{target}.attention_norm", f"{source}.ln_1"),
        Rule(target=f"{target}.attention.query_key_value.weight", sources=(f"{source}.self_attention.in_proj_weight",)),
        Rule(target=f"{target}.attention.query_key_value.bias", sources=(f"{source}.self_attention.in_proj_bias",)),
        *linear(f"{target}.attention.output", f"{source}.self_attention.out_proj"),
        *linear(f"{target}.mlp_norm", f"{source}.ln_2"),
        *linear(f"{target}.mlp.0", f"{source}.mlp.0"),
        *linear(f"{target}.mlp.2", f"{source}.mlp.3"),
    )


TORCHVISION = Layout(
    name="torchvision", title="torchvision vit_b_16", result=Result.BACKBONE,
    rules=(
        Rule(target="embedding.class_token", sources=("class_token",)),
        Rule(target="embedding.position", sources=("encoder.pos_embedding",)),
        *linear("embedding.patches", "conv_proj"),
        *encoder_block(f"blocks.{BLOCK}", f"encoder.layers.encoder_layer_{BLOCK}"),
        *linear("norm", "encoder.ln"),
    ),
    left_out=((r"heads\..*", "classification head"),),
    spellings=OLD_MLP_NAMES,
    convention=Convention(layer_norm_eps=1e-6, pixel_mean=(0.485, 0.456, 0.406), pixel_std=(0.229, 0.224, 0.225)),
)
