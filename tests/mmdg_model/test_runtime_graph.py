"""The inference-only form against the naive reference in float64 and against the network it is made from."""

import dataclasses
from enum import StrEnum
from itertools import product

import pytest
import torch

from mmdg_model.config import HeadInput
from mmdg_model.network import build_mmdg
from mmdg_model.runtime_graph import build_runtime_graph
from tests.mmdg_model.builders import MICRO, lively_network, naive_reference, random_planes

PRESENCE = torch.tensor([row for row in product([False, True], repeat=3) if any(row)])

#: Largest difference over the logits' standard deviation. float32: rounding; the others carry 8 and 11 bits.
CLOSENESS = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}


def exact_logits(network, planes, present):
    weights = {name: weight.double() for name, weight in network.state_dict().items()}
    return naive_reference(weights, network.config).logits(planes.double(), present)


@pytest.mark.parametrize("dtype", list(CLOSENESS))
@torch.inference_mode()
def test_equals_the_naive_reference_for_every_presence(dtype):
    network, planes = lively_network(), random_planes(len(PRESENCE))
    exact = exact_logits(network, planes, PRESENCE)
    output = build_runtime_graph(network, dtype=dtype)(planes, PRESENCE)
    assert exact.std() > 1
    assert (output.logits - exact).abs().max() < CLOSENESS[dtype] * exact.std()
    assert output.logits.dtype is output.class_certainty.dtype is torch.float32


CHOICES = [(field.name, value) for field in dataclasses.fields(MICRO)
           for value in (type(field.default) if isinstance(field.default, StrEnum) else ())]


@pytest.mark.parametrize(("field", "value"), CHOICES)
@torch.inference_mode()
def test_equals_the_network_in_every_output_under_every_choice(field, value):
    network = lively_network(dataclasses.replace(MICRO, **{field: value}))
    present = PRESENCE | torch.tensor([value is HeadInput.RGB_TOKEN, False, False])  # which needs RGB
    planes = random_planes(len(PRESENCE))
    for expected, actual in zip(network(planes, present), build_runtime_graph(network)(planes, present), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("shape", [{"adapter_width": 16, "adapter_heads": 4}, {"patch_size": 32, "cdc_theta": 0.0}])
@torch.inference_mode()
def test_other_shapes_follow(shape):
    network = lively_network(dataclasses.replace(MICRO, **shape))
    planes = random_planes(2)
    expected, actual = (form(planes, PRESENCE[-2:]).logits for form in (network, build_runtime_graph(network)))
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-4)


@torch.inference_mode()
def test_content_of_an_absent_plane_changes_nothing():
    graph, planes = build_runtime_graph(lively_network()), random_planes(len(PRESENCE))
    filled = torch.where(PRESENCE[:, :, None, None, None], planes, torch.tensor(float("nan")))
    for expected, actual in zip(graph(planes, PRESENCE), graph(filled, PRESENCE), strict=True):
        assert torch.equal(expected, actual)


@torch.inference_mode()
def test_a_sample_does_not_depend_on_its_batch():
    graph, planes = build_runtime_graph(lively_network()), random_planes(len(PRESENCE))
    together = graph(planes, PRESENCE).logits
    for row in range(len(PRESENCE)):
        torch.testing.assert_close(graph(planes[row:row + 1], PRESENCE[row:row + 1]).logits, together[row:row + 1],
                                   atol=1e-4, rtol=1e-4)


def test_the_network_stays_as_it_was():
    network = lively_network()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    build_runtime_graph(network, dtype=torch.bfloat16)
    assert all(torch.equal(before[name], weight) for name, weight in network.state_dict().items())
    assert all(weight.requires_grad for weight in network.parameters())


def test_input_is_checked_as_the_network_does():
    with pytest.raises(ValueError, match="row 0 of the batch has no modality"):
        build_runtime_graph(lively_network())(random_planes(1), torch.zeros(1, 3, dtype=torch.bool))


@pytest.mark.parametrize(("network", "dtype", "quoted"), [
    (lambda: build_mmdg(MICRO), torch.float32, "in training mode"),
    (lambda: build_mmdg(MICRO).eval().half(), torch.float32, "the network is torch.float16"),
    (lambda: build_mmdg(MICRO).eval(), torch.float64, "dtype is torch.float64"),
])
def test_what_cannot_be_rearranged_is_refused(network, dtype, quoted):
    with pytest.raises(ValueError, match=quoted):
        build_runtime_graph(network(), dtype=dtype)


