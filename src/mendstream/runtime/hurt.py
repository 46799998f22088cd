"""A plan of faults into a live house, each at its moment; what was done out. The simulator takes the same plans."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from mendstream.chaos.faults import How, fault, with_defaults
from mendstream.chaos.plan import Injection, Plan
from mendstream.contracts.errors import MendstreamError, UsageError

Put = Callable[[Injection, bool], str]
"""(what, in or out) -> what was done, for people. Raises MendstreamError."""


class Done(NamedTuple):
    at_ms: int
    fault: str
    on: bool
    told: str
    ok: bool
    """Whether it could be done: a process that is to die may just have died."""


class _Moment(NamedTuple):
    at_ms: int
    order: int
    injection: Injection
    on: bool


def hurt(plan: Plan, put: Put, wait_until: Callable[[int], None]) -> Iterator[Done]:
    """`wait_until`: sleeps until so many milliseconds after the start. Raises UsageError before anything is done."""
    for at_ms, _, injection, on in _moments(plan):
        wait_until(at_ms)
        try:
            told, ok = put(injection, on), True
        except MendstreamError as error:
            told, ok = str(error), False
        yield Done(at_ms, injection.fault, on, told, ok)


def _moments(plan: Plan) -> list[_Moment]:
    found: list[_Moment] = []
    for order, injection in enumerate(plan.injections):
        row = fault(injection.fault)
        with_defaults(row, injection.params)
        if injection.point:
            raise UsageError(
                f"{injection.fault} waits for {injection.point!r}, a point of the code",
                hint="only `mendstream simulate --replay FILE` can wait for that",
            )
        found.append(_Moment(injection.at_ms, order, injection, True))
        lasts = row.how is How.RECORD or row.name == "stuck-agent"
        if lasts and injection.for_ms is not None:
            found.append(_Moment(injection.at_ms + injection.for_ms, order, injection, False))
    return sorted(found, key=lambda moment: (moment.at_ms, moment.order))
