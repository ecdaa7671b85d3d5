"""Every row of `METHODS` by the same measure: a new method is tested by existing."""

import dataclasses
import math

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file

from mmdg_model.config import ModelConfig, TrainableParts
from mmdg_model.network import MODALITIES
from mmdg_model.training.compute import SingleProcess, TrainingDiverged
from mmdg_model.training.methods.contract import MethodContext, MethodError, OptimiserConfig
from mmdg_model.training.methods.mean_loss import CrossEntropyMethod
from mmdg_model.training.methods.registry import METHODS, build
from mmdg_model.training.protocols import PROTOCOL_2, WITHHELD
from tests.mmdg_model.training.methods import two_process_updates
from tests.mmdg_model.training.methods.builders import (
    DROPPED,
    TOY,
    ScaledProcess,
    context,
    double,
    meta_backbone,
    method,
    precise,
    rows,
    samples,
    silence_dropout,
    start_for,
    toy_backbone,
    toy_clip,
    weights,
)

#: Parameters in all and trained, at the paper's size with the release's trained parts. MMDG: as published. Plain ViT:
#: ViT-B/16 without its own head (85,798,656) and a head of 2, of one token (and the fusing convolution) or three.
PAPER_SIZE = {
    **dict.fromkeys([name for name in METHODS if name.startswith(("mmdg", "u_adapter"))], (88_252_034, 8_513_666)),
    **dict.fromkeys(["pmr_u_adapter", "ogm_ge_u_adapter"], (88_252_034, 8_513_666)),
    "vit_early": (85_798_656 + 1_538 + 30, 7_087_872 + 1_536 + 768 + 197 * 768 + 1_538 + 30),
    **dict.fromkeys(["vit_late", "vit_late_regrad", "pmr_vit", "ogm_ge_vit"],
                    (85_798_656 + 4_610, 7_087_872 + 1_536 + 768 + 197 * 768 + 4_610)),
    # Beside the ViT and what of it trains: three projections, a convolution and its norm, a head of 64 channels.
    "vit_cross": (85_798_656 + 184_578, 7_087_872 + 1_536 + 768 + 197 * 768 + 184_578),
    "cmfl_vit": (85_803_266 + 3 * 769, 7_246_082 + 3 * 769),
    "cmfl_u_adapter": (88_252_034 + 3 * 769, 8_513_666 + 3 * 769),
    # 24 adapters of 14,875 and a head of one token; prompts, their generator and a head of three.
    "vit_ama": (85_798_656 + 24 * 14_875 + 1_538, 24 * 14_875 + 1_538),
    "vp_fas": (85_798_656 + 12 * 3 * 4 * 768 + 769 * 8 + 9 * 12 * 4 * 768 + 4_610,
               12 * 3 * 4 * 768 + 769 * 8 + 9 * 12 * 4 * 768 + 4_610),
}

#: ResNet-18 without its own head as published (11,689,512 - 513,000), without its last stage, and the 9-to-3 fusion.
RESNET, RESNET_STAGE_4, FUSION = 11_176_512, 8_393_728, 30
#: What the release's trained parts are of a plain ViT.
TRUNK = 7_087_872 + 1_536 + 768 + 197 * 768
#: SSAN-R beside its ResNet: content, three style layers, style's three projections, two assembly blocks of two
#: convolutions, the last convolution and its norm, head, discriminator of three sources.
SSAN_HEADS = (256 * 256 * 9 + 512 + 128 * 64 * 9 + 256 * 128 * 9 + 256 * 256 * 9 + 3 * 256 * 256 + 4 * 256 * 256 * 9
              + 512 * 256 * 9 + 1_024 + 1_026 + 257 * 256 + 257 * 3)
