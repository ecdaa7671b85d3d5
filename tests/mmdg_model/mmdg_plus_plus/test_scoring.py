"""One checkpoint format and one scorer for both architectures."""

import json

import pytest
import safetensors
import safetensors.torch
import torch

from mmdg_model.architectures import Architecture, architecture_of, build, config_from_dict
from mmdg_model.backends import make_scorer
from mmdg_model.backends.openvino_export import ExportError, export_openvino
from mmdg_model.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from mmdg_model.config import ModelConfig
from mmdg_model.explain import explain_crops
from mmdg_model.inputs import prepare
from mmdg_model.mmdg_plus_plus.config import MMDGPlusPlusConfig
from mmdg_model.mmdg_plus_plus.network import MMDGPlusPlus, input_specification
from mmdg_model.safetensors_header import METADATA_KEY
from mmdg_model.scorer import KnownAnswerError, Purpose
from mmdg_model.test_checkpoint import make_test_checkpoint
from mmdg_model.torch_scorer import TorchScorer, build_network, measure_known_answer
from tests.mmdg_model.builders import MICRO as MICRO_MMDG
from tests.mmdg_model.builders import crop
from tests.mmdg_model.mmdg_plus_plus.builders import MICRO, lively_network


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    network, specification = lively_network().half().float(), input_specification(MICRO)
    path = tmp_path_factory.mktemp("plusplus") / "micro.safetensors"
    save_checkpoint(Checkpoint(
        config=MICRO, input_spec=specification, purpose=Purpose.TEST, created_by="a test",
        known_answer=measure_known_answer(network, specification),
        weights={name: weight.half() for name, weight in network.state_dict().items()}), path)
    return path


def about(path):
    with safetensors.safe_open(path, "pt") as file:
        return json.loads(file.metadata()[METADATA_KEY])


def rewritten(path, target, **changes):
    values = {key: value for key, value in (about(path) | changes).items() if value is not None}
    safetensors.torch.save_file(safetensors.torch.load_file(path), target, metadata={METADATA_KEY: json.dumps(values)})
    return target


def test_a_checkpoint_names_its_architecture_and_is_loaded_as_such(stored):
    assert about(stored)["architecture"] == "mmdg_plus_plus"
    checkpoint = load_checkpoint(stored)
    assert checkpoint.config == MICRO
    network = build_network(checkpoint)
    assert isinstance(network, MMDGPlusPlus)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.tower.parameters())


@torch.inference_mode()
def test_the_scorer_serves_it(stored):
    checkpoint = load_checkpoint(stored)
    scorer = TorchScorer(checkpoint)
    crops = [crop(seed=1), crop(seed=2, without=("depth",)), crop(seed=3, without=("depth", "infrared"))]
    scores = scorer.score(crops)
    inputs = prepare(crops, checkpoint.input_spec)
    assert inputs.planes.min() >= 0
    assert inputs.planes.max() <= 1
    output = build_network(checkpoint)(torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present))
    for row, (score, one) in enumerate(zip(scores, crops, strict=True)):
        assert score.logit == pytest.approx((output.logits[row, 1] - output.logits[row, 0]).item(), abs=1e-3)
        assert score.modalities == one.modalities == tuple(score.uncertainty)
        assert all(0 <= value < 1 for value in score.uncertainty.values())
    assert scorer.purpose is Purpose.TEST


def test_altered_weights_fail_the_known_answer(stored):
    checkpoint = load_checkpoint(stored)
    checkpoint.weights["ends.depth.projection"].mul_(-1)
    with pytest.raises(KnownAnswerError, match="known-answer logits"):
        TorchScorer(checkpoint)


def test_explanations_refuse_it_by_name(stored):
    with pytest.raises(ValueError, match="is of architecture mmdg_plus_plus; explanations know mmdg only"):
        explain_crops(load_checkpoint(stored), [crop()])


@pytest.mark.parametrize(("changes", "quoted"), [
    ({"architecture": "mmdg"}, r"model\.feature_width = 24 is an unknown key"),
    ({"architecture": None}, r"model\.feature_width = 24 is an unknown key"),  # absent means mmdg
    ({"architecture": "mmdg+++"}, r"architecture is 'mmdg\+\+\+', this version knows mmdg, mmdg_plus_plus"),
    ({"architecture": ["mmdg"]}, r"architecture is \['mmdg'\]"),
    ({"model": MICRO_MMDG.to_dict()}, r"is an unknown key"),
])
def test_another_architecture_is_refused(stored, tmp_path, changes, quoted):
    with pytest.raises(CheckpointError, match=quoted):
        load_checkpoint(rewritten(stored, tmp_path / "wrong.safetensors", **changes))


def test_an_mmdg_need_not_name_its_architecture(tmp_path):
    """Files of before there were two stay what they were, byte for byte; one that does name it is the same network."""
    made = make_test_checkpoint(tmp_path / "silent.safetensors", MICRO_MMDG)
    assert "architecture" not in about(tmp_path / "silent.safetensors")
    named = load_checkpoint(
        rewritten(tmp_path / "silent.safetensors", tmp_path / "named.safetensors", architecture="mmdg"))
    assert named.config == made.config == MICRO_MMDG
    TorchScorer(named)


@pytest.mark.parametrize("config", [ModelConfig.tiny(), MMDGPlusPlusConfig.tiny()])
def test_architecture_and_configuration_belong_together(config):
    architecture = architecture_of(config)
    assert config_from_dict(str(architecture), config.to_dict()) == config
    with torch.device("meta"):
        assert build(config).config == config
    assert {architecture_of(ModelConfig()), architecture_of(MMDGPlusPlusConfig())} == set(Architecture)


def test_the_backends_serve_it_under_torch(stored):
    crops = [crop(seed=seed) for seed in range(2)]
    served = make_scorer(stored, precision="float32")
    assert served.description.backend == "torch"
    direct = TorchScorer(load_checkpoint(stored))
    assert [s.logit for s in served.score(crops)] == pytest.approx([s.logit for s in direct.score(crops)], abs=1e-5)


def test_it_cannot_be_exported_and_the_refusal_says_why(stored, tmp_path):
    with pytest.raises(ExportError, match=r"MMDG\+\+ has no runtime graph"):
        export_openvino(load_checkpoint(stored), tmp_path / "out", precision="float32")
    assert not (tmp_path / "out").exists()
