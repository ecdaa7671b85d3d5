"""Bounded, checked access to the chunks and metadata of an MCAP file, for files that nobody vouches for.

The `mcap` library parses records but trusts their lengths: a flipped bit in one can ask for gigabytes. Here lengths
are checked against the file and against limits before anything is read, checksums before anything is parsed, and every
failure is a `CorruptStreamError` with the path and a remedy.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, ChunkIndex, McapRecord, Message, Metadata, MetadataIndex, Statistics
from mcap.stream_reader import CRCValidationError, StreamReader, breakup_chunk
from mcap.writer import MCAP0_MAGIC

from capture.camera import CorruptStreamError, NoDeviceError

#: One frame set: three planes of a 4-megapixel camera are 32 MB.
MAX_CHUNK_BYTES = 256 * 1024 * 1024
MAX_SUMMARY_BYTES = 64 * 1024 * 1024
_FOOTER = struct.Struct("<BQQQI")  # opcode, length, summary start, summary offset start, CRC of the summary
_RECORD_HEADER = struct.Struct("<BQ")
_FOREIGN = {b"SQLite f": "a RealSense .db3 recording", b"#ROSBAG ": "a ROS bag"}

#: What parsing damaged bytes with the `mcap` library may raise.
PARSE_ERRORS = (McapError, struct.error, ValueError, KeyError, OverflowError, MemoryError, zstandard.ZstdError)


class McapFile:
    """An MCAP file with a summary, as `mcap.writer.Writer` makes them.

    Attributes:
        chunks: index of each chunk, in file order. topics: topic by channel id. message_counts: by topic.

    Raises:
        NoDeviceError: no such file.
        CorruptStreamError: empty, foreign, truncated or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = checked_size(path)
        self._file = path.open("rb")
        try:
            summary = self._read_summary()
            self._index(summary)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def metadata(self, name: str) -> dict[str, str] | None:
        """The first metadata record of that name, None where there is none.

        Raises:
            CorruptStreamError: the index names one that is not there.
        """
        for entry in self._metadata:
            if entry.name == name:
                body = self._record(Opcode.METADATA, entry.offset, entry.length, MAX_SUMMARY_BYTES, f"metadata {name}")
                try:
                    return dict(Metadata.read(ReadDataStream(BytesIO(body))).metadata)
                except PARSE_ERRORS as error:
                    raise self._damaged(f"metadata {name!r} cannot be read ({error})") from error
        return None

    def chunk(self, position: int) -> tuple[list[Message], str | None]:
        """The messages of one chunk, and what is wrong with its checksum (None: nothing).

        Raises:
            CorruptStreamError: it cannot be decompressed or taken apart.
        """
        entry = self.chunks[position]
        body = self._record(Opcode.CHUNK, entry.chunk_start_offset, entry.chunk_length, MAX_CHUNK_BYTES,
                            f"set {position}")
        try:
            records, damage = open_chunk(Chunk.read(ReadDataStream(BytesIO(body))))
        except PARSE_ERRORS as error:
            raise self._damaged(f"set {position} of {len(self.chunks)} cannot be read ({error})") from error
        return [record for record in records if isinstance(record, Message)], damage

    def _read_summary(self) -> bytes:
        tail = _FOOTER.size + len(MCAP0_MAGIC)
        self._file.seek(0)
        head = self._file.read(len(MCAP0_MAGIC))
        if head != MCAP0_MAGIC:
            kind = _FOREIGN.get(head, f"no MCAP file (it begins with {head!r})")
            raise CorruptStreamError(f"{self.path}: {kind}, not a session of `mmdg record`")
        if self.size < 2 * len(MCAP0_MAGIC) + _FOOTER.size:
            raise self._damaged(f"only {self.size} bytes long")
        self._file.seek(self.size - tail)
        footer, magic = self._file.read(_FOOTER.size), self._file.read(len(MCAP0_MAGIC))
        if magic != MCAP0_MAGIC:
            raise self._damaged("it has no end: the recorder was stopped, or the file was cut")
        opcode, _, start, _, crc = _FOOTER.unpack(footer)
        length = self.size - tail - start
        if opcode != Opcode.FOOTER or not 0 < length <= MAX_SUMMARY_BYTES or start < len(MCAP0_MAGIC):
            raise self._damaged("its footer is damaged")
        self._file.seek(start)
        summary = self._file.read(length)
        if zlib.crc32(footer[:-4], zlib.crc32(summary)) != crc:
            raise self._damaged("the checksum of its index fails")
        return summary + footer + magic

    def _index(self, summary: bytes) -> None:
        chunks: list[ChunkIndex] = []
        self._metadata: list[MetadataIndex] = []
        self.topics: dict[int, str] = {}
        counts: dict[int, int] = {}
        try:
            for record in StreamReader(BytesIO(summary), skip_magic=True, record_size_limit=MAX_SUMMARY_BYTES).records:
                if isinstance(record, ChunkIndex):
                    chunks.append(record)
                elif isinstance(record, MetadataIndex):
                    self._metadata.append(record)
                elif isinstance(record, Channel):
                    self.topics[record.id] = record.topic
                elif isinstance(record, Statistics):
                    counts = dict(record.channel_message_counts)
        except PARSE_ERRORS as error:
            raise self._damaged(f"its index cannot be read ({error})") from error
        self.chunks = sorted(chunks, key=lambda entry: entry.chunk_start_offset)
        self.message_counts = {topic: counts.get(channel, 0) for channel, topic in self.topics.items()}

    def _record(self, opcode: Opcode, offset: int, length: int, limit: int, name: str) -> bytes:
        """The body of the record that an index entry points to."""
        if not (_RECORD_HEADER.size <= length <= limit and 0 <= offset <= self.size - length):
            raise self._damaged(f"the index puts {name} at byte {offset} with {length} bytes, in a file of {self.size}")
        self._file.seek(offset)
        found, body_length = _RECORD_HEADER.unpack(self._file.read(_RECORD_HEADER.size))
        if (found, body_length) != (opcode, length - _RECORD_HEADER.size):
            raise self._damaged(f"{name} is not at byte {offset}, where the index says it is")
        return self._file.read(body_length)

    def _damaged(self, what: str) -> CorruptStreamError:
        return CorruptStreamError(f"{self.path}: damaged: {what}; try `mmdg sessions recover {self.path}`")


