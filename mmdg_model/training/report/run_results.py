"""Evaluated runs on disk, sorted into rows: a row is one configuration over its protocols and seeds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration.error_rates import Unit
from mmdg_model.training.benchmark_grid import JobState, failure_of, job_state
from mmdg_model.training.evaluation import Column, Measures
from mmdg_model.training.protocols import SUB_PROTOCOLS, Scenario
from mmdg_model.training.run_config import RunConfig
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.run_evaluation import RunEvaluation, backbone_words, read_evaluation

#: Methods from the plainest to the fullest, as tables list them; others follow by name.
LADDER = ("vit_early", "vit_late", "vit_late_regrad", "u_adapter", "u_adapter_ssp", "mmdg_without_certainty",
          "mmdg_certainty_in_regrad_only", "mmdg_certainty_in_adapter_only", "mmdg_conflicted_only",
          "mmdg_unconflicted_only", "mmdg")


class ReportError(ValueError):
    """The runs cannot be reported together; the message names them and the remedy."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResult:
    """One evaluated run."""

    directory: RunDirectory
    config: RunConfig
    evaluation: RunEvaluation

    def measures(self, column: Column, unit: Unit, scenario: Scenario = Scenario.COMPLETE) -> Measures | None:
        """None where the scenario was not evaluated."""
        levels = self.evaluation.levels.get(scenario)
        return levels[unit].columns[column] if levels else None


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportRow:
    """Runs that differ in protocol and seed alone.

    Attributes:
        label: unique among the rows.
        method: registered name.
        key: hash of what they share.
        runs: by (protocol, seed).
    """

    label: str
    method: str
    key: str
    runs: dict[tuple[str, int], RunResult]

    def seeds(self, protocol: str) -> list[int]:
        """Of the runs on a protocol, ascending."""
        return sorted(seed for name, seed in self.runs if name == protocol)

    @property
    def config(self) -> RunConfig:
        """Of the first run."""
        return next(iter(self.runs.values())).config

    @property
    def simulated(self) -> bool:
        """Whether any run of it is on simulated data."""
        return any(run.evaluation.simulated for run in self.runs.values())

    @property
    def start(self) -> str:
        """What the weights started from."""
        return backbone_words(self.config.backbone)


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """A run directory without an evaluation, and why."""

    name: str
    why: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Collection:
    """All that was found: rows in the order of `LADDER`, and what is not done."""

    rows: tuple[ReportRow, ...]
    unfinished: tuple[Unfinished, ...]

    @property
    def simulated(self) -> bool:
        """Whether any run is on simulated data."""
        return any(row.simulated for row in self.rows)

    @property
    def protocols(self) -> list[str]:
        """Of all runs, each once, in the paper's order; then those that are not the paper's."""
        met = {protocol for row in self.rows for protocol, _ in row.runs}
        return [*(name for name in SUB_PROTOCOLS if name in met), *sorted(met - set(SUB_PROTOCOLS))]


def collect(paths: Sequence[Path]) -> Collection:
    """Reads runs.

    Args:
        paths: run directories, or folders of them.

    Raises:
        ReportError: none was evaluated, or two runs are one row's of the same protocol and seed.
        RunDirectoryError, RunConfigError: a damaged run.
    """
    runs, unfinished = [], []
    for directory in _directories(paths):
        state = job_state(directory)
        if state is JobState.DONE:
            runs.append(RunResult(directory=directory, config=directory.config(),
                                  evaluation=read_evaluation(directory)))
        else:
            why = {JobState.NEW: "not begun", JobState.STARTED: "trained, not evaluated" if directory.finished else
                   "training not finished", JobState.FAILED: f"failed: {failure_of(directory)}"}[state]
            unfinished.append(Unfinished(name=directory.path.name, why=why))
    if not runs:
        raise ReportError(f"no evaluated run in {', '.join(map(str, paths))}"
                          + (f" ({len(unfinished)} not finished)" if unfinished else "")
                          + "; evaluate runs first: mmdg evaluate RUN")
    return Collection(rows=tuple(_rows(runs)), unfinished=tuple(unfinished))


def _directories(paths: Iterable[Path]) -> Iterable[RunDirectory]:
    found: dict[Path, RunDirectory] = {}
    for path in paths:
        if not path.is_dir():
            raise ReportError(f"{path} is no folder; name run directories or folders of them")
        inside = [path] if _is_run(path) else sorted(each for each in path.iterdir() if each.is_dir() and _is_run(each))
        found |= {each.resolve(): RunDirectory(each) for each in inside}
    return found.values()


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file() or (path / "job.json").is_file()


def row_key(config: RunConfig) -> str:
    """Hash of all that runs of one row share: everything but protocol, seed, and the lists that protocols read."""
    return dataclasses.replace(config, protocol="CPS_W", seed=0, data="").hash


def _rows(runs: Sequence[RunResult]) -> list[ReportRow]:
    groups: dict[str, list[RunResult]] = {}
    for run in runs:
        groups.setdefault(row_key(run.config), []).append(run)
    methods = [group[0].config.method for group in groups.values()]
    rows = []
    for (key, group), method in zip(groups.items(), methods, strict=True):
        placed: dict[tuple[str, int], RunResult] = {}
        for run in sorted(group, key=lambda one: (one.config.seed, one.config.protocol)):
            place = run.config.protocol, run.config.seed
            if place in placed:
                raise ReportError(f"{placed[place].directory.path} and {run.directory.path} are both {method}, "
                                  f"{place[0]}, seed {place[1]}, of one configuration on two data trees; report them "
                                  "apart")
            placed[place] = run
        label = method if methods.count(method) == 1 else f"{method} ({_told_apart(group[0].config, key)})"
        rows.append(ReportRow(label=label, method=method, key=key, runs=placed))
    labels = [row.label for row in rows]
    rows.sort(key=lambda row: (LADDER.index(row.method) if row.method in LADDER else len(LADDER), row.method))
    return [row if labels.count(row.label) == 1 else dataclasses.replace(row, label=f"{row.method} ({row.key[:6]})")
            for row in rows]


def _told_apart(config: RunConfig, key: str) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in sorted(config.settings.items()))
    return settings or f"preset {config.model.preset}, {hashlib.sha256(json.dumps(key).encode()).hexdigest()[:6]}"
