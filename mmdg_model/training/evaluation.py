"""Evaluation of one training run on its target: three ways to choose epoch and threshold, always side by side.

| column | epoch | threshold |
|---|---|---|
| oracle, best epoch | the one with the least HTER on the target test set | the target's own equal error point |
| oracle, last epoch | the last | the target's own equal error point |
| honest | the one with the least HTER on pooled source validation | pooled source validation's equal error point |

The first is how the field's cross-dataset tables are made where their code is public; it looks at the target's labels
twice. Only the honest column says what a kiosk that never saw the target's labels would have done. A report cannot be
built with one of the three missing.

Ties go to the first epoch. HTER and AUC of a column are of the same epoch and the same threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from calibration.error_rates import (
    FixedRatePoint,
    Interval,
    Proportion,
    Unit,
    acer,
    apcer_by_species,
    auc,
    bpcer,
    bpcer_at_apcer,
    equal_error_point,
    equal_error_rate,
    pooled_apcer,
    roc,
    tpr_at_fpr,
)
from mmdg_model.training.chance_floor import ChanceFloors, chance_floors
from mmdg_model.training.scores import Presentations, ScoreContext, ScoreTable, Split
from mmdg_model.training.subject_bootstrap import BootstrapIntervals, bootstrap_by_subject

#: ISO/IEC 30107-3's BPCER10, BPCER20, BPCER100.
APCER_LIMITS = (0.10, 0.05, 0.01)
FPR_LIMITS = (1e-1, 1e-2, 1e-3, 1e-4)


class EvaluationError(ValueError):
    """The tables do not belong together, or one may not be used for this; the message says which and why."""


class Column(StrEnum):
    """How epoch and threshold were chosen."""

    ORACLE_BEST = "oracle_best_epoch"
    ORACLE_LAST = "oracle_last_epoch"
    HONEST = "honest"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An epoch, a threshold on scores of one unit, and whose labels the threshold was set by."""

    epoch: int
    threshold: float
    threshold_from: Split
    unit: Unit


def honest_choice(source_validation: Mapping[int, ScoreTable], unit: Unit) -> Choice:
    """Epoch and threshold from source validation alone: this function cannot see the target.

    The least HTER at the pooled equal error point wins, then the larger AUC, then the first epoch.

    Args:
        source_validation: by epoch; all source domains in one table.

    Raises:
        EvaluationError: no table, or one that is not of source validation.
    """
    _require_split(source_validation, Split.SOURCE_VALIDATION)
    ranked = {epoch: _equal_error(table, unit) for epoch, table in source_validation.items()}
    epoch = min(ranked, key=lambda one: (ranked[one][0], -ranked[one][1], one))
    return Choice(epoch=epoch, threshold=ranked[epoch][2], threshold_from=Split.SOURCE_VALIDATION, unit=unit)


def oracle_choice(target_test: Mapping[int, ScoreTable], unit: Unit, *, best: bool) -> Choice:
    """Epoch and threshold by the target's own labels: the least HTER (first epoch on ties), or the last epoch.

    Raises:
        EvaluationError: no table, or one that is not of the target's test split.
    """
    _require_split(target_test, Split.TARGET_TEST)
    epochs = target_test if best else [max(target_test)]
    ranked = {epoch: _equal_error(target_test[epoch], unit) for epoch in epochs}
    epoch = min(ranked, key=lambda one: (ranked[one][0], one))
    return Choice(epoch=epoch, threshold=ranked[epoch][2], threshold_from=Split.TARGET_TEST, unit=unit)


def decisions(table: ScoreTable, choice: Choice) -> NDArray[np.bool_]:
    """Accepted or not, `bool [n]`, a frame or a video as the choice's unit says; labels are not read."""
    return np.asarray(table.presentations(choice.unit).score >= choice.threshold, dtype=np.bool_)


