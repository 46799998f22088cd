"""A failing plan in, a smaller one that fails in the same way out: delta debugging over its faults and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mendstream.chaos.plan import Injection, Plan
from mendstream.simulation.schedule import Run

RUNS_MOST = 120


def shrink(plan: Plan, invariant: str, *, run: Callable[[Plan], Sequence[str]] | None = None) -> Plan:
    """`run`: the invariants that a plan breaks. The answer still breaks `invariant`."""
    breaks = run or broken_by
    left = RUNS_MOST

    def fails(candidate: Plan) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and invariant in breaks(candidate)

    def with_faults(faults: Sequence[Injection]) -> Plan:
        return msgspec.structs.replace(plan, injections=tuple(faults))

    plan = with_faults(_fewest(plan.injections, lambda faults: fails(with_faults(faults))))
    for field in ("settings", "habits", "people"):
        plan = _plainer(plan, field, fails)
    return _shorter(plan, fails)


def broken_by(plan: Plan) -> list[str]:
    return [violation.invariant for violation in Run(plan)().violations]


def _fewest(items: Sequence[Injection], fails: Callable[[Sequence[Injection]], bool]) -> Sequence[Injection]:
    """ddmin (Zeller and Hildebrandt, 2002), complements only: drop ever smaller parts while it still fails."""
    parts = 2
    while items:
        size = -(-len(items) // parts)
        for start in range(0, len(items), size):
            rest = [*items[:start], *items[start + size :]]
            if fails(rest):
                items, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                return items
            parts = min(2 * parts, len(items))
    return items


def _plainer(plan: Plan, field: str, fails: Callable[[Plan], bool]) -> Plan:
    """Without what need not be said."""
    held: dict[str, Any] = dict(getattr(plan, field))
    for name in list(held):
        rest = {key: value for key, value in held.items() if key != name}
        candidate = msgspec.structs.replace(plan, **{field: rest})
        if fails(candidate):
            held, plan = rest, candidate
    return plan


def _shorter(plan: Plan, fails: Callable[[Plan], bool]) -> Plan:
    """Faults that last half as long, while that is enough."""
    for place, injection in enumerate(plan.injections):
        while injection.for_ms is not None and injection.for_ms > 100:
            injection = msgspec.structs.replace(injection, for_ms=(injection.for_ms or 0) // 2)
            faults = (*plan.injections[:place], injection, *plan.injections[place + 1 :])
            candidate = msgspec.structs.replace(plan, injections=faults)
            if not fails(candidate):
                break
            plan = candidate
    return plan
