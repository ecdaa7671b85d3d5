"""One benchmark job in a process of its own: train, score, evaluate. A crash here touches no other job.

Exit codes: 0 done, 1 failed (`failure.json` says why), 75 another process works on it, 130 interrupted and resumable.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from mmdg_model.training.benchmark_grid import JobLock, failure_file, read_job
from mmdg_model.training.run_assembly import Assembly
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.run_evaluation import Progress, evaluate_scores, score_run, write_evaluation
from mmdg_model.whole_file import write_whole

EXIT_DONE, EXIT_FAILED, EXIT_BUSY, EXIT_INTERRUPTED = 0, 1, os.EX_TEMPFAIL, 130


def run_job(directory: RunDirectory, assembly: Assembly, *, threads: int = 0) -> int:
    """Does what is left of a job; returns the exit code.

    Args:
        threads: of torch; 0 keeps what `job.json` says.
    """
    lock = JobLock(directory)
    if not lock.acquire():
        _say(f"{directory.path} is worked on by another process")
        return EXIT_BUSY
    failure_file(directory).unlink(missing_ok=True)
    try:
        file, config = read_job(directory)
        machine = dataclasses.replace(file.machine, threads=threads) if threads else file.machine
        if machine.threads:
            torch.set_num_threads(machine.threads)
        _say(f"train {directory.path.name}")
        assembly.train(directory, config, machine)
        opened = assembly.open(directory, machine)
        scored = score_run(directory, opened.data, opened.method, score_split=opened.score_split,
                           compute=opened.compute, on_progress=_say_progress)
        _say(f"evaluate, {scored} tables scored")
        evaluation = evaluate_scores(directory, resamples=file.resamples, permutations=file.permutations)
        write_evaluation(directory, evaluation)
        _say(f"done: {evaluation.significance}")
    except KeyboardInterrupt:
        _say("interrupted; start it again to go on")
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whatever it was, it is written down, and other jobs go on
        traceback.print_exc()
        failure = {"error": f"{type(error).__name__}: {error}", "at": datetime.now(UTC).isoformat(timespec="seconds"),
                   "traceback": traceback.format_exc().splitlines()[-40:]}
        write_whole(failure_file(directory), json.dumps(failure, indent=1).encode())
        return EXIT_FAILED
    finally:
        lock.release()
    return EXIT_DONE


def main(assembly: Assembly, arguments: Sequence[str] | None = None) -> int:
    """Command line of a job's process: `JOBDIR [--threads N]`."""
    parser = argparse.ArgumentParser(description="one benchmark job")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    chosen = parser.parse_args(arguments)
    # A parent that ignores or blocks SIGINT (a shell's background job, a cluster's worker) hands that on: the job must
    # stay interruptible.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_job(RunDirectory(chosen.directory), assembly, threads=chosen.threads)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _say_progress(progress: Progress) -> None:
    _say(f"score {progress.done}/{progress.total}: {progress.what}")
