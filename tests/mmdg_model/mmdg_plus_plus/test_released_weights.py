"""Imported MMDG++ weights become a checkpoint: every weight in its place, and the scorer takes it."""

import pytest
import torch

from mmdg_model.checkpoint import load_checkpoint, save_checkpoint
from mmdg_model.mmdg_plus_plus.config import MMDGPlusPlusConfig, QueryEstimator
from mmdg_model.mmdg_plus_plus.network import build_mmdg_plus_plus
from mmdg_model.mmdg_plus_plus.released_weights import (
    checkpoint_from_release,
    config_from_sizes,
    our_name,
    state_from_release,
)
from mmdg_model.scorer import Purpose
from mmdg_model.torch_scorer import TorchScorer
from mmdg_model.weights.plus_plus_file import PlusPlusWeights
from mmdg_model.weights.released_mmdg_plus_plus import plus_plus_shapes
from tests.mmdg_model.builders import crop

BASE = {"width": 768, "heads": 12, "depth": 12, "patch_size": 16, "image_size": 224, "mlp_ratio": 4, "adapter_width": 8,
        "projection_width": 512, "domains": 5, "prompt_tokens": 5, "prompt_width": 512}
SMALL = BASE | {"width": 48, "heads": 3, "depth": 2, "image_size": 64, "projection_width": 24, "prompt_width": 32}


@pytest.mark.parametrize("sizes", [BASE, SMALL])
def test_imported_shapes_are_this_networks(sizes):
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in
                    build_mmdg_plus_plus(config_from_sizes(sizes)).state_dict().items()}
    imported = plus_plus_shapes(sizes)
    renamed = {our_name(name): shape for name, shape in imported.items() if not name.startswith("prompts.")}
    assert renamed == expected
    assert len(imported) == len(renamed) + 3  # no two became one; prompts stay behind


@pytest.mark.parametrize(("theirs", "ours"), [
    ("blocks.7.adapters.depth.cross_attention.query_source.weight", "adapters.7.of.depth.other_query.weight"),
    ("blocks.7.adapters.depth.cross_attention.log_variance_own.weight",
     "adapters.7.of.depth.own_distribution.log_variance.weight"),
    ("blocks.7.adapters.rgb.source_norm.bias", "adapters.7.of.rgb.query_norm.bias"),
    ("blocks.7.block.mlp.2.bias", "tower.blocks.7.mlp.2.bias"),
    ("norm.weight", "tower.norm.weight"),
    ("prompts.rgb", None),
])
def test_names(theirs, ours):
    assert our_name(theirs) == ours


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"weight 'blocks\.0\.adapters\.rgb\.gate\.weight' is not one of"):
        our_name("blocks.0.adapters.rgb.gate.weight")


def test_released_weights_score_after_a_round_trip(tmp_path):
    generator = torch.Generator().manual_seed(0)
    weights = {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in plus_plus_shapes(SMALL).items()}
    released = PlusPlusWeights(sizes=SMALL, weights=weights, purpose=Purpose.TEST, source_sha256="0" * 64)
    save_checkpoint(checkpoint_from_release(released), tmp_path / "released.safetensors")
    checkpoint = load_checkpoint(tmp_path / "released.safetensors")
    assert checkpoint.purpose is Purpose.TEST
    assert checkpoint.training["source_sha256"] == "0" * 64
    assert all(torch.equal(checkpoint.weights[name], weight) for name, weight in state_from_release(weights).items())
    scores = TorchScorer(checkpoint).score([crop(seed=seed) for seed in range(3)])
    assert len({score.logit for score in scores}) == 3


def test_choices_that_are_no_sizes_can_be_the_releases():
    config = config_from_sizes(SMALL, MMDGPlusPlusConfig.release())
    assert config.query_estimator is QueryEstimator.SAMPLED
    assert (config.width, config.feature_width) == (48, 24)
