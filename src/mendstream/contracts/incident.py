"""The life of an incident: one table of legal moves, and the status that each phase shows in SQL."""

from __future__ import annotations

from enum import StrEnum

from mendstream.contracts.errors import IllegalMove
from mendstream.contracts.records import Status


class Phase(StrEnum):
    DETECTED = "DETECTED"
    LOGGED = "LOGGED"
    PLANNED = "PLANNED"  # a rung is chosen, its next action proposed; waits for the verdict
    ASKED = "ASKED"  # escalated: waits for a person's verdict on the proposal
    APPROVED = "APPROVED"  # for a moment: what is approved is put out in the same turn
    EXECUTING = "EXECUTING"  # intent is durable; waits for the target's answer or the config's fold
    VERIFYING = "VERIFYING"
    UNDOING = "UNDOING"  # an undo was put out; waits for its own proof
    ESCALATED = "ESCALATED"  # no rung is left: waits for a person to close it
    RESOLVED = "RESOLVED"
    FAILED = "FAILED"


MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.DETECTED: frozenset({Phase.LOGGED}),
    Phase.LOGGED: frozenset({Phase.PLANNED, Phase.ESCALATED, Phase.RESOLVED, Phase.FAILED}),
    Phase.PLANNED: frozenset({Phase.APPROVED, Phase.ASKED, Phase.LOGGED, Phase.UNDOING, Phase.RESOLVED, Phase.FAILED}),
    Phase.ASKED: frozenset({Phase.APPROVED, Phase.LOGGED, Phase.UNDOING, Phase.RESOLVED, Phase.FAILED}),
    Phase.APPROVED: frozenset({Phase.EXECUTING}),
    Phase.EXECUTING: frozenset({Phase.VERIFYING, Phase.PLANNED, Phase.UNDOING, Phase.LOGGED, Phase.FAILED}),
    Phase.VERIFYING: frozenset({Phase.RESOLVED, Phase.PLANNED, Phase.UNDOING, Phase.LOGGED, Phase.FAILED}),
    Phase.UNDOING: frozenset({Phase.LOGGED, Phase.ESCALATED, Phase.FAILED}),
    Phase.ESCALATED: frozenset({Phase.RESOLVED, Phase.FAILED}),
    Phase.RESOLVED: frozenset(),
    Phase.FAILED: frozenset(),
}

STATUS_OF: dict[Phase, Status] = {
    Phase.DETECTED: Status.OPEN,
    Phase.LOGGED: Status.OPEN,
    Phase.PLANNED: Status.OPEN,
    Phase.ASKED: Status.MITIGATING,
    Phase.APPROVED: Status.MITIGATING,
    Phase.EXECUTING: Status.MITIGATING,
    Phase.VERIFYING: Status.MITIGATING,
    Phase.UNDOING: Status.MITIGATING,
    Phase.ESCALATED: Status.MITIGATING,
    Phase.RESOLVED: Status.RESOLVED,
    Phase.FAILED: Status.FAILED,
}
"""Of an incident on which nobody has acted yet; once an act has begun, LOGGED and PLANNED count as MITIGATING too."""


def move(now: Phase, to: Phase) -> Phase:
    """`to`, if MOVES lists it; raises IllegalMove otherwise."""
    if to not in MOVES[now]:
        raise IllegalMove(f"{now} -> {to} is not in MOVES: a bug in a graph node")
    return to
