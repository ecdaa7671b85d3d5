"""MMDG's rows: what each switch reaches, what is not paid for, and what is refused."""

import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F

from mmdg_model.config import UncertaintyEstimatorKind
from mmdg_model.training.methods.contract import MethodError, OptimiserConfig
from mmdg_model.training.methods.mean_loss import CrossEntropyMethod
from mmdg_model.training.methods.mmdg import MmdgSettings
from mmdg_model.training.methods.regrad_objective import ReGradMethod
from mmdg_model.training.prototypes import PrototypeConfig
from mmdg_model.training.regrad import ReGradCases
from mmdg_model.training.step_gradients import ObjectiveConfig
from tests.mmdg_model.training.methods.builders import (
    DROPPED,
    STILL,
    TOY,
    double,
    method,
    precise,
    samples,
    weights,
)

NONE = dataclasses.replace(TOY, uncertainty_estimator=UncertaintyEstimatorKind.NONE)


def scalars_of(name, **changes):
    found = precise(name, **changes)
    found.start_epoch(0, lambda: [double(samples(1))])
    return found.update([double(samples(dropped=DROPPED))])


def test_u_adapter_is_the_plain_training_loop_bit_for_bit():
    found, by_hand = method("u_adapter", STILL), method("u_adapter", STILL)
    network = by_hand.network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3, weight_decay=1e-3)
    batch = samples(dropped=DROPPED)
    for _ in range(3):
        found.update([batch])
        optimiser.zero_grad()
        F.cross_entropy(network(batch.planes, batch.present).logits, batch.label).backward()
        optimiser.step()
    for key, value in weights(found).items():
        assert torch.equal(value, network.state_dict()[key]), key


def test_the_whole_objective_with_everything_off_equals_cross_entropy_alone_bit_for_bit():
    """The two code paths, not only the two settings."""
    settings = MmdgSettings(regrad_cases=ReGradCases.OFF, ssp_weight=0.0)
    plain, whole = method("u_adapter"), method("u_adapter")
    whole = ReGradMethod(whole.context, whole.network, objective=settings.objective(),
                         prototypes=settings.prototypes())
    whole.start_epoch(0, lambda: [samples(1)])
    for _ in range(2):
        plain.update([samples(dropped=DROPPED)])
        whole.update([samples(dropped=DROPPED)])
    for key, value in weights(plain).items():
        assert torch.equal(value, whole.network.state_dict()[key]), key


@pytest.mark.parametrize("name", ["mmdg", "u_adapter", "vit_early", "vit_late", "vit_late_regrad"])
def test_the_logged_cross_entropy_is_that_of_the_batch(name):
    found, batch = precise(name), double(samples(dropped=DROPPED))
    found.start_epoch(0, lambda: [double(samples(1))])
    expected = float(F.cross_entropy(found.logits(batch.planes, batch.present), batch.label).detach())
    assert found.update([batch])["loss/cross_entropy"] == pytest.approx(expected)


def test_without_ssp_and_regrad_no_clean_sample_is_read():
    found = method("u_adapter")
    assert isinstance(found, CrossEntropyMethod)

    def unread():
        raise AssertionError("a pass over the clean samples costs decoding them all")

    assert found.start_epoch(0, unread) == {}


@pytest.mark.parametrize(("name", "passes"), [("u_adapter", 1), ("u_adapter_ssp", 1), ("mmdg", 5)])
def test_backward_passes_are_those_that_are_needed(name, passes, monkeypatch):
    """ReGrad: the head and the tokens, each modality, the SSP loss; without it one."""
    found = method(name)
    found.start_epoch(0, lambda: [samples(1)])
    count, real = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args, **options: count.append(1) or real(*args, **options))
    found.update([samples()])
    assert len(count) == passes


