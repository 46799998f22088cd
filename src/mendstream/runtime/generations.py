"""The numbers of a process's lives: durable, and only growing over the life of a data directory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from mendstream.adapters.room import told


def next_generation(root: Path, process: str) -> int:
    """The number of this start of `process`."""
    path = root / "run" / "generations.json"
    held: dict[str, int] = {}
    with contextlib.suppress(FileNotFoundError):
        held = msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    held[process] = held.get(process, 0) + 1
    fresh = path.with_suffix(f".{os.getpid()}")
    with told(root):
        fresh.write_bytes(msgspec.json.encode(held))
        fresh.rename(path)
    return held[process]
