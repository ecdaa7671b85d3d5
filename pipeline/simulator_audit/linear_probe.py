"""Held-out scores of a linear classifier: logistic regression on features and their squares, crossed by groups.

Squares let it see a difference in spread as well as one in the mean. They are as many again as the features, so they
come in at half their size: a prior under which a difference in spread is rarer than one in the mean, without
which they drown it where recordings are few. The penalty grows with the number of features, as that of a prior under
which a row's margin has a spread of fourteen. `docs/simulator-audit.md` says how folds, weight and penalty were chosen:
by leaks planted into trees, other leaks than the audit's own control, and nothing is tuned to an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

FloatArray = NDArray[np.float64]

FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """Attributes:
        crossed_folds: of each of two groupings that are held out together: of 5 x 5 cells 16 are left to train on.
        squares: size of the squares beside the features.
        columns_a_penalty: the penalty is the number of columns over this.
    """

    crossed_folds: int = 5
    squares: float = 0.5
    columns_a_penalty: float = 200.0


SETTINGS = ProbeSettings()

#: Pairs of masks `[n]`: rows to test, rows to train on.
Folds = list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]


def fold_of_groups(group: NDArray[np.str_], folds: int = FOLDS, *, seed: int = 0) -> NDArray[np.int64]:
    """The fold of each row, `[n]`: whole groups, spread evenly and at random."""
    names, member = np.unique(group, return_inverse=True)
    order = np.random.default_rng([seed, 72]).permutation(len(names))
    return np.asarray((order % min(folds, max(len(names), 2)))[member], np.int64)


def folds_by(group: NDArray[np.str_]) -> Folds:
    """No group is in the rows of a test and in those trained on for it."""
    fold = fold_of_groups(group)
    return [(fold == one, fold != one) for one in np.unique(fold)]


def folds_by_both(one: NDArray[np.str_], other: NDArray[np.str_], folds: int = SETTINGS.crossed_folds) -> Folds:
    """Neither grouping's groups are shared: what a place happens to have shown most is then of no use at another."""
    first, second = fold_of_groups(one, folds), fold_of_groups(other, folds, seed=1)
    cells = [((first == i) & (second == j), (first != i) & (second != j)) for i in np.unique(first)
             for j in np.unique(second)]
    return [(test, train) for test, train in cells if test.any()]


def held_out_scores(features: NDArray[np.floating], positive: NDArray[np.bool_], folds: Folds,
                    stratum: NDArray[np.str_] | None = None,
                    settings: ProbeSettings = SETTINGS) -> FloatArray | None:
    """Score of each row by a classifier that saw none of its groups, `[n]`; None where features say nothing at all.

    Args:
        features: `[n, k]`; NaN, where nothing was measured, becomes the mean and a column of its own.
        stratum: rows are centred and scaled within each: a domain's level then tells nothing of the label.
    """
    rows = _filled(np.asarray(features, np.float64))
    strata = np.zeros(len(rows), int) if stratum is None else np.unique(stratum, return_inverse=True)[1]
    scores = np.full(len(rows), np.nan)
    for test, train in folds:
        if not train.any() or positive[train].all() or not positive[train].any():
            continue
        plain = _scaled(rows, train, strata)
        design = np.hstack([plain, settings.squares * _scaled(plain ** 2, train, strata)])
        design = design[:, design[train].std(axis=0) > 1e-9]
        if design.shape[1]:
            values = design @ fitted_weights(design[train], positive[train],
                                             design.shape[1] / settings.columns_a_penalty)
            # Each fold's classifier has an offset of its own; only differences within a fold mean anything.
            scores[test] = (values[test] - values[train].mean()) / (values[train].std() + 1e-9)
    return None if np.isnan(scores).all() else np.nan_to_num(scores)


def _filled(rows: FloatArray) -> FloatArray:
    missing = np.isnan(rows)
    partly = missing.any(axis=0) & ~missing.all(axis=0)
    with_mean = np.where(missing, np.nan_to_num(_column_means(rows, missing)), rows)
    return np.hstack([with_mean, missing[:, partly].astype(np.float64)])


def _column_means(rows: FloatArray, missing: NDArray[np.bool_]) -> FloatArray:
    return np.asarray(np.where(missing, 0.0, rows).sum(axis=0) / np.maximum((~missing).sum(axis=0), 1))


def _scaled(rows: FloatArray, train: NDArray[np.bool_], strata: NDArray[np.int64]) -> FloatArray:
    """Centred and scaled within each stratum by its training rows; far outliers are pulled in."""
    scaled = np.zeros_like(rows)
    for one in np.unique(strata):
        here = strata == one
        known = rows[here & train]
        if not len(known):
            continue  # nothing of this stratum was seen: it says nothing
        mean, spread = known.mean(axis=0), known.std(axis=0)
        # Of equal large numbers (sums of JPEG tables) the mean is off by a rounding, which is no spread.
        scaled[here] = (rows[here] - mean) / np.where(spread > 1e-9 * np.maximum(1, np.abs(mean)), spread, np.inf)
    return np.clip(scaled, -5, 5)


def fitted_weights(rows: FloatArray, positive: NDArray[np.bool_], penalty: float) -> FloatArray:
    """Weights `[k]` of a logistic regression of `rows` `[n, k]` with classes of equal weight; its offset is dropped."""
    if rows.shape[1] > rows.shape[0]:  # the answer lies in the span of the rows: fewer unknowns, the same minimum
        basis, coordinates = np.linalg.qr(rows.T)
        return np.asarray(basis @ _minimum(coordinates.T, positive, penalty))
    return _minimum(rows, positive, penalty)


def _minimum(rows: FloatArray, positive: NDArray[np.bool_], penalty: float) -> FloatArray:
    weight = np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum()) * len(rows)
    sign = np.where(positive, 1.0, -1.0)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        margin = sign * (rows @ parameters[:-1] + parameters[-1])
        pull = -weight * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        gradient = np.append(rows.T @ pull + penalty * parameters[:-1], pull.sum())
        return float(weight @ np.logaddexp(0, -margin) + penalty / 2 * parameters[:-1] @ parameters[:-1]), gradient

    answer = minimize(loss, np.zeros(rows.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(answer.x[:-1])
