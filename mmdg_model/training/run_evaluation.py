"""Evaluation of one run on disk, offline: scores from its kept epochs, then every figure from the scores.

Two halves that share nothing but Parquet files. `score_run` needs the network and the data; `evaluate_scores` needs
neither, so any figure can be computed again years later. Training calls neither: nothing here reaches back.

    scores/source_validation/0007-complete.parquet
    scores/target_test/0007-complete.parquet, 0007-missing_depth.parquet ...
    evaluation.json           `RunEvaluation`: all that was measured, at frame and at video level
    evaluation.md             the same as tables
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from calibration.error_rates import Unit
from mmdg_model.training.compute import Compute
from mmdg_model.training.evaluation import Choice, Column, EvaluationError, LevelReport, evaluate_run
from mmdg_model.training.evaluation_table import markdown, plain
from mmdg_model.training.methods.contract import Method
from mmdg_model.training.protocols import PROTOCOL_2, Scenario, sub_protocol
from mmdg_model.training.run_config import RunConfig
from mmdg_model.training.run_data import RunData, ScoringBatch
from mmdg_model.training.run_directory import RunDirectory, RunDirectoryError
from mmdg_model.training.scores import ScoreContext, ScoreTable, ScoreTableError, Split, read_scores, write_scores
from mmdg_model.training.significance import FEWEST_PERMUTATIONS, PermutationTest, permutation_test
from mmdg_model.whole_file import write_whole

FORMAT_VERSION = 1
UNITS = (Unit.FRAME, Unit.VIDEO)


class ScoreSplit(Protocol):
    """What scores one split with a method whose network is loaded."""

    def __call__(self, method: Method, batches: Iterable[ScoringBatch], *, context: ScoreContext,
                 compute: Compute) -> ScoreTable: ...


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far scoring is: tables `done` of `total`, `kept` of them found on disk; `what` is scored next."""

    done: int
    total: int
    kept: int
    what: str


def scenarios_of(config: RunConfig) -> tuple[Scenario, ...]:
    """What a run is tested on: everything there, and after Protocol 1's training Protocol 2's absences, too.

    A run that is given fewer modalities than there are has nothing more to lose.
    """
    takes_part = sub_protocol(config.protocol).number == 1 and not config.inputs.withheld
    return (Scenario.COMPLETE, *(PROTOCOL_2 if takes_part else ()))


def score_context(config: RunConfig, split: Split, epoch: int, model_hash: str, *, simulated: bool) -> ScoreContext:
    """What a table of this run must say of itself."""
    return ScoreContext(split=split, protocol=config.protocol, method=config.method, seed=config.seed, epoch=epoch,
                        model_hash=model_hash, simulated=simulated)


def score_run(directory: RunDirectory, data: RunData, method: Method, *, score_split: ScoreSplit, compute: Compute,
              scenarios: Sequence[Scenario] | None = None, again: bool = False,
              on_progress: Callable[[Progress], None] = lambda _: None) -> int:
    """Scores source validation and target test at every kept epoch; what is on disk of the same checkpoint stays.

    Each table is written whole as soon as it is made: a killed scoring goes on where it was.

    Args:
        data, method: of the run's own configuration; the network's weights are replaced.
        scenarios: of the target; all that the run's protocol has by default. `complete` is always scored.
        again: score also what is on disk.

    Returns:
        How many tables were scored anew.

    Raises:
        RunDirectoryError: no kept epoch, a damaged one, or the data are not those that the run was trained on.
    """
    config, epochs = directory.config(), directory.epochs()
    if not epochs:
        raise RunDirectoryError(f"{directory.path} has no kept epoch; train it first")
    if config.data and data.fingerprint != config.data:
        raise RunDirectoryError(f"{directory.config_file} was trained on data of fingerprint {config.data[:12]}, these "
                                f"have {data.fingerprint[:12]}; name the tree and the lists that it was trained on")
    wanted = scenarios_of(config) if scenarios is None else tuple(dict.fromkeys((Scenario.COMPLETE, *scenarios)))
    tables = [(Split.SOURCE_VALIDATION, Scenario.COMPLETE), *((Split.TARGET_TEST, one) for one in wanted)]
    done = kept = 0
    for epoch in epochs:
        state, model_hash = directory.load_epoch(epoch)
        loaded = False
        for split, scenario in tables:
            on_progress(Progress(done=done, total=len(epochs) * len(tables), kept=kept,
                                 what=f"epoch {epoch}, {split}, {scenario}"))
            path = directory.scores_file(split, epoch, scenario)
            context = score_context(config, split, epoch, model_hash, simulated=data.simulated)
            if not again and _context_on_disk(path) == context:
                kept += 1
            else:
                if not loaded:
                    method.network.load_state_dict(state)
                    loaded = True
                batches = data.selection() if split is Split.SOURCE_VALIDATION else data.test(scenario)
                table = score_split(method, batches, context=context, compute=compute)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_scores(path, table)
            done += 1
    on_progress(Progress(done=done, total=done, kept=kept, what="done"))
    return done - kept


