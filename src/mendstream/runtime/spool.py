"""Standard input into a file that ingestion follows: lines that were read survive any process, and are read once."""

from __future__ import annotations

import threading
import time
from io import FileIO
from pathlib import Path
from typing import BinaryIO

import structlog

from mendstream.contracts.agent import TaskId
from mendstream.contracts.topics import Stream, Topic, source_place
from mendstream.runtime.ground import HouseBus

MOST_BYTES = 64 << 20
"""So much may wait for ingestion; then standard input is not read on, and its writer waits."""
_SOURCE = Stream(Topic.SOURCE, source_place("stdin"))
_log = structlog.get_logger("supervisor")


class StdinSpool(threading.Thread):
    def __init__(self, stdin: BinaryIO, path: Path, bus: HouseBus) -> None:
        super().__init__(name="stdin", daemon=True)
        self._stdin = stdin
        self._path = path
        self._bus = bus

    def run(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileIO(self._path, "ab") as file:
                while line := self._stdin.readline():
                    _append(file, line if line.endswith(b"\n") else line + b"\n")
                    self._bus.ring(_SOURCE)
                    self._wait_for_room(file.tell())
        except OSError as error:
            _log.error("standard input is not read on", cause=error.strerror, path=str(self._path))

    def _wait_for_room(self, size: int) -> None:
        while size - (self._bus.position(TaskId("ingestion", 0), _SOURCE) or 0) > MOST_BYTES:
            time.sleep(0.1)


def _append(file: FileIO, line: bytes) -> None:
    """All of it or nothing: what is cut short would join the first line of the next start. Raises OSError."""
    end, done = file.tell(), 0
    try:
        while done < len(line):
            done += file.write(line[done:])
    except OSError:
        file.truncate(end)
        raise
