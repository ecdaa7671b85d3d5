"""The paper's Figs. 1(c), 5 and 6 from our runs: one modality against all fused, backbones swapped, balance of losses.

Each is a page: what the figure shows in the paper, a picture of ours, and the numbers below it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmdg_model.scorer import Modality
from mmdg_model.training.evaluation import Column
from mmdg_model.training.evaluation_table import TITLES
from mmdg_model.training.paper_grids import BACKBONE_SWAPS, BALANCE, FUSED, why_absent
from mmdg_model.training.published_results import AVERAGE, TABLES, Figures
from mmdg_model.training.report.figures import COLOURS, DrawnFigure, canvas, finished, read_series
from mmdg_model.training.report.run_kinds import is_whole, only_modality
from mmdg_model.training.report.run_results import Collection, ReportRow
from mmdg_model.training.report.section import Section
from mmdg_model.training.report.summary import Cell, cell_parts, summarise
from mmdg_model.training.report.tables import TextCell, TextTable, column_title, describe_runs

_COLUMNS = (*TABLES[1].columns,)
_BACKBONES = ("own backbone", "ViT", "ViT + U-Adapter")
_ONE_AND_ALL = ("The paper's Fig. 1(c) sets networks of one modality against their fusion on unseen domains. Its "
                "values are not printed as numbers. Ours: the same method trained, validated and tested with one "
                "modality alone (the others absent from every sample), and with all three; beside it the other ways of "
                "fusing.")
_SWAPS = ("The paper's Fig. 5 gives rival methods first a plain ViT and then ViT + U-Adapter in place of their own "
          "backbone, to say how much of the gain the adapters bring by themselves.")
_BALANCE = ("The paper's Fig. 6 follows the variance of the modalities' SSP losses over training and finds it smaller "
            "with ReGrad: the modalities converge more evenly. Ours is read from each run's log of metrics; curves of "
            "the losses themselves stand under SSP losses.")
_SHOWN = (Column.HONEST, Column.ORACLE_BEST)


def _whole_rows(collection: Collection, method: str) -> list[ReportRow]:
    return [row for row in collection.rows if row.method == method and is_whole(row)]


def _cell(row: ReportRow, name: str, column: Column) -> Cell | None:
    return summarise(row, cell_parts(1, name), column)


def _text(cell: Cell | None) -> str:
    return "not run" if cell is None else f"{cell.hter} / {cell.auc} {cell.hter.interval()}".rstrip()


# ---- Fig. 1(c) ----

def one_and_all(collection: Collection) -> Section | None:
    """Networks of one modality beside those that fuse all; None unless both were run on one training."""
    single = sorted((row for row in collection.rows if only_modality(row) is not None),
                    key=lambda row: (row.method, [only_modality(row) is modality for modality in Modality][::-1]))
    methods = {row.method for row in single}
    fused = [row for row in collection.rows if is_whole(row) and row.method in {*FUSED, *methods}]
    names = [name for name in _COLUMNS if any(_cell(row, name, Column.HONEST) for row in single)
             and any(_cell(row, name, Column.HONEST) for row in fused)]
    if not names:
        return None
    rows = [*single, *fused]
    labels = [_one_label(row) for row in rows]
    lines = [(TextCell(label, strong=True), TextCell(TITLES[column]),
              *(TextCell(_text(_cell(row, name, column))) for name in names))
             for row, label in zip(rows, labels, strict=True) for column in _SHOWN]
    table = TextTable(
        caption="One modality against all of them fused: HTER / AUC in %, by frame; brackets: 95 % interval of HTER. "
                f"{describe_runs(rows)}", header=("input", "", *map(column_title, names)), rows=tuple(lines), words=2)
    with canvas(1, 2, width=10.4, height=4.0) as (figure, axes):
        for axis, column in zip(axes, _SHOWN, strict=True):
            _bars(axis, names, labels, [[_cell(row, name, column) for name in names] for row in rows])
            axis.set(ylabel="HTER (%)", title=TITLES[column], xticks=range(len(names)))
            axis.set_xticklabels(list(map(column_title, names)))
        _legend(figure, axes[0], len(labels))
        drawn = _finished(figure, "fig-1c", rows, "HTER of networks that were given one modality and of networks that "
                          "were given all; whiskers: 95 % interval.")
    return Section(title="Fig. 1(c): one modality against all fused", page="fig-1c", tables=(table,), figures=(drawn,),
                   text=(_ONE_AND_ALL,))


def _one_label(row: ReportRow) -> str:
    modality = only_modality(row)
    return f"{row.method}, {modality} only" if modality is not None else f"{row.label}, all fused"


# ---- Fig. 5 ----

def backbone_swaps(collection: Collection) -> Section | None:
    """Methods on their own backbone, on a plain ViT, on ViT + U-Adapter; None where no swapped row was run."""
    ran = {(method, backbone): rows[0]
           for method, names in BACKBONE_SWAPS.items() for backbone, name in zip(_BACKBONES, names, strict=True)
           if (rows := _whole_rows(collection, name)) and _swap_column(rows[0]) is not None}
    if not ran:
        return None
    column_name = AVERAGE if any(_cell(row, AVERAGE, Column.HONEST) for row in ran.values()) else next(
        name for row in ran.values() if (name := _swap_column(row)))
    lines = []
    for method, names in BACKBONE_SWAPS.items():
        for backbone, name in zip(_BACKBONES, names, strict=True):
            if not name:
                continue
            row = ran.get((method, backbone))
            ours = ([_text(_cell(row, column_name, column)) for column in _SHOWN] if row is not None
                    else [why_absent(name)] * len(_SHOWN))
            printed = _printed(name) if column_name == AVERAGE else None
            lines.append((TextCell(method, strong=True), TextCell(backbone),
                          TextCell(str(printed) if printed else "", faint=True),
                          *(TextCell(text, faint=row is None) for text in ours)))
    for name in ("u_adapter", "mmdg"):
        for row in _whole_rows(collection, name)[:1]:
            printed = _printed(name) if column_name == AVERAGE else None
            lines.append((TextCell(row.label, strong=True), TextCell("ViT + U-Adapter"),
                          TextCell(str(printed) if printed else "", faint=True),
                          *(TextCell(_text(_cell(row, column_name, column))) for column in _SHOWN)))
    rows = list(ran.values())
    where = "mean over Protocol 1" if column_name == AVERAGE else column_title(column_name)
    table = TextTable(
        caption=f"Backbones swapped, {where}: HTER / AUC in %, by frame; brackets: 95 % interval of HTER. The paper "
                "prints numbers of the first (Table 1) and the last backbone (Table 4); its bars on a plain ViT are "
                f"not printed. {describe_runs(rows)}",
        header=("method", "backbone", "paper", *(TITLES[column] for column in _SHOWN)), rows=tuple(lines), words=2)
    methods = [method for method in BACKBONE_SWAPS if any(place[0] == method for place in ran)]
    with canvas(1, 2, width=10.4, height=4.0) as (figure, axes):
        for axis, column in zip(axes, _SHOWN, strict=True):
            cells = [[_cell(ran[method, backbone], column_name, column) if (method, backbone) in ran else None
                      for method in methods] for backbone in _BACKBONES]
            _bars(axis, methods, _BACKBONES, cells)
            axis.set(ylabel="HTER (%)", title=TITLES[column], xticks=range(len(methods)))
            axis.set_xticklabels(methods)
        _legend(figure, axes[0], len(_BACKBONES))
        drawn = _finished(figure, "fig-5", rows, f"HTER on three backbones, {where}; whiskers: 95 % interval; an "
                          "absent bar was not run.")
    return Section(title="Fig. 5: backbones swapped", page="fig-5", tables=(table,), figures=(drawn,),
                   text=(_SWAPS,))


def _swap_column(row: ReportRow) -> str | None:
    return next((name for name in reversed(_COLUMNS) if _cell(row, name, Column.HONEST) is not None), None)


def _printed(method: str) -> Figures | None:
    """The paper's average over Protocol 1, from Table 4, else Table 1."""
    return next((row.cells[AVERAGE] for number in (4, 1) if (row := TABLES[number].row_of(method)) is not None), None)


