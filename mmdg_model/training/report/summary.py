"""One cell of a table from its runs: mean over seeds, spread between them, and an interval of the mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from calibration.error_rates import Unit
from mmdg_model.training.evaluation import Column
from mmdg_model.training.protocols import PROTOCOL_1, Scenario
from mmdg_model.training.published_results import AVERAGE, TABLES
from mmdg_model.training.report.run_results import ReportRow

_NORMAL_95 = 1.959964

#: What a cell is the mean of: (protocol, scenario).
Parts = tuple[tuple[str, Scenario], ...]


def cell_parts(table: int, column: str) -> Parts:
    """Which tests a cell of a published table averages."""
    first = tuple(each.name for each in PROTOCOL_1)
    if table == 2:
        scenarios = ([Scenario(name) for name in TABLES[2].columns if name != AVERAGE] if column == AVERAGE
                     else [Scenario(column)])
        return tuple((protocol, scenario) for scenario in scenarios for protocol in first)
    return tuple((protocol, Scenario.COMPLETE) for protocol in (first if column == AVERAGE else (column,)))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One quantity in per cent.

    Attributes:
        mean: over seeds.
        spread: standard deviation between seeds; None with one seed.
        half_width: of the 95 % interval of the mean: other people in the test set, and, with several seeds, other
            seeds. None where no subject interval could be computed.
        seeds: how many.
    """

    mean: float
    spread: float | None
    half_width: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" ± {self.spread:.2f}" if self.spread is not None else "")

    def interval(self, shift: float = 0.0) -> str:
        """`[low, high]`, moved by `shift`; empty where unknown."""
        if self.half_width is None:
            return ""
        low, high = self.mean + shift - self.half_width, self.mean + shift + self.half_width
        return f"[{low:.1f}, {high:.1f}]"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """HTER and AUC of one cell, of the same runs."""

    hter: Estimate
    auc: Estimate


def summarise(row: ReportRow, parts: Parts, column: Column, unit: Unit = Unit.FRAME) -> Cell | None:
    """The cell from every seed that has all its parts; None where no seed has."""
    seeds = sorted({seed for _, seed in row.runs})
    complete = [found for seed in seeds if (found := _of_seed(row, seed, parts, column, unit)) is not None]
    if not complete:
        return None
    return Cell(hter=_estimate([found["hter"] for found in complete]),
                auc=_estimate([found["auc"] for found in complete]))


def _of_seed(row: ReportRow, seed: int, parts: Parts, column: Column,
             unit: Unit) -> Mapping[str, tuple[float, float | None]] | None:
    """Mean and half width of the parts, by quantity."""
    values: dict[str, list[float]] = {"hter": [], "auc": []}
    widths: dict[str, dict[str, list[float | None]]] = {"hter": {}, "auc": {}}
    for protocol, scenario in parts:
        run = row.runs.get((protocol, seed))
        measures = run.measures(column, unit, scenario) if run else None
        if measures is None:
            return None
        for quantity in values:
            values[quantity].append(100 * getattr(measures, quantity))
            interval = getattr(measures.bootstrap, quantity) if measures.bootstrap else None
            widths[quantity].setdefault(protocol, []).append(
                50 * (interval.high - interval.low) if interval is not None else None)
    return {quantity: (float(np.mean(values[quantity])), _joined(widths[quantity].values())) for quantity in values}


def _joined(by_protocol: Iterable[Sequence[float | None]]) -> float | None:
    """Half width of a mean over tests: scenarios of one target share its people, targets do not."""
    squares = []
    for widths in by_protocol:
        known = [width for width in widths if width is not None]
        if len(known) != len(widths):
            return None
        squares.append(float(np.mean(known)) ** 2)
    return math.sqrt(sum(squares)) / len(squares)


def _estimate(of_seeds: Sequence[tuple[float, float | None]]) -> Estimate:
    means = [mean for mean, _ in of_seeds]
    widths = [width for _, width in of_seeds if width is not None]
    spread = float(np.std(means, ddof=1)) if len(means) > 1 else None
    half_width = None
    if len(widths) == len(of_seeds):
        between = 0.0 if spread is None else _NORMAL_95 * spread / math.sqrt(len(means))
        half_width = math.hypot(float(np.mean(widths)), between)
    return Estimate(mean=float(np.mean(means)), spread=spread, half_width=half_width, seeds=len(means))
