"""Score and error rates against one circumstance: distance, tilt, light, noise, a missing modality.

The same people and instruments are filmed again with one circumstance changed (`mmdg simulate sweep`); the table has a
row a scored frame. What counts here is the session: its mean logit against one threshold that is set at the reference
value and held, as a product's threshold is held when the light goes.

A session of which not one frame was scored at a value (no face found, none fit to crop) is in the table at other values
only. It is counted as what it is to a user: bona fide not accepted, an attack not accepted.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.error_rates import Proportion, Unit, auc, checked_threshold, roc
from mmdg_model.training.report.figures import COLOURS, DrawnFigure, canvas, finished
from mmdg_model.training.report.pages import Report, Section
from mmdg_model.training.report.run_kinds import rate_text
from mmdg_model.training.report.tables import SIMULATED, TextCell, TextTable
from mmdg_model.training.scores import BONA_FIDE
from mmdg_model.training.species_families import family_of

#: What a table must have; other columns are left alone.
COLUMNS = ("parameter", "value", "session", "label", "species", "logit")
#: Value of each parameter at which the threshold is set where none is named: what the network was made for.
REFERENCES: Mapping[str, str] = {"distance_m": "0.5", "yaw_deg": "0", "pitch_deg": "0", "light": "1",
                                 "room_infrared": "0", "noise": "1", "missing": "none", "profile": "d4xx"}
#: Bona fide sessions refused at the reference value, at most.
BPCER_LIMIT = 0.05
#: Attacks whose species no family knows.
OTHER = "other attack"


class SensitivityError(ValueError):
    """A table cannot be used; the message quotes the file, the line and the remedy."""


@dataclass(frozen=True, kw_only=True)
class SessionScore:
    """One session at one value. `group`: `bona_fide` or the family of the attack; `logit`: mean over its frames."""

    session: str
    value: str
    group: str
    logit: float


@dataclass(frozen=True, kw_only=True)
class SweepTable:
    """A sweep, by session.

    Attributes:
        parameter: what varied. values: in the table's order. scores: of sessions that were scored at a value.
        groups: of every session that was scored at any value, by name.
    """

    parameter: str
    values: tuple[str, ...]
    scores: tuple[SessionScore, ...]
    groups: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """Groups, bona fide first."""
        return [BONA_FIDE, *sorted(set(self.groups.values()) - {BONA_FIDE})]

    def logits(self, value: str, group: str) -> list[float]:
        """Of the sessions scored, in order of name."""
        return [one.logit for one in sorted(self.scores, key=lambda one: one.session)
                if one.value == value and one.group == group]

    def sessions(self, group: str) -> int:
        """Sessions of a group, scored or not."""
        return sum(each == group for each in self.groups.values())


def read_sweep(path: Path) -> SweepTable:
    """A table of `mmdg simulate sweep`.

    Raises:
        SensitivityError: no such file, missing columns, no rows, several parameters, a logit that is no finite number,
            a label that contradicts its species, or a session with two species.
    """
    logits: dict[tuple[str, str], list[float]] = {}
    values: dict[str, None] = {}
    species: dict[str, str] = {}
    parameters: dict[str, None] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in COLUMNS if name not in (reader.fieldnames or ())]:
                raise SensitivityError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}, as "
                                       "mmdg simulate sweep writes them")
            for row in reader:
                place = f"{path}, line {reader.line_num}"
                logit = _finite(row["logit"], place)
                if (row["label"] == BONA_FIDE) != (row["species"] == BONA_FIDE) or not row["session"]:
                    raise SensitivityError(f"{place}: session {row['session']!r} with label {row['label']!r} and "
                                           f"species {row['species']!r}; they contradict each other")
                if species.setdefault(row["session"], row["species"]) != row["species"]:
                    raise SensitivityError(f"{place}: session {row['session']} is of {row['species']} here and of "
                                           f"{species[row['session']]} before")
                parameters.setdefault(row["parameter"])
                values.setdefault(row["value"])
                logits.setdefault((row["session"], row["value"]), []).append(logit)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SensitivityError(f"{path} cannot be read: {error}") from error
    if len(parameters) != 1 or "" in parameters:
        raise SensitivityError(f"{path} holds the parameters {', '.join(map(repr, parameters)) or '(no row)'}; "
                               "expected one sweep")
    groups = {session: BONA_FIDE if kind == BONA_FIDE else str(family_of(kind) or OTHER)
              for session, kind in species.items()}
    return SweepTable(parameter=next(iter(parameters)), values=tuple(values), groups=groups, scores=tuple(
        SessionScore(session=session, value=value, group=groups[session], logit=float(np.mean(each)))
        for (session, value), each in logits.items()))


def _finite(text: str | None, place: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SensitivityError(f"{place}: logit is {text!r}, expected a finite number")
    return number


def reference_value(table: SweepTable) -> str:
    """The usual value of the parameter if the table has it, else the table's first."""
    usual = REFERENCES.get(table.parameter, "")
    return usual if usual in table.values else table.values[0]


