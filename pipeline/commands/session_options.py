"""What the commands that judge sessions have in common: checkpoint, policy, progress, and errors that are answers."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

if TYPE_CHECKING:
    from mmdg_model.operating_point import OperatingPoint
    from pipeline.policy import Policy
    from pipeline.simulated_sessions.scoring import ModelFacts

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
    from pipeline.policy import PolicyError
    from pipeline.simulated_sessions.film import FilmError
    from pipeline.simulated_trees.domains import SimulationError

    try:
        yield
    except (CalibrationError, CameraError, RecordingError, DetectorError, OperatingPointError,
            OperatingPointFileError, ScoringError, ShippedWeightsError, PolicyError, FilmError, SimulationError,
            OSError) as error:
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


def point_hash(point: OperatingPoint | None) -> str:
    """SHA-256 of an operating point's canonical JSON; empty without one."""
    return "" if point is None else hashlib.sha256(json.dumps(point.to_dict(), sort_keys=True).encode()).hexdigest()


def typed() -> str:
    """The command as typed, without the path of the program."""
    return shlex.join(["mmdg", *sys.argv[1:]])