def checked_size(path: Path) -> int:
    """Size in bytes of a regular file that has any.

    Raises:
        NoDeviceError: missing, or not a regular file. CorruptStreamError: empty.
    """
    if not path.is_file():
        listing = sorted(p.name for p in path.parent.glob("*.mcap")) if path.parent.is_dir() else []
        what = "is not a file" if path.exists() else "no such file"
        raise NoDeviceError(f"{path}: {what}; sessions in {path.parent}: {', '.join(listing[:10]) or 'none'}")
    size = os.path.getsize(path)
    if size == 0:
        raise CorruptStreamError(f"{path}: empty (0 bytes); nothing was recorded, delete it")
    return size


def open_chunk(chunk: Chunk) -> tuple[list[McapRecord], str | None]:
    """Records of a chunk, and what is wrong with its checksum (None: nothing). Decompresses within the limit.

    Raises:
        PARSE_ERRORS.
    """
    if chunk.uncompressed_size > MAX_CHUNK_BYTES:
        raise McapError(f"chunk claims {chunk.uncompressed_size} bytes, the limit is {MAX_CHUNK_BYTES}")
    if chunk.compression not in ("zstd", ""):
        raise McapError(f"compression {chunk.compression!r}, expected 'zstd'")
    if chunk.compression == "zstd":
        # zstandard believes the frame header before the caller's limit, so the two must agree.
        claimed = zstandard.get_frame_parameters(chunk.data).content_size
        if claimed != chunk.uncompressed_size:
            raise McapError(f"compressed data claim {claimed} bytes, the chunk {chunk.uncompressed_size}")
    try:
        return breakup_chunk(chunk, validate_crc=True), None
    except CRCValidationError as error:
        # Take it apart all the same: the planes' own hashes can say which of them is damaged.
        return breakup_chunk(chunk, validate_crc=False), str(error)


def stream_records(file: BinaryIO, size: int) -> Iterator[McapRecord]:
    """Records from the start, chunks unopened, for files without a readable end.

    Raises:
        PARSE_ERRORS: at the first damaged record.
    """
    clamped = cast(BinaryIO, _NeverMoreThanTheFile(file, size))
    yield from StreamReader(clamped, emit_chunks=True, record_size_limit=MAX_CHUNK_BYTES).records


class _NeverMoreThanTheFile:
    """`read` clamped to what is left, so that a damaged length inside a record cannot ask for gigabytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, length: int) -> bytes:
        data = self._file.read(max(0, min(length, self._left)))
        self._left -= len(data)
        return data
