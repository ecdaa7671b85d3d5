"""The network: published size, a naive second implementation, missing modalities, draws, gradients."""

import dataclasses
import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdg_model.mmdg_plus_plus.clip_towers import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD
from mmdg_model.mmdg_plus_plus.config import MMDGPlusPlusConfig, QueryEstimator
from mmdg_model.mmdg_plus_plus.network import build_mmdg_plus_plus, input_specification, parameter_owner
from mmdg_model.network import MODALITIES
from mmdg_model.scorer import Modality
from tests.mmdg_model.mmdg_plus_plus.builders import MICRO, PRESENCE, lively_network, random_planes

ALL = torch.ones(1, 3, dtype=torch.bool)
SAMPLED = dataclasses.replace(MICRO, query_estimator=QueryEstimator.SAMPLED)
shared_network = functools.cache(lively_network)  # for tests of many examples that leave it as it is


def sizes(module, trainable=None):
    return {name: parameter.numel() for name, parameter in module.named_parameters()
            if trainable is None or parameter.requires_grad is trainable}


def test_parameters_of_the_published_size():
    with torch.device("meta"):
        network = build_mmdg_plus_plus(MMDGPlusPlusConfig.base())
    trainable = sizes(network, trainable=True)
    parts = {part: sum(size for name, size in trainable.items() if name.startswith(start) and name.endswith(end))
             for part, start, end in (("adapters", "adapters.", ""), ("projections", "ends.", "projection"),
                                      ("positions", "ends.", "position"), ("tokens", "ends.", "class_token"),
                                      ("head", "head.", ""))}
    assert parts == {"adapters": 36 * 20_480, "projections": 3 * 768 * 512, "positions": 3 * 197 * 768,
                     "tokens": 3 * 768, "head": 3 * 512 * 2 + 2}
    assert sum(trainable.values()) == sum(parts.values()) == 2_414_594 - 38_400  # the prompts are not the network's
    assert set(sizes(network, trainable=False)) == {name for name in sizes(network) if name.startswith("tower.")}


def test_the_network_holds_no_text():
    assert {name.partition(".")[0] for name in build_mmdg_plus_plus(MICRO).state_dict()} == {
        "tower", "ends", "adapters", "head"}


@torch.inference_mode()
def test_fresh_adapters_leave_the_modalities_apart():
    torch.manual_seed(0)
    network, planes = build_mmdg_plus_plus(MICRO).eval(), random_planes(2)
    changed = planes.clone()
    changed[:, 1] = 1 - changed[:, 1]
    before, after = (network(x, ALL.expand(2, 3)).class_tokens for x in (planes, changed))
    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.equal(before[:, 1], after[:, 1])


@torch.inference_mode()
@pytest.mark.parametrize("changed_modality", range(3))
def test_every_modality_hears_every_other_within_one_block(changed_modality):
    """Depth and infrared too, unlike in MMDG. One block: nothing can come round by way of colour."""
    # Eight samples: a class token that is more certain of its own query does not hear this once.
    network, planes = lively_network(dataclasses.replace(MICRO, depth=1)), random_planes(8)
    changed = planes.clone()
    changed[:, changed_modality] = 1 - changed[:, changed_modality]
    before, after = (network(x, ALL.expand(8, 3)).class_tokens for x in (planes, changed))
    assert ((before - after).abs().amax(dim=(0, 2)) > 1e-4).all()


def naive_forward(network, planes, present):
    """One sample and one modality at a time. Adapters are the tested ones, called for each direction by itself."""
    logits, features, certainties = [], [], []
    for image, here in zip(planes, present, strict=True):
        stream = {modality: naive_tokens(network, image[index] if here[index] else torch.zeros_like(image[index]),
                                         network.ends[modality]) for index, modality in enumerate(MODALITIES)}
        for block, adapters in zip(network.tower.blocks, network.adapters, strict=True):
            residual = {own: stream[own] + naive_attention(block.attention, block.attention_norm(stream[own]))
                        for own in MODALITIES}
            normed = {own: block.mlp_norm(residual[own]) for own in MODALITIES}
            certainty = dict.fromkeys(MODALITIES, torch.tensor(0.0))
            for index, own in enumerate(MODALITIES):
                stream[own] = residual[own] + naive_mlp(block.mlp, normed[own])
                if not here[index]:
                    continue
                for source, other in enumerate(MODALITIES):
                    if other is not own:
                        term, token_certainty = adapters.of[own](normed[own][None], normed[other][None],
                                                                 here[source][None])
                        stream[own] = stream[own] + term[0]
                        certainty[own] = certainty[own] + token_certainty[0, 0, 0] / 2
        rows = []
        for index, modality in enumerate(MODALITIES):
            feature = network.tower.norm(stream[modality][0]) @ network.ends[modality].projection
            rows.append(feature / feature.norm() if here[index] else torch.zeros_like(feature))
        features.append(torch.stack(rows))
        logits.append(network.head(torch.cat(rows)))
        certainties.append(torch.stack([certainty[modality] for modality in MODALITIES]))
    return torch.stack(logits), torch.stack(features), torch.stack(certainties)


