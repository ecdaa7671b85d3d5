"""Sweeps as curves: sessions and not frames are counted, unscored ones are not forgotten, one threshold is held."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from mmdg_model.training.report.sensitivity import (
    SensitivityError,
    build_sensitivity_report,
    draw_sensitivity,
    held_threshold,
    read_sweep,
    reference_value,
    sensitivity,
    sensitivity_table,
)
from pipeline.commands import app

HEADER = "parameter,value,session,split,label,species,logit,uncertainty_rgb"
#: (session, species): twenty people and ten of each attack.
SESSIONS = [*((f"live-{i}", "bona_fide") for i in range(20)), *((f"print-{i}", "flat_print") for i in range(10)),
            *((f"phone-{i}", "phone_replay") for i in range(10))]


def line(value, session, species, logit, parameter="distance_m"):
    label = "bona_fide" if species == "bona_fide" else "attack"
    return f"{parameter},{value},{session},test,{label},{species},{logit!r},1.0"


def sweep_lines(values=("0.3", "0.5", "1.0"), parameter="distance_m"):
    """Far away everything looks like an attack a little more; at 0.3 half of the people were not found at all."""
    lines = [HEADER]
    for value in values:
        for number, (session, species) in enumerate(SESSIONS):
            if value == "0.3" and species == "bona_fide" and number % 2:
                continue
            level = {"bona_fide": 3.0, "flat_print": -3.0, "phone_replay": 2.5}[species] + 0.01 * number
            level -= 2.0 if value == "1.0" else 0.0
            lines += [line(value, session, species, level + wobble, parameter) for wobble in (-1.0, 1.0)]
    return lines


@pytest.fixture
def path(tmp_path):
    (tmp_path / "distance_m.csv").write_text("\n".join(sweep_lines()) + "\n")
    return tmp_path / "distance_m.csv"


def points_of(table):
    threshold = held_threshold(table, reference_value(table))
    return {(point.value, point.group): point for point in sensitivity(table, threshold)}


def test_frames_of_a_session_are_one_score(path):
    table = read_sweep(path)
    assert (table.parameter, table.values) == ("distance_m", ("0.3", "0.5", "1.0"))
    assert table.names == ["bona_fide", "print", "replay"]
    assert table.logits("0.5", "bona_fide") == pytest.approx(sorted(
        (3.0 + 0.01 * i for i in range(20)), key=lambda logit: f"live-{round(100 * (logit - 3.0))}"))
    assert [table.sessions(name) for name in table.names] == [20, 10, 10]


def test_the_threshold_is_set_at_the_usual_value_and_held(path):
    table = read_sweep(path)
    assert reference_value(table) == "0.5"
    threshold = held_threshold(table, "0.5")
    assert threshold == pytest.approx(3.01)  # one in twenty lies below
    points = points_of(table)
    assert points["0.5", "bona_fide"].errors.count == 1
    assert points["1.0", "bona_fide"].errors.count == 20
    assert points["1.0", "replay"].errors.count == 0


def test_a_session_that_was_not_scored_is_refused_but_never_accepted(path):
    near = points_of(read_sweep(path))["0.3", "bona_fide"]
    assert (near.scored, near.errors.count, near.errors.trials) == (10, 11, 20)
    lines = [each for each in path.read_text().splitlines() if not each.startswith("distance_m,0.3,phone")]
    path.write_text("\n".join(lines) + "\n")
    phones = points_of(read_sweep(path))["0.3", "replay"]
    assert (phones.scored, phones.median, phones.auc) == (0, None, None)
    assert (phones.errors.count, phones.errors.trials) == (0, 10)


def test_quartiles_and_auc_are_of_the_sessions_scored(path):
    point = points_of(read_sweep(path))["0.5", "print"]
    logits = [-3.0 + 0.01 * i for i in range(20, 30)]
    assert (point.low, point.median, point.high) == pytest.approx(tuple(np.quantile(logits, (0.25, 0.5, 0.75))))
    assert point.auc == 1.0


def test_table_and_figure_hold_every_value_and_call_themselves_simulated(path):
    table = read_sweep(path)
    points = sensitivity(table, 3.0)
    text = sensitivity_table(table, points, 3.0)
    assert text.header == ("distance_m", "BPCER bona_fide", "APCER print", "APCER replay")
    assert [row[0].text for row in text.rows] == ["0.3", "0.5", "1.0"]
    assert text.rows[0][1].text == "50.0 [27.2, 72.8] 10/20, 10 scored"
    figure = draw_sensitivity(table, points, 3.0)
    assert figure.png.startswith(b"\x89PNG")
    assert figure.svg.startswith("<svg")
    assert "SIMULATED" in figure.caption
    assert "SIMULATED" in text.caption


def test_words_are_values_too(tmp_path):
    path = tmp_path / "missing.csv"
    path.write_text("\n".join(sweep_lines(("none", "depth"), "missing")) + "\n")
    table = read_sweep(path)
    report = build_sensitivity_report([table], threshold=0.0)
    assert reference_value(table) == "none"
    assert report.sections[0].figures[0].name == "sensitivity-missing"
    assert "given" in report.sections[0].text[0]


@pytest.mark.parametrize(("lines", "says"), [
    (["parameter,value,session"], "no column label, species, logit"),
    ([HEADER], r"the parameters \(no row\)"),
    ([HEADER, line("1", "a", "bona_fide", float("nan"))], "line 2: logit is 'nan'"),
    ([HEADER, line("1", "a", "bona_fide", 1.0), line("1", "b", "print", 1.0, "light")], "'distance_m', 'light'"),
    ([HEADER, line("1", "a", "bona_fide", 1.0).replace("test,bona_fide", "test,attack")], "contradict each other"),
    ([HEADER, line("1", "a", "print", 1.0), line("2", "a", "replay", 1.0)], "line 3: session a is of replay here"),
])
def test_a_table_that_contradicts_itself_is_refused_with_its_place(tmp_path, lines, says):
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(SensitivityError, match=says):
        read_sweep(tmp_path / "t.csv")


def test_no_threshold_is_made_up_where_nobody_live_was_scored(tmp_path):
    (tmp_path / "t.csv").write_text("\n".join([HEADER, line("0.5", "a", "print", 1.0)]) + "\n")
    with pytest.raises(SensitivityError, match=r"no bona fide session was scored at '0\.5'"):
        build_sensitivity_report([read_sweep(tmp_path / "t.csv")])


def test_the_command_writes_the_page_or_says_why_not(path, tmp_path):
    answer = CliRunner().invoke(app, ["sensitivity", str(path), "--out", str(tmp_path / "out")])
    assert answer.exit_code == 0, answer.output
    assert "simulated" in answer.stdout
    assert (tmp_path / "out" / "figures" / "sensitivity-distance_m.png").is_file()
    answer = CliRunner().invoke(app, ["sensitivity", str(tmp_path / "none.csv"), "--out", str(tmp_path / "out")])
    assert answer.exit_code == 1
