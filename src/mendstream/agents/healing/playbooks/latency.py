"""LATENCY_SLO_BREACH: serve by rules; if that is slow too, restart the process of the slow model."""

from __future__ import annotations

from mendstream.agents.healing.params import SECOND_US
from mendstream.agents.healing.playbooks import proofs, watches
from mendstream.agents.healing.playbooks.base import Check, Draft, Measure, Playbook, Rung
from mendstream.agents.healing.playbooks.safe_mode import safe_mode
from mendstream.agents.healing.state import Incident, Watch
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.records import ActionKind, AlertKind

_MAX_TARGETS = 3


def _slow_processes(incident: Incident, turn: Turn) -> tuple[str, ...]:
    """Owners of the model tasks whose partition is served slowly; each once."""
    vitals = turn.state.vitals
    if vitals is None:
        return ()
    slow = {
        task.partition("/")[2]
        for task, pane in turn.state.pane.items()
        if pane.n > 0 and pane.slow_share >= turn.params.slow_share
    }
    found = [task for task in vitals.tasks if task.task.startswith("model/")]
    chosen = [task.process for task in found if task.task.partition("/")[2] in slow] or [t.process for t in found]
    return tuple(dict.fromkeys(chosen))


def _restart(incident: Incident, turn: Turn) -> Draft | str:
    vitals, targets = turn.state.vitals, incident.targets
    if vitals is None or not targets:
        return "no process of a slow model is known"
    if len(targets) > _MAX_TARGETS:
        return f"{len(targets)} processes are slow: more than {_MAX_TARGETS} are not restarted by themselves"
    process = targets[min(incident.n, len(targets) - 1)]
    generations = [task.generation for task in vitals.tasks if task.process == process]
    if not generations:
        return f"{process} owns no task any more"
    return Draft(process, {"generation": max(generations)})


LATENCY = Playbook(
    name="latency",
    answers=AlertKind.LATENCY_SLO_BREACH,
    well=proofs.fast,
    recovers=lambda incident, turn: Watch(speed=True),
    rungs=(
        Rung(
            name="safe mode",
            measures=(
                safe_mode(
                    "rules answer instead of the slow model: latency falls at the next slice",
                    2.0,
                    Check(
                        watch=watches.changed_fast, proof=proofs.fast, worse=proofs.slower,
                        settle_us=SECOND_US, timeout_us=8 * SECOND_US,
                    ),
                ),
            ),
        ),
        Rung(
            name="restart",
            targets=_slow_processes,
            measures=(
                Measure(
                    kind=ActionKind.RESTART,
                    effect="a fresh process of the model serves at its usual speed",
                    impact="medium",
                    cost=4.0,
                    propose=_restart,
                    check=Check(
                        watch=watches.restarted_fast, proof=proofs.fast,
                        settle_us=3 * SECOND_US, timeout_us=20 * SECOND_US,
                    ),
                ),
            ),
        ),
    ),
)  # fmt: skip
