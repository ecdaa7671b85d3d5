"""CLIP as its paper and its published weights describe it, under the names of those weights, from torch's own parts."""

import torch
from torch import nn


class ResidualBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, tokens, mask=None):
        normed = self.ln_1(tokens)
        tokens = tokens + self.attn(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        hidden = self.mlp["c_fc"](self.ln_2(tokens))
        return tokens + self.mlp["c_proj"](hidden * torch.sigmoid(1.702 * hidden))


class Transformer(nn.Module):
    def __init__(self, width, heads, depth):
        super().__init__()
        self.resblocks = nn.ModuleList(ResidualBlock(width, heads) for _ in range(depth))

    def forward(self, tokens, mask=None):
        for block in self.resblocks:
            tokens = block(tokens, mask)
        return tokens


class ImageTower(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width))
        self.positional_embedding = nn.Parameter(torch.randn(config.num_tokens, width))
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, config.heads, config.depth)
        self.proj = nn.Parameter(torch.randn(width, config.feature_width))

    def forward(self, image):
        patches = self.conv1(image).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_embedding.expand(len(image), 1, -1), patches], dim=1)
        tokens = self.transformer(self.ln_pre(tokens + self.positional_embedding))
        return self.ln_post(tokens[:, 0]) @ self.proj


class ReferenceClip(nn.Module):
    """Of the sizes of a `MMDGPlusPlusConfig` and a `DomainPromptConfig`."""

    def __init__(self, image, text):
        super().__init__()
        self.visual = ImageTower(image)
        self.transformer = Transformer(text.width, text.heads, text.depth)
        self.token_embedding = nn.Embedding(text.vocabulary_size, text.width)
        self.positional_embedding = nn.Parameter(torch.randn(text.context_length, text.width))
        self.ln_final = nn.LayerNorm(text.width)
        self.text_projection = nn.Parameter(torch.randn(text.width, text.feature_width))
        self.logit_scale = nn.Parameter(torch.tensor(3.0))

    def encode_image(self, image):
        return self.visual(image)

    def encode_text(self, ids):
        mask = torch.full((ids.shape[1], ids.shape[1]), float("-inf")).triu(1)
        tokens = self.transformer(self.token_embedding(ids) + self.positional_embedding[:ids.shape[1]], mask)
        return self.ln_final(tokens)[torch.arange(len(ids)), ids.argmax(dim=-1)] @ self.text_projection


def roughened(model, seed=0):
    """Every weight random, norms and biases too, so that none can be left out or swapped unseen."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                spread = 0.3 if parameter.ndim < 2 else parameter.shape[-1] ** -0.5
                parameter.add_(torch.randn_like(parameter) * spread)
    return model.eval()
