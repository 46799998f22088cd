"""Structured logs: JSON lines, one file a process, and the two files of the brief under the data directory."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import structlog

from mendstream.contracts.records import Alert, AlertState, IncidentStep, Record

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def setup(folder: Path, process: str, level: str) -> None:
    """Send structlog's lines to `logs/PROCESS.log`; a second process of that name appends."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / f"{process}.log").open("a", buffering=1)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,  # without local variables: they may hold secrets
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=file),
        cache_logger_on_first_use=False,
    )


class Journal:
    """`monitoring.log` with a line per alert, `healing.log` with a line per incident step."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[str, IO[str]] = {}

    def write(self, records: list[Record]) -> None:
        for record in records:
            if isinstance(record, Alert):
                word = "ALERT" if record.state is AlertState.FIRING else "alert over:"
                self._line(
                    "monitoring.log", record.at_us, f"{word} {record.kind} {record.subject} {_statistic(record)}"
                )
            elif isinstance(record, IncidentStep):
                head = record.incident
                self._line(
                    "healing.log",
                    record.at_us,
                    f"{head.incident_id} {head.type} {head.subject} {record.step} {record.phase}: {record.text}",
                )

    def _line(self, name: str, at_us: int, text: str) -> None:
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = (self._folder / name).open("a", buffering=1)
        stamp = datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="milliseconds")
        file.write(f"{stamp} {text}\n")

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _statistic(alert: Alert) -> str:
    return f"{alert.statistic} = {alert.value:.4g} (limit {alert.limit:.4g}, n = {alert.n}, by {alert.detector})"
