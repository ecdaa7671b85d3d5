"""Methods on CLIP: losses by hand and their gradients, a whole CLIP from its file to their features, refusals."""

import dataclasses
import math

import pytest
import safetensors.torch
import torch

from mmdg_model.config import TrainableParts
from mmdg_model.mmdg_plus_plus.config import DomainPromptConfig, MMDGPlusPlusConfig, QueryEstimator
from mmdg_model.mmdg_plus_plus.tokenizer import ClipTokenizer
from mmdg_model.mmdg_plus_plus.u_adapter_plus_plus import QueryDistribution
from mmdg_model.network import MODALITIES
from mmdg_model.training.methods.clip import mean_similarity
from mmdg_model.training.methods.clip_start import clip_shortfall, similarity_logits
from mmdg_model.training.methods.contract import MethodError
from mmdg_model.training.methods.flip import CLASS_SENTENCES, consistency, info_nce, random_view, sentence_halves
from mmdg_model.training.methods.mmdg_plus_plus import domain_loss, smoothed_losses
from mmdg_model.training.methods.registry import build, require_clip
from mmdg_model.weights.backbone import BackboneError, load_backbone, save_backbone
from mmdg_model.weights.importing import import_weights
from mmdg_model.weights.layout import WeightImportError
from tests.mmdg_model.mmdg_plus_plus.reference_clip import ReferenceClip, roughened
from tests.mmdg_model.training.methods.builders import (
    TOY,
    context,
    method,
    samples,
    toy_backbone,
    toy_clip,
    weights,
)

NAN = math.nan


# ---- MMDG++ ----

def test_the_domain_loss_by_hand():
    logits = torch.tensor([[[0.0, math.log(3.0), -math.inf]], [[0.0, 0.0, 0.0]], [[NAN, NAN, NAN]]])
    loss, entropy = domain_loss(logits, torch.tensor([1, 2, 0]), torch.tensor([[True], [True], [False]]))
    torch.testing.assert_close(loss, torch.tensor([[math.log(4 / 3)], [math.log(3.0)], [0.0]]))
    quarter = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    torch.testing.assert_close(entropy, torch.tensor([[quarter], [math.log(3.0)], [0.0]]))
    with pytest.raises(ValueError, match=r"domain rows \[3, 0, 0\], expected 0 to 2"):
        domain_loss(logits, torch.tensor([3, 0, 0]), torch.ones(3, 1, dtype=torch.bool))


@pytest.mark.parametrize(("before", "losses", "expected"), [
    ((NAN, NAN, NAN), (1.0, 2.0, NAN), (1.0, 2.0, NAN)),  # the first loss is its own average
    ((1.0, 2.0, NAN), (2.0, 0.0, 4.0), (1.5, 1.0, 4.0)),
    ((1.5, 1.0, 4.0), (NAN, 3.0, 0.0), (1.5, 2.0, 2.0)),  # an absent modality does not become the fast one
])
def test_smoothed_losses_are_an_average(before, losses, expected):
    assert smoothed_losses(before, losses, 0.5) == pytest.approx(expected, nan_ok=True)


def test_smoothed_losses_stay_finite_where_the_releases_sum_overflows():
    smoothed = (2.0,) * 3
    for _ in range(3000):
        smoothed = smoothed_losses(smoothed, (2.0, 1.0, 3.0), 0.5)
    assert smoothed == pytest.approx((2.0, 1.0, 3.0))


def test_each_update_modulates_prompts_tokens_positions_projections_and_adapters_of_every_modality():
    """The release's list index reaches twelve tensors and no adapter."""
    found = method("mmdg_plus_plus", dataclasses.replace(TOY, trainable_parts=TrainableParts.RELEASE))
    log = found.update([samples()])
    owned = [name for name, value in found.network.named_parameters()
             if value.requires_grad and "scoring.head." not in name]
    assert set(found._modulated) == set(owned)
    assert log["regrad/modulated_tensors"] > 12
    found.update([samples()])
    for modality in MODALITIES:
        assert any(f"adapters.0.of.{modality}." in name for name in owned)


def test_the_fast_modality_is_named_by_the_smoothed_losses_not_by_the_updates_own():
    found = method("mmdg_plus_plus", settings={"smoothing": 0.99})
    found.smoothed = (0.0, 50.0, 50.0)
    assert found.update([samples()])["regrad/fast/rgb"] == 1.0
    found.smoothed = (50.0, 50.0, 0.0)
    assert found.update([samples()])["regrad/fast/infrared"] == 1.0


