"""Explanations: they change no bit of a score, show what the network really used, and draw it."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from mmdg_model.config import AdapterDirections, AttentionDivisor, ModelConfig, UncertaintyEstimatorKind
from mmdg_model.explain import Explanation, explain
from mmdg_model.explanation_figure import draw_explanation
from mmdg_model.inputs import AbsenceEncoding, InputSpecification, prepare
from mmdg_model.network import DIRECTIONS, MODALITIES, direction_name
from tests.mmdg_model.builders import MICRO, crop, lively_network, random_planes

SPEC = InputSpecification(image_size=64)
PRESENT = torch.tensor([[True, True, True], [True, False, True], [True, False, False]])


def micro(**changes):
    return dataclasses.replace(MICRO, **changes)


@pytest.mark.parametrize("config", [
    MICRO, micro(uncertainty_estimator=UncertaintyEstimatorKind.MONTE_CARLO),
    micro(adapter_directions=AdapterDirections.ALL_PAIRS), micro(absence=AbsenceEncoding.ZEROS),
    dataclasses.replace(ModelConfig.paper(), width=48, heads=3, depth=3, image_size=64)])
def test_an_explained_forward_has_the_same_bits(config):
    network, planes = lively_network(config), random_planes(3)
    with torch.no_grad():
        plain = network(planes, PRESENT)
        explanation = explain(network, planes, PRESENT)
        after = network(planes, PRESENT)
    for output in (explanation.output, after):
        assert all(torch.equal(one, other) for one, other in zip(plain, output, strict=True))
    assert not any(module._forward_hooks for module in network.modules())


def test_hooks_go_away_when_the_network_refuses():
    network = lively_network()
    with pytest.raises(ValueError, match="no modality present"):
        explain(network, random_planes(3), torch.zeros(3, 3, dtype=torch.bool))
    assert not any(module._forward_hooks for module in network.modules())


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        explain(lively_network().train(), random_planes(3), PRESENT)


def test_shapes_and_ranges():
    explanation = explain(lively_network(), random_planes(3), PRESENT)
    assert explanation.uncertainty.shape == (3, 3, 3, 17)
    assert set(explanation.attention) == {direction_name(*direction) for direction in DIRECTIONS}
    for weights in explanation.attention.values():
        assert weights.shape == (3, 3, 8, 17, 17)
        seen = weights[weights.isfinite().all(dim=-1)]
        torch.testing.assert_close(seen.sum(dim=-1), torch.ones(len(seen)))
    known = explanation.uncertainty[explanation.uncertainty.isfinite()]
    assert ((known >= 0) & (known <= 1)).all()
    assert explanation.uncertainty_maps().shape == (3, 3, 3, 4, 4)
    maps = explanation.attention_maps()["rgb_from_depth"]
    assert maps.shape == (3, 3, 4, 4)
    assert maps[:, 0].mean().item() == pytest.approx(1.0, abs=0.2)  # 1 over all 17 tokens, the class token's left out


def test_class_tokens_of_the_last_block_are_the_reported_certainty():
    explanation = explain(lively_network(), random_planes(3), PRESENT)
    last = 1 - explanation.uncertainty[-1, :, :, 0].T
    torch.testing.assert_close(last[PRESENT], explanation.output.class_certainty[PRESENT])


def test_what_was_muted_is_unknown_not_zero():
    explanation = explain(lively_network(), random_planes(3), PRESENT)
    assert torch.equal(explanation.uncertainty.isnan().all(dim=3).all(dim=0).T, ~PRESENT)
    for own, source in DIRECTIONS:
        exchanged = PRESENT[:, MODALITIES.index(own)] & PRESENT[:, MODALITIES.index(source)]
        weights = explanation.attention[direction_name(own, source)]
        assert torch.equal(weights.isfinite().flatten(2).all(dim=2).all(dim=0), exchanged)


def test_an_image_encoded_absence_was_read_and_is_shown():
    explanation = explain(lively_network(micro(absence=AbsenceEncoding.ZEROS)), random_planes(3), PRESENT)
    assert explanation.uncertainty.isfinite().all()


def test_a_map_shows_the_own_patch_that_is_looked_at():
    """All sources look at own token 1 + 6, the third patch of the second line; uncertainty sits there too."""
    attention = torch.zeros(1, 1, 8, 17, 17)
    attention[..., 7] = 1.0
    uncertainty = torch.zeros(1, 3, 1, 17)
    uncertainty[..., 7] = 0.5
    output = lively_network()(random_planes(1), PRESENT[:1])
    explanation = Explanation(output=output, uncertainty=uncertainty, attention={"rgb_from_depth": attention})
    expected = torch.zeros(1, 1, 4, 4)
    expected[..., 1, 2] = 17.0
    assert torch.equal(explanation.attention_maps()["rgb_from_depth"], expected)
    assert torch.equal(explanation.uncertainty_maps()[0, 0], expected[0] / 34)


@torch.no_grad()
@pytest.mark.parametrize("divisor", list(AttentionDivisor))
def test_recorded_attention_is_what_the_fused_kernel_applied(divisor):
    """Recorded weights times the values give the module's own output."""
    network, seen = lively_network(micro(attention_divisor=divisor)), {}
    exchange = network.blocks[1].adapters["rgb_from_infrared"].cross_attention
    exchange.register_forward_hook(lambda module, inputs, output: seen.update(inputs=inputs, output=output))
    explanation = explain(network, random_planes(3), torch.ones(3, 3, dtype=torch.bool))
    values = exchange.value(seen["inputs"][0]).unflatten(2, (8, 1)).transpose(1, 2)
    mixed = (explanation.attention["rgb_from_infrared"][1] @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(exchange.output(mixed), seen["output"], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_less_certain_tokens_spread_their_attention_more_evenly():
    """The paper's claim about Eq. 4, seen in the recorded arrays: U = 0 gives 1/n everywhere."""
    network = lively_network()
    exchange = network.blocks[0].adapters["rgb_from_depth"].cross_attention
    own, source = torch.randn(1, 17, 8), torch.randn(1, 17, 8)
    spread = [exchange.attention(own, source, torch.full((1, 17, 1), certainty)).std().item()
              for certainty in (1.0, 0.5, 0.1, 0.0)]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] == pytest.approx(0.0, abs=1e-7)
    assert spread[0] > 1e-3


@pytest.mark.parametrize(("absent", "directions"), [((), "rgb_centred"), (("depth", "infrared"), "all_pairs")])
def test_the_picture_is_drawn(tmp_path, absent, directions):
    network = lively_network(micro(adapter_directions=AdapterDirections(directions)))
    inputs = prepare([crop(without=absent)], SPEC)
    explanation = explain(network, torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present))
    draw_explanation(tmp_path / "deeper" / "x.png", explanation, inputs, SPEC, block=2, title="noise, random weights")
    picture = cv2.imread(str(tmp_path / "deeper" / "x.png"))
    assert min(picture.shape[:2]) > 800
    assert picture.std() > 20


def test_the_picture_shows_the_block_that_was_asked_for(tmp_path):
    inputs = prepare([crop()], SPEC)
    explanation = explain(lively_network(), torch.from_numpy(inputs.planes), torch.from_numpy(inputs.present))
    for block in (0, 1):
        draw_explanation(tmp_path / f"{block}.png", explanation, inputs, SPEC, block=block, title="same")
    first, second = (cv2.imread(str(tmp_path / f"{block}.png"))[150:] for block in (0, 1))
    assert (np.abs(first.astype(int) - second) > 20).mean() > 0.01
    with pytest.raises(ValueError, match="block 3 of row 0"):
        draw_explanation(tmp_path / "3.png", explanation, inputs, SPEC, block=3, title="none")
