"""What tempering the evidence buys, on simulated scores, and the floor under the time to a decision.

    python benchmarks/sequential_test.py

Simulated: each session is a stationary Gaussian AR(1) series of LLRs with mean ±m and variance 2m, which makes every
single frame a true log-likelihood ratio. No camera, no face and no network is involved, so the figures say how the
test treats correlated frames, nothing about how well a checkpoint tells faces from attacks.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from pipeline.policy import Policy
from pipeline.sequential_test import Bound, Evidence, count, crossed, effective_frames, fewest_frames

FRAME_NS = 33_333_333


def sessions(rng: np.random.Generator, number: int, frames: int, mean: float, rho: float) -> npt.NDArray[np.float64]:
    """LLRs, `(number, frames)`, of bona fide presentations; an attack's are the negative."""
    noise = rng.standard_normal((number, frames))
    series = np.empty_like(noise)
    series[:, 0] = noise[:, 0]
    for frame in range(1, frames):
        series[:, frame] = rho * series[:, frame - 1] + np.sqrt(1 - rho**2) * noise[:, frame]
    return mean + np.sqrt(2 * mean) * series


def decide(logits: npt.NDArray[np.float64], policy: Policy) -> tuple[Bound, int]:
    """The bound that one session crosses, and after how many frames."""
    evidence = Evidence()
    for frame, logit in enumerate(logits):
        evidence = count(evidence, float(logit), {"rgb": 0.0}, ("rgb",), frame * FRAME_NS, policy)
        bound = crossed(evidence, policy)
        if bound is not Bound.NONE:
            return bound, frame + 1
    return Bound.NONE, len(logits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    frames, rho = 150, 0.95
    print(f"{arguments.sessions} simulated sessions a row, {frames} frames at 30 Hz, correlation {rho}, "
          f"wanted: at most 1 % of attacks accepted, 5 % of bona fide rejected")
    print(f"{'mean LLR':>8} {'sum':>9} {'attacks accepted':>17} {'bona fide rejected':>19} {'undecided':>10} "
          f"{'median frames':>14}")
    for mean in (0.5, 2.0, 4.0):
        series = sessions(np.random.default_rng(arguments.seed), arguments.sessions, frames, mean, rho)
        for name, correlation in (("naive", 0.0), ("tempered", rho)):
            policy = Policy(frame_correlation=correlation, llr_clip=20.0, uncertainty_weight=0.0)
            live, attack = [decide(row, policy) for row in series], [decide(-row, policy) for row in series]
            undecided = sum(bound is Bound.NONE for bound, _ in live + attack) / (2 * len(series))
            print(f"{mean:>8.1f} {name:>9} {np.mean([b is Bound.UPPER for b, _ in attack]):>16.1%} "
                  f"{np.mean([b is Bound.LOWER for b, _ in live]):>18.1%} {undecided:>10.1%} "
                  f"{np.median([n for b, n in live + attack if b is not Bound.NONE] or [0]):>14.0f}")
    print("\neffective frames at correlation 0.95:",
          ", ".join(f"{n}: {effective_frames(n, 0.95):.2f}" for n in (1, 5, 10, 30, 60, 150)))
    floor = fewest_frames(Policy())
    print(f"floor of the default policy: {floor} scored frames, every one at the clip and free of uncertainty; at 10 "
          f"scores a second {(floor or 0) / 10:.1f} s, at 30 {(floor or 0) / 30:.2f} s")


if __name__ == "__main__":
    main()
