"""Checks a tree of data sets against the lists: what they hold, which files are missing or unreadable, what recurs.

A run over real trees opens some 100,000 files, each once. Nothing is changed, and no file ends it: each trouble
is kept.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import combinations, islice
from pathlib import Path
from typing import Any

from mmdg_model.scorer import Modality
from mmdg_model.training.decoding import BLACK, FileTrouble, TroubleKind, read_sample_levels
from mmdg_model.training.manifests import COUNTS, Metadata, list_path, read_list
from mmdg_model.training.padisi import find_files
from mmdg_model.training.samples import (
    BONA_FIDE,
    PUBLIC_DOMAINS,
    UNKNOWN,
    Domain,
    ListCounts,
    ManifestError,
    Sample,
    Split,
    deduplicated,
)
from mmdg_model.training.simulated_tree import read_simulated_tree

#: Names that two public lists share, as far as known: a live frame of CeFA stands in its validation and its test list.
EXPECTED_SHARED: dict[tuple[Domain, Split, Split], int] = {(Domain.CEFA, Split.VALIDATION, Split.TEST): 1}

_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class ListReport:
    """What one list holds and how its files are.

    Attributes:
        list_name: `C-train`.
        error: why the list could not be read; then nothing else is known.
        counts, expected: of this list, and of the public one, or of a simulated one as its tree states them.
        species: lines of each kind of attack, `bona_fide` and `unknown`.
        num_subjects: distinct known subjects.
        unknown_subjects: lines whose subject is not known.
        troubles: files that are missing or unreadable, each once (of P, as its colour's); empty as well when files were
            not looked at.
    """

    list_name: str
    error: str | None = None
    counts: ListCounts | None = None
    expected: ListCounts
    species: dict[str, int]
    num_subjects: int = 0
    unknown_subjects: int = 0
    troubles: tuple[FileTrouble, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether it holds what is expected."""
        return self.counts == self.expected

    def num_troubles(self, kind: TroubleKind) -> dict[Modality, int]:
        """Files of one kind of trouble, by modality."""
        counted = Counter(trouble.modality for trouble in self.troubles if trouble.kind is kind)
        return {modality: counted[modality] for modality in Modality if counted[modality]}


@dataclass(frozen=True, kw_only=True)
class OverlapReport:
    """What two lists of one data set share; a shared subject or picture lets a test be learnt by heart.

    Attributes:
        lists: the two.
        names: samples that both name.
        expected: how many of them the public lists share.
        subjects: known subjects of both, apart from those samples.
        same_pictures: pairs of differently named colour images whose pixels are all equal.
    """

    lists: tuple[str, str]
    names: tuple[str, ...]
    expected: int
    subjects: tuple[str, ...]
    same_pictures: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The whole report.

    Attributes:
        root: the data root.
        simulated: whether the tree says that it is simulated; its lists are then compared with what it states.
        files_checked: how many files were opened; 0 when only the lists were read.
        lists, overlaps: see there. An overlap is reported only where there is one.
    """

    root: Path
    simulated: bool
    files_checked: int
    lists: tuple[ListReport, ...]
    overlaps: tuple[OverlapReport, ...]

    @property
    def passed(self) -> bool:
        """Every list is as expected, every file could be read, and nothing is shared that was not known."""
        return (all(report.agrees and not report.troubles for report in self.lists)
                and not any(len(each.names) > each.expected or each.subjects or each.same_pictures
                            for each in self.overlaps))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON stores them."""
        return {"root": str(self.root), "simulated": self.simulated, "passed": self.passed,
                "files_checked": self.files_checked,
                "lists": [{**asdict(report), "agrees": report.agrees,
                           "troubles": [{"path": str(trouble.path), "modality": str(trouble.modality),
                                         "kind": str(trouble.kind), "reason": trouble.reason}
                                        for trouble in report.troubles]} for report in self.lists],
                "overlaps": [asdict(each) for each in self.overlaps]}


def verify(root: Path, lists: Path, *, domains: Collection[Domain] = PUBLIC_DOMAINS, metadata: Metadata | None = None,
           check_files: bool = True, on_progress: Callable[[int, int], None] | None = None) -> Verification:
    """Reads the lists and, unless `check_files` is False, decodes every file that they name.

    Args:
        root: the data root that the lists' paths start from.
        lists: the folder of the lists.
        domains: which data sets to look at.
        metadata: of `manifests.read_metadata`.
        check_files: whether to open the files.
        on_progress: called with (samples done, samples in all) while files are opened.

    Raises:
        ManifestError: two PADISI-Face files carry one trial, or the mark of a simulated tree cannot be read. What is
            wrong with a list is in its report.
    """
    simulated = read_simulated_tree(root)
    expected = COUNTS if simulated is None else simulated.counts
    padisi_files = find_files(root) if Domain.PADISI in domains else {}
    samples: dict[tuple[Domain, Split], tuple[Sample, ...]] = {}
    errors: dict[tuple[Domain, Split], str] = {}
    for domain in domains:
        for split in Split:
            try:
                samples[domain, split] = read_list(list_path(lists, domain, split), root, domain, split,
                                                   metadata=metadata, padisi_files=padisi_files)
            except ManifestError as error:
                errors[domain, split] = str(error)
    looked = _look_at_files(samples.values(), on_progress) if check_files else _Looked({}, {}, 0)
    return Verification(
        root=root, simulated=simulated is not None, files_checked=looked.num_files,
        lists=tuple(_list_report(key, samples.get(key, ()), errors.get(key), looked,
                                 expected.get(key, ListCounts(lines=0, live=0, spoof=0)))
                    for key in ((domain, split) for domain in domains for split in Split)),
        overlaps=tuple(overlap for domain in domains for first, second in combinations(Split, 2)
                       if (overlap := _overlap(samples.get((domain, first), ()), samples.get((domain, second), ()),
                                               domain, first, second, looked)) is not None))


@dataclass(frozen=True)
class _Looked:
    """By sample name within a domain: troubles of its files, and the digest of its colour file where that is fine."""

    troubles: dict[tuple[Domain, str], tuple[FileTrouble, ...]]
    digests: dict[tuple[Domain, str], bytes]
    num_files: int


def _look_at_files(lists: Collection[tuple[Sample, ...]], on_progress: Callable[[int, int], None] | None) -> _Looked:
    distinct = {(sample.domain, sample.name): sample for samples in lists for sample in samples}
    looked = _Looked({}, {}, len({path for sample in distinct.values() for path in sample.files.values()}))
    # Decoding lets other threads run; batches, because `map` would queue all samples at once.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        done = 0
        for batch in _batches(list(distinct.items())):
            for (key, _), (troubles, digest) in zip(batch, pool.map(_look_at, [sample for _, sample in batch]),
                                                    strict=True):
                if troubles:
                    looked.troubles[key] = troubles
                if digest is not None:
                    looked.digests[key] = digest
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(distinct))
    return looked


