"""Names of traces and spans: W3C trace headers, the trace of an incident by its id alone, and both in log lines."""

from __future__ import annotations

import hashlib
import re
from collections.abc import MutableMapping
from typing import Any, NamedTuple

_HEADER = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_INCIDENT = re.compile(r"inc-[0-9a-f]+")
_LOG_KEYS = ("incident", "action")
"""Keys of a log line that name an incident; the id of an action begins with the id of its incident."""


class Name(NamedTuple):
    """A span's own name, within the whole world."""

    trace: int
    span: int

    @property
    def header(self) -> str:
        """As a W3C traceparent of a sampled trace."""
        return f"00-{self.trace:032x}-{self.span:016x}-01"


def parse(header: str) -> Name | None:
    """The span that a traceparent names; None if it is none, which harms nobody."""
    match = _HEADER.fullmatch(header)
    if match is None:
        return None
    found = Name(int(match[1], 16), int(match[2], 16))
    return found if found.trace and found.span else None


def of_incident(incident: str) -> Name:
    """The span of the whole incident: the same in every process, and after every restart."""
    digest = hashlib.sha256(f"mendstream incident {incident}".encode()).digest()
    return Name(int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big"))


def of_record(incident: str, record: str) -> Name:
    """The span of one record of an incident: a repeat of the record is the same span again."""
    digest = hashlib.sha256(f"mendstream record {record}".encode()).digest()
    return Name(of_incident(incident).trace, int.from_bytes(digest[:8], "big"))


def add_trace(logger: Any, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor for structlog: a line that names an incident bears its trace, unless a span is current."""
    if "trace_id" not in line:
        for key in _LOG_KEYS:
            match = _INCIDENT.match(value) if isinstance(value := line.get(key), str) else None
            if match is not None:
                line["trace_id"] = f"{of_incident(match[0]).trace:032x}"
                break
    return line
