"""How many lines of an audit a tree would leave unresolved, from its plan alone: nothing is rendered or probed.

The spread of an area under the ROC curve of nothing, over n live and m other recordings, is that of a rank sum:
sqrt((n + m + 1) / 12 n m) (Hanley and McNeil, "The meaning and use of the area under a receiver operating
characteristic (ROC) curve", Radiology 143, 1982, at an area of 0.5). Recordings count as independent. In the kept
audit of 22 November 2026 (simulated) the intervals by bootstrap over people were as wide as that for species, and 0.7
times as wide for domains and whole trees, where people are in both labels: there the numbers below are too pessimistic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mmdg_model.training.samples import BONA_FIDE
from pipeline.simulated_benchmark import BenchmarkPlan
from pipeline.simulator_audit.areas import WIDE
from pipeline.simulator_audit.describing import NOISE
from pipeline.simulator_audit.findings import BOUNDS
from pipeline.simulator_audit.probing import BACKGROUND, METADATA, PICTURES

_CHECKED = ("leakage by species", "leakage by domain", "null attack", "rendering parity")
#: Probes of one group of features, two of several together (three on null attacks), and the small network. JPEG tables
#: are constant: a line that passes, and none of a species.
_LEAKAGE_PROBES = len({*METADATA, *BACKGROUND} - {"JPEG tables"}) + 2
_NULL_PROBES = len({*METADATA, *BACKGROUND, *PICTURES} - {"JPEG tables"}) + 4


@dataclass(frozen=True, kw_only=True)
class PlannedTree:
    """Recordings of a tree: `live` by domain, `attacks` by scene and domain; `frames` and `minutes` as planned."""

    live: Mapping[str, int]
    attacks: Mapping[tuple[str, str], int]
    frames: int
    minutes: float

    @property
    def recordings(self) -> int:
        """Of both labels."""
        return sum(self.live.values()) + sum(self.attacks.values())

    def of_scene(self, scene: str) -> dict[str, int]:
        """Its recordings by domain."""
        return {domain: count for (name, domain), count in sorted(self.attacks.items()) if name == scene}

    @property
    def scenes(self) -> tuple[str, ...]:
        """All attacks there are."""
        return tuple(sorted({name for name, _ in self.attacks}))


def planned_tree(plan: BenchmarkPlan) -> PlannedTree:
    """The counts of a plan; its minutes are on one core."""
    live, attacks = Counter[str](), Counter[tuple[str, str]]()
    for (domain, _), recordings in plan.recordings.items():
        for each in recordings:
            if each.species == BONA_FIDE:
                live[str(domain)] += 1
            else:
                attacks[each.scene, str(domain)] += 1
    return PlannedTree(live=dict(live), attacks=dict(attacks), frames=plan.frames, minutes=plan.minutes(1))


def spread_of_area(counts: Collection[tuple[int, int]]) -> float:
    """Standard deviation of an area of nothing: (live, other recordings) of each domain, averaged by the others."""
    pairs = [(live, other) for live, other in counts if live and other]
    total = sum(other for _, other in pairs)
    return math.sqrt(sum((other / total) ** 2 * (live + other + 1) / (12 * live * other) for live, other in pairs))


def _above(value: float, area: float, spread: float) -> float:
    return 0.5 * math.erfc((value - area) / spread / math.sqrt(2))


#: How many spreads an interval reaches to one side, at 95 % and at `WIDE`.
_REACH, _REACH_WIDE = 1.960, 2.807
assert WIDE == 0.995, "the reach of the wide interval belongs to it"


def unresolved_leak(counts: Collection[tuple[int, int]], area: float = 0.5) -> float:
    """Probability that a line of `findings.at_most` is unresolved where the true area is `area`."""
    live, others = sum(one for one, _ in counts), sum(other for _, other in counts)
    if min(live, others) < BOUNDS.fewest:
        return 1.0
    spread = spread_of_area(counts)
    failed = max(BOUNDS.leak, 0.5 + _REACH_WIDE * spread)
    return _above(BOUNDS.leak, area, spread) - _above(failed, area, spread)


def unresolved_chance(counts: Collection[tuple[int, int]]) -> float:
    """Probability that a line of `findings.at_chance` is unresolved where there is nothing to find."""
    spread = spread_of_area(counts)
    passes, fails = BOUNDS.chance_upper - _REACH * spread, 0.5 + _REACH_WIDE * spread
    return max(_above(passes, 0.5, spread) - _above(fails, 0.5, spread), 0.0)


def expected_unresolved(tree: PlannedTree, area: float = 0.5) -> dict[str, tuple[float, int]]:
    """Check -> lines expected to be unresolved, and lines in all; leaks of that true area, null attacks of 0.5."""
    of_scene = [[(tree.live.get(domain, 0), count) for domain, count in tree.of_scene(scene).items()]
                for scene in tree.scenes]
    of_domain = [(live, sum(count for (_, where), count in tree.attacks.items() if where == domain))
                 for domain, live in sorted(tree.live.items())]
    chance = unresolved_chance(of_domain)
    values = (_LEAKAGE_PROBES * sum(unresolved_leak(each, area) for each in of_scene),
              _LEAKAGE_PROBES * sum(unresolved_leak([each], area) for each in of_domain),
              _NULL_PROBES * chance, (len(NOISE) + 1) * chance)
    lines = (_LEAKAGE_PROBES * len(of_scene), _LEAKAGE_PROBES * len(of_domain), _NULL_PROBES, len(NOISE) + 1)
    return dict(zip(_CHECKED, zip(values, lines, strict=True), strict=True))


def species_too_few(tree: PlannedTree) -> tuple[str, ...]:
    """Attacks with fewer recordings than an area must be measured on to be judged (`Bounds.fewest`)."""
    return tuple(scene for scene in tree.scenes if sum(tree.of_scene(scene).values()) < BOUNDS.fewest)
