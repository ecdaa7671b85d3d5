import sqlite3
import zlib

import cv2
import numpy as np
import pytest

from capture.camera import CorruptStreamError, NoDeviceError
from capture.frames import StreamKind
from capture.realsense_db3 import inspect_db3, png_damage


def db3(path, topics):
    """A file with the SDK's tables; `topics` maps names to image counts."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT)")
        connection.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INT, timestamp INT, data BLOB)")
        for topic, (name, count) in enumerate(topics.items(), start=1):
            connection.execute("INSERT INTO topics VALUES (?, ?, 'x')", (topic, name))
            connection.executemany("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, x'00')",
                                   [(topic, n) for n in range(count)])
    connection.close()
    return path


COLOUR = "/device_0/sensor_1/Color_0/image/data/compressed"
DEPTH = "/device_0/sensor_0/Depth_0/image/data/compressedDepth"


def test_images_are_counted_by_stream_and_other_messages_are_not(tmp_path):
    path = db3(tmp_path / "a.db3", {COLOUR: 3, DEPTH: 2, "/device_0/sensor_1/Color_0/image/metadata": 9,
                                    "/device_0/sensor_0/Infrared_2/image/data/compressed": 5})
    contents = inspect_db3(path)
    assert contents.image_counts == {StreamKind.COLOUR: 3, StreamKind.DEPTH: 2}
    assert contents.stream_names == ("Color_0", "Depth_0", "Infrared_2")


@pytest.mark.parametrize("topics", [{DEPTH: 4}, {COLOUR: 0, DEPTH: 4}])
def test_a_file_without_colour_images_names_what_it_has(tmp_path, topics):
    with pytest.raises(CorruptStreamError, match=r"no colour images .*streams found: .*Depth_0"):
        inspect_db3(db3(tmp_path / "a.db3", topics))


def test_another_sqlite_file_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / "a.db3") as connection:
        connection.execute("CREATE TABLE photos(id INTEGER)")
    connection.close()
    with pytest.raises(CorruptStreamError, match="no such table: topics"):
        inspect_db3(tmp_path / "a.db3")


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.db3", b"", "the file is empty"), ("a.db3", b"\x00" * 4096, "neither a RealSense .db3 nor a .bag"),
    ("a.db3", b"#ROSBAG V2.0\n", r"is a ROS 1 bag; rename it to end in \.bag"),
    ("a.bag", b"SQLite format 3\0" + b"\0" * 100, r"is a RealSense \.db3 recording; rename it to end in \.db3"),
    ("a.bag", b"#ROSBAG V2.0\n", "a ROS 1 bag, not a .db3"),
    ("a.db3", b"SQLite format 3\0" + b"\0" * 1000, "damaged"),
])
def test_foreign_files_are_refused_by_content(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptStreamError, match=message):
        inspect_db3(tmp_path / name)


def test_missing_files_and_folders_are_no_device(tmp_path):
    for path in (tmp_path / "none.db3", tmp_path):
        with pytest.raises(NoDeviceError, match=str(path)):
            inspect_db3(path)


def image_message(prefix=b"\0\1\0\0depth header bytes", compression=6):
    picture = np.random.default_rng(1).integers(0, 255, (48, 64), dtype=np.uint8)
    return prefix + cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, compression])[1].tobytes()


def test_a_sound_png_and_a_message_without_one_pass():
    assert png_damage(image_message()) is None
    assert png_damage(b"\0\1\0\0mono8" + bytes(2000)) is None


@pytest.mark.parametrize("compression", [0, 6])
def test_every_flipped_bit_of_the_image_is_found(compression):
    """Also in stored (level 0) data, which every PNG reader without a check hands on as good pixels."""
    message = image_message(compression=compression)
    start = message.index(b"PNG") - 1
    for at in range(start, len(message), 37):
        flipped = bytearray(message)
        flipped[at] ^= 0x10
        assert png_damage(bytes(flipped)) is not None, f"byte {at - start} of the PNG"


def test_a_cut_png_is_found():
    message = image_message()
    assert png_damage(message[:-20]) == "PNG is cut short"
    assert zlib.crc32(message) != zlib.crc32(message[:-20])
