"""The network: size, silence at the start, a naive second implementation, missing modalities."""

import dataclasses
import functools
from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdg_model.config import ModelConfig, UncertaintyReduction, UncertaintyStatistic
from mmdg_model.network import DIRECTIONS, MODALITIES, build_mmdg, direction_name
from mmdg_model.scorer import Modality
from tests.mmdg_model.builders import MICRO, lively_network, random_planes

ALL = torch.ones(1, 3, dtype=torch.bool)
shared_network = functools.cache(lively_network)  # for tests of many examples that leave it as it is
PRESENCE = [row for row in product([False, True], repeat=3) if any(row)]


def test_base_has_the_released_number_of_parameters():
    with torch.device("meta"):
        network = build_mmdg(ModelConfig.base())
    sizes = {name: parameter.numel() for name, parameter in network.named_parameters()}
    adapters = {name: size for name, size in sizes.items() if ".adapters." in name}
    assert sum(sizes.values()) == 88_252_034
    assert sum(adapters.values()) == 963_456 == 48 * 20_072
    assert len(adapters) == 672
    assert sum(size for name, size in sizes.items() if name.startswith("blocks.11.block.")) == 7_087_872
    assert sum(size for name, size in sizes.items() if name.startswith("head.")) == 4_610


def test_depth_and_infrared_never_exchange():
    assert {direction_name(*direction) for direction in DIRECTIONS} == {
        "rgb_from_depth", "rgb_from_infrared", "depth_from_rgb", "infrared_from_rgb"}
    assert set(build_mmdg(MICRO).blocks[0].adapters) == {direction_name(*direction) for direction in DIRECTIONS}


@torch.inference_mode()
def test_fresh_network_equals_three_separate_transformers():
    """Adapters are silent at the start: changing depth leaves the RGB class token as it was, bit for bit."""
    torch.manual_seed(0)
    network = build_mmdg(MICRO).eval()
    planes = random_planes(2)
    changed = planes.clone()
    changed[:, 1] += 1.0
    before, after = (network(x, ALL.expand(2, 3)).class_tokens for x in (planes, changed))
    assert torch.equal(before[:, 0], after[:, 0])
    assert torch.equal(before[:, 2], after[:, 2])
    assert not torch.equal(before[:, 1], after[:, 1])


@torch.inference_mode()
def test_lively_adapters_carry_depth_to_rgb_and_on_to_infrared():
    network, planes = lively_network(), random_planes(2)
    changed = planes.clone()
    changed[:, 1] += 1.0
    before, after = (network(x, ALL.expand(2, 3)).class_tokens for x in (planes, changed))
    assert ((before - after).abs().amax(dim=(0, 2)) > 1e-3).all()


def naive_forward(network, planes, present):
    """One sample and one modality at a time, written from the paper's equations with explicit softmax."""
    config = network.config
    rows = []
    for image, here in zip(planes, present, strict=True):
        stream = {}
        for index, modality in enumerate(MODALITIES):
            embed = network.embeddings[index]
            visible = image[index] if here[index] else torch.zeros_like(image[index])
            patches = embed.patches(visible[None]).flatten(2).transpose(1, 2)
            stream[modality] = (torch.cat([embed.class_token, patches], dim=1) + embed.position)[0]
        for block in network.blocks:
            residual, normed, certainty = {}, {}, {}
            for modality in MODALITIES:
                attended = naive_attention(block.block.attention, block.block.attention_norm(stream[modality]))
                spread = attended.abs() * (config.uncertainty_dropout / (1 - config.uncertainty_dropout)) ** 0.5
                certainty[modality] = torch.exp(-config.uncertainty_rate * spread).mean(dim=-1, keepdim=True)
                residual[modality] = stream[modality] + attended
                normed[modality] = block.block.mlp_norm(residual[modality])
            stream = {own: residual[own] + block.block.mlp(normed[own]) for own in MODALITIES}
            for own, source in DIRECTIONS:
                if here[MODALITIES.index(source)]:
                    adapter = block.adapters[direction_name(own, source)]
                    stream[own] = stream[own] + adapter(
                        normed[own][None], normed[source][None], certainty[source][None])[0]
        tokens = [network.norm(stream[modality][0]) if here[index] else torch.zeros(config.width)
                  for index, modality in enumerate(MODALITIES)]
        rows.append(network.head(torch.cat(tokens)))
    return torch.stack(rows)


def naive_attention(attention, tokens):
    query, key, value = attention.query_key_value(tokens).chunk(3, dim=-1)
    heads = []
    for q, k, v in zip(*(part.chunk(attention.heads, dim=-1) for part in (query, key, value)), strict=True):
        heads.append(torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1) @ v)
    return attention.output(torch.cat(heads, dim=-1))


