"""Released MMDG++ weights: every name placed, sizes as published, and a file that nothing takes for something else."""

import json

import pytest
import safetensors.torch
import torch

from mmdg_model.checkpoint import CheckpointError, load_checkpoint
from mmdg_model.safetensors_header import PLUS_PLUS_KEY
from mmdg_model.scorer import Purpose
from mmdg_model.weights.importing import import_weights
from mmdg_model.weights.layout import LayoutMismatchError, Result, WeightImportError
from mmdg_model.weights.plus_plus_file import PlusPlusFileError, load_plus_plus
from mmdg_model.weights.released_mmdg_plus_plus import plus_plus_shapes
from tests.mmdg_model.weights.references import DEPTH, HEADS, TOKENS, WIDTH, lively, shapes_clip

PROJECTION = 24

BASE = {"width": 768, "heads": 12, "depth": 12, "patch_size": 16, "image_size": 224, "mlp_ratio": 4, "adapter_width": 8,
        "projection_width": 512, "domains": 5, "prompt_tokens": 5, "prompt_width": 512}


def plus_plus_weights():
    """Under the names of the released class: CLIP under `model`, three of everything that is trained."""
    shapes = {f"model.{name}": shape for name, shape in shapes_clip().items()}
    shapes |= {"fc_all.0.weight": (2, 3 * PROJECTION), "fc_all.0.bias": (2,)}
    for branch in (1, 2, 3):
        shapes |= {f"class_token_{branch}": (WIDTH,), f"pos_{branch}": (TOKENS, WIDTH),
                   f"visual_proj_{branch}": (WIDTH, PROJECTION), f"prompts_{branch}": (5, 4, 32)}
        for block in range(DEPTH):
            at = f"conv_pass_{branch}.{block}"
            attention = ("q_linear_1", "q_linear_2", "k_linear", "v_linear", "mean_mlp_1", "mean_mlp_2", "std_mlp_1",
                         "std_mlp_2", "proj")
            shapes |= {f"{at}.cross_attention.{name}.weight": (8, 8) for name in attention}
            shapes |= {f"{at}.cross_attention.proj.bias": (8,), f"{at}.adapter_conv.conv.weight": (8, 8, 3, 3),
                       f"{at}.adapter_mlp.weight": (8, 8), f"{at}.adapter_mlp.bias": (8,),
                       f"{at}.adapter_up.weight": (WIDTH, 8), f"{at}.adapter_up.bias": (WIDTH,)}
            for name in ("k_v", "q"):
                shapes |= {f"{at}.ln_{name}.weight": (8,), f"{at}.ln_{name}.bias": (8,),
                           f"{at}.adapter_down_{name}.weight": (8, WIDTH), f"{at}.adapter_down_{name}.bias": (8,)}
    return lively(shapes)


def imported(tmp_path, weights=None, **options):
    safetensors.torch.save_file(plus_plus_weights() if weights is None else weights, tmp_path / "in.safetensors")
    report = import_weights(tmp_path / "in.safetensors", tmp_path / "out.safetensors", heads=HEADS, **options)
    return report, load_plus_plus(tmp_path / "out.safetensors")


def test_every_weight_is_placed_or_said_to_be_left_out(tmp_path):
    weights = plus_plus_weights()
    report, released = imported(tmp_path, weights)
    assert (report.layout, report.result, report.purpose) == ("mmdg_plus_plus", Result.MMDG_PLUS_PLUS, Purpose.TEST)
    assert all(name.startswith("model.") for name in report.left_out)
    assert len(released.weights) + len(report.left_out) == len(weights)
    placed = sorted(float(weight.double().sum()) for weight in released.weights.values())
    assert placed == sorted(float(weight.double().sum()) for name, weight in weights.items()
                            if name not in report.left_out)
    assert released.sizes == BASE | {"width": WIDTH, "heads": HEADS, "depth": DEPTH, "image_size": 64,
                                     "projection_width": PROJECTION, "prompt_tokens": 4, "prompt_width": 32}


