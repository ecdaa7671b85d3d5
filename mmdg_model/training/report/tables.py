"""The report's tables, as rows of text that a page may lay out in Markdown or HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.error_rates import Unit
from mmdg_model.training.evaluation import Column
from mmdg_model.training.evaluation_table import TITLES
from mmdg_model.training.methods.registry import METHODS
from mmdg_model.training.paper_grids import why_absent
from mmdg_model.training.protocols import Scenario
from mmdg_model.training.published_results import NOT_PUBLISHED, SOURCE, TABLES, PublishedRow, PublishedTable
from mmdg_model.training.report.run_kinds import is_whole
from mmdg_model.training.report.run_results import Collection, ReportRow
from mmdg_model.training.report.summary import cell_parts, summarise
from mmdg_model.training.significance import PIPELINE_CHECK

SIMULATED = "SIMULATED DATA"


@dataclass(frozen=True)
class TextCell:
    """Text, and what a page may make of it: `shade` 0..1 colours it, `strong` stresses it, `faint` takes it back."""

    text: str
    shade: float | None = None
    strong: bool = False
    faint: bool = False


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Caption, header, rows; the first columns are left-aligned words, the others figures."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[TextCell, ...], ...]
    words: int = 1


def column_title(name: str) -> str:
    """`CPS→W`, `missing depth`, `average`."""
    return name.replace("_", "→") if name[:1].isupper() else name.replace("_", " ")


def describe_runs(rows: Sequence[ReportRow]) -> str:
    """What every caption must say: whether data are simulated, and what the weights started from."""
    starts = ", ".join(dict.fromkeys(row.start for row in rows))
    presets = ", ".join(dict.fromkeys(row.config.model.preset for row in rows))
    simulated = (f"{SIMULATED}: no figure of ours says anything of real faces, nor is it a reproduction of the "
                 "paper's. ") if any(row.simulated for row in rows) else ""
    return f"{simulated}Ours: {presets}, {starts}."


def published_table(number: int, collection: Collection) -> TextTable | None:
    """One of the paper's tables, row by row, with ours below each; None where nothing of it was run.

    Rows that nobody ran stand with the paper's figures and the reason.
    """
    published = TABLES[number]
    present = [row for row in collection.rows if is_whole(row) and _has_cells(row, published)
               and (published.row_of(row.method) is not None or row.method in NOT_PUBLISHED or number in (1, 2, 3))]
    if not present or (number >= 4 and not any(published.row_of(row.method) for row in present)):
        return None
    lines: list[tuple[TextCell, ...]] = []
    for theirs in published.rows:
        ours = [row for row in present if row.method in theirs.ours]
        for row in ours:
            lines += _lines_of(row, theirs, published)
        if not ours:
            lines.append((TextCell(_name(theirs)), TextCell(f"paper: {_name(theirs)}", faint=True),
                          *_their_cells(theirs, published)))
            lines.append((TextCell(""), TextCell(f"ours: {why_no_run(theirs)}", faint=True),
                          *(TextCell("", faint=True) for _ in published.columns)))
    for row in present:
        if published.row_of(row.method) is None:
            lines += _lines_of(row, None, published)
    notes = "; ".join(dict.fromkeys(f"{_name(known)}: {known.note}" for row in present
                                    if (known := published.row_of(row.method)) is not None and known.note))
    seeds = sorted({len(row.seeds(protocol)) for row in present for protocol, _ in row.runs})
    caption = (f"Table {number} of {SOURCE}. {published.caption}. HTER / AUC in %, by frame, mean ± standard deviation "
               f"over {' or '.join(map(str, seeds))} seed{'s' if seeds != [1] else ''} (no ± with one). "
               "Brackets: 95 % interval of HTER, from subjects drawn anew"
               + (" and from the spread of seeds" if seeds != [1] else "; the spread of seeds is unknown")
               + f". {describe_runs(present)}" + (f" {notes}." if notes else ""))
    return TextTable(caption=caption, words=2, header=("row", "", *map(column_title, published.columns)),
                     rows=tuple(lines))


def why_no_run(theirs: PublishedRow) -> str:
    """Why no figure of ours stands beside a published row."""
    return "not run" if set(theirs.ours) & set(METHODS) else why_absent(theirs.ours[0] if theirs.ours else "")


def _lines_of(row: ReportRow, theirs: PublishedRow | None, published: PublishedTable) -> list[tuple[TextCell, ...]]:
    """The paper's line, ours in three columns, and the difference."""
    number = published.number
    head = f"paper: {_name(theirs)}" if theirs is not None else "paper: no such row"
    lines = [(TextCell(row.label, strong=True), TextCell(head, faint=True), *_their_cells(theirs, published))]
    lines += [(TextCell(""), TextCell(TITLES[column]),
               *(_our_cell(row, number, name, column) for name in published.columns)) for column in Column]
    if theirs is not None:
        what = " (simulated: other faces, no reproduction)" if row.simulated else ""
        lines.append((TextCell(""), TextCell(f"HTER: oracle best − paper{what}", faint=True),
                      *(_difference(row, theirs, number, name) for name in published.columns)))
    return lines


