"""What has to happen sometimes: a simulator in which a fault never occurs, or a move is never made, proves nothing."""

from __future__ import annotations

from collections.abc import Mapping

from mendstream.contracts.agent import TaskId
from mendstream.contracts.incident import MOVES, Phase
from mendstream.contracts.records import IncidentStep, Verdict, VerdictKind
from mendstream.contracts.topics import Topic
from mendstream.simulation.faults import FAULTS
from mendstream.simulation.invariants import Invariant
from mendstream.simulation.log import Append
from mendstream.simulation.machine import Machine
from mendstream.simulation.story import Story

LEAST = 100
PER_SEEDS = 10_000
"""Each at least LEAST times in so many seeds."""
TAKEN_OVER = ("pipeline", "control")


def expected() -> tuple[str, ...]:
    """Everything that is counted."""
    return (
        *(f"fault {fault.name}" for fault in FAULTS),
        *(f"move {source} -> {to}" for source, targets in MOVES.items() for to in sorted(targets)),
        *(f"verdict {kind}" for kind in VerdictKind),
        *(f"take-over {wing}" for wing in TAKEN_OVER),
    )


def idle(counted: Mapping[str, int], seeds: int) -> dict[str, int]:
    """What happened too rarely in so many seeds: name -> how often. Empty below PER_SEEDS, where chance decides."""
    if seeds < PER_SEEDS:
        return {}
    least = LEAST * seeds // PER_SEEDS
    return {name: counted.get(name, 0) for name in expected() if counted.get(name, 0) < least}


class Sometimes(Invariant):
    """Breaks nothing: counts."""

    name = "sometimes"

    def __init__(self, machine: Machine, story: Story) -> None:
        super().__init__(machine, story)
        self._phase: dict[tuple[str, bool], Phase] = {}

    def appended(self, append: Append) -> None:
        if append.stream.topic is Topic.INCIDENT_LOG:
            for record in append.records:
                if isinstance(record, IncidentStep):
                    self._moved(record)
        elif append.stream.topic is Topic.POLICY_DECISIONS:
            for record in append.records:
                if isinstance(record, Verdict):
                    self.machine.count(f"verdict {record.verdict}")

    def _moved(self, step: IncidentStep) -> None:
        key = (step.incident.incident_id, bool(step.data.get("way_back")))
        before, now = self._phase.get(key), Phase(step.phase)
        if before is not None and before is not now:
            self.machine.count(f"move {before} -> {now}")
        self._phase[key] = now

    def claimed(self, task: TaskId, epoch: int, process: str, generation: int) -> None:
        if epoch > 1:
            control = task.agent in ("joiner", "judge", "healing", "policy", "trainer", "supervisor")
            self.machine.count(f"take-over {'control' if control else 'pipeline'}")
