"""Layout of timm's `VisionTransformer` (`timm.create_model("vit_base_patch16_224")`).

DeiT and DINO name theirs so too.
"""

from __future__ import annotations

from mmdg_model.weights.layout import BLOCK, Convention, Layout, Result, Rule, linear

_OURS, _THEIRS = f"blocks.{BLOCK}", f"blocks.{BLOCK}"

TIMM = Layout(
    name="timm", title="timm vit_base_patch16_224", result=Result.BACKBONE,
    rules=(
        Rule(target="embedding.class_token", sources=("cls_token",)),
        Rule(target="embedding.position", sources=("pos_embed",)),
        *linear("embedding.patches", "patch_embed.proj"),
        *linear(f"{_OURS}.attention_norm", f"{_THEIRS}.norm1"),
        *linear(f"{_OURS}.attention.query_key_value", f"{_THEIRS}.attn.qkv"),
        *linear(f"{_OURS}.attention.output", f"{_THEIRS}.attn.proj"),
        *linear(f"{_OURS}.mlp_norm", f"{_THEIRS}.norm2"),
        *linear(f"{_OURS}.mlp.0", f"{_THEIRS}.mlp.fc1"),
        *linear(f"{_OURS}.mlp.2", f"{_THEIRS}.mlp.fc2"),
        *linear("norm", "norm"),
    ),
    left_out=((r"head\.(weight|bias)", "classification head"), (r"pre_logits\..*", "classification head")),
    convention=Convention(layer_norm_eps=1e-6),
)
