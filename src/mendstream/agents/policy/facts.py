"""A proposal and the agent's own state in; the facts that policies judge it by out.

Of the proposal only its wishes are read (kind, target, the value wanted, the declared impact, which can only tighten).
"""

from __future__ import annotations

from mendstream.agents.policy.engine import Facts, threshold_facts
from mendstream.agents.policy.settings import PolicySettings
from mendstream.agents.policy.state import HOUR_US, Change, PolicyState
from mendstream.contracts.knobs import LiveConfig
from mendstream.contracts.records import Action, ActionKind, Proposal, Scalar

RESTART_WINDOW_US = 600_000_000
# Every parameter that becomes the value of a knob is judged; these are their names in `Action.params`.
HOLDER_PARAM = "holder"
THRESHOLD_PARAM = "value"
VERSION_PARAM = "version"
DIGEST_PARAM = "digest"
EXCLUDE_PARAM = "bad_version"
"""ROLLBACK: the version that is excluded from now on."""
RESTORE_PARAM = "threshold"
"""PROMOTE: the decision threshold that is set along with the new model."""
_ANY = 1e6
"""Beyond it, or not a number at all, a proposed threshold is no fact; within it the clamp knows what to do."""


def facts_of(proposal: Proposal, state: PolicyState, config: LiveConfig, settings: PolicySettings, now: int) -> Facts:
    """The groups that the schema has for this kind of action. A fact that cannot be known is left out: DENIED then."""
    action = proposal.action
    facts: Facts = {
        "house": _house(state, config, settings, now),
        "plan": {
            "is_undo": proposal.is_undo and undoes(action, proposal.incident_id, state, config),
            "impact": proposal.impact,
            "mode": settings.modes.get(action.kind, "auto"),
            "rung": proposal.rung,
        },
    }
    match action.kind:
        case ActionKind.SAFE_MODE_ON | ActionKind.SAFE_MODE_OFF:
            facts["hold"] = {"own": action.params.get(HOLDER_PARAM) == proposal.incident_id}
        case ActionKind.RESTART:
            facts["restarts"] = _restarts(action.target, state, settings, now)
        case ActionKind.SET_THRESHOLD:
            facts["threshold"] = _threshold(action, config)
        case ActionKind.ROLLBACK | ActionKind.SHADOW | ActionKind.PROMOTE:
            facts["model"] = _model(action, proposal.incident_id, state, config)
        case _:
            pass  # house and plan are all that the other kinds are judged by
    return facts


def flat(facts: Facts) -> dict[str, Scalar]:
    """As a verdict carries them: `group.fact` -> value."""
    return {f"{group}.{name}": value for group, held in facts.items() for name, value in held.items()}


def undoes(action: Action, incident_id: str, state: PolicyState, config: LiveConfig) -> bool:
    """Whether `action` puts back what an applied change of this incident replaced, that change being still in force."""
    return any(
        change.incident_id == incident_id and _restores(action, change, config) for change in reversed(state.changes)
    )


def _restores(action: Action, change: Change, config: LiveConfig) -> bool:
    before, after = change.before, change.after
    match action.kind:
        case ActionKind.SAFE_MODE_OFF:
            holder = action.params.get(HOLDER_PARAM)
            return holder in after.safe_mode and holder not in before.safe_mode and holder in config.safe_mode
        case ActionKind.SAFE_MODE_ON:
            holder = action.params.get(HOLDER_PARAM)
            return holder in before.safe_mode and holder not in after.safe_mode and holder not in config.safe_mode
        case ActionKind.SET_THRESHOLD:
            return _threshold_before(change, config) == action.params.get(THRESHOLD_PARAM)
        case ActionKind.ROLLBACK | ActionKind.PROMOTE:
            wanted = action.params.get(VERSION_PARAM)
            return wanted == before.model_version and config.model_version == after.model_version != wanted
        case ActionKind.SHADOW:
            wanted = action.params.get(VERSION_PARAM)
            return wanted == before.shadow_version and config.shadow_version == after.shadow_version != wanted
        case _:
            return False


def _threshold_before(change: Change, config: LiveConfig) -> float | None:
    """The threshold that `change` replaced, if the one that it set is still there."""
    before, after = change.before.decision_threshold, change.after.decision_threshold
    return before if config.decision_threshold == after != before else None


def _house(state: PolicyState, config: LiveConfig, settings: PolicySettings, now: int) -> dict[str, Scalar]:
    known = state.vitals_at_us >= 0 and now - state.vitals_at_us <= settings.vitals_max_age_s * 1e6
    return {
        "paused": config.healing_paused,
        "data_quality_bad": bool(state.corrupt),
        "blind": not known,
        "sick_bp": state.sick_bp,
        "open_incidents": len(state.incidents),
        "actions_1h": sum(not deed.is_undo and deed.counts(now, HOUR_US) for deed in state.deeds.values()),
        "actions_1h_limit": settings.actions_per_hour,
    }


def _restarts(target: str, state: PolicyState, settings: PolicySettings, now: int) -> dict[str, Scalar]:
    done = sum(
        deed.kind == ActionKind.RESTART and deed.target == target and deed.counts(now, RESTART_WINDOW_US)
        for deed in state.deeds.values()
    )
    return {
        "known": target in state.processes or target in state.down.values(),
        "last_10min": done,
        "limit": settings.restarts_per_10min,
    }


def _threshold(action: Action, config: LiveConfig) -> dict[str, Scalar]:
    current = round(config.decision_threshold * 10_000)
    wanted = action.params.get(THRESHOLD_PARAM)
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not -_ANY < wanted < _ANY:
        return {"current_bp": current}  # the other two facts are missing
    return threshold_facts(current, round(wanted * 10_000))


def _model(action: Action, incident_id: str, state: PolicyState, config: LiveConfig) -> dict[str, Scalar]:
    params = action.params
    version, excludes, threshold = params.get(VERSION_PARAM), params.get(EXCLUDE_PARAM), params.get(RESTORE_PARAM)
    if not isinstance(version, str):
        return {}
    trained = state.trained.get(version)
    replaced = [_threshold_before(held, config) for held in state.changes if held.incident_id == incident_id]
    return {
        "version": version,
        "is_live": version == config.model_version,
        "was_live": version in state.live,
        "shadowed": version in state.shadowed,
        "trained": trained is not None and trained.incident_id == incident_id,
        "excluded": version in config.excluded_models,
        "digest_ok": params.get(DIGEST_PARAM) in _digests(version, state),
        "excludes_other": excludes is not None and excludes != config.model_version,
        "threshold_ok": threshold is None or threshold in replaced,
    }


def _digests(version: str, state: PolicyState) -> list[str]:
    """All on record for `version`; for no version (the end of a shadow), no digest."""
    trained = state.trained.get(version)
    found = [state.live.get(version), state.shadowed.get(version), trained.digest if trained else None]
    return [digest for digest in found if digest is not None] if version else [""]
