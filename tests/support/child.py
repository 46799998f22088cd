"""A process that does as it is told, for the restarter's contract: it beats, and ends when it is ordered to."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection, wait
from pathlib import Path

from mendstream.runtime.beat import Beat
from mendstream.runtime.clock import WallClock
from mendstream.runtime.roster import Place


def obedient(environment: dict[str, str], place: Place, generation: int, lifeline: Connection) -> None:
    """A body for LocalRestarter. The orders in its FIFO are exit codes."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    root = Path(environment["root"])
    orders = os.open(_path(root, place.process), os.O_RDWR)
    now_us = WallClock().now_us()
    Beat(root / "run" / f"beat-{place.process}").beat(now_us, now_us)
    ready = wait([lifeline, orders])
    sys.exit(1 if lifeline in ready else int(os.read(orders, 16)))


def make_orders(root: Path, process: str) -> int:
    """Where to write the exit code that `process` is to end with."""
    os.mkfifo(_path(root, process))
    return os.open(_path(root, process), os.O_RDWR)


def _path(root: Path, process: str) -> Path:
    return root / f"orders-{process}"