# ---- Fig. 6 ----

def balance(collection: Collection) -> Section | None:
    """Variance over modalities of the SSP losses, and of the prototypes, without and with ReGrad; None without logs.

    The numbers are means over a whole training; the difference is of the same protocol and seed.
    """
    rows = {name: found[0] for name in BALANCE if (found := _whole_rows(collection, name))}
    variances = {name: _variances(row) for name, row in rows.items()}
    if not any(variances.values()):
        return None
    lines, differences = [], []
    places = sorted({place for found in variances.values() for place in found})
    for place in places:
        values = [variances.get(name, {}).get(place) for name in BALANCE]
        difference = None if None in values else float(values[1]) - float(values[0])  # type: ignore[arg-type]
        if difference is not None:
            differences.append(difference)
        lines.append((TextCell(column_title(place[0])), TextCell(str(place[1])),
                      *(TextCell("not run" if value is None else f"{value:.4f}") for value in values),
                      TextCell("" if difference is None else f"{difference:+.4f}")))
    said = (f"{sum(one < 0 for one in differences)} of {len(differences)} pairs have the smaller variance with ReGrad; "
            f"mean difference {np.mean(differences):+.4f}" if differences else "no pair of runs")
    table = TextTable(
        caption=f"Variance of the SSP loss over the three modalities, mean over the updates in its log: {said}. "
                f"A count, no claim of order. {describe_runs(list(rows.values()))}",
        header=("training", "seed", *BALANCE, "difference"), rows=tuple(lines), words=2)
    return Section(title="Fig. 6: variance of the SSP losses", page="fig-6", tables=(table,),
                   figures=tuple(_prototypes(rows)),
                   text=(_BALANCE,))


