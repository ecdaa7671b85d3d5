"""Held-out scores of a linear classifier: logistic regression on features and their squares, crossed by groups.

Squares let it see a difference in spread as well as one in the mean. The penalty grows with the number of features, as
that of a prior under which a row's margin has a spread of seven: weak enough that a leak in three of some hundred
features is found (the audit's own control plants one), and nothing is tuned to an answer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

FloatArray = NDArray[np.float64]

FOLDS = 5
#: Folds of each of two groupings that are held out together.
CROSSED_FOLDS = 3

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


def folds_by_both(one: NDArray[np.str_], other: NDArray[np.str_]) -> Folds:
    """Neither grouping's groups are shared: what a place happens to have shown most is then of no use at another."""
    first, second = fold_of_groups(one, CROSSED_FOLDS), fold_of_groups(other, CROSSED_FOLDS, seed=1)
    cells = [((first == i) & (second == j), (first != i) & (second != j)) for i in np.unique(first)
             for j in np.unique(second)]
    return [(test, train) for test, train in cells if test.any()]


def held_out_scores(features: NDArray[np.floating], positive: NDArray[np.bool_], folds: Folds,
                    stratum: NDArray[np.str_] | None = None) -> FloatArray | None:
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
        design = np.hstack([plain, _scaled(plain ** 2, train, strata)])
        design = design[:, design[train].std(axis=0) > 1e-9]
        if design.shape[1]:
            values = design @ _fitted(design[train], positive[train])
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
        spread = known.std(axis=0)
        scaled[here] = (rows[here] - known.mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf)
    return np.clip(scaled, -5, 5)


def _fitted(rows: FloatArray, positive: NDArray[np.bool_]) -> FloatArray:
    """Weights of a logistic regression with classes of equal weight; its offset is dropped."""
    weight = np.where(positive, 0.5 / positive.sum(), 0.5 / (~positive).sum()) * len(rows)
    sign = np.where(positive, 1.0, -1.0)
    penalty = rows.shape[1] / 50

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        margin = sign * (rows @ parameters[:-1] + parameters[-1])
        pull = -weight * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        gradient = np.append(rows.T @ pull + penalty * parameters[:-1], pull.sum())
        return float(weight @ np.logaddexp(0, -margin) + penalty / 2 * parameters[:-1] @ parameters[:-1]), gradient

    answer = minimize(loss, np.zeros(rows.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(answer.x[:-1])
