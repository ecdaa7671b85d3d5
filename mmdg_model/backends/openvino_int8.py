"""Post-training quantisation of an OpenVINO model: int8 for the large matrix products of the ViT blocks.

Quantised are the joint query-key-value projection and both layers of the MLP, 11 of 12 parts of a block's products. The
attention's output projection is not: its result is what certainty is measured on, and leaving it out halved the error
of the logits at 3 % more time (docs/backends.md). Neither is the patch embedding, for a larger gain still.

The usual scheme for processors: weights symmetric, one scale an output channel; activations asymmetric, one scale a
tensor, its range measured on calibration crops. `FakeQuantize` operations state both; OpenVINO then multiplies in int8
and dequantises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdg_model.backends.openvino_engine import compile_for_latency
from mmdg_model.backends.openvino_sdk import openvino, opset
from mmdg_model.inputs import PreparedInputs

_ACTIVATION_LEVELS = 256
_WEIGHT_LEVELS = 255  # symmetric: -127..127


def quantise(model: openvino.Model, batches: Sequence[PreparedInputs], *, width: int, mlp_ratio: int,
             threads: int = 1) -> list[str]:
    """Quantises `model` in place.

    Args:
        model: float32, inputs planes and presence.
        batches: calibration input; ranges are the mean over batches of each batch's extremes, so one odd crop does
            not set the scale.
        width, mlp_ratio: of the network's configuration, by which the products are recognised.
        threads: for the calibration passes.

    Returns:
        Names of the quantised operations.

    Raises:
        ValueError: no calibration batches, or no product to quantise.
    """
    if not batches:
        raise ValueError("no calibration crops: int8 needs measured ranges")
    shapes = {(3 * width, width), (mlp_ratio * width, width), (width, mlp_ratio * width)}
    products = _products(model, shapes)
    if not products:
        raise ValueError(f"no matrix product of a block of width {width} in the model")
    for product, (low, high) in zip(products, _measured_ranges(model, batches, shapes, threads), strict=True):
        _quantise_product(product, low, high)
    model.validate_nodes_and_infer_types()
    return [product.get_friendly_name() for product in products]


def _products(model: openvino.Model, shapes: set[tuple[int, int]]) -> list[Any]:
    """Matrix products of tokens by a constant of one of these shapes, `[out, in]`, in order."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        weight = node.input_value(1).get_node()
        if (weight.get_type_name() == "Constant" and tuple(weight.shape) in shapes
                and node.get_attributes()["transpose_b"] and not _is_near_input(node)):
            found.append(node)
    return found


def _is_near_input(product: Any) -> bool:
    """Whether only rearrangement lies between the input and `product`: then it is the patch embedding."""
    node = product
    while node.get_type_name() in ("MatMul", "Reshape", "Transpose", "Gather", "Select", "Convert", "Slice",
                                   "Squeeze", "StridedSlice", "Unsqueeze"):
        if node is not product and node.get_type_name() == "MatMul":
            return False
        # A selection's first input is its condition.
        node = node.input_value(1 if node.get_type_name() == "Select" else 0).get_node()
    return bool(node.get_type_name() == "Parameter")


def _measured_ranges(model: openvino.Model, batches: Sequence[PreparedInputs],
                     shapes: set[tuple[int, int]], threads: int) -> list[tuple[float, float]]:
    watched = model.clone()
    extremes = []
    for product in _products(watched, shapes):
        source = product.input_value(0)
        axes = opset.constant(np.arange(source.get_partial_shape().rank.get_length(), dtype=np.int64))
        extremes += [opset.result(opset.reduce_min(source, axes)), opset.result(opset.reduce_max(source, axes))]
    watched.add_results(extremes)
    request = compile_for_latency(watched, hint="f32", threads=threads).create_infer_request()
    first, rows = len(model.outputs), []
    for inputs in batches:
        request.infer([inputs.planes, inputs.present])
        rows.append([float(request.get_output_tensor(first + index).data) for index in range(len(extremes))])
    means = np.mean(rows, axis=0)
    return [(float(low), float(high)) for low, high in means.reshape(-1, 2)]


def _quantise_product(product: Any, low: float, high: float) -> None:
    low, high = _with_exact_zero(low, high)
    source, weight = product.input_value(0), product.input_value(1).get_node()
    values: NDArray[np.float32] = np.array(weight.data, dtype=np.float32)
    largest = np.maximum(np.abs(values).max(axis=1, keepdims=True), np.float32(1e-12))
    product.input(0).replace_source_output(_fake_quantised(source, np.float32(low), np.float32(high),
                                                           _ACTIVATION_LEVELS))
    product.input(1).replace_source_output(_fake_quantised(weight.output(0), -largest, largest, _WEIGHT_LEVELS))


def _fake_quantised(source: Any, low: Any, high: Any, levels: int) -> Any:
    bounds = [opset.constant(np.asarray(bound, dtype=np.float32)) for bound in (low, high, low, high)]
    return opset.fake_quantize(source, *bounds, levels).output(0)


def _with_exact_zero(low: float, high: float) -> tuple[float, float]:
    """The range widened to contain 0 and shifted so that 0 is one of its levels.

    >>> _with_exact_zero(-1.0, 254.2)
    (-1.0007843137254902, 254.1992156862745)
    """
    low, high = min(low, 0.0), max(high, low + 1e-6, 0.0)
    step = (high - low) / (_ACTIVATION_LEVELS - 1)
    zero_level = round(-low / step)
    return -zero_level * step, (_ACTIVATION_LEVELS - 1 - zero_level) * step
