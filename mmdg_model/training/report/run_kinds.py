"""What a run says about generalisation: which of its tests were of something it had not been trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from calibration.error_rates import Interval, Proportion, Unit
from mmdg_model.scorer import Modality
from mmdg_model.training.evaluation import Choice, Column
from mmdg_model.training.protocols import sub_protocol
from mmdg_model.training.report.run_results import Collection, ReportRow, RunResult
from mmdg_model.training.scores import Presentations, ScoreTable, Split, read_scores


class Held(StrEnum):
    """What a test holds that training did not."""

    DOMAIN = "data set"
    PEOPLE = "people"  # data sets that all train: other people only
    MIXED = "some data sets"


def held_out(protocol: str) -> Held:
    """By the protocol's name alone; species and modalities are the row's matter."""
    tested = sub_protocol(protocol)
    new = set(tested.targets) - set(tested.sources)
    return Held.PEOPLE if not new else Held.DOMAIN if new == set(tested.targets) else Held.MIXED


def is_whole(row: ReportRow) -> bool:
    """Whether its runs were given every species of their sources and every modality."""
    return not row.config.leave_out_species and not row.config.inputs.withheld


def only_modality(row: ReportRow) -> Modality | None:
    """The one modality of its runs; None where they were given more, or not every species."""
    given = row.config.inputs.modalities
    return given[0] if len(given) == 1 and not row.config.leave_out_species else None


@dataclass(frozen=True, kw_only=True, eq=False)
class HonestScores:
    """Scores of the target by video at a column's epoch, with its threshold.

    Attributes:
        table: rows by frame. shown: by video. choice: of the column.
    """

    table: ScoreTable
    shown: Presentations
    choice: Choice

    @property
    def attacks(self) -> NDArray[np.bool_]:
        """`bool [videos]`."""
        return ~self.shown.live

    def accepted(self, which: NDArray[np.bool_]) -> Proportion:
        """Of the videos of a mask, those with a score of at least the threshold."""
        return Proportion(count=int((self.shown.score[which] >= self.choice.threshold).sum()),
                          trials=int(which.sum()), unit=Unit.VIDEO)


def scores_of(run: RunResult, column: Column = Column.HONEST) -> HonestScores:
    """Raises `ScoreTableError`, `FileNotFoundError`: the table is damaged or gone."""
    choice = run.evaluation.choice(column, Unit.VIDEO)
    table = read_scores(run.directory.scores_file(Split.TARGET_TEST, choice.epoch))
    return HonestScores(table=table, shown=table.presentations(Unit.VIDEO), choice=choice)


def rows_of(collection: Collection, protocol: str, *, whole: bool = True) -> list[ReportRow]:
    """Rows with a run on a protocol, in order; `whole`: those that `is_whole`."""
    return [row for row in collection.rows if row.seeds(protocol) and (is_whole(row) or not whole)]


def protocols_of(collection: Collection, *kinds: Held) -> list[str]:
    """Protocols of runs that are `is_whole`, in order of first appearance by row."""
    met = dict.fromkeys(protocol for row in collection.rows if is_whole(row) for protocol, _ in row.runs)
    return sorted((name for name in met if held_out(name) in kinds), key=lambda name: (len(name), name))


def first_runs(row: ReportRow) -> Iterator[tuple[str, RunResult]]:
    """Of each protocol the run of the lowest seed."""
    for protocol in dict.fromkeys(name for name, _ in sorted(row.runs)):
        yield protocol, row.runs[protocol, row.seeds(protocol)[0]]


def rate_text(rate: Proportion) -> str:
    """`12.0 [3.3, 27.8] 3/25`: per cent, exact 95 % interval, counts."""
    return f"{100 * rate.rate:.1f} {interval_text(rate.exact_interval())} {rate.count}/{rate.trials}"


def interval_text(interval: Interval | None) -> str:
    """`[3.3, 27.8]` in per cent; empty where there is none."""
    return "" if interval is None else f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
