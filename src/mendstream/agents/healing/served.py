"""Reading vitals: what was served by which versions, since when, and how well. Totals in, differences out."""

from __future__ import annotations

from collections.abc import Iterable

from mendstream.agents.healing.params import SECOND_US, HealingParams
from mendstream.agents.healing.state import Baseline, Mark, Tally, Watch, WayBack
from mendstream.contracts.records import PANE_US, Served, TaskState, TaskVital, Vitals

SERVING = ("live", "fallback")
_MARKS_US = 10 * SECOND_US
_AGE_US = 10 * SECOND_US
_FORGET = 8000
_LEAST_BAD = 20
_FRESH_US = 650_000
"""A pane is closed 0.15 to 0.4 s after its end, unless the judge is late."""


def until(vitals: Vitals) -> int:
    """Serving time up to which `vitals` tells."""
    return (vitals.pane + 1) * PANE_US


def tally(row: Served) -> Tally:
    return Tally(row.n, row.slow, row.latency_ms_sum, row.labels, row.errors)


def whole(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for one in tallies:
        total = total + one
    return total


def per_task(vitals: Vitals, *, config: int = 0, model: str = "", arms: tuple[str, ...] = SERVING) -> dict[str, Tally]:
    """Totals per task of the rows that were made by these versions."""
    found: dict[str, Tally] = {}
    for row in vitals.served:
        if row.arm in arms and row.config >= config and (not model or row.model == model):
            held = found.get(row.task)
            found[row.task] = tally(row) if held is None else held + tally(row)
    return found


def serving(vitals: Vitals) -> Tally:
    """Totals of what was decided, by the model or by the fallback."""
    return whole(per_task(vitals).values())


def owners(vitals: Vitals) -> list[TaskVital]:
    """The decision tasks with their current owners."""
    return [task for task in vitals.tasks if task.task.startswith("decision/")]


def busy(vitals: Vitals) -> list[TaskVital]:
    """The same without partitions that no key has ever fallen into: they owe no proof."""
    ever = {row.task for row in vitals.served if row.n > 0}
    return [task for task in owners(vitals) if task.task in ever or task.backlog]


def watched(watch: Watch, vitals: Vitals) -> dict[str, Tally]:
    return per_task(vitals, config=watch.config, model=watch.model, arms=watch.arms)


def window(watch: Watch, vitals: Vitals) -> dict[str, Tally]:
    """Per task, what was served within the window."""
    return {task: total - watch.base.get(task, Tally()) for task, total in watched(watch, vitals).items()}


def concerned(watch: Watch, vitals: Vitals) -> list[TaskVital]:
    """The tasks that the watched processes have or had."""
    return [task for task in vitals.tasks if task.task in watch.tasks or task.process in watch.processes]


def observe(watch: Watch, vitals: Vitals, params: HealingParams) -> None:
    """Fold one pane into the window: open it once the effect is visible, open it anew while it is slow."""
    now = watched(watch, vitals)
    if watch.processes and _owners(watch, vitals) != watch.owners:
        watch.visible_us = 0
    if not watch.visible_us:
        if not _visible(watch, vitals, now):
            return
        watch.visible_us = until(vitals)
        # No row of a new config version is older than the change: all of them count.
        _open(watch, vitals, {} if watch.config else now)
    n = whole(now.values()).n
    if n > watch.n:
        watch.n, watch.served_us = n, until(vitals)
    if watch.speed:
        served = whole(window(watch, vitals).values())
        if served.n >= _LEAST_BAD and served.slow_share >= params.slow_share:
            _open(watch, vitals, now)


def reopen(watch: Watch, vitals: Vitals) -> None:
    """Start the window anew, if there is one: what it has so far is not evidence of one kind."""
    if watch.visible_us:
        _open(watch, vitals, watched(watch, vitals))


def _open(watch: Watch, vitals: Vitals, base: dict[str, Tally]) -> None:
    watch.since_us = watch.served_us = until(vitals)
    watch.base = base
    watch.rival = serving(vitals)
    watch.turns = {task.task: task.turns for task in concerned(watch, vitals)}
    watch.owners = _owners(watch, vitals)


def _owners(watch: Watch, vitals: Vitals) -> dict[str, int]:
    return {task.task: task.generation for task in concerned(watch, vitals)} if watch.processes else {}


def _visible(watch: Watch, vitals: Vitals, now: dict[str, Tally]) -> bool:
    if watch.processes:
        if vitals.at_us - until(vitals) > _FRESH_US:
            return False  # a late judge shows tasks as they are now, in a pane that had ended before they were so
        tasks = concerned(watch, vitals)
        return bool(tasks) and all(
            task.state is TaskState.OK and task.generation > watch.processes.get(task.process, -1) for task in tasks
        )
    if not watch.config:
        return True
    if not watch.every:
        return bool(now)
    current = busy(vitals)
    return bool(current) and all(task.config >= watch.config and task.task in now for task in current)


def mark(marks: list[Mark], vitals: Vitals) -> None:
    """Keep the totals of the last seconds, for before-images and the last pane."""
    marks.append(Mark(until(vitals), serving(vitals)))
    oldest = marks[-1].until_us - _MARKS_US
    while marks[0].until_us < oldest:
        del marks[0]


def recent(marks: list[Mark], span_us: int) -> Tally:
    """What was served in the newest `span_us`, or in as much of it as is known."""
    if not marks:
        return Tally()
    start = marks[-1].until_us - span_us
    base = marks[0]
    for held in reversed(marks):
        base = held
        if held.until_us <= start:
            break
    return marks[-1].total - base.total


def learn(baseline: Baseline, vitals: Vitals, *, calm: bool) -> None:
    """Fold the live arm's labels of a calm pane into the healthy error level."""
    totals: dict[str, tuple[int, int]] = {}
    for row in vitals.served:
        if row.arm == "live":
            labels, errors = totals.get(row.model, (0, 0))
            totals[row.model] = (labels + row.labels, errors + row.errors)
    for model, (labels, errors) in totals.items():
        before = baseline.seen.get(model, (0, 0))
        if calm and labels > before[0]:
            baseline.fresh.append((until(vitals), model, labels - before[0], errors - before[1]))
    baseline.seen = totals
    if calm:
        _age(baseline, until(vitals) - _AGE_US)


def _age(baseline: Baseline, before_us: int) -> None:
    while baseline.fresh and baseline.fresh[0][0] <= before_us:
        _, model, labels, errors = baseline.fresh.pop(0)
        held = baseline.aged.get(model, (0, 0))
        total = (held[0] + labels, held[1] + errors)
        baseline.aged[model] = (total[0] // 2, total[1] // 2) if total[0] > _FORGET else total


def error_level(baseline: Baseline, good: str, bad: str, least: int) -> float | None:
    """The error share in healthy times; None if too few labels tell it.

    First of `good` (the version that is to serve), then of all versions but `bad`, then of `bad` itself, as it was
    before the newest seconds. Without a `bad` one the newest seconds of all are in doubt.
    """
    fresh = [(labels, errors) for _, name, labels, errors in baseline.fresh if bad and name != bad]
    pools = (
        [baseline.aged.get(good, (0, 0))] if good != bad else [],
        [pair for name, pair in baseline.aged.items() if name != bad] + fresh,
        list(baseline.aged.values()),
    )
    for pool in pools:
        labels = sum(pair[0] for pair in pool)
        if labels >= least:
            return sum(pair[1] for pair in pool) / labels
    return None


def probe(back: WayBack, vitals: Vitals, model: str) -> None:
    """Fold the probes of one pane: how many calls since the hold, and since when none was slow."""
    rows = [row for row in vitals.probes if not model or row.model == model]
    calls, slow = sum(row.n for row in rows), sum(row.slow for row in rows)
    if back.calls0 < 0 or calls < back.calls:  # the first look, or another model: its count starts anew
        back.calls0, back.calls, back.slow = calls, calls, slow
        back.quiet_since_us = 0
        return
    if calls > back.calls:
        back.last_call_us = until(vitals)
        if slow > back.slow:
            back.quiet_since_us = 0
        elif not back.quiet_since_us:
            back.quiet_since_us = until(vitals)
    back.calls, back.slow = calls, slow
