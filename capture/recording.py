"""Session files: write frame sets losslessly, read them back with every plane verified, rescue what was cut short.

The layout is described in `capture.recording_format`. One set is one chunk and is handed to the operating system before
`write` returns, so a killed recorder loses nothing that it had written; a power cut loses what the system had not yet
stored.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from mcap.exceptions import EndOfFile
from mcap.records import Channel, Chunk, Message, Metadata
from mcap.writer import CompressionType, Writer

from capture import recording_format as layout
from capture.camera import CameraDescription, CorruptStreamError
from capture.frames import FrameSet, StreamKind
from capture.mcap_file import MAX_CHUNK_BYTES, PARSE_ERRORS, McapFile, checked_size, open_chunk, stream_records
from capture.recording_format import FormatError, Manifest

#: Recording stops while there is still room to finish the file and for the machine to work.
MIN_FREE_BYTES = 512 * 1024 * 1024


class RecordingError(Exception):
    """A session cannot be written: it exists, the disk is full, a set does not fit; the message says what to do."""


class RecordingWriter:
    """Writes one session file.

    Everything goes to `<path>.partial`, which becomes `path` at `close`. A session without a set leaves no file.

    Args:
        path: must not exist. camera: description of the opened camera, or the manifest of a session to copy.
        label: what was presented, "" unknown. notes: free text. min_free_bytes: stop before the disk has less.

    Raises:
        RecordingError: the file or its `.partial` exists, its folder does not, or the disk is too full.
    """

    def __init__(self, path: Path, camera: CameraDescription | Manifest, *, label: str = "", notes: str = "",
                 min_free_bytes: int = MIN_FREE_BYTES) -> None:
        self.path, self.partial = path, path.with_name(path.name + ".partial")
        self.sets = 0
        self._min_free_bytes = min_free_bytes
        created = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.manifest = camera if isinstance(camera, Manifest) else Manifest.of(camera, created=created, label=label,
                                                                                notes=notes)
        if not path.parent.is_dir():
            raise RecordingError(f"{path}: the folder {path.parent} does not exist")
        if path.exists():
            raise RecordingError(f"{path} exists and is never overwritten: choose another name, or move it away")
        self._check_free_space()
        try:
            self._file = self.partial.open("xb")
        except FileExistsError:
            raise RecordingError(f"{self.partial} exists: it is being recorded now, or its recorder was killed; then "
                                 f"`mmdg sessions recover {self.partial}`, and delete it") from None
        except OSError as error:
            raise RecordingError(f"{self.partial}: {error.strerror}") from error
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._writer = Writer(self._file, chunk_size=MAX_CHUNK_BYTES, compression=CompressionType.ZSTD)
        self._writer.start(profile=layout.PROFILE, library=self.manifest.software)
        self._writer.add_metadata(layout.MANIFEST_RECORD, self.manifest.to_record())
        self._register_channels()
        self._file.flush()

    def write(self, frames: FrameSet) -> None:
        """Append one set. When this returns, the operating system has it.

        Raises:
            RecordingError: the set does not fit the rig, or the disk is too full. What was written stays readable.
        """
        if self._file.closed:
            raise RecordingError(f"{self.path}: already closed")
        self._check_fits(frames)
        self._check_free_space()
        stamp_ns, position = frames.arrival_ns, self.sets
        index, images = layout.encode_set(frames, position)
        try:
            self._add(layout.FRAME_SET_TOPIC, index, stamp_ns)
            for kind, image in images.items():
                self._add(layout.image_topic(kind), image, stamp_ns)
                if position == 0:
                    calibration = layout.encode_calibration(self.manifest.rig, kind, stamp_ns)
                    self._add(layout.calibration_topic(kind), calibration, stamp_ns)
            self._writer.flush()  # type: ignore[no-untyped-call]
        except OSError as error:
            raise RecordingError(f"{self.partial}: {error.strerror} at set {position}") from error
        self.sets += 1

    def close(self, counters: Mapping[str, int] | None = None) -> None:
        """Finish the file and give it its name. `counters`: the camera's drops, kept in the file. Idempotent.

        Raises:
            RecordingError: the end cannot be written, or the name was taken meanwhile; the `.partial` file stays.
        """
        if self._file.closed:
            return
        with self._file:
            if self.sets == 0:
                self.partial.unlink()
                return
            try:
                self._writer.add_metadata(layout.END_RECORD, {
                    "sets": str(self.sets), "counters": json.dumps({k: v for k, v in (counters or {}).items() if v})})
                self._writer.finish()  # type: ignore[no-untyped-call]
                self._file.flush()
                os.fsync(self._file.fileno())
                self._give_name()
            except OSError as error:
                raise RecordingError(f"{self.partial} holds {self.sets} sets but could not become {self.path}: "
                                     f"{error.strerror}; make room, then `mmdg sessions recover {self.partial}`"
                                     ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _give_name(self) -> None:
        try:
            os.link(self.partial, self.path)  # unlike a rename, this never replaces a file
            self.partial.unlink()
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            if self.path.exists():
                raise FileExistsError(17, "File exists") from None
            self.partial.rename(self.path)

    def _register_channels(self) -> None:
        writer = self._writer
        index = writer.register_schema("mmdg.FrameSet", "jsonschema", json.dumps(layout.FRAME_SET_SCHEMA).encode())
        image = writer.register_schema("foxglove.RawImage", "protobuf", layout.image_schema())
        calibration = writer.register_schema("foxglove.CameraCalibration", "protobuf", layout.calibration_schema())
        self._channels = {layout.FRAME_SET_TOPIC: writer.register_channel(layout.FRAME_SET_TOPIC, "json", index)}
        for kind in sorted(self.manifest.rig.intrinsics):
            scale = self.manifest.rig.depth_scale_m if kind is StreamKind.DEPTH else None
            metadata = {} if scale is None else {"depth_scale_m": repr(scale)}
            for topic, schema in ((layout.image_topic(kind), image), (layout.calibration_topic(kind), calibration)):
                self._channels[topic] = writer.register_channel(topic, "protobuf", schema, metadata)

    def _add(self, topic: str, data: bytes, stamp_ns: int) -> None:
        self._writer.add_message(self._channels[topic], log_time=stamp_ns, publish_time=stamp_ns, data=data,
                                 sequence=self.sets)

    def _check_fits(self, frames: FrameSet) -> None:
        expected = {kind: (i.height, i.width) for kind, i in self.manifest.rig.intrinsics.items()}
        found = {frame.kind: (frame.height, frame.width) for frame in frames.frames()}
        if found != expected:
            raise RecordingError(f"set {frames.sequence} of {frames.source} has planes {_sizes(found)}, its rig says "
                                 f"{_sizes(expected)}")

    def _check_free_space(self) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if free < self._min_free_bytes:
            raise RecordingError(f"{self.path.parent} has {free >> 20} MiB free, recording needs "
                                 f"{self._min_free_bytes >> 20} MiB: make room or record elsewhere")


class RecordingReader:
    """Reads one session file; every plane is verified when it is read.

    Attributes:
        manifest: what the session says about itself. counters: the recording camera's drops by cause.
        arrivals_ns: arrival of each set, without reading it.

    Raises:
        NoDeviceError: no such file. CorruptStreamError: empty, foreign, truncated, damaged, or without a set.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._mcap = McapFile(self.path)
        try:
            self._check_structure()
        except BaseException:
            self.close()
            raise
        self.arrivals_ns = [entry.message_start_time for entry in self._mcap.chunks]

    def __len__(self) -> int:
        return len(self._mcap.chunks)

    def __iter__(self) -> Iterator[FrameSet]:
        for position in range(len(self)):
            yield self.read(position)

    def read(self, position: int) -> FrameSet:
        """One set, with source, epoch, sequence and stamps as recorded.

        Raises:
            CorruptStreamError: damaged; names the set, and the plane where it can be told.
        """
        messages, damage = self._mcap.chunk(position)
        try:
            return decode_messages(messages, damage, self._mcap.topics, self.manifest, position)
        except FormatError as error:
            raise CorruptStreamError(f"{self.path}: set {position} of {len(self)}: {error}; "
                                     f"`mmdg sessions recover {self.path}` keeps what comes before") from error

    def close(self) -> None:
        self._mcap.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _check_structure(self) -> None:
        record, end = self._mcap.metadata(layout.MANIFEST_RECORD), self._mcap.metadata(layout.END_RECORD)
        if record is None or end is None:
            raise CorruptStreamError(f"{self.path}: an MCAP file, but not a session of `mmdg record` (topics: "
                                     f"{', '.join(sorted(self._mcap.topics.values())) or 'none'})")
        try:
            self.manifest = Manifest.from_record(record)
            expected = int(end["sets"])
            self.counters: dict[str, int] = {str(k): int(v) for k, v in json.loads(end["counters"]).items()}
        except (FormatError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CorruptStreamError(f"{self.path}: {error}; the recording cannot be trusted, record again") from error
        counts = {topic: self._mcap.message_counts.get(topic, 0)
                  for topic in (layout.FRAME_SET_TOPIC, *map(layout.image_topic, self.manifest.rig.intrinsics))}
        if set(counts.values()) != {expected} or len(self) != expected or expected == 0:
            raise CorruptStreamError(f"{self.path}: should hold {expected} sets but has {len(self)} chunks and "
                                     f"messages {counts}; `mmdg sessions recover {self.path}`")


@dataclass(frozen=True, kw_only=True)
class Recovered:
    """What `recover_recording` saved. `reason`: why reading stopped there."""

    path: Path
    sets: int
    reason: str


def recover_recording(damaged: Path, path: Path | None = None) -> Recovered:
    """Copy the undamaged sets before the first damage into a new session; the damaged file stays as it is.

    Args:
        damaged: a `.partial` file of a killed recorder, or a damaged session.
        path: default `<name>.recovered.mcap` beside it.

    Raises:
        NoDeviceError: no such file. CorruptStreamError: nothing can be saved. RecordingError: it is still being
        recorded, or the copy cannot be written.
    """
    size = checked_size(damaged)
    if path is None:
        path = damaged.with_name(damaged.name.removesuffix(".partial").removesuffix(".mcap") + ".recovered.mcap")
    topics: dict[int, str] = {}
    manifest: Manifest | None = None
    writer: RecordingWriter | None = None
    reason = "the file ends here without damage"
    with damaged.open("rb") as file, contextlib.ExitStack() as stack:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RecordingError(f"{damaged} is still being recorded; stop the recorder first") from None
        try:
            for record in stream_records(file, size):
                if isinstance(record, Metadata) and record.name == layout.MANIFEST_RECORD:
                    manifest = Manifest.from_record(record.metadata)
                elif isinstance(record, Chunk) and manifest is not None:
                    records, damage = open_chunk(record)
                    topics |= {r.id: r.topic for r in records if isinstance(r, Channel)}
                    position = writer.sets if writer else 0
                    messages = [r for r in records if isinstance(r, Message)]
                    frames = decode_messages(messages, damage, topics, manifest, position)
                    if writer is None:
                        copy = manifest.recovered(f"{damaged.name}, which was damaged or cut short")
                        writer = stack.enter_context(RecordingWriter(path, copy))
                    writer.write(frames)
        except FormatError as error:
            reason = f"set {writer.sets if writer else 0}: {error}"
        except PARSE_ERRORS as error:
            reason = ("the file ends in the middle of a record" if isinstance(error, EndOfFile)
                      else f"{type(error).__name__}: {error}".rstrip(": "))
        if writer is None:
            raise CorruptStreamError(f"{damaged}: no undamaged set to recover ({reason})")
    return Recovered(path=path, sets=writer.sets, reason=reason)


def decode_messages(messages: list[Message], damage: str | None, topics: Mapping[int, str], manifest: Manifest,
                    position: int) -> FrameSet:
    """The frame set of one chunk. `damage`: what is wrong with the chunk's checksum, None for nothing.

    Raises:
        FormatError: something is missing or does not match its hash or checksum; names the plane where it can.
    """
    by_topic = {topics.get(message.channel_id, ""): message.data for message in messages}
    images = {kind: by_topic[layout.image_topic(kind)] for kind in StreamKind if layout.image_topic(kind) in by_topic}
    if layout.FRAME_SET_TOPIC not in by_topic:
        raise FormatError(f"set {position} has no index message, only {sorted(by_topic)}")
    frames = layout.decode_set(by_topic[layout.FRAME_SET_TOPIC], images, manifest.rig, position)
    if damage is not None:  # every plane is sound, so what is damaged are stamps or settings
        raise FormatError(damage)
    return frames


def _sizes(planes: Mapping[StreamKind, tuple[int, int]]) -> str:
    return ", ".join(f"{kind} {width}x{height}" for kind, (height, width) in sorted(planes.items()))
