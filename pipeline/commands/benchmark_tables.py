"""What `mmdg benchmark --table` adds to a grid: rows that are not there, tests without training, what it will cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mmdg_model.training.benchmark_grid import Job
    from mmdg_model.training.paper_grids import PaperGrid


def say_item(console: Console, paper: PaperGrid) -> None:
    """Title, and each row that is no job, with the reason."""
    console.print(paper.item.title, highlight=False, markup=False, soft_wrap=True)
    for method, why in paper.absent:
        console.print(f"{method}: {why}", highlight=False, markup=False, soft_wrap=True)


def only_trained(console: Console, jobs: Sequence[Job]) -> list[Job]:
    """For Table 2: the jobs that can be tested again.

    Raises:
        GridError: none is trained.
    """
    from mmdg_model.training.benchmark_grid import GridError
    from mmdg_model.training.retest import retests

    found = retests(jobs)
    for line in found.untrained:
        console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
    if not found.jobs:
        raise GridError("no checkpoint of Table 1 is there to be tested again; the same options with --table 1 train "
                        "them")
    return list(found.jobs)


def timings_of(console: Console, jobs: Sequence[Job], *, file: Path | None, calibrate: bool,
               threads: int) -> Mapping[tuple[str, str], float]:
    """Seconds of a training step by sample and method: from a file, else measured now for open jobs; says which.

    Raises:
        MethodCostError: the file cannot be used.
    """
    from mmdg_model.training import method_costs
    from mmdg_model.training.benchmark_grid import JobState

    known = dict(method_costs.step_timings(method_costs.read_costs(file))) if file is not None else {}
    if file is not None:
        console.print(f"times of a training step: {file}", highlight=False, markup=False, soft_wrap=True)
    if not calibrate:
        return known
    finished = {(job.config.method, job.config.model.preset) for job in jobs if job.directory.finished}
    lacking = [job.config for job in jobs if job.state is not JobState.DONE
               and (job.config.method, job.config.model.preset) not in finished | set(known)]
    if not lacking:
        return known
    with console.status("measuring a training step of each method") as status:
        costs = method_costs.calibrate(lacking, threads=threads, on_method=lambda name: status.update(
            f"measuring a training step of {name}"))
    measured = method_costs.step_timings(costs)
    words = ", ".join(f"{method} {1e3 * seconds:.0f}" for (method, _), seconds in measured.items())
    console.print(f"a training step, measured just now on {threads} thread{'s' if threads > 1 else ''}, ms a sample: "
                  f"{words or 'nothing could be measured'}", highlight=False, markup=False, soft_wrap=True)
    return known | dict(measured)


def checkpoint_words(job: Job) -> str:
    """For Table 2's lines: which checkpoint all four scenarios tested.

    Raises:
        EvaluationError, RunDirectoryError: they did not test the same.
    """
    from mmdg_model.training.retest import same_checkpoint
    return f"checkpoint {same_checkpoint(job.directory)[:12]} in all four scenarios"