SSAN_NECKS = 768 * (64 + 128 + 256)
SSDG_DISCRIMINATOR = 513 * 3
PAPER_SIZE |= {
    "ssdg": (RESNET + FUSION + 513 * 512 + 1_024 + 513 * 512 + SSDG_DISCRIMINATOR,) * 2,
    "ssdg_vit": (85_798_656 + FUSION + 1_536 + 769 * 512 + SSDG_DISCRIMINATOR,
                 TRUNK + FUSION + 1_536 + 769 * 512 + SSDG_DISCRIMINATOR),
    "ssdg_u_adapter": (88_252_034 - 2 + 2_305 * 512 + SSDG_DISCRIMINATOR,  # its normalised head has no bias
                       8_513_666 - 2 + 2_305 * 512 + SSDG_DISCRIMINATOR),
    "ssan": (RESNET - RESNET_STAGE_4 + FUSION + SSAN_HEADS,) * 2,
    "ssan_vit": (85_798_656 + FUSION + SSAN_NECKS + SSAN_HEADS, TRUNK + FUSION + SSAN_NECKS + SSAN_HEADS),
    "ssan_u_adapter": (88_252_034 - 4_610 + SSAN_NECKS + SSAN_HEADS, 8_513_666 - 4_610 + SSAN_NECKS + SSAN_HEADS),
    # 48 adapters 768 -> 64 -> 768, twelve transformations, embedding to 512, normalised head.
    "vitaf": (85_798_656 + FUSION + 48 * 99_136 + 12 * 2 * 768 + 769 * 512 + 1_024,
              TRUNK + FUSION + 48 * 99_136 + 12 * 2 * 768 + 769 * 512 + 1_024),
}

#: Words (byte pairs) of CLIP's vocabulary that the prompts of MMDG++ use: rows kept of 49,408.
PROMPT_WORDS = 60
PAPER_SIZE |= {
    # As published, and CLIP's text tower, frozen, with those words; one domain fewer than the release's five rows.
    "mmdg_plus_plus": (88_023_554 + 3 * 4 * 5 * 512 + 37_828_608 + 39_424 + 262_144 + 1_024 + 1 + PROMPT_WORDS * 512,
                       2_414_594 - 3 * 5 * 512),
}
#: Whose source trains the whole image tower: what `release` then means.
FINE_TUNED = ("clip", "flip")

each_method = pytest.mark.parametrize("name", list(METHODS))


def head_key(keys):
    """The one weight that makes logits, or a map, of features; or that brings them to sentences."""
    (found,) = ([key for key in keys if key == "head.weight" or key.endswith(".head.weight")]
                or [key for key in keys if key == "image.projection"])
    return found


def area_under_curve(scores, label):
    return float((scores[label == 1][:, None] > scores[label == 0][None]).double().mean())


def begun(name, updates=2, **changes):
    """A method some updates on its way, so that adapters speak."""
    found = method(name, **changes)
    found.start_epoch(0, lambda: [samples()])
    for _ in range(updates):
        found.update([samples()])
    return found


def assert_same_weights(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, **({"rtol": 0, "atol": 0} | tolerance), equal_nan=True,
                                   msg=lambda text, key=key: f"{key}: {text}")


def one_update(name, batches, **changes):
    """Weights and log of one precise update."""
    found = precise(name, **changes)
    found.start_epoch(0, lambda: [double(samples(1))])
    scalars = found.update([double(batch) for batch in batches])
    return weights(found), scalars


