"""The score table: one row a line of a list, with all that any metric needs, stored as Parquet.

Metrics are never stored without the scores they came from: a table names its samples, so that every figure can be
computed again, or computed differently, without the network and without the images.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special

from calibration.error_rates import Unit
from mmdg_model.scorer import Modality

SCHEMA_VERSION = 1
METADATA_KEY = b"mmdg_scores"

#: Species of a bona fide row, and of an attack whose species no path or metadata file tells.
BONA_FIDE = "bona_fide"
UNKNOWN_SPECIES = "unknown"

#: Copies of one sample under one checkpoint may differ by this much in logit (batch composition changes last bits).
LARGEST_LOGIT_SPREAD = 1e-2

Strings = NDArray[np.str_]


class ScoreTableError(ValueError):
    """A score table or its file is not usable; the message quotes the column, the row and the remedy."""


class Split(StrEnum):
    """Which data was scored. Only the target test split may be evaluated, only source validation may choose."""

    SOURCE_VALIDATION = "source_validation"
    TARGET_TEST = "target_test"


class ScoreContext(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the scores of one table are of.

    Attributes:
        split: source validation or target test.
        protocol: such as `CPS->W`.
        method: the registered name, such as `mmdg`.
        seed, epoch: of the training run; epochs count from 0.
        model_hash: of the checkpoint that scored.
        simulated: True where any sample is simulated; every report then says so.
    """

    split: Split
    protocol: str
    method: str
    seed: int
    epoch: int
    model_hash: str
    simulated: bool


def subset_name(modalities: Sequence[Modality]) -> str:
    """Name of a modality subset, such as `rgb+infrared`, always in the paper's order.

    Raises:
        ScoreTableError: none, or one twice.
    """
    if not modalities or len(set(modalities)) != len(modalities):
        raise ScoreTableError(f"modality subset {list(modalities)}; name each used modality once, and at least one")
    return "+".join(modality for modality in Modality if modality in modalities)


