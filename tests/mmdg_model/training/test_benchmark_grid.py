"""A grid's jobs: which there are, what names them, what state they are in, what they may cost."""

from __future__ import annotations

import json

import pytest

from mmdg_model.config import ModelConfig
from mmdg_model.scorer import Modality
from mmdg_model.training.benchmark_grid import (
    GridConfig,
    GridError,
    JobLock,
    JobState,
    MethodRow,
    estimate,
    failure_file,
    failure_of,
    forward_operations,
    grid_from_plain,
    job_file,
    plan,
    protocol_names,
    read_grid,
    read_job,
    recipe,
    shard,
    write_job,
)
from mmdg_model.training.protocols import ProtocolError
from mmdg_model.training.run_config import MachineConfig, RunConfigError
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.species_families import Family, described
from tests.mmdg_model.training.toy_benchmark import ToyAssembly

TINY = {"model": {"preset": "micro"}, "recipe": {"epochs": 2}}


def grid_of(*methods, **changes):
    return GridConfig(**({"methods": tuple(MethodRow(method=name) for name in methods), "protocols": ("CPS_W",),
                          "run": TINY} | changes))


@pytest.fixture
def machine(tmp_path):
    return MachineConfig(root=tmp_path / "data", lists=tmp_path / "data")


def planned(tmp_path, machine, grid):
    return plan(grid, machine, tmp_path / "out", ToyAssembly())


# ---- the grid ----

def test_a_grid_is_methods_by_protocols_by_seeds_and_a_whole_table_of_one_seed_comes_first(tmp_path, machine):
    jobs = planned(tmp_path, machine, grid_of("mmdg", "vit_late", protocols=("CPS_W", "CW_PS"), seeds=(0, 1)))
    assert [(job.config.seed, job.config.protocol, job.config.method) for job in jobs] == [
        (seed, protocol, method) for seed in (0, 1) for protocol in ("CPS_W", "CW_PS")
        for method in ("mmdg", "vit_late")]


def test_a_job_is_named_by_the_hash_of_its_configuration_with_data(tmp_path, machine):
    (job,) = planned(tmp_path, machine, grid_of("mmdg"))
    assert job.name == f"mmdg-CPS_W-s0-{job.config.hash}"
    assert job.config.data == "toy-CPS_W"
    assert job.config.model.preset == "micro"
    (longer,) = planned(tmp_path, machine, grid_of("mmdg", run=TINY | {"recipe": {"epochs": 3}}))
    assert longer.name != job.name
    assert (job.updates, longer.updates) == (10, 15)


def test_settings_make_another_row_of_the_same_method(tmp_path, machine):
    rows = (MethodRow(method="vit_late"), MethodRow(method="vit_late", settings={"regrad": True}))
    jobs = planned(tmp_path, machine, GridConfig(methods=rows, protocols=("CPS_W",), run=TINY))
    assert [dict(job.config.settings) for job in jobs] == [{}, {"regrad": True}]
    with pytest.raises(GridError, match="stands twice"):
        planned(tmp_path, machine, grid_of("mmdg", "mmdg"))


def test_the_jobs_machine_does_not_change_its_name(tmp_path, machine):
    import dataclasses
    other = dataclasses.replace(machine, workers=4, threads=2, accelerator="cpu")
    assert [job.name for job in planned(tmp_path, machine, grid_of("mmdg"))] == [
        job.name for job in planned(tmp_path, other, grid_of("mmdg"))]


@pytest.mark.parametrize(("values", "message"), [
    ({"methods": ["mmdg"], "protcols": ["CPS_W"]}, "'protcols' is an unknown key"),
    ({"methods": []}, "grid.methods is empty"),
    ({"methods": ["mmdg"], "protocols": ["CPS_X"]}, "no protocol 'CPS_X'"),
    ({"methods": ["mmdg"], "seeds": ["a"]}, "Expected `int`"),
    ({"methods": ["mmdg"], "run": {"seed": 3}}, "grid.run.seed is set"),
    ({"methods": [{"name": "mmdg"}]}, "required field `method`"),
    ({"methods": "mmdg"}, "Expected `array`"),
    (["mmdg"], "expected a mapping"),
])
def test_an_impossible_grid_is_refused_with_its_place(values, message):
    with pytest.raises((GridError, ProtocolError), match=message):
        grid_from_plain(values, "grid.yaml")


