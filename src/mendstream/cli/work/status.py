"""The newest pulses, exits, vitals and incidents on the bus in, one page about the house out."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from mendstream.cli.show import ago, document, pairs, table
from mendstream.cli.work.bus import live_config, opened, records, topic_records
from mendstream.cli.work.incident_log import asks, is_open, standings
from mendstream.contracts.ports import Bus
from mendstream.contracts.records import Exit, Pulse, Vitals
from mendstream.contracts.topics import Stream, Topic
from mendstream.settings import Settings

SILENT_S = 3.0
"""Pulses come four a second; without one for so long, a process is silent."""
NEWEST_ROWS = 5_000
"""Of agent-metrics: a few minutes of pulses, among counts."""


def report(settings: Settings, *, as_json: bool) -> bool:
    """Print the page; True if the house runs, nobody is down and no incident is open."""
    with opened(settings) as bus:
        facts = gather(bus, settings, bus.now_us())
    if as_json:
        document(facts)
    else:
        _print(facts)
    return bool(facts["running"] and not facts["incidents"] and all(p["state"] == "OK" for p in facts["processes"]))


def gather(bus: Bus, settings: Settings, now: int) -> dict[str, Any]:
    processes = _processes(bus, now)
    vitals = [record for record in records(bus, Stream(Topic.VITALS, 0), newest=1) if isinstance(record, Vitals)]
    config = live_config(bus)
    return {
        "at_us": now,
        "data_dir": settings.run.data_dir,
        "incarnation": bus.incarnation,
        "running": any(process["state"] in ("OK", "WAITING") for process in processes),
        "healing_paused": config.healing_paused,
        "mode": config.mode,
        "config": config,
        "processes": processes,
        "vitals": _vitals(vitals[-1]) | {"age_s": (now - vitals[-1].at_us) / 1e6} if vitals else None,
        "incidents": [
            {**msgspec.to_builtins(held.head), "phase": held.phase, "text": held.text}
            for held in standings(bus).values()
            if is_open(held.head)
        ],
        "waiting": [
            {"request": ask.proposal.id, "incident_id": ask.proposal.incident_id, "action": ask.proposal.action,
             "expires_at_us": ask.expires_at_us}
            for ask in asks(bus, settings.healing.person_timeout_s, now)
        ],
    }  # fmt: skip


def _processes(bus: Bus, now: int) -> list[dict[str, Any]]:
    pulses: dict[str, Pulse] = {}
    exits: dict[str, Exit] = {}
    for record in topic_records(bus, Topic.AGENT_METRICS, newest=NEWEST_ROWS):
        match record:
            case Pulse():
                held = pulses.get(record.process)
                if held is None or record.at_us >= held.at_us:
                    pulses[record.process] = record
            case Exit():
                exits[record.process] = record
    return [_process(pulses[name], exits.get(name), now) for name in sorted(pulses)]


def _process(pulse: Pulse, ended: Exit | None, now: int) -> dict[str, Any]:
    age = (now - pulse.at_us) / 1e6
    gone = ended is not None and ended.generation >= pulse.generation
    state = "SILENT" if age >= SILENT_S else "WAITING" if pulse.waits_for else "OK"
    if gone and ended is not None:
        state = "STOPPED" if ended.expected else "DOWN"
    return {
        "process": pulse.process,
        "agent": pulse.agent,
        "state": state,
        "generation": pulse.generation,
        "pid": pulse.pid,
        "pulse_age_s": round(age, 3),
        "rss_mb": pulse.rss_mb,
        "backlog": sum(task.backlog for task in pulse.tasks),
        "turns": sum(task.turns for task in pulse.tasks),
        "waits_for": pulse.waits_for if state == "WAITING" else "",
        "exit_code": ended.code if gone and ended is not None else None,
    }


def _vitals(vitals: Vitals) -> dict[str, Any]:
    names = (
        "pane",
        "at_us",
        "n",
        "rate",
        "p50_ms",
        "p95_ms",
        "mode",
        "model",
        "config",
        "accuracy",
        "labels",
        "backlog",
    )
    worst = max(vitals.drift, key=lambda drift: drift.psi / (drift.limit or 1), default=None)
    return {name: getattr(vitals, name) for name in names} | {"worst_drift": worst}


def _print(facts: dict[str, Any]) -> None:
    config, vitals = facts["config"], facts["vitals"]
    head = {
        "house": f"{'running' if facts['running'] else 'not running'} in {facts['data_dir']}",
        "healing": "paused" if facts["healing_paused"] else "on",
        "mode": str(facts["mode"]),
        "model": config.model_version or "none: the fallback serves",
        "config": config.version,
    }
    if vitals is not None:
        drift = vitals["worst_drift"]
        head |= {
            "decisions": f"{vitals['rate']:.0f} a second, p95 {vitals['p95_ms']:.1f} ms, {vitals['backlog']} waiting",
            "accuracy": "no labels yet" if vitals["accuracy"] is None
            else f"{vitals['accuracy']:.3f} over {vitals['labels']} labels",
            "drift": f"{drift.feature} PSI {drift.psi:.3f} (limit {drift.limit:.3f})" if drift else "not measured",
            "as of": f"{ago(vitals['age_s'])} ago",
        }  # fmt: skip
    pairs(head)
    click.echo()
    table(
        ("process", "state", "generation", "pid", "pulse", "MB", "waiting"),
        (
            (p["process"], p["state"], p["generation"], p["pid"], f"{ago(p['pulse_age_s'])} ago", f"{p['rss_mb']:.0f}",
             p["backlog"])
            for p in facts["processes"]
        ),
        empty="no process has given a sign of life lately",
    )  # fmt: skip
    for process in facts["processes"]:
        if process["waits_for"]:
            click.echo(f"{process['process']} waits: {process['waits_for']}")
    click.echo()
    table(
        ("incident", "type", "status", "phase", "since", "newest step"),
        (
            (i["incident_id"], i["type"], i["status"], i["phase"],
             f"{ago((facts['at_us'] - i['detected_at_us']) / 1e6)} ago", i["text"])
            for i in facts["incidents"]
        ),
        empty="no open incident",
    )  # fmt: skip
    for ask in facts["waiting"]:
        click.echo(f"waits for a person: mendstream approve {ask['request']}  ({ask['action'].kind})")