@pytest.mark.parametrize(("name", "network_certain", "factors_certain"), [
    ("mmdg", False, False),
    ("mmdg_certainty_in_adapter_only", False, True),
    ("mmdg_certainty_in_regrad_only", True, False),
    ("mmdg_without_certainty", True, True),
])
def test_the_four_rows_of_table_5(name, network_certain, factors_certain):
    """Eq. 4 is the network's certainty, Eq. 5 the factors that ReGrad logs."""
    found, batch = precise(name), double(samples())
    assert bool(found.network(batch.planes, batch.present).class_certainty.eq(1).all()) is network_certain
    assert found.network.config.uncertainty_estimator is (
        UncertaintyEstimatorKind.NONE if network_certain else UncertaintyEstimatorKind.ANALYTIC)
    scalars = scalars_of(name)
    factors = [scalars[f"certainty/{modality}"] for modality in ("rgb", "depth", "infrared")]
    assert all(value == 1 for value in factors) is factors_certain
    assert all(0 < value <= 1 for value in factors)


def test_certainty_in_regrad_only_is_that_of_the_estimator():
    """At the start adapters are silent, so the class tokens' certainty is the same with and without Eq. 4."""
    found = {}
    for name in ("mmdg", "mmdg_certainty_in_regrad_only"):
        trained = method(name)
        trained.start_epoch(0, lambda: [samples(1)])
        found[name] = trained.update([samples()])
    for modality in ("rgb", "depth", "infrared"):
        key = f"certainty/{modality}"
        assert found["mmdg"][key] == pytest.approx(found["mmdg_certainty_in_regrad_only"][key])
        assert found["mmdg"][key] < 0.999


@pytest.mark.parametrize("name", ["mmdg", "mmdg_certainty_in_regrad_only"])
def test_certainty_wanted_from_a_model_without_an_estimator_is_refused(name):
    with pytest.raises(MethodError, match="uncertainty_estimator is 'none'"):
        method(name, NONE)
    method("mmdg_without_certainty", NONE)
    method("u_adapter_ssp", NONE)


@pytest.mark.parametrize("target", ["ce", "ssp", "both"])
def test_regrad_is_not_inert_and_off_is(target):
    on = scalars_of("mmdg", settings={"regrad_target": target})
    assert on["regrad/relative_change"] > 0.01
    assert 0 < on["regrad/conflict_rate"] < 1
    assert on["regrad/modulated_tensors"] == 2 * 4 * 14 + 3 * 4  # adapters, and the embeddings' own four each
    assert sorted(on[f"regrad/fast/{modality}"] for modality in ("rgb", "depth", "infrared")) == [0, 0, 1]
    off = scalars_of("u_adapter_ssp")
    assert off["regrad/modulated_tensors"] == 0
    assert all(math.isnan(off[key]) for key in ("regrad/fast/rgb", "regrad/conflict_rate", "regrad/relative_change"))


def test_settings_are_the_objectives_and_default_to_theirs():
    assert MmdgSettings().objective() == ObjectiveConfig()
    assert MmdgSettings().prototypes() == PrototypeConfig()
    with pytest.raises(ValueError, match="ssp_weight"):
        MmdgSettings(ssp_weight=-1.0)


def test_release_prototypes_read_half_and_remember():
    release = {"prototype_batch_share": 0.5, "prototype_fresh_weight": 0.8, "prototype_unseen": "zero"}
    found = method("mmdg", settings=release)
    assert found.prototype_config == PrototypeConfig.release()
    batches = [samples(seed) for seed in range(8)]
    found.start_epoch(0, lambda: batches)
    first = found.prototypes.values.clone()
    found.start_epoch(0, lambda: batches)
    assert torch.equal(found.prototypes.values, first)  # an epoch begins once
    found.start_epoch(1, lambda: batches)
    assert not torch.equal(found.prototypes.values, first)


def test_an_update_before_the_first_epoch_is_a_mistake_of_the_caller():
    with pytest.raises(RuntimeError, match="start_epoch"):
        method("mmdg").update([samples()])


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW),
                                            ("sgd", torch.optim.SGD)])
def test_the_optimiser_is_the_one_named_with_one_group_of_all(name, kind):
    found = method("u_adapter", optimiser=OptimiserConfig(name=name, learning_rate=0.01, weight_decay=0.5))
    (optimiser,) = found.optimisers.values()
    assert type(optimiser) is kind
    (group,) = optimiser.param_groups
    assert len(group["params"]) == len(list(found.network.parameters()))
    assert (group["lr"], group["weight_decay"], group.get("momentum", 0.9)) == (0.01, 0.5, 0.9)