SUBSETS = tuple(subset_name([m for bit, m in enumerate(Modality) if mask >> bit & 1]) for mask in range(1, 8))


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreTable:
    """Scores of one checkpoint on one split; every column is `[n]`, in the order of the list. Checked on construction.

    Attributes:
        context: what was scored, by what.
        sample_id: the list's own path, the same for a line that occurs twice.
        video_id: of the presentation that the frame belongs to, unique within a domain; the sample's own id where the
            data set knows no videos.
        subject: of the person or artefact; empty where unknown (never invented).
        domain: such as `W`.
        species: `bona_fide` for live rows; else the attack species, `unknown` where nothing tells.
        label: `int8`, 1 bona fide, 0 attack.
        logit: `float64`, logit(bona fide) - logit(attack), finite.
        modalities: the subset used, as `subset_name` writes it.

    Raises:
        ScoreTableError: unequal lengths, no rows, an empty id, an unknown subset, a label other than 0 and 1, a logit
            that is not finite, a species that contradicts its label, or a video or sample that contradicts itself.
    """

    context: ScoreContext
    sample_id: Strings
    video_id: Strings
    subject: Strings
    domain: Strings
    species: Strings
    label: NDArray[np.int8]
    logit: NDArray[np.float64]
    modalities: Strings

    def __post_init__(self) -> None:
        columns = {name: getattr(self, name) for name in COLUMNS}
        lengths = {name: column.shape for name, column in columns.items()}
        if len(set(lengths.values())) != 1 or self.label.ndim != 1 or not len(self.label):
            raise ScoreTableError(f"columns of shapes {lengths}; all must be [n] with n of at least 1")
        _refuse(~np.isin(self.label, (0, 1)), self.label, "label", "1 is bona fide, 0 is attack")
        _refuse(~np.isfinite(self.logit), self.logit, "logit", "a score must be a finite number")
        for name in ("sample_id", "video_id", "domain", "species"):
            _refuse(columns[name] == "", columns[name], name, "an id may not be empty")
        _refuse(~np.isin(self.modalities, SUBSETS), self.modalities, "modalities", f"one of {', '.join(SUBSETS)}")
        _refuse((self.species == BONA_FIDE) != (self.label == 1), self.species, "species",
                f"{BONA_FIDE!r} belongs to label 1, and to no other")
        for name, group in (("video_id", self.video_key()), ("sample_id", self._sample_key())):
            _, first, row_group = np.unique(group, return_index=True, return_inverse=True)
            for column in ("label", "species", "subject", *(("video_id",) if name == "sample_id" else ())):
                _refuse(columns[column][first][row_group] != columns[column], columns[column], column,
                        f"another row with the same {name} says otherwise")

    def __len__(self) -> int:
        return len(self.label)

    @property
    def live(self) -> NDArray[np.bool_]:
        """`bool [n]`, True where bona fide."""
        return np.asarray(self.label == 1, dtype=np.bool_)

    @property
    def probability(self) -> NDArray[np.float64]:
        """Of bona fide, `[n]`, 1 / (1 + exp(-logit)) without overflow."""
        return np.asarray(special.expit(self.logit), dtype=np.float64)

    def subset(self) -> str:
        """The one modality subset of all rows.

        Raises:
            ScoreTableError: rows of several subsets; one ROC over them would mix two experiments.
        """
        names = np.unique(self.modalities)
        if len(names) != 1:
            raise ScoreTableError(f"modality subsets {', '.join(map(str, names))} in one table; "
                                  "take one apart with rows(table.modalities == ...) first")
        return str(names[0])

    def video_key(self) -> Strings:
        """Domain and video, `[n]`: video ids of two domains may be alike."""
        return _joined(self.domain, self.video_id)

    def _sample_key(self) -> Strings:
        return _joined(self.domain, self.sample_id, self.modalities)

    def rows(self, which: NDArray[Any]) -> ScoreTable:
        """The rows that a mask or an index array picks.

        Raises:
            ScoreTableError: none is picked.
        """
        return dataclasses.replace(self, **{name: getattr(self, name)[which] for name in COLUMNS})

    def deduplicated(self) -> ScoreTable:
        """Each sample once, the first of its copies, in order.

        Raises:
            ScoreTableError: copies of one sample whose logits differ by more than `LARGEST_LOGIT_SPREAD`.
        """
        _, first, group = np.unique(self._sample_key(), return_index=True, return_inverse=True)
        _refuse(np.abs(self.logit - self.logit[first][group]) > LARGEST_LOGIT_SPREAD, self.logit, "logit",
                "another row of the same sample has another score; were two checkpoints mixed?")
        return self.rows(np.sort(first))

    def presentations(self, unit: Unit) -> Presentations:
        """Scores by frame (the logit of each row) or by video (mean probability over the video's rows).

        Raises:
            ScoreTableError: `unit` is the subject, which has no score; or several modality subsets, as `subset`.
        """
        self.subset()
        if unit is Unit.FRAME:
            return Presentations(unit=unit, score=self.logit, live=self.live, species=self.species,
                                 subject=self.subject, domain=self.domain, video=self.video_key())
        if unit is not Unit.VIDEO:
            raise ScoreTableError(f"scores by {unit}; frames and videos have scores")
        keys, first, group = np.unique(self.video_key(), return_index=True, return_inverse=True)
        mean = np.bincount(group, weights=self.probability) / np.bincount(group)
        return Presentations(unit=unit, score=mean, live=self.live[first], species=self.species[first],
                             subject=self.subject[first], domain=self.domain[first], video=keys)


COLUMNS = ("sample_id", "video_id", "subject", "domain", "species", "label", "logit", "modalities")


@dataclass(frozen=True, kw_only=True, eq=False)
class Presentations:
    """What is counted: one score a frame or a video; columns `[n]` as in `ScoreTable`, `video` unique over domains."""

    unit: Unit
    score: NDArray[np.float64]
    live: NDArray[np.bool_]
    species: Strings
    subject: Strings
    domain: Strings
    video: Strings

    @property
    def subjects_known(self) -> bool:
        """Whether every row names its subject."""
        return bool((self.subject != "").all())

    def clusters(self) -> Strings:
        """`[n]`, what is resampled as one: the subject within its domain; the video where no subject is known."""
        return np.where(self.subject != "", _joined(self.domain, "subject", self.subject),
                        _joined(self.video, "video"))


