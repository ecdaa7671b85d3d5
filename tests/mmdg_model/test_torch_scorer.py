"""The scorer at work on a test checkpoint: scores, order, refusals, the known-answer test."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmdg_model.checkpoint import load_checkpoint
from mmdg_model.inputs import InputError, prepare
from mmdg_model.known_answer import KnownAnswer, known_answer_crops
from mmdg_model.network import build_mmdg
from mmdg_model.scorer import KnownAnswerError, Modality, Purpose, ScoringError
from mmdg_model.test_checkpoint import ensure_test_checkpoint, make_test_checkpoint
from mmdg_model.torch_scorer import KNOWN_ANSWER_TOLERANCE, TorchScorer, build_network
from tests.mmdg_model.builders import MICRO, crop

DTYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_test_checkpoint(tmp_path_factory.mktemp("scorer") / "micro.safetensors", MICRO)


@pytest.fixture(scope="module")
def scorer(checkpoint):
    return TorchScorer(checkpoint)


def varied_crops(number=12):
    """Noise under brightness, contrast and relief that differ from crop to crop."""
    generator, crops = np.random.default_rng(5), []
    for seed in range(number):
        blobs = np.kron(generator.integers(0, 200, (2, 2, 3)), np.ones((32, 32, 1), dtype=np.int64))
        relief = np.kron(generator.integers(4500, 5500, (2, 2)), np.ones((32, 32), dtype=np.int64))
        crops.append(crop(seed=seed, colour=(blobs + generator.integers(0, 40, (64, 64, 3))).astype(np.uint8),
                          depth=relief.astype(np.uint16), infrared=(blobs[:, :, 0] * 4).astype(np.uint16)))
    return crops


def test_scores_in_order_with_everything_filled(scorer, checkpoint):
    crops = [crop(seed=1), crop(seed=2, without=("depth",)), crop(seed=3, without=("depth", "infrared"))]
    scores = scorer.score(crops)
    network, inputs = build_network(checkpoint), prepare(crops, checkpoint.input_spec)
    with torch.inference_mode():
        output = network(torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present))
    for row, (score, one) in enumerate(zip(scores, crops, strict=True)):
        assert score.logit == pytest.approx((output.logits[row, 1] - output.logits[row, 0]).item(), abs=1e-4)
        assert score.probability == pytest.approx(torch.softmax(output.logits[row], 0)[1].item(), abs=1e-5)
        assert score.modalities == one.modalities == tuple(score.uncertainty)
        for modality, uncertainty in score.uncertainty.items():
            certainty = output.class_certainty[row, list(Modality).index(modality)].item()
            assert uncertainty == pytest.approx(1 - certainty, abs=1e-5)
            assert 0 <= uncertainty < 1
        assert score.model_hash == checkpoint.hash == scorer.model_hash
        assert set(score.durations_ms) == {"prepare", "forward"}
    assert scorer.purpose is Purpose.TEST
    assert scorer.score([]) == []


def test_scores_repeat_and_do_not_depend_on_company(scorer):
    crops = varied_crops(4)
    together = [score.logit for score in scorer.score(crops)]
    assert together == [score.logit for score in scorer.score(crops)]
    for logit, one in zip(together, crops, strict=True):
        assert scorer.score([one])[0].logit == pytest.approx(logit, abs=1e-3)


def test_test_checkpoint_scores_spread(scorer):
    logits = [score.logit for score in scorer.score(varied_crops())]
    assert np.std(logits) >= 1


def test_a_plane_of_holes_is_reported_as_unused(scorer):
    holes = crop(depth=np.zeros((64, 64), dtype=np.uint16))
    score = scorer.score([holes])[0]
    assert score.modalities == (Modality.RGB, Modality.INFRARED)
    assert score.logit == scorer.score([crop(without=("depth",))])[0].logit


def test_bfloat16_agrees_with_float32(checkpoint, scorer):
    crops = varied_crops()
    half = [score.logit for score in TorchScorer(checkpoint, dtype=torch.bfloat16).score(crops)]
    full = [score.logit for score in scorer.score(crops)]
    assert np.corrcoef(half, full)[0, 1] > 0.98
    assert half != full


def test_a_wrong_crop_is_named(scorer):
    with pytest.raises(InputError, match="crop 1: colour is uint8"):
        scorer.score([crop(), crop(size=32)])


@pytest.mark.parametrize("fault", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", ["head.bias", "blocks.2.block.attention.output.bias"])
def test_a_number_that_is_none_becomes_an_error(checkpoint, part, fault):
    scorer = TorchScorer(dataclasses.replace(checkpoint, weights=dict(checkpoint.weights)))
    with torch.no_grad():
        scorer._network.get_parameter(part)[0] = fault
    with pytest.raises(ScoringError, match=f"crop 0: .*{checkpoint.hash[:12]}"):
        scorer.score([crop()])


def test_an_overflowing_margin_of_finite_logits_is_still_a_probability(checkpoint):
    scorer = TorchScorer(checkpoint)
    for sign, probability in ((1, 1.0), (-1, 0.0)):
        with torch.no_grad():
            scorer._network.head.bias.copy_(torch.tensor([-sign * 1e30, sign * 1e30]))
        score = scorer.score([crop()])[0]
        assert math.isfinite(score.logit)
        assert score.probability == probability


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weight", ["head.weight", "blocks.1.adapters.rgb_from_depth.up.weight",
                                    "embeddings.2.patches.weight", "blocks.0.block.mlp.0.weight"])
def test_known_answer_notices_altered_weights(checkpoint, dtype, weight):
    altered = dict(checkpoint.weights)
    altered[weight] = altered[weight].flip(0)
    with pytest.raises(KnownAnswerError, match=r"(?s)relative deviation .*reinstall"):
        TorchScorer(dataclasses.replace(checkpoint, weights=altered), dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_known_answer_notices_another_answer(checkpoint, dtype):
    rows = np.asarray(checkpoint.known_answer.logits)
    off = KnownAnswer.of((rows + 3 * KNOWN_ANSWER_TOLERANCE[dtype] * max(1.0, abs(rows).max())).astype(np.float32))
    with pytest.raises(KnownAnswerError):
        TorchScorer(dataclasses.replace(checkpoint, known_answer=off), dtype=dtype)


@pytest.mark.parametrize("changes", [{"depth_near_m": 0.05}, {"infrared_mean": 100.0}, {"colour_scale": 64.0}])
def test_known_answer_covers_the_pixel_path(checkpoint, changes):
    spec = dataclasses.replace(checkpoint.input_spec, **changes)
    with pytest.raises(KnownAnswerError):
        TorchScorer(dataclasses.replace(checkpoint, input_spec=spec))


def test_known_answer_of_nan_deviates_infinitely(checkpoint):
    assert checkpoint.known_answer.deviation(np.full((4, 2), np.nan, dtype=np.float32)) == math.inf


def test_known_answer_covers_every_set_of_sensors(checkpoint):
    present = prepare(known_answer_crops(checkpoint.input_spec), checkpoint.input_spec).present
    assert {tuple(row) for row in present.tolist()} == {(True, depth, ir) for depth in (True, False)
                                                       for ir in (True, False)}


@pytest.mark.parametrize(("arguments", "quoted"), [
    ({"threads": 0}, "threads is 0"), ({"dtype": torch.float16}, "dtype is torch.float16"),
])
def test_wrong_arguments_are_refused(checkpoint, arguments, quoted):
    with pytest.raises(ValueError, match=quoted):
        TorchScorer(checkpoint, **arguments)


def test_test_checkpoint_is_the_same_file_for_the_same_seed(checkpoint, tmp_path):
    state = torch.random.get_rng_state()
    assert make_test_checkpoint(tmp_path / "again.safetensors", MICRO).hash == checkpoint.hash
    assert make_test_checkpoint(tmp_path / "other.safetensors", MICRO, seed=1).hash != checkpoint.hash
    assert torch.equal(state, torch.random.get_rng_state())


def test_cached_test_checkpoint_is_made_once_and_mended(tmp_path, monkeypatch):
    monkeypatch.setenv("MMDG_ASSETS", str(tmp_path / "assets"))
    path = ensure_test_checkpoint()
    made = path.stat().st_mtime_ns
    assert path.parent == tmp_path / "assets"
    assert load_checkpoint(path).config.width == 192
    assert ensure_test_checkpoint().stat().st_mtime_ns == made
    sound = path.read_bytes()
    path.write_bytes(sound[:1000])
    assert ensure_test_checkpoint().read_bytes() == sound


def test_without_torch_the_error_names_the_extra():
    program = "import sys; sys.modules['torch'] = None; import mmdg_model.torch_scorer"
    ended = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "pip install 'mmdg-live[engine]'" in ended.stderr.splitlines()[-1]


def test_loading_draws_no_random_numbers(checkpoint):
    state = torch.random.get_rng_state()
    network = build_network(checkpoint)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not network.training
    assert set(network.state_dict()) == set(build_mmdg(MICRO).state_dict())
