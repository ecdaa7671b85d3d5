"""Which row beats which: `order_claims` over all pairs of rows that may be compared, and why the others may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from calibration.error_rates import Unit
from mmdg_model.training.evaluation import Column, EvaluationError
from mmdg_model.training.evaluation_table import TITLES
from mmdg_model.training.order_claims import FEWEST_SEEDS, Measure, OrderClaim, ScoredRun, compare
from mmdg_model.training.report.run_results import Collection, ReportRow
from mmdg_model.training.report.tables import TextCell, TextTable, column_title, describe_runs
from mmdg_model.training.scores import Split, read_scores

#: Columns and measures that are compared; the honest one says what a kiosk would have seen.
#: With more rows than this not every pair is compared: the comparisons would be hundreds, and mean little.
MOST_ROWS = 8
#: From the plain ViT to MMDG.
STEPS = ("vit_late", "u_adapter", "u_adapter_ssp", "mmdg")
COMPARED = ((Column.HONEST, Measure.HTER), (Column.HONEST, Measure.AUC), (Column.ORACLE_BEST, Measure.HTER))


def order_table(collection: Collection, *, resamples: int = 2000) -> tuple[TextTable | None, list[str]]:
    """Claims as a table (None without any), and a line on each pair that may not be compared."""
    lines, refused = [], []
    for one, other in compared_pairs(collection.rows):
        protocols = [protocol for protocol in collection.protocols if one.seeds(protocol) and other.seeds(protocol)]
        for kind, group in _groups(protocols).items():
            paired = {protocol: sorted(set(one.seeds(protocol)) & set(other.seeds(protocol))) for protocol in group}
            fewest = min(map(len, paired.values()))
            if fewest < FEWEST_SEEDS:
                refused.append(f"{one.label} and {other.label}, {kind}: {fewest} paired seeds; an order claim needs at "
                               f"least {FEWEST_SEEDS}")
                continue
            for column, measure in COMPARED:
                try:
                    claim = compare(_scored(one, paired, column), _scored(other, paired, column), measure=measure,
                                    resamples=resamples)
                except EvaluationError as error:
                    refused.append(f"{one.label} and {other.label}, {kind}, {TITLES[column]}: {error}")
                    break
                lines.append(_line(one, other, kind, column, claim))
    table = TextTable(
        caption="Who beats whom? Mean difference first − second in points, with a 95 % interval of a paired "
                "hierarchical bootstrap over domains, seeds and subjects, by frame, epochs and thresholds held. "
                + (f"Of these {len(collection.rows)} rows, only pairs with mmdg or among {', '.join(STEPS)}. "
                   if len(collection.rows) > MOST_ROWS else "")
                + f"No correction for the number of comparisons. {describe_runs(collection.rows)}",
        header=("first", "second", "targets", "column", "measure", "difference", "95 %", "seeds", "says"),
        rows=tuple(lines), words=5) if lines else None
    return table, refused


def compared_pairs(rows: Sequence[ReportRow]) -> list[tuple[ReportRow, ReportRow]]:
    """All pairs of a few rows; of many, those that the paper speaks of: MMDG with each, and the steps up to it."""
    pairs = list(combinations(rows, 2))
    if len(rows) <= MOST_ROWS:
        return pairs
    return [(one, other) for one, other in pairs
            if "mmdg" in (one.method, other.method) or {one.method, other.method} <= set(STEPS)]


def shortened(refused: Sequence[str]) -> list[str]:
    """Many pairs refused for one and the same reason as one line."""
    by_reason: dict[str, list[str]] = {}
    for line in refused:
        by_reason.setdefault(line.partition(": ")[2], []).append(line)
    return [line for reason, lines in by_reason.items()
            for line in (lines if len(lines) <= MOST_ROWS else [f"{len(lines)} pairs of rows: {reason}"])]


def _groups(protocols: list[str]) -> Mapping[str, list[str]]:
    """Protocol 1's and Protocol 3's targets are compared apart."""
    groups: dict[str, list[str]] = {}
    for protocol in protocols:
        groups.setdefault("Protocol 1" if len(protocol.partition("_")[2]) == 1 else "Protocol 3", []).append(protocol)
    return groups


def _scored(row: ReportRow, paired: Mapping[str, list[int]], column: Column) -> dict[str, dict[int, ScoredRun]]:
    runs: dict[str, dict[int, ScoredRun]] = {}
    for protocol, seeds in paired.items():
        runs[protocol] = {}
        for seed in seeds:
            run = row.runs[protocol, seed]
            choice = run.evaluation.choice(column, Unit.FRAME)
            table = read_scores(run.directory.scores_file(Split.TARGET_TEST, choice.epoch))
            runs[protocol][seed] = ScoredRun(column=column, table=table, choice=choice)
    return runs


def _line(one: ReportRow, other: ReportRow, kind: str, column: Column, claim: OrderClaim) -> tuple[TextCell, ...]:
    better = one.label if claim.a_is_better else other.label if claim.b_is_better else ""
    targets = kind if len(claim.by_domain) > 1 else f"{column_title(next(iter(claim.by_domain)))} alone"
    return (TextCell(one.label), TextCell(other.label), TextCell(targets), TextCell(TITLES[column]),
            TextCell(claim.measure.upper()), TextCell(f"{100 * claim.difference:+.2f}"),
            TextCell(f"[{100 * claim.interval.low:+.2f}, {100 * claim.interval.high:+.2f}]"),
            TextCell(str(min(claim.seeds.values()))),
            TextCell((f"{better} is better" if better else "no order shown")
                     + ("" if claim.subjects_known else " (some subjects unknown: too narrow)"), strong=bool(better)))
