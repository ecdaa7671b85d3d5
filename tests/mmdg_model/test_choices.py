"""Each choice between the paper and the released code: both behaviours are real, and differ as docs/model.md says."""

import copy
import dataclasses
from itertools import product

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.config import (
    AdapterDirections,
    AttentionDivisor,
    ConfigError,
    HeadInput,
    ModelConfig,
    PositionEmbedding,
    ResidualSource,
    TrainableParts,
    UncertaintyEstimatorKind,
    UncertaintyReduction,
    UncertaintyStatistic,
)
from mmdg_model.network import DIRECTIONS, MODALITIES, build_mmdg, direction_name
from mmdg_model.scorer import Modality
from mmdg_model.test_checkpoint import make_test_checkpoint
from mmdg_model.torch_scorer import TorchScorer
from mmdg_model.trainable import freeze_the_rest, is_trainable, trainable_parameters
from mmdg_model.u_adapter import UncertaintyCrossAttention, build_u_adapter
from mmdg_model.weights.backbone import Backbone, BackboneConfig, place_backbone
from tests.mmdg_model.builders import MICRO, crop, lively_network, random_planes

PRESETS = {"default": ModelConfig.default(), "release": ModelConfig.release(), "paper": ModelConfig.paper()}


def micro(**changes):
    return dataclasses.replace(MICRO, **changes)


def all_present(batch):
    return torch.ones(batch, 3, dtype=torch.bool)


@torch.inference_mode()
def outputs(config, seed=0):
    """Outputs of lively weights, equal for equal shapes whatever the choices."""
    return lively_network(config, seed)(random_planes(2), all_present(2))


@torch.inference_mode()
def test_the_weights_of_these_tests_are_lively():
    """A network at its silent start would agree with anything: logits must spread, adapters and CDC be random."""
    network = lively_network()
    logits = network(random_planes(16), all_present(16)).logits
    assert (logits[:, 1] - logits[:, 0]).std() > 1
    for adapter in network.blocks[1].adapters.values():
        assert adapter.up.weight.std() > 0.1
        assert adapter.convolution.weight.std() > 0.1


# Presets


@pytest.mark.parametrize("preset", list(PRESETS))
def test_presets_round_trip_through_the_dictionary(preset):
    assert ModelConfig.from_dict(PRESETS[preset].to_dict()) == PRESETS[preset]


def test_presets_hold_the_table():
    """The rows of docs/model.md that are choices of the model, for each preset."""
    rows = ("trainable_parts", "head_input", "uncertainty_statistic", "uncertainty_reduction", "uncertainty_estimator",
            "uncertainty_samples", "uncertainty_dropout", "uncertainty_rate", "residual_source", "attention_divisor",
            "position_embedding", "cdc_theta", "adapter_width", "adapter_dropout", "adapter_heads",
            "adapter_directions", "absence")
    adapters = (0.5, 8, 0.2, 8, "rgb_centred", "flag")
    table = {name: tuple(config.to_dict()[row] for row in rows) for name, config in PRESETS.items()}
    assert table == {
        "default": ("release", "concatenated", "standard_deviation", "exp_then_mean", "analytic", 20, 0.3, 2.25,
                    "stream", "head_width", "pretrained", *adapters),
        "release": ("release", "concatenated", "standard_deviation", "exp_then_mean", "finite_samples", 20, 0.3, 2.25,
                    "stream", "head_width", "fresh", *adapters),
        "paper": ("adapters_and_head", "rgb_token", "variance", "mean_then_exp", "analytic", 20, 0.3, 2.25,
                  "normed", "adapter_width", "pretrained", *adapters),
    }


@pytest.mark.parametrize(("preset", "total", "trainable"), [
    ("default", 88_252_034, 8_513_666),
    ("release", 88_252_034, 8_513_666),
    ("paper", 88_252_034 - 4_610 + 1_538, 963_456 + 1_538),
])
def test_parameter_counts_of_the_presets(preset, total, trainable):
    with torch.device("meta"):
        network = build_mmdg(PRESETS[preset])
    assert sum(parameter.numel() for parameter in network.parameters()) == total
    assert sum(trainable_parameters(PRESETS[preset]).values()) == trainable
    assert sum(size for name, size in trainable_parameters(PRESETS[preset]).items() if ".adapters." in name) == 963_456


