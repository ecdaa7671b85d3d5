"""`mmdg sensitivity`: tables of sweeps as curves of scores and error rates."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command to `mmdg`."""
    app.command("sensitivity")(sensitivity_command)


def sensitivity_command(
    tables: Annotated[list[Path], typer.Argument(metavar="TABLES...", help="CSV files of mmdg simulate sweep, one a "
                                                                           "parameter")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="where report.md, report.html and figures/ go")],
    threshold: Annotated[float | None, typer.Option(help="on the mean logit of a session; by default the one that "
                                                         "refuses 5 % of bona fide at the usual value")] = None,
) -> None:
    """Score and error rates of simulated sessions against distance, tilt, light, noise or a missing modality.

    Example: mmdg sensitivity sweeps/distance_m.csv sweeps/light.csv --out sensitivity

    Exit codes: 0 written, 1 not possible (the reason is printed), 2 wrong usage.
    """
    from mmdg_model.training.report.pages import write_report
    from mmdg_model.training.report.sensitivity import SensitivityError, build_sensitivity_report, read_sweep

    console = Console(stderr=True)
    try:
        with console.status("drawing"):
            report = build_sensitivity_report([read_sweep(path) for path in tables], threshold=threshold)
        text, page = write_report(report, out)
    except (SensitivityError, ValueError, ImportError, OSError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    sys.stdout.write(f"{len(report.sections)} sweeps of simulated sessions: {page} (and {text})\n")