def test_training_draws_queries_and_scores_do_not():
    found = method("mmdg_plus_plus")
    kinds = {module.estimator for module in found.network.modules() if isinstance(module, QueryDistribution)}
    assert kinds == {QueryEstimator.SAMPLED}
    found.update([samples()])
    before = weights(found)
    assert torch.equal(found.score(*samples()[:2]), found.score(*samples()[:2]))
    assert {module.estimator for module in found.network.modules()
            if isinstance(module, QueryDistribution)} == {QueryEstimator.SAMPLED}
    found.update([samples()])
    assert any(not torch.equal(value, before[name]) for name, value in weights(found).items()
               if name.endswith("log_variance.weight"))


def test_an_absent_modality_reaches_no_domain_loss():
    found = method("mmdg_plus_plus")
    batch = samples(dropped=[(row, 1) for row in range(8)])
    log = found.update([batch])
    assert math.isnan(log["ssp/depth"])
    assert math.isnan(log["domain_smoothed/depth"])
    assert log["loss/domain"] == pytest.approx(log["ssp/rgb"] + log["ssp/infrared"], rel=1e-5)
    assert found.trainable["prompts.prompts.depth"].grad is None or not found.trainable[
        "prompts.prompts.depth"].grad.any()


# ---- similarity ----

def test_similarity_is_temperature_times_cosine_over_the_modalities_seen():
    image, classes = torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(similarity_logits(image, classes, 10.0), torch.tensor([[6.0, 8.0]]))
    features = torch.tensor([[[3.0, 4.0], [1.0, 0.0]], [[3.0, 4.0], [NAN, NAN]]])
    found = mean_similarity(features, classes.expand(2, 2, 2), torch.tensor([[True, True], [True, False]]),
                            torch.tensor(10.0))
    torch.testing.assert_close(found, torch.tensor([[8.0, 4.0], [6.0, 8.0]]))


# ---- FLIP ----

def test_info_nce_by_hand():
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    found = info_nce(torch.stack([east, north]), torch.stack([3 * east, north]), temperature=0.5)
    # Each view: its other at cosine 1, two others at 0.
    assert found.item() == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 2)))
    assert info_nce(east[None], north[None]).item() == 0.0  # nothing to be told from


def test_consistency_by_hand():
    assert consistency(torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.0])).item() == pytest.approx(0.625)


@pytest.mark.parametrize("loss", [
    lambda a, b: info_nce(a, b), lambda a, b: consistency(a[:, 0], b[:, 0]), lambda a, b: similarity_logits(a, b, 3.0),
    lambda a, b: domain_loss(torch.stack([a, b], dim=1), torch.tensor([0, 2, 1]),
                             torch.tensor([[True, True], [False, True], [True, True]]))[0],
    lambda a, b: mean_similarity(torch.stack([a, b], dim=1), torch.stack([b, a]),
                                 torch.tensor([[True, True], [False, True], [True, True]]), torch.tensor(2.0)),
])
def test_gradients_are_right(loss):
    torch.manual_seed(0)
    both = [torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(loss, both)


def test_halves_of_sentences_are_a_partition_drawn_for_each_sample():
    """The release draws one half with replacement, so that its halves are of unequal size and need not cover."""
    torch.manual_seed(0)
    drawn = sentence_halves(6, 50, drawn=True, device=torch.device("cpu"))
    assert drawn.sum(dim=1).tolist() == [3] * 50
    assert len({tuple(row) for row in drawn.tolist()}) > 5
    assert sentence_halves(6, 2, drawn=False, device=torch.device("cpu"))[1].tolist() == [True] * 3 + [False] * 3
    assert len({len(each) for each in CLASS_SENTENCES}) == 1


def test_views_differ_by_their_strength_and_not_at_all_without():
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16)
    assert random_view(images, 0.0) is images
    gaps = [float((random_view(images, strength) - images).abs().mean()) for strength in (0.05, 1.0)]
    assert gaps[1] > 0.01
    assert random_view(images, 1.0).isfinite().all()


# ---- from a file of a whole CLIP ----

IMAGE = MMDGPlusPlusConfig(width=24, heads=3, depth=2, image_size=32, feature_width=16)
TEXT = DomainPromptConfig(width=16, heads=1, depth=2, feature_width=16)


@pytest.fixture(scope="module")
def reference():
    return roughened(ReferenceClip(IMAGE, TEXT))


