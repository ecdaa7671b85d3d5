"""Backbone files: round trip, identity, and a table of faults that each get their own refusal."""

import json
import re

import pytest
import safetensors.torch
import torch

from mmdg_model.config import ConfigError, EmbeddingNorm, ModelConfig
from mmdg_model.safetensors_header import BACKBONE_KEY
from mmdg_model.test_checkpoint import make_test_checkpoint
from mmdg_model.weights.backbone import (
    BACKBONE_FIELDS,
    Backbone,
    BackboneConfig,
    BackboneError,
    load_backbone,
    save_backbone,
)
from tests.mmdg_model.builders import MICRO

CONFIG = BackboneConfig(width=48, heads=3, depth=2, image_size=64, embedding_norm=EmbeddingNorm.LAYER_NORM,
                        projection_width=24)


def backbone(**changes):
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) for name, shape in CONFIG.shapes().items()}
    return Backbone(**({"config": CONFIG, "weights": weights, "layout": "timm", "source_sha256": "0" * 64,
                        "pixel_mean": (0.5, 0.5, 0.5), "pixel_std": (0.25, 0.5, 0.5), "created_by": "a test"}
                       | changes))


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("backbone") / "sound.safetensors"
    save_backbone(backbone(), path)
    return path


def test_round_trip(sound, tmp_path):
    first = load_backbone(sound)
    assert save_backbone(first, tmp_path / "deeper" / "copy.safetensors") == first.hash
    assert (tmp_path / "deeper" / "copy.safetensors").read_bytes() == sound.read_bytes()
    assert list((tmp_path / "deeper").iterdir()) == [tmp_path / "deeper" / "copy.safetensors"]
    assert first.config == CONFIG
    assert first.pixel_std == (0.25, 0.5, 0.5)
    assert all(torch.equal(first.weights[name], weight) for name, weight in backbone().weights.items())


def test_network_and_backbone_agree_on_the_shared_values():
    assert {name: getattr(ModelConfig.base(), name) for name in BACKBONE_FIELDS} == {
        name: getattr(BackboneConfig(), name) for name in BACKBONE_FIELDS}
    assert CONFIG.model_config(cdc_theta=0.7).cdc_theta == 0.7
    assert CONFIG.model_config().embedding_norm is EmbeddingNorm.LAYER_NORM


@pytest.mark.parametrize(("change", "complaint"), [
    ({"heads": 5}, "model.width is 768, expected a multiple of model.heads = 5"),
    ({"projection_width": -1}, "backbone.projection_width is -1"),
    ({"layer_norm_eps": 0.0}, "model.layer_norm_eps is 0.0"),
])
def test_impossible_config(change, complaint):
    with pytest.raises(ConfigError, match=complaint):
        BackboneConfig(**change)


def rewritten(sound, path, change_weights, change_about):
    weights = safetensors.torch.load_file(sound)
    with safetensors.safe_open(sound, "pt") as file:
        about = json.loads(file.metadata()[BACKBONE_KEY])
    change_weights(weights)
    about = change_about(about) or about
    safetensors.torch.save_file(weights, path, metadata={BACKBONE_KEY: json.dumps(about)})
    return path


def nothing(_):
    return None


@pytest.mark.parametrize(("change_weights", "change_about", "complaint"), [
    (lambda w: w.pop("norm.bias"), nothing, "weight 'norm.bias' is missing, as are 0 more"),
    (lambda w: w.update(extra=torch.zeros(1)), nothing, "weight 'extra' is unknown"),
    (lambda w: w.update({"norm.bias": torch.zeros(3)}), nothing, r"'norm.bias' is torch.float32 \(3,\), expected"),
    (lambda w: w.update({"norm.bias": torch.zeros(48).half()}), nothing, "'norm.bias' is torch.float16"),
    (lambda w: w["norm.bias"].fill_(float("nan")), nothing, "'norm.bias' holds NaN"),
    (nothing, lambda a: a.update(format_version=2), "format_version is 2, this program reads 1"),
    (nothing, lambda a: [1], r"format_version is \[1\]"),
    (nothing, lambda a: a.update(purpose="release"), "metadata key 'purpose' is unknown or missing"),
    (nothing, lambda a: a.pop("layout") and None, "metadata key 'layout' is unknown or missing"),
    (nothing, lambda a: a.update(layout=3), "layout is 3, expected a text"),
    (nothing, lambda a: a.update(pixel_mean=[0.5]), r"pixel_mean is \[0.5\], expected three numbers"),
    (nothing, lambda a: a["backbone"].update(depth=60), "depth is 60, but there are"),
    (nothing, lambda a: a.update(backbone=3), "backbone is 3, expected an object"),
    (nothing, lambda a: a["backbone"].update(depth=3), "weight 'blocks.2.attention.output.bias' is missing"),
    (nothing, lambda a: a["backbone"].update(depth=10**9), "depth is 1000000000, "),
    (nothing, lambda a: a["backbone"].update(width="48"), "backbone.width is '48', expected int"),
    (nothing, lambda a: a["backbone"].update(activation="relu"), "backbone.activation is 'relu', expected one of gelu"),
    (nothing, lambda a: a["backbone"].update(cdc_theta=0.5), "backbone.cdc_theta = 0.5 is an unknown key"),
])
def test_faults(sound, tmp_path, change_weights, change_about, complaint):
    path = rewritten(sound, tmp_path / "bad.safetensors", change_weights, change_about)
    with pytest.raises(BackboneError, match=complaint) as caught:
        load_backbone(path)
    assert str(path) in str(caught.value)


def test_a_truncated_file(sound, tmp_path):
    (tmp_path / "half.safetensors").write_bytes(sound.read_bytes()[:1000])
    with pytest.raises(BackboneError, match="not a whole safetensors file"):
        load_backbone(tmp_path / "half.safetensors")


def test_damage_to_the_header_gives_this_error_and_no_other(sound, tmp_path):
    blob, generator = sound.read_bytes(), torch.Generator().manual_seed(0)
    header_length = int.from_bytes(blob[:8], "little")
    refused = 0
    for _ in range(150):
        damaged = bytearray(blob)
        position = int(torch.randint(8 + header_length, (1,), generator=generator))
        damaged[position] ^= 1 << int(torch.randint(8, (1,), generator=generator))
        (tmp_path / "damaged.safetensors").write_bytes(damaged)
        try:
            load_backbone(tmp_path / "damaged.safetensors")
        except BackboneError:
            refused += 1
    assert refused > 100


def test_no_file(tmp_path):
    with pytest.raises(BackboneError, match="cannot be read"):
        load_backbone(tmp_path / "none.safetensors")


def test_a_checkpoint_is_no_backbone(tmp_path):
    make_test_checkpoint(tmp_path / "checkpoint.safetensors", MICRO)
    with pytest.raises(BackboneError, match=re.escape(f"no metadata key {BACKBONE_KEY!r}")):
        load_backbone(tmp_path / "checkpoint.safetensors")


def test_unsound_weights_are_not_saved(tmp_path):
    with pytest.raises(BackboneError, match=r"weight 'norm\.bias' is missing"):
        save_backbone(backbone(weights={name: weight for name, weight in backbone().weights.items()
                                        if name != "norm.bias"}), tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []
