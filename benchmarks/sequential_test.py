"""What tempering the evidence buys, on simulated scores, what breaks it, and the floor under the time to a decision.

    python benchmarks/sequential_test.py [--sessions 1000] [--seed 1]

Simulated: `pipeline.stream_model`. No camera, no face and no network is involved, so the figures say how the test
treats correlated frames, nothing about how well a checkpoint tells faces from attacks.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from pipeline.policy import Policy
from pipeline.sequential_test import effective_frames, fewest_frames
from pipeline.stream_model import StreamModel, decide


def row(model: StreamModel, policy: Policy, sessions: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    attacks, live = (decide(model.draw(rng, sessions, live=side), policy, frame_period_ms=model.frame_period_ms)
                     for side in (False, True))
    decided = np.concatenate([each.frames[~each.undecided] for each in (attacks, live)])
    return (f"{attacks.accepted.mean():>17.2%} {live.rejected.mean():>19.2%} "
            f"{(attacks.undecided.mean() + live.undecided.mean()) / 2:>10.1%} "
            f"{np.median(decided) if len(decided) else math.nan:>14.0f}")


HEAD = f"{'attacks accepted':>17} {'bona fide rejected':>19} {'undecided':>10} {'median frames':>14}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    number, seed = arguments.sessions, arguments.seed
    print(f"{number} simulated bona fide sessions and as many attacks a row, 150 frames at 30 Hz, wanted: at most 1 % "
          "of attacks accepted, 5 % of bona fide rejected\n")
    print(f"{'rho':>5} {'d prime':>8} {'sum':>9} {HEAD}")
    for rho in (0.0, 0.5, 0.9, 0.97):
        for d_prime in (0.5, 1.0, 2.0, 3.0):
            for name, correlation in (("naive", 0.0), ("tempered", rho)):
                print(f"{rho:>5} {d_prime:>8} {name:>9} " + row(
                    StreamModel(d_prime=d_prime, correlation=rho),
                    Policy(frame_correlation=correlation, uncertainty_weight=0.0), number, seed))
    print("\nlevels that sessions keep: their share of the variance as an AR(1) of the same lag-one correlation, and "
          f"as lasting_share\n{'share':>5} {'rho':>8} {'policy':>14} {HEAD}")
    for lasting in (0.1, 0.3, 0.5):
        for rho in (0.0, 0.9):
            model = StreamModel(d_prime=2.0, correlation=rho, lasting=lasting)
            for name, policy in (
                    ("AR(1)", Policy(frame_correlation=lasting + (1 - lasting) * rho, uncertainty_weight=0.0)),
                    ("lasting_share", Policy(frame_correlation=rho, lasting_share=lasting, uncertainty_weight=0.0))):
                print(f"{lasting:>5} {rho:>8} {name:>14} " + row(model, policy, number, seed))
    print(f"\na correlation that was fitted too small (d prime 2)\n{'true':>5} {'fitted':>8} {HEAD}")
    for true, fitted in ((0.9, 0.8), (0.95, 0.9), (0.97, 0.9), (0.9, 0.5)):
        print(f"{true:>5} {fitted:>8} " + row(StreamModel(d_prime=2.0, correlation=true),
                                              Policy(frame_correlation=fitted, uncertainty_weight=0.0), number, seed))
    print("\neffective frames at correlation 0.95:",
          ", ".join(f"{n}: {effective_frames(n, 0.95):.2f}" for n in (1, 5, 10, 30, 60, 150)))
    floor = fewest_frames(Policy())
    print(f"floor of the default policy: {floor} scored frames, every one at the clip and free of uncertainty; at 10 "
          f"scores a second {((floor or 1) - 1) / 10:.1f} s after the first, at 30 {((floor or 1) - 1) / 30:.2f} s")


if __name__ == "__main__":
    main()
