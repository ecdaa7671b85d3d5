"""What one audit can tell, by size of its trees and frames of each recording; computed from plans, nothing is rendered.

    python -m benchmarks.audit_resolution
    python -m benchmarks.audit_resolution --by-species 2000:1

A size is a number of `mmdg simulate benchmark --size`, a colon, and its `--frames` (0: the domains' own).
"""

from __future__ import annotations

import argparse

from mmdg_model.training.samples import Domain
from pipeline.simulated_benchmark import plan_benchmark
from pipeline.simulator_audit.resolution import PlannedTree, expected_unresolved, planned_tree, species_too_few


def planned(what: str, domains: str) -> PlannedTree:
    """The tree of SIZE:FRAMES."""
    size, _, frames = what.partition(":")
    return planned_tree(plan_benchmark(size, domains=[Domain(each) for each in domains],
                                       frames=int(frames) if int(frames or 0) else None))


def main() -> None:
    """Prints one row a tree, or one a species."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", nargs="*", default=["300:0", "1000:0", "2000:0", "1000:2", "1500:2", "2000:2",
                                                     "1000:1", "1500:1"])
    parser.add_argument("--domains", default="CPSWL")
    parser.add_argument("--by-species", action="store_true")
    options = parser.parse_args()
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
