"""Score tables: what they refuse, how frames become videos, duplicates, and the Parquet file."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from calibration.error_rates import Unit
from mmdg_model.scorer import Modality
from mmdg_model.training.scores import (
    BONA_FIDE,
    COLUMNS,
    METADATA_KEY,
    ScoreTableError,
    read_scores,
    subset_name,
    write_scores,
)
from tests.mmdg_model.training.score_builders import drawn_table, table_of

ROWS = [("a/1", "a", "p", BONA_FIDE, 2.0), ("a/2", "a", "p", BONA_FIDE, 0.0), ("b/1", "b", "", "print", -1.0)]


def replaced(**columns):
    return table_of(ROWS, **columns)


@pytest.mark.parametrize(("columns", "message"), [
    ({"logit": np.array([0.0, math.nan, 0.0])}, "logit nan in row 1"),
    ({"logit": np.array([math.inf, 0.0, 0.0])}, "logit inf in row 0"),
    ({"logit": np.array([1.0, 2.0])}, "shapes"),
    ({"label": np.array([1, 1, 2], dtype=np.int8)}, "label 2 in row 2"),
    ({"label": np.array([1, 1, 1], dtype=np.int8)}, "species 'print' in row 2"),
    ({"species": np.array([BONA_FIDE, BONA_FIDE, BONA_FIDE])}, "species 'bona_fide' in row 2"),
    ({"species": np.array([BONA_FIDE, BONA_FIDE, ""])}, "species '' in row 2"),
    ({"sample_id": np.array(["a", "", "c"])}, "sample_id '' in row 1"),
    ({"modalities": np.array(["rgb", "rgb", "depth+rgb"])}, "modalities 'depth\\+rgb' in row 2"),
    ({"video_id": np.array(["a", "b", "b"])}, "same video_id says otherwise"),
    ({"subject": np.array(["p", "q", ""])}, "subject 'q' in row 1.*same video_id"),
    ({"sample_id": np.array(["a", "b", "b"])}, "same sample_id says otherwise"),
])
def test_a_table_that_contradicts_itself_is_refused(columns, message):
    with pytest.raises(ScoreTableError, match=message):
        replaced(**columns)


def test_an_empty_table_is_refused():
    with pytest.raises(ScoreTableError, match="at least 1"):
        replaced().rows(np.zeros(3, dtype=bool))


def test_a_video_scores_the_mean_probability_of_its_frames():
    videos = replaced().presentations(Unit.VIDEO)
    assert videos.live.tolist() == [True, False]
    assert videos.score == pytest.approx([(1 / (1 + math.exp(-2)) + 0.5) / 2, 1 / (1 + math.e)])


def test_a_frame_scores_its_logit():
    assert replaced().presentations(Unit.FRAME).score.tolist() == [2.0, 0.0, -1.0]


def test_alike_video_ids_of_two_domains_stay_two_videos():
    table = table_of([("1", "v", "p", BONA_FIDE, 1.0), ("2", "v", "p", "print", -1.0)], domain=np.array(["P", "S"]))
    assert table.presentations(Unit.VIDEO).live.tolist() == [True, False]


def test_subjects_are_clusters_and_an_unknown_subject_is_never_shared():
    rows = [("1", "v", "p", BONA_FIDE, 1.0), ("2", "w", "p", "print", 1.0), ("3", "x", "", "print", 1.0),
            ("4", "y", "", "print", 1.0)]
    frames = table_of(rows).presentations(Unit.FRAME)
    assert len(set(frames.clusters())) == 3
    assert not frames.subjects_known


def test_a_subject_has_no_score():
    with pytest.raises(ScoreTableError, match="subject"):
        replaced().presentations(Unit.SUBJECT)


def test_two_modality_subsets_never_share_a_curve():
    mixed = replaced(modalities=np.array(["rgb", "rgb", "rgb+depth"]))
    with pytest.raises(ScoreTableError, match="rgb, rgb\\+depth"):
        mixed.presentations(Unit.FRAME)


def test_deduplication_keeps_the_first_copy_and_the_order():
    table = replaced().rows(np.array([2, 0, 1, 0, 2]))
    assert table.deduplicated().sample_id.tolist() == ["b/1", "a/1", "a/2"]


def test_copies_with_different_scores_are_no_copies():
    table = replaced().rows(np.array([0, 1, 2, 2]))
    other = dataclasses.replace(table, logit=np.array([2.0, 0.0, -1.0, -1.5]))
    with pytest.raises(ScoreTableError, match="two checkpoints"):
        other.deduplicated()


def test_subsets_are_named_in_the_papers_order():
    assert subset_name([Modality.INFRARED, Modality.RGB]) == "rgb+infrared"
    with pytest.raises(ScoreTableError, match="at least one"):
        subset_name([])


# ---- file ----

def test_a_file_gives_back_every_bit(tmp_path):
    table = drawn_table(3)
    awkward = dataclasses.replace(table, logit=np.nextafter(table.logit, np.inf),
                                  subject=np.where(table.subject == "003", "", table.subject))
    write_scores(tmp_path / "scores.parquet", awkward)
    back = read_scores(tmp_path / "scores.parquet")
    assert back.context == awkward.context
    assert all(np.array_equal(getattr(back, name), getattr(awkward, name)) for name in COLUMNS)


def test_an_unknown_subject_is_null_in_the_file(tmp_path):
    write_scores(tmp_path / "scores.parquet", replaced())
    columns = pyarrow.parquet.read_table(tmp_path / "scores.parquet").to_pydict()
    assert columns["subject"] == ["p", "p", None]


def test_only_the_finished_file_remains(tmp_path):
    write_scores(tmp_path / "scores.parquet", replaced())
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]


def rewritten(path, change):
    """Writes the file again with its Arrow table changed."""
    pyarrow.parquet.write_table(change(pyarrow.parquet.read_table(path)), path)


def with_metadata(value):
    return lambda table: table.replace_schema_metadata({METADATA_KEY: value} if value is not None else {})


def with_column(name, values, kind):
    def change(table):
        position = table.schema.names.index(name)
        return table.set_column(position, pyarrow.field(name, kind, nullable=name == "subject"),
                                pyarrow.array(values, kind))
    return change


@pytest.mark.parametrize(("change", "message"), [
    (with_metadata(None), "no 'mmdg_scores'"),
    (with_metadata(b"{"), "metadata 'mmdg_scores'"),
    (with_metadata(b'{"version": 1, "context": {"split": "train"}}'), "context.split"),
    (lambda table: table.drop_columns(["subject"]), "expected sample_id"),
    (lambda table: table.append_column("face", pyarrow.array([b"x"] * 3)), "face: binary"),
    (with_column("logit", [1.0, 2.0, 3.0], pyarrow.float32()), "logit: float"),
    (with_column("logit", [1.0, math.nan, 3.0], pyarrow.float64()), "logit nan in row 1"),
    (with_column("label", [1, 1, 1], pyarrow.int8()), "species 'print' in row 2"),
])
def test_a_foreign_file_is_refused_with_its_path(tmp_path, change, message):
    path = tmp_path / "scores.parquet"
    write_scores(path, replaced())
    rewritten(path, change)
    with pytest.raises(ScoreTableError, match=message) as refusal:
        read_scores(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("kept", [0, 3, 40, 0.5, 0.98])
def test_a_cut_file_is_refused(tmp_path, kept):
    path = tmp_path / "scores.parquet"
    write_scores(path, drawn_table(0))
    whole = path.read_bytes()
    path.write_bytes(whole[:kept if isinstance(kept, int) else int(kept * len(whole))])
    with pytest.raises(ScoreTableError, match="no readable Parquet file"):
        read_scores(path)


def test_a_flipped_byte_never_becomes_another_score(tmp_path):
    path = tmp_path / "scores.parquet"
    table = drawn_table(0)
    write_scores(path, table)
    whole = path.read_bytes()
    survived = 0
    for position in range(0, len(whole), 97):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1:])
        try:
            back = read_scores(path)
        except ScoreTableError:
            continue
        survived += 1  # in parts that carry no row, such as statistics
        assert all(np.array_equal(getattr(back, name), getattr(table, name)) for name in COLUMNS)
    assert survived < len(range(0, len(whole), 97)) / 2


def test_another_version_is_refused(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(path, replaced())
    header = pyarrow.parquet.read_schema(path).metadata[METADATA_KEY].replace(b'"version":1', b'"version":2')
    rewritten(path, with_metadata(header))
    with pytest.raises(ScoreTableError, match="version 2; this program reads 1"):
        read_scores(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        read_scores(tmp_path / "none.parquet")


def test_without_pyarrow_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"mmdg-live\[train\]"):
        write_scores(tmp_path / "scores.parquet", replaced())