def test_an_unknown_key_of_the_run_is_refused():
    with pytest.raises(RunConfigError, match=r"recipe\.epoch is an unknown key"):
        grid_of("mmdg", run={"recipe": {"epoch": 2}}).run_configs()


def test_a_grid_from_yaml(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("methods: [mmdg, {method: vit_late, settings: {regrad: true}}]\n"
                    "protocols: [CW_PS]\nseeds: [0, 1]\n")
    grid = read_grid(path)
    assert (grid.methods[1].settings, grid.protocols, grid.seeds) == ({"regrad": True}, ("CW_PS",), (0, 1))
    path.write_text("methods: [")
    with pytest.raises(GridError, match="cannot be read as YAML"):
        read_grid(path)


def test_recipes_come_with_the_program_and_can_be_planned(tmp_path, machine):
    grid = recipe("reproduce_small")
    jobs = planned(tmp_path, machine, grid)
    assert {job.config.method for job in jobs} == {"vit_early", "vit_late", "u_adapter", "u_adapter_ssp", "mmdg"}
    assert {job.config.protocol for job in jobs} == set(protocol_names(1))
    with pytest.raises(GridError, match=r"there are .*reproduce_small"):
        recipe("reproduce_large")


PARTS = {"run": TINY, "seeds": [0, 1], "protocols": ["CPS_W"], "parts": [
    {"name": "long", "methods": ["mmdg"], "run": {"recipe": {"epochs": 3}}},
    {"name": "short", "methods": ["vit_late", {"method": "mmdg"}], "protocols": ["CW_PS"], "seeds": [7]}]}


def test_parts_have_their_own_rows_protocols_seeds_and_changes_in_their_order(tmp_path, machine):
    grid = grid_from_plain(PARTS, "grid.yaml")
    jobs = planned(tmp_path, machine, grid)
    assert [(job.config.method, job.config.protocol, job.config.seed, job.updates) for job in jobs] == [
        ("mmdg", "CPS_W", 0, 15), ("mmdg", "CPS_W", 1, 15), ("vit_late", "CW_PS", 7, 10), ("mmdg", "CW_PS", 7, 10)]
    assert [job.name for job in planned(tmp_path, machine, grid.only(["short"]))] == [job.name for job in jobs[2:]]
    with pytest.raises(GridError, match="no part 'tall'; there are long, short"):
        grid.only(["tall"])


@pytest.mark.parametrize(("change", "message"), [
    ({"methods": ["mmdg"]}, "grid.methods and grid.parts are both set"),
    ({"parts": [{"name": "a", "methods": []}]}, r"grid.parts\[0\].methods is empty"),
    ({"parts": [{"name": "a", "methods": ["mmdg"]}] * 2}, "names must differ"),
    ({"parts": [{"name": "a", "methods": ["mmdg"], "protcols": []}]}, r"parts\[0\]: 'protcols' is an unknown key"),
    ({"parts": [{"name": "a", "methods": ["mmdg"], "run": {"seed": 1}}]}, r"grid.parts\[0\].run.seed is set"),
    ({"parts": [{"name": "a", "methods": ["mmdg"], "protocols": ["CPS_X"]}]}, "no protocol 'CPS_X'"),
    ({"parts": ["a"]}, "Expected `object`"),
])
def test_impossible_parts_are_refused_with_their_place(change, message):
    with pytest.raises((GridError, ProtocolError), match=message):
        grid_from_plain(PARTS | change, "grid.yaml")


def test_the_recipe_of_generalisation_leaves_out_whole_families(tmp_path, machine):
    grid = recipe("generalisation")
    jobs = planned(tmp_path, machine, grid)
    assert {described(job.config.leave_out_species) for job in jobs} == {"", *Family}
    assert {frozenset(job.config.inputs.modalities) for job in jobs} == {
        frozenset(Modality), *(frozenset({each}) for each in Modality)}
    of_part = {part.name: len(planned(tmp_path, machine, grid.only([part.name]))) for part in grid.parts}
    assert sum(of_part.values()) == len(jobs)
    first = [job for job in jobs if job.config.seed == 0]
    assert jobs[:len(first)] == first, "the first seed's tables are whole before a second seed begins"
    assert {row: sum(job.config.method == row for job in first) for row in ("mmdg", "u_adapter", "vit_late")} == {
        "mmdg": 10, "u_adapter": 5, "vit_late": 18}
    assert all(job.config.recipe.epochs * job.config.recipe.samples_per_epoch / job.config.recipe.batch_size == 500
               for job in jobs)


def test_protocols_by_number():
    assert protocol_names(1) == protocol_names(2) == ("CPS_W", "CPW_S", "CSW_P", "PSW_C")
    assert protocol_names(3) == ("CW_PS", "PS_CW")
    with pytest.raises(GridError, match="protocol 4"):
        protocol_names(4)


def test_shards_are_disjoint_and_together_all(tmp_path, machine):
    jobs = planned(tmp_path, machine, grid_of("a", "b", seeds=(0, 1, 2)))
    parts = [shard(jobs, f"{i}/4") for i in range(1, 5)]
    assert sorted(job.name for part in parts for job in part) == sorted(job.name for job in jobs)
    assert [len(part) for part in parts] == [2, 2, 1, 1]


@pytest.mark.parametrize("which", ["0/2", "3/2", "1", "a/b", "1/0", ""])
def test_an_impossible_shard_is_refused(which):
    with pytest.raises(GridError, match="expected i/n"):
        shard([], which)


# ---- a job on disk ----

def test_a_jobs_file_comes_back(tmp_path, machine):
    (job,) = planned(tmp_path, machine, grid_of("mmdg", resamples=77))
    write_job(job, machine, grid_of("mmdg", resamples=77))
    file, config = read_job(job.directory)
    assert (config, file.machine, file.resamples) == (job.config, machine, 77)
    job_file(job.directory).write_text("{}")
    with pytest.raises(GridError, match=r"job\.json"):
        read_job(job.directory)


def test_states_follow_the_files(tmp_path, machine):
    (job,) = planned(tmp_path, machine, grid_of("mmdg"))
    assert job.state is JobState.NEW
    write_job(job, machine, grid_of("mmdg"))
    assert job.state is JobState.NEW
    job.directory.config_file.write_text(job.config.to_json())
    assert job.state is JobState.STARTED
    failure_file(job.directory).write_text(json.dumps({"error": "RuntimeError: so\nmore"}))
    assert (job.state, failure_of(job.directory)) == (JobState.FAILED, "RuntimeError: so")
    (job.directory.path / "evaluation.json").write_text("{}")
    assert job.state is JobState.DONE


def test_a_damaged_failure_file_is_shown_as_such(tmp_path):
    failure_file(RunDirectory(tmp_path)).write_text("half")
    assert "cannot be read" in failure_of(RunDirectory(tmp_path))


def test_one_process_at_a_time_works_on_a_job(tmp_path):
    first, second = JobLock(RunDirectory(tmp_path)), JobLock(RunDirectory(tmp_path))
    assert first.acquire()
    assert not second.acquire()
    first.release()
    third = JobLock(RunDirectory(tmp_path))
    assert third.acquire()
    third.release()


# ---- cost ----

def test_operations_of_a_vit_b_16_are_the_known_ones():
    """17.6 G multiply-accumulates a 224 x 224 image, patch embedding and head (0.12 G) left out here."""
    assert forward_operations(ModelConfig.base()) / 3 / 2 == pytest.approx(17.5e9, rel=0.01)


def test_finished_runs_of_a_method_give_the_measure_for_the_rest(tmp_path, machine):
    jobs = planned(tmp_path, machine, grid_of("mmdg", seeds=(0, 1, 2)))
    rough = estimate(jobs)
    assert 0 < rough.low_s < rough.high_s
    assert (rough.measured, rough.jobs) == (0, 3)
    jobs[0].directory.path.mkdir(parents=True)
    jobs[0].directory.done_file.write_text(json.dumps({"updates": 10, "epochs": 2, "seconds": 40.0}))
    (jobs[0].directory.path / "evaluation.json").write_text("{}")
    left = estimate(jobs)
    assert (left.low_s, left.high_s, left.measured, left.jobs) == (80.0, 80.0, 2, 2)
