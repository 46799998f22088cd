"""Findings in; one open alert per (kind, subject), FIRING once and RESOLVED once under the same `alert_id`, out."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mendstream.agents.monitoring.view import Finding
from mendstream.contracts.agent import Outputs
from mendstream.contracts.records import Alert, AlertKind, AlertState

EXPIRE_US = 10_000_000
"""An alert about older data than this comes too late to be raised."""
ECHO_US = 2_000_000
"""So long after a process is back, what waited for it is late: its symptom, not a cause of its own."""


class OpenAlert(msgspec.Struct):
    alert_id: str
    kind: AlertKind
    detector: str
    since_us: int
    generation: int
    """Of the process that it is about; 0: it is about no process."""


class Book(msgspec.Struct):
    """The open alerts, by `kind|subject`."""

    open: dict[str, OpenAlert] = {}
    down_until_us: int = 0
    """When the last AGENT_DOWN was resolved."""

    def take(self, detector: str, findings: Iterable[Finding], outputs: Outputs, now: int) -> None:
        """Publish what changed: repeats are merged, old data expire, and symptoms of a dead process raise nothing.

        The death of a later generation is no repeat: the alert about the earlier one is over, and another one begins.
        """
        for finding in findings:
            key = f"{finding.kind}|{finding.subject}"
            held = self.open.get(key)
            begins = finding.firing and (held is None or _died_again(finding, held)) and not self._moot(finding, now)
            if held is not None and (begins or not finding.firing):
                del self.open[key]
                if finding.kind is AlertKind.AGENT_DOWN:
                    self.down_until_us = now
                alert = _alert(outputs.id(), held.alert_id, AlertState.RESOLVED, detector, finding, now)
                outputs.records.append(alert)
            if begins:
                id_ = outputs.id()
                self.open[key] = OpenAlert(id_, finding.kind, detector, now, _generation(finding))
                outputs.records.append(_alert(id_, id_, AlertState.FIRING, detector, finding, now))

    def _moot(self, finding: Finding, now: int) -> bool:
        if finding.window_us[1] < now - EXPIRE_US:
            return True
        if finding.kind is not AlertKind.LATENCY_SLO_BREACH:
            return False
        down = any(alert.kind is AlertKind.AGENT_DOWN for alert in self.open.values())
        return down or now < self.down_until_us + ECHO_US


def _died_again(finding: Finding, held: OpenAlert) -> bool:
    """Whether it tells of the end of a process that began after `held`; its silence alone may be that of a beginner."""
    return finding.evidence.get("reason") == "exit" and _generation(finding) > held.generation


def _generation(finding: Finding) -> int:
    generation = finding.evidence.get("generation")
    return generation if isinstance(generation, int) else 0


def _alert(id_: str, alert_id: str, state: AlertState, detector: str, finding: Finding, now: int) -> Alert:
    return Alert(
        id=id_, alert_id=alert_id, kind=finding.kind, subject=finding.subject, state=state, detector=detector,
        statistic=finding.statistic, value=finding.value, limit=finding.limit, n=finding.n,
        window_us=finding.window_us, at_us=now, evidence=finding.evidence,
    )  # fmt: skip
