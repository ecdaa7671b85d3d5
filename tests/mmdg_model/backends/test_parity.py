"""Every backend that runs here against the naive reference in float64, on crops whose logits spread."""

import numpy as np
import pytest
import torch

from mmdg_model.backends import Backend, backend_status, make_scorer
from mmdg_model.inputs import prepare
from mmdg_model.scorer import Modality
from tests.mmdg_model.backends.builders import varied_crops
from tests.mmdg_model.builders import crop, naive_reference

#: Largest logit difference over the logits' standard deviation, by precision.
CLOSENESS = {"float32": 1e-4, "float16": 0.05, "bfloat16": 0.15, "int8": 0.15}
BACKENDS = [("torch", "float32"), ("torch", "bfloat16")]
if backend_status(Backend.OPENVINO).runs:
    BACKENDS += [("openvino", "float32"), ("openvino", "bfloat16"), ("openvino", "int8")]
if backend_status(Backend.CUDA).runs:
    BACKENDS += [("cuda", "float32"), ("cuda", "bfloat16"), ("cuda", "float16")]


@pytest.fixture(scope="module")
def crops():
    partial = [crop(seed=1, without=("depth",)), crop(seed=2, without=("infrared",)),
               crop(seed=3, without=("depth", "infrared"))]
    return varied_crops(9) + partial


@pytest.fixture(scope="module")
def exact(checkpoint, crops):
    inputs = prepare(crops, checkpoint.input_spec)
    reference = naive_reference({name: weight.double() for name, weight in checkpoint.weights.items()},
                                checkpoint.config)
    logits = reference.logits(torch.from_numpy(inputs.planes).double(), torch.from_numpy(inputs.present)).numpy()
    return logits[:, 1] - logits[:, 0]


@pytest.fixture(scope="module", params=BACKENDS, ids=" ".join)
def scorer(request, checkpoint_path):
    backend, precision = request.param
    path = request.getfixturevalue("exports")[precision] if backend == "openvino" else checkpoint_path
    return make_scorer(path, backend=backend, precision=precision)


def test_scores_are_the_reference_s(scorer, crops, exact):
    scores = scorer.score(crops)
    difference = np.abs(np.array([score.logit for score in scores]) - exact)
    assert exact.std() > 1
    assert difference.max() < CLOSENESS[scorer.description.precision] * exact.std()


def test_a_crop_does_not_depend_on_its_company(scorer, crops):
    together = scorer.score(crops)
    for one, score in zip(crops[-3:], together[-3:], strict=True):
        alone = scorer.score([one])[0]
        assert alone.logit == pytest.approx(score.logit, abs=0.05)
        assert alone.modalities == score.modalities == one.modalities


def test_scores_repeat(scorer, crops):
    assert [s.logit for s in scorer.score(crops)] == [s.logit for s in scorer.score(crops)]
    assert scorer.score([]) == []


def test_certainty_is_the_network_s(scorer, crops, checkpoint_path):
    expected = make_scorer(checkpoint_path, backend="torch", precision="float32").score(crops)
    for score, reference in zip(scorer.score(crops), expected, strict=True):
        assert set(score.uncertainty) == set(score.modalities)
        for modality in Modality:
            assert score.uncertainty.get(modality) == pytest.approx(reference.uncertainty.get(modality), abs=0.02)
