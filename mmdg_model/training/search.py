"""A small search of hyper-parameters whose criterion is source validation alone: no target is read, nor could be.

A space is YAML:

    method: mmdg
    protocols: [CPS_W, PSW_C]        # trained on each; the criterion is the mean
    seeds: [0]
    trials: 8                        # drawn at random; without it, every combination
    run: {model: {preset: micro}}    # as in a grid
    space:
      optimiser.learning_rate: {log_uniform: [1.0e-5, 1.0e-3]}
      optimiser.weight_decay: [0.001, 0.05]
      settings.ssp_weight: {uniform: [0.0, 1.0]}

A trial is one set of values; each of its runs is a run directory, trained but never scored on a target. The criterion
of a run is the least HTER by video at the equal error point of its pooled source validation over its kept epochs: what
`evaluation.honest_choice` ranks by. A trial is judged when all its runs are trained; killed ones go on.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from calibration.error_rates import Unit, auc, equal_error_point, roc
from mmdg_model.training.benchmark_grid import JobLock
from mmdg_model.training.evaluation import honest_choice
from mmdg_model.training.method_recipes import MethodRecipe, to_yaml
from mmdg_model.training.methods.registry import entry, resolve_settings
from mmdg_model.training.protocols import sub_protocol
from mmdg_model.training.run_assembly import Assembly
from mmdg_model.training.run_config import MachineConfig, RunConfig, from_plain
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.run_evaluation import read_tables
from mmdg_model.training.scores import Split
from mmdg_model.whole_file import write_whole

_MOST_COMBINATIONS = 1000
_RANGES = ("uniform", "log_uniform")


class SearchError(ValueError):
    """A space cannot be searched so; the message quotes the key, the value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What is searched.

    Attributes:
        method: of the registry. protocols, seeds: each trial is trained on all of them.
        trials: drawn at random; 0 tries every combination, which then must be of lists alone.
        draw_seed: of the random trials.
        run: what every run changes of the defaults, nested plain values.
        space: by dotted place in a run's configuration, such as `optimiser.learning_rate`: a list of values, or
            `{uniform: [low, high]}`, or `{log_uniform: [low, high]}`.

    Raises:
        SearchError, MethodError, ProtocolError: a value out of range.
    """

    method: str
    space: Mapping[str, Any]
    protocols: tuple[str, ...] = ("CPS_W",)
    seeds: tuple[int, ...] = (0,)
    trials: int = 0
    draw_seed: int = 0
    run: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        entry(self.method)
        if not self.space or not self.protocols or not self.seeds:
            raise SearchError("space, protocols and seeds must each name something")
        for name in self.protocols:
            sub_protocol(name)
        for place, values in self.space.items():
            if isinstance(values, Mapping):
                _checked_range(place, values)
                if not self.trials:
                    raise SearchError(f"space.{place} is a range; say how many trials to draw (trials: 8)")
            elif not isinstance(values, list) or not values:
                raise SearchError(f"space.{place} is {values!r}, expected a list of values, or {' or '.join(_RANGES)} "
                                  "with [low, high]")
        if self.trials < 0 or (not self.trials and self.combinations > _MOST_COMBINATIONS):
            raise SearchError(f"{self.combinations} combinations, trials {self.trials}; draw some of them (trials: 20)")

    @property
    def combinations(self) -> int:
        """Of its lists."""
        return math.prod(len(values) for values in self.space.values() if isinstance(values, list))

    def draws(self) -> list[dict[str, Any]]:
        """The trials' values by place, in order; the same for the same space."""
        if not self.trials:
            return [dict(zip(self.space, values, strict=True)) for values in itertools.product(*self.space.values())]
        generator = np.random.default_rng(self.draw_seed)
        drawn = []
        for _ in range(self.trials):
            values = {place: _draw(generator, of_place) for place, of_place in self.space.items()}
            if values not in drawn:
                drawn.append(values)
        return drawn

    def config(self, values: Mapping[str, Any], protocol: str, seed: int) -> RunConfig:
        """Of one run of a trial.

        Raises:
            RunConfigError, MethodError: a place that there is not, or a value out of range.
        """
        base = from_plain(dict(self.run))
        plain: dict[str, Any] = {"method": self.method, "protocol": protocol, "seed": seed}
        settings = dict(base.settings)
        for place, value in values.items():
            *above, last = place.split(".")
            if above == ["settings"]:
                settings[last] = value
                continue
            inner = plain
            for name in above:
                inner = inner.setdefault(name, {})
            inner[last] = value
        resolve_settings(self.method, settings)
        return from_plain(plain | {"settings": settings}, base=base)


