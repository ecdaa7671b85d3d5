"""The permutation test: ignorance rarely passes, knowledge does, and people are never taken apart."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.error_rates import Unit, auc, roc
from mmdg_model.training.scores import BONA_FIDE, ScoreTableError
from mmdg_model.training.significance import FEWEST_PERMUTATIONS, PIPELINE_CHECK, _Moves, permutation_test
from tests.mmdg_model.training.score_builders import drawn_table, table_of


def rows_of(labels_by_subject, logit, domain=None):
    """One frame a video; `labels_by_subject`: (subject, is live) a video."""
    rows = [(f"v{i}", f"v{i}", subject, BONA_FIDE if live else "print", score)
            for i, ((subject, live), score) in enumerate(zip(labels_by_subject, logit, strict=True))]
    return table_of(rows, **({} if domain is None else {"domain": np.array(domain)}))


def test_scores_that_know_nothing_rarely_pass():
    """p is uniform under the null hypothesis: below 0.1 about 10 times in 100, also with strong people effects."""
    p = np.array([permutation_test(drawn_table(seed, separation=0.0, subject_spread=2.0), seed=seed).p
                  for seed in range(100)])
    assert 3 <= (p < 0.1).sum() <= 20
    assert (p < 0.01).sum() <= 4
    assert 35 <= (p < 0.5).sum() <= 65


def test_scores_that_know_pass():
    test = permutation_test(drawn_table(0, separation=2.0))
    assert test.p == 1 / (1 + FEWEST_PERMUTATIONS)
    assert test.above_chance
    assert PIPELINE_CHECK not in str(test)


def test_scores_that_know_the_opposite_do_not_pass():
    test = permutation_test(drawn_table(0, separation=-2.0))
    assert test.p > 0.99
    assert not test.above_chance
    assert str(test).endswith(PIPELINE_CHECK)


def test_the_observed_auc_is_that_of_the_evaluation():
    table = drawn_table(3, separation=0.7)
    shown = table.presentations(Unit.VIDEO)
    assert permutation_test(table).auc == pytest.approx(auc(roc(shown.score, shown.live)), abs=1e-12)


def test_many_videos_of_few_people_are_not_many_trials():
    """Four live people with 50 videos each against four attackers: 70 arrangements, so p cannot go below 1/70."""
    people = [(f"p{i}", i < 4) for i in range(8) for _ in range(50)]
    logit = [1.0 + 0.01 * i if live else -1.0 - 0.01 * i for i, (_, live) in enumerate(people)]
    assert permutation_test(rows_of(people, logit)).p > 0.01
    strangers = [("", live) for _, live in people]
    assert permutation_test(rows_of(strangers, logit)).p < 0.001


def test_telling_two_pooled_domains_apart_is_no_knowledge_of_liveness():
    rng = np.random.default_rng(0)
    live = np.array([True] * 90 + [False] * 10 + [True] * 10 + [False] * 90)
    domain = np.array(["P"] * 100 + ["S"] * 100)
    logit = 3.0 * (domain == "P") + rng.standard_normal(200)
    people = [(f"{i}", flag) for i, flag in enumerate(live)]
    assert permutation_test(rows_of(people, logit, domain)).p > 0.01
    assert permutation_test(rows_of(people, logit)).p < 0.001  # the same scores, were it one domain


def test_labels_move_within_mixed_people_and_whole_between_pure_ones():
    people = [("a", True), ("a", False), ("a", False), ("b", True), ("b", True), ("c", False), ("d", False)]
    shown = rows_of(people, range(7)).presentations(Unit.VIDEO)
    moves, rng = _Moves(shown), np.random.default_rng(0)
    assert (moves.num_mixed, moves.num_pure, moves.movable) == (1, 3, True)
    seen = set()
    for _ in range(200):
        labels = moves.permuted(shown.live, rng)
        by_person = {name: labels[shown.subject == name] for name in "abcd"}
        assert by_person["a"].sum() == 1
        assert by_person["b"][0] == by_person["b"][1]
        assert sum(by_person[name][0] for name in "bcd") == 1
        seen.add(tuple(labels))
    assert len(seen) == 9  # 3 places within a, times 3 pure people


def test_nothing_to_move_is_p_of_one():
    people = [("a", True), ("b", False)]
    test = permutation_test(rows_of(people, [1.0, 0.0], ["P", "S"]))
    assert (test.movable, test.p, test.above_chance) == (False, 1.0, False)


def test_the_same_seed_gives_the_same_p():
    table = drawn_table(5, separation=0.2)
    assert permutation_test(table, seed=3) == permutation_test(table, seed=3)
    assert permutation_test(table, seed=3).p != permutation_test(table, seed=4).p


def test_constant_scores_do_not_pass():
    assert permutation_test(drawn_table(0, separation=0.0, subject_spread=0.0).rows(np.arange(9))).p > 0.01
    table = rows_of([(str(i), i % 2 == 0) for i in range(40)], np.zeros(40))
    assert permutation_test(table).p == 1.0


def test_too_few_permutations_and_mixed_subsets_are_refused():
    table = drawn_table(0)
    with pytest.raises(ValueError, match="at least 2000"):
        permutation_test(table, permutations=100)
    mixed = table_of([("a", "a", "a", BONA_FIDE, 1.0), ("b", "b", "b", "print", 0.0)],
                     modalities=np.array(["rgb", "rgb+depth"]))
    with pytest.raises(ScoreTableError, match="modality subsets"):
        permutation_test(mixed)
