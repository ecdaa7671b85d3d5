"""Imported weights compute what the library they come from computes: forward outputs, not names, are compared."""

import dataclasses
import hashlib
import json

import pytest
import safetensors.torch
import torch

from mmdg_model.checkpoint import CheckpointError, load_checkpoint
from mmdg_model.config import Activation, EmbeddingNorm, UncertaintyEstimatorKind
from mmdg_model.inputs import DepthEncoding
from mmdg_model.network import MODALITIES, build_mmdg
from mmdg_model.scorer import Purpose
from mmdg_model.torch_scorer import TorchScorer, build_network
from mmdg_model.weights.backbone import BackboneError, load_backbone, place_backbone
from mmdg_model.weights.importing import import_weights
from mmdg_model.weights.layout import LayoutMismatchError, Result, WeightImportError
from tests.mmdg_model.weights.references import HEADS, REFERENCES, SIZE
from tests.mmdg_model.weights.released import released_forward, released_weights


def saved(weights, path):
    safetensors.torch.save_file(weights, path)
    return path


def imported_backbone(weights, tmp_path, **options):
    import_weights(saved(weights, tmp_path / "in.safetensors"), tmp_path / "out.safetensors", heads=HEADS, **options)
    return load_backbone(tmp_path / "out.safetensors")


@torch.inference_mode()
def class_token(backbone, image, modality, **config_changes):
    """Through the whole MMDG, every other modality absent, adapters as loud as they get."""
    config = dataclasses.replace(backbone.config, **config_changes)
    torch.manual_seed(1)
    network = build_mmdg(config.model_config()).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("up.weight"):
            parameter.normal_()
    place_backbone(network, dataclasses.replace(backbone, config=config))
    planes = torch.full((len(image), 3, 3, SIZE, SIZE), float("nan"))
    planes[:, modality] = image
    present = torch.zeros(len(image), 3, dtype=torch.bool)
    present[:, modality] = True
    return network(planes, present).class_tokens[:, modality]


def images(seed=0):
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("layout", REFERENCES)
@torch.inference_mode()
def test_backbone_computes_what_its_library_does(layout, tmp_path):
    make, forward = REFERENCES[layout]
    weights = make()
    backbone = imported_backbone(weights, tmp_path)
    expected = forward(weights, images())
    assert backbone.layout == layout
    assert expected.std(dim=0).mean() > 0.05
    for modality in range(len(MODALITIES)):
        torch.testing.assert_close(class_token(backbone, images(), modality), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("layout", "change"), [
    ("torchvision", {"layer_norm_eps": 1e-12}), ("timm", {"layer_norm_eps": 1e-12}),
    ("hugging_face", {"layer_norm_eps": 1e-6}), ("openai_clip", {"layer_norm_eps": 1e-6}),
    ("timm", {"activation": Activation.QUICK_GELU}), ("openai_clip", {"activation": Activation.GELU}),
    ("timm", {"heads": 2}),
])
@torch.inference_mode()
def test_another_convention_would_be_noticed(layout, change, tmp_path):
    make, forward = REFERENCES[layout]
    weights = make()
    backbone = imported_backbone(weights, tmp_path)
    wrong = class_token(backbone, images(), 0, **change)
    assert (wrong - forward(weights, images())).abs().max() > 1e-3


def test_conventions_are_stored(tmp_path):
    backbone = imported_backbone(REFERENCES["openai_clip"][0](), tmp_path)
    assert backbone.config.activation is Activation.QUICK_GELU
    assert backbone.config.embedding_norm is EmbeddingNorm.LAYER_NORM
    assert (backbone.config.layer_norm_eps, backbone.config.projection_width) == (1e-5, 24)
    assert backbone.pixel_mean == (0.48145466, 0.4578275, 0.40821073)
    assert not backbone.weights["embedding.patches.bias"].any()
    assert backbone.source_sha256 == hashlib.sha256((tmp_path / "in.safetensors").read_bytes()).hexdigest()


def test_image_tower_by_itself_is_the_same_backbone(tmp_path):
    whole = REFERENCES["openai_clip"][0]()
    tower = {name.removeprefix("visual."): weight for name, weight in whole.items() if name.startswith("visual.")}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = imported_backbone(whole, tmp_path / "a"), imported_backbone(tower, tmp_path / "b")
    assert second.layout == "openai_clip_visual"
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