@each_method
@pytest.mark.parametrize("flipped", [False, True])
def test_it_learns_eight_samples_by_heart_whatever_their_labels(name, flipped):
    found = method(name, optimiser=OptimiserConfig(learning_rate=5e-3, weight_decay=0.0))
    silence_dropout(found)  # half of few channels gone is no way to learn by heart
    batch, true_label = samples(flipped=flipped), samples().label
    for update in range(32 if METHODS[name].own_backbone else 18):  # without a ViT's shortcut from pixels to the head
        if update % 9 == 0:
            found.start_epoch(update // 9, lambda: [batch])
        found.update([batch])
    assert area_under_curve(found.score(batch.planes, batch.present), true_label) == (0.0 if flipped else 1.0)


@each_method
def test_scores_depend_on_every_modality(name):
    found, batch = begun(name), samples()
    plain, other = found.score(batch.planes, batch.present), samples(9).planes
    for index in range(len(MODALITIES)):
        changed = batch.planes.clone()
        changed[:, index] = other[:, index]
        assert (found.score(changed, batch.present) - plain).abs().min() > 1e-6, MODALITIES[index]


@each_method
def test_a_score_is_one_samples_own_and_the_same_each_time(name):
    found, batch = begun(name), samples(dropped=DROPPED)
    whole = found.score(batch.planes, batch.present)
    assert whole.shape == (8,)
    assert whole.dtype == torch.float32
    assert not whole.requires_grad
    assert torch.equal(found.score(batch.planes, batch.present), whole)
    alone = torch.cat([found.score(batch.planes[row:row + 1], batch.present[row:row + 1]) for row in range(8)])
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-6)


@each_method
def test_scoring_and_updating_leave_modes_and_the_global_generator_as_they_should_be(name):
    found, batch = method(name), samples()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found.start_epoch(0, lambda: [batch])
    found.network.eval()
    found.update([batch])
    assert all(module.training for module in found.network.modules())
    next(module for module in found.network.modules() if isinstance(module, torch.nn.ModuleList)).eval()
    modes = [module.training for module in found.network.modules()]
    found.score(batch.planes, batch.present)
    assert [module.training for module in found.network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)


@each_method
@pytest.mark.parametrize("scenario", PROTOCOL_2)
def test_withheld_modalities_give_finite_scores_whatever_their_planes_hold(name, scenario):
    found, batch = begun(name), samples()
    absent = [index for index, modality in enumerate(MODALITIES) if modality in WITHHELD[scenario]]
    present = batch.present.clone()
    present[:, absent] = False
    scores = []
    for content in (0.0, math.nan, 7.0):
        planes = batch.planes.clone()
        planes[:, absent] = content
        scores.append(found.score(planes, present))
    assert scores[0].isfinite().all()
    assert torch.equal(scores[1], scores[0])
    assert torch.equal(scores[2], scores[0])
    assert (scores[0] - found.score(batch.planes, batch.present)).abs().max() > 1e-6


@each_method
def test_modality_dropout_in_a_batch_hides_the_planes_from_training(name):
    found = []
    for content in (0.0, math.nan):
        batch = samples(dropped=DROPPED)
        batch.planes[~batch.present] = content
        trained = method(name)
        trained.start_epoch(0, lambda: [samples()])
        trained.update([batch])
        found.append(weights(trained))
    assert all(value.isfinite().all() for value in found[0].values())
    assert_same_weights(found[1], found[0])


@each_method
def test_going_on_from_a_saved_state_equals_never_having_stopped(name):
    """Adam, dropout, two parts an update, a stop within an epoch; states through safetensors' bytes."""
    parts = [rows(samples(dropped=DROPPED), slice(0, 5)), rows(samples(), slice(5, 8))]

    def go_on(found, unrelated_seed):
        torch.manual_seed(unrelated_seed)  # what was drawn elsewhere meanwhile must not matter
        return [found.update(parts), found.start_epoch(1, lambda: [samples(3)]), found.update(parts)]

    straight = method(name)
    begun_log = straight.start_epoch(0, lambda: [samples(3)])
    for _ in range(2):
        straight.update(parts)
    tensors, metadata = straight.state()
    stored = safetensors.torch.save(straight.network.state_dict()), safetensors.torch.save(tensors), metadata
    optimiser_states = {key: optimiser.state_dict() for key, optimiser in straight.optimisers.items()}
    resumed = method(name)
    resumed.network.load_state_dict(safetensors.torch.load(stored[0]))
    for key, optimiser in resumed.optimisers.items():
        optimiser.load_state_dict(torch.utils._pytree.tree_map(
            lambda leaf: leaf.clone() if isinstance(leaf, torch.Tensor) else leaf, optimiser_states[key]))
    resumed.load_state(safetensors.torch.load(stored[1]), stored[2])
    assert resumed.start_epoch(0, lambda: [samples(3)]) == begun_log  # the epoch goes on, it does not begin anew
    assert str(go_on(resumed, 98)) == str(go_on(straight, 99))  # NaN equals NaN here
    assert_same_weights(weights(resumed), weights(straight))
    assert_same_weights(resumed.state()[0], straight.state()[0])
    assert resumed.state()[1] == straight.state()[1]


