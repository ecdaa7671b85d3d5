"""Files that only their owner may read: written with mode 0600, whole or not at all; refused when others could read."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

MAX_FILE_BYTES = 1 << 20


class PrivateFileError(ValueError):
    """A file is missing, another user's, open to others or in the way; the message names it and the remedy."""


def read_private(path: Path) -> bytes:
    """What stands in a regular file of our own (or root's) that nobody else can read or write; links are not followed.

    Raises:
        PrivateFileError: it is not such a file, or has more than `MAX_FILE_BYTES`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PrivateFileError(f"{path}: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.geteuid(), 0):
            raise PrivateFileError(f"{path}: not a file of ours (uid {status.st_uid})")
        if status.st_mode & 0o077:
            raise PrivateFileError(f"{path}: mode {stat.S_IMODE(status.st_mode):o}, others can read or write it; if "
                                   f"you are sure that nobody has: chmod 600 {path}; otherwise replace what is in it")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PrivateFileError(f"{path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise PrivateFileError(f"{path}: more than {MAX_FILE_BYTES} bytes")
    return data


def write_private(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file of mode 0600, whole or not at all.

    Raises:
        PrivateFileError: it is there and `replace` is False, or it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        if replace:
            os.replace(partial, path)
        else:
            os.link(partial, path)  # refuses a path that is there, whoever made it
    except FileExistsError as error:
        raise PrivateFileError(f"{path}: it is there already and is not overwritten") from error
    except OSError as error:
        raise PrivateFileError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
