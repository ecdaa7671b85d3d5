"""`mmdg search`: hyper-parameters by source validation alone."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipeline.commands.durations import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmdg_model.training.search import SearchSpace, Trial


def register(app: typer.Typer) -> None:
    """Add the command to `mmdg`."""
    app.command("search")(search_command)


def search_command(
    space: Annotated[Path, typer.Argument(metavar="SPACE.yaml", help="method, space, protocols, seeds, trials, run")],
    data: Annotated[Path, typer.Option("--data", metavar="ROOT", help="data root")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="runs, trials.csv and the winner's METHOD.yaml")],
    lists: Annotated[Path | None, typer.Option(metavar="DIR", help="folder of the lists; ROOT/lists by "
                                                                   "default")] = None,
    metadata: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV of subjects and species")] = None,
    backbone: Annotated[Path | None, typer.Option(metavar="FILE", help="pretrained ViT to start from")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="of torch; 0 leaves its own choice")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="loader processes")] = 0,
    cache_mib: Annotated[int, typer.Option(min=0, help="memory for decoded samples")] = 0,
    time_limit: Annotated[str | None, typer.Option(metavar="20m", help="start no run after it; the same command goes "
                                                                       "on")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
) -> None:
    """Try values of hyper-parameters; the least error on source validation wins. No target is read.

    Start it again to go on: what is trained stays. Several processes may share a DIR.

    Exit codes: 0 every trial is judged, 1 some are not, or it cannot be, 2 wrong usage, 130 interrupted.
    """
    from mmdg_model.training.listed_assembly import ListedAssembly
    from mmdg_model.training.run_config import MachineConfig
    from mmdg_model.training.search import read_space, search, write_results

    console = Console(stderr=True)
    limit_s = seconds(time_limit, "--time-limit") if time_limit else float("inf")
    began = time.monotonic()
    trials: Sequence[Trial] = ()
    winner: Path | None = None
    try:
        wanted = read_space(space)
        machine = MachineConfig(root=data.resolve(), lists=(lists or data / "lists").resolve(),
                                metadata=metadata.resolve() if metadata else None,
                                backbone=backbone.resolve() if backbone else None, accelerator=accelerator,
                                threads=threads, workers=workers, cache_mib=cache_mib)
        for trials in search(wanted, machine, out.resolve(), ListedAssembly(),
                             expired=lambda: time.monotonic() - began > limit_s,
                             on_trial=lambda trial: console.print(f"trial {trial.number}: {dict(trial.values)}",
                                                                  highlight=False, markup=False, soft_wrap=True)):
            winner = write_results(out, wanted, trials)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here", highlight=False)
        raise typer.Exit(130) from None
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    _say(wanted, trials, winner, as_json)
    if any(trial.hter is None for trial in trials):
        console.print("not all trials are judged; the same command goes on", highlight=False)
        raise typer.Exit(1)


def _say(space: SearchSpace, trials: Sequence[Trial], winner: Path | None, as_json: bool) -> None:
    from mmdg_model.training.search import best
    found = best(trials)
    if as_json:
        sys.stdout.write(json.dumps({
            "method": space.method, "best": found.number if found else None, "recipe": str(winner) if winner else None,
            "trials": [{"trial": trial.number, "values": dict(trial.values), "hter": trial.hter, "auc": trial.auc}
                       for trial in trials]}) + "\n")
        return
    for trial in sorted(trials, key=lambda one: (one.hter is None, one.hter or 0.0, one.number)):
        judged = ("not trained yet" if trial.hter is None or trial.auc is None else
                  f"source validation HTER {100 * trial.hter:.2f} %, AUC {100 * trial.auc:.2f} %")
        values = ", ".join(f"{place} {value}" for place, value in trial.values.items())
        sys.stdout.write(f"{'* ' if found and trial.number == found.number else '  '}{trial.number}: {values}: "
                         f"{judged}\n")
    if winner:
        sys.stdout.write(f"{winner}\n")
