"""Sockets between the processes. The one module here that imports zmq (the kiosk client stands alone, see there).

Rules that every socket follows (measured in docs/streaming.md): LINGER 0, so that no process hangs on exit; a bound on
the size of a message, so that a peer cannot make us allocate; `flock` before binding an ipc path, since a second
`bind` succeeds and silently steals the clients; frames travel on credit, because no high-water mark bounds their age.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from pipeline import messages

Socket = zmq.Socket[bytes]
PUSH, PULL, PUB, SUB, ROUTER, DEALER = zmq.PUSH, zmq.PULL, zmq.PUB, zmq.SUB, zmq.ROUTER, zmq.DEALER
XPUB = zmq.XPUB

#: sun_path holds 108 bytes including the closing zero.
MAX_IPC_PATH_BYTES = 107


class ChannelError(RuntimeError):
    """A socket cannot be opened; the message names the endpoint and the remedy."""


@dataclass(frozen=True)
class Endpoints:
    """The internal ipc endpoints, all in one private (0700) runtime directory."""

    runtime_dir: str

    def _ipc(self, name: str) -> str:
        return f"ipc://{self.runtime_dir}/{name}"

    @property
    def bundles(self) -> str:
        """cameras (DEALER) -> hub (ROUTER)."""
        return self._ipc("bundles")

    @property
    def credit(self) -> str:
        """inference (DEALER) <-> hub (ROUTER)."""
        return self._ipc("credit")

    @property
    def observations(self) -> str:
        """cameras (DEALER) <-> decision (ROUTER); acknowledgements flow back in lock-step."""
        return self._ipc("observations")

    @property
    def scores(self) -> str:
        """inference (PUSH) -> decision (PULL)."""
        return self._ipc("scores")

    @property
    def control(self) -> str:
        """supervisor (PUSH) -> decision (PULL)."""
        return self._ipc("control")

    @property
    def progress(self) -> str:
        """everyone (PUSH) -> supervisor (PULL); reports of the decision process too."""
        return self._ipc("progress")


def make_runtime_dir(wanted: str | None = None) -> Path:
    """A private directory (0700) for ipc sockets.

    Raises:
        ChannelError: the path is too long for a socket, or an existing directory belongs to another user or is open
            to others.
    """
    if wanted is None:
        base = os.environ.get("XDG_RUNTIME_DIR")
        path = Path(tempfile.mkdtemp(prefix="mmdg-", dir=base if base and os.access(base, os.W_OK) else None))
    else:
        path = Path(wanted)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ChannelError(f"{path}: owned by uid {status.st_uid} with mode {status.st_mode & 0o777:o}; internal "
                           f"sockets need a directory of yours with mode 700: chmod 700 {path}, or name another one")
    longest = len(os.fsencode(str(path / "observations.lock")))
    if longest > MAX_IPC_PATH_BYTES:
        raise ChannelError(f"{path}: a socket path in it would have {longest} bytes, ipc allows {MAX_IPC_PATH_BYTES}; "
                           "name a shorter runtime_dir")
    return path


@dataclass
class Sockets:
    """A zmq context and the sockets opened in it; closing it closes them all without lingering."""

    context: zmq.Context[Socket] = field(default_factory=zmq.Context)
    _locks: list[int] = field(default_factory=list)
    _open: list[Socket] = field(default_factory=list)

    def open(self, kind: int, endpoint: str, *, bind: bool, max_message_bytes: int = messages.MAX_MESSAGE_BYTES,
             high_water_mark: int = 1000, **options: int | bytes) -> Socket:
        """Open one socket. `options` are zmq socket options by name in lower case (`router_mandatory=1`).

        Raises:
            ChannelError: another process serves this endpoint, or zmq refuses it.
        """
        if bind and endpoint.startswith("ipc://"):
            self._lock(endpoint)
        socket = self.context.socket(kind)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, max_message_bytes)
        socket.setsockopt(zmq.SNDHWM, high_water_mark)
        socket.setsockopt(zmq.RCVHWM, high_water_mark)
        for name, value in options.items():
            socket.setsockopt(getattr(zmq, name.upper()), value)
        try:
            socket.bind(endpoint) if bind else socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close()
            raise ChannelError(f"{endpoint}: {'bind' if bind else 'connect'} failed: {error}") from error
        self._open.append(socket)
        return socket

    def _lock(self, endpoint: str) -> None:
        path = endpoint.removeprefix("ipc://")
        if len(os.fsencode(path)) > MAX_IPC_PATH_BYTES:
            raise ChannelError(f"{endpoint}: {len(os.fsencode(path))} bytes, ipc allows {MAX_IPC_PATH_BYTES}")
        try:
            descriptor = os.open(path + ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ChannelError(f"{endpoint}: cannot create its lock file: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise ChannelError(f"{endpoint}: another process already serves it (lock {path}.lock is held); stop that "
                               "process or choose another endpoint") from None
        self._locks.append(descriptor)

    def close(self, linger_ms: int = 0) -> None:
        """Close all. `linger_ms`: time for last words, such as a decision made while stopping, to leave."""
        for socket in self._open:
            socket.close(linger=linger_ms)
        self._open.clear()
        self.context.term()
        for descriptor in self._locks:
            os.close(descriptor)
        self._locks.clear()

    def __enter__(self) -> Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def drain(socket: Socket, limit: int = 1000) -> Iterator[list[bytes]]:
    """Every multipart message that waits on `socket` now, at most `limit`; never blocks."""
    for _ in range(limit):
        try:
            yield socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return


def drain_subscriptions(socket: Socket, limit: int = 100) -> set[bytes]:
    """Topics that somebody has subscribed to on this XPUB socket since the last call; ends of subscriptions are left
    out. With `xpub_verbose=1` every subscription is told, also to a topic that another peer follows already."""
    topics = set()
    for frames in drain(socket, limit):
        if frames[0][:1] == b"\x01":
            topics.add(frames[0][1:])
    return topics


def drain_with_user(socket: Socket, limit: int = 100) -> Iterator[tuple[str | None, list[bytes]]]:
    """Like `drain`, with the `User-Id` that the admission (`pipeline.security`) gave each sender; None = it gave none.

    The id comes from the connection, never from the message, so that no client can claim another's.
    """
    for _ in range(limit):
        try:
            frames = socket.recv_multipart(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return
        try:
            user = frames[-1].get("User-Id")
        except zmq.ZMQError:
            user = None
        yield (user if isinstance(user, str) else None), [frame.bytes for frame in frames]


def send_now(socket: Socket, frames: Sequence[bytes | memoryview | Any]) -> bool:
    """Send without waiting; False when the peer is gone or full (the caller counts it)."""
    try:
        socket.send_multipart(frames, zmq.NOBLOCK, copy=True)
    except (zmq.Again, zmq.ZMQError) as error:
        if isinstance(error, zmq.Again) or error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
            return False
        raise
    return True


class Poller:
    """`zmq.Poller` with names instead of flags."""

    def __init__(self, *sockets: Socket) -> None:
        self._poller = zmq.Poller()
        for socket in sockets:
            self._poller.register(socket, zmq.POLLIN)

    def wait(self, timeout_ms: float) -> set[Socket]:
        """The sockets with something to read, after at most `timeout_ms`."""
        return {socket for socket, _ in self._poller.poll(max(0, int(timeout_ms)))}
