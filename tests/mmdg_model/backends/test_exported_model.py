"""An exported model is used whole and unaltered, or not at all."""

import json
import shutil

import numpy as np
import pytest

from mmdg_model.backends import make_scorer
from mmdg_model.backends.exported_model import ExportedModelError, is_exported_model, read_exported_model
from mmdg_model.scorer import KnownAnswerError, Purpose


@pytest.fixture
def copy(exports, tmp_path):
    return shutil.copytree(exports["float32"], tmp_path / "copy")


def edit(directory, **changes):
    path = directory / "manifest.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({key: value for key, value in (about | changes).items() if value != "DELETED"}),
                    encoding="utf-8")


def test_the_manifest_says_what_the_checkpoint_said(exports, checkpoint):
    model = read_exported_model(exports["int8"])
    assert (model.backend, model.precision, model.purpose) == ("openvino", "int8", Purpose.TEST)
    assert model.checkpoint_hash == checkpoint.hash
    assert model.input_spec == checkpoint.input_spec
    assert set(model.files) == {"model.xml", "model.bin"}
    assert model.calibration["crops"] == 12
    assert model.calibration["source"] == "blobs"
    assert 0 < model.calibration["largest_logit_difference"] < model.calibration["logit_standard_deviation"]


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_file_is_refused(copy, name, damage):
    if damage == "missing":
        (copy / name).unlink()
    else:
        blob = bytearray((copy / name).read_bytes())
        blob[len(blob) // 2] ^= 1
        (copy / name).write_bytes(blob)
    with pytest.raises(ExportedModelError, match=rf"{name} .*(altered|cannot be read)"):
        make_scorer(copy)


@pytest.mark.parametrize(("changes", "quoted"), [
    ({"format_version": 2}, "format_version is 2, this program reads 1"),
    ({"precision": "int4"}, "precision is 'int4', expected one of float32, bfloat16, int8"),
    ({"purpose": "production"}, "purpose is 'production'"),
    ({"known_answer": {"formula": "other", "logits": []}}, "known_answer.formula is 'other'"),
    ({"inputs": {}}, "inputs.image_size is missing"),
    ({"files": {}}, "names no files"),
    ({"files": {"../secret": "0" * 64}}, "names the file '../secret'"),
    ({"files": ["model.xml"]}, "files is .*expected an object"),
    ({"calibration": "DELETED"}, "key 'calibration' is missing"),
    ({"note": 1}, "unknown key note = 1"),
])
def test_a_manifest_that_makes_no_sense_is_refused(copy, changes, quoted):
    edit(copy, **changes)
    with pytest.raises(ExportedModelError, match=quoted):
        read_exported_model(copy)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000])
def test_what_is_no_manifest_is_refused(copy, text):
    (copy / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(ExportedModelError, match="exported model"):
        read_exported_model(copy)


def test_another_model_than_pinned_is_refused(copy):
    with pytest.raises(ExportedModelError, match="expected 0000"):
        make_scorer(copy, expected_hash="0" * 64)


def test_a_directory_without_manifest_is_none(tmp_path):
    assert not is_exported_model(tmp_path)
    with pytest.raises(ExportedModelError, match="give a directory that `mmdg export` wrote"):
        read_exported_model(tmp_path)


def test_a_model_that_computes_something_else_is_refused(copy, checkpoint):
    rows = np.asarray(checkpoint.known_answer.logits) * 1.1 + 1
    edit(copy, known_answer={"formula": checkpoint.known_answer.formula, "logits": rows.tolist()})
    with pytest.raises(KnownAnswerError, match="backend openvino"):
        make_scorer(copy)
