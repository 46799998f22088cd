"""The way out of SAFE_MODE, after an incident has ended with its hold still on: release it, watch, or hold again."""

from __future__ import annotations

from mendstream.agents.healing import served
from mendstream.agents.healing.params import SECOND_US
from mendstream.agents.healing.playbooks import proofs
from mendstream.agents.healing.playbooks.accuracy import bad_version
from mendstream.agents.healing.playbooks.base import Check, Draft, Measure, Playbook, Rung
from mendstream.agents.healing.state import Act, Incident, Watch
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.records import ActionKind, AlertKind

_LEAST_WORSE = 50
_WORSE_SLOW = 0.2
_FRESH_US = 2 * SECOND_US


def healthy(incident: Incident, turn: Turn) -> bool:
    """Whether the model could serve again: a good version, or probes that have been fast for long enough."""
    back, vitals = incident.back, turn.state.vitals
    if back is None or vitals is None:
        return False
    if incident.kind == AlertKind.PERF_DROP and incident.attempt == 1:
        return turn.config.model_version != bad_version(incident, turn)
    now = served.until(vitals)
    return (
        back.calls - back.calls0 >= turn.params.release_calls
        and bool(back.quiet_since_us)
        and now - back.quiet_since_us >= back.wait_us
        and now - back.last_call_us <= _FRESH_US
    )


def _release(incident: Incident, turn: Turn) -> Draft | str:
    return Draft("model", {"holder": incident.incident_id})


def _watch(incident: Incident, act: Act, turn: Turn) -> Watch:
    # Where somebody else's hold remains, the rules go on deciding, and there is no live arm to look at.
    arms = served.SERVING if turn.config.safe_mode else ("live",)
    return Watch(config=act.change.version if act.change else 0, arms=arms)


def _worse(incident: Incident, watch: Watch, turn: Turn) -> str:
    if incident.firing:
        return f"{incident.kind} fires again"
    vitals = turn.state.vitals
    if vitals is None or not watch.visible_us:
        return ""
    total = served.whole(served.window(watch, vitals).values())
    if total.n >= _LEAST_WORSE and total.slow_share > _WORSE_SLOW:
        return f"{total.slow_share:.0%} of {total.n} events are slow"
    return ""


WAY_BACK = Playbook(
    name="way-back",
    answers="",
    well=proofs.fast,
    rungs=(
        Rung(
            name="release",
            measures=(
                Measure(
                    kind=ActionKind.SAFE_MODE_OFF,
                    effect="the model decides again, as fast as its probes",
                    impact="medium",
                    cost=1.0,
                    propose=_release,
                    ready=healthy,
                    wait_us=0,
                    check=Check(watch=_watch, proof=proofs.fast, worse=_worse, settle_us=0, timeout_us=15 * SECOND_US),
                ),
            ),
        ),
    ),
)
