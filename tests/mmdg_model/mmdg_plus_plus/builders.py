"""Small MMDG++ networks, prompts and inputs for the tests of this folder."""

import itertools
import re

import torch

from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig, MMDGPlusPlusConfig
from mmdg_model.mmdg_plus_plus.network import build_mmdg_plus_plus

#: Every part of the real network, two blocks and 64 pixels small.
MICRO = MMDGPlusPlusConfig(width=48, heads=3, depth=2, image_size=64, feature_width=24)
MICRO_PROMPTS = DomainPromptConfig(width=32, heads=2, depth=2, feature_width=24, vocabulary_size=200)

PRESENCE = [row for row in itertools.product([False, True], repeat=3) if any(row)]


def lively_network(config=MICRO, seed=0):
    """A network in evaluation mode whose adapters speak, whose variances differ and whose logits vary."""
    torch.manual_seed(seed)
    network = build_mmdg_plus_plus(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            enliven(name, parameter)
    return network


def enliven(name, parameter):
    """Nothing stays at its silent start."""
    if name.endswith("up.weight"):
        parameter.normal_(std=0.1)
    elif name.endswith("convolution.weight"):
        parameter.normal_(std=0.5)
    elif name.endswith("log_variance.weight"):
        parameter.normal_(std=0.12)  # of large queries: variances of about exp(±0.7)
    elif re.search(r"(key|value|_query|_distribution\.mean|(of\.\w+\.|^)output|token_mlp)\.weight$", name):
        parameter.normal_(std=0.7)
    elif name.endswith("head.weight"):
        parameter.normal_(std=6.0)  # features have length 1
    elif name.startswith("tower.blocks.") and name.endswith("weight") and "norm" not in name:
        parameter.mul_(4.0)


def random_planes(batch, config=MICRO, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, 3, config.image_size, config.image_size, generator=generator)


class WordTokenizer:
    """A token a word, but two for those in `SPLIT`. A stand-in vocabulary; the tower that reads it is the real one."""

    SPLIT = ("spoof", "bonafide")
    start_of_text = 198
    end_of_text = 199

    def __init__(self):
        self._known = {}

    def encode(self, text):
        pieces = itertools.chain.from_iterable(
            (f"{word}-1", f"{word}-2") if word in self.SPLIT else (word,) for word in text.split())
        return [self._known.setdefault(piece, len(self._known)) for piece in pieces]
