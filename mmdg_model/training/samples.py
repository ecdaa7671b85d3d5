"""The nouns of the benchmark: data sets, splits, presentations, samples and what a list should count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from mmdg_model.scorer import Modality

#: What is not known is called so. It is no species and no subject: two unknown subjects are not the same one.
UNKNOWN = "unknown"

#: The species of every bona fide presentation.
BONA_FIDE = "bona_fide"


class Domain(StrEnum):
    """The benchmark's four data sets, by the letters that its lists are named with, and a fifth of one's own.

    `LIVE` is no data set: crops that this pipeline itself cut from sessions before a camera
    (`mmdg_model.training.live_sessions`).
    """

    CASIA_SURF = "S"
    CEFA = "C"
    WMCA = "W"
    PADISI = "P"
    LIVE = "L"


#: The benchmark's four data sets, whose lists are public.
PUBLIC_DOMAINS = (Domain.CASIA_SURF, Domain.CEFA, Domain.WMCA, Domain.PADISI)


class Split(StrEnum):
    """The three lists of each data set."""

    TRAIN = "train"
    VALIDATION = "val"
    TEST = "test"


class ManifestError(ValueError):
    """A list or metadata file cannot be used; the message quotes the file, the line and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Presentation:
    """What a path, or a metadata file, tells of who presented what.

    Attributes:
        bona_fide: whether it was a live face; None when not told.
        species: the kind of attack instrument, `bona_fide`, or `unknown`.
        subject: whom the face belongs to, in the data set's own numbering, or `unknown`.
    """

    bona_fide: bool | None = None
    species: str = UNKNOWN
    subject: str = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class ListCounts:
    """What one list holds: lines, their labels, and lines that repeat an earlier line of the same list."""

    lines: int
    live: int
    spoof: int
    duplicates: int = 0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One line of a list: one instant of one presentation.

    Attributes:
        domain, split, line: where it stands; lines count from 1.
        name: its first path exactly as the list has it; identical for duplicate lines.
        bona_fide: the label, 1 in the list.
        species: kind of attack, `bona_fide`, or `unknown` (see `Presentation`).
        subject: numbered within the domain, or `unknown`.
        recording: the video that the frame is of, unique within the domain; frames of one are not independent.
        files: the file of each modality; one and the same for PADISI-Face. They need not exist.
    """

    domain: Domain
    split: Split
    line: int
    name: str
    bona_fide: bool
    species: str
    subject: str
    recording: str
    files: Mapping[Modality, Path] = field(hash=False)


def deduplicated(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The samples without those whose domain, name and label an earlier one has.

    The paper's figures count duplicates, so training and tests keep them; figures without them are printed beside.
    """
    first: dict[tuple[Domain, str, bool], Sample] = {}
    for sample in samples:
        first.setdefault((sample.domain, sample.name, sample.bona_fide), sample)
    return tuple(first.values())
