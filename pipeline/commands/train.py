"""`mmdg train`: one training run of the benchmark, resumable; `mmdg train export`: an epoch of it for live scoring."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from pipeline.commands.durations import seconds

if TYPE_CHECKING:
    from mmdg_model.training.compute import Compute
    from mmdg_model.training.run_config import MachineConfig, RunConfig
    from mmdg_model.training.run_data import RunData

_EXAMPLE = """mmdg train --method mmdg --protocol CPS_W --backbone vit_b_16.safetensors --data /data/fas --lists lists --out runs/cps_w

mmdg train --preset micro --set recipe.epochs=10 --set optimiser.learning_rate=3e-4 --data tree --lists tree/lists --out runs/small

torchrun --nnodes 2 --nproc-per-node 4 --no-python mmdg train --config run.yaml ..."""  # noqa: E501

#: Ended by Ctrl-C or a cluster's SIGTERM, saved: not a failure, but not done.
INTERRUPTED_EXIT_CODE = 130


def register(app: typer.Typer) -> None:
    train = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
    train.callback(epilog=f"Examples:\n\n{_EXAMPLE}")(train_command)
    train.command("export")(export_command)
    app.add_typer(train, name="train")


def train_command(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(metavar="ROOT", help="data root, as for mmdg data verify")] = None,
    lists: Annotated[Path | None, typer.Option(metavar="DIR", help="folder of the lists")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="directory of the run: new, or of the same run, "
                                                                 "which goes on")] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE.yaml", help="run configuration; what it does not name "
                                                                          "has its default")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="a configuration that comes with the program, such "
                                                                    "as default_weights; instead of --config")] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="one value of the "
                       "configuration, such as recipe.epochs=20; after --config; may be repeated")] = None,
    method: Annotated[str | None, typer.Option(help="name of a training method; an unknown one lists them")] = None,
    protocol: Annotated[str | None, typer.Option(help="such as CPS_W: train on C, P, S, test on W")] = None,
    preset: Annotated[str | None, typer.Option(help="size of the network: base (paper), tiny, micro")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="of weights, order and augmentation")] = None,
    precision: Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed")] = None,
    metadata: Annotated[Path | None, typer.Option(metavar="FILE", help="CSV of subjects and attacks")] = None,
    backbone: Annotated[Path | None, typer.Option(metavar="FILE", help="pretrained weights (mmdg import-weights); "
                                                                       "without, all weights train from random "
                                                                       "ones")] = None,
    start: Annotated[Path | None, typer.Option(metavar="FILE", help="checkpoint of the same network to go on from, on "
                                                                    "these samples by this recipe")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
    devices: Annotated[int, typer.Option(min=1, help="processes on each machine, one a GPU; torchrun says it "
                                                     "itself")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="machines; torchrun says it itself")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="loader processes of each process")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="of torch, in each process; 0: its own choice")] = 0,
    cache_mib: Annotated[int, typer.Option(min=0, help="memory for decoded samples, in each process; 0: decode each "
                                                       "time")] = 0,
    save_every_s: Annotated[float, typer.Option(min=0, help="seconds between saves of what a killed run goes on "
                                                            "from")] = 300.0,
    time_limit: Annotated[str | None, typer.Option(metavar="9m", help="save and end after so long; the same command "
                                                                      "goes on")] = None,
    deterministic: Annotated[bool, typer.Option(help="on a GPU, only kernels that repeat bit for bit")] = True,
    tensorboard: Annotated[bool, typer.Option(help="also write TensorBoard's scalars")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line at the end")] = False,
) -> None:
    """Train one method on one protocol. The same command goes on with a run that was stopped or killed.

    Exit codes: 0 trained to the end (now or before), or saved at --time-limit (it says which), 1 it cannot go on (the
    message says why: data, directory, divergence), 2 wrong usage, 130 stopped by Ctrl-C or SIGTERM (once: saved).
    """
    if context.invoked_subcommand is not None:
        return
    for value, name in ((data, "--data"), (lists, "--lists"), (out, "--out")):
        if value is None:
            raise typer.BadParameter("is missing", param_hint=name)
    assert data is not None
    assert lists is not None
    assert out is not None
    for folder, name in ((data, "--data"), (lists, "--lists")):
        if not folder.is_dir():
            raise typer.BadParameter(f"{folder} is no folder", param_hint=name)
    console = Console(stderr=True)
    try:
        from mmdg_model.training.assemble import run_training
    except ImportError as error:
        _fail(console, error)
    from mmdg_model.training.fabric_compute import is_first_process
    from mmdg_model.training.progress import ConsoleReporter, Silent
    from mmdg_model.training.run_config import MachineConfig, RunConfigError
    from mmdg_model.training.run_directory import RunDirectory
    from mmdg_model.training.stop_signals import stop_on_signals
    from mmdg_model.training.trainer import Outcome

    named = {"method": method, "protocol": protocol, "seed": seed, "precision": precision}
    try:
        values = {key: value for key, value in named.items() if value is not None}
        chosen = configured(config, changes or [], values, preset, recipe)
        machine = MachineConfig(root=data, lists=lists, metadata=metadata, backbone=backbone, start=start,
                                accelerator=accelerator, devices=devices, nodes=nodes, workers=workers,
                                threads=threads, cache_mib=cache_mib, save_every_s=save_every_s,
                                deterministic=deterministic, tensorboard=tensorboard)
    except (RunConfigError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    directory = RunDirectory(out)
    limit_s = seconds(time_limit, "--time-limit") if time_limit else float("inf")
    ends_s, signalled = time.monotonic() + limit_s, False
    try:
        with ConsoleReporter(console) as console_reporter:
            reporter = console_reporter if is_first_process() else Silent()
            with stop_on_signals(reporter.note) as stopped:
                outcome = run_training(
                    directory, chosen, machine, reporter=reporter,
                    stop=lambda: stopped() or time.monotonic() >= ends_s,
                    on_start=lambda config, data, compute: reporter.note(summary(config, data, compute, machine)))
                signalled = stopped()
    # Everything that a run's data, directory, backbone or machine can be wrong in, each with its remedy.
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        _fail(console, error)
    if is_first_process():
        _print_outcome(str(outcome), directory, as_json)
    if outcome is Outcome.INTERRUPTED and not signalled:
        if is_first_process():
            console.print(f"saved at the time limit of {time_limit}; run the same command again to go on",
                          highlight=False)
        return
    if outcome is Outcome.INTERRUPTED:
        raise typer.Exit(INTERRUPTED_EXIT_CODE)


def configured(file: Path | None, changes: list[str], named: Mapping[str, Any], preset: str | None,
               recipe: str | None = None) -> RunConfig:
    """The run's configuration: defaults, then the file or recipe, then `--set`, then options of their own.

    Raises:
        RunConfigError: with the place of what is wrong.
    """
    import yaml

    from mmdg_model.training.run_config import RunConfigError, from_plain

    values: dict[str, Any] = {}
    if recipe is not None:
        from mmdg_model.training.shipping import recipe_text

        if file is not None:
            raise RunConfigError(f"--recipe {recipe} and --config {file}: name one of them")
        values = _with_numbers(yaml.safe_load(recipe_text(recipe)))
    if file is not None:
        try:
            read = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunConfigError(f"{file}: no readable YAML ({error})") from error
        if not isinstance(read, dict | None):
            raise RunConfigError(f"{file}: {read!r}, expected a mapping such as 'protocol: CPS_W'")
        values = _with_numbers(read or {})
    for change in changes:
        key, separator, text = change.partition("=")
        if not separator or not key:
            raise RunConfigError(f"--set {change!r}: expected KEY=VALUE, such as recipe.epochs=20")
        _put(values, key.split("."), _parsed(text, change), change)
    values |= named
    if preset is not None:
        _put(values, ["model", "preset"], preset, f"--preset {preset}")
    config = from_plain(values)
    config.model.resolve()
    return config


def _parsed(text: str, change: str) -> Any:
    import yaml

    from mmdg_model.training.run_config import RunConfigError
    try:
        return _with_numbers(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise RunConfigError(f"--set {change!r}: the value is no YAML ({error})") from error


def _with_numbers(value: Any) -> Any:
    """YAML 1.1 takes 3e-4 for a text, because it has no point; nobody else does."""
    if isinstance(value, dict):
        return {key: _with_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_numbers(inner) for inner in value]
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value) else value


def _put(values: dict[str, Any], keys: list[str], value: Any, place: str) -> None:
    from mmdg_model.training.run_config import RunConfigError
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise RunConfigError(f"--set {place!r}: {key} is {values!r} already, not a mapping")
    values[keys[-1]] = value


def summary(config: RunConfig, data: RunData, compute: Compute, machine: MachineConfig) -> str:
    """What is about to be trained, in a few lines."""
    recipe, model = config.recipe, config.model.resolve()
    updates = recipe.epochs * data.updates_per_epoch
    if recipe.max_updates:
        updates = min(updates, recipe.max_updates)
    lines = [
        f"run        {config.hash}: {config.method} on {config.protocol}, seed {config.seed}",
        (f"network    {config.model.preset}: {model.image_size} pixels, width {model.width}, depth {model.depth}; "
         + (f"backbone {config.backbone[:12]}" if config.backbone
            else f"goes on from checkpoint {config.start[:12]}" if config.start else "random weights, no backbone")),
        (f"data       {'SIMULATED ' if data.simulated else ''}{machine.root}: sources "
         f"{', '.join(data.classes.sources)}, {data.updates_per_epoch} updates an epoch, fingerprint "
         f"{data.fingerprint[:12]}"),
        (f"recipe     {updates} updates of {recipe.batch_size} samples, {config.optimiser.name} at "
         f"{config.optimiser.learning_rate:g}, {config.precision}"),
        f"machine    {compute.world_size} process(es), {compute.device}, {machine.workers} loader workers each",
    ]
    if dict(config.settings):
        lines.insert(1, f"settings   {json.dumps(dict(config.settings), sort_keys=True)}")
    return "\n".join(lines)


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="directory of a run")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="checkpoint to write")],
    epoch: Annotated[int | None, typer.Option(min=0, help="from 0; the last that is kept by default")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON line")] = False,
) -> None:
    """Write an epoch of a run as a checkpoint for live scoring, with purpose, provenance and a known answer.

    Example: mmdg train export runs/cps_w --epoch 12 --out cps_w.safetensors. Which epoch deserves it is the honest
    column of mmdg evaluate. Exit codes: 0 written, 1 it cannot be, 2 wrong usage.
    """
    console = Console(stderr=True)
    try:
        from mmdg_model.checkpoint import save_checkpoint
        from mmdg_model.training.epoch_export import export_epoch
        from mmdg_model.training.run_directory import RunDirectory, RunDirectoryError

        directory = RunDirectory(run)
        if epoch is None:
            if not directory.epochs():
                raise RunDirectoryError(f"{run} keeps no epoch; train it first")
            epoch = directory.epochs()[-1]
        checkpoint = export_epoch(directory, epoch)
        written = dataclasses.replace(checkpoint, hash=save_checkpoint(checkpoint, out))
    except (ValueError, ImportError, OSError) as error:
        _fail(console, error)
    if as_json:
        sys.stdout.write(json.dumps({"file": str(out), "sha256": written.hash, "epoch": epoch,
                                     "purpose": str(written.purpose)}) + "\n")
    else:
        sys.stdout.write(f"{out}: epoch {epoch}, purpose {written.purpose}, SHA-256 {written.hash}\n")


def _print_outcome(outcome: str, directory: Any, as_json: bool) -> None:
    about: dict[str, Any] = {"run": str(directory.path), "outcome": outcome}
    if directory.finished:
        about |= directory.read_json(directory.done_file) | {"epochs_kept": directory.epochs()}
    if as_json:
        sys.stdout.write(json.dumps(about) + "\n")
    elif directory.finished:
        sys.stdout.write(f"{directory.path}: {outcome}; {about['updates']} updates, {len(about['epochs_kept'])} epochs "
                         f"kept\n")
    else:
        sys.stdout.write(f"{directory.path}: {outcome}\n")


def _fail(console: Console, error: Exception) -> NoReturn:
    console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1) from error
