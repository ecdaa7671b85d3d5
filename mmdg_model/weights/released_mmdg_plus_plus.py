"""Layout of the authors' released MMDG++ model (`models/mmdg_plus_plus` of github.com/lxbuaa/mmdg_plus_plus).

`model.*` is the whole of OpenAI's CLIP, frozen; branches are numbered 1 RGB, 2 depth, 3 infrared. `conv_pass_a.k` is
the one adapter of branch a in block k, for both of its sources: `_k_v` is the own branch, `_q` the source, and of the
doubled layers in its attention number 1 belongs to the source, number 2 to the own branch.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmdg_model.network import MODALITIES
from mmdg_model.scorer import Modality
from mmdg_model.weights.layout import BLOCK, Layout, Result, Rule, linear
from mmdg_model.weights.openai_clip import CLIP_CONVENTION, CLIP_TEXT_TOWER, residual_block
from mmdg_model.weights.released_mmdg import BRANCHES

_TOWER = "model.visual"


def _adapter(modality: Modality) -> tuple[Rule, ...]:
    target, source = f"blocks.{BLOCK}.adapters.{modality}", f"conv_pass_{BRANCHES[modality]}.{BLOCK}"
    without_bias = {
        "query_source": "q_linear_1", "query_own": "q_linear_2", "key": "k_linear", "value": "v_linear",
        "mean_source": "mean_mlp_1", "mean_own": "mean_mlp_2",
        "log_variance_source": "std_mlp_1", "log_variance_own": "std_mlp_2",
    }
    return (
        *linear(f"{target}.own_down", f"{source}.adapter_down_k_v"),
        *linear(f"{target}.source_down", f"{source}.adapter_down_q"),
        *linear(f"{target}.own_norm", f"{source}.ln_k_v"),
        *linear(f"{target}.source_norm", f"{source}.ln_q"),
        *(Rule(target=f"{target}.cross_attention.{ours}.weight", sources=(f"{source}.cross_attention.{theirs}.weight",))
          for ours, theirs in without_bias.items()),
        *linear(f"{target}.cross_attention.output", f"{source}.cross_attention.proj"),
        *linear(f"{target}.mlp", f"{source}.adapter_mlp"),
        Rule(target=f"{target}.convolution.weight", sources=(f"{source}.adapter_conv.conv.weight",)),
        *linear(f"{target}.up", f"{source}.adapter_up"),
    )


def _own(modality: Modality) -> tuple[Rule, ...]:
    number = BRANCHES[modality]
    return (
        Rule(target=f"embeddings.{modality}.class_token", sources=(f"class_token_{number}",), leading_axes=2),
        Rule(target=f"embeddings.{modality}.position", sources=(f"pos_{number}",), leading_axes=1),
        Rule(target=f"projections.{modality}", sources=(f"visual_proj_{number}",)),
        Rule(target=f"prompts.{modality}", sources=(f"prompts_{number}",)),
        *_adapter(modality),
    )


RELEASED_MMDG_PLUS_PLUS = Layout(
    name="mmdg_plus_plus", title="MMDG++ as released by its authors", result=Result.MMDG_PLUS_PLUS,
    rules=(
        Rule(target="patches.weight", sources=(f"{_TOWER}.conv1.weight",)),
        *linear("embedding_norm", f"{_TOWER}.ln_pre"),
        *residual_block(f"blocks.{BLOCK}.block", f"{_TOWER}.transformer.resblocks.{BLOCK}"),
        *linear("norm", f"{_TOWER}.ln_post"),
        *(rule for modality in MODALITIES for rule in _own(modality)),
        *linear("head", "fc_all.0"),
    ),
    left_out=(
        *((rf"model\.{pattern}", what) for pattern, what in CLIP_TEXT_TOWER),
        (r"model\.visual\.(class_embedding|positional_embedding|proj)", "CLIP's own; each modality has a copy"),
    ),
    convention=CLIP_CONVENTION,
)


def plus_plus_shapes(sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of an MMDG++ of these sizes (`PLUS_PLUS_SIZES`)."""
    width, adapter, projection = sizes["width"], sizes["adapter_width"], sizes["projection_width"]
    hidden, patch = sizes["mlp_ratio"] * width, sizes["patch_size"]
    tokens = (sizes["image_size"] // patch) ** 2 + 1
    shapes: dict[str, tuple[int, ...]] = {
        "patches.weight": (width, 3, patch, patch), **_norm("embedding_norm", width), **_norm("norm", width),
        **_dense("head", len(MODALITIES) * projection, 2)}
    for modality in MODALITIES:
        shapes |= {f"embeddings.{modality}.class_token": (1, 1, width),
                   f"embeddings.{modality}.position": (1, tokens, width),
                   f"projections.{modality}": (width, projection),
                   f"prompts.{modality}": (sizes["domains"], sizes["prompt_tokens"], sizes["prompt_width"])}
    for number in range(sizes["depth"]):
        block = f"blocks.{number}.block"
        shapes |= {**_norm(f"{block}.attention_norm", width), **_norm(f"{block}.mlp_norm", width),
                   **_dense(f"{block}.attention.query_key_value", width, 3 * width),
                   **_dense(f"{block}.attention.output", width, width), **_dense(f"{block}.mlp.0", width, hidden),
                   **_dense(f"{block}.mlp.2", hidden, width)}
        for modality in MODALITIES:
            at = f"blocks.{number}.adapters.{modality}"
            shapes |= {**_dense(f"{at}.own_down", width, adapter), **_dense(f"{at}.source_down", width, adapter),
                       **_norm(f"{at}.own_norm", adapter), **_norm(f"{at}.source_norm", adapter),
                       **_dense(f"{at}.cross_attention.output", adapter, adapter),
                       **_dense(f"{at}.mlp", adapter, adapter), **_dense(f"{at}.up", adapter, width),
                       f"{at}.convolution.weight": (adapter, adapter, 3, 3)}
            shapes |= {f"{at}.cross_attention.{name}.weight": (adapter, adapter)
                       for name in ("query_source", "query_own", "key", "value", "mean_source", "mean_own",
                                    "log_variance_source", "log_variance_own")}
    return shapes


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _dense(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