def _batches(items: list[tuple[tuple[Domain, str], Sample]]) -> Iterator[list[tuple[tuple[Domain, str], Sample]]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _look_at(sample: Sample) -> tuple[tuple[FileTrouble, ...], bytes | None]:
    levels = read_sample_levels(sample)
    found = [each for each in levels.values() if isinstance(each, FileTrouble)]
    # A bad file of P is in trouble three times: keep colour's, which comes first.
    troubles = tuple({each.path: each for each in reversed(found)}.values())
    colour = levels[Modality.RGB]
    if isinstance(colour, FileTrouble):
        return troubles, None
    if not colour.any():
        black = FileTrouble(path=sample.files[Modality.RGB], modality=Modality.RGB, kind=TroubleKind.UNREADABLE,
                            reason=BLACK)
        return (black, *troubles), None
    return troubles, blake2b(str(colour.shape).encode() + colour.tobytes(), digest_size=16).digest()


def _list_report(key: tuple[Domain, Split], samples: tuple[Sample, ...], error: str | None,
                 looked: _Looked, expected: ListCounts) -> ListReport:
    name = f"{key[0]}-{key[1]}"
    if error is not None:
        return ListReport(list_name=name, error=error, expected=expected, species={})
    live = sum(sample.bona_fide for sample in samples)
    species = Counter(sample.species for sample in samples)
    first_of_name = {sample.name: sample for sample in samples}
    return ListReport(
        list_name=name, expected=expected,
        counts=ListCounts(lines=len(samples), live=live, spoof=len(samples) - live,
                          duplicates=len(samples) - len(deduplicated(samples))),
        species={each: species[each] for each in (BONA_FIDE, *sorted(set(species) - {BONA_FIDE, UNKNOWN}), UNKNOWN)
                 if species[each]},
        num_subjects=len({sample.subject for sample in samples} - {UNKNOWN}),
        unknown_subjects=sum(sample.subject == UNKNOWN for sample in samples),
        troubles=tuple(trouble for each in first_of_name for trouble in looked.troubles.get((key[0], each), ())))


def _overlap(first: tuple[Sample, ...], second: tuple[Sample, ...], domain: Domain, first_split: Split,
             second_split: Split, looked: _Looked) -> OverlapReport | None:
    names = {sample.name for sample in first} & {sample.name for sample in second}
    subjects = _subjects_apart_from(names, first) & _subjects_apart_from(names, second)
    by_digest = {looked.digests[domain, sample.name]: sample.name for sample in first
                 if (domain, sample.name) in looked.digests}
    pictures = {(twin, sample.name) for sample in second
                if (digest := looked.digests.get((domain, sample.name))) is not None
                and (twin := by_digest.get(digest)) is not None and twin != sample.name}
    if not (names or subjects or pictures):
        return None
    return OverlapReport(lists=(f"{domain}-{first_split}", f"{domain}-{second_split}"), names=tuple(sorted(names)),
                         expected=EXPECTED_SHARED.get((domain, first_split, second_split), 0),
                         subjects=tuple(sorted(subjects)), same_pictures=tuple(sorted(pictures)))


def _subjects_apart_from(names: set[str], samples: tuple[Sample, ...]) -> set[str]:
    return {sample.subject for sample in samples if sample.name not in names} - {UNKNOWN}
