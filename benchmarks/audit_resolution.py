"""What one audit can tell, by size of its trees and frames of each recording; computed from plans, nothing is rendered.

    python -m benchmarks.audit_resolution
    python -m benchmarks.audit_resolution --by-species 2000:1
    python -m benchmarks.audit_resolution --names 16 2000:2

The last asks how far one probe strays by chance: names are planned, so trees of null attacks of many seeds can be
probed for them without rendering. A size is a number of `mmdg simulate benchmark --size`, a colon, and its `--frames`
(0: the domains' own).
"""

from __future__ import annotations

import argparse

import numpy as np

from mmdg_model.training.samples import Domain
from pipeline.simulated_benchmark import BenchmarkPlan, plan_benchmark
from pipeline.simulator_audit.areas import Area, area, units
from pipeline.simulator_audit.frames import name_number
from pipeline.simulator_audit.linear_probe import folds_by_both, held_out_scores
from pipeline.simulator_audit.resolution import PlannedTree, expected_unresolved, planned_tree, species_too_few


def plan_of(what: str, domains: str, *, seed: int = 0, physics: bool = True) -> BenchmarkPlan:
    """The plan of SIZE:FRAMES."""
    size, _, frames = what.partition(":")
    return plan_benchmark(size, seed=seed, domains=[Domain(each) for each in domains], physics=physics,
                          frames=int(frames) if int(frames or 0) else None)


def planned(what: str, domains: str) -> PlannedTree:
    """The tree of SIZE:FRAMES."""
    return planned_tree(plan_of(what, domains))


def area_of_names(what: str, domains: str, seed: int) -> Area | None:
    """The audit's probe on names, on all frames of a planned tree of null attacks."""
    plan = plan_of(what, domains, seed=seed, physics=False)
    rows = [(str(domain), recording.bona_fide, str(recording.person), f"{domain}{recording.session.place}",
             recording.key, name_number(recording.names(index)[0], domain), index)
            for (domain, _), recordings in plan.recordings.items() for recording in recordings
            for index in range(recording.frames)]
    domain, live, person, place, key, number, index = (np.array(column) for column in zip(*rows, strict=True))
    scores = held_out_scores(np.stack([number, index], axis=1), live, folds_by_both(person, place), domain)
    return None if scores is None else area(units(scores, live, domain, person, key))


def print_names(what: str, domains: str, seeds: int) -> None:
    found = [each for each in (area_of_names(what, domains, seed) for seed in range(seeds)) if each is not None]
    values = [each.value for each in found]
    print(f"{what}: the probe on names, {len(found)} seeds of null attacks: mean {np.mean(values):.3f}, standard "
          f"deviation {np.std(values, ddof=1):.3f}, {min(values):.3f} to {max(values):.3f}; "
          f"{sum(each.low > 0.5 for each in found)} with a 95 % interval above 0.5, "
          f"{sum(each.low_wide > 0.5 for each in found)} with a 99.5 % interval above it")


def main() -> None:
    """Prints one row a tree, or one a species."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=["300:0", "1000:0", "2000:0", "1000:2", "1500:2", "2000:2",
                                                     "1000:1", "1500:1"])
    parser.add_argument("--domains", default="CPSWL")
    parser.add_argument("--by-species", action="store_true")
    parser.add_argument("--names", type=int, metavar="SEEDS", help="probe names on so many planned trees of each size")
    options = parser.parse_args()
    if options.names:
        for what in options.sizes:
            print_names(what, options.domains, options.names)
        return
    if options.by_species:
        for what in options.sizes:
            tree = planned(what, options.domains)
            print(f"{what}: {tree.recordings} recordings, live {dict(sorted(tree.live.items()))}")
            for scene in tree.scenes:
                counts = tree.of_scene(scene)
                print(f"  {scene:32s} {sum(counts.values()):4d}  {counts}")
        return
    print("size:frames  frames  recordings  minutes  species < 8  lines  unresolved if nothing leaks  if all leak 0.55")
    for what in options.sizes:
        tree = planned(what, options.domains)
        nothing, little = (expected_unresolved(tree, area) for area in (0.5, 0.55))
        print(f"{what:11s} {tree.frames:7d} {tree.recordings:11d} {tree.minutes:8.0f} {len(species_too_few(tree)):12d}"
              f" {sum(lines for _, lines in nothing.values()):6d} {sum(value for value, _ in nothing.values()):28.0f}"
              f" {sum(value for value, _ in little.values()):17.0f}")


if __name__ == "__main__":
    main()
