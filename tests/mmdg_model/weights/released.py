"""The released MMDG's forward pass, written from the paper and the documented structure, under the release's names."""

import torch
from torch.nn import functional as F

from tests.mmdg_model.weights.references import (
    DEPTH,
    HEADS,
    PATCH,
    SIZE,
    TOKENS,
    WIDTH,
    attention,
    lively,
    quick_gelu,
)

#: (own branch, source branch): 1 RGB, 2 depth, 3 infrared.
EXCHANGES = ((1, 2), (1, 3), (2, 1), (3, 1))

#: Standard deviation of an element a under dropout 0.3 is |a| * sqrt(0.3 / 0.7); certainty falls at rate 2.25.
SPREAD, RATE = (0.3 / 0.7) ** 0.5, 2.25


def released_shapes():
    shapes = {"fc_all.0.weight": (2, 3 * WIDTH), "fc_all.0.bias": (2,),
              f"ViT_Encoder.{DEPTH + 1}.weight": (WIDTH,), f"ViT_Encoder.{DEPTH + 1}.bias": (WIDTH,)}
    for branch in (1, 2, 3):
        shapes |= {f"conv_proj{branch}.weight": (WIDTH, 3, PATCH, PATCH), f"conv_proj{branch}.bias": (WIDTH,),
                   f"class_token{branch}": (1, 1, WIDTH), f"pos_embedding{branch}": (1, TOKENS, WIDTH)}
    for block in range(1, DEPTH + 1):
        at = f"ViT_Encoder.{block}"
        shapes |= {f"{at}.{norm}.{kind}": (WIDTH,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
        shapes |= {f"{at}.self_attention.in_proj_weight": (3 * WIDTH, WIDTH),
                   f"{at}.self_attention.in_proj_bias": (3 * WIDTH,),
                   f"{at}.self_attention.out_proj.weight": (WIDTH, WIDTH),
                   f"{at}.self_attention.out_proj.bias": (WIDTH,), f"{at}.mlp.0.weight": (4 * WIDTH, WIDTH),
                   f"{at}.mlp.0.bias": (4 * WIDTH,), f"{at}.mlp.3.weight": (WIDTH, 4 * WIDTH),
                   f"{at}.mlp.3.bias": (WIDTH,)}
        for own, source in EXCHANGES:
            at = f"adapter_{own}_{source}_2.{block - 1}"
            shapes |= {f"{at}.cross_attention.{name}_linear.weight": (8, 8) for name in "qkv"}
            shapes |= {f"{at}.cross_attention.proj.weight": (8, 8), f"{at}.cross_attention.proj.bias": (8,),
                       f"{at}.ln_before.weight": (8,), f"{at}.ln_before.bias": (8,),
                       f"{at}.adapter_conv.conv.weight": (8, 8, 3, 3), f"{at}.adapter_down_1.weight": (8, WIDTH),
                       f"{at}.adapter_down_1.bias": (8,), f"{at}.adapter_down_2.weight": (8, WIDTH),
                       f"{at}.adapter_down_2.bias": (8,), f"{at}.adapter_up.weight": (WIDTH, 8),
                       f"{at}.adapter_up.bias": (WIDTH,)}
    return shapes


def released_weights(seed=0):
    """Adapters loud enough that every one of their weights moves the logits."""
    return {name: weight * 6 if "cross_attention" in name or "adapter_down" in name else weight
            for name, weight in lively(released_shapes(), seed).items()}


def released_forward(weights, planes):
    """Logits `[b, 2]` of planes `[b, 3, 3, S, S]`, with the limit of infinitely many dropout samples."""
    streams = {}
    for branch in (1, 2, 3):
        patches = F.conv2d(planes[:, branch - 1], weights[f"conv_proj{branch}.weight"],
                           weights[f"conv_proj{branch}.bias"], stride=PATCH).flatten(2).transpose(1, 2)
        first = weights[f"class_token{branch}"].expand(len(planes), -1, -1)
        streams[branch] = torch.cat([first, patches], 1) + weights[f"pos_embedding{branch}"]
    for block in range(1, DEPTH + 1):
        streams = _block(weights, block, streams)
    last = f"ViT_Encoder.{DEPTH + 1}"
    tokens = [F.layer_norm(streams[branch], (WIDTH,), weights[f"{last}.weight"], weights[f"{last}.bias"], 1e-6)[:, 0]
              for branch in (1, 2, 3)]
    return F.linear(torch.cat(tokens, 1), weights["fc_all.0.weight"], weights["fc_all.0.bias"])


def _block(weights, block, streams):
    at = f"ViT_Encoder.{block}"
    residual, normed, certainty = {}, {}, {}
    for branch, stream in streams.items():
        attended = attention(
            F.layer_norm(stream, (WIDTH,), weights[f"{at}.ln_1.weight"], weights[f"{at}.ln_1.bias"], 1e-6),
            (weights[f"{at}.self_attention.in_proj_weight"], weights[f"{at}.self_attention.in_proj_bias"]),
            (weights[f"{at}.self_attention.out_proj.weight"], weights[f"{at}.self_attention.out_proj.bias"]), HEADS)
        certainty[branch] = torch.exp(-RATE * SPREAD * attended.abs()).mean(-1)
        residual[branch] = stream + attended
        normed[branch] = F.layer_norm(residual[branch], (WIDTH,), weights[f"{at}.ln_2.weight"],
                                      weights[f"{at}.ln_2.bias"], 1e-6)
    after = {}
    for branch in streams:
        hidden = F.gelu(F.linear(normed[branch], weights[f"{at}.mlp.0.weight"], weights[f"{at}.mlp.0.bias"]))
        after[branch] = residual[branch] + F.linear(hidden, weights[f"{at}.mlp.3.weight"], weights[f"{at}.mlp.3.bias"])
    for own, source in EXCHANGES:
        adapter = {name.removeprefix(f"adapter_{own}_{source}_2.{block - 1}."): weight
                   for name, weight in weights.items() if name.startswith(f"adapter_{own}_{source}_2.{block - 1}.")}
        after[own] = after[own] + _adapter(adapter, normed[own], normed[source], certainty[source])
    return after


def _adapter(weights, own, source, certainty):
    own = quick_gelu(F.linear(own, weights["adapter_down_1.weight"], weights["adapter_down_1.bias"]))
    source = quick_gelu(F.linear(source, weights["adapter_down_2.weight"], weights["adapter_down_2.bias"]))
    query = F.linear(source, weights["cross_attention.q_linear.weight"])
    key = F.linear(own, weights["cross_attention.k_linear.weight"])
    value = F.linear(own, weights["cross_attention.v_linear.weight"])
    # Eight heads of one channel each: every channel is a head.
    logits = torch.einsum("bic,bjc->bcij", query, key) * certainty[:, None, :, None]
    mixed = torch.einsum("bcij,bjc->bic", logits.softmax(-1), value)
    mixed = F.linear(mixed, weights["cross_attention.proj.weight"], weights["cross_attention.proj.bias"])
    mixed = F.layer_norm(mixed + own, (8,), weights["ln_before.weight"], weights["ln_before.bias"])
    side = SIZE // PATCH
    patches = mixed[:, 1:].transpose(1, 2).reshape(len(mixed), 8, side, side)
    first = mixed[:, :1].transpose(1, 2)[..., None]
    convolved = [_central_difference(weights["adapter_conv.conv.weight"], grid) for grid in (first, patches)]
    tokens = torch.cat([grid.flatten(2).transpose(1, 2) for grid in convolved], 1)
    return F.linear(quick_gelu(tokens), weights["adapter_up.weight"], weights["adapter_up.bias"])


def _central_difference(weight, grid):
    return F.conv2d(grid, weight, padding=1) - 0.5 * F.conv2d(grid, weight.sum((2, 3))[:, :, None, None])
