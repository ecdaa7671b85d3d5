"""The grid of a benchmark, methods × protocols × seeds, and its jobs: one directory each, named by what it holds.

    OUT/mmdg-CPS_W-s0-1f2e3d4c5b6a/     a run directory (`run_directory`), and
        job.json                        what the job is and where its data lie on this machine
        job.log                         all that it printed
        job.lock                        held by the process that works on it
        failure.json                    why it last ended early by itself
        evaluation.json                 written last: the job is done

The name ends with the hash of the run's configuration, data and backbone included: a changed setting is another job,
and a job that is done stays done.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec
import torch
import yaml

from mmdg_model.config import ModelConfig
from mmdg_model.training.methods.contract import OptimiserConfig
from mmdg_model.training.methods.registry import has_own_backbone
from mmdg_model.training.protocols import PROTOCOL_1, PROTOCOL_3, SUB_PROTOCOLS, sub_protocol
from mmdg_model.training.run_assembly import Assembly
from mmdg_model.training.run_config import MachineConfig, RunConfig, RunConfigError, from_plain
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.whole_file import write_whole

#: Forward and backward passes of a step, in forwards: plain, and with three backward passes and what comes with them.
_FEWEST_PASSES, _MOST_PASSES = 3, 9
_MATRIX_SIDE = 512


class GridError(ValueError):
    """A grid cannot be planned so; the message quotes the value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class MethodRow:
    """A method, what is set of it, and what its runs change of the grid's `run` (nested plain values)."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GridPart:
    """A part of a benchmark whose runs differ from the others' in more than method, protocol and seed.

    Attributes:
        name: to choose it by. methods: as of a grid. protocols, seeds: the grid's where empty.
        run: changes of the grid's `run`, nested plain values.
    """

    name: str
    methods: tuple[MethodRow, ...]
    protocols: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """A whole benchmark.

    Attributes:
        methods: rows, in the order of the report; empty where there are parts.
        protocols: trainings by name, such as `CPS_W`.
        seeds: each row is trained with each.
        run: what every run changes of `RunConfig`'s defaults, nested plain values; method, settings, protocol and seed
            are the grid's own.
        parts: instead of `methods`; their runs in this order.
        resamples, permutations: of every job's evaluation.
    """

    methods: tuple[MethodRow, ...] = ()
    protocols: tuple[str, ...] = tuple(each.name for each in PROTOCOL_1)
    seeds: tuple[int, ...] = (0,)
    run: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[GridPart, ...] = ()
    resamples: int = 2000
    permutations: int = 2000

    def __post_init__(self) -> None:
        for name in ("protocols", "seeds") if self.parts else ("methods", "protocols", "seeds"):
            if not getattr(self, name):
                raise GridError(f"grid.{name} is empty; name at least one")
        if self.parts and self.methods:
            raise GridError("grid.methods and grid.parts are both set; name methods in the parts")
        names = [part.name for part in self.parts]
        for number, part in enumerate(self.parts):
            if not part.methods:
                raise GridError(f"grid.parts[{number}].methods is empty; name at least one")
            if names.count(part.name) > 1:
                raise GridError(f"grid.parts[{number}].name is {part.name!r}, and another's too; names must differ")
        for name in (*self.protocols, *(name for part in self.parts for name in part.protocols)):
            sub_protocol(name)
        of_parts = ((f"parts[{number}].", part.run) for number, part in enumerate(self.parts))
        rows = (*self.methods, *(row for part in self.parts for row in part.methods))
        for place, run in (("", self.run), *of_parts, *((f"methods.{row.method}.", row.run) for row in rows)):
            for key in ("method", "settings", "protocol", "seed", "data", "backbone"):
                if key in run:
                    raise GridError(f"grid.{place}run.{key} is set, but a grid decides it by itself; name methods, "
                                    "protocols and seeds, and the backbone's file")

    def run_configs(self) -> list[RunConfig]:
        """Every run, data and backbone not yet looked up; part by part, and in each seed by seed, so that what is done
        first is a whole table.

        Raises:
            RunConfigError: a key of `run` that there is not, or a value out of range.
        """
        whole = from_plain(dict(self.run))
        configs = []
        for part in self.parts or (GridPart(name="", methods=self.methods),):
            base = from_plain(dict(part.run), base=whole)
            bases = [from_plain(dict(row.run), base=base) for row in part.methods]
            configs += [from_plain({"method": row.method, "settings": dict(row.settings), "protocol": protocol,
                                    "seed": seed}, base=of_row)
                        for seed in part.seeds or self.seeds for protocol in part.protocols or self.protocols
                        for row, of_row in zip(part.methods, bases, strict=True)]
        return configs

    def only(self, names: Sequence[str]) -> GridConfig:
        """The grid with some of its parts.

        Raises:
            GridError: no part of such a name; lists those there are.
        """
        known = [part.name for part in self.parts]
        if unknown := [name for name in names if name not in known]:
            raise GridError(f"no part {unknown[0]!r}; there are {', '.join(known) or 'none: this grid has no parts'}")
        return dataclasses.replace(self, parts=tuple(part for part in self.parts if part.name in names))


def grid_from_plain(values: object, place: str) -> GridConfig:
    """A grid from YAML's values; a method may be a bare name.

    Raises:
        GridError: an unknown key, a wrong type or value; `place` (the file) is quoted.
    """
    if not isinstance(values, Mapping):
        raise GridError(f"{place}: {values!r}, expected a mapping with methods, protocols, seeds and run")
    known = {each.name for each in dataclasses.fields(GridConfig)}
    if unknown := [key for key in values if key not in known]:
        raise GridError(f"{place}: {unknown[0]!r} is an unknown key; known: {', '.join(sorted(known))}")
    parts = values.get("parts", ())
    spelt = ([_with_rows(part) if isinstance(part, Mapping) else part for part in parts] if isinstance(parts, list)
             else parts)
    for number, part in enumerate(spelt):
        keys = part if isinstance(part, Mapping) else ()
        if unknown := [key for key in keys if key not in {each.name for each in dataclasses.fields(GridPart)}]:
            raise GridError(f"{place}: parts[{number}]: {unknown[0]!r} is an unknown key")
    try:
        return msgspec.convert(_with_rows(values) | {"parts": spelt}, GridConfig)
    except (msgspec.ValidationError, ValueError) as error:
        raise GridError(f"{place}: {error}") from error


def _with_rows(values: Mapping[str, Any]) -> dict[str, Any]:
    """With a bare name of a method as a row."""
    methods = values.get("methods", ())
    if not isinstance(methods, list):
        return dict(values)
    return dict(values) | {"methods": [{"method": row} if isinstance(row, str) else row for row in methods]}


def read_grid(path: Path) -> GridConfig:
    """A grid from a YAML file. Raises `GridError`."""
    try:
        return grid_from_plain(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GridError(f"{path} cannot be read as YAML: {error}") from error


def recipe(name: str) -> GridConfig:
    """A grid that comes with the program, such as `reproduce_small`.

    Raises:
        GridError: no such recipe; lists those there are.
    """
    folder = resources.files("mmdg_model.training") / "recipes"
    known = sorted(each.name.removesuffix(".yaml") for each in folder.iterdir() if each.name.endswith(".yaml"))
    if name not in known:
        raise GridError(f"no recipe {name!r}; there are {', '.join(known)}")
    plain = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    if not {"methods", "parts"} & set(plain):
        raise GridError(f"recipe {name} is one run, not a grid; mmdg train --recipe {name} trains it")
    return grid_from_plain(plain, f"recipe {name}")


def protocol_names(number: int) -> tuple[str, ...]:
    """The trainings of a protocol of the paper; Protocol 2 tests those of Protocol 1.

    Raises:
        GridError: another number.
    """
    by_number = {1: PROTOCOL_1, 2: PROTOCOL_1, 3: PROTOCOL_3}
    if number not in by_number:
        raise GridError(f"protocol {number}; there are 1, 2 and 3, and the trainings {', '.join(SUB_PROTOCOLS)}")
    return tuple(each.name for each in by_number[number])


# ---- jobs ----

class JobState(StrEnum):
    """What a job's directory says of it."""

    NEW = "new"
    STARTED = "started"  # can be gone on with
    FAILED = "failed"  # ended early by itself; tried again when asked to
    DONE = "done"


class JobFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`job.json`."""

    config: dict[str, Any]
    machine: MachineConfig
    resamples: int
    permutations: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of the grid, and where it is.

    Attributes:
        updates: optimiser steps of the whole run.
        simulated: whether its data are.
    """

    config: RunConfig
    directory: RunDirectory
    updates: int
    simulated: bool

    @property
    def name(self) -> str:
        return self.directory.path.name

    @property
    def state(self) -> JobState:
        """As its files say now."""
        return job_state(self.directory)


def job_state(directory: RunDirectory) -> JobState:
    """Of any run directory, a job's or not."""
    if (directory.path / "evaluation.json").is_file():
        return JobState.DONE
    if failure_file(directory).is_file():
        return JobState.FAILED
    return JobState.STARTED if directory.config_file.is_file() else JobState.NEW


def job_file(directory: RunDirectory) -> Path:
    """What the job is."""
    return directory.path / "job.json"


def log_file(directory: RunDirectory) -> Path:
    """All that the job printed, over all its starts."""
    return directory.path / "job.log"


def failure_file(directory: RunDirectory) -> Path:
    """Why the job last ended early by itself."""
    return directory.path / "failure.json"


def failure_of(directory: RunDirectory) -> str:
    """The error's first line, for a table; empty where it did not fail."""
    try:
        return str(json.loads(failure_file(directory).read_text(encoding="utf-8"))["error"]).partition("\n")[0]
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError, OSError) as error:
        return f"{failure_file(directory)} cannot be read ({error})"


