"""Export: whole or not at all, and only what can be exported."""

import dataclasses

import numpy as np
import pytest

from mmdg_model.backends.openvino_export import ExportError, export_openvino
from mmdg_model.backends.openvino_int8 import _with_exact_zero
from mmdg_model.backends.openvino_sdk import openvino
from mmdg_model.config import UncertaintyEstimatorKind
from mmdg_model.known_answer import KnownAnswer
from tests.mmdg_model.backends.builders import varied_crops
from tests.mmdg_model.builders import MICRO


def quantised_shapes(directory):
    model = openvino.Core().read_model(directory / "model.xml")
    return [tuple(node.input_value(1).get_node().shape) for node in model.get_ordered_ops()
            if node.get_type_name() == "MatMul"
            and node.input_value(0).get_node().get_type_name() == "FakeQuantize"]


def test_int8_covers_both_mlp_layers_and_the_joint_projection_of_every_block(exports, checkpoint):
    width, hidden = checkpoint.config.width, checkpoint.config.mlp_ratio * checkpoint.config.width
    shapes = quantised_shapes(exports["int8"])
    assert sorted(shapes) == sorted([(3 * width, width), (hidden, width), (width, hidden)] * checkpoint.config.depth)
    assert quantised_shapes(exports["bfloat16"]) == []


@pytest.mark.parametrize(("changes", "arguments", "quoted"), [
    ({}, {"precision": "int4"}, "precision is 'int4', expected one of float32, bfloat16, int8"),
    ({}, {"precision": "int8", "calibration": varied_crops(3)}, "3 calibration crops, int8 needs at least 8"),
    ({"hash": ""}, {}, "the checkpoint has no hash"),
    ({"config": dataclasses.replace(MICRO, uncertainty_estimator=UncertaintyEstimatorKind.MONTE_CARLO)}, {},
     "uncertainty_estimator is monte_carlo: certainty is drawn"),
])
def test_what_cannot_be_exported_is_refused(checkpoint, tmp_path, changes, arguments, quoted):
    with pytest.raises(ExportError, match=quoted):
        export_openvino(dataclasses.replace(checkpoint, **changes), tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(checkpoint, tmp_path):
    with pytest.raises(ExportError, match="exists already"):
        export_openvino(checkpoint, tmp_path)


def test_a_model_with_another_answer_is_not_written(checkpoint, tmp_path):
    wrong = KnownAnswer.of(np.asarray(checkpoint.known_answer.logits, dtype=np.float32) + 1)
    with pytest.raises(ExportError, match=r"relative deviation .*nothing was written"):
        export_openvino(dataclasses.replace(checkpoint, known_answer=wrong), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (0.0, 0.0), (-0.17, 40.0)])
def test_zero_is_a_level_of_every_range(low, high):
    low_level, high_level = _with_exact_zero(low, high)
    step = (high_level - low_level) / 255
    assert low_level <= 0 <= high_level
    assert -low_level / step == pytest.approx(round(-low_level / step), abs=1e-6)
    assert low_level - step <= low
    assert high <= high_level + step
