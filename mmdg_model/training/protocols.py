"""The benchmark's protocols as data: which lists train, which test, and which inputs are withheld.

Protocol 1: three data sets train, the fourth is the target. Protocol 2: the networks of Protocol 1, the very same
checkpoints, tested once more with depth, infrared or both withheld from every sample. Protocol 3: two data sets train,
the other two are the targets and are judged as one pool: one ROC, one threshold.

Trainings that are not the paper's are named in the same way: `W_W` trains and tests within one data set, `CPSW_L` has
live sessions as the target. They have the number 0.

Nothing here is drawn at random. Training reads the train lists, and tests read the test lists. The authors' line of
work leaves the validation lists unused; those of the *sources* are free for choosing an epoch and a threshold without
a look at the target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType

from mmdg_model.scorer import CropPlanes, Modality
from mmdg_model.training.manifests import COUNTS, Manifests
from mmdg_model.training.samples import Domain, ListCounts, Sample, Split


class ProtocolError(ValueError):
    """A protocol is unknown, or results do not belong together as it demands; the message names what."""


class Scenario(StrEnum):
    """Which inputs a test withholds."""

    COMPLETE = "complete"
    MISSING_DEPTH = "missing_depth"
    MISSING_INFRARED = "missing_infrared"
    MISSING_DEPTH_AND_INFRARED = "missing_depth_and_infrared"


#: What each scenario withholds.
WITHHELD: Mapping[Scenario, frozenset[Modality]] = MappingProxyType({
    Scenario.COMPLETE: frozenset(),
    Scenario.MISSING_DEPTH: frozenset({Modality.DEPTH}),
    Scenario.MISSING_INFRARED: frozenset({Modality.INFRARED}),
    Scenario.MISSING_DEPTH_AND_INFRARED: frozenset({Modality.DEPTH, Modality.INFRARED}),
})

#: Protocol 2's scenarios, in the order of the paper's Table 2.
PROTOCOL_2 = (Scenario.MISSING_DEPTH, Scenario.MISSING_INFRARED, Scenario.MISSING_DEPTH_AND_INFRARED)


@dataclass(frozen=True, kw_only=True)
class SubProtocol:
    """One training: the data sets that train, and those that it is tested on.

    Attributes:
        number: 1 or 3, of the paper; 0 for none of them.
        sources: their train lists are pooled for training, their validation lists for honest choices.
        targets: their test lists, pooled.
    """

    number: int
    sources: tuple[Domain, ...]
    targets: tuple[Domain, ...]

    @property
    def name(self) -> str:
        """`CPS_W` of the paper's CPS→W."""
        return f"{''.join(self.sources)}_{''.join(self.targets)}"

    def training_samples(self, manifests: Manifests) -> tuple[Sample, ...]:
        """What trains: the sources' train lists, duplicates included."""
        return _pooled(manifests, self.sources, Split.TRAIN)

    def selection_samples(self, manifests: Manifests) -> tuple[Sample, ...]:
        """What may choose an epoch and a threshold: the sources' validation lists; never a target's."""
        return _pooled(manifests, self.sources, Split.VALIDATION)

    def test_samples(self, manifests: Manifests) -> tuple[Sample, ...]:
        """What is tested, as one pool whatever the number of targets: one ROC over all of it."""
        return _pooled(manifests, self.targets, Split.TEST)

    def training_counts(self) -> ListCounts:
        """Of the public lists."""
        return _summed(COUNTS[domain, Split.TRAIN] for domain in self.sources)

    def test_counts(self) -> ListCounts:
        """Of the public lists, pooled."""
        return _summed(COUNTS[domain, Split.TEST] for domain in self.targets)


def _sub_protocol(number: int, sources: str, targets: str) -> SubProtocol:
    return SubProtocol(number=number, sources=tuple(map(Domain, sources)), targets=tuple(map(Domain, targets)))


PROTOCOL_1 = (_sub_protocol(1, "CPS", "W"), _sub_protocol(1, "CPW", "S"), _sub_protocol(1, "CSW", "P"),
              _sub_protocol(1, "PSW", "C"))
PROTOCOL_3 = (_sub_protocol(3, "CW", "PS"), _sub_protocol(3, "PS", "CW"))

#: Every training of the benchmark, by name.
SUB_PROTOCOLS: Mapping[str, SubProtocol] = MappingProxyType({each.name: each for each in PROTOCOL_1 + PROTOCOL_3})


def sub_protocol(name: str) -> SubProtocol:
    """By name, such as `CPS_W`; sources and targets of one's own are written alike.

    Raises:
        ProtocolError: no such name; lists those of the benchmark.
    """
    if name in SUB_PROTOCOLS:
        return SUB_PROTOCOLS[name]
    sources, _, targets = name.partition("_")
    letters = "".join(sorted(Domain))
    # In alphabetical order, so that no training has two names.
    if not all(each and "".join(sorted(set(each) & set(letters))) == each for each in (sources, targets)):
        raise ProtocolError(f"no protocol {name!r}; there are {', '.join(SUB_PROTOCOLS)}, and any SOURCES_TARGETS of "
                            f"the letters {letters}, in that order, each once on its side")
    return _sub_protocol(0, sources, targets)


def withhold(crop: CropPlanes, scenario: Scenario) -> CropPlanes:
    """The crop without the planes that a scenario withholds, from every sample alike.

    How a network is told of an absent plane is its checkpoint's business (`InputSpecification.absence`).
    """
    withheld = WITHHELD[scenario]
    without_depth = replace(crop, depth=None, depth_valid=None) if Modality.DEPTH in withheld else crop
    if Modality.INFRARED not in withheld:
        return without_depth
    return replace(without_depth, infrared=None, infrared_valid=None)


def _pooled(manifests: Manifests, domains: tuple[Domain, ...], split: Split) -> tuple[Sample, ...]:
    for domain in domains:
        if (domain, split) not in manifests:
            raise ProtocolError(f"list {domain}-{split} was not read; the protocol needs it")
    return tuple(sample for domain in domains for sample in manifests[domain, split])


def _summed(counts: Iterable[ListCounts]) -> ListCounts:
    kept = tuple(counts)
    return ListCounts(lines=sum(each.lines for each in kept), live=sum(each.live for each in kept),
                      spoof=sum(each.spoof for each in kept), duplicates=sum(each.duplicates for each in kept))
