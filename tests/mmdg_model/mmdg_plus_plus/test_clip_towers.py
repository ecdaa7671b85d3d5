"""Both CLIP towers give what a CLIP gives: one built from torch's parts always, published libraries where installed.

The libraries' models are built at random, no weights are needed. `clip-anytorch` carries OpenAI's own model file, which
needs torch only and is read past the package's root (that wants torchvision); `transformers` is Hugging Face's.
"""

import importlib.metadata
import importlib.util

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.mmdg_plus_plus.clip_towers import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, build_text_tower
from mmdg_model.mmdg_plus_plus.clip_weights import ClipWeightsError, load_clip_image_side, load_clip_text_side
from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig, MMDGPlusPlusConfig
from mmdg_model.mmdg_plus_plus.network import build_mmdg_plus_plus
from tests.mmdg_model.mmdg_plus_plus.builders import random_planes
from tests.mmdg_model.mmdg_plus_plus.reference_clip import ReferenceClip, roughened

# CLIP's own model files give a head 64 channels.
IMAGE = MMDGPlusPlusConfig(width=128, heads=2, depth=3, image_size=64, feature_width=24)
TEXT = DomainPromptConfig(width=64, heads=1, depth=3, feature_width=24, vocabulary_size=300)
END = TEXT.vocabulary_size - 1


def openai_clip():
    try:
        file = importlib.metadata.distribution("clip-anytorch").locate_file("clip/model.py")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("clip-anytorch, which carries OpenAI's model file, is not installed")
    specification = importlib.util.spec_from_file_location("openai_clip_model", file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return roughened(module.CLIP(
        IMAGE.feature_width, IMAGE.image_size, IMAGE.depth, IMAGE.width, IMAGE.patch_size, TEXT.context_length,
        TEXT.vocabulary_size, TEXT.width, TEXT.heads, TEXT.depth))


def reference_clip():
    return roughened(ReferenceClip(IMAGE, TEXT))


CLIPS = pytest.mark.parametrize("make_clip", [reference_clip, openai_clip])


def loaded(clip):
    network, tower = build_mmdg_plus_plus(IMAGE).eval(), build_text_tower(TEXT).eval()
    load_clip_image_side(network, clip.state_dict())
    load_clip_text_side(tower, clip.state_dict())
    return network, tower


def normalised(planes):
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (CLIP_PIXEL_MEAN, CLIP_PIXEL_STD))
    return (planes - mean) / std


def random_ids(rows=6):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, END, (rows, TEXT.context_length), generator=generator)
    ends = torch.randint(3, TEXT.context_length, (rows,), generator=generator)
    for row, end in enumerate(ends):
        ids[row, end] = END
        ids[row, end + 1:] = 0
    return ids, ends


