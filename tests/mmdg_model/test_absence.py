"""Missing depth, infrared or both, in three encodings, in use and in training, mixed within a batch."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdg_model.absence import without
from mmdg_model.checkpoint import CheckpointError, save_checkpoint
from mmdg_model.inputs import AbsenceEncoding, InputError, InputSpecification, black_levels, prepare
from mmdg_model.scorer import Modality
from mmdg_model.test_checkpoint import make_test_checkpoint
from mmdg_model.torch_scorer import TorchScorer
from tests.mmdg_model.builders import MICRO, crop, lively_network

MISSING = {"nothing": (), "depth": ("depth",), "infrared": ("infrared",), "both": ("depth", "infrared")}
MASKS = {"nothing": [0, 0, 0], "depth": [0, 1, 0], "infrared": [0, 0, 1], "both": [0, 1, 1]}
BLACK = (0 - 127.5) / 128


def specification(encoding):
    return InputSpecification(image_size=64, absence=encoding)


@functools.cache
def network(encoding):
    return lively_network(dataclasses.replace(MICRO, absence=encoding))


@torch.inference_mode()
def forward(inputs, encoding):
    return network(encoding)(torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present))


@pytest.mark.parametrize(("encoding", "content"), [
    (AbsenceEncoding.FLAG, 0.0), (AbsenceEncoding.ZEROS, 0.0), (AbsenceEncoding.BLACK_IMAGE, BLACK)])
def test_prepared_planes_hold_the_encoding_and_presence_the_truth(encoding, content):
    planes, present = prepare([crop(without=absent) for absent in MISSING.values()], specification(encoding))
    assert present.tolist() == [[True, True, True], [True, False, True], [True, True, False], [True, False, False]]
    assert (planes[~present] == np.float32(content)).all()


def test_black_is_what_a_black_photograph_becomes():
    spec = InputSpecification(image_size=64, absence=AbsenceEncoding.BLACK_IMAGE, infrared_mean=100.0, depth_scale=64.0)
    black = np.zeros((64, 64), np.uint8)
    photographed = prepare([crop(infrared=black, infrared_bit_depth=8)], spec).planes[0, 2]
    absent = prepare([crop(without=("infrared", "depth"))], spec).planes[0]
    assert np.array_equal(photographed, absent[2])
    assert black_levels(spec).tolist() == pytest.approx([BLACK, -127.5 / 64, -100 / 128])
    assert (absent[1] == black_levels(spec)[1]).all()


@pytest.mark.parametrize("encoding", [AbsenceEncoding.BLACK_IMAGE, AbsenceEncoding.ZEROS])
def test_an_image_encoding_is_read_like_any_image(encoding):
    """The network sees the plane whatever the flag says; only the reported certainty knows that it was absent."""
    spec = specification(encoding)
    inputs = prepare([crop(without=("depth",))], spec)
    told = forward(inputs, encoding)
    pretended = forward(inputs._replace(present=np.ones((1, 3), np.bool_)), encoding)
    assert torch.equal(told.logits, pretended.logits)
    assert told.class_tokens[0, 1].any()
    assert told.class_certainty[0, 1] == 0 < pretended.class_certainty[0, 1]


def test_the_three_encodings_score_differently():
    logits = [forward(prepare([crop(without=("depth",))], specification(encoding)), encoding).logits
              for encoding in AbsenceEncoding]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (logits[one] - logits[other]).abs().max() > 1e-3


@pytest.mark.parametrize("encoding", list(AbsenceEncoding))
@pytest.mark.parametrize("missing", list(MISSING))
def test_taking_a_modality_away_equals_never_having_had_it(encoding, missing):
    spec = specification(encoding)
    taken = without(prepare([crop()], spec), np.array([MASKS[missing]], np.bool_), spec)
    never = prepare([crop(without=MISSING[missing])], spec)
    assert np.array_equal(taken.planes, never.planes)
    assert np.array_equal(taken.present, never.present)


@pytest.mark.parametrize("encoding", list(AbsenceEncoding))
def test_a_batch_mixes_what_is_missing(encoding):
    spec = specification(encoding)
    together = forward(prepare([crop(without=absent) for absent in MISSING.values()], spec), encoding)
    for row, absent in enumerate(MISSING.values()):
        alone = forward(prepare([crop(without=absent)], spec), encoding)
        torch.testing.assert_close(together.logits[row], alone.logits[0], atol=1e-4, rtol=1e-4)


def test_a_batch_mixes_encodings():
    """A network with flags: an image-encoded row is read as an image, a flagged one is muted."""
    spec, gone = specification(AbsenceEncoding.FLAG), np.tile([False, True, False], (3, 1))
    inputs = prepare([crop()] * 3, spec)
    mixed = without(inputs, gone, spec, encodings=list(AbsenceEncoding))
    assert mixed.present.tolist() == [[True, False, True], [True, True, True], [True, True, True]]
    assert [mixed.planes[row, 1, 0, 0, 0].item() for row in range(3)] == pytest.approx([0, BLACK, 0])
    logits = forward(mixed, AbsenceEncoding.FLAG).logits
    for row, encoding in enumerate(AbsenceEncoding):
        single = without(prepare([crop()], spec), gone[:1], spec, encodings=encoding)
        torch.testing.assert_close(logits[row], forward(single, AbsenceEncoding.FLAG).logits[0], atol=1e-4, rtol=1e-4)
    assert len({tuple(row) for row in logits.tolist()}) == 3


def test_what_is_taken_from_stays_as_it_was():
    spec = specification(AbsenceEncoding.FLAG)
    inputs = prepare([crop()], spec)
    planes, present = inputs.planes.copy(), inputs.present.copy()
    without(inputs, np.array([[False, True, True]]), spec)
    assert np.array_equal(inputs.planes, planes)
    assert np.array_equal(inputs.present, present)


@pytest.mark.parametrize(("absent", "encodings", "quoted"), [
    (np.zeros((1, 3), np.bool_), None, r"absent is bool \(1, 3\), expected bool \(2, 3\)"),
    (np.zeros((2, 3), np.int64), None, "absent is int64"),
    (np.array([[False] * 3, [True] * 3]), None, "row 1 has no modality left"),
    (np.zeros((2, 3), np.bool_), [AbsenceEncoding.FLAG], "1 encodings of absence for 2 rows"),
])
def test_wrong_requests_are_refused(absent, encodings, quoted):
    spec = specification(AbsenceEncoding.FLAG)
    with pytest.raises(InputError, match=quoted):
        without(prepare([crop(), crop()], spec), absent, spec, encodings=encodings)


def test_training_reaches_the_tokens_of_image_encodings_and_not_of_flags():
    """In training too: a muted modality's embedding gets no gradient through the head, a black image's does."""
    for encoding, reached in ((AbsenceEncoding.FLAG, False), (AbsenceEncoding.BLACK_IMAGE, True)):
        net = lively_network(dataclasses.replace(MICRO, absence=encoding)).train()
        inputs = prepare([crop(without=("infrared",))] * 2, specification(encoding))
        net(torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present)).logits.square().sum().backward()
        gradient = net.embeddings[2].patches.weight.grad
        assert bool(gradient is not None and gradient.any()) is reached
        assert net.embeddings[1].patches.weight.grad.any()


@given(rows=st.lists(st.sampled_from(list(MISSING)), min_size=1, max_size=3), training=st.booleans(),
       content=st.sampled_from([0.0, BLACK, -3.0, 1e30, float("nan"), float("-inf")]), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None, derandomize=True)
def test_flagged_content_never_changes_the_output(rows, training, content, seed):
    inputs = prepare([crop(seed=seed, without=MISSING[name]) for name in rows], specification(AbsenceEncoding.FLAG))
    filled = np.where(inputs.present[:, :, None, None, None], inputs.planes, np.float32(content))
    net = lively_network(MICRO).train(training)
    outcomes = []
    for planes in (inputs.planes, filled):
        torch.manual_seed(seed)  # the same dropout both times
        outcomes.append(net(torch.from_numpy(planes), torch.from_numpy(inputs.present)))
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))
    assert torch.isfinite(outcomes[1].logits).all()


@pytest.mark.parametrize("encoding", list(AbsenceEncoding))
def test_scores_name_only_what_was_measured(tmp_path, encoding):
    """Whatever the network is shown instead of a missing sensor, nobody downstream may believe it was there."""
    checkpoint = make_test_checkpoint(tmp_path / "micro.safetensors", dataclasses.replace(MICRO, absence=encoding))
    full, bare = TorchScorer(checkpoint).score([crop(), crop(without=("depth", "infrared"))])
    assert full.modalities == tuple(Modality)
    assert bare.modalities == tuple(bare.uncertainty) == (Modality.RGB,)


def test_network_and_inputs_must_agree_on_absence(tmp_path):
    checkpoint = make_test_checkpoint(tmp_path / "micro.safetensors", MICRO)
    torn = dataclasses.replace(checkpoint, input_spec=specification(AbsenceEncoding.ZEROS))
    with pytest.raises(CheckpointError, match=r"model\.absence is flag, inputs\.absence is zeros"):
        save_checkpoint(torn, tmp_path / "torn.safetensors")
