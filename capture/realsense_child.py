"""The parent's side of the playback child: start it, read its pipe with a deadline, kill it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from capture.camera import CorruptStreamError
from capture.realsense_playback import PlaybackMessage, Played

PLAYBACK_COMMAND = (sys.executable, "-P", "-m", "capture.realsense_playback")
_MAX_HEADER_BYTES = 1 << 20
_MAX_PIXEL_BYTES = 1 << 28


class PlaybackChild:
    """The child process and the reading end of its pipe. Killed by `close`, and by the kernel when this process, or
    the thread that made it, goes (`PR_SET_PDEATHSIG` watches the thread: open a camera where it is read).

    `command` is what to run, for tests of children that hang.
    """

    def __init__(self, *arguments: str, command: tuple[str, ...] = PLAYBACK_COMMAND) -> None:
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 -- closed in close(): it lives as long as the child
        # The child must import this very package, wherever the parent was started.
        root = str(Path(__file__).resolve().parents[1])
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
        try:
            self._process = subprocess.Popen([*command, str(writer), str(os.getpid()), *arguments], pass_fds=(writer,),
                                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._stderr,
                                             env=environment)
        except OSError:
            os.close(self._reader)
            self._stderr.close()
            raise
        finally:
            os.close(writer)
        self._buffer = bytearray()
        self._decoder: msgspec.msgpack.Decoder[PlaybackMessage] = msgspec.msgpack.Decoder(PlaybackMessage)
        self._ended = False

    @property
    def pid(self) -> int:
        return self._process.pid

    def receive(self, timeout_s: float) -> tuple[PlaybackMessage, bytes] | None:
        """The next message and its pixels, or None after `timeout_s` seconds.

        Raises:
            CorruptStreamError: the child ended in the middle, or wrote what is not our format.
        """
        deadline = time.monotonic() + timeout_s
        while (message := self._parse()) is None:
            left = deadline - time.monotonic()
            if self._ended:
                raise CorruptStreamError(f"playback ended without a last word ({self._last_words()})")
            if not select.select([self._reader], [], [], max(0.0, left))[0]:
                return None
            data = os.read(self._reader, 1 << 20)
            self._ended = not data
            self._buffer += data
        return message

    def _parse(self) -> tuple[PlaybackMessage, bytes] | None:
        if len(self._buffer) < 4:
            return None
        length = int.from_bytes(self._buffer[:4], "little")
        if length > _MAX_HEADER_BYTES:
            raise CorruptStreamError(f"playback process sent a header of {length} bytes")
        if len(self._buffer) < 4 + length:
            return None
        try:
            message = self._decoder.decode(self._buffer[4:4 + length])
        except msgspec.DecodeError as error:
            raise CorruptStreamError(f"playback process sent no valid message: {error}") from error
        size = message.pixel_bytes if isinstance(message, Played) else 0
        if not 0 <= size <= _MAX_PIXEL_BYTES:
            raise CorruptStreamError(f"playback process announced {size} bytes of pixels")
        end = 4 + length + size
        if len(self._buffer) < end:
            return None
        pixels = bytes(self._buffer[4 + length:end])
        del self._buffer[:end]
        return message, pixels

    def _last_words(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed its pipe and lives on
            self._process.kill()
            code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read()[-2000:].decode(errors="replace").strip().splitlines()
        return f"exit code {code}{': ' + lines[-1] if lines else ''}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        if not self._stderr.closed:
            os.close(self._reader)
            self._stderr.close()