def _their_cells(theirs: PublishedRow | None, published: PublishedTable) -> tuple[TextCell, ...]:
    return tuple(TextCell("" if theirs is None else str(theirs.cells[column]), faint=True)
                 for column in published.columns)


def _name(row: PublishedRow) -> str:
    return f"{row.group}, {row.title}" if row.group.startswith("ViT") else row.title


def _has_cells(row: ReportRow, published: PublishedTable) -> bool:
    return any(summarise(row, cell_parts(published.number, column), Column.HONEST) is not None
               for column in published.columns)


def _our_cell(row: ReportRow, number: int, name: str, column: Column) -> TextCell:
    cell = summarise(row, cell_parts(number, name), column)
    if cell is None:
        return TextCell("not run", faint=True)
    return TextCell(f"{cell.hter} / {cell.auc} {cell.hter.interval()}".rstrip(), strong=column is Column.HONEST)


def _difference(row: ReportRow, theirs: PublishedRow, number: int, name: str) -> TextCell:
    cell = summarise(row, cell_parts(number, name), Column.ORACLE_BEST)
    if cell is None:
        return TextCell("", faint=True)
    paper = theirs.cells[name].hter
    return TextCell(f"{cell.hter.mean - paper:+.2f} {cell.hter.interval(-paper)}".rstrip(), faint=True)


def significance_table(collection: Collection) -> TextTable:
    """Every run: permutation test, and whether it may be called a result."""
    lines = []
    for row in collection.rows:
        for (protocol, seed), run in sorted(row.runs.items()):
            test = run.evaluation.significance
            lines.append((TextCell(row.label), TextCell(column_title(protocol)), TextCell(str(seed)),
                          TextCell(f"{100 * test.auc:.1f}"), TextCell(f"{test.p:.4f}"),
                          TextCell("above chance" if test.above_chance else PIPELINE_CHECK,
                                   strong=not test.above_chance)))
    permutations = ", ".join(str(one) for one in sorted({run.evaluation.significance.permutations
                                                        for row in collection.rows for run in row.runs.values()}))
    return TextTable(
        caption=f"Does a run know anything of its target? AUC by video at the honest epoch against {permutations} "
                "permutations of labels among people; p of 0.01 or more makes a run a check of the pipeline, not a "
                f"result. {describe_runs(collection.rows)}",
        header=("row", "protocol", "seed", "AUC %", "p", "says"), rows=tuple(lines), words=2)


def chance_table(collection: Collection) -> TextTable:
    """What random scores would have reported, by protocol and column."""
    lines = []
    for protocol in collection.protocols:
        run = next(row.runs[place] for row in collection.rows for place in row.runs if place[0] == protocol)
        floors = run.evaluation.levels[Scenario.COMPLETE][Unit.FRAME].chance
        lines.append((TextCell(column_title(protocol)), TextCell(str(floors.target_videos)),
                      TextCell(str(floors.epochs)),
                      *(TextCell(f"{100 * floor.hter:.1f} ({100 * floor.hter_low:.1f}) / {100 * floor.auc:.1f}")
                        for floor in (floors.oracle_best, floors.oracle_last, floors.honest))))
    return TextTable(
        caption="HTER / AUC in % that scores which know nothing would report (in brackets: one run in twenty is "
                f"below), for the number of videos and epochs of the first row. {describe_runs(collection.rows)}",
        header=("protocol", "videos", "epochs", *(TITLES[column] for column in Column)), rows=tuple(lines))


