"""The published tables, checked against themselves and against the registry's rows."""

from __future__ import annotations

import pytest

from mmdg_model.training.published_results import AVERAGE, TABLES

#: Printed averages that are not the mean of their own row's columns to rounding: (table, row, quantity) -> the mean.
NOT_THE_MEAN = {(2, "ViTAF", "auc"): (73.22 + 69.40 + 69.61) / 3}


@pytest.mark.parametrize(("table", "row", "quantity"), [
    (table, row, quantity) for table in (TABLES[1], TABLES[2]) for row in table.rows for quantity in ("hter", "auc")],
    ids=lambda value: getattr(value, "title", getattr(value, "number", value)))
def test_a_printed_average_is_the_mean_of_its_columns_to_rounding(table, row, quantity):
    values = [getattr(row.cells[column], quantity) for column in table.columns if column != AVERAGE]
    mean = sum(values) / len(values)
    printed = getattr(row.cells[AVERAGE], quantity)
    known = NOT_THE_MEAN.get((table.number, row.title, quantity))
    if known is not None:
        assert mean == pytest.approx(known, abs=1e-9)
        assert abs(mean - printed) > 0.0051 + 0.005
    else:
        assert printed == pytest.approx(mean, abs=0.0101)


def test_tables_have_the_papers_sizes():
    assert {number: (len(table.rows), len(table.columns)) for number, table in TABLES.items()} == {
        1: (10, 5), 2: (10, 4), 3: (10, 2), 4: (11, 1), 5: (4, 1)}


def test_the_ablation_tables_agree_on_the_full_network_and_the_first_does_not():
    assert TABLES[4].row_of("mmdg").cells == TABLES[5].row_of("mmdg").cells
    assert TABLES[1].row_of("mmdg").cells[AVERAGE] != TABLES[4].row_of("mmdg").cells[AVERAGE]


@pytest.mark.parametrize(("number", "method", "title"), [
    (1, "mmdg", "MMDG"), (1, "vit_late", "ViT"), (4, "u_adapter", "-"), (4, "vit_late_regrad", "ReGrad"),
    (5, "mmdg_without_certainty", "neither")])
def test_our_rows_stand_beside_the_right_ones(number, method, title):
    assert TABLES[number].row_of(method).title == title


def test_better_than_chance_and_within_range():
    for table in TABLES.values():
        for row in table.rows:
            for figures in row.cells.values():
                assert 0 < figures.hter < 50 < figures.auc < 100


def test_a_row_without_a_published_one_has_none():
    assert TABLES[1].row_of("u_adapter_ssp") is None
