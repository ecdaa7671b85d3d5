"""`mmdg simulate`: simulated data sets on disk."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.commands import simulate_sessions
from pipeline.commands.simulate_audit import audit_command


def register(app: typer.Typer) -> None:
    """Add the commands to `mmdg`."""
    simulate = typer.Typer(no_args_is_help=True, help="Simulated data on disk. It says nothing about real people.")
    simulate.callback()(_group)
    simulate.command("benchmark")(benchmark_command)
    simulate_sessions.add_to(simulate)
    simulate.command("audit")(audit_command)
    app.add_typer(simulate, name="simulate")


def _group() -> None:
    """Simulated data on disk. It says nothing about real people."""


def benchmark_command(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="data root of the simulated tree: a new folder, or one "
                                                            "that the same command began")],
    size: Annotated[str, typer.Option(help="tiny (120 samples), small (2,000), medium (10,000), large (as many as the "
                                           "public lists), or a number")] = "small",
    seed: Annotated[int, typer.Option(min=0, help="another seed shows other people")] = 0,
    domains: Annotated[str, typer.Option(help="letters of the simulated domains to make; L, sessions before D4xx "
                                              "cameras, has no data set that it stands for")] = "CPSW",
    image_size: Annotated[int, typer.Option(help="side of the stored crops in pixels (P: always 320 x 256)")] = 128,
    null_attack: Annotated[bool, typer.Option(
        "--null-attack", help="for the audit: attacks of the victim's own shape and skin; nothing may tell them from "
                              "live faces")] = False,
    frames: Annotated[int | None, typer.Option(
        min=1, help="of each recording at most (3, of P 1, by default); with fewer the samples are of more recordings, "
                    "which an audit tells more from")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="processes; one a core by default")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
) -> None:
    """Render simulated domains as CASIA-SURF, CeFA, WMCA and PADISI-Face trees with lists, for `mmdg train`.

    Run it again to go on after an interruption.

    Exit codes: 0 complete, 1 failed (the reason is printed), 2 wrong usage.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from capture.camera import CameraError
    from detect.faces import DetectorError
    from mmdg_model.inputs import SpecificationError
    from mmdg_model.training.samples import Domain
    from pipeline.simulated_benchmark import make_benchmark, plan_benchmark
    from pipeline.simulated_trees.contact_sheet import draw_contact_sheet
    from pipeline.simulated_trees.domains import SimulationError

    if not domains or any(letter not in list(Domain) for letter in domains):
        raise typer.BadParameter(f"{domains!r}, expected letters of {', '.join(Domain)}", param_hint="--domains")
    console = Console(stderr=True)
    jobs = jobs or os.cpu_count() or 1
    try:
        plan = plan_benchmark(size, seed=seed, image_size=image_size, domains=[Domain(each) for each in domains],
                              physics=not null_attack, frames=frames)
        recordings = sum(map(len, plan.recordings.values()))
        console.print(f"simulated benchmark: {plan.frames} frames of {recordings} recordings, about "
                      f"{plan.megabytes:.0f} MB, about {plan.minutes(jobs):.0f} min with {jobs} processes on cores of "
                      "their own", highlight=False, soft_wrap=True)
        with Progress(TextColumn("recordings"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                      console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("recordings", total=recordings)
            outcome = make_benchmark(out, plan, jobs=jobs, on_progress=lambda done, total: progress.update(
                task, completed=done, total=total))
        sheet = draw_contact_sheet(out, out / "contact_sheet.png")
    except (SimulationError, SpecificationError, CameraError, DetectorError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    missed = {scene: {"frames": count, "missed": outcome.missed[scene]} for scene, count in outcome.rendered.items()}
    if as_json:
        sys.stdout.write(json.dumps({"simulated": True, "root": str(out), "lists": outcome.lists,
                                     "non_response": missed, "bytes": outcome.bytes,
                                     "contact_sheet": str(sheet)}) + "\n")
        return
    lines = [f"{name}: {each['lines']} simulated samples, {each['live']} live, {each['spoof']} spoof"
             for name, each in outcome.lists.items()]
    lines += [f"no single face found: {scene} {each['missed']} of {each['frames']} frames"
              for scene, each in missed.items()]
    lines.append(f"{out}: {outcome.bytes / 1e6:.1f} MB of simulated data; {sheet}")
    sys.stdout.write("\n".join(lines) + "\n")
