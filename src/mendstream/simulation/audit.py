"""Logs of stopped houses in; decisions that differ, and incidents that do not hold together, out.

As the accounting does, it reads the logs below the bus and shares no code with what has written them. Of the house it
knows the table of legal moves, which is a promise, and besides what is written here: topic numbers (3 decisions,
10 config-updates, 11 incident-log, 13 command-results, 14 dead-letters), JSON lines, the tables `incidents` and
`healing_actions`, and the demo's key, `tailnum`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from mendstream.contracts.incident import MOVES, Phase
from mendstream.demo.accounting import Place, payloads

EXAMPLES = 10
_DECISIONS, _CONFIG, _INCIDENTS, _RESULTS, _DEAD = 3, 10, 11, 13, 14
_ENDED = frozenset({"RESOLVED", "FAILED"})


class Made(NamedTuple):
    """What a decision was made with: only decisions with the same one are compared."""

    model: str
    mode: str
    threshold: float


class Decided(NamedTuple):
    """What was decided on one event, without the moment and the version number under which it was."""

    key: str
    outcome: str
    score: float
    reason: str


@dataclass(frozen=True, slots=True)
class Compared:
    events: int
    """How many were decided on both sides with the same model, mode and config."""
    different: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Incidents:
    total: int
    open: int
    """Not ended when the house was stopped; those are legal, too."""
    actions: int
    flaws: tuple[str, ...] = ()


# --- decisions -------------------------------------------------------------------------------------------------------


def decisions(log: Place) -> dict[str, tuple[Made, Decided]]:
    """What was decided on each event. A config is compared by what it says, not by its number."""
    thresholds = _thresholds(log)
    return {
        line["event_id"]: (
            Made(line["model"], line["mode"], thresholds[line["config"]]),
            Decided(line["key"], line["outcome"], line["score"], line["reason"]),
        )
        for line in _lines(payloads(log, "data", _DECISIONS))
    }


def compare(found: dict[str, tuple[Made, Decided]], wanted: dict[str, tuple[Made, Decided]]) -> Compared:
    """Events that both sides have decided with the same model, mode and config, and those of them that differ."""
    both = [event for event, (made, _) in found.items() if event in wanted and wanted[event][0] == made]
    different = sorted((event for event in both if found[event][1] != wanted[event][1]), key=lambda e: (len(e), e))
    return Compared(len(both), len(different), tuple(_difference(e, found, wanted) for e in different[:EXAMPLES]))


def spoiled(log: Place) -> set[str]:
    """Keys of which an event was set aside when it should have come into their windows, as happens to one on which
    three processes died. Without it, what is decided on the key's next events may rightly be something else.
    """
    keys: set[str] = set()
    for letter in _lines(payloads(log, "data", _DEAD)):
        value = base64.b64decode(letter["value"])
        if letter["stage"] == "feature":
            with pa.ipc.open_stream(value) as reader:
                keys.update(key for batch in reader for key in batch.column("key").to_pylist())
        elif letter["reason"] == "QUARANTINED" and b'"tailnum"' in value:
            keys.add(json.loads(value)["tailnum"])
    return keys


def without(found: dict[str, tuple[Made, Decided]], keys: set[str]) -> dict[str, tuple[Made, Decided]]:
    """What was decided on events of other keys."""
    return {event: (made, decided) for event, (made, decided) in found.items() if decided.key not in keys}


def made_with(found: dict[str, tuple[Made, Decided]]) -> tuple[Made, ...]:
    """Everything that decisions were made with, what made most of them first."""
    return tuple(made for made, _ in Counter(made for made, _ in found.values()).most_common())


def total(parts: Iterable[Compared]) -> Compared:
    """Of several comparisons, each about other events."""
    held = tuple(parts)
    examples = [example for part in held for example in part.examples]
    return Compared(sum(p.events for p in held), sum(p.different for p in held), tuple(examples[:EXAMPLES]))


def _difference(event: str, found: dict[str, tuple[Made, Decided]], wanted: dict[str, tuple[Made, Decided]]) -> str:
    one, other = found[event][1], wanted[event][1]
    parts = [f"{name} {a!r} instead of {b!r}" for name, a, b in zip(one._fields, one, other, strict=True) if a != b]
    return f"{event}: {', '.join(parts)}"


def _thresholds(log: Place) -> dict[int, float]:
    """The decision threshold at each version of the config; a change with a stale base changed nothing."""
    version, threshold = 0, 0.5
    found = {version: threshold}
    for line in _lines(payloads(log, "control", _CONFIG)):
        if line["record"] == "config-change" and line["base_version"] == version:
            version += 1
            threshold = line["changes"].get("decision_threshold", threshold)
            found[version] = threshold
    return found


# --- incidents -------------------------------------------------------------------------------------------------------


def incidents(root: Path, log: Place | None = None) -> Incidents:
    """Every incident legal, ended or open, done once, unbroken, and in SQL as in the log. `log`: where it is, if not in
    the data directory `root`.
    """
    log = log or root
    lines = [line for block in payloads(log, "control", _INCIDENTS) for line in block.splitlines()]
    steps = [msgspec.json.decode(line) for line in lines]
    last = {step["incident"]["incident_id"]: step for step in steps}
    actions = {step["action"]["action_id"] for step in steps if step.get("action")}
    flaws = [*broken(steps), *_illegal(steps), *_twice(log), *_not_in_sql(root, steps)]
    still = sum(step["incident"]["status"] not in _ENDED for step in last.values())
    return Incidents(len(last), still, len(actions), tuple(flaws))


def broken(steps: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The first place where the hash chain of the log does not hold."""
    held = ""
    for seq, step in enumerate(steps):
        body = msgspec.json.encode({**step, "hash": ""}, order="sorted")
        if step["seq"] != seq or step["prev_hash"] != held:
            yield f"incident-log: seq {step['seq']} stands where {seq} should be, or names another record before it"
            return
        held = hashlib.sha256(held.encode() + body).hexdigest()
        if step["hash"] != held:
            yield f"incident-log: the hash of seq {seq} is not its own"
            return


