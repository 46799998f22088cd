"""The steps of incidents come in; what is open, what waits for a person and what has ended is shown."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from mendstream.adapters.metrics.table import KNOWN, Collectors
from mendstream.contracts.incident import Phase
from mendstream.contracts.records import IncidentHead, IncidentStep, MemoryRow, Status

_ACTIONS_MAX = 1000
"""Newest actions among which a row that is written again is known."""
_ENDS_MAX = 1000
"""Newest ends (type and subject) among which an incident's like is known."""
_AGAIN_US = 3_600_000_000
"""An incident whose like ended less long ago is a repeated one."""


class IncidentWatcher:
    def __init__(self, collectors: Collectors) -> None:
        self._opened = collectors.get("mendstream_incidents_total", Counter)
        self._repeated = collectors.get("mendstream_incidents_repeated_total", Counter)
        self._ended = collectors.get("mendstream_incidents_ended_total", Counter)
        self._resolution = collectors.get("mendstream_incident_resolution_seconds", Histogram)
        self._actions = collectors.get("mendstream_actions_total", Counter)
        self._undos = collectors.get("mendstream_undos_total", Counter)
        self._wait = collectors.get("mendstream_approval_wait_seconds", Histogram)
        self._gauges = _Gauges(collectors)
        self._open: dict[str, IncidentStep] = {}
        """The newest step of each."""
        self._asked: dict[str, int] = {}
        """Incident -> since when a person is asked."""
        self._ends: dict[tuple[str, str], int] = {}
        self._counted: deque[str] = deque(maxlen=_ACTIONS_MAX)
        self._show()

    def __call__(self, step: IncidentStep) -> None:
        head = step.incident
        if step.step == "detection":
            self._count_opening(head)
        if step.memory is not None:
            self._count_end(head.type, step.memory)
        self._count_action(step)
        waited_us = self._follow(step)
        if waited_us is not None:
            self._wait.observe(waited_us / 1e6)
        self._show()

    def recall(self, steps: Iterable[IncidentStep]) -> None:
        """Steps that an earlier process put out: what it left open is open still."""
        for step in steps:
            self._follow(step)
            if step.action is not None and step.action.result is not None:
                self._counted.append(step.action.action_id)
        self._show()

    # --- counts ------------------------------------------------------------------------------------------------------

    def _count_opening(self, head: IncidentHead) -> None:
        self._opened.labels(head.type).inc()
        ended_us = self._ends.get((head.type, head.subject))
        if ended_us is not None and head.detected_at_us - ended_us < _AGAIN_US:
            self._repeated.labels(head.type).inc()

    def _count_end(self, kind: str, memory: MemoryRow) -> None:
        # The memory is written once, when the incident has ended; a way back from SAFE_MODE repeats RESOLVED after it.
        self._ended.labels(kind, memory.outcome).inc()
        if memory.mttr_seconds is not None:
            self._resolution.labels(kind).observe(memory.mttr_seconds)

    def _count_action(self, step: IncidentStep) -> None:
        row = step.action
        if row is None or row.result is None or row.action_id in self._counted:
            return
        self._counted.append(row.action_id)
        labels = (row.approved_action or row.proposed_action).kind, row.result
        self._actions.labels(*labels).inc()
        if row.is_undo:
            self._undos.labels(*labels).inc()

    # --- what is open ------------------------------------------------------------------------------------------------

    def _follow(self, step: IncidentStep) -> int | None:
        """Fold one step; how long a person had been asked, if that ends with it."""
        head = step.incident
        if head.status in (Status.RESOLVED, Status.FAILED):
            if self._open.pop(head.incident_id, None) is not None:
                self._remember_end(head, step.at_us)
        else:
            self._open[head.incident_id] = step
        # By the phase, whatever the status: a person may be asked for a way back, long after the incident has ended.
        if step.phase == Phase.ASKED:
            self._asked.setdefault(head.incident_id, step.at_us)
            return None
        since_us = self._asked.pop(head.incident_id, None)
        return None if since_us is None else step.at_us - since_us

    def _remember_end(self, head: IncidentHead, at_us: int) -> None:
        key = head.type, head.subject
        self._ends.pop(key, None)
        self._ends[key] = at_us
        if len(self._ends) > _ENDS_MAX:
            del self._ends[next(iter(self._ends))]

    def _show(self) -> None:
        self._gauges.show(self._open.values(), self._asked.values())


class _Gauges:
    def __init__(self, collectors: Collectors) -> None:
        open_now = collectors.get("mendstream_incidents_open", Gauge)
        self._open = {status: open_now.labels(status) for status in KNOWN["status"]}
        self._escalated = collectors.get("mendstream_incidents_escalated", Gauge)
        self._oldest = collectors.get("mendstream_incident_oldest_timestamp_seconds", Gauge)
        self._waiting = collectors.get("mendstream_approvals_waiting", Gauge)
        self._longest = collectors.get("mendstream_approval_oldest_timestamp_seconds", Gauge)

    def show(self, steps: Iterable[IncidentStep], asked_us: Iterable[int]) -> None:
        steps, asked_us = list(steps), list(asked_us)
        for status, gauge in self._open.items():
            gauge.set(sum(step.incident.status == status for step in steps))
        self._escalated.set(sum(step.phase == Phase.ESCALATED for step in steps))
        self._oldest.set(_earliest_s(step.incident.detected_at_us for step in steps))
        self._waiting.set(len(asked_us))
        self._longest.set(_earliest_s(asked_us))


def _earliest_s(times_us: Iterable[int]) -> float:
    return min(times_us, default=math.nan) / 1e6
