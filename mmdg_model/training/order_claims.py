"""May one say "A beats B"? A paired hierarchical bootstrap over domains, seeds and subjects, or a refusal.

One training run's HTER moves by points with its seed alone, so a comparison of single runs says nothing. At
least five seeds, each trained for both methods, are demanded. Each resample draws target domains, within a domain
training seeds, and within a domain subjects; A and B always get the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from calibration.error_rates import Interval
from mmdg_model.training.evaluation import Choice, Column, EvaluationError
from mmdg_model.training.scores import ScoreTable
from mmdg_model.training.subject_bootstrap import SubjectSums, percentile_interval, subject_sums

FEWEST_SEEDS = 5


class Measure(StrEnum):
    """What is compared. HTER is better when smaller, AUC when larger."""

    HTER = "hter"
    AUC = "auc"


@dataclass(frozen=True, kw_only=True)
class ScoredRun:
    """One run on its target, in one column of the evaluation: the scores of the chosen epoch, and the choice."""

    column: Column
    table: ScoreTable
    choice: Choice


@dataclass(frozen=True, kw_only=True)
class OrderClaim:
    """A comparison of A with B, in rates of 0..1.

    Attributes:
        measure: what was compared.
        difference: mean over domains and seeds of A - B.
        interval: percentile interval of it; thresholds and epochs are held as chosen.
        by_domain: mean difference over the seeds of each domain.
        seeds: in each domain.
        a_is_better, b_is_better: the interval lies wholly on that side of 0, and there are at least `FEWEST_SEEDS`
            seeds; neither: no order was shown.
        domains_resampled: False with one domain: the claim is then about that domain alone.
        subjects_known: False where videos had to stand for subjects; the interval is then too narrow.
    """

    measure: Measure
    difference: float
    interval: Interval
    by_domain: dict[str, float]
    seeds: dict[str, int]
    a_is_better: bool
    b_is_better: bool
    domains_resampled: bool
    subjects_known: bool

    @property
    def enough_seeds(self) -> bool:
        """Whether an order could have been shown at all."""
        return min(self.seeds.values()) >= FEWEST_SEEDS

    def __str__(self) -> str:
        order = "A beats B" if self.a_is_better else "B beats A" if self.b_is_better else "no order shown"
        where = "over domains" if self.domains_resampled else "in this domain alone"
        return (f"{order} {where}: A - B = {100 * self.difference:+.2f} points of {self.measure.upper()} "
                f"[{100 * self.interval.low:+.2f}, {100 * self.interval.high:+.2f}], {min(self.seeds.values())} seeds"
                + ("" if self.subjects_known else ", some subjects unknown: interval too narrow"))


def compare(runs_a: Mapping[str, Mapping[int, ScoredRun]], runs_b: Mapping[str, Mapping[int, ScoredRun]], *,
            measure: Measure = Measure.HTER, resamples: int = 2000, seed: int = 0,
            confidence: float = 0.95, fewest_seeds: int = FEWEST_SEEDS) -> OrderClaim:
    """Compares two methods by runs `{target domain: {training seed: run}}`.

    Args:
        fewest_seeds: demanded of each domain. With less than `FEWEST_SEEDS` the difference and its interval are those
            of the trained networks at hand: how it would move with another training is in neither, and no order is
            shown.

    Raises:
        EvaluationError: fewer seeds than demanded in a domain; other domains, seeds, samples or kinds of choice
            for A than for B; resamples below 100.
    """
    if resamples < 100:
        raise EvaluationError(f"{resamples} resamples; at least 100 are needed for an interval")
    sums = _paired_sums(runs_a, runs_b, measure, fewest_seeds)
    rng = np.random.default_rng(seed)
    domains = list(sums)
    observed = {domain: float(_differences(pairs, measure, np.ones((1, len(pairs[0][0].names)), np.int64)).mean())
                for domain, pairs in sums.items()}
    drawn = np.zeros(resamples)
    picks = rng.integers(len(domains), size=(resamples, len(domains)))
    for occurrence in range(len(domains)):
        for index, domain in enumerate(domains):
            rows = np.flatnonzero(picks[:, occurrence] == index)
            if not len(rows):
                continue
            pairs = sums[domain]
            differences = _differences(pairs, measure, pairs[0][0].drawn(len(rows), rng))
            seeds = rng.multinomial(len(pairs), np.full(len(pairs), 1 / len(pairs)), size=len(rows))
            drawn[rows] += (differences * seeds).sum(axis=1) / len(pairs) / len(domains)
    interval = percentile_interval(drawn, confidence)
    below, above = interval.high < 0, interval.low > 0
    if min(len(pairs) for pairs in sums.values()) < FEWEST_SEEDS:
        below = above = False
    smaller_is_better = measure is Measure.HTER
    return OrderClaim(
        measure=measure, difference=float(np.mean(list(observed.values()))), interval=interval, by_domain=observed,
        seeds={domain: len(pairs) for domain, pairs in sums.items()},
        a_is_better=below if smaller_is_better else above, b_is_better=above if smaller_is_better else below,
        domains_resampled=len(domains) > 1,
        subjects_known=all((run.table.subject != "").all() for runs in runs_a.values() for run in runs.values()))


def _differences(pairs: Sequence[tuple[SubjectSums, SubjectSums]], measure: Measure,
                 times: NDArray[np.int64]) -> NDArray[np.float64]:
    """A - B, `[resamples, seeds]`, all seeds with the same subjects."""
    if measure is Measure.HTER:
        return np.stack([a.hter(times) - b.hter(times) for a, b in pairs], axis=1)
    return np.stack([a.auc(times) - b.auc(times) for a, b in pairs], axis=1)


def _paired_sums(runs_a: Mapping[str, Mapping[int, ScoredRun]], runs_b: Mapping[str, Mapping[int, ScoredRun]],
                 measure: Measure, fewest_seeds: int) -> dict[str, list[tuple[SubjectSums, SubjectSums]]]:
    if not runs_a or set(runs_a) != set(runs_b):
        raise EvaluationError(f"domains {sorted(runs_a)} of A and {sorted(runs_b)} of B; compare on the same, at least "
                              "one")
    sums: dict[str, list[tuple[SubjectSums, SubjectSums]]] = {}
    for domain in runs_a:
        seeds = sorted(runs_a[domain])
        if seeds != sorted(runs_b[domain]):
            raise EvaluationError(f"{domain}: seeds {seeds} of A and {sorted(runs_b[domain])} of B; runs are compared "
                                  "in pairs of one seed")
        if len(seeds) < fewest_seeds:
            raise EvaluationError(f"{domain}: {len(seeds)} paired seeds; an order claim needs at least {fewest_seeds}")
        pattern = runs_a[domain][seeds[0]]
        for one in (runs_a[domain][seed] for seed in seeds):
            _require_alike(domain, pattern, one)
        for one in (runs_b[domain][seed] for seed in seeds):
            _require_alike(domain, pattern, one)
        with_auc = measure is Measure.AUC
        sums[domain] = [(_sums(runs_a[domain][seed], with_auc), _sums(runs_b[domain][seed], with_auc))
                        for seed in seeds]
    return sums


def _sums(run: ScoredRun, with_auc: bool) -> SubjectSums:
    return subject_sums(run.table.presentations(run.choice.unit), run.choice.threshold, with_auc=with_auc)


def _require_alike(domain: str, pattern: ScoredRun, run: ScoredRun) -> None:
    for name in ("sample_id", "video_id", "subject", "label", "modalities"):
        if not np.array_equal(getattr(pattern.table, name), getattr(run.table, name)):
            raise EvaluationError(f"{domain}: column {name} differs between runs (method {run.table.context.method!r}, "
                                  f"seed {run.table.context.seed}); all must score the same list in its order")
    if (pattern.choice.unit, pattern.column) != (run.choice.unit, run.column):
        raise EvaluationError(f"{domain}: column {run.column} by {run.choice.unit} beside {pattern.column} by "
                              f"{pattern.choice.unit}; never mix columns or levels")
    if run.table.context.epoch != run.choice.epoch:
        raise EvaluationError(f"{domain}: scores of epoch {run.table.context.epoch} with a choice of epoch "
                              f"{run.choice.epoch}")
