"""The report's figures: ROC and DET by target, training curves, SSP losses by modality and their variance (Fig. 6)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from calibration.error_rates import Unit, roc
from mmdg_model.training.evaluation import Column
from mmdg_model.training.report.run_results import Collection, ReportRow, RunResult
from mmdg_model.training.report.tables import SIMULATED, column_title, describe_runs
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.scores import Split, read_scores

#: Okabe and Ito's colours, which colour-blind readers tell apart; black and the pale yellow come last.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
_LINES = ("-", "--", ":", "-.")
_MODALITIES = ("rgb", "depth", "infrared")
#: Panels beside each other; more of them become too small to read in a page.
_MOST_COLUMNS = 3
_DET_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6)
#: Losses are drawn as running means over a 25th of the run, at most 40 updates.
_LONGEST_WINDOW, _WINDOWS = 40, 25
_SMOOTHED = "running means over a 25th of the run, at most 40 updates"

Series = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class DrawnFigure:
    """A figure in both forms; `name` is its file's stem."""

    name: str
    caption: str
    svg: str
    png: bytes


def read_series(path: Path) -> dict[str, Series]:
    """Every logged number of `metrics.jsonl` by name, over updates; numbers that do not exist (null) are left out.

    A line cut off by a kill, or damaged, ends the reading: curves are for looking at.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            break
        update = values.get("update")
        if not isinstance(update, int | float):
            continue
        for name, value in values.items():
            if name not in ("update", "epoch", "kind") and isinstance(value, int | float):
                points.setdefault(name, []).append((float(update), float(value)))
    return {name: (np.array([x for x, _ in found]), np.array([y for _, y in found]))
            for name, found in points.items()}


def det_points(curve_fpr: NDArray[np.float64], curve_tpr: NDArray[np.float64], live: int,
               attacks: int) -> Series:
    """ROC as normal deviates of (APCER pooled, BPCER); rates of 0 and 1, which have none, end half a trial inside."""
    fpr = np.clip(curve_fpr, 0.5 / attacks, 1 - 0.5 / attacks)
    fnr = np.clip(1 - curve_tpr, 0.5 / live, 1 - 0.5 / live)
    return special.ndtri(fpr), special.ndtri(fnr)


def draw_all(collection: Collection) -> list[DrawnFigure]:
    """Every figure that the runs have data for."""
    figures = []
    for protocol in collection.protocols:
        rows = [row for row in collection.rows if row.seeds(protocol)]
        figures.append(_roc_and_det(protocol, rows))
        figures += [figure for figure in (_training(protocol, rows), _ssp(protocol, rows)) if figure is not None]
    return figures


def _roc_and_det(protocol: str, rows: Sequence[ReportRow]) -> DrawnFigure:
    with canvas(1, 2, width=9.6, height=4.6) as (figure, axes):
        left, right = axes
        for index, row in enumerate(rows):
            for order, seed in enumerate(row.seeds(protocol)):
                run = row.runs[protocol, seed]
                shown = _honest_table(run)
                curve = roc(shown.score, shown.live)
                style = _style(index) | {"label": row.label if order == 0 else None, "linewidth": 1.4,
                                         "alpha": 1.0 if len(row.seeds(protocol)) == 1 else 0.55}
                left.plot(100 * curve.fpr, 100 * curve.tpr, **style)
                right.plot(*det_points(curve.fpr, curve.tpr, curve.live, curve.attacks), **style)
        left.plot([0, 100], [0, 100], color="0.7", linewidth=0.8)
        left.set(xlabel="APCER, species pooled (%)", ylabel="bona fide accepted (%)", title="ROC", xlim=(0, 100),
                 ylim=(0, 100))
        left.set_aspect("equal")
        ends = special.ndtri([0.005, 0.7])
        right.plot(ends, -ends, color="0.7", linewidth=0.8)
        ticks = special.ndtri(_DET_TICKS)
        right.set(xlabel="APCER, species pooled (%)", ylabel="BPCER (%)", title="DET", xlim=ends, ylim=ends,
                  xticks=ticks, yticks=ticks)
        for axis in (right.xaxis, right.yaxis):
            axis.set_ticklabels([f"{100 * tick:g}" for tick in _DET_TICKS])
        right.set_aspect("equal")
        legend = figure.legend(*left.get_legend_handles_labels(), loc="outside lower center",
                               ncols=min(4, len(rows)), frameon=False)
        for line in legend.get_lines():
            line.set_alpha(1.0)
        return _drawn(figure, f"roc-{protocol}", rows,
                      f"ROC and DET of {column_title(protocol)} by video, at each run's honest epoch; a line a seed. "
                      "Grey: knowing nothing.")


def _honest_table(run: RunResult) -> Any:
    epoch = run.evaluation.choice(Column.HONEST, Unit.VIDEO).epoch
    return read_scores(run.directory.scores_file(Split.TARGET_TEST, epoch)).presentations(Unit.VIDEO)


def _training(protocol: str, rows: Sequence[ReportRow]) -> DrawnFigure | None:
    curves = _curves(protocol, rows)
    panels = [panel for panel in (("loss/total", "total loss", 1.0), ("loss/cross_entropy", "cross entropy", 1.0),
                                  ("source_validation/hter", "HTER on source validation (%)", 100.0))
              if any(panel[0] in series for _, _, series in curves)]
    if not panels:
        return None
    with canvas(1, len(panels), width=4.2 * len(panels), height=3.9) as (figure, axes):
        for axis, (name, title, scale) in zip(axes, panels, strict=True):
            seen = set()
            for index, row, series in curves:
                if name not in series:
                    continue
                x, y = series[name]
                axis.plot(x, scale * _smoothed(y), marker="o" if len(x) <= 12 else None, markersize=3.5,
                          label=None if row.label in seen else row.label, linewidth=1.3, **_style(index))
                seen.add(row.label)
            axis.set(xlabel="update", title=title)
            axis.set_ylim(bottom=0)
            axis.grid(color="0.92")
        handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(),
                                                                           strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)),
                      frameon=False)
        return _drawn(figure, f"training-{protocol}", rows,
                      f"Training on the sources of {column_title(protocol)}; losses are {_SMOOTHED}; "
                      "a line a seed.")


def _ssp(protocol: str, rows: Sequence[ReportRow]) -> DrawnFigure | None:
    """Of each row's first seed: one panel a row for the losses, and one for all rows' variances."""
    curves = [(index, row, series) for index, row, series in _curves(protocol, rows, first_only=True)
              if any(f"ssp/{name}" in series for name in _MODALITIES)]
    if not curves:
        return None
    columns = min(len(curves) + 1, _MOST_COLUMNS)
    lines = -(-(len(curves) + 1) // columns)
    with canvas(lines, columns, width=3.8 * columns, height=3.8 * lines) as (figure, axes):
        top = max(float(np.max(_smoothed(series[f"ssp/{name}"][1]))) for _, _, series in curves
                  for name in _MODALITIES if f"ssp/{name}" in series)
        for axis, (_, row, series) in zip(axes, curves, strict=False):
            for colour, name in zip(COLOURS, _MODALITIES, strict=False):
                if f"ssp/{name}" in series:
                    x, y = series[f"ssp/{name}"]
                    axis.plot(x, _smoothed(y), color=colour, linewidth=1.3, label=name)
            axis.set(xlabel="update", title=f"SSP loss, {row.label}", ylim=(0, 1.05 * top))
            axis.legend(frameon=False)
            axis.grid(color="0.92")
        variances = axes[len(curves)]
        for index, row, series in curves:
            if "ssp/variance" in series:
                x, y = series["ssp/variance"]
                variances.plot(x, _smoothed(y), label=row.label, linewidth=1.3, **_style(index))
        variances.set(xlabel="update", title="variance over modalities")
        variances.set_ylim(bottom=0)
        variances.legend(frameon=False)
        variances.grid(color="0.92")
        for unused in axes[len(curves) + 1:]:
            unused.set_axis_off()
        return _drawn(figure, f"ssp-{protocol}", [row for _, row, _ in curves],
                      f"SSP loss by modality and its variance over modalities while training on the sources of "
                      f"{column_title(protocol)}, as the paper's Fig. 6; first seed, {_SMOOTHED}.")


def _curves(protocol: str, rows: Sequence[ReportRow], *,
            first_only: bool = False) -> list[tuple[int, ReportRow, Mapping[str, Series]]]:
    return [(index, row, read_series(RunDirectory(row.runs[protocol, seed].directory.path).metrics_file))
            for index, row in enumerate(rows)
            for seed in row.seeds(protocol)[:1 if first_only else None]]


def _smoothed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running mean, the window shortened at both ends."""
    window = min(_LONGEST_WINDOW, len(values) // _WINDOWS)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - window // 2, 0), np.minimum(index + window // 2 + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def _style(index: int) -> dict[str, Any]:
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": _LINES[index // len(COLOURS) % len(_LINES)]}


@contextmanager
def canvas(rows: int, columns: int, *, width: float, height: float) -> Iterator[tuple[Any, Any]]:
    """A figure of so many panels, in inches, and its axes `[rows · columns]`. Raises `ModuleNotFoundError`."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("figures need matplotlib: pip install 'mmdg-live[engine]'",
                                  name="matplotlib") from error
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "mmdg",
                         "axes.titlesize": 10, "svg.fonttype": "path"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis in axes:
            axis.xaxis.get_major_locator().set_params(integer=True)
        yield figure, axes


def _drawn(figure: Any, name: str, rows: Sequence[ReportRow], caption: str) -> DrawnFigure:
    return finished(figure, name, f"{caption} {describe_runs(rows)}", simulated=any(row.simulated for row in rows))


def finished(figure: Any, name: str, caption: str, *, simulated: bool) -> DrawnFigure:
    """The figure in both forms, marked as simulated where it is."""
    if simulated:
        figure.suptitle(SIMULATED.lower(), fontsize=9, color="#a00000")
    svg, png = io.StringIO(), io.BytesIO()
    save: Callable[..., None] = figure.savefig
    save(svg, format="svg", metadata={"Date": None})
    save(png, format="png", dpi=110)
    text = svg.getvalue()
    return DrawnFigure(name=name, caption=caption, svg=text[text.index("<svg"):], png=png.getvalue())
