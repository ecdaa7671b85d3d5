"""Forward passes written from the published structure of each model, on state dicts under its own names.

They share no code with the network: what they compute with a name is what that library computes with it.
"""

import torch
from torch import nn
from torch.nn import functional as F

WIDTH, HEADS, DEPTH, PATCH, SIZE = 48, 3, 2, 16, 64
TOKENS = (SIZE // PATCH) ** 2 + 1


def quick_gelu(value):
    return value / (1 + torch.exp(-1.702 * value))


class TorchvisionBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.ln_2 = nn.LayerNorm(WIDTH, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Dropout(0.0), nn.Linear(4 * WIDTH, WIDTH),
                                 nn.Dropout(0.0))

    def forward(self, tokens):
        normed = self.ln_1(tokens)
        tokens = tokens + self.self_attention(normed, normed, normed, need_weights=False)[0]
        return tokens + self.mlp(self.ln_2(tokens))


class TorchvisionViT(nn.Module):
    """The documented structure of torchvision's VisionTransformer, under its names."""

    def __init__(self):
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.conv_proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.zeros(1, TOKENS, WIDTH))
        self.encoder.layers = nn.Sequential()
        for number in range(DEPTH):
            self.encoder.layers.add_module(f"encoder_layer_{number}", TorchvisionBlock())
        self.encoder.ln = nn.LayerNorm(WIDTH, eps=1e-6)
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(WIDTH, 5))

    def forward(self, image):
        patches = self.conv_proj(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(image), -1, -1), patches], 1) + self.encoder.pos_embedding
        return self.encoder.ln(self.encoder.layers(tokens))[:, 0]


def shapes_timm():
    block = {"norm1.weight": (WIDTH,), "norm1.bias": (WIDTH,), "attn.qkv.weight": (3 * WIDTH, WIDTH),
             "attn.qkv.bias": (3 * WIDTH,), "attn.proj.weight": (WIDTH, WIDTH), "attn.proj.bias": (WIDTH,),
             "norm2.weight": (WIDTH,), "norm2.bias": (WIDTH,), "mlp.fc1.weight": (4 * WIDTH, WIDTH),
             "mlp.fc1.bias": (4 * WIDTH,), "mlp.fc2.weight": (WIDTH, 4 * WIDTH), "mlp.fc2.bias": (WIDTH,)}
    return {"cls_token": (1, 1, WIDTH), "pos_embed": (1, TOKENS, WIDTH),
            "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH), "patch_embed.proj.bias": (WIDTH,),
            **{f"blocks.{number}.{name}": shape for number in range(DEPTH) for name, shape in block.items()},
            "norm.weight": (WIDTH,), "norm.bias": (WIDTH,), "head.weight": (5, WIDTH), "head.bias": (5,)}


def shapes_hugging_face():
    block = {}
    for name in ("query", "key", "value"):
        block |= {f"attention.attention.{name}.weight": (WIDTH, WIDTH), f"attention.attention.{name}.bias": (WIDTH,)}
    for name in ("layernorm_before", "layernorm_after"):
        block |= {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}
    block |= {"attention.output.dense.weight": (WIDTH, WIDTH), "attention.output.dense.bias": (WIDTH,),
              "intermediate.dense.weight": (4 * WIDTH, WIDTH), "intermediate.dense.bias": (4 * WIDTH,),
              "output.dense.weight": (WIDTH, 4 * WIDTH), "output.dense.bias": (WIDTH,)}
    return {"vit.embeddings.cls_token": (1, 1, WIDTH), "vit.embeddings.position_embeddings": (1, TOKENS, WIDTH),
            "vit.embeddings.patch_embeddings.projection.weight": (WIDTH, 3, PATCH, PATCH),
            "vit.embeddings.patch_embeddings.projection.bias": (WIDTH,),
            **{f"vit.encoder.layer.{number}.{name}": shape for number in range(DEPTH) for name, shape in block.items()},
            "vit.layernorm.weight": (WIDTH,), "vit.layernorm.bias": (WIDTH,),
            "classifier.weight": (2, WIDTH), "classifier.bias": (2,)}


def shapes_clip():
    def block(width):
        return {"ln_1.weight": (width,), "ln_1.bias": (width,), "attn.in_proj_weight": (3 * width, width),
                "attn.in_proj_bias": (3 * width,), "attn.out_proj.weight": (width, width),
                "attn.out_proj.bias": (width,), "ln_2.weight": (width,), "ln_2.bias": (width,),
                "mlp.c_fc.weight": (4 * width, width), "mlp.c_fc.bias": (4 * width,),
                "mlp.c_proj.weight": (width, 4 * width), "mlp.c_proj.bias": (width,)}
    return {"visual.class_embedding": (WIDTH,), "visual.positional_embedding": (TOKENS, WIDTH),
            "visual.proj": (WIDTH, 24), "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
            "visual.ln_pre.weight": (WIDTH,), "visual.ln_pre.bias": (WIDTH,),
            **{f"visual.transformer.resblocks.{number}.{name}": shape
               for number in range(DEPTH) for name, shape in block(WIDTH).items()},
            "visual.ln_post.weight": (WIDTH,), "visual.ln_post.bias": (WIDTH,),
            **{f"transformer.resblocks.0.{name}": shape for name, shape in block(32).items()},
            "positional_embedding": (8, 32), "text_projection": (32, 24), "token_embedding.weight": (50, 32),
            "ln_final.weight": (32,), "ln_final.bias": (32,), "logit_scale": ()}


