"""Which rows a proof counts: those of the versions that the remedy put in place."""

from __future__ import annotations

from mendstream.agents.healing.state import Act, Incident, Watch
from mendstream.agents.healing.turn import Turn


def changed(incident: Incident, act: Act, turn: Turn) -> Watch:
    """Whatever is decided under the new config."""
    return Watch(config=_version(act))


def changed_fast(incident: Incident, act: Act, turn: Turn) -> Watch:
    """The same, from when it is no longer slow."""
    return Watch(config=_version(act), speed=True)


def new_model(incident: Incident, act: Act, turn: Turn) -> Watch:
    """Only what the model decides that the action named."""
    return Watch(config=_version(act), model=_model(act), arms=("live",))


def shadow(incident: Incident, act: Act, turn: Turn) -> Watch:
    """What the shadow would have decided."""
    return Watch(config=_version(act), model=_model(act), arms=("shadow",), every=False)


def restarted(incident: Incident, act: Act, turn: Turn) -> Watch:
    """Everything decided since the processes of this rung are back under later generations."""
    return Watch(processes=_ended(incident), tasks=incident.tasks)


def restarted_fast(incident: Incident, act: Act, turn: Turn) -> Watch:
    return Watch(processes=_ended(incident), speed=True)


def _ended(incident: Incident) -> dict[str, int]:
    found: dict[str, int] = {}
    for act in incident.acts:
        generation = (act.approved or act.action).params.get("generation")
        if isinstance(generation, int):
            found[act.action.target] = generation
    return found


def _version(act: Act) -> int:
    return act.change.version if act.change else 0


def _model(act: Act) -> str:
    return str((act.approved or act.action).params.get("version", ""))
