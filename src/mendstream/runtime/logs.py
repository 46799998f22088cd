"""Structured logs: JSON lines, one file a process, and the two files of the brief under the data directory."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO, cast

import structlog

from mendstream.contracts.records import Alert, AlertState, IncidentStep, Record

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_LOST_JSON = '{"event": "lines before this one could not be written", "lines": %d, "level": "warning"}\n'
_LOST_TEXT = "(%d lines before this one could not be written)\n"


def setup(folder: Path, process: str, level: str, *, traced: bool = False) -> LineFile:
    """Send structlog's lines to `logs/PROCESS.log`; a second process of that name appends. Close it at the end.

    `traced`: a line that names an incident bears the id of its trace.
    """
    file = LineFile(folder / f"{process}.log", _LOST_JSON)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_naming(traced),
            structlog.processors.format_exc_info,  # without local variables: they may hold secrets
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, file)),  # it only writes and flushes
        cache_logger_on_first_use=False,
    )
    return file


def _naming(traced: bool) -> tuple[structlog.types.Processor, ...]:
    if not traced:
        return ()
    from mendstream.adapters.tracing.names import add_trace

    return (add_trace,)


class LineFile:
    """Lines at the end of a file. One that cannot be written ends nobody: it is counted, and the first one is told on
    stderr; the count stands before the next line that there is room for.
    """

    def __init__(self, path: Path, lost_line: str) -> None:
        """`lost_line`: what to write of lost ones, with %d for how many."""
        self._path = path
        self._lost_line = lost_line
        self._fd: int | None = None
        self._torn = False
        self._told = False
        self.lost = 0
        """Lines that nothing tells of yet."""

    def write(self, line: str) -> None:
        try:
            self._append(line.encode())
        except OSError as error:
            self.lost += 1
            self._tell(error)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """A line after that, of a thread that is late, opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _append(self, line: bytes) -> None:
        if self._fd is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        before = (self._lost_line % self.lost).encode() if self.lost else b""
        rest = (b"\n" if self._torn else b"") + before + line
        while rest:
            rest = rest[os.write(self._fd, rest) :]
            self._torn = bool(rest)
        self.lost = 0

    def _tell(self, error: OSError) -> None:
        if self._told:
            return
        self._told = True
        with contextlib.suppress(OSError):  # stderr may be a file on the same disk
            os.write(2, f"cannot write to {self._path}: {error.strerror}; lines are lost until it can\n".encode())


class Journal:
    """`monitoring.log` with a line per alert, `healing.log` with a line per incident step."""

    def __init__(self, folder: Path) -> None:
        self._monitoring = LineFile(folder / "monitoring.log", _LOST_TEXT)
        self._healing = LineFile(folder / "healing.log", _LOST_TEXT)

    def write(self, records: list[Record]) -> None:
        for record in records:
            if isinstance(record, Alert):
                word = "ALERT" if record.state is AlertState.FIRING else "alert over:"
                text = f"{word} {record.kind} {record.subject} {_statistic(record)}"
                self._monitoring.write(f"{_stamp(record.at_us)} {text}\n")
            elif isinstance(record, IncidentStep):
                head = record.incident
                text = f"{head.incident_id} {head.type} {head.subject} {record.step} {record.phase}: {record.text}"
                self._healing.write(f"{_stamp(record.at_us)} {text}\n")

    def close(self) -> None:
        self._monitoring.close()
        self._healing.close()


def _stamp(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds")


def _statistic(alert: Alert) -> str:
    return f"{alert.statistic} = {alert.value:.4g} (limit {alert.limit:.4g}, n = {alert.n}, by {alert.detector})"