def test_presets_disagree_on_the_same_weights():
    """Same weights where the shapes agree: each preset computes something else."""
    classes = [outputs(dataclasses.replace(preset, width=48, heads=3, depth=3, image_size=64)).class_tokens
               for preset in PRESETS.values()]
    differences = [(classes[a] - classes[b]).abs().max() for a, b in ((0, 1), (0, 2), (1, 2))]
    assert all(difference > 1e-4 for difference in differences)


# Row 1: trainable parts


def test_release_trains_six_groups():
    """adapters 963,456; last block 7,087,872; positions 453,888; class tokens 2,304; final norm 1,536; head 4,610."""
    groups = {"adapters": 0, "blocks.11.block": 0, "position": 0, "class_token": 0, "norm": 0, "head": 0}
    for name, size in trainable_parameters(ModelConfig.release()).items():
        group = next(group for group in groups if f".{group}." in f".{name}.")
        groups[group] += size
    assert list(groups.values()) == [963_456, 7_087_872, 453_888, 2_304, 1_536, 4_610]


@pytest.mark.parametrize("parts", list(TrainableParts))
def test_one_step_moves_the_trainable_parts_alone(parts):
    network = lively_network(micro(trainable_parts=parts)).train()
    trainable = freeze_the_rest(network)
    assert set(trainable) == set(trainable_parameters(network.config))
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    network(random_planes(2), all_present(2)).logits.square().sum().backward()
    optimiser.step()
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == set(trainable)


def test_paper_trains_less_than_release_and_release_less_than_everything():
    counts = [set(trainable_parameters(micro(trainable_parts=parts)))
              for parts in (TrainableParts.ADAPTERS_AND_HEAD, TrainableParts.RELEASE, TrainableParts.EVERYTHING)]
    assert counts[0] < counts[1] < counts[2]
    assert not is_trainable("blocks.0.block.mlp.0.weight", MICRO)
    assert is_trainable("blocks.2.block.mlp.0.weight", MICRO)


# Row 2: head input


@pytest.mark.parametrize(("head_input", "channels"), [
    (HeadInput.CONCATENATED, 3 * 48), (HeadInput.RGB_TOKEN, 48), (HeadInput.MEAN_TOKEN, 48)])
def test_head_reads_what_it_says(head_input, channels):
    network, planes = lively_network(micro(head_input=head_input)), random_planes(2)
    present = torch.tensor([[True, True, True], [True, False, True]])
    output = network(planes, present)
    tokens = output.class_tokens
    means = torch.stack([tokens[0].mean(dim=0), (tokens[1, 0] + tokens[1, 2]) / 2])
    expected = {HeadInput.CONCATENATED: tokens.flatten(1), HeadInput.RGB_TOKEN: tokens[:, 0],
                HeadInput.MEAN_TOKEN: means}[head_input]
    assert network.head.in_features == channels
    torch.testing.assert_close(output.logits, network.head(expected))


def test_rgb_token_refuses_a_row_without_rgb():
    network = build_mmdg(micro(head_input=HeadInput.RGB_TOKEN))
    present = torch.tensor([[True, True, True], [False, True, True]])
    with pytest.raises(ValueError, match="row 1 of the batch has no RGB"):
        network(random_planes(2), present)


# Rows 3, 4 and 5: uncertainty statistic, reduction, samples, dropout, rate (the estimators: test_uncertainty.py)