@each_method
def test_a_state_of_nothing_or_of_another_run_is_refused(name):
    found = method(name)
    tensors, metadata = begun(name, seed=1).state()
    with pytest.raises(ValueError, match="missing"):
        found.load_state({}, {})
    with pytest.raises(ValueError, match=r"method\.seed is 1, expected 0"):
        found.load_state(tensors, metadata)


@each_method
def test_accumulated_parts_equal_one_batch_or_the_mean_of_their_own_updates(name):
    """The latter where a loss compares a part's samples with each other; a first step is linear in the gradient."""
    whole = samples(dropped=DROPPED)
    parts = [rows(whole, slice(0, 3)), rows(whole, slice(3, 8))]
    found, log = one_update(name, parts)
    expected, expected_log = one_update(name, [whole])
    if METHODS[name].batch_coupled:
        assert max(float((found[key] - value).abs().max()) for key, value in expected.items()) > 1e-7  # the flag is due
        (first, first_log), (second, second_log) = (one_update(name, [part]) for part in parts)
        expected = {key: (3 * value + 5 * second[key]) / 8 for key, value in first.items()}
        expected_log = {key: (3 * value + 5 * second_log[key]) / 8 for key, value in first_log.items()}
    assert_same_weights(found, expected, rtol=1e-9, atol=1e-12)
    assert log == pytest.approx(dict(expected_log), rel=1e-5, nan_ok=True)


@each_method
def test_a_loss_scale_changes_nothing_but_rounding(name):
    expected, expected_log = one_update(name, [samples(dropped=DROPPED)])
    found, log = one_update(name, [samples(dropped=DROPPED)], compute=ScaledProcess(1024.0))
    assert_same_weights(found, expected, rtol=1e-9, atol=1e-12)
    assert log == pytest.approx(dict(expected_log), nan_ok=True)


@each_method
def test_an_overflow_under_a_loss_scale_leaves_the_step_out(name):
    found = method(name, compute=ScaledProcess(2.0**130))  # no float32
    found.start_epoch(0, lambda: [samples(1)])
    before = weights(found)
    assert found.update([samples()])["update/skipped"] == 1.0
    assert_same_weights(weights(found), before)


@each_method
def test_a_loss_that_is_no_number_ends_training_by_name(name):
    found, broken = begun(name), samples()
    broken.planes[0, 0] = math.nan
    before = weights(found)
    with pytest.raises(TrainingDiverged, match="at update 2"):
        found.update([broken])
    assert_same_weights(weights(found), before)


@each_method
def test_an_update_logs_its_total_and_plain_numbers(name):
    found = begun(name, updates=0)
    scalars = found.update([samples()])
    terms = {key for key in scalars if key.startswith("loss/")} - {"loss/total"}
    assert scalars["loss/total"] == pytest.approx(sum(scalars[key] for key in terms))
    assert all(type(value) is float for value in scalars.values())
    with pytest.raises(ValueError, match="no sample"):
        found.update([])


@each_method
def test_the_same_seed_gives_the_same_start_and_another_one_another(name):
    torch.manual_seed(1)
    first = weights(method(name))
    torch.manual_seed(2)
    assert_same_weights(weights(method(name)), first)
    other = weights(method(name, seed=1))
    assert any(not torch.equal(other[key], value) for key, value in first.items())


