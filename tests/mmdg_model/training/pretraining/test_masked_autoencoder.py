import dataclasses

import numpy as np
import pytest
import torch

from mmdg_model.network import MODALITIES, build_mmdg
from mmdg_model.training.pretraining.config import DecoderConfig, ObjectiveConfig, PretrainingConfig
from mmdg_model.training.pretraining.masked_autoencoder import (
    MaskedBatch,
    as_images,
    as_patches,
    build_masked_autoencoder,
    sine_positions,
)
from mmdg_model.training.pretraining.run import LAYOUTS
from mmdg_model.weights.backbone import Backbone, place_backbone
from tests.mmdg_model.training.pretraining.builders import TOY

MODEL = TOY.resolve()
PATCHES = MODEL.grid**2


def network(seed=0, **objective):
    return build_masked_autoencoder(MODEL, DecoderConfig(width=24, depth=1, heads=3), ObjectiveConfig(**objective),
                                    seed=seed)


def a_batch(b=3, visible=4, seed=1, absent=()):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(b, 3, PATCHES, generator=generator)
    present = torch.ones(b, 3, dtype=torch.bool)
    for row, modality in absent:
        present[row, modality] = False
    return MaskedBatch(torch.randn(b, 3, 3, 32, 32, generator=generator) * 0.3, present,
                       noise.argsort(dim=2)[:, :, :visible].sort(dim=2).values, torch.tensor([[1, 2, 0]] * b))


def test_patches_and_images_are_inverse():
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(as_images(as_patches(images, 8), 8, 32), images)
    assert torch.equal(as_patches(images, 8)[1, 6].reshape(3, 8, 8), images[1, :, 8:16, 16:24])  # row 1, column 2


def test_with_every_patch_visible_the_encoder_is_mmdg_with_silent_adapters():
    torch.manual_seed(5)
    ours, mmdg = network(), build_mmdg(dataclasses.replace(MODEL)).eval()
    backbone = Backbone(config=PretrainingConfig(model=TOY).backbone_config(), layout=LAYOUTS[True], source_sha256="",
                        weights=ours.encoder.state_dict(), pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3, created_by="")
    place_backbone(mmdg, backbone)
    planes = torch.randn(2, 3, 3, 32, 32)
    everything = torch.arange(PATCHES).expand(6, -1)
    with torch.inference_mode():
        tokens = ours.encoder(as_patches(planes.flatten(0, 1), 8), everything)
        expected = mmdg(planes, torch.ones(2, 3, dtype=torch.bool)).class_tokens
    torch.testing.assert_close(tokens[:, 0].reshape(2, 3, -1), expected, rtol=0, atol=2e-5)


