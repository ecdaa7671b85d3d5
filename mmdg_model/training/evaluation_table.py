"""Evaluation reports as text for people and as plain values for files; never fewer than the three columns."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from calibration.error_rates import FixedRatePoint, Interval
from mmdg_model.training.evaluation import Column, ErrorRate, LevelReport, Measures

TITLES = {Column.ORACLE_BEST: "oracle, best epoch", Column.ORACLE_LAST: "oracle, last epoch",
          Column.HONEST: "honest (source validation)"}


def markdown(report: LevelReport) -> str:
    """A Markdown table of one report: measures by row, the three columns, then duplicates and chance floors."""
    everyone, unique, chance = report.columns, report.deduplicated, report.chance
    floors = {Column.ORACLE_BEST: chance.oracle_best, Column.ORACLE_LAST: chance.oracle_last,
              Column.HONEST: chance.honest}
    species = sorted({name for measures in everyone.values() for name in measures.apcer},
                     key=lambda name: (-everyone[Column.HONEST].apcer[name].proportion.rate, name))
    rows = [
        _row("epoch", [str(everyone[column].choice.epoch) for column in Column]),
        _row("threshold set on", [everyone[column].choice.threshold_from for column in Column]),
        _each(everyone, "HTER %", lambda one: _percent(one.hter, one.bootstrap.hter if one.bootstrap else None)),
        _each(everyone, "AUC %", lambda one: _percent(one.auc, one.bootstrap.auc if one.bootstrap else None)),
        _each(everyone, "EER %", lambda one: _percent(one.eer)),
        _each(everyone, "BPCER %", lambda one: _error(one.bpcer)),
        *(_row(f"APCER % {name}", [_error(everyone[column].apcer[name]) for column in Column]) for name in species),
        _each(everyone, "APCER %, worst species", lambda one: _error(next(iter(one.apcer.values())))),
        _each(everyone, "ACER %, of worst species", lambda one: _percent(one.acer)),
    ]
    for name, points in (
            ("BPCER % at APCER {} % of every species *", [everyone[column].bpcer_at_apcer for column in Column]),
            ("BPCER % at pooled APCER {} % *", [everyone[column].bpcer_at_pooled_apcer for column in Column]),
            ("TPR % at FPR {} % *", [everyone[column].tpr_at_fpr for column in Column])):
        rows += [_row(name.format(f"{100 * of_limit[0].limit:g}"), [_fixed(point) for point in of_limit])
                 for of_limit in zip(*points, strict=True)]
    rows += [
        _each(unique, f"HTER %, {report.duplicates} duplicates left out", lambda one: _percent(one.hter)),
        _each(unique, f"AUC %, {report.duplicates} duplicates left out", lambda one: _percent(one.auc)),
        _row("HTER % of random scores (5 % of runs below)",
             [f"{100 * floors[column].hter:.1f} ({100 * floors[column].hter_low:.1f})" for column in Column]),
        _row("AUC % of random scores", [f"{100 * floors[column].auc:.1f}" for column in Column]),
    ]
    context = report.context
    honest = everyone[Column.HONEST]
    lines = [
        f"**{context.method}, {context.protocol}, seed {context.seed}, {report.unit} level, {report.target_subset}**"
        + (" (simulated data)" if report.simulated else ""), "",
        (f"{honest.live} bona fide and {honest.attacks} attack {report.unit}s of {', '.join(report.target_domains)}; "
         f"source validation: {', '.join(report.source_domains)}, {report.source_subset}."), "",
        _row(f"{report.unit} level", [TITLES[column] for column in Column]), "|---|---|---|---|", *rows, "",
        ("Brackets: 95 %; exact on videos for error rates, bootstrap by subject for HTER and AUC with epoch and "
         "threshold held."),
        "\\* threshold set on the target's own scores, in every column.",
        f"Random scores: {chance.repeats} simulated runs of {chance.epochs} epochs on {chance.target_videos} videos.",
    ]
    if honest.bootstrap and not honest.bootstrap.subjects_known:
        lines.append("Some subjects are unknown: their videos were drawn instead, which makes the bootstrap too narrow "
                     "if people appear in several videos.")
    if honest.bootstrap and honest.bootstrap.unavailable:
        lines.append(f"No bootstrap: {honest.bootstrap.unavailable}.")
    return "\n".join(lines) + "\n"


def plain(value: Any) -> Any:
    """A report, or any part of one, as JSON-ready values; an infinite threshold becomes the string "inf"."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "__struct_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, StrEnum):
        return str(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def _each(columns: dict[Column, Measures], title: str, cell: Callable[[Measures], str]) -> str:
    return _row(title, [cell(columns[column]) for column in Column])


def _row(title: str, cells: Sequence[str]) -> str:
    return "| " + " | ".join([title, *cells]) + " |"


def _percent(rate: float, interval: Interval | None = None) -> str:
    return f"{100 * rate:.2f}" + ("" if interval is None else f" [{100 * interval.low:.1f}, {100 * interval.high:.1f}]")


def _error(rate: ErrorRate) -> str:
    counted = f"{rate.proportion.count}/{rate.proportion.trials}"
    return f"{_percent(rate.proportion.rate, rate.interval)}, {counted}"


def _fixed(point: FixedRatePoint) -> str:
    return _percent(point.rate.rate) if point.rate is not None else str(point.unresolved)
