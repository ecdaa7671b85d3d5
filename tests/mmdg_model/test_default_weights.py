"""The weights that are shipped: the file in the package, if this tree carries it."""

import pytest

from mmdg_model.checkpoint import load_checkpoint
from mmdg_model.config import ModelConfig
from mmdg_model.scorer import Purpose
from mmdg_model.shipped_weights import CARD_NAME, LARGEST_BYTES, SHIPPED_DIRECTORY, shipped_checkpoint, verify
from mmdg_model.torch_scorer import TorchScorer

pytestmark = pytest.mark.skipif(shipped_checkpoint() is None, reason="this tree carries no shipped weights: "
                                "make train-default, make evaluate-default and make ship-default make them")


def test_the_manifest_is_of_this_file():
    manifest = verify()
    assert manifest.purpose is Purpose.SIMULATED
    assert manifest.simulated
    assert manifest.bytes <= LARGEST_BYTES
    assert manifest.operating_point is not None
    assert manifest.operating_point.data == "simulated"


def test_it_loads_reproduces_its_known_answer_and_carries_the_manifests_operating_point():
    path, sha256 = shipped_checkpoint()
    checkpoint = load_checkpoint(path, expected_hash=sha256)
    TorchScorer(checkpoint)
    assert checkpoint.purpose is Purpose.SIMULATED
    assert checkpoint.operating_point == verify().operating_point
    assert isinstance(checkpoint.config, ModelConfig)
    assert checkpoint.config.image_size == 112
    assert checkpoint.training["simulated"] is True


def test_the_card_is_of_this_file():
    card = (SHIPPED_DIRECTORY / CARD_NAME).read_text()
    assert verify().sha256 in card
    assert "Trained on simulated data only" in card
