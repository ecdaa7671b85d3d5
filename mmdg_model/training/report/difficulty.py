"""Is the benchmark as hard as it should be? The plain late-fusion ViT against bounds fixed before anything was trained.

A simulator on which everything is solved teaches nothing, and one on which nothing is learnt measures nothing: on
people of its own data set a plain ViT should err in at most 5 %, on a data set that it has not seen in 15 to 40 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.error_rates import Unit
from mmdg_model.training.evaluation import Column
from mmdg_model.training.evaluation_table import TITLES
from mmdg_model.training.protocols import Scenario
from mmdg_model.training.report.run_kinds import Held, is_whole, protocols_of
from mmdg_model.training.report.run_results import Collection
from mmdg_model.training.report.summary import summarise
from mmdg_model.training.report.tables import TextCell, TextTable, column_title, describe_runs

#: The method that difficulty is judged with.
METHOD = "vit_late"
#: HTER in per cent, both ends allowed, at the honest column by video.
BOUNDS = {Held.PEOPLE: (0.0, 5.0), Held.DOMAIN: (15.0, 40.0)}


@dataclass(frozen=True, kw_only=True)
class DifficultyLine:
    """One bound. `hter` in per cent by column, None where nothing was run; `low`, `high` of the bound.

    `runs` that it is the mean of; `below_chance`: those that the permutation test does not tell from knowing nothing.
    """

    what: str
    kind: Held
    hter: dict[Column, float] | None
    low: float
    high: float
    runs: int = 0
    below_chance: int = 0

    @property
    def verdict(self) -> str:
        """`met`, `missed: easier` or `harder than allowed`, or `not run`."""
        if self.hter is None:
            return "not run"
        honest = self.hter[Column.HONEST]
        if honest < self.low:
            return "missed: easier than allowed"
        return "met" if honest <= self.high else "missed: harder than allowed"


def difficulty_lines(collection: Collection) -> list[DifficultyLine]:
    """Each test of the plain ViT, and the mean over tests of a kind; a kind that was not run has a line, too."""
    rows = [row for row in collection.rows if row.method == METHOD and is_whole(row)]
    lines = []
    for kind, (low, high) in BOUNDS.items():
        found: list[dict[Column, float]] = []
        for protocol in protocols_of(collection, kind):
            for row in (each for each in rows if each.seeds(protocol)):
                hter = {column: cell.hter.mean for column in Column
                        if (cell := summarise(row, ((protocol, Scenario.COMPLETE),), column, Unit.VIDEO)) is not None}
                tests = [row.runs[protocol, seed].evaluation.significance for seed in row.seeds(protocol)]
                found.append(hter)
                lines.append(DifficultyLine(
                    what=column_title(protocol), kind=kind, hter=hter, low=low, high=high, runs=len(tests),
                    below_chance=sum(not test.above_chance for test in tests)))
        mean = {column: float(np.mean([each[column] for each in found])) for column in Column} if found else None
        lines.append(DifficultyLine(what=f"mean of {len(found)}" if found else "any", kind=kind, hter=mean, low=low,
                                    high=high))
    return lines


def difficulty_table(collection: Collection, lines: Sequence[DifficultyLine]) -> TextTable:
    """The lines with their verdicts."""
    rows = tuple(
        (TextCell(line.what), TextCell(f"other {line.kind}" if line.kind is Held.PEOPLE else f"another {line.kind}"),
         *(TextCell("" if line.hter is None else f"{line.hter[column]:.1f}", strong=column is Column.HONEST)
           for column in Column),
         TextCell(f"at most {line.high:g}" if line.low == 0 else f"{line.low:g} to {line.high:g}"),
         TextCell(line.verdict + (f" ({line.below_chance} of {line.runs} runs not above chance)"
                                  if line.below_chance else ""), strong=line.verdict.startswith("missed")))
        for line in lines)
    return TextTable(
        caption=f"Difficulty: HTER in % of {METHOD} by video, mean over seeds, against bounds that were fixed before "
                "training. The verdict is on the honest column; it is a point figure. "
                f"{describe_runs(collection.rows)}",
        header=("test", "tested on", *(TITLES[column] for column in Column), "bound on honest", "verdict"), rows=rows,
        words=2)
