"""Real processes: runs that are killed at any moment go on to the same bytes, and two processes equal one."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmdg_model.training.metrics_log import read_lines
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.trainer import Outcome
from tests.mmdg_model.training import toy_run
from tests.mmdg_model.training.test_trainer import outcome_files
from tests.mmdg_model.training.trees import small_tree

ROOT = Path(__file__).resolve().parents[3]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([toy_run.__name__, "torch._dynamo", "lightning_fabric",
                                "pyarrow.parquet"])  # else each imports


@pytest.fixture(autouse=True)
def threads_as_before():
    """Runs set torch's threads for their whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Written by a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert toy_run.resumable_run(folder) is Outcome.FINISHED
    return outcome_files(folder)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    small_tree(root)
    return root


def kill_once(run, *arguments, **options):
    process = CONTEXT.Process(target=run, args=arguments, kwargs=options)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(("kill", "after"), [
    ("update", 1),  # before anything was saved
    ("update", 5),  # within the second epoch
    ("write", 2),  # of the frozen part
    ("write", 4), ("write", 7),  # of both generations, within epochs
    ("write", 5),  # of an epoch
    ("write", 12), ("write", 13),  # of the last generation, and of the last file
])
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes(tmp_path, undisturbed, kill, after):
    kill_once(toy_run.resumable_run, tmp_path, kill=kill, after=after)
    assert not RunDirectory(tmp_path).finished
    assert toy_run.resumable_run(tmp_path) is Outcome.FINISHED
    assert outcome_files(tmp_path) == undisturbed


def test_a_run_killed_three_times_goes_on_to_the_same_bytes(tmp_path, undisturbed):
    for after in (4, 2, 3):
        kill_once(toy_run.resumable_run, tmp_path, kill="update", after=after)
    assert toy_run.resumable_run(tmp_path) is Outcome.FINISHED
    assert outcome_files(tmp_path) == undisturbed


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_and_its_loss_scale_go_on_too(tmp_path, precision):
    assert toy_run.resumable_run(tmp_path / "whole", precision=precision) is Outcome.FINISHED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_run, "killed", interrupted)
        with pytest.raises(InterruptedError):
            toy_run.resumable_run(tmp_path / "halves", precision=precision, kill="update", after=6)
    assert toy_run.resumable_run(tmp_path / "halves", precision=precision) is Outcome.FINISHED
    assert outcome_files(tmp_path / "whole") == outcome_files(tmp_path / "halves")


def interrupted(call, after):
    """As `killed`, by an exception that nothing catches."""
    left = iter(range(after - 1, -1, -1))

    def counted(*arguments):
        if next(left) == 0:
            raise InterruptedError
        return call(*arguments)
    return counted


def close(first, second):
    return first.keys() == second.keys() and all(
        first[key] == second[key] or first[key] == pytest.approx(second[key], rel=1e-5, abs=1e-6)
        for key in first if key != "drawn")


@pytest.mark.parametrize("method", ["toy", "mmdg"])
def test_two_processes_equal_one_up_to_rounding(tmp_path, tree, method):
    """Fabric starts the second process by running the program again; gradients are joined over gloo."""
    one, two = tmp_path / "one", tmp_path / "two"
    if method == "mmdg":
        toy_run.listed_run(one, tree, dropout=0.0)
    else:
        toy_run.resumable_run(one, dropout=0.0)
    answer = subprocess.run(
        [sys.executable, "-m", toy_run.__name__, str(two), "--devices", "2",
         *(["--tree", str(tree)] if method == "mmdg" else [])], cwd=ROOT, capture_output=True, text=True,
        check=False, timeout=150, env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_WAIT_POLICY": "PASSIVE"})
    assert answer.returncode == 0, answer.stderr
    runs = [RunDirectory(folder) for folder in (one, two)]
    ours, theirs = (read_lines(run.metrics_file) for run in runs)
    assert len(ours) == len(theirs) > 0
    assert [line for line, other in zip(ours, theirs, strict=True) if not close(line, other)] == []
    last = runs[0].epochs()[-1]
    state, other = (run.load_epoch(last)[0] for run in runs)
    assert all(torch.allclose(state[name].double(), other[name].double(), atol=1e-5) for name in state)
    assert sorted(path.name for path in two.glob("scores/*/*")) == sorted(path.name for path in one.glob("scores/*/*"))


def test_mmdg_killed_with_loader_workers_goes_on_to_the_bytes_of_a_run_without(tmp_path, tree):
    whole, often = tmp_path / "whole", tmp_path / "often"
    toy_run.listed_run(whole, tree)
    for after in (3, 4):
        kill_once(toy_run.listed_run, often, tree, workers=2, after=after)
    assert toy_run.listed_run(often, tree, workers=2) is Outcome.FINISHED
    assert outcome_files(often) == outcome_files(whole)
