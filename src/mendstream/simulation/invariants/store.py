"""SQL says what the log says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from mendstream.contracts.knobs import Fold, LiveConfig, fold
from mendstream.contracts.records import ConfigChange, IncidentStep
from mendstream.contracts.topics import CONFIG, Stream, Topic
from mendstream.simulation.invariants.base import Invariant
from mendstream.simulation.log import SimLog
from mendstream.simulation.trail import records_of

Tables = dict[str, dict[str, dict[str, Any]]]
"""table -> primary key -> column -> value"""
_KEYS = {"incidents": "incident_id", "healing_actions": "action_id", "config_history": "config_id",
         "memory_chunks": "memory_id"}  # fmt: skip
_JSON = {"metrics_snapshot", "proposed_action", "approved_action", "policies", "plan", "verdict", "proof", "changes",
         "metrics_before", "metrics_after", "features"}  # fmt: skip
STEP_US = 20_000
PATIENCE_US = 10_000_000
"""How long the recorder may take to apply what is in the log, in a house that is well."""


class SqlIsTheLog(Invariant):
    """The four tables hold what the log says: else the history that people and auditors look at is another one."""

    name = "sql equals the log"

    def end(self) -> None:
        kernel, until = self.machine.kernel, self.machine.kernel.now_us + PATIENCE_US
        while not (self.machine.store.quiet and self._applied()):
            if kernel.now_us >= until:
                self.broken(f"the recorder is behind for {PATIENCE_US // 1_000_000} s")
                return
            kernel.run(kernel.now_us + STEP_US)
        self._compare(_projection(self.machine.log), self._tables())

    def _applied(self) -> bool:
        rows = self.machine.store.connection.execute("SELECT stream, position FROM recorder_positions").fetchall()
        held = dict(rows)
        return all(
            held.get(str(stream), 0) == self.machine.log.bounds(stream)[1]
            for stream in (CONFIG, Stream(Topic.INCIDENT_LOG, 0))
        )  # fmt: skip

    def _tables(self) -> Tables:
        found: Tables = {}
        for table, key in _KEYS.items():
            cursor = self.machine.store.connection.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            found[table] = {row[key]: {name: _read(name, value) for name, value in row.items()} for row in rows}
        return found

    def _compare(self, wanted: Tables, found: Tables) -> None:
        for table in _KEYS:
            if wanted[table].keys() != found[table].keys():
                odd = sorted(wanted[table].keys() ^ found[table].keys())
                self.broken(f"{table}: {odd[0]} is in one of SQL and log only")
                return
            for key, row in wanted[table].items():
                for name, value in row.items():
                    if found[table][key][name] != value:
                        self.broken(f"{table} {key}: {name} is {found[table][key][name]!r}, the log says {value!r}")


def _read(name: str, value: Any) -> Any:
    return json.loads(value) if name in _JSON and value is not None else value


def _projection(log: SimLog) -> Tables:
    """What the tables should be, column by column as the documentation of SQL has them."""
    tables: Tables = {table: {} for table in _KEYS}
    for record in records_of(log, Stream(Topic.INCIDENT_LOG, 0)):
        if isinstance(record, IncidentStep):
            _step(tables, record)
    config = LiveConfig()
    for record in records_of(log, CONFIG):
        if isinstance(record, ConfigChange):
            config, became = fold(config, record)
            if became is Fold.APPLIED:
                tables["config_history"][record.id] = {
                    "changed_by": record.actor, "changes": record.changes, "reason": record.reason,
                    "incident_id": record.incident_id, "created_at": _at(record.at_us),
                    "base_version": config.version - 1, "version": config.version, "action_id": record.action_id,
                    "approval": record.approval, "forced": int(record.forced),
                }  # fmt: skip
    return tables


def _step(tables: Tables, step: IncidentStep) -> None:
    head = step.incident
    incident = tables["incidents"].setdefault(head.incident_id, {"created_at": _at(step.at_us)})
    resolved = head.resolved_at_us
    incident |= {
        "type": head.type, "subject": head.subject, "status": head.status.value, "cause": head.cause,
        "outcome": head.outcome, "detected_at": _at(head.detected_at_us), "updated_at": _at(step.at_us),
        "resolved_at": None if resolved is None else _at(resolved),
        "mttr_seconds": None if resolved is None else (resolved - head.detected_at_us) / 1e6,
        "metrics_snapshot": _plain(head.metrics_snapshot), "phase": step.phase, "step": step.step, "text": step.text,
        "seq": step.seq,
    }  # fmt: skip
    if step.action is not None:
        _action(tables["healing_actions"], step)
    if step.memory is not None:
        memory = tables["memory_chunks"].setdefault(step.memory.memory_id, {"created_at": _at(step.at_us)})
        memory |= _plain(step.memory)


def _action(table: dict[str, dict[str, Any]], step: IncidentStep) -> None:
    action = step.action
    assert action is not None
    row = table.setdefault(
        action.action_id, {"created_at": _at(step.at_us), "plan": None, "verdict": None, "proof": None}
    )
    verdict = {"ESCALATED": None, "EXPIRED": "DENIED"}.get(action.agl_decision or "", action.agl_decision)
    row |= {
        "incident_id": step.incident.incident_id, "proposed_action": _plain(action.proposed_action),
        "approved_action": _plain(action.approved_action), "agl_decision": verdict, "result": action.result,
        "executed_at": None if action.executed_at_us is None else _at(action.executed_at_us),
        "updated_at": _at(step.at_us), "kind": action.proposed_action.kind.value,
        "target": action.proposed_action.target, "rung": action.rung, "is_undo": int(action.is_undo),
        "decided_by": action.decided_by, "policies": list(action.policies), "policy_reason": action.policy_reason,
    }  # fmt: skip
    column = {"planning": "plan", "approval": "verdict", "verification": "proof"}.get(step.step)
    if column is not None:
        row[column] = _plain(step.data)


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


def _at(us: int) -> str:
    """As SQLite keeps a time."""
    seconds, micros = divmod(us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") + f".{micros:06d}"
