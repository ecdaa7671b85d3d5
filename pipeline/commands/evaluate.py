"""`mmdg evaluate run | sessions`: scores of a run's kept epochs in three columns; decisions on whole sessions.

`mmdg evaluate RUN`, the older form, is `mmdg evaluate run RUN`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmdg_model.training.protocols import Scenario
    from mmdg_model.training.run_directory import RunDirectory


def register(app: typer.Typer) -> None:
    """Add the group to `mmdg`."""
    from pipeline.commands.evaluate_sessions import sessions_command

    evaluate = typer.Typer(cls=RunByDefault, no_args_is_help=True,
                           help="Judge a training run (also as `mmdg evaluate RUN`), or decisions on whole sessions.")
    evaluate.command("run")(evaluate_command)
    evaluate.command("sessions")(sessions_command)
    app.add_typer(evaluate, name="evaluate")


class RunByDefault(TyperGroup):
    """A group whose arguments go to `run` where they do not begin with a command's name.

    A run directory that lies here under a command's name is one, too, where nothing but options follows it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Puts `run` in front where it is meant."""
        named = bool(args) and args[0] in self.commands
        folder = named and Path(args[0]).is_dir() and (len(args) == 1 or args[1].startswith("-"))
        if args and args[0] != "--help" and (not named or (folder and args[1:] != ["--help"])):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def evaluate_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="run directory, as mmdg train or mmdg benchmark left it")],
    data: Annotated[Path | None, typer.Option("--data", metavar="ROOT", help="data root; by default where it lay when "
                                                                             "the run was last trained")] = None,
    lists: Annotated[Path | None, typer.Option(metavar="DIR", help="folder of the lists; as --data")] = None,
    scenario: Annotated[list[str] | None, typer.Option(help="missing_depth, missing_infrared or "
                                                            "missing_depth_and_infrared, beside the complete test; by "
                                                            "default all after Protocol 1's training; may be "
                                                            "repeated")] = None,
    complete_only: Annotated[bool, typer.Option("--complete-only", help="no absent modality")] = False,
    from_scores: Annotated[bool, typer.Option("--from-scores", help="compute figures anew from the scores on disk; "
                                                                    "needs neither data nor network")] = False,
    again: Annotated[bool, typer.Option("--again", help="score also what is on disk of the same checkpoint")] = False,
    resamples: Annotated[int, typer.Option(min=0, help="of the bootstrap by subject; 0 leaves it out")] = 2000,
    permutations: Annotated[int, typer.Option(min=2000, help="of the test against chance")] = 2000,
    threads: Annotated[int, typer.Option(min=0, help="of torch; 0 leaves torch's own choice")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="print evaluation.json instead of tables")] = False,
) -> None:
    """Score source validation and target test at every kept epoch, then report oracle and honest figures.

    What is on disk of the same checkpoint is not scored again: interrupt it and go on. Nothing here touches training.
    Example: mmdg evaluate run runs/mmdg-CPS_W-s0-1f2e3d4c5b6a

    Exit codes: 0 evaluated, 1 not possible (the reason is printed), 2 wrong usage, 130 interrupted.
    """
    from calibration.error_rates import Unit
    from mmdg_model.training.evaluation import EvaluationError
    from mmdg_model.training.evaluation_table import markdown
    from mmdg_model.training.protocols import Scenario
    from mmdg_model.training.run_config import RunConfigError
    from mmdg_model.training.run_directory import RunDirectory, RunDirectoryError
    from mmdg_model.training.run_evaluation import evaluate_scores, write_evaluation
    from mmdg_model.training.scores import ScoreTableError

    known = [one for one in Scenario if one is not Scenario.COMPLETE]
    for name in scenario or ():
        if name not in known:
            raise typer.BadParameter(f"{name!r}, expected one of {', '.join(known)}", param_hint="--scenario")
    if complete_only and scenario:
        raise typer.BadParameter("contradicts --scenario", param_hint="--complete-only")
    if not run.is_dir():
        raise typer.BadParameter(f"{run} is no folder", param_hint="RUN")
    wanted = [] if complete_only else [Scenario(name) for name in scenario] if scenario else None
    directory, console = RunDirectory(run), Console(stderr=True)
    try:
        if not from_scores:
            _score(directory, console, data, lists, wanted, again=again, threads=threads)
        with console.status("evaluating"):
            evaluation = evaluate_scores(directory, scenarios=wanted, resamples=resamples, permutations=permutations)
        write_evaluation(directory, evaluation)
    except (EvaluationError, RunDirectoryError, RunConfigError, ScoreTableError, ImportError, RuntimeError,
            ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here", highlight=False)
        raise typer.Exit(130) from None
    if as_json:
        sys.stdout.write(evaluation.to_json() + "\n")
        return
    complete = evaluation.levels[Scenario.COMPLETE]
    sys.stdout.write(markdown(complete[Unit.VIDEO]) + "\n" + markdown(complete[Unit.FRAME]) + "\n")
    sys.stdout.write(f"Permutation test at the honest epoch: {evaluation.significance}.\n")
    others = [one for one in evaluation.levels if one is not Scenario.COMPLETE]
    sys.stdout.write(f"{directory.path / 'evaluation.md'} holds these tables"
                     + (f", and those of {', '.join(others)}" if others else "") + ".\n")


def _score(directory: RunDirectory, console: Console, data: Path | None, lists: Path | None,
           scenarios: Sequence[Scenario] | None, *, again: bool, threads: int) -> None:
    import dataclasses

    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from mmdg_model.training.listed_assembly import ListedAssembly, machine_of
    from mmdg_model.training.run_config import MachineConfig
    from mmdg_model.training.run_evaluation import Progress, score_run

    if data is not None and lists is not None:
        machine = MachineConfig(root=data, lists=lists)
    else:
        machine = machine_of(directory)
        machine = dataclasses.replace(machine, root=data or machine.root, lists=lists or machine.lists)
    opened = ListedAssembly().open(directory, dataclasses.replace(machine, threads=threads or machine.threads))
    with Bar(TextColumn("score tables"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
             TextColumn("{task.description}"), console=console, transient=True,
             disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.total, description=progress.what)

        scored = score_run(directory, opened.data, opened.method, score_split=opened.score_split,
                           compute=opened.compute, scenarios=scenarios, again=again, on_progress=show)
    console.print(f"{scored} score tables made", highlight=False)