def plan(grid: GridConfig, machine: MachineConfig, out: Path, assembly: Assembly) -> list[Job]:
    """The jobs of a grid, in order. Nothing is written; lists are read once for all runs that are given the same.

    Raises:
        RunConfigError, GridError: as the parts; two rows that are one and the same run.
    """
    surveyed: dict[tuple[str, bool], Any] = {}
    jobs: dict[str, Job] = {}
    for config in grid.run_configs():
        alike = dataclasses.replace(config, method="mmdg", settings={}, seed=0, optimiser=OptimiserConfig())
        given = alike.hash, has_own_backbone(config.method)  # methods of the second kind start from no backbone
        if given not in surveyed:
            surveyed[given] = assembly.survey(config, machine)
        found = surveyed[given]
        config = dataclasses.replace(config, data=found.config.data, backbone=found.config.backbone)
        name = f"{config.method}-{config.protocol}-s{config.seed}-{config.hash}"
        if name in jobs:
            raise GridError(f"{name} stands twice in the grid; name each method, protocol and seed once")
        jobs[name] = Job(config=config, directory=RunDirectory(out / name), updates=found.updates,
                         simulated=found.simulated)
    return list(jobs.values())


def shard(jobs: Sequence[Job], which: str) -> list[Job]:
    """Every n-th job: `2/3` is the second of three machines' shares.

    Raises:
        GridError: no such share.
    """
    first, _, parts = which.partition("/")
    if not (first.isdecimal() and parts.isdecimal() and 1 <= int(first) <= int(parts)):
        raise GridError(f"shard {which!r}; expected i/n with i from 1 to n, such as 1/4")
    return list(jobs[int(first) - 1::int(parts)])


def write_job(job: Job, machine: MachineConfig, grid: GridConfig) -> None:
    """Writes `job.json`, so that a process of its own can do the job."""
    values = JobFile(config=json.loads(job.config.to_json()), machine=machine, resamples=grid.resamples,
                     permutations=grid.permutations)
    write_whole(job_file(job.directory), msgspec.json.encode(values, enc_hook=str))


