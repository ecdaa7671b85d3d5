"""Bootstrap by subject: the sums against plain recounting, and what the intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.error_rates import Unit, auc, bpcer, pooled_apcer, roc
from mmdg_model.training.scores import BONA_FIDE
from mmdg_model.training.subject_bootstrap import bootstrap_by_subject, subject_sums
from tests.mmdg_model.training.score_builders import drawn_table, table_of


def test_resampled_sums_equal_a_recount_of_every_presentation():
    table = drawn_table(4, subjects=8)
    frames = table.presentations(Unit.FRAME)
    coarse = np.round(frames.score)  # ties between live and attacks
    frames = type(frames)(**{**frames.__dict__, "score": coarse})
    sums = subject_sums(frames, 0.0)
    times = sums.drawn(20, np.random.default_rng(0))
    _, subject = np.unique(frames.clusters(), return_inverse=True)
    for row, (hter, area) in enumerate(zip(sums.hter(times), sums.auc(times), strict=True)):
        rows = np.repeat(np.arange(len(table)), times[row][subject])
        scores, live = frames.score[rows], frames.live[rows]
        errors = (bpcer(scores, live, 0.0, Unit.FRAME).rate + pooled_apcer(scores, live, 0.0, Unit.FRAME).rate) / 2
        assert hter == pytest.approx(errors, abs=1e-12)
        assert area == pytest.approx(auc(roc(scores, live)), abs=1e-12)


def test_every_resample_has_both_classes_and_as_many_subjects():
    rows = [*((f"l{i}", f"l{i}", f"l{i}", BONA_FIDE, 1.0) for i in range(2)),
            *((f"a{i}", f"a{i}", f"a{i}", "mask", 0.0) for i in range(9))]
    sums = subject_sums(table_of(rows).presentations(Unit.VIDEO), 0.5)
    times = sums.drawn(300, np.random.default_rng(1))
    assert (times @ sums.live == 2).all()
    assert (times @ sums.attacks == 9).all()


def test_a_seed_gives_the_same_interval_and_another_seed_another():
    videos = drawn_table(0).presentations(Unit.VIDEO)
    first = bootstrap_by_subject(videos, 0.5, resamples=100, seed=1)
    assert first == bootstrap_by_subject(videos, 0.5, resamples=100, seed=1)
    assert first.auc != bootstrap_by_subject(videos, 0.5, resamples=100, seed=2).auc


def test_drawing_frames_instead_of_subjects_would_claim_too_much():
    table = drawn_table(0, subjects=30, frames=8, subject_spread=1.5)
    frames = table.presentations(Unit.FRAME)
    apart = table_of([(s, s, s, kind, logit) for s, kind, logit in
                      zip(table.sample_id, table.species, table.logit, strict=True)])
    by_subject = bootstrap_by_subject(frames, 0.0, resamples=300).auc
    by_frame = bootstrap_by_subject(apart.presentations(Unit.FRAME), 0.0, resamples=300).auc
    assert by_subject.high - by_subject.low > 1.5 * (by_frame.high - by_frame.low)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Scores of known spread: live above attack by `separation` with noise of variance 1 + 0.2² each, people apart."""
    truth, covered = auc(roc(*_presented(drawn_table(999, subjects=4000, frames=1, subject_spread=0.0)))), 0
    for seed in range(60):
        videos = drawn_table(seed, subjects=40, frames=1, subject_spread=0.0).presentations(Unit.FRAME)
        interval = bootstrap_by_subject(videos, 0.0, resamples=200, seed=seed).auc
        covered += interval.low <= truth <= interval.high
    assert 51 <= covered <= 60


def _presented(table):
    frames = table.presentations(Unit.FRAME)
    return frames.score, frames.live


def test_one_person_gives_no_interval_and_says_so():
    rows = [("1", "1", "p", BONA_FIDE, 1.0), ("2", "2", "p", BONA_FIDE, 0.0), ("3", "3", "q", "print", 0.0)]
    result = bootstrap_by_subject(table_of(rows).presentations(Unit.VIDEO), 0.5)
    assert (result.hter, result.auc) == (None, None)
    assert "1 subjects with bona fide" in result.unavailable


def test_sums_without_wins_have_no_auc():
    sums = subject_sums(drawn_table(0).presentations(Unit.VIDEO), 0.5, with_auc=False)
    with pytest.raises(ValueError, match="with_auc=True"):
        sums.auc(np.ones((1, 20), dtype=np.int64))


def test_a_nan_threshold_is_an_error():
    with pytest.raises(ValueError, match="threshold NaN"):
        subject_sums(drawn_table(0).presentations(Unit.VIDEO), float("nan"))
