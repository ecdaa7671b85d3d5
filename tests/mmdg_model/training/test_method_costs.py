"""Costs: counted against arithmetic, written and read, and what an estimate makes of them."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from mmdg_model.training.benchmark_grid import Job, estimate, forward_operations
from mmdg_model.training.method_costs import (
    BATCH,
    MethodCost,
    MethodCostError,
    calibrate,
    config_of,
    made_up_batch,
    measure,
    measure_apart,
    read_costs,
    step_timings,
    write_costs,
)
from mmdg_model.training.report.cost_table import cost_table
from mmdg_model.training.run_config import ModelChoice, RecipeConfig, RunConfig
from mmdg_model.training.run_directory import RunDirectory

SMALL = {"width": 24, "heads": 3, "depth": 2, "image_size": 32, "trainable_parts": "everything"}


def small(method, **changes):
    return RunConfig(method=method, model=ModelChoice(preset="micro", changes=SMALL | changes))


@pytest.fixture(scope="module")
def late():
    return measure(small("vit_late", width=48), repeats=1)


def test_operations_are_those_of_the_matrix_products(late):
    expected = forward_operations(small("vit_late", width=48).model.resolve())
    patches = 3 * 4 * 2 * (16 * 16 * 3) * 48
    assert 1e9 * late.forward_gflop == pytest.approx(expected + patches, rel=0.02)


def test_a_frozen_backbone_leaves_fewer_weights_to_train():
    frozen = measure(small("vit_late", trainable_parts="release"), with_backbone=True, repeats=1)
    whole = measure(small("vit_late"), repeats=1)
    assert whole.trainable == whole.parameters == frozen.parameters
    assert frozen.trainable < 0.7 * whole.trainable


def test_times_come_from_the_clock_by_sample_without_the_first_call():
    moments = iter([0.0, 1.0, 10.0, 10.6, 20.0, 20.3,   # steps of 1 s (warming up), 0.6 s and 0.3 s
                    30.0, 30.5, 40.0, 40.06, 50.0, 50.12])  # forwards
    cost = measure(small("vit_early"), repeats=2, clock=lambda: next(moments))
    assert cost.step_ms == pytest.approx(300 / BATCH)
    assert cost.forward_ms == pytest.approx(60 / BATCH)


def test_a_step_that_takes_long_is_its_own_measurement():
    moments = iter([0.0, 30.0, 100.0, 103.0])
    cost = measure(small("vit_early"), repeats=5, clock=lambda: next(moments))
    assert (cost.step_ms, cost.forward_ms) == (pytest.approx(30e3 / BATCH), pytest.approx(3e3 / BATCH))


def test_made_up_samples_have_each_source_live_and_attacked():
    batch = made_up_batch(small("mmdg").model.resolve())
    assert sorted(zip(batch.source.tolist(), batch.label.tolist(), strict=True)) == [
        (source, label) for source in range(3) for label in (0, 1)]
    assert torch.equal(batch.domain, torch.where(batch.label == 1, 0, 1 + batch.source))


def test_a_failure_in_a_process_of_its_own_is_told():
    with pytest.raises(MethodCostError, match=r"mmdg: .*random"):
        measure_apart(dataclasses.replace(small("mmdg"), model=ModelChoice(preset="micro", changes=SMALL | {
            "trainable_parts": "release"})))


def test_a_table_is_read_as_it_was_written(late, tmp_path):
    costs = [late, dataclasses.replace(late, method="mmdg", peak_mib=None)]
    write_costs(tmp_path / "costs.csv", costs)
    found = read_costs(tmp_path / "costs.csv")
    assert [cost.method for cost in found] == ["vit_late", "mmdg"]
    assert found[1].peak_mib is None
    assert found[0].step_ms == pytest.approx(late.step_ms, rel=1e-3)
    assert found[0].parameters == late.parameters


@pytest.mark.parametrize(("text", "message"), [
    ("", "holds no costs"), ("method,preset\nmmdg,micro\n", "line 2"), (None, "cannot be read")])
def test_what_no_table_of_costs_is_is_said(tmp_path, text, message):
    path = tmp_path / "costs.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(MethodCostError, match=message):
        read_costs(path)


def test_the_table_has_multiples_of_its_first_row(late):
    double = dataclasses.replace(late, method="mmdg", step_ms=2 * late.step_ms, forward_ms=3 * late.forward_ms)
    table = cost_table([late, double])
    assert [cell.text for cell in table.rows[1]][5::2] == ["3.00", "2.00"]
    assert late.processor in table.caption


def test_an_estimate_takes_timings_where_no_run_has_finished(tmp_path, late):
    config = dataclasses.replace(small("vit_late"), recipe=RecipeConfig(batch_size=10))
    job = Job(config=config, directory=RunDirectory(tmp_path / "job"), updates=100, simulated=True)
    cost = estimate([job], {("vit_late", "micro"): 0.02})
    assert (cost.low_s, cost.high_s) == (pytest.approx(20.0), pytest.approx(20.0))
    assert (cost.timed, cost.measured, cost.jobs) == (1, 0, 1)
    assert estimate([job], {("mmdg", "micro"): 0.02}).timed == 0
    assert step_timings([late]) == {("vit_late", "micro"): late.step_ms / 1e3}


def test_calibration_measures_each_method_once_and_leaves_out_what_cannot_be_built():
    cannot = dataclasses.replace(small("u_adapter"), model=ModelChoice(preset="micro", changes=SMALL | {
        "trainable_parts": "release"}))
    asked = []
    costs = calibrate([small("vit_early"), small("vit_early"), cannot], on_method=asked.append)
    assert asked == ["vit_early", "u_adapter"]
    assert [cost.method for cost in costs] == ["vit_early"]
    assert isinstance(costs[0], MethodCost)


def test_a_methods_recipe_gives_settings_and_optimiser():
    config = config_of("mmdg", "tiny", everything=True)
    assert config.optimiser.learning_rate == 5e-5
    assert config.model.changes == {"trainable_parts": "everything"}
