"""DATA_DRIFT: lower the threshold for the time being, retrain on data since the onset, try as shadow, promote."""

from __future__ import annotations

from mendstream.agents.healing import served
from mendstream.agents.healing.params import SECOND_US
from mendstream.agents.healing.playbooks import proofs, watches
from mendstream.agents.healing.playbooks.base import Check, Draft, Finding, Measure, Playbook, Rung
from mendstream.agents.healing.state import Act, Incident, Watch
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.records import ActionKind, AlertKind, Scalar

_LOWEST = 0.05


def _threshold(incident: Incident, turn: Turn) -> Draft | str:
    now = turn.config.decision_threshold
    lower = round(max(now - turn.params.threshold_step, _LOWEST), 6)
    if lower >= now:
        return f"the threshold is {now} already"
    return Draft("decision", {"value": lower, "before": now})


def _retrain(incident: Incident, turn: Turn) -> Draft | str:
    params: dict[str, Scalar] = {
        "since_us": incident.alert.window_us[0],
        "min_rows": turn.params.retrain_rows,
        "deadline_s": turn.params.retrain_wait_us / SECOND_US,
        "incident_id": incident.incident_id,
    }
    return Draft("trainer", params)


def _trained(incident: Incident) -> tuple[str, str] | str:
    """(version, digest) of what the trainer made, or why it may not go on."""
    for act in incident.acts:
        if act.action.kind is ActionKind.RETRAIN and act.answer is not None:
            version, digest = act.answer.data.get("version"), act.answer.data.get("digest")
            if not isinstance(version, str) or not isinstance(digest, str) or not version or not digest:
                return "the trainer named no version and digest"
            if act.answer.data.get("schema_ok") is not True:
                return f"{version} does not have the pipeline's features"
            return version, digest
    return "nothing was trained"


def _shadow(incident: Incident, turn: Turn) -> Draft | str:
    made = _trained(incident)
    return made if isinstance(made, str) else Draft("model", {"version": made[0], "digest": made[1]})


def _promote(incident: Incident, turn: Turn) -> Draft | str:
    made = _trained(incident)
    if isinstance(made, str):
        return made
    if made[0] in turn.config.excluded_models:
        return f"{made[0]} is excluded"
    params: dict[str, Scalar] = {"version": made[0], "digest": made[1]}
    before = _threshold_before(incident.acts, turn.config.decision_threshold)
    return Draft("model", params if before is None else params | {"threshold": before})


def _threshold_before(acts: list[Act], now: float) -> float | None:
    """What the threshold was before we lowered it, if the present value is ours."""
    for act in acts:
        shake = act.change
        if act.action.kind is ActionKind.SET_THRESHOLD and act.in_force and shake and shake.version:
            return float(shake.before["decision_threshold"]) if shake.wrote["decision_threshold"] == now else None
    return None


def gate(incident: Incident, watch: Watch, turn: Turn) -> Finding:
    """Enough labels on the shadow, and no more errors than the live arm made over the same time."""
    vitals, params = turn.state.vitals, turn.params
    if vitals is None or not watch.visible_us:
        return proofs.wait("the shadow does not score yet")
    shadow = served.whole(served.window(watch, vitals).values())
    live = served.serving(vitals) - watch.rival
    if shadow.labels < params.gate_labels or live.labels <= 0:
        return proofs.wait(f"{shadow.labels} of {params.gate_labels} labels on the shadow")
    if shadow.error_share > live.error_share + params.gate_margin:
        return proofs.wait(f"error share of the shadow {shadow.error_share:.3f}, live {live.error_share:.3f}")
    return proofs.proven(
        f"error share {shadow.error_share:.3f} on {shadow.labels} labels, live {live.error_share:.3f}",
        labels=shadow.labels, error_share=round(shadow.error_share, 4), live_error_share=round(live.error_share, 4),
    )  # fmt: skip


DRIFT = Playbook(
    name="drift",
    answers=AlertKind.DATA_DRIFT,
    well=proofs.no_drift,
    recovers=lambda incident, turn: Watch(arms=("live",)),
    rungs=(
        Rung(
            name="retrain",
            measures=(
                Measure(
                    kind=ActionKind.SET_THRESHOLD,
                    effect="fewer positives are missed until a new model is there",
                    impact="low",
                    cost=1.0,
                    propose=_threshold,
                    optional=True,
                ),
                Measure(
                    kind=ActionKind.RETRAIN,
                    effect="a version that knows the data since the onset",
                    impact="medium",
                    cost=8.0,
                    propose=_retrain,
                    answer_us=60 * SECOND_US,
                ),
                Measure(
                    kind=ActionKind.SHADOW,
                    effect="the new version scores live traffic without deciding",
                    impact="low",
                    cost=1.0,
                    propose=_shadow,
                    check=Check(watch=watches.shadow, proof=gate, timeout_us=30 * SECOND_US),
                ),
                Measure(
                    kind=ActionKind.PROMOTE,
                    effect="the new version decides as well as the old one did before the drift",
                    impact="medium",  # it has passed the gate, and can be taken back
                    cost=4.0,
                    propose=_promote,
                    check=Check(
                        watch=watches.new_model, proof=proofs.no_drift, worse=proofs.more_wrong,
                        settle_us=SECOND_US, timeout_us=30 * SECOND_US,
                    ),
                ),
            ),
        ),
    ),
)  # fmt: skip
