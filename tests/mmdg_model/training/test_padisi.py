"""PADISI-Face channel files: what they hold, and files that lie about it."""

import io
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdg_model.scorer import Modality
from mmdg_model.training.padisi import ChannelFileError, read_levels
from tests.mmdg_model.training.trees import channels

GRADIENT = np.arange(256, dtype=np.uint8).reshape(16, 16)


def written(path, data, **more):
    np.savez_compressed(path, data=data, **more)
    return path


def entry(shape=(1, 22, 4, 4), descr="<f4", num_bytes=1408, fortran_order=False):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": fortran_order, "shape": shape})
    return header.getvalue() + bytes(num_bytes)


def archive(path, **entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(f"{name}.npy", data)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_level_survives(tmp_path, dtype):
    levels = read_levels(written(tmp_path / "a.npz", channels(GRADIENT, dtype)))
    shifted = [np.roll(GRADIENT, channel, axis=1) for channel in range(5)]
    assert np.array_equal(levels[Modality.RGB], np.stack([shifted[2], shifted[1], shifted[0]], axis=2))
    assert np.array_equal(levels[Modality.INFRARED], shifted[3])
    assert np.array_equal(levels[Modality.DEPTH], shifted[4])


@pytest.mark.parametrize(("value", "level"), [(0, 0), (1 / 65535, 1), (0.5, 128), (254.5 / 255, 255), (1, 255)])
def test_levels_are_rounded_up_so_that_only_nothing_is_0(tmp_path, value, level):
    levels = read_levels(written(tmp_path / "a.npz", np.full((1, 22, 2, 2), float(value))))
    assert set(levels[Modality.DEPTH].ravel().tolist()) == {level}


def test_column_order_and_other_byte_order(tmp_path):
    data = channels(GRADIENT, np.float32)
    plain = read_levels(written(tmp_path / "a.npz", data))
    for name, same in (("b", np.asfortranarray(data)), ("c", data.astype(">f4"))):
        other = read_levels(written(tmp_path / f"{name}.npz", same))
        assert all(np.array_equal(plain[modality], other[modality]) for modality in plain)


@pytest.mark.parametrize(("data", "complaint"), [
    (np.zeros((1, 22, 4, 4), dtype=np.uint8), "is uint8, expected float16, float32 or float64"),
    (np.zeros((22, 4, 4)), r"has shape \(22, 4, 4\)"),
    (np.zeros((2, 22, 4, 4)), r"has shape \(2, 22, 4, 4\)"),
    (np.zeros((1, 21, 4, 4)), r"has shape \(1, 21, 4, 4\)"),
    (np.zeros((1, 22, 0, 4)), r"has shape \(1, 22, 0, 4\)"),
    (np.full((1, 22, 4, 4), np.nan), "values from nan to nan"),
    (np.full((1, 22, 4, 4), 1.5), "values from 1.5 to 1.5, expected 0 to 1"),
    (np.full((1, 22, 4, 4), -0.1), "values from -0.1"),
    (np.array({"a": 1}), "is object, expected float16"),
])
def test_refused_arrays(tmp_path, data, complaint):
    with pytest.raises(ChannelFileError, match=complaint):
        read_levels(written(tmp_path / "a.npz", data))


@pytest.mark.parametrize(("data", "complaint"), [
    (entry(shape=(1, 22, 10**6, 10**6)), r"has shape \(1, 22, 1000000, 1000000\), expected"),
    (entry(shape=(1, 22, 1024, 1024)), "92274688 bytes, but holds 1408"),
    (entry(num_bytes=1407), "1408 bytes, but holds 1407"),
    (entry(num_bytes=10**6), "but holds 1000000"),
    (entry(shape=(1, 22, -4, -4)), "has shape"),
    (entry(descr="|O"), "is object"),
    (b"\x93NUMPY\x01\x00\xff\xff{", "is no .npy array"),
    (b"", "is no .npy array"),
    (b"\x93NUMPY\x09\x00", "is no .npy array"),
])
def test_headers_that_lie(tmp_path, data, complaint):
    with pytest.raises(ChannelFileError, match=complaint):
        read_levels(archive(tmp_path / "a.npz", data=data))


def test_an_archive_without_data(tmp_path):
    with pytest.raises(ChannelFileError, match=r"no entry .data., but other\.npy"):
        read_levels(archive(tmp_path / "a.npz", other=entry()))


def test_flipped_bits_are_noticed(tmp_path):
    path = archive(tmp_path / "a.npz", data=entry())
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as opened:
        header = opened.getinfo("data.npy")
    data[header.header_offset + 30 + len("data.npy") + header.compress_size // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(ChannelFileError, match="not a readable"):
        read_levels(path)


@settings(max_examples=60, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.floats(0.2, 1))
def test_a_damaged_file_is_refused_or_read_whole(tmp_path_factory, position, value, cut):
    path = written(tmp_path_factory.mktemp("damage") / "a.npz", channels(GRADIENT))
    data = bytearray(path.read_bytes())
    data[int(position * len(data))] = value
    path.write_bytes(data[:int(cut * len(data))])
    try:
        levels = read_levels(path)
    except ChannelFileError:
        return
    assert np.array_equal(levels[Modality.INFRARED], np.roll(GRADIENT, 3, axis=1))