def read_job(directory: RunDirectory) -> tuple[JobFile, RunConfig]:
    """What `write_job` wrote.

    Raises:
        GridError: missing or damaged.
    """
    path = job_file(directory)
    try:
        values = msgspec.json.decode(path.read_bytes(), type=JobFile, dec_hook=lambda kind, value: kind(value))
        return values, from_plain(values.config)
    except (OSError, msgspec.DecodeError, RunConfigError) as error:
        raise GridError(f"{path}: {error}; start the job through mmdg benchmark") from error


class JobLock:
    """Held by the process that works on a job, on whatever machine shares the file system; let go when it ends."""

    def __init__(self, directory: RunDirectory) -> None:
        directory.path.mkdir(parents=True, exist_ok=True)
        self._file = (directory.path / "job.lock").open("w")

    def acquire(self) -> bool:
        """False where another process holds it; this object is then of no more use."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Lets go."""
        self._file.close()


# ---- cost ----

@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """Seconds of one machine with one job at a time; `measured` jobs rest on finished ones of their method, `timed`
    ones on timings of its training step, the others on arithmetic."""

    low_s: float
    high_s: float
    measured: int
    jobs: int
    timed: int = 0


def estimate(jobs: Sequence[Job], timings: Mapping[tuple[str, str], float] | None = None) -> CostEstimate:
    """What is left to do, roughly: finished runs of the same method and size where there are any, else timings of its
    training step, else arithmetic.

    Args:
        timings: seconds of a training step for each of its samples, by (method, preset), as
            `method_costs.step_timings` gives them.

    The arithmetic counts the products of three ViT streams, from plain training (one backward pass) to ReGrad (three),
    at half the speed that this machine's matrix product has just now; decoding and scoring come on top.
    """
    seconds_per_update: dict[tuple[str, str], list[float]] = {}
    for job in jobs:
        if job.directory.finished:
            done = job.directory.read_json(job.directory.done_file)
            if done.get("seconds") and done.get("updates"):
                seconds_per_update.setdefault((job.config.method, job.config.model.preset), []).append(
                    done["seconds"] / done["updates"])
    speed, low, high, measured, timed = 0.0, 0.0, 0.0, 0, 0
    open_jobs = [job for job in jobs if job.state is not JobState.DONE]
    for job in open_jobs:
        if known := seconds_per_update.get((job.config.method, job.config.model.preset)):
            seconds = job.updates * sum(known) / len(known)
            low, high, measured = low + seconds, high + seconds, measured + 1
            continue
        if step := (timings or {}).get((job.config.method, job.config.model.preset)):
            seconds = job.updates * job.config.recipe.batch_size * step
            low, high, timed = low + seconds, high + seconds, timed + 1
            continue
        speed = speed or _matrix_speed() / 2
        forward = forward_operations(job.config.model.resolve()) * job.config.recipe.batch_size * job.updates / speed
        low, high = low + _FEWEST_PASSES * forward, high + _MOST_PASSES * forward
    return CostEstimate(low_s=low, high_s=high, measured=measured, jobs=len(open_jobs), timed=timed)


def forward_operations(model: ModelConfig) -> float:
    """Floating point operations of three ViT streams' matrix products on one sample; the adapters are small beside."""
    tokens, width = model.num_tokens, model.width
    per_token = (8 + 4 * model.mlp_ratio) * width * width + 4 * tokens * width
    return 3.0 * model.depth * tokens * per_token


def _matrix_speed() -> float:
    """Operations a second of a square float32 product on this processor."""
    left, right = torch.randn(_MATRIX_SIDE, _MATRIX_SIDE), torch.randn(_MATRIX_SIDE, _MATRIX_SIDE)
    fastest = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        torch.matmul(left, right)
        fastest = min(fastest, time.perf_counter() - started)
    return 2.0 * _MATRIX_SIDE**3 / fastest
