"""A bus comes in; the newest steps of incidents come out, for who has to know what an earlier process left open."""

from __future__ import annotations

from mendstream.contracts.ports import Bus
from mendstream.contracts.records import Record, decode_each
from mendstream.contracts.topics import Stream, Topic

_ROWS = 2000
"""Some 200 incidents: one that has stood still while so many others passed is not seen until its next step."""
_INCIDENTS = Stream(Topic.INCIDENT_LOG, 0)


def newest_steps(bus: Bus, rows: int = _ROWS) -> list[Record]:
    """Oldest first."""
    first, end = bus.bounds(_INCIDENTS)
    position = max(first, end - rows)
    found: list[Record] = []
    while blocks := bus.read(_INCIDENTS, position, max_rows=rows, max_bytes=8 << 20):
        position = blocks[-1].next
        for block in blocks:
            found += [record for record in decode_each(_INCIDENTS.topic, bytes(block.value)) if record is not None]
    return found
