"""AGENT_DOWN: restart the dead or stuck process, naming the generation that ends."""

from __future__ import annotations

from mendstream.agents.healing.params import SECOND_US
from mendstream.agents.healing.playbooks import proofs, watches
from mendstream.agents.healing.playbooks.base import Check, Draft, Measure, Playbook, Rung
from mendstream.agents.healing.state import Act, Incident, Watch
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.records import ActionKind, AlertKind, TaskState


def process_of(incident: Incident) -> str:
    """The process that is down."""
    named = incident.alert.evidence.get("process")
    return named if isinstance(named, str) and named else incident.subject


def generation_of(incident: Incident, turn: Turn) -> int | None:
    """The generation that is down: as the alert says, else the newest that was seen."""
    named = incident.alert.evidence.get("generation")
    if isinstance(named, int):
        return named
    return max(_seen(incident, turn), default=None)


def _restart(incident: Incident, turn: Turn) -> Draft | str:
    process, generation = process_of(incident), generation_of(incident, turn)
    if generation is None:
        return f"no generation of {process} is known"
    if max(_seen(incident, turn), default=0) > generation:
        return f"{process} runs already as a later generation than {generation}"
    return Draft(process, {"generation": generation})


def _still_down(incident: Incident, turn: Turn) -> bool:
    """False while a later generation already works: then it may recover by itself."""
    generation, vitals = generation_of(incident, turn), turn.state.vitals
    if generation is None or vitals is None:
        return True
    mine = [task for task in vitals.tasks if task.process == process_of(incident)]
    return not mine or not all(task.generation > generation and task.state is TaskState.OK for task in mine)


def _died_again(incident: Incident, act: Act, turn: Turn) -> str:
    """News of the end of a later generation than the one that `act` replaced."""
    ended, replaced = incident.alert.evidence.get("generation"), (act.approved or act.action).params.get("generation")
    if not isinstance(ended, int) or not isinstance(replaced, int) or ended <= replaced:
        return ""
    return f"generation {ended} is down too" if incident.alert.alert_id in incident.firing else ""


def _recovers(incident: Incident, turn: Turn) -> Watch:
    generation = generation_of(incident, turn)
    return Watch(processes={process_of(incident): -1 if generation is None else generation}, tasks=incident.tasks)


def _seen(incident: Incident, turn: Turn) -> list[int]:
    vitals, process = turn.state.vitals, process_of(incident)
    return [task.generation for task in vitals.tasks if task.process == process] if vitals else []


AGENT_DOWN = Playbook(
    name="agent-down",
    answers=AlertKind.AGENT_DOWN,
    well=proofs.alive,
    recovers=_recovers,
    rungs=(
        Rung(
            name="restart",
            measures=(
                Measure(
                    kind=ActionKind.RESTART,
                    effect="a new process takes its tasks where the last turn left them",
                    impact="medium",
                    cost=2.0,
                    propose=_restart,
                    ready=_still_down,
                    check=Check(
                        watch=watches.restarted, proof=proofs.alive, again=_died_again,
                        settle_us=2 * SECOND_US, timeout_us=15 * SECOND_US,
                    ),
                ),
            ),
        ),
    ),
)  # fmt: skip