def _context_on_disk(path: Path) -> ScoreContext | None:
    """Of a whole table; None where there is none, or one that cannot be read (it is then scored again)."""
    try:
        return read_scores(path).context
    except (FileNotFoundError, ScoreTableError):
        return None


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """Everything measured of one run; `evaluation.json`.

    Attributes:
        config_hash: of the run.
        method, protocol, seed, backbone, preset: of its configuration, for readers of the file alone.
        epochs: scored.
        levels: by scenario, then by unit (`frame`, `video`).
        significance: permutation test at the honest column's epoch by video, with all modalities.
    """

    format_version: int
    config_hash: str
    method: str
    protocol: str
    seed: int
    backbone: str
    preset: str
    simulated: bool
    epochs: tuple[int, ...]
    levels: dict[Scenario, dict[Unit, LevelReport]]
    significance: PermutationTest

    def choice(self, column: Column, unit: Unit, scenario: Scenario = Scenario.COMPLETE) -> Choice:
        """Epoch and threshold of a column."""
        return self.levels[scenario][unit].columns[column].choice

    def to_json(self) -> str:
        """As the file has it; infinite thresholds are the strings "inf" and "-inf"."""
        return json.dumps(plain(self), indent=1, sort_keys=True, allow_nan=False)

    def to_markdown(self) -> str:
        """All tables: complete first, by video before by frame, and what the permutation test says."""
        head = [f"# {self.method}, {self.protocol}, seed {self.seed}", "",
                (f"Run {self.config_hash}, preset {self.preset}, {backbone_words(self.backbone)}; "
                 f"{len(self.epochs)} epochs scored.{' All figures are of simulated data.' if self.simulated else ''}"),
                "", f"Permutation test at the honest epoch: {self.significance}.", ""]
        parts = [markdown(self.levels[scenario][unit]) for scenario in self.levels for unit in reversed(UNITS)]
        return "\n".join(head) + "\n" + "\n".join(parts)


#: Of what a run says of its start where that is a whole checkpoint and no backbone.
CHECKPOINT_PREFIX = "checkpoint "


def backbone_words(backbone: str) -> str:
    """What the weights started from, as every report says it."""
    if backbone.startswith(CHECKPOINT_PREFIX):
        return f"went on from {backbone[:len(CHECKPOINT_PREFIX) + 12]}"
    return f"backbone {backbone[:12]}" if backbone else "random initial weights, all trained"


def read_tables(directory: RunDirectory, split: Split, scenario: Scenario = Scenario.COMPLETE) -> dict[int, ScoreTable]:
    """Score tables on disk by epoch; empty where there are none. Raises `ScoreTableError` on a damaged one."""
    folder = directory.scores_file(split, 0, scenario).parent
    return {int(path.name.partition("-")[0]): read_scores(path)
            for path in sorted(folder.glob(f"[0-9]*-{scenario}.parquet"))}