def _variances(row: ReportRow) -> dict[tuple[str, int], float]:
    found = {}
    for place, run in row.runs.items():
        series = read_series(run.directory.metrics_file)
        if "ssp/variance" in series:
            found[place] = float(series["ssp/variance"][1].mean())
    return found


def _prototypes(rows: dict[str, ReportRow]) -> list[DrawnFigure]:
    """Of each protocol, first seed: variance of SSP losses and of prototypes over training."""
    figures = []
    protocols = list(dict.fromkeys(protocol for row in rows.values() for protocol, _ in row.runs))
    for protocol in protocols:
        logs = {name: read_series(row.runs[protocol, row.seeds(protocol)[0]].directory.metrics_file)
                for name, row in rows.items() if row.seeds(protocol)}
        if not any("ssp/variance" in log for log in logs.values()):
            continue
        with canvas(1, 2, width=9.6, height=3.6) as (figure, axes):
            for index, (name, log) in enumerate(logs.items()):
                if "ssp/variance" in log:
                    update, value = log["ssp/variance"]
                    axes[0].plot(update, _epochs_mean(value), color=COLOURS[index], label=name, linewidth=1.3)
                kept = [log[key] for key in sorted(log) if key.startswith("prototypes/variance/")]
                if kept and all(len(each[1]) == len(kept[0][1]) for each in kept):
                    axes[1].plot(kept[0][0], np.mean([each[1] for each in kept], axis=0), color=COLOURS[index],
                                 marker="o", markersize=3.5, label=name, linewidth=1.3)
            axes[0].set(xlabel="update", title="variance of SSP losses over modalities")
            axes[1].set(xlabel="update", title="variance of prototypes over domain classes")
            for axis in axes:
                axis.set_ylim(bottom=0)
                axis.grid(color="0.92")
            _legend(figure, axes[0], len(logs))
            figures.append(_finished(figure, f"fig-6-{protocol}", list(rows.values()),
                                     f"Training on the sources of {column_title(protocol)}, first seed, running means "
                                     "over a 25th of the run; prototypes: mean over modalities, once an epoch."))
    return figures


def _epochs_mean(values: Any) -> Any:
    width = max(1, len(values) // 25)
    padded = np.concatenate([np.full(width // 2, values[0]), values, np.full(width - 1 - width // 2, values[-1])])
    return np.convolve(padded, np.full(width, 1 / width), mode="valid")


# ---- drawing ----

def _bars(axis: Any, groups: Sequence[str], series: Sequence[str], cells: Sequence[Sequence[Cell | None]]) -> None:
    """Grouped bars of HTER with whiskers; `cells[series][group]`."""
    width = 0.8 / len(series)
    for index, (name, of_series) in enumerate(zip(series, cells, strict=True)):
        known = [(group, cell.hter) for group, cell in enumerate(of_series) if cell is not None]
        at = [group + (index - (len(series) - 1) / 2) * width for group, _ in known]
        axis.bar(at, [each.mean for _, each in known], width=0.92 * width, label=name,
                 color=COLOURS[index % len(COLOURS)],
                 yerr=[each.half_width or 0.0 for _, each in known], error_kw={"linewidth": 0.8, "ecolor": "0.3"})
    axis.axhline(50, color="0.7", linewidth=0.8)
    axis.set_ylim(bottom=0)
    axis.set_xlim(-0.5, len(groups) - 0.5)


def _legend(figure: Any, axis: Any, entries: int) -> None:
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=min(4, max(1, entries)),
                  frameon=False)


def _finished(figure: Any, name: str, rows: Sequence[ReportRow], caption: str) -> DrawnFigure:
    return finished(figure, name, f"{caption} {describe_runs(rows)}", simulated=any(row.simulated for row in rows))
