"""The report on generalisation over runs whose scores are made up, so that what it must say is known."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from calibration.error_rates import Unit
from mmdg_model.scorer import Modality
from mmdg_model.training.protocols import Scenario
from mmdg_model.training.report.difficulty import difficulty_lines
from mmdg_model.training.report.generalisation import build_generalisation_report
from mmdg_model.training.report.left_out_tables import (
    domain_table,
    family_table,
    left_out_species_table,
    species_rates_table,
)
from mmdg_model.training.report.pages import to_html, to_markdown
from mmdg_model.training.report.paired_differences import paired_table
from mmdg_model.training.report.run_kinds import Held, held_out, only_modality, rows_of, scores_of
from mmdg_model.training.report.run_results import collect
from mmdg_model.training.report.single_modality import (
    modality_lines,
    modality_studies,
    modality_table,
    threshold_at_bpcer,
)
from mmdg_model.training.run_config import InputChoice, RunConfig
from mmdg_model.training.run_directory import RunDirectory
from mmdg_model.training.run_evaluation import evaluate_scores, write_evaluation
from mmdg_model.training.scores import Split, subset_name, write_scores
from mmdg_model.training.species_families import FAMILIES, Family
from pipeline.commands import app
from tests.mmdg_model.training.score_builders import context, table_of

SUBJECTS = 24
SPECIES = ("bona_fide", "flat_print", "tablet_replay", "silicone_mask")
ALL = "LW_LW"


def scored_run(out, config, levels, *, subjects=SUBJECTS):
    """A run on disk whose videos of a species score about its level; bona fide about 2."""
    directory = RunDirectory(out / f"{config.method}-{config.protocol}-s{config.seed}-{config.hash}")
    directory.path.mkdir(parents=True)
    directory.config_file.write_text(config.to_json())
    modalities = subset_name(config.inputs.modalities)
    sources, targets = config.protocol.split("_")
    for split, domains in ((Split.SOURCE_VALIDATION, sources), (Split.TARGET_TEST, targets)):
        rng = np.random.default_rng([config.seed, split == Split.TARGET_TEST])
        rows, of_domain = [], []
        for domain in domains:
            for subject in range(subjects):
                for species in SPECIES:
                    if split is Split.SOURCE_VALIDATION and species in config.leave_out_species:
                        continue
                    level = levels.get((species, domain), levels.get(species, -2.0)) if species != "bona_fide" else 2.0
                    if split is Split.SOURCE_VALIDATION:
                        level = 2.0 if species == "bona_fide" else -2.0
                    video = f"{split}-{subject:02}-{species}"
                    rows.append((f"{domain}{video}", video, f"{split}-{subject:02}", species,
                                 level + 0.5 * rng.standard_normal()))
                    of_domain.append(domain)
        path = directory.scores_file(split, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scores(path, table_of(
            rows, domain=np.array(of_domain), modalities=np.full(len(rows), modalities),
            context=context(split, 0, protocol=config.protocol, method=config.method, seed=config.seed)))
    write_evaluation(directory, evaluate_scores(directory, scenarios=[Scenario.COMPLETE], resamples=30,
                                                chance_repeats=3))


def config_of(method, protocol, seed=0, *, without=(), modality=None):
    return RunConfig(method=method, protocol=protocol, seed=seed, leave_out_species=without,
                     inputs=InputChoice(modalities=(modality,) if modality else tuple(Modality)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    hard = {"silicone_mask": 2.0}  # every other mask passes
    for seed in range(5):
        scored_run(out, config_of("mmdg", "CPSW_L", seed), {})
        scored_run(out, config_of("vit_late", "CPSW_L", seed), hard)
    scored_run(out, config_of("u_adapter", "CPSW_L"), hard)
    scored_run(out, config_of("vit_late", "CPS_W"), {})
    scored_run(out, config_of("vit_late", "W_W"), {})
    scored_run(out, config_of("vit_late", "L_L"), hard)
    for method in ("mmdg", "vit_late"):
        scored_run(out, config_of(method, ALL), {})
        scored_run(out, config_of(method, ALL, without=FAMILIES[Family.MASK]),
                   {"silicone_mask": 4.0 if method == "vit_late" else -2.0})
    blind = {Modality.RGB: {"tablet_replay": 2.0, "flat_print": 2.0},
             Modality.DEPTH: {"silicone_mask": 2.0, "tablet_replay": 2.0},
             Modality.INFRARED: {"silicone_mask": 2.0, "flat_print": 2.0,
                                 ("tablet_replay", "W"): -2.0, ("tablet_replay", "L"): -2.0}}
    blind[Modality.DEPTH] |= {(name, "W"): 6.0 for name in SPECIES[1:]}  # in W depth has it the wrong way round
    for modality, levels in blind.items():
        scored_run(out, config_of("vit_late", ALL, modality=modality), levels)
    return out


@pytest.fixture(scope="module")
def collection(runs):
    return collect([runs])


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_what_a_protocol_holds_out():
    assert [held_out(name) for name in ("CPS_W", "CPSW_L", "W_W", ALL, "CW_LW")] == [
        Held.DOMAIN, Held.DOMAIN, Held.PEOPLE, Held.PEOPLE, Held.MIXED]


def test_rows_are_named_by_what_they_were_not_given(collection):
    assert {row.label for row in collection.rows} == {
        "mmdg", "vit_late", "u_adapter", "mmdg (without mask)", "vit_late (without mask)", "vit_late (rgb only)",
        "vit_late (depth only)", "vit_late (infrared only)"}
    assert {row.label for row in rows_of(collection, ALL)} == {"mmdg", "vit_late"}
    assert {row.label: only_modality(row) for row in collection.rows if only_modality(row)} == {
        f"vit_late ({modality} only)": modality for modality in Modality}
    assert [row.label for row in collection.rows][:2] == ["vit_late", "vit_late (depth only)"]


def test_difficulty_is_judged_by_the_plain_vit_against_the_bounds(collection):
    lines = {line.what: line for line in difficulty_lines(collection)}
    assert lines["W→W"].verdict == "met"
    assert lines["L→L"].verdict == "missed: harder than allowed"
    assert lines["CPS→W"].verdict == "missed: easier than allowed"
    masks = lines["CPSW→L"]
    assert masks.verdict == "met"  # every mask passes: a third of the attacks, none of the live
    honest = list(masks.hter.values())[-1]
    assert honest == pytest.approx(100 / 6, abs=1.0)
    assert lines["mean of 2"].hter is not None


def test_difficulty_that_nobody_measured_is_said(tmp_path):
    scored_run(tmp_path, config_of("mmdg", "CPSW_L"), {})
    assert {line.verdict for line in difficulty_lines(collect([tmp_path]))} == {"not run"}


def test_data_sets_left_out_stand_in_three_columns(collection):
    table = domain_table(collection)
    assert table.header == ("row", "", "CPS→W", "CPSW→L", "average")
    assert [row[1] for row in texts(table)[:3]] == ["oracle, best epoch", "oracle, last epoch",
                                                    "honest (source validation)"]
    (late,) = [row for row in texts(table) if row[0] == "vit_late"]
    assert "±" in late[3]
    assert "not run" not in late
    assert "SIMULATED DATA" in table.caption


def test_species_rates_have_exact_intervals_and_counts(collection):
    table = species_rates_table(collection, "CPSW_L")
    mask = next(row for row in texts(table) if row[0] == "silicone_mask")
    assert mask[1] == "mask"
    vit = mask[table.header.index("vit_late")]
    assert vit.startswith("95.8 [78.9, 99.9] 23/24, mean of 5: ")
    assert mask[table.header.index("mmdg")].startswith("0.0 [0.0, 14.2] 0/24")
    assert species_rates_table(collection, "CW_PS") is None


def test_a_family_left_out_stands_above_the_run_that_knew_it(collection):
    lines = texts(family_table(collection))
    assert [(row[0], row[1], row[3]) for row in lines] == [
        ("mask", "vit_late", "never seen"), ("", "vit_late", "trained on"),
        ("mask", "mmdg", "never seen"), ("", "mmdg", "trained on")]
    assert lines[0][4].startswith("100.0 [92.6, 100.0] 48/48")
    assert lines[1][4].startswith("0.0 ")
    assert lines[0][7].startswith("0.")  # unseen masks score above every live face
    species = texts(left_out_species_table(collection))
    assert [row[2] for row in species] == ["silicone_mask"] * 2
    assert species[0][3].startswith("100.0")
    assert species[0][4].startswith("0.0")


def test_a_difference_is_claimed_from_five_seeds_on_only(collection):
    table, refused = paired_table(collection, resamples=200)
    lines = {(row[0], row[1], row[2], row[3]): row for row in texts(table)}
    claim = lines["vit_late", "CPSW→L", "honest (source validation)", "HTER"]
    assert float(claim[4]) == pytest.approx(-100 / 6, abs=1.0)
    assert claim[6:] == ["5", "mmdg is better"]
    few = lines["u_adapter", "CPSW→L", "honest (source validation)", "HTER"]
    assert float(few[4]) < -10
    assert few[6:] == ["1", "no claim: 1 of 5 seeds"]
    unseen = lines["vit_late", "mask (LW→LW) never seen", "honest (source validation)", "HTER"]
    assert float(unseen[4]) == pytest.approx(-50.0, abs=1.0)
    assert refused == []


def test_what_each_modality_can_do_alone(collection):
    (study,) = modality_studies(collection, resamples=200)
    assert study.only_informative(Modality.INFRARED) == ["tablet_replay"]
    assert study.only_informative(Modality.RGB) == ["silicone_mask"]
    assert study.only_informative(Modality.DEPTH) == []  # in W it accepts all prints
    assert study.worst_species(Modality.DEPTH)[1].rate >= 0.9
    assert study.misleading(Modality.DEPTH)[0] == "W"
    assert study.misleading(Modality.INFRARED) == []
    lines = modality_lines(study)
    assert "depth is the only informative one somewhere: missed" in lines
    assert "infrared is the only informative one somewhere: met (tablet_replay)" in lines
    assert len(lines) == 9


def test_nothing_is_said_of_a_species_with_a_handful_of_videos(tmp_path):
    for modality in Modality:
        scored_run(tmp_path, config_of("vit_late", "W_W", modality=modality), {"silicone_mask": 6.0}, subjects=4)
    (study,) = modality_studies(collect([tmp_path]), resamples=100)
    assert study.worst_species(Modality.RGB) is None
    assert [study.misleading(modality) for modality in Modality] == [[]] * 3
    assert {row[-1].text for row in modality_table(study, domains=False).rows} == {"fewer than 5 videos"}
    assert modality_lines(study)[0].endswith("BPCER 5 %: missed")


def test_the_threshold_of_a_bpcer_refuses_no_more_than_that():
    scores = table_of([(f"{i}", f"{i}", f"{i}", "bona_fide" if i < 40 else "print", float(i % 40))
                       for i in range(80)])
    shown = scores.presentations(Unit.FRAME)
    threshold = threshold_at_bpcer(shown)
    assert np.mean(shown.score[shown.live] < threshold) == 0.05
    constant = dataclasses.replace(shown, score=np.zeros(80))
    assert threshold_at_bpcer(constant) == 0.0  # refuses nobody rather than everybody


def test_scores_are_those_of_the_columns_epoch(collection):
    row = next(row for row in collection.rows if row.label == "mmdg")
    scores = scores_of(row.runs["CPSW_L", 3])
    assert scores.table.context.seed == 3
    assert scores.accepted(scores.shown.live).trials == SUBJECTS


def test_pages_hold_every_section_and_call_the_data_simulated(collection):
    report = build_generalisation_report(collection, resamples=100)
    text, page = to_markdown(report), to_html(report)
    for section in ("Difficulty", "A data set left out", "A family of attacks left out", "MMDG against its parts",
                    "One modality alone", "Errors by attack species", "Above chance?"):
        assert f"## {section}" in text
        assert section in page
    assert "SIMULATED DATA" in report.warnings[0]
    assert "infrared misleads somewhere: missed" in text


def test_a_report_of_nothing_but_one_run_says_what_is_missing(tmp_path):
    scored_run(tmp_path, config_of("mmdg", "CPSW_L"), {})
    text = to_markdown(build_generalisation_report(collect([tmp_path]), resamples=100))
    assert "mmdg and u_adapter: one of them was not run with all species and modalities" in text
    assert "No method was run with each of the three modalities alone." in text
    assert "not run" in text


def test_the_command_writes_it(runs, tmp_path):
    answer = CliRunner().invoke(app, ["report", str(runs), "--generalisation", "--out", str(tmp_path / "out"),
                                      "--resamples", "100", "--json"])
    assert answer.exit_code == 0, answer.output
    assert json.loads(answer.stdout.splitlines()[-1])["runs"] == 21
    assert "# Generalisation (simulated data)" in (tmp_path / "out" / "report.md").read_text()
