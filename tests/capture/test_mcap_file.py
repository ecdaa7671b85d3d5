"""Files that ask for more than they have."""

import struct
import tracemalloc
from io import BytesIO

import pytest
import zstandard
from mcap.exceptions import McapError
from mcap.records import Chunk

from capture.mcap_file import MAX_CHUNK_BYTES, PARSE_ERRORS, open_chunk, stream_records

MAGIC = b"\x89MCAP0\r\n"


def chunk(data, uncompressed_size, compression="zstd"):
    return Chunk(compression=compression, data=data, message_start_time=0, message_end_time=0, uncompressed_crc=1,
                 uncompressed_size=uncompressed_size)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: chunk(zstandard.compress(bytes(80_000_000)), 10), "compressed data claim 80000000 bytes, the chunk 10"),
    (lambda: chunk(zstandard.compress(b"x"), MAX_CHUNK_BYTES + 1), "the limit is"),
    (lambda: chunk(b"not zstd", 8), r"zstd|magic|frame"),
])
def test_a_chunk_cannot_ask_for_more_memory_than_it_declares(make, message):
    bomb = make()
    tracemalloc.start()
    try:
        with pytest.raises(PARSE_ERRORS, match=message):
            open_chunk(bomb)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("record", [
    b"\x05" + struct.pack("<Q", 1 << 60),  # a chunk of an exabyte
    b"\x09" + struct.pack("<Q", 100) + bytes(24) + struct.pack("<Q", 1 << 40) + bytes(60),  # an attachment
    b"\x0c" + struct.pack("<Q", 20) + struct.pack("<I", 1 << 31) + bytes(16),  # a name of 2 GB
], ids=["record", "inner length", "string"])
def test_a_length_beyond_the_file_is_an_error_and_no_allocation(record):
    data = MAGIC + record
    tracemalloc.start()
    try:
        with pytest.raises(PARSE_ERRORS):
            list(stream_records(BytesIO(data), len(data)))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_unknown_compression_is_not_taken_for_plain_data():
    with pytest.raises(McapError, match="compression 'brotli'"):
        open_chunk(chunk(b"", 0, compression="brotli"))