def evaluate_scores(directory: RunDirectory, *, scenarios: Sequence[Scenario] | None = None, resamples: int = 2000,
                    chance_repeats: int = 100, permutations: int = FEWEST_PERMUTATIONS, seed: int = 0) -> RunEvaluation:
    """All figures of one run from its score tables alone.

    Args:
        scenarios: to evaluate; by default those that every scored epoch has. `complete` is always evaluated.

    Raises:
        EvaluationError: tables are missing or do not belong together, or are of another run than the directory's.
        ScoreTableError: a damaged table.
    """
    config = directory.config()
    source = read_tables(directory, Split.SOURCE_VALIDATION)
    complete = read_tables(directory, Split.TARGET_TEST)
    if not source or not complete:
        raise EvaluationError(f"{directory.path}: {len(source)} score tables of source validation and {len(complete)} "
                              "of the target; score the run first (mmdg evaluate RUN)")
    for tables in (source, complete):
        for epoch, table in tables.items():
            _require_own(directory, config, epoch, table)
    # An epoch scored on one side only is left over from a scoring that was cut off, or from training's own look at
    # source validation.
    epochs = sorted(set(source) & set(complete))
    source = {epoch: source[epoch] for epoch in epochs}
    complete = {epoch: complete[epoch] for epoch in epochs}
    levels: dict[Scenario, dict[Unit, LevelReport]] = {Scenario.COMPLETE: {
        unit: evaluate_run(source, complete, unit=unit, resamples=resamples, chance_repeats=chance_repeats, seed=seed)
        for unit in UNITS}}
    wanted = [one for one in scenarios_of(config) if one is not Scenario.COMPLETE]
    for scenario in wanted if scenarios is None else [one for one in scenarios if one is not Scenario.COMPLETE]:
        tables = read_tables(directory, Split.TARGET_TEST, scenario)
        if scenarios is None and not set(epochs) <= set(tables):
            continue
        if not set(epochs) <= set(tables):
            raise EvaluationError(f"{directory.path}: {scenario} was scored at {len(tables)} epochs, the complete test "
                                  f"at {len(epochs)}; score it first (mmdg evaluate RUN --scenario {scenario})")
        for epoch, table in tables.items():
            _require_own(directory, config, epoch, table)
        levels[scenario] = {
            unit: evaluate_run(source, {epoch: tables[epoch] for epoch in epochs}, unit=unit,
                               chosen=levels[Scenario.COMPLETE][unit], resamples=resamples,
                               chance_repeats=chance_repeats, seed=seed) for unit in UNITS}
    honest = levels[Scenario.COMPLETE][Unit.VIDEO].columns[Column.HONEST].choice.epoch
    return RunEvaluation(
        format_version=FORMAT_VERSION, config_hash=config.hash, method=config.method, protocol=config.protocol,
        seed=config.seed, backbone=config.backbone or (CHECKPOINT_PREFIX + config.start if config.start else ""),
        preset=config.model.preset,
        simulated=any(level.simulated for of_unit in levels.values() for level in of_unit.values()),
        epochs=tuple(epochs), levels=levels,
        significance=permutation_test(complete[honest], permutations=permutations, seed=seed))


def _require_own(directory: RunDirectory, config: RunConfig, epoch: int, table: ScoreTable) -> None:
    for name in ("protocol", "method", "seed"):
        if getattr(table.context, name) != getattr(config, name):
            raise EvaluationError(f"{directory.path}: scores of {table.context.split} at epoch {epoch} are of {name} "
                                  f"{getattr(table.context, name)!r}, the run is of {getattr(config, name)!r}; "
                                  "these files are another run's")


def evaluation_file(directory: RunDirectory) -> Path:
    """Where `write_evaluation` puts the figures."""
    return directory.path / "evaluation.json"


def write_evaluation(directory: RunDirectory, evaluation: RunEvaluation) -> None:
    """Both files, each whole or not at all; the JSON, by whose presence a run counts as evaluated, last."""
    write_whole(directory.path / "evaluation.md", evaluation.to_markdown().encode())
    write_whole(evaluation_file(directory), evaluation.to_json().encode())


def read_evaluation(directory: RunDirectory) -> RunEvaluation:
    """What `write_evaluation` wrote.

    Raises:
        RunDirectoryError: missing, damaged, of another version, or of another configuration than the directory's.
    """
    path = evaluation_file(directory)
    values = directory.read_json(path)
    version = values.get("format_version") if isinstance(values, Mapping) else None
    if version != FORMAT_VERSION:
        raise RunDirectoryError(f"{path} is of version {version!r}, this program reads {FORMAT_VERSION}; compute it "
                                "again: mmdg evaluate RUN --from-scores")
    try:
        evaluation = msgspec.convert(_with_infinities(values), RunEvaluation)
    except (msgspec.ValidationError, EvaluationError, ValueError) as error:
        raise RunDirectoryError(f"{path}: {error}; compute it again: mmdg evaluate RUN --from-scores") from error
    if evaluation.config_hash != (found := directory.config().hash):
        raise RunDirectoryError(f"{path} is of run {evaluation.config_hash}, the directory holds run {found}; compute "
                                "it again: mmdg evaluate RUN --from-scores")
    return evaluation


def _with_infinities(value: Any) -> Any:
    """Thresholds that JSON had to spell out, as numbers again."""
    if isinstance(value, dict):
        return {key: math.inf if key == "threshold" and item == "inf" else
                -math.inf if key == "threshold" and item == "-inf" else _with_infinities(item)
                for key, item in value.items()}
    if isinstance(value, list):
        return [_with_infinities(item) for item in value]
    return value