def _checked_range(place: str, values: Mapping[str, Any]) -> None:
    ends = next(iter(values.values()), None)
    if (len(values) != 1 or next(iter(values)) not in _RANGES or not isinstance(ends, list) or len(ends) != 2
            or not all(isinstance(end, int | float) for end in ends) or not ends[0] < ends[1]
            or ("log_uniform" in values and ends[0] <= 0)):
        raise SearchError(f"space.{place} is {dict(values)!r}, expected {' or '.join(_RANGES)} with [low, high], low < "
                          "high, above 0 for log_uniform")


def _draw(generator: np.random.Generator, values: Any) -> Any:
    if isinstance(values, list):
        return values[int(generator.integers(len(values)))]
    ((kind, (low, high)),) = values.items()
    drawn = (generator.uniform(low, high) if kind == "uniform" else
             math.exp(generator.uniform(math.log(low), math.log(high))))
    return float(f"{drawn:.4g}")


def read_space(path: Path) -> SearchSpace:
    """From YAML.

    Raises:
        SearchError: it cannot be read, or a key or value is wrong.
    """
    try:
        return msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), _SpaceFile).search_space()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SearchError(f"{path} cannot be read as YAML: {error}") from error
    except (msgspec.ValidationError, ValueError) as error:
        raise SearchError(f"{path}: {error}") from error


