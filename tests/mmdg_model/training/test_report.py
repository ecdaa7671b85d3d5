"""The report: rows from runs, cells from seeds, what captions must say, and pages that hold it all."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from calibration.error_rates import Unit
from mmdg_model.scorer import Modality
from mmdg_model.training.benchmark_grid import failure_file
from mmdg_model.training.evaluation import Column
from mmdg_model.training.protocols import PROTOCOL_1, Scenario
from mmdg_model.training.published_results import AVERAGE, TABLES
from mmdg_model.training.report.certainty_pictures import certainty_pictures
from mmdg_model.training.report.figures import det_points, read_series
from mmdg_model.training.report.order_table import compared_pairs, order_table, shortened
from mmdg_model.training.report.pages import Report, Section, build_report, to_html, to_markdown, write_report
from mmdg_model.training.report.paper_figures import backbone_swaps, balance, one_and_all
from mmdg_model.training.report.run_results import ReportError, collect
from mmdg_model.training.report.summary import cell_parts, summarise
from mmdg_model.training.report.tables import (
    TextCell,
    TextTable,
    chance_table,
    missing_lines,
    published_table,
    significance_table,
    species_table,
)
from mmdg_model.training.run_config import InputChoice, MachineConfig, RecipeConfig, RunConfig
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.run_evaluation import evaluate_scores, score_run, write_evaluation
from tests.mmdg_model.training.toy_benchmark import ToyAssembly

P1 = tuple(each.name for each in PROTOCOL_1)


def made(out, root, method, protocol, seed, **changes):
    """A trained, scored and evaluated run on made-up data."""
    assembly, machine = ToyAssembly(), MachineConfig(root=root, lists=root)
    config = RunConfig(method=method, protocol=protocol, seed=seed, recipe=RecipeConfig(epochs=2), **changes)
    config = assembly.survey(config, machine).config
    directory = RunDirectory(out / f"{method}-{protocol}-s{seed}-{config.hash}")
    directory.path.mkdir(parents=True)
    assembly.train(directory, config, machine)
    opened = assembly.open(directory, machine)
    score_run(directory, opened.data, opened.method, score_split=opened.score_split, compute=opened.compute)
    write_evaluation(directory, evaluate_scores(directory, resamples=30, chance_repeats=3))
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """vit_late and mmdg on Protocol 1 with two seeds; mmdg knows nothing of W in this world."""
    base = tmp_path_factory.mktemp("report")
    root = base / "data"
    root.mkdir()
    (root / "toy.json").write_text(json.dumps({"subjects": 6, "rates": {"vit_late": 0.002}}))
    for method in ("vit_late", "mmdg"):
        for protocol in P1:
            for seed in (0, 1):
                made(base / "runs", root, method, protocol, seed)
    return base / "runs"


@pytest.fixture(scope="module")
def collection(runs):
    return collect([runs])


@pytest.fixture(scope="module")
def report(collection):
    return build_report(collection, resamples=100)


def row_of(collection, method):
    return next(row for row in collection.rows if row.method == method)


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


# ---- rows ----

def test_runs_that_differ_in_protocol_and_seed_alone_are_one_row(collection):
    assert [row.label for row in collection.rows] == ["vit_late", "mmdg"]
    assert [sorted(row.runs) for row in collection.rows] == [sorted((p, s) for p in P1 for s in (0, 1))] * 2


def test_other_settings_are_another_row_with_a_name_of_its_own(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    root = tmp_path / "data"
    root.mkdir()
    made(tmp_path / "runs", root, "vit_late", "CPS_W", 0, settings={"regrad": True})
    labels = [row.label for row in collect([tmp_path / "runs"]).rows]
    assert len(set(labels)) == 3
    assert "vit_late (regrad True)" in labels


def test_two_runs_of_one_place_are_refused(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    one = next((tmp_path / "runs").glob("mmdg-CPS_W-s0-*"))
    twin = tmp_path / "runs" / "twin"
    shutil.copytree(one, twin)
    config = dataclasses.replace(RunDirectory(twin).config(), data="another tree")
    (twin / "run.json").write_text(config.to_json())
    values = json.loads((twin / "evaluation.json").read_text())
    (twin / "evaluation.json").write_text(json.dumps(values | {"config_hash": config.hash}))
    with pytest.raises(ReportError, match="two data trees"):
        collect([tmp_path / "runs"])


def test_nothing_to_report_is_said(tmp_path):
    (tmp_path / "run.json").write_text(RunConfig().to_json())
    with pytest.raises(ReportError, match=r"no evaluated run in .* \(1 not finished\)"):
        collect([tmp_path])
    with pytest.raises(ReportError, match="no folder"):
        collect([tmp_path / "missing"])


# ---- cells ----

def test_a_cell_is_the_mean_over_seeds_of_the_mean_over_its_tests(collection):
    row = row_of(collection, "mmdg")
    for quantity in ("hter", "auc"):
        of_seed = [np.mean([100 * getattr(row.runs[p, s].measures(Column.HONEST, Unit.FRAME), quantity) for p in P1])
                   for s in (0, 1)]
        cell = getattr(summarise(row, cell_parts(1, AVERAGE), Column.HONEST), quantity)
        assert cell.mean == pytest.approx(np.mean(of_seed))
        assert cell.spread == pytest.approx(np.std(of_seed, ddof=1))
        assert cell.seeds == 2
        assert cell.half_width > 1.96 * cell.spread / np.sqrt(2)


def test_protocol_2_averages_the_four_networks_by_scenario():
    assert cell_parts(2, "missing_depth") == tuple((p, Scenario.MISSING_DEPTH) for p in P1)
    assert len(cell_parts(2, AVERAGE)) == 12
    assert cell_parts(4, AVERAGE) == cell_parts(1, AVERAGE) == tuple((p, Scenario.COMPLETE) for p in P1)
    assert cell_parts(3, "CW_PS") == (("CW_PS", Scenario.COMPLETE),)


def test_a_seed_that_lacks_a_test_has_no_average(collection):
    row = row_of(collection, "mmdg")
    fewer = dataclasses.replace(row, runs={place: run for place, run in row.runs.items() if place != ("PSW_C", 1)})
    cell = summarise(fewer, cell_parts(1, AVERAGE), Column.HONEST)
    assert (cell.hter.seeds, cell.hter.spread) == (1, None)
    assert summarise(row, cell_parts(3, "CW_PS"), Column.HONEST) is None


# ---- tables ----

def test_each_row_has_the_papers_line_and_all_three_columns(collection):
    lines = texts(published_table(1, collection))
    rivals = 2 * 8
    lines = lines[rivals:]
    assert [line[1].partition(" (simulated")[0] for line in lines] == [
        name for title in ("ViT", "MMDG") for name in (
            f"paper: {title}", "oracle, best epoch", "oracle, last epoch", "honest (source validation)",
            "HTER: oracle best − paper")]
    assert lines[5][2:] == ["12.79 / 93.83", "15.32 / 92.86", "18.95 / 88.64", "29.93 / 76.52", "19.25 / 87.96"]
    assert all(re.fullmatch(r"\d+\.\d\d ± \d+\.\d\d / \d+\.\d\d ± \d+\.\d\d \[-?\d+\.\d, \d+\.\d\]", cell)
               for line in lines if "paper" not in line[1] for cell in line[2:])


def test_rows_that_nobody_ran_stand_with_the_papers_figures_and_the_reason(collection):
    lines = texts(published_table(1, collection))
    assert [line[0] for line in lines[:16:2]] == [
        "SSDG", "SSAN", "IADG", "ViTAF", "MM-CDCN", "CMFL", "ViT+AMA", "VP-FAS"]
    assert lines[0][2] == "26.09 / 82.03"
    assert all(line[1] in ("ours: not run", "ours: not implemented here") and set(line[2:]) == {""}
               for line in lines[1:16:2])
    last = [line for line in missing_lines(collection) if line.startswith("Table 4")]
    assert "ReGrad (conflicted-only) (not run)" in last[0]


def test_every_caption_says_simulated_and_what_the_weights_started_from(report):
    tables = [table for section in report.sections for table in section.tables]
    captions = [table.caption for table in tables] + [f.caption for s in report.sections for f in s.figures]
    assert len(captions) > 10
    assert all("SIMULATED DATA" in caption for caption in captions)
    assert all("random initial weights, all trained" in caption for caption in captions
               if not caption.startswith("Anchors"))


def test_differences_say_whether_data_are_real(collection):
    assert {line[1] for line in texts(published_table(1, collection)) if "oracle best − paper" in line[1]} == {
        "HTER: oracle best − paper (simulated: other faces, no reproduction)"}
    real = dataclasses.replace(collection, rows=tuple(dataclasses.replace(row, runs={
        place: dataclasses.replace(run, evaluation=dataclasses.replace(run.evaluation, simulated=False))
        for place, run in row.runs.items()}) for row in collection.rows))
    table = published_table(1, real)
    assert "SIMULATED" not in table.caption
    assert not any("simulated" in line[1] for line in texts(table))
    _, line = [line for line in texts(table) if "oracle best − paper" in line[1]]
    cell = summarise(row_of(real, "mmdg"), cell_parts(1, "CPS_W"), Column.ORACLE_BEST)
    assert float(line[2].split()[0]) == pytest.approx(cell.hter.mean - 12.79, abs=0.006)


def test_tables_without_runs_are_left_out_and_named(collection):
    assert published_table(3, collection) is None
    missing = missing_lines(collection)
    assert "Table 3: no run of it" in missing
    assert any(line.startswith("Table 4") and "ReGrad (conflicted-only)" in line for line in missing)
    assert any(line.startswith("Table 1") and "SSDG" in line and "MMDG" not in line for line in missing)


def test_what_is_not_finished_and_gaps_in_the_grid_are_named(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    gone = next((tmp_path / "runs").glob("mmdg-CPS_W-s1-*"))
    (gone / "evaluation.json").unlink()
    failed = next((tmp_path / "runs").glob("vit_late-CPW_S-s1-*"))
    (failed / "evaluation.json").unlink()
    failure_file(RunDirectory(failed)).write_text(json.dumps({"error": "TrainingDiverged: at update 7"}))
    lines = missing_lines(collect([tmp_path / "runs"]))
    assert f"{gone.name}: trained, not evaluated" in lines
    assert f"{failed.name}: failed: TrainingDiverged: at update 7" in lines
    assert "mmdg, CPS→W: no evaluated run of seed 1" in lines


def test_runs_not_above_chance_are_marked(collection):
    lines = texts(significance_table(collection))
    assert len(lines) == 16
    for line in lines:
        assert line[5] == ("above chance" if float(line[4]) < 0.01 else "pipeline check, not a result")


def test_species_are_worst_first_with_the_refused_live_below(collection):
    table = species_table(collection, "CPS_W")
    rows = table.rows
    assert {row[0].text for row in rows} == {"print", "replay", "mask", "bona fide refused (BPCER)"}
    assert rows[-1][0].text.startswith("bona fide")
    means = [np.mean([cell.shade for cell in row[2:]]) for row in rows[:-1]]
    assert means == sorted(means, reverse=True)
    assert species_table(collection, "CW_PS") is None


def test_chance_floors_are_listed_by_protocol(collection):
    assert [line[0] for line in texts(chance_table(collection))] == ["CPS→W", "CPW→S", "CSW→P", "PSW→C"]


# ---- who beats whom ----

def test_two_seeds_make_no_order_claim(collection):
    table, refused = order_table(collection)
    assert table is None
    assert refused == ["vit_late and mmdg, Protocol 1: 2 paired seeds; an order claim needs at least 5"]


def test_of_many_rows_only_mmdg_and_the_steps_to_it_are_compared(collection):
    pattern = row_of(collection, "mmdg")
    names = ("ssdg", "ssan", "iadg", "vitaf", "cmfl", "vit_late", "u_adapter", "pmr_u_adapter", "mmdg")
    rows = [dataclasses.replace(pattern, method=name, label=name) for name in names]
    pairs = {frozenset((one.method, other.method)) for one, other in compared_pairs(rows)}
    assert pairs == {frozenset((name, "mmdg")) for name in names[:-1]} | {frozenset(("vit_late", "u_adapter"))}
    assert len(compared_pairs(rows[:4])) == 6


def test_many_refusals_of_one_reason_are_one_line():
    many = [f"a and {index}, Protocol 1: 1 paired seeds; needs 5" for index in range(9)]
    assert shortened([*many, "a and b, Protocol 3: other lists"]) == [
        "9 pairs of rows: 1 paired seeds; needs 5", "a and b, Protocol 3: other lists"]


def test_five_seeds_do(runs, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "toy.json").write_text(json.dumps({"subjects": 6, "rates": {"vit_late": 0.0001}}))
    for method in ("vit_late", "mmdg"):
        for seed in range(5):
            made(tmp_path / "runs", root, method, "CW_PS", seed)
    table, refused = order_table(collect([tmp_path / "runs"]), resamples=200)
    assert refused == []
    assert [(line[3], line[4]) for line in texts(table)] == [
        ("honest (source validation)", "HTER"), ("honest (source validation)", "AUC"), ("oracle, best epoch", "HTER")]
    assert texts(table)[1][2] == "CW→PS alone"
    assert texts(table)[1][8] == "mmdg is better"  # a network that hardly moved against one that learnt


# ---- figures ----

def test_logged_numbers_become_curves_and_missing_ones_gaps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "update", "epoch": 0, "update": 1, "loss/total": 0.5, "ssp/rgb": null}\n'
                    '{"kind": "update", "epoch": 0, "update": 2, "loss/total": 0.4, "ssp/rgb": 1.5}\n'
                    '{"kind": "upda')
    series = read_series(path)
    assert set(series) == {"loss/total", "ssp/rgb"}
    assert series["ssp/rgb"][0].tolist() == [2.0]
    assert series["loss/total"][1].tolist() == [0.5, 0.4]
    assert read_series(tmp_path / "none") == {}


def test_det_axes_are_normal_deviates_and_finite():
    x, y = det_points(np.array([0.0, 0.5, 1.0]), np.array([0.0, 0.841344746, 1.0]), 100, 100)
    assert np.isfinite(x).all()
    assert np.isfinite(y).all()
    assert (x[1], y[1]) == (pytest.approx(0.0), pytest.approx(-1.0, abs=1e-6))


def test_every_protocol_has_its_figures(report):
    figures = [figure for section in report.sections for figure in section.figures]
    assert [figure.name for figure in figures] == [
        f"{kind}-{p}" for kind in ("fig-6", "roc", "training", "ssp") for p in P1]
    assert all(figure.png.startswith(b"\x89PNG") and figure.svg.startswith("<svg") for figure in figures)


# ---- pages ----

def test_the_html_needs_nothing_else_and_runs_nothing(report):
    page = to_html(report)
    assert page.count("<svg") == 16
    assert "<script" not in page
    assert not re.search(r"""(src|href)=["'](?!#)""", re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
    assert not re.findall(r'xlink:href="(?!#)', page)


def test_what_users_wrote_is_escaped():
    table = TextTable(caption="<i>", header=("row",), rows=((TextCell("<b>bold</b>|"),),))
    report = Report(title="t", warnings=(), sections=(Section(title="<s>", tables=(table,), lines=("<u>",)),))
    assert not re.search("<b>|<i>|<s>|<u>", to_html(report))
    assert "&lt;b&gt;bold" in to_html(report)
    assert "<b>bold</b>\\|" in to_markdown(report)


def test_both_pages_hold_every_table_and_their_figures_exist(report, tmp_path):
    text, page = write_report(report, tmp_path / "out")
    markdown, html = text.read_text(), page.read_text()
    for section in report.sections:
        assert f"## {section.title}" in markdown
        for table in section.tables:
            assert table.caption in markdown
    for name in re.findall(r"\(figures/(.*?)\)", markdown):
        assert (tmp_path / "out" / "figures" / name).is_file()
    assert "SIMULATED DATA" in html.split("<h2")[0]
    assert TABLES[1].row_of("mmdg").title in html


def test_each_table_and_figure_of_the_paper_has_a_page_of_its_own(report, tmp_path):
    write_report(report, tmp_path / "out")
    pages = tmp_path / "out" / "pages"
    assert {path.name for path in pages.glob("*.html")} == {
        f"{name}.html" for name in ("table-1", "table-2", "table-4", "fig-6", "fig-7", "not-run")} | {"table-5.html"}
    text = (pages / "fig-6.md").read_text()
    assert "simulated" in text.splitlines()[0]
    assert all((pages / name).is_file() for name in re.findall(r"\((\.\./figures/.*?)\)", text))
    for page in pages.glob("*.html"):
        assert "SIMULATED DATA" in page.read_text()


def test_fig_6_is_the_mean_of_the_logged_variances_and_counts_no_pair_without_a_partner(collection):
    table = balance(collection).tables[0]
    run = row_of(collection, "mmdg").runs["CPS_W", 0]
    variance = read_series(run.directory.metrics_file)["ssp/variance"][1].mean()
    assert texts(table)[0] == ["CPS→W", "0", "not run", f"{variance:.4f}", ""]
    assert "no pair of runs" in table.caption


def test_without_checkpoints_and_data_fig_7_says_so(collection):
    section = certainty_pictures(collection)
    assert section.figures == ()
    assert section.lines[0].startswith("No picture: its checkpoint or its data are not at hand")


def test_fig_1c_and_fig_5_show_what_was_run_and_name_what_was_not(runs, tmp_path):
    assert one_and_all(collect([runs])) is None
    assert backbone_swaps(collect([runs])) is None
    shutil.copytree(runs, tmp_path / "runs")
    root = tmp_path / "data"
    root.mkdir()
    made(tmp_path / "runs", root, "vit_late", "CPS_W", 0, inputs=InputChoice(modalities=(Modality.DEPTH,)))
    for name in ("ssdg", "ssdg_u_adapter"):
        made(tmp_path / "runs", root, name, "CPS_W", 0)
    found = collect([tmp_path / "runs"])
    one = one_and_all(found)
    assert [line[0] for line in texts(one.tables[0])] == [
        label for label in ("vit_late, depth only", "vit_late, all fused", "mmdg, all fused") for _ in range(2)]
    assert one.tables[0].header[2:] == ("CPS→W",)
    depth = next(row for row in found.rows if row.config.inputs.withheld)
    assert texts(one.tables[0])[0][2] == str(cell_text(depth, "CPS_W", Column.HONEST))
    lines = texts(backbone_swaps(found).tables[0])
    assert [line[:2] for line in lines][:3] == [["SSDG", "own backbone"], ["SSDG", "ViT"], ["SSDG", "ViT + U-Adapter"]]
    assert "/" in lines[0][3]
    assert "/" in lines[2][3]
    assert lines[1][3] in ("not run", "not implemented here")
    assert not any("depth" in line[0] for line in texts(published_table(1, found)))


def cell_text(row, protocol, column):
    cell = summarise(row, cell_parts(1, protocol), column)
    return f"{cell.hter} / {cell.auc} {cell.hter.interval()}".rstrip()
