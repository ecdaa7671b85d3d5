"""Tables of what was left out of training: data sets, and families of attack species."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.error_rates import Proportion, Unit, auc, roc
from mmdg_model.training.evaluation import Column
from mmdg_model.training.evaluation_table import TITLES
from mmdg_model.training.protocols import Scenario
from mmdg_model.training.report.run_kinds import (
    Held,
    HonestScores,
    interval_text,
    is_whole,
    protocols_of,
    rate_text,
    rows_of,
    scores_of,
)
from mmdg_model.training.report.run_results import Collection, ReportRow, row_key
from mmdg_model.training.report.summary import summarise
from mmdg_model.training.report.tables import TextCell, TextTable, column_title, describe_runs
from mmdg_model.training.species_families import described, family_of
from mmdg_model.training.subject_bootstrap import bootstrap_by_subject

BY_VIDEO = ("By video, at the epoch and threshold that source validation chose; brackets: exact 95 % interval "
            "(Clopper-Pearson) of the lowest seed's run")


def domain_table(collection: Collection) -> TextTable | None:
    """HTER / AUC of every data set left out, in the three columns; None where none was."""
    protocols = protocols_of(collection, Held.DOMAIN)
    rows = [row for row in collection.rows if is_whole(row) and any(row.seeds(protocol) for protocol in protocols)]
    lines = []
    for row in rows:
        for column in Column:
            cells = [summarise(row, ((protocol, Scenario.COMPLETE),), column, Unit.VIDEO) for protocol in protocols]
            every = tuple((protocol, Scenario.COMPLETE) for protocol in protocols)
            average = summarise(row, every, column, Unit.VIDEO) if len(protocols) > 1 else None
            lines.append((TextCell(row.label if column is Column.ORACLE_BEST else "", strong=True),
                          TextCell(TITLES[column]),
                          *(TextCell("not run", faint=True) if cell is None else
                            TextCell(f"{cell.hter} / {cell.auc} {cell.hter.interval()}".rstrip(),
                                     strong=column is Column.HONEST)
                            for cell in (*cells, *((average,) if len(protocols) > 1 else ())))))
    if not lines:
        return None
    seeds = sorted({len(row.seeds(protocol)) for row in rows for protocol in protocols if row.seeds(protocol)})
    return TextTable(
        caption="Leave one data set out: HTER / AUC in % on the target, by video, mean ± standard deviation over "
                f"{' or '.join(map(str, seeds))} seeds (no ± with one). Brackets: 95 % interval of HTER from subjects "
                f"drawn anew, with several seeds from their spread, too. {describe_runs(rows)}",
        header=("row", "", *map(column_title, protocols), *(("average",) if len(protocols) > 1 else ())),
        rows=tuple(lines), words=2)


def species_rates_table(collection: Collection, protocol: str) -> TextTable | None:
    """APCER of every species and BPCER on a protocol, with exact intervals; None where it was not run."""
    rows = rows_of(collection, protocol)
    if not rows:
        return None
    of_rows = [[scores_of(row.runs[protocol, seed]) for seed in row.seeds(protocol)] for row in rows]
    first = of_rows[0][0].shown
    names = sorted(np.unique(first.species[~first.live]).tolist(), key=lambda name: (str(family_of(name)), name))
    lines = [(TextCell(name), TextCell(str(family_of(name) or "")),
              *(_rates_cell([each.accepted(each.attacks & (each.shown.species == name)) for each in runs])
                for runs in of_rows)) for name in names]
    lines.append((TextCell("bona fide refused (BPCER)", strong=True), TextCell(""),
                  *(_rates_cell([_refused(each) for each in runs]) for runs in of_rows)))
    return TextTable(
        caption=f"APCER in % by species on {column_title(protocol)}. {BY_VIDEO}; then the mean where there are more. "
                f"{describe_runs(rows)}",
        header=("species", "family", *(row.label for row in rows)), rows=tuple(lines), words=2)


def _refused(scores: HonestScores) -> Proportion:
    accepted = scores.accepted(scores.shown.live)
    return Proportion(count=accepted.trials - accepted.count, trials=accepted.trials, unit=accepted.unit)


def _rates_cell(rates: Sequence[Proportion]) -> TextCell:
    mean = float(np.mean([rate.rate for rate in rates]))
    text = rate_text(rates[0]) + (f", mean of {len(rates)}: {100 * mean:.1f}" if len(rates) > 1 else "")
    return TextCell(text, shade=mean)


def family_pairs(collection: Collection) -> list[tuple[ReportRow, ReportRow | None, str]]:
    """(row without some species, the row that was given all and is else alike, protocol), in order."""
    pairs = []
    for row in collection.rows:
        if not row.config.leave_out_species or row.config.inputs.withheld:
            continue
        for protocol in dict.fromkeys(name for name, _ in sorted(row.runs)):
            wanted = row_key(dataclasses.replace(row.config, leave_out_species=()))
            alike = [other for other in rows_of(collection, protocol) if row_key(other.config) == wanted]
            pairs.append((row, alike[0] if alike else None, protocol))
    return pairs


def left_out_mask(scores: HonestScores, row: ReportRow) -> NDArray[np.bool_]:
    """`bool [videos]`: attacks of the species that the row's runs never saw."""
    return np.asarray(scores.attacks & np.isin(scores.shown.species, row.config.leave_out_species), dtype=np.bool_)


