"""No room on the disk, or no more allowed: what the system says of it becomes LogFull, which says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from mendstream.contracts.errors import LogFull

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_LEFT_BYTES = 1 << 20
"""With less than this left, a write that the system cut short was cut short for want of room."""


def disk_full(root: Path, cause: object) -> LogFull:
    return LogFull(
        f"the disk of {root} is full ({cause}); what was not finished is done again, and nothing is lost",
        hint="make room on the disk, then start again",
    )


def says_full(root: Path, message: str) -> bool:
    """Whether `message`, of a library that gives no error number, tells of a full disk.

    LMDB says "Input/output error" when the system took only a part of what it wrote.
    """
    if any(os.strerror(number) in message for number in _NO_ROOM):
        return True
    return os.strerror(errno.EIO) in message and hardly_any(root)


def hardly_any(root: Path) -> bool:
    found = os.statvfs(root)
    return found.f_bavail * found.f_frsize < _LEFT_BYTES


def overwrite(path: Path, content: bytes, size: int) -> None:
    """Put `content`, filled up with spaces to `size`, where what was there before was: that takes no more room."""
    filled, done = content.ljust(size), 0
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        while done < len(filled):
            done += os.pwrite(fd, filled[done:], done)
        os.ftruncate(fd, done)
    finally:
        os.close(fd)


@contextlib.contextmanager
def told(root: Path) -> Iterator[None]:
    """Around whatever writes below `root`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise disk_full(root, f"{error.strerror}: {error.filename}" if error.filename else error.strerror) from error
