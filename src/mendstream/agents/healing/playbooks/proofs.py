"""Proofs of cure and guard metrics, on differences of what was served. Missing data is never good data."""

from __future__ import annotations

from typing import Any

from mendstream.agents.healing import served
from mendstream.agents.healing.params import SECOND_US
from mendstream.agents.healing.playbooks.base import Finding, Found
from mendstream.agents.healing.state import Incident, Tally, Watch
from mendstream.agents.healing.turn import Turn
from mendstream.contracts.records import TaskState

_LEAST_GUARD = 50
_WORSE_ERROR = 0.05
_WORSE_SLOW = 0.5
_GUARD_US = 2 * SECOND_US
"""Slow calls come back seconds apart: a shorter look may see none of them."""


def wait(text: str, **data: Any) -> Finding:
    return Finding(Found.WAIT, text, data)


def proven(text: str, **data: Any) -> Finding:
    return Finding(Found.PROVEN, text, data)


def missing(watch: Watch, turn: Turn) -> str:
    """What the window still lacks to be evidence at all; an empty string if nothing."""
    vitals, params = turn.state.vitals, turn.params
    if vitals is None or not watch.visible_us:
        return "its effect is not visible yet"
    current = served.busy(vitals)
    if not current:
        return "no owner of a decision task is known"
    window = served.window(watch, vitals)
    for owner in current:
        if owner.state is not TaskState.OK or owner.config < watch.config or window.get(owner.task, Tally()).n <= 0:
            return f"{owner.task} has served nothing by it"
    length = watch.served_us - watch.since_us
    if length < params.proof_us:
        return f"{length / SECOND_US:.2f} of {params.proof_us / SECOND_US:.0f} s"
    total = served.whole(window.values())
    if total.n < params.proof_events:
        return f"{total.n} of {params.proof_events} events"
    if watch.served_us < turn.state.resumed_us:  # with healing the whole house may have been started again
        return "nothing is known to have been served since healing itself was started"
    return ""


def fast(incident: Incident, watch: Watch, turn: Turn) -> Finding:
    """Latency is well: fewer slow events than the limit in the whole window."""
    lack = missing(watch, turn)
    if lack:
        return wait(lack)
    total = _total(watch, turn)
    if total.slow_share >= turn.params.slow_share:
        return wait(f"{total.slow_share:.1%} of events are slow")
    return proven(
        f"{total.n} events served, {total.slow_share:.1%} of them slow",
        events=total.n, slow_share=round(total.slow_share, 4), mean_ms=round(total.mean_ms, 3),
    )  # fmt: skip


def right(incident: Incident, watch: Watch, turn: Turn) -> Finding:
    """Accuracy is well: enough labels, and the error share back near what it was before the fault."""
    lack = missing(watch, turn)
    if lack:
        return wait(lack)
    total, params = _total(watch, turn), turn.params
    level = incident.error_level if incident.error_level is not None else _stated(incident, params.error_margin)
    if level is None:
        return wait("the error level before the fault is not known")
    if total.labels < params.proof_labels:
        return wait(f"{total.labels} of {params.proof_labels} labels")
    limit = level + params.error_margin
    if total.error_share > limit:
        return wait(f"error share {total.error_share:.3f} of {total.labels} labels, wanted at most {limit:.3f}")
    return proven(
        f"accuracy {1 - total.error_share:.3f} on {total.labels} labels, {1 - level:.3f} before the fault",
        labels=total.labels, error_share=round(total.error_share, 4), error_before=round(level, 4),
    )  # fmt: skip


def _stated(incident: Incident, margin: float) -> float | None:
    """Where nobody had labels before the fault: the level that the detector holds the model to, from its card, less the
    margin, so that no more is asked for than an end of the alarm. None if the alarm was about something else.
    """
    alert = incident.alert
    return max(alert.limit - margin, 0.0) if alert.statistic == "error_share" else None


def alive(incident: Incident, watch: Watch, turn: Turn) -> Finding:
    """The tasks of a dead process are well under a later generation, and what they serve is not slow."""
    lack = missing(watch, turn)
    vitals = turn.state.vitals
    if lack or vitals is None:
        return wait(lack)
    for task in served.concerned(watch, vitals):
        if task.state is not TaskState.OK or task.generation <= watch.processes.get(task.process, -1):
            return wait(f"{task.task} is {task.state} in generation {task.generation} of {task.process}")
        if task.backlog and task.turns <= watch.turns.get(task.task, 0):
            return wait(f"{task.task} has {task.backlog} rows waiting and makes no turns")
    pane, total = served.recent(turn.state.marks, 1), _total(watch, turn)
    if not pane.n:  # slow calls leave single panes empty
        pane = served.recent(turn.state.marks, SECOND_US // 2)
    if pane.n <= 0 or pane.slow_share >= turn.params.slow_share:
        return wait(f"{pane.slow} of {pane.n} newest events are slow")
    return proven(
        f"{total.n} events decided since, none of the newest slow",
        events=total.n, tasks=len(served.concerned(watch, vitals)),
    )  # fmt: skip


def no_drift(incident: Incident, watch: Watch, turn: Turn) -> Finding:
    """Every feature is near the reference of the model that serves, and its accuracy is back."""
    finding = right(incident, watch, turn)
    vitals = turn.state.vitals
    if finding.found is not Found.PROVEN or vitals is None:
        return finding
    model = watch.model or turn.config.model_version
    # The score's own distance raises no alarm, so it proves nothing either.
    rows = [row for row in vitals.drift if row.model == model and row.feature != "score"]
    if not rows or any(row.n < turn.params.drift_rows for row in rows):
        return wait(f"too few events against the reference of {model}")
    worst = max(rows, key=lambda row: row.psi - row.limit)
    if worst.psi >= worst.limit:
        return wait(f"{worst.feature}: PSI {worst.psi:.3f}, limit {worst.limit:.3f}")
    psi = max(row.psi for row in rows)
    return proven(f"PSI at most {psi:.3f}; {finding.text}", psi_max=round(psi, 4), **finding.data)


def slower(incident: Incident, watch: Watch, turn: Turn) -> str:
    """Guard: events take far longer than before, and the backlog does not shrink."""
    now, before, vitals = served.recent(turn.state.marks, _GUARD_US), incident.before, turn.state.vitals
    if vitals is None or now.n < _LEAST_GUARD or vitals.backlog < incident.backlog:
        return ""
    if now.slow_share >= max(before.slow_share, turn.params.slow_share) and now.mean_ms > 2 * before.mean_ms:
        return f"mean latency {now.mean_ms:.0f} ms, {before.mean_ms:.0f} ms before"
    return ""


def more_wrong(incident: Incident, watch: Watch, turn: Turn) -> str:
    """Guard: clearly more errors than the fault itself made, or a latency that was well and is not any more."""
    vitals = turn.state.vitals
    if vitals is None or not watch.visible_us:
        return ""
    now, before = _total(watch, turn), incident.before
    if min(now.labels, before.labels) >= _LEAST_GUARD and now.error_share > before.error_share + _WORSE_ERROR:
        return f"error share {now.error_share:.3f} of {now.labels} labels, {before.error_share:.3f} before"
    pane = served.recent(turn.state.marks, SECOND_US)
    if pane.n >= 2 * _LEAST_GUARD and pane.slow_share > _WORSE_SLOW and before.slow_share < turn.params.slow_share:
        return f"{pane.slow_share:.0%} of events are slow, {before.slow_share:.0%} before"
    return ""


def _total(watch: Watch, turn: Turn) -> Tally:
    vitals = turn.state.vitals
    return served.whole(served.window(watch, vitals).values()) if vitals else Tally()
