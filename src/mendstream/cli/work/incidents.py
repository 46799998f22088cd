"""Incidents from the store, their steps from incident-log; a person's closing goes to policy-decisions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from mendstream.adapters.store import queries
from mendstream.cli.show import document, note, pairs, table, when
from mendstream.cli.work.bus import live_config, opened, person, person_id, publish, records, turn_knobs
from mendstream.cli.work.incident_log import is_open, standings
from mendstream.contracts.errors import UsageError
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import Closing, IncidentStep, encode
from mendstream.contracts.topics import Stream, Topic
from mendstream.settings import Settings, store_url


def list_incidents(settings: Settings, *, open_only: bool, count: int, as_json: bool) -> int:
    found = queries.incidents(store_url(settings), count, open_only)
    if as_json:
        document([queries.plain(row) for row in found])
        return 0
    table(
        ("incident", "type", "subject", "status", "cause", "detected", "mttr s", "newest step"),
        (
            (row.incident_id, row.type, row.subject, row.status, row.cause,
             row.detected_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"), row.mttr_seconds, row.text)
            for row in found
        ),
        empty="no open incidents" if open_only else "no incidents",
    )  # fmt: skip
    return 0


def show_incident(settings: Settings, name: str, *, as_json: bool) -> int:
    url = store_url(settings)
    found = queries.incident(url, name)
    if found is None:
        raise UsageError(f"no incident {name}", hint="`mendstream incidents` lists them")
    steps = _steps(settings, name)
    similar = []
    if found.memory is not None:
        near = queries.similar_memories(url, found.incident.type, found.memory.features, k=4)
        similar = [one for one in near if one.memory.incident_id != name][:3]
    if as_json:
        document(
            {
                "incident": queries.plain(found.incident),
                "actions": [queries.plain(row) for row in found.actions],
                "config_changes": [queries.plain(row) for row in found.changes],
                "memory": queries.plain(found.memory) if found.memory else None,
                "similar": [queries.plain(one.memory) | {"distance": one.distance} for one in similar],
                "steps": steps,
            }
        )
        return 0
    _print(found, steps, similar)
    return 0


def _print(found: queries.IncidentFile, steps: Sequence[IncidentStep], similar: Sequence[queries.Similar]) -> None:
    facts = queries.plain(found.incident)
    pairs({name: facts[name] for name in ("incident_id", "type", "subject", "status", "cause", "outcome", "detected_at",
                                          "resolved_at", "mttr_seconds")})  # fmt: skip
    click.echo()
    table(
        ("when", "step", "actor", "what"),
        ((when(step.at_us), step.step, step.actor, step.text) for step in steps),
        empty="its steps are not in this data directory",
    )
    click.echo()
    table(
        ("action", "target", "rung", "decision", "by", "policies", "result"),
        (
            (row.kind + (" (undo)" if row.is_undo else ""), row.target, row.rung, row.agl_decision, row.decided_by,
             row.policies, row.result)
            for row in found.actions
        ),
        empty="no action was proposed",
    )  # fmt: skip
    for one in similar:
        memory = one.memory
        click.echo(f"similar: {memory.incident_id} ({memory.cause or 'cause unknown'}): {memory.action_taken}, "
                   f"{memory.outcome}, distance {one.distance:.2f}")  # fmt: skip


def _steps(settings: Settings, name: str) -> list[IncidentStep]:
    """From the log; none where only the database is at hand."""
    if not (Path(settings.run.data_dir) / "control").exists():
        return []
    with opened(settings) as bus:
        found = records(bus, Stream(Topic.INCIDENT_LOG, 0))
        return [step for step in found if isinstance(step, IncidentStep) and step.incident.incident_id == name]


def close_incident(settings: Settings, name: str, reason: str, *, as_json: bool) -> int:
    """Exit code 1 if it has ended already."""
    with opened(settings, readonly=False) as bus:
        held = standings(bus).get(name)
        if held is None:
            raise UsageError(f"no incident {name}", hint="`mendstream incidents` lists them")
        if not is_open(held.head):
            return _ended(name, held.head.status.value, as_json=as_json)
        closing = Closing(id=person_id(bus), incident_id=name, actor=person(), reason=reason, at_us=bus.now_us())
        publish(bus, Stream(Topic.POLICY_DECISIONS, 0), [closing])
    click.echo(encode(closing) if as_json else f"{name} is closed: {reason}")
    return 0


def release_hold(settings: Settings, name: str, reason: str, *, as_json: bool) -> int:
    """Exit code 1 if it holds nothing."""
    with opened(settings, readonly=False) as bus:
        if name not in standings(bus):
            raise UsageError(f"no incident {name}", hint="`mendstream incidents` lists them")

        def without(config: LiveConfig) -> dict[str, Any]:
            return {"safe_mode": [one for one in config.safe_mode if one != name]} if name in config.safe_mode else {}

        made = turn_knobs(bus, without, reason)
        config = made or live_config(bus)
    if as_json:
        document({"incident_id": name, "released": made is not None, "config": config.version, "mode": config.mode})
    elif made is None:
        note(f"{name} holds no SAFE_MODE")
    else:
        click.echo(f"{name} has let go of SAFE_MODE, mode {config.mode}, config {config.version}")
    return 0 if made is not None else 1


def _ended(name: str, status: str, *, as_json: bool) -> int:
    facts: dict[str, Any] = {"incident_id": name, "closed": False, "status": status}
    if as_json:
        click.echo(msgspec.json.encode(facts))
    else:
        note(f"{name} has ended already: {status}")
    return 1
