"""Draws that depend on their place alone, sampled certainty included; scores in full precision."""

import dataclasses

import pytest
import torch

from mmdg_model.config import UncertaintyEstimatorKind
from mmdg_model.training.compute import SingleProcess
from mmdg_model.training.methods.trained_network import evaluation_mode
from tests.mmdg_model.training.methods.builders import TOY, method, samples, weights

SAMPLED = dataclasses.replace(TOY, uncertainty_estimator=UncertaintyEstimatorKind.MONTE_CARLO)


class Rank(SingleProcess):
    def __init__(self, rank):
        super().__init__()
        self.rank = rank


class HalfPrecision(SingleProcess):
    """bfloat16 as a run's precision."""

    def autocast(self):
        return torch.autocast("cpu", dtype=torch.bfloat16)


def draws(found, count=4):
    with found.training_pass():
        return torch.rand(count).tolist()


def test_each_update_process_and_seed_draws_its_own_numbers():
    found = [method("u_adapter"), method("u_adapter", seed=1), method("u_adapter", compute=Rank(1))]
    later = method("u_adapter")
    later.update([samples()])
    drawn = [draws(trained) for trained in (*found, later)]
    assert len({tuple(values) for values in drawn}) == 4
    assert draws(found[0]) == drawn[0]


@pytest.mark.parametrize("name", ["mmdg", "vit_late_regrad"])
def test_sampled_certainty_goes_on_as_if_nothing_had_happened(name):
    straight, resumed = method(name, SAMPLED), method(name, SAMPLED)
    straight.start_epoch(0, lambda: [samples(1)])
    straight.update([samples()])
    resumed.network.load_state_dict(straight.network.state_dict())
    resumed.load_state(*straight.state())
    for key, optimiser in straight.optimisers.items():
        copied = {place: {part: value.clone() for part, value in state.items()}
                  for place, state in optimiser.state_dict()["state"].items()}
        resumed.optimisers[key].load_state_dict(optimiser.state_dict() | {"state": copied})
    straight.score(samples().planes, samples().present)  # scoring must not shift the draws
    ends = []
    for found in (straight, resumed):
        scalars = found.update([samples()])
        ends.append((str(scalars), weights(found)))
    assert ends[0][0] == ends[1][0]
    assert all(torch.equal(value, ends[1][1][key]) for key, value in ends[0][1].items())


def test_scores_are_in_full_precision_and_training_is_not():
    full, half = method("vit_late"), method("vit_late", compute=HalfPrecision())
    batch = samples()
    assert torch.equal(full.score(batch.planes, batch.present), half.score(batch.planes, batch.present))
    exact, rounded = (found.update([batch])["loss/total"] for found in (full, half))
    assert exact != rounded
    assert exact == pytest.approx(rounded, rel=0.02)


@pytest.mark.parametrize("name", ["mmdg", "u_adapter_ssp", "vit_late_regrad"])
def test_every_path_runs_in_mixed_precision(name):
    full, half = method(name), method(name, compute=HalfPrecision())
    found = []
    for trained in (full, half):
        trained.start_epoch(0, lambda: [samples(1)])
        found.append(trained.update([samples()]))
    assert found[0]["ssp/rgb"] != found[1]["ssp/rgb"]
    assert found[0]["ssp/rgb"] == pytest.approx(found[1]["ssp/rgb"], rel=0.05)
    assert all(value.dtype == torch.float32 for value in weights(half).values())


def test_modes_are_restored_after_an_error():
    network = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2).eval())

    def fail_inside():
        with evaluation_mode(network):
            assert not network.training
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert [module.training for module in network.modules()] == [True, True, False]