@pytest.mark.parametrize("change", [
    {"uncertainty_statistic": UncertaintyStatistic.VARIANCE},
    {"uncertainty_reduction": UncertaintyReduction.MEAN_THEN_EXP},
    {"uncertainty_estimator": UncertaintyEstimatorKind.FINITE_SAMPLES},
    {"uncertainty_estimator": UncertaintyEstimatorKind.MONTE_CARLO},
    {"uncertainty_estimator": UncertaintyEstimatorKind.NONE},
    {"uncertainty_dropout": 0.5},
    {"uncertainty_rate": 1.0},
])
def test_uncertainty_choices_reach_logits_and_reported_certainty(change):
    one, other = outputs(MICRO), outputs(micro(**change))
    assert not torch.equal(one.class_certainty, other.class_certainty)
    assert not torch.equal(one.logits, other.logits)


def test_number_of_samples_matters_to_the_sampling_estimators_only():
    for kind, differs in (("analytic", False), ("finite_samples", True), ("monte_carlo", True)):
        few, many = (outputs(micro(uncertainty_estimator=UncertaintyEstimatorKind(kind), uncertainty_samples=samples))
                     for samples in (3, 30))
        assert torch.equal(few.logits, many.logits) is not differs


def test_larger_rate_and_larger_dropout_mean_less_certainty():
    base = outputs(MICRO).class_certainty
    assert (outputs(micro(uncertainty_rate=4.0)).class_certainty < base).all()
    assert (outputs(micro(uncertainty_dropout=0.6)).class_certainty < base).all()


@torch.inference_mode()
def test_sampled_scores_repeat_in_use_change_with_the_seed_and_vary_in_training():
    network = lively_network(micro(uncertainty_estimator=UncertaintyEstimatorKind.MONTE_CARLO))
    planes = random_planes(2)
    first = network(planes, all_present(2)).logits
    assert torch.equal(network(planes, all_present(2)).logits, first)
    for block in network.blocks:
        block.uncertainty.seed = 1
    assert not torch.equal(network(planes, all_present(2)).logits, first)
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()  # what is left of chance is the drawn certainty
    assert not torch.equal(network(planes, all_present(2)).logits, network(planes, all_present(2)).logits)


@pytest.mark.parametrize("kind", list(UncertaintyEstimatorKind))
def test_a_scorer_passes_its_known_answer_and_repeats_itself_whatever_the_estimator(tmp_path, kind):
    checkpoint = make_test_checkpoint(tmp_path / "micro.safetensors", micro(uncertainty_estimator=kind))
    scorer, crops = TorchScorer(checkpoint), [crop(seed=1), crop(seed=2)]
    first, second = ([score.logit for score in scorer.score(crops)] for _ in range(2))
    assert first == second


def test_a_sampling_network_can_be_copied_after_use():
    network = lively_network(micro(uncertainty_estimator=UncertaintyEstimatorKind.MONTE_CARLO))
    with torch.inference_mode():
        logits = network(random_planes(1), all_present(1)).logits
        assert torch.equal(copy.deepcopy(network)(random_planes(1), all_present(1)).logits, logits)


# Row 7: residual


@torch.inference_mode()
def test_paper_residual_forgets_the_stream_and_the_released_one_keeps_it():
    """With a constant added to the stream that the norms remove: one carries it on, the other does not."""
    torch.manual_seed(0)
    for source, keeps in ((ResidualSource.STREAM, True), (ResidualSource.NORMED, False)):
        block = build_mmdg(micro(residual_source=source)).eval().blocks[0]
        stream = torch.randn(3, 1, 17, 48)
        before, _ = block(stream, torch.ones(3, 1, dtype=torch.bool))
        after, _ = block(stream + 5.0, torch.ones(3, 1, dtype=torch.bool))
        torch.testing.assert_close(after - before, torch.full_like(before, 5.0 if keeps else 0.0), atol=1e-3, rtol=0)


@torch.inference_mode()
def test_paper_residual_is_equation_three():
    """x5 = x3 + MLP(x3) + adapters(x3), with x3 the output of the norm before the MLP."""
    network = lively_network(micro(residual_source=ResidualSource.NORMED))
    adapted, stream = network.blocks[0], torch.randn(3, 1, 17, 48, generator=torch.Generator().manual_seed(0))
    actual, certainty = adapted(stream, torch.ones(3, 1, dtype=torch.bool))
    x1 = adapted.block.attention_norm(stream)
    x3 = adapted.block.mlp_norm(stream + adapted.block.attention(x1.flatten(0, 1)).reshape(stream.shape))
    expected = x3 + adapted.block.mlp(x3)
    for own, source in DIRECTIONS:
        o, s = MODALITIES.index(own), MODALITIES.index(source)
        expected[o] += adapted.adapters[direction_name(own, source)](x3[o], x3[s], certainty[s])
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