def species_table(collection: Collection, protocol: str) -> TextTable | None:
    """APCER by species at the honest epoch and threshold, by video, and BPCER; mean over seeds."""
    rows = [row for row in collection.rows if row.seeds(protocol)]
    if not rows:
        return None
    rates: dict[str, dict[str, float]] = {}
    trials: dict[str, int] = {}
    for row in rows:
        for seed in row.seeds(protocol):
            measures = row.runs[protocol, seed].measures(Column.HONEST, Unit.VIDEO)
            assert measures is not None
            for species, rate in measures.apcer.items():
                trials[species] = rate.proportion.trials
    for row in rows:
        found = [row.runs[protocol, seed].measures(Column.HONEST, Unit.VIDEO) for seed in row.seeds(protocol)]
        rates[row.label] = {
            species: float(np.mean([one.apcer[species].proportion.rate for one in found if one and species in one.apcer]
                                   or [np.nan])) for species in trials}
        rates[row.label]["bona fide"] = float(np.mean([one.bpcer.proportion.rate for one in found if one]))
    first = rows[0].runs[protocol, rows[0].seeds(protocol)[0]].evaluation.levels[Scenario.COMPLETE][Unit.VIDEO]
    live = first.columns[Column.HONEST].live
    worst_first = sorted(trials, key=lambda species: -np.nanmean([rates[row.label][species] for row in rows]))
    lines = [(TextCell(species), TextCell(str(trials[species])),
              *(TextCell("" if np.isnan(rates[row.label][species]) else f"{100 * rates[row.label][species]:.1f}",
                         shade=None if np.isnan(rates[row.label][species]) else rates[row.label][species])
                for row in rows)) for species in worst_first]
    lines.append((TextCell("bona fide refused (BPCER)", strong=True), TextCell(str(live)),
                  *(TextCell(f"{100 * rates[row.label]['bona fide']:.1f}", shade=rates[row.label]["bona fide"])
                    for row in rows)))
    return TextTable(
        caption=f"APCER in % by attack species on {column_title(protocol)}, worst first, at the honest epoch and "
                f"threshold, by video, mean over seeds. {describe_runs(rows)}",
        header=("species", "videos", *(row.label for row in rows)), rows=tuple(lines))


def configuration_table(collection: Collection) -> TextTable:
    """What each row is."""
    lines = []
    for row in collection.rows:
        config = row.config
        settings = ", ".join(f"{name} = {value}" for name, value in sorted(config.settings.items())) or "defaults"
        changes = ", ".join(f"{name} = {value}" for name, value in sorted(config.model.changes.items()))
        updates = sorted({_updates(run.directory.done_file) for run in row.runs.values()} - {""})
        lines.append((TextCell(row.label, strong=True), TextCell(settings),
                      TextCell(config.model.preset + (f" ({changes})" if changes else "")), TextCell(row.start),
                      TextCell(f"{config.optimiser.name}, rate {config.optimiser.learning_rate:g}, decay "
                               f"{config.optimiser.weight_decay:g}, batch {config.recipe.batch_size}, "
                               f"{config.recipe.epochs} epochs, {config.precision}"),
                      TextCell(", ".join(updates)), TextCell(row.key)))
    return TextTable(caption=f"The rows. {describe_runs(collection.rows)}",
                     header=("row", "settings", "network", "start", "training", "updates", "hash"), rows=tuple(lines),
                     words=5)


def _updates(path: object) -> str:
    import json
    from pathlib import Path
    try:
        return str(json.loads(Path(str(path)).read_text(encoding="utf-8"))["updates"])
    except (OSError, ValueError, KeyError):
        return ""


def missing_lines(collection: Collection) -> list[str]:
    """What did not run: unfinished runs, gaps in the grid, and rows of the paper that nobody trained."""
    lines = [f"{each.name}: {each.why}" for each in collection.unfinished]
    seeds = {protocol: sorted({seed for row in collection.rows for seed in row.seeds(protocol)})
             for protocol in collection.protocols}
    for row in collection.rows:
        for protocol, wanted in seeds.items():
            if gap := [seed for seed in wanted if seed not in row.seeds(protocol)]:
                lines.append(f"{row.label}, {column_title(protocol)}: no evaluated run of seed "
                             f"{', '.join(map(str, gap))}")
    ran = {row.method for row in collection.rows if is_whole(row)}
    for table in TABLES.values():
        if table.number <= 3 and not any(_has_cells(row, table) for row in collection.rows):
            lines.append(f"Table {table.number}: no run of it")
            continue
        absent = [f"{_name(row)} ({why_no_run(row)})" for row in table.rows if not ran & set(row.ours)]
        if absent:
            lines.append(f"Table {table.number}, rows of the paper without one of ours: {', '.join(absent)}")
    return lines
