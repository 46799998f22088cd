"""The measure that several ladders share: a hold of SAFE_MODE."""

from __future__ import annotations

from mendstream.agents.healing.playbooks.base import Check, Draft, Measure
from mendstream.agents.healing.state import Incident
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.records import ActionKind


def safe_mode(effect: str, cost: float, check: Check, *, joins: bool = False) -> Measure:
    """Serve by rules instead of the model, while this incident holds it so; `joins`: also where others do already."""
    propose = _hold if joins else _enter
    return Measure(
        kind=ActionKind.SAFE_MODE_ON, effect=effect, impact="medium", cost=cost, propose=propose, check=check
    )


def _enter(incident: Incident, turn: Turn) -> Draft | str:
    if turn.config.safe_mode:
        return "SAFE_MODE is already on"
    return _hold(incident, turn)


def _hold(incident: Incident, turn: Turn) -> Draft | str:
    return Draft("model", {"holder": incident.incident_id})
