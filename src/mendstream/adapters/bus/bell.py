"""FIFO doorbells: a writer rings every reader that listens to a stream; nobody polls.

A listener owns one FIFO; a symbolic link to it in the folder of each stream that it listens to is its subscription.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from mendstream.contracts.topics import Stream

_RING = b"\0"
_SETTLED_NS = 100_000_000
"""A folder's time of change may be as coarse as some milliseconds: within this, it does not tell two changes apart."""


def _folder(root: Path, stream: Stream) -> Path:
    return root / f"{stream.topic.value}.{stream.partition}"


class FifoBell:
    """Wakes one reader. The FIFO is open for writing too, so that it never reports its end and can ring itself."""

    def __init__(self, root: Path, name: str, streams: Sequence[Stream]) -> None:
        safe = re.sub(r"[^A-Za-z0-9_.-]", "-", name)
        self._path = root / f"{safe}.{os.getpid()}"
        root.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path)
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK)
        self._links = []
        for stream in streams:
            folder = _folder(root, stream)
            folder.mkdir(exist_ok=True)
            link = folder / self._path.name
            link.unlink(missing_ok=True)
            link.symlink_to(self._path.resolve())
            self._links.append(link)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        if not self._poll.poll(max(timeout_s, 0) * 1000):
            return False
        try:
            os.read(self._fd, 65536)
        except BlockingIOError:
            return False
        return True

    def fileno(self) -> int:
        """Readable once it has rung."""
        return self._fd

    def ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it has rung often enough
            os.write(self._fd, _RING)

    def close(self) -> None:
        for link in self._links:
            link.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)
        os.close(self._fd)


class Ringer:
    """The writers' side: knows who listens to what, and keeps their FIFOs open. Safe for use by several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Stream, Path] = {}
        self._listeners: dict[Stream, tuple[int, tuple[Path, ...]]] = {}
        self._fds: dict[str, int] = {}
        self._ringing = threading.Lock()

    def ring(self, streams: Iterable[Stream]) -> None:
        """Wake everybody who listens to one of `streams`."""
        rung: set[str] = set()
        with self._ringing:
            for stream in streams:
                for link in self._who(stream):
                    if link.name not in rung:
                        rung.add(link.name)
                        self._ring_one(link)

    def _who(self, stream: Stream) -> tuple[Path, ...]:
        folder = self._folders.get(stream)
        if folder is None:
            folder = self._folders[stream] = _folder(self._root, stream)
        try:
            changed = os.stat(folder).st_mtime_ns
        except FileNotFoundError:
            with contextlib.suppress(OSError):  # the disk may be full, and the turn that rings is done
                folder.mkdir(parents=True, exist_ok=True)  # so that asking again costs no exception
            return ()
        known = self._listeners.get(stream)
        if known is None or known[0] != changed:
            settled = time.time_ns() - changed > _SETTLED_NS
            known = (changed if settled else -1, tuple(folder.iterdir()))
            self._listeners[stream] = known
        return known[1]

    def _ring_one(self, link: Path) -> None:
        fd = self._fds.get(link.name)
        try:
            if fd is None:
                fd = self._fds[link.name] = os.open(link, os.O_WRONLY | os.O_NONBLOCK)
            os.write(fd, _RING)
        except BlockingIOError:
            pass  # it has rung often enough
        except OSError as error:
            # The listener is gone (no reader, a broken pipe, or nothing left of it): so is its subscription.
            if error.errno not in (errno.ENXIO, errno.EPIPE, errno.ENOENT):
                raise
            if fd is not None:
                os.close(self._fds.pop(link.name))
            (self._root / link.name).unlink(missing_ok=True)
            link.unlink(missing_ok=True)

    def close(self) -> None:
        with self._ringing:
            for fd in self._fds.values():
                os.close(fd)
            self._fds.clear()
