"""A stranger's checkpoint: what it declares is bounded before anything is allocated, and every fault is one error."""

import json
import os
import tracemalloc

import pytest
import safetensors.torch

from mmdg_model.checkpoint import LARGEST_FILE_BYTES, CheckpointError, load_checkpoint
from mmdg_model.safetensors_header import METADATA_KEY
from mmdg_model.test_checkpoint import make_test_checkpoint
from tests.mmdg_model.builders import MICRO


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "sound.safetensors"
    make_test_checkpoint(path, MICRO)
    with safetensors.safe_open(path, "pt") as file:
        return safetensors.torch.load_file(path), json.loads(file.metadata()[METADATA_KEY])


def declare(sound, path, section, key, value):
    weights, about = sound
    altered = about | {section: about[section] | {key: value}}
    safetensors.torch.save_file(weights, path, metadata={METADATA_KEY: json.dumps(altered)})
    return path


@pytest.mark.parametrize(("section", "key", "value"), [
    ("model", "depth", 10**9), ("model", "depth", 65), ("model", "width", 2**40), ("model", "heads", 2**31),
    ("model", "image_size", 2**20), ("model", "patch_size", 2**20), ("model", "mlp_ratio", 10**15),
    ("model", "adapter_width", 10**9), ("model", "adapter_heads", 10**9), ("model", "uncertainty_samples", 10**12),
    ("model", "uncertainty_rate", 10**400), ("model", "cdc_theta", -(10**400)), ("model", "patch_size", 1),
    ("inputs", "image_size", 2**30), ("inputs", "depth_range_m", 10**400),
    ("known_answer", "logits", [[1e308] * 3] * 4), ("known_answer", "logits", 7),
    ("known_answer", "logits", [[None, 0.0]] * 4),
])
def test_declared_sizes_are_refused_without_allocating(sound, tmp_path, section, key, value):
    path = declare(sound, tmp_path / "hostile.safetensors", section, key, value)
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"hostile\.safetensors"):
            load_checkpoint(path)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * path.stat().st_size + 2**20


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, "1" * 5000, "[]", "null", '"x"', "NaN"])
def test_metadata_that_is_no_sensible_json(sound, tmp_path, text):
    safetensors.torch.save_file(sound[0], tmp_path / "odd.safetensors", metadata={METADATA_KEY: text})
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "odd.safetensors")


def test_a_file_beyond_the_limit_is_refused_unread(tmp_path):
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE_BYTES + 1)  # sparse: no disk is used
    with pytest.raises(CheckpointError, match=f"{LARGEST_FILE_BYTES + 1} bytes, expected a regular file"):
        load_checkpoint(path)


def test_what_is_no_regular_file_is_refused_unread(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="expected a regular file"):
        load_checkpoint(tmp_path / "pipe")