class _SpaceFile(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The file's keys."""

    method: str
    space: dict[str, Any]
    protocols: tuple[str, ...] = ("CPS_W",)
    seeds: tuple[int, ...] = (0,)
    trials: int = 0
    draw_seed: int = 0
    run: dict[str, Any] = {}

    def search_space(self) -> SearchSpace:
        return SearchSpace(**{each: getattr(self, each) for each in self.__struct_fields__})


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A trial and its runs.

    Attributes:
        number: from 1. values: by place.
        runs: one a protocol and seed. hter, auc: means over its runs of source validation by video; None until all
            are trained.
    """

    number: int
    values: Mapping[str, Any]
    runs: tuple[RunDirectory, ...]
    hter: float | None = None
    auc: float | None = None


def plan_trials(space: SearchSpace, machine: MachineConfig, out: Path,
                assembly: Assembly) -> list[tuple[Trial, list[RunConfig]]]:
    """Every trial with the configurations of its runs, data and backbone looked up; judged where trained."""
    surveyed: dict[str, Any] = {}
    planned = []
    for number, values in enumerate(space.draws(), 1):
        configs = []
        for protocol in space.protocols:
            for seed in space.seeds:
                config = space.config(values, protocol, seed)
                if protocol not in surveyed:
                    surveyed[protocol] = assembly.survey(config, machine)
                found = surveyed[protocol].config
                configs.append(dataclasses.replace(config, data=found.data, backbone=found.backbone))
        runs = tuple(RunDirectory(out / f"{each.method}-{each.protocol}-s{each.seed}-{each.hash}") for each in configs)
        planned.append((judged(Trial(number=number, values=values, runs=runs)), configs))
    return planned


def judged(trial: Trial) -> Trial:
    """With the criterion, where all its runs are trained."""
    if not all(run.finished for run in trial.runs):
        return trial
    found = [source_validation(run) for run in trial.runs]
    return dataclasses.replace(trial, hter=float(np.mean([hter for hter, _ in found])),
                               auc=float(np.mean([area for _, area in found])))


def source_validation(run: RunDirectory) -> tuple[float, float]:
    """HTER and AUC, 0..1, by video, at the epoch and threshold that pooled source validation chooses by itself.

    Reads the score tables that training left; there is no other file in a trial's directory that it could read.

    Raises:
        EvaluationError, ScoreTableError: no table, or a damaged one.
    """
    tables = read_tables(run, Split.SOURCE_VALIDATION)
    choice = honest_choice(tables, Unit.VIDEO)
    shown = tables[choice.epoch].presentations(Unit.VIDEO)
    curve = roc(shown.score, shown.live)
    return equal_error_point(curve).hter, auc(curve)


def best(trials: Sequence[Trial]) -> Trial | None:
    """The least HTER, then the larger AUC, then the first; None before one is judged."""
    known = [trial for trial in trials if trial.hter is not None and trial.auc is not None]
    return min(known, key=lambda trial: (trial.hter, -(trial.auc or 0.0), trial.number), default=None)


def search(space: SearchSpace, machine: MachineConfig, out: Path, assembly: Assembly, *,
           expired: Callable[[], bool] = lambda: False,
           on_trial: Callable[[Trial], None] = lambda _: None) -> Iterator[list[Trial]]:
    """Trains what is left, one run after the other; yields all trials whenever one is judged, and once before.

    Args:
        out: a directory for each run. A run that another process works on is left to it.
        expired: asked before each run; no run starts after it is true.
        on_trial: told of a trial before a run of it starts.

    A `KeyboardInterrupt` leaves the run at hand resumable.
    """
    planned = plan_trials(space, machine, out, assembly)
    trials = [trial for trial, _ in planned]
    yield list(trials)
    for index, (trial, configs) in enumerate(planned):
        for run, config in zip(trial.runs, configs, strict=True):
            if run.finished:
                continue
            if expired():
                return
            lock = JobLock(run)
            if not lock.acquire():
                continue
            try:
                on_trial(trial)
                assembly.train(run, config, machine)
            finally:
                lock.release()
        if trials[index].hter is None:
            trials[index] = judged(trial)
            yield list(trials)


def winning_recipe(space: SearchSpace, trial: Trial) -> MethodRecipe:
    """As a method's recipe file: settings, and of the run what recipe files hold."""
    config = space.config(trial.values, space.protocols[0], space.seeds[0])
    plain = json.loads(config.to_json())
    return MethodRecipe(method=space.method, settings=plain["settings"],
                        run={key: plain[key] for key in ("optimiser", "recipe", "augmentation", "precision")})


def write_results(out: Path, space: SearchSpace, trials: Sequence[Trial]) -> Path | None:
    """Writes `trials.csv`, and the winner's `METHOD.yaml`, whose path is returned; None before one is judged."""
    places = list(space.space)
    lines = [",".join(["trial", *places, "source_validation_hter", "source_validation_auc"])]
    lines += [",".join([str(trial.number), *(json.dumps(trial.values[place]).replace(",", ";") for place in places),
                        "" if trial.hter is None else f"{trial.hter:.6f}",
                        "" if trial.auc is None else f"{trial.auc:.6f}"]) for trial in trials]
    write_whole(out / "trials.csv", ("\n".join(lines) + "\n").encode())
    winner = best(trials)
    if winner is None or winner.hter is None:
        return None
    judged_trials = sum(trial.hter is not None for trial in trials)
    comment = (f"Trial {winner.number} of {judged_trials} judged ones, on {', '.join(space.protocols)}, seeds "
               f"{', '.join(map(str, space.seeds))}: HTER {100 * winner.hter:.2f} % on source validation by video,\n"
               "the only thing that chose it. mmdg benchmark --table 1 --method-recipes DIR trains with it.")
    path = out / f"{space.method}.yaml"
    write_whole(path, to_yaml(winning_recipe(space, winner), comment=comment).encode())
    return path