def held_threshold(table: SweepTable, reference: str) -> float:
    """The largest logit that refuses at most `BPCER_LIMIT` of the bona fide sessions scored at a value.

    Raises:
        SensitivityError: no bona fide session was scored there.
    """
    live = sorted(table.logits(reference, BONA_FIDE))
    if not live:
        raise SensitivityError(f"{table.parameter}: no bona fide session was scored at {reference!r}; name another "
                               f"reference value of {', '.join(table.values)}, or a threshold")
    return live[math.floor(BPCER_LIMIT * len(live) + 1e-9)]


@dataclass(frozen=True, kw_only=True)
class SensitivityPoint:
    """One group at one value.

    Attributes:
        scored: sessions with a score. median, low, high: quartiles of their logits; None without any.
        errors: BPCER of bona fide, APCER of attacks, over all sessions of the group.
        auc: of bona fide against the group, of scored sessions; None for bona fide, or without either.
    """

    value: str
    group: str
    scored: int
    median: float | None
    low: float | None
    high: float | None
    errors: Proportion
    auc: float | None


def sensitivity(table: SweepTable, threshold: float) -> list[SensitivityPoint]:
    """Every group at every value, at one threshold on the session's mean logit (accept is >=).

    Raises:
        ValueError: a threshold that is NaN.
    """
    checked_threshold(threshold)
    points = []
    for value in table.values:
        live = table.logits(value, BONA_FIDE)
        for group in table.names:
            logits, sessions = table.logits(value, group), table.sessions(group)
            if not sessions:
                continue
            accepted = sum(logit >= threshold for logit in logits)
            low, median, high = np.quantile(logits, (0.25, 0.5, 0.75)) if logits else (None, None, None)
            points.append(SensitivityPoint(
                value=value, group=group, scored=len(logits), median=_number(median), low=_number(low),
                high=_number(high), auc=None if group == BONA_FIDE or not live or not logits else auc(
                    roc([*live, *logits], [True] * len(live) + [False] * len(logits))),
                errors=Proportion(count=sessions - accepted if group == BONA_FIDE else accepted, trials=sessions,
                                  unit=Unit.VIDEO)))
    return points


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def sensitivity_table(table: SweepTable, points: Sequence[SensitivityPoint], threshold: float) -> TextTable:
    """BPCER and APCER by family, a row a value."""
    by_place = {(point.value, point.group): point for point in points}
    groups = [name for name in table.names if table.sessions(name)]
    rows = tuple((TextCell(value), *(_cell(by_place[value, group]) for group in groups)) for value in table.values)
    return TextTable(
        caption=f"{SIMULATED}. Errors in % of sessions against {table.parameter}, at one threshold ({threshold:.3f} on "
                "the mean logit of a session); exact 95 % intervals. A session that could not be scored is bona fide "
                "refused, or an attack not accepted; how many were scored stands behind.",
        header=(table.parameter, *(f"{'BPCER' if group == BONA_FIDE else 'APCER'} {group}" for group in groups)),
        rows=rows)