# Rows 8 and 9: attention divisor; certainty on queries or on rows of Q K^T


@torch.inference_mode()
@pytest.mark.parametrize("divisor", list(AttentionDivisor))
@pytest.mark.parametrize("heads", [1, 2, 8])
def test_attention_is_equation_four(divisor, heads):
    """softmax(U · Q K^T / sqrt(n_k)) V, written out; n_k = channels of a head, or of a token."""
    torch.manual_seed(0)
    attention = UncertaintyCrossAttention(width=8, heads=heads, divisor=divisor)
    own, source, certainty = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.rand(2, 5, 1)
    n_k = 8 if divisor is AttentionDivisor.ADAPTER_WIDTH else 8 // heads
    mixed = []
    for q, k, v in zip(*(part.chunk(heads, dim=-1) for part in (
            attention.query(source), attention.key(own), attention.value(own))), strict=True):
        mixed.append(torch.softmax(certainty * (q @ k.transpose(1, 2)) / n_k**0.5, dim=-1) @ v)
    expected = attention.output(torch.cat(mixed, dim=-1))
    torch.testing.assert_close(attention(own, source, certainty), expected, atol=1e-6, rtol=1e-5)


def test_divisors_differ_with_many_heads_and_agree_with_one():
    def logits(**choices):
        return outputs(micro(**choices)).logits

    by_head, by_token = (logits(attention_divisor=divisor) for divisor in AttentionDivisor)
    assert not torch.allclose(by_head, by_token)
    single = [logits(attention_divisor=divisor, adapter_heads=1) for divisor in AttentionDivisor]
    assert torch.equal(*single)


# Row 14: position embedding


def test_fresh_positions_are_separate_draws_and_pretrained_ones_separate_copies():
    pretrained = build_mmdg(MICRO).embeddings[0].position.detach().clone() + 1.0
    backbone = Backbone(config=BackboneConfig(width=48, heads=3, depth=3, image_size=64), layout="random",
                        weights={"embedding.position": pretrained}, source_sha256="", created_by="test",
                        pixel_mean=(0.5, 0.5, 0.5), pixel_std=(0.5, 0.5, 0.5))
    for choice, copied in ((PositionEmbedding.FRESH, False), (PositionEmbedding.PRETRAINED, True)):
        network = build_mmdg(micro(position_embedding=choice))
        place_backbone(network, backbone)
        positions = [embedding.position for embedding in network.embeddings]
        assert all(torch.equal(position, pretrained) is copied for position in positions)
        assert torch.equal(positions[0], positions[1]) is copied
        with torch.no_grad():
            positions[0].zero_()
        assert positions[1].any()  # not one shared tensor


def test_fresh_positions_have_the_released_spread():
    positions = torch.stack([embedding.position.detach() for embedding in build_mmdg(MICRO).embeddings])
    assert positions.std().item() == pytest.approx(0.02, rel=0.1)
    assert abs(positions.mean().item()) < 2e-3


# Row 16: adapter hyper-parameters


@pytest.mark.parametrize("change", [{"cdc_theta": 0.0}, {"adapter_width": 16}, {"adapter_heads": 4}])
def test_adapter_hyper_parameters_reach_the_logits(change):
    assert not torch.allclose(outputs(MICRO).logits, outputs(micro(**change)).logits)


