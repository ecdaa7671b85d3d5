"""MMDG against what it is built of, as paired differences: the same targets, seeds and people on both sides."""

from __future__ import annotations

import numpy as np

from mmdg_model.training.evaluation import Column, EvaluationError
from mmdg_model.training.evaluation_table import TITLES
from mmdg_model.training.order_claims import FEWEST_SEEDS, Measure, OrderClaim, ScoredRun, compare
from mmdg_model.training.report.left_out_tables import family_pairs
from mmdg_model.training.report.run_kinds import Held, is_whole, protocols_of, scores_of
from mmdg_model.training.report.run_results import Collection, ReportRow
from mmdg_model.training.report.tables import TextCell, TextTable, column_title, describe_runs
from mmdg_model.training.scores import BONA_FIDE
from mmdg_model.training.species_families import described

#: The first is compared with each of the others.
FIRST, OTHERS = "mmdg", ("u_adapter", "vit_late")
COMPARED = ((Column.HONEST, Measure.HTER), (Column.HONEST, Measure.AUC), (Column.ORACLE_BEST, Measure.HTER))

Scored = dict[str, dict[int, ScoredRun]]


def paired_table(collection: Collection, *, resamples: int = 2000) -> tuple[TextTable | None, list[str]]:
    """Differences on data sets left out, one by one and together, and on families left out; and what was refused."""
    lines: list[tuple[TextCell, ...]] = []
    refused: list[str] = []
    whole = {row.method: row for row in collection.rows if is_whole(row) and not row.config.settings}
    for other in OTHERS:
        if FIRST not in whole or other not in whole:
            refused.append(f"{FIRST} and {other}: one of them was not run with all species and modalities")
            continue
        protocols = [protocol for protocol in protocols_of(collection, Held.DOMAIN)
                     if set(whole[FIRST].seeds(protocol)) & set(whole[other].seeds(protocol))]
        for group in (*([name] for name in protocols), *([protocols] if len(protocols) > 1 else [])):
            title = column_title(group[0]) if len(group) == 1 else f"all {len(group)} data sets left out"
            for column, measure in COMPARED:
                sides = (_domains(whole[FIRST], whole[other], group, column),
                         _domains(whole[other], whole[FIRST], group, column))
                _add(lines, refused, other, title, column, sides, measure, resamples)
    for other in OTHERS:
        families = _families(collection, other)
        for group_names in (*([name] for name in families), *([list(families)] if len(families) > 1 else [])):
            title = f"{group_names[0]} never seen" if len(group_names) == 1 else f"all {len(group_names)} families"
            of_families = ({name: families[name][FIRST] for name in group_names},
                           {name: families[name][other] for name in group_names})
            for measure in (Measure.HTER, Measure.AUC):
                _add(lines, refused, other, title, Column.HONEST, of_families, measure, resamples)
    table = TextTable(
        caption=f"{FIRST} minus another method, in points, by video; HTER is better when smaller, AUC when larger. "
                "Brackets: 95 % of a paired hierarchical bootstrap over targets (where several stand together), seeds "
                "and subjects; epochs and thresholds held. With fewer than "
                f"{FEWEST_SEEDS} seeds the interval is that of the networks at hand, and no order is claimed. On "
                "families, HTER is of the unseen family against bona fide at the honest threshold. No correction for "
                f"the number of comparisons. {describe_runs(collection.rows)}",
        header=("minus", "on", "column", "measure", "difference", "95 %", "seeds", "says"), rows=tuple(lines),
        words=4) if lines else None
    return table, refused


def _add(lines: list[tuple[TextCell, ...]], refused: list[str], other: str, title: str, column: Column,
         sides: tuple[Scored, Scored], measure: Measure, resamples: int) -> None:
    try:
        claim = compare(*sides, measure=measure, resamples=resamples, fewest_seeds=1)
    except EvaluationError as error:
        refused.append(f"{FIRST} and {other}, {title}, {TITLES[column]}: {error}")
        return
    lines.append((TextCell(other), TextCell(title), TextCell(TITLES[column]), TextCell(measure.upper()),
                  TextCell(f"{100 * claim.difference:+.2f}"),
                  TextCell(f"[{100 * claim.interval.low:+.2f}, {100 * claim.interval.high:+.2f}]"),
                  TextCell(str(min(claim.seeds.values()))), TextCell(_says(claim, other), strong=_is_order(claim))))


def _is_order(claim: OrderClaim) -> bool:
    return claim.a_is_better or claim.b_is_better


def _says(claim: OrderClaim, other: str) -> str:
    if not claim.enough_seeds:
        return f"no claim: {min(claim.seeds.values())} of {FEWEST_SEEDS} seeds"
    better = FIRST if claim.a_is_better else other if claim.b_is_better else ""
    return ((f"{better} is better" if better else "no order shown")
            + ("" if claim.subjects_known else " (some subjects unknown: too narrow)"))


def _domains(row: ReportRow, partner: ReportRow, protocols: list[str], column: Column) -> Scored:
    runs: Scored = {}
    for protocol in protocols:
        seeds = sorted(set(row.seeds(protocol)) & set(partner.seeds(protocol)))
        runs[protocol] = {seed: _scored(row, protocol, seed, column) for seed in seeds}
    return runs


def _scored(row: ReportRow, protocol: str, seed: int, column: Column) -> ScoredRun:
    scores = scores_of(row.runs[protocol, seed], column)
    return ScoredRun(column=column, table=scores.table, choice=scores.choice)


def _families(collection: Collection, other: str) -> dict[str, dict[str, dict[int, ScoredRun]]]:
    """By family: both methods' runs that never saw it, cut down to that family and bona fide, by seed."""
    found: dict[str, dict[str, dict[int, ScoredRun]]] = {}
    for row, _, protocol in family_pairs(collection):
        if row.method not in (FIRST, other) or row.config.settings:
            continue
        name = f"{described(row.config.leave_out_species)} ({column_title(protocol)})"
        for seed in row.seeds(protocol):
            one = _scored(row, protocol, seed, Column.HONEST)
            kept = np.isin(one.table.species, (BONA_FIDE, *row.config.leave_out_species))
            if not (kept & ~one.table.live).any():
                continue
            found.setdefault(name, {}).setdefault(row.method, {})[seed] = ScoredRun(
                column=one.column, table=one.table.rows(kept), choice=one.choice)
    paired = {}
    for name, of_method in found.items():
        seeds = set(of_method.get(FIRST, {})) & set(of_method.get(other, {}))
        if seeds:
            paired[name] = {method: {seed: of_method[method][seed] for seed in sorted(seeds)}
                            for method in (FIRST, other)}
    return paired
