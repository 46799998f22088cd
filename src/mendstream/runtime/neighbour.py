"""One house a namespace: whether another one, on whatever machine, gives signs of life in the log.

Two supervisors would take the commands from each other, and each would start what the other has. Their one process that
no replica stands in for is the recorder, so its pulse is the sign.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mendstream.contracts.errors import CouldNot
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import Exit, Pulse, decode_each
from mendstream.contracts.topics import Stream, Topic

PULSES = Stream(Topic.AGENT_METRICS, 1)
WITNESS = "recorder-0"
PATIENCE_S = 3.0
"""Within so long a house that lives gives another sign; four a second is the usual."""
_RECENT_US = 10_000_000
_LOOK_S = 0.1
_MOST_ROWS = 5_000


def refuse_second(bus: Bus, root: Path, namespace: str, *, patience_s: float = PATIENCE_S) -> None:
    """Raises CouldNot if another house lives. Takes time only where one was alive a moment ago.

    `root`: of this house, whose own last life is no other's.
    """
    since = bus.since(PULSES, bus.now_us() - _RECENT_US)
    seen, position = _newest(bus, since)
    if seen is None or seen == _own(root):
        return
    limit = time.monotonic() + patience_s
    while time.monotonic() < limit:
        again, position = _newest(bus, position)
        if again is not None:
            raise CouldNot(
                f"a house runs on {f'namespace {namespace}' if namespace else 'these brokers'} already: its {WITNESS} "
                f"(pid {again[1]} on its machine) gives signs of life",
                hint="work is shared with it by `mendstream agent NAME --replica N` and run.assignment = group; "
                "another pipeline needs a run.namespace of its own",
            )
        time.sleep(_LOOK_S)  # for the next sign of life: nothing can be done before


_Life = tuple[int, int]
"""Generation and pid of a process."""


def _newest(bus: Bus, position: int) -> tuple[_Life | None, int]:
    """The newest life of the witness that has not been ended by its house, and where the pulses end."""
    life: _Life | None = None
    while blocks := bus.read(PULSES, position, max_rows=_MOST_ROWS, max_bytes=4 << 20):
        for block in blocks:
            position = block.next
            for record in _of_witness(bytes(block.value)):
                if isinstance(record, Pulse):
                    life = record.generation, record.pid
                elif record.expected:
                    life = None
    return life, position


def _of_witness(value: bytes) -> Iterator[Pulse | Exit]:
    for record in decode_each(PULSES.topic, value):
        if isinstance(record, Pulse | Exit) and record.process == WITNESS:
            yield record


class _Child(msgspec.Struct):
    generation: int
    pid: int


class _Told(msgspec.Struct):
    children: dict[str, _Child] = {}


def _own(root: Path) -> _Life | None:
    """The witness's last life in this very house."""
    try:
        told = msgspec.json.decode((root / "run" / "processes.json").read_bytes(), type=_Told)
    except (FileNotFoundError, msgspec.DecodeError):  # a first start, or a full disk has cut it
        return None
    child = told.children.get(WITNESS)
    return None if child is None else (child.generation, child.pid)
