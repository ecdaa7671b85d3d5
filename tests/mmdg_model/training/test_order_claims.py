"""Order claims: when one may say that A beats B."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from calibration.error_rates import Unit
from mmdg_model.training.evaluation import Column, EvaluationError, oracle_choice
from mmdg_model.training.order_claims import Measure, ScoredRun, compare
from tests.mmdg_model.training.score_builders import drawn_table

DOMAINS = ("W", "S", "P", "C")


def runs(separation, *, method=0, seeds=5, domains=DOMAINS, harder=(), unit=Unit.VIDEO):
    """Simulated runs; people, and half of the noise, are shared by all methods and seeds of a domain."""
    found = {}
    for index, domain in enumerate(domains):
        shared = drawn_table(index, domain=domain, separation=0.0, subjects=30)
        of_domain = {}
        for seed in range(seeds):
            own = drawn_table(index, domain=domain, separation=separation - 2 * (domain in harder), subjects=30,
                              score_seed=1000 * method + seed)
            table = dataclasses.replace(own, logit=own.logit + shared.logit)
            of_domain[seed] = ScoredRun(column=Column.ORACLE_LAST, table=table,
                                        choice=oracle_choice({0: table}, unit, best=False))
        found[domain] = of_domain
    return found


@pytest.mark.parametrize("measure", list(Measure))
def test_a_clear_difference_is_claimed_in_its_direction(measure):
    claim = compare(runs(5.0), runs(1.0, method=1), measure=measure, resamples=300)
    assert (claim.a_is_better, claim.b_is_better) == (True, False)
    assert (claim.difference < 0) == (measure is Measure.HTER)
    assert str(claim).startswith("A beats B over domains")
    back = compare(runs(1.0, method=1), runs(5.0), measure=measure, resamples=300)
    assert (back.a_is_better, back.b_is_better) == (False, True)
    assert back.difference == pytest.approx(-claim.difference)


def test_a_method_against_itself_differs_by_exactly_nothing():
    same = runs(2.0)
    claim = compare(same, same, resamples=200)
    assert (claim.difference, claim.interval.low, claim.interval.high) == (0.0, 0.0, 0.0)
    assert str(claim).startswith("no order shown")


def test_methods_that_differ_by_luck_alone_are_rarely_ordered():
    claims = [compare(runs(2.0, method=2 * trial, domains=("W", "S")), runs(2.0, method=2 * trial + 1,
                                                                         domains=("W", "S")),
                      resamples=200, seed=trial) for trial in range(12)]
    assert sum(claim.a_is_better or claim.b_is_better for claim in claims) <= 2


def test_a_method_better_in_three_domains_and_far_worse_in_one_is_not_claimed():
    claim = compare(runs(2.5, harder=("C",)), runs(2.0, method=1), resamples=400)
    assert claim.by_domain["C"] > 0.1
    assert not claim.a_is_better


def test_one_domain_speaks_for_itself_alone():
    claim = compare(runs(5.0, domains=("W",)), runs(1.0, method=1, domains=("W",)), resamples=200)
    assert not claim.domains_resampled
    assert "in this domain alone" in str(claim)


def test_four_seeds_are_refused():
    with pytest.raises(EvaluationError, match="W: 4 paired seeds; an order claim needs at least 5"):
        compare(runs(5.0, seeds=4), runs(1.0, method=1, seeds=4))


def test_unknown_subjects_are_said():
    def without(found):
        return {domain: {seed: dataclasses.replace(run, table=dataclasses.replace(
            run.table, subject=np.full(len(run.table), ""))) for seed, run in of.items()}
            for domain, of in found.items()}
    claim = compare(without(runs(5.0)), without(runs(1.0, method=1)), resamples=100)
    assert not claim.subjects_known
    assert "subjects unknown" in str(claim)


def edited(found, **changes):
    """The runs with one run of domain W changed."""
    return found | {"W": found["W"] | {2: dataclasses.replace(found["W"][2], **changes)}}


@pytest.mark.parametrize(("change", "message"), [
    (lambda b: {domain: b[domain] for domain in ("W", "S")}, "domains"),
    (lambda b: b | {"W": {seed + 1: run for seed, run in b["W"].items()}}, "in pairs of one seed"),
    (lambda b: edited(b, column=Column.HONEST), "never mix columns"),
    (lambda b: edited(b, choice=oracle_choice({0: b["W"][2].table}, Unit.FRAME, best=False)), "never mix columns"),
    (lambda b: edited(b, choice=dataclasses.replace(b["W"][2].choice, epoch=7)), "choice of epoch 7"),
    (lambda b: edited(b, table=b["W"][2].table.rows(np.arange(60))), "column sample_id differs"),
    (lambda b: edited(b, table=dataclasses.replace(b["W"][2].table, modalities=np.full(270, "rgb"))), "modalities"),
])
def test_runs_that_are_no_pairs_are_refused(change, message):
    with pytest.raises(EvaluationError, match=message):
        compare(runs(5.0), change(runs(1.0, method=1)), resamples=100)


def test_no_domain_and_too_few_resamples_are_refused():
    with pytest.raises(EvaluationError, match="at least one"):
        compare({}, {})
    with pytest.raises(EvaluationError, match="99 resamples"):
        compare(runs(5.0), runs(1.0), resamples=99)