@pytest.mark.parametrize(("ours", "theirs"), [
    ("embeddings.infrared.class_token", "class_token_3"), ("embeddings.depth.position", "pos_2"),
    ("projections.rgb", "visual_proj_1"), ("prompts.depth", "prompts_2"),
    ("blocks.1.adapters.depth.own_down.weight", "conv_pass_2.1.adapter_down_k_v.weight"),
    ("blocks.0.adapters.rgb.source_norm.bias", "conv_pass_1.0.ln_q.bias"),
    ("blocks.0.adapters.infrared.cross_attention.query_own.weight", "conv_pass_3.0.cross_attention.q_linear_2.weight"),
    ("blocks.0.adapters.rgb.cross_attention.log_variance_source.weight",
     "conv_pass_1.0.cross_attention.std_mlp_1.weight"),
    ("blocks.1.block.mlp.2.weight", "model.visual.transformer.resblocks.1.mlp.c_proj.weight"),
    ("embedding_norm.weight", "model.visual.ln_pre.weight"), ("norm.bias", "model.visual.ln_post.bias"),
])
def test_placement(tmp_path, ours, theirs):
    weights = plus_plus_weights()
    _, released = imported(tmp_path, weights)
    assert torch.equal(released.weights[ours].squeeze(), weights[theirs].squeeze())


def test_published_parameter_counts():
    sizes = {name: torch.Size(shape).numel() for name, shape in plus_plus_shapes(BASE).items()}
    adapters = sum(size for name, size in sizes.items() if ".adapters." in name)
    trained = adapters + sum(size for name, size in sizes.items()
                             if name.startswith(("embeddings.", "projections.", "prompts.", "head.")))
    assert (adapters, trained) == (36 * 20_480, 2_414_594)


@pytest.mark.parametrize(("change", "error", "complaint"), [
    (lambda w: w.pop("pos_2"), LayoutMismatchError, "1 missing: pos_2"),
    (lambda w: w.update(extra=torch.zeros(1)), LayoutMismatchError, "1 unused: extra"),
    (lambda w: w.update(pos_2=torch.zeros(3, WIDTH)), LayoutMismatchError, r"1 misshapen: pos_2 \(1, 3, 48\)"),
    (lambda w: w.update(prompts_1=torch.zeros(3)), WeightImportError, r"prompts_1 has shape \(3,\), needed 3 axes"),
    (lambda w: w.update(visual_proj_1=torch.zeros(3)), WeightImportError, r"visual_proj_1 has shape \(3,\)"),
    (lambda w: w.update({"conv_pass_1.0.adapter_down_k_v.weight": torch.zeros(3)}), WeightImportError,
     "adapter_down_k_v.weight has shape"),
])
def test_what_does_not_fit_is_refused(tmp_path, change, error, complaint):
    weights = plus_plus_weights()
    change(weights)
    with pytest.raises(error, match=complaint):
        imported(tmp_path, weights, layout="mmdg_plus_plus")
    assert not (tmp_path / "out.safetensors").exists()


def test_it_is_no_checkpoint(tmp_path):
    imported(tmp_path, purpose=Purpose.RELEASE)
    with pytest.raises(CheckpointError, match="released MMDG\\+\\+ weights, which are no checkpoint"):
        load_checkpoint(tmp_path / "out.safetensors")


@pytest.mark.parametrize(("change", "complaint"), [
    (lambda a: a.update(purpose="trust me"), "'trust me'"), (lambda a: a.update(format_version=2), "format_version"),
    (lambda a: a["sizes"].update(depth=10**6), "sizes are"), (lambda a: a["sizes"].update(depth=1), "is not as its"),
    (lambda a: a["sizes"].update(width="48"), "sizes are"), (lambda a: a["sizes"].pop("domains"), "metadata is"),
])
def test_altered_files_are_refused(tmp_path, change, complaint):
    _, released = imported(tmp_path)
    with safetensors.safe_open(tmp_path / "out.safetensors", "pt") as file:
        about = json.loads(file.metadata()[PLUS_PLUS_KEY])
    change(about)
    safetensors.torch.save_file(released.weights, tmp_path / "bad.safetensors", {PLUS_PLUS_KEY: json.dumps(about)})
    with pytest.raises(PlusPlusFileError, match=complaint):
        load_plus_plus(tmp_path / "bad.safetensors")


def test_other_files_are_refused(tmp_path):
    safetensors.torch.save_file(plus_plus_weights(), tmp_path / "bare.safetensors")
    for path in (tmp_path / "bare.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(PlusPlusFileError, match="import them again"):
            load_plus_plus(path)