@dataclass(frozen=True, kw_only=True)
class ErrorRate:
    """One error rate with what it is known to.

    Attributes:
        proportion: of frames or of videos.
        interval: exact, 95 %; None on frames, which are not independent.
        by_subject: subjects with at least one such error; None where a subject is unknown.
        subject_interval: exact, 95 %, of `by_subject`.
    """

    proportion: Proportion
    interval: Interval | None
    by_subject: Proportion | None
    subject_interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class Measures:
    """Everything said of one table at one choice; rates in 0..1. The meanings are `calibration.error_rates`'s.

    Attributes:
        choice: epoch, threshold, unit, and whose labels set the threshold.
        model_hash: of the checkpoint.
        live, attacks: presentations.
        hter: at the choice's threshold, species pooled.
        eer: of these scores on the joined ROC, whatever the threshold.
        apcer: by species, worst first.
        acer: (worst species' APCER + BPCER) / 2.
        bpcer_at_apcer: every species within the limit; thresholds set on these very scores.
        bpcer_at_pooled_apcer, tpr_at_fpr: species in one pool; thresholds set on these very scores.
        bootstrap: of HTER and AUC, by subject; None where no resamples were asked for.
    """

    choice: Choice
    model_hash: str
    live: int
    attacks: int
    hter: float
    auc: float
    eer: float
    apcer: dict[str, ErrorRate]
    pooled_apcer: ErrorRate
    bpcer: ErrorRate
    acer: float
    bpcer_at_apcer: tuple[FixedRatePoint, ...]
    bpcer_at_pooled_apcer: tuple[FixedRatePoint, ...]
    tpr_at_fpr: tuple[FixedRatePoint, ...]
    bootstrap: BootstrapIntervals | None


def measure(table: ScoreTable, choice: Choice, *, resamples: int = 2000, seed: int = 0) -> Measures:
    """All measures of one table at a given threshold; `resamples` 0 leaves the bootstrap out.

    Raises:
        ScoreTableError, ValueError: as `ScoreTable.presentations` and `error_rates.checked`.
    """
    shown = table.presentations(choice.unit)
    scores, live, species, unit = shown.score, shown.live, shown.species, choice.unit
    curve = roc(scores, live)
    refused, accepted = scores < choice.threshold, scores >= choice.threshold
    by_species = apcer_by_species(scores, live, species, choice.threshold, unit)
    bona_fide = bpcer(scores, live, choice.threshold, unit)
    attacks = pooled_apcer(scores, live, choice.threshold, unit)
    pool = np.full(len(scores), "any species")
    return Measures(
        choice=choice, model_hash=table.context.model_hash, live=curve.live, attacks=curve.attacks,
        hter=(attacks.rate + bona_fide.rate) / 2, auc=auc(curve), eer=equal_error_rate(curve),
        apcer={name: _error_rate(rate, shown, ~live & (species == name), accepted)
               for name, rate in by_species.items()},
        pooled_apcer=_error_rate(attacks, shown, ~live, accepted),
        bpcer=_error_rate(bona_fide, shown, live, refused),
        acer=acer(by_species, bona_fide),
        bpcer_at_apcer=tuple(bpcer_at_apcer(scores, live, species, limit, unit) for limit in APCER_LIMITS),
        bpcer_at_pooled_apcer=tuple(bpcer_at_apcer(scores, live, pool, limit, unit) for limit in APCER_LIMITS),
        tpr_at_fpr=tuple(tpr_at_fpr(scores, live, limit, unit) for limit in FPR_LIMITS),
        bootstrap=(bootstrap_by_subject(shown, choice.threshold, resamples=resamples, seed=seed)
                   if resamples else None))