@each_method
def test_freezing_random_weights_is_refused(name):
    if METHODS[name].needs_clip:
        for backbone in (None, toy_backbone(), dataclasses.replace(toy_clip(), text=None)):
            with pytest.raises(MethodError, match=r"needs CLIP weights.*mmdg import-weights .* --text-tower"):
                build(name, {}, context(backbone=backbone))
        return
    for parts in (TrainableParts.RELEASE, TrainableParts.ADAPTERS_AND_HEAD):
        with pytest.raises(MethodError, match=r"(?s)trainable_parts.*backbone.*everything"):
            method(name, dataclasses.replace(TOY, trainable_parts=parts))


@each_method
def test_inputs_of_another_size_are_refused(name):
    right = context(backbone=start_for(name))
    wrong = dataclasses.replace(right, inputs=dataclasses.replace(right.inputs, image_size=64))
    with pytest.raises(MethodError, match=r"model\.image_size is 32, inputs\.image_size is 64"):
        build(name, {}, wrong)


@each_method
@pytest.mark.parametrize("parts", list(TrainableParts))
def test_it_starts_from_a_backbone_and_trains_the_chosen_parts_only(name, parts):
    model, backbone = dataclasses.replace(TOY, trainable_parts=parts), start_for(name)
    found = method(name, model, backbone=backbone)
    blocks = [value for key, value in found.network.named_parameters()
              if key.endswith(("blocks.0.attention.output.weight", "blocks.0.block.attention.output.weight"))
              and not key.startswith(("prompts.", "sentences."))]
    assert len(blocks) == (0 if METHODS[name].own_backbone else 1)
    assert all(torch.equal(block, backbone.weights["blocks.0.attention.output.weight"]) for block in blocks)
    trainable = {key for key, value in found.network.named_parameters() if value.requires_grad}
    before = weights(found)
    found.start_epoch(0, lambda: [samples(1)])
    for _ in range(3):  # adapters' inner weights wait for their up projection
        found.update([samples()])
    changed = {key for key, value in weights(found).items() if not torch.equal(value, before[key])}
    assert changed == trainable
    everything = (TrainableParts.EVERYTHING, *([TrainableParts.RELEASE] if name in FINE_TUNED else []))
    assert all(block.requires_grad == (parts in everything) for block in blocks)
    assert head_key(trainable)
    if METHODS[name].own_backbone:
        assert trainable == set(before)


@each_method
def test_at_the_papers_size_it_has_the_published_parameters(name):
    found = build(name, {}, MethodContext(
        model=ModelConfig.base(), inputs=context().inputs.__class__(), classes=context().classes,
        optimiser=OptimiserConfig(), compute=SingleProcess("meta"), seed=0,
        backbone=toy_clip(ModelConfig.base(), meta=True) if METHODS[name].needs_clip else meta_backbone()))
    parameters = list(found.network.parameters())
    counts = (sum(value.numel() for value in parameters),
              sum(value.numel() for value in parameters if value.requires_grad))
    assert counts == PAPER_SIZE.get(name, counts)
    assert counts[1] > 0
    assert (counts[1] == counts[0]) == METHODS[name].own_backbone


@each_method
@pytest.mark.parametrize("preset", ["tiny", "micro"])
def test_it_can_be_built_at_every_smaller_preset(name, preset):
    model = dataclasses.replace(ModelConfig.preset(preset), trainable_parts=TrainableParts.EVERYTHING)
    found = method(name, model, compute=SingleProcess("meta"))
    assert 0 < sum(value.numel() for value in found.network.parameters()) < 24e6


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two_processes")
    torch.multiprocessing.spawn(two_process_updates.process, args=(str(folder),), nprocs=2)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)]


