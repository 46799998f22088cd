"""Faults go into a real house at 500 events a second; from onset to detected, acted and verified comes out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from mendstream.bench import ground
from mendstream.bench.figures import Figure, Report
from mendstream.contracts.errors import CouldNot
from mendstream.contracts.ports import Bus
from mendstream.contracts.topics import Stream, Topic
from mendstream.demo.scenario import ACTOR, Attempt, Ending, Story, demo_settings, register_models, tell
from mendstream.runtime.ground import embedded, open_bus
from mendstream.runtime.inject import inject
from mendstream.runtime.supervisor import House
from mendstream.settings import Settings

WANTED: dict[str, float] = {
    "slow-model": 4.0,
    "bad-model": 6.0,
    "dead-agent": 4.0,
    "stuck-agent": 7.0,
    "drift": 20.0,
}
"""Fault -> seconds from onset to verified, the proof of cure included."""
WANTED_ON_KAFKA = {"slow-model": 3.0, "bad-model": 5.0, "dead-agent": 5.0, "stuck-agent": 6.0, "drift": 20.0}


class Healed(NamedTuple):
    """One fault in one house; seconds from its onset, None for what did not happen."""

    ending: str
    detected_s: float | None
    acted_s: float | None
    verified_s: float | None
    actions: list[str]
    control_incidents: int
    """While nothing was done to the house: false alarms."""
    extra_incidents: int
    """Others than the one that the fault had to cause."""


def measure(runs: int, note: Callable[[str], None], *, servers: str = "", store: str = "") -> Report:
    """`servers`: of a Kafka broker; none, and the log is in the data directory. `store`: of a PostgreSQL server; none,
    and the store is in SQLite.
    """
    found = {fault: [_noted(fault, n, runs, note, servers, store) for n in range(runs)] for fault in WANTED}
    wanted = WANTED_ON_KAFKA if servers else WANTED
    figures = {
        name: figure
        for fault, healed in found.items()
        for name, figure in _figures(fault, healed, wanted[fault]).items()
    }
    every = [run for healed in found.values() for run in healed]
    figures["control_incidents"] = Figure(
        what="incidents before anything was done to the house", unit="", most=0,
        runs=tuple(float(run.control_incidents) for run in every),
    )  # fmt: skip
    details = {
        "actions": {fault: [" ".join(run.actions) for run in healed] for fault, healed in found.items()},
        "endings": {fault: [run.ending for run in healed] for fault, healed in found.items()},
        "extra_incidents": {fault: [run.extra_incidents for run in healed] for fault, healed in found.items()},
        "bus": "kafka" if servers else "lmdb",
    }
    return Report(bench="mttr", figures=figures, details=details)


def _figures(fault: str, healed: Sequence[Healed], wanted: float) -> dict[str, Figure]:
    """Only what was RESOLVED counts as verified."""
    return {
        f"{fault}_verified_s": Figure(what="onset to verified in the serving path", unit="s",
                                      runs=tuple(run.verified_s for run in healed), most=wanted),
        f"{fault}_acted_s": Figure(what="onset to the first remedy", unit="s",
                                   runs=tuple(run.acted_s for run in healed)),
        f"{fault}_detected_s": Figure(what="onset to the incident", unit="s",
                                      runs=tuple(run.detected_s for run in healed)),
    }  # fmt: skip


def _noted(fault: str, n: int, runs: int, note: Callable[[str], None], servers: str, store: str) -> Healed:
    found = once(fault, seed=n, servers=servers, store=store)
    times = ", ".join(
        f"{word} {'-' if at is None else f'{at:.2f} s'}"
        for word, at in (("detected", found.detected_s), ("acted", found.acted_s), ("verified", found.verified_s))
    )
    note(f"{fault}, run {n + 1} of {runs}: {found.ending}, {times}")
    return found


def once(fault: str, *, seed: int, servers: str = "", store: str = "") -> Healed:
    """A fresh house, healthy for as long as the demo's control, then the fault. Raises what has made the house fail."""
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(ground.folder())
        settings = demo_settings(str(root), fuse=False, seed=seed, metrics=False)
        if servers:
            from mendstream.bench.broker import broker

            settings = stack.enter_context(broker(servers)).holds(settings)
        if store:
            from mendstream.bench.database import database

            kept = msgspec.structs.replace(settings.store, url=stack.enter_context(database(store)))
            settings = msgspec.structs.replace(settings, store=kept)
        register_models(settings)
        story = Story((fault,))
        house = stack.enter_context(House(settings))
        bus = stack.enter_context(_looking(settings, house))
        telling = tell(
            story, lambda name, on: inject(settings, name, {}, on, ACTOR, bus=bus), lambda text: None
        )  # fmt: skip
        story.started_us = story.now_us = _now_us()
        while house.failure is None and not story.over:
            house.step()
            story.now_us = _now_us()
            story.first_decision_us = story.first_decision_us or ground.first_decision_us(bus)
            story.news.read(bus)
            next(telling, None)
            if story.first_decision_us is None and story.now_us - story.started_us > ground.START_S * 1e6:
                raise CouldNot(f"no decision within {ground.START_S:.0f} s", hint="see `mendstream doctor`")
    if house.failure is not None:
        raise house.failure
    return _healed(story, story.attempts[0])


@contextlib.contextmanager
def _looking(settings: Settings, house: House) -> Iterator[Bus]:
    """How the bench looks into the log. On Kafka by eyes of its own, which fetch ahead: else each look is a question to
    the broker, and the supervisor, which is served in between, would wait for the answer.
    """
    if embedded(settings):
        yield house._bus  # a log may be opened once in a process
        return
    read = [Stream(Topic.VITALS, 0), Stream(Topic.INCIDENT_LOG, 0)]
    with contextlib.closing(open_bus(settings)) as bus, contextlib.closing(bus.listen("bench", read)):
        yield bus


def _healed(story: Story, attempt: Attempt) -> Healed:
    case = attempt.case
    resolved = case.head.resolved_at_us if case is not None and attempt.ending is Ending.RESOLVED else None
    return Healed(
        ending=str(attempt.ending),
        detected_s=_since(attempt, case.head.detected_at_us if case else None),
        acted_s=_since(attempt, case.acted_at_us if case else None),
        verified_s=_since(attempt, resolved),
        actions=[row.proposed_action.kind.value for row in case.actions.values()] if case else [],
        control_incidents=story.control_incidents,
        extra_incidents=len(attempt.extra),
    )


def _since(attempt: Attempt, at_us: int | None) -> float | None:
    return None if at_us is None or attempt.onset_us is None else (at_us - attempt.onset_us) / 1e6


def _now_us() -> int:
    return time.time_ns() // 1000