def test_hidden_patches_and_other_modalities_change_no_token():
    ours, batch = network().eval(), a_batch()
    with torch.inference_mode():
        before = ours(batch)
        hidden = torch.ones(3, 3, PATCHES, dtype=torch.bool).scatter(2, batch.kept, value=False)
        patches = as_patches(batch.planes, 8)
        patches[hidden] = 7.0
        changed = as_images(patches.flatten(0, 1), 8, 32).reshape_as(batch.planes)
        after = ours(batch._replace(planes=changed))
    assert not torch.equal(changed, batch.planes)
    for name in ("own", "across", "patch_means"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name


def test_a_missing_modality_is_no_image_and_its_plane_changes_nothing():
    ours, batch = network().eval(), a_batch(absent=[(1, 2)])
    batch.other[1] = torch.tensor([1, 0, 2])
    noisy = batch._replace(planes=batch.planes.clone())
    noisy.planes[1, 2] = float("nan")
    totals = []
    for each in (batch, noisy):
        made = ours(each)
        assert list(zip(made.sample.tolist(), made.modality.tolist(), strict=True)) == [
            (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
        errors = ours.errors(each, made)
        totals.append(ours.total(errors))
    assert torch.isfinite(totals[0])
    assert torch.equal(*totals)


def test_only_hidden_patches_count():
    ours, batch = network(), a_batch()
    made = ours(batch)
    assert made.hidden.sum(dim=1).tolist() == [PATCHES - 4] * 9
    visible = ~made.hidden[:, :, None]
    wrong = made._replace(own=torch.where(visible, made.own + 100.0, made.own))
    assert torch.equal(ours.errors(batch, made).masked, ours.errors(batch, wrong).masked)
    worse = made._replace(own=made.own + 100.0)
    assert ours.errors(batch, worse).masked.min() > 1000.0


def test_normalised_patches_have_mean_0_and_variance_1_but_flat_ones_stay_flat():
    noise = np.random.default_rng(0)
    textured = torch.from_numpy(noise.normal(0.2, 0.3, (1, 192)).astype(np.float32))
    one_level = torch.from_numpy(noise.integers(0, 2, (1, 192)).astype(np.float32)) / 128.0 - 1.0
    targets, means = network().normalised(torch.cat([textured, one_level, torch.full((1, 192), -1.0)]))
    assert targets.mean(dim=1).abs().max() < 1e-5
    assert targets[0].var(correction=0) == pytest.approx(1.0, abs=0.01)
    assert targets[1].abs().max() < 0.5  # compression noise of one level is not blown up to contrast
    assert targets[2].abs().max() == 0.0
    assert torch.allclose(means[0], textured.reshape(3, 64).mean(dim=1), atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_class_token_learns_by_its_own_target_only_where_it_has_weight(weight):
    """MAE's class token reaches its loss through the decoder alone; here it is asked for the image's patch means."""
    ours, batch = network(class_token_weight=weight), a_batch()
    ours.total(ours.errors(batch, ours(batch))).backward()
    assert ours.encoder.embedding.class_token.grad.abs().max() > 0.0
    assert (ours.to_patch_means.weight.grad.abs().max() > 0.0) == (weight > 0.0)


def test_the_class_tokens_own_loss_reaches_every_part_of_the_encoder():
    ours, batch = network(), a_batch()
    ours.errors(batch, ours(batch)).class_token.mean().backward()
    silent = [name for name, weight in ours.encoder.named_parameters() if weight.grad is None
              or not weight.grad.abs().max() > 0.0]
    assert silent == []


def test_without_cross_modal_weight_each_image_is_alone():
    """Plain MAE: what is asked of an image does not depend on what else there is of the sample."""
    ours, batch = network(cross_modal_weight=0.0), a_batch()
    both = ours.errors(batch, ours(batch))
    alone = batch._replace(present=torch.tensor([[True, False, False]] * 3))
    single = ours.errors(alone, ours(alone))
    assert len(both.across) == 0
    assert torch.allclose(both.masked[::3], single.masked, atol=1e-6)
    assert torch.allclose(both.class_token[::3], single.class_token, atol=1e-6)


def test_across_means_the_other_modalitys_patches():
    ours, batch = network(), a_batch()
    made = ours(batch)
    targets, _ = ours.normalised(as_patches(batch.planes, 8))
    perfect = made._replace(across=targets[made.sample, made.other])
    assert ours.errors(batch, perfect).across.max() < 1e-12
    assert len(ours.errors(batch, made).across) == 9
    assert {(int(own), int(other)) for own, other in zip(made.modality, made.other, strict=True)} == {(0, 1), (1, 2),
                                                                                                      (2, 0)}


def test_no_error_counts_where_there_is_no_other_modality():
    ours, batch = network(), a_batch()
    alone = batch._replace(present=torch.tensor([[True, False, False]] * 3), other=torch.tensor([[0, 1, 2]] * 3))
    errors = ours.errors(alone, ours(alone))
    assert len(errors.across) == 0
    assert torch.isfinite(ours.total(errors))


def test_the_start_is_the_seeds_and_leaves_torchs_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, same, another = network(seed=1), network(seed=1), network(seed=2)
    assert torch.equal(torch.rand(2), expected)
    weights = [each.encoder.blocks[0].mlp[0].weight for each in (one, same, another)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_positions_differ_at_every_place():
    positions = sine_positions(7, 192)[0]
    assert positions.shape == (50, 192)
    assert positions[0].abs().max() == 0.0
    assert torch.cdist(positions[1:], positions[1:]).fill_diagonal_(9.0).min() > 0.5
    assert torch.equal(positions[1][:96], positions[8][:96])  # the same column
    assert len(MODALITIES) == 3
