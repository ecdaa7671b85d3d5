"""Evaluation: three columns from one run, nothing of the target in the honest one, what does not belong together."""

from __future__ import annotations

import dataclasses
import json
import math

import msgspec
import numpy as np
import pytest

from calibration.error_rates import Unit, auc, equal_error_point, roc
from mmdg_model.training.evaluation import (
    Column,
    EvaluationError,
    decisions,
    evaluate_run,
    honest_choice,
    measure,
    oracle_choice,
)
from mmdg_model.training.evaluation_table import markdown, plain
from mmdg_model.training.scores import BONA_FIDE, ScoreTableError, Split
from tests.mmdg_model.training.score_builders import context, drawn_table, table_of

EPOCHS = 6


def run_tables(seed=0, **changes):
    """Scores of one simulated run by epoch: source validation is easier than the target, and learns faster."""
    source = {epoch: drawn_table(seed + 50, split=Split.SOURCE_VALIDATION, domain="S", epoch=epoch, score_seed=epoch,
                                 separation=1 + 0.4 * epoch, **changes) for epoch in range(EPOCHS)}
    target = {epoch: drawn_table(seed, epoch=epoch, score_seed=epoch, separation=1 + 0.1 * epoch, **changes)
              for epoch in range(EPOCHS)}
    return source, target


def evaluated(source, target, unit=Unit.VIDEO, **options):
    return evaluate_run(source, target, unit=unit, **({"resamples": 50, "chance_repeats": 5} | options))


def changed(tables, change):
    return {epoch: change(epoch, table) for epoch, table in tables.items()}


def with_context(table, **changes):
    return dataclasses.replace(table, context=msgspec.structs.replace(table.context, **changes))


@pytest.fixture(scope="module")
def run():
    return run_tables()


@pytest.fixture(scope="module", params=[Unit.FRAME, Unit.VIDEO])
def report(request, run):
    return evaluated(*run, unit=request.param)


# ---- the three columns ----

def test_the_oracle_takes_the_epoch_of_least_hter_and_both_figures_from_it(run, report):
    curves = {epoch: roc(shown.score, shown.live) for epoch, table in run[1].items()
              for shown in [table.presentations(report.unit)]}
    hter = {epoch: equal_error_point(curve).hter for epoch, curve in curves.items()}
    best = report.columns[Column.ORACLE_BEST]
    assert best.choice.epoch == min(hter, key=hter.get)
    assert best.hter == pytest.approx(hter[best.choice.epoch], abs=1e-12)
    assert best.auc == auc(curves[best.choice.epoch])


def test_the_last_epoch_is_the_last(report):
    assert report.columns[Column.ORACLE_LAST].choice.epoch == EPOCHS - 1


def test_the_honest_threshold_is_source_validations_own(run, report):
    honest = report.columns[Column.HONEST]
    shown = run[0][honest.choice.epoch].presentations(report.unit)
    assert honest.choice.threshold == equal_error_point(roc(shown.score, shown.live)).threshold
    assert honest.choice.threshold_from is Split.SOURCE_VALIDATION


def test_best_is_never_above_last(report):
    assert report.columns[Column.ORACLE_BEST].hter <= report.columns[Column.ORACLE_LAST].hter


def test_equal_epochs_go_to_the_first():
    table = drawn_table(0)
    tables = {epoch: with_context(table, epoch=epoch) for epoch in (3, 1, 2)}
    assert oracle_choice(tables, Unit.FRAME, best=True).epoch == 1
    source = changed(tables, lambda _, t: with_context(t, split=Split.SOURCE_VALIDATION))
    assert honest_choice(source, Unit.FRAME).epoch == 1


