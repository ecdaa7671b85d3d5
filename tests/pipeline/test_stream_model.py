"""The sequential test on simulated streams: error targets, sample counts, the floor under the time, and what breaks."""

import math

import numpy as np
import pytest
from scipy import stats

from calibration.lasting_share import fit_lasting_share
from calibration.score_calibration import frame_correlation
from pipeline.policy import Policy
from pipeline.sequential_test import (
    Bound,
    Evidence,
    count,
    crossed,
    effective_frames,
    fewest_frames,
    floor_ms,
    for_acceptance,
)
from pipeline.stream_model import StreamModel, decide, wald_expected_frames

PERIOD_MS = 100 / 3
ALPHA, BETA = 0.01, 0.05
#: Wald's bounds promise these, a little above the wanted rates: α / (1 - β) and β / (1 - α).
PROMISED_ALPHA, PROMISED_BETA = ALPHA / (1 - BETA), BETA / (1 - ALPHA)


def above(count, trials, rate):
    """Whether so many of the trials can hardly come from a rate of at most this."""
    return bool(stats.binomtest(count, trials, rate, alternative="greater").pvalue < 1e-3)


def outcomes(model, policy, sessions, seed=1):
    """Attacks and bona fide sessions of one model, judged."""
    rng = np.random.default_rng(seed)
    return tuple(decide(model.draw(rng, number, live=live), policy, frame_period_ms=model.frame_period_ms)
                 for live, number in zip((False, True), sessions, strict=True))


