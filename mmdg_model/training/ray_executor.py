"""Benchmark jobs as Ray tasks: the same process a job, started by whichever node of a cluster has cores free.

Nodes share the file system (jobs, data and program lie at the same paths); Ray moves nothing but the job's path.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmdg_model.training.benchmark_grid import Job
from mmdg_model.training.job import EXIT_FAILED, EXIT_INTERRUPTED
from mmdg_model.training.job_runner import GRACE_S, Running


class RayExecutor:
    """Implements `job_runner.Executor`."""

    def __init__(self, command: Sequence[str], *, address: str, slots: int, cores: int = 0,
                 on_gpu: bool = False) -> None:
        """Connects.

        Args:
            command: starts a job when its directory is appended.
            address: `auto`, `ray://host:port`, or `local` for a cluster of this machine alone.
            slots: jobs at the same time, at most.
            cores: of each job; 0 shares the cluster's out evenly.
            on_gpu: whether each job takes a GPU.

        Raises:
            ImportError: Ray is not installed. ConnectionError: no cluster answers.
        """
        try:
            import ray
        except ImportError as error:
            raise ImportError("running on a cluster needs ray; install mmdg-live[cluster]") from error
        self._ray: Any = ray
        # The working directory is left to the nodes: shipping it would copy data and runs.
        ray.init(address=address, log_to_driver=False, include_dashboard=False) if address == "local" else ray.init(
            address=address, log_to_driver=False)
        self.slots = slots
        self._cores = cores or max(1, int(ray.cluster_resources().get("CPU", 1)) // slots)
        self._command = tuple(command)
        self._task = ray.remote(_process_task()).options(num_cpus=self._cores, num_gpus=int(on_gpu), max_retries=0)

    def start(self, job: Job) -> Running:
        """Hands the job to the cluster."""
        command = [*self._command, str(job.directory.path), "--threads", str(self._cores)]
        stop_file = job.directory.path / "job.stop"
        stop_file.unlink(missing_ok=True)
        reference = self._task.remote(command, str(job.directory.path), str(Path.cwd()), self._cores)
        return RayTask(self._ray, reference, stop_file)

    def close(self) -> None:
        """Leaves the cluster."""
        self._ray.shutdown()


class RayTask:
    """A job on the cluster. Implements `job_runner.Running`."""

    def __init__(self, ray: Any, reference: Any, stop_file: Path) -> None:
        self._ray, self._reference, self._stop_file = ray, reference, stop_file

    def exit_code(self) -> int | None:
        """A task that died with its node or was cancelled counts as interrupted: it can be resumed."""
        ready, _ = self._ray.wait([self._reference], timeout=0)
        if not ready:
            return None
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.RayTaskError:
            return EXIT_FAILED  # the process could not be started there
        except self._ray.exceptions.RayError:
            return EXIT_INTERRUPTED

    def interrupt(self) -> None:
        """Through the shared file system: Ray's own cancelling did not reach a task that waits for a process."""
        self._stop_file.touch()

    def kill(self) -> None:
        """Ends the task's process."""
        self._ray.cancel(self._reference, force=True)


def _process_task() -> Callable[[list[str], str, str, int], int]:
    """What a node does. Made inside a function, so that Ray sends it whole: its workers need not find this package."""
    grace_s, interrupt, kill = GRACE_S, signal.SIGINT, signal.SIGKILL

    def run_process(command: list[str], directory: str, working_directory: str, threads: int) -> int:
        """One job as a process, its output in its log; returns the exit code."""
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE",
                                    "PYTHONUNBUFFERED": "1"}
        with (Path(directory) / "job.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                       env=environment, cwd=working_directory, start_new_session=True)
        asked_at_s = float("inf")
        while process.poll() is None:
            time.sleep(0.2)
            if (Path(directory) / "job.stop").exists() and asked_at_s == float("inf"):
                asked_at_s = time.monotonic()
                process.send_signal(interrupt)
            if time.monotonic() - asked_at_s > grace_s:
                os.killpg(process.pid, kill)
        return process.returncode

    return run_process
