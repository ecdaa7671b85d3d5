"""Metrics on hand cases, corruption where it should be, and the effect of U on known networks."""

import dataclasses

import numpy as np
import pytest
import torch

from mmdg_model.config import UncertaintyEstimatorKind
from mmdg_model.inputs import InputSpecification, prepare
from mmdg_model.network import MODALITIES, build_mmdg
from mmdg_model.scorer import Modality
from mmdg_model.uncertainty_report import Corruption, auroc, corrupt, corruption_auroc, logit_shift, risk_coverage
from tests.mmdg_model.builders import MICRO, crop, lively_network


def inputs(*absent):
    return prepare([crop(seed=seed, without=absent) for seed in range(6)], InputSpecification(image_size=64))


@pytest.mark.parametrize(("positive", "negative", "expected"), [
    ([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1, 1], [1], 0.5), ([0, 2], [1], 0.5), ([3, 1], [2, 0], 0.75)])
def test_auroc_by_hand(positive, negative, expected):
    assert auroc(np.array(positive, float), np.array(negative, float)) == expected


@pytest.mark.parametrize(("positive", "negative"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_auroc_of_nothing_is_an_error(positive, negative):
    with pytest.raises(ValueError, match="AUROC"):
        auroc(np.array(positive), np.array(negative))


def test_risk_coverage_by_hand():
    """Errors at the least confident of four: risks 0, 0, 0, 1/4. The other way round: 1, 1/2, 1/3, 1/4."""
    wrong = np.array([False, False, False, True])
    good = risk_coverage(wrong, np.array([4.0, 3.0, 2.0, 1.0]))
    assert (good.area, good.chance, good.best) == pytest.approx((1 / 16, 1 / 4, 1 / 16))
    assert risk_coverage(wrong, np.array([1.0, 2.0, 3.0, 4.0])).area == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert risk_coverage(wrong, np.ones(4)).area == pytest.approx(1 / 4)  # knows nothing


@pytest.mark.parametrize(("wrong", "confidence"), [([], []), ([True], [1.0, 2.0]), ([True], [np.nan])])
def test_risk_coverage_of_nothing_is_an_error(wrong, confidence):
    with pytest.raises(ValueError, match="risk-coverage"):
        risk_coverage(np.array(wrong, bool), np.array(confidence))


@pytest.mark.parametrize("corruption", list(Corruption))
def test_corruption_stays_in_its_patches_and_its_modality(corruption):
    clean = inputs()
    planes, chosen = corrupt(clean.planes, Modality.DEPTH, corruption, patch_size=16, share=0.25,
                             generator=np.random.default_rng(0))
    assert (chosen.sum(axis=1) == 4).all()
    assert len({row.tobytes() for row in chosen}) > 1  # other patches in other crops
    mask = chosen.reshape(6, 4, 4).repeat(16, axis=1).repeat(16, axis=2)
    changed = (planes != clean.planes).any(axis=2)
    assert not changed[:, [0, 2]].any()
    assert not changed[:, 1][~mask].any()
    assert changed[:, 1][mask].mean() > 0.9


def test_a_token_that_shouts_is_found():
    """Attention replaced by the tokens themselves, quiet images, loud corruption: found always, and never if flat."""
    network = build_mmdg(dataclasses.replace(MICRO, depth=1)).eval()
    network.blocks[0].block.attention = torch.nn.Identity()
    network.blocks[0].block.attention_norm = torch.nn.Identity()
    quiet = inputs()
    quiet.planes[:, 0] *= 0.01
    (loud,) = corruption_auroc(network, quiet, Modality.RGB, Corruption.NOISE)
    (flat,) = corruption_auroc(network, inputs(), Modality.RGB, Corruption.FLAT)
    assert loud > 0.99
    assert flat < 0.01


def test_a_modality_that_no_crop_has_is_an_error():
    with pytest.raises(ValueError, match="no crop has infrared"):
        corruption_auroc(lively_network(), inputs("infrared"), MODALITIES[2], Corruption.HOLE)


def test_logit_shift_of_known_networks():
    lively = logit_shift(lively_network(), inputs())
    assert 0 < lively.mean <= lively.largest
    assert lively.sampling > 0
    assert lively.spread > 0
    silent = logit_shift(build_mmdg(MICRO).eval(), inputs())
    assert silent.mean == silent.largest == silent.sampling == 0  # adapters that say nothing: U has nothing to scale
    certain = lively_network(dataclasses.replace(MICRO, uncertainty_estimator=UncertaintyEstimatorKind.NONE))
    assert logit_shift(certain, inputs()).mean == 0