def naive_tokens(network, image, end):
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (CLIP_PIXEL_MEAN, CLIP_PIXEL_STD))
    size = network.config.patch_size
    weight = network.tower.patches.weight.flatten(1)
    patches = [weight @ ((image - mean) / std)[:, row:row + size, column:column + size].flatten()
               for row in range(0, image.shape[1], size) for column in range(0, image.shape[2], size)]
    return network.tower.embedding_norm(torch.stack([end.class_token[0, 0], *patches]) + end.position[0])


def naive_attention(attention, tokens):
    query, key, value = attention.query_key_value(tokens).chunk(3, dim=-1)
    heads = [torch.softmax(q @ k.T / q.shape[-1] ** 0.5, dim=-1) @ v
             for q, k, v in zip(*(part.chunk(attention.heads, dim=-1) for part in (query, key, value)), strict=True)]
    return attention.output(torch.cat(heads, dim=-1))


def naive_mlp(mlp, tokens):
    hidden = mlp[0](tokens)
    return mlp[2](hidden * torch.sigmoid(1.702 * hidden))


@torch.inference_mode()
def test_stacked_forward_equals_the_naive_loop_for_every_presence():
    network = lively_network()
    planes, present = random_planes(len(PRESENCE)), torch.tensor(PRESENCE)
    output = network(planes, present)
    assert (output.logits[:, 1] - output.logits[:, 0]).std() > 1
    for actual, expected in zip(output, naive_forward(network, planes, present), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-4)


@given(presence=st.lists(st.sampled_from(PRESENCE), min_size=1, max_size=3),
       content=st.sampled_from([0.0, 1.0, -7.5, 1e30, float("nan"), float("inf")]), seed=st.integers(0, 1000),
       config=st.sampled_from([MICRO, SAMPLED]))
@settings(max_examples=25, deadline=None, derandomize=True)
@torch.inference_mode()
def test_content_of_an_absent_plane_changes_nothing(presence, content, seed, config):
    network, present = shared_network(config), torch.tensor(presence)
    planes = random_planes(len(presence), seed=seed)
    filled = torch.where(present[:, :, None, None, None], planes, torch.tensor(content))
    expected, actual = network(planes, present), network(filled, present)
    assert all(torch.equal(a, b) for a, b in zip(expected, actual, strict=True))
    assert all(torch.isfinite(values).all() for values in actual)


@torch.inference_mode()
@pytest.mark.parametrize("absent", list(Modality))
def test_absence_is_not_an_all_black_plane(absent):
    network, planes, present = lively_network(), random_planes(1), ALL.clone()
    index = MODALITIES.index(absent)
    planes[:, index] = 0.0
    present[0, index] = False
    flagged, black = network(planes, present), network(planes, ALL)
    assert (flagged.logits - black.logits).abs().max() > 1e-3
    assert not flagged.class_tokens[0, index].any()
    assert flagged.class_certainty[0, index] == 0
    others = [other for other in range(3) if other != index]
    assert not torch.equal(flagged.class_tokens[0, others], black.class_tokens[0, others])  # they hear of it


@torch.inference_mode()
def test_an_absent_modality_is_told_nothing():
    generator = torch.Generator().manual_seed(0)
    tokens, present = torch.randn(3, 7, MICRO.num_tokens, MICRO.width, generator=generator), torch.tensor(PRESENCE).T
    terms, certainty = lively_network().adapters[0](tokens, present, None)
    assert torch.equal(terms.flatten(2).any(dim=-1), present)
    assert torch.equal(certainty > 0, present)


@torch.inference_mode()
def test_features_have_length_one_and_certainty_lies_in_its_range():
    output = lively_network()(random_planes(2), ALL.expand(2, 3))
    torch.testing.assert_close(output.class_tokens.norm(dim=-1), torch.ones(2, 3))
    assert output.class_certainty.shape == (2, 3)
    assert ((output.class_certainty > 0) & (output.class_certainty < 1)).all()


