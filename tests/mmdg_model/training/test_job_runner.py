"""Jobs side by side: each in its own process, none lost, none done twice, all resumable."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from mmdg_model.training.benchmark_grid import (
    GridConfig,
    JobLock,
    JobState,
    MethodRow,
    failure_of,
    log_file,
    plan,
    write_job,
)
from mmdg_model.training.job import EXIT_BUSY, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, run_job
from mmdg_model.training.job_runner import LocalExecutor, Outcome, run_jobs
from mmdg_model.training.run_config import MachineConfig
from mmdg_model.training.run_evaluation import read_evaluation
from mmdg_model.training.stop_signals import terminated_as_interrupted
from tests.mmdg_model.training.toy_benchmark import ToyAssembly

ROOT = Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, "-m", "tests.mmdg_model.training.toy_job")


def planned(tmp_path, *methods, seeds=(0,), protocol="CW_PS", **knobs):
    root = tmp_path / "data"
    root.mkdir(exist_ok=True)
    (root / "toy.json").write_text(json.dumps(knobs))
    machine = MachineConfig(root=root, lists=root)
    grid = GridConfig(methods=tuple(MethodRow(method=name) for name in methods), protocols=(protocol,), seeds=seeds,
                      run={"recipe": {"epochs": 2}}, resamples=20)
    jobs = plan(grid, machine, tmp_path / "out", ToyAssembly())
    for job in jobs:
        write_job(job, machine, grid)
    return jobs


def executor(slots=1):
    return LocalExecutor(COMMAND, slots=slots, cores=2)


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


# ---- the job itself, in this process ----

def test_a_job_trains_scores_and_evaluates(tmp_path):
    (job,) = planned(tmp_path, "mmdg")
    assert run_job(job.directory, ToyAssembly()) == EXIT_DONE
    assert job.state is JobState.DONE
    assert read_evaluation(job.directory).config_hash == job.config.hash


def test_a_failed_job_says_why_and_goes_on_when_the_cause_is_gone(tmp_path):
    (job,) = planned(tmp_path, "mmdg", crash=["mmdg"])
    assert run_job(job.directory, ToyAssembly()) == EXIT_FAILED
    assert (job.state, failure_of(job.directory)) == (JobState.FAILED, "RuntimeError: made to crash after epoch 0")
    planned(tmp_path, "mmdg")
    assert run_job(job.directory, ToyAssembly()) == EXIT_DONE
    lines = job.directory.metrics_file.read_text().splitlines()
    updates = [line["update"] for line in map(json.loads, lines) if line["kind"] == "update"]
    assert updates == list(range(1, 11))  # epoch 0 was not trained again


def test_an_interrupted_job_is_resumable_and_no_failure(tmp_path, monkeypatch):
    (job,) = planned(tmp_path, "mmdg")
    assembly = ToyAssembly()
    monkeypatch.setattr(assembly, "open", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt), raising=False)
    assert run_job(job.directory, assembly) == EXIT_INTERRUPTED
    assert job.state is JobState.STARTED
    assert run_job(job.directory, ToyAssembly()) == EXIT_DONE


def test_a_job_that_another_process_works_on_is_left_alone(tmp_path):
    (job,) = planned(tmp_path, "mmdg")
    lock = JobLock(job.directory)
    assert lock.acquire()
    assert run_job(job.directory, ToyAssembly()) == EXIT_BUSY
    assert job.state is JobState.NEW
    lock.release()


# ---- processes ----

def test_jobs_run_side_by_side_and_a_crash_or_a_kill_touches_no_other(tmp_path):
    jobs = planned(tmp_path, "mmdg", "vit_late", "u_adapter", crash=["vit_late"], die=["u_adapter"])
    most = []
    tally = run_jobs(jobs, executor(slots=2), on_change=lambda now: most.append(now.count(Outcome.RUNNING)))
    assert [status.outcome for status in tally.statuses] == [Outcome.DONE, Outcome.FAILED, Outcome.FAILED]
    assert [status.note for status in tally.statuses] == ["", "RuntimeError: made to crash after epoch 0",
                                                          "ended by SIGKILL"]
    assert max(most) == 2
    assert "made to crash" in log_file(jobs[1].directory).read_text()
    # Again: what is done is left alone, what failed waits for `retry`, what was killed goes on.
    scripted = Scripted(3)
    scripted.codes = dict.fromkeys(("mmdg", "vit_late", "u_adapter"), EXIT_BUSY)
    again = run_jobs(jobs, scripted)
    assert [status.outcome for status in again.statuses] == [Outcome.ALREADY_DONE, Outcome.FAILED_BEFORE,
                                                             Outcome.ELSEWHERE]
    assert again.statuses[1].note == "RuntimeError: made to crash after epoch 0"
    assert run_jobs(jobs, scripted, retry=True).statuses[1].outcome is Outcome.ELSEWHERE
    assert scripted.log == ["start u_adapter", "start vit_late", "start u_adapter"]


def test_when_time_is_up_running_jobs_are_interrupted_and_waiting_ones_not_started(tmp_path):
    """The clock is the test's: time is up once the job says that it hangs."""
    jobs = planned(tmp_path, "mmdg", "vit_late", hang=["mmdg"])
    hangs = lambda: log_file(jobs[0].directory).is_file() and "hanging" in log_file(  # noqa: E731
        jobs[0].directory).read_text()
    tally = run_jobs(jobs, executor(), time_limit_s=100, clock=lambda: 1000.0 * hangs())
    assert [status.outcome for status in tally.statuses] == [Outcome.INTERRUPTED, Outcome.NOT_STARTED]
    assert tally.stopped == "time limit"
    assert [job.state for job in jobs] == [JobState.STARTED, JobState.NEW]
    assert not tally.complete