@pytest.mark.parametrize(("rename", "layout"), [
    (lambda name: name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."), "torchvision"),
    (lambda name: name.removeprefix("vit."), "hugging_face"),
    (lambda name: (name.replace("encoder.layer.", "layers.").replace("attention.attention.query", "attention.q_proj")
                   .replace("attention.attention.key", "attention.k_proj")
                   .replace("attention.attention.value", "attention.v_proj")
                   .replace("attention.output.dense", "attention.o_proj").replace("intermediate.dense", "mlp.fc1")
                   .replace("output.dense", "mlp.fc2")), "hugging_face"),
    (lambda name: f"module.{name}", "timm"),
    (lambda name: f"_orig_mod.module.{name}", "timm"),
    (lambda name: f"model.{name}", "torchvision"),
    (lambda name: f"module.{name}", "openai_clip"),
])
def test_other_spellings_and_prefixes_give_the_same_backbone(rename, layout, tmp_path):
    weights = REFERENCES[layout][0]()
    renamed = {rename(name): weight for name, weight in weights.items()}
    assert set(renamed) != set(weights)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = imported_backbone(weights, tmp_path / "a"), imported_backbone(renamed, tmp_path / "b")
    assert second.layout == layout
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype, tmp_path):
    weights = {name: weight.to(dtype) for name, weight in REFERENCES["timm"][0]().items()}
    backbone = imported_backbone(weights, tmp_path)
    assert {weight.dtype for weight in backbone.weights.values()} == {torch.float32}
    assert torch.equal(backbone.weights["norm.weight"], weights["norm.weight"].float())


@pytest.mark.parametrize("container", ["state_dict", "model", "model_state_dict"])
def test_a_training_program_s_file(container, tmp_path):
    weights = REFERENCES["timm"][0]()
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, container: weights}, tmp_path / "in.pth")
    report = import_weights(tmp_path / "in.pth", tmp_path / "out.safetensors", heads=HEADS)
    assert (report.container, report.layout, report.result) == (container, "timm", Result.BACKBONE)
    assert report.left_out == {"head.weight": "classification head", "head.bias": "classification head"}