@pytest.fixture(scope="module")
def imported(reference, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    safetensors.torch.save_file(reference.state_dict(), folder / "clip.safetensors")
    report = import_weights(folder / "clip.safetensors", folder / "whole.safetensors", heads=3, text_tower=True)
    assert report.text_tower
    return load_backbone(folder / "whole.safetensors")


def test_features_of_images_and_sentences_are_clips(reference, imported):
    found = build("flip", {}, context(backbone=imported)).network.eval()
    images = torch.randn(2, 3, 32, 32)
    encoder = ClipTokenizer()
    ids = [[encoder.start_of_text, *encoder.encode(text), encoder.end_of_text] for text in CLASS_SENTENCES[0]]
    with torch.no_grad():
        torch.testing.assert_close(found.image(images), reference.encode_image(images), rtol=1e-4, atol=1e-4)
        sentences = torch.cat([reference.encode_text(torch.tensor([row])) for row in ids])
        torch.testing.assert_close(found.sentences()[0], sentences, rtol=1e-4, atol=1e-4)
        assert found.sentences.temperature.item() == pytest.approx(math.exp(3.0))


def test_mmdg_plus_plus_starts_from_clip_and_keeps_only_the_words_in_use(reference, imported):
    found = build("mmdg_plus_plus", {}, context(backbone=imported)).network
    own = found.scoring.state_dict()
    for modality in MODALITIES:
        torch.testing.assert_close(own[f"ends.{modality}.projection"], reference.visual.proj.detach())
        torch.testing.assert_close(own[f"ends.{modality}.class_token"][0, 0], reference.visual.class_embedding.detach())
    torch.testing.assert_close(own["tower.embedding_norm.bias"], reference.visual.ln_pre.bias.detach())
    torch.testing.assert_close(own["tower.patches.weight"], reference.visual.conv1.weight.detach())
    torch.testing.assert_close(found.prompts.tower.token_embedding.weight.detach(),
                               reference.token_embedding.weight.detach()[found.used])
    assert len(found.used) < 100


def test_pixels_are_normalised_as_clips_were():
    found, batch = method("clip"), samples()
    levels = torch.full((1, 3, 3, 32, 32), 200.0)
    planes = (levels - 127.5) / 128.0
    expected = (200 / 255 - 0.48145466) / 0.26862954
    torch.testing.assert_close(found.network.pixels(planes)[0, 0, 0], torch.full((32, 32), expected))
    assert found.network.pixels(batch.planes).shape == batch.planes.shape


def test_a_backbone_file_keeps_its_text_tower_and_refuses_a_damaged_one(tmp_path):
    whole = toy_clip()
    save_backbone(whole, tmp_path / "whole.safetensors")
    read = load_backbone(tmp_path / "whole.safetensors")
    assert read.text.keys() == whole.text.keys()
    assert clip_shortfall(read) is None
    broken = dict(whole.text)
    del broken["norm.bias"]
    with pytest.raises(BackboneError, match=r"text weight 'norm\.bias' is missing; import it again with --text-tower"):
        save_backbone(dataclasses.replace(whole, text=broken), tmp_path / "broken.safetensors")


@pytest.mark.parametrize(("name", "backbone", "message"), [
    ("flip", None, "method flip needs CLIP weights: name them with --backbone; mmdg import-weights"),
    ("clip", toy_backbone(), "the backbone is of layout 'test'"),
    ("mmdg_plus_plus", dataclasses.replace(toy_clip(), text=None), "holds no text tower"),
])
def test_a_run_without_clip_is_refused_before_it_is_written(name, backbone, message):
    with pytest.raises(MethodError, match=message):
        require_clip(name, backbone)
    require_clip("vit_late", backbone)


def test_the_text_tower_of_an_image_tower_alone_is_refused(reference, tmp_path):
    visual = {name: value for name, value in reference.state_dict().items() if name.startswith("visual.")}
    safetensors.torch.save_file(visual, tmp_path / "in.safetensors")
    with pytest.raises(WeightImportError, match="--text-tower needs the whole CLIP"):
        import_weights(tmp_path / "in.safetensors", tmp_path / "out.safetensors", heads=3, text_tower=True)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_finished_run_can_be_opened_without_its_backbone():
    trained = method("flip")
    trained.update([samples()])
    opened = build("flip", {}, dataclasses.replace(context(), weights_follow=True))
    opened.network.load_state_dict(weights(trained))
    assert torch.equal(opened.score(*samples()[:2]), trained.score(*samples()[:2]))


def test_a_clip_of_other_proportions_is_refused():
    other = toy_clip(dataclasses.replace(TOY, width=48))
    with pytest.raises(MethodError, match="none of ViT-B's proportions: joint space 32, needed 16"):
        build("clip", {}, context(backbone=other))
