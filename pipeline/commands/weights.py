"""`mmdg import-weights`, `mmdg models`, `mmdg weights`: weights from elsewhere, and those that are shipped."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

if TYPE_CHECKING:
    from mmdg_model.weights.importing import ImportReport


def register(app: typer.Typer) -> None:
    """Add the commands to `mmdg`."""
    app.command("import-weights")(import_weights_command)
    models = typer.Typer(no_args_is_help=True, help="Official pretrained weights: list and fetch them.")
    models.command("list")(list_command)
    models.command("fetch")(fetch_command)
    app.add_typer(models, name="models")
    weights = typer.Typer(no_args_is_help=True, help="The weights that come with the program: show, verify, make.")
    weights.command("show")(show_command)
    weights.command("ship")(ship_command)
    app.add_typer(weights, name="weights")


def import_weights_command(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="state dict: safetensors, or saved by torch.save")],
    output: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="file to write; never overwritten")],
    layout: Annotated[str, typer.Option(help="auto, torchvision, timm, hugging_face, openai_clip, openai_clip_visual, "
                                             "mmdg or mmdg_plus_plus")] = "auto",
    purpose: Annotated[str | None, typer.Option(help="of a whole MMDG: test (unless stated), simulated or release; you "
                                                     "answer for it. A backbone has none")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="attention heads; one for each 64 channels by "
                                                          "default")] = None,
    depth_encoding: Annotated[str | None, typer.Option(help="what a whole MMDG's depth input is: identity_8bit (unless "
                                                            "stated) or metric_8bit")] = None,
    text_tower: Annotated[bool, typer.Option("--text-tower", help="of a whole CLIP, keep the text tower, too: methods "
                                                                  "that compare with sentences need it")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
) -> None:
    """Import weights of another library, or released ones.

    A pretrained ViT becomes a backbone file, from which training starts; a whole MMDG becomes a checkpoint,
    a whole MMDG++ a file of MMDG++ weights.

    Exit codes: 0 written, 1 refused (nothing is written), 2 wrong usage.
    """
    if output.suffix != ".safetensors":
        raise typer.BadParameter(f"{output}: the name ends in .safetensors", param_hint="OUT.safetensors")
    from mmdg_model.inputs import DepthEncoding
    from mmdg_model.scorer import Purpose

    chosen_purpose = _one_of(purpose, list(Purpose), "--purpose")
    chosen_encoding = _one_of(depth_encoding, list(DepthEncoding), "--depth-encoding")
    try:
        from mmdg_model.weights.importing import import_weights
        from mmdg_model.weights.layout import WeightImportError
    except ModuleNotFoundError as error:
        _fail(f"weights need PyTorch and safetensors (no module {error.name}): pip install 'mmdg-live[engine]'")
    try:
        report = import_weights(source, output, layout=layout, heads=heads, text_tower=text_tower,
                                purpose=Purpose(chosen_purpose) if chosen_purpose else None,
                                depth_encoding=DepthEncoding(chosen_encoding) if chosen_encoding else None)
    except (WeightImportError, OSError) as error:
        _fail(str(error))
    if as_json:
        sys.stdout.write(json.dumps({"output": str(output), **asdict(report)}) + "\n")
    else:
        sys.stdout.write(_described(output, report))


def list_command(as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False) -> None:
    """Official weights that can be fetched, how they are checked, and which are here already."""
    from mmdg_model.weights.official import OFFICIAL, fetched_file, weights_directory

    for weights in OFFICIAL.values():
        path = fetched_file(weights, weights_directory())
        if as_json:
            sys.stdout.write(json.dumps({**asdict(weights), "check": weights.check,
                                         "path": str(path) if path else None}) + "\n")
        else:
            sys.stdout.write(f"{weights.name}: {weights.title}\n  here   {path or 'no'}\n  url    {weights.url}\n"
                             f"  check  {weights.check}\n  terms  {weights.terms}\n")


def fetch_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="see mmdg models list")],
    directory: Annotated[Path | None, typer.Option(help="default: weights in the asset directory")] = None,
) -> None:
    """Download official weights and check them. The path is printed.

    Exit codes: 0 they are there, 1 they are not: standard error says what to do without a network.
    """
    from rich.progress import Progress

    from mmdg_model.weights.official import FetchError, fetch, official_weights, weights_directory

    console = Console(stderr=True)
    try:
        weights = official_weights(name)
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(weights.file_name, total=None)
            path = fetch(weights, directory or weights_directory(),
                         on_progress=lambda done, total: progress.update(task, completed=done, total=total or None))
    except FetchError as error:
        _fail(str(error))
    console.print(f"checked: {weights.check}\nnext: mmdg import-weights {path} OUT.safetensors --layout "
                  f"{weights.layout}", highlight=False, soft_wrap=True)
    sys.stdout.write(f"{path}\n")


def show_command(as_json: Annotated[bool, typer.Option("--json", help="print the manifest instead")] = False) -> None:
    """Print the model card of the weights that run where none are named, after verifying the file.

    Exit codes: 0 shown, 1 there are none, or not these.
    """
    from mmdg_model.shipped_weights import CARD_NAME, MANIFEST_NAME, SHIPPED_DIRECTORY, ShippedWeightsError, verify

    try:
        verify()
        name = MANIFEST_NAME if as_json else CARD_NAME
        sys.stdout.write((SHIPPED_DIRECTORY / name).read_text(encoding="utf-8"))
    except (ShippedWeightsError, OSError) as error:
        _fail(str(error))


def ship_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="directory of a run trained to its end on simulated data")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder of weights, manifest and card; those there are "
                                                          "replaced")],
    operating_point: Annotated[Path | None, typer.Option(metavar="FILE.json", help="from calibration on validation "
                                                                                   "sessions")] = None,
    specification: Annotated[Path | None, typer.Option(metavar="FILE", help="difficulty specification of the "
                                                                            "simulator; its hash is noted")] = None,
    evaluation: Annotated[Path | None, typer.Option(metavar="FILE.json", help="figures of these weights for the "
                                                                              "card")] = None,
    epoch: Annotated[int | None, typer.Option(min=0, help="from 0; the last that is kept by default")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the manifest as one JSON line")] = False,
) -> None:
    """Write a run as weights to ship: float16, at most 16 MB, verified as reloaded, with manifest and model card.

    Example: mmdg weights ship out/default_run --operating-point operating_point.json --out mmdg_model/shipped. The same
    run and operating point give the same file. Exit codes: 0 written, 1 it cannot be, 2 wrong usage.
    """
    import msgspec

    try:
        from mmdg_model.operating_point import read_operating_point
        from mmdg_model.scorer import KnownAnswerError
        from mmdg_model.training.run_directory import RunDirectory
        from mmdg_model.training.shipping import ship
    except ModuleNotFoundError as error:
        _fail(f"weights need PyTorch and safetensors (no module {error.name}): pip install 'mmdg-live[engine,train]'")
    try:
        manifest = ship(RunDirectory(run), out, specification=specification, evaluation=evaluation, epoch=epoch,
                        operating_point=read_operating_point(operating_point) if operating_point else None)
    except (ValueError, OSError, KnownAnswerError) as error:
        _fail(str(error))
    if as_json:
        sys.stdout.write(msgspec.json.encode(manifest).decode() + "\n")
    else:
        calibrated = "calibrated" if manifest.operating_point else "not calibrated yet"
        sys.stdout.write(f"{out}: {manifest.bytes / 1e6:.2f} MB, purpose {manifest.purpose}, {calibrated}, SHA-256 "
                         f"{manifest.sha256}\n")


def _one_of(value: str | None, allowed: list[str], option: str) -> str | None:
    if value is not None and value not in allowed:
        raise typer.BadParameter(f"{value!r}, expected one of {', '.join(allowed)}", param_hint=option)
    return value


def _described(output: Path, report: ImportReport) -> str:
    kind = {"backbone": "backbone to train from; it decides nothing",
            "checkpoint": f"checkpoint of purpose {report.purpose}",
            "mmdg_plus_plus": f"MMDG++ weights of purpose {report.purpose}; no scorer takes them"}[report.result]
    shape = ", ".join(f"{key} {report.config[key]}" for key in ("width", "heads", "depth", "patch_size", "image_size",
                                                                "layer_norm_eps", "activation", "embedding_norm"))
    left_out: dict[str, int] = {}
    for what in report.left_out.values():
        left_out[what] = left_out.get(what, 0) + 1
    return (f"{output}: {kind}\n  layout    {report.layout}\n  shape     {shape}\n"
            f"  left out  {', '.join(f'{what} ({count} tensors)' for what, count in left_out.items()) or 'nothing'}\n"
            f"  source    SHA-256 {report.source_sha256}\n  written   SHA-256 {report.output_sha256}\n")


def _fail(message: str) -> NoReturn:
    Console(stderr=True).print(f"error: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1)