@each_method
def test_two_processes_equal_one_though_one_of_them_idles(name, two_processes):
    expected = two_process_updates.trained(name, [0, 1], SingleProcess())
    found = [{key: value for key, value in held.items() if key.startswith(f"{name}/")} for held in two_processes]
    assert_same_weights(found[1], found[0])  # bit for bit
    assert_same_weights(found[0], expected, rtol=1e-6, atol=1e-9)
    start = precise(name).network.state_dict()
    head = head_key(start)
    assert not torch.equal(expected[f"{name}/{head}"], start[head])


def test_all_rows_are_different_methods():
    """From one start and one batch, each gives other weights than any other with a network of the same shape."""
    found = {name: one_update(name, [samples(dropped=DROPPED)])[0] for name in METHODS if name != "vit_early"}
    names = list(found)
    for place, first in enumerate(names):
        for second in names[:place]:
            if found[first].keys() == found[second].keys():
                gap = max(float((found[first][key] - value).abs().max()) for key, value in found[second].items())
                assert gap > 1e-7, (first, second)


#: Row with its special terms switched off -> the row that must be left, bit for bit.
SWITCHED_OFF = [
    ("mmdg", {"regrad_cases": "off"}, "u_adapter_ssp"),
    ("mmdg", {"regrad_cases": "off", "ssp_weight": 0.0}, "u_adapter"),
    ("u_adapter_ssp", {"ssp_weight": 0.0}, "u_adapter"),
    ("mmdg_certainty_in_adapter_only", {}, "mmdg", {"regrad_certainty": "one"}),
    ("vit_late", {"regrad": True}, "vit_late_regrad"),
    ("vit_late_regrad", {"ssp_weight": 0.0}, "vit_late", {"regrad": True, "ssp_weight": 0.0}),
    ("ssdg_vit", {"triplet_weight": 0.0, "adversarial_weight": 0.0, "normalised": False}, "vit_early"),
    ("ssdg_u_adapter", {"triplet_weight": 0.0, "adversarial_weight": 0.0, "normalised": False}, "u_adapter"),
    ("pmr_vit", {"prototype_weight": 0.0, "entropy_weight": 0.0}, "vit_late"),
    ("pmr_u_adapter", {"prototype_weight": 0.0, "entropy_weight": 0.0}, "u_adapter"),
    ("ogm_ge_vit", {"slope": 0.0, "noise": 0.0}, "vit_late"),
    ("ogm_ge_u_adapter", {"epochs": 0}, "u_adapter"),
]


@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.cross_entropy_alone])
def test_without_its_special_terms_it_is_the_cross_entropy_on_its_network_bit_for_bit(name):
    """And with them it is not."""
    ends = []
    for settings, alone in ((METHODS[name].cross_entropy_alone, False), (METHODS[name].cross_entropy_alone, True),
                            ({}, False)):
        found = method(name, settings=settings)  # with dropout, Adam
        if alone:
            found.terms = ("cross_entropy",)
            found.loss = lambda batch, found=found: CrossEntropyMethod.loss(found, batch)
        found.start_epoch(0, lambda: [samples(1)])
        for _ in range(2):
            found.update([samples(dropped=DROPPED)])
        ends.append(weights(found))
    assert_same_weights(ends[0], ends[1])
    assert max(float((ends[2][key] - value).abs().max()) for key, value in ends[0].items() if key in ends[2]) > 1e-7


@pytest.mark.parametrize("case", SWITCHED_OFF)
def test_a_special_term_switched_off_leaves_the_baseline_bit_for_bit(case):
    name, settings, other, *other_settings = case
    both, ends = [method(name, settings=settings), method(other, settings=(other_settings or [{}])[0])], []
    if name == "ssdg_u_adapter":  # its head is drawn in another order
        both[0].network.head.load_state_dict(both[1].network.head.state_dict())
    for found in both:  # with dropout, Adam
        found.start_epoch(0, lambda: [samples(1)])
        for _ in range(2):
            found.update([samples(dropped=DROPPED)])
        ends.append({key.removeprefix("trunk."): value for key, value in weights(found).items()
                     if not key.startswith("discriminator.")})
    assert_same_weights(*ends)
