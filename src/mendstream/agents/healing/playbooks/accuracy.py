"""PERF_DROP: back to the last good model version; if that does not help, serve by rules."""

from __future__ import annotations

from mendstream.agents.healing.params import SECOND_US
from mendstream.agents.healing.playbooks import proofs, watches
from mendstream.agents.healing.playbooks.base import Check, Draft, Measure, Playbook, Rung
from mendstream.agents.healing.playbooks.safe_mode import safe_mode
from mendstream.agents.healing.state import Incident, LiveVersion, Watch
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.records import ActionKind, AlertKind


def bad_version(incident: Incident, turn: Turn) -> str:
    """The version that the incident is about: its subject if that was ever live, else what was live when it began."""
    history = turn.state.history
    if any(live.model == incident.subject for live in history):
        return incident.subject
    before = [live.model for live in history if live.at_us <= incident.detected_at_us]
    return before[-1] if before else turn.config.model_version


def last_good(incident: Incident, turn: Turn) -> LiveVersion | None:
    """The newest version that was live before the bad one, and that nobody excluded."""
    bad = bad_version(incident, turn)
    history = turn.state.history
    last = max((i for i, live in enumerate(history) if live.model == bad), default=len(history))
    for live in reversed(history[:last]):
        if live.model and live.model != bad and live.model not in turn.config.excluded_models:
            return live
    return None


def _rollback(incident: Incident, turn: Turn) -> Draft | str:
    bad = bad_version(incident, turn)
    if turn.config.model_version != bad:
        return f"{bad} is not live any more"
    good = last_good(incident, turn)
    if good is None:
        return f"no version was live before {bad} that is not excluded"
    return Draft("model", {"version": good.model, "digest": good.digest, "bad_version": bad})


ACCURACY = Playbook(
    name="accuracy",
    answers=AlertKind.PERF_DROP,
    well=proofs.right,
    recovers=lambda incident, turn: Watch(),
    rungs=(
        Rung(
            name="rollback",
            measures=(
                Measure(
                    kind=ActionKind.ROLLBACK,
                    effect="the last good version decides as well as it did before",
                    impact="medium",
                    cost=3.0,
                    propose=_rollback,
                    check=Check(
                        watch=watches.new_model, proof=proofs.right, worse=proofs.more_wrong,
                        settle_us=SECOND_US, timeout_us=20 * SECOND_US,
                    ),
                ),
            ),
        ),
        Rung(
            name="safe mode",
            measures=(
                safe_mode(
                    "rules decide instead of the bad model",
                    5.0,
                    Check(
                        watch=watches.changed, proof=proofs.right, worse=proofs.more_wrong,
                        settle_us=SECOND_US, timeout_us=20 * SECOND_US,
                    ),
                    joins=True,  # who holds it against a slow model lets go as soon as the model is fast, bad or not
                ),
            ),
        ),
    ),
)  # fmt: skip
