"""Anchors: what later papers print on the same protocols. Nothing of it was run here."""

from __future__ import annotations

from mmdg_model.training.later_results import LATER_RESULTS, WITHOUT_FIGURES
from mmdg_model.training.paper_grids import LATER_METHODS, why_absent
from mmdg_model.training.published_results import TABLES
from mmdg_model.training.report.run_results import Collection
from mmdg_model.training.report.tables import SIMULATED, TextCell, TextTable, column_title


def later_table(number: int, *, simulated: bool = False) -> TextTable | None:
    """Later published figures on the protocol of one of the paper's tables; None where there are none.

    `simulated`: whether our figures beside them are, which the caption then says.
    """
    rows = LATER_RESULTS.get(number)
    if not rows:
        return None
    columns = TABLES[number].columns
    mmdg = TABLES[number].rows[-1]
    lines = [(TextCell("MMDG", strong=True), TextCell("the paper itself, CVPR 2024"),
              *(TextCell(str(mmdg.cells[column])) for column in columns))]
    lines += [(TextCell(row.title, strong=True), TextCell(row.source),
               *(TextCell(str(row.cells[column])) for column in columns)) for row in rows]
    beside = f" Our figures above are of {SIMULATED} and may not be set against them." if simulated else ""
    return TextTable(
        caption=f"Anchors: later published figures on the protocol of Table {number}, HTER / AUC in %, on the real "
                "data sets. None of them was computed here; how each chose epoch and threshold is theirs. Without "
                f"figures: {'; '.join(WITHOUT_FIGURES)}.{beside}",
        header=("method", "printed by", *map(column_title, columns)), rows=tuple(lines), words=2)


def later_lines(collection: Collection) -> list[str]:
    """Methods of later papers that were not run here, and why."""
    ran = {row.method for row in collection.rows}
    return [f"{name}, a later method: {why_absent(name)}" for name in LATER_METHODS
            if name not in ran]
