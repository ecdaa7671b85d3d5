"""`mmdg pretrain`: a backbone from unlabelled crops, where no pretrained weights can be had."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from mmdg_model.training.pretraining.pretrain import PretrainingOutcome

#: Exit code of a run that left off because its time was up.
UNFINISHED = 3


def register(app: typer.Typer) -> None:
    """Add the command to `mmdg`."""
    app.command("pretrain")(pretrain_command)


def pretrain_command(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="data root, such as a simulated tree of other people "
                                                              "than the benchmark's")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="directory of the run; an unfinished one goes on")],
    lists: Annotated[Path | None, typer.Option(metavar="DIR", help="folder of the lists; by default lists in "
                                                                   "ROOT")] = None,
    recipe: Annotated[str, typer.Option(help="micro, tiny or base: size of the network, and how to train "
                                             "it")] = "micro",
    domain: Annotated[list[str] | None, typer.Option(help="S, C, W or P; all four by default; may be repeated")] = None,
    disjoint_from: Annotated[list[Path] | None, typer.Option(metavar="ROOT", help="a simulated benchmark whose people "
                                                             "must not be in the tree; may be repeated")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="instead of the recipe's")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="instead of the recipe's")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="instead of the recipe's")] = None,
    cross_modal_weight: Annotated[float | None, typer.Option(help="of reconstructing another modality; 0 for "
                                                                  "none")] = None,
    precision: Annotated[str | None, typer.Option(help="32-true or bf16-mixed, instead of the recipe's")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of initial weights, order, augmentation and masks")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="of torch; 0 leaves its own choice")] = 0,
    max_minutes: Annotated[float, typer.Option(min=0.0, help="leave off after so long; the same command goes on. 0: no "
                                                             "limit")] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
) -> None:
    """Train a ViT backbone by masked autoencoding. No label is read, so what attacks look like is not learned here.

    Exit codes: 0 the backbone is written, 1 it cannot be, 2 wrong usage, 3 time is up: the same command goes on.
    """
    if not root.is_dir():
        raise typer.BadParameter(f"{root} is no folder", param_hint="ROOT")
    try:
        from mmdg_model.training.compute import TrainingDiverged
        from mmdg_model.training.fabric_compute import ComputeError
        from mmdg_model.training.pretraining import config as configuration
        from mmdg_model.training.pretraining.pretrain import PretrainingSource, pretrain
        from mmdg_model.training.run_directory import RunDirectoryError
        from mmdg_model.training.samples import ManifestError
    except ModuleNotFoundError as error:
        _fail(f"pretraining needs PyTorch and more (no module {error.name}): pip install 'mmdg-live[engine,train]'")
    try:
        config = configuration.recipe(recipe, seed=seed)
        objective = {} if cross_modal_weight is None else {"cross_modal_weight": cross_modal_weight}
        rate = {} if learning_rate is None else {"learning_rate": learning_rate}
        config = configuration.changed(
            config, domains=tuple(domain) if domain else config.domains, epochs=epochs or config.epochs,
            batch_size=batch_size or config.batch_size, precision=precision or config.precision,
            objective=configuration.changed(config.objective, **objective),
            optimiser=configuration.changed(config.optimiser, **rate))
        with _Progress() as progress:
            outcome = pretrain(
                config, PretrainingSource(root=root, lists=lists or root / "lists", disjoint_from=disjoint_from or ()),
                out, device=device, threads=threads, max_seconds=60.0 * max_minutes if max_minutes else float("inf"),
                on_update=progress)
    # PretrainingError and a device of another name are ValueErrors.
    except (ValueError, ComputeError, RunDirectoryError, ManifestError, TrainingDiverged) as error:
        _fail(str(error))
    sys.stdout.write(json.dumps(_plain(outcome)) + "\n" if as_json else _described(outcome))
    if not outcome.finished:
        raise typer.Exit(UNFINISHED)


class _Progress:
    """A bar with time left on standard error."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        self._bar = Progress(TextColumn("updates"), BarColumn(), MofNCompleteColumn(),
                             TextColumn("loss {task.fields[loss]}, left"), TimeRemainingColumn(), console=console,
                             transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("updates", total=None, loss="")

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int, scalars: Mapping[str, float | None]) -> None:
        self._bar.update(self._task, completed=done, total=total, loss=f"{scalars['loss/total']:.3f}")


def _plain(outcome: PretrainingOutcome) -> dict[str, object]:
    return {"run": str(outcome.path), "finished": outcome.finished, "updates_done": outcome.updates_done,
            "updates": outcome.updates, "backbone_sha256": outcome.backbone_sha256, "report": dict(outcome.report)}


def _described(outcome: PretrainingOutcome) -> str:
    if not outcome.finished:
        return f"{outcome.path}: {outcome.updates_done} of {outcome.updates} updates; the same command goes on\n"
    lines = [f"{outcome.path / 'backbone.safetensors'}: backbone to train from; it decides nothing",
             f"  SHA-256   {outcome.backbone_sha256}",
             f"  crops     {'simulated' if outcome.report['simulated'] else 'of a tree that is not marked simulated'}",
             "  validation error / of flat patches / of the mean patch (share of the last that is explained)"]
    for what in ("masked", "class_token", "cross_modal"):
        for name, found in outcome.report[what].items():
            share = "-" if found["explained"] is None else f"{100 * found['explained']:.1f} %"
            lines.append(f"    {what:12} {name:18} {found['error']:.4f} / {found['flat_baseline']:.4f} / "
                         f"{found['mean_baseline']:.4f}  {share}")
    return "\n".join(lines) + "\n"


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1)
