"""The real libraries' models at random initialisation, against what their imported weights compute.

None of these libraries is a dependency. Where one is absent, its cases are skipped; the same comparisons with
forward passes written from the published structure run everywhere (`test_importing.py`).
"""

import importlib
import warnings

import pytest
import torch

from mmdg_model.network import build_mmdg
from mmdg_model.weights.backbone import load_backbone, place_backbone
from mmdg_model.weights.importing import import_weights
from tests.mmdg_model.weights.references import is_embedding

TINY = {"width": 48, "heads": 3, "depth": 2, "size": 64}
BASE = {"width": 768, "heads": 12, "depth": 12, "size": 224}


def library(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        # torchvision built for another torch raises RuntimeError, and takes with it whatever imports it.
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"{name} cannot be imported here ({str(error).splitlines()[0]}): no comparison with the real "
                        "library")


def torchvision_model(width, heads, depth, size):
    models = library("torchvision.models")
    model = models.VisionTransformer(image_size=size, patch_size=16, num_layers=depth, num_heads=heads,
                                     hidden_dim=width, mlp_dim=4 * width)
    model.heads = torch.nn.Identity()
    return model, model.state_dict(), model


def timm_model(width, heads, depth, size):
    transformers = library("timm.models.vision_transformer")
    model = transformers.VisionTransformer(img_size=size, patch_size=16, embed_dim=width, depth=depth, num_heads=heads,
                                           num_classes=7)
    return model, model.state_dict(), lambda image: model.forward_features(image)[:, 0]


def hugging_face_model(width, heads, depth, size):
    transformers = library("transformers")
    model = transformers.ViTModel(transformers.ViTConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * width,
        image_size=size, patch_size=16))
    return model, model.state_dict(), lambda image: model(image).last_hidden_state[:, 0]


def open_clip_model(width, heads, depth, size):
    clip = library("open_clip.model")
    model = clip.CLIP(embed_dim=24, quick_gelu=True,
                      vision_cfg={"layers": depth, "width": width, "head_width": width // heads, "patch_size": 16,
                                  "image_size": size},
                      text_cfg={"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1})
    return model, model.state_dict(), model.visual


MODELS = {"torchvision": torchvision_model, "timm": timm_model, "hugging_face": hugging_face_model,
          "openai_clip": open_clip_model}


@torch.inference_mode()
def test_files_that_hugging_face_writes_are_named_as_before(tmp_path):
    """In memory, its version 5 renames; on disk it does not. Both give one backbone."""
    model, weights, _ = hugging_face_model(**TINY)
    model.save_pretrained(tmp_path / "saved")
    torch.save(weights, tmp_path / "memory.pth")
    imported = []
    for source in (tmp_path / "saved" / "model.safetensors", tmp_path / "memory.pth"):
        import_weights(source, source.with_suffix(".backbone.safetensors"), heads=TINY["heads"])
        imported.append(load_backbone(source.with_suffix(".backbone.safetensors")).weights)
    assert all(torch.equal(weight, imported[1][name]) for name, weight in imported[0].items())


@pytest.mark.parametrize("sizes", [TINY, BASE], ids=["tiny", "base"])
@pytest.mark.parametrize("layout", MODELS)
@torch.inference_mode()
def test_real_model(layout, sizes, tmp_path):
    torch.manual_seed(0)
    model, weights, forward = MODELS[layout](**sizes)
    model.eval()
    for name, weight in weights.items():  # the model's own tensors: nothing may stay at a neutral value
        if weight.is_floating_point() and weight.dim():
            weight.add_(torch.randn_like(weight) * (0.02 if weight.dim() > 1 else 0.2))
            weight.mul_(1e-2 if is_embedding(name) else 1.0)
    torch.save(weights, tmp_path / "in.pth")
    report = import_weights(tmp_path / "in.pth", tmp_path / "out.safetensors", layout="auto", heads=sizes["heads"])
    backbone = load_backbone(tmp_path / "out.safetensors")
    network = build_mmdg(backbone.config.model_config()).eval()
    place_backbone(network, backbone)
    image = torch.randn(2, 3, sizes["size"], sizes["size"])
    planes = torch.zeros(2, 3, *image.shape[1:])
    planes[:, 1] = image
    present = torch.tensor([[False, True, False]] * 2)
    ours = network(planes, present).class_tokens[:, 1]
    if backbone.config.projection_width:
        ours = ours @ backbone.weights["projection"]
    theirs = forward(image)
    difference, spread = float((ours - theirs).abs().max()), float(theirs.std())
    print(f"\n{layout} {sizes['width']} wide: largest difference {difference:.2g}, spread of the outputs {spread:.2g}")
    assert report.layout == layout
    assert difference <= 2e-5 * max(1.0, spread)