def _cell(point: SensitivityPoint) -> TextCell:
    against = "" if point.auc is None else f", AUC {100 * point.auc:.0f}"
    return TextCell(f"{rate_text(point.errors)}{against}, {point.scored} scored", shade=point.errors.rate)


def draw_sensitivity(table: SweepTable, points: Sequence[SensitivityPoint], threshold: float) -> DrawnFigure:
    """Scores (median and quartiles of sessions) and error rates (exact intervals) against the parameter.

    Raises:
        ModuleNotFoundError: without matplotlib.
    """
    places = _places(table.values)
    numeric = places is not None
    ticks = np.arange(len(table.values), dtype=np.float64) if places is None else np.array(places)
    at = dict(zip(table.values, ticks, strict=True))
    width = 0.012 * float(np.ptp(ticks)) if len(ticks) > 1 else 0.02
    with canvas(1, 2, width=10.4, height=4.2) as (figure, axes):
        for number, group in enumerate(name for name in table.names if table.sessions(name)):
            own = [point for point in points if point.group == group]
            shift = (number - (len(table.names) - 1) / 2) * width
            style = {"color": COLOURS[number % len(COLOURS)], "label": group, "marker": "o", "markersize": 4,
                     "linewidth": 1.3, "capsize": 2, "linestyle": "-" if numeric else "none"}
            seen = [point for point in own if point.median is not None]
            middle = np.array([point.median for point in seen], dtype=np.float64)
            spread = [middle - np.array([point.low for point in seen], dtype=np.float64),
                      np.array([point.high for point in seen], dtype=np.float64) - middle]
            axes[0].errorbar([at[point.value] + shift for point in seen], middle, yerr=spread, **style)
            rate = 100 * np.array([point.errors.rate for point in own])
            bounds = [point.errors.exact_interval() for point in own]
            axes[1].errorbar([at[point.value] + shift for point in own], rate, **style,
                             yerr=[rate - 100 * np.array([bound.low for bound in bounds]),
                                   100 * np.array([bound.high for bound in bounds]) - rate])
        axes[0].axhline(threshold, color="0.6", linewidth=0.8, linestyle=":")
        axes[0].set(title="mean logit of a session: median, quartiles", xlabel=table.parameter)
        axes[1].set(title="sessions in error (%): BPCER, APCER by family", xlabel=table.parameter, ylim=(-3, 103))
        for axis in axes:
            axis.set_xticks(ticks, table.values)
            axis.grid(color="0.92")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
        return finished(
            figure, f"sensitivity-{table.parameter}", f"{SIMULATED}. Scores and errors against {table.parameter}; "
            "dotted: the threshold. Bars: quartiles of sessions on the left, exact 95 % intervals on the right. Groups "
            "are moved apart sideways a little.", simulated=True)


def _places(values: Sequence[str]) -> list[float] | None:
    """The values as numbers; None where one is a word."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def build_sensitivity_report(tables: Sequence[SweepTable], *, threshold: float | None = None) -> Report:
    """A section a sweep. `threshold`: on the mean logit, for all; by default set at each sweep's reference value.

    Raises:
        SensitivityError: see `held_threshold`. ModuleNotFoundError: without matplotlib.
    """
    sections = []
    for table in tables:
        reference = reference_value(table)
        limit = held_threshold(table, reference) if threshold is None else threshold
        points = sensitivity(table, limit)
        how = (f"The threshold refuses at most {100 * BPCER_LIMIT:.0f} % of the bona fide sessions scored at "
               f"{table.parameter} {reference}, and is held." if threshold is None else "The threshold was given.")
        sections.append(Section(title=f"Against {table.parameter}", text=(how,),
                                tables=(sensitivity_table(table, points, limit),),
                                figures=(draw_sensitivity(table, points, limit),)))
    return Report(title="Sensitivity (simulated data)", warnings=(
        f"{SIMULATED}. Simulated people, instruments and sensors; nothing here says anything of real ones.",),
        sections=tuple(sections))
