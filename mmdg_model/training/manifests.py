"""Reads the benchmark's public lists exactly as they are: CRLF or LF, spaces or tabs, with or without a last newline.

A line of S, C and W is `rgb depth infrared label`, of P `file label`; label 1 is live. Duplicate lines stay. No name is
made up: what is loaded is what a list names, below the data root.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from mmdg_model.scorer import Modality
from mmdg_model.training import casia_surf, cefa, live_sessions, padisi, wmca
from mmdg_model.training.samples import (
    BONA_FIDE,
    PUBLIC_DOMAINS,
    UNKNOWN,
    Domain,
    ListCounts,
    ManifestError,
    Presentation,
    Sample,
    Split,
)

#: Samples of each list that was read.
Manifests = Mapping[tuple[Domain, Split], tuple[Sample, ...]]

#: Presentation by listed name, from a metadata file.
Metadata = Mapping[str, Presentation]

#: What each list of the public benchmark holds.
COUNTS: dict[tuple[Domain, Split], ListCounts] = {
    (domain, split): counts
    for domain, table in ((Domain.CASIA_SURF, casia_surf.COUNTS), (Domain.CEFA, cefa.COUNTS),
                          (Domain.WMCA, wmca.COUNTS), (Domain.PADISI, padisi.COUNTS))
    for split, counts in table.items()
}

_PRESENTATION: dict[Domain, Callable[[str], Presentation]] = {
    Domain.CASIA_SURF: casia_surf.presentation, Domain.CEFA: cefa.presentation, Domain.WMCA: wmca.presentation,
    Domain.PADISI: lambda _: Presentation(), Domain.LIVE: live_sessions.presentation,
}
_MODALITIES = (Modality.RGB, Modality.DEPTH, Modality.INFRARED)
_GENERAL_COLUMNS = {"path", "subject", "species"}
_PADISI_COLUMNS = {"trial_id", "ground_truth", "participant_id"}


def list_path(lists: Path, domain: Domain, split: Split) -> Path:
    """Where a list is looked for: `<letter>-<split>.txt`, as the benchmark publishes it."""
    return lists / f"{domain}-{split}.txt"


def read_manifests(root: Path, lists: Path, *, domains: Collection[Domain] = PUBLIC_DOMAINS,
                   splits: Collection[Split] = tuple(Split), metadata: Metadata | None = None) -> Manifests:
    """Some lists of some domains; no other is opened.

    Args:
        root: the data root that the lists' paths start from.
        lists: the folder of the twelve list files.
        domains, splits: which to read.
        metadata: of `read_metadata`; fills in what paths do not tell.

    Raises:
        ManifestError: see `read_list`.
    """
    files = padisi.find_files(root) if Domain.PADISI in domains else {}
    return {(domain, split): read_list(list_path(lists, domain, split), root, domain, split, metadata=metadata,
                                       padisi_files=files)
            for domain in domains for split in splits}


def read_list(path: Path, root: Path, domain: Domain, split: Split, *, metadata: Metadata | None = None,
              padisi_files: Mapping[str, Path] | None = None) -> tuple[Sample, ...]:
    """The samples of one list, in its order; duplicates included. Whether their files exist is not asked here.

    Args:
        path: the list.
        root: the data root.
        domain, split: what the list is of.
        metadata: of `read_metadata`.
        padisi_files: of `padisi.find_files`; where None, the root is searched.

    Raises:
        ManifestError: no such list, no text, a line of another form, a path that leaves the data root, one file with
            both labels, or a label that contradicts what the path or the metadata tells. A list with labels the other
            way round would teach that attacks are live.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        whose = "live sessions" if domain is Domain.LIVE else "the public MMDG benchmark"
        raise ManifestError(f"no list {path}; the folder of lists holds {domain}-{split}.txt of {whose}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"list {path} cannot be read: {error}") from error
    if domain is Domain.PADISI and padisi_files is None:
        padisi_files = padisi.find_files(root)
    samples: list[Sample] = []
    labels: dict[str, bool] = {}
    for line, content in enumerate(text.split("\n"), start=1):
        if fields := content.split():
            sample = _sample(fields, root, domain, split, f"{path}, line {line}", line, metadata or {},
                             padisi_files or {})
            if (label := labels.setdefault(sample.name, sample.bona_fide)) != sample.bona_fide:
                raise ManifestError(f"{path}, line {line}: {sample.name} is labelled {sample.bona_fide:d} here and "
                                    f"{label:d} before")
            samples.append(sample)
    if not samples:
        raise ManifestError(f"list {path} is empty")
    return tuple(samples)


def _sample(fields: list[str], root: Path, domain: Domain, split: Split, place: str, line: int, metadata: Metadata,
            padisi_files: Mapping[str, Path]) -> Sample:
    *names, label = fields
    expected = 1 if domain is Domain.PADISI else 3
    if len(names) != expected:
        form = "a file and a label" if expected == 1 else "the rgb, depth and infrared files and a label"
        raise ManifestError(f"{place}: {len(fields)} fields in {' '.join(fields)!r}, expected {form}")
    if label not in ("0", "1"):
        raise ManifestError(f"{place}: label {label!r}, expected 1 for live or 0 for spoof")
    for name in names:
        _check_inside(name, place)
    bona_fide = label == "1"
    told = _told(names[0], domain, metadata)
    if told.bona_fide is not None and told.bona_fide != bona_fide:
        raise ManifestError(f"{place}: label {label} says {'live' if bona_fide else 'spoof'}, but {names[0]} is "
                            f"{'live' if told.bona_fide else 'an attack'}; this benchmark's lists call live 1, "
                            "some data sets' own lists the other way round")
    files = [root / name for name in names]
    if domain is Domain.PADISI:
        files = [padisi_files.get(padisi.trial_of(names[0]) or "", files[0])] * 3
    return Sample(
        domain=domain, split=split, line=line, name=names[0], bona_fide=bona_fide,
        species=BONA_FIDE if bona_fide else told.species, subject=told.subject,
        recording=names[0] if domain is Domain.PADISI else str(PurePosixPath(names[0]).parent.parent),
        files=dict(zip(_MODALITIES, files, strict=True)))


def _check_inside(name: str, place: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise ManifestError(f"{place}: path {name!r} leaves the data root; paths are relative, with forward slashes")


def _told(name: str, domain: Domain, metadata: Metadata) -> Presentation:
    """What the path tells, and the metadata where the path does not."""
    by_path, by_metadata = _PRESENTATION[domain](name), metadata.get(name, Presentation())
    return Presentation(
        bona_fide=by_metadata.bona_fide if by_path.bona_fide is None else by_path.bona_fide,
        species=by_metadata.species if by_path.species == UNKNOWN else by_path.species,
        subject=by_metadata.subject if by_path.subject == UNKNOWN else by_path.subject)


def read_metadata(path: Path) -> Metadata:
    """A table of what paths do not tell, by listed name.

    Two forms of CSV are known by their header: PADISI-Face's own ground truth (`trial_id`, `ground_truth`,
    `participant_id` and more), and a general one with the columns `path`, `subject`, `species`, in which an empty
    cell means unknown and `bona_fide` is the species of live faces.

    Raises:
        ManifestError: no such file, another header, a short row, or two rows of one name that differ.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"metadata {path} cannot be read: {error}") from error
    reader = csv.DictReader(text.splitlines())
    columns = set(reader.fieldnames or ())
    if not (columns >= _PADISI_COLUMNS or columns >= _GENERAL_COLUMNS):
        raise ManifestError(f"metadata {path} has the columns {', '.join(sorted(columns)) or '(none)'}, expected path, "
                            "subject, species, or those of PADISI-Face's ground truth")
    parse = padisi.ground_truth if columns >= _PADISI_COLUMNS else _general_row
    return _by_name(((f"{path}, line {reader.line_num}", row) for row in reader), parse)


def _by_name(rows: Iterable[tuple[str, dict[str, str]]],
             parse: Callable[[Mapping[str, str], str], tuple[str, Presentation]]) -> Metadata:
    table: dict[str, Presentation] = {}
    for place, row in rows:
        if None in row.values():
            raise ManifestError(f"{place}: fewer cells than columns")
        name, presentation = parse(row, place)
        if table.setdefault(name, presentation) != presentation:
            raise ManifestError(f"{place}: {name} stands there twice, told differently")
    return table


def _general_row(row: Mapping[str, str], place: str) -> tuple[str, Presentation]:
    if not row["path"]:
        raise ManifestError(f"{place}: the path is empty")
    species = row["species"] or UNKNOWN
    return row["path"], Presentation(bona_fide=None if species == UNKNOWN else species == BONA_FIDE, species=species,
                                     subject=row["subject"] or UNKNOWN)