def test_adapter_dropout_silences_its_share_of_channels():
    for share in (0.0, 0.5):
        torch.manual_seed(0)
        adapter = build_u_adapter(micro(adapter_dropout=share)).train()
        seen = []
        adapter.up.register_forward_pre_hook(lambda _module, inputs, seen=seen: seen.append(inputs[0]))
        adapter(torch.randn(8, 17, 48), torch.randn(8, 17, 48), torch.ones(8, 17, 1))
        assert (seen[0] == 0).float().mean().item() == pytest.approx(share, abs=0.05)


# Row 18: depth and infrared


@torch.inference_mode()
def test_depth_reaches_infrared_in_one_block_only_where_adapters_join_them():
    for directions, reaches in ((AdapterDirections.RGB_CENTRED, False), (AdapterDirections.ALL_PAIRS, True)):
        network, planes = lively_network(micro(adapter_directions=directions, depth=1)), random_planes(1)
        changed = planes.clone()
        changed[:, 1] += 1.0
        before, after = (network(x, all_present(1)).class_tokens for x in (planes, changed))
        infrared = MODALITIES.index(Modality.INFRARED)
        assert torch.equal(before[:, infrared], after[:, infrared]) is not reaches
        assert not torch.equal(before[:, 0], after[:, 0])


def test_all_pairs_adds_two_adapters_a_block():
    with torch.device("meta"):
        network = build_mmdg(ModelConfig(adapter_directions=AdapterDirections.ALL_PAIRS))
    adapters = sum(p.numel() for name, p in network.named_parameters() if ".adapters." in name)
    assert adapters == 72 * 20_072
    assert {"depth_from_infrared", "infrared_from_depth"} < set(network.blocks[0].adapters)


# What a stranger's checkpoint may declare


@pytest.mark.parametrize(("changes", "quoted"), [
    ({"width": 10**9, "heads": 1}, "model.width is 1000000000, expected 1 to 2048"),
    ({"depth": 65}, "model.depth is 65, expected 1 to 64"),
    ({"heads": 10**6}, "model.heads is 1000000"),
    ({"image_size": 2048}, "model.image_size is 2048, expected 1 to 1024"),
    ({"image_size": 1024, "patch_size": 8}, "gives 128 patches a side, expected at most 64"),
    ({"mlp_ratio": 10**12}, "model.mlp_ratio is 1000000000000, expected 1 to 8"),
    ({"adapter_width": 4096}, "model.adapter_width is 4096"),
    ({"uncertainty_samples": 10**9}, "model.uncertainty_samples is 1000000000, expected 1 to 1000"),
    ({"uncertainty_samples": 1, "uncertainty_estimator": UncertaintyEstimatorKind.MONTE_CARLO},
     "model.uncertainty_samples is 1, expected at least 2"),
])
def test_sizes_beyond_reason_are_refused_before_anything_is_built(changes, quoted):
    with pytest.raises(ConfigError, match=quoted):
        dataclasses.replace(ModelConfig(), **changes)


def test_every_choice_is_checked_by_name():
    for field, wrong in product(("trainable_parts", "head_input", "residual_source", "attention_divisor",
                                 "position_embedding", "adapter_directions", "absence", "uncertainty_estimator"),
                                ("", "paper", 3, None)):
        with pytest.raises(ConfigError, match=f"model.{field} is {wrong!r}, expected one of"):
            ModelConfig.from_dict(ModelConfig().to_dict() | {field: wrong})


@torch.inference_mode()
def test_uncertainty_one_is_the_network_without_its_factor():
    """U = 1 leaves ordinary attention between the modalities, not a network without adapters."""
    network = lively_network(micro(uncertainty_estimator=UncertaintyEstimatorKind.NONE))
    attention = network.blocks[0].adapters["rgb_from_depth"].cross_attention
    certainty = network.blocks[0].uncertainty(torch.randn(2, 17, 48))
    assert torch.equal(certainty, torch.ones(2, 17, 1))
    own, source = torch.randn(2, 17, 8), torch.randn(2, 17, 8)
    plain = F.scaled_dot_product_attention(*(part.unflatten(2, (8, 1)).transpose(1, 2) for part in (
        attention.query(source), attention.key(own), attention.value(own))))
    expected = attention.output(plain.transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(own, source, certainty), expected)
