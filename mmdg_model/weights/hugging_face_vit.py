"""Layout of Hugging Face's `ViTModel` and `ViTForImageClassification`, as their files name the weights.

Query, key and value are apart. From version 5 on the library renames in memory, and an in-memory `state_dict()` differs
from what `save_pretrained` writes: the second spelling.
"""

from __future__ import annotations

from mmdg_model.weights.layout import BLOCK, Convention, Layout, Result, Rule, linear

_OURS, _THEIRS = f"blocks.{BLOCK}", f"encoder.layer.{BLOCK}"
_SELF = f"{_THEIRS}.attention.attention"

HUGGING_FACE = Layout(
    name="hugging_face", title="Hugging Face ViT", result=Result.BACKBONE,
    rules=(
        Rule(target="embedding.class_token", sources=("embeddings.cls_token",)),
        Rule(target="embedding.position", sources=("embeddings.position_embeddings",)),
        *linear("embedding.patches", "embeddings.patch_embeddings.projection"),
        *linear(f"{_OURS}.attention_norm", f"{_THEIRS}.layernorm_before"),
        *linear(f"{_OURS}.attention.query_key_value", f"{_SELF}.query", f"{_SELF}.key", f"{_SELF}.value"),
        *linear(f"{_OURS}.attention.output", f"{_THEIRS}.attention.output.dense"),
        *linear(f"{_OURS}.mlp_norm", f"{_THEIRS}.layernorm_after"),
        *linear(f"{_OURS}.mlp.0", f"{_THEIRS}.intermediate.dense"),
        *linear(f"{_OURS}.mlp.2", f"{_THEIRS}.output.dense"),
        *linear("norm", "layernorm"),
    ),
    left_out=((r"classifier\..*", "classification head"), (r"pooler\.dense\..*", "pooling layer")),
    spellings=(
        (r"^vit\.", ""),
        (r"^layers\.([0-9]+)\.attention\.q_proj\.", r"encoder.layer.\1.attention.attention.query."),
        (r"^layers\.([0-9]+)\.attention\.k_proj\.", r"encoder.layer.\1.attention.attention.key."),
        (r"^layers\.([0-9]+)\.attention\.v_proj\.", r"encoder.layer.\1.attention.attention.value."),
        (r"^layers\.([0-9]+)\.attention\.o_proj\.", r"encoder.layer.\1.attention.output.dense."),
        (r"^layers\.([0-9]+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
        (r"^layers\.([0-9]+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
        (r"^layers\.([0-9]+)\.layernorm_", r"encoder.layer.\1.layernorm_"),
    ),
    convention=Convention(layer_norm_eps=1e-12),
)
