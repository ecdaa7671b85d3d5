"""`mmdg simulate audit`: what a simulated tree gives away beside what it is meant to show."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def audit_command(
    trees: Annotated[list[Path] | None, typer.Argument(
        metavar="[TREE...]", help="trees of `mmdg simulate benchmark`: one, the same with another --seed, and one made "
                                  "with --null-attack; their marks say which is which")] = None,
    out: Annotated[Path, typer.Option(help="folder of the report")] = Path("out/simulator_audit"),
    runs: Annotated[Path | None, typer.Option(help="folder of evaluated runs of vit_late on these domains, such as W_W "
                                                   "and CPS_W")] = None,
    steps: Annotated[int, typer.Option(min=1, help="training steps of each small network")] = 300,
    check: Annotated[Path | None, typer.Option(
        metavar="FILE", help="committed difficulty specification: fail if the code's domains or bounds differ")] = None,
    commit: Annotated[Path | None, typer.Option(
        metavar="FILE", help="write the difficulty specification with this audit's outcome")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
) -> None:
    """Measure leaks, single cues, hard cases, noise and balance of simulated trees against fixed bounds.

    With --check and without a tree nothing is measured.

    Exit codes: 0 no bound failed, 1 could not be done (the reason is printed), 2 wrong usage, 3 a bound failed.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from capture.camera import CameraError
    from mmdg_model.training.samples import ManifestError
    from pipeline.simulator_audit.audit import audit, sorted_trees
    from pipeline.simulator_audit.difficulty import check_difficulty, write_difficulty
    from pipeline.simulator_audit.findings import Status
    from pipeline.simulator_audit.frames import AuditError, read_tree
    from pipeline.simulator_audit.report import write_report

    if not trees and check is None:
        raise typer.BadParameter("name at least one tree, or --check FILE", param_hint="TREE")
    console = Console(stderr=True)
    try:
        if check is not None:
            for warning in check_difficulty(check):
                console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True)
        if not trees:
            sys.stdout.write(f"{check}: domains and bounds are those of the code\n")
            return
        with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console,
                      transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("reading")
            read = [read_tree(root, lambda done, total: progress.update(task, completed=done, total=total))
                    for root in trees]

            def on_stage(what: str) -> None:
                progress.update(task, description=what, completed=0, total=None)
                if not console.is_terminal:  # a log shows which of the minutes this is
                    console.print(f"{time.strftime('%H:%M:%S')} {what}", highlight=False)
            findings = audit(sorted_trees(read), runs=runs, steps=steps, on_stage=on_stage)
        report = write_report(out, findings, read)
        if commit is not None:
            write_difficulty(commit, findings, read)
    except (AuditError, ManifestError, CameraError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    counts = {status.value.lower(): findings.count(status) for status in Status}
    if as_json:
        sys.stdout.write(json.dumps({"simulated": True, "report": str(report), **counts}) + "\n")
    else:
        for line in findings.lines:
            if line.status is Status.FAILED:
                value = "not measured" if line.value is None else f"{line.value:.3g}"
                sys.stdout.write(f"{line.status}: {line.check}: {line.what}, {line.scope}: {value} (bound {line.bound})"
                                 "\n")
        sys.stdout.write(", ".join(f"{count} {name}" for name, count in counts.items()) + f"; all figures are of "
                         f"simulated data: {report}\n")
    if counts[Status.FAILED.value.lower()]:
        raise typer.Exit(3)
