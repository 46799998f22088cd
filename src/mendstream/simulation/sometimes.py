"""What has to happen sometimes: a simulator in which a fault never occurs, or a move is never made, proves nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from mendstream.agents.healing import log as healing_log
from mendstream.contracts.agent import TaskId
from mendstream.contracts.incident import MOVES, Phase, move
from mendstream.contracts.records import Verdict, VerdictKind
from mendstream.contracts.topics import Topic
from mendstream.simulation.bugs.base import replaced
from mendstream.simulation.faults import FAULTS
from mendstream.simulation.invariants import Invariant
from mendstream.simulation.log import Append
from mendstream.simulation.machine import Machine

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


@contextmanager
def counting_moves(machine: Machine) -> Iterator[None]:
    """Count each move where it is made: some are followed by the next before the log tells of them."""

    def counted(now: Phase, to: Phase) -> Phase:
        machine.count(f"move {now} -> {to}")
        return move(now, to)

    with replaced(healing_log, "move", counted):
        yield


class Sometimes(Invariant):
    """Breaks nothing: counts."""

    name = "sometimes"
    topics = (Topic.POLICY_DECISIONS,)

    def appended(self, append: Append) -> None:
        for record in append.records:
            if isinstance(record, Verdict):
                self.machine.count(f"verdict {record.verdict}")

    def claimed(self, task: TaskId, epoch: int, process: str, generation: int) -> None:
        if epoch > 1:
            control = task.agent in ("joiner", "judge", "healing", "policy", "trainer", "supervisor")
            self.machine.count(f"take-over {'control' if control else 'pipeline'}")
