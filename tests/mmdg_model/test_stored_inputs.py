"""The size of crops is read from a model at rest, and never guessed from a damaged one."""

import json

import pytest

from mmdg_model.backends.exported_model import MANIFEST_NAME
from mmdg_model.stored_inputs import DEFAULT_IMAGE_SIZE, stored_image_size
from mmdg_model.test_checkpoint import make_test_checkpoint
from tests.mmdg_model.builders import MICRO


def test_a_checkpoint_says_its_size(tmp_path):
    path = tmp_path / "model.safetensors"
    make_test_checkpoint(path, MICRO)
    assert MICRO.image_size != DEFAULT_IMAGE_SIZE
    assert stored_image_size(path) == MICRO.image_size


def test_an_exported_model_says_its_size(tmp_path):
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({"inputs": {"image_size": 112}}))
    assert stored_image_size(tmp_path) == 112


@pytest.mark.parametrize("blob", [b"", b"\xff" * 64, b"\x02" + b"\0" * 7 + b"{}", b"\x02" + b"\0" * 7 + b"[]",
                                  b"\xff" * 7 + b"\x7f" + b"{}"])
def test_what_says_nothing_gives_the_default(tmp_path, blob):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(blob)
    assert stored_image_size(path) == DEFAULT_IMAGE_SIZE
    assert stored_image_size(tmp_path / "missing") == DEFAULT_IMAGE_SIZE
    assert stored_image_size(tmp_path) == DEFAULT_IMAGE_SIZE


@pytest.mark.parametrize("size", [True, "112", 0, -5, 10**9, None, 112.0])
def test_an_impossible_size_gives_the_default(tmp_path, size):
    (tmp_path / MANIFEST_NAME).write_text(json.dumps({"inputs": {"image_size": size}}))
    assert stored_image_size(tmp_path) == DEFAULT_IMAGE_SIZE