@torch.inference_mode()
def test_a_sample_does_not_depend_on_its_batch():
    network = lively_network()
    planes, present = random_planes(len(PRESENCE)), torch.tensor(PRESENCE)
    together = network(planes, present)
    for row in range(len(PRESENCE)):
        alone = network(planes[row:row + 1], present[row:row + 1])
        torch.testing.assert_close(together.logits[row:row + 1], alone.logits, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("config", [MICRO, SAMPLED])
def test_same_input_gives_the_same_bits_in_use(config):
    network, planes = lively_network(config), random_planes(2)
    torch.manual_seed(1)
    first = network(planes, ALL.expand(2, 3))
    torch.manual_seed(2)
    second = network(planes, ALL.expand(2, 3))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@torch.inference_mode()
def test_draws_follow_the_seed():
    planes, network = random_planes(2), lively_network(SAMPLED)
    first, second = (network(planes, ALL.expand(2, 3), generator=torch.Generator().manual_seed(seed)).logits
                     for seed in (0, 7))
    assert torch.equal(network(planes, ALL.expand(2, 3)).logits, first)
    assert torch.equal(lively_network(dataclasses.replace(SAMPLED, sampling_seed=7))(planes, ALL.expand(2, 3)).logits,
                       second)
    assert not torch.equal(first, second)


@torch.inference_mode()
def test_more_draws_come_closer_to_the_closed_form():
    """Not by the root of their number: which query a token takes changes in jumps."""
    planes, errors = random_planes(4), {}
    exact = lively_network()(planes, ALL.expand(4, 3)).logits
    for samples in (2, 1000):
        network = lively_network(dataclasses.replace(SAMPLED, query_samples=samples))
        errors[samples] = (network(planes, ALL.expand(4, 3)).logits - exact).square().mean().sqrt().item()
    assert errors[1000] < 0.3 * errors[2]


@pytest.mark.parametrize(("config", "variances_learn"), [(MICRO, False), (SAMPLED, True)])
def test_all_but_the_tower_learns(config, variances_learn):
    network = lively_network(config).train()
    network(random_planes(2), ALL.expand(2, 3), generator=torch.Generator().manual_seed(0)).logits.square().sum(
        ).backward()
    for name, parameter in network.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.any())
        assert learns == (not name.startswith("tower.") and ("log_variance" not in name or variances_learn)), name


def test_captured_graph_equals_the_network_at_another_batch_size():
    """What other runtimes are given: one graph for every batch and presence, without the checks of values."""
    network, batch = lively_network(), torch.export.Dim("batch", min=1, max=16)
    captured = torch.export.export(network, (random_planes(2), ALL.expand(2, 3)),
                                   dynamic_shapes=({0: batch}, {0: batch})).module()
    planes, present = random_planes(len(PRESENCE)), torch.tensor(PRESENCE)
    with torch.inference_mode():
        for actual, expected in zip(captured(planes, present), network(planes, present), strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_owners():
    owners = {name: parameter_owner(name) for name, _ in build_mmdg_plus_plus(MICRO).named_parameters()}
    assert {name for name, owner in owners.items() if owner is None} == {
        name for name in owners if name.startswith(("tower.", "head."))}
    counts = {modality: sum(owner is modality for owner in owners.values()) for modality in Modality}
    assert len(set(counts.values())) == 1
    assert owners["ends.depth.projection"] is owners["adapters.1.of.depth.up.weight"] is Modality.DEPTH


def test_its_input_is_in_0_to_1():
    specification = input_specification(MICRO)
    assert specification.image_size == MICRO.image_size
    assert {(getattr(specification, f"{plane}_mean"), getattr(specification, f"{plane}_scale"))
            for plane in ("colour", "depth", "infrared")} == {(0.0, 255.0)}


@pytest.mark.parametrize(("planes", "present", "quoted"), [
    (torch.zeros(1, 3, 3, 32, 64), ALL, r"\(1, 3, 3, 32, 64\), expected \(b, 3, 3, 64, 64\)"),
    (torch.zeros(2, 3, 3, 64, 64), ALL, r"presence is torch.bool \(1, 3\)"),
    (torch.zeros(1, 3, 3, 64, 64), ALL.float(), r"presence is torch.float32"),
    (torch.zeros(2, 3, 3, 64, 64), torch.tensor([[True, False, False], [False] * 3]), "row 1 .* no modality"),
])
def test_wrong_input_is_refused(planes, present, quoted):
    with pytest.raises(ValueError, match=quoted):
        build_mmdg_plus_plus(MICRO)(planes, present)