@pytest.fixture
def ctrl_c_is_heard():
    """A shell's background job has SIGINT ignored, and so has every process below it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_is_heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_interrupts_the_jobs_and_leaves_them_resumable(tmp_path, number):
    """So does a cluster's SIGTERM, where it is made to."""
    (job,) = planned(tmp_path, "mmdg", hang=["mmdg"])
    sent = threading.Event()

    def ctrl_c(tally):
        if not sent.is_set() and log_file(job.directory).is_file() and "hanging" in log_file(job.directory).read_text():
            sent.set()
            os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    with terminated_as_interrupted():
        tally = run_jobs([job], executor(), on_change=ctrl_c)
    assert signal.getsignal(signal.SIGTERM) is before
    assert (tally.statuses[0].outcome, tally.stopped) == (Outcome.INTERRUPTED, "interrupted")
    assert "interrupted; start it again" in log_file(job.directory).read_text()
    assert job.state is JobState.STARTED


# ---- order of things, with scripted jobs ----

class Scripted:
    """An executor whose jobs end when the test says; `stubborn` ones do not mind being interrupted."""

    def __init__(self, slots, stubborn=False):
        self.slots, self.stubborn, self.log, self.codes = slots, stubborn, [], {}

    def start(self, job):
        scripted, name = self, job.config.method

        class Run:
            def exit_code(self):
                return scripted.codes.get(name)

            def interrupt(self):
                scripted.log.append(f"interrupt {name}")
                if not scripted.stubborn:
                    scripted.codes[name] = EXIT_INTERRUPTED

            def kill(self):
                scripted.log.append(f"kill {name}")
                scripted.codes[name] = -signal.SIGKILL

        self.log.append(f"start {name}")
        return Run()


def test_never_more_jobs_than_slots_and_in_order(tmp_path):
    jobs, scripted = planned(tmp_path, "a", "b", "c", "d"), Scripted(2)
    steps = iter([{}, {"b": EXIT_DONE}, {}, {"a": EXIT_DONE, "c": EXIT_BUSY}, {"d": EXIT_DONE}])
    seen = []
    tally = run_jobs(jobs, scripted, pause=lambda _: scripted.codes.update(next(steps)),
                     on_change=lambda now: seen.append(now.count(Outcome.RUNNING)))
    assert scripted.log == ["start a", "start b", "start c", "start d"]
    assert max(seen) == 2
    assert [status.outcome for status in tally.statuses] == [Outcome.DONE, Outcome.DONE, Outcome.ELSEWHERE,
                                                             Outcome.DONE]


def test_a_job_that_does_not_end_in_its_grace_is_killed(tmp_path):
    jobs, scripted, now = planned(tmp_path, "a", "b"), Scripted(1, stubborn=True), [0.0]

    def pause(_):
        now[0] += 10

    tally = run_jobs(jobs, scripted, time_limit_s=50, grace_s=30, clock=lambda: now[0], pause=pause)
    assert scripted.log == ["start a", "interrupt a", "kill a"]
    assert [status.outcome for status in tally.statuses] == [Outcome.INTERRUPTED, Outcome.NOT_STARTED]
    assert now[0] == pytest.approx(100, abs=20)


def test_a_second_ctrl_c_kills_at_once(tmp_path):
    jobs, scripted = planned(tmp_path, "a"), Scripted(1, stubborn=True)

    def pause(_):
        raise KeyboardInterrupt

    tally = run_jobs(jobs, scripted, pause=pause)
    assert scripted.log == ["start a", "interrupt a", "kill a"]
    assert tally.statuses[0].outcome is Outcome.INTERRUPTED


def test_cores_are_shared_out():
    assert LocalExecutor(COMMAND, slots=3, cores=8)._threads == 2
    assert LocalExecutor(COMMAND, slots=4, cores=2)._threads == 1
