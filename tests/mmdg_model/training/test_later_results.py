"""Later published figures: averages against their own columns, and where each was printed."""

from __future__ import annotations

import pytest

from mmdg_model.training.later_results import LATER_RESULTS
from mmdg_model.training.published_results import AVERAGE, TABLES
from mmdg_model.training.report.later_table import later_table

#: Printed averages that are not the mean of their row's columns; each says so, or is of MMDA's AUC.
NOT_THE_MEAN = {("MMDGFAS", "hter"), ("MMDA", "auc")}


@pytest.mark.parametrize(("number", "row"), [(number, row) for number in (1, 2) for row in LATER_RESULTS[number]],
                         ids=lambda value: getattr(value, "title", value))
@pytest.mark.parametrize("quantity", ["hter", "auc"])
def test_an_average_is_the_mean_of_its_columns_unless_it_is_known_not_to_be(number, row, quantity):
    values = [getattr(row.cells[column], quantity) for column in TABLES[number].columns if column != AVERAGE]
    mean, average = sum(values) / len(values), getattr(row.cells[AVERAGE], quantity)
    if (row.title, quantity) in NOT_THE_MEAN:
        assert abs(average - mean) > 0.011
    else:
        assert average == pytest.approx(mean, abs=0.0101)


def test_every_row_fills_its_tables_columns_and_says_where_it_is_from():
    for number, rows in LATER_RESULTS.items():
        for row in rows:
            assert set(row.cells) == set(TABLES[number].columns)
            assert row.source


def test_anchors_are_said_to_be_none_of_ours():
    caption = later_table(1, simulated=True).caption
    assert "None of them was computed here" in caption
    assert "SIMULATED DATA" in caption
    assert later_table(4) is None
