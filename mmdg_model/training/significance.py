"""Does a run know anything of its target at all? A permutation test of AUC > 0.5 that moves labels by people.

Videos of one person share that person's score, so labels are not free to move between all videos. Under the null
hypothesis, that scores know nothing of liveness, two moves change nothing and are the only ones made:

- within a person who has both live and attack videos, the labels are shuffled among that person's videos;
- people (artefacts) who have videos of one label only swap that label whole, among themselves.

Both stay within a domain: a network that merely tells two pooled target data sets apart, whose shares of live videos
differ, must not pass. Where a subject is unknown the video stands for it.

The epoch tested must not have been chosen by the target's labels: the honest column's is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from calibration.error_rates import Unit, checked
from mmdg_model.training.scores import Presentations, ScoreTable

#: A run whose p is not below this is a check of the pipeline, not a result.
LARGEST_P = 0.01
FEWEST_PERMUTATIONS = 2000
PIPELINE_CHECK = "pipeline check, not a result"

_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """Outcome of one test.

    Attributes:
        auc: observed, by video, 0..1.
        p: share of permutations (the observed one counted among them) whose AUC is at least the observed one.
        permutations: drawn.
        videos: tested.
        mixed_subjects: with videos of both labels; labels move within each.
        pure_subjects: with videos of one label; labels move between them.
        movable: False where no move is possible (p is then 1).
        subjects_known: False where videos had to stand for subjects; p is then too small if people appear in several.
    """

    auc: float
    p: float
    permutations: int
    videos: int
    mixed_subjects: int
    pure_subjects: int
    movable: bool
    subjects_known: bool

    @property
    def above_chance(self) -> bool:
        """Whether the run may be called a result."""
        return self.p < LARGEST_P

    def __str__(self) -> str:
        return (f"AUC {100 * self.auc:.1f} %, p = {self.p:.4g} of {self.permutations} permutations"
                + ("" if self.above_chance else f": {PIPELINE_CHECK}"))


def permutation_test(table: ScoreTable, *, permutations: int = FEWEST_PERMUTATIONS, seed: int = 0) -> PermutationTest:
    """Tests one checkpoint's scores of the target by video.

    Raises:
        ValueError: fewer than `FEWEST_PERMUTATIONS`, or labels of one class only.
        ScoreTableError: several modality subsets.
    """
    if permutations < FEWEST_PERMUTATIONS:
        raise ValueError(f"{permutations} permutations; at least {FEWEST_PERMUTATIONS} are needed to tell p = "
                         f"{LARGEST_P} apart")
    shown = table.presentations(Unit.VIDEO)
    scores, live = checked(shown.score, shown.live)
    moves = _Moves(shown)
    ranks = np.asarray(stats.rankdata(scores), dtype=np.float64)
    observed = _auc(ranks, live[None])[0]
    rng = np.random.default_rng(seed)
    reached = 0
    for start in range(0, permutations, _CHUNK):
        labels = np.stack([moves.permuted(live, rng) for _ in range(min(_CHUNK, permutations - start))])
        # Rank sums are multiples of 1/2 and exact; the tolerance covers the division alone.
        reached += int((_auc(ranks, labels) >= observed - 1e-12).sum())
    return PermutationTest(
        auc=float(observed), p=(1 + reached) / (1 + permutations), permutations=permutations, videos=len(live),
        mixed_subjects=moves.num_mixed, pure_subjects=moves.num_pure, movable=moves.movable,
        subjects_known=shown.subjects_known)


class _Moves:
    """Which labels may change places, from the presentations' clusters and domains."""

    def __init__(self, shown: Presentations) -> None:
        _, cluster = np.unique(shown.clusters(), return_inverse=True)
        _, domain = np.unique(shown.domain, return_inverse=True)
        counts = np.bincount(cluster)
        live = np.bincount(cluster, weights=shown.live)
        mixed = (live > 0) & (live < counts)
        self._mixed_rows = np.flatnonzero(mixed[cluster])
        self._mixed_cluster = cluster[self._mixed_rows]
        self._by_cluster = np.argsort(self._mixed_cluster, kind="stable")
        pure = np.flatnonzero(~mixed)
        position = np.full(len(counts), -1)
        position[pure] = np.arange(len(pure))
        self._pure_rows = np.flatnonzero(~mixed[cluster])
        self._pure_cluster = position[cluster[self._pure_rows]]
        self._pure_live = (live > 0)[pure]
        of_cluster = np.zeros(len(counts), dtype=np.int64)
        of_cluster[cluster] = domain
        self._pure_domain = of_cluster[pure]
        self._pure_by_domain = np.argsort(self._pure_domain, kind="stable")
        self.num_mixed, self.num_pure = int(mixed.sum()), len(pure)
        self.movable = bool(self.num_mixed) or any(
            len(np.unique(self._pure_live[self._pure_domain == one])) == 2 for one in np.unique(self._pure_domain))

    def permuted(self, live: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
        """Labels `[n]` after one random set of moves."""
        labels = live.copy()
        if len(self._mixed_rows):
            order = np.lexsort((rng.random(len(self._mixed_rows)), self._mixed_cluster))
            labels[self._mixed_rows[order]] = live[self._mixed_rows[self._by_cluster]]
        if self.num_pure:
            order = np.lexsort((rng.random(self.num_pure), self._pure_domain))
            moved = np.empty_like(self._pure_live)
            moved[order] = self._pure_live[self._pure_by_domain]
            labels[self._pure_rows] = moved[self._pure_cluster]
        return labels


def _auc(ranks: NDArray[np.float64], live: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AUC `[r]` of labels `[r, n]` from mid-ranks `[n]` (Mann-Whitney)."""
    count = live.sum(axis=1).astype(np.float64)
    won = live @ ranks - count * (count + 1) / 2
    return np.asarray(won / (count * (live.shape[1] - count)))
