"""A RealSense `.db3` file seen with SQLite, before and beside the SDK.

The SDK plays a damaged file as if it ended early, delivers damaged pixels as good ones, and on some files spins for
ever. So the file is judged here first: its kind by its first bytes, its pages by `PRAGMA quick_check`, its images by
counting, and each image by the checksums that PNG carries.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from capture.camera import CorruptStreamError, NoDeviceError
from capture.frames import StreamKind

SQLITE_MAGIC = b"SQLite format 3\0"
ROSBAG_MAGIC = b"#ROSBAG V2.0"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_STREAM_BY_NAME = {"Depth_0": StreamKind.DEPTH, "Infrared_1": StreamKind.INFRARED, "Infrared_0": StreamKind.INFRARED,
                   "Color_0": StreamKind.COLOUR}


@dataclass(frozen=True)
class Db3Contents:
    """What a file holds: image messages by stream, their SQLite topic ids, and every stream name found."""

    image_counts: dict[StreamKind, int]
    topic_ids: dict[StreamKind, int]
    stream_names: tuple[str, ...]


def magic_of(path: Path) -> bytes:
    """`SQLITE_MAGIC` or `ROSBAG_MAGIC`, by content and never by name.

    Raises:
        NoDeviceError: no such file. CorruptStreamError: neither; or a content that its name contradicts, which the SDK
            would refuse without saying why.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise NoDeviceError(f"{path}: {error.strerror or error}") from error
    for magic, suffix, name in ((SQLITE_MAGIC, ".db3", "a RealSense .db3 recording"),
                                (ROSBAG_MAGIC, ".bag", "a ROS 1 bag")):
        if head.startswith(magic):
            if path.suffix != suffix:
                raise CorruptStreamError(f"{path}: its content is {name}; rename it to end in {suffix}")
            return magic
    raise CorruptStreamError(f"{path}: neither a RealSense .db3 nor a .bag, it begins with {head!r}"
                             if head else f"{path}: the file is empty")


def _connect(path: Path) -> sqlite3.Connection:
    # Immutable: no lock is taken and no journal is looked for; a file that is still being recorded must not be read.
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)


def inspect_db3(path: Path) -> Db3Contents:
    """Check the pages and count the images.

    Raises:
        NoDeviceError: missing. CorruptStreamError: foreign, damaged pages, or no colour (names what there is).
    """
    if magic_of(path) != SQLITE_MAGIC:
        raise CorruptStreamError(f"{path}: a ROS 1 bag, not a .db3")
    _check_length(path)
    try:
        with closing(_connect(path)) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict is None or verdict[0] != "ok":
                # SQLite breaks its verdict into lines; one error is one line of a log.
                told = " ".join(str(verdict[0]).split()) if verdict else "no answer"
                raise CorruptStreamError(f"{path}: damaged: {told}")
            rows = connection.execute(
                "SELECT t.id, t.name, COUNT(m.id) FROM topics t LEFT JOIN messages m ON m.topic_id = t.id "
                "WHERE t.name LIKE '%/image/data%' GROUP BY t.id ORDER BY t.id").fetchall()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise CorruptStreamError(f"{path}: damaged: {error}") from error
    counts: dict[StreamKind, int] = {}
    topics: dict[StreamKind, int] = {}
    names = []
    for topic, name, count in rows:
        stream = str(name).split("/image/data")[0].rsplit("/", 1)[-1]
        names.append(stream)
        kind = _STREAM_BY_NAME.get(stream)
        if kind is not None and count and kind not in counts:
            counts[kind], topics[kind] = int(count), int(topic)
    if StreamKind.COLOUR not in counts:
        raise CorruptStreamError(f"{path}: no colour images (Color_0); streams found: {', '.join(names) or 'none'}")
    return Db3Contents(counts, topics, tuple(names))


def _check_length(path: Path) -> None:
    """Compare the file's size with the page count in its header; `quick_check` does not miss half a last page.

    SQLite file format, section 1.3: page size at byte 16 (1 means 65536), page count at byte 28, valid where the
    change counter at byte 24 equals the one at byte 92.
    """
    with path.open("rb") as file:
        header = file.read(100)
    size = int.from_bytes(header[16:18], "big")
    expected = (65_536 if size == 1 else size) * int.from_bytes(header[28:32], "big")
    if len(header) < 100 or (header[24:28] == header[92:96] and path.stat().st_size < expected):
        raise CorruptStreamError(f"{path}: cut short: {path.stat().st_size} bytes, its header promises {expected}")


class ImageChecks:
    """Walks each stream's images in playing order, beside the SDK, and verifies the checksums inside each PNG."""

    def __init__(self, path: Path, contents: Db3Contents) -> None:
        self._path = path
        self._connection = _connect(path)
        self._blobs: dict[StreamKind, Iterator[tuple[bytes]]] = {}
        try:
            for kind, topic in contents.topic_ids.items():
                self._blobs[kind] = self._connection.execute(
                    "SELECT data FROM messages WHERE topic_id = ? ORDER BY timestamp, id", (topic,))
        except sqlite3.Error as error:
            self._connection.close()
            raise CorruptStreamError(f"{path}: damaged: {error}") from error

    def check_next(self, kind: StreamKind, frame_number: int | None) -> None:
        """Raises:
            CorruptStreamError: the stored image fails its checksum, or there is none left.
        """
        try:
            row = next(self._blobs[kind], None)
        except sqlite3.Error as error:
            raise CorruptStreamError(f"{self._path}: {kind} frame {frame_number}: {error}") from error
        if row is None:
            raise CorruptStreamError(f"{self._path}: the SDK played more {kind} frames than the file holds")
        if (why := png_damage(row[0])) is not None:
            raise CorruptStreamError(f"{self._path}: {kind} frame {frame_number} is damaged: {why}")

    def close(self) -> None:
        self._connection.close()


def png_damage(blob: bytes) -> str | None:
    """What is wrong with the PNG in an image message, None if nothing is or if the message holds no PNG (an
    uncompressed recording carries no checksums). A PNG chunk is length, type, data, CRC-32 of type and data."""
    start = blob.find(_PNG_MAGIC[1:4], 0, 256)
    if start < 1:
        return "no PNG header" if b"png" in blob[:128] or b"IHDR" in blob[:256] else None
    if blob[start - 1:start + 7] != _PNG_MAGIC:
        return "damaged PNG header"
    view, at = memoryview(blob), start + 7
    while at + 12 <= len(blob):
        length = int.from_bytes(view[at:at + 4], "big")
        end = at + 12 + length
        if end > len(blob):
            break
        if zlib.crc32(view[at + 4:end - 4]) != int.from_bytes(view[end - 4:end], "big"):
            return f"PNG chunk {bytes(view[at + 4:at + 8])!r} fails its checksum"
        if bytes(view[at + 4:at + 8]) == b"IEND":
            return None
        at = end
    return "PNG is cut short"
