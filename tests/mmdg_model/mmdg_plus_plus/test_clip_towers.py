"""Both CLIP towers give what a CLIP gives: one built from torch's parts always, published libraries where installed.

No weights are needed: the libraries' models are built at random.
"""

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.mmdg_plus_plus.clip_towers import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, build_text_tower
from mmdg_model.mmdg_plus_plus.clip_weights import ClipWeightsError, load_clip_image_side, load_clip_text_side
from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig, MMDGPlusPlusConfig
from mmdg_model.mmdg_plus_plus.network import build_mmdg_plus_plus
from tests.mmdg_model.mmdg_plus_plus.builders import random_planes
from tests.mmdg_model.mmdg_plus_plus.published_clips import MAKERS, embeddings, reference_clip
from tests.mmdg_model.mmdg_plus_plus.reference_clip import roughened

# CLIP's own model files give a head 64 channels.
IMAGE = MMDGPlusPlusConfig(width=128, heads=2, depth=3, image_size=64, feature_width=24)
TEXT = DomainPromptConfig(width=64, heads=1, depth=3, feature_width=24, vocabulary_size=300)


@pytest.fixture(params=MAKERS)
def clip(request):
    try:
        return MAKERS[request.param](IMAGE, TEXT)
    except ModuleNotFoundError as error:
        pytest.skip(f"no CLIP of {request.param} to compare with: {error}")


def loaded(clip, image=IMAGE, text=TEXT):
    network, tower = build_mmdg_plus_plus(image).eval(), build_text_tower(text).eval()
    load_clip_image_side(network, clip.state_dict())
    load_clip_text_side(tower, clip.state_dict())
    return network, tower


def normalised(planes):
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (CLIP_PIXEL_MEAN, CLIP_PIXEL_STD))
    return (planes - mean) / std


def random_ids(text=TEXT, rows=6):
    """Sentences of random words with their ends, the largest id, at random places."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, text.vocabulary_size - 1, (rows, text.context_length), generator=generator)
    ends = torch.randint(3, text.context_length, (rows,), generator=generator)
    for row, end in enumerate(ends):
        ids[row, end] = text.vocabulary_size - 1
        ids[row, end + 1:] = 0
    return ids, ends


@torch.no_grad()
def test_each_modality_starts_as_the_clip(clip):
    network, _ = loaded(clip)
    planes = random_planes(4, IMAGE)
    features = network(planes, torch.ones(4, 3, dtype=torch.bool)).class_tokens
    for modality in range(3):
        expected = F.normalize(clip.encode_image(normalised(planes[:, modality])), dim=-1)
        assert expected.std(dim=0).mean() > 1e-2  # images differ, so agreement says something
        torch.testing.assert_close(features[:, modality], expected, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_sentences_become_what_the_clip_makes_of_them(clip):
    _, tower = loaded(clip)
    ids, ends = random_ids()
    expected = clip.encode_text(ids)
    assert expected.std(dim=0).mean() > 1e-1
    torch.testing.assert_close(tower(tower.token_embedding(ids), ends), expected, atol=1e-4, rtol=1e-4)
    assert tower.logit_scale == clip.logit_scale


@torch.no_grad()
def test_layer_norms_have_clips_epsilon(clip):
    """Embeddings so faint that their variance is of its size: 1e-6 or 1e-12 in its place would show."""
    for embedding in embeddings(clip):
        embedding.mul_(1e-3)
    network, tower = loaded(clip)
    planes, (ids, ends) = random_planes(4, IMAGE), random_ids()
    features = network(planes, torch.ones(4, 3, dtype=torch.bool)).class_tokens[:, 0]
    expected = F.normalize(clip.encode_image(normalised(planes[:, 0])), dim=-1)
    torch.testing.assert_close(features, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(tower(tower.token_embedding(ids), ends), clip.encode_text(ids), atol=1e-4, rtol=1e-4)
    network.tower.embedding_norm.eps = tower.blocks[0].attention_norm.eps = 1e-6
    other = network(planes, torch.ones(4, 3, dtype=torch.bool)).class_tokens[:, 0]
    assert (other - features).abs().max() > 1e-3
    assert (tower(tower.token_embedding(ids), ends) - clip.encode_text(ids)).abs().max() > 1e-3


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
    network, weights = build_mmdg_plus_plus(IMAGE), reference_clip(IMAGE, TEXT).state_dict()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    change(weights)
    with pytest.raises(ClipWeightsError, match=quoted):
        load_clip_image_side(network, weights)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_text_weights_must_be_whole():
    weights = reference_clip(IMAGE, TEXT).state_dict()
    del weights["ln_final.bias"]
    with pytest.raises(ClipWeightsError, match=r"norm\.bias is missing"):
        load_clip_text_side(build_text_tower(TEXT), weights)


def test_an_openai_file_has_numbers_beside_its_weights():
    numbers = {"input_resolution": 64, "context_length": 77, "vocab_size": 300}
    weights = reference_clip(IMAGE, TEXT).state_dict() | {
        name: torch.tensor(number) for name, number in numbers.items()}
    load_clip_text_side(build_text_tower(TEXT), weights)


def test_size_of_the_published_clip():
    """All that OpenAI's ViT-B/16 file holds, once."""
    with torch.device("meta"):
        network, text = build_mmdg_plus_plus(MMDGPlusPlusConfig.base()), build_text_tower(DomainPromptConfig())
    parts = (network.tower, network.ends["rgb"], text)
    assert sum(parameter.numel() for part in parts for parameter in part.parameters()) == 149_620_737
    assert not any(parameter.requires_grad for part in (network.tower, text) for parameter in part.parameters())