@dataclass(frozen=True, kw_only=True)
class LevelReport:
    """One run on one target at frame or video level.

    Attributes:
        unit: frame or video; each level chooses its own epochs and thresholds.
        context: of the target's last epoch (its `epoch` and `model_hash` are the columns' own matter).
        target_domains, source_domains: pooled where several.
        simulated: whether any sample of either split is.
        target_subset, source_subset: modality subsets scored.
        columns: all three, always.
        duplicates: target rows that repeat another row, kept in `columns` as the published lists have them.
        deduplicated: all three again, chosen and measured with every sample once.
        chance: floors of the three columns for this many videos and epochs.

    Raises:
        EvaluationError: a column is missing.
    """

    unit: Unit
    context: ScoreContext
    simulated: bool
    target_domains: tuple[str, ...]
    source_domains: tuple[str, ...]
    target_subset: str
    source_subset: str
    columns: dict[Column, Measures]
    duplicates: int
    deduplicated: dict[Column, Measures]
    chance: ChanceFloors

    def __post_init__(self) -> None:
        for name, columns in (("columns", self.columns), ("deduplicated", self.deduplicated)):
            if set(columns) != set(Column):
                raise EvaluationError(f"{name} {', '.join(columns)}; all of {', '.join(Column)} go side by side")


def evaluate_run(source_validation: Mapping[int, ScoreTable], target_test: Mapping[int, ScoreTable], *, unit: Unit,
                 chosen: LevelReport | None = None, resamples: int = 2000, chance_repeats: int = 100,
                 seed: int = 0) -> LevelReport:
    """Evaluates one training run, epoch by epoch scored, in all three columns.

    Args:
        source_validation: scores of the source domains' validation lists, pooled, by epoch.
        target_test: scores of the target's test list (Protocol 3: of its lists, pooled), by epoch.
        unit: frame or video.
        chosen: report of the same run with all modalities. Its epochs are kept and its checkpoints demanded, as when
            modalities are taken away at test time (Protocol 2); thresholds are set anew.
        resamples: of the bootstrap by subject; 0 leaves it out.
        chance_repeats: simulated runs of the chance floors.
        seed: of bootstrap and chance floors.

    Raises:
        EvaluationError: the tables do not belong together: other epochs, rows, checkpoints or runs, videos or
            people on both sides, a wrong split, or another checkpoint than `chosen` has.
    """
    _check_belonging(source_validation, target_test)
    columns = _columns(source_validation, target_test, unit, chosen.columns if chosen else None, resamples, seed)
    target, source = target_test[max(target_test)], source_validation[max(source_validation)]
    unique = target.deduplicated()
    if len(unique) == len(target) and len(source.deduplicated()) == len(source):
        deduplicated = columns
    else:
        deduplicated = _columns({epoch: table.deduplicated() for epoch, table in source_validation.items()},
                                {epoch: table.deduplicated() for epoch, table in target_test.items()},
                                unit, chosen.deduplicated if chosen else None, resamples, seed)
    return LevelReport(
        unit=unit, context=target.context, simulated=target.context.simulated or source.context.simulated,
        target_domains=_domains(target), source_domains=_domains(source),
        target_subset=target.subset(), source_subset=source.subset(), columns=columns,
        duplicates=len(target) - len(unique), deduplicated=deduplicated,
        chance=chance_floors(target.presentations(Unit.VIDEO).live, source.presentations(Unit.VIDEO).live,
                             epochs=len(target_test), repeats=chance_repeats, seed=seed))


def _columns(source: Mapping[int, ScoreTable], target: Mapping[int, ScoreTable], unit: Unit,
             chosen: Mapping[Column, Measures] | None, resamples: int, seed: int) -> dict[Column, Measures]:
    columns = {}
    for column in Column:
        among_source, among_target = source, target
        if chosen is not None:
            epoch = chosen[column].choice.epoch
            if epoch not in target or target[epoch].context.model_hash != chosen[column].model_hash:
                found = target[epoch].context.model_hash if epoch in target else "no scores"
                raise EvaluationError(f"{column}: epoch {epoch} was checkpoint {chosen[column].model_hash} with all "
                                      f"modalities and is {found} here; test the same checkpoint again")
            among_source, among_target = {epoch: source[epoch]}, {epoch: target[epoch]}
        choice = (honest_choice(among_source, unit) if column is Column.HONEST
                  else oracle_choice(among_target, unit, best=column is Column.ORACLE_BEST))
        columns[column] = measure(target[choice.epoch], choice, resamples=resamples, seed=seed)
    return columns


