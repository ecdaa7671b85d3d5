"""What random scores reach in each column of the evaluation: the floor that a result must be read against.

Keeping the best of many epochs by the target's own labels turns luck into a figure: with 70 epochs and 240 samples,
scores that know nothing have an HTER near 41 %, not 50 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ChanceFloor:
    """Over repeated runs of random scores; rates in 0..1.

    Attributes:
        hter: mean of the reported HTER.
        hter_low: 5 % quantile; one run in twenty of knowing nothing reports less.
        auc: mean of the AUC at the same epoch.
    """

    hter: float
    hter_low: float
    auc: float


@dataclass(frozen=True, kw_only=True)
class ChanceFloors:
    """One a column, and what they were simulated with. Scores are independent between videos and between epochs."""

    oracle_best: ChanceFloor
    oracle_last: ChanceFloor
    honest: ChanceFloor
    epochs: int
    repeats: int
    target_videos: int


def chance_floors(target_live: BoolArray, source_live: BoolArray, *, epochs: int, repeats: int = 100,
                  seed: int = 0) -> ChanceFloors:
    """Simulates runs whose scores know nothing, through the selection rules of the three columns.

    Args:
        target_live, source_live: `[n]`, labels of the target's and of the source validation's videos.
        epochs: evaluated in each run.
        repeats: runs.

    Raises:
        ValueError: no epoch, no repeat, or labels of one class only.
    """
    if epochs < 1 or repeats < 1:
        raise ValueError(f"chance floor of {epochs} epochs and {repeats} repeats; at least one of each is needed")
    for name, live in (("target", target_live), ("source validation", source_live)):
        if live.all() or not live.any():
            raise ValueError(f"chance floor: the {name} labels are of one class; both are needed")
    rng = np.random.default_rng(seed)
    results: dict[str, list[tuple[float, float]]] = {"best": [], "last": [], "honest": []}
    for _ in range(repeats):
        scores, hter, _threshold, area = _random_run(target_live, epochs, rng)
        best = int(np.argmin(hter))
        results["best"].append((hter[best], area[best]))
        results["last"].append((hter[-1], area[-1]))
        _, source_hter, source_threshold, source_area = _random_run(source_live, epochs, rng)
        chosen = int(np.lexsort((-source_area, source_hter))[0])
        accepted = scores[chosen] >= source_threshold[chosen]
        results["honest"].append(((accepted[~target_live].mean() + 1 - accepted[target_live].mean()) / 2, area[chosen]))
    return ChanceFloors(oracle_best=_floor(results["best"]), oracle_last=_floor(results["last"]),
                        honest=_floor(results["honest"]), epochs=epochs, repeats=repeats,
                        target_videos=len(target_live))


def _floor(runs: list[tuple[float, float]]) -> ChanceFloor:
    hter, area = np.array(runs).T
    return ChanceFloor(hter=float(hter.mean()), hter_low=float(np.quantile(hter, 0.05)), auc=float(area.mean()))


def _random_run(live: BoolArray, epochs: int,
                rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Uniform scores `[epochs, n]`, and by epoch the HTER at its own equal error point, that threshold, and the AUC.

    As `error_rates.equal_error_point`, for all epochs at once; uniform scores have no ties.
    """
    scores = rng.random((epochs, len(live)))
    order = np.argsort(-scores, axis=1)
    ranked = live[order]
    total_live, total_attacks = int(live.sum()), int((~live).sum())
    nothing = np.zeros((epochs, 1), dtype=np.int64)
    accepted_live = np.concatenate([nothing, np.cumsum(ranked, axis=1)], axis=1)
    accepted_attacks = np.arange(len(live) + 1) - accepted_live
    index = np.argmin(np.abs(accepted_live * total_attacks + accepted_attacks * total_live
                             - total_live * total_attacks), axis=1)
    row = np.arange(epochs)
    hter = (accepted_attacks[row, index] / total_attacks + 1 - accepted_live[row, index] / total_live) / 2
    falling = np.concatenate([np.full((epochs, 1), np.inf), np.take_along_axis(scores, order, axis=1)], axis=1)
    area = (accepted_live[:, 1:] * ~ranked).sum(axis=1) / (total_live * total_attacks)
    return scores, hter, falling[row, index], area