def _illegal(steps: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Moves that the table does not have. A way back out of SAFE_MODE is a life of its own, after its incident's."""
    at: dict[tuple[str, bool], Phase] = {}
    for step in steps:
        life = step["incident"]["incident_id"], bool(step.get("data", {}).get("way_back"))
        now, before = Phase(step["phase"]), at.get(life)
        if before is None and not life[1] and now is not Phase.DETECTED and Phase.DETECTED not in _before(now):
            yield f"{life[0]} begins with {now}"
        elif before is not None and now is not before and before not in _before(now):
            yield f"{life[0]} goes from {before} to {now}"
        at[life] = now


def _before(phase: Phase) -> frozenset[Phase]:
    """From where legal moves lead to `phase`; several may be made in one turn, and one record tells of them."""
    found: frozenset[Phase] = frozenset()
    grown = frozenset(now for now, nexts in MOVES.items() if phase in nexts)
    while grown != found:
        found = grown
        grown = found | {now for now, nexts in MOVES.items() if nexts & found}
    return found


def _twice(log: Place) -> Iterator[str]:
    """Actions that a target did more than once. What the supervisor started by itself belongs to none."""
    lines = _lines(payloads(log, "control", _RESULTS))
    done = Counter(line["action_id"] for line in lines if line["outcome"] == "done" and line["action_id"])
    yield from (f"action {action} was done {count} times" for action, count in done.items() if count > 1)


def recorded(root: Path) -> int:
    """The last record of incident-log that is in SQL; -1 if there is none."""
    rows = _rows(root, "select coalesce(max(seq), -1) from incidents")
    return int(rows[0][0]) if rows else -1


def _not_in_sql(root: Path, steps: Sequence[dict[str, Any]]) -> Iterator[str]:
    """As far as the recorder had come when the house was stopped."""
    reach = recorded(root)
    told: dict[str, tuple[Any, ...]] = {}
    results: dict[str, tuple[Any, ...]] = {}
    for step in steps[: reach + 1]:
        head = step["incident"]
        told[head["incident_id"]] = step["seq"], head["status"], step["phase"], head.get("outcome", "")
        if step.get("action"):
            results[step["action"]["action_id"]] = (step["action"].get("result"),)
    rows = {row[0]: row[1:] for row in _rows(root, "select incident_id, seq, status, phase, outcome from incidents")}
    for incident in sorted(told.keys() | rows.keys()):
        if told.get(incident) != rows.get(incident):
            yield f"SQL: {incident} is {rows.get(incident)}, in the log {told.get(incident)}"
    kept = {row[0]: row[1:] for row in _rows(root, "select action_id, result from healing_actions")}
    for action in sorted(results.keys() | kept.keys()):
        if results.get(action) != kept.get(action):
            yield f"SQL: action {action} is {kept.get(action)}, in the log {results.get(action)}"


def _rows(root: Path, query: str) -> list[tuple[Any, ...]]:
    """None where the store was not made yet."""
    path = root / "mendstream.db"
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as store:
        return store.execute(query).fetchall()


def _lines(blocks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        yield from (json.loads(line) for line in block.splitlines())