def family_table(collection: Collection) -> TextTable | None:
    """Species left out as one: APCER and AUC against bona fide, without and with them in training."""
    lines = []
    rows: dict[str, ReportRow] = {}
    for row, reference, protocol in family_pairs(collection):
        for owner, title in ((row, "never seen"), (reference, "trained on")):
            if owner is None:
                lines.append((TextCell(""), TextCell(row.method), TextCell(column_title(protocol)), TextCell(title),
                              *(TextCell("not run", faint=True) for _ in range(4))))
                continue
            rows[owner.label] = owner
            scores = scores_of(owner.runs[protocol, owner.seeds(protocol)[0]])
            which = left_out_mask(scores, row)
            others = scores.attacks & ~which
            lines.append((TextCell(described(row.config.leave_out_species) if owner is row else "", strong=True),
                          TextCell(row.method), TextCell(column_title(protocol)), TextCell(title),
                          _rate_or_none(scores, which), _rate_or_none(scores, others),
                          TextCell(rate_text(_refused(scores))), TextCell(_auc_text(scores, which))))
    if not lines:
        return None
    return TextTable(
        caption="Leave one family of species out of training and validation: errors on that family. "
                f"{BY_VIDEO}; of AUC, family against bona fide, by subjects drawn anew. The line below each "
                f"is the same training with that family. {describe_runs(list(rows.values()))}",
        header=("left out", "method", "protocol", "the family was", "APCER % of it", "APCER % of others", "BPCER %",
                "AUC % of it"), rows=tuple(lines), words=4)


def left_out_species_table(collection: Collection) -> TextTable | None:
    """The same by species: each in the run that never saw it, beside the run that did."""
    lines, rows = [], {}
    for row, reference, protocol in family_pairs(collection):
        scores = scores_of(row.runs[protocol, row.seeds(protocol)[0]])
        seen = scores_of(reference.runs[protocol, reference.seeds(protocol)[0]]) if reference else None
        rows[row.label] = row
        names = np.unique(scores.shown.species[left_out_mask(scores, row)]).tolist()
        for number, name in enumerate(names):
            lines.append((TextCell(described(row.config.leave_out_species) if number == 0 else "", strong=True),
                          TextCell(row.method), TextCell(name),
                          _rate_or_none(scores, scores.attacks & (scores.shown.species == name)),
                          TextCell("not run", faint=True) if seen is None else
                          _rate_or_none(seen, seen.attacks & (seen.shown.species == name))))
    if not lines:
        return None
    return TextTable(
        caption=f"APCER in % of each species left out. {BY_VIDEO}. {describe_runs(list(rows.values()))}",
        header=("left out", "method", "species", "never seen", "trained on"), rows=tuple(lines), words=3)


def _rate_or_none(scores: HonestScores, which: NDArray[np.bool_]) -> TextCell:
    if not which.any():
        return TextCell("none tested", faint=True)
    rate = scores.accepted(which)
    return TextCell(rate_text(rate), shade=rate.rate)


def _auc_text(scores: HonestScores, which: NDArray[np.bool_]) -> str:
    if not which.any():
        return "none tested"
    by_frame = scores.table.live | np.isin(scores.table.species, np.unique(scores.shown.species[which]))
    shown = scores.table.rows(by_frame).presentations(Unit.VIDEO)
    interval = bootstrap_by_subject(shown, scores.choice.threshold).auc
    return f"{100 * auc(roc(shown.score, shown.live)):.1f} {interval_text(interval)}".rstrip()