def test_heads_follow_from_a_usual_width_and_are_asked_for_otherwise(tmp_path):
    weights = REFERENCES["timm"][0]()
    with pytest.raises(WeightImportError, match=r"width is 48, no multiple of 64.*state it with --heads"):
        import_weights(saved(weights, tmp_path / "in.safetensors"), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
    with pytest.raises(WeightImportError, match=r"model.width is 48, expected a multiple of model.heads = 5"):
        import_weights(tmp_path / "in.safetensors", tmp_path / "out.safetensors", heads=5)


@pytest.mark.parametrize(("change", "missing", "unused", "misshapen"), [
    (lambda w: w.pop("blocks.1.attn.qkv.bias"), ["blocks.1.attn.qkv.bias"], [], 0),
    (lambda w: w.update({"norm_pre.weight": torch.ones(48)}), [], ["norm_pre.weight"], 0),
    (lambda w: w.update({"blocks.1.norm1.weight": torch.ones(47)}), [], [], 1),
    (lambda w: w.update({"blocks.0.mlp.fc2.weight": torch.ones(48, 191), "norm.bias": torch.ones(2)}), [], [], 2),
    (lambda w: w.update({"blocks.01.norm1.weight": torch.ones(48)}), [], ["blocks.01.norm1.weight"], 0),
])
def test_what_does_not_fit_is_listed_and_refused(change, missing, unused, misshapen, tmp_path):
    weights = REFERENCES["timm"][0]()
    change(weights)
    path = saved(weights, tmp_path / "in.safetensors")
    with pytest.raises(LayoutMismatchError) as caught:
        import_weights(path, tmp_path / "out.safetensors", layout="timm", heads=HEADS)
    assert (caught.value.missing, caught.value.unused, len(caught.value.misshapen)) == (missing, unused, misshapen)
    assert all(name in str(caught.value) for name in [*missing, *unused, str(path)])
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(("layout", "name", "shape"), [
    ("timm", "patch_embed.proj.weight", (48, 1, 16, 16)), ("timm", "patch_embed.proj.weight", (48,)),
    ("timm", "pos_embed", (1, 18, 48)), ("timm", "pos_embed", (17, 48)), ("timm", "pos_embed", (1, 1, 48)),
    ("timm", "blocks.0.mlp.fc1.weight", (100, 48)), ("openai_clip", "visual.proj", (48,)),
    ("hugging_face", "vit.encoder.layer.1.attention.attention.key.weight", (48, 47)),
])
def test_shapes_that_no_vit_has(layout, name, shape, tmp_path):
    weights = REFERENCES[layout][0]()
    weights[name] = torch.zeros(shape)
    with pytest.raises(WeightImportError, match=name.removeprefix("vit.").replace(".", r"\.")):
        import_weights(saved(weights, tmp_path / "in.safetensors"), tmp_path / "out.safetensors", heads=HEADS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(value, tmp_path):
    weights = REFERENCES["timm"][0]()
    weights["norm.bias"][3] = value
    with pytest.raises(WeightImportError, match=r"norm\.bias holds NaN or infinity"):
        imported_backbone(weights, tmp_path)


def test_an_output_is_never_overwritten(tmp_path):
    (tmp_path / "out.safetensors").write_text("mine")
    with pytest.raises(WeightImportError, match="exists and is not overwritten"):
        imported_backbone(REFERENCES["timm"][0](), tmp_path)
    assert (tmp_path / "out.safetensors").read_text() == "mine"


def test_a_backbone_decides_nothing(tmp_path):
    imported_backbone(REFERENCES["timm"][0](), tmp_path)
    with pytest.raises(CheckpointError, match="a backbone, from which training starts, and no liveness model"):
        load_checkpoint(tmp_path / "out.safetensors")
    with pytest.raises(WeightImportError, match="takes no purpose"):
        import_weights(tmp_path / "in.safetensors", tmp_path / "other.safetensors", heads=HEADS, purpose=Purpose.TEST)
    assert not (tmp_path / "other.safetensors").exists()


def released_checkpoint(tmp_path, weights=None, **options):
    weights = released_weights() if weights is None else weights
    report = import_weights(saved(weights, tmp_path / "in.safetensors"), tmp_path / "out.safetensors", heads=HEADS,
                            **options)
    return report, load_checkpoint(tmp_path / "out.safetensors")


@torch.inference_mode()
def test_released_mmdg_computes_what_the_release_does(tmp_path):
    weights = released_weights()
    report, checkpoint = released_checkpoint(tmp_path, weights)
    planes = torch.randn(4, 3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    # The reference knows the limit of infinitely many dropout samples only.
    limit = dataclasses.replace(checkpoint.config, uncertainty_estimator=UncertaintyEstimatorKind.ANALYTIC)
    network = build_network(dataclasses.replace(checkpoint, config=limit))
    logits = network(planes, torch.ones(4, 3, dtype=torch.bool)).logits
    expected = released_forward(weights, planes)
    assert (report.layout, report.left_out) == ("mmdg", {})
    assert expected.std(dim=0).min() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("first", "second"), [
    ("adapter_1_2_2.0", "adapter_2_1_2.0"), ("adapter_1_2_2.0", "adapter_1_3_2.0"),
    ("adapter_1_2_2.0.adapter_down_1", "adapter_1_2_2.0.adapter_down_2"),
    ("adapter_3_1_2.0.cross_attention.q_linear", "adapter_3_1_2.0.cross_attention.k_linear"),
    ("ViT_Encoder.1", "ViT_Encoder.2"), ("conv_proj2", "conv_proj3"), ("class_token1", "class_token2"),
    ("pos_embedding2", "pos_embedding3"),
])
@torch.inference_mode()
def test_released_names_that_were_swapped_would_be_noticed(first, second, tmp_path):
    weights = released_weights()
    swapped = {(name.replace(first, second, 1) if name.startswith(first) else
                name.replace(second, first, 1) if name.startswith(second) else name): weight
               for name, weight in weights.items()}
    planes = torch.randn(4, 3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5))
    _, checkpoint = released_checkpoint(tmp_path, swapped)
    logits = build_network(checkpoint)(planes, torch.ones(4, 3, dtype=torch.bool)).logits
    assert (logits - released_forward(weights, planes)).abs().max() > 0.05


def test_purpose_of_a_released_model_is_test_unless_stated(tmp_path):
    report, checkpoint = released_checkpoint(tmp_path)
    assert report.purpose is checkpoint.purpose is Purpose.TEST
    assert checkpoint.input_spec.depth_encoding is DepthEncoding.IDENTITY_8BIT
    assert checkpoint.training["source_sha256"] == report.source_sha256
    (tmp_path / "b").mkdir()
    _, stated = released_checkpoint(tmp_path / "b", purpose=Purpose.RELEASE, depth_encoding=DepthEncoding.METRIC_8BIT)
    assert (stated.purpose, stated.input_spec.depth_encoding) == (Purpose.RELEASE, DepthEncoding.METRIC_8BIT)


def test_an_imported_checkpoint_passes_its_known_answer_test(tmp_path):
    _, checkpoint = released_checkpoint(tmp_path)
    assert TorchScorer(checkpoint).model_hash == checkpoint.hash
    assert json.dumps(checkpoint.training)


def test_released_mmdg_without_an_adapter_is_refused_by_its_own_names(tmp_path):
    weights = released_weights()
    del weights["adapter_3_1_2.1.adapter_up.bias"], weights["ViT_Encoder.2.ln_1.weight"]
    weights["adapter_1_1.0.adapter_up.bias"] = torch.zeros(48)
    with pytest.raises(LayoutMismatchError) as caught:
        released_checkpoint(tmp_path, weights, layout="mmdg")
    assert sorted(caught.value.missing) == ["ViT_Encoder.2.ln_1.weight", "adapter_3_1_2.1.adapter_up.bias"]
    assert caught.value.unused == ["adapter_1_1.0.adapter_up.bias"]


def test_backbone_of_another_size_is_not_placed(tmp_path):
    backbone = imported_backbone(REFERENCES["timm"][0](), tmp_path)
    network = build_mmdg(dataclasses.replace(backbone.config, depth=3, layer_norm_eps=1e-5).model_config())
    with pytest.raises(BackboneError, match="depth is 3 in the network, 2 in the backbone; layer_norm_eps is 1e-05 in"):
        place_backbone(network, backbone)


def test_positions_may_stay_the_network_s_own(tmp_path):
    backbone = imported_backbone(REFERENCES["timm"][0](), tmp_path)
    network = build_mmdg(backbone.config.model_config())
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    place_backbone(network, backbone, positions=False)
    untouched = {name for name, weight in network.state_dict().items() if torch.equal(weight, before[name])}
    assert untouched == {name for name in before if ".adapters." in name or name.endswith("position")
                         or name.startswith("head.")}
