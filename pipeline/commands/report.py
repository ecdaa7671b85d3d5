"""`mmdg report`: evaluated runs as one report, beside the paper's tables."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer) -> None:
    """Add the command to `mmdg`."""
    app.command("report")(report_command)


def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUNS...", help="run directories, or folders of them such as "
                                                                       "mmdg benchmark's --out")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="where report.md, report.html and figures/ go")],
    generalisation: Annotated[bool, typer.Option("--generalisation", help="report on data sets, families of attacks "
                                                 "and modalities left out, instead of the paper's tables")] = False,
    resamples: Annotated[int, typer.Option(min=100, help="of the order claims' bootstrap")] = 2000,
    costs: Annotated[Path | None, typer.Option(metavar="FILE.csv", help="costs of methods, as "
                                               "benchmarks/method_costs.py writes them")] = None,
    pictures: Annotated[bool | None, typer.Option("--pictures/--no-pictures", help="show two faces of the target with "
                                                  "MMDG's uncertainty and attention (needs its data); by default only "
                                                  "simulated ones")] = None,
    keep: Annotated[Path | None, typer.Option(metavar="DIR", help="also write a small copy of each run (scores, "
                                              "evaluation, losses), from which this report can be made again")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
) -> None:
    """Write report.md and a self-contained report.html: our figures beside the paper's, curves, and what may be said.

    Examples: mmdg report runs --out report; mmdg report runs --generalisation --out generalisation

    Exit codes: 0 written, 1 not possible (the reason is printed), 2 wrong usage.
    """
    from mmdg_model.training.evaluation import EvaluationError
    from mmdg_model.training.method_costs import MethodCostError, read_costs
    from mmdg_model.training.report.generalisation import build_generalisation_report
    from mmdg_model.training.report.kept_runs import keep_runs
    from mmdg_model.training.report.pages import build_report, write_report
    from mmdg_model.training.report.run_results import ReportError, collect
    from mmdg_model.training.run_config import RunConfigError
    from mmdg_model.training.run_directory import RunDirectoryError
    from mmdg_model.training.scores import ScoreTableError

    console = Console(stderr=True)
    try:
        with console.status("reading runs"):
            collection = collect(runs)
        with console.status("drawing"):
            report = (build_generalisation_report(collection, resamples=resamples) if generalisation else
                      build_report(collection, resamples=resamples,
                                   pictures=collection.simulated if pictures is None else pictures,
                                   costs=read_costs(costs) if costs is not None else ()))
        text, page = write_report(report, out)
        if keep is not None:
            keep_runs(collection, keep)
    except (ReportError, RunDirectoryError, RunConfigError, EvaluationError, ScoreTableError, MethodCostError,
            ImportError, OSError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    number = sum(len(row.runs) for row in collection.rows)
    if as_json:
        sys.stdout.write(json.dumps({"runs": number, "unfinished": len(collection.unfinished), "markdown": str(text),
                                     "html": str(page), "simulated": collection.simulated}) + "\n")
        return
    for warning in report.warnings:
        console.print(warning, style="yellow", highlight=False, markup=False, soft_wrap=True)
    sys.stdout.write(f"{number} runs in {len(collection.rows)} rows: {page} (and {text})\n")
