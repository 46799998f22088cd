"""A few bytes in a file that is shared memory: writing costs nanoseconds, and what was written outlives the process."""

from __future__ import annotations

import mmap
import os
from pathlib import Path


def mapped(path: Path, size: int) -> mmap.mmap:
    """The first `size` bytes of `path`, zeros where the file is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        held = os.fstat(fd).st_size
        if held < size:
            # Not ftruncate: a hole has no room yet, and on a full disk the first write to it would kill the process.
            os.pwrite(fd, bytes(size - held), held)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)
