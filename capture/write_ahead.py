"""Writing in a thread beside the camera's, so that a slow disk or a large frame does not make the camera wait."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from capture.frames import FrameSet
from capture.recording import RecordingWriter


class WriteAhead:
    """Hands sets to a `RecordingWriter` in order, from one thread of its own.

    Compression, hashing and writing release Python's lock, so a second core takes nearly all of their cost.
    Leave the context, or call `finish`, before the writer is closed.

    Args:
        writer: not to be used by anyone else meanwhile. may_drop: a full queue refuses sets (a live camera cannot wait)
            instead of waiting. max_pending: sets that may wait; this bounds memory.
    """

    def __init__(self, writer: RecordingWriter, *, may_drop: bool, max_pending: int = 8) -> None:
        self._writer, self._may_drop, self._max_pending = writer, may_drop, max_pending
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="write-ahead")
        self._pending: deque[Future[None]] = deque()
        self._failed = False  # touched by the writing thread only

    def put(self, frames: FrameSet) -> bool:
        """Accept a set for writing; False when the queue is full and the set is dropped.

        Raises:
            RecordingError: an earlier set could not be written.
        """
        full = len(self._pending) >= self._max_pending
        while self._pending and (self._pending[0].done() or (full and not self._may_drop)):
            self._pending.popleft().result()
            full = False
        if len(self._pending) >= self._max_pending:
            return False
        self._pending.append(self._pool.submit(self._write, frames))
        return True

    def finish(self) -> None:
        """Wait until every accepted set is written. After a failure the sets behind it are not tried. Idempotent.

        Raises:
            RecordingError: a set could not be written.
        """
        try:
            while self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)

    def _write(self, frames: FrameSet) -> None:
        if self._failed:  # a session has no holes: what comes after a failed set is not written
            return
        try:
            self._writer.write(frames)
        except BaseException:
            self._failed = True
            raise