def lively(shapes, seed=0):
    """Random weights of which none is without effect, embeddings so small that a norm's epsilon shows."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=generator)
        weight *= 0.15 if len(shape) == 2 else 0.3
        if len(shape) == 1 and name.endswith("weight"):
            weight += 1.0
        weights[name] = weight * (1e-3 if is_embedding(name) else 1.0)
    return weights


def is_embedding(name):
    return any(part in name for part in ("cls_token", "class_token", "class_embedding", "pos_embed", "position_embed",
                                         "positional_embed", "patch_embed", "conv_proj", "conv1."))


def timm_forward(weights, image):
    return _vit(image, patches=weights["patch_embed.proj.weight"], patches_bias=weights["patch_embed.proj.bias"],
                class_token=weights["cls_token"], position=weights["pos_embed"], eps=1e-6, activation=F.gelu, blocks=[
                    {"norm1": _pair(weights, f"blocks.{n}.norm1"), "norm2": _pair(weights, f"blocks.{n}.norm2"),
                     "qkv": _pair(weights, f"blocks.{n}.attn.qkv"), "out": _pair(weights, f"blocks.{n}.attn.proj"),
                     "up": _pair(weights, f"blocks.{n}.mlp.fc1"), "down": _pair(weights, f"blocks.{n}.mlp.fc2")}
                    for n in range(DEPTH)], final=_pair(weights, "norm"))


def hugging_face_forward(weights, image):
    def joint(n):
        names = [f"vit.encoder.layer.{n}.attention.attention.{part}" for part in ("query", "key", "value")]
        return tuple(torch.cat([weights[f"{name}.{kind}"] for name in names]) for kind in ("weight", "bias"))

    at = "vit.encoder.layer"
    embeddings = "vit.embeddings"
    return _vit(image, patches=weights[f"{embeddings}.patch_embeddings.projection.weight"],
                patches_bias=weights[f"{embeddings}.patch_embeddings.projection.bias"],
                class_token=weights[f"{embeddings}.cls_token"], position=weights[f"{embeddings}.position_embeddings"],
                eps=1e-12, activation=F.gelu, blocks=[
                    {"norm1": _pair(weights, f"{at}.{n}.layernorm_before"),
                     "norm2": _pair(weights, f"{at}.{n}.layernorm_after"), "qkv": joint(n),
                     "out": _pair(weights, f"{at}.{n}.attention.output.dense"),
                     "up": _pair(weights, f"{at}.{n}.intermediate.dense"),
                     "down": _pair(weights, f"{at}.{n}.output.dense")} for n in range(DEPTH)],
                final=_pair(weights, "vit.layernorm"))


def clip_forward(weights, image):
    at = "visual.transformer.resblocks"
    return _vit(image, patches=weights["visual.conv1.weight"], patches_bias=None,
                class_token=weights["visual.class_embedding"][None, None],
                position=weights["visual.positional_embedding"][None], eps=1e-5, activation=quick_gelu,
                before=_pair(weights, "visual.ln_pre"), blocks=[
                    {"norm1": _pair(weights, f"{at}.{n}.ln_1"), "norm2": _pair(weights, f"{at}.{n}.ln_2"),
                     "qkv": (weights[f"{at}.{n}.attn.in_proj_weight"], weights[f"{at}.{n}.attn.in_proj_bias"]),
                     "out": _pair(weights, f"{at}.{n}.attn.out_proj"), "up": _pair(weights, f"{at}.{n}.mlp.c_fc"),
                     "down": _pair(weights, f"{at}.{n}.mlp.c_proj")} for n in range(DEPTH)],
                final=_pair(weights, "visual.ln_post"))


def _pair(weights, name):
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def attention(tokens, qkv, out, heads):
    """By PyTorch's own multi-head attention, which is neither the product's code nor its call."""
    normed = tokens.transpose(0, 1)
    return F.multi_head_attention_forward(normed, normed, normed, tokens.shape[-1], heads, *qkv, None, None, False, 0.0,
                                          *out, training=False, need_weights=False)[0].transpose(0, 1)


def _vit(image, *, patches, patches_bias, class_token, position, eps, activation, blocks, final, before=None):
    embedded = F.conv2d(image, patches, patches_bias, stride=PATCH).flatten(2).transpose(1, 2)
    tokens = torch.cat([class_token.expand(len(image), -1, -1), embedded], 1) + position
    if before is not None:
        tokens = F.layer_norm(tokens, (WIDTH,), *before, eps)
    for block in blocks:
        tokens = tokens + attention(F.layer_norm(tokens, (WIDTH,), *block["norm1"], eps), block["qkv"], block["out"],
                                    HEADS)
        hidden = activation(F.linear(F.layer_norm(tokens, (WIDTH,), *block["norm2"], eps), *block["up"]))
        tokens = tokens + F.linear(hidden, *block["down"])
    return F.layer_norm(tokens, (WIDTH,), *final, eps)[:, 0]


def torchvision_weights(seed=0):
    return lively({name: tuple(weight.shape) for name, weight in TorchvisionViT().state_dict().items()}, seed)


def torchvision_forward(weights, image):
    model = TorchvisionViT().eval()
    model.load_state_dict(weights)
    return model(image)


#: Layout: (weights of a seed, class-token features of weights and images).
REFERENCES = {
    "torchvision": (torchvision_weights, torchvision_forward),
    "timm": (lambda seed=0: lively(shapes_timm(), seed), timm_forward),
    "hugging_face": (lambda seed=0: lively(shapes_hugging_face(), seed), hugging_face_forward),
    "openai_clip": (lambda seed=0: lively(shapes_clip(), seed), clip_forward),
}
