"""`mmdg benchmark`: methods × protocols × seeds as resumable jobs, on this machine or a cluster."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline.commands.durations import seconds

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from mmdg_model.training.benchmark_grid import GridConfig, Job
    from mmdg_model.training.job_runner import Executor, Tally
    from mmdg_model.training.paper_grids import PaperGrid
    from mmdg_model.training.run_config import MachineConfig


def register(app: typer.Typer) -> None:
    """Add the command to `mmdg`."""
    app.command("benchmark")(benchmark_command)


def benchmark_command(
    data: Annotated[Path, typer.Option("--data", metavar="ROOT", help="data root")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder of the jobs, one directory each")],
    lists: Annotated[Path | None, typer.Option(metavar="DIR", help="folder of the lists; ROOT/lists by "
                                                                           "default")] = None,
    recipe_name: Annotated[str | None, typer.Option("--recipe", metavar="NAME", help="a grid that comes with the "
                                                    "program, such as reproduce_small")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="a grid: methods, protocols, seeds, "
                                                                          "run")] = None,
    parts: Annotated[str | None, typer.Option(metavar="A,B", help="parts of a grid that has parts, by name")] = None,
    table: Annotated[str | None, typer.Option(metavar="1|2|3|4|5|fig1c|fig5|fig6|fig7|all", help="a table or figure of "
                                              "the paper; 2 tests Table 1's checkpoints again")] = None,
    scale: Annotated[str | None, typer.Option(metavar="NAME|FILE.yaml", help="of a table: size and length for every "
                                              "method alike, such as micro; by default the paper's")] = None,
    method_recipes: Annotated[Path | None, typer.Option(metavar="DIR", help="of a table: recipe files of methods that "
                                                        "go before the program's")] = None,
    timings: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="estimate with the training steps of "
                                                 "benchmarks/method_costs.py")] = None,
    calibrate: Annotated[bool | None, typer.Option("--calibrate/--no-calibrate", help="measure a training step of each "
                                                   "method for the estimate; by default with --table")] = None,
    methods: Annotated[str | None, typer.Option(metavar="A,B", help="methods by name")] = None,
    protocols: Annotated[str | None, typer.Option(metavar="CPS_W,...", help="trainings by name")] = None,
    protocol: Annotated[int | None, typer.Option(help="all trainings of protocol 1 or 3")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0-4", help="seeds: 0-4, or 0,2,7")] = None,
    preset: Annotated[str | None, typer.Option(help="size of the network, such as base or micro")] = None,
    metadata: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV of subjects and species")] = None,
    backbone: Annotated[Path | None, typer.Option(metavar="FILE", help="pretrained ViT to start from")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    workers: Annotated[int, typer.Option(min=0, help="loader processes of each job")] = 0,
    cache_mib: Annotated[int, typer.Option(min=0, help="memory of each job for decoded samples")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="jobs at the same time; cores are shared out")] = 1,
    shard: Annotated[str | None, typer.Option(metavar="I/N", help="every N-th job, from the I-th")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="try failed jobs again")] = False,
    time_limit: Annotated[str | None, typer.Option(metavar="20m", help="stop then; running jobs save and can be "
                                                                       "gone on with")] = None,
    ray: Annotated[str | None, typer.Option(metavar="ADDRESS", help="run on a Ray cluster that shares this file "
                                                                    "system (auto, or ray://...)")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what there is to do, and do nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
) -> None:
    """Train and evaluate a grid of runs. Start it again to go on: what is done stays done.

    Examples: mmdg benchmark --data data --methods vit_late,mmdg --protocol 1 --seeds 0-4 --out runs;
    mmdg benchmark --data data --table 1 --seeds 0-4 --backbone vit_b_16.safetensors --out runs

    Exit codes: 0 every job is done, 1 some are not (they are listed), 2 wrong usage, 130 interrupted.
    """
    from mmdg_model.training.benchmark_grid import GridError, plan, write_job
    from mmdg_model.training.benchmark_grid import shard as share_of
    from mmdg_model.training.job_runner import Outcome, run_jobs
    from mmdg_model.training.listed_assembly import ListedAssembly
    from mmdg_model.training.retest import reopen
    from mmdg_model.training.run_config import MachineConfig
    from mmdg_model.training.stop_signals import terminated_as_interrupted
    from pipeline.commands import benchmark_tables as tables

    console = Console(stderr=True)
    limit_s = seconds(time_limit, "--time-limit") if time_limit else float("inf")
    try:
        paper = _paper_grid(table, recipe_name, config, methods, protocols, protocol, seeds, preset, scale,
                            method_recipes, backbone)
        grid = (paper.grid if paper else
                _grid(recipe_name, config, methods, protocols, protocol, seeds, preset))
        if parts:
            grid = grid.only(parts.split(","))
        machine = MachineConfig(root=data.resolve(), lists=(lists or data / "lists").resolve(),
                                metadata=metadata.resolve() if metadata else None,
                                backbone=backbone.resolve() if backbone else None, accelerator=accelerator,
                                workers=workers, cache_mib=cache_mib)
        with console.status("reading lists"):
            planned = plan(grid, machine, out.resolve(), ListedAssembly())
        chosen: Sequence[Job] = share_of(planned, shard) if shard else planned
        if paper:
            tables.say_item(console, paper)
        retested = paper is not None and paper.item.tests_only
        if retested:
            chosen = tables.only_trained(console, chosen)
        _announce(console, chosen, jobs, tables.timings_of(
            console, chosen, file=timings, threads=max(1, len(os.sched_getaffinity(0)) // jobs),
            calibrate=not retested and (bool(table) if calibrate is None else calibrate)))
        if dry_run:
            for job in chosen:
                sys.stdout.write(f"{job.name}: {job.state}, {job.updates} updates\n")
            return
        for job in chosen:
            write_job(job, machine, grid)
            if retested and reopen(job):
                console.print(f"{job.name}: was not tested by Protocol 2 in whole; tested anew", highlight=False)
        executor = _executor(ray, jobs, machine)
    except (GridError, ImportError, RuntimeError, ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    with terminated_as_interrupted():
        tally = _watched(console, lambda show: run_jobs(chosen, executor, retry=retry, time_limit_s=limit_s,
                                                        on_change=show))
    if as_json:
        sys.stdout.write(json.dumps({"stopped": tally.stopped, "jobs": {
            status.job.name: str(status.outcome) for status in tally.statuses}}) + "\n")
    else:
        for status in tally.statuses:
            done = status.outcome in (Outcome.DONE, Outcome.ALREADY_DONE)
            note = tables.checkpoint_words(status.job) if retested and done else status.note
            sys.stdout.write(f"{status.job.name}: {status.outcome}{f' ({note})' if note else ''}\n")
    if tally.complete:
        console.print(f"all done; next: mmdg report {out} --out report", highlight=False)
    elif tally.stopped:
        console.print(f"stopped ({tally.stopped}); the same command goes on from here", highlight=False)
    if tally.stopped == "interrupted":
        raise typer.Exit(130)
    if not tally.complete:
        raise typer.Exit(1)


def _paper_grid(table: str | None, recipe_name: str | None, config: Path | None, methods: str | None,
                protocols: str | None, protocol: int | None, seeds: str | None, preset: str | None, scale: str | None,
                method_recipes: Path | None, backbone: Path | None) -> PaperGrid | None:
    """Of `--table`; None without it."""
    from mmdg_model.training.paper_grids import paper_grid

    if table is None:
        for value, option in ((scale, "--scale"), (method_recipes, "--method-recipes")):
            if value:
                raise typer.BadParameter("goes with --table", param_hint=option)
        return None
    for refused, option in ((recipe_name, "--recipe"), (config, "--config"), (protocol, "--protocol")):
        if refused:
            raise typer.BadParameter("a table names its grid itself; --methods, --protocols and --seeds narrow it",
                                     param_hint=option)
    return paper_grid(table, seeds=_numbers(seeds) if seeds else (0,), methods=methods.split(",") if methods else (),
                      protocols=protocols.split(",") if protocols else (), scale=scale or "", preset=preset or "",
                      method_recipes=method_recipes, backbone=backbone)


def _grid(recipe_name: str | None, config: Path | None, methods: str | None, protocols: str | None,
          protocol: int | None, seeds: str | None, preset: str | None) -> GridConfig:
    """From a recipe, a file, or the options; options win."""
    import dataclasses

    from mmdg_model.training.benchmark_grid import GridConfig, GridError, MethodRow, protocol_names, read_grid, recipe

    if recipe_name and config:
        raise typer.BadParameter("name either --recipe or --config", param_hint="--config")
    if protocols and protocol:
        raise typer.BadParameter("name either --protocols or --protocol", param_hint="--protocol")
    changes: dict[str, Any] = {}
    if methods:
        changes["methods"] = tuple(MethodRow(method=name) for name in methods.split(","))
    if protocols:
        changes["protocols"] = tuple(protocols.split(","))
    if protocol is not None:
        changes["protocols"] = protocol_names(protocol)
    if seeds:
        changes["seeds"] = _numbers(seeds)
    grid = recipe(recipe_name) if recipe_name else read_grid(config) if config else None
    if grid is not None and grid.parts:
        if "methods" in changes or "protocols" in changes:
            raise GridError("this grid has parts, which name methods and protocols themselves; choose some with "
                            "--parts")
        if seeds:
            changes["parts"] = tuple(dataclasses.replace(part, seeds=changes["seeds"]) for part in grid.parts)
    if grid is None and not methods:
        raise GridError("no methods; name --methods, --recipe or --config")
    if preset:
        run = dict(grid.run if grid else {})
        model = dict(run.get("model", {}))
        changes["run"] = run | {"model": model | {"preset": preset}}
    return dataclasses.replace(grid, **changes) if grid else GridConfig(**changes)


def _numbers(text: str) -> tuple[int, ...]:
    found: list[int] = []
    for part in text.split(","):
        if not (match := re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())):
            raise typer.BadParameter(f"{text!r}, expected numbers such as 0-4 or 0,2,7", param_hint="--seeds")
        first, last = int(match[1]), int(match[2] or match[1])
        found += range(first, last + 1)
    return tuple(dict.fromkeys(found))


def _announce(console: Console, jobs: Sequence[Job], parallel: int,
              timings: Mapping[tuple[str, str], float]) -> None:
    from mmdg_model.training.benchmark_grid import JobState, estimate
    states = [job.state for job in jobs]
    cost = estimate(jobs, timings)
    counted = ", ".join(f"{states.count(state)} {state}" for state in JobState if state in states)
    simulated = " on SIMULATED DATA" if any(job.simulated for job in jobs) else ""
    unit, length_s = ("h", 3600) if cost.high_s >= 3600 else ("min", 60)
    low, high = cost.low_s / length_s, cost.high_s / length_s
    judged = cost.measured + cost.timed
    time = f"about {high:.1f} {unit}" if judged == cost.jobs else f"roughly {low:.1f} to {high:.1f} {unit}"
    basis = (f" ({cost.measured} of {cost.jobs} open jobs judged by finished ones, "
             + (f"{cost.timed} by timed training steps, " if cost.timed else "") + f"{cost.jobs - judged} by "
             "arithmetic; decoding and scoring come on top)" if cost.jobs else "")
    console.print(f"{len(jobs)} jobs{simulated}: {counted}; training left: {time} of this machine{basis}; "
                  f"{parallel} at a time", highlight=False, markup=False, soft_wrap=True)
    updates: dict[str, list[int]] = {}
    for job in jobs:
        updates.setdefault(job.config.method, []).append(job.updates)
    console.print("updates: " + ", ".join(f"{method} {sum(each):,} in {len(each)} jobs"
                                          for method, each in updates.items()), highlight=False, soft_wrap=True)


def _executor(ray: str | None, parallel: int, machine: MachineConfig) -> Executor:
    from mmdg_model.training.job_runner import LocalExecutor
    from mmdg_model.training.listed_assembly import COMMAND
    if ray is None:
        return LocalExecutor(COMMAND, slots=parallel)
    from mmdg_model.training.ray_executor import RayExecutor
    return RayExecutor(COMMAND, address=ray, slots=parallel, on_gpu=machine.accelerator == "cuda")


def _watched(console: Console, run: Any) -> Tally:
    """Runs with a live table on a terminal, else with a line whenever a job's outcome changes."""
    from rich.live import Live
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            result: Tally = run(lambda tally: live.update(_table(tally)))
            return result
    seen: dict[str, str] = {}

    def show(tally: Tally) -> None:
        for status in tally.statuses:
            if seen.get(status.job.name) != status.outcome:
                seen[status.job.name] = str(status.outcome)
                if status.outcome != "waiting":
                    console.print(f"{status.job.name}: {status.outcome}", highlight=False, soft_wrap=True)

    quiet: Tally = run(show)
    return quiet


def _table(tally: Tally) -> Table:
    from rich.table import Table

    from mmdg_model.training.job_runner import Outcome, last_words
    table = Table("job", "state", "minutes", "last words")
    finished = (Outcome.DONE, Outcome.ALREADY_DONE)
    for status in tally.statuses:
        if status.outcome in (*finished, Outcome.WAITING) and len(tally.statuses) > 30:
            continue
        table.add_row(status.job.name, str(status.outcome), f"{status.seconds / 60:.1f}" if status.seconds else "",
                      status.note or (last_words(status.job) if status.outcome is Outcome.RUNNING else ""))
    table.caption = f"{tally.count(*finished)} of {len(tally.statuses)} done" + (
        f"; stopping: {tally.stopped}" if tally.stopped else "; Ctrl-C leaves all resumable")
    return table