@torch.inference_mode()
def test_stacked_forward_equals_the_naive_loop_for_every_presence():
    network = lively_network()
    planes, present = random_planes(len(PRESENCE)), torch.tensor(PRESENCE)
    logits = network(planes, present).logits
    assert logits.std() > 1
    torch.testing.assert_close(logits, naive_forward(network, planes, present), atol=1e-3, rtol=1e-4)


@torch.inference_mode()
def test_each_reading_of_uncertainty_reaches_the_adapters():
    planes, logits = random_planes(1), []
    for statistic, reduction in product(UncertaintyStatistic, UncertaintyReduction):
        config = dataclasses.replace(MICRO, uncertainty_statistic=statistic, uncertainty_reduction=reduction)
        logits.append(lively_network(config)(planes, ALL).logits)
    for first, second in combinations(logits, 2):
        assert not torch.equal(first, second)  # same weights, same kernels: only the reading differs


@torch.inference_mode()
def test_a_sample_does_not_depend_on_its_batch():
    network = lively_network()
    planes, present = random_planes(len(PRESENCE)), torch.tensor(PRESENCE)
    together = network(planes, present)
    for row in range(len(PRESENCE)):
        alone = network(planes[row:row + 1], present[row:row + 1])
        torch.testing.assert_close(together.logits[row:row + 1], alone.logits, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_same_input_gives_the_same_bits():
    network, planes = lively_network(), random_planes(2)
    first, second = (network(planes, ALL.expand(2, 3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@given(presence=st.lists(st.sampled_from(PRESENCE), min_size=1, max_size=3),
       content=st.sampled_from([0.0, 1.0, -7.5, 1e30, float("nan"), float("inf")]), seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None, derandomize=True)
@torch.inference_mode()
def test_content_of_an_absent_plane_changes_nothing(presence, content, seed):
    network, present = shared_network(), torch.tensor(presence)
    planes = random_planes(len(presence), seed=seed)
    filled = torch.where(present[:, :, None, None, None], planes, torch.tensor(content))
    expected, actual = network(planes, present), network(filled, present)
    assert all(torch.equal(a, b) for a, b in zip(expected, actual, strict=True))
    assert torch.isfinite(actual.logits).all()


@torch.inference_mode()
@pytest.mark.parametrize("absent", [Modality.RGB, Modality.DEPTH, Modality.INFRARED])
def test_absence_is_not_an_all_black_plane(absent):
    """The flag says "no measurement"; a plane that happens to be zero is a measurement and scores differently."""
    network, planes, present = lively_network(), random_planes(1), ALL.clone()
    planes[:, MODALITIES.index(absent)] = 0.0
    present[0, MODALITIES.index(absent)] = False
    flagged, black = network(planes, present), network(planes, ALL)
    assert (flagged.logits - black.logits).abs().max() > 1e-3
    assert not flagged.class_tokens[0, MODALITIES.index(absent)].any()
    assert flagged.class_certainty[0, MODALITIES.index(absent)] == 0


@torch.inference_mode()
def test_class_certainty_falls_when_the_attention_output_grows():
    network, planes = lively_network(), random_planes(2)
    before = network(planes, ALL.expand(2, 3)).class_certainty
    last = network.blocks[-1].block.attention.output
    last.weight.mul_(2.0)
    last.bias.mul_(2.0)
    after = network(planes, ALL.expand(2, 3)).class_certainty
    assert before.shape == (2, 3)
    assert ((before > 0) & (before <= 1)).all()
    assert (after < before).all()


def test_every_parameter_receives_a_gradient():
    """Once the up projections are not zero, no parameter is out of the loss's reach."""
    network = lively_network().train()
    network(random_planes(2), ALL.expand(2, 3)).logits.square().sum().backward()
    silent = [name for name, parameter in network.named_parameters()
              if parameter.grad is None or not parameter.grad.any()]
    assert silent == []


@pytest.mark.parametrize(("planes", "present", "quoted"), [
    (torch.zeros(1, 3, 3, 32, 64), ALL, r"\(1, 3, 3, 32, 64\), expected \(b, 3, 3, 64, 64\)"),
    (torch.zeros(1, 2, 3, 64, 64), ALL, r"\(1, 2, 3, 64, 64\)"),
    (torch.zeros(2, 3, 3, 64, 64), ALL, r"presence is torch.bool \(1, 3\)"),
    (torch.zeros(1, 3, 3, 64, 64), ALL.float(), r"presence is torch.float32"),
    (torch.zeros(2, 3, 3, 64, 64), torch.tensor([[True, False, False], [False] * 3]), "row 1 .* no modality"),
])
def test_wrong_input_is_refused(planes, present, quoted):
    with pytest.raises(ValueError, match=quoted):
        build_mmdg(MICRO)(planes, present)
