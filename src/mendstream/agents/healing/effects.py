"""From an approved action to what it changes: knobs for config-updates, or an order for a sink; and the way back."""

from __future__ import annotations

from typing import Any

import msgspec

from mendstream.agents.healing.state import Act, Handshake, Incident
from mendstream.agents.healing.turn import Turn
from mendstream.contracts import knobs
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import Action, ActionKind, Command, CommandKind, ConfigChange

COMMANDS = {ActionKind.RESTART: "supervisor", ActionKind.RETRAIN: "trainer"}
"""Actions that a sink carries out, with their addressee; all others are changes of knobs."""


def changes(action: Action, config: LiveConfig) -> dict[str, Any]:
    """The knobs that `action` sets, given what is set now."""
    params = action.params
    match action.kind:
        case ActionKind.SAFE_MODE_ON:
            return {"safe_mode": _with(config.safe_mode, str(params["holder"]))}
        case ActionKind.SAFE_MODE_OFF:
            return {"safe_mode": [held for held in config.safe_mode if held != params["holder"]]}
        case ActionKind.SET_THRESHOLD:
            return {"decision_threshold": params["value"]}
        case ActionKind.SHADOW:
            return {"shadow_version": params["version"], "shadow_digest": params["digest"]}
        case ActionKind.ROLLBACK:
            return {
                "model_version": params["version"],
                "model_digest": params["digest"],
                "excluded_models": _with(config.excluded_models, str(params["bad_version"])),
            }
        case ActionKind.PROMOTE:
            threshold = params.get("threshold")
            return {
                "model_version": params["version"],
                "model_digest": params["digest"],
                "shadow_version": "",
                "shadow_digest": "",
            } | ({} if threshold is None else {"decision_threshold": threshold})
        case ActionKind.RESTART | ActionKind.RETRAIN:
            return {}


def unfit(action: Action, config: LiveConfig) -> str:
    """Why `action` cannot be carried out as it stands, or an empty string."""
    if action.kind is ActionKind.RESTART:
        generation = action.params.get("generation")
        return "" if isinstance(generation, int) and action.target else "a restart names a process and a generation"
    if action.kind is ActionKind.RETRAIN:
        return ""
    try:
        return knobs.check(changes(action, config))
    except KeyError as error:
        return f"{action.kind} lacks the parameter {error}"


def undo_of(action: Action, config: LiveConfig) -> Action | None:
    """The action that takes `action` back, for people and policies; None if nothing can."""
    params = action.params
    live: dict[str, Any] = {"version": config.model_version, "digest": config.model_digest}
    match action.kind:
        case ActionKind.SAFE_MODE_ON:
            kind, back = ActionKind.SAFE_MODE_OFF, dict(params)
        case ActionKind.SAFE_MODE_OFF:
            kind, back = ActionKind.SAFE_MODE_ON, dict(params)
        case ActionKind.SET_THRESHOLD:
            kind, back = ActionKind.SET_THRESHOLD, {"value": config.decision_threshold}
        case ActionKind.SHADOW:
            kind, back = ActionKind.SHADOW, {"version": config.shadow_version, "digest": config.shadow_digest}
        case ActionKind.ROLLBACK:
            kind, back = ActionKind.PROMOTE, live
        case ActionKind.PROMOTE:
            kind, back = ActionKind.ROLLBACK, live | {"bad_version": params.get("version")}
        case ActionKind.RESTART | ActionKind.RETRAIN:
            return None
    return Action(id=f"{action.id}.undo", kind=kind, target=action.target, params=back)


def publish_change(turn: Turn, incident: Incident, act: Act, action: Action) -> None:
    """Put the change of `action` on its way, or once more if somebody else's change won."""
    wanted = changes(action, turn.config)
    if act.change is None:
        act.change = Handshake(at_us=turn.now)
    shake = act.change
    shake.before = {name: _plain(getattr(turn.config, name)) for name in wanted}
    shake.wrote = wanted
    _send(turn, incident, act, shake, action.id, _reason(incident, action))


def publish_undo(turn: Turn, incident: Incident, act: Act, wanted: dict[str, Any]) -> None:
    """Put the undo of `act` on its way. It needs no new approval: the proposal named it."""
    if act.undo_change is None:
        act.undo_change = Handshake(at_us=turn.now)
    act.undo_change.wrote = wanted
    undo = act.undo.id if act.undo else f"{act.action.id}.undo"
    _send(turn, incident, act, act.undo_change, undo, f"undo of {act.action.kind} ({incident.kind})")


def undo_changes(act: Act, config: LiveConfig) -> dict[str, Any] | None:
    """The knobs that take `act` back; None if a knob no longer has the value that it wrote: a newer change stands."""
    shake = act.change
    if shake is None:
        return None
    wanted: dict[str, Any] = {}
    for name, wrote in shake.wrote.items():
        current, before = _plain(getattr(config, name)), shake.before[name]
        if isinstance(wrote, list):
            added = [value for value in wrote if value not in before]
            if any(value not in current for value in added):
                return None
            kept = [value for value in current if value not in added]
            wanted[name] = kept + [value for value in before if value not in wrote and value not in kept]
        elif current != wrote:
            return None
        else:
            wanted[name] = before
    return wanted


def publish_command(turn: Turn, incident: Incident, action: Action) -> None:
    """Order a sink to do `action`."""
    generation = action.params.get("generation")
    turn.outputs.records.append(
        Command(
            id=turn.outputs.id(),
            action_id=action.id,
            incident_id=incident.incident_id,
            addressee=COMMANDS[action.kind],
            kind=CommandKind(action.kind.value),
            target=action.target,
            generation=generation if isinstance(generation, int) else None,
            params=dict(action.params),
            at_us=turn.now,
        )
    )


def _send(turn: Turn, incident: Incident, act: Act, shake: Handshake, action_id: str, reason: str) -> None:
    shake.tries += 1
    shake.stale = False
    turn.outputs.records.append(
        ConfigChange(
            id=turn.outputs.id(),
            base_version=turn.base,
            changes=shake.wrote,
            actor="healing",
            reason=reason,
            at_us=turn.now,
            incident_id=incident.incident_id,
            action_id=action_id,
            approval=act.verdict_id,
        )
    )
    # What a later change of this turn builds on; it counts only if this one is applied.
    turn.config = msgspec.structs.replace(turn.config, **{k: _typed(v) for k, v in shake.wrote.items()})
    turn.base += 1


def _reason(incident: Incident, action: Action) -> str:
    return f"{action.kind} against {incident.kind} of {incident.subject}"


def _with(held: tuple[str, ...], value: str) -> list[str]:
    return list(held) if value in held else [*held, value]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _typed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
