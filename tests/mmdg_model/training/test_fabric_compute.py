"""Device, precision and loss scale by Fabric, on a CPU."""

import math
from pathlib import Path

import pytest
import torch

from mmdg_model.training import fabric_compute
from mmdg_model.training.compute import TrainingDiverged
from mmdg_model.training.fabric_compute import ComputeError, launch
from mmdg_model.training.run_config import MachineConfig


def machine(**changes):
    return MachineConfig(**({"root": Path("r"), "lists": Path("l"), "accelerator": "cpu"} | changes))


def weight(gradient=None):
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = None if gradient is None else torch.tensor(gradient)
    return parameter


@pytest.mark.parametrize(("precision", "computed_in", "scale"), [
    ("32-true", torch.float32, 1.0), ("bf16-mixed", torch.bfloat16, 1.0), ("16-mixed", torch.float16, 65536.0)])
def test_precision(precision, computed_in, scale):
    compute = launch(machine(), precision)
    with compute.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is computed_in
    assert compute.loss_scale == scale
    assert (compute.rank, compute.world_size, compute.device) == (0, 1, torch.device("cpu"))


def test_a_scaled_gradient_is_unscaled_before_the_step():
    compute = launch(machine(), "16-mixed")
    parameter = weight([3.0 * compute.loss_scale, 0.0])
    assert compute.apply(torch.optim.SGD([parameter], lr=1.0)) is True
    assert parameter.tolist() == [-3.0, 0.0]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_an_overflow_leaves_the_step_out_and_halves_the_scale(bad):
    compute = launch(machine(), "16-mixed")
    scale, parameter = compute.loss_scale, weight([1.0, bad])
    assert compute.apply(torch.optim.SGD([parameter], lr=1.0)) is False
    assert parameter.tolist() == [0.0, 0.0]
    assert compute.loss_scale == scale / 2


def test_two_optimisers_of_one_step_are_unscaled_alike():
    compute = launch(machine(), "16-mixed")
    scale = compute.loss_scale
    overflowed, fine = weight([math.inf, 0.0]), weight([scale, 0.0])
    assert not compute.apply(torch.optim.SGD([overflowed], lr=1.0))
    assert compute.apply(torch.optim.SGD([fine], lr=1.0))
    assert fine.tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_without_a_loss_scale_a_gradient_that_is_no_number_ends_the_run(precision, bad):
    parameter = weight([bad, 1.0])
    with pytest.raises(TrainingDiverged, match="not finite"):
        launch(machine(), precision).apply(torch.optim.SGD([parameter], lr=1.0))
    assert parameter.tolist() == [0.0, 0.0]


def test_the_loss_scale_survives_a_resume():
    first = launch(machine(), "16-mixed")
    first.apply(torch.optim.SGD([weight([math.inf, 0.0])], lr=1.0))
    second = launch(machine(), "16-mixed")
    second.load_state(first.state())
    assert second.loss_scale == first.loss_scale == 32768.0
    assert second.state() == first.state()
    assert launch(machine(), "32-true").state() == {}


def test_a_gpu_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ComputeError, match="torch sees no GPU"):
        launch(machine(accelerator="cuda"), "32-true")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ComputeError, match="devices is 8, but this machine has 2 GPUs"):
        launch(machine(accelerator="cuda", devices=8), "32-true")


@pytest.mark.parametrize(("variables", "first"), [
    ({}, True), ({"RANK": "0", "LOCAL_RANK": "0"}, True), ({"LOCAL_RANK": "1"}, False),
    ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False), ({"RANK": "4", "LOCAL_RANK": "0", "GROUP_RANK": "1"}, False)])
def test_the_first_process_by_what_launchers_say(monkeypatch, variables, first):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert fabric_compute.is_first_process() is first


@pytest.mark.parametrize(("changes", "message"), [
    ({"accelerator": "tpu"}, "accelerator is 'tpu', expected one of auto, cpu, cuda"),
    ({"devices": 0}, "devices is 0, expected at least 1"), ({"save_every_s": -1.0}, "save_every_s is -1.0"),
    ({"save_every_s": math.nan}, "save_every_s is nan")])
def test_a_machine_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        machine(**changes)