@pytest.mark.parametrize("seed", range(12))
def test_the_arrays_say_what_the_sequential_test_says_of_each_session(seed):
    rng = np.random.default_rng(seed)
    policy = Policy(apcer_max=rng.uniform(0.001, 0.3), bpcer_max=rng.uniform(0.001, 0.3),
                    min_frames=int(rng.integers(2, 8)), min_time_ms=int(rng.integers(0, 500)),
                    deadline_ms=int(rng.integers(600, 2000)), llr_clip=rng.uniform(1, 6),
                    logit_scale=rng.uniform(0.3, 2), training_log_odds=rng.uniform(-1, 1),
                    frame_correlation=rng.uniform(0, 0.95), lasting_share=rng.choice([0.0, 0.3]),
                    uncertainty_weight=rng.uniform(0, 3), min_accept_evidence=rng.choice([0.0, 4.0]))
    logits = StreamModel(d_prime=2, correlation=0.6, frames=50).draw(rng, 40, live=seed % 2 == 0)
    doubts = rng.uniform(0, 1, logits.shape)
    found = decide(logits, policy, frame_period_ms=100.0, uncertainty=doubts)
    for index in range(len(logits)):
        evidence, bound, peak = Evidence(), Bound.NONE, -math.inf
        for frame in range(policy.deadline_ms // 100 + 1):
            evidence = count(evidence, float(logits[index, frame]), {"rgb": float(doubts[index, frame])}, ("rgb",),
                             frame * 100_000_000, policy)
            bound = crossed(evidence, policy)
            if bound is not Bound.NONE:
                break
        assert found.accepted[index] == (bound is Bound.UPPER)
        assert found.rejected[index] == (bound is Bound.LOWER)
        assert found.frames[index] == evidence.frames
        if bound is Bound.UPPER:
            peak = for_acceptance(evidence, policy)
            assert found.peak[index] >= peak - 1e-9


@pytest.mark.parametrize("attack_share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize("d_prime", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, 0.97])
def test_both_targets_hold_whatever_the_correlation_the_scores_and_the_share_of_attacks(rho, d_prime, attack_share):
    """The share is that of the sessions judged and that of the training data, whose prior the policy takes off."""
    prior = math.log((1 - attack_share) / attack_share)
    model = StreamModel(d_prime=d_prime, correlation=rho, training_log_odds=prior)
    policy = Policy(apcer_max=ALPHA, bpcer_max=BETA, frame_correlation=rho, training_log_odds=prior,
                    uncertainty_weight=0.0)
    numbers = (max(300, round(6000 * attack_share)), max(300, round(6000 * (1 - attack_share))))
    attacks, live = outcomes(model, policy, numbers)
    assert not above(int(attacks.accepted.sum()), numbers[0], PROMISED_ALPHA)
    assert not above(int(live.rejected.sum()), numbers[1], PROMISED_BETA)
    floor = floor_ms(policy, PERIOD_MS)
    times = np.concatenate([each.time_ms(PERIOD_MS)[each.accepted] for each in (attacks, live)])
    assert floor is None or not len(times) or times.min() >= floor - 1e-6


@pytest.mark.parametrize("d_prime", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("rho", [0.9, 0.97])
def test_a_naive_sum_breaks_the_target_that_the_tempered_one_holds(rho, d_prime):
    model = StreamModel(d_prime=d_prime, correlation=rho)
    for correlation, broken in ((0.0, True), (rho, False)):
        policy = Policy(apcer_max=ALPHA, bpcer_max=BETA, frame_correlation=correlation, uncertainty_weight=0.0)
        attacks, _ = outcomes(model, policy, (3000, 1))
        assert above(int(attacks.accepted.sum()), 3000, PROMISED_ALPHA) is broken


@pytest.mark.parametrize("attack_share", [0.05, 0.95])
def test_a_training_prior_left_in_the_scores_breaks_a_target(attack_share):
    prior = math.log((1 - attack_share) / attack_share)
    model = StreamModel(d_prime=1.0, correlation=0.0, training_log_odds=prior)
    policy = Policy(apcer_max=ALPHA, bpcer_max=BETA, frame_correlation=0.0, uncertainty_weight=0.0)
    attacks, live = outcomes(model, policy, (2000, 2000))
    assert above(int(attacks.accepted.sum()), 2000, PROMISED_ALPHA) is (attack_share < 0.5)
    assert above(int(live.rejected.sum()), 2000, PROMISED_BETA) is (attack_share > 0.5)


@pytest.mark.parametrize(("lasting", "rho"), [(0.3, 0.0), (0.3, 0.5), (0.5, 0.0), (0.5, 0.5), (0.5, 0.9)])
def test_levels_that_sessions_keep_need_a_share_of_their_own(lasting, rho):
    """An AR(1), even with the lag-one correlation of the whole, lets evidence grow for as long as one looks."""
    model = StreamModel(d_prime=2.0, correlation=rho, lasting=lasting)
    wanted = {"apcer_max": ALPHA, "bpcer_max": BETA, "uncertainty_weight": 0.0}
    as_ar1 = Policy(frame_correlation=lasting + (1 - lasting) * rho, **wanted)
    with_share = Policy(frame_correlation=rho, lasting_share=lasting, **wanted)
    for policy, broken in ((as_ar1, True), (with_share, False)):
        attacks, _ = outcomes(model, policy, (5000, 1))
        assert above(int(attacks.accepted.sum()), 5000, PROMISED_ALPHA) is broken


@pytest.mark.parametrize(("lasting", "rho"), [(0.3, 0.0), (0.5, 0.5), (0.5, 0.8)])
def test_a_share_fitted_to_short_sessions_holds_the_target_of_long_ones_and_correlation_alone_does_not(lasting, rho):
    """Fitted to sessions of one second, judged on sessions of five."""
    rng = np.random.default_rng(5)
    short = StreamModel(d_prime=2.0, correlation=rho, lasting=lasting, frames=30)
    sessions = [*short.draw(rng, 150, live=True), *short.draw(rng, 150, live=False)]
    classes = ["bona_fide"] * 150 + ["mask"] * 150
    share, total = fit_lasting_share(sessions, classes), frame_correlation(sessions, classes).lasting
    assert share.low <= lasting <= share.high
    wanted = {"apcer_max": ALPHA, "bpcer_max": BETA, "uncertainty_weight": 0.0, "frame_correlation": total}
    long = StreamModel(d_prime=2.0, correlation=rho, lasting=lasting)
    for policy, broken in ((Policy(**wanted), True), (Policy(lasting_share=share.share, **wanted), False)):
        attacks, _ = outcomes(long, policy, (5000, 1))
        assert above(int(attacks.accepted.sum()), 5000, PROMISED_ALPHA) is broken


def test_effective_frames_with_lasting_levels_is_the_variance_ratio_of_the_mean():
    frames, rho, lasting = 12, 0.8, 0.3
    covariance = [lasting + (1 - lasting) * rho ** abs(i - j) for i in range(frames) for j in range(frames)]
    assert effective_frames(frames, rho, lasting) == pytest.approx(frames**2 / sum(covariance))
    assert effective_frames(5000, 0.0, 0.25) == pytest.approx(4.0, rel=1e-2)
    assert effective_frames(7, rho, 0.0) == effective_frames(7, rho)


@pytest.mark.parametrize("mean_llr", [0.02, 0.05])
def test_sample_counts_are_those_of_wald_where_the_overshoot_is_small(mean_llr):
    policy = Policy(apcer_max=ALPHA, bpcer_max=BETA, frame_correlation=0.0, uncertainty_weight=0.0, min_frames=1,
                    min_time_ms=0, deadline_ms=10_000)
    model = StreamModel(d_prime=math.sqrt(2 * mean_llr), correlation=0.0, frames=round(60 / mean_llr),
                        frame_period_ms=0.1)
    for found, expected in zip(outcomes(model, policy, (1500, 1500)), reversed(wald_expected_frames(policy, mean_llr)),
                               strict=True):
        assert not found.undecided.any()
        error = found.frames.std() / math.sqrt(len(found.frames)) / expected
        ratio = found.frames.mean() / expected
        # Overshoot makes it longer: by about 0.58 deviations of a frame at the bound (Siegmund 1985), under 10 % here.
        assert 1 - 3 * error < ratio < 1.1 + 3 * error


def test_the_floor_is_reached_by_perfect_scores_and_by_none_earlier():
    policy = Policy(uncertainty_weight=0.0)
    for rho in (0.0, 0.5, 0.9, 0.95):
        chosen = Policy(frame_correlation=rho, uncertainty_weight=0.0)
        perfect = decide(np.full((1, 150), 99.0), chosen, frame_period_ms=PERIOD_MS)
        assert perfect.accepted.all()
        floor = floor_ms(chosen, PERIOD_MS)
        assert perfect.time_ms(PERIOD_MS)[0] == pytest.approx(math.ceil(floor / PERIOD_MS - 1e-9) * PERIOD_MS)
    # A level that repeats caps the evidence: clip / lasting nats, for ever.
    assert fewest_frames(Policy(lasting_share=0.9)) is None
    assert policy.llr_clip / 0.9 < policy.upper_bound


def test_what_does_not_come_in_time_is_undecided():
    model = StreamModel(d_prime=0.5, correlation=0.97)
    policy = Policy(frame_correlation=0.97, deadline_ms=1000)
    attacks, live = outcomes(model, policy, (200, 200))
    assert attacks.undecided.all()
    assert live.undecided.all()
    assert (live.frames == 31).all()  # 0 ms to 1000 ms


def test_uncertainty_only_ever_takes_acceptances_away():
    rng = np.random.default_rng(3)
    model = StreamModel(d_prime=2.0, correlation=0.8)
    policy = Policy(frame_correlation=0.8)
    logits = model.draw(rng, 500, live=True)
    certain = decide(logits, policy, frame_period_ms=PERIOD_MS)
    doubtful = decide(logits, policy, frame_period_ms=PERIOD_MS, uncertainty=rng.uniform(0, 1, logits.shape))
    assert (doubtful.peak <= certain.peak + 1e-9).all()
    assert not (certain.rejected & ~doubtful.rejected).any()
    later = doubtful.accepted & certain.accepted
    assert (doubtful.frames[later] >= certain.frames[later]).all()
    assert doubtful.accepted.sum() < certain.accepted.sum() or (doubtful.frames > certain.frames).any()
    assert not (doubtful.accepted & certain.rejected).any()


def test_the_peak_says_what_any_stricter_bound_would_have_done():
    model, base = StreamModel(d_prime=1.5, correlation=0.8), Policy(frame_correlation=0.8)
    logits = np.concatenate([model.draw(np.random.default_rng(4), 300, live=live) for live in (True, False)])
    peak = decide(logits, base, frame_period_ms=PERIOD_MS).peak
    for threshold in (base.upper_bound, 5.0, 7.0, 9.0):
        stricter = Policy(frame_correlation=0.8, min_accept_evidence=threshold)
        assert np.array_equal(decide(logits, stricter, frame_period_ms=PERIOD_MS).accepted, peak >= threshold)


@pytest.mark.parametrize("changes", [{"d_prime": 0}, {"correlation": 1.0}, {"lasting": 1.0}, {"frames": 0},
                                     {"training_log_odds": math.inf}, {"d_prime": math.nan}])
def test_an_impossible_model_is_refused(changes):
    with pytest.raises(ValueError, match="must be positive"):
        StreamModel(**{"d_prime": 1.0, "correlation": 0.5} | changes)


@pytest.mark.parametrize("logits", [np.zeros(3), np.zeros((0, 3)), [[1.0, math.nan]]])
def test_scores_that_are_none_are_refused(logits):
    with pytest.raises(ValueError, match="finite numbers"):
        decide(logits, Policy(), frame_period_ms=33.0)
    with pytest.raises(ValueError, match="uncertainty"):
        decide([[1.0]], Policy(), frame_period_ms=33.0, uncertainty=1.5)
