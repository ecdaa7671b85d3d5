"""Jobs on a Ray cluster of this machine alone; skipped where Ray is not installed (extra `cluster`)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmdg_model.training.benchmark_grid import JobState
from mmdg_model.training.job_runner import Outcome, run_jobs
from mmdg_model.training.ray_executor import RayExecutor
from tests.mmdg_model.training.test_job_runner import planned

ROOT = Path(__file__).resolve().parents[3]
COMMAND = (sys.executable, "-m", "tests.mmdg_model.training.toy_job")


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"install mmdg-live\[cluster\]"):
        RayExecutor(COMMAND, address="local", slots=1)


@pytest.mark.filterwarnings("default")  # Ray's own deprecations
def test_jobs_run_as_tasks_and_an_interrupt_reaches_them(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.chdir(ROOT)
    jobs = planned(tmp_path, "mmdg", "vit_late", "u_adapter", crash=["vit_late"], hang=["u_adapter"])
    executor = RayExecutor(COMMAND, address="local", slots=1)
    hangs = lambda: (jobs[2].directory.path / "job.log").is_file() and "hanging" in (  # noqa: E731
        jobs[2].directory.path / "job.log").read_text()
    try:
        tally = run_jobs(jobs, executor, time_limit_s=100, clock=lambda: 1000.0 * hangs())
    finally:
        executor.close()
    assert [status.outcome for status in tally.statuses] == [Outcome.DONE, Outcome.FAILED, Outcome.INTERRUPTED]
    assert jobs[2].state is JobState.STARTED