def test_of_equal_hter_on_source_validation_the_larger_auc_wins():
    """HTER 1/2 at both epochs; at the second one live score lies above everything."""
    def table(epoch, logits):
        rows = [(str(i), str(i), str(i), kind, logit) for i, (kind, logit) in enumerate(
            zip([BONA_FIDE, BONA_FIDE, "print", "print"], logits, strict=True))]
        return table_of(rows, context=context(Split.SOURCE_VALIDATION, epoch))
    tables = {0: table(0, [1, 0, 2, 0.5]), 1: table(1, [3, 0, 2, 0.5])}
    assert honest_choice(tables, Unit.FRAME).epoch == 1


def test_a_report_without_one_of_the_columns_cannot_be_made(report):
    for column in Column:
        rest = {name: measures for name, measures in report.columns.items() if name is not column}
        with pytest.raises(EvaluationError, match="side by side"):
            dataclasses.replace(report, columns=rest)
        with pytest.raises(EvaluationError, match="side by side"):
            dataclasses.replace(report, deduplicated=rest)


# ---- leakage ----

def poisoned(target):
    """The target with noise for scores and permuted labels, the same at every epoch but for the noise."""
    order = np.random.default_rng(9).permutation(len(target[0].video_id) // 3)
    rows = (3 * order[:, None] + np.arange(3)).ravel()  # labels move by whole videos of three frames
    return changed(target, lambda epoch, table: dataclasses.replace(
        table, label=table.label[rows], species=table.species[rows],
        logit=np.random.default_rng([epoch, 8]).standard_normal(len(table))))


@pytest.mark.parametrize("unit", [Unit.FRAME, Unit.VIDEO])
def test_nothing_of_the_target_reaches_the_honest_choice(run, unit):
    source, target = run
    before, after = evaluated(source, target, unit=unit), evaluated(source, poisoned(target), unit=unit)
    assert before.columns[Column.HONEST].choice == after.columns[Column.HONEST].choice  # bit for bit
    assert before.deduplicated[Column.HONEST].choice == after.deduplicated[Column.HONEST].choice
    for column in (Column.ORACLE_BEST, Column.ORACLE_LAST):
        assert before.columns[column].hter != after.columns[column].hter


def test_target_labels_do_not_touch_honest_decisions_and_do_touch_oracle_ones(run):
    source, target = run
    relabelled = {epoch: dataclasses.replace(table, logit=target[epoch].logit)
                  for epoch, table in poisoned(target).items()}
    before, after = evaluated(source, target), evaluated(source, relabelled)

    def accepted(report, column):
        choice = report.columns[column].choice
        return decisions(target[choice.epoch], choice)

    assert np.array_equal(accepted(before, Column.HONEST), accepted(after, Column.HONEST))
    assert not np.array_equal(accepted(before, Column.ORACLE_LAST), accepted(after, Column.ORACLE_LAST))


def test_a_target_table_cannot_choose_the_honest_threshold(run):
    with pytest.raises(EvaluationError, match="leak"):
        honest_choice(run[1], Unit.FRAME)
    with pytest.raises(EvaluationError, match="leak"):
        oracle_choice(run[0], Unit.FRAME, best=True)


def test_a_target_domain_among_the_sources_needs_other_people(run):
    source = changed(run[0], lambda _, table: dataclasses.replace(table, domain=np.full(len(table), "W")))
    with pytest.raises(EvaluationError, match=r"60 videos, such as W 000-bona_fide, are in source validation"):
        evaluated(source, run[1])

    def renamed(table, *names):
        return dataclasses.replace(table, **{name: np.char.add("v", getattr(table, name)) for name in names})

    with pytest.raises(EvaluationError, match="20 subjects, such as W 000, are in source validation"):
        evaluated(changed(source, lambda _, table: renamed(table, "sample_id", "video_id")), run[1])
    apart = changed(source, lambda _, table: renamed(table, "sample_id", "video_id", "subject"))
    assert evaluated(apart, run[1]).source_domains == ("W",)


@pytest.mark.parametrize(("change", "message"), [
    (lambda source, target: (source, {0: target[0]}), "score the same epochs"),
    (lambda source, target: ({}, {}), "at least one epoch"),
    (lambda source, target: (source, target | {2: with_context(target[2], epoch=1)}), "says epoch 1"),
    (lambda source, target: (source, target | {2: with_context(target[2], model_hash="other")}), "must be one"),
    (lambda source, target: (source, target | {2: with_context(target[2], seed=5)}), "seed 5, elsewhere 0"),
    (lambda source, target: (source, target | {2: with_context(target[2], method="vit")}), "two runs"),
    (lambda source, target: (source, target | {2: target[2].rows(np.arange(30)[::-1])}), "column sample_id differs"),
    (lambda source, target: (source | {3: source[3].rows(np.arange(60))}, target), "column sample_id differs"),
])
def test_tables_that_do_not_belong_together_are_refused(run, change, message):
    with pytest.raises(EvaluationError, match=message):
        evaluated(*change(*run))


# ---- figures ----

def test_constant_scores_are_fifty_fifty_and_accept_nobody(run):
    flat = [changed(tables, lambda _, t: dataclasses.replace(t, logit=np.zeros(len(t)))) for tables in run]
    report = evaluated(*flat)
    for measures in report.columns.values():
        assert (measures.hter, measures.auc, measures.choice.threshold) == (0.5, 0.5, math.inf)
        assert measures.bpcer.proportion.rate == 1.0


@pytest.mark.parametrize("rising", [lambda x: 2 * x + 1, np.cbrt, np.sinh])
def test_monotone_maps_of_all_scores_change_no_frame_figure(run, rising):
    mapped = [changed(tables, lambda _, t: dataclasses.replace(t, logit=rising(t.logit))) for tables in run]
    one, other = evaluated(*run, unit=Unit.FRAME), evaluated(*mapped, unit=Unit.FRAME)
    for column in Column:
        before, after = one.columns[column], other.columns[column]
        assert (before.choice.epoch, before.hter, before.auc, before.acer) == (
            after.choice.epoch, after.hter, after.auc, after.acer)


def test_species_are_worst_first_and_acer_takes_the_worst(report):
    for measures in report.columns.values():
        rates = [rate.proportion.rate for rate in measures.apcer.values()]
        assert rates == sorted(rates, reverse=True)
        assert measures.acer == pytest.approx((rates[0] + measures.bpcer.proportion.rate) / 2)
        assert set(measures.apcer) == {"print", "mask"}


def test_intervals_are_on_videos_and_subjects_never_on_frames(report):
    for measures in report.columns.values():
        for rate in (*measures.apcer.values(), measures.pooled_apcer, measures.bpcer):
            assert (rate.interval is None) == (report.unit is Unit.FRAME)
            assert rate.by_subject.unit is Unit.SUBJECT
            assert rate.subject_interval.low <= rate.by_subject.rate <= rate.subject_interval.high


def test_a_subject_errs_once_however_many_of_its_videos_do():
    rows = [("1", "1", "p", BONA_FIDE, 2.0), ("2", "2", "p", "print", 1.0), ("3", "3", "p", "print", 1.0),
            ("4", "4", "q", "print", -1.0)]
    table = table_of(rows)
    choice = dataclasses.replace(oracle_choice({0: table}, Unit.VIDEO, best=True), threshold=0.5)
    rate = measure(table, choice, resamples=0).apcer["print"]
    assert (rate.proportion.count, rate.proportion.trials) == (2, 3)
    assert (rate.by_subject.count, rate.by_subject.trials) == (1, 2)


def test_an_unknown_subject_leaves_the_subject_level_unknown(run):
    no_subject = [changed(tables, lambda _, t: dataclasses.replace(t, subject=np.full(len(t), "")))
                  for tables in run]
    report = evaluated(*no_subject)
    honest = report.columns[Column.HONEST]
    assert honest.bpcer.by_subject is None
    assert honest.bpcer.subject_interval is None
    assert not honest.bootstrap.subjects_known
    assert "Some subjects are unknown" in markdown(report)


def test_duplicates_stay_in_the_figures_and_are_left_out_beside(run):
    rows = np.array([*range(180), *[0] * 40])  # one live frame forty times more
    doubled = changed(run[1], lambda _, table: table.rows(rows))
    report = evaluated(run[0], doubled, unit=Unit.FRAME)
    clean = evaluated(*run, unit=Unit.FRAME)
    assert report.duplicates == 40
    assert report.columns[Column.ORACLE_BEST].live == 60 + 40
    assert report.columns[Column.ORACLE_BEST].auc != clean.columns[Column.ORACLE_BEST].auc
    for column in Column:
        assert report.deduplicated[column] == clean.columns[column]


def test_two_target_domains_share_one_curve_and_one_threshold(run):
    source, target = run
    two = changed(target, lambda _, table: dataclasses.replace(
        table, domain=np.where(np.arange(len(table)) < 90, "P", "W")))
    report = evaluated(source, two)
    assert report.target_domains == ("P", "W")
    assert report.columns[Column.ORACLE_LAST].live == 20
    assert report.columns[Column.ORACLE_LAST].hter == evaluated(source, target).columns[Column.ORACLE_LAST].hter


def test_modality_subsets_are_not_mixed(run):
    mixed = changed(run[1], lambda _, table: dataclasses.replace(
        table, modalities=np.where(np.arange(len(table)) < 9, "rgb", "rgb+depth")))
    with pytest.raises(ScoreTableError, match="in one table"):
        evaluated(run[0], mixed)


# ---- modalities taken away (protocol 2) ----

def test_a_subset_keeps_the_epochs_and_checkpoints_of_the_full_run(run):
    source, target = run
    full = evaluated(source, target)
    less = changed(target, lambda epoch, table: dataclasses.replace(
        table, modalities=np.full(len(table), "rgb"),
        logit=table.logit * (5 if epoch == 0 else 1) + 5 * (epoch == 0) * table.label))  # best on the subset alone
    report = evaluated(source, less, chosen=full)
    for column in Column:
        assert report.columns[column].choice.epoch == full.columns[column].choice.epoch
        assert report.columns[column].model_hash == full.columns[column].model_hash
    assert evaluated(source, less).columns[Column.ORACLE_BEST].choice.epoch == 0
    assert (report.target_subset, report.source_subset) == ("rgb", "rgb+depth+infrared")


def test_a_subset_of_another_checkpoint_is_refused(run):
    full = evaluated(*run)
    other = [changed(tables, lambda _, t: with_context(t, model_hash="retrained")) for tables in run]
    with pytest.raises(EvaluationError, match="test the same checkpoint again"):
        evaluated(*other, chosen=full)


# ---- text ----

def test_the_table_shows_all_columns_floors_and_that_data_is_simulated(report):
    text = markdown(report)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}
    assert "oracle, best epoch | oracle, last epoch | honest" in rows[0]
    assert "(simulated data)" in text
    assert any("random scores" in row for row in rows)
    assert any("duplicates left out" in row for row in rows)
    assert "not resolvable" in next(row for row in rows if "FPR 0.01 %" in row)


def test_the_table_says_nothing_of_simulation_for_real_data(run):
    real = [changed(tables, lambda _, t: with_context(t, simulated=False)) for tables in run]
    assert "simulated data" not in markdown(evaluated(*real))


def test_a_report_is_plain_json_with_infinite_thresholds_named(run):
    flat = [changed(tables, lambda _, t: dataclasses.replace(t, logit=np.zeros(len(t)))) for tables in run]
    text = json.dumps(plain(evaluated(*flat)), allow_nan=False)
    values = json.loads(text)
    assert values["columns"]["honest"]["choice"]["threshold"] == "inf"
    assert values["context"]["protocol"] == "CPS->W"
