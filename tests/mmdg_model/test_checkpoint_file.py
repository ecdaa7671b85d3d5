"""Checkpoint files: round trip, identity, and a table of faults that each get their own refusal."""

import dataclasses
import hashlib
import json
import re

import numpy as np
import pytest
import safetensors.torch
import torch

from mmdg_model.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from mmdg_model.inputs import InputSpecification
from mmdg_model.operating_point import OperatingPoint
from mmdg_model.safetensors_header import METADATA_KEY
from mmdg_model.scorer import Purpose
from mmdg_model.test_checkpoint import make_test_checkpoint
from tests.mmdg_model.builders import MICRO


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "sound.safetensors"
    make_test_checkpoint(path, MICRO)
    return path


def about(path):
    with safetensors.safe_open(path, "pt") as file:
        return json.loads(file.metadata()[METADATA_KEY])


def rewritten(sound, path, change_weights=lambda weights: None, change_about=lambda values: None):
    weights, values = safetensors.torch.load_file(sound), about(sound)
    change_weights(weights)
    change_about(values)
    safetensors.torch.save_file(weights, path, metadata={METADATA_KEY: json.dumps(values)})
    return path


def test_round_trip(sound, tmp_path):
    first = load_checkpoint(sound)
    second_hash = save_checkpoint(first, tmp_path / "deeper" / "copy.safetensors")
    second = load_checkpoint(tmp_path / "deeper" / "copy.safetensors")
    assert second_hash == second.hash == first.hash == hashlib.sha256(sound.read_bytes()).hexdigest()
    for name in ("config", "input_spec", "purpose", "known_answer", "created_by", "training"):
        assert getattr(first, name) == getattr(second, name)
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    assert first.purpose is Purpose.TEST
    assert list((tmp_path / "deeper").iterdir()) == [tmp_path / "deeper" / "copy.safetensors"]


def test_expected_hash(sound):
    file_hash = hashlib.sha256(sound.read_bytes()).hexdigest()
    assert load_checkpoint(sound, expected_hash=file_hash.upper()).hash == file_hash
    with pytest.raises(CheckpointError, match=f"SHA-256 is {file_hash}, expected {'0' * 64}"):
        load_checkpoint(sound, expected_hash="0" * 64)


def test_one_altered_byte_is_another_hash(sound, tmp_path):
    blob = bytearray(sound.read_bytes())
    blob[-3] ^= 1
    (tmp_path / "altered.safetensors").write_bytes(blob)
    with pytest.raises(CheckpointError, match="another or an altered file"):
        load_checkpoint(tmp_path / "altered.safetensors", expected_hash=load_checkpoint(sound).hash)


@pytest.mark.parametrize("content", [b"", b"\x00" * 4, b"PK\x03\x04 a zip archive, as torch.save writes" * 40,
                                     b"\xff" * 64, b"\x80\x02}q\x00."])
