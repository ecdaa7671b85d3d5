"""Prototypes of a method: diverged tokens, other runs, what is logged of them."""

import math

import pytest
import torch

from mmdg_model.training.compute import TrainingDiverged
from mmdg_model.training.ssp_loss import DomainClasses
from tests.mmdg_model.training.methods.builders import DROPPED, double, method, precise, rows, samples


@pytest.mark.parametrize("name", ["mmdg", "vit_late_regrad"])
def test_diverged_class_tokens_end_training_before_the_epoch(name):
    found, broken = method(name), samples()
    broken.planes[:, 1] = math.nan
    with pytest.raises(TrainingDiverged, match="depth class tokens are not finite before epoch 3"):
        found.start_epoch(3, lambda: [broken])


def test_prototypes_of_other_sources_are_refused():
    found = method("mmdg")
    found.start_epoch(0, lambda: [samples()])
    other = method("mmdg", classes=DomainClasses(("C", "P", "W")))
    with pytest.raises(ValueError, match="other training sources"):
        other.load_state(*found.state())
    assert other.prototypes is None
    with pytest.raises(ValueError, match="without prototypes"):
        found.load_state(*method("u_adapter").state())


def test_a_state_saved_before_the_first_epoch_has_no_prototypes():
    found = method("mmdg")
    found.load_state(*method("mmdg").state())
    with pytest.raises(RuntimeError, match="start_epoch"):
        found.update([samples()])


def test_variances_are_those_of_the_prototypes_and_of_the_losses():
    found = precise("mmdg")
    logged = found.start_epoch(0, lambda: [double(samples(1))])
    for index, modality in enumerate(("rgb", "depth", "infrared")):
        expected = found.prototypes.values[index].double().var(dim=0, correction=0).mean()
        assert logged[f"prototypes/variance/{modality}"] == pytest.approx(float(expected))
        assert expected > 0
    scalars = found.update([double(samples())])
    losses = torch.tensor([scalars[f"ssp/{modality}"] for modality in ("rgb", "depth", "infrared")])
    assert scalars["ssp/variance"] == pytest.approx(float(losses.var(correction=0)), rel=1e-4)


def test_what_does_not_exist_is_no_number():
    """One sample, colour alone: no loss of depth or infrared, no variance over modalities, nobody fast."""
    found = precise("mmdg")
    found.start_epoch(0, lambda: [double(samples(1))])
    scalars = found.update([rows(double(samples(dropped=DROPPED)), slice(4, 5))])
    for key in ("ssp/depth", "ssp_entropy/infrared", "ssp/variance", "regrad/fast/rgb"):
        assert math.isnan(scalars[key]), key
    assert math.isfinite(scalars["loss/total"])
    assert scalars["certainty/depth"] == 1.0