@torch.no_grad()
@CLIPS
def test_each_modality_starts_as_the_clip(make_clip):
    clip = make_clip()
    network, _ = loaded(clip)
    planes = random_planes(4, IMAGE)
    features = network(planes, torch.ones(4, 3, dtype=torch.bool)).class_tokens
    for modality in range(3):
        expected = F.normalize(clip.encode_image(normalised(planes[:, modality])), dim=-1)
        assert expected.std(dim=0).mean() > 1e-2  # images differ, so agreement says something
        torch.testing.assert_close(features[:, modality], expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
@CLIPS
def test_sentences_become_what_the_clip_makes_of_them(make_clip):
    clip = make_clip()
    _, tower = loaded(clip)
    ids, ends = random_ids()
    expected = clip.encode_text(ids)
    assert expected.std(dim=0).mean() > 1e-1
    torch.testing.assert_close(tower(tower.token_embedding(ids), ends), expected, atol=1e-4, rtol=1e-4)
    assert tower.logit_scale == clip.logit_scale


@torch.no_grad()
def test_nothing_after_the_end_of_a_sentence_matters():
    tower = roughened(build_text_tower(TEXT))
    ids, ends = random_ids()
    cut = int(ends.max()) + 1
    altered = ids.clone()
    for row, end in enumerate(ends):
        altered[row, end + 1:] = 7
    whole = tower(tower.token_embedding(ids), ends)
    torch.testing.assert_close(tower(tower.token_embedding(ids[:, :cut]), ends), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tower(tower.token_embedding(altered), ends), whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_equals_hugging_face():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    vision = roughened(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(
        hidden_size=IMAGE.width, intermediate_size=4 * IMAGE.width, num_hidden_layers=IMAGE.depth,
        num_attention_heads=IMAGE.heads, image_size=IMAGE.image_size, patch_size=IMAGE.patch_size,
        projection_dim=IMAGE.feature_width)))
    text = roughened(transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(
        vocab_size=TEXT.vocabulary_size, hidden_size=TEXT.width, intermediate_size=4 * TEXT.width,
        num_hidden_layers=TEXT.depth, num_attention_heads=TEXT.heads, projection_dim=TEXT.feature_width,
        max_position_embeddings=TEXT.context_length, eos_token_id=END, pad_token_id=0, bos_token_id=1)))
    weights = {"logit_scale": torch.tensor(3.0)} | as_openai(vision.state_dict(), "visual.") | as_openai(
        text.state_dict(), "")
    network, tower = build_mmdg_plus_plus(IMAGE).eval(), build_text_tower(TEXT).eval()
    load_clip_image_side(network, weights)
    load_clip_text_side(tower, weights)
    planes, (ids, ends) = random_planes(4, IMAGE), random_ids()
    features = network(planes, torch.ones(4, 3, dtype=torch.bool)).class_tokens[:, 0]
    expected = vision(pixel_values=normalised(planes[:, 0])).image_embeds
    torch.testing.assert_close(features, F.normalize(expected, dim=-1), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(tower(tower.token_embedding(ids), ends), text(input_ids=ids).text_embeds,
                               atol=1e-4, rtol=1e-4)


def as_openai(weights, prefix):
    """Hugging Face's names to OpenAI's; query, key and value joined; projections transposed."""
    plain, joint = {}, {}
    names = {"embeddings.class_embedding": "class_embedding", "embeddings.patch_embedding.weight": "conv1.weight",
             "embeddings.token_embedding.weight": "token_embedding.weight", "visual_projection.weight": "proj",
             "embeddings.position_embedding.weight": "positional_embedding",
             "text_projection.weight": "text_projection"}
    for name, weight in weights.items():
        name = name.removeprefix("vision_model.").removeprefix("text_model.")
        if name.endswith("position_ids"):
            continue
        if name.endswith("projection.weight"):
            weight = weight.T
        for old, new in (("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post"), ("final_layer_norm", "ln_final"),
                         ("encoder.layers", "transformer.resblocks"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                         ("self_attn.out_proj", "attn.out_proj"), ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
            name = name.replace(old, new)
        name = names.get(name, name)
        if "self_attn" in name:
            block, which = name.split(".self_attn.")
            joint.setdefault(f"{prefix}{block}.attn.in_proj_{which.split('.')[1]}", {})[which[0]] = weight
        else:
            plain[prefix + name] = weight
    return plain | {name: torch.cat([parts[which] for which in "qkv"]) for name, parts in joint.items()}


@pytest.mark.parametrize(("change", "quoted"), [
    (lambda weights: weights.pop("visual.proj"), "ends.depth.projection is missing"),
    (lambda weights: weights.pop("visual.transformer.resblocks.1.mlp.c_fc.bias"),
     "tower.blocks.1.mlp.0.bias is missing"),
    (lambda weights: weights.update({"visual.conv1.bias": torch.zeros(128)}), "tower.conv1.bias is unknown"),
    (lambda weights: weights.update({"visual.transformer.resblocks.3.ln_1.bias": torch.zeros(128)}),
     "tower.blocks.3.attention_norm.bias is unknown"),
    (lambda weights: weights.update({"visual.positional_embedding": torch.zeros(50, 128)}),
     r"ends\.rgb\.position has shape \(50, 128\), needed \(1, 17, 128\)"),
    (lambda weights: weights.clear(), "is missing.*and 45 more"),
])
def test_weights_of_another_network_change_nothing(change, quoted):
    network, weights = build_mmdg_plus_plus(IMAGE), reference_clip().state_dict()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    change(weights)
    with pytest.raises(ClipWeightsError, match=quoted):
        load_clip_image_side(network, weights)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_text_weights_must_be_whole():
    weights = reference_clip().state_dict()
    del weights["ln_final.bias"]
    with pytest.raises(ClipWeightsError, match=r"norm\.bias is missing"):
        load_clip_text_side(build_text_tower(TEXT), weights)


def test_an_openai_file_has_numbers_beside_its_weights():
    weights = reference_clip().state_dict() | {"input_resolution": torch.tensor(64), "vocab_size": torch.tensor(300),
                                               "context_length": torch.tensor(77)}
    load_clip_text_side(build_text_tower(TEXT), weights)


def test_size_of_the_published_clip():
    """All that OpenAI's ViT-B/16 file holds, once."""
    with torch.device("meta"):
        network, text = build_mmdg_plus_plus(MMDGPlusPlusConfig.base()), build_text_tower(DomainPromptConfig())
    parts = (network.tower, network.ends["rgb"], text)
    assert sum(parameter.numel() for part in parts for parameter in part.parameters()) == 149_620_737
    assert not any(parameter.requires_grad for part in (network.tower, text) for parameter in part.parameters())