def test_not_safetensors(tmp_path, content):
    (tmp_path / "other.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(tmp_path / "other.bin")


@pytest.mark.parametrize("kept", [0.001, 0.5, 0.999])
def test_truncated(sound, tmp_path, kept):
    blob = sound.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(blob[:int(len(blob) * kept)])
    with pytest.raises(CheckpointError, match="truncated"):
        load_checkpoint(tmp_path / "short.safetensors")


def test_absent_file_and_directory(tmp_path):
    for path in (tmp_path / "nowhere.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_checkpoint(path)


def test_bare_weights(sound, tmp_path):
    safetensors.torch.save_file(safetensors.torch.load_file(sound), tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="no metadata key 'mmdg_live'"):
        load_checkpoint(tmp_path / "bare.safetensors")


def test_metadata_that_is_not_json(sound, tmp_path):
    safetensors.torch.save_file(safetensors.torch.load_file(sound), tmp_path / "x.safetensors",
                                metadata={METADATA_KEY: "{"})
    with pytest.raises(CheckpointError, match="is not JSON"):
        load_checkpoint(tmp_path / "x.safetensors")


def put(key, value):
    return lambda values: values.__setitem__(key, value)


def inside(section, key, value):
    return lambda values: values[section].__setitem__(key, value)


@pytest.mark.parametrize(("change", "quoted"), [
    (put("format_version", 2), "format_version is 2, this program reads 1"),
    (lambda values: values.pop("format_version"), "format_version is None"),
    (put("purpose", "production"), "purpose is 'production', expected one of test, simulated, release"),
    (put("purpose", ["release"]), "purpose is ['release']"),
    (lambda values: values.pop("purpose"), "metadata key 'purpose' is missing"),
    (put("licence", "free"), "unknown metadata key licence = 'free'"),
    (put("created_by", 7), "metadata created_by is 7, expected a text"),
    (put("model", 3), "metadata model is 3, expected an object"),
    (inside("model", "width", 64), "model.width is 64, expected a multiple of model.heads = 3"),
    (inside("model", "hidden", 1), "model.hidden = 1 is an unknown key"),
    (inside("model", "depth", "3"), "model.depth is '3', expected int"),
    (inside("inputs", "depth_encoding", "float"), "inputs.depth_encoding is 'float'"),
    (inside("inputs", "image_size", 96), "model.image_size is 64, inputs.image_size is 96"),
    (inside("known_answer", "formula", "other"), "known_answer.formula is 'other'"),
    (inside("known_answer", "logits", [[0, 1]]), "known_answer.logits is ((0, 1),), expected 4 pairs"),
    (inside("known_answer", "logits", None), "export it again"),
    (inside("known_answer", "logits", [[0, float("nan")]] * 4), "expected 4 pairs of finite numbers"),
])
def test_wrong_metadata(sound, tmp_path, change, quoted):
    path = rewritten(sound, tmp_path / "wrong.safetensors", change_about=change)
    with pytest.raises(CheckpointError, match=re.escape(quoted)) as refusal:
        load_checkpoint(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(("change", "quoted"), [
    (lambda weights: weights.pop("head.bias"), "weight 'head.bias' is missing"),
    (put("head.extra", torch.zeros(2, dtype=torch.float16)), "weight 'head.extra' is unknown"),
    (put("head.bias", torch.zeros(3, dtype=torch.float16)), "weight 'head.bias' has shape (3,), model needs (2,)"),
    (put("head.bias", torch.zeros(2, dtype=torch.float32)), "weight 'head.bias' is torch.float32, expected all"),
    (put("head.bias", torch.zeros(2, dtype=torch.int64)), "weight 'head.bias' is torch.int64"),
    (put("head.bias", torch.tensor([0.0, float("nan")]).half()), "weight 'head.bias' holds NaN or infinity"),
    (put("norm.weight", torch.full((48,), float("inf")).half()), "weight 'norm.weight' holds NaN or infinity"),
])
def test_wrong_weights(sound, tmp_path, change, quoted):
    path = rewritten(sound, tmp_path / "wrong.safetensors", change_weights=change)
    with pytest.raises(CheckpointError, match=re.escape(quoted)):
        load_checkpoint(path)


def test_what_could_not_be_loaded_is_not_saved(sound, tmp_path):
    checkpoint = load_checkpoint(sound)
    faulty = dataclasses.replace(checkpoint, input_spec=InputSpecification(image_size=96))
    with pytest.raises(CheckpointError, match=r"inputs\.image_size is 96"):
        save_checkpoint(faulty, tmp_path / "faulty.safetensors")
    faulty = dataclasses.replace(checkpoint, weights={**checkpoint.weights, "head.bias": torch.zeros(3).half()})
    with pytest.raises(CheckpointError, match=r"head\.bias"):
        save_checkpoint(faulty, tmp_path / "faulty.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_damaged_headers_never_surprise(sound, tmp_path):
    """Any byte of the header changed: refused as a `CheckpointError`, or the change meant nothing to the loader."""
    blob = sound.read_bytes()
    header_end = 8 + int.from_bytes(blob[:8], "little")
    generator, path, refused = np.random.default_rng(0), tmp_path / "damaged.safetensors", 0
    for _ in range(150):
        damaged = bytearray(blob)
        damaged[generator.integers(0, header_end)] = generator.integers(0, 256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except CheckpointError:
            refused += 1
    assert refused > 100


POINT = OperatingPoint(logit_scale=0.5, logit_offset=-1.0, frame_correlation=0.2, threshold=3.0, apcer=0.0, bpcer=0.1,
                       sessions=20, data="simulated", command="made up for tests")


def test_an_operating_point_is_kept_and_covered_by_the_hash(sound, tmp_path):
    bare = load_checkpoint(sound)
    assert bare.operating_point is None
    path = tmp_path / "calibrated.safetensors"
    file_hash = save_checkpoint(dataclasses.replace(bare, operating_point=POINT), path)
    assert load_checkpoint(path).operating_point == POINT
    assert file_hash != bare.hash


@pytest.mark.parametrize("value", [[], 3, {}, POINT.to_dict() | {"logit_scale": 0}, POINT.to_dict() | {"more": 1}])
def test_a_damaged_operating_point_is_refused(sound, tmp_path, value):
    path = rewritten(sound, tmp_path / "x.safetensors", change_about=lambda about: about.update(operating_point=value))
    with pytest.raises(CheckpointError, match=r"operating_point.*measure it and export the checkpoint again"):
        load_checkpoint(path)


def test_what_decides_about_real_people_is_not_calibrated_on_simulations(sound, tmp_path):
    release = dataclasses.replace(load_checkpoint(sound), purpose=Purpose.RELEASE, operating_point=POINT)
    with pytest.raises(CheckpointError, match=r"purpose is release, operating_point\.data is 'simulated'"):
        save_checkpoint(release, tmp_path / "x.safetensors")
    save_checkpoint(dataclasses.replace(release, operating_point=dataclasses.replace(POINT, data="real")),
                    tmp_path / "x.safetensors")
    path = rewritten(tmp_path / "x.safetensors", tmp_path / "y.safetensors",
                     change_about=lambda about: about["operating_point"].update(data="simulated"))
    with pytest.raises(CheckpointError, match=r"operating_point\.data"):
        load_checkpoint(path)
