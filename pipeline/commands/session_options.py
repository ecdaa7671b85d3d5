"""What the commands that judge sessions have in common: checkpoint, policy, progress, and errors that are answers."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

if TYPE_CHECKING:
    from calibration.operating_point_file import OperatingPointFile
    from mmdg_model.operating_point import OperatingPoint
    from pipeline.policy import Policy
    from pipeline.simulated_sessions.scoring import ModelFacts


#: How attack sessions weigh in a calibration, see `calibration.evidence_maps`.
SpeciesWeighting = Annotated[Literal["balanced", "occurrence"], typer.Option(
    "--species-weights", help="balanced: each attack species weighs the same, as rates of the worst species need; "
                              "occurrence: each session does, as in the mixture at hand")]
Progress = Callable[[int, int], None]


@contextmanager
def failing(console: Console) -> Iterator[None]:
    """Prints the errors that are answers, and ends with exit code 1."""
    from calibration.operating_point_file import OperatingPointFileError
    from calibration.score_calibration import CalibrationError
    from capture.camera import CameraError
    from capture.recording import RecordingError
    from detect.faces import DetectorError
    from mmdg_model.operating_point import OperatingPointError
    from mmdg_model.scorer import ScoringError
    from mmdg_model.shipped_weights import ShippedWeightsError
    from pipeline.calibration_sessions import CalibrationSessionsError
    from pipeline.policy import PolicyError
    from pipeline.session_folders import SessionFolderError
    from pipeline.simulated_sessions.film import FilmError
    from pipeline.simulated_trees.domains import SimulationError

    try:
        yield
    except (CalibrationError, CameraError, RecordingError, DetectorError, OperatingPointError,
            OperatingPointFileError, ScoringError, ShippedWeightsError, PolicyError, FilmError, SimulationError,
            CalibrationSessionsError, SessionFolderError, OSError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


@contextmanager
def progress_bar(console: Console, what: str) -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere; yields what is to be called with (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console,
             transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def chosen_model(named: Path | None) -> Path:
    """The named checkpoint, or the shipped weights.

    Raises:
        SimulationError: none is named and none ships.
    """
    from mmdg_model.shipped_weights import shipped_checkpoint
    from pipeline.simulated_trees.domains import SimulationError

    if named is not None:
        return named
    shipped = shipped_checkpoint()
    if shipped is None:
        raise SimulationError("no weights ship with this program; name a checkpoint with --model")
    return shipped[0]


def named_policy(path: Path | None, facts: ModelFacts) -> Policy:
    """The policy of a YAML file, or the one for simulated cameras."""
    from pipeline.policy import SIMULATED_POLICY, PolicyError, parse_policy
    from pipeline.yaml_file import YamlFileError, read_yaml

    policy = SIMULATED_POLICY
    if path is not None:
        try:
            raw = read_yaml(path)
        except YamlFileError as error:
            raise PolicyError(str(error)) from None
        if not isinstance(raw, dict):
            raise PolicyError(f"{path}: expected a mapping of a policy's values, got {type(raw).__name__}")
        policy = parse_policy(raw, str(path))
    if facts.info.purpose not in policy.allowed_purposes:
        raise PolicyError(f"policy {policy.name!r} lets no checkpoint of purpose {facts.info.purpose} decide, only "
                          f"{', '.join(policy.allowed_purposes)}; there would be no decision to judge")
    return policy


def named_calibration(path: Path | None, facts: ModelFacts, policy: Policy, place: str, *,
                      simulated: bool) -> OperatingPointFile | None:
    """The operating-point file, checked against the model, the policy and the sessions. place: of the policy.

    Raises:
        OperatingPointFileError: as `read_operating_point_file`, or fitted to sessions of the other world.
        PolicyError: the policy cannot be served with it.
    """
    from calibration.operating_point_file import OperatingPointFileError, read_operating_point_file

    if path is None:
        return None
    found = read_operating_point_file(path, model_sha256=facts.info.model_hash)
    if found.data != ("simulated" if simulated else "recorded"):
        raise OperatingPointFileError(f"{path}: $.data is {found.data!r}, these sessions are "
                                      f"{'simulated' if simulated else 'recorded'}; calibrate on such sessions")
    policy.check_calibration(found, place)
    return found


def calibration_facts(file: OperatingPointFile | None,
                      point: OperatingPoint | None) -> tuple[str, Literal["checkpoint", "file", "none"]]:
    """Id of what makes logits evidence, 16 hexadecimal digits or `none`, and which of these it is."""
    if file is not None:
        return file.calibration_id, "file"
    return ("none", "none") if point is None else (point.calibration_id, "checkpoint")


def typed() -> str:
    """The command as typed, without the path of the program."""
    return shlex.join(["mmdg", *sys.argv[1:]])
