"""Which ends of processes healing has answered: folded from incident-log and config-updates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mendstream.contracts import knobs
from mendstream.contracts.incident import Phase
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import AlertKind, ConfigChange, IncidentStep, Record, Status, decode_each
from mendstream.contracts.topics import CONFIG, Stream, Topic

UNANSWERED_US = 20_000_000
"""Longer than healing goes without a step of an incident that it works on: 15 s for a verdict, 15 s for a proof."""
_INCIDENTS = Stream(Topic.INCIDENT_LOG, 0)
_ROWS = 500
"""So much of each stream is read at a time: a long history must not keep the supervisor from its work."""


@dataclass(slots=True)
class _Case:
    """The newest AGENT_DOWN incident of one process."""

    incident_id: str
    open: bool
    asks: bool
    denied: bool


class Answers:
    """An end is unanswered when healing has had UNANSWERED_US for it, and nobody is on it.

    While its incident moves on, healing is on it. While a person is asked, or after the restart was denied, the answer
    is that nobody starts the process, until the incident ends; a pause says so of all. Anything else lets it be
    started: healing, judge or policy may be dead or stuck, or out of rungs without anybody having said no, and a
    pipeline must not stay dead because of that.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._positions = {stream: bus.bounds(stream)[0] for stream in (_INCIDENTS, CONFIG)}
        self._cases: dict[str, _Case] = {}
        self._config = LiveConfig()
        self._news_us: dict[str, int] = {}
        """Process -> when it ended, or its incident moved on."""
        self._resumed_us = 0
        self._behind = False
        """There may be more in the log than was read."""

    def read(self, now: int) -> None:
        """Fold what is new. `now` is any clock that only goes on; all times here are of it."""
        self._behind = False
        for stream in self._positions:
            for record in self._new(stream):
                match record:
                    case IncidentStep() if record.incident.type == AlertKind.AGENT_DOWN:
                        self._step(record, now)
                    case ConfigChange():
                        self._change(record, now)

    def ended(self, process: str, now: int) -> None:
        """An end that has to be answered."""
        self._news_us[process] = now

    def missing(self, process: str, now: int) -> bool:
        """Whether the end of `process` is unanswered."""
        case = self._cases.get(process)
        if self._behind or self._config.healing_paused:
            return False
        if case is not None and case.open and (case.asks or case.denied):
            return False
        return now - max(self._news_us.get(process, 0), self._resumed_us) > UNANSWERED_US

    def incident(self, process: str) -> str:
        """The id of its open incident, or an empty string."""
        case = self._cases.get(process)
        return case.incident_id if case is not None and case.open else ""

    def _new(self, stream: Stream) -> Iterator[Record | None]:
        for block in self._bus.read(stream, self._positions[stream], max_rows=_ROWS, max_bytes=1 << 20):
            self._behind = True
            yield from decode_each(stream.topic, bytes(block.value))
            self._positions[stream] = block.next

    def _step(self, step: IncidentStep, now: int) -> None:
        head, row = step.incident, step.action
        case = self._cases.get(head.subject)
        if case is None or case.incident_id != head.incident_id:
            case = self._cases[head.subject] = _Case(head.incident_id, True, False, False)
        case.open = head.status in (Status.OPEN, Status.MITIGATING)
        case.asks = step.phase == Phase.ASKED
        if row is not None:
            case.denied = row.agl_decision == "DENIED"
        self._news_us[head.subject] = now

    def _change(self, change: ConfigChange, now: int) -> None:
        paused = self._config.healing_paused
        self._config, _ = knobs.fold(self._config, change)
        if paused and not self._config.healing_paused:
            self._resumed_us = now