def _joined(*parts: Strings | str) -> Strings:
    key: Any = parts[0]
    for part in parts[1:]:
        key = np.char.add(np.char.add(key, "\x1f"), part)
    return np.asarray(key, dtype=np.str_)


def _refuse(wrong: NDArray[np.bool_], column: NDArray[Any], name: str, remedy: str) -> None:
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ScoreTableError(f"{name} {column[row].item()!r} in row {row} ({int(wrong.sum())} such rows): {remedy}")


# ---- file ----

def _parquet() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError("score tables are Parquet files and need pyarrow; install mmdg-live[train]") from error
    return pyarrow, pyarrow.parquet


def _schema(pyarrow: ModuleType) -> Any:
    text = [pyarrow.field(name, pyarrow.string(), nullable=name == "subject") for name in COLUMNS[:5]]
    return pyarrow.schema([*text, pyarrow.field("label", pyarrow.int8(), nullable=False),
                           pyarrow.field("logit", pyarrow.float64(), nullable=False),
                           pyarrow.field("modalities", pyarrow.string(), nullable=False)])


def write_scores(path: Path, table: ScoreTable) -> None:
    """Writes a table, whole or not at all; an unknown subject becomes null. Raises `OSError` where it cannot."""
    pyarrow, parquet = _parquet()
    columns: dict[str, Any] = {name: getattr(table, name).tolist() for name in COLUMNS}
    columns["subject"] = [subject or None for subject in columns["subject"]]
    header = msgspec.json.encode({"version": SCHEMA_VERSION, "context": table.context})
    schema = _schema(pyarrow).with_metadata({METADATA_KEY: header})
    partial = path.with_name(path.name + ".partial")
    try:
        parquet.write_table(pyarrow.table(columns, schema=schema), partial, compression="zstd",
                            write_page_checksum=True)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    context: ScoreContext


def read_scores(path: Path) -> ScoreTable:
    """Reads what `write_scores` wrote; no pickle, no extension types.

    Raises:
        FileNotFoundError: there is no such file.
        ScoreTableError: it is no Parquet file, is damaged, has other columns, another version, or contradicts itself.
    """
    pyarrow, parquet = _parquet()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such score table")
    try:
        schema = parquet.read_schema(path)
        wanted = _schema(pyarrow)
        if not schema.equals(wanted):
            raise ScoreTableError(f"{path}: columns {_described(schema)}; expected {_described(wanted)}")
        header = _read_header(path, schema.metadata or {})
        columns = parquet.read_table(path, schema=wanted, page_checksum_verification=True).to_pydict()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ScoreTableError(f"{path}: no readable Parquet file ({error}); score the split again") from error
    for name in COLUMNS:
        if name != "subject" and None in columns[name]:
            raise ScoreTableError(f"{path}: {name} in row {columns[name].index(None)} is null; only subject may be")
    texts = {name: np.array([value or "" for value in columns[name]], dtype=np.str_)
             for name in COLUMNS if name not in ("label", "logit")}
    try:
        return ScoreTable(context=header.context, label=np.array(columns["label"], dtype=np.int8),
                          logit=np.array(columns["logit"], dtype=np.float64), **texts)
    except ScoreTableError as error:
        raise ScoreTableError(f"{path}: {error}") from error


def _read_header(path: Path, metadata: dict[bytes, bytes]) -> _Header:
    if METADATA_KEY not in metadata:
        raise ScoreTableError(f"{path}: no {METADATA_KEY.decode()!r} in the file's metadata; it is no score table")
    try:
        header = msgspec.json.decode(metadata[METADATA_KEY], type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ScoreTableError(f"{path}: metadata {METADATA_KEY.decode()!r}: {error}") from error
    if header.version != SCHEMA_VERSION:
        raise ScoreTableError(f"{path}: score table of version {header.version}; this program reads {SCHEMA_VERSION}")
    return header


def _described(schema: Any) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
