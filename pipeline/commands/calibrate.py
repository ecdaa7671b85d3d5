"""`mmdg calibrate score`: from logits to evidence, by camera kind and subset of modalities."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipeline.commands.session_options import SpeciesWeighting

if TYPE_CHECKING:
    from pipeline.calibrating_scores import ScoreCalibration

calibrate = typer.Typer(no_args_is_help=True, help="Measure what scores are worth as evidence.")


@calibrate.callback()
def _group() -> None:
    """Keeps `mmdg calibrate NAME` a group of commands, however few are registered."""


@calibrate.command("score")
def score(
    sessions: Annotated[list[Path], typer.Argument(metavar="SESSIONS...", help="folders of mmdg simulate films or "
                                                   "mmdg simulate session, or of labelled recordings; split val")],
    model: Annotated[Path | None, typer.Option("--model", help="checkpoint, or folder of mmdg export; the shipped "
                                                               "weights by default")] = None,
    out: Annotated[Path, typer.Option("--out", help="operating-point file to write")] = Path("operating_points.json"),
    plots: Annotated[Path | None, typer.Option("--plots", help="folder for a picture of each map")] = None,
    camera_kind: Annotated[list[str] | None, typer.Option("--camera-kind", help="fit this kind alone; may be "
                                                                                "repeated")] = None,
    fewest: Annotated[int, typer.Option("--min-sessions", min=2, help="sessions of each class that a camera kind must "
                                                                      "have")] = 10,
    species_weights: SpeciesWeighting = "balanced",
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="processes; one a core by default")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the file as one JSON line")] = False,
) -> None:
    """Fit log-likelihood-ratio maps by camera kind and subset of modalities, and write them with their provenance.

    Every session is scored as RGB-D-IR, RGB-IR, RGB-D and RGB. A subset without a map is no evidence at run time:
    mmdg-live --calibration FILE. Run it again to go on after an interruption.

    Exit codes: 0 written, 1 not possible (the reason is printed), 2 wrong usage.
    """
    import json

    from calibration.operating_point_file import canonical_bytes, file_bytes
    from mmdg_model.shipped_weights import shipped_checkpoint
    from mmdg_model.whole_file import write_whole
    from pipeline.calibrating_scores import calibrate_scores, score_folders
    from pipeline.calibration_sessions import read_labelled_folder
    from pipeline.simulated_sessions.scoring import model_facts

    console, jobs = Console(stderr=True), jobs or os.cpu_count() or 1
    with _failing(console):
        folders = [read_labelled_folder(folder) for folder in sessions]
        if model is None:
            shipped = shipped_checkpoint()
            if shipped is None:
                raise typer.BadParameter("no weights ship with this program; name a checkpoint", param_hint="--model")
            model = shipped[0]
        facts = model_facts(model)
        with _bar(console) as show:
            scored = score_folders(folders, model, facts, jobs=jobs, on_progress=show)
        found = calibrate_scores(scored, folders, facts, command=shlex.join(["mmdg", *sys.argv[1:]]),
                                 created=datetime.now(UTC).date().isoformat(), fewest=fewest,
                                 camera_kinds=camera_kind or (), species_weights=species_weights)
        write_whole(out, file_bytes(found.file))
        if plots is not None:
            from pipeline.calibration_plots import draw_calibration

            draw_calibration(found, plots)
    if as_json:
        document = json.loads(canonical_bytes(json.loads(file_bytes(found.file))))
        sys.stdout.write(json.dumps({"calibration_id": found.file.calibration_id, "file": str(out), **document,
                                     "without_map": [{"camera_kind": kind, "modalities": subset, "reason": why}
                                                     for (kind, subset), why in found.without_map.items()]}) + "\n")
        return
    sys.stdout.write(describe(found, out))


def describe(found: ScoreCalibration, out: Path) -> str:
    """The maps as a table of text, and what got none."""
    file = found.file
    lines = [(f"{out}: calibration {file.calibration_id} of model {file.model.sha256[:12]} ({file.model.purpose}), on "
             f"{file.sessions.total} {file.data} sessions ({file.sessions.unscored} without a score), "
              f"species weights: {file.species_weights}"),
             (f"{'camera kind':26} {'modalities':18} {'scale':>7} {'offset':>7} {'clip':>5} {'ρ':>5} {'(95 %)':>12} "
              f"{'lasts':>5} {'(95 %)':>12} "
             f"{'Cllr raw':>8} {'cal.':>6} {'held out':>8} {'least':>6} {'sessions':>9}")]
    for one in file.maps:
        held = "-" if one.cllr_held_out is None else f"{one.cllr_held_out:.3f}"
        interval = f"{one.frame_correlation_low:.2f}-{one.frame_correlation_high:.2f}"
        lines.append(f"{one.camera_kind:26} {'+'.join(one.modalities):18} {one.scale:7.3f} {one.offset:7.3f} "
                     f"{one.frame_llr_clip:5.2f} {one.frame_correlation:5.2f} {interval:>12} {one.lasting_share:5.2f} "
                     f"{f'{one.lasting_share_low:.2f}-{one.lasting_share_high:.2f}':>12} {one.cllr_raw:8.3f} "
                     f"{one.cllr:6.3f} {held:>8} {one.cllr_min:6.3f} "
                     f"{f'{one.sessions_bona_fide}+{one.sessions_attack}':>9}")
    lines += [f"no map: {kind} {'+'.join(subset)}: {why}" for (kind, subset), why in found.without_map.items()]
    return "\n".join(lines) + "\n"


@contextmanager
def _failing(console: Console) -> Iterator[None]:
    """Prints the errors that are answers, and ends with exit code 1."""
    from calibration.likelihood_ratio_cost import LikelihoodRatioError
    from calibration.operating_point_file import OperatingPointFileError
    from calibration.score_calibration import CalibrationError
    from detect.faces import DetectorError
    from mmdg_model.scorer import ScoringError
    from mmdg_model.shipped_weights import ShippedWeightsError
    from pipeline.calibration_sessions import CalibrationSessionsError
    from pipeline.simulated_sessions.film import FilmError
    from pipeline.simulated_trees.domains import SimulationError

    try:
        yield
    except (CalibrationError, CalibrationSessionsError, OperatingPointFileError, LikelihoodRatioError, DetectorError,
            ScoringError, ShippedWeightsError, FilmError, SimulationError, OSError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


@contextmanager
def _bar(console: Console) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("sessions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
             transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("sessions", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def register(app: typer.Typer) -> None:
    """Add the group to `mmdg`."""
    app.add_typer(calibrate, name="calibrate")