def _equal_error(table: ScoreTable, unit: Unit) -> tuple[float, float, float]:
    """HTER at the equal error point, AUC, and the point's threshold."""
    shown = table.presentations(unit)
    curve = roc(shown.score, shown.live)
    point = equal_error_point(curve)
    return point.hter, auc(curve), point.threshold


def _error_rate(rate: Proportion, shown: Presentations, which: NDArray[np.bool_],
                wrong: NDArray[np.bool_]) -> ErrorRate:
    by_subject = None
    if (shown.subject[which] != "").all():
        clusters = shown.clusters()
        by_subject = Proportion(count=len(np.unique(clusters[which & wrong])), trials=len(np.unique(clusters[which])),
                                unit=Unit.SUBJECT)
    return ErrorRate(proportion=rate, interval=None if rate.unit is Unit.FRAME else rate.exact_interval(),
                     by_subject=by_subject, subject_interval=by_subject.exact_interval() if by_subject else None)


def _domains(table: ScoreTable) -> tuple[str, ...]:
    return tuple(str(domain) for domain in np.unique(table.domain))


def _require_split(tables: Mapping[int, ScoreTable], split: Split) -> None:
    if not tables:
        raise EvaluationError(f"no scores of {split}; at least one epoch is needed")
    for epoch, table in tables.items():
        if table.context.split is not split:
            raise EvaluationError(f"epoch {epoch}: scores of {table.context.split} given as {split}; choosing by the "
                                  "wrong split would leak the target")


def _check_belonging(source: Mapping[int, ScoreTable], target: Mapping[int, ScoreTable]) -> None:
    _require_split(source, Split.SOURCE_VALIDATION)
    _require_split(target, Split.TARGET_TEST)
    if set(source) != set(target):
        raise EvaluationError(f"epochs {sorted(source)} of source validation and {sorted(target)} of the target; "
                              "score the same epochs on both")
    first = target[min(target)]
    for tables in (source, target):
        pattern = tables[min(tables)]
        for epoch, table in tables.items():
            where, context = f"{table.context.split} at epoch {epoch}", table.context
            if context.epoch != epoch:
                raise EvaluationError(f"{where}: the table says epoch {context.epoch}")
            for name in ("protocol", "method", "seed"):
                if getattr(context, name) != getattr(first.context, name):
                    raise EvaluationError(f"{where}: {name} {getattr(context, name)!r}, elsewhere "
                                          f"{getattr(first.context, name)!r}; these are two runs")
            for name in ("sample_id", "video_id", "subject", "domain", "species", "label", "modalities"):
                if not np.array_equal(getattr(table, name), getattr(pattern, name)):
                    raise EvaluationError(f"{where}: column {name} differs from epoch {min(tables)}'s; "
                                          "score the same list, in its order, at every epoch")
    for epoch in target:
        if source[epoch].context.model_hash != target[epoch].context.model_hash:
            raise EvaluationError(f"epoch {epoch}: checkpoint {source[epoch].context.model_hash} on source validation, "
                                  f"{target[epoch].context.model_hash} on the target; they must be one")
    _require_other_people(source[min(source)], first)


def _require_other_people(source: ScoreTable, target: ScoreTable) -> None:
    """Within one domain (`W_W`) the honest column holds as long as nothing chosen on is tested."""
    for name, key in (("video", ScoreTable.video_key), ("subject", _subject_key)):
        shared = set(key(source).tolist()) & set(key(target).tolist()) - {""}
        if shared:
            example = min(shared).replace("\x1f", " ")
            raise EvaluationError(f"{len(shared)} {name}s, such as {example}, are in source validation and in the "
                                  "target's test; the honest column would be chosen on the target's own data")


def _subject_key(table: ScoreTable) -> NDArray[np.str_]:
    """Domain and subject; empty where no subject is known."""
    key = np.char.add(np.char.add(table.domain, "\x1f"), table.subject)
    return np.asarray(np.where(table.subject == "", "", key), dtype=np.str_)
